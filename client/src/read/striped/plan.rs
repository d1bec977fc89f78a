//! What to read of one row of a block group. Pure.
//!
//! A cell that cannot be had comes from k others of its row, over the bytes that are wanted of it and no more. What
//! holds: nothing is planned of a unit that is gone; a slow one is planned only where there are not k better ones; cells
//! behind the end of the data cost nothing: they are zeros.

use std::ops::Range;

use transfer::stripe::Layout;

/// What is known of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It is at hand, or nothing speaks against it.
    Good,
    /// It is read only if there is no other way.
    Slow,
    /// It cannot be read.
    Gone,
}

/// How to get what is wanted of a row. Ranges are within cells, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowPlan {
    /// What to read: of each unit one range, none of them empty.
    pub(super) fetches: Vec<(usize, Range<u64>)>,
    /// What to compute.
    pub(super) decode: Option<Decode>,
}

/// Cells that come from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decode {
    /// The k units that they come from. What a source's cell lacks of the range is zeros.
    pub(super) sources: Vec<usize>,
    /// The wanted units that cannot be read.
    pub(super) lost: Vec<usize>,
    /// The part of the cells.
    pub(super) range: Range<u64>,
}

/// How many units there are to read a row from, where k are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooFew {
    pub(super) have: usize,
}

/// A row of a group with so many bytes of data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) layout: Layout,
    pub(super) group_bytes: u64,
    pub(super) index: u64,
}

impl Row {
    /// Bytes of a unit's cell.
    pub(super) fn cell_bytes(&self, unit: usize) -> u64 {
        self.layout.cell_length(self.group_bytes, self.index, unit)
    }

    /// What of each data cell is in a range of the group's data.
    pub(super) fn wanted(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let Layout { data_units, cell_bytes, .. } = self.layout;
        let begin = self.index * self.layout.stripe_bytes();
        let of_cell = |unit: usize| {
            let cell = begin + unit as u64 * cell_bytes;
            let from = range.start.clamp(cell, cell + cell_bytes) - cell;
            let to = range.end.clamp(cell, cell + cell_bytes) - cell;
            from..to.min(self.cell_bytes(unit)).max(from)
        };
        (0..data_units).map(of_cell).collect()
    }

    /// Plans how to get `wanted` of each data cell.
    pub(super) fn plan(
        &self,
        wanted: &[Range<u64>],
        standings: &[Standing],
    ) -> Result<RowPlan, TooFew> {
        let k = self.layout.data_units;
        let is_zeros = |unit: usize| self.cell_bytes(unit) == 0;
        let is_wanted = |unit: usize| wanted.get(unit).is_some_and(|range| !range.is_empty());
        let mut left: Vec<usize> = (0..self.layout.units())
            .filter(|&unit| is_zeros(unit) || standings[unit] != Standing::Gone)
            .collect();
        // What costs nothing first, then what is read anyway, then data, then parity; slow units last.
        left.sort_by_key(|&unit| {
            let slow = !is_zeros(unit) && standings[unit] == Standing::Slow;
            (slow, !is_zeros(unit), !is_wanted(unit), unit)
        });
        let have = left.len();
        left.truncate(k);
        let lost: Vec<usize> = (0..k)
            .filter(|&unit| is_wanted(unit) && standings[unit] != Standing::Good)
            .filter(|unit| !left.contains(unit) || left.len() < k)
            .collect();
        let Some(range) = lost.iter().map(|&unit| wanted[unit].clone()).reduce(hull) else {
            let fetches = (0..k).filter(|&unit| is_wanted(unit));
            let fetches = fetches.map(|unit| (unit, wanted[unit].clone())).collect();
            return Ok(RowPlan { fetches, decode: None });
        };
        if have < k {
            // Without decoding, what is there of the wanted cells is not enough.
            let direct = lost.iter().all(|&unit| standings[unit] == Standing::Slow);
            return if direct { Ok(self.read_directly(wanted)) } else { Err(TooFew { have }) };
        }
        let fetches = (0..self.layout.units()).filter_map(|unit| {
            let direct = wanted.get(unit).filter(|_| !lost.contains(&unit)).cloned();
            let direct = direct.filter(|range| !range.is_empty());
            let cell = self.cell_bytes(unit);
            let source = left.contains(&unit).then(|| range.start.min(cell)..range.end.min(cell));
            let source = source.filter(|range| !range.is_empty());
            let both = direct.into_iter().chain(source).reduce(hull)?;
            Some((unit, both))
        });
        let fetches = fetches.collect();
        Ok(RowPlan { fetches, decode: Some(Decode { sources: left, lost, range }) })
    }

