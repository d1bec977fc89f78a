//! Writes a table front to back into any [`std::io::Write`], with bounded memory.
//!
//! Memory: one block and its compressed form, 32 bytes and a separator per block, 16 bytes per key
//! for the hash section (twice that while its list grows; none without it), the properties. Records
//! must come in strictly ascending order of their keys; a record that does not is refused, and the
//! writer stays usable. After an error of the underlying writer it is not.
//!
//! Equal records and options give equal bytes. Making the file durable is the caller's: it gets the
//! writer back.

use std::io::Write;

use crate::block::BlockBuilder;
use crate::compress::Compressor;
use crate::error::{Error, ErrorKind, Result, escape};
use crate::format::{
    BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, BLOCKS_MAX, Footer, HEADER, KEY_BYTES_MAX,
    PROPERTIES_BYTES_MAX, SECTION_ALIGN, Section, VALUE_BYTES_MAX,
};
use crate::hash::HashBuilder;
use crate::index::{BlockEntry, IndexBuilder};
use crate::properties::Properties;

/// How blocks are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are: gets borrow from the map.
    #[default]
    None,
    /// zstd at this level (1 is fast, 3 usual, 19 slow), where it saves an eighth of a block.
    Zstd {
        /// zstd's level, 1 to 22.
        level: i32,
    },
}

/// Settings of a [`TableWriter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// Bytes of a block before compression, at most, unless one record alone is larger. From 256 to
    /// 1 MiB.
    pub block_bytes: usize,
    /// How blocks are stored.
    pub compression: Compression,
    /// Writes the hash section: point gets then need one look-up. Costs 16 bytes of memory per key
    /// while writing, and about 10.7 bytes of file per key.
    pub hash: bool,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { block_bytes: 16 << 10, compression: Compression::None, hash: true }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// Number of records.
    pub records: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Names the content, together with the length.
    pub footer_crc32: u32,
    /// Sum of the keys' lengths, in bytes.
    pub key_bytes: u64,
    /// Sum of the values' lengths, in bytes.
    pub value_bytes: u64,
    /// The first key; empty if there are no records.
    pub smallest: Vec<u8>,
    /// The last key; empty if there are no records.
    pub largest: Vec<u8>,
}

/// Writes one table. See the module's head for memory and order.
pub struct TableWriter<W: Write> {
    out: Output<W>,
    options: WriterOptions,
    compressor: Compressor,
    block: BlockBuilder,
    /// First key of the block that is being gathered.
    block_first: Vec<u8>,
    /// Last key of the block before it.
    block_before: Option<Vec<u8>>,
    last: Vec<u8>,
    index: IndexBuilder,
    hash: HashBuilder,
    properties: Properties,
}

