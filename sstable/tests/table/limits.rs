//! What the writer refuses, and what it must carry.

use std::io::{self, Write};

use sstable::{
    Compression, ErrorKind, KEY_BYTES_MAX, Table, TableWriter, VALUE_BYTES_MAX, WriterOptions,
};

use crate::all_options;

#[test]
fn keys_out_of_order_are_refused_with_both_keys_and_the_writer_goes_on() {
    let mut writer = TableWriter::new(Vec::new(), WriterOptions::default()).unwrap();
    writer.add(b"b\xff", b"1").unwrap();
    let error = writer.add(b"a\n", b"2").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsorted);
    assert_eq!(
        error.message,
        r#"record 1: key "a\n" is below the key before it, "b\xff"; keys must ascend strictly"#
    );
    let error = writer.add(b"b\xff", b"2").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Duplicate);
    assert!(error.message.contains(r#"key "b\xff" equals the key before it"#), "{error}");
    writer.add(b"c", b"3").unwrap();
    let (bytes, summary) = writer.finish().unwrap();
    assert_eq!((summary.records, summary.bytes), (2, bytes.len() as u64));
    assert_eq!(*Table::from_bytes("t", bytes).unwrap().get(b"c").unwrap().unwrap(), *b"3");
}

#[test]
fn the_empty_key_may_come_once_and_first() {
    let mut writer = TableWriter::new(Vec::new(), WriterOptions::default()).unwrap();
    writer.add(b"", b"empty").unwrap();
    assert_eq!(writer.add(b"", b"again").unwrap_err().kind, ErrorKind::Duplicate);
    writer.add(b"\0", b"zero").unwrap();
    let table = Table::from_bytes("t", writer.finish().unwrap().0).unwrap();
    assert_eq!(table.get(b"").unwrap().as_deref(), Some(&b"empty"[..]));
    assert_eq!(table.iter().count(), 2);
}

#[test]
fn keys_and_values_over_the_limit_are_refused_and_those_at_it_are_kept() {
    for compression in [Compression::None, Compression::Zstd { level: 1 }] {
        let options = WriterOptions { compression, ..WriterOptions::default() };
        let mut writer = TableWriter::new(Vec::new(), options).unwrap();
        let key = vec![b'k'; KEY_BYTES_MAX + 1];
        let value = vec![b'v'; VALUE_BYTES_MAX + 1];
        writer.add(b"a", b"small").unwrap();
        let error = writer.add(&key, b"").unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLarge);
        assert!(error.message.contains("65537 bytes; 65536 are allowed"), "{error}");
        let error = writer.add(b"b", &value).unwrap_err();
        assert!(error.message.contains("67108865 bytes; 67108864 are allowed"), "{error}");
        writer.add(&key[1..], &value[1..]).unwrap();
        writer.add(b"z", b"small").unwrap();
        let (bytes, summary) = writer.finish().unwrap();
        assert_eq!(summary.blocks, 3, "a large record has a block of its own");
        let table = Table::from_bytes("t", bytes).unwrap();
        assert_eq!(*table.get(&key[1..]).unwrap().unwrap(), value[1..]);
        assert_eq!(table.iter().map(|r| r.unwrap().1.len()).sum::<usize>(), VALUE_BYTES_MAX + 10);
        assert!(table.verify(|_, _| {}).unwrap().is_good());
    }
}

#[test]
fn a_table_without_records_is_a_table() {
    for options in all_options() {
        let (bytes, summary) = TableWriter::new(Vec::new(), options).unwrap().finish().unwrap();
        assert_eq!((summary.records, summary.blocks), (0, 0));
        let table = Table::from_bytes("empty", bytes).unwrap();
        assert_eq!(table.get(b"").unwrap(), None);
        assert_eq!(table.get(b"k").unwrap(), None);
        assert_eq!(table.iter().count() + table.prefix(b"k").count(), 0);
        assert!(table.verify(|_, _| {}).unwrap().is_good());
    }
}

#[test]
fn options_out_of_range_are_refused_with_the_range() {
    let new = |block_bytes, compression| {
        let options = WriterOptions { block_bytes, compression, hash: true };
        TableWriter::new(Vec::new(), options).map(|_| ()).unwrap_err()
    };
    for bytes in [0, 255, (1 << 20) + 1] {
        let error = new(bytes, Compression::None);
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.message.contains("from 256 to 1048576"), "{error}");
    }
    assert!(new(4096, Compression::Zstd { level: 23 }).message.contains("from 1 to 22"));
}

#[test]
fn properties_are_kept_replaced_and_bounded() {
    let mut writer = TableWriter::new(Vec::new(), WriterOptions::default()).unwrap();
    writer.set_property("granary.slots", "0-1").unwrap();
    writer.set_property("granary.slots", "5-99").unwrap();
    writer.set_property("own", [0xff, 0]).unwrap();
    let error = writer.set_property("big", vec![0; 16 << 20]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge);
    let table = Table::from_bytes("t", writer.finish().unwrap().0).unwrap();
    assert_eq!(table.properties().slots(), Some(5..=99));
    assert_eq!(table.properties().get("own"), Some(&[0xff, 0][..]));
    assert_eq!(table.properties().user.len(), 2);
}

/// A disk with room for so many bytes.
struct Disk(usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_and_the_writer_does_not_go_on() {
    let options = WriterOptions { block_bytes: 256, ..WriterOptions::default() };
    for room in 0..2000 {
        let result = TableWriter::new(Disk(room), options.clone()).and_then(|mut writer| {
            for i in 0..40u32 {
                let added = writer.add(&i.to_be_bytes(), &[b'v'; 40]);
                if added.is_err() {
                    assert_eq!(writer.finish().map(|_| ()).unwrap_err().kind, ErrorKind::Io);
                    return added;
                }
            }
            writer.finish().map(|_| ())
        });
        let error = result.expect_err("the table does not fit");
        assert_eq!(error.io().map(io::Error::kind), Some(io::ErrorKind::StorageFull), "{room}");
    }
}
