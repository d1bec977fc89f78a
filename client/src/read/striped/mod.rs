//! Reading a block group: a range of its data as verified bytes, whatever units are lost, damaged or slow.
//!
//! | module | owns |
//! |---|---|
//! | `plan` | what to read of a row, and what to compute (pure) |
//! | `unit` | reading one unit |
//!
//! A row at a time: the cells that are wanted are read in parallel; if one fails, or is not there after
//! `read_hedge_ms`, the row is planned anew with what came so far. Ranges of several rows are read ahead, each unit by a
//! task of its own; others touch only the cells that they are in. What holds: only verified bytes are handed out or
//! decoded from; a read fails only if fewer than k units can be read, and then says what each of them said; a slow unit
//! is never a reason to fail.
#![allow(clippy::disallowed_methods, reason = "a shell: a slow unit is known by the clock")]

mod plan;
mod unit;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use proto::granary::{Block, DatanodeAddress, LocatedBlock};
use proto::{Code, Error, Result};
use tokio::time::{Duration, Instant};
use transfer::coder::{Coder, Plan};
use transfer::stripe::{self, Layout};

use super::{OpenFile, failures};
use crate::fs::incomplete;
use crate::plan::Standing as NodeStanding;
use plan::{Decode, Row, RowPlan, Standing};
use unit::{Source, UnitStream};

/// A range of a group that is being read.
#[derive(Debug)]
pub(super) struct GroupStream {
    file: Arc<OpenFile>,
    block: Block,
    layout: Layout,
    coder: Coder,
    units: Vec<Unit>,
    /// Where in the group the next row's bytes begin.
    position: u64,
    end: u64,
    /// Whether units are read ahead.
    streaming: bool,
    /// Bytes of rows that were read, in order.
    ready: VecDeque<Bytes>,
    /// The decoding of the last row that needed one: sources, lost units, and how.
    decoding: Option<(Vec<usize>, Vec<usize>, Plan)>,
    said: Vec<String>,
}

/// What is known of a unit.
#[derive(Debug)]
struct Unit {
    /// Where it may be read, the best first.
    locations: VecDeque<DatanodeAddress>,
    is_slow: bool,
    stream: Option<UnitStream>,
}

/// A range of a cell that came.
struct Had {
    range: Range<u64>,
    pieces: Vec<Bytes>,
}

/// What a fetch of a unit's cell gives.
struct Fetched {
    unit: usize,
    range: Range<u64>,
    source: Source,
    pieces: Result<Vec<Bytes>>,
    stream: Option<UnitStream>,
}

/// A row that is being read.
struct RowRead {
    row: Row,
    wanted: Vec<Range<u64>>,
    had: Vec<Option<Had>>,
    /// What was asked for last of each unit, and not answered.
    asked: Vec<Option<Range<u64>>>,
    pending: FuturesUnordered<BoxFuture<'static, Fetched>>,
}

impl GroupStream {
    /// Reads the range `begin..end` of a group's data.
    pub(super) fn open(
        file: &Arc<OpenFile>,
        located: &LocatedBlock,
        begin: u64,
        end: u64,
    ) -> Result<Self> {
        let block = located.block.ok_or_else(|| incomplete("locate blocks", "block"))?;
        let policy = crate::erasure::policy(&file.path, located.erasure_policy)?;
        let layout = Layout::from(policy);
        let mut locations = vec![Vec::new(); layout.units()];
        for (&unit, location) in located.units.iter().zip(&located.locations) {
            if let Some(unit) = locations.get_mut(usize::from(unit)) {
                unit.push(location.clone());
            }
        }
        let units = locations.iter().map(|locations| Unit::new(file, locations)).collect();
        Ok(Self {
            file: Arc::clone(file),
            block,
            layout,
            coder: crate::erasure::coder(&file.path, policy)?,
            units,
            position: begin,
            end: end.min(block.length),
            streaming: end - begin > layout.stripe_bytes(),
            ready: VecDeque::new(),
            decoding: None,
            said: Vec::new(),
        })
    }

