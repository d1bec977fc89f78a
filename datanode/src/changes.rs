//! What the NameNode has not been told yet: changes of replicas, in order.
//!
//! Bounded: when more than [`CHANGES_MAX`] wait (the NameNode is away), they are dropped and a full report is owed,
//! which tells the same. A full report begins by forgetting what waits; what comes later is sent after it.

use std::collections::VecDeque;
use std::sync::Mutex;

use proto::granary::{Block, ReplicaChange, ReplicaState};
use tokio::sync::Notify;

/// Changes that may wait.
pub const CHANGES_MAX: usize = 100_000;

/// Changes that wait to be sent.
#[derive(Default)]
pub struct Changes {
    state: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    changes: VecDeque<ReplicaChange>,
    report_owed: bool,
}

/// What is to be sent next.
#[derive(Debug, PartialEq)]
pub enum Due {
    /// These changes.
    Changes(Vec<ReplicaChange>),
    /// Everything.
    FullReport,
}

impl Changes {
    /// Adds a change.
    pub fn push(&self, block: Block, state: ReplicaState, volume: &str) {
        let mut waiting = self.lock();
        if waiting.changes.len() >= CHANGES_MAX {
            waiting.changes.clear();
            waiting.report_owed = true;
        }
        if !waiting.report_owed {
            let (state, volume) = (state as i32, volume.to_owned());
            waiting.changes.push_back(ReplicaChange { block: Some(block), state, volume });
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// Says that a full report is owed: single changes no longer tell the truth.
    pub fn owe_report(&self) {
        let mut waiting = self.lock();
        waiting.changes.clear();
        waiting.report_owed = true;
        drop(waiting);
        self.news.notify_one();
    }

    /// A full report begins: it tells all that waits. What is pushed from now on comes after it.
    pub fn begin_report(&self) {
        let mut waiting = self.lock();
        waiting.changes.clear();
        waiting.report_owed = false;
    }

    /// What is due; waits until something is. At most `changes_max` changes. Cancel safe.
    pub async fn next(&self, changes_max: usize) -> Due {
        loop {
            let news = self.news.notified();
            {
                let mut waiting = self.lock();
                if waiting.report_owed {
                    return Due::FullReport;
                }
                if !waiting.changes.is_empty() {
                    let count = waiting.changes.len().min(changes_max);
                    return Due::Changes(waiting.changes.drain(..count).collect());
                }
            }
            news.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.state.lock().expect("nobody panics while holding the changes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(id: u64) -> Block {
        Block { id, generation_stamp: 1, length: 0 }
    }

    #[tokio::test]
    async fn changes_come_in_order_and_too_many_become_a_full_report() {
        let changes = Changes::default();
        for id in 0..5 {
            changes.push(block(id), ReplicaState::Finalized, "v");
        }
        let Due::Changes(first) = changes.next(3).await else { panic!("changes are due") };
        let ids: Vec<u64> = first.iter().map(|c| c.block.as_ref().unwrap().id).collect();
        assert_eq!(ids, [0, 1, 2]);
        for id in 0..=CHANGES_MAX as u64 {
            changes.push(block(id), ReplicaState::Finalized, "v");
        }
        assert_eq!(changes.next(3).await, Due::FullReport);
        changes.begin_report();
        changes.push(block(9), ReplicaState::Deleted, "v");
        assert!(matches!(changes.next(3).await, Due::Changes(c) if c.len() == 1));
    }
}
