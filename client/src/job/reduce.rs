//! The reduce phase: threads that take partitions, merge their records, call the user's function for every key, and
//! write what it emits.
//!
//! The values of a key are streamed: no group is held in memory. A panic is an error like any other, and names the key.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proto::{Code, Result};

use super::command;
use super::input::InputFile;
use super::map::{Mapped, caught, panicked, run_threads};
use super::output::{Format, PartWriter};
use super::partition::Partitions;
use super::progress::{Cancel, Count, Counters, Progress};
use super::record::{Emitter, Sink};
use super::sort::group::{Groups, Values, for_each_group};
use super::sort::merge_all;
use super::summary::{Inserted, Observed, Pair, Summary};

/// Groups after which a thread tells its progress.
const PROGRESS_GROUPS: u64 = 1_024;

/// A reduce function of one thread.
pub(crate) type Reducer =
    Box<dyn FnMut(&[u8], &mut Values<'_, '_>, &mut Emitter<'_>) -> Result<()>>;

/// What is done with the values of a key.
pub(crate) enum ReduceStage {
    /// Each is passed on.
    Identity,
    /// Makes one reduce function per partition.
    Function(Box<dyn Fn() -> Reducer + Send + Sync>),
    /// Runs a process per partition.
    Command(String),
}

/// What the reduce threads share.
pub(crate) struct ReduceWork<'a> {
    pub job: &'a str,
    pub stage: &'a ReduceStage,
    pub summary: Option<&'a Summary>,
    pub files: &'a [InputFile],
    pub partitions: Partitions,
    pub mapped: &'a [Mapped],
    pub format: &'a Format,
    pub progress: &'a Progress,
    pub cancel: &'a Cancel,
}

/// A partition that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartDone {
    pub partition: u16,
    pub name: String,
    pub records: u64,
    pub bytes: u64,
    pub groups: u64,
}

/// What all threads made.
#[derive(Debug, Default)]
pub(crate) struct Reduced {
    /// By partition.
    pub parts: Vec<PartDone>,
    pub counters: Counters,
}

