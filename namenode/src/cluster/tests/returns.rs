//! Nodes that come back: with their data, without it, under an old identity, or twice.

use super::*;

/// A block with two replicas on nodes 1 and 2, and the rest empty; out of safe mode.
fn two_of(nodes: u32, replication: u32) -> (World, Vec<Registration>) {
    let mut world = World::new(&[(1, done(replication))]);
    let all: Vec<_> = (1..=nodes).map(|number| world.attach(0, number)).collect();
    for (number, at) in all.iter().enumerate() {
        let holds: &[Reported] = if number < 2 { &[has(1)] } else { &[] };
        world.report(at, &[holds]);
        world.commands(at);
    }
    world.with(|c, truth| c.tick(0, truth));
    (world, all)
}

fn beat(world: &mut World, now_ms: u64, at: &Registration) {
    let volumes = world.cluster.datanodes.get(at.index).volumes.clone();
    let beat = DatanodeHeartbeat { volumes, active_transfers: 0 };
    world.cluster.heartbeat(now_ms, at.index, at.epoch, beat).unwrap();
}

fn told_to_delete(world: &mut World, at: &Registration) -> usize {
    world.commands(at).invalidate.len()
}

#[test]
fn a_silent_node_is_suspect_then_dead_and_its_blocks_are_copied_without_a_grace_time() {
    let (mut world, nodes) = two_of(3, 2);
    for now_ms in [4_999, 5_000, 29_999, 30_000] {
        for at in &nodes[1..] {
            beat(&mut world, now_ms, at);
        }
        world.with(|c, truth| c.tick(now_ms, truth));
        let expected = match now_ms {
            4_999 => datanodes::Liveness::Alive,
            30_000 => datanodes::Liveness::Dead,
            _ => datanodes::Liveness::Suspect,
        };
        assert_eq!(world.cluster.datanodes.get(nodes[0].index).liveness, expected, "{now_ms}");
        let copies = world.commands(&nodes[1]).transfer.len();
        assert_eq!(copies, usize::from(now_ms == 30_000), "{now_ms}");
    }
}

#[test]
fn a_suspect_node_gets_no_new_block() {
    let (mut world, nodes) = two_of(3, 2);
    for at in &nodes[1..] {
        beat(&mut world, 5_000, at);
    }
    world.with(|c, truth| c.tick(5_000, truth));
    let wanted = placement::Wanted {
        replicas: 3,
        replicas_min: 1,
        block_bytes: 1,
        writer_host: "10.0.0.1",
        favoured: &[nodes[0].index],
        existing: &[],
        excluded: &[],
    };
    let chosen = world.cluster.place(&wanted).unwrap();
    assert!(chosen.len() == 2 && !chosen.contains(&nodes[0].index));
}

#[test]
fn a_node_that_comes_back_with_its_data_is_used_again_and_the_surplus_goes() {
    let (mut world, nodes) = two_of(3, 2);
    for at in &nodes[1..] {
        beat(&mut world, 30_000, at);
    }
    world.with(|c, truth| c.tick(30_000, truth));
    world.change(&nodes[2], has(1));
    assert_eq!(world.holders(1).len(), 2);
    let back = world.attach(31_000, 1);
    assert!(back.is_back);
    world.report(&back, &[&[has(1)]]);
    world.with(|c, truth| c.tick(31_000, truth));
    let gone: usize =
        [&back, &nodes[1], &nodes[2]].map(|at| told_to_delete(&mut world, at)).iter().sum();
    assert_eq!((gone, world.holders(1).len()), (1, 2));
}

#[test]
fn a_node_that_comes_back_empty_vouches_for_nothing_it_had() {
    // Two replicas where one is wanted: the surplus may only go once both nodes have told that they have it.
    let (mut world, nodes) = two_of(2, 2);
    let back = world.attach(1_000, 1);
    world.blocks.borrow_mut().insert(1, done(1));
    world.cluster.replication_changed(BlockId(1), 1);
    world.with(|c, truth| c.tick(1_000, truth));
    assert_eq!(told_to_delete(&mut world, &nodes[1]), 0, "node 1 has not reported since it came");
    world.report(&back, &[&[]]);
    world.with(|c, truth| c.tick(2_000, truth));
    assert_eq!(world.holders(1), [nodes[1].index]);
    assert_eq!(told_to_delete(&mut world, &nodes[1]), 0);
}

#[test]
fn what_an_old_epoch_says_changes_nothing() {
    let (mut world, nodes) = two_of(2, 2);
    let fresh = world.attach(1_000, 1);
    let change = [deleted(1)];
    let old =
        world.with(|c, truth| c.changes(1_001, nodes[0].index, nodes[0].epoch, &change, truth));
    assert_eq!(old.unwrap_err().code, Code::Stale);
    let old = world.cluster.report_chunk(1_001, nodes[0].index, nodes[0].epoch, 5, 0);
    assert_eq!(old.unwrap_err().code, Code::Stale);
    let old = world.cluster.take_commands(nodes[0].index, nodes[0].epoch);
    assert_eq!(old.unwrap_err().code, Code::Stale);
    world.cluster.detach(nodes[0].index, nodes[0].epoch);
    assert!(world.cluster.datanodes.get(fresh.index).attached, "the older stream's end is its own");
    assert_eq!(world.holders(1).len(), 2);
}

#[test]
fn a_uuid_that_lives_twice_is_listened_to_once_and_costs_no_replica() {
    // A cloned disk: the same uuid from another address. Each registration fences the other off; neither makes any
    // replica elsewhere superfluous before it has reported itself.
    let (mut world, nodes) = two_of(2, 1);
    let gone = told_to_delete(&mut world, &nodes[0]) + told_to_delete(&mut world, &nodes[1]);
    assert_eq!(gone, 1, "one of two is trimmed at once");
    let kept = world.holders(1)[0];
    for now_ms in [1_000, 1_001, 1_002] {
        let clone = world.attach_at(now_ms, 1, 9_000 + now_ms as u32);
        assert_eq!(clone.index, nodes[0].index);
        assert!(clone.moved);
        world.with(|c, truth| c.tick(now_ms, truth));
        assert_eq!(told_to_delete(&mut world, &clone), 0);
        assert_eq!(told_to_delete(&mut world, &nodes[1]), 0);
    }
    assert_eq!(world.holders(1), [kept]);
}

#[test]
fn a_replica_that_is_about_to_be_deleted_vouches_for_no_other() {
    let (mut world, nodes) = two_of(2, 2);
    world.blocks.borrow_mut().insert(1, done(1));
    world.cluster.replication_changed(BlockId(1), 1);
    world.with(|c, truth| c.tick(0, truth));
    let kept = world.holders(1)[0];
    let (keeps, goes) = match kept == nodes[0].index {
        true => (&nodes[0], &nodes[1]),
        false => (&nodes[1], &nodes[0]),
    };
    assert_eq!(told_to_delete(&mut world, goes), 1);
    // A report that was made before the deletion was carried out comes in behind the command.
    world.report_again(goes, &[has(1)]);
    world.change(goes, has(1));
    world.with(|c, truth| c.tick(1, truth));
    assert_eq!(told_to_delete(&mut world, keeps), 0);
    assert_eq!(world.holders(1), [kept]);
    world.change(goes, deleted(1));
    world.change(goes, has(1));
    assert_eq!(told_to_delete(&mut world, keeps) + told_to_delete(&mut world, goes), 1);
}
