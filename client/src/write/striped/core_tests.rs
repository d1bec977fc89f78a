//! The core against a world of nodes in memory that keep every byte, and die at any step.
//!
//! What a file's readers would find is checked after each group: every unit that counts is whole, and the data comes
//! back from any k of them.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use proptest::prelude::*;
use transfer::coder::{Code, Coder, Plan};

use super::*;

/// A unit as its node has it.
#[derive(Clone, Debug, Default)]
struct Stored {
    bytes: Vec<u8>,
    stamp: u64,
    finished: bool,
}

/// When which nodes die.
#[derive(Clone, Debug, Default)]
struct Kills {
    /// By step: the nodes that die before it is carried out.
    at: HashMap<usize, Vec<usize>>,
    /// Who dies at a step that is its own does it first: only the answer is lost.
    late: bool,
}

impl Kills {
    fn together(nodes: &[usize], step: usize) -> Self {
        Self { at: HashMap::from([(step, nodes.to_vec())]), late: false }
    }
}

/// Nodes, the NameNode's part, and a writer's shell.
struct World {
    layout: Layout,
    coder: Coder,
    kills: Kills,
    alive: Vec<bool>,
    /// Nodes that the writer does not want any more.
    excluded: BTreeSet<usize>,
    next_stamp: u64,
    steps: usize,
    /// What each step did.
    trace: Vec<&'static str>,
    /// Picks which answer comes next.
    seed: u64,
    plans: Plans,
}

/// How to decode, by the units that are left: for all worlds of one layout.
type Plans = Rc<RefCell<HashMap<u32, Plan>>>;

/// A group that is being written: where its units are, and what they have.
struct Attempt {
    node_of: Vec<Option<usize>>,
    stored: Vec<Stored>,
    told_stamp: u64,
    told_lost: BTreeSet<usize>,
}

#[derive(Debug, PartialEq, Eq)]
struct TooManyLost;

impl World {
    fn new(layout: Layout, spare: usize, kills: Kills, seed: u64) -> Self {
        let code = Code::ReedSolomon { data: layout.data_units, parity: layout.parity_units };
        Self {
            layout,
            coder: Coder::new(code),
            kills,
            alive: vec![true; layout.units() + spare],
            excluded: BTreeSet::new(),
            next_stamp: 1000,
            steps: 0,
            trace: Vec::new(),
            seed: seed | 1,
            plans: Plans::default(),
        }
    }

    /// Another run of the same writer, on new nodes.
    fn again(&self, kills: Kills, seed: u64) -> Self {
        Self {
            layout: self.layout,
            coder: self.coder.clone(),
            kills,
            alive: vec![true; self.alive.len()],
            excluded: BTreeSet::new(),
            next_stamp: 1000,
            steps: 0,
            trace: Vec::new(),
            seed: seed | 1,
            plans: Rc::clone(&self.plans),
        }
    }

