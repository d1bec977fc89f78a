//! Whole DataNodes over real sockets: alone, and in chains of three.

mod damage;
mod groups;
mod hadoop;
mod reuse;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::granary::{Block, DatanodeAddress};
use proto::hadoop::hdfs::{
    BlockOpResponseProto, ChecksumProto, ChecksumTypeProto, ClientReadStatusProto,
    OpBlockChecksumProto, OpReadBlockProto, OpTransferBlockProto, OpWriteBlockProto, StatusProto,
    op_write_block_proto::BlockConstructionStage as Stage,
};
use proto::{BlockId, Code, GenerationStamp, Result};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use transfer::connection::{Peer, Pool, Timeouts, datanode_info};
use transfer::op::{self, Request};
use transfer::reader::{BlockReader, ReadRange};
use transfer::writer::{BlockWriter, PipelineSpec};
use transfer::{Checksum, PacketBuilder, PacketHeader, PacketReader, PipelineAck, SealedPacket};

use crate::server::{Handle, start};
use crate::testing::{config, packet, pattern, wait_until};

const CLIENT: &str = "granary-test";

struct Node {
    handle: Handle,
    folder: TempDir,
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let handle = start(config(folder.path())).await.unwrap();
        Self { handle, folder }
    }

    fn address(&self) -> DatanodeAddress {
        DatanodeAddress {
            uuid: self.handle.uuid().to_owned(),
            host: "127.0.0.1".into(),
            data_port: self.handle.data_addr().port().into(),
            control_port: self.handle.control_addr().port().into(),
            http_port: self.handle.http_addr().port().into(),
            ipc_port: self.handle.ipc_addr().port().into(),
            local_socket: String::new(),
            ..Default::default()
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.handle.data_addr()).await.unwrap()
    }

    /// Waits until it holds the block in this state: finished, or not.
    async fn holds(&self, id: u64, stamp: u64, length: u64) {
        let store = self.handle.store();
        wait_until("the replica is there", || {
            store
                .reported(BlockId(id))
                .is_some_and(|(block, _)| block == (Block { id, generation_stamp: stamp, length }))
        })
        .await;
    }
}

async fn chain(count: usize) -> Vec<Node> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(Node::start().await);
    }
    nodes
}

fn block(stamp: u64, length: u64) -> Block {
    Block { id: 7, generation_stamp: stamp, length }
}

fn spec(nodes: &[&Node], stage: Stage, block: Block) -> PipelineSpec {
    PipelineSpec {
        pool_id: "BP".into(),
        client: CLIENT.into(),
        block,
        nodes: nodes.iter().map(|node| node.address()).collect(),
        stage,
        min_bytes: 0,
        max_bytes: 0,
        new_stamp: block.generation_stamp,
        checksum: Checksum::NATIVE,
        packets_in_flight_max: 8,
    }
}

fn seal(offset: u64, seqno: i64, data: &[u8]) -> SealedPacket {
    let mut builder =
        PacketBuilder::new(Checksum::NATIVE, offset, data.len().next_multiple_of(512));
    assert_eq!(builder.push(data), data.len());
    builder.seal(seqno, false)
}

fn last(offset: u64, seqno: i64) -> SealedPacket {
    let header =
        PacketHeader { offset_in_block: offset, seqno, last: true, data_len: 0, sync: false };
    SealedPacket::with_sums(header, &[], Bytes::new())
}

async fn open(spec: &PipelineSpec) -> BlockWriter {
    BlockWriter::open(spec, &Timeouts::default()).await.map_err(|f| f.error).unwrap()
}

/// Writes bytes from `offset` in packets of `packet_bytes` and waits for the acks.
async fn send(writer: &mut BlockWriter, offset: u64, data: &[u8], packet_bytes: usize, end: bool) {
    let mut at = offset;
    let mut rest = data;
    let mut seqno = 0;
    while !rest.is_empty() {
        let room = if at.is_multiple_of(512) { packet_bytes } else { (512 - at % 512) as usize };
        let (now, later) = rest.split_at(room.min(rest.len()));
        writer.send(&mut Some(seal(at, seqno, now))).await.map_err(|f| f.error).unwrap();
        at += now.len() as u64;
        rest = later;
        seqno += 1;
    }
    if end {
        writer.send(&mut Some(last(at, seqno))).await.map_err(|f| f.error).unwrap();
    }
    writer.drain().await.map_err(|f| f.error).unwrap();
}