    fn read_directly(&self, wanted: &[Range<u64>]) -> RowPlan {
        let fetches = wanted.iter().cloned().enumerate().filter(|(_, range)| !range.is_empty());
        RowPlan { fetches: fetches.collect(), decode: None }
    }
}

/// The smallest range that holds both.
fn hull(one: Range<u64>, other: Range<u64>) -> Range<u64> {
    one.start.min(other.start)..one.end.max(other.end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use transfer::coder::{Code, Coder};

    use super::*;

    const SMALL: Layout = Layout { data_units: 3, parity_units: 2, cell_bytes: 8 };

    #[test]
    fn what_is_good_is_read_as_it_is() {
        let row = Row { layout: SMALL, group_bytes: 48, index: 1 };
        let wanted = row.wanted(30..41);
        assert_eq!(wanted, [6..8, 0..8, 0..1]);
        let plan = row.plan(&wanted, &[Standing::Good; 5]).unwrap();
        assert_eq!(plan.fetches, [(0, 6..8), (1, 0..8), (2, 0..1)]);
        assert_eq!(plan.decode, None);
    }

    #[test]
    fn a_lost_cell_costs_the_wanted_bytes_of_others_and_no_more() {
        let row = Row { layout: SMALL, group_bytes: 48, index: 0 };
        let mut standings = [Standing::Good; 5];
        standings[1] = Standing::Gone;
        let plan = row.plan(&row.wanted(10..13), &standings).unwrap();
        assert_eq!(plan.fetches, [(0, 2..5), (2, 2..5), (3, 2..5)]);
        let decode = Decode { sources: vec![0, 2, 3], lost: vec![1], range: 2..5 };
        assert_eq!(plan.decode, Some(decode));
    }

    #[test]
    fn a_tiny_group_is_read_from_its_first_parity_alone() {
        let row = Row { layout: SMALL, group_bytes: 3, index: 0 };
        let standings =
            [Standing::Gone, Standing::Gone, Standing::Gone, Standing::Gone, Standing::Good];
        let plan = row.plan(&row.wanted(0..3), &standings).unwrap();
        assert_eq!(plan.fetches, [(4, 0..3)]);
        let too_few = row.plan(&row.wanted(0..3), &[Standing::Gone; 5]);
        assert_eq!(too_few, Err(TooFew { have: 2 }));
    }

    #[test]
    fn a_slow_unit_is_read_if_there_is_no_other_way() {
        let row = Row { layout: SMALL, group_bytes: 24, index: 0 };
        let mut standings = [Standing::Good; 5];
        standings[0] = Standing::Slow;
        let wanted = row.wanted(0..8);
        assert_eq!(row.plan(&wanted, &standings).unwrap().decode.unwrap().lost, [0]);
        standings[3] = Standing::Gone;
        standings[4] = Standing::Slow;
        let plan = row.plan(&wanted, &standings).unwrap();
        assert_eq!(plan, RowPlan { fetches: vec![(0, 0..8)], decode: None });
        let plan = row.plan(&wanted, &[Standing::Slow; 5]).unwrap();
        assert_eq!(plan.decode, None);
    }

    fn standing() -> impl Strategy<Value = Standing> {
        prop_oneof![3 => Just(Standing::Good), 1 => Just(Standing::Slow), 2 => Just(Standing::Gone)]
    }

    proptest! {
        #[test]
        fn whatever_is_planned_gives_the_wanted_bytes(
            k in 1usize..6, m in 1usize..4, cell in 1u64..9, length in 1u64..100,
            begin in 0u64..100, bytes in 1u64..60,
            standings in prop::collection::vec(standing(), 9),
        ) {
            let layout = Layout { data_units: k, parity_units: m, cell_bytes: cell };
            let begin = begin % length;
            let index = begin / layout.stripe_bytes();
            let row = Row { layout, group_bytes: length, index };
            let end = (begin + bytes).min(length).min((index + 1) * layout.stripe_bytes());
            let wanted = row.wanted(begin..end);
            prop_assert_eq!(wanted.iter().map(|range| range.end - range.start).sum::<u64>(), end - begin);
            let standings = &standings[..k + m];
            let needed = (0..k).filter(|&unit| row.cell_bytes(unit) > 0).count();
            let there = (0..k + m)
                .filter(|&unit| row.cell_bytes(unit) > 0 && standings[unit] != Standing::Gone)
                .count();
            let Ok(plan) = row.plan(&wanted, standings) else {
                prop_assert!(there < needed, "{} of {} units were enough", there, needed);
                return Ok(());
            };
            // The row's cells, filled up with zeros.
            let full = cell as usize;
            let data: Vec<Vec<u8>> = (0..k).map(|unit| {
                let have = row.cell_bytes(unit) as usize;
                (0..full).map(|at| if at < have { (unit * 50 + at * 7 + 1) as u8 } else { 0 }).collect()
            }).collect();
            let coder = Coder::new(Code::ReedSolomon { data: k, parity: m });
            let mut parity = vec![vec![0; full]; m];
            let inputs: Vec<&[u8]> = data.iter().map(|cell| &cell[..]).collect();
            coder.encode(&inputs, &mut parity.iter_mut().map(|cell| &mut cell[..]).collect::<Vec<_>>());
            let cells: Vec<&Vec<u8>> = data.iter().chain(&parity).collect();
            for (unit, range) in &plan.fetches {
                prop_assert!(standings[*unit] != Standing::Gone);
                prop_assert!(range.start < range.end && range.end <= row.cell_bytes(*unit));
            }
            let fetched = |unit: usize| plan.fetches.iter().find(|(of, _)| *of == unit).map(|f| f.1.clone());
            let covers = |unit: usize, wanted: &Range<u64>| fetched(unit)
                .is_some_and(|have| have.start <= wanted.start && wanted.end <= have.end);
            let lost = plan.decode.as_ref().map_or(&[][..], |decode| &decode.lost);
            for (unit, range) in wanted.iter().enumerate().filter(|(_, range)| !range.is_empty()) {
                prop_assert!(lost.contains(&unit) || covers(unit, range), "unit {}", unit);
            }
            if let Some(Decode { sources, lost, range }) = &plan.decode {
                let inputs: Vec<Vec<u8>> = sources.iter().map(|&unit| range.clone().map(|at| {
                    let there = covers(unit, &(at..at + 1));
                    assert!(there || at >= row.cell_bytes(unit), "{at} of unit {unit} is read");
                    if there { cells[unit][at as usize] } else { 0 }
                }).collect()).collect();
                let inputs: Vec<&[u8]> = inputs.iter().map(|cell| &cell[..]).collect();
                let mut outputs = vec![vec![0; (range.end - range.start) as usize]; lost.len()];
                let decoding = coder.plan(sources, lost).unwrap();
                prop_assert_eq!(decoding.sources(), &sources[..]);
                decoding.decode(&inputs, &mut outputs.iter_mut().map(|cell| &mut cell[..]).collect::<Vec<_>>());
                for (unit, bytes) in lost.iter().zip(&outputs) {
                    for at in wanted[*unit].clone() {
                        let got = bytes[(at - range.start) as usize];
                        prop_assert_eq!(got, cells[*unit][at as usize], "{} of unit {}", at, unit);
                    }
                }
            }
        }
    }
}
