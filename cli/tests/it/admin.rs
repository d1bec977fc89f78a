//! `granary admin` against a real cluster.

use crate::binary::Cluster;

#[test]
fn a_check_of_files_tells_health_by_its_exit_code() {
    let cluster = Cluster::start(1);
    cluster.home.write("a.txt", "some bytes");
    cluster.run(&["fs", "mkdir", "-p", "/d"]).ok();
    cluster.run(&["fs", "put", "a.txt", "/d/a"]).ok();
    let plain = cluster.run(&["admin", "fsck"]).ok();
    assert!(plain.text().ends_with("healthy\n"), "{plain:?}");
    assert!(plain.text().contains("1 file in 2 folders, 10 B in 1 block: "), "{plain:?}");
    let files = cluster.run(&["admin", "fsck", "/d", "--files", "--blocks", "--locations"]).ok();
    assert!(files.text().starts_with("/d/\n/d/a  10 B in 1 block: "), "{files:?}");
    assert!(files.text().contains("  blk_") && files.text().contains("127.0.0.1:"), "{files:?}");
    let json = cluster.run(&["admin", "fsck", "--files", "--json"]).ok();
    let lines: Vec<serde_json::Value> =
        json.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["folder"], "/");
    assert_eq!(lines[2]["file"], "/d/a");
    assert_eq!(lines[3]["sums"]["healthy"], true);
    cluster.run(&["admin", "fsck", "/none"]).failed(3, "File does not exist: /none");
    cluster.run(&["admin", "fsck", "--locations"]).failed(2, "--blocks");
}

#[test]
fn quotas_are_set_listed_enforced_and_cleared() {
    let cluster = Cluster::start(1);
    cluster.home.write("a.txt", "some bytes");
    cluster.run(&["fs", "mkdir", "-p", "/q"]).ok();
    cluster.run(&["admin", "quota", "set", "--names", "2", "--space", "1GiB", "/q"]).ok();
    cluster.run(&["fs", "put", "a.txt", "/q/a"]).ok();
    cluster.run(&["fs", "put", "a.txt", "/q/b"]).failed(8, "NameSpace quota");
    let listed = cluster.run(&["admin", "quota", "ls", "--json"]).ok().json();
    assert_eq!(listed[0]["path"], "/q");
    assert_eq!((&listed[0]["names"], &listed[0]["names_used"]), (&2.into(), &2.into()));
    assert_eq!(listed[0]["space"], 1u64 << 30);
    cluster.run(&["admin", "quota", "clear", "--names", "/q"]).ok();
    cluster.run(&["fs", "put", "a.txt", "/q/b"]).ok();
    let listed = cluster.run(&["admin", "quota", "ls", "/q", "--json"]).ok().json();
    assert_eq!((&listed[0]["names"], &listed[0]["names_used"]), (&().into(), &3.into()));
    cluster.run(&["admin", "quota", "set", "--space", "1", "--type", "ssd", "/q"]).ok();
    let listed = cluster.run(&["admin", "quota", "ls"]).ok();
    assert!(listed.text().contains("SSD 1 B"), "{listed:?}");
    cluster.run(&["admin", "quota", "clear", "/q"]).ok();
    cluster.run(&["admin", "quota", "clear", "--type", "ssd", "/q"]).ok();
    assert_eq!(cluster.run(&["admin", "quota", "ls", "--json"]).ok().json(), serde_json::json!([]));
    cluster.run(&["admin", "quota", "set", "--names", "2", "/none"]).failed(3, "/none");
    cluster.run(&["admin", "quota", "set", "/q"]).failed(2, "--names");
    let other = ["--user", "nobody", "admin", "quota", "set", "--names", "2", "/q"];
    cluster.run(&other).failed(5, "Superuser privilege is required");
}

#[test]
fn safe_mode_is_entered_shown_waited_for_and_left() {
    let cluster = Cluster::start(1);
    let get = || cluster.run(&["admin", "safemode", "get"]);
    assert_eq!(get().ok().text(), "safe mode is OFF\n");
    cluster.run(&["admin", "safemode", "enter"]).ok();
    let on = get().failed(1, "");
    assert!(on.text().starts_with("safe mode is ON: "), "{on:?}");
    let report = cluster.run(&["admin", "report"]).ok();
    assert!(report.text().starts_with("safe mode is ON"), "{report:?}");
    cluster.run(&["admin", "safemode", "wait", "--timeout", "300ms"]).failed(6, "still on");
    cluster.run(&["admin", "safemode", "leave"]).ok();
    cluster.run(&["admin", "safemode", "wait"]).ok();
    let denied = cluster.run(&["--user", "nobody", "admin", "safemode", "enter"]);
    denied.failed(5, "Superuser privilege is required");
}

#[test]
fn a_report_names_each_datanode_and_a_checkpoint_its_transaction() {
    let cluster = Cluster::start(2);
    let report = cluster.run(&["admin", "report"]).ok();
    assert!(report.text().contains("\nDataNodes: 2 live, 0 dead\n"), "{report:?}");
    let json = cluster.run(&["admin", "report", "--live", "--json"]).ok().json();
    assert_eq!(json["live_datanodes"], 2);
    assert_eq!(json["datanodes"][0]["alive"], true);
    assert!(json["datanodes"][0]["volumes"][0]["capacity_bytes"].as_u64().unwrap() > 0);
    let dead = cluster.run(&["admin", "report", "--dead", "--json"]).ok().json();
    assert_eq!(dead["datanodes"], serde_json::json!([]));
    cluster.run(&["fs", "mkdir", "/d"]).ok();
    let written = cluster.run(&["admin", "checkpoint"]).ok();
    assert!(written.text().starts_with("checkpoint of transaction "), "{written:?}");
    assert_eq!(cluster.run(&["admin", "lease", "ls", "--json"]).ok().json(), serde_json::json!([]));
    cluster.run(&["admin", "lease", "recover", "/none"]).failed(3, "/none");
}

#[test]
fn snapshots_are_allowed_made_compared_read_renamed_and_removed() {
    let cluster = Cluster::start(1);
    cluster.home.write("a.txt", "some bytes");
    cluster.run(&["fs", "mkdir", "-p", "/s"]).ok();
    let snapshot = |args: &[&str]| cluster.run(&[&["admin", "snapshot"], args].concat());
    snapshot(&["create", "/s", "one"]).failed(4, "not a snapshottable directory");
    snapshot(&["allow", "/s"]).ok();
    assert_eq!(snapshot(&["create", "/s", "one"]).ok().text(), "/s/.snapshot/one\n");
    cluster.run(&["fs", "put", "a.txt", "/s/a"]).ok();
    snapshot(&["create", "/s", "two"]).ok();
    assert_eq!(snapshot(&["diff", "/s", "one", "two"]).ok().text(), "M  .\n+  a\n");
    cluster.run(&["fs", "rm", "/s/a"]).ok();
    let kept = cluster.run(&["fs", "cat", "/s/.snapshot/two/a"]).ok();
    assert_eq!(kept.text(), "some bytes");
    snapshot(&["rename", "/s", "one", "first"]).ok();
    let listed = snapshot(&["ls", "/s", "--json"]).ok().json();
    assert_eq!((&listed[0]["name"], &listed[1]["name"]), (&"first".into(), &"two".into()));
    let folders = snapshot(&["ls", "--json"]).ok().json();
    assert_eq!((&folders[0]["path"], &folders[0]["snapshots"]), (&"/s".into(), &2.into()));
    snapshot(&["rm", "/s", "first"]).ok();
    snapshot(&["rm", "/s", "two"]).ok();
    snapshot(&["disallow", "/s"]).ok();
}
