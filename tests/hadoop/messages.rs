//! Our definitions of Hadoop's messages, field by field beside those that are compiled into Hadoop's own classes.
//!
//! `messages/Messages.java` compares; it also fails if it finds nothing to compare.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::tools::{self, Running, Tools};

const LIMIT: Duration = Duration::from_secs(120);

fn definitions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/hadoop")
}

async fn agree(tools: &Tools, folder: &Path) -> bool {
    let mut java = tools.java();
    java.arg("Messages").arg(folder);
    Running::start(&mut java).finish(LIMIT).await.success()
}

#[tokio::test]
async fn every_message_has_the_fields_that_it_has_in_hadoop() {
    let Some(tools) = tools::tools() else { return };
    assert!(agree(tools, &definitions()).await, "the differences are above");
}

#[tokio::test]
async fn a_field_of_another_number_is_found() {
    let Some(tools) = tools::tools() else { return };
    let folder = tempfile::tempdir().expect("folder");
    let good = std::fs::read_to_string(definitions().join("namenode.proto")).expect("messages");
    let bad = good.replacen("required bytes startAfter = 2;", "required bytes startAfter = 9;", 1);
    assert_ne!(bad, good, "there is such a field");
    std::fs::write(folder.path().join("namenode.proto"), bad).expect("write");
    assert!(!agree(tools, folder.path()).await);
}
