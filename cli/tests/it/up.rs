//! `granary up`: starting, finding, refusing, stopping, starting again.

use crate::binary::{Home, Up};

#[test]
fn a_cluster_is_found_by_its_folder_refuses_a_second_and_keeps_what_is_stored() {
    let home = Home::new();
    let dir = home.path("cluster");
    let dir_text = dir.to_str().unwrap();
    let up = Up::start(&home, &dir, &["--datanodes", "2"]);
    assert_eq!(up.addresses["datanodes"].as_array().unwrap().len(), 2);

    // Found by its folder, by an address, by the environment.
    let local = home.write("hello.txt", "hello\n");
    let put = ["--cluster", dir_text, "fs", "put", local.to_str().unwrap(), "/hello.txt"];
    home.run(&put).ok();
    let addr = up.addr("namenode").to_owned();
    assert_eq!(home.run(&["--cluster", &addr, "fs", "cat", "/hello.txt"]).ok().text(), "hello\n");
    let mut command = home.command(&["fs", "cat", "/hello.txt"]);
    let output = command.env("GRANARY_CLUSTER", dir_text).output().unwrap();
    assert_eq!(output.stdout, b"hello\n", "{output:?}");

    let status = home.run(&["--cluster", dir_text, "status", "--json"]).ok().json();
    assert_eq!(status["datanodes"].as_array().unwrap().len(), 2);
    assert_eq!(status["kvservers"].as_array().unwrap().len(), 1);
    assert_eq!(status["missing_blocks"], 0);
    home.run(&["--cluster", dir_text, "status"]).ok();

    let second = ["up", "--dir", dir_text, "--port-base", "0"];
    home.run(&second).failed(4, "in use by process");

    assert_eq!(up.terminate(), Some(0));
    assert!(!dir.join("cluster.json").exists());
    home.run(&["--cluster", dir_text, "fs", "ls", "/"]).failed(6, "no cluster runs");

    let up = Up::start(&home, &dir, &["--datanodes", "2"]);
    let cat = ["--cluster", dir_text, "fs", "cat", "/hello.txt"];
    assert_eq!(home.run(&cat).ok().text(), "hello\n");
    assert_eq!(up.terminate(), Some(0));
}

#[test]
fn a_port_in_use_names_the_setting_and_the_way_out() {
    let home = Home::new();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let set = format!("namenode.grpc_addr={}", held.local_addr().unwrap());
    let dir = home.path("cluster");
    let args = ["up", "--dir", dir.to_str().unwrap(), "--port-base", "0", "--set", &set];
    home.run(&args).failed(1, "grpc_addr");
}
