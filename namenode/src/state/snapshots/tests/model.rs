//! Random operations against pictures: what a snapshot showed when it was made, it shows for ever.
//!
//! A picture is a deep copy of all that a reader sees under a path: names, attributes, and which bytes of which blocks
//! a file has. The tree is also compared with one that lives through the same operations without snapshots; blocks
//! with those that the pictures name; effects with the blocks; a replay and a checkpoint with the state.
//!
//! `GRANARY_SNAPSHOT_SEED` runs one seed alone.

use std::collections::{BTreeMap, BTreeSet};

use proto::granary::FileStatus;
use proto::{BlockId, Code, FsPath, GenerationStamp, InodeId, Result};

use super::kept::{load, write};
use super::usage;
use crate::op::attribute::{AttributeOp, XAttr, XAttrMode, XAttrSpace};
use crate::op::quota::{Limit, QuotaOp};
use crate::op::snapshot::SnapshotOp;
use crate::op::{Block, Caller, Effect, FileRef, Op, RenameMode, Reply, Request};
use crate::state::{DOT_SNAPSHOT, State};

const BLOCK_BYTES: u64 = 4096;
const STEPS: usize = 160;
const SEEDS: u64 = 50;

/// A path's status, its content as blocks and how much of each is shown, and its attributes.
type Seen = (FileStatus, Vec<(u64, u64)>, Vec<XAttr>);
type Picture = BTreeMap<String, Seen>;

pub(super) struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end.max(1)
    }
}

/// A state and what it told.
struct Told {
    state: State,
    journal: Vec<Request>,
    /// Replicas wanted, by the effects.
    blocks: BTreeMap<u64, u32>,
}

fn root() -> Caller {
    Caller::superuser("root")
}

impl Told {
    fn new() -> Self {
        Self { state: State::new("root"), journal: Vec::new(), blocks: BTreeMap::new() }
    }

    fn run(&mut self, op: Op) -> Result<Reply> {
        let now_ns = self.journal.len() as i64 + 1;
        let request = Request { caller: root(), call_id: None, now_ns, op };
        let previewed = self.state.preview(&request);
        let mut effects = Vec::new();
        let reply = self.state.apply(&request, &mut effects);
        match (&previewed, &reply) {
            (Err(early), Err(late)) => assert_eq!(early, late),
            (Ok(Some(early)), Ok(late)) => assert_eq!(early, late),
            (Ok(None), Ok(_)) => {}
            _ => panic!("{request:?}: preview says {previewed:?}, apply {reply:?}"),
        }
        self.journal.push(request);
        for effect in effects {
            match effect {
                Effect::BlockAdded { block, replication, .. } => {
                    assert_eq!(self.blocks.insert(block.id.0, replication), None);
                }
                Effect::BlockRemoved { block, .. } => {
                    assert!(self.blocks.remove(&block.id.0).is_some(), "{block:?} goes once");
                }
                Effect::ReplicationChanged { block, replication, .. } => {
                    self.blocks.insert(block.0, replication).expect("of a block that is there");
                }
                _ => {}
            }
        }
        reply
    }

    fn status(&self, path: &str) -> Option<FileStatus> {
        self.state.status(&root(), &path_of(path)).unwrap()
    }

    fn block(&self, id: BlockId) -> Block {
        self.state.block(id).unwrap().block()
    }
}

fn path_of(text: &str) -> FsPath {
    FsPath::parse(text).unwrap()
}

/// All that can be seen under a path.
fn picture(state: &State, top: &str) -> Picture {
    let mut seen = Picture::new();
    let mut pending = vec![path_of(top)];
    while let Some(path) = pending.pop() {
        let mut status = state.status(&root(), &path).unwrap().expect("what is listed is there");
        status.name = String::new();
        let shown =
            path.as_str()[top.trim_end_matches('/').len()..].trim_end_matches('/').to_owned();
        let xattrs = state.xattrs(&root(), &path, false, &[]).unwrap();
        if status.block_bytes > 0 {
            let all = state.block_locations(&root(), &path, 0, u64::MAX).unwrap();
            let blocks: Vec<_> =
                all.blocks.iter().map(|(_, info)| (info.id.0, info.shown)).collect();
            let sum: u64 = blocks.iter().map(|(_, shown)| shown).sum();
            assert_eq!(sum, status.length, "{path} shows what its length says");
            seen.insert(shown, (status, blocks, xattrs));
            continue;
        }
        let listing = state.list(&root(), &path, "", 0).unwrap().unwrap();
        assert_eq!(listing.entries.len() as u64, status.children, "{path}");
        pending.extend(listing.entries.iter().map(|entry| path.join(&entry.name).unwrap()));
        seen.insert(shown, (status, Vec::new(), xattrs));
    }
    seen
}

