//! `granary namenode`, `datanode`, `kvserve`: one role in this process, until SIGTERM or Ctrl-C.
//!
//! When it listens, a role prints one line `ready name=host:port ...` to standard output, for scripts and supervisors.

use std::fmt::Display;

use crate::connect::Context;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Out, note};
use crate::reload;
use crate::signals::Stop;

type Assignment = (&'static str, &'static str, String, &'static str);

/// Listening beyond loopback.
#[derive(clap::Args, Debug)]
pub struct Exposure {
    /// Listen where other machines can connect, though nothing is encrypted and nobody is authenticated yet
    #[arg(long)]
    pub insecure: bool,
}

impl Exposure {
    fn settings(&self) -> Vec<Assignment> {
        let assignment = || ("cluster", "insecure", "true".to_owned(), "--insecure");
        self.insecure.then(assignment).into_iter().collect()
    }
}

fn given(
    value: &Option<String>,
    section: &'static str,
    key: &'static str,
    flag: &'static str,
) -> Vec<Assignment> {
    value.iter().map(|text| (section, key, text.clone(), flag)).collect()
}

/// Options of `granary namenode`.
#[derive(clap::Args, Debug)]
pub struct NamenodeArgs {
    /// Where the namespace is kept
    #[arg(long, value_name = "DIR")]
    dir: Option<String>,
    /// Where clients and DataNodes connect
    #[arg(long, value_name = "HOST:PORT")]
    grpc_addr: Option<String>,
    /// Where Hadoop's clients connect, for `hdfs://`
    #[arg(long, value_name = "HOST:PORT")]
    hadoop_rpc_addr: Option<String>,
    /// Where status and metrics are shown
    #[arg(long, value_name = "HOST:PORT")]
    http_addr: Option<String>,
    #[command(flatten)]
    exposure: Exposure,
}

impl NamenodeArgs {
    /// What the options set.
    pub fn settings(&self) -> Vec<Assignment> {
        let mut all = given(&self.dir, "namenode", "dir", "--dir");
        all.extend(given(&self.grpc_addr, "namenode", "grpc_addr", "--grpc-addr"));
        let hadoop = &self.hadoop_rpc_addr;
        all.extend(given(hadoop, "namenode", "hadoop_rpc_addr", "--hadoop-rpc-addr"));
        all.extend(given(&self.http_addr, "namenode", "http_addr", "--http-addr"));
        all.extend(self.exposure.settings());
        all
    }
}

/// Options of `granary datanode`.
#[derive(clap::Args, Debug)]
pub struct DatanodeArgs {
    /// The folders that hold replicas, one for each disk, separated by commas
    #[arg(long, value_name = "DIR,...")]
    volumes: Option<String>,
    /// Where block bytes go in and out
    #[arg(long, value_name = "HOST:PORT")]
    data_addr: Option<String>,
    #[command(flatten)]
    exposure: Exposure,
}

impl DatanodeArgs {
    /// What the options set.
    pub fn settings(&self) -> Vec<Assignment> {
        let mut all = given(&self.volumes, "datanode", "volumes", "--volumes");
        all.extend(given(&self.data_addr, "datanode", "data_addr", "--data-addr"));
        all.extend(self.exposure.settings());
        all
    }
}

/// Options of `granary kvserve`.
#[derive(clap::Args, Debug)]
pub struct KvserveArgs {
    /// Where fetched tables are kept
    #[arg(long, value_name = "DIR")]
    dir: Option<String>,
    /// Where Redis clients connect
    #[arg(long, value_name = "HOST:PORT")]
    redis_addr: Option<String>,
    #[command(flatten)]
    exposure: Exposure,
}

impl KvserveArgs {
    /// What the options set.
    pub fn settings(&self) -> Vec<Assignment> {
        let mut all = given(&self.dir, "kvserve", "dir", "--dir");
        all.extend(given(&self.redis_addr, "kvserve", "redis_addr", "--redis-addr"));
        all.extend(self.exposure.settings());
        all
    }
}

/// `--cluster` and `GRANARY_CLUSTER` name the NameNode of a role too, unless its own section does.
fn with_cluster(context: &Context, section: &str) -> Result<crate::config::Settings> {
    let mut settings = context.settings.clone();
    let target = context.target()?;
    let named = target.from.starts_with("--cluster") || target.from.starts_with("GRANARY_CLUSTER");
    if named {
        let origin = crate::config::Origin::Flag(target.from);
        settings.set(section, "namenode", target.addr.into(), origin)?;
    }
    settings.check_exposure(&[section])?;
    Ok(settings)
}

/// Runs `granary namenode`.
pub async fn namenode(context: &Context, out: &mut Out) -> Result<()> {
    context.settings.check_exposure(&["namenode"])?;
    let mut stop = listen()?;
    let node = namenode::start(context.settings.role("namenode")?)
        .await
        .map_err(|error| Failure::start("NameNode", error))?;
    ready(
        out,
        &[
            ("grpc", &node.grpc_addr()),
            ("http", &node.http_addr()),
            ("hadoop", &node.hadoop_rpc_addr()),
        ],
    )?;
    let reason = until_told(&mut stop, namenode_ended(&node)).await;
    stop_within(&mut stop, node.shutdown(), reason).await
}

/// Runs `granary datanode`.
pub async fn datanode(context: &Context, out: &mut Out) -> Result<()> {
    let settings = with_cluster(context, "datanode")?;
    let mut stop = listen()?;
    let node = datanode::start(settings.role("datanode")?)
        .await
        .map_err(|error| Failure::start("DataNode", error))?;
    ready(
        out,
        &[
            ("uuid", &node.uuid()),
            ("data", &node.data_addr()),
            ("control", &node.control_addr()),
            ("ipc", &node.ipc_addr()),
            ("http", &node.http_addr()),
        ],
    )?;
    let ended = async {
        tokio::select! {
            failure = datanode_ended(&node) => failure,
            failure = reload::take_up_volumes(&settings, &node) => failure,
        }
    };
    let reason = until_told(&mut stop, ended).await;
    stop_within(&mut stop, node.shutdown(), reason).await
}

/// Runs `granary kvserve`.
pub async fn kvserve(context: &Context, out: &mut Out) -> Result<()> {
    let settings = with_cluster(context, "kvserve")?;
    let mut stop = listen()?;
    let node = kvserve::start(settings.role("kvserve")?)
        .await
        .map_err(|error| Failure::start("kvserve", error))?;
    ready(
        out,
        &[
            ("uuid", &node.uuid()),
            ("redis", &node.redis_addr()),
            ("grpc", &node.grpc_addr()),
            ("http", &node.http_addr()),
        ],
    )?;
    let reason = until_told(&mut stop, std::future::pending()).await;
    stop_within(&mut stop, node.shutdown(), reason).await
}

/// Listens for signals before anything is started, so that none comes too early.
pub fn listen() -> Result<Stop> {
    Stop::listen().map_err(|error| Failure::io("listen for signals", &error))
}

fn ready(out: &mut Out, told: &[(&str, &dyn Display)]) -> Result<()> {
    let pairs: Vec<String> = told.iter().map(|(name, value)| format!("{name}={value}")).collect();
    out.line(format_args!("ready {}", pairs.join(" ")))?;
    out.flush()
}

/// Waits for a signal, or for the role to end by itself: then the reason.
pub async fn until_told(stop: &mut Stop, ended: impl Future<Output = Failure>) -> Option<Failure> {
    tokio::select! {
        signal = stop.next() => {
            tracing::info!(signal, "stopping");
            None
        }
        failure = ended => Some(failure),
    }
}

/// Waits for a graceful stop; a further signal ends the process at once.
pub async fn stop_within<E: Into<Failure>>(
    stop: &mut Stop,
    shutdown: impl Future<Output = std::result::Result<(), E>>,
    reason: Option<Failure>,
) -> Result<()> {
    let stopped = tokio::select! {
        stopped = shutdown => stopped.map_err(Into::into),
        signal = stop.next() => {
            note(format_args!("granary: {signal} again: stopping at once"));
            Err(Failure::silent(Exit::Interrupted))
        }
    };
    reason.map_or(stopped, Err)
}

/// A NameNode that stopped by itself.
pub async fn namenode_ended(node: &namenode::Handle) -> Failure {
    node.failed().await;
    let message = "the NameNode stopped by itself: its log tells why. Nothing acknowledged is lost; start it again";
    Failure::new(Exit::Failure, message)
}

/// A DataNode that a NameNode refused for good, or that has too few volumes left.
pub async fn datanode_ended(node: &datanode::Handle) -> Failure {
    node.fatal().await.into()
}
