//! Tests of packets: golden bytes, damage at each offset, truncation at each length, building from slices.

use super::*;
use proptest::prelude::*;

fn header(offset: u64, seqno: i64) -> PacketHeader {
    PacketHeader { offset_in_block: offset, seqno, last: false, data_len: 0, sync: false }
}

fn frame(packet: &SealedPacket) -> Vec<u8> {
    [&packet.head[..], &packet.data[..]].concat()
}

#[test]
fn a_packet_has_the_bytes_of_the_protocol() {
    let sealed =
        SealedPacket::new(header(0x0102, 7), Checksum::NATIVE, Bytes::from_static(b"123456789"));
    #[rustfmt::skip]
    let golden = [
        0, 0, 0, 17,                      // plen = 4 + 4 of checksums + 9 of data
        0, 25,                            // hlen
        0x09, 2, 1, 0, 0, 0, 0, 0, 0,     // field 1: offset, little-endian
        0x11, 7, 0, 0, 0, 0, 0, 0, 0,     // field 2: sequence number
        0x18, 0,                          // field 3: last packet
        0x25, 9, 0, 0, 0,                 // field 4: data bytes
        0xe3, 0x06, 0x92, 0x83,           // CRC32C of the chunk, big-endian
        b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'8', b'9',
    ];
    assert_eq!(frame(&sealed), golden);
    let packet = Packet::decode(Bytes::copy_from_slice(&golden)).unwrap();
    assert_eq!(*packet.header(), PacketHeader { data_len: 9, ..header(0x0102, 7) });
    assert_eq!((packet.sums().len(), packet.data()), (4, &b"123456789"[..]));
}

#[test]
fn a_synced_packet_has_a_header_of_27_bytes() {
    let sealed = SealedPacket::new(
        PacketHeader { sync: true, ..header(0, 1) },
        Checksum::NATIVE,
        Bytes::from_static(b"x"),
    );
    assert_eq!(sealed.head[4..6], [0, 27]);
    assert_eq!(sealed.head[6 + 25..6 + 27], [0x28, 1]);
    assert!(Packet::decode(frame(&sealed).into()).unwrap().header().sync);
}

#[test]
fn a_packet_cut_at_any_length_is_refused() {
    let whole = frame(&SealedPacket::new(header(0, 1), Checksum::NATIVE, vec![7; 1000].into()));
    for length in 0..whole.len() {
        assert!(Packet::decode(Bytes::copy_from_slice(&whole[..length])).is_err(), "{length}");
    }
}

#[test]
fn a_flipped_bit_changes_no_data_unseen() {
    let sealed = SealedPacket::new(header(0, 1), Checksum::NATIVE, vec![7; 700].into());
    let whole = frame(&sealed);
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(packet) = Packet::decode(bytes.into()) else { continue };
        if packet.verify(Checksum::NATIVE, "blk_1").is_ok() {
            assert_eq!(packet.data(), sealed.data, "bit {bit}");
        }
    }
}

#[test]
fn a_damaged_chunk_is_named_by_its_offset_in_the_block() {
    let sealed = SealedPacket::new(header(4096, 1), Checksum::NATIVE, vec![7; 2000].into());
    let mut bytes = frame(&sealed);
    let at = sealed.head.len() + 1030;
    bytes[at] ^= 1;
    let packet = Packet::decode(bytes.into()).unwrap();
    let error = packet.verify(Checksum::NATIVE, "blk_9").unwrap_err();
    assert_eq!(error.code, Code::Corrupt);
    assert!(error.message.contains("blk_9") && error.message.contains("5120"), "{error}");
}

