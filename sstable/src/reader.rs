//! An open table: point gets, batches, ranges, straight from a read-only map of the file.
//!
//! Opening checks the footer, the index and the properties in full, and of the hash section its
//! head. Blocks and chunks of the hash section are compared with their checksum when they are first
//! used; a bitmap remembers which were. So no answer ever comes from bytes that were not checked,
//! and opening costs as much as the index is long.
//!
//! The map relies on files never being changed or truncated: replace a table by a new file, and
//! unlink the old one. Reading is from many threads at once, without a lock.

use std::fs::File;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use memmap2::{Advice, Mmap};

use crate::block::{BlockBytes, Layout, record_at};
use crate::compress::{Codec, decompress};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Footer, HEADER, Section};
use crate::hash::{Head, Place, Probe, hash_of};
use crate::index::{BlockEntry, Index};
use crate::iter::{Iter, Limit};
use crate::properties::Properties;
use crate::value::Value;
use crate::verify::{VerifyReport, verify_table};

/// Keys of a batch that are looked up in step, so that their memory accesses overlap.
const BATCH_KEYS: usize = 32;

/// An open table. See the module's head.
pub struct Table {
    path: PathBuf,
    data: Data,
    footer: Footer,
    properties: Properties,
    index: Index,
    hash: Option<Head>,
    blocks_checked: Bitmap,
    chunks_checked: Bitmap,
}

pub(crate) enum Data {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Table {
    /// Maps the file and checks it as far as the module's head says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::new(path.to_owned(), map(path)?).map_err(|e| e.in_file(path))
    }

    /// A table that is in memory already, under a name for messages.
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Self> {
        let path = name.into();
        Self::new(path.clone(), Data::Owned(bytes)).map_err(|e| e.in_file(&path))
    }

    fn new(path: PathBuf, data: Data) -> Result<Self> {
        let bytes = data.bytes();
        let footer = Footer::decode(bytes, bytes.len() as u64)?;
        check_header(bytes)?;
        check_padding(bytes, &footer)?;
        let section = section(bytes, footer.index);
        check_crc("index", section, footer.index)?;
        let index = Index::check(section, footer.blocks, footer.records, footer.index.offset)?;
        check_blocks_padding(bytes, &footer, index)?;
        let properties = Properties::decode(self::section(bytes, footer.properties), &footer)?;
        let hash = match footer.hash.bytes {
            0 => None,
            _ => Some(Head::decode(self::section(bytes, footer.hash), footer.hash.crc32)?),
        };
        Ok(Self {
            path,
            blocks_checked: Bitmap::new(index.blocks),
            chunks_checked: Bitmap::new(hash.map_or(0, |head| head.chunks())),
            data,
            footer,
            properties,
            index,
            hash,
        })
    }

    /// The file, or the name given to [`Table::from_bytes`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of records.
    pub fn records(&self) -> u64 {
        self.footer.records
    }

    /// What the table says about itself.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Where everything is.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Names the content, together with the file's length.
    pub fn footer_crc32(&self) -> u32 {
        self.footer.crc32
    }

