//! One unit of a group: a task that writes it over a pipeline of one DataNode.
//!
//! Orders come over a bounded queue, in the order in which they are carried out; each but a packet is answered by one
//! report. What holds: after a failure, which is the task's last report, nothing goes to the DataNode any more; a
//! packet is held until it was acknowledged. What a failure means is the group's business ([`super::core`]).

use std::sync::Arc;

use bytes::Bytes;
use proto::Error;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use transfer::SealedPacket;
use transfer::connection::Pool;
use transfer::packet::PacketHeader;
use transfer::writer::{BlockWriter, PipelineFailure, PipelineSpec, Stage};

/// What a unit's task is to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Send a packet.
    Packet(SealedPacket),
    /// Wait until everything was acknowledged.
    Drain,
    /// Take a new stamp. Everything was acknowledged.
    Restamp(u64),
    /// End the unit: on stable storage.
    Finish,
}

/// What came of an order, or that the unit failed.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) unit: usize,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Opened,
    Drained,
    Restamped,
    Ended,
    Failed(Error),
}

/// A unit's task. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct UnitHandle {
    orders: mpsc::Sender<Order>,
    task: AbortHandle,
}

impl UnitHandle {
    /// Begins a unit: it is set up, and then takes orders, at most `orders_max` of them in advance.
    pub(super) fn begin(
        unit: usize,
        spec: PipelineSpec,
        pool: Arc<Pool>,
        orders_max: usize,
        reports: mpsc::Sender<Report>,
    ) -> Self {
        let (orders, queue) = mpsc::channel(orders_max.max(1));
        let task = tokio::spawn(async move {
            let mut task = UnitTask { unit, spec, pool, position: 0, next_seqno: 0, reports };
            if let Err(failure) = task.run(queue).await {
                task.report(Outcome::Failed(failure.error)).await;
            }
        });
        Self { orders, task: task.abort_handle() }
    }

    /// Gives an order; waits while too many are there. One that the task does not take any more is void: it has failed.
    pub(super) async fn order(&self, order: Order) {
        let _failed = self.orders.send(order).await;
    }
}

impl Drop for UnitHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct UnitTask {
    unit: usize,
    spec: PipelineSpec,
    pool: Arc<Pool>,
    /// Bytes that were sent.
    position: u64,
    next_seqno: i64,
    reports: mpsc::Sender<Report>,
}

impl UnitTask {
    async fn run(&mut self, mut orders: mpsc::Receiver<Order>) -> Result<(), PipelineFailure> {
        let mut writer = BlockWriter::open_pooled(&self.spec, &self.pool).await?;
        self.report(Outcome::Opened).await;
        while let Some(order) = orders.recv().await {
            match order {
                Order::Packet(packet) => self.send(&mut writer, packet).await?,
                Order::Drain => {
                    writer.drain().await?;
                    self.report(Outcome::Drained).await;
                }
                Order::Restamp(stamp) => {
                    drop(writer);
                    writer = self.restamp(stamp).await?;
                    self.report(Outcome::Restamped).await;
                }
                Order::Finish => {
                    let header = PacketHeader {
                        offset_in_block: self.position,
                        seqno: self.next_seqno,
                        last: true,
                        data_len: 0,
                        sync: false,
                    };
                    let last = SealedPacket::with_sums(header, &[], Bytes::new());
                    self.send(&mut writer, last).await?;
                    writer.drain().await?;
                    writer.end();
                    self.report(Outcome::Ended).await;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn send(
        &mut self,
        writer: &mut BlockWriter,
        packet: SealedPacket,
    ) -> Result<(), PipelineFailure> {
        debug_assert_eq!(packet.header.seqno, self.next_seqno, "packets follow each other");
        self.next_seqno = packet.header.seqno + 1;
        self.position = packet.header.end();
        writer.send(&mut Some(packet)).await
    }

    /// Sets the unit up again with a new stamp: it has what was sent, and nothing else.
    async fn restamp(&mut self, stamp: u64) -> Result<BlockWriter, PipelineFailure> {
        let spec = PipelineSpec {
            stage: Stage::PipelineSetupStreamingRecovery,
            min_bytes: self.position,
            max_bytes: self.position,
            new_stamp: stamp,
            ..self.spec.clone()
        };
        let writer = BlockWriter::open_pooled(&spec, &self.pool).await?;
        self.spec.block.generation_stamp = stamp;
        Ok(writer)
    }

    async fn report(&self, outcome: Outcome) {
        // Nobody listens any more if the group was given up.
        let _given_up = self.reports.send(Report { unit: self.unit, outcome }).await;
    }
}
