//! The map phase: threads that take splits, call the user's function, and sort what it emits.
//!
//! Each thread has its own sorter; threads share the queue of splits and atomics, and touch them once per split. A panic
//! of the user's function is an error like any other, and names the file and the offset that it was given. The first
//! error stops all threads.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use proto::{Code, Error, Result};
use tokio::sync::mpsc;

use super::command;
use super::input::{Content, InputFile, Loaded};
use super::partition::Partitions;
use super::progress::{Cancel, Count, Counters, Progress};
use super::record::{Emitter, Record, Sink};
use super::sort::{Sorted, Sorter, SorterOptions};
use super::table_error;

/// A map function of one thread. `None` ends a split.
pub(crate) type Mapper = Box<dyn FnMut(Option<&Record<'_>>, &mut Emitter<'_>) -> Result<()>>;

/// What is done with records of the input.
pub(crate) enum MapStage {
    /// Makes one map function per thread.
    Function(Box<dyn Fn() -> Mapper + Send + Sync>),
    /// Runs a process per split.
    Command(String),
}

/// What the map threads share.
pub(crate) struct MapWork<'a> {
    pub stage: &'a MapStage,
    pub files: &'a [InputFile],
    pub partitions: Partitions,
    pub sorter: SorterOptions,
    pub progress: &'a Progress,
    pub cancel: &'a Cancel,
}

/// What a thread made.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub sorted: Sorted,
    pub counters: Counters,
}

impl MapWork<'_> {
    /// Runs `threads` threads until the queue ends.
    pub fn run(
        &self,
        threads: usize,
        queue: mpsc::Receiver<Result<Loaded>>,
    ) -> Result<Vec<Mapped>> {
        let queue = Mutex::new(queue);
        let stop = AtomicBool::new(false);
        run_threads("map", threads, || {
            let made = self.work(&queue, &stop);
            if made.is_err() {
                stop.store(true, Ordering::Relaxed);
                queue.lock().expect("no holder panics").close();
            }
            made
        })
    }

    fn work(
        &self,
        queue: &Mutex<mpsc::Receiver<Result<Loaded>>>,
        stop: &AtomicBool,
    ) -> Result<Mapped> {
        let mut sorter = Sorter::new(self.sorter.clone());
        let mut counters = Counters::default();
        let mut mapper = match self.stage {
            MapStage::Function(start) => {
                Some(caught(|| start()).map_err(|what| panicked("start of the map", &what))?)
            }
            MapStage::Command(_) => None,
        };
        let mut spilled = 0;
        while !stop.load(Ordering::Relaxed) {
            let next = queue.lock().expect("no holder panics").blocking_recv();
            let Some(loaded) = next else { break };
            self.cancel.check()?;
            let loaded = loaded?;
            let records = self.map_split(&loaded, mapper.as_mut(), &mut sorter, &mut counters)?;
            self.progress.add(Count::InputRecords, records);
            self.progress.add(Count::InputBytesDone, loaded.split.end - loaded.split.start);
            let now = sorter.stats().spilled_bytes;
            self.progress.add(Count::SpilledBytes, now - spilled);
            spilled = now;
        }
        Ok(Mapped { sorted: sorter.finish()?, counters })
    }

    /// Maps one split and gives the number of its records.
    fn map_split(
        &self,
        loaded: &Loaded,
        mapper: Option<&mut Mapper>,
        sorter: &mut Sorter,
        counters: &mut Counters,
    ) -> Result<u64> {
        let file = &self.files[loaded.split.file as usize];
        let at = Cell::new(loaded.split.start);
        let mut sink = ToSorter { sorter, partitions: self.partitions };
        let mut emitter = Emitter { sink: &mut sink, counters, files: self.files };
        let mapped = match (mapper, self.stage) {
            (Some(mapper), _) => {
                let work = || {
                    let records = for_each_record(loaded, file, |record| {
                        self.cancel.check()?;
                        at.set(record.offset);
                        mapper(Some(record), &mut emitter)
                    })?;
                    mapper(None, &mut emitter)?;
                    Ok(records)
                };
                caught(work).unwrap_or_else(|what| Err(panicked("map", &what)))
            }
            (None, MapStage::Command(command)) => {
                let variables = [
                    ("GRANARY_INPUT_PATH", file.path.to_string()),
                    ("GRANARY_INPUT_OFFSET", loaded.offset().to_string()),
                ];
                let feed = |out: &mut command::Input| {
                    for_each_record(loaded, file, |record| out.record(file.kind, record))
                };
                let emit = |key: &[u8], value: &[u8]| emitter.emit(key, value);
                command::run(command, &variables, self.cancel, feed, emit)
                    .map(Option::unwrap_or_default)
            }
            (None, MapStage::Function(_)) => unreachable!("its mapper was started"),
        };
        mapped.map_err(|error| match error.code {
            Code::Cancelled => error,
            _ => error.context(format!("input {} at {}", file.path, at.get())),
        })
    }
}

