//! Tables, loaded and served: switched and rolled back while clients read, refused when damaged.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use client::Fs;
use client::kv::KvClient;
use client::load;
use tests::cluster::{Cluster, Options, path};

const KEYS: u64 = 2_000;

/// Two tables over all slots: every value tells its version.
async fn write_tables(fs: &Fs, folder: &str, version: u64) {
    fs.mkdirs(&path(folder), 0o755).await.expect("mkdirs");
    let mut keys: Vec<String> = (0..KEYS).map(|index| format!("key-{index}")).collect();
    keys.sort();
    for (part, slots) in [0..8192u16, 8192..16384].into_iter().enumerate() {
        let mut table = sstable::TableWriter::new(Vec::new(), sstable::WriterOptions::default())
            .expect("begin");
        let slots_text = format!("{}-{}", slots.start, slots.end - 1);
        table.set_property("granary.slots", slots_text).expect("property");
        for key in keys.iter().filter(|key| slots.contains(&sstable::slot::slot_of(key.as_bytes())))
        {
            let value = format!("{key} of version {version}");
            table.add(key.as_bytes(), value.as_bytes()).expect("add");
        }
        let (bytes, _) = table.finish().expect("finish");
        fs.write_all(&path(&format!("{folder}/part-{part:05}.tbl")), &bytes).await.expect("write");
    }
}

async fn publish(fs: &Fs, folder: &str) -> proto::Result<u64> {
    load::publish_folder(fs, "store", &path(folder), load::Options::default(), |_| ()).await
}

fn served() -> Options {
    Options { kvservers: 2, ..Options::default() }
}

/// Asks for `keys` until told to stop; every answer must be whole, and from one version.
async fn read_until_stopped(kv: KvClient, stop: Arc<AtomicBool>, reads: Arc<AtomicU64>) {
    let keys: Vec<Vec<u8>> = (0..10).map(|index| format!("key-{index}").into_bytes()).collect();
    while !stop.load(Ordering::Relaxed) {
        let values = kv.multi_get(&keys).await.expect("a read never fails");
        let versions: Vec<u64> = values.iter().map(version_of).collect();
        assert!(versions.iter().all(|version| *version == versions[0]), "mixed: {versions:?}");
        reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// The version that a value tells.
fn version_of(value: &Option<bytes::Bytes>) -> u64 {
    let text = std::str::from_utf8(value.as_ref().expect("present")).expect("text");
    text.rsplit(' ').next().expect("a version").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_switched_and_rolled_back_under_load_without_a_failed_or_mixed_read() {
    let cluster = Cluster::start(served()).await;
    let fs = cluster.fs().await;
    write_tables(&fs, "/out/v1", 1).await;
    assert_eq!(publish(&fs, "/out/v1").await.expect("publish"), 1);

    let stop = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU64::new(0));
    let kv = KvClient::connect(&fs, "store").await.expect("connect");
    let reader = tokio::spawn(read_until_stopped(kv, stop.clone(), reads.clone()));
    for version in 2..=4 {
        write_tables(&fs, &format!("/out/v{version}"), version).await;
        assert_eq!(publish(&fs, &format!("/out/v{version}")).await.expect("publish"), version);
        // The job's folder may go: the store has its own names for the tables.
        let folder = path(&format!("/out/v{version}"));
        fs.delete(&folder, client::Recursion::Yes).await.expect("delete");
    }
    fs.catalogue().activate("store", 0).await.expect("rollback");
    let kv = KvClient::connect(&fs, "store").await.expect("connect");
    tests::wait::until("rolled back", Duration::from_secs(10), async || {
        (version_of(&kv.get(b"key-7").await.expect("get")) == 3).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    reader.await.expect("the reader saw nothing wrong");
    assert!(reads.load(Ordering::Relaxed) > 100, "too few reads to show anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_table_is_refused_and_the_old_version_goes_on_serving() {
    let cluster = Cluster::start(served()).await;
    let fs = cluster.fs().await;
    write_tables(&fs, "/good", 1).await;
    publish(&fs, "/good").await.expect("publish");
    write_tables(&fs, "/bad", 2).await;
    let table = path("/bad/part-00001.tbl");
    let whole = fs.read_all(&table, 1 << 30).await.expect("read").to_vec();

    // A flipped bit among the records: the footer is good, so the servers must find it.
    let mut flipped = whole.clone();
    flipped[1000] ^= 4;
    // Cut in the middle, and cut by its last byte.
    let cuts = [whole[..whole.len() / 2].to_vec(), whole[..whole.len() - 1].to_vec()];
    for damaged in [vec![flipped], cuts.to_vec()].concat() {
        fs.delete(&table, client::Recursion::No).await.expect("delete");
        fs.write_all(&table, &damaged).await.expect("write");
        let error = publish(&fs, "/bad").await.expect_err("a damaged table is refused");
        assert!(error.message.contains("part-00001.tbl"), "{error:?} should name the table");
        let kv = KvClient::connect(&fs, "store").await.expect("connect");
        assert_eq!(version_of(&kv.get(b"key-1").await.expect("get")), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_kvserve_serves_again_what_is_current_even_without_a_namenode() {
    let mut cluster = Cluster::start(served()).await;
    let fs = cluster.fs().await;
    for version in 1..=2 {
        write_tables(&fs, &format!("/v{version}"), version).await;
        publish(&fs, &format!("/v{version}")).await.expect("publish");
    }
    cluster.kill_kvserve(0);
    cluster.kill_namenode();
    cluster.start_kvserve(0);
    let value = redis_get(cluster.kvserve(0).told("redis"), "key-5").await;
    assert_eq!(value, "key-5 of version 2");
}

/// GET over a plain socket.
async fn redis_get(addr: &str, key: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    tests::wait::until("an answer", Duration::from_secs(20), async || {
        let mut socket = tokio::net::TcpStream::connect(addr).await.ok()?;
        let request = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
        socket.write_all(request.as_bytes()).await.ok()?;
        let mut reply = vec![0; 4096];
        let len = socket.read(&mut reply).await.ok()?;
        let reply = String::from_utf8_lossy(&reply[..len]).into_owned();
        let (_, value) = reply.strip_prefix('$')?.split_once("\r\n")?;
        Some(value.trim_end().to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_file_of_keys_and_values_is_sorted_built_and_served() {
    let cluster = Cluster::start(Options { kvservers: 1, ..Options::default() }).await;
    let fs = cluster.fs().await;
    let file = cluster.folder().join("data.tsv");
    let lines: String = (0..5_000).rev().map(|index| format!("k{index}\tv{index}\n")).collect();
    std::fs::write(&file, lines).expect("write");
    load_file(&fs, &file).await;
    let kv = KvClient::connect(&fs, "store").await.expect("connect");
    let values = kv.multi_get(&["k0", "k4999", "no"]).await.expect("get");
    let values: Vec<_> = values.iter().map(|value| value.as_deref()).collect();
    assert_eq!(values, [Some(&b"v0"[..]), Some(b"v4999"), None]);
}

async fn load_file(fs: &Fs, file: &Path) {
    let input = load::Input::File(file.to_owned());
    load::load_tsv(fs, "store", input, load::TsvOptions::default(), |_| ()).await.expect("load");
}
