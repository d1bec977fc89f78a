//! Writing a striped file: bytes to rows, rows to cells and parity, cells to the units of block groups.
//!
//! | module | owns |
//! |---|---|
//! | [`core`] | every decision about one group, without IO |
//! | `row` | filling a row, and its parity |
//! | `group` | the task that writes one group |
//! | `unit` | the task that writes one unit of it |
//!
//! A group ends when its units are full, and when the caller wants its bytes to be safe: a flush ends it, an append
//! begins a new one, so that no cell is ever written twice. What holds: up to m units of a group may fail at any moment
//! without the caller noticing; what a flush or a close has answered for is on stable storage on k units at least.
//! In memory are the row that is filled, one that waits, one that is handed out, and per unit
//! `striped_rows_in_flight_max` cells that wait for their acks and one that waits to be sent.

pub mod core;
mod group;
mod row;
mod unit;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use proto::erasure::Policy;
use proto::granary::Block;
use proto::{Code, Error, Result};
use transfer::stripe::Layout;

use super::Target;
use group::{Command, GroupHandle};
use row::{Coding, RowBuilder};

/// A striped file that is open for writing.
#[derive(Debug)]
pub(super) struct StripedWriter {
    target: Target,
    coding: Arc<Coding>,
    /// Rows of a whole group.
    group_rows_max: u64,
    position: u64,
    /// The row that is being filled.
    row: RowBuilder,
    /// Rows of the current group that were handed over.
    rows: u64,
    group: Option<GroupHandle>,
    /// The current group takes no further row.
    end_due: bool,
    /// The last group that was finished: the NameNode is told with the next call.
    previous: Option<Block>,
    /// Whether the NameNode does not know the length of `previous`.
    untold: bool,
    /// uuids of DataNodes that failed.
    failed: BTreeSet<String>,
    /// Why nothing can be written any more.
    broken: Option<Error>,
}

impl StripedWriter {
    /// A writer of a new file whose units have at most `block_bytes`.
    pub(super) fn new(target: Target, policy: Policy, block_bytes: u64) -> Result<Self> {
        let layout = Layout::from(policy);
        if block_bytes < layout.cell_bytes {
            let (path, cell) = (&target.path, layout.cell_bytes);
            return Err(Error::new(
                Code::InvalidArgument,
                format!(
                    "{path}: blocks of {block_bytes} bytes hold no cell of {}, which has {cell}",
                    policy.name
                ),
            ));
        }
        let cell_bytes = usize::try_from(layout.cell_bytes).unwrap_or(usize::MAX);
        let coding = Arc::new(Coding {
            layout,
            coder: crate::erasure::coder(&target.path, policy)?,
            checksum: target.checksum,
            packet_bytes: target.packet_bytes().min(cell_bytes),
        });
        Ok(Self {
            row: RowBuilder::new(&coding, 0),
            coding,
            target,
            group_rows_max: block_bytes / layout.cell_bytes,
            position: 0,
            rows: 0,
            group: None,
            end_due: false,
            previous: None,
            untold: false,
            failed: BTreeSet::new(),
            broken: None,
        })
    }

    /// A writer at the end of a file of `position` bytes: in a group of its own.
    pub(super) async fn appending(
        target: Target,
        policy: Policy,
        block_bytes: u64,
        position: u64,
    ) -> Result<Self> {
        let mut this = Self::new(target, policy, block_bytes)?;
        this.position = position;
        if position > 0 {
            this.previous = this.target.last_block(position).await?;
        }
        Ok(this)
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) async fn write(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let taken = self.push(data);
            data = &data[taken..];
            self.send_full_row().await?;
        }
        Ok(())
    }

    pub(super) async fn write_bytes(&mut self, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            let before = data.len();
            self.row.push_shared(&self.coding, &mut data);
            self.position += (before - data.len()) as u64;
            self.send_full_row().await?;
        }
        Ok(())
    }

    /// Copies as many bytes as fit in the row that is being filled, and tells how many. Never waits.
    pub(super) fn push(&mut self, data: &[u8]) -> usize {
        let mut taken = 0;
        while taken < data.len() {
            let pushed = self.row.push(&self.coding, &data[taken..]);
            if pushed == 0 {
                break;
            }
            taken += pushed;
        }
        self.position += taken as u64;
        taken
    }

    /// All bytes are on stable storage, and readers who open the file see them.
    pub(super) async fn flush(&mut self) -> Result<()> {
        self.end_group().await?;
        if let Some(last) = self.previous.filter(|_| self.untold) {
            self.target.tell_length(last.length).await?;
            self.untold = false;
        }
        Ok(())
    }

    /// Sends what is left and ends the last group. Gives it.
    pub(super) async fn finish(&mut self) -> Result<Option<Block>> {
        self.end_group().await?;
        Ok(self.previous)
    }

    async fn send_full_row(&mut self) -> Result<()> {
        if self.row.is_full(&self.coding) {
            self.send_row().await?;
            self.end_due_group().await?;
        }
        Ok(())
    }

    /// Hands the row over to a group.
    async fn send_row(&mut self) -> Result<()> {
        self.end_due_group().await?;
        let group = self.group.get_or_insert_with(|| {
            let (target, coding) = (self.target.clone(), Arc::clone(&self.coding));
            GroupHandle::begin(target, coding, self.previous, self.failed.clone())
        });
        let Ok(slot) = group.commands.reserve().await else {
            // The task has failed: this tells why.
            self.end_due = true;
            return self.end_due_group().await;
        };
        let is_last = self.rows + 1 == self.group_rows_max || !self.row.is_full(&self.coding);
        self.rows = if is_last { 0 } else { self.rows + 1 };
        self.end_due = is_last;
        slot.send(Command::Row(self.row.take(&self.coding, self.rows)));
        Ok(())
    }

    /// Sends the row as it is and ends the group, if there is one.
    async fn end_group(&mut self) -> Result<()> {
        if !self.row.is_empty() {
            self.send_row().await?;
        }
        if self.group.is_some() && !self.end_due {
            self.end_due = true;
            self.rows = 0;
            self.row = RowBuilder::new(&self.coding, 0);
        }
        self.end_due_group().await
    }

    /// Ends the group if it takes no further row.
    async fn end_due_group(&mut self) -> Result<()> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let Some(group) = self.group.as_mut().filter(|_| self.end_due) else { return Ok(()) };
        let outcome = group.end().await;
        self.group = None;
        self.end_due = false;
        match outcome {
            Ok(written) => {
                self.previous = Some(written.block);
                self.failed = written.failed;
                self.untold = true;
                Ok(())
            }
            Err(error) => {
                self.broken = Some(error.clone());
                Err(error)
            }
        }
    }
}
