//! Clients in Python: `hdfs-native` over Hadoop's protocols, pyarrow by Hadoop's libhdfs; fsspec, PyPI's `hdfs` and curl
//! over WebHDFS.

use std::path::Path;
use std::time::Duration;

use crate::tools::{self, Running, Tools};

/// Runs a script of this folder with the cluster's address as its argument.
async fn run(tools: &Tools, script: &str, env: &[(&str, String)]) {
    let cluster = tools::granary(3).await;
    let mut python = std::process::Command::new(&tools.python);
    python.arg(tools::here().join(script)).arg(tools::uri(&cluster));
    python.env("HADOOP_USER_NAME", "root").envs(env.iter().cloned());
    let status = Running::start(&mut python).finish(Duration::from_secs(300)).await;
    assert!(status.success(), "{script} tells above what failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn hdfs_native_reads_and_writes() {
    let Some(tools) = tools::tools() else { return };
    run(tools, "native.py", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pyarrow_reads_and_writes_by_libhdfs() {
    let Some(tools) = tools::tools() else { return };
    if tools.libhdfs.as_os_str().is_empty() {
        println!(
            "skipped, because libhdfs, which pyarrow calls, could not be built: run tests/hadoop/fetch"
        );
        return;
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let env = [
        ("ARROW_LIBHDFS_DIR", text(&tools.libhdfs)),
        ("JAVA_HOME", text(&tools.java_home)),
        ("CLASSPATH", tools.jars_of_client()),
    ];
    run(tools, "arrow.py", &env).await;
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
