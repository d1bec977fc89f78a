//! External sort: records go in in any order, and come out by partition and key, with bounded memory.
//!
//! Records gather in one buffer; when it is full they are sorted and written to a run, a temporary file that is deleted
//! with its folder. At the end the runs are merged. Of equal keys, those that came first come out first.
//!
//! A run is `{u32 key bytes, u32 value bytes, key, value}*`, little-endian; its keys carry the partition in front.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use proto::{Error, Result};
use sstable::merge::merge;

/// Runs that are merged at once.
const RUNS_MAX: usize = 128;
/// Bytes of a buffer of one run.
const RUN_BUFFER_BYTES: usize = 64 << 10;
/// Bytes of a partition in front of a key.
pub const PARTITION_BYTES: usize = 2;

/// Gathers and sorts.
pub struct Runs {
    folder: PathBuf,
    memory_bytes: usize,
    bytes: Vec<u8>,
    records: Vec<Place>,
    runs: Vec<PathBuf>,
    written: usize,
    total: u64,
}

/// Where a record lies in the buffer.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    key_bytes: u32,
    value_bytes: u32,
}

/// A partition and key, and a value.
pub type Pair = (Vec<u8>, Vec<u8>);

impl Runs {
    /// Sorts with up to about `memory_bytes` of memory; spills into `folder`.
    pub fn new(folder: &Path, memory_bytes: usize) -> Self {
        Self {
            folder: folder.to_owned(),
            memory_bytes: memory_bytes.max(1 << 16),
            bytes: Vec::new(),
            records: Vec::new(),
            runs: Vec::new(),
            written: 0,
            total: 0,
        }
    }

    /// Adds a record.
    pub fn add(&mut self, partition: u16, key: &[u8], value: &[u8]) -> Result<()> {
        let place = Place {
            start: self.bytes.len(),
            key_bytes: (PARTITION_BYTES + key.len()) as u32,
            value_bytes: value.len() as u32,
        };
        self.bytes.extend_from_slice(&partition.to_be_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.records.push(place);
        self.total += 1;
        let used = self.bytes.len() + self.records.len() * size_of::<Place>();
        if used >= self.memory_bytes { self.spill() } else { Ok(()) }
    }

    /// Records that were added.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// All records by partition and key.
    pub fn finish(mut self) -> Result<impl Iterator<Item = Result<Pair>>> {
        if !self.records.is_empty() {
            self.spill()?;
        }
        // The buffer is not needed any more; readers of runs take its place.
        self.bytes = Vec::new();
        merged(&self.runs)
    }

    fn spill(&mut self) -> Result<()> {
        let (bytes, records) = (&self.bytes, &mut self.records);
        let key = |place: &Place| &bytes[place.start..][..place.key_bytes as usize];
        records.sort_by(|a, b| key(a).cmp(key(b)));
        let path = self.folder.join(format!("run-{}", self.written));
        self.written += 1;
        let mut run = RunWriter::create(path)?;
        for place in records.iter() {
            let (key, rest) = bytes[place.start..].split_at(place.key_bytes as usize);
            run.add(key, &rest[..place.value_bytes as usize])?;
        }
        self.runs.push(run.finish()?);
        self.bytes.clear();
        self.records.clear();
        if self.runs.len() == RUNS_MAX { self.compact() } else { Ok(()) }
    }

    /// Merges all runs into one.
    fn compact(&mut self) -> Result<()> {
        let path = self.folder.join(format!("run-{}", self.written));
        self.written += 1;
        let mut run = RunWriter::create(path)?;
        for pair in merged(&self.runs)? {
            let (key, value) = pair?;
            run.add(&key, &value)?;
        }
        for path in std::mem::replace(&mut self.runs, vec![run.finish()?]) {
            std::fs::remove_file(&path)
                .map_err(|error| Error::io(format!("delete {}", path.display()), &error))?;
        }
        Ok(())
    }
}

fn merged(runs: &[PathBuf]) -> Result<impl Iterator<Item = Result<Pair>> + use<>> {
    let sources: Result<Vec<_>> = runs.iter().map(|path| RunReader::open(path.clone())).collect();
    Ok(merge(sources?).map(|record| record.map(|(_, key, value)| (key, value))))
}

struct RunWriter {
    path: PathBuf,
    out: BufWriter<File>,
}

impl RunWriter {
    fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path)
            .map_err(|error| Error::io(format!("create {}", path.display()), &error))?;
        Ok(Self { path, out: BufWriter::with_capacity(1 << 20, file) })
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut write = || {
            self.out.write_all(&(key.len() as u32).to_le_bytes())?;
            self.out.write_all(&(value.len() as u32).to_le_bytes())?;
            self.out.write_all(key)?;
            self.out.write_all(value)
        };
        write().map_err(|error| self.failed(&error))
    }

    fn finish(mut self) -> Result<PathBuf> {
        self.out.flush().map_err(|error| self.failed(&error))?;
        Ok(self.path)
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::io(format!("write {}", self.path.display()), error)
    }
}

struct RunReader {
    path: PathBuf,
    input: BufReader<File>,
}

impl RunReader {
    fn open(path: PathBuf) -> Result<Self> {
        let file = File::open(&path)
            .map_err(|error| Error::io(format!("open {}", path.display()), &error))?;
        Ok(Self { path, input: BufReader::with_capacity(RUN_BUFFER_BYTES, file) })
    }

    fn read(&mut self) -> std::io::Result<Option<Pair>> {
        use std::io::BufRead;
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut lengths = [0; 8];
        self.input.read_exact(&mut lengths)?;
        let length = |at: usize| {
            u32::from_le_bytes(lengths[at..at + 4].try_into().expect("four bytes")) as usize
        };
        let (mut key, mut value) = (vec![0; length(0)], vec![0; length(4)]);
        self.input.read_exact(&mut key)?;
        self.input.read_exact(&mut value)?;
        Ok(Some((key, value)))
    }
}

impl Iterator for RunReader {
    type Item = Result<Pair>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read()
            .map_err(|error| Error::io(format!("read {}", self.path.display()), &error))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_by_partition_and_key_and_equal_ones_in_their_order() {
        for memory in [1 << 16, 1 << 30] {
            let folder = tempfile::tempdir().unwrap();
            let mut runs = Runs::new(folder.path(), memory);
            let mut expected = Vec::new();
            for n in 0..40_000_u32 {
                let scattered = n.wrapping_mul(2_654_435_761);
                let key = (scattered % 5_000).to_string().into_bytes();
                let partition = (key.len() % 3) as u16;
                let value = vec![b'v'; (n % 700) as usize];
                runs.add(partition, &key, &[n.to_string().as_bytes(), &value].concat()).unwrap();
                expected.push((partition, key, n));
            }
            expected.sort();
            assert_eq!(runs.total(), 40_000);
            let spilled = runs.written;
            let found: Vec<_> = runs
                .finish()
                .unwrap()
                .map(|pair| {
                    let (key, value) = pair.unwrap();
                    let digits: String = value
                        .iter()
                        .take_while(|b| b.is_ascii_digit())
                        .map(|&b| b as char)
                        .collect();
                    let partition = u16::from_be_bytes([key[0], key[1]]);
                    (partition, key[PARTITION_BYTES..].to_vec(), digits.parse::<u32>().unwrap())
                })
                .collect();
            assert_eq!(found.len(), expected.len());
            assert!(found == expected, "with {memory} bytes and {spilled} runs");
            assert!(memory > 1 << 20 || spilled > RUNS_MAX, "many runs were merged");
        }
    }
}