    /// Length of the file, in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.footer.file_bytes
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value<'_>>> {
        match &self.hash {
            Some(head) => self.follow(head, head.probe(hash_of(key, head.seed)), key, &mut None),
            None => self.get_sorted(key),
        }
        .map_err(|e| e.in_file(&self.path))
    }

    /// The values of many keys, in the order of the keys. Their memory accesses overlap, so this is
    /// a few times faster than one by one when the table is larger than the processor's caches. A
    /// damaged block fails its own keys only.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Option<Value<'_>>>> {
        let mut values = Vec::with_capacity(keys.len());
        let Some(head) = &self.hash else {
            values.extend(keys.iter().map(|key| self.get(key.as_ref())));
            return values;
        };
        for batch in keys.chunks(BATCH_KEYS) {
            self.get_batch(head, batch, &mut values);
        }
        values
    }

    /// All records, in the order of their keys.
    pub fn iter(&self) -> Iter<'_> {
        self.iter_from(&[], Limit::None)
    }

    /// The records whose keys are in `range`.
    pub fn range<'k>(&self, range: impl RangeBounds<&'k [u8]>) -> Iter<'_> {
        let limit = match range.end_bound() {
            Bound::Unbounded => Limit::None,
            Bound::Excluded(key) => Limit::Below(key.to_vec()),
            Bound::Included(key) => Limit::UpTo(key.to_vec()),
        };
        match range.start_bound() {
            Bound::Unbounded => self.iter_from(&[], limit),
            Bound::Included(key) => self.iter_from(key, limit),
            Bound::Excluded(key) => {
                // The smallest key above another is that key with a zero byte behind it.
                let mut after = key.to_vec();
                after.push(0);
                self.iter_from(&after, limit)
            }
        }
    }

    /// The records whose keys start with `prefix`.
    pub fn prefix(&self, prefix: &[u8]) -> Iter<'_> {
        self.iter_from(prefix, Limit::Prefix(prefix.to_vec()))
    }

    /// Reads the whole file into memory and maps all of it, so that the first gets are as fast as
    /// later ones.
    pub fn warm(&self) -> Result<()> {
        let Data::Mapped(map) = &self.data else { return Ok(()) };
        match map.advise(Advice::PopulateRead) {
            Ok(()) => Ok(()),
            // Kernels before 5.14 do not know this advice: touch each page instead.
            Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => {
                let sum = map.iter().step_by(4096).fold(0u8, |sum, byte| sum ^ byte);
                std::hint::black_box(sum);
                Ok(())
            }
            Err(e) => {
                Err(Error::from_io("cannot read the table into memory", e).in_file(&self.path))
            }
        }
    }

    /// Checks everything there is to check, and lists all damage: that is a report, not an error.
    /// `progress` gets the bytes done and the bytes in all.
    pub fn verify(&self, progress: impl FnMut(u64, u64)) -> Result<VerifyReport> {
        Ok(verify_table(self, progress))
    }

    // What iteration and verification need.

    pub(crate) fn index(&self) -> Index {
        self.index
    }

    pub(crate) fn index_section(&self) -> &[u8] {
        section(self.data.bytes(), self.footer.index)
    }

    pub(crate) fn hash_head(&self) -> Option<&Head> {
        self.hash.as_ref()
    }

    pub(crate) fn hash_section(&self) -> &[u8] {
        section(self.data.bytes(), self.footer.hash)
    }

    pub(crate) fn entry(&self, i: usize) -> Result<BlockEntry> {
        self.index.entry(self.index_section(), i).ok_or_else(|| {
            Error::corrupt(format!("block {i} does not exist; there are {}", self.index.blocks))
        })
    }

    /// The bytes of block `i`, checked and unpacked.
    #[inline]
    pub(crate) fn block(&self, i: usize) -> Result<BlockBytes<'_>> {
        let entry = self.entry(i)?;
        let stored = self.stored(&entry);
        if !self.blocks_checked.get(i) {
            self.check_block(i, &entry)?;
        }
        match entry.codec {
            Codec::Raw => Ok(BlockBytes::Mapped(stored)),
            Codec::Zstd => decompress(stored, entry.raw_bytes as usize)
                .map(|raw| BlockBytes::Shared(Arc::new(raw))),
        }
    }

    /// Compares the checksum of block `i`, even if that was done before.
    #[cold]
    pub(crate) fn check_block(&self, i: usize, entry: &BlockEntry) -> Result<()> {
        let found = crc32fast::hash(self.stored(entry));
        if found != entry.crc32 {
            return Err(Error::corrupt(format!(
                "block {i}, {} bytes at offset {}: CRC32 {found:08x}, expected {:08x}",
                entry.stored_bytes, entry.offset, entry.crc32
            )));
        }
        self.blocks_checked.set(i);
        Ok(())
    }

    /// The stored bytes of a block whose entry was checked on opening.
    #[inline]
    fn stored(&self, entry: &BlockEntry) -> &[u8] {
        &self.data.bytes()[entry.offset as usize..][..entry.stored_bytes as usize]
    }

    fn check_chunk(&self, head: &Head, i: usize) -> Result<()> {
        if self.chunks_checked.get(i) {
            return Ok(());
        }
        head.check_chunk(self.hash_section(), i)?;
        self.chunks_checked.set(i);
        Ok(())
    }

    fn get_sorted(&self, key: &[u8]) -> Result<Option<Value<'_>>> {
        let Some(i) = self.index.block_of(self.index_section(), key) else { return Ok(None) };
        let block = self.block(i)?;
        let layout = Layout::of(block.bytes())?;
        let at = layout.lower_bound(block.bytes(), key)?;
        if at == layout.records_end {
            return Ok(None);
        }
        let record = layout.record(block.bytes(), at)?;
        Ok((&block.bytes()[record.key] == key).then(|| block.value(record.value)))
    }

    /// Follows a walk through the hash section until it names `key`. `recent` is the block used
    /// last: neighbours in a batch then unpack a compressed block once.
    #[inline]
    fn follow<'t>(
        &'t self,
        head: &Head,
        mut probe: Probe,
        key: &[u8],
        recent: &mut Option<(usize, BlockBytes<'t>)>,
    ) -> Result<Option<Value<'t>>> {
        while let Some(place) = self.step(head, &mut probe)? {
            let block = match recent {
                Some((i, block)) if *i == place.block => block.clone(),
                _ => self.block(place.block)?,
            };
            let record = record_at(block.bytes(), place.offset)?;
            if &block.bytes()[record.key] == key {
                let value = block.value(record.value);
                *recent = Some((place.block, block));
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    #[inline]
    pub(crate) fn step(&self, head: &Head, probe: &mut Probe) -> Result<Option<Place>> {
        probe.next(head, self.hash_section(), |chunk| self.check_chunk(head, chunk))
    }

    /// Looks up one batch in three rounds; each asks for the memory that the next one reads.
    fn get_batch<'t, K: AsRef<[u8]>>(
        &'t self,
        head: &Head,
        keys: &[K],
        values: &mut Vec<Result<Option<Value<'t>>>>,
    ) {
        let hashes = self.hash_section();
        let mut probes = [None; BATCH_KEYS];
        for (probe, key) in probes.iter_mut().zip(keys) {
            let walk = head.probe(hash_of(key.as_ref(), head.seed));
            prefetch(hashes, head.slot_at(walk.slot));
            *probe = Some(walk);
        }
        for probe in probes.iter().flatten() {
            // On a copy: the walk proper starts anew below, and reports what is wrong.
            let mut ahead = *probe;
            if let Ok(Some(place)) = self.step(head, &mut ahead)
                && let Ok(entry) = self.entry(place.block)
            {
                let at = match entry.codec {
                    Codec::Raw => place.offset,
                    Codec::Zstd => 0,
                };
                prefetch(self.data.bytes(), entry.offset as usize + at);
                prefetch(self.data.bytes(), entry.offset as usize + at + 64);
            }
        }
        let mut recent = None;
        for (probe, key) in probes.into_iter().flatten().zip(keys) {
            let value = self.follow(head, probe, key.as_ref(), &mut recent);
            values.push(value.map_err(|e| e.in_file(&self.path)));
        }
    }

    fn iter_from(&self, start: &[u8], limit: Limit) -> Iter<'_> {
        Iter::new(self, start, limit)
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.path.display();
        write!(f, "Table({name}, {} records, {:08x})", self.records(), self.footer_crc32())
    }
}

