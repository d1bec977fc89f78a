//! The choice against a writer that stops anywhere, with units that failed before and DataNodes that are gone.

use proptest::prelude::*;
use transfer::coder::{Code as ErasureCode, Coder, Kernel};

use super::*;
use ReplicaState::{BeingWritten, Finalized, WaitingRecovery};

const OLD: GenerationStamp = GenerationStamp(7);
const NOW: GenerationStamp = GenerationStamp(8);

/// A group as its writer left it.
#[derive(Clone, Debug)]
struct Left {
    layout: Layout,
    data: Vec<u8>,
    /// Whether the writer told the NameNode of its end.
    told: bool,
    /// What there is of each unit: stamp, state, bytes. `None`: the DataNode is gone.
    units: Vec<Option<(GenerationStamp, ReplicaState, u64)>>,
}

/// The bytes of all units of a group that has ended with `data`.
fn coded(layout: Layout, data: &[u8]) -> Vec<Vec<u8>> {
    let length = data.len() as u64;
    let mut units = vec![Vec::new(); layout.units()];
    for piece in layout.pieces(0..length) {
        units[piece.unit]
            .extend_from_slice(&data[piece.offset as usize..][..piece.length as usize]);
    }
    let full = layout.unit_length(length, 0) as usize;
    let filled: Vec<Vec<u8>> = units[..layout.data_units]
        .iter()
        .map(|unit| [&unit[..], &vec![0; full - unit.len()]].concat())
        .collect();
    let inputs: Vec<&[u8]> = filled.iter().map(|unit| &unit[..]).collect();
    let mut parity = vec![vec![0; full]; layout.parity_units];
    let mut outputs: Vec<&mut [u8]> = parity.iter_mut().map(|unit| &mut unit[..]).collect();
    coder(layout).encode(&inputs, &mut outputs);
    units.splice(layout.data_units.., parity);
    units
}

fn coder(layout: Layout) -> Coder {
    let code = ErasureCode::ReedSolomon { data: layout.data_units, parity: layout.parity_units };
    Coder::with_kernel(code, Kernel::Portable)
}

fn findings(left: &Left) -> Findings {
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for (unit, has) in left.units.iter().enumerate() {
        match *has {
            // An empty unit was never made.
            Some((_, Finalized, 0)) => absent.push(unit),
            Some((stamp, state, length)) => {
                found.push(UnitFound { node: unit, unit, stamp, state, length });
            }
            None => {}
        }
    }
    let told = if left.told { left.data.len() as u64 } else { 0 };
    Findings { layout: left.layout, stamp: NOW, told, found, absent }
}

/// Every k of the chosen units, with those that are empty, must give back the group as it was written.
fn check_bytes(left: &Left, length: u64, units: &[UnitFound]) {
    let layout = left.layout;
    assert!(length <= left.data.len() as u64, "{length} bytes of {left:?}");
    let all = coded(layout, &left.data);
    let expected = coded(layout, &left.data[..length as usize]);
    let cut = |unit: usize| layout.unit_length(length, unit) as usize;
    let empty = (0..layout.data_units).filter(|&unit| cut(unit) == 0);
    let have: Vec<usize> = units.iter().map(|found| found.unit).chain(empty).collect();
    assert!(have.len() >= layout.data_units, "{units:?} of {left:?}");
    for found in units {
        assert_ne!(found.stamp, OLD, "a stale unit: {units:?} of {left:?}");
        let (_, _, has) = left.units[found.unit].unwrap();
        assert!(has as usize >= cut(found.unit), "{found:?} of {left:?}");
    }
    let full = cut(0);
    let lost: Vec<usize> = (0..layout.units()).filter(|unit| !have.contains(unit)).collect();
    for skip in 0..have.len() {
        let mut order = have.clone();
        order.rotate_left(skip);
        let wanted: Vec<usize> = lost.iter().chain(&order[layout.data_units..]).copied().collect();
        let plan = coder(layout).plan(&order, &wanted).unwrap();
        let filled: Vec<Vec<u8>> = plan
            .sources()
            .iter()
            .map(|&unit| [&all[unit][..cut(unit)], &vec![0; full - cut(unit)]].concat())
            .collect();
        let inputs: Vec<&[u8]> = filled.iter().map(|unit| &unit[..]).collect();
        let mut outputs = vec![vec![0; full]; wanted.len()];
        let mut targets: Vec<&mut [u8]> = outputs.iter_mut().map(|out| &mut out[..]).collect();
        plan.decode(&inputs, &mut targets);
        for (output, &unit) in outputs.iter().zip(&wanted) {
            assert_eq!(&output[..cut(unit)], &expected[unit][..], "unit {unit} of {left:?}");
        }
    }
}

