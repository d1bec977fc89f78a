//! Start: what the index and the folders say of a volume's replicas.
//!
//! Only the sub-folders that the index is unsure of are scanned, and the folder of half-written replicas, which is
//! small. A rename that a crash cut in two (a replica has two files) is completed. Half-written replicas get the
//! length that their checksums confirm. Files of transfers are removed: the NameNode asks again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use proto::{BlockId, Error, GenerationStamp, Result};
use transfer::{Checksum, meta};

use super::Store;
use super::disks::Disk;
use crate::files::{self, Paths};
use crate::index::{Entry, Opened, Rescan};
use crate::layout::{self, FileName, Folder};
use crate::map::{Compact, Slot};
use crate::open_replica::{OpenReplica, Place};
use crate::replica::Replica;
use crate::volume::Volume;

/// What a start found, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadSummary {
    /// Finished replicas.
    pub finalized: usize,
    /// Half-written ones.
    pub waiting: usize,
    /// Sub-folders that were scanned.
    pub folders_scanned: usize,
    /// Files that belong to no whole replica.
    pub strays: usize,
}

/// What one volume has.
#[derive(Default)]
pub struct Found {
    finalized: Vec<(BlockId, Entry)>,
    waiting: Vec<(BlockId, GenerationStamp, u64)>,
    folders_scanned: usize,
    strays: usize,
}

/// The files of one block in one folder.
#[derive(Default, Debug)]
struct Pieces {
    data: Option<u64>,
    meta: Option<(GenerationStamp, u64)>,
}

type Listing = BTreeMap<BlockId, Pieces>;

/// Finds a volume's replicas.
pub fn load(volume: Arc<Volume>, opened: Opened) -> Result<(Disk, Found)> {
    let Opened { index, entries, unsure, rescan } = opened;
    let mut changed: HashSet<BlockId> = unsure.into_iter().collect();
    let folders: BTreeSet<Folder> = match rescan {
        Rescan::Folders(folders) => folders,
        Rescan::All(why) => {
            tracing::info!(volume = %volume.root().display(), why, "the replica index is built anew");
            Folder::all().collect()
        }
    };
    let mut found = Found { finalized: entries, ..Found::default() };
    for folder in [layout::tmp_path(volume.root()), layout::moving_path(volume.root())] {
        remove_all(&folder, &mut found)?;
    }
    let mut rbw = list(&layout::rbw_path(volume.root()))?;
    for folder in &folders {
        let path = folder.path(volume.root());
        if !path.exists() {
            continue;
        }
        found.folders_scanned += 1;
        let first = found.finalized.len();
        scan_folder(&volume, *folder, &path, &mut rbw, &mut found)?;
        changed.extend(found.finalized[first..].iter().map(|(block, _)| *block));
    }
    for (block, pieces) in rbw {
        take_half_written(&volume, block, &pieces, &mut found)?;
    }
    Ok((Disk { volume, index, changed: Mutex::new(changed) }, found))
}

impl Store {
    /// Puts what a volume has into the map. Of two replicas of a block the newer generation counts.
    pub(super) fn take_in(&self, disk: &Disk, found: Found, summary: &mut LoadSummary) {
        summary.folders_scanned += found.folders_scanned;
        summary.strays += found.strays;
        let number = disk.volume.number();
        for (block, entry) in found.finalized {
            let compact = Compact::new(entry.stamp, entry.length, number);
            if self.take_in_one(block, Slot::Finalized(compact), entry.stamp) {
                disk.volume.add_used(u64::from(entry.length));
                summary.finalized += 1;
            } else if self.is_copy(block, compact) {
                // A move between volumes was cut in two.
                match self.remove_copy(disk, block, compact) {
                    Ok(()) => summary.strays += 1,
                    Err(error) => tracing::warn!(%block, %error, "a second copy was not removed"),
                }
            }
        }
        for (block, stamp, length) in found.waiting {
            let replica = Replica::waiting(block, stamp, length);
            let open = OpenReplica::new(&disk.volume, replica, Place::Rbw, None);
            if self.take_in_one(block, Slot::Open(Arc::new(open)), stamp) {
                disk.volume.add_used(length);
                summary.waiting += 1;
            }
        }
    }

    /// Whether the map names another finished replica of the block that is the same.
    fn is_copy(&self, block: BlockId, of: Compact) -> bool {
        let Some(Slot::Finalized(other)) = self.map.get(block) else { return false };
        (other.stamp, other.length) == (of.stamp, of.length) && other.volume() != of.volume()
    }

    fn take_in_one(&self, block: BlockId, slot: Slot, stamp: GenerationStamp) -> bool {
        self.map.change(block, |map| {
            if let Some(other) = map.get(&block) {
                tracing::warn!(%block, "two replicas on this DataNode: the newer generation counts");
                if super::slot_stamp(other) >= stamp {
                    return false;
                }
                if let Slot::Finalized(other) = other {
                    let volume = &self.disk(other.volume()).volume;
                    volume.subtract_used(u64::from(other.length));
                }
            }
            map.insert(block, slot);
            true
        })
    }
}

/// Lists the replica files of a folder. Other names are left alone.
fn list(path: &Path) -> Result<Listing> {
    let failed = |error: std::io::Error| Error::io(format_args!("list {}", path.display()), &error);
    let mut listing = Listing::new();
    for item in std::fs::read_dir(path).map_err(failed)? {
        let item = item.map_err(failed)?;
        let Some(name) = item.file_name().to_str().and_then(FileName::parse) else { continue };
        let bytes = item.metadata().map_err(failed)?.len();
        let pieces = listing.entry(name.block()).or_default();
        match name {
            FileName::Data(_) => pieces.data = Some(bytes),
            FileName::Meta(_, stamp) if pieces.meta.is_none_or(|(other, _)| other < stamp) => {
                pieces.meta = Some((stamp, bytes));
            }
            FileName::Meta(..) | FileName::Synced(_) => {}
        }
    }
    Ok(listing)
}

