//! The cluster's core in a seeded simulator: DataNodes that die, come back, lose their disks or their streams, copy and
//! delete late, tell things twice; an operator who changes his mind; and what must hold at every moment.
//!
//! `GRANARY_SIM_SEED=N` replays one seed, `GRANARY_SIM_SEEDS=N` runs that many instead of a few hundred.
//!
//! `world` is the world outside of the core: disks, streams, the namespace's view. This file has the schedules and the
//! claims. Faults are held to what can be survived: a disk is lost, or a replica damaged, only where another good
//! replica stands that nobody was told to delete.

mod world;

use proto::BlockId;

use super::balance::BalanceStatus;
use super::datanodes::Liveness;
use super::rng::Choices;
use super::service::{Service, Wish};
use world::World;

const SEEDS: u64 = 200;
const STEP_MS: u64 = 1_000;
const FAULTY_STEPS: u64 = 150;
/// After the faults stop, everything is in order within this time.
const QUIET_STEPS: u64 = 400;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    if let Some(seed) = number("GRANARY_SIM_SEED") {
        return vec![seed];
    }
    (0..number("GRANARY_SIM_SEEDS").unwrap_or(SEEDS)).collect()
}

/// One random thing happens.
fn fault(world: &mut World, rng: &mut Choices) {
    let node = rng.below(world.nodes.len());
    match rng.below(26) {
        0..=2 => world.kill(node),
        3..=6 => world.start(node),
        7 | 22 | 23 => world.wipe(node),
        8 | 9 => world.cut_stream(node),
        10 => world.freeze(node, 1 + rng.below(60) as u64),
        11 | 12 => world.damage(node, rng),
        13 => world.tell_twice(node),
        14 => world.lose_chunk(node),
        15 => world.set_replication(rng),
        16 => world.add_block(rng),
        17 => world.remove_block(rng),
        18 => world.wish(node, Some(Wish::Decommission)),
        19 => {
            let until_ms = world.now_ms + 1_000 * (1 + rng.below(90) as u64);
            world.wish(node, Some(Wish::Maintenance { until_ms }));
        }
        20 => world.wish(node, None),
        24 | 25 => world.balance(1 + rng.below(5) as u32),
        _ => world.repair_now(rng),
    }
}

fn run(seed: u64) -> World {
    let mut rng = Choices::new(seed);
    let mut world = World::new(seed, &mut rng);
    for _ in 0..FAULTY_STEPS {
        world.now_ms += STEP_MS;
        if rng.below(3) == 0 {
            fault(&mut world, &mut rng);
        }
        world.step(&mut rng);
        world.check_always();
    }
    world
}

/// The faults stop: every node lives, and nothing is lost or late any more.
fn calm_down(world: &mut World) {
    world.is_calm = true;
    for node in 0..world.nodes.len() {
        world.nodes[node].frozen_until_ms = 0;
        world.start(node);
    }
    let mut rng = Choices::new(world.seed ^ 1);
    for _ in 0..QUIET_STEPS {
        world.now_ms += STEP_MS;
        world.step(&mut rng);
        world.check_always();
    }
}

