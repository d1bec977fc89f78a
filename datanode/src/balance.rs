//! Keeps the volumes of this DataNode about equally full.
//!
//! [`plan`] decides, without IO: from the fullest to the emptiest, while they differ by more than the threshold, down to
//! half of it, so that nothing is moved to and fro. Replicas are moved one after the other, at a set rate. New replicas
//! prefer emptier volumes anyway; this is for volumes that were added, and for files that were deleted unevenly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::Code;

use crate::config::Config;
use crate::store::{PARTS, Store};
use crate::throttle::Throttle;
use crate::volume::Volume;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(60);

/// How full a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Its number.
    pub volume: u8,
    /// Bytes of replicas.
    pub used_bytes: u64,
    /// Bytes that replicas may still take.
    pub remaining_bytes: u64,
}

/// What to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// From this volume.
    pub from: u8,
    /// To that one.
    pub to: u8,
    /// About so much.
    pub bytes: u64,
}

impl Fill {
    fn total(&self) -> u64 {
        self.used_bytes.saturating_add(self.remaining_bytes)
    }

    /// In millionths.
    fn share(&self) -> u64 {
        let share = u128::from(self.used_bytes) * 1_000_000 / u128::from(self.total().max(1));
        u64::try_from(share).expect("a share is at most a million")
    }
}

/// Decides what to move; `None` if the volumes are about equally full. The threshold is in percent of a volume.
pub fn plan(fills: &[Fill], threshold_percent: u64) -> Option<Move> {
    let fullest = fills.iter().max_by_key(|fill| fill.share())?;
    let emptiest = fills.iter().min_by_key(|fill| fill.share())?;
    let apart = fullest.share() - emptiest.share();
    let threshold = threshold_percent.saturating_mul(10_000);
    if apart <= threshold || fullest.volume == emptiest.volume {
        return None;
    }
    let smaller = u128::from(fullest.total().min(emptiest.total()));
    // Moving one share takes it from the one and gives it to the other: half of the difference would make them equal.
    let shares = u128::from((apart - threshold / 2) / 2);
    let bytes = u64::try_from(smaller * shares / 1_000_000).unwrap_or(u64::MAX);
    (bytes > 0).then_some(Move { from: fullest.volume, to: emptiest.volume, bytes })
}

/// The balancer between the volumes of a DataNode.
pub struct Balancer {
    store: Arc<Store>,
    threshold_percent: u64,
    throttle: Throttle,
    moved_bytes: AtomicU64,
    moved: AtomicU64,
}

impl Balancer {
    /// Does nothing before it is run.
    pub fn new(config: &Config, store: Arc<Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            threshold_percent: config.balance_threshold_percent,
            throttle: Throttle::new(config.balance_bytes_per_s),
            moved_bytes: AtomicU64::new(0),
            moved: AtomicU64::new(0),
        })
    }

    /// Replicas and bytes that were moved since the start.
    pub fn moved(&self) -> (u64, u64) {
        (self.moved.load(Ordering::Relaxed), self.moved_bytes.load(Ordering::Relaxed))
    }

    /// Balances until the future is dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Some(wanted) = plan(&self.fills(), self.threshold_percent) {
                let moved = self.carry_out(wanted).await;
                tracing::info!(?wanted, moved, "replicas moved between volumes");
            }
        }
    }

    fn fills(&self) -> Vec<Fill> {
        let fill = |volume: Arc<Volume>| Fill {
            volume: volume.number(),
            used_bytes: volume.used_bytes(),
            remaining_bytes: volume.remaining_bytes(),
        };
        self.store.volumes().into_iter().filter(|volume| !volume.is_failed()).map(fill).collect()
    }

    /// Moves replicas until about so much was moved; tells how many bytes.
    pub async fn carry_out(&self, wanted: Move) -> u64 {
        let mut moved = 0;
        for part in 0..PARTS {
            let (blocks, _) = self.store.finalized_in(wanted.from, part);
            for (block, bytes) in blocks {
                if moved >= wanted.bytes {
                    return moved;
                }
                if bytes == 0 || bytes > wanted.bytes - moved {
                    continue;
                }
                match self.store.move_replica(block, wanted.to, &self.throttle).await {
                    Ok(bytes) => {
                        moved += bytes;
                        self.moved.fetch_add(1, Ordering::Relaxed);
                        self.moved_bytes.fetch_add(bytes, Ordering::Relaxed);
                    }
                    // It is written to, or gone.
                    Err(error) if error.code == Code::Stale => {}
                    Err(error) => {
                        tracing::warn!(%block, %error, "a replica was not moved");
                        if error.code != Code::Corrupt {
                            return moved;
                        }
                    }
                }
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(volume: u8, used: u64, remaining: u64) -> Fill {
        Fill { volume, used_bytes: used, remaining_bytes: remaining }
    }

    #[test]
    fn a_new_volume_takes_its_share_and_nearly_equal_ones_are_left_alone() {
        let fills = [fill(0, 80, 20), fill(1, 0, 100), fill(2, 50, 50)];
        assert_eq!(plan(&fills, 10), Some(Move { from: 0, to: 1, bytes: 37 }));
        assert_eq!(plan(&[fill(0, 55, 45), fill(1, 46, 54)], 10), None);
        assert_eq!(plan(&fills, 100), None);
        assert_eq!(plan(&fills[..1], 0), None);
        assert_eq!(plan(&[], 0), None);
    }

    proptest! {
        #[test]
        fn balancing_ends_and_never_turns_the_tables(
            volumes in proptest::collection::vec((1u64..1_000_000, 0u64..1_000_000), 1..8),
            threshold in 1u64..50,
        ) {
            let mut fills: Vec<Fill> = (0u8..)
                .zip(&volumes)
                .map(|(volume, &(total, used))| fill(volume, used % total, total - used % total))
                .collect();
            for step in 0.. {
                let Some(Move { from, to, bytes }) = plan(&fills, threshold) else { break };
                prop_assert!(step < 1_000, "it does not end: {:?}", fills);
                for (volume, gives) in [(from, true), (to, false)] {
                    let fill = &mut fills[usize::from(volume)];
                    if gives {
                        fill.used_bytes -= bytes;
                        fill.remaining_bytes += bytes;
                    } else {
                        fill.used_bytes += bytes;
                        fill.remaining_bytes -= bytes;
                    }
                }
                let share = |volume: u8| fills[usize::from(volume)].share();
                prop_assert!(share(from) + 1 >= share(to));
            }
        }
    }
}
