//! `granary admin ec`, `granary fs put --ec`, and what `granary fs` tells of striped files.

use crate::binary::Cluster;

#[test]
fn folders_get_policies_and_files_are_coded_by_them() {
    let cluster = Cluster::start(3);
    cluster.home.write("a.txt", "some bytes");
    let listed = cluster.run(&["admin", "ec", "ls", "--json"]).ok().json();
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"RS-6-3-1024k") && names.contains(&"XOR-2-1-1024k"), "{names:?}");
    cluster.run(&["fs", "mkdir", "-p", "/coded/plain"]).ok();
    cluster.run(&["admin", "ec", "set", "xor-2-1", "/coded"]).ok();
    cluster.run(&["admin", "ec", "set", "replicated", "/coded/plain"]).ok();
    cluster.run(&["fs", "put", "a.txt", "/coded/a"]).ok();
    cluster.run(&["fs", "put", "a.txt", "/coded/plain/b"]).ok();
    cluster.run(&["fs", "put", "--ec", "rs-3-2", "a.txt", "/c"]).ok();
    let paths = ["/coded", "/coded/plain", "/coded/a", "/coded/plain/b", "/c"];
    let args = [&["admin", "ec", "get", "--json"], &paths[..]].concat();
    let got = cluster.run(&args).ok().json();
    let policies: Vec<_> = got.as_array().unwrap().iter().map(|one| &one["policy"]).collect();
    let (xor, none, rs) = ("XOR-2-1-1024k", "replicated", "RS-3-2-1024k");
    assert_eq!(policies, [xor, none, xor, none, rs]);
    assert_eq!((&got[1]["own"], &got[2]["own"]), (&true.into(), &false.into()));
    let stat = cluster.run(&["fs", "stat", "/coded/a", "--json"]).ok().json();
    assert_eq!(stat[0]["erasure_policy"], xor);
    assert!(cluster.run(&["fs", "stat", "/coded/a"]).ok().text().contains("XOR-2-1-1024k"));
    let long = cluster.run(&["fs", "ls", "/coded/a"]).ok();
    assert!(long.text().contains("  2+1  "), "{long:?}");
    cluster.run(&["fs", "cp", "/coded/a", "/copy"]).ok();
    let copy = cluster.run(&["fs", "stat", "/copy", "--json"]).ok().json();
    assert_eq!(copy[0]["erasure_policy"], xor, "a copy is as safe as what it is of");
    for path in ["/coded/a", "/coded/plain/b", "/c", "/copy"] {
        assert_eq!(cluster.run(&["fs", "cat", path]).ok().text(), "some bytes");
    }
    cluster.run(&["admin", "ec", "unset", "/coded"]).ok();
    let got = cluster.run(&["admin", "ec", "get", "--json", "/coded"]).ok().json();
    assert_eq!(got[0]["policy"], none);
    cluster.run(&["admin", "ec", "unset", "/coded"]).failed(3, "/coded");
}

#[test]
fn errors_name_what_is_wrong() {
    let cluster = Cluster::start(1);
    cluster.home.write("a.txt", "some bytes");
    cluster.run(&["admin", "ec", "set", "RS-9-9", "/"]).failed(2, "RS-10-4-1024k");
    cluster.run(&["fs", "put", "--ec", "LZ4", "a.txt", "/a"]).failed(2, "replicated");
    cluster.run(&["admin", "ec", "set", "rs-6-3", "/none"]).failed(3, "/none");
    cluster.run(&["admin", "ec", "disable", "rs-6-3"]).ok();
    cluster.run(&["admin", "ec", "set", "rs-6-3", "/"]).failed(1, "RS-6-3-1024k");
    cluster.run(&["admin", "ec", "enable", "rs-6-3"]).ok();
    cluster.run(&["admin", "ec", "set", "rs-6-3", "/"]).ok();
    let put = cluster.run(&["fs", "put", "a.txt", "/a"]);
    assert!(put.code != 0, "one DataNode is too few for six units: {put:?}");
    cluster.run(&["admin", "ec", "enable", "replicated"]).failed(2, "name a policy");
    cluster.run(&["admin", "ec", "convert", "xor-2-1", "/none"]).failed(3, "/none");
    cluster.run(&["fs", "put", "--ec", "replicated", "a.txt", "/r"]).ok();
    let few = "XOR-2-1-1024k spreads a file over 3 DataNodes, and 1 are alive";
    cluster.run(&["admin", "ec", "convert", "xor-2-1", "/r"]).failed(8, few);
    assert_eq!(cluster.run(&["fs", "cat", "/r"]).ok().text(), "some bytes");
}

#[test]
fn a_tree_is_converted_once_and_a_dry_run_changes_nothing() {
    let cluster = Cluster::start(3);
    let text = "a line that is stored again and again\n".repeat(60_000);
    cluster.home.write("a.txt", &text);
    cluster.run(&["fs", "mkdir", "-p", "/t/below"]).ok();
    for path in ["/t/a", "/t/below/b"] {
        cluster.run(&["fs", "put", "a.txt", path]).ok();
    }
    cluster.run(&["fs", "touch", "/t/empty"]).ok();
    let convert = |more: &[&str]| cluster.run(&[&["admin", "ec", "convert"], more].concat());
    let dry = convert(&["--dry-run", "xor-2-1", "/t"]).ok();
    assert!(dry.text().contains("/t/below/b: 2.2 MiB, replicated\n"), "{dry:?}");
    assert!(dry.text().ends_with("3 files (4.3 MiB) would become XOR-2-1-1024k\n"), "{dry:?}");
    let stat = cluster.run(&["fs", "stat", "/t/a", "--json"]).ok().json();
    assert_eq!(stat[0]["erasure_policy"], "replicated");
    let done = convert(&["xor-2-1", "/t"]).ok();
    assert_eq!(done.text(), "3 files (4.3 MiB) became XOR-2-1-1024k\n");
    let again = convert(&["--json", "xor-2-1", "/t"]).ok().json();
    assert_eq!((&again["converted_files"], &again["already_so"]), (&0.into(), &3.into()));
    for path in ["/t/a", "/t/below/b"] {
        assert_eq!(cluster.run(&["fs", "cat", path]).ok().text(), text);
        let stat = cluster.run(&["fs", "stat", path, "--json"]).ok().json();
        assert_eq!(stat[0]["erasure_policy"], "XOR-2-1-1024k");
    }
    let listed = cluster.run(&["fs", "ls", "-R", "-1", "/t"]).ok();
    assert_eq!(listed.text(), "/t/a\n/t/below\n/t/below/b\n/t/empty\n", "no copy is left");
    convert(&["replicated", "--replication", "2", "/t/a"]).ok();
    let stat = cluster.run(&["fs", "stat", "/t/a", "--json"]).ok().json();
    assert_eq!(
        (&stat[0]["erasure_policy"], &stat[0]["replication"]),
        (&"replicated".into(), &2.into())
    );
    assert_eq!(cluster.run(&["fs", "cat", "/t/a"]).ok().text(), text);
}
