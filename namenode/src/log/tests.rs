//! The log as a whole: durability across drops, checkpoints, damage and failures of the disk; and random operations
//! against a simple model.

mod model;

use std::os::unix::fs::FileExt;
use std::path::Path;

use proto::{Code, FsPath, Result, Txid};

use super::{EffectSink, Log, Settings};
use crate::op::{CallId, Caller, FileRef, Op, RenameMode, Reply, Request};

fn settings() -> Settings {
    Settings { journal_segment_bytes: 64 << 10, superuser: "root".into(), ..Settings::default() }
}

fn no_sink() -> EffectSink {
    Box::new(|_, _| {})
}

fn open(dir: &Path) -> Result<Log> {
    Log::open(dir, settings(), no_sink())
}

fn path(text: &str) -> FsPath {
    FsPath::parse(text).unwrap()
}

fn request(now_ns: i64, op: Op) -> Request {
    Request { caller: Caller::superuser("root"), call_id: None, now_ns, op }
}

fn mkdirs(text: &str) -> Op {
    Op::Mkdirs { path: path(text), mode: 0o755, unmasked: None, create_parents: true }
}

fn create(text: &str) -> Op {
    Op::Create {
        path: path(text),
        holder: "h".into(),
        mode: 0o644,
        unmasked: None,
        overwrite: true,
        create_parents: true,
        replication: 3,
        block_bytes: 1 << 20,
        erasure: None,
    }
}

fn delete(text: &str) -> Op {
    Op::Delete { path: path(text), recursive: true }
}

/// Creates a closed file of one block of `length` bytes.
async fn write_file(log: &Log, text: &str, length: u64) {
    log.propose(request(1, create(text))).await.unwrap();
    let file = FileRef { path: path(text), inode: None };
    let op = Op::AddBlock { file: file.clone(), holder: "h".into(), previous: None };
    let Reply::BlockAllocated { mut block, .. } = log.propose(request(2, op)).await.unwrap() else {
        panic!("addBlock answers with a block");
    };
    block.length = length;
    let op = Op::Complete { file, holder: "h".into(), last: Some(block) };
    log.propose(request(3, op)).await.unwrap();
}

fn length_of(log: &Log, text: &str) -> Option<u64> {
    let caller = Caller::superuser("root");
    log.read(|state| state.status(&caller, &path(text)).unwrap().map(|status| status.length))
}

fn newest_segment(dir: &Path) -> std::path::PathBuf {
    let mut all: Vec<_> = std::fs::read_dir(dir.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    all.sort();
    all.pop().unwrap()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_drop_without_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let mut digest = None;
    for round in 0..4 {
        let log = open(dir.path()).unwrap();
        let found = log.read(|state| state.digest());
        assert!(digest.is_none_or(|digest| digest == found), "replay equals the live state");
        for file in 0..round {
            assert_eq!(length_of(&log, &format!("/d/f{file}")), Some(100 + file));
        }
        write_file(&log, &format!("/d/f{round}"), 100 + round).await;
        digest = Some(log.read(|state| state.digest()));
    }
}

#[tokio::test]
async fn restart_from_a_checkpoint_and_the_journal_behind_it_equals_the_live_state() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..6 {
        let log = open(dir.path()).unwrap();
        for file in 0..50 {
            write_file(&log, &format!("/r{round}/f{file}"), file).await;
        }
        if round % 3 != 2 {
            let written = log.checkpoint().await.unwrap();
            assert_eq!(written.txid, log.checkpoint_txid());
        }
        log.propose(request(9, delete(&format!("/r{round}/f7")))).await.unwrap();
        let digest = log.read(|state| state.digest());
        drop(log);
        let log = open(dir.path()).unwrap();
        assert_eq!(log.read(|state| state.digest()), digest);
        assert!(log.open_report().checkpoint > Txid(0));
        assert_eq!(log.open_report().damage, []);
    }
}

#[tokio::test]
async fn damage_to_the_newest_checkpoint_falls_back_to_the_older_and_more_of_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    write_file(&log, "/a/one", 1).await;
    let older = log.checkpoint().await.unwrap().txid;
    write_file(&log, "/a/two", 2).await;
    let newer = log.checkpoint().await.unwrap().txid;
    write_file(&log, "/a/three", 3).await;
    let digest = log.read(|state| state.digest());
    log.shutdown().await.unwrap();
    drop(log);
    assert!(older < newer);
    // The first went to folder a, the second to b.
    ruin(&dir.path().join("checkpoint/b/db"));
    let log = open(dir.path()).unwrap();
    assert_eq!(log.open_report().checkpoint, older);
    assert_eq!(log.open_report().damage.len(), 1);
    assert_eq!(log.read(|state| state.digest()), digest);
    // The damaged one is written anew, and both serve again.
    assert!(log.checkpoint().await.unwrap().txid > newer);
    drop(log);
    let log = open(dir.path()).unwrap();
    assert_eq!(log.open_report().damage, []);
    assert_eq!(log.read(|state| state.digest()), digest);
}

