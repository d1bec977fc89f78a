//! Block recovery as primary: settle at which length a block ends whose writer is gone.
//!
//! Step one stops the writer on every replica and learns states and lengths; [`choose`] decides, without IO; step two
//! makes the chosen replicas alike; then the NameNode is told which DataNodes hold the outcome. If any DataNode did not
//! answer, a block is not declared empty: the missing one may hold bytes. The NameNode repeats a recovery that failed,
//! with a newer stamp, which fences this one off.
//!
//! Of a block group every unit is asked; [`groups`] decides, and the chosen units become alike, each at its own length.

pub mod groups;

use std::sync::Arc;
use std::time::Duration;

use proto::granary::datanodes_client::DatanodesClient;
use proto::granary::replicas_client::ReplicasClient;
use proto::granary::{
    Block, CommitBlockSynchronizationRequest, DatanodeAddress, InitReplicaRecoveryRequest,
    RecoverBlock, ReplicaState, UpdateReplicaUnderRecoveryRequest,
};
use proto::{BlockId, Code, Error, GenerationStamp, Result};
use tonic::transport::Channel;
use transfer::stripe::{Layout, unit_block};

use crate::heartbeat::connect;
use crate::reconstruct::job::shape;
use crate::replica::RecoveryInfo;
use crate::store::{Store, reported_state};

use groups::{Findings, GroupChoice, UnitFound, choose_group};

/// How long one DataNode may take for one step.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the NameNode is told the outcome.
const COMMIT_TRIES: u32 = 3;

/// What one DataNode has of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its place in the command.
    pub node: usize,
    /// Its replica's state.
    pub state: ReplicaState,
    /// Its replica's bytes.
    pub length: u64,
}

/// What becomes of the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// No replica has a byte.
    Empty,
    /// These replicas get this length.
    Settle {
        /// Bytes.
        length: u64,
        /// Places in the command.
        nodes: Vec<usize>,
    },
}

/// Decides length and participants.
///
/// A finished replica tells the length: everything up to its end may have been acknowledged. Otherwise the shortest of
/// the best kind does: whatever was acknowledged is in every one of them. `cut` is the length of a truncation.
pub fn choose(candidates: &[Candidate], cut: Option<u64>) -> Result<Choice> {
    if let Some(length) = cut {
        let long: Vec<usize> =
            candidates.iter().filter(|c| c.length >= length).map(|c| c.node).collect();
        if long.is_empty() {
            return Err(Error::new(
                Code::BlockMissing,
                format!("no replica has the {length} bytes to cut to, of {candidates:?}"),
            ));
        }
        return Ok(Choice::Settle { length, nodes: long });
    }
    let of_state = |state: ReplicaState| candidates.iter().filter(move |c| c.state == state);
    let finished = of_state(ReplicaState::Finalized).map(|c| c.length);
    if let Some(length) = finished.clone().max() {
        if finished.clone().any(|other| other != length) {
            return Err(Error::new(
                Code::Corrupt,
                format!("finished replicas have different lengths: {candidates:?}"),
            ));
        }
        // One that was still being written may be as long: then it has the same bytes.
        let nodes = candidates
            .iter()
            .filter(|c| c.length == length && c.state != ReplicaState::WaitingRecovery)
            .map(|c| c.node)
            .collect();
        return Ok(Choice::Settle { length, nodes });
    }
    for state in [ReplicaState::BeingWritten, ReplicaState::WaitingRecovery] {
        let with_bytes = of_state(state).filter(|c| c.length > 0);
        if let Some(length) = with_bytes.clone().map(|c| c.length).min() {
            return Ok(Choice::Settle { length, nodes: with_bytes.map(|c| c.node).collect() });
        }
    }
    Ok(Choice::Empty)
}

