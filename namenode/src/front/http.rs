//! The HTTP port: a page for people, JSON for scripts, text for Prometheus, WebHDFS and fsck. But for WebHDFS, and fsck when
//! it is told to, it changes nothing.
//!
//! | path | gives |
//! |---|---|
//! | `/` | a small HTML page |
//! | `/status` | the cluster as JSON |
//! | `/metrics` | Prometheus text |
//! | `/healthz` | `ok`; 503 when the log has failed |
//! | `/jmx` | figures under the names of HDFS's beans (see `jmx`) |
//! | `/fsck` | a check of files, as HDFS's `fsck` prints it (see `fsck`) |
//! | `/webhdfs/v1` | the namespace: [`super::webhdfs`] |

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use ::webhdfs::{Peer, Port};
use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Json};
use axum::routing::get;
use proto::granary::{ClusterStatus, DatanodeStatus};
use serde::Serialize;
use tokio::net::TcpListener;

use super::metrics::sample;
use super::node::Node;
use super::stop::Stop;
use super::webhdfs;
use super::{fsck, jmx};
use crate::state::State;

/// Connections that may be open at once; further ones wait.
const CONNECTIONS_MAX: usize = 4_096;
/// How long a connection may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// Answers until told to stop.
pub async fn serve(listener: TcpListener, node: Arc<Node>, mut stop: Stop) {
    let router = Router::new()
        .route("/", get(page))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/fsck", get(fsck::page::fsck))
        .route("/jmx", get(jmx::jmx))
        .with_state(Arc::clone(&node))
        .merge(webhdfs::router(node));
    let port = Port::new(listener, CONNECTIONS_MAX, SILENCE_MAX);
    let served = axum::serve(port, router.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(async move { stop.wait().await })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP port ended");
    }
}

/// What `/status` tells.
#[derive(Serialize)]
struct StatusJson {
    cluster_id: String,
    pool_id: String,
    software_version: String,
    safe_mode: bool,
    safe_mode_reason: String,
    last_txid: u64,
    checkpoint_txid: u64,
    started_ns: i64,
    capacity_bytes: u64,
    used_bytes: u64,
    remaining_bytes: u64,
    files: u64,
    blocks: u64,
    under_replicated_blocks: u64,
    corrupt_blocks: u64,
    missing_blocks: u64,
    datanodes: Vec<DatanodeJson>,
    kvservers: Vec<KvserveJson>,
    stores: Vec<StoreJson>,
}

#[derive(Serialize)]
struct DatanodeJson {
    uuid: String,
    host: String,
    data_port: u32,
    alive: bool,
    last_heartbeat_ms_ago: u64,
    capacity_bytes: u64,
    used_bytes: u64,
    remaining_bytes: u64,
    replicas: u64,
    failed_volumes: usize,
}

#[derive(Serialize)]
struct KvserveJson {
    uuid: String,
    host: String,
    redis_port: u32,
    alive: bool,
    last_heartbeat_ms_ago: u64,
}

#[derive(Serialize)]
struct StoreJson {
    name: String,
    current: u64,
    previous: u64,
    versions: Vec<u64>,
}

async fn status(Shared(node): Shared<Arc<Node>>) -> Json<StatusJson> {
    Json(to_json(node.status()))
}

async fn page(Shared(node): Shared<Arc<Node>>) -> Html<String> {
    Html(render_page(&to_json(node.status())))
}

async fn health(Shared(node): Shared<Arc<Node>>) -> impl IntoResponse {
    match node.log.failure() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

async fn metrics(Shared(node): Shared<Arc<Node>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], render_metrics(&node))
}

