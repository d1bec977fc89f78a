//! The volumes of a store: those it was opened with, and those that came later. None ever leaves: a failed one stays, out
//! of service, so that a replica's volume number means one folder as long as the process runs.
//!
//! New replicas go to volumes in proportion to what is left on each, in an even sequence: an emptier volume fills faster,
//! and equal ones get equal shares.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use proto::granary::VolumeStatus;
use proto::{BlockId, Code, Error, Result};
use tokio::sync::Notify;

use super::load::{self, Found};
use crate::config::{Config, VOLUMES_MAX};
use crate::index::{Index, Touch};
use crate::layout::Folder;
use crate::volume::{Promise, Volume, VolumeSettings};

/// A volume and its index.
pub struct Disk {
    /// The folder.
    pub volume: Arc<Volume>,
    /// What makes a restart cheap.
    pub index: Index,
    /// Blocks whose index entry may be old.
    pub changed: Mutex<HashSet<BlockId>>,
}

/// All volumes.
pub struct Disks {
    slots: Box<[OnceLock<Disk>]>,
    count: AtomicUsize,
    /// One is added at a time.
    adding: Mutex<()>,
    /// Folders that could not be opened, and why.
    unusable: Mutex<Vec<(PathBuf, Error)>>,
    tickets: AtomicU64,
    settings: VolumeSettings,
    index_cache_bytes: u64,
    uuid: String,
    /// Told when a volume fails.
    pub failure: Arc<Notify>,
}

impl Disks {
    /// No volumes yet, of the DataNode with this uuid.
    pub fn new(config: &Config, uuid: String) -> Self {
        Self {
            slots: (0..VOLUMES_MAX).map(|_| OnceLock::new()).collect(),
            count: AtomicUsize::new(0),
            adding: Mutex::default(),
            unusable: Mutex::default(),
            tickets: AtomicU64::new(0),
            settings: VolumeSettings::from(config),
            index_cache_bytes: config.index_cache_bytes,
            uuid,
            failure: Arc::default(),
        }
    }

    /// Opens a volume and finds its replicas. Blocks. A volume that is in use or foreign is an error.
    pub fn open(&self, root: &Path) -> Result<(&Disk, Found)> {
        let _one = self.adding.lock().expect("nobody panics while adding a volume");
        let place = self.count.load(Ordering::Acquire);
        let number = u8::try_from(place).ok().filter(|_| place < VOLUMES_MAX).ok_or_else(|| {
            Error::new(Code::LimitExceeded, format!("a DataNode has at most {VOLUMES_MAX} volumes"))
        })?;
        let volume = Volume::open(root, number, self.settings, &self.uuid, self.failure.clone())?;
        let volume = Arc::new(volume);
        let opened = Index::open(&crate::volume::index_path(root), self.index_cache_bytes)?;
        let (disk, found) = load::load(volume, opened)?;
        let disk = self.slots[place].get_or_init(|| disk);
        self.unusable().retain(|(path, _)| path != root);
        self.count.store(place + 1, Ordering::Release);
        Ok((disk, found))
    }

    /// Remembers a folder that could not be opened.
    pub fn give_up(&self, root: &Path, error: Error) {
        tracing::error!(volume = %root.display(), %error, "a volume is not used");
        self.unusable().push((root.to_owned(), error));
    }

    /// The volume with this number.
    pub fn get(&self, number: u8) -> &Disk {
        self.slots[usize::from(number)].get().expect("a volume's number is given once it is there")
    }

    /// All of them, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Disk> {
        let count = self.count.load(Ordering::Acquire);
        self.slots[..count].iter().filter_map(OnceLock::get)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// How many are out of service.
    pub fn failed_count(&self) -> usize {
        self.iter().filter(|disk| disk.volume.is_failed()).count() + self.unusable().len()
    }

    /// As the heartbeat tells them; behind them those that could not be opened.
    pub fn statuses(&self) -> Vec<VolumeStatus> {
        let mut statuses: Vec<_> = self.iter().map(|disk| disk.volume.status()).collect();
        statuses.extend(self.unusable().iter().map(|(path, error)| VolumeStatus {
            id: path.display().to_string(),
            failed: true,
            error: error.to_string(),
            ..Default::default()
        }));
        statuses
    }

    /// A volume that has `bytes` left.
    pub fn choose(&self, bytes: u64) -> Result<(&Disk, Promise)> {
        let disks: Vec<&Disk> = self.iter().collect();
        let left: Vec<u64> = disks
            .iter()
            .map(|disk| if disk.volume.is_failed() { 0 } else { disk.volume.remaining_bytes() })
            .map(|left| if left < bytes { 0 } else { left })
            .collect();
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let start = pick(&left, ticket).unwrap_or(0);
        let mut why = None;
        for step in 0..disks.len() {
            let disk = disks[(start + step) % disks.len()];
            match disk.volume.promise(bytes) {
                Ok(promise) => return Ok((disk, promise)),
                Err(error) => why = Some(error),
            }
        }
        Err(why.unwrap_or_else(|| Error::new(Code::NoSpace, "this DataNode has no volume")))
    }

    fn unusable(&self) -> std::sync::MutexGuard<'_, Vec<(PathBuf, Error)>> {
        self.unusable.lock().expect("nobody panics while holding it")
    }
}

impl Disk {
    /// Announces a change in a block's sub-folder.
    pub fn touch(&self, block: BlockId) -> Result<Touch> {
        self.index.touch([Folder::of(block)]).inspect_err(|error| {
            self.volume.fail(&error.message);
        })
    }
}

/// Which place gets the ticket: each as often as its weight says. `None` if there is no weight.
///
/// Multiples of the golden ratio, modulo 1, fall evenly whatever their number is.
fn pick(weights: &[u64], ticket: u64) -> Option<usize> {
    let sum: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    let place = ticket.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let at = (u128::from(place) * sum) >> 32;
    let mut end = 0;
    weights.iter().position(|&weight| {
        end += u128::from(weight);
        at < end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_picked_as_often_as_their_weights_say() {
        for (weights, expected) in [
            (&[1, 1][..], &[500, 500][..]),
            (&[3 << 40, 1 << 40], &[750, 250]),
            (&[0, 5, 0], &[0, 1000, 0]),
            (&[u64::MAX, u64::MAX, u64::MAX, u64::MAX], &[250; 4]),
        ] {
            let mut counts = vec![0u32; weights.len()];
            for ticket in 0..1000 {
                counts[pick(weights, ticket).unwrap()] += 1;
            }
            for (count, expected) in counts.iter().zip(expected) {
                assert!(count.abs_diff(*expected) <= 3, "{counts:?} for {weights:?}");
            }
        }
        assert_eq!(pick(&[0, 0], 7), None);
        assert_eq!(pick(&[], 7), None);
    }
}