    fn random(&mut self) -> usize {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 8) as usize
    }

    /// The cells of a row, parity included, as they are sent.
    fn cells(&self, data: &[u8]) -> Vec<Vec<u8>> {
        let (k, cell) = (self.layout.data_units, self.layout.cell_bytes as usize);
        let first = data.len().min(cell);
        let mut cells: Vec<Vec<u8>> = (0..k)
            .map(|unit| data.iter().skip(unit * cell).take(cell).copied().collect())
            .collect();
        let mut padded = cells.clone();
        padded.iter_mut().for_each(|cell| cell.resize(first, 0));
        let inputs: Vec<&[u8]> = padded.iter().map(|cell| &cell[..]).collect();
        let mut parity = vec![vec![0; first]; self.layout.parity_units];
        let mut outputs: Vec<&mut [u8]> = parity.iter_mut().map(|cell| &mut cell[..]).collect();
        self.coder.encode(&inputs, &mut outputs);
        cells.extend(parity);
        cells
    }

    /// Writes a file of groups of at most `rows_max` rows.
    fn write(&mut self, content: &[u8], rows_max: usize) -> Result<(), TooManyLost> {
        let group_bytes = rows_max * self.layout.stripe_bytes() as usize;
        content.chunks(group_bytes).try_for_each(|data| self.write_group(data))
    }

    fn write_group(&mut self, data: &[u8]) -> Result<(), TooManyLost> {
        let mut group = Group::new(self.layout, 3);
        let mut rows = data.chunks(self.layout.stripe_bytes() as usize);
        let mut sent = 0;
        let mut cells = Vec::new();
        let mut attempt = None;
        let mut answers: Vec<Event> = Vec::new();
        let mut ended = false;
        loop {
            while let Some(effect) = group.next_effect() {
                match self.carry_out(effect, &cells, &mut attempt, &mut answers) {
                    Some(Ok((bytes, stamp))) => {
                        assert_eq!(bytes, data.len() as u64);
                        self.check(&attempt.expect("it was placed"), data, stamp);
                        return Ok(());
                    }
                    Some(Err(lost)) => return Err(lost),
                    None => {}
                }
            }
            if group.takes_rows()
                && !ended
                && (answers.is_empty() || self.random().is_multiple_of(2))
            {
                if let Some(row) = rows.next() {
                    sent += row.len();
                    cells = self.cells(row);
                    group.handle(Event::Row { bytes: row.len() as u64 });
                } else {
                    assert_eq!(sent, data.len());
                    ended = true;
                    group.handle(Event::End);
                }
            } else {
                assert!(!answers.is_empty(), "the group waits for nothing: {group:?}");
                let next = self.random() % answers.len();
                let event = answers.swap_remove(next);
                group.handle(event);
            }
        }
    }

    /// Does one thing. Gives the outcome when the group is over.
    fn carry_out(
        &mut self,
        effect: Effect,
        cells: &[Vec<u8>],
        attempt: &mut Option<Attempt>,
        answers: &mut Vec<Event>,
    ) -> Option<Result<(u64, u64), TooManyLost>> {
        let dying = self.kills.at.get(&self.steps).cloned().unwrap_or_default();
        dying.iter().for_each(|&node| self.alive[node] = false);
        self.steps += 1;
        self.trace.push(name(&effect));
        match effect {
            Effect::Place => answers.push(self.place(attempt)),
            Effect::Abandon => {
                answers.clear();
                *attempt = None;
            }
            Effect::Mint => {
                self.next_stamp += 1;
                answers.push(Event::Minted { stamp: self.next_stamp });
            }
            Effect::Tell { stamp, units, .. } => {
                let attempt = attempt.as_mut().expect("it was placed");
                attempt.told_stamp = stamp;
                let gone = |unit: &usize| !units[*unit];
                attempt.told_lost = (0..units.len()).filter(gone).collect();
                answers.push(Event::Told);
            }
            Effect::Finished { bytes, stamp } => return Some(Ok((bytes, stamp))),
            Effect::Failed { lost } => {
                assert!(lost.len() > self.layout.parity_units, "{lost:?} is not too many");
                return Some(Err(TooManyLost));
            }
            Effect::Open { unit, .. }
            | Effect::Send { unit, .. }
            | Effect::Drain { unit }
            | Effect::Restamp { unit, .. }
            | Effect::Finish { unit, .. } => {
                let attempt = attempt.as_mut().expect("it was placed");
                let node = attempt.node_of[unit].expect("it has a node");
                let does_it = self.alive[node] || (self.kills.late && dying.contains(&node));
                let stored = &mut attempt.stored[unit];
                let answer = does_it.then(|| do_to_unit(stored, &effect, cells)).flatten();
                if self.alive[node] {
                    answers.extend(answer);
                } else {
                    self.excluded.insert(node);
                    answers.push(Event::Lost { unit });
                }
            }
        }
        None
    }

    /// The NameNode knows of no death; it leaves out whom the writer does not want, if enough others are there.
    fn place(&mut self, attempt: &mut Option<Attempt>) -> Event {
        let units = self.layout.units();
        let wanted = |node: &usize| !self.excluded.contains(node);
        let mut nodes: Vec<usize> = (0..self.alive.len()).filter(wanted).collect();
        nodes.truncate(units);
        let node_of: Vec<Option<usize>> = (0..units).map(|unit| nodes.get(unit).copied()).collect();
        let present = node_of.iter().map(Option::is_some).collect();
        self.next_stamp += 1;
        let stamp = self.next_stamp;
        let stored = vec![Stored { stamp, ..Stored::default() }; units];
        *attempt = Some(Attempt { node_of, stored, told_stamp: stamp, told_lost: BTreeSet::new() });
        Event::Placed { stamp, present }
    }

    /// What the NameNode and readers would find of a finished group.
    fn check(&mut self, attempt: &Attempt, data: &[u8], stamp: u64) {
        let layout = self.layout;
        assert_eq!(attempt.told_stamp, stamp, "the NameNode knows the stamp");
        let length = |unit| layout.unit_length(data.len() as u64, unit) as usize;
        let mut good = Vec::new();
        for unit in 0..layout.units() {
            let stored = &attempt.stored[unit];
            let counts =
                attempt.node_of[unit].is_some() && stored.finished && stored.stamp == stamp;
            if length(unit) == 0 {
                assert!(stored.bytes.is_empty() && !stored.finished, "empty units are not made");
                good.push(unit);
            } else if counts {
                assert_eq!(stored.bytes.len(), length(unit), "unit {unit} is whole");
                good.push(unit);
            } else if attempt.node_of[unit].is_some() && stored.stamp == stamp {
                let whole = stored.bytes.len() == length(unit);
                assert!(whole, "unit {unit} has the group's stamp, but not its bytes");
            }
            if attempt.told_lost.contains(&unit) && attempt.node_of[unit].is_some() {
                assert!(length(unit) == 0 || stored.stamp < stamp, "unit {unit} is fenced");
            }
        }
        assert!(good.len() >= layout.data_units, "{good:?} is enough to decode");
        self.check_decodes(attempt, data, &good);
    }

    fn check_decodes(&mut self, attempt: &Attempt, data: &[u8], good: &[usize]) {
        let layout = self.layout;
        let mask = good.iter().fold(0, |mask, unit| mask | 1 << unit);
        let all: Vec<usize> = (0..layout.data_units).collect();
        let mut plans = self.plans.borrow_mut();
        let plan = plans.entry(mask).or_insert_with(|| {
            let last_first: Vec<usize> = good.iter().rev().copied().collect();
            self.coder.plan(&last_first, &all).expect("enough units are good")
        });
        let unit_bytes = layout.unit_length(data.len() as u64, 0) as usize;
        let sources: Vec<Vec<u8>> = plan
            .sources()
            .iter()
            .map(|&unit| {
                let mut bytes = attempt.stored[unit].bytes.clone();
                bytes.resize(unit_bytes, 0);
                bytes
            })
            .collect();
        let sources: Vec<&[u8]> = sources.iter().map(|unit| &unit[..]).collect();
        let mut decoded = vec![vec![0; unit_bytes]; layout.data_units];
        let mut outputs: Vec<&mut [u8]> = decoded.iter_mut().map(|unit| &mut unit[..]).collect();
        plan.decode(&sources, &mut outputs);
        for (at, byte) in data.iter().enumerate() {
            let (unit, place) = layout.place(at as u64);
            assert_eq!(decoded[unit][place as usize], *byte, "byte {at} of the group");
        }
    }
}