impl<W: Write> TableWriter<W> {
    /// Starts a table. Nothing but the header is written until a block is full.
    pub fn new(out: W, options: WriterOptions) -> Result<Self> {
        if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&options.block_bytes) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "block_bytes is {}; it must be from {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX}",
                    options.block_bytes
                ),
            ));
        }
        if let Compression::Zstd { level } = options.compression
            && !(1..=22).contains(&level)
        {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the zstd level is {level}; it must be from 1 to 22"),
            ));
        }
        let mut out = Output { inner: out, at: 0, failed: false };
        out.write(HEADER)?;
        Ok(Self {
            out,
            compressor: Compressor::new(options.compression)?,
            options,
            block: BlockBuilder::default(),
            block_first: Vec::new(),
            block_before: None,
            last: Vec::new(),
            index: IndexBuilder::default(),
            hash: HashBuilder::default(),
            properties: Properties::default(),
        })
    }

    /// Adds a record. Its key must be above the last one.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.check(key, value)?;
        let full = self.block.bytes_with(key, value) > self.options.block_bytes;
        if full && self.block.records() > 0 {
            self.end_block()?;
        }
        if self.block.records() == 0 {
            if self.index.blocks() == BLOCKS_MAX {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!(
                        "a table has at most {BLOCKS_MAX} blocks: use larger blocks, or more tables"
                    ),
                ));
            }
            self.block_first.clear();
            self.block_first.extend_from_slice(key);
        }
        let offset = self.block.add(key, value);
        if self.options.hash {
            self.hash.add(key, self.index.blocks(), offset);
        }
        if self.properties.records == 0 {
            self.properties.smallest = key.to_vec();
        }
        self.properties.records += 1;
        self.properties.key_bytes += key.len() as u64;
        self.properties.value_bytes += value.len() as u64;
        self.last.clear();
        self.last.extend_from_slice(key);
        Ok(())
    }

    /// Notes a property, in place of an earlier one of that name. Names starting with `granary.`
    /// are the project's.
    pub fn set_property(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<()> {
        let value = value.as_ref();
        let others = self.properties.user.iter().filter(|(other, _)| *other != name);
        let used: usize = others.map(|(name, value)| name.len() + value.len() + 8).sum();
        let room = PROPERTIES_BYTES_MAX - 2 * KEY_BYTES_MAX - 64;
        if used + name.len() + value.len() + 8 > room {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "property {name:?} has {} bytes; all together may have {room}",
                    value.len()
                ),
            ));
        }
        self.properties.user.insert(name.to_owned(), value.to_vec());
        Ok(())
    }

    /// Number of records so far.
    pub fn records(&self) -> u64 {
        self.properties.records
    }

    /// Bytes that the file will have at least: blocks written, and the one that is being gathered.
    pub fn bytes(&self) -> u64 {
        self.out.at + self.block.bytes_with(&[], &[]) as u64
    }

    /// Writes what is left, flushes, and hands back the underlying writer.
    pub fn finish(mut self) -> Result<(W, Summary)> {
        if self.block.records() > 0 {
            self.end_block()?;
        }
        self.properties.largest = std::mem::take(&mut self.last);
        let index = self.out.section(&self.index.parts())?;
        let hash = self.write_hash()?;
        let properties = self.out.section(&[&self.properties.encode()?])?;
        self.out.pad()?;
        let mut footer = Footer {
            file_bytes: self.out.at + Footer::BYTES as u64,
            records: self.properties.records,
            blocks: self.index.blocks(),
            index,
            hash,
            properties,
            crc32: 0,
        };
        let encoded = footer.encode();
        self.out.write(&encoded)?;
        self.out.flush()?;
        footer.crc32 = Footer::decode(&encoded, footer.file_bytes)?.crc32;
        let Properties { records, key_bytes, value_bytes, smallest, largest, .. } = self.properties;
        let summary = Summary {
            bytes: self.out.at,
            records,
            blocks: footer.blocks,
            footer_crc32: footer.crc32,
            key_bytes,
            value_bytes,
            smallest,
            largest,
        };
        Ok((self.out.inner, summary))
    }

    fn check(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let position = self.properties.records;
        for (what, bytes, max) in
            [("key", key.len(), KEY_BYTES_MAX), ("value", value.len(), VALUE_BYTES_MAX)]
        {
            if bytes > max {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!(
                        "record {position}, key {}: the {what} has {bytes} bytes; {max} are allowed",
                        escape(key)
                    ),
                ));
            }
        }
        if position == 0 || key > self.last.as_slice() {
            return Ok(());
        }
        let (kind, how) = if key == self.last {
            (ErrorKind::Duplicate, "equals")
        } else {
            (ErrorKind::Unsorted, "is below")
        };
        Err(Error::new(
            kind,
            format!(
                "record {position}: key {} {how} the key before it, {}; keys must ascend strictly",
                escape(key),
                escape(&self.last)
            ),
        ))
    }

    /// Writes the gathered block, whose last record is the last one added.
    fn end_block(&mut self) -> Result<()> {
        let records = self.block.records();
        let raw = self.block.finish();
        // A block that was finished and not written cannot be taken up again.
        let compressed = self.compressor.compress(raw).inspect_err(|_| self.out.failed = true);
        let (codec, stored) = compressed?;
        let entry = BlockEntry {
            offset: self.out.at,
            separator_end: 0,
            stored_bytes: stored.len() as u32,
            raw_bytes: raw.len() as u32,
            crc32: crc32fast::hash(stored),
            records,
            codec,
        };
        self.out.write(stored)?;
        self.index.add(entry, self.block_before.as_deref(), &self.block_first);
        let before = self.block_before.get_or_insert_default();
        before.clear();
        before.extend_from_slice(&self.last);
        self.block.clear();
        Ok(())
    }

    fn write_hash(&mut self) -> Result<Section> {
        self.out.pad()?;
        let offset = self.out.at;
        if !self.options.hash {
            return Ok(Section { offset, bytes: 0, crc32: 0 });
        }
        let out = &mut self.out;
        let (crc32, bytes) = std::mem::take(&mut self.hash).finish(|part| out.write(part))?;
        Ok(Section { offset, bytes, crc32 })
    }
}

/// The underlying writer, and how far it is.
struct Output<W> {
    inner: W,
    at: u64,
    failed: bool,
}

impl<W: Write> Output<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.check()?;
        self.inner.write_all(bytes).map_err(|e| {
            self.failed = true;
            Error::from_io(format!("cannot write {} bytes at offset {}", bytes.len(), self.at), e)
        })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.check()?;
        self.inner.flush().map_err(|e| Error::from_io("cannot flush the table", e))
    }

    fn pad(&mut self) -> Result<()> {
        let padding = self.at.next_multiple_of(SECTION_ALIGN) - self.at;
        self.write(&[0; SECTION_ALIGN as usize][..padding as usize])
    }

    /// Writes a section at the next aligned offset.
    fn section(&mut self, parts: &[&[u8]]) -> Result<Section> {
        self.pad()?;
        let offset = self.at;
        let mut crc = crc32fast::Hasher::new();
        for part in parts {
            crc.update(part);
            self.write(part)?;
        }
        Ok(Section { offset, bytes: self.at - offset, crc32: crc.finalize() })
    }

    fn check(&self) -> Result<()> {
        if self.failed {
            return Err(Error::new(
                ErrorKind::Io,
                "an earlier write of this table failed: start it again",
            ));
        }
        Ok(())
    }
}