fn to_json(status: ClusterStatus) -> StatusJson {
    let stats = status.stats.unwrap_or_default();
    let kvservers = status.kvservers.into_iter().map(|server| {
        let address = server.address.unwrap_or_default();
        KvserveJson {
            uuid: address.uuid,
            host: address.host,
            redis_port: address.redis_port,
            alive: server.alive,
            last_heartbeat_ms_ago: server.last_heartbeat_ms_ago,
        }
    });
    let stores = status.stores.into_iter().map(|store| StoreJson {
        versions: store.versions.iter().map(|version| version.number).collect(),
        name: store.name,
        current: store.current,
        previous: store.previous,
    });
    StatusJson {
        cluster_id: status.cluster_id,
        pool_id: status.pool_id,
        software_version: status.software_version,
        safe_mode: status.safe_mode,
        safe_mode_reason: status.safe_mode_reason,
        last_txid: status.last_txid,
        checkpoint_txid: status.checkpoint_txid,
        started_ns: status.started_ns,
        capacity_bytes: stats.capacity_bytes,
        used_bytes: stats.used_bytes,
        remaining_bytes: stats.remaining_bytes,
        files: stats.files,
        blocks: stats.blocks,
        under_replicated_blocks: stats.under_replicated_blocks,
        corrupt_blocks: stats.corrupt_blocks,
        missing_blocks: stats.missing_blocks,
        datanodes: status.datanodes.into_iter().map(datanode_json).collect(),
        kvservers: kvservers.collect(),
        stores: stores.collect(),
    }
}

fn datanode_json(node: DatanodeStatus) -> DatanodeJson {
    let address = node.address.unwrap_or_default();
    let sum = |read: fn(&proto::granary::VolumeStatus) -> u64| {
        node.volumes.iter().filter(|v| !v.failed).map(read).fold(0, u64::saturating_add)
    };
    DatanodeJson {
        capacity_bytes: sum(|v| v.capacity_bytes),
        used_bytes: sum(|v| v.used_bytes),
        remaining_bytes: sum(|v| v.remaining_bytes),
        failed_volumes: node.volumes.iter().filter(|v| v.failed).count(),
        uuid: address.uuid,
        host: address.host,
        data_port: address.data_port,
        alive: node.alive,
        last_heartbeat_ms_ago: node.last_heartbeat_ms_ago,
        replicas: node.replicas,
    }
}

fn render_page(status: &StatusJson) -> String {
    let mut html = String::from(
        "<!doctype html><html><head><meta charset=\"utf-8\"><title>Granary NameNode</title><style>\
         body{font-family:sans-serif;margin:2em}td,th{padding:.2em .8em;text-align:left}\
         </style></head><body><h1>Granary NameNode</h1>",
    );
    let mut add = |text: std::fmt::Arguments<'_>| {
        html.write_fmt(text).expect("a String takes any text");
    };
    add(format_args!(
        "<p>Cluster {}, version {}, transaction {}.</p>",
        escape(&status.cluster_id),
        escape(&status.software_version),
        status.last_txid
    ));
    if status.safe_mode {
        add(format_args!("<p><b>Safe mode:</b> {}</p>", escape(&status.safe_mode_reason)));
    }
    add(format_args!(
        "<p>{} files and folders, {} blocks: {} under-replicated, {} missing, {} corrupt. \
         {} of {} bytes used, {} free.</p>",
        status.files,
        status.blocks,
        status.under_replicated_blocks,
        status.missing_blocks,
        status.corrupt_blocks,
        status.used_bytes,
        status.capacity_bytes,
        status.remaining_bytes
    ));
    add(format_args!(
        "<h2>DataNodes</h2><table><tr><th>address<th>state<th>heard<th>replicas<th>bytes free</tr>"
    ));
    for node in &status.datanodes {
        add(format_args!(
            "<tr><td>{}:{}<td>{}<td>{} ms ago<td>{}<td>{}</tr>",
            escape(&node.host),
            node.data_port,
            if node.alive { "alive" } else { "dead" },
            node.last_heartbeat_ms_ago,
            node.replicas,
            node.remaining_bytes
        ));
    }
    add(format_args!(
        "</table><h2>Stores</h2><table><tr><th>name<th>current<th>previous<th>versions</tr>"
    ));
    for store in &status.stores {
        let versions: Vec<String> = store.versions.iter().map(u64::to_string).collect();
        add(format_args!(
            "<tr><td>{}<td>{}<td>{}<td>{}</tr>",
            escape(&store.name),
            store.current,
            store.previous,
            versions.join(", ")
        ));
    }
    add(format_args!(
        "</table><p><a href=\"/status\">status</a> <a href=\"/metrics\">metrics</a></p></body></html>"
    ));
    html
}

