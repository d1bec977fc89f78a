//! Versions come, switch, fail and go while readers read; a restart serves what served.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::testing::{LocalFiles, build, records, small_limits, wait_for};

struct Bench {
    sources: tempfile::TempDir,
    dir: tempfile::TempDir,
    files: LocalFiles,
}

struct Running {
    client: EngineClient,
    task: JoinHandle<()>,
    stores: Arc<Stores>,
}

impl Bench {
    fn new() -> Self {
        let (sources, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Self { sources, dir, files: LocalFiles::default() }
    }

    fn tables(&self, version: u64, count: u16) -> Arc<[TableSpec]> {
        let name = format!("v{version}");
        build(self.sources.path(), &name, count, &records(200, version))
    }

    async fn start(&self) -> Running {
        let stores = Arc::new(Stores::new(""));
        let folder = Arc::new(Folder::open(self.dir.path()).unwrap());
        let fetcher = Arc::new(Fetcher::new(self.files.origin(), small_limits()));
        let pauses = Pauses { retry_ms_min: 1, retry_ms_max: 10, failed_retry_ms: 100_000 };
        let verify_threads = 2;
        let parts =
            Parts { folder, stores: stores.clone(), fetcher, verify_threads, warm: true, pauses };
        let (client, task) = start(parts).await.unwrap();
        Running { client, task, stores }
    }
}

impl Running {
    async fn assign(&self, txid: u64, current: u64, versions: &[(u64, Arc<[TableSpec]>)]) {
        let versions = versions.to_vec();
        let store = Assignment { store: "s".into(), current, versions };
        self.client.assign(txid, vec![store]).await.unwrap();
    }

    fn get(&self, key: &str) -> Option<String> {
        let view = self.stores.get("s").ok()?.view().clone();
        let value = view.current.as_ref()?.get(key.as_bytes()).unwrap()?.to_vec();
        Some(String::from_utf8(value).unwrap())
    }

    async fn phase(&self, number: u64, phase: Phase) -> Report {
        let reports = self.client.reports();
        wait_for(&format!("version {number} is {phase:?}"), || {
            let reports = reports.borrow().clone();
            reports.iter().find(|r| r.id.number == number && r.phase == phase).cloned()
        })
        .await
    }

