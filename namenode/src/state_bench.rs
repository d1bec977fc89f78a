//! Measures the core of the NameNode: memory per file, operations per second, checkpoint and restart time.
//!
//! Files of one block are made by the real operations (mkdirs, create, addBlock, complete), applied to a state; the
//! state is then written as a checkpoint and loaded again. A smaller number goes through a log with its journal, with
//! 1 and with 64 callers. Memory is told twice: by what the process grew (VmRSS), and by what the state accounts for.
//!
//! A measurement, not a part of the NameNode: it reads the machine's monotonic clock.

use std::path::Path;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use proto::{Code, Error, FsPath, InodeId, Result, Txid};

use crate::checkpoint::Checkpoints;
use crate::log::{Log, Settings};
use crate::op::{Block, Caller, FileRef, Op, Reply, Request};
use crate::state::State;

/// Files in one folder.
const FILES_PER_FOLDER: u64 = 1_000;
const BLOCK_BYTES: u64 = 128 << 20;
const HOLDER: &str = "granary-bench";

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct NamespaceReport {
    /// One-block files made.
    pub files: u64,
    /// Operations applied to make them.
    pub operations: u64,
    /// How long that took.
    pub apply: Duration,
    /// Growth of the process's resident memory per file, in bytes.
    pub resident_bytes_per_file: f64,
    /// What the state's structures have allocated per file, in bytes.
    pub accounted_bytes_per_file: f64,
    /// The first checkpoint: all pages.
    pub checkpoint: Duration,
    /// Its pages' bytes.
    pub checkpoint_bytes: u64,
    /// A checkpoint of the same folder after one file in a hundred changed.
    pub checkpoint_of_changes: Duration,
    /// Its pages' bytes.
    pub checkpoint_of_changes_bytes: u64,
    /// Loading the checkpoint, with every check.
    pub restart: Duration,
    /// Durable operations per second through the journal with one caller.
    pub journaled_per_second_1: f64,
    /// Durable operations per second through the journal with 64 callers.
    pub journaled_per_second_64: f64,
    /// Operations per second replayed from the journal at a restart without a checkpoint.
    pub replayed_per_second: f64,
}

impl NamespaceReport {
    /// Operations applied per second, single-threaded.
    pub fn applied_per_second(&self) -> f64 {
        self.operations as f64 / self.apply.as_secs_f64()
    }
}

