//! Checkpoints under running operations, and damage to them.
//!
//! The bound: a damaged folder is either refused, or loads as exactly the state that was written.

use std::path::Path;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use proto::{FsPath, Txid};

use super::Checkpoints;
use crate::op::{Caller, Op, Request};
use crate::state::State;

const CLUSTER: [u8; 16] = [4; 16];

fn request(op: Op) -> Request {
    Request { caller: Caller::superuser("root"), call_id: None, now_ns: 1, op }
}

/// A mix that grows, changes and shrinks the tree.
fn nth(n: u64) -> Request {
    let path = |n: u64| FsPath::parse(&format!("/d{}/f{n}", n % 37)).unwrap();
    request(match n % 7 {
        0..=3 => Op::Create {
            path: path(n),
            holder: "h".into(),
            mode: 0o644,
            unmasked: None,
            overwrite: true,
            create_parents: true,
            replication: 3,
            block_bytes: 4096,
            erasure: None,
        },
        4 => Op::Delete { path: path(n / 3 * 2), recursive: true },
        5 => Op::SetPermission { path: path(n - 2), mode: (n % 512) as u32 },
        _ => Op::AddBlock {
            file: crate::op::FileRef { path: path(n - 3), inode: None },
            holder: "h".into(),
            previous: None,
        },
    })
}

fn state_at(txid: Txid) -> State {
    let mut state = State::new("root");
    for n in 0..txid.0 {
        // Some fail, as they did the first time.
        let _reply = state.apply(&nth(n), &mut Vec::new());
    }
    state
}

fn open(folder: &Path) -> super::Opened {
    Checkpoints::open(folder, CLUSTER).unwrap()
}

#[test]
fn a_checkpoint_written_while_operations_run_is_the_state_as_of_its_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let (stop, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let state = RwLock::new(state_at(Txid(5_000)));
    for round in 0..4 {
        let mut checkpoints = open(dir.path()).checkpoints;
        done.store(false, Ordering::Relaxed);
        let written = std::thread::scope(|scope| {
            let running = scope.spawn(|| {
                let mut applied = 0;
                while !done.load(Ordering::Relaxed) || applied < 100 {
                    let mut state = state.write().unwrap();
                    let n = state.txid().0;
                    let _reply = state.apply(&nth(n), &mut Vec::new());
                    applied += 1;
                }
            });
            let written = checkpoints.write(&state, &stop).unwrap();
            done.store(true, Ordering::Relaxed);
            running.join().unwrap();
            written
        });
        drop(checkpoints);
        let opened = open(dir.path());
        assert!(opened.damage.is_empty());
        let loaded = opened.state.unwrap();
        assert_eq!(loaded.txid(), written.txid, "round {round}");
        assert_eq!(loaded.digest(), state_at(written.txid).digest(), "round {round}");
        // What a restart does: go on from what was loaded.
        *state.write().unwrap() = loaded;
    }
}

#[test]
fn the_second_checkpoint_of_a_folder_writes_what_changed_alone_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let state = RwLock::new(state_at(Txid(20_000)));
    let mut checkpoints = open(dir.path()).checkpoints;
    let full = checkpoints.write(&state, &stop).unwrap();
    assert_eq!(checkpoints.write(&state, &stop).unwrap().pages, full.pages, "the other folder");
    assert_eq!(checkpoints.write(&state, &stop).unwrap().pages, 0, "nothing changed");
    drop((checkpoints, state));
    let opened = open(dir.path());
    let (mut checkpoints, state) = (opened.checkpoints, RwLock::new(opened.state.unwrap()));
    let touch = request(Op::SetPermission { path: FsPath::parse("/d3").unwrap(), mode: 0o700 });
    state.write().unwrap().apply(&touch, &mut Vec::new()).unwrap();
    for _ in 0..2 {
        let written = checkpoints.write(&state, &stop).unwrap();
        assert_eq!(written.pages, 1, "the page of one inode, of {}", full.pages);
    }
    assert_eq!(checkpoints.oldest(), Txid(20_001));
}

#[test]
fn a_checkpoint_that_was_given_up_leaves_the_other_folder_and_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let state = RwLock::new(state_at(Txid(3_000)));
    let mut checkpoints = open(dir.path()).checkpoints;
    checkpoints.write(&state, &stop).unwrap();
    stop.store(true, Ordering::Relaxed);
    state.write().unwrap().apply(&nth(3_000), &mut Vec::new()).ok();
    checkpoints.write(&state, &stop).unwrap_err();
    assert_eq!(checkpoints.newest(), Txid(3_000));
    stop.store(false, Ordering::Relaxed);
    let written = checkpoints.write(&state, &stop).unwrap();
    assert_eq!(written.txid, Txid(3_001));
    drop(checkpoints);
    assert_eq!(open(dir.path()).state.unwrap().digest(), state_at(Txid(3_001)).digest());
}

#[test]
fn a_damaged_folder_is_refused_or_loads_as_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let mut checkpoints = open(dir.path()).checkpoints;
    let state = RwLock::new(state_at(Txid(300)));
    checkpoints.write(&state, &stop).unwrap();
    let digest = state.read().unwrap().digest();
    drop(checkpoints);
    let path = dir.path().join("a/db");
    let good = std::fs::read(&path).unwrap();
    let used = good.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let mut refused = 0;
    for at in (0..used).step_by(used / 60) {
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join("a")).unwrap();
        std::fs::copy(dir.path().join("a/conf"), copy.path().join("a/conf")).unwrap();
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(copy.path().join("a/db"), &bytes).unwrap();
        match open(copy.path()).state {
            Some(state) => assert_eq!(state.digest(), digest, "flip at {at}"),
            None => refused += 1,
        }
    }
    assert!(refused > 0, "damage was seen");
}

#[test]
fn a_folder_that_is_still_locked_is_waited_for_and_not_taken_for_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let mut checkpoints = open(dir.path()).checkpoints;
    let written = checkpoints.write(&RwLock::new(state_at(Txid(50))), &stop).unwrap();
    drop(checkpoints);
    let data = std::fs::File::open(dir.path().join("a/db")).unwrap();
    rustix::fs::flock(&data, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Long enough for the open to meet the lock; nothing is ever sent.
            let _elapsed = released.recv_timeout(std::time::Duration::from_millis(100));
            drop(data);
        });
        let opened = open(dir.path());
        assert!(opened.damage.is_empty(), "{:?}", opened.damage);
        assert_eq!(opened.state.unwrap().txid(), written.txid);
    });
    drop(release);
}
