//! Op 86 and the NameNode's command: send a replica on to other DataNodes.
//!
//! The sender is a writer like any other: a pipeline of the targets, packets, acks. Every byte is verified before it is
//! sent; a replica that turns out damaged is reported and not spread. A replica that is being written is sent as far as
//! it is visible, and stays open at the targets.

use proto::granary::{Block, DatanodeAddress};
use proto::hadoop::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use proto::hadoop::hdfs::{DatanodeInfoProto, OpTransferBlockProto, StatusProto};
use proto::{BlockId, Code, Error, GenerationStamp, Result, limits};
use std::sync::Arc;
use tokio::io::AsyncWrite;
use transfer::writer::{BlockWriter, PipelineFailure, PipelineSpec};
use transfer::{PacketHeader, SealedPacket, op};

use super::write::TARGETS_MAX;
use super::{After, DataServer, Wire, block_of};
use crate::store::ReplicaReader;

/// Packets of a transfer in flight.
const PACKETS_MAX: usize = 8;
const PACKET_BYTES: u64 = limits::PACKET_BYTES_NATIVE as u64;

/// Serves one request.
pub(super) async fn serve<R, W: AsyncWrite + Unpin>(
    server: &DataServer,
    wire: &mut Wire<R, W>,
    request: OpTransferBlockProto,
) -> Result<After> {
    let targets: Vec<DatanodeAddress> = request.targets.iter().map(address).collect();
    let sent = async {
        if targets.len() > TARGETS_MAX {
            let why = format!("{} targets, at most {TARGETS_MAX}", targets.len());
            return Err(Error::new(Code::InvalidArgument, why));
        }
        let (block, stamp) = block_of(&server.store, &request.header.base_header.block)?;
        send_replica(server, block, stamp, &targets, &request.header.client_name).await
    };
    match sent.await {
        Ok(()) => wire.reply(&op::response(StatusProto::Success)).await?,
        Err(error) => wire.refuse(&error).await?,
    }
    Ok(After::KeepOpen)
}

/// Sends a replica of generation `stamp` or newer to `targets` and waits until all have it.
pub async fn send_replica(
    server: &DataServer,
    block: BlockId,
    stamp: GenerationStamp,
    targets: &[DatanodeAddress],
    client: &str,
) -> Result<()> {
    if targets.is_empty() {
        return Err(Error::new(Code::InvalidArgument, format!("transfer {block}: no targets")));
    }
    let store = server.store.clone();
    let pool = store.pool_of(block, stamp)?;
    let reader = pool.run(move || store.open_reader(block, stamp)).await?;
    let reader = Arc::new(reader);
    let stage = if reader.is_finalized() { Stage::TransferFinalized } else { Stage::TransferRbw };
    let spec = PipelineSpec {
        pool_id: server.store.identity().pool_id,
        client: client.to_owned(),
        block: Block { id: block.0, generation_stamp: reader.stamp().0, length: reader.length() },
        nodes: targets.to_vec(),
        stage,
        min_bytes: 0,
        max_bytes: 0,
        new_stamp: reader.stamp().0,
        checksum: reader.checksum(),
        packets_in_flight_max: PACKETS_MAX,
    };
    let told = |failure: PipelineFailure| {
        let target = targets.get(failure.node).map_or("", |node| node.host.as_str());
        failure.error.context(format_args!("transfer {block} to {target}"))
    };
    let mut writer = BlockWriter::open(&spec, &server.limits.timeouts).await.map_err(told)?;
    let mut seqno = 0;
    let mut at = 0;
    while at < reader.length() {
        let reader = reader.clone();
        let packet = pool.run(move || verified_packet(&reader, at, seqno)).await?;
        at = packet.header.end();
        writer.send(&mut Some(packet)).await.map_err(told)?;
        seqno += 1;
    }
    let header = PacketHeader { offset_in_block: at, seqno, last: true, data_len: 0, sync: false };
    let last = SealedPacket::with_sums(header, &[], bytes::Bytes::new());
    writer.send(&mut Some(last)).await.map_err(told)?;
    writer.drain().await.map_err(told)
}

/// Reads the packet that begins at `offset`. Blocks.
fn verified_packet(reader: &ReplicaReader, offset: u64, seqno: i64) -> Result<SealedPacket> {
    let packet_bytes = (PACKET_BYTES - PACKET_BYTES % reader.chunk()).max(reader.chunk());
    let bytes = (reader.length() - offset).min(packet_bytes);
    let mut data = vec![0; usize::try_from(bytes).expect("a packet is at most 1 MiB")];
    let mut sums = Vec::new();
    reader.read(offset, &mut data, &mut sums)?;
    if let Err(mismatch) = reader.checksum().verify(&data, &sums) {
        // The whole check tells damage from a replica that changed under us, and reports it.
        reader.verify()?;
        return Err(mismatch.into_error("block", offset));
    }
    let header =
        PacketHeader { offset_in_block: offset, seqno, last: false, data_len: 0, sync: false };
    Ok(SealedPacket::with_sums(header, &sums, data.into()))
}

/// A target as Granary's own messages name it.
pub(super) fn address(info: &DatanodeInfoProto) -> DatanodeAddress {
    DatanodeAddress {
        uuid: info.id.datanode_uuid.clone(),
        host: info.id.ip_addr.clone(),
        data_port: info.id.xfer_port,
        http_port: info.id.info_port,
        ipc_port: info.id.ipc_port,
        ..Default::default()
    }
}
