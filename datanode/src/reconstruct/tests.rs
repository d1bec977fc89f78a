//! Whole DataNodes that compute lost units, beside a portable coder as the oracle.

use proto::GenerationStamp;
use proto::erasure::Policy;
use proto::granary::{Block, DatanodeAddress, UnitLocation};
use tempfile::TempDir;
use transfer::coder::{Code as ErasureCode, Coder, Kernel};
use transfer::stripe::{Layout, unit_block};

use super::*;
use crate::server::{Handle, start};
use crate::testing::{config, pattern, read_block, wait_until, write_block};

pub(crate) const GROUP: u64 = 1 << 63 | 0x50;
pub(crate) const STAMP: u64 = 1001;

pub(crate) struct Node {
    pub(crate) handle: Handle,
    pub(crate) folder: TempDir,
    reconstructor: Arc<Reconstructor>,
}

impl Node {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            stall_timeout_ms: 2_000,
            reconstruction_step_bytes: 100_000,
            ..config(folder.path())
        };
        let handle = start(config.clone()).await.unwrap();
        let settings = Settings::from(&config);
        let server = handle.server().clone();
        let reconstructor = Reconstructor::new(settings, handle.store().clone(), server);
        Self { handle, folder, reconstructor }
    }

    pub(crate) fn address(&self) -> DatanodeAddress {
        DatanodeAddress {
            uuid: self.handle.uuid().to_owned(),
            host: "127.0.0.1".into(),
            data_port: self.handle.data_addr().port().into(),
            control_port: self.handle.control_addr().port().into(),
            ..Default::default()
        }
    }

    async fn run(&self, command: ReconstructUnits) -> Result<usize> {
        self.reconstructor.run(command, || true).await
    }

    fn unit(&self, unit: usize) -> Option<Vec<u8>> {
        let block = unit_block(GROUP, unit);
        let reported = self.handle.store().reported(proto::BlockId(block));
        reported.is_some().then(|| read_block(self.handle.store(), block, STAMP).unwrap())
    }

    pub(crate) async fn forget(&self, unit: usize) {
        let block = proto::BlockId(unit_block(GROUP, unit));
        self.handle.store().delete(block, GenerationStamp(STAMP)).await.unwrap();
    }
}

pub(crate) async fn nodes(count: usize) -> Vec<Node> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(Node::start().await);
    }
    nodes
}

/// All units of a group with these bytes, by the slow coder.
pub(crate) fn units_of(policy: Policy, data: &[u8]) -> Vec<Vec<u8>> {
    let layout = Layout::from(policy);
    let length = data.len() as u64;
    let mut units = vec![Vec::new(); layout.units()];
    for piece in layout.pieces(0..length) {
        let from = usize::try_from(piece.offset).unwrap();
        units[piece.unit].extend_from_slice(&data[from..][..piece.length as usize]);
    }
    let full = layout.unit_length(length, 0) as usize;
    let filled: Vec<Vec<u8>> = units[..layout.data_units]
        .iter()
        .map(|unit| [&unit[..], &vec![0; full - unit.len()]].concat())
        .collect();
    let coder = Coder::with_kernel(ErasureCode::of(policy).unwrap(), Kernel::Portable);
    let mut parity = vec![vec![0; full]; layout.parity_units];
    let inputs: Vec<&[u8]> = filled.iter().map(|unit| &unit[..]).collect();
    let mut outputs: Vec<&mut [u8]> = parity.iter_mut().map(|unit| &mut unit[..]).collect();
    coder.encode(&inputs, &mut outputs);
    units.splice(layout.data_units.., parity);
    units
}

/// Unit u goes to node u; empty ones are not stored.
pub(crate) async fn store_units(nodes: &[Node], units: &[Vec<u8>]) {
    for (unit, bytes) in units.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
        let block = unit_block(GROUP, unit);
        write_block(nodes[unit].handle.store(), block, STAMP, bytes).await.unwrap();
    }
}

fn command(
    policy: Policy,
    length: usize,
    nodes: &[Node],
    sources: &[usize],
    targets: &[(usize, usize)],
) -> ReconstructUnits {
    let at = |unit: usize, node: usize| UnitLocation {
        unit: unit as u32,
        datanode: Some(nodes[node].address()),
    };
    ReconstructUnits {
        group: Some(Block { id: GROUP, generation_stamp: STAMP, length: length as u64 }),
        erasure_policy: policy.id.into(),
        sources: sources.iter().map(|&unit| at(unit, unit)).collect(),
        targets: targets.iter().map(|&(unit, node)| at(unit, node)).collect(),
    }
}