    async fn stop(self) {
        self.client.stop().await;
        self.task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_from_one_version_however_often_it_is_switched() {
    let bench = Bench::new();
    let running = bench.start().await;
    // Different partitions on purpose.
    let versions: Vec<_> = [(1, 1), (2, 3)].map(|(v, t)| (v, bench.tables(v, t))).to_vec();
    running.assign(1, 1, &versions).await;
    running.phase(1, Phase::Serving).await;
    running.phase(2, Phase::Ready).await;
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (stores, stop) = (running.stores.clone(), stop.clone());
            std::thread::spawn(move || {
                let keys: Vec<String> = (0..200).map(|n| format!("k{n}")).collect();
                let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
                let mut seen = [0_u64; 3];
                while !stop.load(Ordering::Relaxed) {
                    let view = stores.get("s").unwrap().view().clone();
                    let version = view.current.clone().expect("there is no gap in service");
                    let values = version.multi_get(&keys).unwrap();
                    for (n, value) in values.iter().enumerate() {
                        let expected = format!("v{}-{n}", version.number);
                        assert_eq!(value.as_deref(), Some(expected.as_bytes()), "a mixed answer");
                    }
                    seen[version.number as usize] += 1;
                }
                seen
            })
        })
        .collect();
    for txid in 2..102 {
        let current = 1 + txid % 2;
        running.assign(txid, current, &versions).await;
        running.phase(current, Phase::Serving).await;
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        let seen = reader.join().unwrap();
        assert!(seen[1] + seen[2] > 0);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_served_serves_again_after_a_restart_without_the_namenode() {
    let bench = Bench::new();
    let running = bench.start().await;
    let versions: Vec<_> = [1, 2].map(|v| (v, bench.tables(v, 2))).to_vec();
    running.assign(1, 2, &versions).await;
    running.phase(2, Phase::Serving).await;
    running.phase(1, Phase::Ready).await;
    running.stop().await;
    let served = bench.files.served.load(Ordering::SeqCst);

    let running = bench.start().await;
    assert_eq!(running.get("k7").as_deref(), Some("v2-7"), "before anybody was asked");
    running.assign(1, 1, &versions).await;
    running.phase(1, Phase::Serving).await;
    assert_eq!(running.get("k7").as_deref(), Some("v1-7"), "rolled back");
    assert_eq!(bench.files.served.load(Ordering::SeqCst), served, "nothing is fetched twice");
    running.stop().await;

    // A table that was damaged while the server was down: that version does not come back by itself.
    let table = bench.dir.path().join("stores/s/v1/part-00000.tbl");
    let bytes = std::fs::read(&table).unwrap();
    std::fs::remove_file(&table).unwrap();
    std::fs::write(&table, &bytes[..bytes.len() - 9]).unwrap();
    let running = bench.start().await;
    assert_eq!(running.get("k7"), None);
    running.assign(2, 1, &versions).await;
    running.phase(1, Phase::Serving).await;
    assert_eq!(running.get("k7").as_deref(), Some("v1-7"), "it was fetched again");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_version_is_refused_by_name_and_the_old_one_goes_on_serving() {
    let bench = Bench::new();
    let running = bench.start().await;
    let one = (1, bench.tables(1, 1));
    running.assign(1, 1, std::slice::from_ref(&one)).await;
    running.phase(1, Phase::Serving).await;
    let two = (2, bench.tables(2, 1));
    let mut bytes = std::fs::read(&two.1[0].path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&two.1[0].path, &bytes).unwrap();
    running.assign(2, 1, &[one.clone(), two.clone()]).await;
    let report = running.phase(2, Phase::Failed).await;
    assert!(report.error.contains("v2-0.tbl"), "{}", report.error);
    assert_eq!(running.get("k1").as_deref(), Some("v1-1"));
    // Mended at the origin and published again, it serves.
    bytes[100] ^= 1;
    std::fs::write(&two.1[0].path, &bytes).unwrap();
    running.assign(3, 3, &[one, (3, two.1)]).await;
    running.phase(3, Phase::Serving).await;
    assert_eq!(running.get("k1").as_deref(), Some("v2-1"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_dropped_version_stay_until_the_last_request_has_ended() {
    let bench = Bench::new();
    let running = bench.start().await;
    let versions: Vec<_> = [1, 2].map(|v| (v, bench.tables(v, 1))).to_vec();
    running.assign(1, 1, &versions).await;
    running.phase(1, Phase::Serving).await;
    running.phase(2, Phase::Ready).await;
    let request = running.stores.get("s").unwrap().view().current.clone().unwrap();
    running.assign(2, 2, &versions[1..]).await;
    running.phase(2, Phase::Serving).await;
    let trash = bench.dir.path().join("trash");
    let in_trash = || std::fs::read_dir(&trash).unwrap().count();
    wait_for("version 1 is out of the way", || (in_trash() == 1).then_some(())).await;
    assert!(!bench.dir.path().join("stores/s/v1").exists());
    assert_eq!(request.get(b"k3").unwrap().as_deref(), Some(&b"v1-3"[..]));
    assert_eq!(in_trash(), 1);
    drop(request);
    wait_for("the files are deleted", || (in_trash() == 0).then_some(())).await;

    running.client.assign(3, Vec::new()).await.unwrap();
    let stores = running.stores.clone();
    wait_for("the store is gone", || stores.get("s").is_err().then_some(())).await;
    let left = bench.dir.path().join("stores/s");
    wait_for("its folder is gone", || (!left.exists()).then_some(())).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_goes_on_by_itself_when_the_cluster_is_back() {
    let bench = Bench::new();
    bench.files.fail_after.store(2_000, Ordering::SeqCst);
    let running = bench.start().await;
    running.assign(1, 1, &[(1, bench.tables(1, 1))]).await;
    let reports = running.client.reports();
    wait_for("the failure is told", || {
        let reports = reports.borrow().clone();
        reports.first().filter(|r| r.error.contains("told to fail")).map(|_| ())
    })
    .await;
    bench.files.fail_after.store(0, Ordering::SeqCst);
    running.phase(1, Phase::Serving).await;
    running.stop().await;
}
