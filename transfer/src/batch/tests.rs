use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::checksum::Checksum;
use crate::packet::{PacketHeader, SealedPacket};
use proto::limits;

fn frame(seqno: i64, bytes: usize, last: bool, sync: bool) -> Vec<u8> {
    let header = PacketHeader { offset_in_block: 0, seqno, last, data_len: 0, sync };
    let sealed = SealedPacket::new(header, Checksum::NATIVE, vec![seqno as u8; bytes].into());
    [&sealed.head[..], &sealed.data].concat()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(future)
}

fn seqnos(batch: &Batch) -> Vec<i64> {
    batch.packets.iter().map(|packet| packet.header().seqno).collect()
}

/// All batches until the end of the stream, and what the end was.
async fn all(reader: &mut BatchReader, mut stream: &[u8]) -> (Vec<Batch>, Error) {
    let mut batches = Vec::new();
    loop {
        match reader.next(&mut stream).await {
            Ok(batch) => batches.push(batch),
            Err(error) => return (batches, error),
        }
    }
}

#[test]
fn packets_that_came_together_are_one_batch_whose_frames_can_be_passed_on() {
    let frames: Vec<_> = (0..20).map(|seqno| frame(seqno, 600, false, false)).collect();
    let (batches, end) = block_on(all(&mut BatchReader::new(), &frames.concat()));
    assert_eq!(batches.len(), 1);
    assert_eq!(seqnos(&batches[0]), (0..20).collect::<Vec<_>>());
    assert_eq!(batches[0].frames, frames.concat());
    assert_eq!(end.code, Code::Unavailable);
}

#[test]
fn a_sync_or_the_last_packet_ends_its_batch_and_what_follows_is_told() {
    let frames = [
        frame(1, 10, false, false),
        frame(2, 10, false, true),
        frame(3, 10, false, false),
        frame(4, 0, true, false),
        vec![1],
    ];
    let mut reader = BatchReader::new();
    let mut stream = &frames.concat()[..];
    let mut next = || block_on(reader.next(&mut stream)).unwrap();
    assert_eq!(seqnos(&next()), [1, 2]);
    assert_eq!(seqnos(&next()), [3, 4]);
    assert!(reader.has_rest());
}

#[test]
fn a_broken_packet_is_told_after_those_before_it() {
    for break_at in [0, 4, 6, 30] {
        let mut broken = frame(3, 100, false, false);
        broken[break_at] = 0xff;
        let bytes = [frame(1, 100, false, false), frame(2, 100, false, false), broken].concat();
        let (batches, error) = block_on(all(&mut BatchReader::new(), &bytes));
        assert_eq!(batches.len(), 1, "{break_at}");
        assert_eq!(seqnos(&batches[0]), [1, 2]);
        assert_eq!(error.code, Code::Incompatible, "{break_at}: {error}");
    }
}

#[test]
fn an_end_within_a_packet_is_told_after_those_before_it() {
    let whole = [frame(1, 100, false, false), frame(2, 100, false, false)].concat();
    for cut in 1..frame(2, 100, false, false).len() {
        let (batches, error) = block_on(all(&mut BatchReader::new(), &whole[..whole.len() - cut]));
        assert_eq!(batches.iter().map(seqnos).collect::<Vec<_>>(), [[1]], "{cut}");
        assert_eq!(error.code, Code::Unavailable);
    }
}

/// A writer that flushes waits for the ack of a packet that it has sent to the end.
#[tokio::test]
async fn a_whole_packet_is_not_held_back_and_one_before_a_torn_one_only_for_a_moment() {
    /// What is there without waiting.
    async fn now(reader: &mut BatchReader, stream: &mut (impl AsyncRead + Unpin)) -> Vec<i64> {
        tokio::select! {
            biased;
            batch = reader.next(stream) => seqnos(&batch.unwrap()),
            () = std::future::ready(()) => Vec::new(),
        }
    }
    let (mut sender, mut stream) = tokio::io::duplex(1 << 20);
    let mut reader = BatchReader::new();
    sender.write_all(&frame(1, 100, false, false)).await.unwrap();
    assert_eq!(now(&mut reader, &mut stream).await, [1]);
    let (two, three) = (frame(2, 100, false, false), frame(3, 100, false, false));
    sender.write_all(&[&two[..], &three[..50]].concat()).await.unwrap();
    assert!(now(&mut reader, &mut stream).await.is_empty());
    assert_eq!(seqnos(&reader.next(&mut stream).await.unwrap()), [2]);
    sender.write_all(&three[50..]).await.unwrap();
    assert_eq!(now(&mut reader, &mut stream).await, [3]);
}

#[test]
fn buffers_grow_with_what_comes_and_not_with_what_is_announced() {
    let mut reader = BatchReader::new();
    let mut huge = limits::PACKET_BYTES_MAX.to_be_bytes().to_vec();
    huge.extend([0, 25]);
    huge.extend([0; 25]);
    let (batches, error) = block_on(all(&mut reader, &huge));
    assert_eq!((batches.len(), error.code), (0, Code::Unavailable));
    assert!(reader.buffer.capacity() <= 2 * TRUSTED_BYTES);
    let frames: Vec<_> = (0..100).map(|seqno| frame(seqno, 64_512, false, false)).collect();
    let (batches, _) = block_on(all(&mut BatchReader::new(), &frames.concat()));
    let counts: Vec<usize> = batches.iter().map(|batch| batch.packets.len()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 100);
    assert_eq!((counts[0], counts.iter().max()), (1, Some(&4)), "{counts:?}");
}

#[test]
fn no_batch_has_more_packets_than_its_bound() {
    let frames: Vec<_> = (0..200).map(|seqno| frame(seqno, 1, false, false)).collect();
    let (batches, _) = block_on(all(&mut BatchReader::new(), &frames.concat()));
    let counts: Vec<usize> = batches.iter().map(|batch| batch.packets.len()).collect();
    assert_eq!(counts, [PACKETS_MAX, PACKETS_MAX, PACKETS_MAX, 200 - 3 * PACKETS_MAX]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn however_the_bytes_come_all_packets_arrive_in_order(
        sizes in proptest::collection::vec(prop_oneof![0usize..2000, 60_000usize..200_000], 1..8),
        step in 1usize..100_000,
    ) {
        let frames: Vec<_> = (0..).zip(&sizes)
            .map(|(seqno, &bytes)| frame(seqno, bytes, false, seqno % 5 == 4))
            .collect();
        let sent = frames.concat();
        let step = step.max(sent.len() / 1_000);
        let (batches, end) = block_on(async {
            let (mut sender, mut stream) = tokio::io::duplex(step);
            let bytes = sent.clone();
            let sending = tokio::spawn(async move { sender.write_all(&bytes).await.unwrap() });
            let mut reader = BatchReader::new();
            let mut batches = Vec::new();
            let end = loop {
                match reader.next(&mut stream).await {
                    Ok(batch) => batches.push(batch),
                    Err(error) => break error,
                }
            };
            sending.await.unwrap();
            (batches, end)
        });
        prop_assert_eq!(end.code, Code::Unavailable);
        let got: Vec<u8> = batches.iter().flat_map(|batch| batch.frames.to_vec()).collect();
        prop_assert_eq!(got, sent);
        let order: Vec<i64> = batches.iter().flat_map(seqnos).collect();
        prop_assert_eq!(order, (0..sizes.len() as i64).collect::<Vec<_>>());
        for packet in batches.iter().flat_map(|batch| &batch.packets) {
            packet.verify(Checksum::NATIVE, "blk_1").unwrap();
        }
    }
}
