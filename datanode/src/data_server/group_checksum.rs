//! Op 90: one checksum for a striped block group, made of those of its data units.
//!
//! Each data unit's checksum is asked for by op 85 where the unit is, all at once. Units that are lost, or do not answer,
//! are computed from others as for a repair, and digested as they come. What clients compare, byte for byte as HDFS has
//! it:
//!
//! | kind | what it is |
//! |---|---|
//! | MD5CRC | the MD5 of the units' MD5s in order, filled up with zeros to 32, 64, 128... bytes (the buffer that HDFS digests) |
//! | COMPOSITE_CRC | the CRC of the group's bytes, joined from those of the cells: that of a replicated file, too |
//!
//! Less than the whole group may be asked for: then of each unit only what belongs to the first so many bytes counts.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use md5::{Digest, Md5};
use proto::granary::{Block, DatanodeAddress};
use proto::hadoop::hdfs::{
    BlockChecksumOptionsProto, OpBlockChecksumProto, OpBlockChecksumResponseProto,
    OpBlockGroupChecksumProto, StatusProto,
};
use proto::{Code, Error, Result, limits};
use tokio::io::AsyncWrite;
use transfer::connection::Peer;
use transfer::crc::Composite;
use transfer::stripe::{Layout, UNITS_MAX};
use transfer::{Checksum, ChecksumKind, Request, op};

use super::checksum::{self, COMPOSITE_CRC, Kind, MD5_CRC};
use super::transfer::address;
use super::{After, DataServer, Wire, block_of};
use crate::reconstruct::decode::Decoder;
use crate::reconstruct::job::{Holder, Job, shape};

/// Bytes of an MD5.
const MD5_BYTES: usize = 16;
/// The buffer that HDFS collects MD5s in begins with so many bytes, and doubles when it is full.
const HDFS_BUFFER_BYTES: usize = 32;
/// A DataNode that does not answer for so long has its unit computed from others. HDFS's DataNodes wait as long.
const ANSWER_MS: u64 = 3_000;
/// Bytes of a lost unit that are computed at once.
const STEP_BYTES: u64 = limits::PACKET_BYTES_NATIVE as u64;

/// A question, checked.
struct Question {
    pool_id: String,
    job: Job,
    /// The first so many bytes of the group.
    bytes: u64,
    composite: bool,
}

/// What is known of one unit.
#[derive(Clone)]
struct UnitSum {
    checksum: Checksum,
    chunks: u64,
    /// The MD5, or the CRC of each cell.
    value: Bytes,
}

