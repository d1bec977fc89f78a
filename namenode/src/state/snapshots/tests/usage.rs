//! What is counted of snapshots: the sums against a count of everything that can be seen, and each rule by itself.

use std::collections::{BTreeMap, BTreeSet};

use proto::InodeId;

use super::{allow, delete, finish, make, moved, path, remove, root};
use crate::op::quota::{Limit, QuotaOp};
use crate::op::{Op, RenameMode};
use crate::state::snapshots::Kept;
use crate::state::tests::{World, create_op};
use crate::state::{State, TreeSummary, Usage};

/// The frozen records of each inode that is not live.
fn gone(state: &State, slots: impl Iterator<Item = u32>) -> BTreeMap<u64, BTreeSet<u32>> {
    let mut found = BTreeMap::<u64, BTreeSet<u32>>::new();
    for slot in slots {
        let inode = state.inodes.get(slot);
        if inode.is_frozen() && state.slot_of_inode(InodeId(inode.id)).is_none() {
            found.entry(inode.id).or_default().insert(slot);
        }
    }
    found
}

/// What frozen records of one inode come to, block by block.
fn sum(state: &State, slots: &BTreeSet<u32>) -> Kept {
    let mut blocks = BTreeMap::new();
    let (mut length, mut replication) = (0, 0);
    for &slot in slots {
        let inode = state.inodes.get(slot);
        if inode.is_folder() {
            return Kept { folders: 1, ..Kept::default() };
        }
        length = length.max(inode.length);
        replication = replication.max(state.interned.layouts.get(inode.layout).replication);
        for (block, shown) in state.content_of(slot) {
            let most: &mut u64 = blocks.entry(block).or_default();
            *most = (*most).max(shown);
        }
    }
    let space = blocks.values().sum::<u64>() * u64::from(replication);
    Kept { files: 1, folders: 0, length, space }
}

/// All that is seen in the snapshots of a folder.
fn seen(state: &State, folder: u64) -> BTreeSet<u32> {
    let mut seen = BTreeSet::new();
    let mut pending: Vec<u32> =
        state.snapshots.folders[&folder].values().map(|snapshot| snapshot.root).collect();
    while let Some(slot) = pending.pop() {
        if state.inodes.get(slot).is_folder() {
            state.nodes.visit(state.entries_of(slot), b"", &mut |_, child| {
                pending.push(child);
                true
            });
        }
        seen.insert(slot);
    }
    seen
}

fn check_kept(state: &State) {
    let with_snapshots = || state.snapshots.folders.iter().filter(|(_, of)| !of.is_empty());
    let all = gone(state, state.inodes.iter().map(|(slot, _)| slot));
    let total: u64 = state.snapshots.kept.values().map(|kept| kept.files + kept.folders).sum();
    assert!(total >= all.len() as u64, "everything that is kept is counted somewhere");
    for (&id, _) in with_snapshots() {
        let slot = state.slot_of_inode(InodeId(id)).unwrap();
        let kept = state.kept_by_snapshots(slot);
        let mut expected = Kept::default();
        for slots in gone(state, seen(state, id).into_iter()).values() {
            let one = sum(state, slots);
            expected.files += one.files;
            expected.folders += one.folders;
            expected.length += one.length;
            expected.space += one.space;
        }
        if with_snapshots().count() == 1 {
            assert_eq!(kept, expected);
            assert_eq!(total, kept.files + kept.folders);
        } else {
            // What two folders' snapshots share is counted at one of them.
            assert!(kept.files <= expected.files && kept.folders <= expected.folders);
        }
    }
}

/// What a live file takes, with what its frozen copies have.
fn space(state: &State, file: u32) -> u64 {
    let id = state.inodes.get(file).id;
    let (mut blocks, mut replication) = (BTreeSet::new(), 0);
    let mut layout = state.layout(file);
    for (slot, inode) in state.inodes.iter().filter(|(_, inode)| inode.id == id) {
        replication = replication.max(state.interned.layouts.get(inode.layout).replication);
        blocks.extend(state.blocks_of(slot));
    }
    layout.replication = replication;
    blocks.into_iter().map(|block| state.charged(block, &layout)).sum()
}

fn recount(state: &State, slot: u32) -> Usage {
    let inode = state.inodes.get(slot);
    if !inode.is_folder() {
        return Usage { names: 1, space: space(state, slot) };
    }
    let kept = state.kept_by_snapshots(slot);
    let mut used = Usage { names: 1 + kept.files + kept.folders, space: kept.space };
    state.nodes.visit(inode.body, b"", &mut |_, child| {
        let part = recount(state, child);
        used.names += part.names;
        used.space += part.space;
        true
    });
    used
}

/// Counts everything anew.
pub(super) fn check(state: &State) {
    check_kept(state);
    for (inode, quota) in state.quotas_after(0, usize::MAX) {
        let slot = state.slot_of_inode(inode).unwrap();
        assert_eq!(quota.used, recount(state, slot), "{:?}", state.path_of(inode));
        assert_eq!(state.usage_of(slot), quota.used);
    }
}

fn limit(text: &str, names: u64, space: u64) -> Op {
    let (names, space) = (Limit::Set(names), Limit::Set(space));
    Op::Quota(QuotaOp::Set { path: path(text), names, space, storage: None })
}

fn summary(world: &World, text: &str) -> TreeSummary {
    let mut sum = world.state.begin_summary(&root(), &path(text)).unwrap();
    while world.state.sum_on(&root(), &path(text), &mut sum, 3).unwrap() {}
    sum.sum
}

fn used(world: &World, text: &str) -> (u64, u64) {
    let used = world.state.quota(&root(), &path(text)).unwrap().unwrap().used;
    check(&world.state);
    (used.names, used.space)
}

