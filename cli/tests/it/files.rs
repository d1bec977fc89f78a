//! `granary fs` against a real cluster.

use crate::binary::Cluster;

#[test]
fn folders_go_in_and_come_out_as_they_were() {
    let cluster = Cluster::start(2);
    let large: Vec<u8> =
        (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    cluster.home.write("tree/a.txt", "a");
    cluster.home.write("tree/deep/er/b.bin", &large);
    cluster.home.write("tree/empty", "");
    cluster.run(&["fs", "put", "tree", "/"]).ok();
    let listed = cluster.run(&["fs", "ls", "-R", "--names", "/tree"]).ok();
    assert_eq!(
        listed.text(),
        "/tree/a.txt\n/tree/deep\n/tree/deep/er\n/tree/deep/er/b.bin\n/tree/empty\n"
    );
    cluster.run(&["fs", "get", "/tree", "back"]).ok();
    for name in ["a.txt", "deep/er/b.bin", "empty"] {
        let (before, after) =
            (cluster.home.path("tree").join(name), cluster.home.path("back").join(name));
        assert_eq!(std::fs::read(before).unwrap(), std::fs::read(after).unwrap(), "{name}");
    }
    // Nothing half-done is left on either side.
    let names = cluster.run(&["fs", "find", "/", "--name", "*_COPYING_*"]).ok();
    assert_eq!(names.text(), "");

    cluster.run(&["fs", "put", "tree/a.txt", "/tree"]).failed(4, "exists already");
    cluster.run(&["fs", "put", "-f", "tree/a.txt", "/tree"]).ok();
    cluster.run(&["fs", "get", "/tree/a.txt", "back/a.txt"]).failed(4, "exists already");
    // The name that was asked for is told, not one that stands for it while it is written.
    cluster.run(&["fs", "get", "/tree/a.txt", "no/where"]).failed(3, "granary: no: no such local");
    cluster.run(&["fs", "get", "/tree/deep/er/b.bin", "/dev/null"]).ok();
    cluster.run(&["fs", "put", "/tree"]).failed(2, "<DST>");
    cluster.run(&["fs", "rm", "/tree"]).failed(1, "-r");
    cluster.run(&["fs", "cp", "-r", "/tree", "/copy"]).ok();
    cluster.run(&["fs", "rm", "-r", "/tree"]).ok();
    cluster.run(&["fs", "ls", "/tree"]).failed(3, "/tree: no such file or folder");
    assert_eq!(cluster.run(&["fs", "cat", "/copy/deep/er/b.bin"]).ok().out, large);
}

#[test]
fn streams_patterns_and_questions() {
    let cluster = Cluster::start(1);
    cluster.run(&["fs", "mkdir", "/logs/2026"]).failed(3, "-p");
    cluster.run(&["fs", "mkdir", "-p", "/logs/2026"]).ok();
    for name in ["one.log", "two.log", "three.txt"] {
        let target = format!("/logs/2026/{name}");
        cluster.run_with(&["fs", "put", "-", &target], name.as_bytes()).ok();
    }
    assert_eq!(cluster.run(&["fs", "cat", "/logs/*/*.log"]).ok().text(), "one.logtwo.log");
    assert_eq!(
        cluster.run(&["fs", "get", "/logs/2026/{one,two}.log", "-"]).ok().text(),
        "one.logtwo.log"
    );
    cluster.run(&["fs", "ls", "/logs/*.none"]).failed(3, "nothing matches");

    cluster.run_with(&["fs", "append", "-", "/logs/2026/one.log"], b"\nmore\nlines\n").ok();
    let tail = cluster.run(&["fs", "tail", "-n", "2", "/logs/2026/one.log"]).ok();
    assert_eq!(tail.text(), "more\nlines\n");
    let head = cluster.run(&["fs", "head", "-n", "1", "/logs/2026/one.log"]).ok();
    assert_eq!(head.text(), "one.log\n");
    assert_eq!(cluster.run(&["fs", "head", "-c", "3", "/logs/2026/one.log"]).ok().text(), "one");

    assert_eq!(cluster.run(&["fs", "test", "-e", "/logs"]).code, 0);
    assert_eq!(cluster.run(&["fs", "test", "-f", "/logs"]).code, 1);
    assert_eq!(cluster.run(&["fs", "test", "-e", "/none"]).code, 1);

    let listed = cluster.run(&["fs", "ls", "--json", "/logs/2026"]).ok().json();
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    assert_eq!(names, ["/logs/2026/one.log", "/logs/2026/three.txt", "/logs/2026/two.log"]);
    assert_eq!(listed[1]["length"], 9);
    let du = cluster.run(&["fs", "du", "-s", "--json", "/logs"]).ok().json();
    assert_eq!((du[0]["files"].as_u64(), du[0]["length"].as_u64()), (Some(3), Some(35)));
    let df = cluster.run(&["fs", "df", "--json"]).ok().json();
    assert!(df["capacity_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn names_modes_and_owners_change() {
    let cluster = Cluster::start(1);
    cluster.run_with(&["fs", "put", "-", "/a"], b"abc").ok();
    cluster.run(&["fs", "mv", "/a", "/b"]).ok();
    cluster.run(&["fs", "cat", "/a"]).failed(3, "/a");
    cluster.run(&["fs", "chmod", "u+x,go-r", "/b"]).ok();
    cluster.run(&["fs", "chown", "ann:staff", "/b"]).ok();
    let stat = cluster.run(&["fs", "stat", "--json", "/b"]).ok().json();
    assert_eq!(stat[0]["mode"], "0700");
    assert_eq!(
        (stat[0]["owner"].as_str(), stat[0]["group"].as_str()),
        (Some("ann"), Some("staff"))
    );
    assert_eq!(stat[0]["kind"], "file");
    cluster.run(&["fs", "touch", "/empty"]).ok();
    cluster.run(&["fs", "mv", "/b", "/empty"]).failed(4, "/empty");
    cluster.run(&["fs", "mv", "-f", "/b", "/empty"]).ok();
    let sum = cluster.run(&["fs", "checksum", "/empty"]).ok();
    assert!(sum.text().contains("MD5-of-0MD5-of-512CRC32C"), "{}", sum.text());

    cluster.run(&["fs", "cat", "/a/../b"]).failed(2, "\"..\"");
    cluster.run(&["--user", "ann", "fs", "put", "/etc/hostname", "/root-only"]).failed(5, "ann");
    cluster.run(&["fs", "rm", "-r", "/"]).failed(2, "root");
    cluster.run(&["fs", "rm", "-f", "/none"]).ok();
}

#[test]
fn a_file_name_of_odd_characters_survives() {
    let cluster = Cluster::start(1);
    let name = "odd *[name] \u{e4}\u{1f600}.txt";
    cluster.home.write(name, "odd");
    cluster.run(&["fs", "put", name, "/"]).ok();
    assert_eq!(cluster.run(&["fs", "cat", &format!("/{name}")]).ok().text(), "odd");
}
