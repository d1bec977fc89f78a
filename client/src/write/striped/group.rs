//! The task that writes one block group: carries out what the core decides.
//!
//! Rows come over a queue of one, so that a writer which fills the next row waits if this one is not taken yet. The
//! task computes parity, hands cells to the units' tasks, asks the NameNode, and tells the core what happened. What
//! holds: a group whose writer is gone is given up, not ended. Memory: the row that is handed out, and what
//! [`super::unit`] holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::granary::{
    AbandonBlockRequest, AddBlockRequest, Block, DatanodeAddress, LocatedBlock,
    UpdateBlockForPipelineRequest, UpdatePipelineRequest,
};
use proto::{Code, Error, Result};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use transfer::stripe;
use transfer::writer::{PipelineSpec, Stage};

use super::core::{Effect, Event, Group};
use super::row::{Coding, Row};
use super::unit::{Order, Outcome, Report, UnitHandle};
use crate::fs::incomplete;
use crate::write::Target;

/// Reports of a unit that may wait: each order but packets gives one, and so does a failure.
const UNIT_REPORTS_MAX: usize = 4;

/// What the writer tells the task.
#[derive(Debug)]
pub(super) enum Command {
    /// The next row. After a short one, only the end follows.
    Row(Row),
    /// No further row.
    End,
}

/// A group that is written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) block: Block,
    /// uuids of DataNodes that failed this writer, in this group or before.
    pub(super) failed: BTreeSet<String>,
}

/// The task of a group. The group is given up if this is dropped.
#[derive(Debug)]
pub(super) struct GroupHandle {
    pub(super) commands: mpsc::Sender<Command>,
    task: JoinHandle<Result<Written>>,
    ended: bool,
}

impl GroupHandle {
    /// Begins the file's next group. `previous`: the one before it.
    pub(super) fn begin(
        target: Target,
        coding: Arc<Coding>,
        previous: Option<Block>,
        failed: BTreeSet<String>,
    ) -> Self {
        let (commands, queue) = mpsc::channel(1);
        let task = tokio::spawn(GroupTask::new(target, coding, previous, failed).run(queue));
        Self { commands, task, ended: false }
    }

    /// Ends the group: on stable storage on every unit that counts. May be asked again if the future was dropped.
    pub(super) async fn end(&mut self) -> Result<Written> {
        if !self.ended {
            // A task that takes no command has failed, and says why when it is waited for.
            let _failed = self.commands.send(Command::End).await;
            self.ended = true;
        }
        match (&mut self.task).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::new(Code::Internal, format!("the group's task: {error}"))),
        }
    }
}

impl Drop for GroupHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct GroupTask {
    target: Target,
    coding: Arc<Coding>,
    previous: Option<Block>,
    failed: BTreeSet<String>,
    core: Group,
    block: Block,
    /// The DataNode of each unit, where there is one.
    nodes: Vec<Option<DatanodeAddress>>,
    units: Vec<Option<UnitHandle>>,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    /// The row that is to be sent: cells leave it as they are.
    row: Option<Row>,
    /// What failed DataNodes said.
    said: Vec<String>,
}

