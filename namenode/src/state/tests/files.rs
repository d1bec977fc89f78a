//! Files that are written, recovered and truncated.

use proto::{Code, GenerationStamp, InodeId};

use super::{World, create_op, path, root};
use crate::op::{Block, BlockState, Caller, Effect, FileRef, Op, Reply};
use crate::state::RECOVERY_HOLDER;

fn file(text: &str) -> FileRef {
    FileRef { path: path(text), inode: None }
}

fn add_block(text: &str, holder: &str, previous: Option<Block>) -> Op {
    Op::AddBlock { file: file(text), holder: holder.into(), previous }
}

fn complete(text: &str, last: Option<Block>) -> Op {
    Op::Complete { file: file(text), holder: "h".into(), last }
}

impl World {
    fn next_block(&mut self, text: &str, previous: Option<Block>) -> Block {
        match self.ok(add_block(text, "h", previous)) {
            Reply::BlockAllocated { block, .. } => block,
            other => panic!("{other:?}"),
        }
    }

    /// A closed file of these block lengths.
    fn write(&mut self, text: &str, lengths: &[u64]) -> Vec<Block> {
        self.ok(create_op(text, "h", true));
        let mut blocks: Vec<Block> = Vec::new();
        for &length in lengths {
            let block = self.next_block(text, blocks.last().copied());
            blocks.push(Block { length, ..block });
        }
        self.ok(complete(text, blocks.last().copied()));
        blocks
    }
}

#[test]
fn a_file_is_written_block_by_block_and_closed_once() {
    let mut world = World::new();
    let blocks = world.write("/f", &[4096, 4096, 10]);
    let status = world.status("/f").unwrap();
    assert_eq!((status.length, status.open_for_write), (8202, false));
    let found = world.state.block_locations(&root(), &path("/f"), 4096, 1).unwrap();
    assert_eq!(found.blocks.len(), 1);
    assert_eq!((found.blocks[0].0, found.blocks[0].1.block()), (4096, blocks[1]));
    assert_eq!(found.last.unwrap().1.state, BlockState::Complete);
    // A repeated complete says yes, a different one does not.
    assert!(matches!(world.ok(complete("/f", Some(blocks[2]))), Reply::Completed { .. }));
    assert_eq!(world.code(complete("/f", Some(blocks[1]))), Code::LeaseExpired);
    assert_eq!(world.code(complete("/none", None)), Code::LeaseExpired);
}

#[test]
fn a_repeated_add_block_gets_the_same_block_and_a_wrong_previous_is_refused() {
    let mut world = World::new();
    world.ok(create_op("/f", "h", false));
    let first = world.next_block("/f", None);
    assert_eq!(world.next_block("/f", None), first);
    let full = Block { length: 4096, ..first };
    let second = world.next_block("/f", Some(full));
    assert_eq!(world.next_block("/f", Some(full)), second);
    let old = Block { stamp: GenerationStamp(1), length: 1, ..second };
    assert_eq!(world.code(add_block("/f", "h", Some(old))), Code::Stale);
    let long = Block { length: 5000, ..second };
    assert_eq!(world.code(add_block("/f", "h", Some(long))), Code::InvalidArgument);
    assert_eq!(world.code(add_block("/f", "thief", Some(full))), Code::LeaseExpired);
    let abandon = || Op::AbandonBlock { file: file("/f"), holder: "h".into(), block: second };
    world.ok(abandon());
    assert_eq!(world.ok(abandon()), Reply::Done, "a repetition changes nothing");
    assert_eq!(world.status("/f").unwrap().length, 4096);
    world.ok(complete("/f", Some(full)));
}

#[test]
fn create_answers_by_what_is_there() {
    let mut world = World::new();
    world.ok(create_op("/f", "h", false));
    assert_eq!(world.code(create_op("/f", "other", false)), Code::FileOpenElsewhere);
    assert_eq!(world.code(create_op("/f/g", "h", false)), Code::ParentNotFolder);
    world.next_block("/f", None);
    let inode = world.status("/f").unwrap().inode;
    world.effects.clear();
    world.ok(create_op("/f", "other", true));
    assert_ne!(world.status("/f").unwrap().inode, inode);
    assert!(matches!(world.effects[0], Effect::LeaseGone { .. }), "{:?}", world.effects);
    assert!(matches!(world.effects[1], Effect::BlockRemoved { .. }));
    world.mkdirs("/d", 0o755);
    assert_eq!(world.code(create_op("/d", "h", true)), Code::AlreadyExists);
    assert_eq!(world.code(create_op("/x", RECOVERY_HOLDER, true)), Code::InvalidArgument);
}

