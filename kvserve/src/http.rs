//! `/status` (JSON), `/metrics` (Prometheus text) and `/healthz` over HTTP.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use serde::Serialize;
use tokio::sync::watch;

use crate::lifecycle::{Phase, Report};
use crate::session::Front;

/// What the pages tell from.
#[derive(Clone)]
pub struct Pages {
    /// What is served.
    pub front: Arc<Front>,
    /// How far each version is.
    pub reports: watch::Receiver<Arc<Vec<Report>>>,
    /// Whether the stream to the NameNode stands.
    pub attached: watch::Receiver<bool>,
}

/// The pages.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .with_state(pages)
}

#[derive(Serialize)]
struct Status {
    role: &'static str,
    uuid: String,
    software_version: &'static str,
    attached: bool,
    uptime_seconds: u64,
    connections: usize,
    versions: Vec<VersionStatus>,
}

#[derive(Serialize)]
struct VersionStatus {
    store: String,
    version: u64,
    state: &'static str,
    bytes_done: u64,
    bytes_total: u64,
    records: Option<u64>,
    error: String,
}

async fn status(State(pages): State<Pages>) -> Json<Status> {
    let front = &pages.front;
    let stores = front.stores.all();
    let records = |report: &Report| {
        let view = stores.get(&report.id.store)?.view();
        view.open.get(&report.id.number).map(|version| version.records())
    };
    let reports = pages.reports.borrow().clone();
    let versions = reports
        .iter()
        .map(|report| VersionStatus {
            store: report.id.store.clone(),
            version: report.id.number,
            state: phase_name(report.phase),
            bytes_done: report.bytes_done,
            bytes_total: report.bytes_total,
            records: records(report),
            error: report.error.clone(),
        })
        .collect();
    Json(Status {
        role: "kvserve",
        uuid: front.uuid.clone(),
        software_version: proto::SOFTWARE_VERSION,
        attached: *pages.attached.borrow(),
        uptime_seconds: front.started.elapsed().as_secs(),
        connections: front.clients.counts().0,
        versions,
    })
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Fetching => "fetching",
        Phase::Verifying => "verifying",
        Phase::Ready => "ready",
        Phase::Serving => "serving",
        Phase::Failed => "failed",
    }
}

async fn metrics(State(pages): State<Pages>) -> String {
    let front = &pages.front;
    let (connected, accepted) = front.clients.counts();
    let counters = &front.counters;
    let mut text = String::new();
    let mut tell = |name: &str, kind: &str, help: &str, value: u64| {
        let name = format!("granary_kvserve_{name}");
        write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n")
            .expect("writing to a string never fails");
    };
    tell(
        "commands_total",
        "counter",
        "Commands and calls answered.",
        counters.commands.load(Relaxed),
    );
    tell("hits_total", "counter", "Keys found.", counters.hits.load(Relaxed));
    tell("misses_total", "counter", "Keys not found.", counters.misses.load(Relaxed));
    tell("failures_total", "counter", "Reads that failed.", counters.failures.load(Relaxed));
    tell("connections", "gauge", "Redis connections open.", connected as u64);
    tell("connections_total", "counter", "Redis connections ever accepted.", accepted);
    tell(
        "connections_refused_total",
        "counter",
        "Refused: too many.",
        counters.refused.load(Relaxed),
    );
    tell(
        "attached",
        "gauge",
        "1: the NameNode's stream stands.",
        u64::from(*pages.attached.borrow()),
    );
    for (name, help) in [
        ("store_version", "Version that answers."),
        ("store_records", "Records of it."),
        ("store_bytes", "Bytes of its tables."),
    ] {
        write!(text, "# HELP granary_kvserve_{name} {help}\n# TYPE granary_kvserve_{name} gauge\n")
            .expect("writing to a string never fails");
        for (store, cell) in front.stores.all().iter() {
            let Some(version) = cell.view().current.clone() else { continue };
            let value = match name {
                "store_version" => version.number,
                "store_records" => version.records(),
                _ => version.bytes(),
            };
            let label = store.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            writeln!(text, "granary_kvserve_{name}{{store=\"{label}\"}} {value}")
                .expect("writing to a string never fails");
        }
    }
    text
}

/// Healthy: every store that this server knows answers.
async fn healthz(State(pages): State<Pages>) -> (StatusCode, String) {
    let stores = pages.front.stores.all();
    let silent: Vec<_> =
        stores.values().filter(|cell| cell.view().current.is_none()).map(|c| &c.name).collect();
    if silent.is_empty() {
        (StatusCode::OK, "ok\n".into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("stores without a serving version: {silent:?}\n"))
    }
}
