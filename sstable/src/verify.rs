//! Checks a whole table and lists all that is wrong with it.
//!
//! Beyond the checksums: records parse, keys ascend within and across blocks, separators separate,
//! restart points lead to records, every key is found through the hash section at its place, and
//! the counts in index, properties and footer agree. A file that cannot even be opened is looked at
//! section by section, as far as the footer leads.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::block::{BlockBytes, Layout};
use crate::error::{Error, ErrorKind, Result, escape};
use crate::format::{Footer, HEADER, Section};
use crate::hash::{Head, Place, hash_of};
use crate::index::{BlockEntry, Index};
use crate::properties::Properties;
use crate::reader::{Table, check_crc, check_header, check_padding, map, section};

/// One thing that is wrong with a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// `header`, `block`, `index`, `hash`, `properties`, `footer` or `padding`.
    pub section: &'static str,
    /// Where the damaged part starts, in bytes from the start of the file.
    pub offset: u64,
    /// Length of the damaged part, in bytes.
    pub bytes: u64,
    /// What was expected and what was found.
    pub message: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { section, offset, bytes, message } = self;
        write!(f, "{section}, {bytes} bytes at offset {offset}: {message}")
    }
}

/// What a check of a whole table found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// The file.
    pub path: PathBuf,
    /// Bytes that were read.
    pub bytes: u64,
    /// Records that were read.
    pub records: u64,
    /// All damage, in the order in which it was found. Empty: the table is good.
    pub damage: Vec<Damage>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.damage.is_empty()
    }

    /// An error that names the file and its first damage, if there is any.
    pub fn into_result(self) -> Result<Self> {
        let Some(first) = self.damage.first() else { return Ok(self) };
        let message = match self.damage.len() {
            1 => format!("damaged: {first}"),
            n => format!("damaged in {n} places, the first: {first}"),
        };
        Err(Error::corrupt(message).in_file(&self.path))
    }
}

/// Checks the table in a file, also if it is too damaged to be opened. Fails only if the file
/// cannot be read. `progress` gets the bytes done and the bytes in all.
pub fn verify_file(path: impl AsRef<Path>, progress: impl FnMut(u64, u64)) -> Result<VerifyReport> {
    let path = path.as_ref();
    match Table::open(path) {
        Ok(table) => table.verify(progress),
        Err(e) if e.kind == ErrorKind::Io => Err(e),
        Err(_) => {
            let data = map(path)?;
            let damage = damage_of_unopenable(data.bytes());
            let bytes = data.bytes().len() as u64;
            Ok(VerifyReport { path: path.to_owned(), bytes, records: 0, damage })
        }
    }
}

/// What is wrong with a file that [`Table::open`] refuses.
fn damage_of_unopenable(bytes: &[u8]) -> Vec<Damage> {
    let mut found = Found::default();
    let file_bytes = bytes.len() as u64;
    let footer = match Footer::decode(bytes, file_bytes) {
        Ok(footer) => footer,
        Err(e) => {
            let footer_bytes = file_bytes.min(Footer::BYTES as u64);
            found.note("footer", file_bytes - footer_bytes, footer_bytes, e);
            return found.damage;
        }
    };
    found.check("header", 0, HEADER.len() as u64, check_header(bytes));
    let sections_at = footer.index.end();
    found.check("padding", sections_at, file_bytes - sections_at, check_padding(bytes, &footer));
    let index = section(bytes, footer.index);
    let checked = check_crc("index", index, footer.index).and_then(|()| {
        Index::check(index, footer.blocks, footer.records, footer.index.offset).map(|_| ())
    });
    found.check_section("index", footer.index, checked);
    let properties = Properties::decode(section(bytes, footer.properties), &footer);
    found.check_section("properties", footer.properties, properties.map(|_| ()));
    if footer.hash.bytes > 0 {
        let hash = section(bytes, footer.hash);
        match Head::decode(hash, footer.hash.crc32) {
            Ok(head) => found.check_chunks(&head, hash, footer.hash.offset),
            Err(e) => found.note("hash", footer.hash.offset, footer.hash.bytes, e),
        }
    }
    found.damage
}

pub(crate) fn verify_table(table: &Table, mut progress: impl FnMut(u64, u64)) -> VerifyReport {
    let footer = table.footer();
    let mut check = Check { table, found: Found::default(), counts: Counts::default(), last: None };
    progress(0, footer.file_bytes);
    for i in 0..table.index().blocks {
        match table.entry(i) {
            Ok(entry) => {
                check.block(i, &entry);
                progress(entry.offset + u64::from(entry.stored_bytes), footer.file_bytes);
            }
            Err(e) => check.found.note("index", footer.index.offset, footer.index.bytes, e),
        }
    }
    if let Some(head) = table.hash_head() {
        let section = table.hash_section();
        let before = check.found.damage.len();
        check.found.check_chunks(head, section, footer.hash.offset);
        let taken = head.taken(section);
        if check.found.damage.len() == before && taken != footer.records {
            let e =
                Error::corrupt(format!("{taken} slots are taken by {} records", footer.records));
            check.found.note("hash", footer.hash.offset, footer.hash.bytes, e);
        }
    }
    // Counts of blocks that could not be read are missing: then the sums say nothing.
    if check.found.damage.is_empty() {
        check.sums();
    }
    progress(footer.file_bytes, footer.file_bytes);
    VerifyReport {
        path: table.path().to_owned(),
        bytes: footer.file_bytes,
        records: check.counts.records,
        damage: check.found.damage,
    }
}

