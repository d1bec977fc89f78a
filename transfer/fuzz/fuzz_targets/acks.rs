//! Any bytes as acks: no panic, and the packets in flight never acknowledge what was not sent.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use transfer::ack::InFlight;
use transfer::{Checksum, PacketHeader, PipelineAck, SealedPacket};

const PACKETS: u64 = 4;
const PACKET_BYTES: u64 = 512;

fn packet(number: u64) -> SealedPacket {
    let header = PacketHeader {
        offset_in_block: number * PACKET_BYTES,
        seqno: number as i64,
        last: false,
        data_len: 0,
        sync: false,
    };
    SealedPacket::new(header, Checksum::NATIVE, Bytes::from(vec![0; PACKET_BYTES as usize]))
}

/// Acks of three nodes for all packets, one of them a failure, and a heartbeat.
fn seeds() -> Vec<Vec<u8>> {
    use proto::hadoop::hdfs::StatusProto::{ErrorChecksum, Success};
    let three = |seqno, last| {
        let downstream = PipelineAck::upstream(Success, &PipelineAck::new(seqno, last));
        PipelineAck::upstream(Success, &downstream).encode().to_vec()
    };
    let good: Vec<Vec<u8>> = (0..PACKETS as i64).map(|seqno| three(seqno, Success)).collect();
    let heartbeat = three(transfer::HEARTBEAT_SEQNO, Success);
    vec![good.concat(), [heartbeat, three(0, Success), three(1, ErrorChecksum)].concat()]
}

fuzz_target!(init: fuzz::start(seeds), |bytes: &[u8]| {
    let mut window = InFlight::new(3, PACKETS as usize, 0);
    (0..PACKETS).for_each(|number| window.sent(packet(number)));
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(ack)) = PipelineAck::decode(&mut buffer) {
        let mut again = BytesMut::from(&ack.encode()[..]);
        let decoded = PipelineAck::decode(&mut again).expect("its own encoding").expect("whole");
        assert_eq!(decoded, ack);
        let upstream = PipelineAck::upstream(proto::hadoop::hdfs::StatusProto::Success, &ack);
        assert_eq!(upstream.first_failure().is_none(), ack.first_failure().is_none());
        if window.acked(&ack).is_err() {
            break;
        }
        assert!(window.acked_bytes() <= PACKETS * PACKET_BYTES);
    }
});
