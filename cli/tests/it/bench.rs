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
