//! Readers who hang up: those who may have met damage make the DataNode look for it, as far as they may have read.

use proto::granary::ReplicaState;

use super::*;
use crate::changes::Due;
use crate::layout::Folder;

/// How a reader leaves.
enum Leave {
    /// Without a word, after so many bytes.
    After(usize),
    /// With this word, after everything.
    Saying(StatusProto),
}

/// Asks for `length` bytes from `offset` as HDFS's client does, and leaves.
async fn read_and_leave(node: &Node, offset: u64, length: u64, leave: Leave) {
    let mut stream = node.connect().await;
    let request = OpReadBlockProto {
        header: op::client_header("BP", &block(1001, 0), "DFSClient_X"),
        offset,
        len: length,
        send_checksums: Some(true),
        caching_strategy: None,
    };
    stream.write_all(&Request::ReadBlock(request).encode()).await.unwrap();
    let _reply: BlockOpResponseProto = op::read_response(&mut stream).await.unwrap();
    let (mut packets, mut got) = (PacketReader::new(), 0);
    loop {
        let packet = packets.next(&mut stream).await.unwrap();
        got += packet.data().len();
        match leave {
            Leave::After(enough) if got >= enough => return,
            _ if packet.header().last => break,
            _ => {}
        }
    }
    if let Leave::Saying(status) = leave {
        let status = ClientReadStatusProto { status: status as i32 };
        stream.write_all(&status.encode_length_delimited_to_vec()).await.unwrap();
        // The answer to another question: what the status led to is over.
        assert!(!checksum(&mut stream, 512).await.is_empty());
    }
}

/// Whether the NameNode is told of damage within a moment.
async fn is_told(node: &Node, wait_ms: u64) -> bool {
    let wait = std::time::Duration::from_millis(wait_ms);
    let Ok(due) = tokio::time::timeout(wait, node.handle.store().changes().next(1000)).await else {
        return false;
    };
    let Due::Changes(changes) = due else { panic!("no report is owed") };
    changes.iter().any(|change| change.state() == ReplicaState::Corrupt)
}

/// Waits until so many replicas under suspicion were verified.
async fn looked_at(node: &Node, suspicions: u64) {
    use std::sync::atomic::Ordering::Relaxed;
    let counters = node.handle.scrubber().counters();
    wait_until("the scrubber has looked", || {
        counters.replicas.load(Relaxed) + counters.corrupt.load(Relaxed) == suspicions
    })
    .await;
}

fn flip(node: &Node, at: usize) {
    let path = Folder::of(BlockId(7)).path(node.folder.path()).join("blk_7");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
}

/// The bug this guards against: HDFS's client hangs up at a wrong checksum and tells the NameNode only if another
/// replica was good; a block whose every replica was damaged stayed healthy in every report.
#[tokio::test]
async fn a_reader_who_hangs_up_at_damage_or_tells_of_it_makes_the_namenode_know() {
    let node = Node::start().await;
    let data = pattern(3, 3_000_000);
    write_whole(&[&node], &data, 64 << 10).await;
    is_told(&node, 20).await;
    let mut suspicions = 0;
    for leave in [
        Leave::After(1_500_000),
        Leave::After(3_000_000),
        Leave::Saying(StatusProto::ErrorChecksum),
        Leave::Saying(StatusProto::Error),
    ] {
        flip(&node, 1_400_000);
        suspicions += u64::from(matches!(leave, Leave::Saying(StatusProto::ErrorChecksum)));
        read_and_leave(&node, 0, 3_000_000, leave).await;
        looked_at(&node, suspicions).await;
        assert!(is_told(&node, 10_000).await);
        // Mended: nothing is told any more.
        flip(&node, 1_400_000);
        read_and_leave(&node, 0, 3_000_000, Leave::After(1)).await;
        read_and_leave(&node, 0, 3_000_000, Leave::Saying(StatusProto::ErrorChecksum)).await;
        suspicions += 1;
        looked_at(&node, suspicions).await;
        assert!(!is_told(&node, 20).await);
    }
    node.handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_a_reader_liked_or_was_never_sent_is_not_looked_at() {
    let node = Node::start().await;
    let data = pattern(4, 300_000);
    write_whole(&[&node], &data, 64 << 10).await;
    is_told(&node, 20).await;
    flip(&node, 200_000);
    read_and_leave(&node, 0, 300_000, Leave::Saying(StatusProto::ChecksumOk)).await;
    read_and_leave(&node, 0, 100_000, Leave::After(1)).await;
    assert!(!is_told(&node, 200).await);
    node.handle.shutdown().await.unwrap();
}
