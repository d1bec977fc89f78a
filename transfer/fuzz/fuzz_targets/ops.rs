//! Any bytes as requests: no panic, and what decodes encodes to what decodes the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::granary::{Block, DatanodeAddress};
use proto::hadoop::hdfs::op_write_block_proto::BlockConstructionStage;
use proto::hadoop::hdfs::{
    OpBlockChecksumProto, OpReadBlockProto, OpRequestShortCircuitAccessProto, OpTransferBlockProto,
    OpWriteBlockProto,
};
use transfer::connection::datanode_info;
use transfer::op::{self, Request};
use transfer::{Checksum, stripe};

/// One request of each kind, and all of them behind each other.
fn seeds() -> Vec<Vec<u8>> {
    let block = Block { id: 1_073_741_825, generation_stamp: 1_001, length: 1 << 20 };
    let group = Block { id: stripe::unit_block(1 << 63, 3), ..block };
    let header = |block| op::client_header("BP-1", block, "DFSClient_1");
    let target = datanode_info(&DatanodeAddress {
        uuid: "6f2ad2a4".into(),
        host: "127.0.0.1".into(),
        data_port: 9_866,
        ..DatanodeAddress::default()
    });
    let read = Request::ReadBlock(OpReadBlockProto {
        header: header(&group),
        offset: 3,
        len: 4,
        send_checksums: Some(false),
        caching_strategy: None,
    });
    let write = Request::WriteBlock(Box::new(OpWriteBlockProto {
        header: header(&block),
        targets: vec![target.clone(); 2],
        stage: BlockConstructionStage::PipelineSetupCreate as i32,
        pipeline_size: 3,
        latest_generation_stamp: 1_001,
        requested_checksum: Checksum::NATIVE.to_proto(),
        target_storage_types: vec![1, 1],
        storage_id: Some("DS-1".into()),
        ..OpWriteBlockProto::default()
    }));
    let transfer = Request::TransferBlock(Box::new(OpTransferBlockProto {
        header: header(&block),
        targets: vec![target],
        target_storage_types: vec![1],
        target_storage_ids: vec!["DS-1".into()],
    }));
    let checksum = Request::BlockChecksum(OpBlockChecksumProto {
        header: op::base_header("BP-1", &block),
        block_checksum_options: None,
    });
    let files = Request::ShortCircuitFds(OpRequestShortCircuitAccessProto {
        header: op::base_header("BP-1", &block),
        max_version: 1,
        slot_id: None,
        supports_receipt_verification: None,
    });
    let requests = [read, write, transfer, checksum, files, Request::Unknown(127)];
    let mut each: Vec<Vec<u8>> = requests.iter().map(|ask| ask.encode().to_vec()).collect();
    each.push(each.concat());
    each
}

fuzz_target!(init: fuzz::start(seeds), |bytes: &[u8]| {
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
    });
});