fn name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Place => "Place",
        Effect::Abandon => "Abandon",
        Effect::Open { .. } => "Open",
        Effect::Send { .. } => "Send",
        Effect::Drain { .. } => "Drain",
        Effect::Mint => "Mint",
        Effect::Restamp { .. } => "Restamp",
        Effect::Tell { .. } => "Tell",
        Effect::Finish { .. } => "Finish",
        Effect::Finished { .. } | Effect::Failed { .. } => "over",
    }
}

fn do_to_unit(stored: &mut Stored, effect: &Effect, cells: &[Vec<u8>]) -> Option<Event> {
    match *effect {
        Effect::Open { unit, stamp } => {
            assert!(stored.bytes.is_empty() && stored.stamp == stamp);
            Some(Event::Opened { unit })
        }
        Effect::Send { unit, bytes, .. } => {
            assert!(!stored.finished);
            assert_eq!(cells[unit].len() as u64, bytes, "the cell of unit {unit}");
            stored.bytes.extend_from_slice(&cells[unit]);
            None
        }
        Effect::Drain { unit } => Some(Event::Drained { unit }),
        Effect::Restamp { unit, stamp, bytes } => {
            assert!(stored.stamp < stamp && stored.bytes.len() as u64 == bytes);
            stored.stamp = stamp;
            Some(Event::Restamped { unit })
        }
        Effect::Finish { unit, bytes } => {
            assert_eq!(stored.bytes.len() as u64, bytes);
            stored.finished = true;
            Some(Event::Ended { unit })
        }
        _ => unreachable!("not of a unit"),
    }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 37 % 251) as u8 + 1).collect()
}