/// Text from a DataNode or a user, as HTML text.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn render_metrics(node: &Node) -> String {
    let mut out = String::with_capacity(8_192);
    node.volatile.metrics.render(&mut out);
    let mut gauge = |name: &str, help: &str, value: u64| {
        sample(&mut out, &format!("granary_namenode_{name}"), help, "gauge", value);
    };
    let counts = node.log.read(State::counts);
    let stats = node.fs_stats();
    let (alive, dead, safe_mode, leases, repairs) = node.volatile.cluster(|cluster, now_ms| {
        let alive = cluster.datanodes.living();
        let dead = cluster.datanodes.iter().count() - alive;
        let safe_mode = u64::from(cluster.safemode.is_on());
        (alive, dead, safe_mode, cluster.leases.len(), cluster.repair_progress(now_ms))
    });
    gauge("last_txid", "The last transaction.", node.log.read(State::txid).0);
    gauge("checkpoint_txid", "The last checkpoint.", node.log.checkpoint_txid().0);
    gauge("files", "Files.", counts.files);
    gauge("folders", "Folders.", counts.folders);
    gauge("open_files", "Files open for writing.", counts.open_files);
    gauge("blocks", "Blocks.", stats.blocks);
    gauge(
        "blocks_under_replicated",
        "Blocks with too few replicas.",
        stats.under_replicated_blocks,
    );
    gauge("blocks_missing", "Blocks without a good replica.", stats.missing_blocks);
    gauge("blocks_corrupt", "Blocks with a damaged replica.", stats.corrupt_blocks);
    gauge("blocks_being_repaired", "Blocks that are being copied.", repairs.copies);
    gauge("blocks_waiting_for_repair", "Blocks that wait to be copied.", repairs.waiting());
    gauge(
        "blocks_endangered",
        "Waiting blocks that can lose no further replica.",
        repairs.waiting_by_danger[0],
    );
    gauge("blocks_misplaced", "Blocks in too few racks, as last counted.", repairs.misplaced);
    gauge("repair_bytes_left", "Bytes that repair has yet to write.", repairs.bytes_left());
    gauge("repair_bytes_per_second", "Rate of repair, last minute.", repairs.bytes_per_s);
    gauge("repair_blocks_done", "Blocks copied since the start.", repairs.done_blocks);
    gauge("repair_bytes_done", "Bytes copied since the start.", repairs.done_bytes);
    gauge("repair_copies_failed", "Copies that failed since the start.", repairs.failed);
    gauge("capacity_bytes", "Bytes of all volumes.", stats.capacity_bytes);
    gauge("used_bytes", "Bytes that replicas use.", stats.used_bytes);
    gauge("remaining_bytes", "Bytes that replicas may still use.", stats.remaining_bytes);
    gauge("datanodes_alive", "DataNodes alive or suspect.", alive as u64);
    gauge("datanodes_dead", "DataNodes dead.", dead as u64);
    gauge("lease_holders", "Writers with open files.", leases as u64);
    gauge("safe_mode", "1 in safe mode.", safe_mode);
    let kvservers = node.volatile.controller(|controller, _| controller.live_servers().len());
    gauge("kvservers_alive", "kvserve nodes attached.", kvservers as u64);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_cannot_write_html() {
        let status = ClusterStatus {
            safe_mode: true,
            safe_mode_reason: "<script>".into(),
            ..Default::default()
        };
        let html = render_page(&to_json(status));
        assert!(!html.contains("<script>") && html.contains("&lt;script&gt;"));
    }
}