/// Recovers a block and tells the NameNode. Returns the length it has now; `None` if it was empty.
pub async fn recover(
    store: &Arc<Store>,
    own_uuid: &str,
    command: RecoverBlock,
    namenode: Channel,
) -> Result<Option<u64>> {
    let block = command
        .block
        .ok_or_else(|| Error::new(Code::InvalidArgument, "a recovery names no block"))?;
    if command.erasure_policy != 0 {
        return recover_group(store, own_uuid, command, block, namenode).await;
    }
    let recovery = command.new_generation_stamp;
    let blocks = vec![block; command.replicas.len()];
    let (answers, errors) = ask(store, own_uuid, &command.replicas, blocks, recovery).await;
    let candidates: Vec<Candidate> = answers
        .iter()
        .filter_map(|(node, info)| {
            let Info { state, length, .. } = (*info)?;
            Some(Candidate { node: *node, state, length })
        })
        .collect();
    let choice = choose(&candidates, command.new_length)?;
    let (length, holders) = match &choice {
        Choice::Empty if errors.is_empty() => (0, Vec::new()),
        Choice::Empty => {
            return Err(Error::new(
                Code::BlockMissing,
                format!("no replica has a byte, but not all answered: {}", errors.join("; ")),
            ));
        }
        Choice::Settle { length, nodes } => {
            let wanted = Block { length: *length, ..block };
            let places: Vec<(&DatanodeAddress, Block)> =
                nodes.iter().map(|&node| (&command.replicas[node], wanted)).collect();
            let settled = settle(store, own_uuid, &places, recovery, 1).await?;
            let uuid = |place: usize| places[place].0.uuid.clone();
            let mut holders: Vec<String> = settled.into_iter().map(uuid).collect();
            holders.sort_unstable();
            (*length, holders)
        }
    };
    let outcome = CommitBlockSynchronizationRequest {
        block: Some(block),
        new_generation_stamp: recovery,
        new_length: length,
        close_file: true,
        delete_block: choice == Choice::Empty,
        datanodes: holders,
        units: Default::default(),
    };
    commit(namenode, outcome).await?;
    Ok((choice != Choice::Empty).then_some(length))
}

/// Recovers a block group and tells the NameNode. Returns the length it has now; `None` if it was empty.
async fn recover_group(
    store: &Arc<Store>,
    own_uuid: &str,
    command: RecoverBlock,
    group: Block,
    namenode: Channel,
) -> Result<Option<u64>> {
    let (layout, _) = shape(command.erasure_policy, group)?;
    let units: Vec<usize> = command.units.iter().copied().map(usize::from).collect();
    if units.len() != command.replicas.len() || units.iter().any(|&unit| unit >= layout.units()) {
        return Err(Error::new(
            Code::InvalidArgument,
            format!("units {units:?} at {} DataNodes", command.replicas.len()),
        ));
    }
    if command.new_length.is_some() {
        return Err(Error::new(Code::Unsupported, "a block group is not truncated"));
    }
    let recovery = command.new_generation_stamp;
    let blocks = units.iter().map(|&unit| Block { id: unit_block(group.id, unit), ..group });
    let (answers, errors) =
        ask(store, own_uuid, &command.replicas, blocks.collect(), recovery).await;
    let findings = findings(layout, group, &units, &answers);
    let choice = choose_group(&findings)?;
    let mut outcome = CommitBlockSynchronizationRequest {
        block: Some(group),
        new_generation_stamp: recovery,
        close_file: true,
        ..Default::default()
    };
    let GroupChoice::Settle { length, units } = choice else {
        if !errors.is_empty() {
            return Err(Error::new(
                Code::BlockMissing,
                format!("no unit tells a byte, but not all answered: {}", errors.join("; ")),
            ));
        }
        outcome.delete_block = true;
        commit(namenode, outcome).await?;
        return Ok(None);
    };
    let places: Vec<(&DatanodeAddress, Block)> = units
        .iter()
        .map(|found| {
            let (id, length) =
                (unit_block(group.id, found.unit), layout.unit_length(length, found.unit));
            (&command.replicas[found.node], Block { id, length, ..group })
        })
        .collect();
    let is_empty = |unit: &usize| layout.unit_length(length, *unit) == 0;
    let needed = layout.data_units - (0..layout.data_units).filter(is_empty).count();
    let mut settled = settle(store, own_uuid, &places, recovery, needed).await?;
    settled.sort_unstable();
    outcome.new_length = length;
    outcome.datanodes = settled.iter().map(|&place| places[place].0.uuid.clone()).collect();
    let unit = |&place: &usize| u8::try_from(units[place].unit).expect("there are 16 units");
    outcome.units = settled.iter().map(unit).collect::<Vec<u8>>().into();
    commit(namenode, outcome).await?;
    Ok(Some(length))
}

