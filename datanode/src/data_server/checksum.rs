//! Op 85: the checksum over a block's checksums, an MD5 of the chunks' CRC32C values in order.
//!
//! Clients combine it over the blocks of a file without reading a byte of data. If they ask for less than the replica
//! has, the checksum of the last, now partial chunk is computed from its bytes, after those were verified.

use md5::{Digest, Md5};
use proto::hadoop::hdfs::{
    ChecksumTypeProto, OpBlockChecksumProto, OpBlockChecksumResponseProto, StatusProto,
};
use proto::{Code, Error, Result, limits};
use tokio::io::AsyncWrite;
use transfer::checksum::SUM_BYTES;
use transfer::op;

use super::{After, DataServer, Wire, block_of};
use crate::files::{CHUNK, NATIVE};
use crate::store::ReplicaReader;

/// The only kind that is served: MD5 over the checksums.
const MD5_CRC: u32 = 1;
/// Data bytes whose checksums are read at once.
const STEP_BYTES: u64 = 8 << 20;

/// Serves one request.
pub async fn serve<R, W: AsyncWrite + Unpin>(
    server: &DataServer,
    wire: &mut Wire<R, W>,
    request: OpBlockChecksumProto,
) -> Result<After> {
    match compute(server, &request).await {
        Ok(checksum) => {
            let mut reply = op::response(StatusProto::Success);
            reply.checksum_response = Some(checksum);
            wire.reply(&reply).await?;
        }
        Err(error) => wire.refuse(&error).await?,
    }
    Ok(After::KeepOpen)
}

async fn compute(
    server: &DataServer,
    request: &OpBlockChecksumProto,
) -> Result<OpBlockChecksumResponseProto> {
    let kind = request
        .block_checksum_options
        .as_ref()
        .and_then(|options| options.block_checksum_type)
        .unwrap_or(MD5_CRC);
    if kind != MD5_CRC {
        return Err(Error::new(
            Code::Unsupported,
            format!("block checksum type {kind}, only {MD5_CRC} (MD5 over CRCs) is served"),
        ));
    }
    let named = &request.header.block;
    let (block, stamp) = block_of(&server.store, named)?;
    let asked = named.num_bytes.unwrap_or(0);
    let store = server.store.clone();
    server
        .store
        .pool_of(block, stamp)?
        .run(move || {
            let reader = store.open_reader(block, stamp)?;
            let length = if asked == 0 { reader.length() } else { asked.min(reader.length()) };
            let sum = md5_of_sums(&reader, length)?;
            Ok(OpBlockChecksumResponseProto {
                bytes_per_crc: limits::CHECKSUM_CHUNK_BYTES,
                crc_per_block: length.div_ceil(CHUNK),
                block_checksum: bytes::Bytes::copy_from_slice(&sum),
                crc_type: Some(ChecksumTypeProto::ChecksumCrc32c as i32),
                block_checksum_options: None,
            })
        })
        .await
}

/// MD5 over the checksums of the first `length` bytes.
fn md5_of_sums(reader: &ReplicaReader, length: u64) -> Result<[u8; 16]> {
    let mut digest = Md5::new();
    let cut = length < reader.length() && !length.is_multiple_of(CHUNK);
    let whole = if cut { length - length % CHUNK } else { length };
    let mut at = 0;
    while at < whole {
        let bytes = (whole - at).min(STEP_BYTES);
        let mut sums = Vec::new();
        reader.sums(at, bytes, &mut sums)?;
        digest.update(&sums);
        at += bytes;
    }
    if cut {
        let bytes = (reader.length() - whole).min(CHUNK);
        let mut chunk = vec![0; usize::try_from(bytes).expect("a chunk is 512 bytes")];
        let mut sum = Vec::with_capacity(SUM_BYTES);
        reader.read(whole, &mut chunk, &mut sum)?;
        NATIVE.verify(&chunk, &sum).map_err(|mismatch| mismatch.into_error("block", whole))?;
        let wanted = usize::try_from(length % CHUNK).expect("below 512");
        digest.update(NATIVE.of(&chunk[..wanted]).to_be_bytes());
    }
    Ok(digest.finalize().into())
}
