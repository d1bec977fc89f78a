//! Any bytes as a checksum file: no panic; a header that decodes is the one that encodes; prefixes and composites agree
//! with the plain functions.

#![no_main]

use libfuzzer_sys::fuzz_target;
use transfer::crc::{Composite, longest_prefix};
use transfer::{Checksum, ChecksumKind, meta};

/// Headers of each kind, with a few chunks behind.
fn seeds() -> Vec<Vec<u8>> {
    let kinds = [ChecksumKind::Crc32c, ChecksumKind::Crc32, ChecksumKind::Null];
    let seed = |kind| {
        let checksum = Checksum::new(kind, 512).expect("a legal checksum");
        [&meta::encode_header(checksum)[..], &[7; 1_300]].concat()
    };
    kinds.map(seed).to_vec()
}

fuzz_target!(init: fuzz::start(seeds), |bytes: &[u8]| {
    let Ok(checksum) = meta::decode_header(bytes) else { return };
    assert_eq!(meta::encode_header(checksum)[..], bytes[..meta::HEADER_BYTES]);
    let data = &bytes[meta::HEADER_BYTES..];
    let size = meta::file_bytes(checksum, data.len() as u64);
    assert_eq!(size, (meta::HEADER_BYTES + checksum.sum_bytes(data.len())) as u64);
    let mut sums = vec![0; checksum.sum_bytes(data.len())];
    checksum.compute(data, &mut sums);
    assert_eq!(checksum.verify(data, &sums), Ok(()));
    let Some(mut composite) = Composite::new(checksum.kind()) else { return };
    for (chunk, sum) in data.chunks(checksum.chunk_bytes()).zip(sums.chunks_exact(4)) {
        let sum = u32::from_be_bytes(sum.try_into().expect("4 bytes"));
        assert!(longest_prefix(checksum.kind(), chunk, sum) >= Some(chunk.len()));
        composite.append(sum, chunk.len() as u64);
    }
    assert_eq!(composite.value(), checksum.of(data));
});
