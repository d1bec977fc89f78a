//! At which length a block group ends whose writer is gone, and with which units. Pure.
//!
//! A writer fills cells in order and sends a row's parity when the row is full, or when the group ends; a unit's replica
//! is a prefix of what was sent, and finished only at its last byte. Nothing of a group is promised before it has ended,
//! and whoever ends it by a flush tells the NameNode its length before the flush returns. So, in this order:
//!
//! 1. the length that the NameNode was told, if enough units reach it;
//! 2. the one length that all finished units of a generation agree on;
//! 3. the whole rows that enough units have. A row is known to be full only if its last cell is, or something lies behind
//!    it: the parity of a short row looks like that of a full one;
//! 4. of less than a row, what the data units have.
//!
//! What always holds of the outcome: not less than the NameNode was told; every chosen unit reaches its length; parity is
//! chosen only where it was computed over just those bytes; any k of the chosen units and of those without bytes give
//! the group back as it was written; no unit of an older generation than the group's takes part.

use proto::granary::ReplicaState;
use proto::{Code, Error, GenerationStamp, Result};
use transfer::stripe::Layout;

#[cfg(test)]
mod tests;

/// What one DataNode has of one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitFound {
    /// Its place in the command.
    pub node: usize,
    /// Which unit.
    pub unit: usize,
    /// Its generation.
    pub stamp: GenerationStamp,
    /// Its state.
    pub state: ReplicaState,
    /// Its bytes.
    pub length: u64,
}

/// What is known of a group.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Its stripes.
    pub layout: Layout,
    /// Its generation.
    pub stamp: GenerationStamp,
    /// Bytes that the NameNode was told of; 0: none.
    pub told: u64,
    /// What was found.
    pub found: Vec<UnitFound>,
    /// Units that were asked for, and of which nobody who was asked has a replica: all of those have answered.
    pub absent: Vec<usize>,
}

/// What becomes of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupChoice {
    /// No byte of it can be told.
    Empty,
    /// It gets this length.
    Settle {
        /// Bytes of data.
        length: u64,
        /// The units that take part, in ascending order; each is cut to its length.
        units: Vec<UnitFound>,
    },
}

/// Decides. `BlockMissing` if what the NameNode was told cannot be reached.
pub fn choose_group(findings: &Findings) -> Result<GroupChoice> {
    let found = Candidates::new(findings);
    let choices = [found.as_told(), found.as_finished(), found.whole_rows(), found.first_cells()];
    for (length, units) in choices.into_iter().flatten() {
        if length >= findings.told {
            return Ok(GroupChoice::Settle { length, units });
        }
    }
    if findings.told > 0 {
        return Err(Error::new(
            Code::BlockMissing,
            format!(
                "a group of {} bytes, but of its units there are {:?}",
                findings.told, findings.found
            ),
        ));
    }
    Ok(GroupChoice::Empty)
}

/// The best replica of each unit.
struct Candidates<'a> {
    findings: &'a Findings,
    layout: Layout,
    best: Vec<UnitFound>,
}

/// The lengths that a group may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    least: u64,
    most: u64,
}

type Choice = Option<(u64, Vec<UnitFound>)>;

/// Which parity of a short row may take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parity {
    /// None, nor that of whole rows.
    None,
    /// Of units that are finished.
    Finished,
    /// Of units that are just as long as they must be.
    AsLong,
}

impl<'a> Candidates<'a> {
    fn new(findings: &'a Findings) -> Self {
        let units = findings.layout.units();
        let eligible = |found: &&UnitFound| found.unit < units && found.stamp >= findings.stamp;
        let mut best: Vec<UnitFound> = Vec::new();
        for found in findings.found.iter().filter(eligible) {
            let rank = |f: &UnitFound| (f.stamp, is_finished(f), f.length);
            match best.iter_mut().find(|other| other.unit == found.unit) {
                Some(other) if rank(found) > rank(other) => *other = *found,
                Some(_) => {}
                None => best.push(*found),
            }
        }
        best.sort_unstable_by_key(|found| found.unit);
        Self { findings, layout: findings.layout, best }
    }

    fn as_told(&self) -> Choice {
        let told = self.findings.told;
        let agreed = |f: &UnitFound| {
            let span = span(&self.layout, f.unit, f.length);
            span.least <= told && told <= span.most
        };
        // A finished unit that contradicts: the group went on after it was told, or was cut by an earlier recovery.
        if told == 0 || !self.finished().all(agreed) {
            return None;
        }
        // Who takes a new stamp at a group's end tells its length, too, and may die before a unit is finished. A prefix
        // of parity that only looks whole would need a group that went on behind what was told: a last resort.
        self.settle(told, Parity::Finished).or_else(|| self.settle(told, Parity::AsLong))
    }

