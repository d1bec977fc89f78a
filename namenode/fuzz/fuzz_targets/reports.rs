//! Any bytes as the messages of a DataNode, each behind its length: no panic, whatever it says of its replicas.
#![no_main]

use libfuzzer_sys::fuzz_target;
use namenode::fuzzing::World;
use prost::Message;
use proto::granary::{
    Block, DatanodeHeartbeat, DatanodeUp, ReplicaChange, ReplicaChanges, ReplicaState, ReportChunk,
    datanode_up,
};

#[path = "../scenario.rs"]
mod scenario;

const MESSAGES_MAX: usize = 16;
const INPUTS_MAX: usize = 5_000;

fn seeds() -> Vec<Vec<u8>> {
    let up = |message| DatanodeUp { message: Some(message) }.encode_length_delimited_to_vec();
    let block = |id| Some(Block { id, generation_stamp: 1_001, length: 9 });
    let change = |id, state| ReplicaChange {
        block: block(id),
        state: state as i32,
        ..ReplicaChange::default()
    };
    let first = 1 << 30;
    let register = up(datanode_up::Message::Register(World::datanode(1)));
    let beat = DatanodeHeartbeat { volumes: World::datanode(1).volumes, active_transfers: 1 };
    let beat = up(datanode_up::Message::Heartbeat(beat));
    let changes = vec![
        change(first + 1, ReplicaState::Finalized),
        change(first + 2, ReplicaState::BeingWritten),
        change(first + 1, ReplicaState::Deleted),
    ];
    let changes = up(datanode_up::Message::Changes(ReplicaChanges { changes }));
    let chunk = |index, last| {
        up(datanode_up::Message::Report(ReportChunk {
            report_id: 5,
            index,
            last,
            id_deltas: vec![first + u64::from(index) * 10, 1, 3],
            generation_stamps: vec![1_001, 1_002, 1_003],
            lengths: vec![1, 2, 3],
            states: vec![],
        }))
    };
    let whole = [register.clone(), beat.clone(), changes.clone(), chunk(0, false), chunk(1, true)];
    vec![register, beat, changes, chunk(0, true), whole.concat()]
}

thread_local! {
    static WORLD: std::cell::RefCell<Option<(scenario::Living, usize)>> = const { std::cell::RefCell::new(None) };
}

fuzz_target!(init: fuzz::start(seeds), |bytes: &[u8]| {
    WORLD.with_borrow_mut(|world| {
        let (living, inputs) = world.get_or_insert_with(|| (scenario::Living::with_files(), 0));
        let mut rest = bytes;
        let messages = std::iter::from_fn(|| DatanodeUp::decode_length_delimited(&mut rest).ok());
        living.hear(messages.take(MESSAGES_MAX));
        *inputs += 1;
        if *inputs == INPUTS_MAX {
            *world = None;
        }
    });
});