/// A picture as a snapshot keeps it: nothing is open, and blocks without bytes are not there.
fn frozen(mut picture: Picture) -> Picture {
    for (status, blocks, _) in picture.values_mut() {
        status.open_for_write = false;
        status.snapshottable = false;
        blocks.retain(|(_, shown)| *shown > 0);
    }
    picture
}

/// What does not depend on which blocks a file's bytes lie in, nor on times.
fn outline(picture: &Picture) -> BTreeMap<&String, (u64, u64, u32, u32, u32, bool)> {
    let shown = |(path, (status, ..)): (_, &Seen)| {
        let s = status;
        (path, (s.length, s.children, s.mode, s.replication, s.links, s.open_for_write))
    };
    picture.iter().map(shown).collect()
}

/// One run.
struct Run {
    rng: Rng,
    main: Told,
    twin: Told,
    /// Paths of files, and of folders, after the last step.
    live: [Vec<String>; 2],
    /// By folder's inode and name: what the snapshot showed.
    pictures: BTreeMap<(u64, String), Picture>,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            main: Told::new(),
            twin: Told::new(),
            live: Default::default(),
            pictures: BTreeMap::new(),
        }
    }

    fn name(&mut self) -> &'static str {
        ["a", "b", "c"][self.rng.next(3) as usize]
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.rng.next(3);
        (0..depth).map(|_| format!("/{}", self.name())).collect()
    }

    /// A path that is there, if there is any.
    fn existing(&mut self, file: bool) -> String {
        let paths = &self.live[usize::from(!file)];
        let at = self.rng.next(paths.len() as u64) as usize;
        paths.get(at).cloned().unwrap_or_else(|| "/a".to_owned())
    }

    /// A path where something can be made: within what is there, as a rule.
    fn new_path(&mut self) -> String {
        if self.rng.next(3) == 0 {
            return self.path();
        }
        let folder = self.existing(false);
        format!("{}/{}", folder.trim_end_matches('/'), self.name())
    }

    /// In both, unless snapshots forbid it.
    fn both(&mut self, op: impl Fn(&Told) -> Op) -> [Option<Reply>; 2] {
        let ours = self.main.run(op(&self.main));
        if let Err(error) = &ours
            && error.code == Code::Snapshot
        {
            return [None, None];
        }
        let theirs = self.twin.run(op(&self.twin));
        assert_eq!(
            ours.as_ref().err().map(|error| error.code),
            theirs.as_ref().err().map(|error| error.code),
            "{ours:?} {theirs:?}"
        );
        [ours.ok(), theirs.ok()]
    }

    fn write(&mut self, path: &str) {
        let create = Op::Create {
            path: path_of(path),
            holder: "h".into(),
            mode: 0o644,
            unmasked: None,
            overwrite: self.rng.next(2) == 0,
            create_parents: true,
            replication: 1 + self.rng.next(4) as u32,
            block_bytes: BLOCK_BYTES,
            erasure: None,
        };
        if self.both(|_| create.clone())[0].is_some() {
            self.go_on(path);
        }
    }

    /// Whether both have the file open in a block of the same length: where a snapshot shows more of the last block,
    /// a new one is begun.
    fn ends_alike(&self, path: &str) -> bool {
        let end = |told: &Told| {
            let inode = told.status(path).map(|status| InodeId(status.inode))?;
            told.state.blocks_of_inode(inode).last().map(|info| (info.state, info.length))
        };
        end(&self.main) == end(&self.twin)
    }

    /// Blocks for an open file, then perhaps its end.
    fn go_on(&mut self, path: &str) {
        for _ in 0..self.rng.next(4) {
            let full = self.rng.next(2) == 0;
            let length = if full { BLOCK_BYTES } else { 1 + self.rng.next(BLOCK_BYTES - 1) };
            self.both(|side| add_block(side, path));
            if self.rng.next(5) == 0 {
                // A writer that died before it told of any byte, or told by fsync alone.
                if self.rng.next(2) == 0 {
                    self.both(|_| fsync(path, length));
                }
                return;
            }
            self.both(|_| fsync(path, length));
        }
        if self.rng.next(6) > 0 {
            self.close(path);
        }
    }

    fn close(&mut self, path: &str) {
        self.both(|side| {
            let last = last_block(side, path);
            Op::Complete { file: file(path), holder: "h".into(), last }
        });
    }

    fn append(&mut self, path: &str) {
        let [ours, theirs] =
            self.both(|_| Op::Append { path: path_of(path), holder: "h".into(), new_block: false });
        let (Some(Reply::Appended { last_block, .. }), Some(theirs)) = (ours, theirs) else {
            return;
        };
        let Reply::Appended { last_block: twins, .. } = theirs else { unreachable!() };
        // Where a snapshot shows more of the last block, a new one is begun.
        if let (Some(last), Some(twins)) = (last_block, twins)
            && self.rng.next(2) == 0
        {
            assert_eq!(last.length, twins.length);
            let length = last.length + self.rng.next(BLOCK_BYTES - last.length + 1);
            self.both(|_| fsync(path, length));
        }
        self.go_on(path);
    }

    fn truncate(&mut self, path: &str) {
        let Some(status) = self.main.status(path) else { return };
        let length = self.rng.next(status.length + 1);
        let op = Op::Truncate { path: path_of(path), length, holder: "h".into() };
        let replies = self.both(|_| op.clone());
        for (side, reply) in [&mut self.main, &mut self.twin].into_iter().zip(replies) {
            if let Some(Reply::Recovering { recovery: Some(recovery), .. }) = reply {
                side.run(Op::CommitBlockSynchronization {
                    block: recovery.block,
                    new_stamp: recovery.new_stamp,
                    new_length: recovery.new_length.unwrap(),
                    close_file: true,
                    delete_block: false,
                })
                .unwrap();
            }
        }
    }

    /// The NameNode ends a writer's hold. The block that he was at is found with all its bytes.
    fn recover(&mut self, path: &str) {
        let Some(status) = self.main.status(path) else { return };
        if !status.open_for_write {
            return;
        }
        for side in [&mut self.main, &mut self.twin] {
            let inode = InodeId(side.status(path).unwrap().inode);
            let reply = side.run(Op::BeginBlockRecovery { inode }).unwrap();
            if let Reply::Recovering { recovery: Some(recovery), .. } = reply {
                side.run(Op::CommitBlockSynchronization {
                    block: recovery.block,
                    new_stamp: recovery.new_stamp,
                    new_length: recovery.block.length,
                    close_file: true,
                    delete_block: recovery.block.length == 0,
                })
                .unwrap();
            }
        }
    }

    /// DataNodes settle the last blocks that files left to snapshots, as they are known.
    fn settle(&mut self) {
        let pending: Vec<_> = self
            .main
            .state
            .leases()
            .filter(|(inode, _)| self.main.state.inode_status(*inode).is_none())
            .map(|(inode, lease)| (inode, lease.recovery.expect("it was begun")))
            .collect();
        for (inode, recovery) in pending {
            let again = self.rng.next(3) == 0;
            let mut stamp = GenerationStamp(recovery.stamp);
            if again
                && let Ok(Reply::Recovering { recovery: Some(begun), .. }) =
                    self.main.run(Op::BeginBlockRecovery { inode })
            {
                stamp = begun.new_stamp;
            }
            let block = self.main.state.blocks_of_inode(inode).pop().expect("a block").block();
            self.main
                .run(Op::CommitBlockSynchronization {
                    block,
                    new_stamp: stamp,
                    new_length: block.length,
                    close_file: true,
                    delete_block: false,
                })
                .unwrap();
        }
    }

    fn change(&mut self, path: &str) {
        let op = match self.rng.next(5) {
            0 => {
                Op::SetPermission { path: path_of(path), mode: 0o400 + self.rng.next(0o400) as u32 }
            }
            1 => {
                Op::SetReplication { path: path_of(path), replication: 1 + self.rng.next(5) as u32 }
            }
            2 => Op::SetOwner { path: path_of(path), owner: "ann".into(), group: String::new() },
            3 => Op::Attribute(AttributeOp::SetXAttr {
                path: path_of(path),
                raw: false,
                xattr: XAttr {
                    space: XAttrSpace::User,
                    name: "x".into(),
                    value: vec![self.rng.next(9) as u8],
                },
                mode: XAttrMode::CreateOrReplace,
            }),
            _ => Op::SetTimes { path: path_of(path), modified_ns: Some(7), accessed_ns: None },
        };
        self.both(|_| op.clone());
    }

    /// A limit that nothing comes near, so that the folder counts; or none any more.
    fn count(&mut self, path: &str) {
        let limit = if self.rng.next(4) == 0 { Limit::Clear } else { Limit::Set(1 << 40) };
        let op =
            QuotaOp::Set { path: path_of(path), names: Limit::Keep, space: limit, storage: None };
        let _maybe = self.main.run(Op::Quota(op));
    }

    fn snapshots(&mut self) {
        let path = self.existing(false);
        let at = path_of(&path);
        match self.rng.next(12) {
            10..=11 => self.count(&path),
            0..=2 => {
                let _maybe = self.main.run(Op::Snapshot(SnapshotOp::Allow { path: at }));
            }
            3 => {
                let _maybe = self.main.run(Op::Snapshot(SnapshotOp::Disallow { path: at }));
            }
            4..=7 => self.make(&path),
            _ => self.forget(),
        }
    }

    /// Of a snapshottable folder, by preference.
    fn make(&mut self, path: &str) {
        let all = self.main.state.snapshottable_folders(&root());
        let at = match all.get(self.rng.next(all.len() as u64) as usize) {
            Some(folder) => folder.path.clone(),
            None => path_of(path),
        };
        let name = format!("s{}", self.rng.next(6));
        let made = self
            .main
            .run(Op::Snapshot(SnapshotOp::Create { path: at.clone(), name: name.clone() }));
        if let Ok(Reply::Snapshot(seen)) = made {
            let id = self.main.status(at.as_str()).unwrap().inode;
            let live = frozen(picture(&self.main.state, at.as_str()));
            assert_eq!(seen, at.join(DOT_SNAPSHOT).unwrap().join(&name).unwrap());
            assert_eq!(self.pictures.insert((id, name), live), None);
        }
    }

    fn forget(&mut self) {
        let at = self.rng.next(self.pictures.len() as u64) as usize;
        let Some((id, name)) = self.pictures.keys().nth(at).cloned() else { return };
        let path = self.main.state.path_of(InodeId(id)).expect("it stays while it has snapshots");
        if self.rng.next(4) == 0 {
            let to = format!("t{}", self.rng.next(3));
            let op = SnapshotOp::Rename { path, from: name.clone(), to: to.clone() };
            if self.main.run(Op::Snapshot(op)).is_ok() {
                let picture = self.pictures.remove(&(id, name)).unwrap();
                self.pictures.insert((id, to), picture);
            }
            return;
        }
        self.main.run(Op::Snapshot(SnapshotOp::Delete { path, name: name.clone() })).unwrap();
        self.pictures.remove(&(id, name));
    }

    fn step(&mut self) {
        match self.rng.next(30) {
            0..=1 => {
                let path = self.new_path();
                let op = Op::Mkdirs {
                    path: path_of(&path),
                    mode: 0o755,
                    unmasked: None,
                    create_parents: true,
                };
                self.both(|_| op.clone());
            }
            2..=5 => {
                let path = self.new_path();
                self.write(&path);
            }
            6..=8 => {
                let path = self.existing(true);
                self.append(&path);
            }
            9 => {
                // Whoever has it open goes on.
                let path = self.existing(true);
                let length = self.rng.next(BLOCK_BYTES + 1);
                if self.ends_alike(&path) {
                    self.both(|_| fsync(&path, length));
                }
                if self.rng.next(2) == 0 {
                    self.go_on(&path);
                }
            }
            10..=12 => {
                let path = self.existing(true);
                self.truncate(&path);
            }
            13 => {
                let path = self.existing(true);
                self.recover(&path);
                self.settle();
            }
            14..=15 => {
                let file = self.rng.next(3) > 0;
                let path = self.existing(file);
                self.both(|_| Op::Delete { path: path_of(&path), recursive: true });
            }
            16..=18 => {
                let file = self.rng.next(2) == 0;
                let (source, target) = (self.existing(file), self.new_path());
                let mode = match self.rng.next(2) {
                    0 => RenameMode::Replace,
                    _ => RenameMode::NoReplace,
                };
                let op = Op::Rename { source: path_of(&source), target: path_of(&target), mode };
                self.both(|_| op.clone());
            }
            19..=20 => {
                let (source, target) = (self.existing(true), self.new_path());
                let op = Op::Link { source: path_of(&source), target: path_of(&target) };
                self.both(|_| op.clone());
            }
            21..=22 => {
                let file = self.rng.next(2) == 0;
                let path = self.existing(file);
                self.change(&path);
            }
            23..=24 => {
                // Of one folder, as it must be.
                let target = self.existing(true);
                let folder = path_of(&target).parent().unwrap();
                let source = folder.join(self.name()).unwrap();
                let op = Op::Concat { target: path_of(&target), sources: vec![source] };
                self.both(|_| op.clone());
            }
            _ => self.snapshots(),
        }
    }

    fn check(&mut self) {
        let live = picture(&self.main.state, "/");
        assert_eq!(
            outline(&live),
            outline(&picture(&self.twin.state, "/")),
            "as without snapshots"
        );
        for (paths, file) in self.live.iter_mut().zip([true, false]) {
            let kind = |(_, (status, ..)): &(_, &Seen)| (status.block_bytes > 0) == file;
            *paths = live
                .iter()
                .filter(kind)
                .map(|(path, _)| if path.is_empty() { "/".to_owned() } else { path.clone() })
                .collect();
        }
        let mut held = BTreeSet::new();
        for (status, ..) in live.values() {
            let blocks = self.main.state.blocks_of_inode(InodeId(status.inode));
            held.extend(blocks.iter().map(|info| info.id.0));
        }
        for ((id, name), before) in &self.pictures {
            let folder = self.main.state.path_of(InodeId(*id)).unwrap();
            let seen = folder.join(DOT_SNAPSHOT).unwrap().join(name).unwrap();
            let now = picture(&self.main.state, seen.as_str());
            assert_eq!(&now, before, "{seen}");
            hold(before, &mut held);
        }
        usage::check(&self.main.state);
        let there: BTreeSet<u64> = self.main.state.all_blocks().map(|info| info.id.0).collect();
        assert_eq!(there, held, "blocks live as long as somebody shows them");
        let wanted = self.main.state.all_blocks().map(|info| (info.id.0, info.replication));
        assert_eq!(
            wanted.collect::<BTreeMap<_, _>>(),
            self.main.blocks,
            "as the effects told, after {:?}",
            self.main.journal.last()
        );
    }

    fn reload(&mut self) {
        let loaded = load(&write(&mut self.main.state)).unwrap();
        assert_eq!(loaded.digest(), self.main.state.digest(), "a checkpoint gives the state back");
        self.main.state = loaded;
    }
}