    fn as_finished(&self) -> Choice {
        let mut stamps: Vec<GenerationStamp> = self.finished().map(|f| f.stamp).collect();
        stamps.sort_unstable();
        stamps.dedup();
        stamps.into_iter().rev().find_map(|stamp| {
            let of_stamp = self.finished().filter(|f| f.stamp == stamp);
            let spans = of_stamp.map(|f| span(&self.layout, f.unit, f.length));
            let agreed = spans.fold(ALL, Span::and);
            if agreed.least == agreed.most {
                return self.settle(agreed.least, Parity::Finished);
            }
            // A unit that nobody has was empty, if it was not lost: then parity speaks of more bytes than are left.
            let absent = self.findings.absent.iter().filter(|&&u| u < self.layout.data_units);
            let agreed = absent.map(|&unit| span(&self.layout, unit, 0)).fold(agreed, Span::and);
            (agreed.least == agreed.most).then(|| self.settle(agreed.least, Parity::None)).flatten()
        })
    }

    fn whole_rows(&self) -> Choice {
        let cell = self.layout.cell_bytes;
        let mut rows: Vec<u64> = self.best.iter().map(|found| found.length / cell).collect();
        rows.sort_unstable_by(|a, b| b.cmp(a));
        let reached = *rows.get(self.layout.data_units - 1)?;
        let longest = self.best.iter().map(|found| found.length).max()?;
        let begun_before = longest.div_ceil(cell).saturating_sub(1);
        let is_last_cell = |found: &&UnitFound| found.unit == self.layout.data_units - 1;
        let last_cells = self.best.iter().find(is_last_cell).map_or(0, |last| last.length / cell);
        let full = begun_before.max(last_cells);
        self.settle(reached.min(full) * self.layout.stripe_bytes(), Parity::Finished)
    }

    fn first_cells(&self) -> Choice {
        let mut length = 0;
        for unit in 0..self.layout.data_units {
            let found = self.best.iter().find(|found| found.unit == unit);
            let cell = found.map_or(0, |found| found.length.min(self.layout.cell_bytes));
            length += cell;
            if cell < self.layout.cell_bytes {
                break;
            }
        }
        self.settle(length, Parity::None)
    }

    /// The units that have what they need of a group of this length, if that is enough of them.
    fn settle(&self, length: u64, parity: Parity) -> Choice {
        if length == 0 {
            return None;
        }
        let Layout { data_units, .. } = self.layout;
        let in_rows = length.is_multiple_of(self.layout.stripe_bytes());
        let units: Vec<UnitFound> = self
            .best
            .iter()
            .filter(|found| {
                let needed = self.layout.unit_length(length, found.unit);
                let reaches = needed > 0 && found.length >= needed;
                // The parity of the last row, if that is short, is that of the group's end.
                let whole =
                    found.length == needed && (is_finished(found) || parity == Parity::AsLong);
                let fits = parity != Parity::None && (in_rows || whole);
                reaches && (found.unit < data_units || fits)
            })
            .copied()
            .collect();
        let is_empty = |unit: &usize| self.layout.unit_length(length, *unit) == 0;
        let empty = (0..data_units).filter(is_empty).count();
        (units.len() + empty >= data_units).then_some((length, units))
    }

    fn finished(&self) -> impl Iterator<Item = &UnitFound> {
        self.best.iter().filter(|found| is_finished(found))
    }
}

const ALL: Span = Span { least: 0, most: u64::MAX };

impl Span {
    fn and(self, other: Self) -> Self {
        Self { least: self.least.max(other.least), most: self.most.min(other.most) }
    }
}

/// The lengths of a group of which this unit, finished, has so many bytes.
fn span(layout: &Layout, unit: usize, length: u64) -> Span {
    let (cell, stripe) = (layout.cell_bytes, layout.stripe_bytes());
    // Parity is as long as the first unit.
    let before = if unit < layout.data_units { unit as u64 * cell } else { 0 };
    let (rows, part) = (length / cell, length % cell);
    if part > 0 {
        let exact = rows * stripe + before + part;
        return Span { least: exact, most: exact };
    }
    let most = rows * stripe + before;
    let least = if rows == 0 { 0 } else { most - stripe + cell };
    Span { least, most }
}

fn is_finished(found: &UnitFound) -> bool {
    found.state == ReplicaState::Finalized
}