fn scan_folder(
    volume: &Volume,
    folder: Folder,
    path: &Path,
    rbw: &mut Listing,
    found: &mut Found,
) -> Result<()> {
    for (block, pieces) in list(path)? {
        if Folder::of(block) != folder {
            found.strays += 1;
            tracing::warn!(%block, path = %path.display(), "a replica in a foreign folder is left alone");
            continue;
        }
        match (pieces.data, pieces.meta) {
            (Some(bytes), Some((stamp, meta_bytes))) => {
                // Whatever else there is of it in rbw is older: a rename puts a name in one place.
                if let Some(left) = rbw.remove(&block) {
                    remove_pieces(volume, block, &left, found)?;
                }
                take_finalized(block, stamp, bytes, meta_bytes, path, found);
            }
            (None, Some((stamp, meta_bytes))) => {
                match rbw.get(&block) {
                    // Finishing it was cut in two: both files are synced, complete the second rename.
                    Some(Pieces { data: Some(bytes), meta: None }) => {
                        let bytes = *bytes;
                        move_file(
                            volume,
                            &layout::rbw_path(volume.root()),
                            path,
                            &layout::data_name(block),
                        )?;
                        rbw.remove(&block);
                        take_finalized(block, stamp, bytes, meta_bytes, path, found);
                    }
                    // A deletion was cut in two.
                    _ => remove(&path.join(layout::meta_name(block, stamp)), found)?,
                }
            }
            (Some(bytes), None) => match rbw.get_mut(&block) {
                // Opening it for an append was cut in two: complete the second rename.
                Some(half) if half.data.is_none() && half.meta.is_some() => {
                    move_file(
                        volume,
                        path,
                        &layout::rbw_path(volume.root()),
                        &layout::data_name(block),
                    )?;
                    half.data = Some(bytes);
                }
                _ => {
                    found.strays += 1;
                    tracing::warn!(%block, path = %path.display(), "a replica without checksums is left alone");
                }
            },
            (None, None) => {}
        }
    }
    Ok(())
}

fn take_finalized(
    block: BlockId,
    stamp: GenerationStamp,
    bytes: u64,
    meta_bytes: u64,
    path: &Path,
    found: &mut Found,
) {
    let fits = |checksum: Checksum| meta_bytes == meta::file_bytes(checksum, bytes);
    // Nearly all are of the native kind: only for others the header is read.
    let is_whole = fits(Checksum::NATIVE) || {
        let path = path.join(layout::meta_name(block, stamp));
        File::open(&path).is_ok_and(|meta| files::read_header(&meta, &path).is_ok_and(fits))
    };
    let length = u32::try_from(bytes).ok();
    let Some(length) = length.filter(|_| is_whole) else {
        found.strays += 1;
        tracing::warn!(%block, bytes, meta_bytes, path = %path.display(),
            "a replica whose files do not fit each other is not served");
        return;
    };
    found.finalized.push((block, Entry { stamp, length }));
}

fn take_half_written(
    volume: &Volume,
    block: BlockId,
    pieces: &Pieces,
    found: &mut Found,
) -> Result<()> {
    let (Some(_), Some((stamp, _))) = (pieces.data, pieces.meta) else {
        return remove_pieces(volume, block, pieces, found);
    };
    let paths = Paths::new(&layout::rbw_path(volume.root()), block, stamp);
    let length = files::confirmed_length(&paths)?;
    files::settle(&paths, length)
        .map_err(|error| volume.io_error(format_args!("cut {}", paths.data.display()), &error))?;
    found.waiting.push((block, stamp, length));
    Ok(())
}

/// Removes what is in rbw of a block that is no replica.
fn remove_pieces(
    volume: &Volume,
    block: BlockId,
    pieces: &Pieces,
    found: &mut Found,
) -> Result<()> {
    let folder = layout::rbw_path(volume.root());
    let meta = pieces.meta.map(|(stamp, _)| layout::meta_name(block, stamp));
    for name in [Some(layout::data_name(block)), meta, Some(layout::synced_name(block))] {
        if let Some(path) = name.map(|name| folder.join(name)).filter(|path| path.exists()) {
            remove(&path, found)?;
        }
    }
    Ok(())
}

fn remove_all(folder: &Path, found: &mut Found) -> Result<()> {
    let failed =
        |error: std::io::Error| Error::io(format_args!("list {}", folder.display()), &error);
    for item in std::fs::read_dir(folder).map_err(failed)? {
        let item = item.map_err(failed)?;
        if item.file_name().to_str().and_then(FileName::parse).is_some() {
            remove(&item.path(), found)?;
        }
    }
    Ok(())
}

fn remove(path: &Path, found: &mut Found) -> Result<()> {
    found.strays += 1;
    std::fs::remove_file(path)
        .map_err(|error| Error::io(format_args!("remove {}", path.display()), &error))
}

fn move_file(volume: &Volume, from: &Path, to: &Path, name: &str) -> Result<()> {
    let (old, new): (PathBuf, PathBuf) = (from.join(name), to.join(name));
    std::fs::rename(&old, &new)
        .map_err(|error| volume.io_error(format_args!("rename {}", old.display()), &error))?;
    volume.sync_folder(to)?;
    volume.sync_folder(from)
}
