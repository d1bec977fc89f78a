//! A segment's bytes for the fuzz targets: see [`crate::fuzzing`].

use proto::Txid;

use super::segment::{Header, decode_batch, encode_batch};

/// Reads bytes as a header and as a batch, as they are and with a checksum that fits. What decodes encodes to the same.
pub(crate) fn decode(bytes: &[u8]) {
    const SALT: u64 = 7;
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }
    drop(decode_batch(SALT, bytes));
    let mut batch = Vec::new();
    encode_batch(SALT, Txid(1), &[bytes.to_vec(), Vec::new()], &mut batch);
    let decoded = decode_batch(SALT, &batch).expect("its own encoding");
    assert_eq!(decoded.requests, [bytes, &[][..]]);
    assert_eq!(decoded.bytes, batch.len() as u64);
}
