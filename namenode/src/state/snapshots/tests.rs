//! Snapshots, one claim per test.

mod kept;
mod model;
mod unfinished;
mod usage;

use proto::{Code, InodeId};

use crate::op::snapshot::SnapshotOp;
use crate::op::{Block, Caller, Effect, Op, RenameMode, Reply};
use crate::state::tests::{World, create_op, path, root};

fn allow(text: &str) -> Op {
    Op::Snapshot(SnapshotOp::Allow { path: path(text) })
}

fn disallow(text: &str) -> Op {
    Op::Snapshot(SnapshotOp::Disallow { path: path(text) })
}

fn make(text: &str, name: &str) -> Op {
    Op::Snapshot(SnapshotOp::Create { path: path(text), name: name.into() })
}

fn remove(text: &str, name: &str) -> Op {
    Op::Snapshot(SnapshotOp::Delete { path: path(text), name: name.into() })
}

fn rename(text: &str, from: &str, to: &str) -> Op {
    Op::Snapshot(SnapshotOp::Rename { path: path(text), from: from.into(), to: to.into() })
}

fn delete(text: &str) -> Op {
    Op::Delete { path: path(text), recursive: true }
}

fn moved(source: &str, target: &str) -> Op {
    Op::Rename { source: path(source), target: path(target), mode: RenameMode::NoReplace }
}

fn names(world: &World, text: &str) -> Vec<String> {
    let listing = world.state.list(&root(), &path(text), "", 0).unwrap().unwrap();
    listing.entries.into_iter().map(|entry| entry.name).collect()
}

#[test]
fn only_owners_make_snapshots_and_only_where_a_superuser_allows() {
    let mut world = World::new();
    let ann = Caller::user("ann");
    world.mkdirs("/d", 0o755);
    assert_eq!(world.run(&ann, allow("/d")).unwrap_err().code, Code::PermissionDenied);
    assert_eq!(world.code(make("/d", "s")), Code::Snapshot);
    assert_eq!(world.code(allow("/none")), Code::NotFound);
    world.ok(create_op("/f", "h", false));
    assert_eq!(world.code(allow("/f")), Code::NotFolder);
    // Who does not own it is not told what it is.
    assert_eq!(world.run(&ann, remove("/f", "s")).unwrap_err().code, Code::PermissionDenied);
    world.ok(allow("/d"));
    assert_eq!(world.ok(allow("/d")), Reply::Done);
    assert!(world.status("/d").unwrap().snapshottable);
    assert_eq!(world.run(&ann, make("/d", "s")).unwrap_err().code, Code::PermissionDenied);
    world.ok(Op::SetOwner { path: path("/d"), owner: "ann".into(), group: String::new() });
    assert_eq!(world.run(&ann, make("/d", "s")), Ok(Reply::Snapshot(path("/d/.snapshot/s"))));
    assert_eq!(
        world.run(&Caller::user("bob"), remove("/d", "s")).unwrap_err().code,
        Code::PermissionDenied
    );
    assert_eq!(world.run(&ann, remove("/d", "s")), Ok(Reply::Done));
}

#[test]
fn names_of_snapshots_are_checked_and_default_to_the_time() {
    let mut world = World::new();
    world.mkdirs("/d", 0o755);
    world.ok(allow("/d"));
    for bad in ["a/b", ".snapshot", "."] {
        assert_eq!(world.code(make("/d", bad)), Code::InvalidPath, "{bad}");
    }
    assert_eq!(super::name_of_time(1_234_567_890_123_000_000), "s20090213-233130.123");
    assert_eq!(super::name_of_time(951_782_400_000_000_000), "s20000229-000000.000");
    assert_eq!(
        world.ok(make("/d", "")),
        Reply::Snapshot(path("/d/.snapshot/s19700101-000000.000"))
    );
    world.ok(make("/d", "s"));
    assert_eq!(world.code(make("/d", "s")), Code::Snapshot);
    assert_eq!(world.code(rename("/d", "none", "t")), Code::Snapshot);
    assert_eq!(world.code(rename("/d", "s", "s19700101-000000.000")), Code::Snapshot);
    assert_eq!(world.ok(rename("/d", "s", "s")), Reply::Done);
    // As in HDFS, which does not look.
    assert_eq!(world.ok(rename("/d", "none", "none")), Reply::Done);
    world.ok(rename("/d", "s", "t"));
    assert_eq!(names(&world, "/d/.snapshot"), ["s19700101-000000.000", "t"]);
    assert_eq!(world.code(remove("/d", "s")), Code::Snapshot);
}

