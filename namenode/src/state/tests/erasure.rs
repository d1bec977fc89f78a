//! Erasure coding: which files are striped, what they count as, and how their content is coded anew.

use proto::granary::FileStatus;
use proto::{BlockId, Code, InodeId};

use super::*;
use crate::op::erasure::ErasureOp;
use crate::op::quota::{Limit, QuotaOp};
use crate::op::snapshot::SnapshotOp;
use crate::op::{Block, FileRef};
use crate::state::image::PageKind;
use crate::state::interned::Layout;
use crate::state::slab::Side;

const CELL: u64 = 1 << 20;
const RS_6_3: u8 = 1;
const RS_3_2: u8 = 2;
const XOR_2_1: u8 = 4;

fn create(text: &str, erasure: Option<u8>) -> Op {
    Op::Create {
        path: path(text),
        holder: "h".into(),
        mode: 0o644,
        unmasked: None,
        overwrite: true,
        create_parents: true,
        replication: 3,
        block_bytes: 2 * CELL,
        erasure,
    }
}

fn set(text: &str, policy: u8) -> Op {
    Op::Erasure(ErasureOp::SetPolicy { path: path(text), policy })
}

fn unset(text: &str) -> Op {
    Op::Erasure(ErasureOp::UnsetPolicy { path: path(text) })
}

fn exchange(target: &FileStatus, at: &str, source: &str) -> Op {
    Op::Erasure(ErasureOp::Exchange {
        target: path(at),
        source: path(source),
        inode: InodeId(target.inode),
        modified_ns: target.modified_ns,
    })
}

impl World {
    fn add(&mut self, at: &str, previous: Option<Block>) -> Block {
        let file = FileRef { path: path(at), inode: None };
        match self.ok(Op::AddBlock { file, holder: "h".into(), previous }) {
            Reply::BlockAllocated { block, .. } => block,
            reply => panic!("{reply:?}"),
        }
    }

    fn complete(&mut self, at: &str, last: Option<Block>) {
        let file = FileRef { path: path(at), inode: None };
        self.ok(Op::Complete { file, holder: "h".into(), last });
    }

    /// A closed file of one block or group.
    fn file(&mut self, at: &str, erasure: Option<u8>, length: u64) -> Block {
        self.ok(create(at, erasure));
        let block = Block { length, ..self.add(at, None) };
        self.complete(at, Some(block));
        block
    }

    fn coding(&self, text: &str) -> u32 {
        self.status(text).unwrap().erasure_policy
    }

    fn space(&self, text: &str) -> u64 {
        self.state.space_of(self.state.existing_file(&root(), &path(text)).unwrap())
    }

    fn ids(&self, text: &str) -> Vec<u64> {
        let inode = InodeId(self.status(text).unwrap().inode);
        self.state.blocks_of_inode(inode).iter().map(|info| info.id.0).collect()
    }
}

#[test]
fn the_nearest_policy_above_holds_for_new_files_and_a_file_keeps_its_own() {
    let mut world = World::new();
    world.mkdirs("/a/b/c", 0o755);
    world.file("/a/old", None, 5);
    world.ok(set("/a", RS_6_3));
    world.ok(set("/a/b", 0));
    world.ok(set("/a/b/c", RS_3_2));
    for (at, policy) in [("/a", 1), ("/a/b", 0), ("/a/b/c", 2), ("/a/old", 0)] {
        assert_eq!(world.coding(at), policy, "{at}");
    }
    world.file("/a/f", None, 5);
    world.file("/a/b/f", None, 5);
    world.file("/a/b/c/f", None, 5);
    world.file("/a/b/c/x", Some(XOR_2_1), 5);
    world.file("/a/b/c/r", Some(0), 5);
    world.ok(rename("/a/b/c/f", "/moved", RenameMode::NoReplace));
    let files = [("/a/f", 1), ("/a/b/f", 0), ("/moved", 2), ("/a/b/c/x", 4), ("/a/b/c/r", 0)];
    for (at, policy) in files {
        let status = world.status(at).unwrap();
        assert_eq!(status.erasure_policy, policy, "{at}");
        assert_eq!(status.replication, if policy == 0 { 3 } else { 1 }, "{at}");
    }
    world.ok(unset("/a/b/c"));
    assert_eq!(world.coding("/a/b/c"), 0);
    assert_eq!(world.code(unset("/a/b/c")), Code::NoSuchAttribute);
    world.ok(unset("/a/b"));
    assert_eq!(world.coding("/a/b/c"), 1);
    assert_eq!(world.code(set("/a/f", RS_3_2)), Code::NotFolder);
    let digest = world.state.digest();
    assert_eq!(world.state.reloaded().digest(), digest);
}

