//! The benchmark works, whatever its figures are: it runs on its own cluster, measures everything and leaves nothing.

use crate::binary::Home;

#[test]
fn a_small_benchmark_measures_everything_and_leaves_nothing_behind() {
    let home = Home::new();
    let dir = home.path("bench");
    std::fs::create_dir(&dir).unwrap();
    let dir_arg = dir.to_str().unwrap();
    let told = home.run(&["bench", "--small", "--json", "--dir", dir_arg]).ok().json();
    assert_eq!(told["reference"], serde_json::Value::Null);
    for (part, least) in [("machine", 9), ("granary", 19)] {
        let figures = told[part].as_object().unwrap();
        assert_eq!(figures.len(), least, "{part}");
        for (name, figure) in figures {
            assert!(figure["median"].as_f64().unwrap() > 0.0, "{part} {name}: {figure}");
        }
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn the_namespace_benchmark_tells_bytes_per_file() {
    let home = Home::new();
    let args = ["bench", "namespace", "--files", "20000", "--json"];
    let told = home.run(&args).ok().json();
    assert_eq!(told["files"], 20_000);
    for name in ["accounted_bytes_per_file", "operations_per_second", "replayed_per_second"] {
        assert!(told[name].as_f64().unwrap() > 0.0, "{name}: {told}");
    }
}

#[cfg(not(feature = "reference"))]
#[test]
fn a_reference_without_its_client_is_an_error_that_says_how_to_get_it() {
    let home = Home::new();
    let args = ["bench", "--small", "--reference", "hdfs://127.0.0.1:1"];
    home.run(&args).failed(2, "--features reference");
    home.run(&["bench", "hadoop"]).failed(2, "--features reference");
}

#[test]
fn the_erasure_benchmark_tells_what_each_policy_and_striped_files_give() {
    let home = Home::new();
    let dir = home.path("bench");
    std::fs::create_dir(&dir).unwrap();
    let dir_arg = dir.to_str().unwrap();
    let args = ["bench", "erasure", "--small", "--json", "--policy", "rs-3-2", "--datanodes", "5"];
    let told = home.run(&[&args[..], &["--dir", dir_arg]].concat()).ok().json();
    let coding = told["coding"].as_array().unwrap();
    for policy in ["RS-6-3-1024k", "RS-3-2-1024k", "XOR-2-1-1024k", "RS-10-4-1024k"] {
        let one = coding.iter().find(|one| one["policy"] == policy).unwrap();
        for name in ["encode_cells", "encode_strips", "decode_one_lost", "decode_all_lost"] {
            assert!(one[name].as_f64().unwrap() > 0.0, "{policy} {name}");
        }
    }
    let files = told["files"].as_array().unwrap();
    assert_eq!(files.len(), 3);
    for one in files {
        for name in ["striped", "replicated"] {
            assert!(one[name].as_f64().unwrap() > 0.0, "{one}");
        }
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    home.run(&["bench", "erasure", "--policy", "replicated"]).failed(2, "--policy");
}