#[test]
fn a_pipeline_takes_a_minted_stamp_and_no_other() {
    let mut world = World::new();
    world.ok(create_op("/f", "h", false));
    let block = world.next_block("/f", None);
    let mint = Op::UpdateBlockForPipeline { block, holder: "h".into() };
    let Reply::Stamped(stamped) = world.ok(mint) else { panic!("a stamp") };
    assert_eq!(world.state.block(block.id).unwrap().stamp, block.stamp, "nothing changed yet");
    let update = |stamp: u64, length| Op::UpdatePipeline {
        holder: "h".into(),
        old_block: block,
        new_block: Block { stamp: GenerationStamp(stamp), length, ..block },
    };
    assert_eq!(world.code(update(stamped.stamp.0 + 1, 0)), Code::Stale, "never minted");
    world.ok(update(stamped.stamp.0, 100));
    assert_eq!(world.ok(update(stamped.stamp.0, 100)), Reply::Done);
    assert_eq!(world.status("/f").unwrap().length, 100);
    assert_eq!(world.code(complete("/f", Some(Block { length: 100, ..block }))), Code::Stale);
    world.ok(complete("/f", Some(Block { length: 100, ..stamped })));
}

#[test]
fn fsync_tells_readers_and_append_goes_on_where_the_file_ends() {
    let mut world = World::new();
    world.ok(create_op("/f", "h", false));
    let block = world.next_block("/f", None);
    let fsync =
        |length| Op::Fsync { file: file("/f"), holder: "h".into(), last_block_length: length };
    world.ok(fsync(70));
    assert_eq!(world.ok(fsync(50)), Reply::Done);
    assert_eq!(world.status("/f").unwrap().length, 70);
    world.ok(complete("/f", Some(Block { length: 80, ..block })));
    let append = || Op::Append { path: path("/f"), holder: "h".into(), new_block: false };
    let Reply::Appended { last_block, last_block_offset, .. } = world.ok(append()) else {
        panic!("appended")
    };
    assert_eq!((last_block.unwrap().length, last_block_offset), (80, 0));
    assert_eq!(world.code(append()), Code::FileOpenElsewhere);
    world.ok(complete("/f", Some(Block { length: 4096, ..last_block.unwrap() })));
    let Reply::Appended { last_block: None, .. } = world.ok(append()) else { panic!("full") };
    let second = world.next_block("/f", None);
    world.ok(complete("/f", Some(Block { length: 1, ..second })));
    assert_eq!(world.status("/f").unwrap().length, 4097);
}

#[test]
fn a_lost_writer_is_recovered_under_the_newest_stamp_alone() {
    let mut world = World::new();
    world.ok(create_op("/f", "h", false));
    let block = world.next_block("/f", None);
    let inode = InodeId(world.status("/f").unwrap().inode);
    let mut begin = || match world.ok(Op::BeginBlockRecovery { inode }) {
        Reply::Recovering { closed: false, recovery: Some(recovery) } => recovery,
        other => panic!("{other:?}"),
    };
    let (first, second) = (begin(), begin());
    let commit = |stamp, length| Op::CommitBlockSynchronization {
        block,
        new_stamp: stamp,
        new_length: length,
        close_file: true,
        delete_block: false,
    };
    assert_eq!(world.code(add_block("/f", "h", None)), Code::LeaseExpired);
    assert_eq!(world.code(add_block("/f", RECOVERY_HOLDER, None)), Code::LeaseExpired);
    assert_eq!(world.code(commit(first.new_stamp, 5)), Code::Stale);
    let ann = Caller::user("ann");
    assert!(world.run(&ann, commit(second.new_stamp, 5)).is_err(), "not for users");
    world.ok(commit(second.new_stamp, 5));
    assert_eq!(world.ok(commit(second.new_stamp, 5)), Reply::Done);
    let status = world.status("/f").unwrap();
    assert_eq!((status.length, status.open_for_write), (5, false));
    assert_eq!(world.state.block(block.id).unwrap().stamp, second.new_stamp);
}

#[test]
fn truncate_cuts_at_boundaries_at_once_and_inside_a_block_by_recovery() {
    let mut world = World::new();
    world.write("/f", &[4096, 4096, 100]);
    let cut = |length| Op::Truncate { path: path("/f"), length, holder: "h".into() };
    assert_eq!(world.code(cut(9000)), Code::InvalidArgument);
    let closed = Reply::Recovering { closed: true, recovery: None };
    assert_eq!(world.ok(cut(8292)), closed);
    assert_eq!(world.ok(cut(4096)), closed);
    assert_eq!(world.state.counts().blocks, 1);
    let Reply::Recovering { closed: false, recovery: Some(recovery) } = world.ok(cut(10)) else {
        panic!("a recovery")
    };
    assert_eq!(recovery.new_length, Some(10));
    assert_eq!(world.status("/f").unwrap().length, 10);
    assert_eq!(world.code(cut(5)), Code::FileOpenElsewhere);
    let commit = |length| Op::CommitBlockSynchronization {
        block: recovery.block,
        new_stamp: recovery.new_stamp,
        new_length: length,
        close_file: true,
        delete_block: false,
    };
    assert_eq!(world.code(commit(11)), Code::InvalidArgument);
    world.ok(commit(10));
    assert_eq!(world.ok(cut(0)), closed);
    assert_eq!(world.state.counts().blocks, 0);
}
