//! Batch jobs on one machine with all its cores: map, sort, reduce, and a commit that shows all or nothing.
//!
//! ```text
//! files -> splits -> map threads -> sorters (memory, spilled runs) -> merge -> reduce threads -> one file per partition
//!                    user function   by partition, key, value                  user function     -> one rename
//! ```
//!
//! | module | owns |
//! |---|---|
//! | `input` | which files, cut into which splits, loaded ahead |
//! | `record` | [`Record`] and [`Emitter`]: what user functions see |
//! | `map`, `reduce` | the threads of the two phases |
//! | [`sort`] | the external sort, also for use on its own |
//! | [`partition`] | partitions by Redis Cluster slot |
//! | `summary` | records computed from all others, such as a top list |
//! | `output`, [`commit`] | the files, and how they become visible |
//! | `command` | map and reduce by external commands |
//! | `progress`, `report` | what a job tells while it runs, and at its end |
//! | `engine` | the order of it all |
//! | [`builtin`] | an inverted index, top lists, web logs |
//!
//! What holds: the output appears under its name complete, or not at all, whether a function returns an error, panics,
//! the job is cancelled, or the process is killed. Equal input and functions give equal output, whatever the number of
//! threads: the values of a key come in ascending order of their bytes. Memory is bounded by [`Job::memory_bytes`], not
//! by the size of the input, of a group or of the output.
//!
//! It does not run on several machines: who outgrows one runs the same flow on an engine that speaks HDFS.
//!
//! ```no_run
//! # async fn example(fs: &client::Fs) -> proto::Result<()> {
//! use client::job::{Job, Progress};
//! let report = Job::new("word count")
//!     .input_lines(["/texts".parse()?])
//!     .map(|line, out| {
//!         for word in line.text().split_whitespace() {
//!             out.emit(word.as_bytes(), b"1")?;
//!         }
//!         Ok(())
//!     })
//!     .reduce(|word, ones, out| {
//!         let mut count = 0;
//!         while ones.next()?.is_some() {
//!             count += 1;
//!         }
//!         out.emit(word, count.to_string().as_bytes())
//!     })
//!     .output_tables("/out/words".parse()?)
//!     .run(fs, &Progress::new())
//!     .await?;
//! println!("{} words, {:.0} bytes/s", report.output_records, report.input_bytes_per_second());
//! # Ok(())
//! # }
//! ```

pub mod builtin;
mod command;
pub mod commit;
mod engine;
mod input;
mod map;
mod output;
pub mod partition;
mod progress;
mod record;
mod reduce;
mod report;
pub mod sort;
mod summary;

use std::path::PathBuf;
use std::sync::Arc;

use proto::{FsPath, Result};
use sstable::WriterOptions;

pub use commit::{Cleaned, Existing, clean};
pub use input::Oversized;
pub use progress::{Cancel, Phase, Progress, Snapshot};
pub use record::{Emitter, Record};
pub use report::{JobReport, Part, Times};
pub use sort::group::Values;
pub use sort::{Combined, Combiner};
pub use summary::Pair;

use crate::fs::Fs;
use input::{Input, Kind, Limits};
use map::MapStage;
use output::Format;
pub(crate) use output::table_error;
use reduce::ReduceStage;
use summary::Summary;

/// Partitions of a job that does not say.
const PARTITIONS_DEFAULT: usize = 8;
const MEMORY_BYTES_DEFAULT: usize = 512 << 20;
const DOCUMENT_BYTES_MAX_DEFAULT: u64 = 64 << 20;

/// A batch job: described by these functions, then [`run`](Job::run).
pub struct Job {
    name: String,
    inputs: Vec<Input>,
    map: Option<MapStage>,
    combiner: Option<Combiner>,
    reduce: ReduceStage,
    summary: Option<Summary>,
    partitions: usize,
    memory_bytes: usize,
    threads: usize,
    temp_dir: PathBuf,
    limits: Limits,
    output: Option<(FsPath, Format)>,
    existing: Existing,
    cancel: Cancel,
}

