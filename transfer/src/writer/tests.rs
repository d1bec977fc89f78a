//! Tests of writing over a pipeline: a first DataNode in the test takes packets and acks them, well or badly.

use proto::hadoop::hdfs::StatusProto;
use tokio::net::TcpListener;

use super::*;
use crate::packet::{Packet, PacketHeader, PacketReader};

const TIMEOUTS: Timeouts =
    Timeouts { connect_ms: 5_000, idle_ms: 400, per_node_ms: 0, heartbeat_ms: 60_000 };

struct First {
    listener: TcpListener,
    spec: PipelineSpec,
}

/// A pipeline of `nodes`, the first of which is the test's; the others are names only.
async fn first_of(nodes: usize) -> First {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let node = |index: usize| DatanodeAddress {
        uuid: format!("dn-{index}"),
        host: "127.0.0.1".into(),
        data_port: if index == 0 { u32::from(port) } else { index as u32 },
        ..Default::default()
    };
    let nodes = (0..nodes).map(node).collect();
    let block = Block { id: 5, generation_stamp: 1001, length: 0 };
    let spec = PipelineSpec {
        pool_id: "BP".into(),
        client: "test".into(),
        block,
        nodes,
        stage: Stage::PipelineSetupCreate,
        min_bytes: 0,
        max_bytes: 0,
        new_stamp: 1001,
        checksum: Checksum::NATIVE,
        packets_in_flight_max: 4,
    };
    First { listener, spec }
}

fn packet(seqno: i64, bytes: usize) -> Option<SealedPacket> {
    let header = PacketHeader {
        offset_in_block: seqno as u64 * bytes as u64,
        seqno,
        last: false,
        data_len: 0,
        sync: false,
    };
    Some(SealedPacket::new(header, Checksum::NATIVE, vec![seqno as u8; bytes].into()))
}

fn ok(seqno: i64, nodes: usize) -> PipelineAck {
    PipelineAck { seqno, statuses: vec![StatusProto::Success; nodes], downstream_ns: 0 }
}

/// The test's end of a pipeline that was set up.
struct Taken {
    stream: TcpStream,
    packets: PacketReader,
    request: OpWriteBlockProto,
}

impl Taken {
    async fn accept(listener: &TcpListener) -> Self {
        let (mut stream, _) = listener.accept().await.unwrap();
        let Some(Request::WriteBlock(request)) = op::read_request(&mut stream).await.unwrap()
        else {
            panic!("expected a write")
        };
        let mut reply = op::response(StatusProto::Success);
        reply.first_bad_link = Some(String::new());
        stream.write_all(&op::encode_delimited(&reply)).await.unwrap();
        Self { stream, packets: PacketReader::new(), request: *request }
    }

    async fn packet(&mut self) -> Packet {
        self.packets.next(&mut self.stream).await.unwrap()
    }

    async fn ack(&mut self, ack: &PipelineAck) {
        self.stream.write_all(&ack.encode()).await.unwrap();
    }
}

async fn opened(first: &First) -> (BlockWriter, Taken) {
    let (writer, taken) =
        tokio::join!(BlockWriter::open(&first.spec, &TIMEOUTS), Taken::accept(&first.listener));
    (writer.unwrap(), taken)
}

#[tokio::test]
async fn packets_arrive_in_order_and_acks_empty_the_window() {
    let first = first_of(3).await;
    let (mut writer, mut taken) = opened(&first).await;
    assert_eq!(taken.request.targets.len(), 2, "the receiver is not among the targets");
    assert_eq!(taken.request.targets[0].id.datanode_uuid, "dn-1");
    let serve = async {
        for seqno in 0..20 {
            let packet = taken.packet().await;
            packet.verify(Checksum::NATIVE, "blk_5").unwrap();
            assert_eq!((packet.header().seqno, packet.data().len()), (seqno, 3072));
            taken.ack(&ok(seqno, 3)).await;
        }
    };
    let write = async {
        for seqno in 0..20 {
            writer.send(&mut packet(seqno, 3072)).await.unwrap();
        }
        writer.drain().await.unwrap();
    };
    tokio::join!(serve, write);
    assert_eq!(writer.acked_bytes().await, 61_440);
    assert!(writer.into_unacked().await.is_empty());
}

