//! Full reports, taken in parts as they come in.
//!
//! A DataNode lists its replicas ordered by block id, in chunks. Each chunk settles the ids from where the one before
//! ended up to its own last one: what is listed is taken, what is known and not listed is dropped. So nothing of the
//! list is kept. A node of which nothing is known needs no search for what it no longer lists.
//!
//! Always holds: ids that changed by other messages since the report began are not touched by it, as the list may be
//! older than the change. A part that comes out of order ends the report; the node is asked for a new one.

use std::collections::HashSet;

use proto::granary::{ReplicaState, ReportChunk};
use proto::limits::REPORT_CHUNK_REPLICAS_MAX;
use proto::{BlockId, Code, Error, GenerationStamp, Result};

use super::replicas::Reported;

/// Changes noted while one report is under way; beyond it the report is given up and asked for again.
const TOUCHED_MAX: usize = 1_000_000;

/// A full report that is under way.
#[derive(Debug)]
pub struct FullReport {
    /// Ids below this are settled.
    pub settled: u64,
    /// Whether to look for replicas that are known and not listed.
    pub search: bool,
    report_id: u64,
    next_index: u32,
    touched: HashSet<u64>,
    given_up: bool,
}

impl FullReport {
    /// Begins a report. `search`: the node held replicas, as far as is known, when it began.
    pub fn begin(report_id: u64, search: bool) -> Self {
        Self {
            settled: 0,
            search,
            report_id,
            next_index: 0,
            touched: HashSet::new(),
            given_up: false,
        }
    }

    /// Whether the chunk with this header is the one that follows.
    pub fn accepts(&mut self, report_id: u64, index: u32) -> bool {
        let fits = !self.given_up && self.report_id == report_id && self.next_index == index;
        if fits {
            self.next_index = index.wrapping_add(1);
        }
        fits
    }

    /// Notes that a block changed on this node by another message.
    pub fn touch(&mut self, id: BlockId) {
        if self.touched.len() < TOUCHED_MAX {
            self.touched.insert(id.0);
        } else {
            self.given_up = true;
        }
    }

    /// Whether the block changed by another message since the report began.
    pub fn is_touched(&self, id: BlockId) -> bool {
        self.touched.contains(&id.0)
    }
}

/// Decodes a chunk. Errors: `InvalidArgument` if its arrays do not fit each other, ids do not ascend, or it is
/// larger than a chunk may be.
pub fn decode_chunk(chunk: &ReportChunk) -> Result<Vec<Reported>> {
    let count = chunk.id_deltas.len();
    let wrong = |what: String| {
        let (id, index) = (chunk.report_id, chunk.index);
        Err(Error::new(Code::InvalidArgument, format!("chunk {index} of report {id}: {what}")))
    };
    if count > REPORT_CHUNK_REPLICAS_MAX {
        return wrong(format!("{count} replicas, at most {REPORT_CHUNK_REPLICAS_MAX}"));
    }
    if chunk.generation_stamps.len() != count
        || chunk.lengths.len() != count
        || !(chunk.states.is_empty() || chunk.states.len() == count)
    {
        return wrong(format!(
            "{count} ids, {} stamps, {} lengths, {} states",
            chunk.generation_stamps.len(),
            chunk.lengths.len(),
            chunk.states.len()
        ));
    }
    let mut replicas = Vec::with_capacity(count);
    let mut id = 0u64;
    for (at, &delta) in chunk.id_deltas.iter().enumerate() {
        let next = id.checked_add(delta).filter(|_| delta > 0 || at == 0);
        let Some(next) = next else {
            return wrong(format!("ids do not ascend at entry {at} ({id} + {delta})"));
        };
        id = next;
        let state = match chunk.states.get(at) {
            None => ReplicaState::Finalized,
            Some(&number) => match ReplicaState::try_from(number) {
                Ok(
                    state @ (ReplicaState::Finalized
                    | ReplicaState::BeingWritten
                    | ReplicaState::WaitingRecovery),
                ) => state,
                _ => {
                    return wrong(format!("state {number} of entry {at} has no place in a report"));
                }
            },
        };
        replicas.push(Reported {
            id: BlockId(id),
            stamp: GenerationStamp(chunk.generation_stamps[at]),
            length: chunk.lengths[at],
            state,
        });
    }
    Ok(replicas)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(deltas: &[u64]) -> ReportChunk {
        ReportChunk {
            id_deltas: deltas.to_vec(),
            generation_stamps: vec![1; deltas.len()],
            lengths: vec![2; deltas.len()],
            ..Default::default()
        }
    }

    #[test]
    fn ids_are_differences() {
        let ids: Vec<u64> =
            decode_chunk(&chunk(&[5, 1, 10])).unwrap().iter().map(|r| r.id.0).collect();
        assert_eq!(ids, [5, 6, 16]);
    }

    #[test]
    fn a_chunk_that_contradicts_itself_is_refused() {
        let mut short = chunk(&[1, 2]);
        short.lengths.pop();
        let mut states = chunk(&[1, 2]);
        states.states = vec![1];
        let mut deleted = chunk(&[1]);
        deleted.states = vec![ReplicaState::Deleted as i32];
        let mut unknown = chunk(&[1]);
        unknown.states = vec![77];
        let huge = chunk(&vec![1; REPORT_CHUNK_REPLICAS_MAX + 1]);
        for bad in [chunk(&[1, 0]), chunk(&[u64::MAX, 1]), short, states, deleted, unknown, huge] {
            assert_eq!(decode_chunk(&bad).unwrap_err().code, Code::InvalidArgument);
        }
    }
}
