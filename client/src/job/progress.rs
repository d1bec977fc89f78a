//! What a running job tells: progress in atomics, a token to stop it, counters by name.
//!
//! [`Progress`] and [`Cancel`] are handles: clones share one state, so that a progress bar or a signal handler holds one
//! while the job runs. Workers add to the atomics once per batch, not per record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

use proto::{Code, Error, Result};

/// Different counters that one job may have.
const COUNTERS_MAX: usize = 1_000;

/// What a job is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Phase {
    /// Lists the input.
    #[default]
    Plan,
    /// Reads the input, maps and sorts.
    Map,
    /// Merges, reduces and writes the output.
    Reduce,
    /// Makes the output visible.
    Commit,
    /// All is done.
    Done,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Plan, Self::Map, Self::Reduce, Self::Commit, Self::Done];

    /// The phase's name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Map => "map",
            Self::Reduce => "reduce",
            Self::Commit => "commit",
            Self::Done => "done",
        }
    }
}

/// How far a job is. Cheap to clone; clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: AtomicU8,
    counts: [AtomicU64; COUNTS],
}

const COUNTS: usize = 9;

/// The numbers of a [`Progress`], in the order of [`Snapshot`].
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(crate) enum Count {
    InputFiles,
    InputBytesTotal,
    InputBytesDone,
    InputRecords,
    SpilledBytes,
    ShuffledRecordsTotal,
    ShuffledRecordsDone,
    OutputRecords,
    OutputBytes,
}

/// What a [`Progress`] says at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Snapshot {
    /// What the job is doing.
    pub phase: Phase,
    /// Files of the input.
    pub input_files: u64,
    /// Bytes of the input.
    pub input_bytes_total: u64,
    /// Bytes of the input that were mapped.
    pub input_bytes_done: u64,
    /// Records of the input that were mapped.
    pub input_records: u64,
    /// Bytes that the sort wrote to local disk.
    pub spilled_bytes: u64,
    /// Records that the reduce phase will read; known when that begins.
    pub shuffled_records_total: u64,
    /// Records that the reduce phase has read.
    pub shuffled_records_done: u64,
    /// Records that were written.
    pub output_records: u64,
    /// Bytes of keys and values that were written.
    pub output_bytes: u64,
}

impl Snapshot {
    /// How much of the current phase is done, from 0 to 1.
    pub fn fraction(&self) -> f64 {
        let of = |done: u64, total: u64| if total == 0 { 1.0 } else { done as f64 / total as f64 };
        match self.phase {
            Phase::Plan => 0.0,
            Phase::Map => of(self.input_bytes_done, self.input_bytes_total),
            Phase::Reduce => of(self.shuffled_records_done, self.shuffled_records_total),
            Phase::Commit | Phase::Done => 1.0,
        }
    }
}

impl Progress {
    /// A new one, for one job.
    pub fn new() -> Self {
        Self::default()
    }

    /// How far the job is now.
    pub fn snapshot(&self) -> Snapshot {
        let get = |count: Count| self.state.counts[count as usize].load(Relaxed);
        Snapshot {
            phase: Phase::ALL[usize::from(self.state.phase.load(Relaxed))],
            input_files: get(Count::InputFiles),
            input_bytes_total: get(Count::InputBytesTotal),
            input_bytes_done: get(Count::InputBytesDone),
            input_records: get(Count::InputRecords),
            spilled_bytes: get(Count::SpilledBytes),
            shuffled_records_total: get(Count::ShuffledRecordsTotal),
            shuffled_records_done: get(Count::ShuffledRecordsDone),
            output_records: get(Count::OutputRecords),
            output_bytes: get(Count::OutputBytes),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.state.phase.store(phase as u8, Relaxed);
    }

    pub(crate) fn add(&self, count: Count, more: u64) {
        self.state.counts[count as usize].fetch_add(more, Relaxed);
    }
}

/// Stops a job. Cheap to clone; clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    stopped: Arc<AtomicBool>,
}

impl Cancel {
    /// A new one, which stops nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the job soon: it fails with [`Code::Cancelled`] and leaves nothing visible.
    pub fn cancel(&self) {
        self.stopped.store(true, Relaxed);
    }

    /// Whether [`Cancel::cancel`] was called.
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// An error if it was.
    #[inline]
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::new(Code::Cancelled, "cancelled")) } else { Ok(()) }
    }
}

/// Counters by name, of one worker or of a whole job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub by_name: BTreeMap<String, u64>,
}

impl Counters {
    pub fn add(&mut self, name: &str, more: u64) -> Result<()> {
        if let Some(count) = self.by_name.get_mut(name) {
            *count += more;
            return Ok(());
        }
        if self.by_name.len() == COUNTERS_MAX {
            let message = format!(
                "counter {name:?} is one too many: a job has at most {COUNTERS_MAX}; \
                 counts per key belong into the output"
            );
            return Err(Error::new(Code::LimitExceeded, message));
        }
        self.by_name.insert(name.to_owned(), more);
        Ok(())
    }

    pub fn merge(&mut self, other: &Self) -> Result<()> {
        other.by_name.iter().try_for_each(|(name, count)| self.add(name, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_one_state() {
        let (progress, cancel) = (Progress::new(), Cancel::new());
        progress.clone().add(Count::InputBytesTotal, 10);
        progress.clone().add(Count::InputBytesDone, 5);
        progress.clone().enter(Phase::Map);
        let snapshot = progress.snapshot();
        assert_eq!((snapshot.phase, snapshot.fraction()), (Phase::Map, 0.5));
        cancel.clone().cancel();
        assert_eq!(cancel.check().unwrap_err().code, Code::Cancelled);
    }

    #[test]
    fn counters_are_bounded_in_number_and_add_up() {
        let mut counters = Counters::default();
        for index in 0..COUNTERS_MAX {
            counters.add(&format!("c{index}"), 1).unwrap();
        }
        assert_eq!(counters.add("more", 1).unwrap_err().code, Code::LimitExceeded);
        counters.add("c0", 4).unwrap();
        let mut all = Counters::default();
        all.merge(&counters).unwrap();
        all.merge(&counters).unwrap();
        assert_eq!(all.by_name["c0"], 10);
    }
}