/// The damage found so far.
#[derive(Default)]
struct Found {
    damage: Vec<Damage>,
}

impl Found {
    fn note(&mut self, section: &'static str, offset: u64, bytes: u64, error: Error) {
        self.damage.push(Damage { section, offset, bytes, message: error.message });
    }

    fn check(&mut self, section: &'static str, offset: u64, bytes: u64, result: Result<()>) {
        if let Err(e) = result {
            self.note(section, offset, bytes, e);
        }
    }

    fn check_section(&mut self, name: &'static str, section: Section, result: Result<()>) {
        self.check(name, section.offset, section.bytes, result);
    }

    fn check_chunks(&mut self, head: &Head, section: &[u8], section_at: u64) {
        for i in 0..head.chunks() {
            let range = head.chunk(i);
            let offset = section_at + range.start as u64;
            self.check("hash", offset, range.len() as u64, head.check_chunk(section, i));
        }
    }
}

/// What the records add up to.
#[derive(Default)]
struct Counts {
    records: u64,
    key_bytes: u64,
    value_bytes: u64,
    smallest: Option<Vec<u8>>,
}

/// A walk over all blocks.
struct Check<'t> {
    table: &'t Table,
    found: Found,
    counts: Counts,
    last: Option<Vec<u8>>,
}

impl Check<'_> {
    fn block(&mut self, i: usize, entry: &BlockEntry) {
        let result = self
            .table
            .check_block(i, entry)
            .and_then(|()| self.table.block(i))
            .and_then(|block| self.records(i, entry, &block));
        self.found.check("block", entry.offset, u64::from(entry.stored_bytes), result);
    }

    fn records(&mut self, i: usize, entry: &BlockEntry, block: &BlockBytes<'_>) -> Result<()> {
        let bytes = block.bytes();
        let layout = Layout::of(bytes)?;
        let separator = self.table.index().separator(self.table.index_section(), i);
        if self.last.as_deref().is_some_and(|last| last >= separator) && i > 0 {
            return Err(Error::corrupt(format!(
                "block {i}: its separator {} is not above the key before it",
                escape(separator)
            )));
        }
        let (mut at, mut records, mut restart) = (0, 0, 0);
        while at < layout.records_end {
            let record = layout.record(bytes, at)?;
            let key = &bytes[record.key.clone()];
            let ascends = match &self.last {
                Some(last) => key > last.as_slice() && key >= separator,
                None => key >= separator,
            };
            if !ascends {
                return Err(Error::corrupt(format!(
                    "block {i}, record at {at}: key {} does not ascend",
                    escape(key)
                )));
            }
            if restart < layout.restarts() && layout.restart(bytes, restart) == at {
                restart += 1;
            }
            self.hashed(key, Place { block: i, offset: at })?;
            self.counts.key_bytes += key.len() as u64;
            self.counts.value_bytes += record.value.len() as u64;
            if self.counts.smallest.is_none() {
                self.counts.smallest = Some(key.to_vec());
            }
            let last = self.last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(key);
            records += 1;
            at = record.next;
        }
        self.counts.records += u64::from(records);
        if records != entry.records || restart != layout.restarts() || layout.restart(bytes, 0) != 0
        {
            return Err(Error::corrupt(format!(
                "block {i}: {records} records and {restart} restart points that lead to one, \
                 expected {} and {}, the first at 0",
                entry.records,
                layout.restarts()
            )));
        }
        Ok(())
    }

    /// The hash section must name this very record. Damage of a chunk is told once, with the
    /// chunks.
    fn hashed(&self, key: &[u8], expected: Place) -> Result<()> {
        let Some(head) = self.table.hash_head() else { return Ok(()) };
        let mut probe = head.probe(hash_of(key, head.seed));
        loop {
            match self.table.step(head, &mut probe) {
                Ok(Some(place)) if place == expected => return Ok(()),
                Ok(Some(_)) => {}
                Err(_) => return Ok(()),
                Ok(None) => {
                    return Err(Error::corrupt(format!(
                        "block {}, record at {}: the hash section does not name key {}",
                        expected.block,
                        expected.offset,
                        escape(key)
                    )));
                }
            }
        }
    }

    fn sums(&mut self) {
        let properties = self.table.properties();
        let found = Properties {
            records: self.counts.records,
            key_bytes: self.counts.key_bytes,
            value_bytes: self.counts.value_bytes,
            smallest: self.counts.smallest.take().unwrap_or_default(),
            largest: self.last.take().unwrap_or_default(),
            user: properties.user.clone(),
        };
        if found != *properties {
            let e = Error::corrupt(format!("the records add up to {found:?}, not {properties:?}"));
            let section = self.table.footer().properties;
            self.found.note("properties", section.offset, section.bytes, e);
        }
    }
}