    /// The next bytes; `None` at the end of the range.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.ready.is_empty() && self.position < self.end {
            self.read_row().await?;
        }
        Ok(self.ready.pop_front())
    }

    async fn read_row(&mut self) -> Result<()> {
        let index = self.position / self.layout.stripe_bytes();
        let end = self.end.min((index + 1) * self.layout.stripe_bytes());
        let row = Row { layout: self.layout, group_bytes: self.block.length, index };
        let mut read = RowRead::new(row, row.wanted(self.position..end));
        let plan = self.fetch_row(&mut read).await?;
        self.hand_out(&read, plan)?;
        self.position = end;
        Ok(())
    }

    /// Fetches until what a plan needs is there.
    async fn fetch_row(&mut self, read: &mut RowRead) -> Result<RowPlan> {
        let hedge_ms = self.file.fs.config().read_hedge_ms;
        loop {
            let standings: Vec<Standing> = (0..self.units.len())
                .map(|unit| self.units[unit].standing(read.had[unit].is_some()))
                .collect();
            let plan = read.row.plan(&read.wanted, &standings);
            let plan = plan.map_err(|too_few| self.unreadable(too_few.have))?;
            let missing: Vec<_> =
                plan.fetches.iter().filter(|(unit, range)| !read.has(*unit, range)).collect();
            if missing.is_empty() {
                self.note_slow(read);
                return Ok(plan);
            }
            for (unit, range) in missing {
                if !read.is_asked(*unit, range) {
                    read.asked[*unit] = Some(range.clone());
                    let fetch = self.fetch(*unit, range.clone(), read.row.index);
                    read.pending.push(fetch);
                }
            }
            let patience = (0..self.units.len())
                .any(|unit| read.asked[unit].is_some() && !self.units[unit].is_slow);
            let hedge = Instant::now() + Duration::from_millis(hedge_ms);
            tokio::select! {
                Some(fetched) = read.pending.next() => self.take(read, fetched),
                () = tokio::time::sleep_until(hedge), if patience && hedge_ms > 0 => {
                    for (unit, _) in read.asked.iter().enumerate().filter(|(_, a)| a.is_some()) {
                        self.units[unit].is_slow = true;
                    }
                }
            }
        }
    }

    /// Begins to read a part of a unit's cell.
    fn fetch(&mut self, unit: usize, range: Range<u64>, row: u64) -> BoxFuture<'static, Fetched> {
        let begin = row * self.layout.cell_bytes;
        let in_unit = begin + range.start..begin + range.end;
        let source = self.source(unit);
        let stream = self.units[unit].stream.take().filter(|stream| stream.is_at(&in_unit));
        let unit_end = self.layout.unit_length(self.end, unit);
        let stream = stream.or_else(|| {
            let ahead = in_unit.start..unit_end;
            let rows = self.file.fs.config().read_ahead_bytes / self.layout.stripe_bytes();
            let rows = usize::try_from(rows).unwrap_or(1).clamp(1, 64);
            (self.streaming && in_unit.end <= unit_end)
                .then(|| UnitStream::start(source.clone(), ahead, rows))
        });
        Box::pin(async move {
            match stream {
                Some(mut stream) => {
                    let pieces = stream.take(range.end - range.start).await;
                    let stream = pieces.is_ok().then_some(stream);
                    Fetched { unit, range, source, pieces, stream }
                }
                None => {
                    let pieces = source.clone().read(in_unit).await;
                    Fetched { unit, range, source, pieces, stream: None }
                }
            }
        })
    }

    /// A unit at the best of its locations.
    fn source(&self, unit: usize) -> Source {
        let location = self.units[unit].locations.front().expect("a unit that is gone is not read");
        let block = Block {
            id: stripe::unit_block(self.block.id, unit),
            generation_stamp: self.block.generation_stamp,
            length: self.layout.unit_length(self.block.length, unit),
        };
        Source { file: Arc::clone(&self.file), location: location.clone(), block }
    }

    fn take(&mut self, read: &mut RowRead, fetched: Fetched) {
        let Fetched { unit, range, source, pieces, stream } = fetched;
        if read.asked[unit].as_ref() == Some(&range) {
            read.asked[unit] = None;
        }
        match pieces {
            Ok(pieces) => {
                self.units[unit].is_slow = false;
                self.units[unit].stream = stream;
                if !read.has(unit, &range) {
                    read.had[unit] = Some(Had { range, pieces });
                }
            }
            Err(error) => {
                let node = &source.location;
                self.said.push(format!("unit {unit} at {}:{}: {error}", node.host, node.data_port));
                let again = failures::note(&self.file, node, source.block, &error);
                if !again {
                    let locations = &mut self.units[unit].locations;
                    locations.retain(|location| location.uuid != node.uuid);
                    if locations.is_empty() {
                        // What came of it is computed, too: more of it cannot be had.
                        read.had[unit] = None;
                    }
                }
            }
        }
    }

    /// Units that kept the row waiting and were not needed in the end are asked last for a while.
    fn note_slow(&self, read: &RowRead) {
        for (unit, asked) in self.units.iter().zip(&read.asked) {
            if let (true, Some(_), Some(location)) = (unit.is_slow, asked, unit.locations.front()) {
                self.file.fs.note_bad_node(&location.uuid);
            }
        }
    }

    /// Puts the wanted bytes of a row out in order, decoded where they are lost.
    fn hand_out(&mut self, read: &RowRead, plan: RowPlan) -> Result<()> {
        let decoded = match &plan.decode {
            Some(decode) => self.decode(read, decode)?,
            None => Vec::new(),
        };
        let mut lost = plan.decode.iter().flat_map(|decode| {
            decode.lost.iter().zip(&decoded).map(|(unit, bytes)| (*unit, decode.range.start, bytes))
        });
        let mut next_lost = lost.next();
        for (unit, wanted) in read.wanted.iter().enumerate().filter(|(_, range)| !range.is_empty())
        {
            match next_lost {
                Some((of, start, bytes)) if of == unit => {
                    let part = (wanted.start - start) as usize..(wanted.end - start) as usize;
                    self.ready.push_back(bytes.slice(part));
                    next_lost = lost.next();
                }
                _ => self.ready.extend(read.pieces(unit, wanted)),
            }
        }
        Ok(())
    }

    fn decode(&mut self, read: &RowRead, decode: &Decode) -> Result<Vec<Bytes>> {
        let Decode { sources, lost, range } = decode;
        let known = self.decoding.take().filter(|(s, l, _)| (s, l) == (sources, lost));
        let plan = match known {
            Some((_, _, plan)) => plan,
            None => self.coder.plan(sources, lost).map_err(|error| {
                Error::new(Code::Internal, format!("{}: {error}", self.file.path))
            })?,
        };
        let bytes = (range.end - range.start) as usize;
        let inputs: Vec<Bytes> =
            plan.sources().iter().map(|&unit| read.filled(unit, range)).collect();
        let inputs: Vec<&[u8]> = inputs.iter().map(|input| &input[..]).collect();
        let mut decoded = vec![BytesMut::zeroed(bytes); lost.len()];
        let mut outputs: Vec<&mut [u8]> = decoded.iter_mut().map(|unit| &mut unit[..]).collect();
        plan.decode(&inputs, &mut outputs);
        self.decoding = Some((sources.clone(), lost.clone(), plan));
        Ok(decoded.into_iter().map(BytesMut::freeze).collect())
    }

    fn unreadable(&self, have: usize) -> Error {
        let said = match self.said.as_slice() {
            [] => "no DataNode has reported the others".to_owned(),
            said => said.join("; "),
        };
        Error::new(
            Code::BlockMissing,
            format!(
                "block group blk_{}: {have} units can be read, {} are needed: [{said}]",
                self.block.id, self.layout.data_units
            ),
        )
    }
}

