//! External sort: more records than memory holds, ordered by partition and key.
//!
//! A [`Sorter`] gathers records in one small arena, which the processor's caches hold. When that is full it is sorted and
//! set aside as a *run*, in memory and in short form: sorted neighbours share most of their keys. When the memory is
//! full, its runs are merged into one in a local file. [`Sorter::finish`] gives [`Sorted`], whose records are merged from
//! all runs and the arena while they are read. Too many files are merged into longer ones on the way, so that a merge has
//! a bounded number of sources.
//!
//! | module | owns |
//! |---|---|
//! | `buffer` | records as they come |
//! | `run` | a sorted run: its bytes, its checksums |
//! | [`merge`] | many sorted sources as one |
//! | [`group`] | equal keys as one group, whose values are streamed |
//!
//! Memory: [`SorterOptions::memory_bytes`], and one record if a single one is larger; while merging, about 64 KiB per
//! file (more where a record is larger). Files have no name: nothing is left of them however the process ends.
//!
//! ```
//! use client::job::sort::{Sorter, SorterOptions};
//! let mut sorter = Sorter::new(SorterOptions::default());
//! for (key, value) in [("pear", "2"), ("apple", "1"), ("pear", "3")] {
//!     sorter.push(key.as_bytes(), value.as_bytes())?;
//! }
//! let sorted = sorter.finish()?;
//! let mut records = sorted.records();
//! let mut seen = Vec::new();
//! while let Some((key, value)) = records.next()? {
//!     seen.push((key.to_vec(), value.to_vec()));
//! }
//! assert_eq!(seen[0].0, b"apple");
//! assert_eq!(seen[2], (b"pear".to_vec(), b"3".to_vec()));
//! # Ok::<(), proto::Error>(())
//! ```

mod buffer;
pub mod group;
pub mod merge;
pub(crate) mod run;
pub(crate) mod varint;

use std::path::PathBuf;
use std::sync::Arc;

use proto::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use proto::{Code, Error, Result};

use buffer::{BUFFER_BYTES_MAX, Buffer};
use group::{Values, for_each_group};
pub use merge::Merged;
use merge::Source;
use run::{Run, RunWriter};

/// Files of one level that are merged into one of the next.
const FAN_IN: usize = 64;
/// Of the memory, the part that is sorted at once: one in so many, and at least [`SEGMENT_BYTES_MIN`]. Many small sorts
/// and a merge take two thirds of the time of one large sort, which waits for memory.
const SEGMENTS: usize = 64;
const SEGMENT_BYTES_MIN: usize = 2 << 20;

/// The order of records with equal partition and key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// As they were pushed.
    #[default]
    Insertion,
    /// By the bytes of their values.
    Value,
}

/// Makes several values of a key into fewer, before they are spilled. See [`Combined`].
pub type Combiner =
    Arc<dyn Fn(&[u8], &mut Values<'_, '_>, &mut Combined<'_>) -> Result<()> + Send + Sync>;

/// Settings of a [`Sorter`].
#[derive(Clone)]
pub struct SorterOptions {
    /// Bytes of records held in memory.
    pub memory_bytes: usize,
    /// The local folder for runs.
    pub temp_dir: PathBuf,
    /// The order of records with equal keys.
    pub ties: Ties,
    /// Applied to each group of equal keys whenever records are set aside, and when runs are merged into longer ones.
    pub combiner: Option<Combiner>,
}

impl Default for SorterOptions {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            temp_dir: std::env::temp_dir(),
            ties: Ties::Insertion,
            combiner: None,
        }
    }
}

impl std::fmt::Debug for SorterOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SorterOptions")
            .field("memory_bytes", &self.memory_bytes)
            .field("temp_dir", &self.temp_dir)
            .field("ties", &self.ties)
            .field("combiner", &self.combiner.is_some())
            .finish()
    }
}

/// What a sort did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SortStats {
    /// Records pushed.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Times the memory was full.
    pub spills: u64,
    /// Bytes written to runs, merges of runs among them.
    pub spilled_bytes: u64,
}

/// Sorts records. See the module's head.
#[derive(Debug)]
pub struct Sorter {
    options: SorterOptions,
    buffer: Buffer,
    /// What the buffer may take.
    segment_bytes: usize,
    /// Runs in memory, oldest first; all are younger than those in files.
    recent: Vec<Run>,
    recent_bytes: usize,
    /// `levels[n]`: files that went through `n` merges, oldest first. Higher levels are older.
    levels: Vec<Vec<Run>>,
    stats: SortStats,
}

impl Sorter {
    /// An empty one.
    pub fn new(options: SorterOptions) -> Self {
        let segment = (options.memory_bytes / SEGMENTS).max(SEGMENT_BYTES_MIN);
        Self {
            buffer: Buffer::default(),
            segment_bytes: segment.min(options.memory_bytes / 2).min(BUFFER_BYTES_MAX),
            options,
            recent: Vec::new(),
            recent_bytes: 0,
            levels: Vec::new(),
            stats: SortStats::default(),
        }
    }

