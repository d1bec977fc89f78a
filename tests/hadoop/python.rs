//! Clients in Python: `hdfs-native` over Hadoop's protocols; fsspec, PyPI's `hdfs` and curl over WebHDFS; pyarrow where
//! there is a libhdfs for it.

use std::time::Duration;

use crate::tools::{self, Running};

/// Runs a script of this folder with the cluster's addresses as arguments.
async fn run(script: &str) {
    let Some(tools) = tools::tools() else { return };
    let cluster = tools::granary(3).await;
    let mut python = std::process::Command::new(&tools.python);
    python.arg(tools::here().join(script)).arg(tools::uri(&cluster));
    python.arg(cluster.namenode().told("http")).env("HADOOP_USER_NAME", "root");
    let status = Running::start(&mut python).finish(Duration::from_secs(300)).await;
    assert!(status.success(), "{script} tells above what failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn hdfs_native_reads_and_writes() {
    run("native.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_fsspec_and_pypi_hdfs_speak_webhdfs() {
    let Some(tools) = tools::tools() else { return };
    let cluster = tools::granary(3).await;
    let http = format!("http://{}", cluster.namenode().told("http"));
    let mut python = std::process::Command::new(&tools.python);
    python.arg(tools::here().join("webhdfs.py")).arg("--namenode-http").arg(http);
    let status = Running::start(&mut python).finish(Duration::from_secs(300)).await;
    assert!(status.success(), "webhdfs.py tells above what failed");
}
