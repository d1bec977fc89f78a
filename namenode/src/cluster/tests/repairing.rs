//! What is repaired first, and where copies go.

use super::*;

#[test]
fn a_block_with_one_good_replica_left_is_copied_before_one_with_two() {
    let blocks: Vec<(u64, BlockTruth)> = (1..=9).map(|id| (id, done(3))).collect();
    let mut world = World::new(&blocks);
    let nodes: Vec<_> = (1..=6).map(|number| world.attach(0, number)).collect();
    let all: Vec<Reported> = (1..=9).map(has).collect();
    // Block 9 stands on nodes 1 and 3, the others on 1, 2 and 3; then node 3 dies: block 9 is down to one.
    let without_nine = &all[..8];
    for (at, holds) in nodes.iter().zip([&all[..], without_nine, &all[..], &[], &[], &[]]) {
        world.report(at, &[holds]);
        world.commands(at);
    }
    world.with(|c, truth| c.tick(0, truth));
    for at in nodes.iter().filter(|at| at.index != nodes[2].index) {
        let volumes = world.cluster.datanodes.get(at.index).volumes.clone();
        let beat = DatanodeHeartbeat { volumes, active_transfers: 0 };
        world.cluster.heartbeat(30_000, at.index, at.epoch, beat).unwrap();
    }
    let progress = world.cluster.repair_progress(1);
    assert_eq!((progress.waiting(), progress.copies), (1, 0), "block 9 is in its grace time");
    world.with(|c, truth| c.tick(30_000, truth));
    let first = world.commands(&nodes[0]).transfer;
    let block = first[0].block.unwrap();
    assert_eq!((block.id, first[0].targets.len()), (9, 2), "only node 1 has it");
    assert!(first.len() <= 2, "a node sends two at once");
    let progress = world.cluster.repair_progress(30_000);
    assert_eq!(progress.copies + progress.waiting(), 9);
    assert!(progress.copies >= 3 && progress.waiting_by_danger[0] == 0, "{progress:?}");
}

#[test]
fn a_block_in_one_rack_is_copied_to_another_and_the_surplus_goes_from_the_first() {
    let mut world = World::new(&[(1, done(2))]);
    let racks = ["10.0.0.1=/a", "10.0.0.2=/a", "10.0.0.3=/a", "10.0.0.4=/b"].map(String::from);
    world.cluster.datanodes.set_topology(topology::Topology::new(&racks));
    let nodes: Vec<_> = (1..=4).map(|number| world.attach(0, number)).collect();
    for (number, at) in nodes.iter().enumerate() {
        let holds: &[Reported] = if number < 2 { &[has(1)] } else { &[] };
        world.report(at, &[holds]);
        world.commands(at);
    }
    for now_ms in [0, 10_000] {
        for at in &nodes {
            let volumes = world.cluster.datanodes.get(at.index).volumes.clone();
            let beat = DatanodeHeartbeat { volumes, active_transfers: 0 };
            world.cluster.heartbeat(now_ms, at.index, at.epoch, beat).unwrap();
        }
        world.with(|c, truth| c.tick(now_ms, truth));
    }
    let told: Vec<_> = nodes.iter().flat_map(|at| world.commands(at).transfer).collect();
    let targets: Vec<&str> = told[0].targets.iter().map(|target| &target.uuid[..]).collect();
    assert_eq!((told.len(), targets), (1, vec!["dn4"]));
    assert_eq!(world.cluster.repair_progress(10_000).misplaced, 1);
    world.change(&nodes[3], has(1));
    let holders = world.holders(1);
    assert!(holders.len() == 2 && holders.contains(&nodes[3].index), "{holders:?}");
    world.with(|c, truth| c.tick(10_001, truth));
    assert_eq!(world.cluster.repair_progress(10_001).misplaced, 0);
}
