//! A real HDFS 2.7.3 in one JVM, beside the cluster under test.
//!
//! It lives as long as [`Reference`] does: it ends when its standard input is closed.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::tools::{GROUPS, Running, Tools};

/// A running HDFS.
pub struct Reference {
    /// `hdfs://host:port`.
    pub uri: String,
    _process: Running,
    _folder: tempfile::TempDir,
}

impl Reference {
    /// Formats and starts one; panics with its log if it does not come up.
    pub fn start(tools: &Tools, datanodes: usize) -> Self {
        let folder =
            tempfile::Builder::new().prefix("granary-reference-").tempdir().expect("folder");
        let log = folder.path().join("log");
        let mut java = tools.java_of_reference();
        java.arg("Reference").arg(folder.path().join("data")).arg(datanodes.to_string());
        let groups = GROUPS.join(";");
        java.arg(format!("hadoop.user.group.static.mapping.overrides={groups}"));
        // Its superuser is the user that runs it, by Hadoop's own rule.
        java.env("HADOOP_USER_NAME", "root");
        java.stdin(Stdio::piped()).stdout(Stdio::piped());
        java.stderr(std::fs::File::create(&log).expect("log"));
        let mut process = Running::start(&mut java);
        let mut lines = BufReader::new(process.0.stdout.take().expect("piped")).lines();
        let rpc = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("ready rpc=").map(str::to_owned));
        let Some(rpc) = rpc else {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            panic!("HDFS did not start:\n{said}");
        };
        std::thread::spawn(move || lines.for_each(drop));
        Self { uri: format!("hdfs://{rpc}"), _process: process, _folder: folder }
    }
}
