//! Any bytes as a stream of packets: no panic, nothing beyond the bounds, and what decodes encodes to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use transfer::{Checksum, ChecksumKind, PacketReader, SealedPacket};

fuzz_target!(|bytes: &[u8]| {
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