fn hold(picture: &Picture, held: &mut BTreeSet<u64>) {
    held.extend(picture.values().flat_map(|(_, blocks, _)| blocks.iter().map(|(id, _)| *id)));
}

fn file(path: &str) -> FileRef {
    FileRef { path: path_of(path), inode: None }
}

fn last_block(side: &Told, path: &str) -> Option<Block> {
    let inode = side.status(path).map(|status| InodeId(status.inode))?;
    side.state.blocks_of_inode(inode).last().map(|info| side.block(info.id))
}

fn add_block(side: &Told, path: &str) -> Op {
    Op::AddBlock { file: file(path), holder: "h".into(), previous: last_block(side, path) }
}

fn fsync(path: &str, length: u64) -> Op {
    Op::Fsync { file: file(path), holder: "h".into(), last_block_length: length }
}

/// A state with snapshots, bounds and blocks that only snapshots hold.
pub(super) fn some_state(seed: u64) -> State {
    let mut run = Run::new(seed);
    for _ in 0..STEPS {
        run.step();
    }
    run.main.state
}

fn run(seed: u64) {
    let mut run = Run::new(seed);
    for step in 0..STEPS {
        run.step();
        run.check();
        if run.rng.next(10) == 0 || step + 1 == STEPS {
            run.reload();
        }
    }
    let mut replayed = State::new("root");
    for request in &run.main.journal {
        let _reply = replayed.apply(request, &mut Vec::new());
    }
    assert_eq!(replayed.digest(), run.main.state.digest(), "a replay gives the state again");
    while !run.pictures.is_empty() {
        run.forget();
        run.check();
    }
    assert!(run.main.state.leases().all(|(inode, _)| run.main.state.inode_status(inode).is_some()));
    assert!(
        run.main.state.snapshots.copies.is_empty() && run.main.state.snapshots.sharers.is_empty()
    );
}

#[test]
fn random_operations_leave_every_snapshot_as_it_was() {
    let asked = std::env::var("GRANARY_SNAPSHOT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = asked.map_or(1..=SEEDS, |seed: u64| seed..=seed);
    for seed in seeds {
        let ran = std::panic::catch_unwind(|| run(seed));
        if let Err(why) = ran {
            eprintln!("GRANARY_SNAPSHOT_SEED={seed}");
            std::panic::resume_unwind(why);
        }
    }
}
