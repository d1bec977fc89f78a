//! Spark on Granary: formats, ways of saving, committers, a sort, and DataNodes and jobs that die.
//!
//! A script says on its standard output when it works (`writing pid=...`); what dies then dies in the middle of it.

use std::io::{BufRead, BufReader, Lines};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use client::Fs;
use tests::cluster::{Cluster, path};
use tests::wait;

use crate::tools::{self, Extent, Running, Tools};

const LIMIT: Duration = Duration::from_secs(1800);

/// A Spark job that runs.
struct Job {
    process: Running,
    lines: Lines<BufReader<ChildStdout>>,
    /// For Spark's own scratch files.
    _folder: tempfile::TempDir,
}

impl Job {
    fn start(tools: &Tools, cluster: &Cluster, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut python = Command::new(&tools.python);
        python.arg(tools::here().join("spark.py")).arg(tools::uri(cluster)).args(args);
        python.env("SPARK_HOME", tools.spark_home()).env("PYTHONPATH", tools.spark_python());
        python.env("PYSPARK_PYTHON", &tools.python).env("SPARK_LOCAL_IP", "127.0.0.1");
        python.env("SPARK_LOCAL_DIRS", folder.path()).env("HADOOP_USER_NAME", "root");
        python.current_dir(folder.path()).stdout(Stdio::piped());
        let mut process = Running::start(&mut python);
        let lines = BufReader::new(process.0.stdout.take().expect("piped")).lines();
        Self { process, lines, _folder: folder }
    }

    /// Waits for the line `WHAT pid=N`; the process id of its JVM.
    fn until_it_says(&mut self, what: &str) -> i32 {
        for line in self.lines.by_ref().map_while(Result::ok) {
            println!("spark: {line}");
            let pid = line.strip_prefix(what).and_then(|rest| rest.strip_prefix(" pid="));
            if let Some(pid) = pid {
                return pid.parse().expect("a process id");
            }
        }
        panic!("the job ended before it said {what:?}");
    }

    async fn finish(self) -> ExitStatus {
        let Self { process, lines, _folder } = self;
        let rest = std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| println!("spark: {line}"));
        });
        let status = process.finish(LIMIT).await;
        rest.join().expect("what it said");
        status
    }
}

async fn run(tools: &Tools, cluster: &Cluster, args: &[&str]) {
    let status = Job::start(tools, cluster, args).finish().await;
    assert!(status.success(), "spark.py {args:?}: {status}; the reason is above");
}

/// All files below a folder, with their lengths.
async fn files_below(fs: &Fs, folder: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // A folder that is gone has nothing below it.
        for entry in fs.list(&path(&folder)).await.unwrap_or_default() {
            let name = format!("{folder}/{}", entry.name);
            match entry.kind() == client::FileKind::Folder {
                true => folders.push(name),
                false => found.push((name, entry.length)),
            }
        }
    }
    found
}

/// Waits until tasks of the job that writes to `folder` have files.
async fn until_tasks_write(fs: &Fs, folder: &str) {
    wait::until("a task writes", Duration::from_secs(120), async || {
        let below = files_below(fs, &format!("{folder}/_temporary")).await;
        below.iter().any(|(name, _)| name.contains("/part-")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spark_saves_and_reads_every_format() {
    let Some(tools) = tools::tools() else { return };
    let cluster = tools::granary(3).await;
    let extent = if tools.extent == Extent::All { "all" } else { "short" };
    run(tools, &cluster, &["formats", extent]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spark_sorts() {
    let Some(tools) = tools::tools() else { return };
    let cluster = tools::granary(3).await;
    let megabytes = if tools.extent == Extent::All { "1000" } else { "20" };
    run(tools, &cluster, &["sort", megabytes]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_killed_in_the_middle_leaves_nothing_visible() {
    let Some(tools) = tools::tools() else { return };
    let cluster = tools::granary(3).await;
    let fs = cluster.fs().await;
    let mut job = Job::start(tools, &cluster, &["slow-write", "/killed"]);
    let jvm = job.until_it_says("writing");
    until_tasks_write(&fs, "/killed").await;
    let pid = rustix::process::Pid::from_raw(jvm).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("SIGKILL");
    assert!(!job.finish().await.success(), "a killed job failed");
    let left: Vec<_> = fs.list(&path("/killed")).await.expect("list");
    let left: Vec<_> = left.into_iter().map(|entry| entry.name).collect();
    assert_eq!(left, ["_temporary"], "only what the job had not committed is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_killed_during_a_write_and_a_read_fails_no_job() {
    let Some(tools) = tools::tools() else { return };
    let mut cluster = tools::granary(4).await;
    let fs = cluster.fs().await;
    let mut job = Job::start(tools, &cluster, &["slow-write", "/written"]);
    job.until_it_says("writing");
    until_tasks_write(&fs, "/written").await;
    cluster.kill_datanode(0);
    assert!(job.finish().await.success(), "the job outlives the DataNode");

    let mut job = Job::start(tools, &cluster, &["slow-read", "/written"]);
    job.until_it_says("reading");
    cluster.kill_datanode(1);
    assert!(job.finish().await.success(), "the job outlives the second DataNode too");
}
