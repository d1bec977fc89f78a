//! Striped files: units that fail while they are written and read.

use std::collections::BTreeSet;

use bytes::Bytes;
use client::{Code, CreateOptions};
use proto::erasure::Policy;
use proto::granary::LocatedBlock;
use transfer::coder::{Code as Coded, Coder};
use transfer::stripe::{Layout, unit_block};

use super::{Cluster, content};

const CELL: usize = 1 << 20;

/// A cluster whose files get a policy, with `spare` DataNodes more than it has units; units of at most `rows` cells.
pub(super) async fn striped(policy: &str, spare: usize, rows: u64) -> Cluster {
    let policy = Policy::by_name(policy).unwrap();
    let cluster = Cluster::of(usize::from(policy.units()) + spare).await;
    let mut state = cluster.namenode.state.lock().unwrap();
    state.policy = Some(policy);
    state.block_bytes = rows * CELL as u64;
    drop(state);
    cluster
}

/// What is stored of a group: each unit that the NameNode counts on, whole, finalized and at the group's stamp, or
/// `None`. Fails if one that it counts on has other bytes than the layout says.
fn units_of(cluster: &Cluster, located: &LocatedBlock, layout: Layout) -> Vec<Option<Vec<u8>>> {
    let block = located.block.unwrap();
    let mut units = vec![None; layout.units()];
    for (&unit, location) in located.units.iter().zip(&located.locations) {
        let node = cluster.datanodes.iter().find(|node| node.address.uuid == location.uuid);
        let unit = usize::from(unit);
        let replica = node.unwrap().replica(unit_block(block.id, unit));
        let length = layout.unit_length(block.length, unit);
        let Some(replica) = replica else {
            assert!(length == 0 || node.unwrap().is_dead(), "unit {unit} of {block:?} is there");
            continue;
        };
        if replica.finalized && replica.stamp == block.generation_stamp {
            assert_eq!(replica.data.len() as u64, length, "unit {unit} of {block:?}");
            units[unit] = Some(replica.data);
        }
    }
    units
}

/// Every group has at most `lost_max` units less than it should, and its bytes come back from those that are left,
/// parity first.
fn check_groups(cluster: &Cluster, content: &[u8], lost_max: usize) {
    let (blocks, policy) = {
        let state = cluster.namenode.state.lock().unwrap();
        (state.blocks.clone(), state.policy.unwrap())
    };
    let layout = Layout::from(policy);
    let k = layout.data_units;
    let coder = Coder::new(match policy.name {
        "XOR-2-1-1024k" => Coded::Xor { data: k },
        _ => Coded::ReedSolomon { data: k, parity: layout.parity_units },
    });
    let mut at = 0;
    for located in &blocks {
        let bytes = located.block.unwrap().length;
        assert_eq!(located.offset, at as u64);
        let expected = &content[at..at + bytes as usize];
        at += bytes as usize;
        let units = units_of(cluster, located, layout);
        let is_there =
            |unit: &usize| units[*unit].is_some() || layout.unit_length(bytes, *unit) == 0;
        let there: Vec<usize> = (0..layout.units()).rev().filter(is_there).collect();
        assert!(there.len() + lost_max >= layout.units(), "{there:?} of {located:?}");
        let plan = coder.plan(&there, &(0..k).collect::<Vec<_>>()).unwrap();
        let unit_bytes = layout.unit_length(bytes, 0) as usize;
        let sources: Vec<Vec<u8>> = plan
            .sources()
            .iter()
            .map(|unit| {
                let mut data = units[*unit].clone().unwrap_or_default();
                data.resize(unit_bytes, 0);
                data
            })
            .collect();
        let sources: Vec<&[u8]> = sources.iter().map(|unit| &unit[..]).collect();
        let mut decoded = vec![vec![0; unit_bytes]; k];
        let mut outputs: Vec<&mut [u8]> = decoded.iter_mut().map(|unit| &mut unit[..]).collect();
        plan.decode(&sources, &mut outputs);
        for piece in layout.pieces(0..bytes) {
            let got = &decoded[piece.unit][piece.unit_offset as usize..][..piece.length as usize];
            let wanted = &expected[piece.offset as usize..][..piece.length as usize];
            assert!(got == wanted, "{piece:?} of {located:?}");
        }
    }
    assert_eq!(at, content.len());
}

