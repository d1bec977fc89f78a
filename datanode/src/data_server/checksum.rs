//! Op 85: one checksum for a block, made of the checksums of its chunks, so that no byte of data is read.
//!
//! | kind | what it is |
//! |---|---|
//! | MD5CRC | the MD5 of the chunks' checksums in order: depends on the chunk size |
//! | COMPOSITE_CRC | the CRC of the block's bytes: does not |
//!
//! Clients combine them over the blocks of a file. If they ask for less than the replica has, the checksum of the last,
//! now partial chunk is computed from its bytes, after those were verified.

use bytes::{BufMut, Bytes, BytesMut};
use md5::{Digest, Md5};
use proto::hadoop::hdfs::{
    BlockChecksumOptionsProto, OpBlockChecksumProto, OpBlockChecksumResponseProto, StatusProto,
};
use proto::{Code, Error, Result};
use tokio::io::AsyncWrite;
use transfer::checksum::SUM_BYTES;
use transfer::crc::Composite;
use transfer::op;

use super::{After, DataServer, Wire, block_of};
use crate::store::ReplicaReader;

/// MD5 over the checksums.
pub(super) const MD5_CRC: u32 = 1;
/// The CRC of the bytes.
pub(super) const COMPOSITE_CRC: u32 = 2;
/// Checksums that are read at once.
const STEP_SUMS: u64 = 16 << 10;
/// Stripes that a reply has at most.
const STRIPES_MAX: u64 = 4 << 10;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Md5,
    /// One CRC for each so many bytes; 0: one for all.
    Composite {
        stripe_bytes: u64,
    },
}

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

/// The checksum that is asked for.
pub(super) async fn compute(
    server: &DataServer,
    request: &OpBlockChecksumProto,
) -> Result<OpBlockChecksumResponseProto> {
    let kind = Kind::of(request.block_checksum_options.as_ref())?;
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
            reply(&reader, length, kind)
        })
        .await
}

impl Kind {
    /// As the request says.
    pub(super) fn of(options: Option<&BlockChecksumOptionsProto>) -> Result<Self> {
        let number = options.and_then(|options| options.block_checksum_type).unwrap_or(MD5_CRC);
        match number {
            MD5_CRC => Ok(Self::Md5),
            COMPOSITE_CRC => {
                let stripe_bytes = options.and_then(|options| options.stripe_length).unwrap_or(0);
                Ok(Self::Composite { stripe_bytes })
            }
            _ => Err(Error::new(
                Code::Unsupported,
                format!(
                    "block checksum type {number}, expected {MD5_CRC} (MD5 over CRCs) or \
                     {COMPOSITE_CRC} (composite CRC)"
                ),
            )),
        }
    }
}

fn reply(reader: &ReplicaReader, length: u64, kind: Kind) -> Result<OpBlockChecksumResponseProto> {
    let (block_checksum, number, stripe_length) = match kind {
        Kind::Md5 => (md5(reader, length)?, MD5_CRC, 0),
        Kind::Composite { stripe_bytes } => {
            (composite(reader, length, stripe_bytes)?, COMPOSITE_CRC, stripe_bytes)
        }
    };
    let checksum = reader.checksum().to_proto();
    Ok(OpBlockChecksumResponseProto {
        bytes_per_crc: checksum.bytes_per_checksum,
        crc_per_block: length.div_ceil(reader.chunk()),
        block_checksum,
        crc_type: Some(checksum.r#type),
        block_checksum_options: Some(BlockChecksumOptionsProto {
            block_checksum_type: Some(number),
            stripe_length: Some(stripe_length),
        }),
    })
}

fn md5(reader: &ReplicaReader, length: u64) -> Result<Bytes> {
    let mut digest = Md5::new();
    each_sum(reader, length, |sum, _| digest.update(sum.to_be_bytes()))?;
    Ok(Bytes::copy_from_slice(&digest.finalize()))
}

fn composite(reader: &ReplicaReader, length: u64, stripe_bytes: u64) -> Result<Bytes> {
    let empty = Composite::new(reader.checksum().kind()).expect("replicas have checksums");
    if stripe_bytes > 0 {
        let stripes = length.div_ceil(stripe_bytes);
        if !stripe_bytes.is_multiple_of(reader.chunk()) || stripes > STRIPES_MAX {
            return Err(Error::new(
                Code::InvalidArgument,
                format!(
                    "stripes of {stripe_bytes} bytes of {length}, expected multiples of {}, at \
                     most {STRIPES_MAX} of them",
                    reader.chunk()
                ),
            ));
        }
    }
    let mut out = BytesMut::new();
    let (mut stripe, mut at) = (empty, 0);
    each_sum(reader, length, |sum, bytes| {
        stripe.append(sum, bytes);
        at += bytes;
        if stripe_bytes > 0 && at % stripe_bytes == 0 {
            out.put_u32(std::mem::replace(&mut stripe, empty).value());
        }
    })?;
    if stripe_bytes == 0 || at % stripe_bytes != 0 {
        out.put_u32(stripe.value());
    }
    Ok(out.freeze())
}

/// Tells the checksum and the bytes of each chunk of the first `length` bytes.
fn each_sum(reader: &ReplicaReader, length: u64, mut tell: impl FnMut(u32, u64)) -> Result<()> {
    let chunk = reader.chunk();
    let cut = length < reader.length() && !length.is_multiple_of(chunk);
    let whole = if cut { length - length % chunk } else { length };
    let mut at = 0;
    let mut sums = Vec::new();
    while at < whole {
        let bytes = (whole - at).min(STEP_SUMS * chunk);
        sums.clear();
        reader.sums(at, bytes, &mut sums)?;
        for sum in sums.chunks_exact(SUM_BYTES) {
            let sum = u32::from_be_bytes(sum.try_into().expect("a checksum is 4 bytes"));
            let covered = chunk.min(whole - at);
            tell(sum, covered);
            at += covered;
        }
    }
    if cut {
        let checksum = reader.checksum();
        let bytes = (reader.length() - whole).min(chunk);
        let mut data = vec![0; usize::try_from(bytes).expect("a chunk is at most 1 MiB")];
        let mut sum = Vec::with_capacity(SUM_BYTES);
        reader.read(whole, &mut data, &mut sum)?;
        checksum.verify(&data, &sum).map_err(|mismatch| mismatch.into_error("block", whole))?;
        let wanted = length - whole;
        data.truncate(usize::try_from(wanted).expect("less than a chunk"));
        tell(checksum.of(&data), wanted);
    }
    Ok(())
}
