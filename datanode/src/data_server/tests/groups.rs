//! Checksums of block groups, beside those of the bytes themselves.

use bytes::Bytes;
use md5::{Digest, Md5};
use proto::erasure::Policy;
use proto::granary::Block;
use proto::hadoop::hdfs::{
    BlockChecksumOptionsProto, BlockOpResponseProto, DatanodeInfosProto, ErasureCodingPolicyProto,
    OpBlockGroupChecksumProto,
};
use transfer::connection::{Peer, Pool, Timeouts, datanode_info};
use transfer::op::{self, Request};
use transfer::stripe::Layout;
use transfer::{Checksum, ChecksumKind};

use crate::reconstruct::tests::{GROUP, Node, STAMP, nodes, store_units, units_of};
use crate::testing::pattern;

const MD5_CRC: u32 = 1;
const COMPOSITE: u32 = 2;

async fn ask(
    nodes: &[Node],
    units: &[usize],
    policy: Policy,
    (length, bytes): (u64, u64),
    kind: u32,
) -> BlockOpResponseProto {
    let block = Block { id: GROUP, generation_stamp: STAMP, length };
    let infos = units.iter().map(|&unit| datanode_info(&nodes[unit].address()));
    let request = Request::BlockGroupChecksum(Box::new(OpBlockGroupChecksumProto {
        header: op::base_header("BP", &block),
        datanodes: DatanodeInfosProto { datanodes: infos.collect() },
        block_tokens: Vec::new(),
        ec_policy: ErasureCodingPolicyProto { id: policy.id.into(), ..Default::default() },
        block_indices: units.iter().map(|&unit| unit as u32).collect(),
        requested_num_bytes: bytes,
        block_checksum_options: Some(BlockChecksumOptionsProto {
            block_checksum_type: Some(kind),
            stripe_length: Some(0),
        }),
    }));
    let pool = Pool::new(Timeouts::default(), 0, 0);
    let peer = Peer::from_address(&nodes[units[0]].address()).unwrap();
    pool.ask(&peer, &request.encode(), 30_000, "ask").await.unwrap().0
}

fn value(reply: &BlockOpResponseProto) -> Bytes {
    op::check(reply).unwrap();
    reply.checksum_response.as_ref().unwrap().block_checksum.clone()
}

/// As HDFS digests them: the MD5s of the units' CRCs, filled up.
fn md5_of(policy: Policy, data: &[u8], buffer: usize) -> Vec<u8> {
    let layout = Layout::from(policy);
    let mut joined = Vec::new();
    for unit in units_of(policy, data).into_iter().take(layout.data_units) {
        if !unit.is_empty() {
            let mut sums = vec![0; Checksum::NATIVE.sum_bytes(unit.len())];
            Checksum::NATIVE.compute(&unit, &mut sums);
            joined.extend_from_slice(&Md5::digest(&sums));
        }
    }
    joined.resize(buffer, 0);
    Md5::digest(&joined).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_has_the_checksum_of_its_bytes_whichever_units_are_lost() {
    let policy = Policy::by_name("RS-3-2-1024k").unwrap();
    let nodes = nodes(5).await;
    let data = pattern(3, (4 << 20) + 12_345);
    let length = data.len() as u64;
    store_units(&nodes, &units_of(policy, &data)).await;
    let crc = Checksum::new(ChecksumKind::Crc32c, 512).unwrap();
    let md5 = md5_of(policy, &data, 64);
    // The third list names a DataNode for unit 1 that has none: it is asked in vain.
    for units in [&[0, 1, 2, 3, 4][..], &[4, 2, 3], &[3, 0, 4]] {
        let composite = ask(&nodes, units, policy, (length, length), COMPOSITE).await;
        assert_eq!(value(&composite)[..], crc.of(&data).to_be_bytes(), "{units:?}");
        let told = composite.checksum_response.unwrap();
        assert_eq!((told.bytes_per_crc, told.crc_type), (512, Some(2)));
        assert_eq!(told.block_checksum_options.unwrap().block_checksum_type, Some(COMPOSITE));
        let digest = ask(&nodes, units, policy, (length, length), MD5_CRC).await;
        assert_eq!(value(&digest)[..], md5, "{units:?}");
    }
    // Part of the group: as if it ended there.
    for bytes in [1, 700_000, (1 << 20) + 1, (3 << 20) + 5, length - 1] {
        let part = &data[..bytes as usize];
        for units in [&[0, 1, 2, 3, 4][..], &[1, 3, 4]] {
            let composite = ask(&nodes, units, policy, (length, bytes), COMPOSITE).await;
            assert_eq!(value(&composite)[..], crc.of(part).to_be_bytes(), "{bytes} {units:?}");
            let buffer = if bytes > 2 << 20 { 64 } else { 32 };
            let digest = ask(&nodes, units, policy, (length, bytes), MD5_CRC).await;
            assert_eq!(value(&digest)[..], md5_of(policy, part, buffer), "{bytes} {units:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_missing_unit_is_computed_and_too_few_are_an_error() {
    let policy = Policy::by_name("XOR-2-1-1024k").unwrap();
    let nodes = nodes(3).await;
    let data = pattern(4, 1_500_001);
    let length = data.len() as u64;
    let units = units_of(policy, &data);
    store_units(&nodes, &units).await;
    nodes[1].forget(1).await;
    let md5 = md5_of(policy, &data, 32);
    let digest = ask(&nodes, &[0, 1, 2], policy, (length, length), MD5_CRC).await;
    assert_eq!(value(&digest)[..], md5);
    nodes[2].forget(2).await;
    let lost = ask(&nodes, &[0, 1, 2], policy, (length, length), MD5_CRC).await;
    assert_eq!(op::check(&lost).unwrap_err().code, proto::Code::BlockMissing);
    for (length, bytes) in [(length, 0), (length, length + 1), (u64::MAX, 1), (0, 0)] {
        let bad = ask(&nodes, &[0, 1, 2], policy, (length, bytes), MD5_CRC).await;
        assert_eq!(op::check(&bad).unwrap_err().code, proto::Code::InvalidArgument);
    }
}
