//! Striped files: `kill -9` of up to m DataNodes while they are written and read, and files that are coded anew.

use std::process::{Command, Stdio};
use std::time::Duration;

use client::convert::{HIDDEN_PREFIX, Wanted};
use client::{Code, Conversion, CreateOptions, Fs};
use proto::erasure::Policy;
use proto::granary::change_erasure_coding_request::Action;
use tests::cluster::{Cluster, Options, granary, path};
use tests::seed::Seed;

const MIB: usize = 1 << 20;

fn number(policy: &str) -> u32 {
    Policy::by_name(policy).expect("built in").id.into()
}

/// Files of a policy whose groups are full after `cells` rows.
fn striped(policy: &str, cells: u64) -> CreateOptions {
    CreateOptions {
        block_bytes: cells * MIB as u64,
        erasure_policy: Some(number(policy)),
        ..CreateOptions::default()
    }
}

/// Over TCP: a file descriptor would outlive the DataNode that gave it.
async fn over_tcp(cluster: &Cluster) -> Fs {
    let config = client::Config { short_circuit: false, ..client::Config::default() };
    cluster.fs_with(config).await
}

async fn assert_holds(fs: &Fs, name: &str, expected: &[u8]) {
    let found = fs.read_all(&path(name), 256 << 20).await.expect("read");
    let (have, wanted) = (found.len(), expected.len());
    assert!(found[..] == expected[..], "{name}: {have} bytes, expected {wanted}");
    let reader = fs.open(&path(name)).await.expect("open");
    for offset in [0, MIB - 3, 2 * MIB + 17, wanted.saturating_sub(9)] {
        let part = reader.read_bytes_at(offset as u64, 700_000).await.expect("read a part");
        let from = offset.min(wanted);
        assert!(part == expected[from..(from + 700_000).min(wanted)], "{name} at {offset}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_does_not_notice_that_as_many_datanodes_die_as_there_is_parity() {
    let mut cluster = Cluster::start(Options { datanodes: 5, ..Options::default() }).await;
    let fs = over_tcp(&cluster).await;
    let bytes = Seed::from_env(21).bytes(20 * MIB + 4_321);
    // In the first row, at the edge of a group, in the middle of the last one; both at once, and one after the other.
    for (round, kills) in
        [[(MIB, 0), (MIB, 3)], [(5 * MIB, 1), (12 * MIB, 4)], [(14 * MIB + 5, 2), (20 * MIB, 0)]]
            .into_iter()
            .enumerate()
    {
        let name = format!("/killed-{round}");
        let options = striped("RS-3-2-1024k", 4);
        let mut file = fs.create(&path(&name), options).await.expect("create");
        let mut at = 0;
        for (until, victim) in kills {
            file.write(&bytes[at..until]).await.expect("write");
            at = until;
            cluster.kill_datanode(victim);
        }
        file.write(&bytes[at..]).await.expect("write after the kills");
        file.close().await.expect("close");
        assert_holds(&fs, &name, &bytes).await;
        for (_, victim) in kills {
            cluster.start_datanode(victim);
        }
        cluster.until_alive(5).await;
        assert_holds(&fs, &name, &bytes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_gets_every_byte_when_three_of_nine_datanodes_die_under_it() {
    let mut cluster = Cluster::start(Options { datanodes: 9, ..Options::default() }).await;
    let fs = over_tcp(&cluster).await;
    let bytes = Seed::from_env(22).bytes(40 * MIB + 99);
    let mut file = fs.create(&path("/read"), striped("RS-6-3-1024k", 3)).await.expect("create");
    file.write(&bytes).await.expect("write");
    file.close().await.expect("close");
    let mut reader = fs.open(&path("/read")).await.expect("open");
    let mut found = Vec::new();
    while let Some(part) = reader.read_next().await.expect("read") {
        let before = found.len();
        found.extend_from_slice(&part);
        for (at, victim) in [(5 * MIB, 0), (15 * MIB, 4), (25 * MIB, 8)] {
            if before < at && found.len() >= at {
                cluster.kill_datanode(victim);
            }
        }
    }
    assert!(found == bytes, "{} bytes read, {} written", found.len(), bytes.len());
    assert_holds(&fs, "/read", &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_that_hangs_delays_a_reader_and_fails_none() {
    let cluster = Cluster::start(Options { datanodes: 5, ..Options::default() }).await;
    let fs = over_tcp(&cluster).await;
    let bytes = Seed::from_env(23).bytes(7 * MIB);
    let mut file = fs.create(&path("/hangs"), striped("RS-3-2-1024k", 4)).await.expect("create");
    file.write(&bytes).await.expect("write");
    file.close().await.expect("close");
    for index in [1, 3] {
        cluster.datanode(index).pause();
    }
    let begun = std::time::Instant::now();
    assert_holds(&fs, "/hangs", &bytes).await;
    let taken = begun.elapsed();
    [1, 3].into_iter().for_each(|index| cluster.datanode(index).resume());
    let patience = Duration::from_millis(fs.config().transfer_timeout_ms);
    assert!(taken < patience, "{taken:?}: nobody waited for a DataNode to be given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn flushed_and_appended_bytes_of_a_striped_file_survive_the_loss_of_two_of_five() {
    let limits = "lease_soft_limit_ms = 1000\nlease_hard_limit_ms = 2000".to_owned();
    let options = Options { datanodes: 5, namenode: limits, ..Options::default() };
    let mut cluster = Cluster::start(options).await;
    let fs = over_tcp(&cluster).await;
    let bytes = Seed::from_env(24).bytes(9 * MIB);
    let writer = cluster.fs().await;
    let options = striped("RS-3-2-1024k", 4);
    let mut file = writer.create(&path("/flushed"), options).await.expect("create");
    let mut at = 0;
    for step in [1, 700, MIB, 3 * MIB + 5] {
        file.write(&bytes[at..at + step]).await.expect("write");
        at += step;
        file.flush().await.expect("flush");
        assert_holds(&fs, "/flushed", &bytes[..at]).await;
    }
    // Begun and not flushed: it may be there or not. Not closed, not renewed: as if the process had died.
    file.write(&bytes[at..at + 100]).await.expect("write");
    drop(file);
    drop(writer);
    tests::wait::until("the file is closed", Duration::from_secs(60), async || {
        let status = fs.status(&path("/flushed")).await.expect("status");
        (!status.open_for_write).then_some(())
    })
    .await;
    let length = fs.status(&path("/flushed")).await.expect("status").length as usize;
    assert!((at..=at + 100).contains(&length), "{length} bytes, {at} were flushed");
    assert_holds(&fs, "/flushed", &bytes[..length]).await;
    let mut file = fs.append(&path("/flushed")).await.expect("append");
    file.write(&bytes[length..]).await.expect("write");
    file.close().await.expect("close");
    cluster.kill_datanode(0);
    cluster.kill_datanode(2);
    assert_holds(&fs, "/flushed", &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_coded_anew_and_back_while_readers_read() {
    let cluster = Cluster::start(Options { datanodes: 5, ..Options::default() }).await;
    let fs = over_tcp(&cluster).await;
    let bytes = Seed::from_env(25).bytes(24 * MIB + 11);
    let options = CreateOptions { block_bytes: 4 << 20, ..CreateOptions::default() };
    let mut file = fs.create(&path("/anew"), options).await.expect("create");
    file.write(&bytes).await.expect("write");
    file.close().await.expect("close");
    fs.write_all(&path("/empty"), b"").await.expect("write");
    let before = fs.status(&path("/anew")).await.expect("status");
    for policy in [number("RS-3-2-1024k"), number("XOR-2-1-1024k"), 0] {
        let mut reader = fs.open(&path("/anew")).await.expect("open");
        let first = reader.read_next().await.expect("read").expect("bytes");
        assert!(first[..] == bytes[..first.len()]);
        let wanted = Wanted { policy, replication: 0 };
        let done = fs.convert(&path("/anew"), wanted, |_| {}).await.expect("convert");
        assert_eq!(done, Conversion::Done(bytes.len() as u64));
        fs.convert(&path("/empty"), wanted, |_| {}).await.expect("convert nothing");
        let again = fs.convert(&path("/anew"), wanted, |_| {}).await.expect("convert again");
        assert_eq!(again, Conversion::AlreadySo);
        // A reader that had the old blocks finds the new ones when those are gone.
        tests::wait::until("old blocks are gone", Duration::from_secs(60), async || {
            (blocks_of(&cluster) == units_of(&fs, "/anew").await).then_some(())
        })
        .await;
        let mut found = first.to_vec();
        while let Some(part) = reader.read_next().await.expect("read on") {
            found.extend_from_slice(&part);
        }
        assert!(found == bytes, "policy {policy}: {} bytes", found.len());
        assert_holds(&fs, "/anew", &bytes).await;
        let after = fs.status(&path("/anew")).await.expect("status");
        assert_eq!(after.erasure_policy, policy);
        assert_eq!((after.inode, after.modified_ns), (before.inode, before.modified_ns));
    }
    let names: Vec<_> = fs.list(&path("/")).await.expect("list");
    assert!(names.iter().all(|status| !status.name.starts_with(HIDDEN_PREFIX)), "{names:?}");
}

/// Replicas and units that are on the cluster's disks.
fn blocks_of(cluster: &Cluster) -> usize {
    let count = |index| {
        let mut count = 0;
        let mut folders = vec![cluster.volume(index)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().map_while(Result::ok) {
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else if name.starts_with("blk_") && !name.ends_with(".meta") {
                    count += 1;
                }
            }
        }
        count
    };
    (0..cluster.datanodes()).map(count).sum()
}

/// Replicas and units of a file, as the NameNode knows them.
async fn units_of(fs: &Fs, name: &str) -> usize {
    let reader = fs.open(&path(name)).await.expect("open");
    let blocks = reader.all_blocks().await.expect("blocks");
    blocks.iter().map(|block| block.locations.len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_while_it_is_coded_anew_stays_as_it_is() {
    let cluster = Cluster::start(Options { datanodes: 5, ..Options::default() }).await;
    let fs = cluster.fs().await;
    let bytes = Seed::from_env(26).bytes(3 * MIB);
    fs.write_all(&path("/written"), &bytes).await.expect("write");
    let wanted = Wanted { policy: number("RS-3-2-1024k"), replication: 0 };
    let appended = std::sync::atomic::AtomicBool::new(false);
    let other = cluster.fs().await;
    let runtime = tokio::runtime::Handle::current();
    let error = fs
        .convert(&path("/written"), wanted, |_| {
            if !appended.swap(true, std::sync::atomic::Ordering::Relaxed) {
                tokio::task::block_in_place(|| {
                    runtime.block_on(async {
                        let mut file = other.append(&path("/written")).await.expect("append");
                        file.write(b"more").await.expect("write");
                        file.close().await.expect("close");
                    });
                });
            }
        })
        .await
        .expect_err("it was written meanwhile");
    assert_eq!(error.code, Code::Stale, "{error}");
    assert_holds(&fs, "/written", &[&bytes[..], b"more"].concat()).await;
    let mut open = fs.append(&path("/written")).await.expect("append");
    let error = fs.convert(&path("/written"), wanted, |_| {}).await.expect_err("it is open");
    assert_eq!(error.code, Code::FileOpenElsewhere, "{error}");
    open.write(b"!").await.expect("write");
    open.close().await.expect("close");
    assert_eq!(fs.list(&path("/")).await.expect("list").len(), 1, "no copy is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_that_is_killed_at_any_moment_loses_nothing_and_is_given_again() {
    let cluster = Cluster::start(Options { datanodes: 5, ..Options::default() }).await;
    let fs = over_tcp(&cluster).await;
    let bytes = Seed::from_env(27).bytes(5 * MIB);
    fs.mkdirs(&path("/tree/below"), 0o755).await.expect("mkdirs");
    let names = ["/tree/a", "/tree/b", "/tree/below/c"];
    for name in names {
        fs.write_all(&path(name), &bytes).await.expect("write");
    }
    let convert = |policy: &str| {
        let mut command = Command::new(granary());
        command.args(["--cluster", cluster.namenode_addr(), "admin", "ec", "convert", "-t", "2"]);
        command.args([policy, "/tree"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut killed = 0;
    for round in 0..8u64 {
        let policy = if round % 2 == 0 { "rs-3-2" } else { "replicated" };
        let mut child = convert(policy).spawn().expect("granary");
        tokio::time::timeout(Duration::from_millis(100 + 150 * round), async {
            while child.try_wait().expect("wait").is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .ok();
        killed += usize::from(child.try_wait().expect("wait").is_none());
        child.kill().ok();
        child.wait().expect("reap");
        for name in names {
            assert_holds(&fs, name, &bytes).await;
        }
    }
    assert!(killed > 0, "every conversion was over before it was killed");
    let done = convert("xor-2-1").output().expect("granary");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for name in names {
        let status = fs.status(&path(name)).await.expect("status");
        assert_eq!(status.erasure_policy, number("XOR-2-1-1024k"), "{name}");
        assert_holds(&fs, name, &bytes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_in_a_folder_of_a_policy_are_coded_by_it() {
    let cluster = Cluster::start(Options { datanodes: 3, ..Options::default() }).await;
    let fs = cluster.fs().await;
    fs.mkdirs(&path("/coded/plain"), 0o755).await.expect("mkdirs");
    let xor = number("XOR-2-1-1024k");
    fs.change_erasure_coding(Action::Set, Some(&path("/coded")), xor).await.expect("set");
    fs.change_erasure_coding(Action::Set, Some(&path("/coded/plain")), 0).await.expect("set");
    for (name, policy) in [("/coded/a", xor), ("/coded/plain/b", 0), ("/c", 0)] {
        let status = fs.write_all(&path(name), &[7; 3 * MIB]).await.expect("write");
        assert_eq!(status.erasure_policy, policy, "{name}");
        assert_holds(&fs, name, &[7; 3 * MIB]).await;
        let sum = fs.composite_checksum(&path(name)).await.expect("checksum");
        assert_eq!(sum, fs.composite_checksum(&path("/coded/a")).await.expect("checksum"));
    }
}