fn count(cluster: &Cluster, call: &str) -> usize {
    cluster.namenode.count(call)
}

#[tokio::test]
async fn files_of_every_size_around_cells_rows_and_groups_are_laid_out_as_hdfs_does() {
    let cluster = striped("RS-3-2-1024k", 0, 2).await;
    let (row, group) = (3 * CELL, 6 * CELL);
    for bytes in [0, 1, 511, 512, CELL - 1, CELL, CELL + 1, row - 1, row, row + 1, group, group + 7]
    {
        let content = content(bytes);
        cluster.write(&content).await.unwrap();
        check_groups(&cluster, &content, 0);
    }
    assert_eq!(count(&cluster, "stamp"), 0, "nothing failed");
}

#[tokio::test]
async fn shared_bytes_make_the_same_units_as_copied_ones() {
    let cluster = striped("RS-3-2-1024k", 0, 2).await;
    let content = content(7 * CELL + 12_345);
    let shared = Bytes::from(content.clone());
    for head in [0, 100, 512, CELL] {
        let mut writer = cluster.fs.create(&cluster.path, CreateOptions::default()).await.unwrap();
        writer.write(&content[..head]).await.unwrap();
        writer.write_bytes(shared.slice(head..)).await.unwrap();
        writer.close().await.unwrap();
        check_groups(&cluster, &content, 0);
    }
}

#[tokio::test]
async fn any_two_datanodes_may_die_at_any_packet_of_a_unit() {
    let content = content(5 * CELL + 100);
    for (first, second) in [(0, 1), (0, 4), (2, 3), (3, 4)] {
        for packets in [0, 1, 64, 65, 100, 127] {
            let cluster = striped("RS-3-2-1024k", 0, 2).await;
            cluster.datanodes[first].fail(|f| f.die_after_packets = Some(packets));
            cluster.datanodes[second].fail(|f| f.die_after_packets = Some(packets / 2));
            cluster.write(&content).await.unwrap();
            check_groups(&cluster, &content, 2);
        }
    }
}

#[tokio::test]
async fn datanodes_that_die_while_units_are_ended_are_left_out() {
    for victims in [vec![0], vec![4], vec![1, 3]] {
        let cluster = striped("RS-3-2-1024k", 0, 1).await;
        for &victim in &victims {
            cluster.datanodes[victim].fail(|f| f.die_at_last_packet = true);
        }
        let content = content(4 * CELL);
        cluster.write(&content).await.unwrap();
        check_groups(&cluster, &content, victims.len());
    }
}

#[tokio::test]
async fn a_group_whose_datanodes_refuse_it_is_placed_on_others() {
    let cluster = striped("RS-3-2-1024k", 2, 2).await;
    cluster.datanodes[1].fail(|f| f.refuse_writes = true);
    cluster.datanodes[4].kill();
    let content = content(3 * CELL);
    cluster.write(&content).await.unwrap();
    check_groups(&cluster, &content, 0);
    assert_eq!((count(&cluster, "abandon"), count(&cluster, "stamp")), (1, 0));
}

#[tokio::test]
async fn without_other_datanodes_a_group_goes_on_with_units_lost_and_the_next_asks_for_the_rest() {
    let cluster = striped("RS-3-2-1024k", 0, 1).await;
    cluster.datanodes[0].kill();
    cluster.datanodes[3].kill();
    let content = content(6 * CELL);
    cluster.write(&content).await.unwrap();
    check_groups(&cluster, &content, 2);
    assert_eq!((count(&cluster, "add"), count(&cluster, "abandon")), (3, 1), "it is remembered");
}