#[test]
fn snapshottable_folders_do_not_nest_and_stay_while_they_have_snapshots() {
    let mut world = World::new();
    for folder in ["/a/b/c", "/other/x", "/free"] {
        world.mkdirs(folder, 0o755);
    }
    world.ok(allow("/a/b"));
    assert_eq!(world.code(allow("/a")), Code::Snapshot);
    assert_eq!(world.code(allow("/a/b/c")), Code::Snapshot);
    world.ok(allow("/other"));
    assert_eq!(world.code(moved("/a/b", "/other/b")), Code::Snapshot, "it would nest");
    assert_eq!(world.code(moved("/a", "/other/x/a")), Code::Snapshot, "it would nest");
    world.ok(make("/a/b", "s"));
    for op in
        [delete("/a/b"), delete("/a"), moved("/a", "/z"), moved("/a/b", "/z"), disallow("/a/b")]
    {
        assert_eq!(world.code(op), Code::Snapshot);
    }
    world.ok(delete("/a/b/c"));
    world.ok(remove("/a/b", "s"));
    world.ok(moved("/a/b", "/free/b"));
    assert!(world.status("/free/b").unwrap().snapshottable, "it moves along");
    world.ok(disallow("/free/b"));
    assert_eq!(world.ok(disallow("/free/b")), Reply::Done);
    world.ok(delete("/other"));
    assert_eq!(world.state.snapshot_counts(), (0, 0));
}

#[test]
fn nothing_is_written_into_a_snapshot_nor_under_its_reserved_name() {
    let mut world = World::new();
    world.mkdirs("/d/sub", 0o755);
    world.mkdirs("/plain", 0o755);
    world.ok(create_op("/d/f", "h", false));
    world.ok(allow("/d"));
    world.ok(make("/d", "s"));
    let at = |text: &str| path(&format!("/d/.snapshot{text}"));
    for op in [
        Op::Mkdirs { path: at("/s/x"), mode: 0o755, unmasked: None, create_parents: true },
        Op::Mkdirs { path: at("/x"), mode: 0o755, unmasked: None, create_parents: true },
        create_op("/d/.snapshot/s/f", "h", true),
        delete("/d/.snapshot/s/f"),
        delete("/d/.snapshot/s"),
        delete("/d/.snapshot"),
        moved("/d/.snapshot/s/f", "/g"),
        moved("/plain", "/d/.snapshot/s/sub/p"),
        Op::Link { source: at("/s/f"), target: path("/g") },
        Op::Truncate { path: at("/s/f"), length: 0, holder: "h".into() },
        Op::Append { path: at("/s/f"), holder: "h".into(), new_block: false },
        Op::SetPermission { path: at("/s"), mode: 0 },
        Op::SetReplication { path: at("/s/f"), replication: 1 },
        Op::SetTimes { path: at("/s/f"), modified_ns: Some(1), accessed_ns: None },
        allow("/d/.snapshot/s/sub"),
    ] {
        let name = op.name();
        assert_eq!(world.code(op), Code::ReadOnlySnapshot, "{name}");
    }
    for op in [
        Op::Mkdirs {
            path: path("/plain/.snapshot"),
            mode: 0o755,
            unmasked: None,
            create_parents: true,
        },
        Op::Mkdirs {
            path: path("/new/.snapshot/x"),
            mode: 0o755,
            unmasked: None,
            create_parents: true,
        },
        create_op("/plain/.snapshot", "h", false),
        moved("/d/f", "/plain/.snapshot"),
    ] {
        assert_eq!(world.code(op), Code::InvalidArgument);
    }
    assert_eq!(world.status("/plain/.snapshot"), None);
    let listed = world.state.list(&root(), &path("/plain/.snapshot"), "", 0);
    assert_eq!(listed.unwrap_err().code, Code::Snapshot, "as HDFS has it");
    assert_eq!(world.status("/d/.snapshot/none"), None);
    assert_eq!(world.status("/d/.snapshot").unwrap().children, 1);
    assert_eq!(world.status("/d/.snapshot/s/.snapshot"), None);
    assert_eq!(names(&world, "/d"), ["f", "sub"]);
}