impl Data {
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// The bytes of a file, for [`crate::verify_file`] as well.
pub(crate) fn map(path: &Path) -> Result<Data> {
    let wrap = |what: &str, e| Error::from_io(what, e).in_file(path);
    let file = File::open(path).map_err(|e| wrap("cannot open", e))?;
    let metadata = file.metadata().map_err(|e| wrap("cannot stat", e))?;
    if !metadata.is_file() {
        let error = Error::new(ErrorKind::NotATable, "not a table: not a regular file");
        return Err(error.in_file(path));
    }
    if metadata.len() == 0 {
        return Ok(Data::Owned(Vec::new()));
    }
    // SAFETY: tables are never written to again once they have their name, and never truncated:
    // they are unlinked. This is what the crate asks of its users, as the module's head says.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| wrap("cannot map", e))?;
    Ok(Data::Mapped(map))
}

/// The bytes of a section; the footer's check has placed it within the file.
#[inline]
pub(crate) fn section(bytes: &[u8], section: Section) -> &[u8] {
    &bytes[section.offset as usize..section.end() as usize]
}

pub(crate) fn check_crc(name: &str, bytes: &[u8], section: Section) -> Result<()> {
    let found = crc32fast::hash(bytes);
    if found == section.crc32 {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "{name}, {} bytes at offset {}: CRC32 {found:08x}, expected {:08x}",
        section.bytes, section.offset, section.crc32
    )))
}

