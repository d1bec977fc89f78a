//! `hdfs dfs`: the same scripts against Granary and HDFS give the same output and exit codes.

use std::time::Duration;

use crate::reference::Reference;
use crate::tools::{self, Running, Tools};

fn scripts(folder: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(tools::here().join(folder)).expect("scripts");
    let mut all: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    all.sort();
    all
}

async fn compare(tools: &Tools, mut java: std::process::Command, section: &str, folder: &str) {
    let cluster = tools::granary(3).await;
    let reference = Reference::start(tools, 3);
    let local = tempfile::tempdir().expect("folder");
    java.arg("Shell").args([tools::uri(&cluster), reference.uri.clone()]).arg(local.path());
    java.arg(tools::here().join("differences.md")).arg(section).args(scripts(folder));
    java.current_dir(local.path());
    let status = Running::start(&mut java).finish(Duration::from_secs(600)).await;
    assert!(status.success(), "the differences are above");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_of_hadoop_3_5_sees_no_difference_from_hdfs() {
    let Some(tools) = tools::tools() else { return };
    compare(tools, tools.java(), "Shell", "shell").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_and_dfsadmin_of_hadoop_2_7_see_no_difference_from_hdfs() {
    let Some(tools) = tools::tools() else { return };
    compare(tools, tools.java_of_reference(), "Old shell", "old-shell").await;
}