#[tokio::test]
async fn a_set_up_that_fails_names_the_bad_link() {
    let first = first_of(3).await;
    let refuse = async {
        let (mut stream, _) = first.listener.accept().await.unwrap();
        op::read_request(&mut stream).await.unwrap();
        let mut reply = op::response(StatusProto::Error);
        reply.first_bad_link = Some("127.0.0.1:2".into());
        stream.write_all(&op::encode_delimited(&reply)).await.unwrap();
    };
    let (failure, ()) = tokio::join!(BlockWriter::open(&first.spec, &TIMEOUTS), refuse);
    assert_eq!(failure.unwrap_err().node, 2);
}

#[tokio::test]
async fn an_unreachable_or_silent_first_node_is_to_blame_itself() {
    let first = first_of(2).await;
    // Nobody accepts: the connection stands, and no reply comes.
    let failure = BlockWriter::open(&first.spec, &TIMEOUTS).await.unwrap_err();
    assert_eq!((failure.node, failure.error.code), (0, Code::Timeout));
    let spec = first.spec.clone();
    drop(first);
    let failure = BlockWriter::open(&spec, &TIMEOUTS).await.unwrap_err();
    assert_eq!((failure.node, failure.error.code), (0, Code::Unavailable));
}

#[tokio::test]
async fn the_window_holds_the_writer_back() {
    let first = first_of(1).await;
    let (mut writer, mut taken) = opened(&first).await;
    for seqno in 0..4 {
        writer.send(&mut packet(seqno, 100)).await.unwrap();
    }
    let mut fifth = packet(4, 100);
    let blocked = tokio::time::timeout(Duration::from_millis(50), writer.send(&mut fifth)).await;
    assert!(blocked.is_err(), "four packets are in flight");
    assert!(fifth.is_some(), "a dropped future leaves the packet with the caller");
    taken.packet().await;
    taken.ack(&ok(0, 1)).await;
    writer.send(&mut fifth).await.unwrap();
    assert!(fifth.is_none());
}

#[tokio::test]
async fn a_failing_ack_names_its_node_and_unacked_packets_come_back() {
    let first = first_of(3).await;
    let (mut writer, mut taken) = opened(&first).await;
    for seqno in 0..4 {
        writer.send(&mut packet(seqno, 100)).await.unwrap();
    }
    taken.packet().await;
    taken.ack(&ok(0, 3)).await;
    let mut bad = ok(1, 3);
    bad.statuses[2] = StatusProto::Error;
    taken.ack(&bad).await;
    let failure = writer.drain().await.unwrap_err();
    assert_eq!(failure.node, 2);
    let mut fifth = packet(4, 100);
    assert!(writer.send(&mut fifth).await.is_err(), "a failed pipeline takes nothing");
    assert!(fifth.is_some());
    assert_eq!(writer.acked_bytes().await, 100);
    let left: Vec<i64> = writer.into_unacked().await.iter().map(|p| p.header.seqno).collect();
    assert_eq!(left, [1, 2, 3]);
}

#[tokio::test]
async fn a_first_node_that_dies_is_to_blame() {
    let first = first_of(2).await;
    let (mut writer, mut taken) = opened(&first).await;
    writer.send(&mut packet(0, 100)).await.unwrap();
    taken.packet().await;
    drop(taken);
    let failure = writer.drain().await.unwrap_err();
    assert_eq!((failure.node, failure.error.code), (0, Code::Unavailable));
    assert_eq!(writer.into_unacked().await.len(), 1);
}