/// What a writer may leave. `kinds`: how each unit fares; `fractions`: how far those came that did not come to the end.
fn left(
    (k, m, cell): (usize, usize, u64),
    length: u64,
    ended: bool,
    told: bool,
    fates: &[(u8, u16)],
) -> Left {
    let layout = Layout { data_units: k, parity_units: m, cell_bytes: cell };
    let data: Vec<u8> = (0..length).map(|at| (at * 37 + at / 7 + 1) as u8).collect();
    let mut losses = m;
    let units = (0..k + m).map(|unit| {
        let (fate, fraction) = fates[unit];
        let whole = layout.unit_length(length, unit);
        // Until the group ends there is parity of whole rows only.
        let sent = match unit < k || ended {
            true => whole,
            false => length / layout.stripe_bytes() * cell,
        };
        let prefix = sent * u64::from(fraction) / u64::from(u16::MAX);
        let lossy = fate < 3 && losses > 0;
        if ended && lossy {
            losses -= 1;
            return match fate {
                0 => None,
                1 => Some((OLD, BeingWritten, prefix)),
                // It failed, and nobody minted a stamp for the others.
                _ => Some((NOW, WaitingRecovery, prefix)),
            };
        }
        if ended {
            return Some((NOW, Finalized, whole));
        }
        match fate {
            0 => None,
            1 => Some((OLD, BeingWritten, prefix)),
            2 | 3 => Some((NOW, WaitingRecovery, prefix)),
            _ => Some((NOW, BeingWritten, prefix)),
        }
    });
    let units = units.collect();
    Left { layout, data, told, units }
}

const SHAPES: [(usize, usize, u64); 4] = [(2, 1, 4), (3, 2, 4), (6, 3, 2), (3, 2, 1)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_group_that_ended_keeps_every_byte_that_was_told_and_one_that_did_not_stays_readable(
        shape in 0usize..4,
        length in 1u64..60,
        ended in any::<bool>(),
        told in any::<bool>(),
        fates in proptest::collection::vec((0u8..8, any::<u16>()), 9),
    ) {
        let left = left(SHAPES[shape], length, ended, told && ended, &fates);
        match choose_group(&findings(&left)).unwrap() {
            GroupChoice::Settle { length, units } => {
                check_bytes(&left, length, &units);
                let finished = |unit: &Option<_>| matches!(unit, Some((_, Finalized, _)));
                if left.told || left.units[..left.layout.data_units].iter().all(finished) {
                    prop_assert_eq!(length, left.data.len() as u64);
                }
            }
            GroupChoice::Empty => prop_assert!(!left.told),
        }
    }

    #[test]
    fn a_group_that_is_being_ended_is_readable_at_whatever_length(
        shape in 0usize..4,
        length in 1u64..60,
        fates in proptest::collection::vec((0u8..8, any::<u16>()), 9),
        finished in proptest::collection::vec(any::<bool>(), 9),
    ) {
        let mut left = left(SHAPES[shape], length, false, false, &fates);
        // All was sent, some of it arrived, some units are finished.
        for (unit, has) in left.units.iter_mut().enumerate() {
            let whole = left.layout.unit_length(length, unit);
            if let Some((NOW, state, bytes)) = has {
                *bytes = whole * u64::from(fates[unit].1) / u64::from(u16::MAX);
                if finished[unit] {
                    (*state, *bytes) = (Finalized, whole);
                }
            }
        }
        if let GroupChoice::Settle { length, units } = choose_group(&findings(&left)).unwrap() {
            check_bytes(&left, length, &units);
        }
    }

    #[test]
    fn a_finished_unit_tells_a_span_that_its_group_lies_in(
        shape in 0usize..4, length in 0u64..60, unit in 0usize..9,
    ) {
        let (k, m, cell_bytes) = SHAPES[shape];
        let layout = Layout { data_units: k, parity_units: m, cell_bytes };
        let unit = unit % layout.units();
        let span = span(&layout, unit, layout.unit_length(length, unit));
        prop_assert!(span.least <= length && length <= span.most, "{:?}", span);
        for edge in [span.least, span.most] {
            prop_assert_eq!(layout.unit_length(edge, unit), layout.unit_length(length, unit));
        }
    }
}

