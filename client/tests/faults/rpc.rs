//! Framed RPC beside gRPC: used when the same cluster answers on it, and done without when it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use client::{Code, Fs};
use ipc::{Answer, Call, RpcError, Service, Settings};
use prost::Message;
use proto::granary::{FileStatus, GetFileInfoReply, ServerDefaults};
use proto::rpc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Cluster;

/// Answers what a NameNode is and one file's status.
#[derive(Default)]
struct Fake {
    cluster_id: String,
    asked: AtomicUsize,
    fails: AtomicUsize,
}

impl Service for Fake {
    fn protocol_version(&self, protocol: &str) -> Option<u64> {
        (protocol == rpc::NAMESPACE_PROTOCOL).then_some(rpc::NAMESPACE_VERSION)
    }

    fn call(self: &Arc<Self>, call: Call) -> Option<Answer> {
        let reply = match call.method.as_str() {
            "GetServerDefaults" => {
                let cluster_id = self.cluster_id.clone();
                ServerDefaults { cluster_id, ..Default::default() }.encode_to_vec()
            }
            "GetFileInfo" => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                let fails = &self.fails;
                if fails
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                    .is_ok()
                {
                    let detail = rpc::detail_of(Code::Unavailable);
                    let message = "as the test wants it".to_owned();
                    let error = RpcError { class: rpc::ERROR_CLASS, message, detail };
                    return Some(Answer::Now(Err(error)));
                }
                let status = FileStatus { inode: 4_711, ..Default::default() };
                GetFileInfoReply { status: Some(status) }.encode_to_vec()
            }
            _ => return None,
        };
        Some(Answer::Now(Ok(Bytes::from(reply))))
    }
}

/// Starts framed RPC for a cluster, and connects anew, so that its NameNode tells the port.
async fn start(cluster: &mut Cluster, cluster_id: &str) -> (Arc<Fake>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let fake = Arc::new(Fake { cluster_id: cluster_id.into(), ..Default::default() });
    let service = Arc::clone(&fake);
    let serving = ipc::serve(listener, service, Settings::default(), std::future::pending());
    let serving = tokio::spawn(serving);
    cluster.namenode.state.lock().unwrap().rpc_port = u32::from(port);
    cluster.fs = Fs::connect(cluster.fs.config().clone()).await.unwrap();
    (fake, serving)
}

#[tokio::test]
async fn calls_go_by_framed_rpc_when_it_is_there_and_are_repeated_like_others() {
    let mut cluster = Cluster::of(1).await;
    let (fake, _serving) = start(&mut cluster, "").await;
    fake.fails.store(2, Ordering::SeqCst);
    assert_eq!(cluster.fs.status(&cluster.path).await.unwrap().inode, 4_711);
    assert_eq!(fake.asked.load(Ordering::SeqCst), 3);
    assert_eq!(cluster.namenode.count("status"), 0, "none went by gRPC");
}

#[tokio::test]
async fn a_port_of_another_cluster_is_not_used() {
    let mut cluster = Cluster::of(1).await;
    let (fake, _serving) = start(&mut cluster, "another").await;
    assert_eq!(cluster.fs.status(&cluster.path).await.unwrap().inode, 20_000);
    assert_eq!((fake.asked.load(Ordering::SeqCst), cluster.namenode.count("status")), (0, 1));
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_done_without() {
    let mut cluster = Cluster::of(1).await;
    let (_, serving) = start(&mut cluster, "").await;
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    assert_eq!(cluster.fs.status(&cluster.path).await.unwrap().inode, 20_000);
}

#[tokio::test]
async fn a_lost_connection_is_ridden_out() {
    let mut cluster = Cluster::of(1).await;
    let (_, serving) = start(&mut cluster, "").await;
    assert_eq!(cluster.fs.status(&cluster.path).await.unwrap().inode, 4_711);
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    // Now by gRPC, without an error for the caller.
    assert_eq!(cluster.fs.status(&cluster.path).await.unwrap().inode, 20_000);
}

#[tokio::test]
async fn a_method_that_framed_rpc_does_not_know_goes_by_grpc() {
    let mut cluster = Cluster::of(1).await;
    let (fake, _serving) = start(&mut cluster, "").await;
    let content = vec![1; 1_000];
    cluster.write(&content).await.unwrap();
    cluster.check_replicas(&content);
    assert_eq!(cluster.namenode.count("create"), 1);
    assert_eq!(fake.asked.load(Ordering::SeqCst), 0);
}
