//! Any bytes as requests and as replies: no panic, and what decodes encodes to what decodes the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use transfer::op::{self, Request};

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut stream = bytes;
        while let Ok(Some(request)) = op::read_request(&mut stream).await {
            if matches!(request, Request::Unknown(_)) {
                break;
            }
            let encoded = request.encode();
            let again = op::read_request(&mut &encoded[..]).await.expect("its own encoding");
            assert_eq!(again, Some(request));
        }
        let mut stream = bytes;
        while let Ok(reply) = op::read_response(&mut stream).await {
            drop(op::check(&reply));
            if let Some(info) = &reply.read_op_checksum_info {
                drop(transfer::Checksum::from_proto(&info.checksum));
            }
        }
    });
});