#[tokio::test]
async fn one_unit_more_than_the_parity_is_an_error_that_names_the_units() {
    let cluster = striped("RS-3-2-1024k", 0, 4).await;
    for node in &cluster.datanodes[1..4] {
        node.fail(|f| f.die_after_packets = Some(70));
    }
    let error = cluster.write(&content(9 * CELL)).await.unwrap_err();
    assert_eq!(error.code, Code::NotEnoughDatanodes);
    for part in ["/file", "units [1, 2, 3]", "at most 2", "127.0.0.1:"] {
        assert!(error.message.contains(part), "{error} should tell {part}");
    }
}

#[tokio::test]
async fn lost_units_are_fenced_by_a_new_stamp_before_the_group_ends() {
    let cluster = striped("RS-3-2-1024k", 0, 4).await;
    cluster.datanodes[2].fail(|f| f.die_after_packets = Some(5));
    let content = content(8 * CELL);
    cluster.write(&content).await.unwrap();
    check_groups(&cluster, &content, 1);
    let state = cluster.namenode.state.lock().unwrap();
    let group = state.blocks[0].block.unwrap();
    let lost = cluster.datanodes[2].replica(unit_block(group.id, 2)).unwrap();
    assert!(lost.stamp < group.generation_stamp);
    let names: BTreeSet<u8> = state.blocks[0].units.iter().copied().collect();
    assert_eq!(names, BTreeSet::from([0, 1, 3, 4]));
}

#[tokio::test]
async fn a_flush_ends_a_group_and_tells_its_length() {
    let cluster = striped("RS-3-2-1024k", 0, 2).await;
    let content = content(5 * CELL);
    let mut writer = cluster.fs.create(&cluster.path, CreateOptions::default()).await.unwrap();
    let mut at = 0;
    for (index, step) in [1, 4_000, CELL, 3 * CELL].into_iter().enumerate() {
        writer.write(&content[at..at + step]).await.unwrap();
        at += step;
        writer.flush().await.unwrap();
        writer.sync().await.unwrap();
        check_groups(&cluster, &content[..at], 0);
        assert_eq!(count(&cluster, "fsync"), index + 1, "once for each group");
    }
    writer.write(&content[at..]).await.unwrap();
    writer.close().await.unwrap();
    check_groups(&cluster, &content, 0);
}

#[tokio::test]
async fn an_append_begins_a_group() {
    let cluster = striped("RS-3-2-1024k", 0, 2).await;
    let content = content(4 * CELL);
    cluster.write(&content[..1_000]).await.unwrap();
    for (from, to) in [(1_000, 1_001), (1_001, 1_001), (1_001, content.len())] {
        let mut writer = cluster.fs.append(&cluster.path).await.unwrap();
        assert_eq!(writer.position(), from as u64);
        writer.write(&content[from..to]).await.unwrap();
        writer.close().await.unwrap();
        check_groups(&cluster, &content[..to], 0);
    }
    assert_eq!(count(&cluster, "add"), 3);
}

#[tokio::test]
async fn a_write_that_is_dropped_half_way_leaves_the_writer_usable() {
    let cluster = striped("XOR-2-1-1024k", 0, 2).await;
    let content = content(20 * CELL);
    let mut writer = cluster.fs.create(&cluster.path, CreateOptions::default()).await.unwrap();
    let mut dropped = 0;
    while writer.position() < content.len() as u64 {
        let at = writer.position() as usize;
        let end = (at + 3 * CELL).min(content.len());
        let write = writer.write(&content[at..end]);
        let moment = std::time::Duration::from_micros(300);
        dropped += usize::from(tokio::time::timeout(moment, write).await.is_err());
    }
    writer.close().await.unwrap();
    check_groups(&cluster, &content, 0);
    assert!(dropped > 0, "a future was dropped");
}