#[test]
fn a_block_goes_with_the_last_that_holds_it_and_has_the_most_replicas_asked_for() {
    let mut world = World::new();
    world.ok(create_op("/d/f", "h", false));
    let add = Op::AddBlock {
        file: crate::op::FileRef { path: path("/d/f"), inode: None },
        holder: "h".into(),
        previous: None,
    };
    let Reply::BlockAllocated { block, .. } = world.ok(add) else { panic!("a block") };
    let block = crate::op::Block { length: 100, ..block };
    let file = crate::op::FileRef { path: path("/d/f"), inode: None };
    world.ok(Op::Complete { file, holder: "h".into(), last: Some(block) });
    world.ok(allow("/d"));
    world.ok(make("/d", "s"));
    world.ok(Op::SetReplication { path: path("/d/f"), replication: 1 });
    assert_eq!(world.state.block(block.id).unwrap().replication, 3, "the snapshot asks for 3");
    let inode = world.status("/d/f").unwrap().inode;
    world.ok(delete("/d/f"));
    assert_eq!(world.state.inode_status(InodeId(inode)), None);
    assert_eq!(world.state.block(block.id).unwrap().inode, InodeId(inode));
    assert_eq!(world.status("/d/.snapshot/s/f").unwrap().length, 100);
    world.effects.clear();
    world.ok(remove("/d", "s"));
    assert!(matches!(world.effects[..], [Effect::BlockRemoved { .. }]), "{:?}", world.effects);
    assert_eq!(world.state.counts().blocks, 0);
}

#[test]
fn a_difference_tells_what_came_went_moved_and_changed() {
    let mut world = World::new();
    for file in ["/d/same/f", "/d/in/f", "/d/gone", "/d/from/a", "/d/mode"] {
        world.ok(create_op(file, "h", false));
    }
    world.mkdirs("/d/to", 0o755);
    world.ok(allow("/d"));
    world.ok(make("/d", "s1"));
    let told = |world: &World, from: &str, to: &str| -> Vec<String> {
        let found = world.state.snapshot_diff(&root(), &path("/d"), from, to).unwrap();
        let line = |entry: super::DiffEntry| match entry.target {
            Some(target) => format!("{} {} -> {target}", entry.kind.label(), entry.path),
            None => format!("{} {}", entry.kind.label(), entry.path),
        };
        found.into_iter().map(line).collect()
    };
    assert_eq!(told(&world, "s1", ""), [""; 0]);
    world.ok(delete("/d/gone"));
    world.ok(create_op("/d/in/new", "h", false));
    world.ok(moved("/d/from/a", "/d/to/b"));
    world.ok(Op::SetPermission { path: path("/d/mode"), mode: 0o600 });
    world.ok(moved("/d/in", "/d/inner"));
    let there = [
        "M ",
        "- gone",
        "R in -> inner",
        "M from",
        "R from/a -> to/b",
        "M in",
        "+ in/new",
        "M mode",
        "M to",
    ];
    let mut found = told(&world, "s1", "");
    found.sort();
    let mut expected = there.map(String::from);
    expected.sort();
    assert_eq!(found, expected);
    world.ok(make("/d", "s2"));
    let mut between = told(&world, "s1", "s2");
    between.sort();
    assert_eq!(between, expected);
    assert!(told(&world, "s2", "s1").contains(&"R to/b -> from/a".to_owned()));
    assert_eq!(told(&world, "s2", ""), [""; 0]);
    let missing = world.state.snapshot_diff(&root(), &path("/d"), "none", "");
    assert_eq!(missing.unwrap_err().code, Code::Snapshot);
}

#[test]
fn a_snapshot_costs_one_record_and_then_the_folders_on_the_way_to_what_changes() {
    const FOLDERS: usize = 40;
    const FILES: usize = 50;
    let mut world = World::new();
    for folder in 0..FOLDERS {
        for file in 0..FILES {
            world
                .state
                .apply(
                    &crate::op::Request {
                        caller: root(),
                        call_id: None,
                        now_ns: 1,
                        op: create_op(&format!("/d/f{folder}/x{file}"), "h", false),
                    },
                    &mut Vec::new(),
                )
                .unwrap();
        }
    }
    world.ok(allow("/d"));
    let chmod = |text: &str| Op::SetPermission { path: path(text), mode: 0o600 };
    let mut records = world.state.inodes.len();
    let mut grown = |world: &mut World, op| {
        world.ok(op);
        let before = std::mem::replace(&mut records, world.state.inodes.len());
        records - before
    };
    assert_eq!(grown(&mut world, make("/d", "s1")), 1);
    assert_eq!(grown(&mut world, make("/d", "s2")), 1);
    assert_eq!(grown(&mut world, chmod("/d/f7/x1")), FOLDERS + FILES, "what is on the way");
    assert_eq!(grown(&mut world, chmod("/d/f7/x2")), 0, "copied already");
    assert_eq!(grown(&mut world, chmod("/d/f8/x2")), FILES, "the folder alone");
    assert_eq!(grown(&mut world, chmod("/d")), 0, "the root has its own record");
    assert_eq!(grown(&mut world, make("/d", "s3")), 1);
    assert_eq!(grown(&mut world, chmod("/d/f7")), FOLDERS, "a folder's own record");
    let (files, folders) = (world.state.counts().files, world.state.counts().folders);
    for name in ["s2", "s1", "s3"] {
        world.ok(remove("/d", name));
    }
    assert_eq!(world.state.inodes.len() as u64, files + folders, "all is given back");
}