fn policy(name: &str) -> Policy {
    Policy::by_name(name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_set_of_lost_units_of_rs_3_2_comes_back_wherever_it_shall_be() {
    let policy = policy("RS-3-2-1024k");
    let nodes = nodes(6).await;
    let data = pattern(1, (4 << 20) + 70_001);
    let units = units_of(policy, &data);
    store_units(&nodes, &units).await;
    for set in 1u32..32 {
        let lost: Vec<usize> = (0..5).filter(|unit| set >> unit & 1 == 1).collect();
        if lost.len() > 2 {
            continue;
        }
        for &unit in &lost {
            nodes[unit].forget(unit).await;
        }
        let left: Vec<usize> = (0..5).filter(|unit| !lost.contains(unit)).collect();
        let back: Vec<(usize, usize)> = lost.iter().map(|&unit| (unit, unit)).collect();
        // Who computes: a target, a source, a stranger.
        let worker = [lost[0], left[0], 5][set as usize % 3];
        let command = command(policy, data.len(), &nodes, &left, &back);
        assert_eq!(nodes[worker].run(command).await.unwrap(), lost.len(), "{lost:?}");
        for &unit in &lost {
            wait_until("the unit is finished", || nodes[unit].unit(unit).is_some()).await;
            assert!(nodes[unit].unit(unit).unwrap() == units[unit], "{unit} of {lost:?}");
        }
    }
    let read = nodes[5].reconstructor.counters().read_bytes.load(Ordering::Relaxed);
    assert!(read > 0, "the stranger has read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_of_odd_lengths_come_back_under_every_policy() {
    const CELL: usize = 1 << 20;
    let nodes = nodes(15).await;
    for (name, length, lost) in [
        ("XOR-2-1-1024k", 1, &[0][..]),
        ("XOR-2-1-1024k", CELL + 1, &[0]),
        ("RS-3-2-1024k", 100, &[0, 4]),
        ("RS-3-2-1024k", CELL, &[3, 4]),
        ("RS-3-2-1024k", 3 * CELL - 1, &[1, 2]),
        ("RS-6-3-1024k", 2 * CELL + 511, &[0, 2, 8]),
        ("RS-6-3-1024k", 6 * CELL + 1, &[0, 1, 6]),
        ("RS-10-4-1024k", 11 * CELL + 100_001, &[0, 1, 9, 12]),
    ] {
        let policy = policy(name);
        let data = pattern(length as u64, length);
        let units = units_of(policy, &data);
        store_units(&nodes, &units).await;
        for &unit in lost {
            nodes[unit].forget(unit).await;
        }
        let left: Vec<usize> =
            (0..units.len()).filter(|u| !lost.contains(u) && !units[*u].is_empty()).collect();
        let targets: Vec<(usize, usize)> = lost.iter().map(|&unit| (unit, unit)).collect();
        let command = command(policy, length, &nodes, &left, &targets);
        let read = &nodes[14].reconstructor.counters().read_bytes;
        let before = read.load(Ordering::Relaxed);
        assert_eq!(nodes[14].run(command).await.unwrap(), lost.len(), "{name} {length}");
        // Exactly k units were read, as far as the longest lost one reaches; empty ones are known.
        let k = usize::from(policy.data_units);
        let empty = units[..k].iter().filter(|unit| unit.is_empty()).count();
        let longest = lost.iter().map(|&unit| units[unit].len()).max().unwrap();
        let expected: usize =
            left.iter().take(k - empty).map(|&unit| units[unit].len().min(longest)).sum();
        assert_eq!(read.load(Ordering::Relaxed) - before, expected as u64, "{name} {length}");
        for (unit, bytes) in units.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
            assert!(nodes[unit].unit(unit).unwrap() == *bytes, "{name} {length}: unit {unit}");
            nodes[unit].forget(unit).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_fails_or_is_damaged_is_replaced_by_another() {
    let policy = policy("RS-3-2-1024k");
    let mut nodes = nodes(5).await;
    let data = pattern(7, (3 << 20) + 12_345);
    let units = units_of(policy, &data);
    store_units(&nodes, &units).await;
    nodes[0].forget(0).await;
    // Unit 1 is damaged in the middle, node 2 hangs up: 3 and 4 alone are too few, so 2 must not be lost as well.
    let damaged = file_of(nodes[1].folder.path(), unit_block(GROUP, 1));
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[700_000] ^= 4;
    std::fs::write(&damaged, bytes).unwrap();
    let command = command(policy, data.len(), &nodes, &[1, 2, 3, 4], &[(0, 0)]);
    assert_eq!(nodes[0].run(command.clone()).await.unwrap(), 1);
    assert!(nodes[0].unit(0).unwrap() == units[0]);
    assert_eq!(nodes[0].reconstructor.counters().source_failures.load(Ordering::Relaxed), 1);
    // Now a node that is gone beside the damaged one: nothing half-made is left.
    nodes[0].forget(0).await;
    nodes.remove(2).handle.shutdown().await.unwrap();
    let error = nodes[0].run(command).await.unwrap_err();
    assert_eq!(error.code, Code::BlockMissing, "{error}");
    let tmp = crate::layout::tmp_path(nodes[0].folder.path());
    wait_until("nothing is left", || std::fs::read_dir(&tmp).unwrap().next().is_none()).await;
    assert!(nodes[0].unit(0).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_fails_leaves_the_others_to_theirs() {
    let policy = policy("RS-3-2-1024k");
    let mut nodes = nodes(6).await;
    let data = pattern(9, (2 << 20) + 333);
    let units = units_of(policy, &data);
    store_units(&nodes, &units).await;
    nodes[1].forget(1).await;
    let command = command(policy, data.len(), &nodes, &[0, 3, 4], &[(1, 1), (2, 5)]);
    nodes.pop().unwrap().handle.shutdown().await.unwrap();
    assert_eq!(nodes[3].run(command.clone()).await.unwrap(), 1);
    assert!(nodes[1].unit(1).unwrap() == units[1]);
    // Told again: the unit is there, the other target still is not.
    let again = nodes[3].run(command).await.unwrap_err();
    assert!(again.message.contains("no target"), "{again}");
    let done = nodes[3].reconstructor.counters();
    assert_eq!(done.units.load(Ordering::Relaxed), 1);
    assert_eq!(done.failures.load(Ordering::Relaxed), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_of_an_earlier_registration_is_not_begun() {
    let policy = policy("RS-3-2-1024k");
    let nodes = nodes(5).await;
    let command = command(policy, 100, &nodes, &[0, 3], &[(4, 4)]);
    let error = nodes[0].reconstructor.run(command, || false).await.unwrap_err();
    assert_eq!(error.code, Code::Stale);
}

pub(crate) fn file_of(volume: &std::path::Path, block: u64) -> std::path::PathBuf {
    let block = proto::BlockId(block);
    crate::layout::Folder::of(block).path(volume).join(crate::layout::data_name(block))
}
