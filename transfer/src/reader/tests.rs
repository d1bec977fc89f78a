//! Tests of reading from one DataNode: a peer in the test speaks the protocol, well or badly.

use std::time::Duration;

use bytes::Bytes;
use proto::hadoop::hdfs::ReadOpChecksumInfoProto;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::connection::Timeouts;
use crate::packet::{PacketHeader, SealedPacket};

/// How the peer misbehaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    FlipDataBit,
    CloseAfterFirstPacket,
    StallAfterFirstPacket,
    SkipAPacket,
    EndEarly,
    WrongChunkOffset,
    NoChecksums,
    Refuse,
    Garbage,
    CloseBeforeReply,
}

const TIMEOUTS: Timeouts =
    Timeouts { connect_ms: 5_000, idle_ms: 400, per_node_ms: 0, heartbeat_ms: 60_000 };
const PACKET: usize = 4096;

fn content() -> Vec<u8> {
    (0..20_000u32).map(|i| (i * 7 % 251) as u8).collect()
}

struct Peers {
    listener: TcpListener,
    peer: Peer,
}

async fn listen() -> Peers {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    Peers { listener, peer: Peer { uuid: "dn".into(), host: "127.0.0.1".into(), port } }
}

fn range(offset: u64, length: u64) -> ReadRange {
    let block = Block { id: 5, generation_stamp: 1001, length: content().len() as u64 };
    ReadRange { pool_id: "BP".into(), client: "test".into(), block, offset, length }
}

fn packet(seqno: i64, offset: u64, data: &[u8], last: bool) -> SealedPacket {
    let header = PacketHeader { offset_in_block: offset, seqno, last, data_len: 0, sync: false };
    SealedPacket::new(header, Checksum::NATIVE, Bytes::copy_from_slice(data))
}

async fn send(stream: &mut TcpStream, packet: &SealedPacket) {
    stream.write_all(&packet.head).await.unwrap();
    stream.write_all(&packet.data).await.unwrap();
}

/// Answers read requests on one connection until the client closes it; gives the number of CHECKSUM_OKs.
async fn serve(mut stream: TcpStream, fault: Fault) -> usize {
    let data = content();
    let mut confirmed = 0;
    while let Ok(Some(Request::ReadBlock(request))) = op::read_request(&mut stream).await {
        match fault {
            Fault::CloseBeforeReply => return confirmed,
            Fault::Garbage => {
                stream.write_all(&[0xff; 64]).await.unwrap();
                return confirmed;
            }
            Fault::Refuse => {
                let error = Error::new(Code::NotFound, "blk_5 is not here");
                let reply = op::encode_delimited(&op::error_response(&error));
                stream.write_all(&reply).await.unwrap();
                continue;
            }
            _ => {}
        }
        let begin = request.offset / 512 * 512;
        let end = (request.offset + request.len).next_multiple_of(512).min(data.len() as u64);
        let mut reply = op::response(StatusProto::Success);
        reply.read_op_checksum_info = Some(ReadOpChecksumInfoProto {
            checksum: match fault {
                Fault::NoChecksums => Checksum::new(ChecksumKind::Null, 512).unwrap().to_proto(),
                _ => Checksum::NATIVE.to_proto(),
            },
            chunk_offset: if fault == Fault::WrongChunkOffset { begin + 512 } else { begin },
        });
        stream.write_all(&op::encode_delimited(&reply)).await.unwrap();
        let mut at = begin;
        for seqno in 0.. {
            let next = (at + PACKET as u64).min(end);
            let bytes = &data[at as usize..next as usize];
            let mut sealed = packet(seqno, at, bytes, false);
            match (fault, seqno) {
                (Fault::CloseAfterFirstPacket, 1) => return confirmed,
                (Fault::StallAfterFirstPacket, 1) => {
                    // Until the client has enough of it.
                    let mut byte = [0; 1];
                    let _closed = tokio::io::AsyncReadExt::read(&mut stream, &mut byte).await;
                    return confirmed;
                }
                (Fault::FlipDataBit, 1) => {
                    let mut bytes = sealed.data.to_vec();
                    bytes[600] ^= 4;
                    sealed.data = bytes.into();
                }
                (Fault::SkipAPacket, 1) => {
                    at = next;
                    continue;
                }
                (Fault::EndEarly, 1) => sealed = packet(seqno, at, b"", true),
                _ => {}
            }
            if tokio::io::AsyncWriteExt::write_all(&mut stream, &sealed.head).await.is_err()
                || stream.write_all(&sealed.data).await.is_err()
            {
                return confirmed; // the client has left
            }
            at = next;
            if at == end {
                break;
            }
        }
        send(&mut stream, &packet(99, end, b"", true)).await;
        let status = op::read_delimited(&mut stream, 100).await;
        confirmed += usize::from(status.is_ok_and(|bytes| bytes[..] == [0x08, 6]));
    }
    confirmed
}

/// Reads a range from a peer with this fault.
async fn read(fault: Fault, offset: u64, length: u64) -> Result<Vec<u8>> {
    let peers = listen().await;
    let pool = Arc::new(Pool::new(TIMEOUTS, 4, 10_000));
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = peers.listener.accept().await.unwrap();
            tokio::spawn(serve(stream, fault));
        }
    });
    let result = collect(&pool, &peers.peer, &range(offset, length)).await;
    server.abort();
    result
}

