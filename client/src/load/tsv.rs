//! Builds the tables of a version from lines of `key<TAB>value` and publishes them.
//!
//! The key ends at the first tab; the value is the rest of the line, byte for byte, without the line feed. There are no
//! escapes and no header. Reading, sorting and building run on a thread of their own, with bounded memory; tables are
//! written to a staging folder in the file system, which is removed in the end, whatever happens.

use std::io::{BufRead, Read};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use proto::limits::{KEY_BYTES_MAX, SLOTS, VALUE_BYTES_MAX};
use proto::{Code, Error, FsPath, Result};
use sstable::{TableWriter, WriterOptions, escape, format_slots};
use tokio::sync::mpsc;

use super::{Options, Progress, publish_folder};
use crate::fs::{CreateOptions, Fs, Recursion};
use crate::job::sort::{Merged, Sorter, SorterOptions};
use crate::write::BlockingWriter;

/// Lines between two reports of progress.
const PROGRESS_RECORDS: u64 = 16_384;
/// Reports of progress that wait to be told; more are dropped.
const PROGRESS_MAX: usize = 16;
/// Input bytes per table if the number of tables is left open.
const TABLE_INPUT_BYTES: u64 = 512 << 20;
/// Tables if neither their number nor the length of the input is known.
const TABLES_OF_A_STREAM: u16 = 8;
/// The largest number of tables.
const TABLES_MAX: u16 = 4096;

/// Where lines come from.
pub enum Input {
    /// A local file.
    File(PathBuf),
    /// Anything else, for instance standard input, and its name for messages.
    Reader(String, Box<dyn Read + Send>),
}

/// What to do with a key that comes twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// Fail, and name the key.
    #[default]
    Refuse,
    /// The line that comes first holds.
    KeepFirst,
    /// The line that comes last holds.
    KeepLast,
}

/// How to build.
#[derive(Clone, Debug)]
pub struct TsvOptions {
    /// How to publish.
    pub publish: Options,
    /// What to do with a key that comes twice.
    pub duplicates: Duplicates,
    /// Tables to build; 0: one for every 512 MiB of input.
    pub tables: u16,
    /// Memory for sorting, in bytes.
    pub sort_memory_bytes: usize,
    /// Local folder for sorted runs; `None`: the system's folder for temporary files.
    pub spill_folder: Option<PathBuf>,
    /// Folder in the file system under which tables are staged.
    pub staging: FsPath,
    /// How tables are written.
    pub writer: WriterOptions,
    /// Replicas of the tables; 0: the default.
    pub replication: u32,
}

impl Default for TsvOptions {
    fn default() -> Self {
        Self {
            publish: Options::default(),
            duplicates: Duplicates::default(),
            tables: 0,
            sort_memory_bytes: 256 << 20,
            spill_folder: None,
            staging: FsPath::parse("/tmp").expect("it is a path"),
            writer: WriterOptions::default(),
            replication: 0,
        }
    }
}

/// Builds the tables of `input` and publishes them as a new version of `store`; gives its number.
pub async fn load_tsv(
    fs: &Fs,
    store: &str,
    input: Input,
    options: TsvOptions,
    mut progress: impl FnMut(Progress),
) -> Result<u64> {
    let staging = options.staging.join(&format!("load-{}", uuid::Uuid::new_v4()))?;
    fs.mkdirs(&staging, 0o755).await?;
    let publish = options.publish.clone();
    let loaded = async {
        build(fs, input, options, &staging, &mut progress).await?;
        publish_folder(fs, store, &staging, publish, &mut progress).await
    };
    let loaded = loaded.await;
    let removed = fs.delete(&staging, Recursion::Yes).await;
    let version = loaded?;
    if let Err(error) = removed {
        tracing::warn!(folder = %staging, %error, "the staging folder was not removed");
    }
    Ok(version)
}

/// Builds all tables on a blocking thread, and tells how far it is.
async fn build(
    fs: &Fs,
    input: Input,
    options: TsvOptions,
    staging: &FsPath,
    progress: &mut impl FnMut(Progress),
) -> Result<()> {
    let (sender, mut receiver) = mpsc::channel(PROGRESS_MAX);
    let (fs, staging) = (fs.clone(), staging.clone());
    let work = tokio::task::spawn_blocking(move || {
        let tell = |progress| {
            // A full channel drops a report: the next one tells more.
            let _dropped = sender.try_send(progress).is_err();
        };
        build_blocking(&fs, input, &options, &staging, &tell)
    });
    while let Some(report) = receiver.recv().await {
        progress(report);
    }
    work.await.unwrap_or_else(|error| {
        Err(Error::new(Code::Internal, format!("the build ended: {error}")))
    })
}