/// Every set of 1 to `most` out of `nodes`.
fn kill_sets(nodes: usize, most: usize) -> Vec<Vec<usize>> {
    let sets = (1u32..1 << nodes).filter(|mask| mask.count_ones() as usize <= most);
    sets.map(|mask| (0..nodes).filter(|node| mask >> node & 1 == 1).collect()).collect()
}

/// Lengths around every cell of files of up to two groups and a bit.
fn lengths(layout: Layout, rows_max: usize) -> BTreeSet<usize> {
    let cell = layout.cell_bytes as usize;
    let group = rows_max * layout.stripe_bytes() as usize;
    let around = |at: usize| [at.saturating_sub(1), at, at + 1];
    let cells = (0..3).flat_map(|groups| {
        (0..rows_max * layout.data_units).map(move |cells| groups * group + cells * cell)
    });
    cells.flat_map(around).collect()
}

const ROWS_MAX: usize = 2;

/// Kills every set of up to m nodes before the chosen steps of writing files of every length.
fn kill_everywhere(layout: Layout, every_step: bool) -> usize {
    let mut cases = 0;
    let sets = kill_sets(layout.units(), layout.parity_units);
    for length in lengths(layout, ROWS_MAX) {
        let content = content(length);
        let mut clean = World::new(layout, 0, Kills::default(), 1);
        clean.write(&content, ROWS_MAX).unwrap();
        assert!(!clean.trace.contains(&"Mint"), "without a loss the stamp stays");
        let trace = &clean.trace;
        let begins = |step: usize| step == 0 || trace[step] != trace[step - 1];
        let steps: Vec<usize> = (0..trace.len())
            .filter(|&step| every_step || begins(step) || (step >= 3 && begins(step - 3)))
            .collect();
        for set in &sets {
            for &step in &steps {
                let late = (step + length) % 2 == 1;
                let kills = Kills { late, ..Kills::together(set, step) };
                let mut world = clean.again(kills, (step + length) as u64);
                let written = world.write(&content, ROWS_MAX);
                assert_eq!(written, Ok(()), "{length} bytes, {set:?} die at step {step}");
                cases += 1;
            }
        }
    }
    cases
}

#[test]
fn any_two_nodes_of_rs_3_2_may_die_before_any_step_of_a_write_of_any_length() {
    let layout = Layout { data_units: 3, parity_units: 2, cell_bytes: 4 };
    assert!(kill_everywhere(layout, true) > 30_000);
}

#[test]
fn any_three_nodes_of_rs_6_3_may_die_in_any_phase_of_a_write_of_any_length() {
    let layout = Layout { data_units: 6, parity_units: 3, cell_bytes: 2 };
    assert!(kill_everywhere(layout, false) > 100_000);
}

