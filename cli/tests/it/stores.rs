//! Loading, reading, switching and rolling back stores.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::binary::Cluster;

/// One Redis command over a plain socket; gives the reply's bytes as far as `end` says.
fn redis(addr: &str, command: &str, end: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    stream.write_all(command.as_bytes()).unwrap();
    let mut reply = Vec::new();
    let mut byte = [0];
    while !reply.ends_with(end.as_bytes()) {
        stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} after {reply:?}"));
        reply.push(byte[0]);
    }
    String::from_utf8(reply).unwrap()
}

#[test]
fn a_local_file_is_loaded_read_switched_and_rolled_back() {
    let cluster = Cluster::start(1);
    cluster.home.write("one.tsv", "pear\t2\napple\t1\nplum\t3\n");
    cluster.run(&["load", "fruit", "one.tsv"]).ok();
    assert_eq!(cluster.run(&["get", "fruit", "apple"]).ok().text(), "1\n");
    cluster.run(&["get", "fruit", "none"]).failed(3, "none");
    let scanned = cluster.run(&["scan", "fruit", "--prefix", "p"]).ok();
    assert_eq!(scanned.text(), "pear\t2\nplum\t3\n");
    let json = cluster.run(&["get", "fruit", "apple", "--json"]).ok().json();
    assert_eq!(json, serde_json::json!([{"key": "apple", "value": "1"}]));
    let limited = cluster.run(&["scan", "fruit", "--limit", "1"]).ok();
    assert_eq!(limited.text(), "apple\t1\n");

    let addr = cluster.up.addr("redis");
    let reply = redis(addr, "*2\r\n$3\r\nGET\r\n$5\r\napple\r\n", "\r\n1\r\n");
    assert_eq!(reply, "$1\r\n1\r\n");

    cluster.run_with(&["load", "fruit", "-"], b"apple\t10\n").ok();
    assert_eq!(cluster.run(&["get", "fruit", "apple"]).ok().text(), "10\n");
    cluster.run(&["get", "fruit", "pear"]).failed(3, "pear");

    cluster.run(&["store", "rollback", "fruit"]).ok();
    assert_eq!(cluster.run(&["get", "fruit", "apple", "pear"]).ok().text(), "apple\t1\npear\t2\n");
    let stores = cluster.run(&["store", "ls", "--json"]).ok().json();
    assert_eq!(
        (stores[0]["name"].as_str(), stores[0]["current"].as_u64()),
        (Some("fruit"), Some(1))
    );
    let versions = cluster.run(&["store", "versions", "fruit", "--json"]).ok().json();
    assert_eq!(versions["versions"].as_array().unwrap().len(), 2);
    cluster.run(&["store", "activate", "fruit", "2"]).ok();
    assert_eq!(cluster.run(&["get", "fruit", "apple"]).ok().text(), "10\n");
    cluster.run(&["store", "versions", "none"]).failed(3, "none");
    cluster.run(&["store", "rm", "fruit"]).ok();
    assert_eq!(cluster.run(&["store", "ls", "--json"]).ok().json(), serde_json::json!([]));
}

#[test]
fn a_job_over_stored_files_is_loaded_and_answers() {
    let cluster = Cluster::start(1);
    cluster.home.write("texts/one.txt", "the quick brown fox\n");
    cluster.home.write("texts/two.txt", "the lazy dog\n");
    cluster.run(&["fs", "put", "texts", "/texts"]).ok();
    cluster.run(&["job", "inverted-index", "/texts", "--output", "/out"]).ok();
    cluster.run(&["load", "index", "/out"]).ok();
    let found = cluster.run(&["get", "index", "lazy"]).ok();
    assert!(found.text().contains("two.txt"), "{}", found.text());
    assert!(!found.text().contains("one.txt"), "{}", found.text());

    cluster.run(&["fs", "get", "/out", "tables"]).ok();
    let tables = std::fs::read_dir(cluster.home.path("tables")).unwrap();
    let tables: Vec<_> = tables.map(|entry| entry.unwrap().path()).collect();
    assert!(!tables.is_empty());
    for table in &tables {
        cluster.home.run(&["table", "verify", table.to_str().unwrap()]).ok();
        cluster.home.run(&["table", "stat", "--json", table.to_str().unwrap()]).ok().json();
    }
    let damaged = cluster.home.path("damaged.tbl");
    let mut bytes = std::fs::read(&tables[0]).unwrap();
    bytes.truncate(bytes.len() - 1);
    std::fs::write(&damaged, bytes).unwrap();
    cluster.home.run(&["table", "verify", damaged.to_str().unwrap()]).failed(7, "damaged");
}
