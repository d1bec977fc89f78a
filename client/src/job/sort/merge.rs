//! Merges sorted sources into one sorted sequence, by a tree of losers.
//!
//! A step costs one comparison per level of the tree, most of them of two integers that hold the first eight bytes of
//! the keys. Equal records come in the order of their sources. Nothing is copied: key and value are those of the source
//! that is ahead, and live until the next step.

use std::cmp::Ordering;
use std::ops::Range;

use proto::Result;

use super::Ties;
use super::buffer::Buffer;
use super::run::RunReader;

/// A sorted sequence of records.
#[derive(Debug)]
pub(super) enum Source<'a> {
    Memory { buffer: &'a Buffer, next: Range<usize>, current: usize },
    Run(RunReader<'a>),
}

impl<'a> Source<'a> {
    pub fn memory(buffer: &'a Buffer, range: Range<usize>) -> Self {
        Self::Memory { buffer, next: range, current: 0 }
    }

    fn advance(&mut self) -> Result<bool> {
        match self {
            Self::Memory { next, current, .. } => match next.next() {
                Some(index) => {
                    *current = index;
                    Ok(true)
                }
                None => Ok(false),
            },
            Self::Run(reader) => reader.advance(),
        }
    }

    #[inline]
    fn record(&self) -> (&[u8], &[u8]) {
        match self {
            Self::Memory { buffer, current, .. } => buffer.record(*current),
            Self::Run(reader) => (reader.key(), reader.value()),
        }
    }
}

/// What the tree compares first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Head {
    At(u64),
    Ended,
}

/// All records of some sorted sources, in order.
#[derive(Debug)]
pub struct Merged<'a> {
    sources: Vec<Source<'a>>,
    heads: Vec<Head>,
    /// `losers[1..]` are the inner nodes: who lost there. `losers[0]` is the winner.
    losers: Vec<usize>,
    ties: Ties,
    started: bool,
}

impl<'a> Merged<'a> {
    pub(super) fn new(sources: Vec<Source<'a>>, ties: Ties) -> Self {
        let heads = vec![Head::Ended; sources.len()];
        Self { losers: vec![0; sources.len()], sources, heads, ties, started: false }
    }

    /// Goes to the next record and gives its key and value. `None` at the end.
    #[allow(clippy::should_implement_trait, reason = "it lends; an iterator cannot")]
    #[inline]
    pub fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        Ok(if self.step()? { Some(self.sources[self.losers[0]].record()) } else { None })
    }

    /// Goes to the next record. False at the end.
    pub(crate) fn step(&mut self) -> Result<bool> {
        if self.sources.is_empty() {
            return Ok(false);
        }
        if !self.started {
            self.start()?;
        } else if self.heads[self.losers[0]] != Head::Ended {
            let winner = self.losers[0];
            self.advance(winner)?;
            self.replay(winner);
        }
        Ok(self.heads[self.losers[0]] != Head::Ended)
    }

    /// The current record, after a step that said true.
    #[inline]
    pub(crate) fn current(&self) -> (&[u8], &[u8]) {
        self.sources[self.losers[0]].record()
    }

    fn start(&mut self) -> Result<()> {
        self.started = true;
        for source in 0..self.sources.len() {
            self.advance(source)?;
        }
        // Leaves are the nodes n..2n; each inner node keeps the loser of its two children's winners.
        let count = self.sources.len();
        let mut winners = vec![0; 2 * count];
        for node in (1..2 * count).rev() {
            winners[node] = if node >= count {
                node - count
            } else {
                let (a, b) = (winners[2 * node], winners[2 * node + 1]);
                let (winner, loser) = if self.before(a, b) { (a, b) } else { (b, a) };
                self.losers[node] = loser;
                winner
            };
        }
        self.losers[0] = winners[1];
        Ok(())
    }

    fn advance(&mut self, source: usize) -> Result<()> {
        self.heads[source] = Head::Ended;
        if self.sources[source].advance()? {
            self.heads[source] = Head::At(prefix(self.sources[source].record().0));
        }
        Ok(())
    }

    fn replay(&mut self, mut winner: usize) {
        let mut node = (winner + self.sources.len()) / 2;
        while node > 0 {
            let other = self.losers[node];
            if self.before(other, winner) {
                self.losers[node] = winner;
                winner = other;
            }
            node /= 2;
        }
        self.losers[0] = winner;
    }

    #[inline]
    fn before(&self, a: usize, b: usize) -> bool {
        match self.heads[a].cmp(&self.heads[b]) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => self.before_whole(a, b),
        }
    }

    fn before_whole(&self, a: usize, b: usize) -> bool {
        if self.heads[a] == Head::Ended {
            return a < b;
        }
        let ((key_a, value_a), (key_b, value_b)) =
            (self.sources[a].record(), self.sources[b].record());
        let by_value = || match self.ties {
            Ties::Value => value_a.cmp(value_b),
            Ties::Insertion => Ordering::Equal,
        };
        key_a.cmp(key_b).then_with(by_value).then(a.cmp(&b)) == Ordering::Less
    }
}

fn prefix(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let taken = key.len().min(8);
    bytes[..taken].copy_from_slice(&key[..taken]);
    u64::from_be_bytes(bytes)
}