impl ReduceWork<'_> {
    /// Writes all partitions. `open` and `close` begin and end the file of a name.
    pub fn run<W: Write>(
        &self,
        threads: usize,
        open: impl Fn(&str) -> Result<W> + Sync,
        close: impl Fn(W) -> Result<()> + Sync,
    ) -> Result<Reduced> {
        let count = self.partitions.count();
        let last = self.summary.map(|summary| summary.partitions(self.partitions));
        let last = last.unwrap_or_default();
        self.announce(&last);
        let io = Io { open: &open, close: &close };
        let first: Vec<u16> = (0..count).collect();
        let (mut reduced, states) = self.pass(threads, &first, |partition, made| {
            let mut state = self.summary.map(Summary::start);
            if last.contains(&partition) {
                self.observe(partition, state.as_mut())?;
            } else {
                let part = self.write(partition, &[], state.as_mut(), &io, &mut made.counters)?;
                made.parts.push(part);
            }
            Ok(state.map(|state| (partition, state)))
        })?;
        if let Some(summary) = self.summary {
            let mut states: Vec<_> = states.into_iter().flatten().collect();
            states.sort_by_key(|(partition, _)| *partition);
            let states = states.into_iter().map(|(_, state)| state).collect();
            let records = caught(|| summary.records(states))
                .unwrap_or_else(|what| Err(panicked("summary", &what)))?;
            let last: Vec<u16> = last.into_iter().collect();
            let (more, _) = self.pass(threads, &last, |partition, made| {
                let own = |(key, _): &&Pair| self.partitions.of(key) == partition;
                let own: Vec<Pair> = records.iter().filter(own).cloned().collect();
                let part = self.write(partition, &own, None, &io, &mut made.counters)?;
                made.parts.push(part);
                Ok(())
            })?;
            reduced.parts.extend(more.parts);
            reduced.counters.merge(&more.counters)?;
        }
        reduced.parts.sort_by_key(|part| part.partition);
        Ok(reduced)
    }

    /// Tells how many records will be read.
    fn announce(&self, twice: &BTreeSet<u16>) {
        let records: u64 = self.mapped.iter().map(|mapped| mapped.sorted.stats().records).sum();
        // An estimate: partitions are about equal in size.
        let share = twice.len() as u64 * records / u64::from(self.partitions.count());
        self.progress.add(Count::ShuffledRecordsTotal, records + share);
    }

    /// Does `one` for each partition, on some threads.
    fn pass<T: Send>(
        &self,
        threads: usize,
        partitions: &[u16],
        one: impl Fn(u16, &mut Reduced) -> Result<T> + Sync,
    ) -> Result<(Reduced, Vec<T>)> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let results = Mutex::new(Vec::new());
        let made = run_threads("reduce", threads.min(partitions.len()), || {
            let mut made = Reduced::default();
            while !stop.load(Ordering::Relaxed) {
                let taken = next.fetch_add(1, Ordering::Relaxed);
                let Some(&partition) = partitions.get(taken) else { break };
                let result = one(partition, &mut made);
                stop.fetch_or(result.is_err(), Ordering::Relaxed);
                results.lock().expect("no holder panics").push(result?);
            }
            Ok(made)
        })?;
        let mut all = Reduced::default();
        for made in made {
            all.parts.extend(made.parts);
            all.counters.merge(&made.counters)?;
        }
        Ok((all, results.into_inner().expect("no holder panics")))
    }

    /// Reduces a partition for the summary alone.
    fn observe(
        &self,
        partition: u16,
        state: Option<&mut Box<dyn std::any::Any + Send>>,
    ) -> Result<()> {
        let (Some(summary), Some(state)) = (self.summary, state) else { return Ok(()) };
        let mut sink = Observed { inner: None, summary, state };
        // What the functions count is counted when the partition is written.
        self.reduce(partition, &mut sink, &mut Counters::default())?;
        Ok(())
    }

    fn write<W: Write>(
        &self,
        partition: u16,
        inserted: &[Pair],
        state: Option<&mut Box<dyn std::any::Any + Send>>,
        io: &Io<'_, W>,
        counters: &mut Counters,
    ) -> Result<PartDone> {
        let name = self.format.part_name(partition);
        let slots = self.partitions.slots(partition);
        let file = (io.open)(&name)?;
        let mut writer = PartWriter::new(name.clone(), file, self.format, slots, self.job)?;
        let groups = {
            let mut sink = Inserted { inner: &mut writer, records: inserted };
            let groups = match (self.summary, state) {
                (Some(summary), Some(state)) => {
                    let mut sink = Observed { inner: Some(&mut sink), summary, state };
                    self.reduce(partition, &mut sink, counters)?
                }
                _ => self.reduce(partition, &mut sink, counters)?,
            };
            sink.finish()?;
            groups
        };
        let (records, record_bytes) = (writer.records, writer.record_bytes);
        self.progress.add(Count::OutputRecords, records);
        self.progress.add(Count::OutputBytes, record_bytes);
        let (file, bytes) = writer.finish()?;
        (io.close)(file)?;
        Ok(PartDone { partition, name, records, bytes, groups: groups.groups })
    }

    /// Merges a partition and reduces it into a sink.
    fn reduce(
        &self,
        partition: u16,
        sink: &mut dyn Sink,
        counters: &mut Counters,
    ) -> Result<Groups> {
        let mut merged = merge_all(self.mapped.iter().map(|mapped| &mapped.sorted), partition);
        let mut emitter = Emitter { sink, counters, files: self.files };
        let (mut told, mut read, mut groups) = (0, 0, 0);
        let mut each =
            |key: &[u8],
             values: &mut Values<'_, '_>,
             call: &mut dyn FnMut(&[u8], &mut Values<'_, '_>) -> Result<()>| {
                self.cancel.check()?;
                call(key, values).map_err(|error| match error.code {
                    Code::Cancelled => error,
                    _ => error.context(format!("reduce of key {}", sstable::escape(key))),
                })?;
                read += values.read();
                groups += 1;
                if groups % PROGRESS_GROUPS == 0 {
                    self.progress.add(Count::ShuffledRecordsDone, read - told);
                    told = read;
                }
                Ok(())
            };
        let seen = match self.stage {
            ReduceStage::Identity => for_each_group(&mut merged, |key, values| {
                each(key, values, &mut |key, values| {
                    while let Some(value) = values.next()? {
                        emitter.emit(key, value)?;
                    }
                    Ok(())
                })
            }),
            ReduceStage::Function(start) => {
                let started = caught(|| start());
                let mut reducer = started.map_err(|what| panicked("start of the reduce", &what))?;
                for_each_group(&mut merged, |key, values| {
                    each(key, values, &mut |key, values| {
                        caught(|| reducer(key, values, &mut emitter))
                            .unwrap_or_else(|what| Err(panicked("reduce", &what)))
                    })
                })
            }
            ReduceStage::Command(text) => {
                let feed = |out: &mut command::Input| {
                    for_each_group(&mut merged, |key, values| {
                        each(key, values, &mut |key, values| {
                            while let Some(value) = values.next()? {
                                out.pair(key, value)?;
                            }
                            Ok(())
                        })
                    })
                };
                let emit = |key: &[u8], value: &[u8]| emitter.emit(key, value);
                command::run(text, &[], self.cancel, feed, emit).map(Option::unwrap_or_default)
            }
        };
        let seen = seen.map_err(|error| match error.code {
            Code::Cancelled => error,
            _ => error.context(self.format.part_name(partition)),
        })?;
        self.progress.add(Count::ShuffledRecordsDone, seen.records.saturating_sub(told));
        Ok(seen)
    }
}

/// How files of the output begin and end.
struct Io<'a, W> {
    open: &'a (dyn Fn(&str) -> Result<W> + Sync),
    close: &'a (dyn Fn(W) -> Result<()> + Sync),
}

#[cfg(test)]
#[path = "reduce_tests.rs"]
mod tests;
