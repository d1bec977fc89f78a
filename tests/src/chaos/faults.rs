//! What is done to the cluster, and when.
//!
//! At most one DataNode is down, paused or wiped at a time; bytes are damaged on one other, always the same. Before a
//! disk is wiped every block has all its replicas again, so that what is left is enough.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use client::Fs;

use super::report::Report;
use crate::cluster::Cluster;
use crate::seed::Seed;

/// How long a wipe waits for the cluster to be healthy; then something else is done.
const WIPE_WAITS: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Down {
    Killed(usize),
    Paused(usize),
}

/// Injects faults until the time is over, then takes them all back.
pub(super) async fn inject(
    cluster: &mut Cluster,
    fs: &Fs,
    seed: &mut Seed,
    until: Instant,
    report: &Report,
) {
    // The last DataNode is the one whose disk rots; faults of whole nodes hit the others.
    let nodes = cluster.datanodes();
    let rotten = nodes - 1;
    let mut down: Option<Down> = None;
    while Instant::now() < until {
        pause(200 + seed.below(2_500)).await;
        if let Some(was) = down.take() {
            recover(cluster, was);
            continue;
        }
        let node = seed.below(rotten as u64) as usize;
        match seed.below(12) {
            0..=2 => {
                cluster.kill_datanode(node);
                report.fault("kill a DataNode");
                down = Some(Down::Killed(node));
            }
            3 | 4 => {
                cluster.datanode(node).pause();
                report.fault("pause a DataNode");
                down = Some(Down::Paused(node));
            }
            5 | 6 => {
                cluster.kill_namenode();
                report.fault("kill the NameNode");
                pause(seed.below(1_500)).await;
                cluster.start_namenode();
            }
            7 => {
                cluster.namenode().pause();
                report.fault("pause the NameNode");
                pause(seed.below(4_000)).await;
                cluster.namenode().resume();
            }
            8 => {
                if healthy_within(fs, nodes, WIPE_WAITS).await {
                    cluster.kill_datanode(node);
                    std::fs::remove_dir_all(cluster.volume(node)).expect("wipe a volume");
                    report.fault("wipe a DataNode");
                    cluster.start_datanode(node);
                }
            }
            9 | 10 => {
                if let Some(kind) = rot(&cluster.volume(rotten), seed) {
                    report.fault(kind);
                }
            }
            _ => {
                cluster.kill_all();
                report.fault("kill everything");
                pause(seed.below(500)).await;
                cluster.start_all();
            }
        }
    }
    if let Some(was) = down {
        recover(cluster, was);
    }
}

fn recover(cluster: &mut Cluster, was: Down) {
    match was {
        Down::Killed(node) => cluster.start_datanode(node),
        Down::Paused(node) => cluster.datanode(node).resume(),
    }
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Why the cluster is not healthy; `None` if it is.
pub(super) async fn unhealthy(fs: &Fs, datanodes: usize) -> Option<String> {
    let status = match fs.cluster_status().await {
        Ok(status) => status,
        Err(error) => return Some(error.to_string()),
    };
    let stats = status.stats.unwrap_or_default();
    let alive = status.datanodes.iter().filter(|node| node.alive).count();
    let well = alive == datanodes
        && !status.safe_mode
        && stats.under_replicated_blocks == 0
        && stats.missing_blocks == 0
        && stats.corrupt_blocks == 0;
    (!well).then(|| {
        format!(
            "{alive} of {datanodes} DataNodes alive, safe mode {}, of {} blocks {} lack replicas, {} are missing, \
             {} corrupt",
            status.safe_mode,
            stats.blocks,
            stats.under_replicated_blocks,
            stats.missing_blocks,
            stats.corrupt_blocks
        )
    })
}

async fn healthy_within(fs: &Fs, datanodes: usize, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if unhealthy(fs, datanodes).await.is_none() {
            return true;
        }
        pause(100).await;
    }
    false
}

/// Damages one file of finalized replicas: a flipped byte, or a lost end, in data or checksums.
fn rot(volume: &Path, seed: &mut Seed) -> Option<&'static str> {
    let mut files = Vec::new();
    collect(&volume.join("current/finalized"), &mut files);
    files.sort();
    let path = files.get(seed.below(files.len().max(1) as u64) as usize)?;
    let is_meta = path.extension().is_some();
    let file = std::fs::File::options().read(true).write(true).open(path).ok()?;
    let length = file.metadata().ok()?.len();
    if length == 0 {
        return None;
    }
    if seed.below(3) == 0 {
        file.set_len(seed.below(length)).ok()?;
        return Some(if is_meta { "cut a checksum file" } else { "cut a replica" });
    }
    use std::os::unix::fs::FileExt;
    let at = seed.below(length);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).ok()?;
    file.write_all_at(&[byte[0] ^ 1 << seed.below(8)], at).ok()?;
    Some(if is_meta { "flip a bit of a checksum file" } else { "flip a bit of a replica" })
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
