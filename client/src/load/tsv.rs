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

use super::runs::{PARTITION_BYTES, Runs};
use super::{Options, Progress, publish_folder};
use crate::fs::{CreateOptions, Fs, Recursion};
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
    let folder = SpillFolder::make(options.spill_folder.as_deref())?;
    let mut runs = Runs::new(&folder.0, options.sort_memory_bytes);
    let mut lines = Lines::new(&name, reader);
    while let Some((key, value)) = lines.next()? {
        runs.add(partition_of(sstable::slot::slot_of(key), tables), key, value)?;
        if runs.total().is_multiple_of(PROGRESS_RECORDS) {
            tell(Progress::Read { bytes: lines.bytes, bytes_total, records: runs.total() });
        }
    }
    tell(Progress::Read { bytes: lines.bytes, bytes_total, records: runs.total() });
    let records_total = runs.total();
    let mut building = Building { fs, options, staging, tables, next: 0, open: None, written: 0 };
    let mut pending: Option<(Vec<u8>, Vec<u8>)> = None;
    for pair in runs.finish()? {
        let (key, value) = pair?;
        match &mut pending {
            Some(last) if last.0 == key => match options.duplicates {
                Duplicates::Refuse => return Err(duplicate(&name, &key[PARTITION_BYTES..])),
                Duplicates::KeepFirst => {}
                Duplicates::KeepLast => last.1 = value,
            },
            _ => {
                if let Some((key, value)) = pending.replace((key, value)) {
                    building.add(&key, &value)?;
                    if building.written.is_multiple_of(PROGRESS_RECORDS) {
                        tell(Progress::Built { records: building.written, records_total });
                    }
                }
            }
        }
    }
    if let Some((key, value)) = pending {
        building.add(&key, &value)?;
    }
    building.open_up_to(tables - 1)?;
    building.close()?;
    tell(Progress::Built { records: building.written, records_total });
    Ok(())
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

/// The tables that are being written, one after another.
struct Building<'b> {
    fs: &'b Fs,
    options: &'b TsvOptions,
    staging: &'b FsPath,
    tables: u16,
    /// The table to open next.
    next: u16,
    open: Option<TableWriter<BlockingWriter>>,
    written: u64,
}

impl Building<'_> {
    /// Adds a record; its key carries the partition in front.
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let (partition, key) = key.split_at(PARTITION_BYTES);
        let partition = u16::from_be_bytes([partition[0], partition[1]]);
        self.open_up_to(partition)?;
        let table = self.open.as_mut().expect("the table of the partition was just opened");
        table.add(key, value).map_err(table_error)?;
        self.written += 1;
        Ok(())
    }

    /// Makes `partition` the open table; those before it without records are empty tables.
    fn open_up_to(&mut self, partition: u16) -> Result<()> {
        while self.next <= partition {
            self.close()?;
            self.open_next()?;
        }
        Ok(())
    }

    fn open_next(&mut self) -> Result<()> {
        let path = self.staging.join(&format!("part-{:05}{}", self.next, super::TABLE_SUFFIX))?;
        let create = CreateOptions { replication: self.options.replication, ..Default::default() };
        let file = self.fs.runtime().block_on(self.fs.create(&path, create))?;
        let mut table = TableWriter::new(file.into_blocking(), self.options.writer.clone())
            .map_err(table_error)?;
        let created_by = format!("granary {}", proto::SOFTWARE_VERSION);
        let slots = format_slots(&slots_of(self.next, self.tables));
        table
            .set_property(sstable::PROPERTY_SLOTS, slots)
            .and_then(|()| table.set_property(sstable::PROPERTY_CREATED_BY, created_by))
            .map_err(table_error)?;
        self.open = Some(table);
        self.next += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let Some(table) = self.open.take() else { return Ok(()) };
        let (file, _summary) = table.finish().map_err(table_error)?;
        file.close()?;
        Ok(())
    }
}

fn table_error(error: sstable::Error) -> Error {
    match error.io() {
        Some(io) => Error::io("write a table", io),
        None => Error::new(Code::InvalidArgument, error.message),
    }
}

/// A local folder that is removed with all it holds.
struct SpillFolder(PathBuf);

impl SpillFolder {
    fn make(parent: Option<&std::path::Path>) -> Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, PathBuf::from);
        let path = parent.join(format!("granary-sort-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&path)
            .map_err(|error| Error::io(format!("make folder {}", path.display()), &error))?;
        Ok(Self(path))
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "sorted runs were not removed");
        }
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
