//! Chooses the DataNodes of a new block.
//!
//! What the writer named first; then his own machine, the second replica in another rack, the third in the rack of the second (HDFS's
//! default policy, see `topology`). Among nodes that fit, hosts that have no replica yet come first, then the better of
//! two random candidates, by free space and load (power of two choices: Mitzenmacher 2001). What racks ask for gives
//! way where no node can do it.
//!
//! Always holds: a chosen node is alive, attached, in service, not excluded, has a volume with room for the block, and is named
//! once. Fewer DataNodes than replicas: as many as there are, if they are enough.

use proto::{Code, Error, Result};

use super::datanodes::{Datanode, Datanodes, Liveness, NodeIndex};
use super::rng::Choices;
use super::topology::next_rule;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Replicas to place.
    pub replicas: usize,
    /// Fewer than this is an error.
    pub replicas_min: usize,
    /// The most that the block may take, in bytes.
    pub block_bytes: u64,
    /// The writer's machine: an address or name; empty if unknown.
    pub writer_host: &'a str,
    /// Nodes that the writer would like, the best first: taken if they can be.
    pub favoured: &'a [NodeIndex],
    /// Nodes that hold the block already: not chosen, and other hosts than theirs are preferred.
    pub existing: &'a [NodeIndex],
    /// Nodes that must not be chosen.
    pub excluded: &'a [NodeIndex],
}

/// Chooses nodes. Errors: `NotEnoughDatanodes`, telling how many live, are excluded, and are full.
pub fn choose(nodes: &Datanodes, rng: &mut Choices, wanted: &Wanted<'_>) -> Result<Vec<NodeIndex>> {
    choose_by(pick, nodes, rng, wanted)
}

/// As [`choose`], for the units of one block group: the next goes to a rack that has the fewest.
pub fn choose_for_units(
    nodes: &Datanodes,
    rng: &mut Choices,
    wanted: &Wanted<'_>,
) -> Result<Vec<NodeIndex>> {
    choose_by(pick_for_unit, nodes, rng, wanted)
}