/// `/q/d` with a snapshot `s` of files `a` and `sub/b`, of 1000 bytes in three replicas each.
fn world() -> World {
    let mut world = World::new();
    world.mkdirs("/q/d/sub", 0o755);
    world.ok(limit("/q", 100, 1 << 40));
    for file in ["/q/d/a", "/q/d/sub/b"] {
        world.ok(create_op(file, "h", false));
        finish(&mut world, file, None, 1000);
    }
    world.ok(allow("/q/d"));
    world.ok(make("/q/d", "s"));
    world
}

#[test]
fn what_only_snapshots_hold_counts_where_they_are_until_they_go() {
    let mut world = world();
    assert_eq!(used(&world, "/q"), (5, 6000));
    world.ok(delete("/q/d/a"));
    assert_eq!(used(&world, "/q"), (5, 6000));
    world.ok(delete("/q/d/sub"));
    assert_eq!(used(&world, "/q"), (5, 6000));
    for at in ["/", "/q", "/q/d"] {
        let sum = summary(&world, at);
        let kept = Kept { files: 2, folders: 1, length: 2000, space: 6000 };
        assert_eq!((sum.kept, sum.files, sum.length, sum.space), (kept, 2, 2000, 6000), "{at}");
    }
    let inside = summary(&world, "/q/d/.snapshot/s");
    assert_eq!((inside.files, inside.folders, inside.kept), (2, 2, Kept::default()));
    // A quota that is set later finds the same.
    world.ok(limit("/q/d", 100, 1 << 40));
    assert_eq!(used(&world, "/q/d"), (4, 6000));
    world.ok(remove("/q/d", "s"));
    assert_eq!((used(&world, "/q"), used(&world, "/q/d")), ((2, 0), (1, 0)));
    assert_eq!(summary(&world, "/").kept, Kept::default());
}

#[test]
fn a_folder_under_a_snapshottable_one_tells_what_snapshots_hold_of_it() {
    let mut world = world();
    world.mkdirs("/q/d/sub/deep/x", 0o755);
    world.ok(create_op("/q/d/sub/deep/c", "h", false));
    finish(&mut world, "/q/d/sub/deep/c", None, 10);
    world.ok(make("/q/d", "t"));
    world.ok(delete("/q/d/sub/b"));
    world.ok(make("/q/d", "u"));
    world.ok(Op::SetPermission { path: path("/q/d/sub"), mode: 0o700 });
    world.ok(delete("/q/d/sub/deep"));
    let sum = summary(&world, "/q/d/sub");
    let kept = Kept { files: 2, folders: 2, length: 1010, space: 3030 };
    assert_eq!((sum.kept, sum.files, sum.folders), (kept, 2, 3));
    assert_eq!(summary(&world, "/q/d").kept, kept);
    world.ok(moved("/q/d/sub", "/q/d/a-sub"));
    assert_eq!(summary(&world, "/q/d/a-sub").kept, kept);
    assert_eq!(summary(&world, "/q/d/.snapshot/u/sub").kept, Kept::default());
    check(&world.state);
}

#[test]
fn a_file_counts_once_however_many_snapshots_and_names_it_has() {
    let mut world = world();
    world.ok(make("/q/d", "t"));
    world.ok(Op::SetPermission { path: path("/q/d/a"), mode: 0o600 });
    world.ok(make("/q/d", "u"));
    world.ok(Op::Link { source: path("/q/d/a"), target: path("/q/x") });
    world.ok(delete("/q/d/a"));
    // It is live elsewhere.
    assert_eq!(used(&world, "/q"), (5, 6000));
    world.ok(delete("/q/x"));
    assert_eq!(used(&world, "/q"), (5, 6000));
    assert_eq!(summary(&world, "/q/d").kept.files, 1);
    for name in ["t", "s", "u"] {
        world.ok(remove("/q/d", name));
    }
    assert_eq!(used(&world, "/q"), (4, 3000));
}

#[test]
fn a_live_file_counts_with_the_replicas_and_blocks_that_its_copies_ask_for() {
    let mut world = world();
    world.ok(Op::SetReplication { path: path("/q/d/a"), replication: 1 });
    assert_eq!(used(&world, "/q"), (5, 6000));
    world.ok(Op::SetReplication { path: path("/q/d/a"), replication: 5 });
    assert_eq!(used(&world, "/q"), (5, 8000));
    world.ok(Op::Truncate { path: path("/q/d/a"), length: 0, holder: "h".into() });
    assert_eq!(used(&world, "/q"), (5, 8000));
    world.ok(moved("/q/d/a", "/q/a"));
    assert_eq!(used(&world, "/q"), (5, 8000));
    world.ok(remove("/q/d", "s"));
    assert_eq!(used(&world, "/q"), (5, 3000));
}

#[test]
fn a_name_that_a_snapshot_keeps_makes_no_room_for_another() {
    let mut world = world();
    world.mkdirs("/x", 0o755);
    for file in ["/x/f", "/x/g"] {
        world.ok(create_op(file, "h", false));
        finish(&mut world, file, None, 1000);
    }
    world.ok(limit("/q", 5, 1 << 40));
    assert_eq!(world.code(create_op("/q/d/a", "h", true)), proto::Code::NamespaceQuota);
    let replace = |source: &str| Op::Rename {
        source: path(source),
        target: path("/q/d/a"),
        mode: RenameMode::Replace,
    };
    assert_eq!(world.code(replace("/x/f")), proto::Code::NamespaceQuota);
    world.ok(limit("/q", 6, 1 << 40));
    world.ok(replace("/x/f"));
    assert_eq!(used(&world, "/q"), (6, 9000));
    // What no snapshot shows makes room.
    world.ok(replace("/x/g"));
    assert_eq!(used(&world, "/q"), (6, 9000));
}