fn build_blocking(
    fs: &Fs,
    input: Input,
    options: &TsvOptions,
    staging: &FsPath,
    tell: &dyn Fn(Progress),
) -> Result<()> {
    let (name, reader, bytes_total) = open(input)?;
    let tables = match (options.tables, bytes_total) {
        (0, Some(bytes)) => bytes.div_ceil(TABLE_INPUT_BYTES).clamp(1, TABLES_MAX.into()) as u16,
        (0, None) => TABLES_OF_A_STREAM,
        (tables, _) if tables <= TABLES_MAX => tables,
        (tables, _) => {
            let what = format!("{tables} tables were asked for, at most {TABLES_MAX}");
            return Err(Error::new(Code::InvalidArgument, what));
        }
    };
    let mut sorter = Sorter::new(SorterOptions {
        memory_bytes: options.sort_memory_bytes,
        temp_dir: options.spill_folder.clone().unwrap_or_else(std::env::temp_dir),
        ..SorterOptions::default()
    });
    let mut lines = Lines::new(&name, reader);
    let mut records = 0;
    while let Some((key, value)) = lines.next()? {
        sorter.push_to(partition_of(sstable::slot::slot_of(key), tables), key, value)?;
        records += 1;
        if records % PROGRESS_RECORDS == 0 {
            tell(Progress::Read { bytes: lines.bytes, bytes_total, records });
        }
    }
    tell(Progress::Read { bytes: lines.bytes, bytes_total, records });
    let sorted = sorter.finish()?;
    let mut written = 0;
    let mut wrote_one = || {
        written += 1;
        if written % PROGRESS_RECORDS == 0 {
            tell(Progress::Built { records: written, records_total: records });
        }
    };
    for partition in 0..tables {
        let mut table = start_table(fs, options, staging, partition, tables)?;
        let add = |key: &[u8], value: &[u8]| {
            wrote_one();
            table.add(key, value).map_err(table_error)
        };
        without_duplicates(sorted.partition(partition), options.duplicates, &name, add)?;
        let (file, _summary) = table.finish().map_err(table_error)?;
        file.close()?;
    }
    tell(Progress::Built { records: written, records_total: records });
    Ok(())
}

/// Hands on each key once, with the value that holds.
fn without_duplicates(
    mut records: Merged<'_>,
    duplicates: Duplicates,
    name: &str,
    mut add: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let mut any = false;
    while let Some((next_key, next_value)) = records.next()? {
        if any && next_key == key {
            match duplicates {
                Duplicates::Refuse => return Err(duplicate(name, &key)),
                Duplicates::KeepFirst => continue,
                Duplicates::KeepLast => {}
            }
        } else {
            if any {
                add(&key, &value)?;
            }
            any = true;
            key.clear();
            key.extend_from_slice(next_key);
        }
        value.clear();
        value.extend_from_slice(next_value);
    }
    if any { add(&key, &value) } else { Ok(()) }
}

/// Opens the table of one partition in the staging folder.
fn start_table(
    fs: &Fs,
    options: &TsvOptions,
    staging: &FsPath,
    partition: u16,
    tables: u16,
) -> Result<TableWriter<BlockingWriter>> {
    let path = staging.join(&format!("part-{partition:05}{}", super::TABLE_SUFFIX))?;
    let create = CreateOptions { replication: options.replication, ..CreateOptions::default() };
    let file = fs.runtime().block_on(fs.create(&path, create))?;
    let mut table =
        TableWriter::new(file.into_blocking(), options.writer.clone()).map_err(table_error)?;
    let created_by = format!("granary {}", proto::SOFTWARE_VERSION);
    table
        .set_property(sstable::PROPERTY_SLOTS, format_slots(&slots_of(partition, tables)))
        .and_then(|()| table.set_property(sstable::PROPERTY_CREATED_BY, created_by))
        .map_err(table_error)?;
    Ok(table)
}

fn duplicate(name: &str, key: &[u8]) -> Error {
    let what = format!(
        "{name}: key {} comes more than once: remove all but one, or choose that the first or the last holds",
        escape(key)
    );
    Error::new(Code::InvalidArgument, what)
}

type Opened = (String, Box<dyn BufRead + Send>, Option<u64>);

fn open(input: Input) -> Result<Opened> {
    const BUFFER_BYTES: usize = 1 << 20;
    match input {
        Input::File(path) => {
            let failed = |error| Error::io(format!("open {}", path.display()), &error);
            let file = std::fs::File::open(&path).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            if metadata.is_dir() {
                let what =
                    format!("{} is a folder, expected lines of key<TAB>value", path.display());
                return Err(Error::new(Code::IsFolder, what));
            }
            // A pipe has no length that is worth knowing.
            let bytes = metadata.is_file().then_some(metadata.len());
            let reader = std::io::BufReader::with_capacity(BUFFER_BYTES, file);
            Ok((path.display().to_string(), Box::new(reader), bytes))
        }
        Input::Reader(name, reader) => {
            let reader = std::io::BufReader::with_capacity(BUFFER_BYTES, reader);
            Ok((name, Box::new(reader), None))
        }
    }
}

/// Which of `tables` tables holds a slot.
fn partition_of(slot: u16, tables: u16) -> u16 {
    (u32::from(slot) * u32::from(tables) / u32::from(SLOTS)) as u16
}

/// The slots of table `partition` of `tables`.
fn slots_of(partition: u16, tables: u16) -> RangeInclusive<u16> {
    let first = |partition: u16| {
        (u32::from(partition) * u32::from(SLOTS)).div_ceil(u32::from(tables)) as u16
    };
    first(partition)..=first(partition + 1) - 1
}