/// What chooses the place, in a list of nodes, of the one after those chosen.
type Pick = fn(&Datanodes, &mut Choices, &[NodeIndex], &[NodeIndex], &Wanted<'_>, usize) -> usize;

fn choose_by(
    pick: Pick,
    nodes: &Datanodes,
    rng: &mut Choices,
    wanted: &Wanted<'_>,
) -> Result<Vec<NodeIndex>> {
    let mut free: Vec<NodeIndex> = Vec::new();
    let (mut alive, mut excluded, mut full, mut suspect) = (0, 0, 0, 0);
    for (index, node) in nodes.iter() {
        match node.liveness {
            Liveness::Dead => continue,
            Liveness::Suspect => suspect += 1,
            Liveness::Alive => alive += 1,
        }
        if wanted.excluded.contains(&index) || wanted.existing.contains(&index) {
            excluded += 1;
        } else if node.takes_writes() {
            if has_room(node, wanted.block_bytes) { free.push(index) } else { full += 1 }
        }
    }
    let racks = nodes.racks();
    let mut chosen = Vec::with_capacity(wanted.replicas);
    while chosen.len() < wanted.replicas && !free.is_empty() {
        let at = pick(nodes, rng, &free, &chosen, wanted, racks);
        chosen.push(free.swap_remove(at));
    }
    if chosen.len() < wanted.replicas_min.max(1) {
        return Err(Error::new(
            Code::NotEnoughDatanodes,
            format!(
                "{} of {} replicas can be placed (at least {} are needed): {alive} DataNodes are alive, \
                 {suspect} suspect, {excluded} excluded, {full} without room for {} bytes",
                chosen.len(),
                wanted.replicas,
                wanted.replicas_min.max(1),
                wanted.block_bytes
            ),
        ));
    }
    Ok(chosen)
}

/// Whether `host` names the machine of this node.
pub fn is_on_host(node: &Datanode, host: &str) -> bool {
    !host.is_empty()
        && (node.address.host == host || (is_loopback(host) && is_loopback(&node.address.host)))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Room on one volume for the block, and in all for what is promised to other blocks too.
fn has_room(node: &Datanode, block_bytes: u64) -> bool {
    node.volume_remaining_max() >= block_bytes
        && node.remaining_bytes() >= node.reserved_bytes.saturating_add(block_bytes)
}

/// The place in `free` of the next node.
fn pick(
    nodes: &Datanodes,
    rng: &mut Choices,
    free: &[NodeIndex],
    chosen: &[NodeIndex],
    wanted: &Wanted<'_>,
    racks: usize,
) -> usize {
    let favoured = wanted.favoured.iter().find_map(|node| free.iter().position(|at| at == node));
    if let Some(at) = favoured {
        return at;
    }
    if chosen.is_empty() && wanted.existing.is_empty() {
        let local = |index: &NodeIndex| is_on_host(nodes.get(*index), wanted.writer_host);
        let locals: Vec<usize> = (0..free.len()).filter(|&at| local(&free[at])).collect();
        if !locals.is_empty() {
            return better_of_two(nodes, rng, free, &locals);
        }
    }
    let placed: Vec<NodeIndex> = wanted.existing.iter().chain(chosen).copied().collect();
    let taken = |at: &usize| {
        let host = &nodes.get(free[*at]).address.host;
        placed.iter().any(|other| nodes.get(*other).address.host == *host)
    };
    let placed_racks: Vec<&str> = placed.iter().map(|&node| nodes.rack(node)).collect();
    let rule = next_rule(&placed_racks, placed.len() + wanted.replicas - chosen.len(), racks);
    let fits = |at: &usize| rule.allows(nodes.rack(free[*at]), &placed_racks);
    let all = || 0..free.len();
    let choices: [Vec<usize>; 4] = [
        all().filter(|at| fits(at) && !taken(at)).collect(),
        all().filter(fits).collect(),
        all().filter(|at| !taken(at)).collect(),
        all().collect(),
    ];
    let among = choices.iter().find(|among| !among.is_empty()).expect("some node is free");
    better_of_two(nodes, rng, free, among)
}

/// The place in `free` of the next unit's node: in the rack that has the fewest units, on a host without one if there
/// is such.
fn pick_for_unit(
    nodes: &Datanodes,
    rng: &mut Choices,
    free: &[NodeIndex],
    chosen: &[NodeIndex],
    wanted: &Wanted<'_>,
    _racks: usize,
) -> usize {
    let placed: Vec<NodeIndex> = wanted.existing.iter().chain(chosen).copied().collect();
    let key = |&at: &usize| {
        let (rack, host) = (nodes.rack(free[at]), &nodes.get(free[at]).address.host);
        let in_rack = placed.iter().filter(|&&other| nodes.rack(other) == rack).count();
        let on_host = placed.iter().filter(|&&other| nodes.get(other).address.host == *host);
        (in_rack, on_host.count())
    };
    let least = (0..free.len()).map(|at| key(&at)).min().expect("some node is free");
    let among: Vec<usize> = (0..free.len()).filter(|at| key(at) == least).collect();
    better_of_two(nodes, rng, free, &among)
}

fn better_of_two(
    nodes: &Datanodes,
    rng: &mut Choices,
    free: &[NodeIndex],
    among: &[usize],
) -> usize {
    let a = among[rng.below(among.len())];
    let b = among[rng.below(among.len())];
    if score(nodes.get(free[b])) > score(nodes.get(free[a])) { b } else { a }
}

/// Free space by load: a node with twice the writers must have twice the room to be as good.
fn score(node: &Datanode) -> u64 {
    let load = 1 + u64::from(node.active_transfers) + u64::from(node.scheduled_blocks);
    node.remaining_bytes().saturating_sub(node.reserved_bytes) / load
}

#[cfg(test)]
mod tests {
    use super::super::topology::Topology;
    use super::*;
    use proptest::prelude::*;
    use proto::granary::{DatanodeAddress, DatanodeHeartbeat, DatanodeRegister, VolumeStatus};

    const ROOM: u64 = 1 << 30;

    /// A registry of nodes (host, remaining bytes, when last heard), looked at when 10 s are over.
    fn nodes(list: &[(u8, u64, u64)]) -> Datanodes {
        let mut nodes = Datanodes::new(5_000, 9_000, 0);
        for (number, &(host, remaining, heard_ms)) in list.iter().enumerate() {
            let volume = VolumeStatus { remaining_bytes: remaining, ..Default::default() };
            let address = DatanodeAddress {
                uuid: format!("u{number}"),
                host: format!("10.0.0.{host}"),
                data_port: 1 + number as u32,
                ..Default::default()
            };
            let message = DatanodeRegister {
                address: Some(address),
                volumes: vec![volume],
                ..Default::default()
            };
            nodes.register(heard_ms, message, |_| false).unwrap();
        }
        nodes.check(10_000);
        nodes
    }

    fn wanted(replicas: usize) -> Wanted<'static> {
        Wanted {
            replicas,
            replicas_min: 1,
            block_bytes: ROOM,
            writer_host: "",
            favoured: &[],
            existing: &[],
            excluded: &[],
        }
    }

    #[test]
    fn what_the_writer_named_is_taken_first_and_in_its_order() {
        let nodes = nodes(&[(1, 9 * ROOM, 9_000), (2, 9 * ROOM, 9_000), (3, 9 * ROOM, 9_000)]);
        let mut rng = Choices::new(1);
        let favoured = [NodeIndex(2), NodeIndex(0)];
        let mut request = Wanted { favoured: &favoured, writer_host: "10.0.0.2", ..wanted(3) };
        let all = [NodeIndex(2), NodeIndex(0), NodeIndex(1)];
        assert_eq!(choose(&nodes, &mut rng, &request).unwrap(), all);
        request = Wanted { excluded: &[NodeIndex(2)], replicas: 1, ..request };
        assert_eq!(choose(&nodes, &mut rng, &request).unwrap(), [NodeIndex(0)]);
    }

    proptest! {
        #[test]
        fn an_excluded_full_suspect_or_dead_node_is_never_chosen(
            list in prop::collection::vec((0u8..4, 0u64..3 * ROOM, 0u64..10_001), 0..12),
            excluded in prop::collection::vec(0u16..12, 0..4),
            replicas in 1usize..6,
            seed: u64,
        ) {
            let nodes = nodes(&list);
            let excluded: Vec<NodeIndex> = excluded.into_iter().map(NodeIndex).collect();
            let fit = |(number, &(_, room, heard)): (usize, &(u8, u64, u64))| {
                room >= ROOM && 10_000u64.saturating_sub(heard) < 5_000
                    && !excluded.contains(&NodeIndex(number as u16))
            };
            let able = list.iter().enumerate().filter(|&entry| fit(entry)).count();
            let request = Wanted { excluded: &excluded, ..wanted(replicas) };
            match choose(&nodes, &mut Choices::new(seed), &request) {
                Ok(chosen) => {
                    prop_assert_eq!(chosen.len(), able.min(replicas));
                    for (at, index) in chosen.iter().enumerate() {
                        prop_assert!(fit((usize::from(index.0), &list[usize::from(index.0)])));
                        prop_assert!(!chosen[..at].contains(index), "chosen twice");
                    }
                }
                Err(error) => {
                    prop_assert_eq!(able, 0);
                    prop_assert_eq!(error.code, Code::NotEnoughDatanodes);
                }
            }
        }

        #[test]
        fn hosts_are_distinct_as_long_as_there_are_enough(seed: u64) {
            let nodes = nodes(&[1, 1, 1, 2, 2, 3].map(|host| (host, ROOM, 10_000)));
            let chosen = choose(&nodes, &mut Choices::new(seed), &wanted(3)).unwrap();
            let mut hosts: Vec<_> =
                chosen.iter().map(|&index| &nodes.get(index).address.host).collect();
            hosts.sort();
            hosts.dedup();
            prop_assert_eq!(hosts.len(), 3);
        }

        #[test]
        fn the_writers_machine_comes_first(seed: u64) {
            let nodes = nodes(&[1, 2, 3, 4].map(|host| (host, ROOM, 10_000)));
            let request = Wanted { writer_host: "10.0.0.3", ..wanted(3) };
            prop_assert_eq!(choose(&nodes, &mut Choices::new(seed), &request).unwrap()[0], NodeIndex(2));
        }
    }

    /// Racks of nodes, one node for each entry, on hosts of their own.
    fn in_racks(racks: &[u8]) -> Datanodes {
        let entries =
            racks.iter().enumerate().map(|(host, rack)| format!("10.0.0.{host}=/r{rack}"));
        let list: Vec<_> = (0..racks.len()).map(|host| (host as u8, ROOM, 10_000)).collect();
        let mut nodes = nodes(&list);
        nodes.set_topology(Topology::new(&entries.collect::<Vec<_>>()));
        nodes
    }

    proptest! {
        #[test]
        fn three_replicas_stand_in_two_racks_wherever_there_are_two(
            racks in prop::collection::vec(0u8..4, 3..12),
            seed: u64,
        ) {
            let nodes = in_racks(&racks);
            let chosen = choose(&nodes, &mut Choices::new(seed), &wanted(3)).unwrap();
            let mut used: Vec<&str> = chosen.iter().map(|&node| nodes.rack(node)).collect();
            prop_assert_eq!(used.len(), 3);
            let roomy = (0..4).any(|rack| {
                let in_rack = racks.iter().filter(|other| **other == rack).count();
                in_rack >= 2 && nodes.rack(chosen[1]) == format!("/r{rack}")
            });
            if roomy && used[0] != used[1] {
                prop_assert_eq!(used[1], used[2], "the third joins the second");
            }
            used.sort_unstable();
            used.dedup();
            prop_assert_eq!(used.len() >= 2, nodes.racks() >= 2);
        }

        #[test]
        fn a_copy_goes_to_another_rack_if_all_replicas_are_in_one(seed: u64) {
            let nodes = in_racks(&[0, 0, 0, 0, 1]);
            let existing = [NodeIndex(0), NodeIndex(1)];
            let request = Wanted { existing: &existing, ..wanted(1) };
            let chosen = choose(&nodes, &mut Choices::new(seed), &request).unwrap();
            prop_assert_eq!(chosen, [NodeIndex(4)]);
        }
    }

    #[test]
    fn free_space_and_load_weigh() {
        let mut nodes = nodes(&[(1, 100 * ROOM, 10_000), (2, ROOM, 10_000)]);
        let mut rng = Choices::new(1);
        let mut share = |nodes: &Datanodes| {
            (0..1000)
                .filter(|_| choose(nodes, &mut rng, &wanted(1)).unwrap() == [NodeIndex(0)])
                .count()
        };
        assert!((700..800).contains(&share(&nodes)), "three of four pairs hold the roomy one");
        let busy = DatanodeHeartbeat {
            volumes: nodes.get(NodeIndex(0)).volumes.clone(),
            active_transfers: 1000,
        };
        let epoch = nodes.get(NodeIndex(0)).epoch;
        nodes.heartbeat(10_000, NodeIndex(0), epoch, busy).unwrap();
        assert!((200..300).contains(&share(&nodes)), "now it is the worse one of a pair");
    }

    #[test]
    fn bytes_promised_to_other_blocks_are_taken() {
        let mut nodes = nodes(&[(1, 2 * ROOM, 10_000)]);
        nodes.get_mut(NodeIndex(0)).reserved_bytes = ROOM + 1;
        let error = choose(&nodes, &mut Choices::new(1), &wanted(1)).unwrap_err();
        assert!(error.message.contains("1 DataNodes are alive"), "{error}");
        assert!(error.message.contains("1 without room"), "{error}");
    }
}