/// The caller has found a footer, so there are enough bytes for a header.
pub(crate) fn check_header(bytes: &[u8]) -> Result<()> {
    if bytes.first_chunk() == Some(HEADER) {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "header at offset 0: {}, expected {}",
        crate::escape(&bytes[..HEADER.len()]),
        crate::escape(HEADER)
    )))
}

/// Between sections there are zeros, so that a table has one form only. The gap before the index is
/// checked once the index has told where the blocks end.
pub(crate) fn check_padding(bytes: &[u8], footer: &Footer) -> Result<()> {
    let footer_at = bytes.len() - Footer::BYTES;
    let gaps = [
        (footer.index.end(), footer.hash.offset),
        (footer.hash.end(), footer.properties.offset),
        (footer.properties.end(), footer_at as u64),
    ];
    for (from, to) in gaps {
        check_zeros(bytes, from, to)?;
    }
    Ok(())
}

/// The gap between the last block and the index.
fn check_blocks_padding(bytes: &[u8], footer: &Footer, index: Index) -> Result<()> {
    let last =
        index.blocks.checked_sub(1).and_then(|i| index.entry(section(bytes, footer.index), i));
    let end = last.map_or(HEADER.len() as u64, |e| e.offset + u64::from(e.stored_bytes));
    check_zeros(bytes, end, footer.index.offset)
}

fn check_zeros(bytes: &[u8], from: u64, to: u64) -> Result<()> {
    match bytes[from as usize..to as usize].iter().position(|&byte| byte != 0) {
        None => Ok(()),
        Some(at) => Err(Error::corrupt(format!(
            "padding at offset {}: byte {:#04x}, expected 0",
            from + at as u64,
            bytes[from as usize + at]
        ))),
    }
}

/// Asks the processor to load the cache line of `bytes[at]`, if it is one.
#[inline]
fn prefetch(bytes: &[u8], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(byte) = bytes.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch has no effect but on caches, and the address is that of a byte of the
        // slice.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, at);
}

/// Bits that are set once and never cleared. Relaxed is enough: what a bit speaks of never changes.
struct Bitmap(Vec<AtomicU64>);

impl Bitmap {
    fn new(bits: usize) -> Self {
        Self((0..bits.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    #[inline]
    fn get(&self, i: usize) -> bool {
        self.0[i / 64].load(Relaxed) >> (i % 64) & 1 != 0
    }

    fn set(&self, i: usize) {
        self.0[i / 64].fetch_or(1 << (i % 64), Relaxed);
    }
}
