//! Any bytes as a stream of packets: no panic, nothing beyond the bounds, and what decodes encodes to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use transfer::{Checksum, ChecksumKind, PacketHeader, PacketReader, SealedPacket};

/// The packets of a short block: whole chunks, a part of one under another checksum, a heartbeat, the last one.
fn seeds() -> Vec<Vec<u8>> {
    let header = |offset_in_block, seqno, last| PacketHeader {
        offset_in_block,
        seqno,
        last,
        data_len: 0,
        sync: last,
    };
    let crc32 = Checksum::new(ChecksumKind::Crc32, 512).expect("a legal checksum");
    let packets = [
        SealedPacket::new(header(0, 0, false), Checksum::NATIVE, vec![7; 1_024].into()),
        SealedPacket::new(header(1_024, 1, false), crc32, vec![8; 100].into()),
        SealedPacket::heartbeat(),
        SealedPacket::new(header(1_124, 2, true), Checksum::NATIVE, Vec::new().into()),
    ];
    let mut each: Vec<Vec<u8>> =
        packets.iter().map(|packet| [&packet.head[..], &packet.data].concat()).collect();
    each.push(each.concat());
    each
}

fuzz_target!(init: fuzz::start(seeds), |bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (mut packets, mut stream) = (PacketReader::new(), bytes);
        while let Ok(packet) = packets.next(&mut stream).await {
            let header = *packet.header();
            assert_eq!(packet.data().len(), header.data_len as usize);
            assert!(packet.frame().len() <= (16 << 20) + 512);
            for (kind, chunk) in [(ChecksumKind::Crc32c, 512), (ChecksumKind::Crc32, 1), (ChecksumKind::Null, 7)] {
                let checksum = Checksum::new(kind, chunk).expect("a legal checksum");
                // Whatever it says of these bytes, it says so without a panic.
                drop(packet.verify(checksum, "packet"));
            }
            let again = SealedPacket::with_sums(header, packet.sums(), packet.data_bytes());
            let frame = [&again.head[..], &again.data].concat();
            let decoded = transfer::Packet::decode(frame.into()).expect("its own encoding");
            assert_eq!(decoded.header(), packet.header());
            assert_eq!((decoded.sums(), decoded.data()), (packet.sums(), packet.data()));
        }
    });
});
