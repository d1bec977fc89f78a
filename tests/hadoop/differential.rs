//! Random calls on Granary and HDFS, the same ones: every answer and the trees that are left are the same.
//!
//! `GRANARY_TEST_SEED` replays one sequence, and with `GRANARY_TEST_SEQUENCES` that many from it on; `differences.md` lists what differs on purpose. `GRANARY_TEST_SURVEY` tells
//! each kind of difference once and goes on, instead of looking for the shortest calls that show the first.

use std::time::Duration;

use crate::reference::Reference;
use crate::tools::{self, Extent, Running};

/// The calls of a sequence.
const STEPS: &str = "40";

#[tokio::test(flavor = "multi_thread")]
async fn random_calls_get_the_answers_that_hdfs_gives() {
    let Some(tools) = tools::tools() else { return };
    let cluster = tools::granary(3).await;
    let reference = Reference::start(tools, 3);
    let replayed = std::env::var("GRANARY_TEST_SEED").ok();
    let wanted = std::env::var("GRANARY_TEST_SEQUENCES").ok();
    let sequences = match (&wanted, &replayed, tools.extent) {
        (Some(wanted), _, _) => wanted,
        (None, Some(_), _) => "1",
        (None, None, Extent::Short) => "60",
        (None, None, Extent::All) => "5000",
    };
    let local = tempfile::tempdir().expect("folder");
    let mut java = tools.java();
    if replayed.is_some() && wanted.is_none() {
        java.arg("-Dverbose=1");
    }
    if std::env::var_os("GRANARY_TEST_SURVEY").is_some() {
        java.arg("-Dsurvey=1");
    }
    java.arg("Differential").args([tools::uri(&cluster), reference.uri.clone()]).arg(local.path());
    java.arg(tools::here().join("differences.md"));
    java.arg(replayed.as_deref().unwrap_or("1")).args([sequences, STEPS]);
    let status = Running::start(&mut java).finish(Duration::from_secs(7200)).await;
    assert!(status.success(), "the differences are above; GRANARY_TEST_SEED replays one");
}
