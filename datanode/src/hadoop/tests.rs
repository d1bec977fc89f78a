//! A DataNode asked over its port, as Hadoop's clients ask.

use ipc::Identity;
use ipc::request::{self, CallId, Method};
use proto::hadoop::hdfs::{
    ExtendedBlockProto, GetReplicaVisibleLengthRequestProto, GetReplicaVisibleLengthResponseProto,
    GetVolumeReportRequestProto, GetVolumeReportResponseProto, RpcResponseHeaderProto,
    TriggerBlockReportRequestProto,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::server::{Handle, start};
use crate::store::Purpose;
use crate::testing::{config, pattern, wait_until, write, write_block};

const ID: [u8; 16] = [7; 16];
const GS: GenerationStamp = GenerationStamp(1001);

struct Client {
    stream: TcpStream,
    calls: i32,
}

/// The class of the exception, and its message.
type Failure = (String, String);

impl Client {
    async fn of(node: &Handle, user: &str) -> Self {
        let mut stream = TcpStream::connect(node.ipc_addr()).await.unwrap();
        let mut hello = Vec::new();
        let identity = Identity { user: user.to_owned(), real_user: None };
        request::hello(&mut hello, ID, &identity, PROTOCOL);
        stream.write_all(&hello).await.unwrap();
        Self { stream, calls: 0 }
    }

    async fn ask<A: Message + Default>(
        &mut self,
        name: &str,
        message: &impl Message,
    ) -> std::result::Result<A, Failure> {
        let id = CallId { client_id: ID, call_id: self.calls, retry_count: 0 };
        self.calls += 1;
        let mut frame = Vec::new();
        let method = Method { protocol: PROTOCOL, version: VERSION, name };
        request::call(&mut frame, &id, &method, message);
        self.stream.write_all(&frame).await.unwrap();
        let length = self.stream.read_u32().await.unwrap();
        let mut reply = vec![0; length as usize];
        self.stream.read_exact(&mut reply).await.unwrap();
        let mut reply = Bytes::from(reply);
        let header = RpcResponseHeaderProto::decode_length_delimited(&mut reply).unwrap();
        if header.status != 0 {
            let class = header.exception_class_name.unwrap();
            return Err((class, header.error_msg.unwrap()));
        }
        Ok(A::decode_length_delimited(&mut reply).unwrap())
    }

    async fn visible(&mut self, id: u64, stamp: u64) -> std::result::Result<u64, Failure> {
        let block = ExtendedBlockProto {
            pool_id: "BP".into(),
            block_id: id,
            generation_stamp: stamp,
            num_bytes: None,
        };
        let request = GetReplicaVisibleLengthRequestProto { block };
        let answer = self.ask("getReplicaVisibleLength", &request).await;
        answer.map(|answer: GetReplicaVisibleLengthResponseProto| answer.length)
    }
}

async fn node(folder: &tempfile::TempDir) -> Handle {
    let config = crate::Config { superuser: "hdfs".into(), ..config(folder.path()) };
    start(config).await.unwrap()
}

#[tokio::test]
async fn a_reader_learns_how_much_of_an_open_replica_it_may_see() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&folder).await;
    let purpose = Purpose::Create { stamp: GS, bytes: 0, checksum: ::transfer::Checksum::NATIVE };
    let session = node.store().begin_write(BlockId(7), purpose).await.unwrap();
    write(&session, 0, &pattern(1, 700), false).await.unwrap();
    // HDFS's clients send the block's name as their user.
    let mut client = Client::of(&node, "blk_7_1001").await;
    assert_eq!(client.visible(7, 1001).await, Ok(700));
    assert_eq!(client.visible(7, 1000).await, Ok(700));
    assert_eq!(client.visible(8, 1001).await.unwrap_err().0, REPLICA_NOT_FOUND);
    assert_eq!(client.visible(7, 1002).await.unwrap_err().0, exceptions::IO);
    drop(session);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn only_the_superuser_looks_at_volumes_and_gives_orders() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&folder).await;
    write_block(node.store(), 7, 1001, &pattern(1, 5_000)).await.unwrap();
    let mut other = Client::of(&node, "ann").await;
    let report = GetVolumeReportRequestProto {};
    let refused = other.ask::<GetVolumeReportResponseProto>("getVolumeReport", &report).await;
    assert_eq!(refused.unwrap_err().0, exceptions::ACCESS_CONTROL);
    let mut client = Client::of(&node, "hdfs").await;
    let told: GetVolumeReportResponseProto = client.ask("getVolumeReport", &report).await.unwrap();
    let [volume] = &told.volume_info[..] else { panic!("{told:?}") };
    assert_eq!((volume.used_space, volume.num_blocks), (5_000, 1));
    assert_eq!(volume.path, folder.path().display().to_string());
    for method in [
        "getDatanodeInfo",
        "getBalancerBandwidth",
        "getReconfigurationStatus",
        "listReconfigurableProperties",
        "queryDiskBalancerPlan",
        "evictWriters",
    ] {
        let answer: std::result::Result<(), Failure> = client.ask(method, &()).await;
        assert_eq!(answer, Ok(()), "{method}");
    }
    for method in
        ["shutdownDatanode", "refreshNamenodes", "deleteBlockPool", "startReconfiguration"]
    {
        let refused = client.ask::<()>(method, &()).await.unwrap_err();
        assert_eq!(refused.0, exceptions::UNSUPPORTED, "{method}");
        assert_eq!(other.ask::<()>(method, &()).await.unwrap_err().0, exceptions::ACCESS_CONTROL);
    }
    let paths = client.ask::<()>("getBlockLocalPathInfo", &()).await.unwrap_err();
    assert_eq!(paths.0, exceptions::ACCESS_CONTROL);
    assert_eq!(client.ask::<()>("nothing", &()).await.unwrap_err().0, exceptions::NO_SUCH_METHOD);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_order_for_a_full_report_is_followed_and_evicted_writers_end() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&folder).await;
    let purpose = Purpose::Create { stamp: GS, bytes: 0, checksum: ::transfer::Checksum::NATIVE };
    let session = node.store().begin_write(BlockId(7), purpose).await.unwrap();
    let mut client = Client::of(&node, "hdfs").await;
    node.store().changes().begin_report();
    let request = TriggerBlockReportRequestProto { incremental: false, nn_address: None };
    client.ask::<()>("triggerBlockReport", &request).await.unwrap();
    assert_eq!(node.store().changes().next(1).await, crate::changes::Due::FullReport);
    client.ask::<()>("evictWriters", &()).await.unwrap();
    session.stopped().await;
    let replica = session.replica().clone();
    drop(session);
    wait_until("the writer is gone", || !replica.has_writer()).await;
    node.shutdown().await.unwrap();
}
