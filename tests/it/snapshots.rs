//! Snapshots on real processes: what they show survives whoever was writing it.

use std::time::Duration;

use client::CreateOptions;
use proto::granary::change_snapshots_request::Action;
use tests::cluster::{Cluster, Options, path};

use crate::webhdfs::get;

const WAIT: Duration = Duration::from_secs(60);

/// The bug this guards against: a file was deleted while it was written; its last block was called complete with the
/// length that the NameNode knew, which no replica had. All counted as damaged, and the snapshot's bytes were lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_deleted_while_it_is_written_stays_readable_in_its_snapshot() {
    let mut cluster = Cluster::start(Options::default()).await;
    let fs = cluster.fs().await;
    fs.mkdirs(&path("/d"), 0o755).await.expect("mkdirs");
    fs.change_snapshots(&path("/d"), Action::Allow, "", "").await.expect("allow");
    let data: Vec<u8> = (0..3_000_000u32).map(|at| (at ^ (at >> 9)) as u8).collect();
    let mut writer = fs.create(&path("/d/f"), CreateOptions::default()).await.expect("create");
    writer.write(&data).await.expect("write");
    writer.sync().await.expect("sync");
    fs.change_snapshots(&path("/d"), Action::Create, "s", "").await.expect("snapshot");
    // More than the snapshot shows is on its way.
    writer.write(&data).await.expect("write");
    writer.flush().await.expect("flush");
    fs.delete(&path("/d/f"), client::Recursion::No).await.expect("delete");
    drop(writer.close().await);
    let seen = path("/d/.snapshot/s/f");
    let status = fs.status(&seen).await.expect("status");
    // What DataNodes report from here on is all that is known of its replicas.
    cluster.kill_namenode();
    cluster.start_namenode();
    cluster.until_alive(3).await;
    tests::wait::until("the block is recovered, and its replicas count", WAIT, async || {
        let metrics = get(cluster.namenode().told("http"), "/metrics").await;
        let is_zero = |name: &str| metrics.lines().any(|line| line.ends_with(&format!("{name} 0")));
        let sound = is_zero("open_files") && is_zero("blocks_missing") && is_zero("blocks_corrupt");
        (sound && !fs.cluster_status().await.ok()?.safe_mode).then_some(())
    })
    .await;
    let shown = usize::try_from(status.length).expect("a length");
    assert!(shown >= data.len(), "what was synced is shown: {shown}");
    let read = fs.read_all(&seen, 64 << 20).await.expect("read");
    let written = [&data[..], &data[..]].concat();
    assert!(read[..] == written[..shown]);
}
