//! The immutable sorted table: what batch jobs write and kvserve serves.
//!
//! ```text
//! magic | block block block ... | index | hash | properties | footer
//!         sorted records          |       |                   crc32 of each section, and of itself
//!                                 |       +- key -> block and offset, for point gets
//!                                 +--------- first keys, places and crc32 of the blocks, for ranges
//! ```
//!
//! The bytes are described in `docs/formats/table.md`. A file is written once, front to back, by
//! [`TableWriter`], and read through a memory map by [`Table`]. Nothing is parsed into memory when
//! a table is opened but its properties.
//!
//! What always holds: keys are strictly ascending; nothing is handed out before its checksum was
//! compared; any bytes give an answer or an [`Error`]; equal `footer_crc32` and length mean equal
//! content.
//!
//! This crate knows no network, no cluster and no clock.
//!
//! ```
//! use sstable::{Table, TableWriter, WriterOptions};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("part-00000.tbl");
//! let mut writer = TableWriter::new(std::fs::File::create(&path)?, WriterOptions::default())?;
//! writer.add(b"apple", b"1")?;
//! writer.add(b"pear", b"2")?;
//! let (file, summary) = writer.finish()?;
//! file.sync_all()?;
//! assert_eq!(summary.records, 2);
//!
//! let table = Table::open(&path)?;
//! assert_eq!(table.get(b"pear")?.as_deref(), Some(&b"2"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod block;
mod compress;
mod error;
mod format;
mod hash;
mod index;
mod iter;
pub mod merge;
mod properties;
mod reader;
pub mod slot;
mod value;
mod verify;
mod writer;

pub use error::{Error, ErrorKind, Result, escape};
pub use format::{
    BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, Footer, KEY_BYTES_MAX, PROPERTIES_BYTES_MAX, Section,
    VALUE_BYTES_MAX, VERSION,
};
pub use iter::Iter;
pub use properties::{
    PROPERTY_CREATED_BY, PROPERTY_JOB, PROPERTY_SLOTS, Properties, format_slots, parse_slots,
};
pub use reader::Table;
pub use value::Value;
pub use verify::{Damage, VerifyReport, verify_file};
pub use writer::{Compression, Summary, TableWriter, WriterOptions};