#[test]
fn policies_that_are_not_enabled_are_refused_for_folders_and_new_files() {
    let mut world = World::new();
    let enable = |policy, enabled| Op::Erasure(ErasureOp::Enable { policy, enabled });
    world.ok(set("/", RS_3_2));
    world.ok(enable(RS_3_2, false));
    assert_eq!(world.code(set("/", RS_3_2)), Code::InvalidArgument);
    assert_eq!(world.code(create("/x", Some(RS_3_2))), Code::InvalidArgument);
    world.file("/f", None, 5);
    assert_eq!(world.coding("/f"), 2, "a folder that has it keeps it");
    let mut loaded = world.state.reloaded();
    assert!(!loaded.is_coding_enabled(RS_3_2) && loaded.is_coding_enabled(RS_6_3));
    assert_eq!(loaded.digest(), world.state.digest());
    loaded.erasure = Default::default();
    assert_ne!(loaded.digest(), world.state.digest());
    world.ok(enable(RS_3_2, true));
    world.ok(create("/x", Some(RS_3_2)));
    for op in [enable(3, true), enable(9, true), set("/", 3), set("/", 200), create("/y", Some(6))]
    {
        assert_eq!(world.code(op), Code::InvalidArgument);
    }
    let eve = Caller::user("eve");
    assert_eq!(world.run(&eve, enable(RS_6_3, false)).unwrap_err().code, Code::PermissionDenied);
    assert_eq!(world.run(&eve, set("/", RS_6_3)).unwrap_err().code, Code::PermissionDenied);
}

#[test]
fn a_striped_file_is_made_of_groups_with_ids_and_lengths_of_their_own() {
    let mut world = World::new();
    let plain = world.file("/plain", None, 5);
    world.ok(create("/f", Some(RS_3_2)));
    let first = Block { length: 6 * CELL, ..world.add("/f", None) };
    assert_eq!(first.id, BlockId::FIRST_GROUP);
    let too_long = Block { length: first.length + 1, ..first };
    let file = || FileRef { path: path("/f"), inode: None };
    let add = Op::AddBlock { file: file(), holder: "h".into(), previous: Some(too_long) };
    assert_eq!(world.code(add), Code::InvalidArgument);
    let second = world.add("/f", Some(first));
    assert_eq!(second.id.0, first.id.0 + BlockId::GROUP_STEP);
    assert_eq!(world.add("/f", Some(first)), second, "a repetition gets the same");
    let last_block_length = CELL + 3;
    world.ok(Op::Fsync { file: file(), holder: "h".into(), last_block_length });
    assert_eq!(world.status("/f").unwrap().length, 7 * CELL + 3);
    let stamped = match world.ok(Op::UpdateBlockForPipeline { block: second, holder: "h".into() }) {
        Reply::Stamped(block) => block,
        reply => panic!("{reply:?}"),
    };
    let moved = Block { length: 2 * CELL, ..stamped };
    world.ok(Op::UpdatePipeline { holder: "h".into(), old_block: second, new_block: moved });
    world.complete("/f", Some(moved));
    assert_eq!(world.space("/f"), (6 + 4) * CELL + (2 + 2) * CELL, "data and parity");
    assert_eq!(
        world.file("/plain2", None, 5).id.0,
        plain.id.0 + 1,
        "blocks count on by themselves"
    );
    match world.ok(Op::Append { path: path("/f"), holder: "h".into(), new_block: false }) {
        Reply::Appended { last_block, last_block_offset, .. } => {
            assert_eq!((last_block, last_block_offset), (None, 8 * CELL));
        }
        reply => panic!("{reply:?}"),
    }
    let third = Block { length: 1, ..world.add("/f", None) };
    world.complete("/f", Some(third));
    assert_eq!(world.ids("/f").len(), 3);
    let unit = first.id.of_unit(2);
    assert!(world.state.block(first.id).is_some() && world.state.block(unit).is_none());
    world.ok(delete("/f", false));
    assert!(world.state.block(first.id).is_none());
    let loaded = world.state.reloaded();
    assert_eq!(loaded.counters.next_group, third.id.0 + BlockId::GROUP_STEP);
}

