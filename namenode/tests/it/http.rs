//! The HTTP port, and what other ports answer to who speaks HTTP.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::*;

/// Sends bytes and reads until the other end closes.
pub async fn exchange(addr: SocketAddr, bytes: &[u8]) -> String {
    let talked = async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut reply = Vec::new();
        // A reset is an end as well.
        if let Err(error) = stream.read_to_end(&mut reply).await {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        String::from_utf8_lossy(&reply).into_owned()
    };
    tokio::time::timeout(WAIT, talked).await.expect("the connection is closed")
}

pub async fn get(addr: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    exchange(addr, request.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn status_metrics_page_and_health_answer() {
    let mut world = World::new().await;
    let node = Datanode::attach(&world, "dn1", 1).await;
    world.write(&node, "/f", 9).await;
    let addr = world.handle().http_addr();
    assert!(get(addr, "/healthz").await.ends_with("ok\n"));
    let page = get(addr, "/").await;
    assert!(page.contains("text/html") && page.contains("10.9.9.1:1001"), "{page}");
    let status = get(addr, "/status").await;
    let cluster = world.handle().cluster_id();
    assert!(status.contains("application/json") && status.contains(cluster), "{status}");
    assert!(status.contains("\"uuid\":\"dn1\"") && status.contains("\"blocks\":1"), "{status}");
    let metrics = get(addr, "/metrics").await;
    for line in [
        "granary_namenode_calls_total{method=\"Namespace.Create\"} 1",
        "granary_namenode_blocks 1",
        "granary_namenode_datanodes_alive 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let beans = get(addr, "/jmx").await;
    for part in ["name=FSNamesystem\"", "name=NameNodeInfo\"", "\"BlocksTotal\":1", "\"FSState\":"]
    {
        assert!(beans.contains(part), "{part} in {beans}");
    }
    let one = get(addr, "/jmx?qry=Hadoop:service=NameNode,name=NameNodeStatus").await;
    assert!(one.contains("\"State\":\"active\"") && !one.contains("FSNamesystem\""), "{one}");
    assert!(get(addr, "/none").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hadoop_port_tells_browsers_what_it_is_and_closes_on_garbage() {
    let world = World::new().await;
    let addr = world.handle().hadoop_rpc_addr();
    let reply = get(addr, "/").await;
    assert!(reply.starts_with("HTTP/1.1 404"), "{reply}");
    exchange(addr, &[0xff; 10_000]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_grpc_port_harms_nobody() {
    let mut world = World::new().await;
    let addr = world.handle().grpc_addr();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0u8; 1000], &[0xff; 1000]] {
        exchange(addr, garbage).await;
    }
    assert!(world.stat("/").await.is_some());
}