impl Job {
    /// A job. Its name stands in errors, in its report, and in the properties of the tables that it writes.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            inputs: Vec::new(),
            map: None,
            combiner: None,
            reduce: ReduceStage::Identity,
            summary: None,
            partitions: PARTITIONS_DEFAULT,
            memory_bytes: MEMORY_BYTES_DEFAULT,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            temp_dir: std::env::temp_dir(),
            limits: Limits {
                document_bytes_max: DOCUMENT_BYTES_MAX_DEFAULT,
                oversized: Oversized::Refuse,
            },
            output: None,
            existing: Existing::Refuse,
            cancel: Cancel::new(),
        }
    }

    /// Reads files, and all files under folders, line by line. Names that begin with `_` or `.` are skipped in folders.
    ///
    /// May be called several times, as may the other inputs: [`Record::input`] tells them apart.
    #[must_use]
    pub fn input_lines(self, paths: impl IntoIterator<Item = FsPath>) -> Self {
        self.input(Kind::Lines, paths)
    }

    /// As [`Job::input_lines`], each file as one record. See [`Job::documents_up_to`].
    #[must_use]
    pub fn input_documents(self, paths: impl IntoIterator<Item = FsPath>) -> Self {
        self.input(Kind::Documents, paths)
    }

    /// As [`Job::input_lines`], the records of sorted tables.
    #[must_use]
    pub fn input_tables(self, paths: impl IntoIterator<Item = FsPath>) -> Self {
        self.input(Kind::Tables, paths)
    }

    fn input(mut self, kind: Kind, paths: impl IntoIterator<Item = FsPath>) -> Self {
        self.inputs.push(Input { kind, roots: paths.into_iter().collect() });
        self
    }

    /// The largest document in bytes (default 64 MiB), and what is done with a larger one.
    #[must_use]
    pub fn documents_up_to(mut self, bytes_max: u64, oversized: Oversized) -> Self {
        self.limits = Limits { document_bytes_max: bytes_max, oversized };
        self
    }

    /// Calls `map` with every record, on several threads.
    #[must_use]
    pub fn map<F>(self, map: F) -> Self
    where
        F: Fn(&Record<'_>, &mut Emitter<'_>) -> Result<()> + Send + Sync + 'static,
    {
        self.map_with(|| (), move |(), record, out| map(record, out))
    }

    /// As [`Job::map`], with something that each thread makes once and keeps: buffers, a parser.
    #[must_use]
    pub fn map_with<S, I, F>(self, init: I, map: F) -> Self
    where
        S: 'static,
        I: Fn() -> S + Send + Sync + 'static,
        F: Fn(&mut S, &Record<'_>, &mut Emitter<'_>) -> Result<()> + Send + Sync + 'static,
    {
        self.map_gathering(init, map, |_, _| Ok(()))
    }

    /// As [`Job::map_with`]; `end` is called after the last record of each split, and may emit what was gathered. Sums
    /// that are gathered in memory need no sort.
    #[must_use]
    pub fn map_gathering<S, I, F, E>(mut self, init: I, map: F, end: E) -> Self
    where
        S: 'static,
        I: Fn() -> S + Send + Sync + 'static,
        F: Fn(&mut S, &Record<'_>, &mut Emitter<'_>) -> Result<()> + Send + Sync + 'static,
        E: Fn(&mut S, &mut Emitter<'_>) -> Result<()> + Send + Sync + 'static,
    {
        let functions = Arc::new((map, end));
        self.map = Some(MapStage::Function(Box::new(move || {
            let (mut state, functions) = (init(), functions.clone());
            Box::new(move |record, out| match record {
                Some(record) => (functions.0)(&mut state, record, out),
                None => (functions.1)(&mut state, out),
            })
        })));
        self
    }

    /// Maps by a shell command: records in, `key<TAB>value` lines out. Runs once per split of the input.
    #[must_use]
    pub fn map_command(mut self, command: impl Into<String>) -> Self {
        self.map = Some(MapStage::Command(command.into()));
        self
    }

    /// Makes the values of a key fewer before they are written to local disk. It may be applied to any part of a key's
    /// values, any number of times, also to its own output, or not at all; what it emits must not descend.
    #[must_use]
    pub fn combine<F>(mut self, combine: F) -> Self
    where
        F: Fn(&[u8], &mut Values<'_, '_>, &mut Combined<'_>) -> Result<()> + Send + Sync + 'static,
    {
        self.combiner = Some(Arc::new(combine));
        self
    }

    /// Calls `reduce` with every key and its values, which come in ascending order of their bytes. Keys come in
    /// ascending order within a partition; partitions run on several threads. Without it, every record is passed on.
    #[must_use]
    pub fn reduce<F>(self, reduce: F) -> Self
    where
        F: Fn(&[u8], &mut Values<'_, '_>, &mut Emitter<'_>) -> Result<()> + Send + Sync + 'static,
    {
        self.reduce_with(|| (), move |(), key, values, out| reduce(key, values, out))
    }

    /// As [`Job::reduce`], with something that is made once per partition.
    #[must_use]
    pub fn reduce_with<S, I, F>(mut self, init: I, reduce: F) -> Self
    where
        S: 'static,
        I: Fn() -> S + Send + Sync + 'static,
        F: Fn(&mut S, &[u8], &mut Values<'_, '_>, &mut Emitter<'_>) -> Result<()>
            + Send
            + Sync
            + 'static,
    {
        let reduce = Arc::new(reduce);
        self.reduce = ReduceStage::Function(Box::new(move || {
            let (mut state, reduce) = (init(), reduce.clone());
            Box::new(move |key, values, out| reduce(&mut state, key, values, out))
        }));
        self
    }

    /// Reduces by a shell command: `key<TAB>value` lines in, sorted by key, and lines of that form out. Runs once per
    /// partition.
    #[must_use]
    pub fn reduce_command(mut self, command: impl Into<String>) -> Self {
        self.reduce = ReduceStage::Command(command.into());
        self
    }

    /// Adds records that are computed from all others of the output. `observe` sees each record that the reduce
    /// functions emit; `finish` gets one state per partition, in their order, and gives records with some of `keys`.
    /// Nothing else may emit those. The partitions of `keys` are reduced twice.
    #[must_use]
    pub fn summary<S: Send + 'static>(
        mut self,
        keys: impl IntoIterator<Item = Vec<u8>>,
        init: impl Fn() -> S + Send + Sync + 'static,
        observe: impl Fn(&mut S, &[u8], &[u8]) + Send + Sync + 'static,
        finish: impl Fn(Vec<S>) -> Vec<Pair> + Send + Sync + 'static,
    ) -> Self {
        self.summary = Some(Summary::new(keys, init, observe, finish));
        self
    }

    /// How many ranges of slots the output is split into, one file each: from 1 to 16384 (default 8).
    #[must_use]
    pub fn partitions(mut self, partitions: usize) -> Self {
        self.partitions = partitions;
        self
    }

    /// Bytes of memory for loaded input and for sorting, all threads together (default 512 MiB).
    #[must_use]
    pub fn memory_bytes(mut self, bytes: usize) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// Threads that map and reduce (default: the cores of the machine).
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// The local folder for what does not fit in memory (default: the system's for temporary files).
    #[must_use]
    pub fn temp_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.temp_dir = folder.into();
        self
    }

    /// Writes sorted tables `part-00000.tbl` ... into a new folder, ready to be loaded as a version of a store.
    #[must_use]
    pub fn output_tables(self, folder: FsPath) -> Self {
        self.output_tables_with(folder, WriterOptions::default())
    }

    /// As [`Job::output_tables`], with settings of the tables.
    #[must_use]
    pub fn output_tables_with(mut self, folder: FsPath, options: WriterOptions) -> Self {
        self.output = Some((folder, Format::Tables(options)));
        self
    }

    /// Writes text files `part-00000` ... of lines `key<TAB>value` into a new folder; a record with an empty key is its
    /// value alone.
    #[must_use]
    pub fn output_text(mut self, folder: FsPath) -> Self {
        self.output = Some((folder, Format::Text));
        self
    }

    /// What is done where the output exists already (default: refuse).
    #[must_use]
    pub fn existing(mut self, existing: Existing) -> Self {
        self.existing = existing;
        self
    }

    /// Lets a token stop the job.
    #[must_use]
    pub fn cancelled_by(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// Runs the job. When this returns `Ok`, the output is visible under its name and durable; when it returns an error,
    /// or is dropped before it is ready, nothing is.
    pub async fn run(self, fs: &Fs, progress: &Progress) -> Result<JobReport> {
        engine::run(self, fs.clone(), progress.clone()).await
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("name", &self.name)
            .field("inputs", &self.inputs)
            .field("output", &self.output)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}
