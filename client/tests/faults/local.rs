//! Replicas on this machine, read through the open files that their DataNode hands over.

use super::{BLOCK, Cluster, content};

/// A cluster with one file, whose DataNode number `local` hands over open files.
async fn with_local(local: usize, content: &[u8]) -> Cluster {
    let cluster = Cluster::of(3).await;
    cluster.write(content).await.unwrap();
    let socket = cluster.datanodes[local].listen_locally();
    let mut state = cluster.namenode.state.lock().unwrap();
    for located in &mut state.blocks {
        located.locations[local].local_socket = socket.clone();
    }
    drop(state);
    cluster
}

fn tcp_reads(cluster: &Cluster) -> usize {
    cluster.datanodes.iter().map(|node| *node.shared.reads.lock().unwrap()).sum()
}

#[tokio::test]
async fn a_local_replica_is_read_through_its_files_and_not_over_tcp() {
    let content = content(5 * BLOCK as usize + 100);
    let cluster = with_local(2, &content).await;
    assert!(cluster.read().await.unwrap() == content);
    let reader = cluster.fs.open(&cluster.path).await.unwrap();
    for offset in [0u64, 1, 511, 512, 100_003, BLOCK - 1] {
        let bytes = reader.read_bytes_at(offset, 1_000).await.unwrap();
        assert_eq!(bytes, content[offset as usize..offset as usize + 1_000]);
    }
    assert_eq!(tcp_reads(&cluster), 0);
    let handed_over = *cluster.datanodes[2].shared.handed_over.lock().unwrap();
    assert_eq!(handed_over, 6 + 2, "once for each block of an open file");
}

#[tokio::test]
async fn a_damaged_local_file_is_passed_over_and_reported() {
    let content = content(BLOCK as usize);
    let cluster = with_local(1, &content).await;
    cluster.datanodes[1].fail(|f| f.flip_at = Some(3_000));
    assert!(cluster.read().await.unwrap() == content);
    let reported = async {
        while cluster.namenode.state.lock().unwrap().reported_bad.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), reported).await.unwrap();
    assert_eq!(cluster.namenode.state.lock().unwrap().reported_bad, ["dn-1"]);
    assert_eq!(tcp_reads(&cluster), 1, "the other replicas are read over TCP");
}

#[tokio::test]
async fn a_socket_that_refuses_leads_to_tcp_without_an_error() {
    let content = content(2 * BLOCK as usize);
    let cluster = with_local(0, &content).await;
    let stale = std::env::temp_dir().join(format!("granary-stale-{}", std::process::id()));
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    for located in &mut cluster.namenode.state.lock().unwrap().blocks {
        located.locations[0].local_socket = stale.to_str().unwrap().to_owned();
    }
    let read = cluster.read().await;
    std::fs::remove_file(stale).unwrap();
    assert!(read.unwrap() == content);
    assert_eq!(tcp_reads(&cluster), 2);
}
