//! Reads k units of a group side by side and computes others from them, step by step.
//!
//! Each source is read by a task of its own that is one step ahead; a step is the same range of every unit. A unit that
//! ends before a step does is filled up with zeros, as when it was coded. When a source fails, another takes its place
//! from the running step on: what was decoded before stays right. What holds: exactly k units are read at a time (fewer
//! if some are empty); what is handed out was decoded from bytes whose checksums fitted.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proto::granary::Block;
use proto::{BlockId, Code, Error, GenerationStamp, Result};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use transfer::coder::{Coder, Plan};
use transfer::connection::{Peer, Pool};
use transfer::reader::{BlockReader, ReadRange};

use super::job::{Holder, Job};
use crate::store::{ReplicaReader, Store};

/// The name under which this DataNode reads from others.
const CLIENT: &str = "granary-datanode";

/// Units that are being computed.
pub struct Decoder {
    store: Arc<Store>,
    pool: Arc<Pool>,
    job: Job,
    coder: Coder,
    wanted: Vec<usize>,
    /// Sources that are not read yet.
    spare: VecDeque<Holder>,
    reading: Vec<Source>,
    plan: Option<Arc<Plan>>,
    step_bytes: u64,
    at: u64,
    end: u64,
    failures: Vec<String>,
}

/// The same range of all wanted units.
#[derive(Debug)]
pub struct Step {
    /// Where it begins in each unit.
    pub offset: u64,
    /// The bytes of each wanted unit: fewer than the others', or none, where one has ended.
    pub units: Vec<Bytes>,
    /// Bytes that were read for it.
    pub read_bytes: u64,
}