/// The second failure falls into what the first one led to as well: minting, taking the stamp, telling.
#[test]
fn any_two_nodes_of_rs_3_2_may_die_before_or_after_any_two_steps() {
    let layout = Layout { data_units: 3, parity_units: 2, cell_bytes: 4 };
    let content = content(17);
    let clean = World::new(layout, 0, Kills::default(), 1);
    let mut restamps = 0;
    for (first, second) in (0..5).flat_map(|a| (0..5).map(move |b| (a, b))).filter(|(a, b)| a != b)
    {
        for late in [false, true] {
            for first_step in 0.. {
                let kills = Kills { late, ..Kills::together(&[first], first_step) };
                let mut one = clean.again(kills.clone(), 5);
                assert_eq!(one.write(&content, ROWS_MAX), Ok(()));
                if first_step >= one.steps {
                    break;
                }
                for second_step in first_step..one.steps {
                    let mut kills = kills.clone();
                    kills.at.entry(second_step).or_default().push(second);
                    let mut both = clean.again(kills, 5);
                    let written = both.write(&content, ROWS_MAX);
                    let steps = (first_step, second_step);
                    assert_eq!(written, Ok(()), "{first} and {second} die at {steps:?}");
                    restamps += usize::from(one.trace[second_step] == "Restamp");
                }
            }
        }
    }
    assert!(restamps > 1_000, "{restamps} second failures while a stamp was taken");
}

#[test]
fn one_more_than_the_parity_is_an_error_unless_other_nodes_are_there_in_time() {
    let layout = Layout { data_units: 3, parity_units: 2, cell_bytes: 4 };
    let content = content(24);
    let steps = {
        let mut clean = World::new(layout, 0, Kills::default(), 1);
        clean.write(&content, 4).unwrap();
        clean.trace
    };
    for set in kill_sets(5, 3).into_iter().filter(|set| set.len() == 3) {
        for (step, what) in steps.iter().enumerate() {
            let mut world = World::new(layout, 0, Kills::together(&set, step), 7);
            let written = world.write(&content, 4);
            // Who has finished its unit before it dies has it.
            assert!(
                written.is_err() || ["Finish", "over"].contains(what),
                "{set:?} at {step} ({what})"
            );
            let mut world = World::new(layout, 5, Kills::together(&set, step), 7);
            let written = world.write(&content, 4);
            let early = *what == "Place" || (step > 0 && steps[step - 1] == "Place");
            assert!(!early || written.is_ok(), "{set:?} at {step} ({what}) with spare nodes");
        }
    }
}

#[test]
fn a_node_that_cannot_be_had_costs_one_more_place_and_no_unit_if_there_is_another() {
    let layout = Layout { data_units: 3, parity_units: 2, cell_bytes: 4 };
    let count = |world: &World, what| world.trace.iter().filter(|step| **step == what).count();
    let mut world = World::new(layout, 1, Kills::together(&[1], 0), 3);
    world.write(&content(12), 4).unwrap();
    assert_eq!((count(&world, "Place"), count(&world, "Mint")), (2, 0));
    // Without another node the group goes on with one unit less, and nobody is fenced: nobody was begun.
    let mut world = World::new(layout, 0, Kills::together(&[1], 0), 3);
    world.write(&content(12), 4).unwrap();
    assert_eq!((count(&world, "Place"), count(&world, "Mint")), (2, 0));
}

proptest! {
    #[test]
    fn nodes_that_die_one_after_the_other_leave_every_group_whole(
        k in 1usize..7, m in 1usize..4, cell in 1u64..6, rows_max in 1usize..4,
        length in 0usize..200, spare in 0usize..3, seed in any::<u64>(),
        deaths in prop::collection::vec((0usize..10, 0usize..200), 0..4), late in any::<bool>(),
    ) {
        let layout = Layout { data_units: k, parity_units: m, cell_bytes: cell };
        let mut kills = Kills { late, ..Kills::default() };
        for (node, step) in deaths.iter().take(m) {
            kills.at.entry(*step).or_default().push(node % layout.units());
        }
        let mut world = World::new(layout, spare, kills, seed);
        prop_assert_eq!(world.write(&content(length), rows_max), Ok(()));
    }
}