#[test]
fn lengths_out_of_bounds_are_refused_before_anything_is_allocated() {
    for (plen, hlen) in [(3, 25), (0, 25), (limits::PACKET_BYTES_MAX + 1, 25), (4, 24), (4, 257)] {
        let mut bytes = BytesMut::new();
        bytes.put_u32(plen);
        bytes.put_u16(hlen);
        bytes.put_bytes(0, 25);
        let mut reader = PacketReader::new();
        let error = block_on(reader.next(&mut &bytes[..])).unwrap_err();
        assert_eq!(error.code, Code::Incompatible, "{plen} {hlen}");
        assert!(reader.buffer.capacity() < 2 << 20);
    }
}

#[test]
fn a_reader_does_not_trust_a_large_length_with_memory() {
    let mut bytes = BytesMut::new();
    bytes.put_u32(limits::PACKET_BYTES_MAX);
    bytes.put_u16(25);
    bytes.put_bytes(0, 25);
    let mut reader = PacketReader::new();
    assert_eq!(block_on(reader.next(&mut &bytes[..])).unwrap_err().code, Code::Unavailable);
    assert!(reader.buffer.capacity() <= 2 * TRUSTED_BYTES);
}

#[test]
fn a_reader_takes_no_byte_beyond_the_packet() {
    let one = frame(&SealedPacket::new(header(0, 1), Checksum::NATIVE, vec![1; 600].into()));
    let two = frame(&SealedPacket::new(header(600, 2), Checksum::NATIVE, Bytes::new()));
    let all = [&one[..], &two, b"rest"].concat();
    let mut stream = &all[..];
    let mut reader = PacketReader::new();
    for expected in [1, 2] {
        let packet = block_on(reader.next(&mut stream)).unwrap();
        assert_eq!(packet.header().seqno, expected);
    }
    assert_eq!(stream, b"rest");
}

#[test]
fn a_packet_that_begins_within_a_chunk_takes_only_what_completes_it() {
    let mut builder = PacketBuilder::new(Checksum::NATIVE, 1000, 1 << 20);
    assert_eq!(builder.push(&[5; 100]), 24);
    assert_eq!(builder.end(), 1024);
    let packet = Packet::decode(frame(&builder.seal(3, false)).into()).unwrap();
    packet.verify(Checksum::NATIVE, "blk_1").unwrap();
    let crossing = SealedPacket::new(header(1000, 3), Checksum::NATIVE, vec![5; 100].into());
    let crossing = Packet::decode(frame(&crossing).into()).unwrap();
    assert_eq!(crossing.verify(Checksum::NATIVE, "b").unwrap_err().code, Code::Incompatible);
}

#[test]
fn the_open_chunk_is_what_lies_after_the_last_boundary() {
    let mut builder = PacketBuilder::new(Checksum::NATIVE, 512, 1 << 20);
    assert_eq!(builder.push(&[1; 1024]), 1024);
    assert_eq!(builder.open_chunk(), b"");
    assert_eq!(builder.push(b"tail"), 4);
    assert_eq!(builder.open_chunk(), b"tail");
}

proptest! {
    #[test]
    fn any_bytes_give_a_packet_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(packet) = Packet::decode(bytes.into()) {
            prop_assert_eq!(packet.data().len(), packet.header().data_len as usize);
            let _either = packet.verify(Checksum::NATIVE, "any").is_ok();
        }
    }

    #[test]
    fn a_built_packet_holds_the_bytes_and_their_checksums(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..8),
        max in 1usize..6000,
    ) {
        let mut builder = PacketBuilder::new(Checksum::NATIVE, 0, max);
        let mut expected = Vec::new();
        for piece in &pieces {
            let taken = builder.push(piece);
            expected.extend_from_slice(&piece[..taken]);
            if taken < piece.len() {
                prop_assert_eq!(builder.room(), 0);
                break;
            }
        }
        prop_assert!(expected.len() <= (max / 512).max(1) * 512);
        let packet = Packet::decode(frame(&builder.seal(1, false)).into()).unwrap();
        packet.verify(Checksum::NATIVE, "built").unwrap();
        prop_assert_eq!(packet.data(), &expected[..]);
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