async fn write_whole(nodes: &[&Node], data: &[u8], packet_bytes: usize) {
    let mut writer = open(&spec(nodes, Stage::PipelineSetupCreate, block(1001, 0))).await;
    send(&mut writer, 0, data, packet_bytes, true).await;
}

async fn read(node: &Node, block: Block, offset: u64, length: u64) -> Result<Vec<u8>> {
    let pool = Arc::new(Pool::new(Timeouts::default(), 4, 10_000));
    let peer = Peer::from_address(&node.address()).unwrap();
    let range = ReadRange { pool_id: "BP".into(), client: CLIENT.into(), block, offset, length };
    let mut reader = BlockReader::open(&pool, &peer, &range).await?;
    let mut out = Vec::new();
    while let Some(bytes) = reader.next().await? {
        out.extend_from_slice(&bytes);
    }
    Ok(out)
}

#[tokio::test]
async fn a_block_written_to_one_node_is_read_back_in_any_range() {
    let node = Node::start().await;
    let data = pattern(1, 3_000_123);
    write_whole(&[&node], &data, 64 << 10).await;
    let length = data.len() as u64;
    let whole = block(1001, length);
    for (offset, count) in
        [(0, length), (0, 1), (511, 2), (512, 512), (length - 1, 1), (1_048_570, 1_100_000)]
    {
        let expected = &data[offset as usize..(offset + count) as usize];
        assert_eq!(read(&node, whole, offset, count).await.unwrap(), expected, "{offset} {count}");
    }
    for (block, offset, count, code) in [
        (whole, 1, length, Code::InvalidArgument),
        (block(1002, 0), 0, 1, Code::Stale),
        (Block { id: 8, ..whole }, 0, 1, Code::NotFound),
    ] {
        assert_eq!(read(&node, block, offset, count).await.unwrap_err().code, code);
    }
    // An older stamp than the replica's is served.
    assert_eq!(read(&node, block(1000, 0), 0, 3).await.unwrap(), &data[..3]);
    node.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_three_holds_the_block_when_the_last_ack_came_and_after_a_restart() {
    let nodes = chain(3).await;
    let all: Vec<&Node> = nodes.iter().collect();
    let data = pattern(2, 2_500_000);
    write_whole(&all, &data, 1 << 20).await;
    for node in nodes {
        assert_eq!(read(&node, block(1001, 0), 0, 2_500_000).await.unwrap(), data);
        node.handle.shutdown().await.unwrap();
        let again = start(config(node.folder.path())).await.unwrap();
        let node = Node { handle: again, folder: node.folder };
        assert_eq!(read(&node, block(1001, 0), 0, 2_500_000).await.unwrap(), data);
        node.handle.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn bytes_are_visible_on_every_node_once_flushed_and_not_before_they_are_acknowledged() {
    let nodes = chain(3).await;
    let all: Vec<&Node> = nodes.iter().collect();
    let data = pattern(3, 1_700);
    let mut writer = open(&spec(&all, Stage::PipelineSetupCreate, block(1001, 0))).await;
    send(&mut writer, 0, &data[..700], 1 << 20, false).await;
    for node in &nodes {
        let store = node.handle.store();
        assert_eq!(store.visible_length(BlockId(7), GenerationStamp(1001)).unwrap(), 700);
        assert_eq!(read(node, block(1001, 0), 0, 700).await.unwrap(), &data[..700]);
        let beyond = read(node, block(1001, 0), 0, 701).await.unwrap_err();
        assert_eq!(beyond.code, Code::InvalidArgument);
    }
    // After a flush in the middle of a chunk HDFS's client sends from the chunk's start again.
    writer.send(&mut Some(seal(512, 1, &data[512..]))).await.map_err(|f| f.error).unwrap();
    writer.send(&mut Some(last(1_700, 2))).await.map_err(|f| f.error).unwrap();
    writer.drain().await.map_err(|f| f.error).unwrap();
    for node in &nodes {
        assert_eq!(read(node, block(1001, 0), 0, 1_700).await.unwrap(), data);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_goes_on_without_the_node_that_died_and_with_one_that_took_a_copy() {
    let mut nodes = chain(4).await;
    let spare = nodes.pop().unwrap();
    let data = pattern(4, 900_000);
    let all: Vec<&Node> = nodes.iter().collect();
    let mut writer = open(&spec(&all, Stage::PipelineSetupCreate, block(1001, 0))).await;
    send(&mut writer, 0, &data[..300_000], 64 << 10, false).await;
    let dead = nodes.remove(1);
    dead.handle.shutdown().await.unwrap();
    let mut failed = None;
    for seqno in 10..200 {
        let mut slot = Some(seal(300_000, seqno, &data[300_000..300_032]));
        let sent = match writer.send(&mut slot).await {
            Ok(()) => writer.drain().await,
            failure => failure,
        };
        if let Err(failure) = sent {
            failed = Some(failure.node);
            break;
        }
    }
    assert_eq!(failed, Some(1), "the failure names the node that died");
    drop(writer.into_unacked().await);
    // The spare gets what is visible, then all three go on under a new stamp.
    let mut stream = nodes[0].connect().await;
    let request = Request::TransferBlock(Box::new(OpTransferBlockProto {
        header: op::client_header("BP", &block(1001, 300_000), CLIENT),
        targets: vec![datanode_info(&spare.address())],
        target_storage_types: vec![],
        target_storage_ids: vec![],
    }));
    stream.write_all(&request.encode()).await.unwrap();
    op::check(&op::read_response(&mut stream).await.unwrap()).unwrap();
    let all = [&nodes[0], &nodes[1], &spare];
    let mut recovery = spec(&all, Stage::PipelineSetupStreamingRecovery, block(1001, 300_000));
    recovery.min_bytes = 300_000;
    recovery.max_bytes = 300_032;
    recovery.new_stamp = 1002;
    let mut writer = open(&recovery).await;
    send(&mut writer, 300_000, &data[300_000..], 64 << 10, true).await;
    for node in all {
        assert_eq!(read(node, block(1002, 0), 0, 900_000).await.unwrap(), data);
        node.holds(7, 1002, 900_000).await;
    }
    // What the dead node has is too old for a reader who knows the block.
    let again = start(config(dead.folder.path())).await.unwrap();
    let dead = Node { handle: again, folder: dead.folder };
    assert_eq!(read(&dead, block(1002, 0), 0, 1).await.unwrap_err().code, Code::Stale);
}

#[tokio::test]
async fn an_append_continues_a_block_and_a_failed_close_is_recovered() {
    let nodes = chain(2).await;
    let all: Vec<&Node> = nodes.iter().collect();
    let data = pattern(5, 70_000);
    write_whole(&all, &data[..1_000], 64 << 10).await;
    // HDFS's clients name the size limit of the block here, and its length in the lower bound.
    let mut append = spec(&all, Stage::PipelineSetupAppend, block(1001, 128 << 20));
    append.new_stamp = 1002;
    append.min_bytes = 1_000;
    let mut writer = open(&append).await;
    send(&mut writer, 1_000, &data[1_000..], 64 << 10, false).await;
    drop(writer.into_unacked().await);
    let mut close = spec(&all, Stage::PipelineCloseRecovery, block(1002, 70_000));
    close.new_stamp = 1003;
    close.min_bytes = 70_000;
    close.max_bytes = 70_000;
    drop(open(&close).await);
    for node in &nodes {
        assert_eq!(read(node, block(1003, 0), 0, 70_000).await.unwrap(), data);
    }
    // A streaming recovery of a replica that was finished opens it again.
    let mut streaming = spec(&all, Stage::PipelineSetupStreamingRecovery, block(1003, 70_000));
    streaming.new_stamp = 1004;
    streaming.min_bytes = 60_000;
    streaming.max_bytes = 70_000;
    let mut writer = open(&streaming).await;
    send(&mut writer, 70_000, &[], 1, true).await;
    assert_eq!(read(&nodes[1], block(1004, 0), 0, 70_000).await.unwrap(), data);
}

/// Sets up a pipeline of one by hand.
async fn raw_writer(node: &Node, checksum: ChecksumTypeProto) -> TcpStream {
    let mut stream = node.connect().await;
    let request = OpWriteBlockProto {
        header: op::client_header("BP", &block(1001, 0), "DFSClient_X"),
        stage: Stage::PipelineSetupCreate as i32,
        pipeline_size: 0,
        requested_checksum: ChecksumProto { r#type: checksum as i32, bytes_per_checksum: 512 },
        ..Default::default()
    };
    stream.write_all(&Request::WriteBlock(Box::new(request)).encode()).await.unwrap();
    op::check(&op::read_response(&mut stream).await.unwrap()).unwrap();
    stream
}

async fn next_ack(stream: &mut TcpStream) -> Option<PipelineAck> {
    let mut buffer = bytes::BytesMut::new();
    loop {
        if let Some(ack) = PipelineAck::decode(&mut buffer).unwrap() {
            return Some(ack);
        }
        if stream.read_buf(&mut buffer).await.ok()? == 0 {
            return None;
        }
    }
}

#[tokio::test]
async fn a_packet_with_a_wrong_checksum_is_refused_and_nothing_of_it_is_stored() {
    let node = Node::start().await;
    let mut stream = raw_writer(&node, ChecksumTypeProto::ChecksumCrc32c).await;
    let good = packet(0, &pattern(6, 1_000), 0, false);
    stream.write_all(good.frame()).await.unwrap();
    assert_eq!(next_ack(&mut stream).await.unwrap().statuses, [StatusProto::Success]);
    let bad = packet(1_000, &pattern(7, 24), 1, false);
    let mut frame = bad.frame().to_vec();
    *frame.last_mut().unwrap() ^= 1;
    stream.write_all(&frame).await.unwrap();
    let ack = next_ack(&mut stream).await.unwrap();
    assert_eq!((ack.seqno, &ack.statuses[..]), (1, &[StatusProto::ErrorChecksum][..]));
    assert_eq!(next_ack(&mut stream).await, None, "the connection ends");
    let path = node.folder.path().join("rbw/blk_7");
    assert_eq!(std::fs::metadata(path).unwrap().len(), 1_000);
}

#[tokio::test]
async fn heartbeats_are_answered_and_a_writer_may_use_crc32_and_count_from_one() {
    let node = Node::start().await;
    let mut stream = raw_writer(&node, ChecksumTypeProto::ChecksumCrc32).await;
    let heartbeat = SealedPacket::heartbeat();
    stream.write_all(&heartbeat.head).await.unwrap();
    assert_eq!(next_ack(&mut stream).await.unwrap().seqno, -1);
    let data = pattern(8, 1_300);
    let crc32 = Checksum::new(transfer::ChecksumKind::Crc32, 512).unwrap();
    // gohdfs counts from 1.
    let header =
        PacketHeader { offset_in_block: 0, seqno: 1, last: false, data_len: 0, sync: true };
    let sealed = SealedPacket::new(header, crc32, Bytes::copy_from_slice(&data));
    stream.write_all(&sealed.head).await.unwrap();
    stream.write_all(&sealed.data).await.unwrap();
    assert_eq!(next_ack(&mut stream).await.unwrap().statuses, [StatusProto::Success]);
    stream.write_all(&last(1_300, 2).head).await.unwrap();
    assert_eq!(next_ack(&mut stream).await.unwrap().statuses, [StatusProto::Success]);
    assert_eq!(read(&node, block(1001, 0), 0, 1_300).await.unwrap(), data);
}

#[tokio::test]
async fn a_dead_mirror_is_named_and_leaves_no_replica_behind() {
    let node = Node::start().await;
    let mut gone = node.address();
    let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    gone.data_port = unused.local_addr().unwrap().port().into();
    drop(unused);
    let mut spec = spec(&[&node], Stage::PipelineSetupCreate, block(1001, 0));
    spec.nodes.push(gone);
    let failure = BlockWriter::open(&spec, &Timeouts::default()).await.err().unwrap();
    assert_eq!(failure.node, 1);
    let store = node.handle.store();
    wait_until("nothing is left", || store.replica_count() == 0).await;
}

#[tokio::test]
async fn one_connection_serves_reads_without_checksums_block_checksums_and_refusals() {
    let node = Node::start().await;
    let data = pattern(9, 150_000);
    write_whole(&[&node], &data, 64 << 10).await;
    let mut stream = node.connect().await;
    let request = OpReadBlockProto {
        header: op::client_header("BP", &block(1001, 0), "DFSClient_X"),
        offset: 1,
        len: 149_999,
        send_checksums: Some(false),
        caching_strategy: None,
    };
    stream.write_all(&Request::ReadBlock(request).encode()).await.unwrap();
    let reply: BlockOpResponseProto = op::read_response(&mut stream).await.unwrap();
    let info = reply.read_op_checksum_info.unwrap();
    assert_eq!((info.chunk_offset, info.checksum.r#type), (0, 0));
    let mut packets = PacketReader::new();
    let mut got = Vec::new();
    loop {
        let packet = packets.next(&mut stream).await.unwrap();
        assert!(packet.sums().is_empty());
        assert!(packet.data().len() <= 256 << 10, "a foreign client gets small packets");
        got.extend_from_slice(packet.data());
        if packet.header().last {
            break;
        }
    }
    assert_eq!(got, data);
    let status = ClientReadStatusProto { status: StatusProto::ChecksumOk as i32 };
    stream.write_all(&status.encode_length_delimited_to_vec()).await.unwrap();
    for length in [150_000, 100_000, 700, 512] {
        assert_eq!(checksum(&mut stream, length).await, expected_md5(&data[..length]), "{length}");
    }
    let fds = Request::ShortCircuitFds(proto::hadoop::hdfs::OpRequestShortCircuitAccessProto {
        header: op::base_header("BP", &block(1001, 0)),
        max_version: 1,
        slot_id: None,
        supports_receipt_verification: None,
    });
    stream.write_all(&fds.encode()).await.unwrap();
    let refused = op::check(&op::read_response(&mut stream).await.unwrap());
    assert_eq!(refused.unwrap_err().code, Code::Unsupported);
    stream.write_all(&[0, 28, 89, 0]).await.unwrap();
    let refused = op::check(&op::read_response(&mut stream).await.unwrap());
    assert_eq!(refused.unwrap_err().code, Code::Unsupported);
}

async fn checksum(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let request = Request::BlockChecksum(OpBlockChecksumProto {
        header: op::base_header("BP", &block(1001, length as u64)),
        block_checksum_options: None,
    });
    stream.write_all(&request.encode()).await.unwrap();
    let reply = op::read_response(stream).await.unwrap();
    op::check(&reply).unwrap();
    let sum = reply.checksum_response.unwrap();
    assert_eq!((sum.bytes_per_crc, sum.crc_type), (512, Some(2)));
    sum.block_checksum.to_vec()
}

fn expected_md5(data: &[u8]) -> Vec<u8> {
    use md5::{Digest, Md5};
    let mut sums = vec![0; Checksum::NATIVE.sum_bytes(data.len())];
    Checksum::NATIVE.compute(data, &mut sums);
    Md5::digest(&sums).to_vec()
}

#[tokio::test]
async fn open_files_are_handed_over_on_the_unix_socket_for_finished_replicas_only() {
    let node = Node::start().await;
    let data = pattern(10, 5_000);
    write_whole(&[&node], &data, 64 << 10).await;
    let mut stream = UnixStream::connect(node.handle.local_socket()).await.unwrap();
    let asked = block(1001, 5_000);
    let files = transfer::short_circuit::request_on(&mut stream, "BP", &asked).await.unwrap();
    crate::files::verify(&files.data, &files.meta, 5_000, "blk_7").unwrap();
    let missing = Block { id: 9, ..asked };
    let error = transfer::short_circuit::request_on(&mut stream, "BP", &missing).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    // And the connection still serves.
    transfer::short_circuit::request_on(&mut stream, "BP", &asked).await.unwrap();
}

#[tokio::test]
async fn garbage_closes_its_connection_and_nothing_else() {
    let node = Node::start().await;
    write_whole(&[&node], b"abc", 512).await;
    let seed = pattern(11, 64 << 10);
    let mut cases: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0, 27, 81, 0],
        vec![0, 28, 200],
        vec![0, 28, 81, 0xff, 0xff, 0xff, 0xff, 0x7f],
        vec![0, 28, 80, 3, 1, 2, 3],
        vec![0, 28],
    ];
    cases.extend(seed.chunks(1_000).map(<[u8]>::to_vec));
    for case in cases {
        let mut stream = node.connect().await;
        // The node may have closed already.
        drop(stream.write_all(&case).await);
        drop(stream.shutdown().await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
    }
    assert_eq!(read(&node, block(1001, 3), 0, 3).await.unwrap(), b"abc");
}

#[tokio::test]
async fn a_full_volume_refuses_at_set_up_and_a_connection_too_many_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let config = crate::Config {
        reserved_bytes: u64::MAX,
        reserved_percent: 100,
        transfers_max: 1,
        ..config(folder.path())
    };
    let node = Node { handle: start(config).await.unwrap(), folder };
    let spec = spec(&[&node], Stage::PipelineSetupCreate, block(1001, 1 << 20));
    let failure = BlockWriter::open(&spec, &Timeouts::default()).await.err().unwrap();
    assert_eq!(failure.error.code, Code::NoSpace);
    assert!(failure.error.message.contains("reserve"), "{}", failure.error);
    let held = loop {
        // The first connection's slot is given back when its task ends.
        let mut stream = node.connect().await;
        stream.write_all(&[0, 28, 85]).await.unwrap();
        let mut byte = [0];
        let wait = std::time::Duration::from_millis(200);
        if tokio::time::timeout(wait, stream.read(&mut byte)).await.is_err() {
            break stream;
        }
    };
    let mut refused = node.connect().await;
    let mut byte = [0];
    assert!(matches!(refused.read(&mut byte).await, Ok(0) | Err(_)));
    drop(held);
}

/// Needs to mount; says so where it can't.
#[tokio::test]
async fn a_disk_that_fills_up_while_writing_gives_an_error_and_keeps_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| {
        std::process::Command::new(args[0])
            .args(&args[1..])
            .output()
            .is_ok_and(|o| o.status.success())
    };
    let path = folder.path().to_str().unwrap();
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=4m", "none", path]) {
        println!("skipped, because a tmpfs cannot be mounted here");
        return;
    }
    let outcome = tokio::spawn(fill(folder.path().to_owned())).await;
    assert!(mount(&["umount", "-l", path]));
    outcome.unwrap();
}

async fn fill(path: std::path::PathBuf) {
    let handle = start(config(&path)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let node = Node { handle, folder };
    write_whole(&[&node], b"abc", 512).await;
    let spec = spec(
        &[&node],
        Stage::PipelineSetupCreate,
        Block { id: 8, generation_stamp: 1001, length: 0 },
    );
    let mut writer = open(&spec).await;
    let data = pattern(12, 1 << 20);
    let mut failed = None;
    for seqno in 0..8u64 {
        let packet = seal(seqno << 20, seqno as i64, &data);
        let sent = writer.send(&mut Some(packet)).await;
        if let Err(failure) = sent {
            failed = Some(failure);
            break;
        }
        if let Err(failure) = writer.drain().await {
            failed = Some(failure);
            break;
        }
    }
    assert_eq!(failed.expect("4 MiB do not take 8").node, 0);
    assert!(!node.handle.store().volume_statuses()[0].failed, "full is not broken");
    node.handle.store().delete(BlockId(8), GenerationStamp(1001)).await.unwrap();
    assert_eq!(read(&node, block(1001, 3), 0, 3).await.unwrap(), b"abc");
    node.handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_second_datanode_on_the_same_folder_or_port_is_refused_by_name() {
    let node = Node::start().await;
    let error = start(config(node.folder.path())).await.err().unwrap();
    assert!(error.message.contains("another process"), "{error}");
    let other = tempfile::tempdir().unwrap();
    let taken =
        crate::Config { data_addr: node.handle.data_addr().to_string(), ..config(other.path()) };
    let error = start(taken).await.err().unwrap();
    assert!(error.message.contains("datanode.data_addr"), "{error}");
    let file = other.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = start(config(Path::new(&file))).await.err().unwrap();
    assert!(error.message.contains("datanode.volumes"), "{error}");
}

#[tokio::test]
async fn status_metrics_and_health_answer_over_http() {
    let node = Node::start().await;
    for (path, expected) in [
        ("/status", node.handle.uuid().to_owned()),
        ("/metrics", "granary_datanode_replicas 0".into()),
        ("/healthz", "ok".into()),
    ] {
        let mut stream = TcpStream::connect(node.handle.http_addr()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&expected), "{answer}");
    }
}