#[test]
fn groups_longer_than_four_gigabytes_keep_their_length() {
    let mut world = World::new();
    let Op::Create { path: at, holder, mode, unmasked, .. } = create("/f", None) else {
        unreachable!("that is what it makes");
    };
    world.ok(Op::Create {
        path: at,
        holder,
        mode,
        unmasked,
        overwrite: true,
        create_parents: true,
        replication: 1,
        block_bytes: 2 << 30,
        erasure: Some(5),
    });
    let group = Block { length: 20 << 30, ..world.add("/f", None) };
    world.complete("/f", Some(group));
    let loaded = world.state.reloaded();
    let block = loaded.block(group.id).unwrap();
    assert_eq!((block.length, block.stamp), (20 << 30, group.stamp));
    assert_eq!(block.state, crate::op::BlockState::Complete);
    assert_eq!(loaded.status(&root(), &path("/f")).unwrap().unwrap().length, 20 << 30);
}

#[test]
fn what_hdfs_refuses_on_striped_files_is_refused() {
    let mut world = World::new();
    world.file("/d/f", Some(RS_3_2), 5);
    world.file("/d/g", Some(0), 5);
    let truncate = Op::Truncate { path: path("/d/f"), length: 1, holder: "h".into() };
    assert_eq!(world.code(truncate), Code::Unsupported);
    let replicate = Op::SetReplication { path: path("/d/f"), replication: 2 };
    assert_eq!(world.code(replicate), Code::Unsupported);
    for (target, source) in [("/d/f", "/d/g"), ("/d/g", "/d/f")] {
        let concat = Op::Concat { target: path(target), sources: vec![path(source)] };
        assert_eq!(world.code(concat), Code::InvalidArgument);
    }
    let Op::Create { path: at, holder, mode, unmasked, .. } = create("/small", None) else {
        unreachable!("that is what it makes");
    };
    let small = Op::Create {
        path: at,
        holder,
        mode,
        unmasked,
        overwrite: true,
        create_parents: true,
        replication: 1,
        block_bytes: CELL / 2,
        erasure: Some(RS_3_2),
    };
    assert_eq!(world.code(small), Code::InvalidArgument, "a block holds at least a cell");
}

#[test]
fn quotas_count_data_and_parity_and_whole_groups_while_they_are_written() {
    let mut world = World::new();
    world.mkdirs("/q", 0o755);
    let limit = |space| {
        let (names, space) = (Limit::Keep, Limit::Set(space));
        Op::Quota(QuotaOp::Set { path: path("/q"), names, space, storage: None })
    };
    world.ok(limit(10 * CELL));
    let used = |world: &World| {
        let root = root();
        world.state.quota(&root, &path("/q")).unwrap().unwrap().used.space
    };
    world.ok(create("/q/f", Some(RS_3_2)));
    let group = world.add("/q/f", None);
    assert_eq!(used(&world), 10 * CELL, "five units of two cells");
    world.complete("/q/f", Some(Block { length: CELL + 1, ..group }));
    assert_eq!(used(&world), 3 * CELL + 1, "a cell and a byte, and two parity cells");
    world.ok(create("/q/g", Some(RS_3_2)));
    let file = FileRef { path: path("/q/g"), inode: None };
    let add = Op::AddBlock { file, holder: "h".into(), previous: None };
    assert_eq!(world.code(add), Code::SpaceQuota);
    world.ok(delete("/q/f", false));
    assert_eq!(used(&world), 0);
}

#[test]
fn an_exchange_codes_a_file_anew_and_nothing_else_of_it_changes() {
    let mut world = World::new();
    let old = world.file("/f", None, 2 * CELL);
    let new = world.file("/.f.new", Some(RS_3_2), 2 * CELL);
    world.ok(Op::Link { source: path("/f"), target: path("/g") });
    let before = world.status("/f").unwrap();
    world.effects.clear();
    world.ok(exchange(&before, "/f", "/.f.new"));
    let gone = world.effects.iter().any(|effect| matches!(effect, Effect::BlockRemoved { .. }));
    assert!(!gone, "readers of the old blocks go on");
    let after = world.status("/f").unwrap();
    let expected = FileStatus {
        erasure_policy: RS_3_2.into(),
        replication: 1,
        changed_ns: after.changed_ns,
        ..before.clone()
    };
    assert_eq!(after, expected);
    assert_eq!((world.ids("/f"), world.ids("/g")), (vec![new.id.0], vec![new.id.0]));
    assert_eq!(world.ids("/.f.new"), [old.id.0]);
    assert_eq!(world.state.block(new.id).unwrap().inode.0, before.inode);
    world.ok(delete("/.f.new", false));
    assert!(world.state.block(old.id).is_none());
    let digest = world.state.digest();
    assert_eq!(world.state.reloaded().digest(), digest);
}