async fn collect(pool: &Arc<Pool>, peer: &Peer, range: &ReadRange) -> Result<Vec<u8>> {
    let mut reader = BlockReader::open(pool, peer, range).await?;
    let mut all = Vec::new();
    while let Some(bytes) = reader.next().await? {
        all.extend_from_slice(&bytes);
        assert_eq!(reader.position(), range.offset + all.len() as u64);
    }
    Ok(all)
}

#[tokio::test]
async fn any_range_arrives_trimmed_and_whole() {
    let data = content();
    for (offset, length) in
        [(0, 20_000), (0, 1), (511, 2), (512, 512), (4095, 2), (19_999, 1), (1000, 18_500)]
    {
        let bytes = read(Fault::None, offset, length).await.unwrap();
        let expected = &data[offset as usize..(offset + length) as usize];
        assert_eq!(bytes, expected, "{offset}+{length}");
    }
}

#[tokio::test]
async fn each_fault_tells_where_to_go() {
    for (fault, code) in [
        (Fault::FlipDataBit, Code::Corrupt),
        (Fault::CloseAfterFirstPacket, Code::Unavailable),
        (Fault::StallAfterFirstPacket, Code::Timeout),
        (Fault::SkipAPacket, Code::Incompatible),
        (Fault::EndEarly, Code::Corrupt),
        (Fault::WrongChunkOffset, Code::Incompatible),
        (Fault::NoChecksums, Code::Incompatible),
        (Fault::Refuse, Code::NotFound),
        (Fault::Garbage, Code::Incompatible),
        (Fault::CloseBeforeReply, Code::Unavailable),
    ] {
        let error = read(fault, 100, 19_000).await.unwrap_err();
        assert_eq!(error.code, code, "{fault:?}: {error}");
        assert!(error.message.contains("blk_5"), "{fault:?}: {error}");
    }
}

#[tokio::test]
async fn a_damaged_chunk_is_named_with_what_was_expected() {
    let error = read(Fault::FlipDataBit, 0, 20_000).await.unwrap_err();
    // Packet 1 begins at 4096; byte 600 lies in its second chunk.
    assert!(error.message.contains("offset 4608"), "{error}");
}

#[tokio::test]
async fn a_peer_that_nobody_listens_at_is_unavailable() {
    let peers = listen().await;
    drop(peers.listener);
    let pool = Arc::new(Pool::new(TIMEOUTS, 4, 10_000));
    let error = BlockReader::open(&pool, &peers.peer, &range(0, 1)).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
}

#[tokio::test]
async fn one_connection_serves_many_reads_and_each_is_confirmed() {
    let peers = listen().await;
    let pool = Arc::new(Pool::new(TIMEOUTS, 4, 10_000));
    let server = tokio::spawn(async move {
        let (stream, _) = peers.listener.accept().await.unwrap();
        serve(stream, Fault::None).await
    });
    for round in 0..5 {
        let bytes = collect(&pool, &peers.peer, &range(round * 1000, 3000)).await.unwrap();
        assert_eq!(bytes.len(), 3000);
        assert_eq!(pool.idle_count(), 1, "given back after round {round}");
    }
    drop(pool);
    assert_eq!(server.await.unwrap(), 5);
}

#[tokio::test]
async fn an_idle_connection_that_died_is_replaced_unseen() {
    let peers = listen().await;
    let pool = Arc::new(Pool::new(TIMEOUTS, 4, 10_000));
    let listener = peers.listener;
    let server = async {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            // One read each, then the connection is closed.
            let head = op::read_request(&mut stream).await.unwrap();
            assert!(matches!(head, Some(Request::ReadBlock(_))));
            let mut reply = op::response(StatusProto::Success);
            reply.read_op_checksum_info = Some(ReadOpChecksumInfoProto {
                checksum: Checksum::NATIVE.to_proto(),
                chunk_offset: 0,
            });
            stream.write_all(&op::encode_delimited(&reply)).await.unwrap();
            send(&mut stream, &packet(0, 0, &content()[..512], false)).await;
            send(&mut stream, &packet(1, 512, b"", true)).await;
            op::read_delimited(&mut stream, 100).await.unwrap();
        }
    };
    let client = async {
        for _ in 0..2 {
            let bytes = collect(&pool, &peers.peer, &range(0, 512)).await.unwrap();
            assert_eq!(bytes, content()[..512]);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(server, client) })
        .await
        .unwrap();
}

#[tokio::test]
async fn the_pool_is_bounded_in_number_and_age() {
    let peers = listen().await;
    let pool = Pool::new(TIMEOUTS, 2, 60_000);
    let mut streams = Vec::new();
    for _ in 0..4 {
        let connection = Connection::dial(&peers.peer, &TIMEOUTS).await.unwrap();
        streams.push(peers.listener.accept().await.unwrap());
        pool.put(&peers.peer, connection);
    }
    assert_eq!(pool.idle_count(), 2);
    let young = Pool::new(TIMEOUTS, 2, 0);
    young.put(&peers.peer, Connection::dial(&peers.peer, &TIMEOUTS).await.unwrap());
    tokio::time::timeout(Duration::from_secs(5), async {
        while young.get(&peers.peer).await.unwrap().reused {}
    })
    .await
    .unwrap();
    assert_eq!(young.idle_count(), 0);
}