/// Fills the core with `files` one-block files, then measures checkpoint, restart and the journal in `dir`, which
/// should be empty. `progress` is told the phase, what is done and how much there is.
pub fn bench_namespace(
    files: u64,
    dir: &Path,
    progress: &mut dyn FnMut(&'static str, u64, u64),
) -> Result<NamespaceReport> {
    let mut report = NamespaceReport { files, ..NamespaceReport::default() };
    let before = resident_bytes()?;
    let mut state = State::new("root");
    let begun = Instant::now();
    report.operations = fill(&mut state, files, progress)?;
    report.apply = begun.elapsed();
    let grown = resident_bytes()?.saturating_sub(before);
    report.resident_bytes_per_file = grown as f64 / files as f64;
    report.accounted_bytes_per_file = state.memory_bytes() as f64 / files as f64;
    measure_checkpoints(state, dir, &mut report, progress)?;
    measure_journal(files.min(20_000), dir, &mut report, progress)?;
    Ok(report)
}

fn request(op: Op, now_ns: i64) -> Request {
    Request { caller: Caller::superuser("root"), call_id: None, now_ns, op }
}

fn file_path(number: u64) -> FsPath {
    let text = format!("/bench/d{:06}/part-{number:07}", number / FILES_PER_FOLDER);
    FsPath::parse(&text).expect("a plain path")
}

fn create(path: FsPath) -> Op {
    Op::Create {
        path,
        holder: HOLDER.to_owned(),
        mode: 0o644,
        unmasked: None,
        overwrite: false,
        create_parents: true,
        replication: 3,
        block_bytes: BLOCK_BYTES,
        erasure: None,
    }
}

/// The operations of one file after `create`, each from the reply before.
fn add_block(path: &FsPath, created: &Reply) -> Result<Op> {
    let Reply::File(status) = created else { return Err(unexpected(created)) };
    let file = FileRef { path: path.clone(), inode: Some(InodeId(status.inode)) };
    Ok(Op::AddBlock { file, holder: HOLDER.to_owned(), previous: None })
}

fn complete(path: &FsPath, added: &Reply) -> Result<Op> {
    let Reply::BlockAllocated { block, inode, .. } = added else { return Err(unexpected(added)) };
    let file = FileRef { path: path.clone(), inode: Some(*inode) };
    let last = Some(Block { length: 1_000_000, ..*block });
    Ok(Op::Complete { file, holder: HOLDER.to_owned(), last })
}

fn unexpected(reply: &Reply) -> Error {
    Error::new(Code::Internal, format!("unexpected reply {reply:?}"))
}

fn fill(
    state: &mut State,
    files: u64,
    progress: &mut dyn FnMut(&'static str, u64, u64),
) -> Result<u64> {
    let mut effects = Vec::new();
    for number in 0..files {
        if number.is_multiple_of(FILES_PER_FOLDER) {
            let folder = file_path(number).parent().expect("a file has a folder");
            let op = Op::Mkdirs { path: folder, mode: 0o755, unmasked: None, create_parents: true };
            state.apply(&request(op, number as i64), &mut effects)?;
            progress("apply", number, files);
        }
        let path = file_path(number);
        let now = number as i64;
        let reply = state.apply(&request(create(path.clone()), now), &mut effects)?;
        let reply = state.apply(&request(add_block(&path, &reply)?, now), &mut effects)?;
        state.apply(&request(complete(&path, &reply)?, now), &mut effects)?;
        effects.clear();
    }
    Ok(state.txid().0)
}

fn measure_checkpoints(
    state: State,
    dir: &Path,
    report: &mut NamespaceReport,
    progress: &mut dyn FnMut(&'static str, u64, u64),
) -> Result<()> {
    let (folder, cluster_id) = (dir.join("bench-checkpoint"), [0; 16]);
    let stop = AtomicBool::new(false);
    let mut checkpoints = Checkpoints::open(&folder, cluster_id)?.checkpoints;
    let state = RwLock::new(state);
    progress("checkpoint", 0, 3);
    let begun = Instant::now();
    let written = checkpoints.write(&state, &stop)?;
    (report.checkpoint, report.checkpoint_bytes) = (begun.elapsed(), written.bytes);
    progress("checkpoint", 1, 3);
    checkpoints.write(&state, &stop)?;
    progress("checkpoint", 2, 3);
    touch_some(&state, report.files)?;
    let begun = Instant::now();
    let written = checkpoints.write(&state, &stop)?;
    (report.checkpoint_of_changes, report.checkpoint_of_changes_bytes) =
        (begun.elapsed(), written.bytes);
    drop((checkpoints, state));
    progress("restart", 0, 1);
    let begun = Instant::now();
    let opened = Checkpoints::open(&folder, cluster_id)?;
    report.restart = begun.elapsed();
    match opened.state {
        Some(state) if state.txid() == written.txid && state.counts().files == report.files => {
            Ok(())
        }
        found => {
            let found = found.map_or(Txid(0), |state| state.txid());
            let message = format!(
                "the checkpoint of {} does not hold what was written: found that of {found}; {:?}",
                written.txid, opened.damage
            );
            Err(Error::new(Code::Internal, message))
        }
    }
}

/// Changes the times of one file in a hundred, spread over all.
fn touch_some(state: &RwLock<State>, files: u64) -> Result<()> {
    let mut state = state.write().map_err(|_| Error::new(Code::Internal, "a panic before"))?;
    for number in (0..files).step_by(100) {
        let path = file_path(number);
        let op = Op::SetTimes { path, modified_ns: Some(1), accessed_ns: None };
        state.apply(&request(op, 1), &mut Vec::new())?;
    }
    Ok(())
}

fn measure_journal(
    files: u64,
    dir: &Path,
    report: &mut NamespaceReport,
    progress: &mut dyn FnMut(&'static str, u64, u64),
) -> Result<()> {
    let folder = dir.join("bench-journal");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Error::io("start a runtime", &e))?;
    let log = Log::open(&folder, Settings::default(), Box::new(|_, _| {}))?;
    progress("journal", 0, 2);
    report.journaled_per_second_1 = runtime.block_on(run_callers(&log, 1, files / 40))?;
    progress("journal", 1, 2);
    report.journaled_per_second_64 = runtime.block_on(run_callers(&log, 64, files))?;
    let end = log.last_txid();
    drop(log);
    progress("replay", 0, 1);
    let begun = Instant::now();
    let log = Log::open(&folder, Settings::default(), Box::new(|_, _| {}))?;
    report.replayed_per_second = log.open_report().replayed as f64 / begun.elapsed().as_secs_f64();
    if log.last_txid() != end || end == Txid(0) {
        return Err(Error::new(
            Code::Internal,
            format!("replay ended at {}, not {end}", log.last_txid()),
        ));
    }
    Ok(())
}

/// Operations per second of `callers` who make `files` files together.
async fn run_callers(log: &Log, callers: u64, files: u64) -> Result<f64> {
    let begun = Instant::now();
    let each = (files / callers).max(1);
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let log = log.clone();
            tokio::spawn(async move { make_files(&log, callers, caller, each).await })
        })
        .collect();
    for task in tasks {
        task.await.map_err(|e| Error::new(Code::Internal, e.to_string()))??;
    }
    Ok((callers * each * 3) as f64 / begun.elapsed().as_secs_f64())
}

async fn make_files(log: &Log, callers: u64, caller: u64, files: u64) -> Result<()> {
    for number in 0..files {
        let text = format!("/bench-{callers}/c{caller}/part-{number:07}");
        let path = FsPath::parse(&text)?;
        let reply = log.propose(request(create(path.clone()), 1)).await?;
        let reply = log.propose(request(add_block(&path, &reply)?, 1)).await?;
        log.propose(request(complete(&path, &reply)?, 1)).await?;
    }
    Ok(())
}

/// The process's resident memory, in bytes.
fn resident_bytes() -> Result<u64> {
    let path = "/proc/self/status";
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| Error::new(Code::Internal, format!("{path}: no VmRSS")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_small_run_measures_everything() {
        let dir = tempfile::tempdir().unwrap();
        let report = super::bench_namespace(3_000, dir.path(), &mut |_, _, _| {}).unwrap();
        assert_eq!(report.operations, 3_000 * 3 + 3);
        assert!(report.accounted_bytes_per_file > 50.0, "{report:?}");
        assert!(report.restart > std::time::Duration::ZERO && report.journaled_per_second_64 > 0.0);
    }
}