#[test]
fn an_exchange_is_refused_if_the_target_is_not_what_was_read() {
    let mut world = World::new();
    world.file("/f", None, 5);
    world.file("/new", Some(RS_3_2), 5);
    let read = world.status("/f").unwrap();
    world.file("/f", None, 5);
    assert_eq!(world.code(exchange(&read, "/f", "/new")), Code::Stale, "another file by now");
    let read = world.status("/f").unwrap();
    let append = Op::Append { path: path("/f"), holder: "h".into(), new_block: true };
    world.ok(append);
    assert_eq!(world.code(exchange(&read, "/f", "/new")), Code::FileOpenElsewhere);
    let more = Block { length: 1, ..world.add("/f", None) };
    world.complete("/f", Some(more));
    assert_eq!(world.code(exchange(&read, "/f", "/new")), Code::Stale, "written since");
    let read = world.status("/f").unwrap();
    assert_eq!(world.code(exchange(&read, "/f", "/new")), Code::InvalidArgument, "other lengths");
    assert_eq!(world.code(exchange(&read, "/f", "/f")), Code::InvalidArgument);
    world.file("/new", Some(RS_3_2), 6);
    world.ok(Op::Link { source: path("/new"), target: path("/new2") });
    assert_eq!(world.code(exchange(&read, "/f", "/new")), Code::InvalidArgument, "two names");
}

#[test]
fn what_a_snapshot_holds_of_the_target_stays_with_the_snapshot() {
    let mut world = World::new();
    world.mkdirs("/d", 0o755);
    let old = world.file("/d/f", None, 5);
    let new = world.file("/new", Some(RS_3_2), 5);
    world.ok(Op::Snapshot(SnapshotOp::Allow { path: path("/d") }));
    world.ok(Op::Snapshot(SnapshotOp::Create { path: path("/d"), name: "s".into() }));
    let read = world.status("/d/f").unwrap();
    world.ok(exchange(&read, "/d/f", "/new"));
    assert_eq!(world.ids("/d/f"), [new.id.0]);
    assert_eq!((world.ids("/new"), world.status("/new").unwrap().length), (vec![], 0));
    let kept = world.status("/d/.snapshot/s/f").unwrap();
    assert_eq!((kept.erasure_policy, kept.replication, kept.length), (0, 3, 5));
    let info = world.state.block(old.id).unwrap();
    assert_eq!((info.replication, info.policy), (3, 0));
    let info = world.state.block(new.id).unwrap();
    assert_eq!((info.replication, info.policy), (1, RS_3_2));
    let digest = world.state.digest();
    assert_eq!(world.state.reloaded().digest(), digest);
    world.ok(Op::Snapshot(SnapshotOp::Delete { path: path("/d"), name: "s".into() }));
    assert!(world.state.block(old.id).is_none());
}

#[test]
fn a_state_without_what_came_with_erasure_coding_still_loads() {
    let mut world = World::new();
    world.file("/f", None, 5);
    let mut sections = world.state.freeze(Side::A);
    world.state.unfreeze();
    // The next group and the enabled policies, and what comes after them: what an older version did not write.
    let mut later = Vec::new();
    world.state.wishes.encode(&mut later);
    sections.truncate(sections.len() - later.len() - 10);
    let mut loaded = State::blank();
    loaded.load_sections(&sections).unwrap();
    assert_eq!(loaded.counters.next_group, BlockId::FIRST_GROUP.0);
    assert!(loaded.is_coding_enabled(RS_6_3));
    sections.extend([0; 10]);
    assert!(State::blank().load_sections(&sections).is_err(), "0 is no block group");
}

#[test]
fn groups_and_striped_files_must_belong_together_in_a_checkpoint() {
    let mut world = World::new();
    world.file("/f", Some(RS_3_2), 5);
    let slot = world.state.existing_file(&root(), &path("/f")).unwrap();
    let layout = Layout { policy: 0, ..world.state.layout(slot) };
    world.state.inodes.get_mut(slot).layout = world.state.interned.layouts.number(layout);
    let sections = world.state.freeze(Side::A);
    let mut loaded = State::blank();
    for kind in PageKind::ALL {
        for (page, bytes) in world.state.encode_frozen(kind, 0, usize::MAX) {
            loaded.load_page(kind, page, &bytes).unwrap();
        }
    }
    loaded.load_sections(&sections).unwrap();
    let error = loaded.finish_loading().unwrap_err();
    assert_eq!(error.expected, "block groups in striped files, and only there");
}
