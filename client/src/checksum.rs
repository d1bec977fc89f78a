//! The checksum of a whole file, as HDFS computes it: MD5 over the blocks' MD5s over their chunks' CRCs; or composite,
//! which is the CRC of the file's bytes, whatever its blocks and chunks.
//!
//! Each block's part comes from one of its DataNodes (op 85), which has the chunk checksums at hand; that of a striped
//! block group from any of its DataNodes (op 90), which asks the others. HDFS takes the
//! outer MD5 over its whole buffer, which is filled up with zeros to the next power of two, 32 at least; so do we,
//! since the value exists to be compared with HDFS's.

use std::fmt;

use md5::{Digest, Md5};
use proto::granary::{Block, DatanodeAddress, LocatedBlock};
use proto::hadoop::hdfs::{
    BlockChecksumOptionsProto, ChecksumTypeProto, DatanodeInfosProto, ErasureCodingPolicyProto,
    OpBlockChecksumProto, OpBlockChecksumResponseProto, OpBlockGroupChecksumProto,
};
use proto::{Code, Error, FsPath, Result};
use tokio::io::AsyncWriteExt;
use transfer::connection::{datanode_info, within};
use transfer::crc::Composite;
use transfer::{ChecksumKind, Peer, Request, op};

use crate::fs::{Fs, incomplete};

/// Op 85's kinds, and the bytes that answer them.
const MD5_CRC: (u32, usize) = (1, 16);
const COMPOSITE_CRC: (u32, usize) = (2, 4);

/// Bytes of the smallest buffer that HDFS takes the outer MD5 over.
const OUTER_BYTES_MIN: usize = 32;

/// The checksum of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileChecksum {
    /// Bytes under one CRC; 0 for an empty file.
    pub bytes_per_crc: u32,
    /// CRCs of a whole block; 0 if the file has one block.
    pub crcs_per_block: u64,
    /// The chunks' CRC: `CRC32` or `CRC32C`. HDFS says `CRC32` of an empty file.
    pub crc: &'static str,
    /// The outer MD5.
    pub md5: [u8; 16],
}

impl FileChecksum {
    /// HDFS's name of the function.
    pub fn algorithm(&self) -> String {
        format!("MD5-of-{}MD5-of-{}{}", self.crcs_per_block, self.bytes_per_crc, self.crc)
    }

    /// The MD5 in hexadecimal.
    pub fn hex(&self) -> String {
        self.md5.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The 28 bytes that HDFS prints and ships: bytes per CRC, CRCs per block (both big-endian), MD5.
    pub fn to_bytes(&self) -> [u8; 28] {
        let mut bytes = [0; 28];
        bytes[..4].copy_from_slice(&self.bytes_per_crc.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.crcs_per_block.to_be_bytes());
        bytes[12..].copy_from_slice(&self.md5);
        bytes
    }
}

impl fmt::Display for FileChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

/// The CRC of a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompositeChecksum {
    /// Which CRC.
    pub kind: ChecksumKind,
    /// Its value; 0 for an empty file.
    pub crc: u32,
}

impl CompositeChecksum {
    /// HDFS's name of the function.
    pub fn algorithm(&self) -> String {
        format!("COMPOSITE-{}", name(self.kind))
    }

    /// The CRC in hexadecimal.
    pub fn hex(&self) -> String {
        format!("{:08x}", self.crc)
    }
}

impl fmt::Display for CompositeChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

fn name(kind: ChecksumKind) -> &'static str {
    match kind {
        ChecksumKind::Null => "NULL",
        ChecksumKind::Crc32 => "CRC32",
        ChecksumKind::Crc32c => "CRC32C",
    }
}