#[tokio::test]
async fn an_ack_that_names_the_culprit_is_heard_though_the_connection_breaks() {
    let first = first_of(3).await;
    let (mut writer, mut taken) = opened(&first).await;
    let mut bad = ok(0, 3);
    bad.statuses[1] = StatusProto::Error;
    // It says so, and closes without reading: what the writer still sends is answered with a reset.
    taken.ack(&bad).await;
    drop(taken);
    let mut failure = None;
    for seqno in 0..4 {
        if let Err(found) = writer.send(&mut packet(seqno, 1 << 20)).await {
            failure = Some(found);
            break;
        }
    }
    let failure = match failure {
        Some(failure) => failure,
        None => writer.drain().await.unwrap_err(),
    };
    assert_eq!(failure.node, 1);
}

#[tokio::test]
async fn a_stalled_pipeline_times_out() {
    let first = first_of(1).await;
    let (mut writer, _taken) = opened(&first).await;
    writer.send(&mut packet(0, 100)).await.unwrap();
    let failure = writer.drain().await.unwrap_err();
    assert_eq!(failure.error.code, Code::Timeout);
    assert!(failure.error.message.contains("400 ms"), "{}", failure.error);
}

#[tokio::test]
async fn a_wrong_sequence_number_or_garbage_ends_the_pipeline() {
    for bytes in [ok(7, 1).encode(), bytes::Bytes::from_static(&[0xff; 32])] {
        let first = first_of(1).await;
        let (mut writer, mut taken) = opened(&first).await;
        writer.send(&mut packet(0, 100)).await.unwrap();
        taken.stream.write_all(&bytes).await.unwrap();
        let failure = writer.drain().await.unwrap_err();
        assert_eq!(failure.node, 0);
        assert_eq!(writer.into_unacked().await.len(), 1);
    }
}

#[tokio::test]
async fn an_idle_pipeline_is_kept_alive_by_heartbeats() {
    let first = first_of(1).await;
    let timeouts = Timeouts { heartbeat_ms: 20, ..TIMEOUTS };
    let (writer, mut taken) =
        tokio::join!(BlockWriter::open(&first.spec, &timeouts), Taken::accept(&first.listener));
    let mut writer = writer.unwrap();
    for _ in 0..3 {
        let packet = taken.packet().await;
        assert_eq!(packet.header().seqno, crate::HEARTBEAT_SEQNO);
        assert_eq!(packet.data(), b"");
        taken.ack(&ok(crate::HEARTBEAT_SEQNO, 1)).await;
    }
    let serve = async {
        loop {
            let seqno = taken.packet().await.header().seqno;
            taken.ack(&ok(seqno, 1)).await;
            if seqno == 0 {
                break;
            }
        }
    };
    let write = async {
        writer.send(&mut packet(0, 10)).await.unwrap();
        writer.drain().await.unwrap();
    };
    tokio::join!(serve, write);
}

/// Writes an empty block: the last packet alone.
async fn empty_block(first: &First, pool: &Arc<Pool>) {
    let mut writer = BlockWriter::open_pooled(&first.spec, pool).await.unwrap();
    let header =
        PacketHeader { offset_in_block: 0, seqno: 0, last: true, data_len: 0, sync: false };
    let mut last = Some(SealedPacket::with_sums(header, &[], bytes::Bytes::new()));
    writer.send(&mut last).await.unwrap();
    writer.drain().await.unwrap();
    writer.end();
}

#[tokio::test]
async fn an_idle_connection_is_used_again_and_a_dead_one_replaced() {
    let first = first_of(1).await;
    let pool = Arc::new(Pool::new(TIMEOUTS, 4, 10_000));
    let serve = async {
        let mut taken = Taken::accept(&first.listener).await;
        taken.packet().await;
        taken.ack(&ok(0, 1)).await;
        // The second block comes on the same connection; it dies before the request is answered.
        assert!(op::read_request(&mut taken.stream).await.unwrap().is_some());
        drop(taken);
        let mut taken = Taken::accept(&first.listener).await;
        taken.packet().await;
        taken.ack(&ok(0, 1)).await;
    };
    let write = async {
        empty_block(&first, &pool).await;
        assert_eq!(pool.idle_count(), 1);
        empty_block(&first, &pool).await;
    };
    tokio::join!(serve, write);
}