/// A cluster with one file of `bytes`.
async fn with_file(policy: &str, rows: u64, bytes: usize) -> (Cluster, Vec<u8>) {
    let cluster = striped(policy, 0, rows).await;
    let content = content(bytes);
    cluster.write(&content).await.unwrap();
    (cluster, content)
}

/// Every set of 1 to `most` out of `nodes`.
fn sets(nodes: usize, most: usize) -> impl Iterator<Item = Vec<usize>> {
    let masks = (1u32..1 << nodes).filter(move |mask| mask.count_ones() as usize <= most);
    masks.map(move |mask| (0..nodes).filter(|node| mask >> node & 1 == 1).collect())
}

/// Ranges that begin and end in the middle of cells, at their edges, and in different groups.
const RANGES: [(usize, usize); 8] = [
    (0, 10),
    (CELL - 5, 10),
    (CELL, CELL),
    (700, 2 * CELL),
    (3 * CELL - 1, 2),
    (CELL + 99, 4 * CELL),
    (5 * CELL, 9 * CELL),
    (6 * CELL + 70_000, 1),
];

/// Reads all of the file, and ranges of it.
async fn check_reads(cluster: &Cluster, content: &[u8], what: &str) {
    assert!(cluster.read().await.unwrap() == content, "{what}");
    let reader = cluster.fs.open(&cluster.path).await.unwrap();
    for (offset, length) in RANGES {
        let from = offset.min(content.len());
        let expected = &content[from..(offset + length).min(content.len())];
        let got = reader.read_bytes_at(offset as u64, length).await.unwrap();
        assert!(got == expected, "{what}: {length} bytes at {offset}");
    }
}

fn reads(cluster: &Cluster) -> Vec<usize> {
    cluster.datanodes.iter().map(|node| *node.shared.reads.lock().unwrap()).collect()
}

#[tokio::test]
async fn files_of_every_size_are_read_without_any_two_of_their_units() {
    for bytes in [1, 700, CELL, CELL + 1, 3 * CELL, 5 * CELL - 3, 8 * CELL + 12_345] {
        let (cluster, content) = with_file("RS-3-2-1024k", 2, bytes).await;
        check_reads(&cluster, &content, "all are there").await;
        let stored: Vec<_> = cluster.datanodes.iter().map(|n| n.take_replicas()).collect();
        for lost in sets(5, 2) {
            for (node, stored) in cluster.datanodes.iter().zip(&stored) {
                *node.shared.replicas.lock().unwrap() = stored.clone();
            }
            for &node in &lost {
                cluster.datanodes[node].take_replicas();
            }
            check_reads(&cluster, &content, &format!("{bytes} bytes without {lost:?}")).await;
        }
    }
}

#[tokio::test]
async fn dead_datanodes_and_damaged_units_are_read_around_and_damage_is_reported() {
    let (cluster, content) = with_file("RS-3-2-1024k", 2, 7 * CELL + 9).await;
    cluster.datanodes[3].kill();
    cluster.datanodes[1].fail(|f| f.flip_at = Some(CELL as u64 + 77));
    check_reads(&cluster, &content, "one is dead, one is damaged").await;
    let reported = async {
        while cluster.namenode.state.lock().unwrap().reported_bad.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), reported).await.unwrap();
    let reported = cluster.namenode.state.lock().unwrap().reported_bad.clone();
    assert!(reported.iter().all(|node| node == "dn-1"), "{reported:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_of_a_unit_loses_nothing() {
    for victim in 0..3 {
        let (cluster, content) = with_file("RS-3-2-1024k", 4, 10 * CELL).await;
        cluster.datanodes[victim].fail(|f| f.cut_reads_after = Some(150));
        assert!(cluster.read().await.unwrap() == content, "unit {victim}");
    }
}