pub(crate) async fn composite_of_file(fs: &Fs, path: &FsPath) -> Result<CompositeChecksum> {
    let reader = fs.open(path).await?;
    let mut whole: Option<(ChecksumKind, Composite)> = None;
    for located in &reader.all_blocks().await? {
        let sum = of_block(fs, path, located, COMPOSITE_CRC).await?;
        let kind = match crc_name(path, &sum)? {
            "CRC32" => ChecksumKind::Crc32,
            _ => ChecksumKind::Crc32c,
        };
        let (first, composite) = match &mut whole {
            Some((first, composite)) => (*first, composite),
            None => {
                let composite = Composite::new(kind).ok_or_else(|| {
                    Error::new(Code::Unsupported, format!("{path}: a block without CRCs"))
                })?;
                let (first, composite) = whole.insert((kind, composite));
                (*first, composite)
            }
        };
        if first != kind {
            let (one, other) = (name(first), name(kind));
            let what = format!("{path}: blocks under {one} and under {other}");
            return Err(Error::new(Code::Unsupported, what));
        }
        let crc = sum.block_checksum[..].try_into().expect("its length was checked");
        let block = located.block.as_ref();
        composite.append(u32::from_be_bytes(crc), block.map_or(0, |block| block.length));
    }
    let (kind, crc) = whole.map_or((ChecksumKind::Crc32c, 0), |(kind, all)| (kind, all.value()));
    Ok(CompositeChecksum { kind, crc })
}

pub(crate) async fn of_file(fs: &Fs, path: &FsPath) -> Result<FileChecksum> {
    let reader = fs.open(path).await?;
    let blocks = reader.all_blocks().await?;
    let mut digests = Vec::with_capacity(16 * blocks.len());
    let (mut bytes_per_crc, mut crcs_per_block, mut crc) = (0, 0, "CRC32");
    for (index, located) in blocks.iter().enumerate() {
        let sum = of_block(fs, path, located, MD5_CRC).await?;
        digests.extend_from_slice(&sum.block_checksum);
        let crc_of_block = crc_name(path, &sum)?;
        if index == 0 {
            crc = crc_of_block;
            bytes_per_crc = sum.bytes_per_crc;
            crcs_per_block = if blocks.len() > 1 { sum.crc_per_block } else { 0 };
        }
        if (sum.bytes_per_crc, crc_of_block) != (bytes_per_crc, crc) {
            return Err(Error::new(
                Code::Unsupported,
                format!(
                    "{path}: blocks of {bytes_per_crc} bytes per {crc} and of {} per {crc_of_block}",
                    sum.bytes_per_crc
                ),
            ));
        }
    }
    Ok(FileChecksum { bytes_per_crc, crcs_per_block, crc, md5: outer_md5(digests) })
}

/// What the chunks' CRC is called. A DataNode that does not say has the default.
fn crc_name(path: &FsPath, sum: &OpBlockChecksumResponseProto) -> Result<&'static str> {
    match sum.crc_type.map_or(Ok(ChecksumTypeProto::ChecksumCrc32c), TryFrom::try_from) {
        Ok(ChecksumTypeProto::ChecksumCrc32c) => Ok("CRC32C"),
        Ok(ChecksumTypeProto::ChecksumCrc32) => Ok("CRC32"),
        _ => Err(Error::new(
            Code::Unsupported,
            format!("{path}: a block was written without checksums (type {:?})", sum.crc_type),
        )),
    }
}

fn outer_md5(mut digests: Vec<u8>) -> [u8; 16] {
    let padded = digests.len().next_power_of_two().max(OUTER_BYTES_MIN);
    digests.resize(padded, 0);
    Md5::digest(&digests).into()
}

/// Asks one replica after the other.
async fn of_block(
    fs: &Fs,
    path: &FsPath,
    located: &LocatedBlock,
    asked: (u32, usize),
) -> Result<OpBlockChecksumResponseProto> {
    let mut said = Vec::new();
    for location in &located.locations {
        match ask(fs, location, located, asked).await {
            Ok(sum) => return Ok(sum),
            Err(error) => said.push(error.to_string()),
        }
    }
    let id = located.block.as_ref().map_or(0, |block| block.id);
    Err(Error::new(
        Code::BlockMissing,
        format!("{path}: no replica of blk_{id} gave its checksum: [{}]", said.join("; ")),
    ))
}

