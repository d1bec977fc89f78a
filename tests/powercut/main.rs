//! Power cuts: real processes on an ext4 file system that loses everything that was not synced.
//!
//! What was acknowledged before the cut (`docs/durability.md`) must be there after it. A writer runs while the power
//! goes, so that the cut falls anywhere: in a journal write, in a close, in a checkpoint.
#![allow(missing_docs, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{CreateOptions, Fs};
use proto::granary::RenameMode;
use tests::cluster::{Cluster, Options, path};
use tests::powercut::Disk;
use tests::seed::Seed;

/// What was acknowledged: name to content. A sync'ed but open file holds at least this.
type Acknowledged = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Writes, renames and syncs until the power is gone; notes only what was acknowledged.
async fn write_until_the_end(fs: Fs, mut seed: Seed, round: usize, acknowledged: Acknowledged) {
    for index in 0.. {
        let name = format!("/r{round}-{index}");
        let len = if seed.below(3) == 0 { seed.below(3 << 20) } else { seed.below(9_000) };
        let bytes = seed.bytes(len as usize);
        if write_one(&fs, &name, &bytes, index % 4, &acknowledged).await.is_err() {
            return;
        }
    }
}

async fn write_one(
    fs: &Fs,
    name: &str,
    bytes: &[u8],
    way: usize,
    acknowledged: &Acknowledged,
) -> proto::Result<()> {
    let note = |name: &str, bytes: &[u8]| {
        acknowledged.lock().expect("no panic").insert(name.to_owned(), bytes.to_owned())
    };
    let options = CreateOptions { block_bytes: 1 << 20, ..CreateOptions::default() };
    let mut file = fs.create(&path(name), options).await?;
    file.write(bytes).await?;
    if way == 0 {
        file.sync().await?;
        note(name, bytes);
    }
    file.close().await?;
    note(name, bytes);
    if way == 1 {
        let renamed = format!("{name}-renamed");
        // From here either name may be the one, until the call returns.
        acknowledged.lock().expect("no panic").remove(name);
        fs.rename(&path(name), &path(&renamed), RenameMode::NoReplace).await?;
        note(&renamed, bytes);
    }
    Ok(())
}

/// So many folders of long names that the journal goes through several segments, and a checkpoint is due.
const FOLDERS: usize = 3_000;

async fn make_folders(fs: &Fs, round: usize) {
    let makers = (0..32).map(|maker| {
        let fs = fs.clone();
        tokio::spawn(async move {
            for index in (maker..FOLDERS).step_by(32) {
                let name = format!("/folders-{round}/{index:0>200}");
                fs.mkdirs(&path(&name), 0o755).await.expect("mkdirs");
            }
        })
    });
    for maker in makers.collect::<Vec<_>>() {
        maker.await.expect("no panic");
    }
}

/// The instrument itself: a cut that lost nothing would prove nothing.
#[test]
fn a_cut_loses_what_was_not_synced_and_keeps_what_was() {
    let mut disk = match Disk::new(64) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped, because no disk can be cut here: {why}"),
    };
    let [synced, unsynced] = ["synced", "unsynced"].map(|name| disk.root().join(name));
    let file = std::fs::File::create(&synced).expect("create");
    std::io::Write::write_all(&mut &file, b"kept").expect("write");
    file.sync_all().expect("sync");
    std::fs::File::open(disk.root()).and_then(|folder| folder.sync_all()).expect("sync");
    std::fs::write(&unsynced, b"lost").expect("write");
    drop(file);
    disk.cut();
    disk.unmount();
    disk.mount().expect("mount");
    assert_eq!(std::fs::read(synced).expect("synced"), b"kept");
    assert_ne!(std::fs::read(unsynced).unwrap_or_default(), b"lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_the_power_of_all_nodes_is_cut() {
    let mut disk = match Disk::new(1500) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped, because no disk can be cut here: {why}"),
    };
    let mut seed = Seed::from_env(31);
    let mut cluster = Cluster::start(Options {
        folder: Some(disk.root().join("cluster")),
        namenode: "checkpoint_journal_bytes = 1048576\njournal_segment_bytes = 4194304".into(),
        ..Options::default()
    })
    .await;
    let acknowledged = Acknowledged::default();
    for round in 0..6 {
        let config = client::Config { retry_total_ms: 1_000, ..client::Config::default() };
        let fs = cluster.fs_with(config).await;
        make_folders(&fs, round).await;
        let before = acknowledged.lock().expect("no panic").len();
        let writer = write_until_the_end(fs, seed.clone(), round, acknowledged.clone());
        let writer = tokio::spawn(writer);
        let enough = 5 + seed.below(30) as usize;
        tests::wait::until("some writes", Duration::from_secs(60), async || {
            (acknowledged.lock().expect("no panic").len() >= before + enough).then_some(())
        })
        .await;
        disk.cut();
        cluster.kill_all();
        writer.await.expect("the writer ends with an error, not a panic");
        disk.unmount();
        disk.mount().expect("mount");

        cluster.start_all();
        cluster.until_alive(3).await;
        let fs = cluster.fs().await;
        for earlier in 0..=round {
            let made = fs.list(&path(&format!("/folders-{earlier}"))).await.expect("list").len();
            assert_eq!(made, FOLDERS, "round {round}: folders of round {earlier}");
        }
        let acknowledged = acknowledged.lock().expect("no panic").clone();
        for (name, bytes) in &acknowledged {
            let found = fs.read_all(&path(name), 16 << 20).await;
            let found = found.unwrap_or_else(|error| panic!("round {round}: {name}: {error:?}"));
            let same = found.len() >= bytes.len() && found[..bytes.len()] == bytes[..];
            assert!(same, "round {round}: {name}: {} of {} bytes", found.len(), bytes.len());
        }
    }
    // Processes hold the disk until they end.
    cluster.kill_all();
}
