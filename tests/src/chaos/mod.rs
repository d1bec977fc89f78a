//! Chaos: a cluster of real processes, writers and readers that know every acknowledged byte, and faults by seed.
//!
//! | module | owns |
//! |---|---|
//! | [`model`] | what every file must hold |
//! | `workload` | writers and readers |
//! | `faults` | what is done to the cluster, and when |
//! | [`report`] | what happened |
//!
//! A run has two phases. In the first, work and faults go on side by side, and every read is checked. Then the faults
//! stop, everything is started, and the cluster must become healthy within a bound; every file is read once more.
//!
//! The faults stay within what three replicas promise: one DataNode at a time is down, paused or wiped, and bytes are
//! damaged on one other alone; a disk is wiped only when every block has all its replicas.

mod faults;
pub mod model;
pub mod report;
mod workload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::{Config, Fs};
use proto::erasure::Policy;

use crate::cluster::{Cluster, Options as ClusterOptions};
use crate::seed::Seed;
use model::Model;
pub use report::Report;

/// How long after the last fault the cluster may take to be healthy.
const HEALTHY_WITHIN: Duration = Duration::from_secs(120);

/// What a run is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Chooses everything that is chosen.
    pub seed: u64,
    /// How long faults go on.
    pub time: Duration,
    /// DataNodes; at least 4.
    pub datanodes: usize,
    /// Writers, each with files of its own.
    pub writers: usize,
    /// Readers of everybody's files.
    pub readers: usize,
}

/// Runs chaos, and tells what happened.
pub async fn run(options: &Options) -> Report {
    assert!(options.datanodes >= 4, "with fewer than 4 DataNodes a lost disk is not made good");
    let mut seed = Seed::of(options.seed);
    let mut cluster = Cluster::start(ClusterOptions {
        datanodes: options.datanodes,
        namenode: NAMENODE.into(),
        datanode: DATANODE.into(),
        ..ClusterOptions::default()
    })
    .await;
    let report = Arc::new(Report::new(options.seed));
    let stop = Arc::new(AtomicBool::new(false));
    let model = Arc::new(Model::default());
    let mut work = tokio::task::JoinSet::new();
    for number in 0..options.writers + options.readers {
        let worker = workload::Worker {
            number,
            fs: client(&cluster).await,
            seed: Seed::of(seed.next()),
            model: Arc::clone(&model),
            report: Arc::clone(&report),
            stop: Arc::clone(&stop),
            coded: coded(number, options.datanodes),
        };
        if number < options.writers {
            work.spawn(worker.write());
        } else {
            work.spawn(worker.read());
        }
    }
    let fs = client(&cluster).await;
    let until = Instant::now() + options.time;
    faults::inject(&mut cluster, &fs, &mut seed, until, &report).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = work.join_next().await {
        ended.expect("a worker does not panic: it reports");
    }
    until_healthy(&fs, options.datanodes, &report).await;
    model.check_all(&fs, &report).await;
    if report.verdict().is_err() && std::env::var_os("GRANARY_TEST_KEEP").is_some() {
        cluster.keep();
    }
    Arc::into_inner(report).expect("all others have ended")
}

/// Silence is noticed soon, so that a minute holds many deaths.
const NAMENODE: &str = "heartbeat_interval_ms = 200\ndatanode_suspect_after_ms = 1000\n\
                        datanode_dead_after_ms = 3000\nrepair_grace_ms = 500\n\
                        repair_copies_per_datanode_max = 8\nblock_recovery_timeout_ms = 5000\n";
const DATANODE: &str = "";

/// Every other writer writes striped files, if there are nodes for their units.
fn coded(writer: usize, datanodes: usize) -> Option<Policy> {
    let named = |name| Policy::by_name(name).expect("HDFS has it");
    let fits = |policy: &Policy| datanodes >= usize::from(policy.units());
    let (small, large) = (named("RS-3-2-1024k"), named("RS-6-3-1024k"));
    let wished = if writer % 4 == 3 && fits(&large) { large } else { small };
    (writer % 2 == 1 && fits(&wished)).then_some(wished)
}

async fn client(cluster: &Cluster) -> Fs {
    cluster.fs_with(Config { block_bytes: 256 << 10, ..Config::default() }).await
}

async fn until_healthy(fs: &Fs, datanodes: usize, report: &Report) {
    let deadline = Instant::now() + HEALTHY_WITHIN;
    let mut said = String::new();
    while Instant::now() < deadline {
        match faults::unhealthy(fs, datanodes).await {
            None => return,
            Some(why) => said = why,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    report.violation(format!("not healthy {HEALTHY_WITHIN:?} after the last fault: {said}"));
}