/// Splits lines with bounded memory.
struct Lines<'n> {
    name: &'n str,
    reader: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    number: u64,
    bytes: u64,
}

impl<'n> Lines<'n> {
    fn new(name: &'n str, reader: Box<dyn BufRead + Send>) -> Self {
        Self { name, reader, line: Vec::new(), number: 0, bytes: 0 }
    }

    /// Key and value of the next line; `None`: that was all.
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        const LINE_BYTES_MAX: u64 = (KEY_BYTES_MAX + VALUE_BYTES_MAX + 2) as u64;
        self.line.clear();
        self.number += 1;
        let count = (&mut self.reader)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut self.line)
            .map_err(|error| Error::io(format!("read {}", self.name), &error))?;
        if count == 0 {
            return Ok(None);
        }
        self.bytes += count as u64;
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let bad = |what: String| {
            Error::new(Code::InvalidArgument, format!("{} line {}: {what}", self.name, self.number))
        };
        let too_long = |what: &str, bytes: usize, max: usize| {
            Err(bad(format!("a {what} of over {} bytes, at most {max}", bytes.min(max))))
        };
        let Some(tab) = line.iter().position(|&byte| byte == b'\t') else {
            return Err(bad("no tab: expected key<TAB>value".into()));
        };
        let (key, value) = (&line[..tab], &line[tab + 1..]);
        if key.is_empty() {
            return Err(bad("an empty key".into()));
        }
        if key.len() > KEY_BYTES_MAX {
            return too_long("key", key.len(), KEY_BYTES_MAX);
        }
        if value.len() > VALUE_BYTES_MAX || (count as u64 == LINE_BYTES_MAX && line.len() == count)
        {
            return too_long("value", value.len(), VALUE_BYTES_MAX);
        }
        Ok(Some((key, value)))
    }
}

fn table_error(error: sstable::Error) -> Error {
    match error.io() {
        // What the file system said keeps its meaning.
        Some(io) => match io.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => error.clone().context("write a table"),
            None => Error::io("write a table", io),
        },
        None => Error::new(Code::InvalidArgument, error.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_tables_and_tables_of_slots_agree() {
        for tables in [1, 2, 3, 7, 8, 100, 4096] {
            let mut next = 0;
            for partition in 0..tables {
                let slots = slots_of(partition, tables);
                assert_eq!(*slots.start(), next);
                for slot in [*slots.start(), *slots.end()] {
                    assert_eq!(partition_of(slot, tables), partition, "slot {slot} of {tables}");
                }
                next = slots.end() + 1;
            }
            assert_eq!(next, SLOTS);
        }
    }

    #[test]
    fn of_a_key_that_comes_twice_the_chosen_value_holds() {
        let sorted = || {
            let mut sorter = Sorter::new(SorterOptions::default());
            for (key, value) in [("b", "1"), ("a", "1"), ("b", "2"), ("b", "3"), ("c", "1")] {
                sorter.push(key.as_bytes(), value.as_bytes()).unwrap();
            }
            sorter.finish().unwrap()
        };
        let keep = |duplicates| {
            let mut seen = String::new();
            let outcome = without_duplicates(sorted().records(), duplicates, "in", |key, value| {
                seen.push_str(std::str::from_utf8(&[key, value].concat()).unwrap());
                Ok(())
            });
            outcome.map(|()| seen)
        };
        assert_eq!(keep(Duplicates::KeepFirst).unwrap(), "a1b1c1");
        assert_eq!(keep(Duplicates::KeepLast).unwrap(), "a1b3c1");
        let error = keep(Duplicates::Refuse).unwrap_err();
        assert!(error.message.starts_with("in: key \"b\" comes more than once"), "{error}");
    }

    fn lines(text: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut lines = Lines::new("in", Box::new(std::io::Cursor::new(text.to_vec())));
        let mut found = Vec::new();
        while let Some((key, value)) = lines.next()? {
            found.push((key.to_vec(), value.to_vec()));
        }
        Ok(found)
    }

    #[test]
    fn a_line_is_a_key_up_to_the_first_tab_and_a_value() {
        let found = lines(b"a\t1\nb\t\nc\tx\ty\r").unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|(k, v)| (k.escape_ascii().to_string(), v.escape_ascii().to_string()))
            .collect();
        let expected = [("a", "1"), ("b", ""), ("c", "x\\ty\\r")];
        assert_eq!(shown, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(lines(b"").unwrap(), []);
    }

    #[test]
    fn lines_that_are_no_records_are_named() {
        let long = [vec![b'k'; KEY_BYTES_MAX + 1], b"\tv\n".to_vec()].concat();
        let cases: [(&[u8], &str); 4] = [
            (b"a\t1\nb\n", "in line 2: no tab"),
            (b"\n", "in line 1: no tab"),
            (b"\tv\n", "in line 1: an empty key"),
            (&long, "in line 1: a key of over 65536 bytes"),
        ];
        for (text, why) in cases {
            let error = lines(text).unwrap_err();
            assert!(error.message.starts_with(why), "{error}");
        }
    }
}