/// Serves one request.
pub async fn serve<R, W: AsyncWrite + Unpin>(
    server: &DataServer,
    wire: &mut Wire<R, W>,
    request: OpBlockGroupChecksumProto,
) -> Result<After> {
    match compute(server, request).await {
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
    request: OpBlockGroupChecksumProto,
) -> Result<OpBlockChecksumResponseProto> {
    let question = Question::check(server, request)?;
    let wanted = question.units();
    let asked = wanted.iter().map(|&unit| ask(server, &question, unit));
    let mut sums: Vec<Option<UnitSum>> = Vec::with_capacity(wanted.len());
    for (unit, answer) in wanted.iter().zip(join_all(asked).await) {
        sums.push(answer.map_or_else(
            |error| {
                tracing::debug!(group = question.job.group.id, unit, %error, "no checksum");
                None
            },
            Some,
        ));
    }
    let lost: Vec<usize> = (0..wanted.len()).filter(|&place| sums[place].is_none()).collect();
    if !lost.is_empty() {
        let like = sums.iter().flatten().next().map_or(Checksum::NATIVE, |sum| sum.checksum);
        let units: Vec<usize> = lost.iter().map(|&place| wanted[place]).collect();
        let computed = reconstruct(server, &question, &units, like).await?;
        for (place, sum) in lost.into_iter().zip(computed) {
            sums[place] = Some(sum);
        }
    }
    let sums: Vec<UnitSum> = sums.into_iter().flatten().collect();
    reply(&question, &sums)
}

impl Question {
    fn check(server: &DataServer, request: OpBlockGroupChecksumProto) -> Result<Self> {
        let invalid = |what: String| Err(Error::new(Code::InvalidArgument, what));
        let kind = Kind::of(request.block_checksum_options.as_ref())?;
        let named = &request.header.block;
        let (id, stamp) = block_of(&server.store, named)?;
        let length = named.num_bytes.unwrap_or(0);
        let group = Block { id: id.0, generation_stamp: stamp.0, length };
        let (layout, code) = shape(request.ec_policy.id, group)?;
        let bytes = request.requested_num_bytes;
        if bytes == 0 || bytes > length {
            return invalid(format!("the checksum of {bytes} bytes of {length} of {id}"));
        }
        let (nodes, units) = (&request.datanodes.datanodes, &request.block_indices);
        if nodes.len() != units.len() || nodes.len() > usize::from(UNITS_MAX) {
            return invalid(format!("{} units at {} DataNodes", units.len(), nodes.len()));
        }
        let mut sources: Vec<Holder> = Vec::new();
        for (&unit, node) in units.iter().zip(nodes) {
            let unit = usize::try_from(unit).unwrap_or(usize::MAX);
            if unit >= layout.units() {
                return invalid(format!("unit {unit} of {id}, which has {}", layout.units()));
            }
            let has_bytes = layout.unit_length(length, unit) > 0;
            if has_bytes && sources.iter().all(|other| other.unit != unit) {
                sources.push(Holder { unit, datanode: address(node) });
            }
        }
        let job = Job { group, layout, code, sources, targets: Vec::new() };
        let composite = matches!(kind, Kind::Composite { .. });
        Ok(Self { pool_id: named.pool_id.clone(), job, bytes, composite })
    }

    /// The data units that the wanted bytes are in.
    fn units(&self) -> Vec<usize> {
        let Layout { data_units, .. } = self.job.layout;
        (0..data_units).filter(|&unit| self.unit_bytes(unit) > 0).collect()
    }

    fn unit_bytes(&self, unit: usize) -> u64 {
        self.job.layout.unit_length(self.bytes, unit)
    }

    fn options(&self, stripe_bytes: u64) -> BlockChecksumOptionsProto {
        let kind = if self.composite { COMPOSITE_CRC } else { MD5_CRC };
        let stripe_length = Some(if self.composite { stripe_bytes } else { 0 });
        BlockChecksumOptionsProto { block_checksum_type: Some(kind), stripe_length }
    }
}

/// A unit's checksum from where the unit is.
async fn ask(server: &DataServer, question: &Question, unit: usize) -> Result<UnitSum> {
    let holder = question.job.sources.iter().find(|holder| holder.unit == unit);
    let holder = holder.ok_or_else(|| Error::new(Code::NotFound, "it is lost"))?;
    let block = Block { length: question.unit_bytes(unit), ..question.job.unit_block(unit) };
    let request = OpBlockChecksumProto {
        header: op::base_header(&question.pool_id, &block),
        block_checksum_options: Some(question.options(question.job.layout.cell_bytes)),
    };
    let reply = if holder.datanode.uuid == server.store.identity().datanode_uuid {
        checksum::compute(server, &request).await?
    } else {
        ask_other(server, &holder.datanode, request).await?
    };
    let checksum = Checksum::from_proto(&proto::hadoop::hdfs::ChecksumProto {
        r#type: reply.crc_type.unwrap_or(ChecksumKind::Null as i32),
        bytes_per_checksum: reply.bytes_per_crc,
    })?;
    let cells = block.length.div_ceil(question.job.layout.cell_bytes);
    let expected = if question.composite { cells * 4 } else { MD5_BYTES as u64 };
    let chunks = block.length.div_ceil(checksum.chunk_bytes() as u64);
    let found = (reply.block_checksum.len() as u64, reply.crc_per_block);
    if checksum.kind() == ChecksumKind::Null || found != (expected, chunks) {
        return Err(Error::new(
            Code::Incompatible,
            format!("{} bytes over {} chunks, expected {expected} over {chunks}", found.0, found.1),
        ));
    }
    Ok(UnitSum { checksum, chunks, value: reply.block_checksum })
}

async fn ask_other(
    server: &DataServer,
    datanode: &DatanodeAddress,
    request: OpBlockChecksumProto,
) -> Result<OpBlockChecksumResponseProto> {
    let peer = Peer::from_address(datanode)?;
    let bytes = Request::BlockChecksum(request).encode();
    let wait_ms = server.limits.timeouts.idle_ms.min(ANSWER_MS);
    let what = format!("ask {peer} for a checksum");
    let (reply, connection) = server.pool.ask(&peer, &bytes, wait_ms, &what).await?;
    op::check(&reply).map_err(|error| error.context(&what))?;
    server.pool.put(&peer, connection);
    reply.checksum_response.ok_or_else(|| Error::new(Code::Incompatible, "a reply without it"))
}

/// The checksums of lost units, from their bytes as others give them.
async fn reconstruct(
    server: &DataServer,
    question: &Question,
    units: &[usize],
    like: Checksum,
) -> Result<Vec<UnitSum>> {
    let mut job = question.job.clone();
    job.sources.retain(|holder| !units.contains(&holder.unit));
    let mut decoder = Decoder::new(&server.store, &server.pool, &job, units, STEP_BYTES)?;
    let mut digests: Vec<UnitDigest> =
        units.iter().map(|&unit| UnitDigest::new(question, like, unit)).collect();
    while digests.iter().any(|digest| digest.left > 0) {
        let Some(step) = decoder.next().await? else { break };
        for (digest, bytes) in digests.iter_mut().zip(&step.units) {
            digest.take(bytes);
        }
    }
    Ok(digests.into_iter().map(UnitDigest::finish).collect())
}

/// A unit's checksum from its bytes.
struct UnitDigest {
    checksum: Checksum,
    left: u64,
    cell_bytes: u64,
    at: u64,
    chunks: u64,
    /// Bytes of a chunk that is not whole yet.
    pending: BytesMut,
    md5: Md5,
    /// The CRC of the running cell, and those of the cells before.
    cell: Option<(Composite, Composite)>,
    cells: BytesMut,
}

impl UnitDigest {
    fn new(question: &Question, checksum: Checksum, unit: usize) -> Self {
        let composite = Composite::new(checksum.kind()).filter(|_| question.composite);
        Self {
            checksum,
            left: question.unit_bytes(unit),
            cell_bytes: question.job.layout.cell_bytes,
            at: 0,
            chunks: 0,
            pending: BytesMut::new(),
            md5: Md5::new(),
            cell: composite.map(|empty| (empty, empty)),
            cells: BytesMut::new(),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.left -= count as u64;
        self.pending.extend_from_slice(&bytes[..count]);
        let chunk = self.checksum.chunk_bytes();
        while self.pending.len() >= chunk || (self.left == 0 && !self.pending.is_empty()) {
            let chunk = self.pending.split_to(chunk.min(self.pending.len()));
            self.chunk(&chunk);
        }
    }

    fn chunk(&mut self, chunk: &[u8]) {
        let sum = self.checksum.of(chunk);
        self.chunks += 1;
        self.at += chunk.len() as u64;
        let Some((cell, empty)) = &mut self.cell else {
            self.md5.update(sum.to_be_bytes());
            return;
        };
        cell.append(sum, chunk.len() as u64);
        let ended = self.left == 0 && self.pending.is_empty();
        if self.at.is_multiple_of(self.cell_bytes) || ended {
            self.cells.put_u32(std::mem::replace(cell, *empty).value());
        }
    }

    fn finish(self) -> UnitSum {
        let value = match self.cell {
            Some(_) => self.cells.freeze(),
            None => Bytes::copy_from_slice(&self.md5.finalize()),
        };
        UnitSum { checksum: self.checksum, chunks: self.chunks, value }
    }
}

fn reply(question: &Question, sums: &[UnitSum]) -> Result<OpBlockChecksumResponseProto> {
    let first = sums.first().expect("a range of at least a byte is in a unit");
    if let Some(other) = sums.iter().find(|sum| sum.checksum != first.checksum) {
        return Err(Error::new(
            Code::Unsupported,
            format!(
                "units with {:?} and {:?} have no common checksum",
                first.checksum, other.checksum
            ),
        ));
    }
    let value = if question.composite { join_cells(question, sums)? } else { md5_of(sums) };
    let checksum = first.checksum.to_proto();
    Ok(OpBlockChecksumResponseProto {
        bytes_per_crc: checksum.bytes_per_checksum,
        crc_per_block: first.chunks,
        block_checksum: value,
        crc_type: Some(checksum.r#type),
        block_checksum_options: Some(question.options(0)),
    })
}

fn md5_of(sums: &[UnitSum]) -> Bytes {
    let joined: Vec<u8> = sums.iter().flat_map(|sum| sum.value.iter().copied()).collect();
    let mut buffer = vec![0; joined.len().next_power_of_two().max(HDFS_BUFFER_BYTES)];
    buffer[..joined.len()].copy_from_slice(&joined);
    Bytes::copy_from_slice(&Md5::digest(&buffer))
}

/// The CRC of the wanted bytes, from those of the cells in the order of the bytes.
fn join_cells(question: &Question, sums: &[UnitSum]) -> Result<Bytes> {
    let Layout { cell_bytes, .. } = question.job.layout;
    let kind = sums[0].checksum.kind();
    let mut whole = Composite::new(kind).expect("units have checksums");
    for piece in question.job.layout.pieces(0..question.bytes) {
        let row = usize::try_from(piece.unit_offset / cell_bytes).expect("a unit has few cells");
        let of_cell = sums.get(piece.unit).and_then(|sum| sum.value.get(row * 4..row * 4 + 4));
        let of_cell = of_cell.ok_or_else(|| {
            let what = format!("no checksum of row {row} of unit {}", piece.unit);
            Error::new(Code::Internal, what)
        })?;
        let crc = u32::from_be_bytes(of_cell.try_into().expect("4 bytes"));
        whole.append(crc, piece.length);
    }
    Ok(Bytes::copy_from_slice(&whole.value().to_be_bytes()))
}