const RS: Layout = Layout { data_units: 3, parity_units: 2, cell_bytes: 4 };

fn of(units: &[(usize, ReplicaState, u64)]) -> Vec<UnitFound> {
    let found = |&(unit, state, length): &(usize, ReplicaState, u64)| UnitFound {
        node: unit,
        unit,
        stamp: NOW,
        state,
        length,
    };
    units.iter().map(found).collect()
}

fn chosen(told: u64, absent: &[usize], units: &[(usize, ReplicaState, u64)]) -> (u64, Vec<usize>) {
    let (found, absent) = (of(units), absent.to_vec());
    let findings = Findings { layout: RS, stamp: NOW, told, found, absent };
    match choose_group(&findings).unwrap() {
        GroupChoice::Empty => (0, Vec::new()),
        GroupChoice::Settle { length, units } => (length, units.iter().map(|u| u.unit).collect()),
    }
}

#[test]
fn the_four_ways_to_a_length() {
    // 6 bytes: a cell, half a cell, nothing; parity as long as the first.
    let (f, w) = (Finalized, BeingWritten);
    assert_eq!(chosen(6, &[], &[(0, f, 4), (3, f, 4), (4, f, 4)]), (6, vec![0, 3, 4]));
    assert_eq!(chosen(0, &[], &[(0, f, 4), (1, f, 2), (3, f, 4)]), (6, vec![0, 1, 3]));
    // The half cell is lost and nobody told: only what lies in the data units, and no parity that speaks of more.
    assert_eq!(chosen(0, &[2], &[(0, f, 4), (3, f, 4), (4, f, 4)]), (4, vec![0]));
    // A full row beside one that has begun.
    assert_eq!(chosen(0, &[], &[(0, w, 6), (1, w, 4), (3, w, 4)]), (12, vec![0, 1, 3]));
    // Less than a row.
    assert_eq!(chosen(0, &[], &[(0, w, 4), (1, w, 1), (3, w, 4), (4, w, 4)]), (5, vec![0, 1]));
    assert_eq!(chosen(0, &[0, 1, 2], &[]), (0, vec![]));
}

#[test]
fn what_was_told_is_never_given_up() {
    let found = of(&[(0, Finalized, 4), (3, Finalized, 4)]);
    let findings = Findings { layout: RS, stamp: NOW, told: 12, found, absent: vec![] };
    assert_eq!(choose_group(&findings).unwrap_err().code, Code::BlockMissing);
}

#[test]
fn a_group_whose_length_was_told_with_its_last_stamp_is_settled_with_units_that_were_not_finished()
{
    let w = WaitingRecovery;
    // One short cell: the only unit that is left is parity, which is the cell itself coded.
    assert_eq!(chosen(3, &[], &[(4, w, 3)]), (3, vec![4]));
    assert_eq!(chosen(6, &[], &[(3, w, 4), (4, w, 4)]), (6, vec![3, 4]));
    // It is not as long as it must be.
    let findings = |found| Findings { layout: RS, stamp: NOW, told: 3, found, absent: vec![] };
    let error = choose_group(&findings(of(&[(4, w, 2)]))).unwrap_err();
    assert_eq!(error.code, Code::BlockMissing);
}

#[test]
fn of_two_replicas_of_a_unit_the_newer_generation_counts() {
    let mut found =
        of(&[(0, Finalized, 3), (0, Finalized, 4), (1, Finalized, 4), (2, Finalized, 4)]);
    found[0].stamp = NOW.next();
    for (node, found) in found.iter_mut().enumerate() {
        found.node = node;
    }
    let findings = Findings { layout: RS, stamp: NOW, told: 0, found, absent: vec![] };
    // The newer one tells of a group of 3 bytes, which nothing contradicts that is as new.
    let GroupChoice::Settle { length, units } = choose_group(&findings).unwrap() else { panic!() };
    assert_eq!((length, units[0].node), (3, 0));
}