impl Unit {
    /// A unit whose DataNodes, if they all failed lately, are asked last.
    fn new(file: &OpenFile, locations: &[DatanodeAddress]) -> Self {
        let standing = |location: &DatanodeAddress| {
            if file.local.is_local(location) {
                NodeStanding::Local
            } else if file.fs.is_bad_node(&location.uuid) {
                NodeStanding::Suspect
            } else {
                NodeStanding::Good
            }
        };
        let is_slow = locations.iter().all(|at| standing(at) == NodeStanding::Suspect);
        let locations = crate::plan::order(locations, standing).into();
        Self { locations, is_slow, stream: None }
    }

    fn standing(&self, is_at_hand: bool) -> Standing {
        match (is_at_hand, self.locations.is_empty(), self.is_slow) {
            (true, ..) | (false, false, false) => Standing::Good,
            (false, true, _) => Standing::Gone,
            (false, false, true) => Standing::Slow,
        }
    }
}

impl RowRead {
    fn new(row: Row, wanted: Vec<Range<u64>>) -> Self {
        let units = row.layout.units();
        Self {
            row,
            wanted,
            had: (0..units).map(|_| None).collect(),
            asked: vec![None; units],
            pending: FuturesUnordered::new(),
        }
    }

    fn has(&self, unit: usize, range: &Range<u64>) -> bool {
        self.had[unit].as_ref().is_some_and(|had| covers(&had.range, range))
    }

    fn is_asked(&self, unit: usize, range: &Range<u64>) -> bool {
        self.asked[unit].as_ref().is_some_and(|asked| covers(asked, range))
    }

    /// A part of a cell that came, as it came.
    fn pieces<'a>(
        &'a self,
        unit: usize,
        range: &'a Range<u64>,
    ) -> impl Iterator<Item = Bytes> + 'a {
        let had = self.had[unit].as_ref().expect("what is planned was fetched");
        let mut at = had.range.start;
        had.pieces.iter().filter_map(move |piece| {
            let begin = at;
            at += piece.len() as u64;
            let (from, to) = (range.start.max(begin), range.end.min(at));
            (from < to).then(|| piece.slice((from - begin) as usize..(to - begin) as usize))
        })
    }

    /// A part of a cell in one piece; what lies behind the cell's end is zeros.
    fn filled(&self, unit: usize, range: &Range<u64>) -> Bytes {
        let length = (range.end - range.start) as usize;
        let there = range.start..range.end.min(self.row.cell_bytes(unit));
        if there.is_empty() {
            return BytesMut::zeroed(length).freeze();
        }
        let mut pieces = self.pieces(unit, &there);
        let first = pieces.next().unwrap_or_default();
        if first.len() == length {
            return first;
        }
        let mut whole = BytesMut::with_capacity(length);
        whole.extend_from_slice(&first);
        pieces.for_each(|piece| whole.extend_from_slice(&piece));
        whole.resize(length, 0);
        whole.freeze()
    }
}

fn covers(have: &Range<u64>, wanted: &Range<u64>) -> bool {
    have.start <= wanted.start && wanted.end <= have.end
}
