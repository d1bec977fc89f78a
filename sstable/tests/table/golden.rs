//! The bytes of a small table, field by field. A change here is a change of the format: raise its
//! version.

use sstable::{Compression, Table, WriterOptions};

use crate::build;

/// Appends hexadecimal text, spaces ignored, to the bytes of a file.
fn put(out: &mut Vec<u8>, hex: &str) {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    for pair in digits.chunks(2) {
        out.push(u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
    }
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(64), 0);
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    crc32fast::hash(bytes).to_le_bytes()
}

#[test]
fn two_records_have_these_bytes() {
    let options = WriterOptions { block_bytes: 256, compression: Compression::None, hash: true };
    let (found, summary) =
        build([(&b"apple"[..], &b"1"[..]), (&b"pear"[..], &b"two"[..])], options);

    let mut file = Vec::new();
    put(&mut file, "47 52 54 41 42 4c 45 0a"); // header: GRTABLE\n
    // Block 0.
    put(&mut file, "05 01"); // record: key of 5 bytes, value of 1
    put(&mut file, "61 70 70 6c 65 31"); // apple, 1
    put(&mut file, "04 03"); // record: key of 4 bytes, value of 3
    put(&mut file, "70 65 61 72 74 77 6f"); // pear, two
    put(&mut file, "00 00 00 00"); // restart point 0: offset 0
    put(&mut file, "01 00 00 00"); // one restart point
    let block_crc = crc(&file[8..]);
    assert_eq!(file.len(), 8 + 25);
    pad(&mut file);

    let index_at = file.len();
    put(&mut file, "08 00 00 00 00 00 00 00"); // block 0 starts at 8
    put(&mut file, "00 00 00 00 00 00 00 00"); // its separator, the empty key, ends at 0
    put(&mut file, "19 00 00 00"); // 25 bytes stored
    put(&mut file, "19 00 00 00"); // 25 bytes before compression
    file.extend(block_crc); // CRC32 of what is stored
    put(&mut file, "02 00 00"); // 2 records
    put(&mut file, "00"); // codec 0: raw
    let index_crc = crc(&file[index_at..]);
    pad(&mut file);

    let hash_at = file.len();
    put(&mut file, "04 00 00 00 00 00 00 00"); // 4 homes
    put(&mut file, "04 00 00 00 00 00 00 00"); // 4 slots
    put(&mut file, "d1 82 e6 ad 7f 52 0e 51"); // the seed
    put(&mut file, "01 00 00 00"); // longest walk: 1 slot
    put(&mut file, "00 00 01 00"); // 65536 bytes of slots under one CRC32
    let slots = {
        let mut slots = Vec::new();
        put(&mut slots, "08 00 00 00 00 00 e5 46"); // slot 0: block 0, offset 8, fingerprint 0x46e5: pear
        put(&mut slots, "00 00 00 00 00 00 00 00"); // slot 1 is empty
        put(&mut slots, "00 00 00 00 00 00 ab d1"); // slot 2: block 0, offset 0, fingerprint 0xd1ab: apple
        put(&mut slots, "00 00 00 00 00 00 00 00"); // slot 3 is empty
        slots
    };
    file.extend(crc(&slots)); // CRC32 of the only chunk
    pad(&mut file);
    let hash_crc = crc(&file[hash_at..]);
    file.extend(slots);
    let hash_bytes = (file.len() - hash_at) as u64;
    pad(&mut file);

    let properties_at = file.len();
    put(&mut file, "02 00 00 00 00 00 00 00"); // 2 records
    put(&mut file, "09 00 00 00 00 00 00 00"); // 9 bytes of keys
    put(&mut file, "04 00 00 00 00 00 00 00"); // 4 bytes of values
    put(&mut file, "05 00 00 00 61 70 70 6c 65"); // smallest key: apple
    put(&mut file, "04 00 00 00 70 65 61 72"); // largest key: pear
    put(&mut file, "01 00 00 00"); // one user property
    put(&mut file, "0d 00 00 00"); // its name has 13 bytes
    file.extend(b"granary.slots");
    put(&mut file, "07 00 00 00"); // its value has 7 bytes
    file.extend(b"0-16383");
    let properties_bytes = (file.len() - properties_at) as u64;
    let properties_crc = crc(&file[properties_at..]);
    pad(&mut file);

    let footer_at = file.len();
    file.extend((footer_at as u64 + 112).to_le_bytes()); // length of the file
    put(&mut file, "02 00 00 00 00 00 00 00"); // 2 records
    put(&mut file, "01 00 00 00 00 00 00 00"); // 1 block
    for (at, bytes, crc) in [
        (index_at, 32, index_crc),
        (hash_at, hash_bytes, hash_crc),
        (properties_at, properties_bytes, properties_crc),
    ] {
        file.extend((at as u64).to_le_bytes()); // offset of the section
        file.extend(bytes.to_le_bytes()); // its length
        file.extend(crc); // its CRC32
        put(&mut file, "00 00 00 00"); // reserved
    }
    put(&mut file, "01 00 00 00"); // version 1
    let footer_crc = crc(&file[footer_at..]);
    file.extend(footer_crc); // CRC32 of the footer up to here
    put(&mut file, "0a 45 4c 42 41 54 52 47"); // the end: \nELBATRG

    if let Some(at) = file.iter().zip(&found).position(|(a, b)| a != b) {
        let (start, end) = (at & !15, (at | 15).min(found.len() - 1) + 1);
        panic!(
            "from offset {start}: {:02x?}, expected {:02x?}",
            &found[start..end],
            &file[start..end]
        );
    }
    assert_eq!(file.len(), found.len());
    assert_eq!(summary.footer_crc32, u32::from_le_bytes(footer_crc));
    assert_eq!(
        Table::from_bytes("golden", file).unwrap().get(b"pear").unwrap().as_deref(),
        Some(&b"two"[..])
    );
}