impl GroupTask {
    fn new(
        target: Target,
        coding: Arc<Coding>,
        previous: Option<Block>,
        failed: BTreeSet<String>,
    ) -> Self {
        let tries_max = target.fs.config().block_tries_max.max(1);
        let units = coding.layout.units();
        Self {
            core: Group::new(coding.layout, tries_max),
            target,
            previous,
            failed,
            block: Block::default(),
            nodes: vec![None; units],
            units: (0..units).map(|_| None).collect(),
            reports: mpsc::channel(units * UNIT_REPORTS_MAX),
            row: None,
            said: Vec::new(),
            coding,
        }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<Written> {
        loop {
            while let Some(effect) = self.core.next_effect() {
                if let Some(block) = self.carry_out(effect).await? {
                    return Ok(Written { block, failed: self.failed });
                }
            }
            tokio::select! {
                biased;
                Some(report) = self.reports.1.recv() => self.take_report(report),
                command = commands.recv(), if self.core.takes_rows() => match command {
                    Some(Command::Row(row)) => self.take_row(row),
                    Some(Command::End) => self.core.handle(Event::End),
                    None => {
                        let what = format!("the writer of {} is gone", self.target.path);
                        return Err(Error::new(Code::Cancelled, what));
                    }
                },
            }
        }
    }

    fn take_row(&mut self, mut row: Row) {
        row.add_parity(&self.coding);
        let bytes = row.bytes;
        self.row = Some(row);
        self.core.handle(Event::Row { bytes });
    }

    fn take_report(&mut self, report: Report) {
        let unit = report.unit;
        let event = match report.outcome {
            Outcome::Opened => Event::Opened { unit },
            Outcome::Drained => Event::Drained { unit },
            Outcome::Restamped => Event::Restamped { unit },
            Outcome::Ended => Event::Ended { unit },
            Outcome::Failed(error) => {
                self.leave_out(unit, &error);
                Event::Lost { unit }
            }
        };
        self.core.handle(event);
    }

    fn leave_out(&mut self, unit: usize, error: &Error) {
        self.units[unit] = None;
        let Some(node) = &self.nodes[unit] else { return };
        tracing::info!(
            group = self.block.id, unit, node = node.uuid, %error,
            "a unit of a block group is lost; the group goes on without it"
        );
        self.target.fs.note_bad_node(&node.uuid);
        self.failed.insert(node.uuid.clone());
        self.said.push(format!("unit {unit} at {}:{}: {error}", node.host, node.data_port));
    }

    /// Does one thing. Gives the block when the group is written.
    async fn carry_out(&mut self, effect: Effect) -> Result<Option<Block>> {
        match effect {
            Effect::Place => self.place().await?,
            Effect::Abandon => self.abandon().await?,
            Effect::Open { unit, stamp } => self.open(unit, stamp),
            Effect::Send { unit, row, bytes } => self.send(unit, row, bytes).await,
            Effect::Drain { unit } => self.order(unit, Order::Drain).await,
            Effect::Mint => {
                let stamp = self.mint().await?;
                self.core.handle(Event::Minted { stamp });
            }
            Effect::Restamp { unit, stamp, .. } => self.order(unit, Order::Restamp(stamp)).await,
            Effect::Tell { stamp, units, bytes } => {
                self.tell(stamp, &units, bytes).await?;
                self.block.generation_stamp = stamp;
                self.core.handle(Event::Told);
            }
            Effect::Finish { unit, .. } => self.order(unit, Order::Finish).await,
            Effect::Finished { bytes, stamp } => {
                let block = Block { id: self.block.id, generation_stamp: stamp, length: bytes };
                return Ok(Some(block));
            }
            Effect::Failed { lost } => return Err(self.lost(&lost)),
        }
        Ok(None)
    }

    async fn order(&self, unit: usize, order: Order) {
        if let Some(handle) = &self.units[unit] {
            handle.order(order).await;
        }
    }

    async fn send(&mut self, unit: usize, row: u64, bytes: u64) {
        let current = self.row.as_mut().expect("its cells are to be sent");
        let cell = std::mem::take(&mut current.cells[unit]);
        debug_assert_eq!(current.index, row, "rows are sent in order");
        debug_assert_eq!(cell.iter().map(|p| p.data.len() as u64).sum::<u64>(), bytes);
        for packet in cell {
            self.order(unit, Order::Packet(packet)).await;
        }
    }

    fn open(&mut self, unit: usize, stamp: u64) {
        let fs = &self.target.fs;
        let node = self.nodes[unit].clone().expect("a unit that is opened has a node");
        let packets = self.coding.cell_packets();
        let rows = fs.config().striped_rows_in_flight_max.max(1);
        let id = stripe::unit_block(self.block.id, unit);
        let spec = PipelineSpec {
            pool_id: fs.server_defaults().pool_id.clone(),
            client: fs.holder().to_owned(),
            block: Block { id, generation_stamp: stamp, length: 0 },
            nodes: vec![node],
            stage: Stage::PipelineSetupCreate,
            min_bytes: 0,
            max_bytes: 0,
            new_stamp: stamp,
            checksum: self.coding.checksum,
            packets_in_flight_max: rows * packets,
        };
        let reports = self.reports.0.clone();
        let handle = UnitHandle::begin(unit, spec, fs.pool().clone(), packets, reports);
        self.units[unit] = Some(handle);
    }

    async fn place(&mut self) -> Result<()> {
        let located = self.ask_for_group().await?;
        self.block = located.block.ok_or_else(|| incomplete("add block", "block"))?;
        self.nodes = by_unit(&self.target, &located, self.coding.layout.units())?;
        // Reports of an earlier place are of no interest.
        self.reports = mpsc::channel(self.nodes.len() * UNIT_REPORTS_MAX);
        let present = self.nodes.iter().map(Option::is_some).collect();
        self.core.handle(Event::Placed { stamp: self.block.generation_stamp, present });
        Ok(())
    }

    /// Asks for a group on DataNodes that did not fail lately; if there are too few of them, on any.
    async fn ask_for_group(&self) -> Result<LocatedBlock> {
        let bad = |uuid: &&String| self.target.fs.is_bad_node(uuid);
        let excluded: Vec<String> = self.failed.iter().filter(bad).cloned().collect();
        let asked = self.add_block(excluded.clone()).await;
        match asked {
            Err(error) if error.code == Code::NotEnoughDatanodes && !excluded.is_empty() => {
                self.add_block(Vec::new()).await
            }
            asked => asked,
        }
        .map_err(|error| match self.said.as_slice() {
            [] => error,
            said => Error::new(
                error.code,
                format!("{} (what failed: [{}])", error.message, said.join("; ")),
            ),
        })
    }

    async fn add_block(&self, excluded: Vec<String>) -> Result<LocatedBlock> {
        let target = &self.target;
        let request = AddBlockRequest {
            caller: target.fs.namenode().caller(),
            path: target.path.to_string(),
            inode: target.inode,
            holder: target.fs.holder().to_owned(),
            previous: self.previous,
            excluded,
            client_host: String::new(), // the NameNode sees where the call comes from
            ..Default::default()
        };
        let namenode = target.fs.namenode();
        namenode
            .namespace("add block", "AddBlock", request, async |mut stub, q| {
                stub.add_block(q).await
            })
            .await
    }

    async fn abandon(&mut self) -> Result<()> {
        self.units.iter_mut().for_each(|unit| *unit = None);
        let target = &self.target;
        let request = AbandonBlockRequest {
            caller: target.fs.namenode().caller(),
            path: target.path.to_string(),
            inode: target.inode,
            holder: target.fs.holder().to_owned(),
            block: Some(self.block),
        };
        let namenode = target.fs.namenode();
        namenode
            .namespace("abandon block", "AbandonBlock", request, async |mut stub, q| {
                stub.abandon_block(q).await
            })
            .await?;
        Ok(())
    }

    async fn mint(&self) -> Result<u64> {
        let request = UpdateBlockForPipelineRequest {
            caller: self.target.fs.namenode().caller(),
            block: Some(self.block),
            holder: self.target.fs.holder().to_owned(),
        };
        let namenode = self.target.fs.namenode();
        let call = "UpdateBlockForPipeline";
        let located = namenode
            .namespace("update block for pipeline", call, request, async |mut stub, q| {
                stub.update_block_for_pipeline(q).await
            })
            .await?;
        let block =
            located.block.ok_or_else(|| incomplete("update block for pipeline", "block"))?;
        let (old, new) = (self.block.generation_stamp, block.generation_stamp);
        if new <= old {
            let what = format!("the NameNode minted stamp {new}, expected one above {old}");
            return Err(Error::new(Code::Incompatible, what));
        }
        Ok(new)
    }

    async fn tell(&self, stamp: u64, units: &[bool], bytes: u64) -> Result<()> {
        let uuid = |(node, there): (&Option<DatanodeAddress>, &bool)| match node {
            Some(node) if *there => node.uuid.clone(),
            _ => String::new(),
        };
        let new_block = Block { id: self.block.id, generation_stamp: stamp, length: bytes };
        let request = UpdatePipelineRequest {
            caller: self.target.fs.namenode().caller(),
            holder: self.target.fs.holder().to_owned(),
            old_block: Some(self.block),
            new_block: Some(new_block),
            datanodes: self.nodes.iter().zip(units).map(uuid).collect(),
        };
        let namenode = self.target.fs.namenode();
        namenode
            .namespace("update pipeline", "UpdatePipeline", request, async |mut stub, q| {
                stub.update_pipeline(q).await
            })
            .await?;
        Ok(())
    }

    fn lost(&self, lost: &[usize]) -> Error {
        let most = self.coding.layout.parity_units;
        Error::new(
            Code::NotEnoughDatanodes,
            format!(
                "write to {}: block group blk_{}: units {lost:?} are lost, at most {most} may be: \
                 [{}]",
                self.target.path,
                self.block.id,
                self.said.join("; ")
            ),
        )
    }
}

/// The DataNode of each unit, as the NameNode placed them.
fn by_unit(
    target: &Target,
    located: &LocatedBlock,
    units: usize,
) -> Result<Vec<Option<DatanodeAddress>>> {
    let bad = |what: String| {
        let text = format!("the NameNode's reply to add block for {}: {what}", target.path);
        Error::new(Code::Incompatible, text)
    };
    let id = located.block.as_ref().map_or(0, |block| block.id);
    if !stripe::is_striped(id) || stripe::group_of(id).1 != 0 {
        return Err(bad(format!("{id} is not a block group's id")));
    }
    if located.units.len() != located.locations.len() {
        let (locations, named) = (located.locations.len(), located.units.len());
        return Err(bad(format!("{locations} locations of {named} units")));
    }
    let mut nodes = vec![None; units];
    for (&unit, node) in located.units.iter().zip(&located.locations) {
        let slot = nodes
            .get_mut(usize::from(unit))
            .ok_or_else(|| bad(format!("unit {unit}, expected one below {units}")))?;
        *slot = Some(node.clone());
    }
    Ok(nodes)
}
