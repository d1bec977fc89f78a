//! Any bytes as a DataNode's replies: no panic, nothing beyond the bounds, and what decodes encodes to what decodes the
//! same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use proto::hadoop::hdfs::{
    BlockOpResponseProto, OpBlockChecksumResponseProto, ReadOpChecksumInfoProto, StatusProto,
};
use proto::{Code, Error, limits};
use transfer::{Checksum, ChecksumKind, op};

fn seeds() -> Vec<Vec<u8>> {
    let good = op::response(StatusProto::Success);
    let checksum = Checksum::NATIVE.to_proto();
    let read = BlockOpResponseProto {
        read_op_checksum_info: Some(ReadOpChecksumInfoProto { checksum, chunk_offset: 512 }),
        ..good.clone()
    };
    let sum = OpBlockChecksumResponseProto {
        bytes_per_crc: 512,
        crc_per_block: 9,
        block_checksum: vec![7; 16].into(),
        crc_type: Some(ChecksumKind::Crc32c as i32),
        block_checksum_options: None,
    };
    let checksums = BlockOpResponseProto { checksum_response: Some(sum), ..good.clone() };
    let bad_link = BlockOpResponseProto {
        first_bad_link: Some("127.0.0.1:9866".into()),
        ..op::response(StatusProto::Error)
    };
    let refused = op::error_response(&Error::new(Code::NotFound, "blk_5 is not here"));
    let replies = [good, read, checksums, bad_link, refused];
    let mut each: Vec<Vec<u8>> =
        replies.iter().map(|reply| op::encode_delimited(reply).to_vec()).collect();
    each.push(each.concat());
    each
}

fuzz_target!(init: fuzz::start(seeds), |bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut stream = bytes;
        while let Ok(reply) = op::read_response(&mut stream).await {
            assert!(reply.encoded_len() <= 2 * limits::TRANSFER_MESSAGE_BYTES_MAX);
            if let Err(error) = op::check(&reply) {
                let again = op::check(&op::error_response(&error)).expect_err("it is an error");
                assert_eq!((again.code, again.message), (error.code, error.message));
            }
            if let Some(info) = &reply.read_op_checksum_info {
                drop(Checksum::from_proto(&info.checksum));
            }
            let encoded = op::encode_delimited(&reply);
            let decoded = op::read_response(&mut &encoded[..]).await.expect("its own encoding");
            assert_eq!(decoded, reply);
        }
    });
});