async fn ask(
    fs: &Fs,
    location: &DatanodeAddress,
    located: &LocatedBlock,
    (kind, bytes): (u32, usize),
) -> Result<OpBlockChecksumResponseProto> {
    let peer = Peer::from_address(location)?;
    let block = located.block.as_ref().ok_or_else(|| incomplete("get block locations", "block"))?;
    let request = request(fs, located, block, kind);
    let mut connection = transfer::connection::Connection::dial(&peer, fs.timeouts()).await?;
    let what = format!("checksum of blk_{} from {peer}", block.id);
    let reply = within(fs.timeouts().idle_ms, what, async {
        let stream = &mut connection.stream;
        stream.write_all(&request.encode()).await.map_err(|e| Error::io("send", &e))?;
        let reply = op::read_response(stream).await?;
        op::check(&reply)?;
        Ok(reply)
    })
    .await?;
    fs.pool().put(&peer, connection);
    let sum = reply.checksum_response.ok_or_else(|| {
        Error::new(Code::Incompatible, format!("{peer} answered without a checksum"))
    })?;
    if sum.block_checksum.len() != bytes {
        return Err(Error::new(
            Code::Incompatible,
            format!("{peer} answered {} bytes, expected {bytes}", sum.block_checksum.len()),
        ));
    }
    Ok(sum)
}

/// Op 85 of a replicated block; op 90 of a group, whose units the DataNode asks.
fn request(fs: &Fs, located: &LocatedBlock, block: &Block, kind: u32) -> Request {
    let header = op::base_header(&fs.server_defaults().pool_id, block);
    let options =
        BlockChecksumOptionsProto { block_checksum_type: Some(kind), stripe_length: None };
    if located.erasure_policy == 0 {
        return Request::BlockChecksum(OpBlockChecksumProto {
            header,
            block_checksum_options: Some(options),
        });
    }
    let nodes = located.locations.iter().map(datanode_info);
    Request::BlockGroupChecksum(Box::new(OpBlockGroupChecksumProto {
        header,
        datanodes: DatanodeInfosProto { datanodes: nodes.collect() },
        block_tokens: Vec::new(),
        ec_policy: ErasureCodingPolicyProto { id: located.erasure_policy, ..Default::default() },
        block_indices: located.units.iter().map(|&unit| unit.into()).collect(),
        requested_num_bytes: block.length,
        block_checksum_options: Some(options),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_has_the_checksum_that_hdfs_gives_it() {
        let sum = FileChecksum {
            bytes_per_crc: 0,
            crcs_per_block: 0,
            crc: "CRC32",
            md5: outer_md5(Vec::new()),
        };
        // HDFS: "MD5-of-0MD5-of-0CRC32", MD5 of 32 zero bytes.
        assert_eq!(sum.to_string(), "MD5-of-0MD5-of-0CRC32:70bc8f4b72a86921468bf8e8441dce51");
        assert_eq!(sum.to_bytes()[..12], [0; 12]);
    }

    #[test]
    fn digests_are_filled_up_to_the_next_power_of_two() {
        let md5 = |bytes: &[u8]| -> [u8; 16] { Md5::digest(bytes).into() };
        let filled = |count: usize, to: usize| {
            let mut bytes = vec![7; count];
            bytes.resize(to, 0);
            md5(&bytes)
        };
        assert_eq!(outer_md5(vec![7; 16]), filled(16, 32));
        assert_eq!(outer_md5(vec![7; 32]), filled(32, 32));
        assert_eq!(outer_md5(vec![7; 48]), filled(48, 64));
        assert_eq!(outer_md5(vec![7; 80]), filled(80, 128));
    }
}