    /// Adds a record to partition 0.
    #[inline]
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.push_to(0, key, value)
    }

    /// Adds a record to a partition. Keys have up to 64 KiB, values up to 64 MiB.
    #[inline]
    pub fn push_to(&mut self, partition: u16, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Err(too_large(key, value));
        }
        let full = self.buffer.bytes() + Buffer::bytes_of(key, value) > self.segment_bytes;
        if full && self.buffer.records() > 0 {
            self.set_aside()?;
        }
        self.buffer.push(partition, key, value, self.segment_bytes);
        self.stats.records += 1;
        self.stats.bytes += (key.len() + value.len()) as u64;
        Ok(())
    }

    /// What was done so far.
    pub fn stats(&self) -> SortStats {
        self.stats
    }

    /// Sorts what is still in memory.
    pub fn finish(mut self) -> Result<Sorted> {
        self.buffer.sort(self.options.ties);
        let runs = self.levels.into_iter().rev().flatten().chain(self.recent).collect();
        Ok(Sorted { buffer: self.buffer, runs, ties: self.options.ties, stats: self.stats })
    }

    /// Makes what the buffer holds a run in memory, and spills the runs if that is full.
    fn set_aside(&mut self) -> Result<()> {
        self.buffer.sort(self.options.ties);
        let mut out = RunWriter::to_memory();
        let mut start = 0;
        while start < self.buffer.records() {
            let partition = self.buffer.partition_of(start);
            let range = self.buffer.partition(partition);
            start = range.end;
            let source = Source::memory(&self.buffer, range);
            write_partition(&mut out, partition, vec![source], &self.options)?;
        }
        self.buffer.clear();
        let run = out.finish()?;
        self.recent_bytes += run.bytes as usize;
        self.recent.push(run);
        let room = self.options.memory_bytes.saturating_sub(self.segment_bytes);
        if self.recent_bytes > room { self.spill() } else { Ok(()) }
    }

    /// Merges the runs in memory into one in a file.
    fn spill(&mut self) -> Result<()> {
        self.recent_bytes = 0;
        let run = merge_runs(&std::mem::take(&mut self.recent), &self.options)?;
        self.stats.spills += 1;
        self.keep(0, run)
    }

    /// Keeps a file. A level that is full becomes one run of the next.
    fn keep(&mut self, level: usize, run: Run) -> Result<()> {
        self.stats.spilled_bytes += run.bytes;
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push(run);
        if self.levels[level].len() < FAN_IN {
            return Ok(());
        }
        let runs = std::mem::take(&mut self.levels[level]);
        let merged = merge_runs(&runs, &self.options)?;
        self.keep(level + 1, merged)
    }
}

fn merge_runs(runs: &[Run], options: &SorterOptions) -> Result<Run> {
    let mut partitions: Vec<u16> = runs.iter().flat_map(Run::partitions).collect();
    partitions.sort_unstable();
    partitions.dedup();
    let mut out = RunWriter::to_file(&options.temp_dir)?;
    for partition in partitions {
        let sources = runs.iter().map(|run| Source::Run(run.read(partition))).collect();
        write_partition(&mut out, partition, sources, options)?;
    }
    out.finish()
}

fn write_partition(
    out: &mut RunWriter,
    partition: u16,
    sources: Vec<Source<'_>>,
    options: &SorterOptions,
) -> Result<()> {
    let mut merged = Merged::new(sources, options.ties);
    let Some(combiner) = &options.combiner else {
        while let Some((key, value)) = merged.next()? {
            out.add(partition, key, value)?;
        }
        return Ok(());
    };
    let mut last = Vec::new();
    for_each_group(&mut merged, |key, values| {
        let mut combined =
            Combined { out, partition, key, last: &mut last, any: false, ties: options.ties };
        combiner(key, values, &mut combined)
    })?;
    Ok(())
}

/// Where a combiner puts the values of the key that it was given. With [`Ties::Value`] they must not descend.
pub struct Combined<'a> {
    out: &'a mut RunWriter,
    partition: u16,
    key: &'a [u8],
    last: &'a mut Vec<u8>,
    any: bool,
    ties: Ties,
}

impl Combined<'_> {
    /// A value that stands for some of those that were given.
    pub fn emit(&mut self, value: &[u8]) -> Result<()> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(too_large(self.key, value));
        }
        if self.any && self.ties == Ties::Value && value < self.last.as_slice() {
            let key = sstable::escape(self.key);
            let message = format!("combine of key {key} emitted a value below the one before it");
            return Err(Error::new(Code::InvalidArgument, message));
        }
        self.any = true;
        self.last.clear();
        self.last.extend_from_slice(value);
        self.out.add(self.partition, self.key, value)
    }
}

/// Sorted records: runs in files and in memory, and what came last. May be read any number of times.
#[derive(Debug)]
pub struct Sorted {
    buffer: Buffer,
    runs: Vec<Run>,
    ties: Ties,
    stats: SortStats,
}

impl Sorted {
    /// What the sort did.
    pub fn stats(&self) -> SortStats {
        self.stats
    }

    /// The records of partition 0, in order.
    pub fn records(&self) -> Merged<'_> {
        self.partition(0)
    }

    /// The records of a partition, in order.
    pub fn partition(&self, partition: u16) -> Merged<'_> {
        merge_all([self], partition)
    }

    fn sources(&self, partition: u16) -> impl Iterator<Item = Source<'_>> {
        let runs = self.runs.iter().map(move |run| Source::Run(run.read(partition)));
        runs.chain([Source::memory(&self.buffer, self.buffer.partition(partition))])
    }
}

/// The records of a partition from several sorts (of the same [`Ties`]), in order.
pub fn merge_all<'a>(sorts: impl IntoIterator<Item = &'a Sorted>, partition: u16) -> Merged<'a> {
    let mut ties = Ties::default();
    let mut sources = Vec::new();
    for sorted in sorts {
        ties = sorted.ties;
        sources.extend(sorted.sources(partition));
    }
    Merged::new(sources, ties)
}

fn too_large(key: &[u8], value: &[u8]) -> Error {
    Error::new(
        Code::InvalidArgument,
        format!(
            "key {}: {} bytes of key and {} of value; at most {KEY_BYTES_MAX} and {VALUE_BYTES_MAX}",
            sstable::escape(key),
            key.len(),
            value.len()
        ),
    )
}

#[cfg(test)]
mod tests;
