//! Concat: what moves, what vanishes, what is refused.

use proto::Code;
use proto::granary::FileStatus;

use super::quotas::file;
use super::{World, create_op, path, root};
use crate::op::{Block, Caller, Effect, Op};

fn concat(target: &str, sources: &[&str]) -> Op {
    Op::Concat { target: path(target), sources: sources.iter().map(|at| path(at)).collect() }
}

fn blocks(world: &World, at: &str) -> Vec<(u64, u64, u64)> {
    let found = world.state.block_locations(&root(), &path(at), 0, u64::MAX).unwrap();
    found.blocks.iter().map(|(offset, info)| (*offset, info.id.0, info.length)).collect()
}

/// A closed file with blocks of these lengths.
fn write(world: &mut World, at: &str, lengths: &[u64]) {
    world.ok(create_op(at, "h", true));
    let mut last = None;
    for &length in lengths {
        last = Some(Block { length, ..world.block(at, last).unwrap() });
    }
    world.ok(Op::Complete { file: file(at), holder: "h".into(), last });
}

#[test]
fn blocks_move_in_order_and_the_sources_vanish() {
    let mut world = World::new();
    for (name, lengths) in [("/d/t", &[4096, 904][..]), ("/d/b", &[4096]), ("/d/a", &[100])] {
        write(&mut world, name, lengths);
    }
    let ids: Vec<_> = ["/d/t", "/d/b", "/d/a"]
        .iter()
        .flat_map(|at| blocks(&world, at))
        .map(|(_, id, length)| (id, length))
        .collect();
    world.ok(Op::SetReplication { path: path("/d/a"), replication: 1 });
    world.effects.clear();
    world.ok(concat("/d/t", &["/d/b", "/d/a"]));
    let after = blocks(&world, "/d/t");
    assert_eq!(after.iter().map(|(_, id, length)| (*id, *length)).collect::<Vec<_>>(), ids);
    let offsets: Vec<_> = after.iter().map(|(offset, ..)| *offset).collect();
    assert_eq!(offsets, [0, 4096, 5000, 9096]);
    assert_eq!(world.status("/d/t").map(|status: FileStatus| status.length), Some(9196));
    assert_eq!((world.status("/d/a"), world.status("/d/b")), (None, None));
    assert_eq!(world.status("/d").unwrap().children, 1);
    let replicated =
        |effect: &&Effect| matches!(effect, Effect::ReplicationChanged { replication: 3, .. });
    assert_eq!(world.effects.iter().filter(replicated).count(), 2, "the moved blocks");
    assert_eq!(world.effects.len(), 2, "no block is removed");
    let digest = world.state.digest();
    assert_eq!(world.state.reloaded().digest(), digest);
    world.ok(Op::Append { path: path("/d/t"), holder: "h".into(), new_block: false });
    assert_eq!(world.state.block(proto::BlockId(after[3].1)).unwrap().length, 100);
}

#[test]
fn concat_is_refused_in_hdfs_words() {
    let mut world = World::new();
    for name in ["/d/t", "/d/a", "/d/linked", "/e/far"] {
        write(&mut world, name, &[10]);
    }
    world.ok(create_op("/d/open", "h", false));
    write(&mut world, "/d/empty", &[]);
    world.ok(Op::Link { source: path("/d/linked"), target: path("/d/other") });
    let create = create_op("/d/large", "h", false);
    let Op::Create { path: at, holder, mode, unmasked, overwrite, create_parents, .. } = create
    else {
        unreachable!()
    };
    let (replication, block_bytes) = (3, 8192);
    let large = Op::Create {
        path: at,
        holder,
        mode,
        unmasked,
        overwrite,
        create_parents,
        replication,
        block_bytes,
        erasure: None,
    };
    world.ok(large);
    let block = world.block("/d/large", None).unwrap();
    let last = Some(Block { length: 1, ..block });
    world.ok(Op::Complete { file: file("/d/large"), holder: "h".into(), last });
    let message = |text: &str| Some(text.to_owned());
    for (target, sources, code, text) in [
        ("/d/t", &[][..], Code::InvalidArgument, message("No sources given")),
        ("/d/none", &["/d/a"], Code::NotFound, None),
        ("/d", &["/d/a"], Code::IsFolder, None),
        ("/d/t", &["/d/none"], Code::NotFound, None),
        (
            "/d/open",
            &["/d/a"],
            Code::InvalidArgument,
            message("concat: target file /d/open is under construction"),
        ),
        (
            "/d/t",
            &["/d/a", "/d/t"],
            Code::InvalidArgument,
            message("concat: the src file /d/t is the same with the target file /d/t"),
        ),
        (
            "/d/t",
            &["/d/a", "/d/a"],
            Code::InvalidArgument,
            message("concat: at least two of the source files are the same"),
        ),
        (
            "/d/t",
            &["/e/far"],
            Code::InvalidArgument,
            message("Source file /e/far is not in the same directory with the target /d/t"),
        ),
        (
            "/d/t",
            &["/d/empty"],
            Code::InvalidArgument,
            message("concat: source file /d/empty is invalid or empty or underConstruction"),
        ),
        (
            "/d/t",
            &["/d/open"],
            Code::InvalidArgument,
            message("concat: source file /d/open is invalid or empty or underConstruction"),
        ),
        (
            "/d/t",
            &["/d/linked"],
            Code::InvalidArgument,
            message("concat: source file /d/linked has 2 names"),
        ),
        (
            "/d/t",
            &["/d/large"],
            Code::InvalidArgument,
            message(
                "concat: source file /d/large has preferred block size 8192 which is greater than \
                 the target file's preferred block size 4096",
            ),
        ),
    ] {
        let error = world.run(&root(), concat(target, sources)).unwrap_err();
        assert_eq!(error.code, code, "{target} {sources:?} {error:?}");
        if let Some(text) = text {
            assert_eq!(error.message, text);
        }
    }
    let eve = Caller::user("eve");
    let denied = world.run(&eve, concat("/d/t", &["/d/a"])).unwrap_err();
    assert_eq!(denied.code, Code::PermissionDenied);
}