#[tokio::test]
async fn both_checkpoints_damaged_replays_all_of_a_whole_journal_and_else_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    write_file(&log, "/a/one", 1).await;
    log.checkpoint().await.unwrap();
    write_file(&log, "/a/two", 2).await;
    log.checkpoint().await.unwrap();
    let digest = log.read(|state| state.digest());
    drop(log);
    ruin(&dir.path().join("checkpoint/a/db"));
    ruin(&dir.path().join("checkpoint/b/db"));
    let log = open(dir.path()).unwrap();
    assert_eq!((log.open_report().checkpoint, log.open_report().damage.len()), (Txid(0), 2));
    assert_eq!(log.read(|state| state.digest()), digest);
    for round in 0..4 {
        for file in 0..200 {
            write_file(&log, &format!("/b{round}/{file:0100}"), 1).await;
        }
        log.checkpoint().await.unwrap();
    }
    drop(log);
    assert!(!dir.path().join("journal/00000000000000000001.log").exists(), "it was pruned");
    ruin(&dir.path().join("checkpoint/a/db"));
    ruin(&dir.path().join("checkpoint/b/db"));
    let Err(error) = open(dir.path()) else { panic!("nothing whole is left") };
    assert_eq!(error.code, Code::Corrupt);
    assert!(error.message.contains("restore this folder"), "{error:?}");
}

/// Overwrites the middle of a file.
fn ruin(path: &Path) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    for at in (0..length).step_by(97) {
        file.write_all_at(b"!", at).unwrap();
    }
}

#[tokio::test]
async fn a_second_log_on_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    let Err(error) = open(dir.path()) else { panic!("two logs on one folder") };
    assert!(error.message.contains("in use by another process"), "{error:?}");
    drop(log);
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn a_repeated_call_gets_the_first_reply_also_after_restart_and_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let call = |call, op| Request {
        call_id: Some(CallId { client: [7; 16], call }),
        ..request(1_000, op)
    };
    let log = open(dir.path()).unwrap();
    let created = log.propose(call(1, create("/f"))).await.unwrap();
    assert_eq!(log.propose(call(2, delete("/f"))).await.unwrap(), Reply::Deleted(true));
    drop(log);
    let log = open(dir.path()).unwrap();
    assert_eq!(log.propose(call(2, delete("/f"))).await.unwrap(), Reply::Deleted(true));
    assert_eq!(log.propose(call(1, create("/f"))).await.unwrap(), created);
    assert_eq!(length_of(&log, "/f"), None, "the repetition made nothing");
    log.checkpoint().await.unwrap();
    drop(log);
    let log = open(dir.path()).unwrap();
    assert_eq!(log.open_report().replayed, 0);
    assert_eq!(log.propose(call(2, delete("/f"))).await.unwrap(), Reply::Deleted(true));
    assert_eq!(log.propose(call(3, delete("/f"))).await.unwrap(), Reply::Deleted(false));
    let error = log.propose(call(2, delete("/other"))).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_syncs_and_each_gets_its_own_reply() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|caller| {
            let log = log.clone();
            tokio::spawn(async move {
                for round in 0..20 {
                    let reply =
                        log.propose(request(1, mkdirs(&format!("/c{caller}/r{round}")))).await;
                    assert_eq!(reply.unwrap(), Reply::Created(true));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(log.read(|state| state.counts().folders), 1 + 64 * 21);
    assert_eq!(log.last_txid(), Txid(64 * 20));
}

#[tokio::test]
async fn operations_that_fail_or_change_nothing_are_not_journaled() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    log.propose(request(1, mkdirs("/a"))).await.unwrap();
    assert_eq!(log.propose(request(1, mkdirs("/a"))).await.unwrap(), Reply::Created(false));
    assert_eq!(log.propose(request(1, delete("/b"))).await.unwrap(), Reply::Deleted(false));
    let rename = Op::Rename { source: path("/x"), target: path("/y"), mode: RenameMode::NoReplace };
    assert_eq!(log.propose(request(1, rename)).await.unwrap_err().code, Code::NotFound);
    assert_eq!(log.last_txid(), Txid(1));
}

#[tokio::test]
async fn a_request_beyond_its_limits_is_refused_before_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    let long = Request { caller: Caller::superuser("u".repeat(300)), ..request(1, mkdirs("/a")) };
    assert_eq!(log.propose(long).await.unwrap_err().code, Code::InvalidArgument);
    let mut crowd = request(1, mkdirs("/a"));
    crowd.caller.groups = vec!["g".into(); 300];
    assert_eq!(log.propose(crowd).await.unwrap_err().code, Code::InvalidArgument);
    assert_eq!(log.last_txid(), Txid(0));
}

#[tokio::test]
async fn effects_arrive_in_the_order_of_their_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let sink: EffectSink = Box::new(move |txid, effects| send.send((txid, effects)).unwrap());
    let log = Log::open(dir.path(), settings(), sink).unwrap();
    write_file(&log, "/f", 5).await;
    log.propose(request(5, delete("/f"))).await.unwrap();
    drop(log);
    let txids: Vec<_> = receive.iter().map(|(txid, _)| txid.0).collect();
    assert_eq!(txids, [1, 2, 3, 4]);
}

#[tokio::test]
async fn after_an_orderly_stop_damage_to_the_last_batch_is_an_error_not_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    log.propose(request(1, mkdirs("/a"))).await.unwrap();
    log.propose(request(1, mkdirs("/b"))).await.unwrap();
    log.shutdown().await.unwrap();
    assert!(log.propose(request(1, mkdirs("/c"))).await.is_err());
    drop(log);
    let segment = newest_segment(dir.path());
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    let bytes = std::fs::read(&segment).unwrap();
    let name = bytes.windows(2).position(|two| two == b"/b").unwrap();
    file.write_all_at(b"x", name as u64 + 1).unwrap();
    let Err(error) = open(dir.path()) else { panic!("damage was taken for a torn tail") };
    assert_eq!(error.code, Code::Corrupt);
    assert!(error.message.contains(segment.file_name().unwrap().to_str().unwrap()));
}
