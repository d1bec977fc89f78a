//! `kill -9` of DataNodes and the NameNode: nothing acknowledged is lost, and who writes or reads does not notice.

use std::time::Duration;

use client::{CreateOptions, Fs};
use proto::granary::RenameMode;
use tests::cluster::{Cluster, Options, path};
use tests::seed::Seed;

use crate::files::Model;

const MIB: usize = 1 << 20;

fn small_blocks() -> CreateOptions {
    CreateOptions { block_bytes: 8 << 20, ..CreateOptions::default() }
}

async fn assert_holds(fs: &Fs, name: &str, expected: &[u8]) {
    let found = fs.read_all(&path(name), 256 << 20).await.expect("read");
    assert!(
        found[..] == expected[..],
        "{name}: {} bytes, expected {}",
        found.len(),
        expected.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_goes_on_without_an_error_when_a_datanode_of_its_pipeline_dies() {
    let mut cluster = Cluster::start(Options { datanodes: 4, ..Options::default() }).await;
    let fs = cluster.fs().await;
    let bytes = Seed::from_env(1).bytes(40 * MIB);
    // Wherever the kill falls: at the start of a block, in its middle, in its last packets.
    for (victim, kill_after) in [(0, 3 * MIB), (1, 8 * MIB), (2, 13 * MIB + 77)] {
        let name = format!("/killed-{victim}");
        let mut file = fs.create(&path(&name), small_blocks()).await.expect("create");
        file.write(&bytes[..kill_after]).await.expect("write");
        file.flush().await.expect("flush");
        cluster.kill_datanode(victim);
        file.write(&bytes[kill_after..]).await.expect("write after the kill");
        file.close().await.expect("close");
        assert_holds(&fs, &name, &bytes).await;
        cluster.start_datanode(victim);
        cluster.until_alive(4).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_survives_the_loss_of_all_but_one_of_its_datanodes() {
    let mut cluster = Cluster::start(Options::default()).await;
    let fs = cluster.fs().await;
    let bytes = Seed::from_env(2).bytes(12 * MIB);
    let mut file = fs.create(&path("/last-one"), small_blocks()).await.expect("create");
    file.write(&bytes[..MIB]).await.expect("write");
    file.flush().await.expect("flush");
    cluster.kill_datanode(0);
    file.write(&bytes[MIB..2 * MIB]).await.expect("write with two");
    file.flush().await.expect("flush");
    cluster.kill_datanode(2);
    file.write(&bytes[2 * MIB..]).await.expect("write with one");
    file.close().await.expect("close");
    assert_holds(&fs, "/last-one", &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_gets_every_byte_when_datanodes_die_under_it() {
    let mut cluster = Cluster::start(Options::default()).await;
    let bytes = Seed::from_env(3).bytes(48 * MIB);
    // Over TCP: a file descriptor would outlive the DataNode that gave it.
    let config = client::Config { short_circuit: false, ..client::Config::default() };
    let fs = cluster.fs_with(config).await;
    let mut file = fs.create(&path("/read"), small_blocks()).await.expect("create");
    file.write(&bytes).await.expect("write");
    file.close().await.expect("close");

    let mut reader = fs.open(&path("/read")).await.expect("open");
    let mut found = Vec::new();
    while let Some(part) = reader.read_next().await.expect("read") {
        let before = found.len();
        found.extend_from_slice(&part);
        for (at, victim) in [(10 * MIB, 0), (30 * MIB, 1)] {
            if before < at && found.len() >= at {
                cluster.kill_datanode(victim);
            }
        }
    }
    assert!(found == bytes, "{} bytes read, {} written", found.len(), bytes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_call_is_there_after_kill_9_of_the_namenode_between_any_two_calls() {
    let mut cluster = Cluster::start(Options::default()).await;
    let fs = cluster.fs().await;
    let mut seed = Seed::from_env(4);
    let mut model = Model::default();
    for _ in 0..40 {
        model.step(&fs, &mut seed).await;
        cluster.kill_namenode();
        cluster.start_namenode();
    }
    cluster.until_alive(3).await;
    model.check_all(&cluster.fs().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_is_written_on_after_the_namenode_was_killed() {
    let mut cluster = Cluster::start(Options::default()).await;
    let fs = cluster.fs().await;
    let bytes = Seed::from_env(5).bytes(20 * MIB);
    let mut file = fs.create(&path("/open"), small_blocks()).await.expect("create");
    for (index, part) in bytes.chunks(5 * MIB).enumerate() {
        file.write(part).await.expect("write");
        if index % 2 == 0 {
            cluster.kill_namenode();
            cluster.start_namenode();
        }
    }
    file.close().await.expect("close");
    assert_holds(&fs, "/open", &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_random_workload_loses_nothing_while_processes_are_killed() {
    let mut cluster = Cluster::start(Options { datanodes: 4, ..Options::default() }).await;
    let fs = cluster.fs().await;
    let mut seed = Seed::from_env(6);
    let mut model = Model::default();
    let (mut down, mut kills) = (None, 0);
    for _ in 0..150 {
        model.step(&fs, &mut seed).await;
        match (seed.below(12), down) {
            (0 | 1, None) => {
                let victim = seed.below(4) as usize;
                cluster.kill_datanode(victim);
                (down, kills) = (Some(victim), kills + 1);
            }
            (0..=3, Some(victim)) => {
                cluster.start_datanode(victim);
                cluster.until_alive(4).await;
                down = None;
            }
            (4, _) => {
                cluster.kill_namenode();
                cluster.start_namenode();
                kills += 1;
            }
            _ => {}
        }
    }
    if let Some(victim) = down {
        cluster.start_datanode(victim);
    }
    cluster.until_alive(4).await;
    assert!(kills > 5, "only {kills} kills: nothing was exercised");
    model.check_all(&cluster.fs().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_all_processes_are_killed_at_once() {
    let mut cluster = Cluster::start(Options::default()).await;
    let fs = cluster.fs().await;
    let mut seed = Seed::from_env(7);
    let mut model = Model::default();
    for _ in 0..30 {
        model.step(&fs, &mut seed).await;
    }
    (0..3).for_each(|index| cluster.kill_datanode(index));
    cluster.kill_namenode();
    cluster.start_namenode();
    (0..3).for_each(|index| cluster.start_datanode(index));
    cluster.until_alive(3).await;
    model.check_all(&cluster.fs().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_cluster_ends_well_and_starts_with_everything() {
    let mut cluster = Cluster::start(Options::default()).await;
    let fs = cluster.fs().await;
    fs.write_all(&path("/kept"), b"kept").await.expect("write");
    fs.rename(&path("/kept"), &path("/renamed"), RenameMode::NoReplace).await.expect("rename");
    assert!(cluster.terminate(), "every role ends well on SIGTERM");
    cluster.start_namenode();
    (0..3).for_each(|index| cluster.start_datanode(index));
    cluster.until_alive(3).await;
    assert_holds(&cluster.fs().await, "/renamed", b"kept").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_on_a_disk_is_read_around_and_reported() {
    let cluster = Cluster::start(Options::default()).await;
    let bytes = Seed::from_env(8).bytes(2 * MIB);
    let fs = cluster.fs().await;
    fs.write_all(&path("/flipped"), &bytes).await.expect("write");
    for index in 0..2 {
        flip_a_bit_of_the_largest_file(&cluster.volume(index), 1_000_003);
    }
    for short_circuit in [true, false] {
        let config = client::Config { short_circuit, ..client::Config::default() };
        assert_holds(&cluster.fs_with(config).await, "/flipped", &bytes).await;
    }
    let known =
        tests::wait::until("the bad replica is known", Duration::from_secs(20), async || {
            assert_holds(&fs, "/flipped", &bytes).await;
            let located = fs.stats().await.expect("stats");
            (located.under_replicated_blocks + located.corrupt_blocks > 0).then_some(())
        });
    known.await;
}

fn flip_a_bit_of_the_largest_file(folder: &std::path::Path, offset: usize) {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("folder").map_while(Result::ok) {
            let kind = entry.file_type().expect("type");
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && entry.file_name().to_string_lossy().starts_with("blk_") {
                files.push((entry.metadata().expect("size").len(), entry.path()));
            }
        }
    }
    let (_, file) = files.into_iter().max().expect("a replica");
    let mut bytes = std::fs::read(&file).expect("replica");
    bytes[offset] ^= 1;
    std::fs::write(&file, bytes).expect("replica");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_writer_vanished_is_closed_with_every_flushed_byte() {
    let limits = "lease_soft_limit_ms = 1000\nlease_hard_limit_ms = 2000".to_owned();
    let cluster = Cluster::start(Options { namenode: limits, ..Options::default() }).await;
    let bytes = Seed::from_env(9).bytes(9 * MIB + 12_345);
    let writer = cluster.fs().await;
    let mut file = writer.create(&path("/left"), small_blocks()).await.expect("create");
    file.write(&bytes).await.expect("write");
    file.flush().await.expect("flush");
    // Not closed, not renewed: as if the process had died.
    drop(file);
    drop(writer);
    let fs = cluster.fs().await;
    tests::wait::until("the file is closed", Duration::from_secs(60), async || {
        let status = fs.status(&path("/left")).await.expect("status");
        (!status.open_for_write).then_some(())
    })
    .await;
    assert_holds(&fs, "/left", &bytes).await;
    let mut file = fs.append(&path("/left")).await.expect("append to what was recovered");
    file.write(b"more").await.expect("write");
    file.close().await.expect("close");
    assert_holds(&fs, "/left", &[&bytes[..], b"more"].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_block_of_all_is_written_right_after_a_restart_of_the_namenode() {
    let mut cluster = Cluster::start(Options::default()).await;
    let fs = cluster.fs().await;
    for round in 0..3 {
        let mut file = fs.create(&path("/first"), overwriting()).await.expect("create");
        cluster.kill_namenode();
        cluster.start_namenode();
        file.write(format!("round {round}").as_bytes()).await.expect("write");
        file.close().await.expect("close");
        assert_holds(&fs, "/first", format!("round {round}").as_bytes()).await;
        fs.delete(&path("/first"), client::Recursion::No).await.expect("delete");
    }
}

fn overwriting() -> CreateOptions {
    CreateOptions { overwrite: true, ..CreateOptions::default() }
}
