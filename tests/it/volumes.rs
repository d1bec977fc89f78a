//! Volumes of a DataNode that come and go while it runs.

use std::time::Duration;

use client::CreateOptions;
use tests::cluster::{Cluster, Options, path};
use tests::seed::Seed;
use tests::wait::until;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_named_while_the_datanode_runs_is_taken_up_and_one_that_vanishes_is_left() {
    let options = Options {
        datanodes: 1,
        namenode: "replication = 1\n".into(),
        datanode: "volume_check_interval_ms = 200\n".into(),
        ..Options::default()
    };
    let cluster = Cluster::start(options).await;
    let fs = cluster.fs().await;
    let (first, second) = (cluster.volume(0), cluster.folder().join("second-volume"));
    let file = cluster.folder().join("datanode0.toml");
    let before = std::fs::read_to_string(&file).expect("configuration");
    let named = format!("volumes = [{first:?}");
    assert!(before.contains(&named), "{before}");
    let after = before.replace(&named, &format!("{named}, {second:?}"));
    std::fs::write(&file, after).expect("configuration");
    cluster.datanode(0).hang_up();
    let identity = second.join("identity.toml");
    until("the volume is taken up", SOON, async || identity.exists().then_some(())).await;
    let bytes = Seed::from_env(1).bytes(1 << 20);
    for n in 0..8 {
        let name = path(&format!("/file-{n}"));
        let mut writer = fs.create(&name, CreateOptions::default()).await.expect("create");
        writer.write(&bytes).await.expect("write");
        writer.close().await.expect("close");
    }
    // The first volume vanishes: what the second has is served, and new files go there.
    std::fs::remove_dir_all(first.join("current")).expect("remove");
    std::fs::remove_file(first.join("identity.toml")).expect("remove");
    until("files are written again", SOON, async || {
        let options = CreateOptions { overwrite: true, ..CreateOptions::default() };
        let mut writer = fs.create(&path("/after"), options).await.ok()?;
        writer.write(&bytes).await.ok()?;
        writer.close().await.ok()
    })
    .await;
    let mut served = 0;
    for n in 0..8 {
        if let Ok(found) = fs.read_all(&path(&format!("/file-{n}")), 16 << 20).await {
            assert!(found[..] == bytes[..], "file {n}");
            served += 1;
        }
    }
    assert!((1..8).contains(&served), "{served} of 8 were on the second volume");
}
