//! What a job did: [`JobReport`].

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use proto::FsPath;
use serde::Serialize;

/// What a job did. Serialises to plain numbers, times in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct JobReport {
    /// The job's name.
    pub name: String,
    /// The folder that is visible now.
    #[serde(serialize_with = "as_text")]
    pub output: FsPath,
    /// Files read.
    pub input_files: u64,
    /// Bytes read.
    pub input_bytes: u64,
    /// Lines, documents or records read.
    pub input_records: u64,
    /// Records that the map functions emitted.
    pub mapped_records: u64,
    /// Bytes of their keys and values.
    pub mapped_bytes: u64,
    /// Times a sort's memory was full.
    pub spills: u64,
    /// Bytes that the sort wrote to local disk.
    pub spilled_bytes: u64,
    /// Different keys that were reduced.
    pub groups: u64,
    /// Records written.
    pub output_records: u64,
    /// Bytes of the output's files.
    pub output_bytes: u64,
    /// The output's files, by partition.
    pub parts: Vec<Part>,
    /// The counters of the user's functions, by name.
    pub counters: BTreeMap<String, u64>,
    /// Threads that worked.
    pub threads: usize,
    /// Seconds from start to end.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
    /// Seconds by phase.
    pub times: Times,
}

/// One file of the output.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// Its path.
    #[serde(serialize_with = "as_text")]
    pub path: FsPath,
    /// The slots of its keys, first and last.
    pub slots: RangeInclusive<u16>,
    /// Records.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// How long each phase took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Times {
    /// Listing the input.
    #[serde(serialize_with = "as_seconds")]
    pub plan: Duration,
    /// Reading, mapping and sorting.
    #[serde(serialize_with = "as_seconds")]
    pub map: Duration,
    /// Merging, reducing and writing.
    #[serde(serialize_with = "as_seconds")]
    pub reduce: Duration,
    /// Making the output visible.
    #[serde(serialize_with = "as_seconds")]
    pub commit: Duration,
}

impl JobReport {
    /// Input bytes per second of the whole job.
    pub fn input_bytes_per_second(&self) -> f64 {
        self.input_bytes as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// A counter; 0 if nothing was counted by that name.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }
}

fn as_text<S: serde::Serializer>(path: &FsPath, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(path.as_str())
}

fn as_seconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}