#[tokio::test]
async fn a_unit_that_does_not_answer_is_computed_from_others() {
    let (cluster, content) = with_file("RS-3-2-1024k", 2, 5 * CELL).await;
    for node in [0, 2] {
        cluster.datanodes[node].fail(|f| f.stall_reads = true);
    }
    let begun = std::time::Instant::now();
    check_reads(&cluster, &content, "two hang").await;
    let taken = begun.elapsed();
    assert!(taken < std::time::Duration::from_secs(15), "{taken:?}: hedged once, then remembered");
}

#[tokio::test]
async fn a_small_read_touches_one_unit_and_a_lost_one_costs_k_small_reads() {
    let (cluster, content) = with_file("RS-3-2-1024k", 2, 6 * CELL).await;
    let reader = cluster.fs.open(&cluster.path).await.unwrap();
    let before = reads(&cluster);
    let offset = CELL + 4_000;
    let got = reader.read_bytes_at(offset as u64, 5_000).await.unwrap();
    assert!(got == content[offset..offset + 5_000]);
    let count = |before: &[usize]| -> Vec<usize> {
        reads(&cluster).iter().zip(before).map(|(after, before)| after - before).collect()
    };
    assert_eq!(count(&before), [0, 1, 0, 0, 0]);
    cluster.datanodes[1].take_replicas();
    let before = reads(&cluster);
    let got = reader.read_bytes_at(offset as u64, 5_000).await.unwrap();
    assert!(got == content[offset..offset + 5_000]);
    assert_eq!(count(&before), [1, 1, 1, 1, 0]);
}

#[tokio::test]
async fn one_unit_more_lost_than_the_parity_is_an_error_that_says_what_each_one_said() {
    let (cluster, _) = with_file("RS-3-2-1024k", 2, 4 * CELL).await;
    cluster.datanodes[0].take_replicas();
    cluster.datanodes[2].fail(|f| f.flip_at = Some(9));
    cluster.datanodes[4].kill();
    let error = cluster.read().await.unwrap_err();
    assert_eq!(error.code, Code::BlockMissing);
    for part in ["/file", "block group blk_", "2 units", "unit 0", "is not here", "checksum"] {
        assert!(error.message.contains(part), "{error} should tell {part}");
    }
    assert!(count(&cluster, "locate") >= 3, "the NameNode was asked anew");
}

#[tokio::test]
async fn short_groups_in_the_middle_of_a_file_are_read_as_they_are() {
    let cluster = striped("XOR-2-1-1024k", 0, 2).await;
    let content = content(4 * CELL);
    let mut writer = cluster.fs.create(&cluster.path, CreateOptions::default()).await.unwrap();
    let mut at = 0;
    for step in [10, CELL + 1, 1, 2 * CELL] {
        writer.write(&content[at..at + step]).await.unwrap();
        writer.flush().await.unwrap();
        at += step;
        let reader = cluster.fs.open(&cluster.path).await.unwrap();
        assert_eq!(reader.len(), at as u64, "a file that is being written");
        assert!(cluster.read().await.unwrap() == content[..at]);
    }
    writer.write(&content[at..]).await.unwrap();
    writer.close().await.unwrap();
    for lost in 0..3 {
        let kept = cluster.datanodes[lost].take_replicas();
        check_reads(&cluster, &content, &format!("without {lost}")).await;
        *cluster.datanodes[lost].shared.replicas.lock().unwrap() = kept;
    }
}

#[tokio::test]
async fn units_on_this_machine_are_read_through_their_files() {
    let (cluster, content) = with_file("RS-3-2-1024k", 2, 6 * CELL + 5).await;
    let sockets: Vec<String> = cluster.datanodes.iter().map(|n| n.listen_locally()).collect();
    for located in &mut cluster.namenode.state.lock().unwrap().blocks {
        for (location, socket) in located.locations.iter_mut().zip(&sockets) {
            location.local_socket = socket.clone();
        }
    }
    check_reads(&cluster, &content, "local").await;
    assert_eq!(reads(&cluster), [0; 5]);
    cluster.datanodes[2].fail(|f| f.flip_at = Some(5));
    check_reads(&cluster, &content, "one is damaged").await;
}