fn named(text: &str) -> crate::op::FileRef {
    crate::op::FileRef { path: path(text), inode: None }
}

/// Closes an open file behind one more block of this length.
fn finish(world: &mut World, text: &str, previous: Option<Block>, length: u64) {
    let add = Op::AddBlock { file: named(text), holder: "h".into(), previous };
    let Reply::BlockAllocated { block, .. } = world.ok(add) else { panic!("a block") };
    let last = Some(Block { length, ..block });
    world.ok(Op::Complete { file: named(text), holder: "h".into(), last });
}

fn append(world: &mut World, text: &str, new_block: bool) -> Option<Block> {
    match world.ok(Op::Append { path: path(text), holder: "h".into(), new_block }) {
        Reply::Appended { last_block, .. } => last_block,
        other => panic!("{other:?}"),
    }
}

/// How much a file shows of each of its blocks.
fn shown(world: &World, text: &str) -> Vec<u64> {
    let found = world.state.block_locations(&root(), &path(text), 0, u64::MAX).unwrap();
    found.blocks.iter().map(|(_, info)| info.shown).collect()
}

fn cut(text: &str, length: u64) -> Op {
    Op::Truncate { path: path(text), length, holder: "h".into() }
}

#[test]
fn a_short_block_inside_a_snapshots_file_does_not_grow_when_the_live_file_goes_on_in_it() {
    let mut world = World::new();
    world.ok(create_op("/d/f", "h", false));
    finish(&mut world, "/d/f", None, 100);
    assert_eq!(append(&mut world, "/d/f", true), None);
    finish(&mut world, "/d/f", None, 50);
    world.ok(allow("/d"));
    world.ok(make("/d", "s"));
    world.ok(cut("/d/f", 100));
    let last = append(&mut world, "/d/f", false).expect("it goes on in the first block");
    let last = Some(Block { length: 300, ..last });
    world.ok(Op::Complete { file: named("/d/f"), holder: "h".into(), last });
    assert_eq!(shown(&world, "/d/f"), [300]);
    assert_eq!(shown(&world, "/d/.snapshot/s/f"), [100, 50]);
}

#[test]
fn a_file_cut_within_a_block_that_a_snapshot_shows_goes_on_in_a_new_one() {
    let mut world = World::new();
    world.ok(create_op("/d/f", "h", false));
    finish(&mut world, "/d/f", None, 100);
    world.ok(allow("/d"));
    world.ok(make("/d", "s"));
    let closed = Reply::Recovering { closed: true, recovery: None };
    assert_eq!(world.ok(cut("/d/f", 40)), closed);
    assert_eq!(append(&mut world, "/d/f", false), None, "no byte after 40 may be written over");
    finish(&mut world, "/d/f", None, 7);
    assert_eq!(shown(&world, "/d/f"), [40, 7]);
    assert_eq!(shown(&world, "/d/.snapshot/s/f"), [100]);
    world.ok(cut("/d/f", 40));
    world.ok(remove("/d", "s"));
    // What the file shows of its block goes along with the block.
    world.ok(create_op("/d/t", "h", false));
    finish(&mut world, "/d/t", None, 5);
    world.ok(Op::Concat { target: path("/d/t"), sources: vec![path("/d/f")] });
    assert_eq!((shown(&world, "/d/t"), world.status("/d/t").unwrap().length), (vec![5, 40], 45));
    assert!(kept::load(&kept::write(&mut world.state)).is_ok());
}

#[test]
fn concat_takes_no_file_that_is_in_a_snapshot() {
    let mut world = World::new();
    for file in ["/d/t", "/d/f"] {
        world.ok(create_op(file, "h", false));
        finish(&mut world, file, None, 10);
    }
    world.ok(allow("/d"));
    world.ok(make("/d", "s"));
    let concat = Op::Concat { target: path("/d/t"), sources: vec![path("/d/f")] };
    assert_eq!(world.code(concat), Code::Snapshot);
}
