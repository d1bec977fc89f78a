//! The configuration as a user meets it.

use crate::binary::Home;

#[test]
fn an_unknown_key_names_file_line_and_the_nearest_key() {
    let home = Home::new();
    home.write("granary.toml", "[namenode]\n# a comment\nreplicaton = 2\n");
    let ran = home.run(&["config"]).failed(2, "granary.toml:3: unknown key \"replicaton\"");
    assert!(ran.err.contains("did you mean \"replication\"?"), "{}", ran.err);
    home.write("granary.toml", "[namenod]\n");
    let ran = home.run(&["config"]).failed(2, "granary.toml:1: unknown section [namenod]");
    assert!(ran.err.contains("did you mean \"namenode\"?"), "{}", ran.err);
}

#[test]
fn a_section_or_key_that_is_asked_for_and_unknown_names_the_nearest_of_its_kind() {
    let home = Home::new();
    let ran = home.run(&["config", "nope"]).failed(2, "unknown section [nope]");
    assert!(ran.err.contains("known here: cluster, namenode, "), "{}", ran.err);
    let ran = home.run(&["config", "client.replicaton"]).failed(2, "\"replicaton\" in [client]");
    assert!(ran.err.contains("did you mean \"replication\"?"), "{}", ran.err);
}

#[test]
fn later_layers_win_and_config_tells_where_from() {
    let home = Home::new();
    let file =
        home.write("some.toml", "[namenode]\nreplication = 2\nhttp_addr = \"127.0.0.1:1\"\n");
    let file = file.to_str().unwrap();
    let shown = |args: &[&str], environment: Option<(&str, &str)>| -> (String, String) {
        let mut command = home.command(args);
        command.envs(environment);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let one = &all.as_array().unwrap()[0];
        (one["value"].to_string(), one["origin"].as_str().unwrap().to_owned())
    };
    let key = "namenode.replication";
    let json = ["config", "--json", key];
    assert_eq!(shown(&json, None), ("3".into(), "default".into()));
    let with_file = ["--config", file, "config", "--json", key];
    assert_eq!(shown(&with_file, None), ("2".into(), format!("{file}:2")));
    let environment = Some(("GRANARY_NAMENODE_REPLICATION", "1"));
    let expected = ("1".into(), "environment GRANARY_NAMENODE_REPLICATION".into());
    assert_eq!(shown(&with_file, environment), expected);
    let with_flag = ["--config", file, "--set", "namenode.replication=4", "config", "--json", key];
    let expected = ("4".into(), "flag --set namenode.replication".into());
    assert_eq!(shown(&with_flag, environment), expected);
}

#[test]
fn the_example_is_a_file_that_is_accepted() {
    let home = Home::new();
    let example = home.run(&["config", "--example"]).ok();
    // The same with every key in force.
    let text: String = example
        .text()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') && key.contains(" = ") => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let file = home.write("granary.toml", text);
    let ran = home.run(&["config"]).ok();
    assert!(ran.text().contains(&format!("# {}:", file.file_name().unwrap().to_str().unwrap())));
    assert!(!ran.text().contains("# default"), "{}", ran.text());
}

#[test]
fn sizes_and_times_are_read_as_people_write_them() {
    let home = Home::new();
    let args = ["--set", "namenode.block_bytes=64MiB", "config", "--json", "namenode.block_bytes"];
    assert_eq!(home.run(&args).ok().json()[0]["value"], 64 << 20);
    let args = ["--set", "namenode.heartbeat_interval_ms=2s", "config", "namenode"];
    assert!(home.run(&args).ok().text().contains("heartbeat_interval_ms = 2000"));
    home.run(&["--set", "namenode.block_bytes=lots", "config"]).failed(2, "namenode.block_bytes");
    home.run(&["--set", "nonsense", "config"]).failed(2, "section.key=value");
}

#[test]
fn an_address_beyond_loopback_needs_insecure() {
    let home = Home::new();
    let dir = home.path("nn");
    let args = ["namenode", "--dir", dir.to_str().unwrap(), "--grpc-addr", "0.0.0.0:0"];
    let ran = home.run(&args).failed(2, "namenode.grpc_addr = \"0.0.0.0:0\" (flag --grpc-addr)");
    assert!(ran.err.contains("--insecure"), "{}", ran.err);
    assert!(!dir.exists(), "nothing was started");
}

#[test]
fn a_cluster_that_does_not_answer_is_told_with_address_and_origin() {
    let home = Home::new();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let addr = format!("127.0.0.1:{port}");
    let quick = ["--set", "client.connect_total_ms=200", "--cluster", &addr, "fs", "ls", "/"];
    let ran = home.run(&quick).failed(6, &format!("no cluster answers at {addr} (--cluster)"));
    assert!(ran.err.contains("granary up --dir"), "{}", ran.err);
    assert!(ran.err.contains("Connection refused"), "{}", ran.err);
    assert_eq!(ran.err.matches(&addr).count(), 1, "{}", ran.err);
    let folder = home.path("none");
    let args = ["--cluster", folder.to_str().unwrap(), "fs", "ls", "/"];
    home.run(&args).failed(6, "no cluster runs in this folder");
    let config = format!("[client]\nnamenode = \"{addr}\"\nconnect_total_ms = 200\n");
    home.write("granary.toml", config);
    let said = format!("no cluster answers at {addr} (client.namenode, granary.toml:2)");
    home.run(&["status"]).failed(6, &said);
}
