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

#[cfg(test)]
mod tests {
    use proto::GenerationStamp;

    use super::*;
    use crate::testing::{copy_tree, open, pattern, read_block, write_block};

    #[tokio::test]
    async fn units_of_block_groups_are_reported_in_order_before_and_after_a_restart() {
        const GROUP: u64 = 1 << 63;
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(folder.path());
        let ids = [7, 1 << 40, GROUP, GROUP | 8, GROUP + 0x10, u64::MAX];
        for (length, id) in ids.into_iter().enumerate().rev() {
            write_block(&store, id, 1001, &pattern(id, length)).await.unwrap();
        }
        store.flush_indexes().await.unwrap();
        write_block(&store, GROUP | 3, 1001, b"not in the index").await.unwrap();
        let image = tempfile::tempdir().unwrap();
        copy_tree(folder.path(), image.path());
        let (again, found) = open(image.path());
        assert_eq!(found.finalized, ids.len() + 1);
        for store in [&store, &again] {
            let mut report = Report::begin(store, 1);
            report.chunk_max = 3;
            let mut told = Vec::new();
            while let Some(chunk) = report.next_chunk() {
                let mut id = 0;
                for delta in chunk.id_deltas {
                    id += delta;
                    told.push(id);
                }
            }
            assert_eq!(told, [7, 1 << 40, GROUP, GROUP | 3, GROUP | 8, GROUP + 0x10, u64::MAX]);
            assert_eq!(read_block(store, GROUP | 8, 1001).unwrap(), pattern(GROUP | 8, 3));
        }
        again.delete(BlockId(GROUP | 8), GenerationStamp(1001)).await.unwrap();
        assert!(again.reported(BlockId(GROUP | 8)).is_none());
        store.stop();
        again.stop();
    }
}
