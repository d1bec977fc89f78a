//! The output of one partition: a table, or a text file of `key<TAB>value` lines, written front to back.
//!
//! Works on any [`std::io::Write`]. A table's keys must ascend strictly and belong to the partition's slots; a text
//! file's lines come as they are emitted, and a record with an empty key is its value alone.

use std::io::Write;
use std::ops::RangeInclusive;

use proto::{Code, Error, Result};
use sstable::{
    PROPERTY_CREATED_BY, PROPERTY_JOB, PROPERTY_SLOTS, TableWriter, WriterOptions, escape,
    format_slots,
};

use super::record::Sink;

/// What a job writes.
#[derive(Clone, Debug)]
pub(crate) enum Format {
    Tables(WriterOptions),
    Text,
}

impl Format {
    /// The file name of a partition.
    pub fn part_name(&self, partition: u16) -> String {
        match self {
            Self::Tables(_) => format!("part-{partition:05}.tbl"),
            Self::Text => format!("part-{partition:05}"),
        }
    }
}

/// Writes one partition.
pub(crate) struct PartWriter<W: Write> {
    name: String,
    out: Out<W>,
    /// Slots of the keys that belong here.
    slots: RangeInclusive<u16>,
    pub records: u64,
    /// Bytes of keys and values.
    pub record_bytes: u64,
}

enum Out<W: Write> {
    Table(Box<TableWriter<W>>),
    Text { out: W, bytes: u64 },
}

impl<W: Write> PartWriter<W> {
    /// Starts a partition. `name` is for errors.
    pub fn new(
        name: String,
        out: W,
        format: &Format,
        slots: RangeInclusive<u16>,
        job: &str,
    ) -> Result<Self> {
        let out = match format {
            Format::Text => Out::Text { out, bytes: 0 },
            Format::Tables(options) => {
                let created_by = format!("granary {}", proto::SOFTWARE_VERSION);
                let start = || {
                    let mut table = TableWriter::new(out, options.clone())?;
                    table.set_property(PROPERTY_SLOTS, format_slots(&slots))?;
                    table.set_property(PROPERTY_CREATED_BY, created_by)?;
                    table.set_property(PROPERTY_JOB, job)?;
                    Ok(table)
                };
                Out::Table(Box::new(start().map_err(|e| table_error(&name, e))?))
            }
        };
        Ok(Self { name, out, slots, records: 0, record_bytes: 0 })
    }

    /// Writes what is left. Gives back the underlying writer and the bytes of the file.
    pub fn finish(self) -> Result<(W, u64)> {
        match self.out {
            Out::Text { mut out, bytes } => {
                out.flush().map_err(|e| io_error(&self.name, e))?;
                Ok((out, bytes))
            }
            Out::Table(table) => {
                let (out, summary) = table.finish().map_err(|e| table_error(&self.name, e))?;
                Ok((out, summary.bytes))
            }
        }
    }

    fn check_slot(&self, key: &[u8]) -> Result<()> {
        let slot = sstable::slot::slot_of(key);
        if self.slots.contains(&slot) {
            return Ok(());
        }
        let message = format!(
            "{}: key {} has slot {slot}, and this partition holds {}: a reduce function may only emit \
             keys of its partition; use another job to key records anew",
            self.name,
            escape(key),
            format_slots(&self.slots)
        );
        Err(Error::new(Code::InvalidArgument, message))
    }
}

impl<W: Write> Sink for PartWriter<W> {
    fn emit(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if matches!(self.out, Out::Table(_)) {
            self.check_slot(key)?;
        }
        match &mut self.out {
            Out::Table(table) => table.add(key, value).map_err(|e| table_error(&self.name, e))?,
            Out::Text { out, bytes } => {
                let tab: &[u8] = if key.is_empty() { b"" } else { b"\t" };
                for part in [key, tab, value, b"\n"] {
                    out.write_all(part).map_err(|e| io_error(&self.name, e))?;
                    *bytes += part.len() as u64;
                }
            }
        }
        self.records += 1;
        self.record_bytes += (key.len() + value.len()) as u64;
        Ok(())
    }
}

/// An error of a table as one of the cluster. An error of the cluster that passed through it comes back as it was.
pub(crate) fn table_error(name: impl std::fmt::Display, error: sstable::Error) -> Error {
    use sstable::ErrorKind as K;
    if let Some(io) = error.io() {
        return match io.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(inner) => inner.clone().context(name),
            None => Error::io(name, io),
        };
    }
    let code = match error.kind {
        K::Unsorted | K::Duplicate | K::Invalid => Code::InvalidArgument,
        K::TooLarge => Code::LimitExceeded,
        K::NotATable | K::Corrupt => Code::Corrupt,
        K::Unsupported => Code::Incompatible,
        K::Io => Code::Io,
    };
    Error::new(code, format!("{name}: {error}"))
}

fn io_error(name: &str, error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(inner) => inner.context(name),
        Err(error) => Error::io(name, &error),
    }
}

#[cfg(test)]
mod tests {
    use sstable::Table;

    use super::*;

    fn part(format: &Format, slots: RangeInclusive<u16>) -> PartWriter<Vec<u8>> {
        PartWriter::new("part".into(), Vec::new(), format, slots, "job").unwrap()
    }

    #[test]
    fn a_table_tells_its_slots_and_its_job() {
        let mut part = part(&Format::Tables(WriterOptions::default()), 0..=16383);
        part.emit(b"a", b"1").unwrap();
        part.emit(b"b", b"2").unwrap();
        let (bytes, length) = part.finish().unwrap();
        assert_eq!(bytes.len() as u64, length);
        let table = Table::from_bytes("t", bytes).unwrap();
        assert_eq!(table.properties().slots(), Some(0..=16383));
        assert_eq!(table.properties().get(PROPERTY_JOB), Some(&b"job"[..]));
        assert_eq!(table.get(b"b").unwrap().as_deref(), Some(&b"2"[..]));
    }

    #[test]
    fn keys_of_other_slots_and_keys_out_of_order_are_refused() {
        // "foo" has slot 12182.
        let mut part = part(&Format::Tables(WriterOptions::default()), 12182..=12182);
        part.emit(b"foo", b"").unwrap();
        let error = part.emit(b"bar", b"").unwrap_err();
        assert!(
            error.message.contains("slot 5061") && error.message.contains("12182-12182"),
            "{error}"
        );
        let error = part.emit(b"foo", b"").unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains("\"foo\""), "{error}");
    }

    #[test]
    fn text_is_key_tab_value_and_an_empty_key_is_left_out() {
        let mut part = part(&Format::Text, 0..=0);
        for (key, value) in [("k", "v"), ("k", "v"), ("", "line"), ("a", "")] {
            part.emit(key.as_bytes(), value.as_bytes()).unwrap();
        }
        let (bytes, length) = part.finish().unwrap();
        assert_eq!(bytes, b"k\tv\nk\tv\nline\na\t\n");
        assert_eq!(length, bytes.len() as u64);
    }

    #[test]
    fn an_error_of_the_cluster_keeps_its_code_through_a_table() {
        let inner = Error::new(Code::NoSpace, "full");
        struct Full(Error);
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other(self.0.clone()))
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        for format in [Format::Tables(WriterOptions::default()), Format::Text] {
            let made = PartWriter::new("p".into(), Full(inner.clone()), &format, 0..=16383, "job");
            let error = made.and_then(|mut part| {
                part.emit(b"k", b"v")?;
                part.finish().map(|_| ())
            });
            assert_eq!(error.unwrap_err().code, Code::NoSpace);
        }
    }
}