#[test]
fn nothing_is_deleted_everywhere_limits_hold_and_all_is_mended_when_faults_stop() {
    for seed in seeds() {
        let mut world = run(seed);
        calm_down(&mut world);
        world.check_mended();
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in seeds().into_iter().take(10) {
        assert_eq!(run(seed).trace, run(seed).trace, "seed {seed}");
    }
}

#[test]
fn schedules_exercise_what_they_claim_to() {
    let mut sums = [0u64; 6];
    for seed in 0..20 {
        let mut world = run(seed);
        calm_down(&mut world);
        for (sum, count) in sums.iter_mut().zip(world.counts()) {
            *sum += count;
        }
    }
    let names = ["copies", "deletions", "deaths", "wipes", "damages", "nodes let go"];
    for (name, sum) in names.into_iter().zip(sums) {
        assert!(sum >= 20, "{name}: {sum} in 20 schedules");
    }
}

#[test]
fn a_node_is_decommissioned_without_a_moment_of_lower_redundancy() {
    for seed in seeds() {
        let mut rng = Choices::new(seed);
        let mut world = World::new(seed, &mut rng);
        world.is_calm = true;
        for _ in 0..60 {
            world.now_ms += STEP_MS;
            world.step(&mut rng);
        }
        let replicas = world.fewest_spare();
        assert!(replicas.is_none_or(|spare| spare >= 0), "seed {seed}: it began whole");
        let gone = rng.below(world.nodes.len());
        world.wish(gone, Some(Wish::Decommission));
        let mut steps = 0;
        while world.service(gone) != Service::Decommissioned {
            world.now_ms += STEP_MS;
            world.step(&mut rng);
            let spare = world.fewest_spare();
            assert!(spare.is_none_or(|spare| spare >= 0), "seed {seed}: {spare:?} replicas");
            steps += 1;
            assert!(steps < 1_000, "seed {seed}: {:?} keeps it", world.service(gone));
        }
        world.kill(gone);
        assert!(world.fewest_spare().is_none_or(|spare| spare >= 0), "seed {seed}: it was let go");
    }
}

#[test]
fn the_balancer_fills_a_new_node_without_a_moment_of_lower_redundancy() {
    for seed in seeds().into_iter().take(50) {
        let mut rng = Choices::new(seed);
        let mut world = World::new(seed, &mut rng);
        world.is_calm = true;
        for _ in 0..40 {
            world.add_block(&mut rng);
        }
        world.join();
        for _ in 0..60 {
            world.now_ms += STEP_MS;
            world.step(&mut rng);
        }
        let before = world.balanced();
        world.balance(3);
        let mut steps = 0;
        while world.balanced().running {
            world.now_ms += STEP_MS;
            world.step(&mut rng);
            world.check_always();
            let spare = world.fewest_spare();
            assert!(spare.is_none_or(|spare| spare >= 0), "seed {seed}: {spare:?} replicas");
            steps += 1;
            assert!(steps < 2_000, "seed {seed}: {:?}", world.balanced());
        }
        let after = world.balanced();
        let apart = |status: &BalanceStatus| status.fullest_percent - status.emptiest_percent;
        assert_eq!(after.outcome, "every DataNode is within the threshold", "seed {seed}");
        assert!(after.moved_blocks > 0 && apart(&after) < apart(&before), "seed {seed}: {after:?}");
        assert!(apart(&after) <= 6.0 + 1e-9, "seed {seed}: {after:?}");
        for _ in 0..20 {
            world.now_ms += STEP_MS;
            world.step(&mut rng);
        }
        world.check_mended();
    }
}

#[test]
fn a_node_in_maintenance_counts_while_it_is_away_and_not_a_moment_longer() {
    for seed in seeds().into_iter().take(50) {
        let mut rng = Choices::new(seed);
        let mut world = World::new(seed, &mut rng);
        world.is_calm = true;
        let steps = |world: &mut World, rng: &mut Choices, count: u64| {
            for _ in 0..count {
                world.now_ms += STEP_MS;
                world.step(rng);
            }
        };
        steps(&mut world, &mut rng, 60);
        let away = rng.below(world.nodes.len());
        let until_ms = world.now_ms + 300_000;
        world.wish(away, Some(Wish::Maintenance { until_ms }));
        steps(&mut world, &mut rng, 60);
        assert_eq!(world.service(away), Service::InMaintenance, "seed {seed}");
        let before = world.counts()[0];
        world.kill(away);
        steps(&mut world, &mut rng, 120);
        assert_eq!(world.liveness(away), Some(Liveness::Dead));
        assert_eq!(world.counts()[0], before, "seed {seed}: nothing is copied, it comes back");
        steps(&mut world, &mut rng, 400);
        let spare = world.fewest_spare();
        assert!(spare.is_none_or(|spare| spare >= 0), "seed {seed}: {spare:?}, its time is over");
        assert!(world.blocks.keys().all(|&id| !world.holds(away, BlockId(id))));
    }
}
