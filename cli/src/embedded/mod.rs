//! A whole cluster in one process: one NameNode, some DataNodes, one kvserve. `granary up` and `granary demo` use it.
//!
//! All data lies under one folder: `namenode/`, `datanode-1/` ..., `kvserve/`. A lock keeps a second one out of it, and
//! `cluster.json` tells other commands where this one listens; it is removed at a graceful stop.
//!
//! | module | owns |
//! |---|---|
//! | [`folder`] | the lock and `cluster.json` |
//! | [`ports`] | which port each role listens on |

pub mod folder;
pub mod ports;

use std::path::Path;
use std::time::{Duration, Instant};

use client::Fs;

pub use folder::{ClusterFile, Folder};
pub use ports::Ports;

use crate::config::{Origin, Settings};
use crate::failure::{Exit, Failure, Result};
use crate::roles::{datanode_ended, namenode_ended};

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Running roles.
pub struct Cluster {
    folder: Folder,
    namenode: namenode::Handle,
    datanodes: Vec<datanode::Handle>,
    kvserve: kvserve::Handle,
}

impl Cluster {
    /// Starts all roles under `dir` and waits until they know each other.
    pub async fn start(
        settings: &Settings,
        dir: &Path,
        datanodes: usize,
        ports: Ports,
    ) -> Result<Self> {
        let mut folder = Folder::open(dir)?;
        let namenode = start_namenode(settings, &folder, ports).await?;
        let addr = namenode.grpc_addr().to_string();
        let mut running = Vec::with_capacity(datanodes);
        for index in 0..datanodes {
            running.push(start_datanode(settings, &folder, ports, &addr, index).await?);
        }
        let kvserve = start_kvserve(settings, &folder, ports, &addr).await?;
        folder.announce(ClusterFile {
            pid: std::process::id(),
            namenode: addr,
            http: namenode.http_addr().to_string(),
            hadoop_rpc: namenode.hadoop_rpc_addr().to_string(),
            redis: kvserve.redis_addr().to_string(),
            kvserve_grpc: kvserve.grpc_addr().to_string(),
            kvserve_http: kvserve.http_addr().to_string(),
            datanodes: running.iter().map(|node| node.data_addr().to_string()).collect(),
        })?;
        let cluster = Self { folder, namenode, datanodes: running, kvserve };
        cluster.until_ready(settings).await?;
        Ok(cluster)
    }

    /// Where it listens.
    pub fn file(&self) -> &ClusterFile {
        self.folder.announced()
    }

    /// Waits until every DataNode and the kvserve are known and the NameNode takes changes.
    async fn until_ready(&self, settings: &Settings) -> Result<()> {
        let mut config: client::Config = settings.role("client")?;
        config.namenode = self.file().namenode.clone();
        let fs = Fs::connect(config).await?;
        let begun = Instant::now();
        loop {
            let status = fs.cluster_status().await?;
            let alive = status.datanodes.iter().filter(|node| node.alive).count();
            let serving = status.kvservers.iter().any(|node| node.alive);
            if alive >= self.datanodes.len() && serving && !status.safe_mode {
                return Ok(());
            }
            if begun.elapsed() > READY_TIMEOUT {
                let wanted = self.datanodes.len();
                let message = format!(
                    "the cluster is not ready after {} s: {alive} of {wanted} DataNodes, {} kvserve, safe mode {} {}",
                    READY_TIMEOUT.as_secs(),
                    if serving { "one" } else { "no" },
                    if status.safe_mode { "on:" } else { "off" },
                    status.safe_mode_reason,
                );
                return Err(Failure::new(Exit::Unreachable, message));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until a role ends by itself, and tells why.
    pub async fn ended(&self) -> Failure {
        let datanodes = self.datanodes.iter().map(|node| Box::pin(datanode_ended(node)));
        tokio::select! {
            failure = namenode_ended(&self.namenode) => failure,
            (failure, ..) = futures_util::future::select_all(datanodes) => failure,
        }
    }

    /// Stops all roles, those that depend on others first. Goes on after a failure and tells the first.
    pub async fn stop(mut self) -> Result<()> {
        let mut result = self.kvserve.shutdown().await;
        let stops = self.datanodes.into_iter().map(datanode::Handle::shutdown);
        for stopped in futures_util::future::join_all(stops).await {
            result = result.and(stopped);
        }
        result = result.and(self.namenode.shutdown().await);
        self.folder.retract();
        Ok(result?)
    }
}

/// An address that the embedded cluster decides unless the user did: `--port-base` wins over the file, as options do.
fn decide(
    settings: &mut Settings,
    section: &str,
    key: &str,
    ports: Ports,
    port: u16,
) -> Result<()> {
    let ours = match &settings.entry(section, key).origin {
        Origin::Default => true,
        Origin::File(..) => ports != Ports::Standard,
        _ => false,
    };
    if ours {
        settings.set(section, key, ports.addr(port).into(), Origin::Embedded)?;
    }
    Ok(())
}

async fn start_namenode(
    settings: &Settings,
    folder: &Folder,
    ports: Ports,
) -> Result<namenode::Handle> {
    let mut own = settings.clone();
    let dir = folder.role("namenode")?;
    own.set("namenode", "dir", dir.into(), Origin::Embedded)?;
    decide(&mut own, "namenode", "hadoop_rpc_addr", ports, ports.hadoop_rpc())?;
    decide(&mut own, "namenode", "grpc_addr", ports, ports.namenode_grpc())?;
    decide(&mut own, "namenode", "http_addr", ports, ports.namenode_http())?;
    own.check_exposure(&["namenode"])?;
    let started = namenode::start(own.role("namenode")?).await;
    started.map_err(|error| ports.explain(Failure::start("NameNode", error)))
}

async fn start_datanode(
    settings: &Settings,
    folder: &Folder,
    ports: Ports,
    namenode: &str,
    index: usize,
) -> Result<datanode::Handle> {
    let mut own = settings.clone();
    let volume = folder.role(&format!("datanode-{}", index + 1))?;
    own.set("datanode", "volumes", vec![volume].into(), Origin::Embedded)?;
    own.set("datanode", "namenode", namenode.into(), Origin::Embedded)?;
    // Several in one process: no address of the file can serve them all.
    for (offset, key) in
        ["data_addr", "control_addr", "http_addr", "ipc_addr"].into_iter().enumerate()
    {
        let addr = ports.addr(ports.datanode(index, offset as u16));
        own.set("datanode", key, addr.into(), Origin::Embedded)?;
    }
    let started = datanode::start(own.role("datanode")?).await;
    started.map_err(|error| {
        ports.explain(Failure::start(format_args!("DataNode {}", index + 1), error))
    })
}

async fn start_kvserve(
    settings: &Settings,
    folder: &Folder,
    ports: Ports,
    namenode: &str,
) -> Result<kvserve::Handle> {
    let mut own = settings.clone();
    own.set("kvserve", "dir", folder.role("kvserve")?.into(), Origin::Embedded)?;
    own.set("kvserve", "namenode", namenode.into(), Origin::Embedded)?;
    decide(&mut own, "kvserve", "redis_addr", ports, ports.redis())?;
    decide(&mut own, "kvserve", "grpc_addr", ports, ports.kvserve_grpc())?;
    decide(&mut own, "kvserve", "http_addr", ports, ports.kvserve_http())?;
    own.check_exposure(&["kvserve"])?;
    let started = kvserve::start(own.role("kvserve")?).await;
    started.map_err(|error| ports.explain(Failure::start("kvserve", error)))
}
