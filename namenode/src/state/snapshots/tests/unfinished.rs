//! Open files that go while a snapshot shows a part of their last block.
//!
//! The bug this guards against: the block was called complete as it was known, while its replicas were being written or
//! recovered. What they became then did not fit, every replica counted as damaged, and the snapshot's bytes were lost.

use proto::{Code, GenerationStamp, InodeId};

use super::{allow, delete, finish, kept, make, named, path, remove, root, shown};
use crate::op::{BlockRecovery, Effect, Op, Reply};
use crate::state::tests::{World, create_op};
use crate::state::{BlockState, RECOVERY_HOLDER};

const FILE: &str = "/d/sub/f";
const SEEN: &str = "/d/.snapshot/s/sub/f";

/// A file of 100 bytes that a snapshot shows, appended to by `h`, who told of 150 bytes.
fn world() -> (World, InodeId) {
    let mut world = World::new();
    world.ok(create_op(FILE, "h", false));
    finish(&mut world, FILE, None, 100);
    world.ok(allow("/d"));
    world.ok(Op::Append { path: path(FILE), holder: "h".into(), new_block: false });
    world.ok(make("/d", "s"));
    let op = Op::Fsync { file: named(FILE), holder: "h".into(), last_block_length: 150 };
    world.ok(op);
    let inode = InodeId(world.status(FILE).unwrap().inode);
    (world, inode)
}

/// Deletes, and gives the recovery that this began.
fn begun(world: &mut World, what: &str) -> BlockRecovery {
    world.ok(delete(what));
    let mut started = world.effects.iter().filter_map(|effect| match effect {
        Effect::RecoveryStarted(recovery) => Some(*recovery),
        _ => None,
    });
    started.next_back().expect("a recovery is begun")
}

fn outcome(recovery: &BlockRecovery, stamp: GenerationStamp, length: u64) -> Op {
    Op::CommitBlockSynchronization {
        block: recovery.block,
        new_stamp: stamp,
        new_length: length,
        close_file: true,
        delete_block: length == 0,
    }
}

#[test]
fn the_last_block_is_recovered_for_the_snapshot_with_what_replicas_have() {
    for what in [FILE, "/d/sub"] {
        let (mut world, inode) = world();
        let recovery = begun(&mut world, what);
        assert_eq!((recovery.inode, recovery.new_length), (inode, None));
        assert_eq!(shown(&world, SEEN), [100]);
        assert_eq!(world.state.lease(inode).unwrap().holder, RECOVERY_HOLDER);
        // A restart in between, and an attempt that did not come back.
        world.state = kept::load(&kept::write(&mut world.state)).unwrap();
        let again = world.ok(Op::BeginBlockRecovery { inode });
        let Reply::Recovering { recovery: Some(again), .. } = again else { panic!("{again:?}") };
        assert_eq!(world.code(outcome(&recovery, recovery.new_stamp, 170)), Code::Stale);
        world.ok(outcome(&again, again.new_stamp, 170));
        assert_eq!(world.ok(outcome(&again, again.new_stamp, 170)), Reply::Done);
        let block = world.state.block(again.block.id).unwrap();
        assert_eq!((block.stamp, block.length), (again.new_stamp, 170));
        assert_eq!(block.state, BlockState::Complete);
        assert_eq!(shown(&world, SEEN), [100]);
        assert_eq!(world.state.lease(inode), None);
        assert_eq!(world.code(Op::BeginBlockRecovery { inode }), Code::NotFound);
        world.state = kept::load(&kept::write(&mut world.state)).unwrap();
        world.ok(remove("/d", "s"));
        assert_eq!(world.state.all_blocks().count(), 0);
    }
}

#[test]
fn a_recovery_that_was_under_way_is_begun_anew_under_another_stamp() {
    let (mut world, inode) = world();
    let first = world.ok(Op::RecoverLease { path: path(FILE), holder: "x".into() });
    let Reply::Recovering { recovery: Some(first), .. } = first else { panic!("{first:?}") };
    let recovery = begun(&mut world, FILE);
    assert!(recovery.new_stamp > first.new_stamp);
    assert_eq!(world.code(outcome(&first, first.new_stamp, 150)), Code::Stale);
    world.ok(outcome(&recovery, recovery.new_stamp, 150));
    assert_eq!((shown(&world, SEEN), world.state.lease(inode)), (vec![100], None));
}

#[test]
fn what_is_lost_of_the_block_the_snapshot_does_not_show_any_more() {
    for (found, seen) in [(60, vec![60]), (0, vec![])] {
        let (mut world, inode) = world();
        let recovery = begun(&mut world, FILE);
        world.ok(outcome(&recovery, recovery.new_stamp, found));
        assert_eq!(shown(&world, SEEN), seen);
        let status = world.state.status(&root(), &path(SEEN)).unwrap().unwrap();
        assert_eq!((status.length, world.state.lease(inode)), (found, None));
        super::usage::check(&world.state);
        assert!(kept::load(&kept::write(&mut world.state)).is_ok());
    }
}

#[test]
fn with_the_last_snapshot_that_shows_it_the_recovery_is_over() {
    let (mut world, inode) = world();
    world.ok(make("/d", "t"));
    begun(&mut world, FILE);
    world.ok(remove("/d", "s"));
    assert!(world.state.lease(inode).is_some(), "another snapshot shows it");
    world.ok(remove("/d", "t"));
    assert_eq!(world.state.lease(inode), None);
    assert_eq!(world.state.all_blocks().count(), 0);
    assert!(kept::load(&kept::write(&mut world.state)).is_ok());
}