/// One unit that is being read.
struct Source {
    unit: usize,
    steps: mpsc::Receiver<Result<Bytes>>,
    /// Its bytes of the running step, once they came.
    current: Option<Bytes>,
    task: AbortHandle,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Decoder {
    /// Nothing is read yet. `wanted` are units of the job that are none of its sources.
    pub fn new(
        store: &Arc<Store>,
        pool: &Arc<Pool>,
        job: &Job,
        wanted: &[usize],
        step_bytes: u64,
    ) -> Result<Self> {
        let end = wanted.iter().map(|&unit| job.unit_length(unit)).max().unwrap_or(0);
        Ok(Self {
            store: store.clone(),
            pool: pool.clone(),
            coder: Coder::new(job.code),
            wanted: wanted.to_vec(),
            spare: job.sources.clone().into(),
            reading: Vec::new(),
            plan: None,
            step_bytes: step_bytes.max(1),
            at: 0,
            end,
            failures: Vec::new(),
            job: job.clone(),
        })
    }

    /// The units that are computed, in the order of [`Step::units`].
    pub fn wanted(&self) -> &[usize] {
        &self.wanted
    }

    /// How many sources failed so far.
    pub fn source_failures(&self) -> u64 {
        self.failures.len() as u64
    }

    /// About how many bytes the next step reads.
    pub fn next_read_bytes(&self) -> u64 {
        let read = self.job.layout.data_units.saturating_sub(self.job.empty_units().len());
        (self.end - self.at).min(self.step_bytes) * read as u64
    }

    /// The next step; `None` after the last. `BlockMissing` if too few sources are left.
    pub async fn next(&mut self) -> Result<Option<Step>> {
        let length = (self.end - self.at).min(self.step_bytes);
        if length == 0 {
            return Ok(None);
        }
        let plan = loop {
            let plan = self.complete()?;
            if self.fetch().await {
                break plan;
            }
        };
        let length = usize::try_from(length).expect("a step fits in memory");
        let mut read_bytes = 0;
        let mut inputs = Vec::with_capacity(plan.sources().len());
        for &unit in plan.sources() {
            let source = self.reading.iter_mut().find(|source| source.unit == unit);
            let bytes = source.and_then(|source| source.current.take()).unwrap_or_default();
            read_bytes += bytes.len() as u64;
            inputs.push(filled(bytes, length));
        }
        let wanted = self.wanted.len();
        let outputs = tokio::task::spawn_blocking(move || {
            let mut outputs = vec![vec![0; length]; wanted];
            let inputs: Vec<&[u8]> = inputs.iter().map(|input| &input[..]).collect();
            let mut targets: Vec<&mut [u8]> = outputs.iter_mut().map(|out| &mut out[..]).collect();
            plan.decode(&inputs, &mut targets);
            outputs
        })
        .await
        .map_err(|panic| Error::new(Code::Internal, format!("decode: {panic}")))?;
        let offset = self.at;
        let ended = outputs.into_iter().zip(&self.wanted).map(|(output, &unit)| {
            let left = self.job.unit_length(unit).saturating_sub(offset);
            let kept = usize::try_from(left).unwrap_or(usize::MAX).min(length);
            Bytes::from(output).slice(..kept)
        });
        let units = ended.collect();
        self.at += length as u64;
        Ok(Some(Step { offset, units, read_bytes }))
    }

    /// Begins to read further sources until there are enough, and plans how to decode.
    fn complete(&mut self) -> Result<Arc<Plan>> {
        let empty = self.job.empty_units();
        let needed = self.job.layout.data_units;
        while self.reading.len() + empty.len() < needed {
            let Some(holder) = self.spare.pop_front() else {
                return Err(Error::new(
                    Code::BlockMissing,
                    format!(
                        "blk_{} at {}: {} units can be read, {} are needed: {}",
                        self.job.group.id,
                        self.at,
                        self.reading.len(),
                        needed - empty.len(),
                        self.failures.join("; ")
                    ),
                ));
            };
            self.plan = None;
            self.reading.push(self.read(holder));
        }
        if let Some(plan) = &self.plan {
            return Ok(plan.clone());
        }
        let reading = self.reading.iter().map(|source| source.unit);
        let left: Vec<usize> = reading.chain(empty).take(needed).collect();
        let plan = self.coder.plan(&left, &self.wanted);
        let plan = Arc::new(plan.map_err(|error| Error::new(Code::Internal, error.to_string()))?);
        self.plan = Some(plan.clone());
        Ok(plan)
    }

    /// Waits for the running step of every source; false if one of them failed and was left out.
    async fn fetch(&mut self) -> bool {
        let mut failed = None;
        for (place, source) in self.reading.iter_mut().enumerate() {
            if source.current.is_some() {
                continue;
            }
            match source.steps.recv().await {
                Some(Ok(bytes)) => source.current = Some(bytes),
                Some(Err(error)) => failed = Some((place, error)),
                None => failed = Some((place, Error::new(Code::Internal, "its reader ended"))),
            }
            if failed.is_some() {
                break;
            }
        }
        let Some((place, error)) = failed else { return true };
        let source = self.reading.remove(place);
        tracing::warn!(group = self.job.group.id, unit = source.unit, %error, "a unit is not read");
        self.failures.push(format!("unit {}: {error}", source.unit));
        false
    }

    fn read(&self, holder: Holder) -> Source {
        let (send, steps) = mpsc::channel(1);
        let unit = holder.unit;
        let block = self.job.unit_block(unit);
        let reading = Reading {
            store: self.store.clone(),
            pool: self.pool.clone(),
            holder,
            block,
            step_bytes: self.step_bytes,
            at: self.at,
            end: self.end,
        };
        let task = tokio::spawn(async move {
            if let Err(error) = reading.run(&send).await {
                // Whoever listened may be gone.
                drop(send.send(Err(error)).await);
            }
        });
        Source { unit, steps, current: None, task: task.abort_handle() }
    }
}

/// Reads one unit from a step on.
struct Reading {
    store: Arc<Store>,
    pool: Arc<Pool>,
    holder: Holder,
    block: Block,
    step_bytes: u64,
    at: u64,
    end: u64,
}

impl Reading {
    async fn run(mut self, steps: &mpsc::Sender<Result<Bytes>>) -> Result<()> {
        let mut from = self.open().await?;
        while self.at < self.end {
            let step_end = (self.at + self.step_bytes).min(self.end);
            let stop = step_end.min(self.block.length);
            let bytes = match &mut from {
                // The unit has ended before.
                _ if stop <= self.at => Bytes::new(),
                From::Own(reader) => own(reader.clone(), self.at..stop).await?,
                From::Other { reader, rest } => collect(reader, rest, stop - self.at).await?,
                From::Nowhere => Bytes::new(),
            };
            self.at = step_end;
            if steps.send(Ok(bytes)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn open(&self) -> Result<From> {
        let end = self.end.min(self.block.length);
        if self.at >= end {
            return Ok(From::Nowhere);
        }
        let identity = self.store.identity();
        if self.holder.datanode.uuid == identity.datanode_uuid {
            let (id, stamp) =
                (BlockId(self.block.id), GenerationStamp(self.block.generation_stamp));
            let store = self.store.clone();
            let pool = store.pool_of(id, stamp)?;
            let reader = pool.run(move || store.open_reader(id, stamp)).await?;
            if reader.length() < end {
                return Err(Error::new(
                    Code::Stale,
                    format!("{id} has {} bytes here, expected {end}", reader.length()),
                ));
            }
            return Ok(From::Own(Arc::new(reader)));
        }
        let peer = Peer::from_address(&self.holder.datanode)?;
        let range = ReadRange {
            pool_id: identity.pool_id,
            client: CLIENT.into(),
            block: self.block,
            offset: self.at,
            length: end - self.at,
        };
        let reader = Box::new(BlockReader::open(&self.pool, &peer, &range).await?);
        Ok(From::Other { reader, rest: Bytes::new() })
    }
}

/// Where a unit is read.
enum From {
    Own(Arc<ReplicaReader>),
    Other {
        reader: Box<BlockReader>,
        /// What came behind the step before.
        rest: Bytes,
    },
    /// It ends before the range that is wanted begins.
    Nowhere,
}

/// Bytes of an own replica, verified.
async fn own(reader: Arc<ReplicaReader>, range: Range<u64>) -> Result<Bytes> {
    let pool = reader.volume().pool().clone();
    pool.run(move || reader.read_verified(range)).await.map(Bytes::from)
}

/// The next `bytes` bytes: mostly one packet, which is then not copied.
async fn collect(reader: &mut BlockReader, rest: &mut Bytes, bytes: u64) -> Result<Bytes> {
    let wanted = usize::try_from(bytes).expect("a step fits in memory");
    let mut joined = BytesMut::new();
    loop {
        if rest.is_empty() {
            *rest = reader.next().await?.ok_or_else(|| {
                let left = wanted - joined.len();
                Error::new(Code::Corrupt, format!("a unit ends {left} bytes too early"))
            })?;
        }
        let piece = rest.split_to(rest.len().min(wanted - joined.len()));
        if piece.len() == wanted {
            return Ok(piece);
        }
        joined.extend_from_slice(&piece);
        if joined.len() == wanted {
            return Ok(joined.freeze());
        }
    }
}

fn filled(bytes: Bytes, length: usize) -> Bytes {
    if bytes.len() == length {
        return bytes;
    }
    let mut filled = BytesMut::with_capacity(length);
    filled.extend_from_slice(&bytes);
    filled.resize(length, 0);
    filled.freeze()
}
