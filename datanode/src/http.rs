//! What an operator looks at: `/status` (JSON), `/metrics` (Prometheus text), `/healthz`. WebHDFS is beside them.
//!
//! Read-only, and no secrets in it. `/healthz` answers 200 while at least one volume serves and the NameNode has not
//! refused this DataNode for good.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use proto::granary::DatanodeAddress;
use serde::Serialize;

use crate::balance::Balancer;
use crate::data_server::DataServer;
use crate::heartbeat::Attachment;
use crate::scrub::{Progress, Scrubber};
use crate::store::Store;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// Replicas.
    pub store: Arc<Store>,
    /// The data-transfer server.
    pub server: Arc<DataServer>,
    /// What verifies replicas.
    pub scrubber: Arc<Scrubber>,
    /// What moves replicas between volumes.
    pub balancer: Arc<Balancer>,
    /// The stream to the NameNode.
    pub attachment: Arc<Attachment>,
    /// How this DataNode is reached.
    pub address: DatanodeAddress,
}

#[derive(Serialize)]
struct Status {
    uuid: String,
    cluster_id: String,
    version: &'static str,
    registered: bool,
    error: Option<String>,
    host: String,
    data_port: u32,
    control_port: u32,
    ipc_port: u32,
    local_socket: String,
    replicas: usize,
    index_dirty_folders: usize,
    active_transfers: u32,
    read_bytes: u64,
    written_bytes: u64,
    volumes: Vec<VolumePage>,
}

#[derive(Serialize)]
struct VolumePage {
    id: String,
    capacity_bytes: u64,
    used_bytes: u64,
    remaining_bytes: u64,
    failed: bool,
    error: String,
    /// How far scrubbing is; none before it began.
    scrub: Option<Progress>,
}

/// The routes.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .with_state(pages)
}

async fn status(State(pages): State<Pages>) -> Json<Status> {
    let identity = pages.store.identity();
    let counters = pages.server.counters();
    let statuses = pages.store.volume_statuses().into_iter();
    let volumes = (0..=u8::MAX).zip(statuses).map(|(number, volume)| VolumePage {
        scrub: pages.scrubber.progress(number),
        id: volume.id,
        capacity_bytes: volume.capacity_bytes,
        used_bytes: volume.used_bytes,
        remaining_bytes: volume.remaining_bytes,
        failed: volume.failed,
        error: volume.error,
    });
    Json(Status {
        uuid: identity.datanode_uuid,
        cluster_id: identity.cluster_id,
        version: proto::SOFTWARE_VERSION,
        registered: pages.attachment.is_registered(),
        error: pages.attachment.fatal().borrow().as_ref().map(ToString::to_string),
        host: pages.address.host.clone(),
        data_port: pages.address.data_port,
        control_port: pages.address.control_port,
        ipc_port: pages.address.ipc_port,
        local_socket: pages.address.local_socket.clone(),
        replicas: pages.store.replica_count(),
        index_dirty_folders: pages.store.dirty_folders(),
        active_transfers: pages.server.active(),
        read_bytes: counters.read_bytes.load(Ordering::Relaxed),
        written_bytes: counters.written_bytes.load(Ordering::Relaxed),
        volumes: volumes.collect(),
    })
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    let counters = pages.server.counters();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let volumes = pages.store.volume_statuses();
    let sum = |of: fn(&proto::granary::VolumeStatus) -> u64| volumes.iter().map(of).sum::<u64>();
    let (moved, moved_bytes) = pages.balancer.moved();
    let scrub = pages.scrubber.counters();
    let repair = pages.attachment.reconstructor().counters();
    let mut text = String::new();
    for (name, kind, help, value) in [
        ("replicas", "gauge", "Replicas held.", pages.store.replica_count() as u64),
        ("active_transfers", "gauge", "Readers and writers now.", read(&counters.active)),
        ("connections_total", "counter", "Connections taken.", read(&counters.connections)),
        ("connections_refused_total", "counter", "Connections refused.", read(&counters.refused)),
        ("read_bytes_total", "counter", "Block bytes sent.", read(&counters.read_bytes)),
        ("written_bytes_total", "counter", "Block bytes received.", read(&counters.written_bytes)),
        ("failures_total", "counter", "Requests that failed.", read(&counters.failures)),
        (
            "checksum_failures_total",
            "counter",
            "Received packets whose checksums did not fit.",
            read(&counters.checksum_failures),
        ),
        ("reconstructions", "gauge", "Block groups being repaired.", read(&repair.active)),
        ("reconstructed_units_total", "counter", "Units computed.", read(&repair.units)),
        (
            "reconstruction_read_bytes_total",
            "counter",
            "Bytes of units read to compute others.",
            read(&repair.read_bytes),
        ),
        (
            "reconstruction_written_bytes_total",
            "counter",
            "Bytes of computed units.",
            read(&repair.written_bytes),
        ),
        (
            "reconstruction_source_failures_total",
            "counter",
            "Units that could not be read for a repair.",
            read(&repair.source_failures),
        ),
        (
            "reconstruction_failures_total",
            "counter",
            "Units that were not computed.",
            read(&repair.failures),
        ),
        ("scrubbed_replicas_total", "counter", "Replicas verified.", read(&scrub.replicas)),
        ("scrubbed_bytes_total", "counter", "Bytes of replicas verified.", read(&scrub.bytes)),
        ("scrub_corrupt_total", "counter", "Damaged replicas found.", read(&scrub.corrupt)),
        ("scrub_suspects_total", "counter", "Replicas under suspicion.", read(&scrub.suspects)),
        ("scrub_rounds_total", "counter", "Rounds over a volume that ended.", read(&scrub.rounds)),
        ("moved_replicas_total", "counter", "Replicas moved to another volume.", moved),
        ("moved_bytes_total", "counter", "Bytes of them.", moved_bytes),
        ("capacity_bytes", "gauge", "Capacity of all volumes.", sum(|v| v.capacity_bytes)),
        ("used_bytes", "gauge", "Bytes of replicas.", sum(|v| v.used_bytes)),
        ("remaining_bytes", "gauge", "Bytes that are left.", sum(|v| v.remaining_bytes)),
        ("volumes_failed", "gauge", "Volumes out of service.", sum(|v| u64::from(v.failed))),
        (
            "index_dirty_folders",
            "gauge",
            "Sub-folders that a restart would scan.",
            pages.store.dirty_folders() as u64,
        ),
    ] {
        writeln!(
            text,
            "# HELP granary_datanode_{name} {help}\n# TYPE granary_datanode_{name} {kind}\n\
             granary_datanode_{name} {value}"
        )
        .expect("writing to a string");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

async fn healthz(State(pages): State<Pages>) -> (StatusCode, String) {
    if let Some(error) = pages.attachment.fatal().borrow().as_ref() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"));
    }
    if pages.store.volume_statuses().iter().all(|volume| volume.failed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "every volume is out of service\n".into());
    }
    (StatusCode::OK, "ok\n".into())
}
