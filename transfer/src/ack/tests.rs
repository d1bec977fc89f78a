//! Tests of acks: golden bytes, damage, and the window against a model.

use super::*;
use crate::checksum::Checksum;
use crate::packet::PacketHeader;
use proptest::prelude::*;

fn packet(seqno: i64, offset: u64, bytes: usize) -> SealedPacket {
    let header =
        PacketHeader { offset_in_block: offset, seqno, last: bytes == 0, data_len: 0, sync: false };
    SealedPacket::new(header, Checksum::NATIVE, vec![0; bytes].into())
}

fn ok(seqno: i64, nodes: usize) -> PipelineAck {
    PipelineAck { seqno, statuses: vec![StatusProto::Success; nodes], downstream_ns: 0 }
}

#[test]
fn an_ack_has_the_bytes_of_the_protocol() {
    let ack = PipelineAck {
        seqno: 3,
        statuses: vec![StatusProto::Success, StatusProto::Error],
        downstream_ns: 5,
    };
    #[rustfmt::skip]
    let golden = [
        12,                // length
        0x08, 6,           // field 1: sequence number 3, zigzag
        0x10, 0, 0x10, 1,  // field 2, twice: SUCCESS, ERROR
        0x18, 5,           // field 3: nanoseconds
        0x22, 2, 0, 1,     // field 4: flags, packed
    ];
    assert_eq!(golden.len(), 13);
    assert_eq!(ack.encode()[..], golden);
    let mut buffer = BytesMut::from(&golden[..]);
    assert_eq!(PipelineAck::decode(&mut buffer).unwrap(), Some(ack));
    assert!(buffer.is_empty());
}

#[test]
fn the_status_comes_from_the_flag_when_there_is_one() {
    // reply SUCCESS, flag ERROR (1) with the SLOW bit set
    let mut buffer = BytesMut::from(&[8, 0x08, 2, 0x10, 0, 0x22, 2, 0x81, 0x01][..]);
    let ack = PipelineAck::decode(&mut buffer).unwrap().unwrap();
    assert_eq!(ack.statuses, [StatusProto::Error]);
    // reply alone
    let mut buffer = BytesMut::from(&[4, 0x08, 2, 0x10, 1][..]);
    let ack = PipelineAck::decode(&mut buffer).unwrap().unwrap();
    assert_eq!(ack.statuses, [StatusProto::Error]);
}

#[test]
fn a_cut_ack_waits_for_more_and_a_damaged_one_never_panics() {
    let whole = ok(1234, 3).encode();
    for length in 0..whole.len() {
        let mut cut = BytesMut::from(&whole[..length]);
        assert_eq!(PipelineAck::decode(&mut cut).unwrap(), None, "{length}");
        assert_eq!(cut.len(), length, "nothing was taken");
    }
    for bit in 0..whole.len() * 8 {
        let mut bytes = BytesMut::from(&whole[..]);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let _either = PipelineAck::decode(&mut bytes).is_ok();
    }
    let mut huge = BytesMut::from(&[0xff, 0xff, 0xff, 0x7f][..]);
    assert!(PipelineAck::decode(&mut huge).is_err());
}

#[test]
fn upstream_puts_the_own_status_first() {
    let mine = PipelineAck::upstream(StatusProto::Success, &ok(9, 2));
    assert_eq!(mine, ok(9, 3));
}

#[test]
fn an_error_names_the_first_node_that_failed_and_acknowledges_nothing() {
    let mut window = InFlight::new(3, 4, 0);
    window.sent(packet(1, 0, 100));
    let mut bad = ok(1, 3);
    bad.statuses[1] = StatusProto::ErrorChecksum;
    bad.statuses[2] = StatusProto::Error;
    let failure = window.acked(&bad).unwrap_err();
    assert_eq!(failure.node, Some(1));
    assert_eq!(window.acked_bytes(), 0);
    assert_eq!(window.take_unacked().len(), 1);
}

#[test]
fn acks_out_of_order_or_of_another_length_are_refused_without_blame() {
    let mut window = InFlight::new(2, 4, 0);
    assert_eq!(window.acked(&ok(1, 2)).unwrap_err().node, None);
    window.sent(packet(1, 0, 10));
    window.sent(packet(2, 10, 10));
    for bad in [ok(2, 2), ok(0, 2), ok(1, 1), ok(1, 3)] {
        assert_eq!(window.acked(&bad).unwrap_err().node, None);
    }
    assert_eq!(window.acked(&ok(HEARTBEAT_SEQNO, 2)), Ok(()));
    assert_eq!(window.acked(&ok(1, 2)), Ok(()));
    assert_eq!(window.acked_bytes(), 10);
}

proptest! {
    #[test]
    fn what_is_acked_and_what_is_left_make_up_all_that_was_sent(
        sizes in proptest::collection::vec(1usize..2000, 1..40),
        window_max in 1usize..6,
        steps in proptest::collection::vec(any::<bool>(), 0..200),
    ) {
        let mut window = InFlight::new(3, window_max, 0);
        let (mut sent, mut acked, mut offset) = (0usize, 0usize, 0u64);
        for send in steps {
            if send && sent < sizes.len() && window.has_room() {
                window.sent(packet(sent as i64, offset, sizes[sent]));
                offset += sizes[sent] as u64;
                sent += 1;
            } else if !send && acked < sent {
                window.acked(&ok(acked as i64, 3)).unwrap();
                acked += 1;
            }
            prop_assert!(sent - acked <= window_max);
            let safe: usize = sizes[..acked].iter().sum();
            prop_assert_eq!(window.acked_bytes(), safe as u64);
            prop_assert_eq!(window.is_empty(), sent == acked);
        }
        let left: Vec<i64> = window.take_unacked().iter().map(|p| p.header.seqno).collect();
        prop_assert_eq!(left, (acked as i64..sent as i64).collect::<Vec<_>>());
    }
}