/// Puts what a map function emits where it belongs.
struct ToSorter<'a> {
    sorter: &'a mut Sorter,
    partitions: Partitions,
}

impl Sink for ToSorter<'_> {
    fn emit(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.sorter.push_to(self.partitions.of(key), key, value)
    }
}

/// Calls `each` with the records of a split, in order, and gives their number.
fn for_each_record(
    loaded: &Loaded,
    file: &InputFile,
    mut each: impl FnMut(&Record<'_>) -> Result<()>,
) -> Result<u64> {
    let mut record = Record {
        input: file.input,
        file: loaded.split.file,
        path: file.path.as_str(),
        offset: 0,
        key: &[],
        value: &[],
    };
    let mut records = 0;
    match &loaded.content {
        Content::Document(data) => {
            record.value = data;
            each(&record)?;
            records = 1;
        }
        Content::Lines { offset, data } => {
            let mut begin = 0;
            while begin < data.len() {
                let end = memchr::memchr(b'\n', &data[begin..]).map_or(data.len(), |i| begin + i);
                let line = &data[begin..end];
                record.offset = offset + begin as u64;
                record.value = line.strip_suffix(b"\r").unwrap_or(line);
                each(&record)?;
                records += 1;
                begin = end + 1;
            }
        }
        Content::Table(table) => {
            for entry in table.iter() {
                let (key, value) = entry.map_err(|e| table_error(&file.path, e))?;
                each(&Record { offset: records, key: &key, value: &value, ..record })?;
                records += 1;
            }
        }
    }
    Ok(records)
}

/// Runs `work` on `threads` named threads. Gives what all made, or the first error that tells more than "cancelled".
pub(crate) fn run_threads<T: Send>(
    name: &str,
    threads: usize,
    work: impl Fn() -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let errors = Mutex::new(Vec::new());
    let made = std::thread::scope(|scope| {
        let mut running = Vec::new();
        for number in 0..threads {
            let (work, errors) = (&work, &errors);
            let run = move || match caught(work) {
                Ok(Ok(made)) => Some(made),
                Ok(Err(error)) => {
                    errors.lock().expect("no holder panics").push(error);
                    None
                }
                Err(what) => {
                    let error = panicked("job", &what);
                    errors.lock().expect("no holder panics").push(error);
                    None
                }
            };
            let builder = std::thread::Builder::new().name(format!("job-{name}-{number}"));
            match builder.spawn_scoped(scope, run) {
                Ok(thread) => running.push(thread),
                Err(e) => {
                    let error = Error::io("start a thread of the job", &e);
                    errors.lock().expect("no holder panics").push(error);
                    break;
                }
            }
        }
        running
            .into_iter()
            .filter_map(|thread| thread.join().expect("panics are caught inside"))
            .collect()
    });
    let errors = errors.into_inner().expect("no holder panics");
    let first = errors.iter().find(|error| error.code != Code::Cancelled).or(errors.first());
    first.map_or(Ok(made), |error| Err(error.clone()))
}

/// Calls `work`; a panic is its message.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    // What a panic leaves half-done is not used again: the whole attempt is discarded.
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        text.unwrap_or("no message").to_owned()
    })
}

/// The error for a panic.
pub(crate) fn panicked(where_: &str, what: &str) -> Error {
    Error::new(Code::Internal, format!("the {where_} function panicked: {what}"))
}
