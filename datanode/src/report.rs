//! The full report: every replica, in chunks ordered by block id.
//!
//! What is told is what is true when its chunk is built; changes that come meanwhile are sent after the last chunk, so
//! that the NameNode ends with the truth whatever it saw in between. Ids are listed once (8 bytes each); everything
//! else is looked up chunk by chunk.

use proto::granary::{ReplicaState, ReportChunk};
use proto::{BlockId, limits};

use crate::store::Store;

/// A full report under way.
pub struct Report<'a> {
    store: &'a Store,
    id: u64,
    ids: std::vec::IntoIter<BlockId>,
    index: u32,
    chunk_max: usize,
    done: bool,
}

impl<'a> Report<'a> {
    /// Begins a report with a number of its own. Changes that wait are part of it.
    pub fn begin(store: &'a Store, id: u64) -> Self {
        store.changes().begin_report();
        let ids = store.sorted_ids().into_iter();
        let chunk_max = limits::REPORT_CHUNK_REPLICAS_MAX;
        Self { store, id, ids, index: 0, chunk_max, done: false }
    }

    /// The next chunk; `None` after the last. There is always one.
    pub fn next_chunk(&mut self) -> Option<ReportChunk> {
        if self.done {
            return None;
        }
        let mut chunk =
            ReportChunk { report_id: self.id, index: self.index, ..ReportChunk::default() };
        let mut before = 0;
        while chunk.id_deltas.len() < self.chunk_max
            && let Some(block) = self.ids.next()
        {
            let Some((block, state)) = self.store.reported(block) else { continue };
            chunk.id_deltas.push(block.id - before);
            before = block.id;
            chunk.generation_stamps.push(block.generation_stamp);
            chunk.lengths.push(block.length);
            chunk.states.push(state as i32);
        }
        if chunk.states.iter().all(|&state| state == ReplicaState::Finalized as i32) {
            chunk.states.clear();
        }
        self.index += 1;
        self.done = self.ids.as_slice().is_empty();
        chunk.last = self.done;
        Some(chunk)
    }
}