/// What the answers say of each unit.
fn findings(
    layout: Layout,
    group: Block,
    units: &[usize],
    answers: &[(usize, Option<Info>)],
) -> Findings {
    let found: Vec<UnitFound> = answers
        .iter()
        .filter_map(|(node, info)| {
            let Info { stamp, state, length } = (*info)?;
            Some(UnitFound { node: *node, unit: units[*node], stamp, state, length })
        })
        .collect();
    let all_say_no = |unit: usize| {
        let mut asked = (0..units.len()).filter(|&node| units[node] == unit).peekable();
        asked.peek().is_some() && asked.all(|node| answers.contains(&(node, None)))
    };
    let absent = (0..layout.units()).filter(|&unit| all_say_no(unit)).collect();
    let stamp = GenerationStamp(group.generation_stamp);
    Findings { layout, stamp, told: group.length, found, absent }
}

/// Step one at all DataNodes: what each has of its block, by place, and the errors of those that did not answer.
async fn ask(
    store: &Arc<Store>,
    own_uuid: &str,
    replicas: &[DatanodeAddress],
    blocks: Vec<Block>,
    recovery: u64,
) -> (Vec<(usize, Option<Info>)>, Vec<String>) {
    let mut asked = tokio::task::JoinSet::new();
    for (node, (address, block)) in replicas.iter().cloned().zip(blocks).enumerate() {
        let peer = Peer::new(store, own_uuid, address);
        asked.spawn(async move { (node, peer.init(block, recovery).await) });
    }
    let (mut answers, mut errors) = (Vec::new(), Vec::new());
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok((node, Ok(info))) => answers.push((node, info)),
            Ok((node, Err(error))) => errors.push(format!("{}: {error}", replicas[node].host)),
            Err(panic) => errors.push(panic.to_string()),
        }
    }
    answers.sort_unstable_by_key(|(node, _)| *node);
    (answers, errors)
}

/// Step two: gives each place its block's length and the recovery's stamp; tells which places hold the outcome. Fewer
/// than `needed` are an error.
async fn settle(
    store: &Arc<Store>,
    own_uuid: &str,
    places: &[(&DatanodeAddress, Block)],
    recovery: u64,
    needed: usize,
) -> Result<Vec<usize>> {
    let mut updates = tokio::task::JoinSet::new();
    for (place, (address, block)) in places.iter().enumerate() {
        let peer = Peer::new(store, own_uuid, (*address).clone());
        let block = *block;
        updates.spawn(async move { (place, peer.update(block, recovery, block.length).await) });
    }
    let (mut holders, mut errors) = (Vec::new(), Vec::new());
    while let Some(update) = updates.join_next().await {
        match update {
            Ok((place, Ok(()))) => holders.push(place),
            Ok((place, Err(error))) => errors.push(format!("{}: {error}", places[place].0.uuid)),
            Err(panic) => errors.push(panic.to_string()),
        }
    }
    if holders.len() < needed {
        return Err(Error::new(
            Code::BlockMissing,
            format!(
                "{} of {} replicas could be settled, {needed} are needed: {}",
                holders.len(),
                places.len(),
                errors.join("; ")
            ),
        ));
    }
    Ok(holders)
}

async fn commit(namenode: Channel, outcome: CommitBlockSynchronizationRequest) -> Result<()> {
    let mut client = DatanodesClient::new(namenode);
    let mut tries = 0;
    loop {
        tries += 1;
        let call = client.commit_block_synchronization(outcome.clone());
        let error = match tokio::time::timeout(STEP_TIMEOUT, call).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(status)) => Error::from(status),
            Err(_) => Error::new(Code::Timeout, "the NameNode did not answer"),
        };
        if tries == COMMIT_TRIES || error.kind() != proto::Kind::Retry {
            return Err(error.context("tell the outcome of a block recovery"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What a DataNode has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Info {
    stamp: GenerationStamp,
    state: ReplicaState,
    length: u64,
}

/// One holder of a replica: this DataNode, or another behind its control port.
struct Peer {
    store: Arc<Store>,
    address: DatanodeAddress,
    is_own: bool,
}

impl Peer {
    fn new(store: &Arc<Store>, own_uuid: &str, address: DatanodeAddress) -> Self {
        Self { store: store.clone(), is_own: address.uuid == own_uuid, address }
    }

    async fn init(&self, block: Block, recovery: u64) -> Result<Option<Info>> {
        if self.is_own {
            let (id, asked) = (BlockId(block.id), GenerationStamp(block.generation_stamp));
            let info = self.store.init_recovery(id, asked, GenerationStamp(recovery)).await?;
            let told = |info: RecoveryInfo| {
                let RecoveryInfo { stamp, length, state } = info;
                Some(Info { stamp, state: reported_state(state)?, length })
            };
            return Ok(info.and_then(told));
        }
        let request = InitReplicaRecoveryRequest {
            pool_id: self.store.identity().pool_id,
            block: Some(block),
            recovery_stamp: recovery,
        };
        let reply = self
            .remote("begin a recovery", async |mut client| {
                client.init_replica_recovery(request).await
            })
            .await?;
        let state = reply.state();
        Ok(reply.block.filter(|_| reply.found).map(|block| Info {
            stamp: GenerationStamp(block.generation_stamp),
            state,
            length: block.length,
        }))
    }

    async fn update(&self, block: Block, recovery: u64, length: u64) -> Result<()> {
        if self.is_own {
            let recovery = GenerationStamp(recovery);
            return self.store.finish_recovery(BlockId(block.id), recovery, length).await;
        }
        let request = UpdateReplicaUnderRecoveryRequest {
            pool_id: self.store.identity().pool_id,
            block: Some(block),
            recovery_stamp: recovery,
            new_length: length,
        };
        self.remote("finish a recovery", async |mut client| {
            client.update_replica_under_recovery(request).await
        })
        .await
        .map(|_| ())
    }

    async fn remote<T>(
        &self,
        what: &str,
        call: impl AsyncFnOnce(
            ReplicasClient<Channel>,
        ) -> std::result::Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T> {
        let address = format!("{}:{}", self.address.host, self.address.control_port);
        let called = async {
            let channel = connect(&address, STEP_TIMEOUT).await?;
            Ok::<T, Error>(call(ReplicasClient::new(channel)).await?.into_inner())
        };
        tokio::time::timeout(STEP_TIMEOUT, called)
            .await
            .unwrap_or_else(|_| Err(Error::new(Code::Timeout, "no answer")))
            .map_err(|error| error.context(format_args!("{what} at {address}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ReplicaState::{BeingWritten, Finalized, WaitingRecovery};

    fn candidates(of: &[(ReplicaState, u64)]) -> Vec<Candidate> {
        let candidate = |(node, &(state, length))| Candidate { node, state, length };
        of.iter().enumerate().map(candidate).collect()
    }

    fn settled(length: u64, nodes: &[usize]) -> Choice {
        Choice::Settle { length, nodes: nodes.to_vec() }
    }

    #[test]
    fn the_best_kind_of_replica_tells_the_length() {
        for (of, expected) in [
            (&[][..], Choice::Empty),
            (&[(BeingWritten, 0), (WaitingRecovery, 0)], Choice::Empty),
            (&[(Finalized, 9), (BeingWritten, 12), (BeingWritten, 9)], settled(9, &[0, 2])),
            (&[(BeingWritten, 7), (BeingWritten, 5)], settled(5, &[0, 1])),
            (&[(BeingWritten, 7), (WaitingRecovery, 3)], settled(7, &[0])),
            (&[(WaitingRecovery, 7), (WaitingRecovery, 3)], settled(3, &[0, 1])),
            (&[(BeingWritten, 0), (WaitingRecovery, 3)], settled(3, &[1])),
            (&[(Finalized, 0), (BeingWritten, 3)], settled(0, &[0])),
        ] {
            assert_eq!(choose(&candidates(of), None).unwrap(), expected, "{of:?}");
        }
        let differ = candidates(&[(Finalized, 9), (Finalized, 8)]);
        assert_eq!(choose(&differ, None).unwrap_err().code, Code::Corrupt);
    }

    #[test]
    fn a_truncation_takes_every_replica_that_is_long_enough() {
        let all = candidates(&[(Finalized, 9), (Finalized, 3), (BeingWritten, 9)]);
        assert_eq!(choose(&all, Some(5)).unwrap(), settled(5, &[0, 2]));
        assert_eq!(choose(&all, Some(10)).unwrap_err().code, Code::BlockMissing);
    }
}
