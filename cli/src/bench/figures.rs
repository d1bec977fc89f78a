//! What is measured, beside what, and how it is told: medians, spreads and ratios. Pure.

use serde::Serialize;

use crate::output::{Align, Table};
use crate::units;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes per second.
    BytesPerSecond,
    /// Something per second.
    PerSecond,
    /// Seconds: less is better.
    Seconds,
}

impl Unit {
    /// A value with its unit.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::BytesPerSecond => format!("{}/s", units::bytes(value as u64)),
            Self::PerSecond if value < 100.0 => format!("{value:.1}/s"),
            Self::PerSecond => format!("{}/s", units::number(value as u64)),
            Self::Seconds => format!("{value:.2} s"),
        }
    }
}

/// One kind of work of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name in JSON.
    pub id: &'static str,
    /// What it is.
    pub what: &'static str,
    /// What is counted.
    pub unit: Unit,
    /// The machine's figure that it stands beside.
    pub beside: &'static str,
}

/// One figure of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Its name in JSON.
    pub id: &'static str,
    /// What it is.
    pub what: &'static str,
    /// What is counted.
    pub unit: Unit,
}

use Unit::{BytesPerSecond as Bytes, PerSecond as Each};

/// All figures of the machine, in the order in which they are shown.
pub const MACHINE: &[Machine] = &[
    Machine { id: "disk_write", what: "disk: write, then fdatasync", unit: Bytes },
    Machine { id: "cached_read", what: "disk: read what is cached", unit: Bytes },
    Machine { id: "memory_copy", what: "memory: copy", unit: Bytes },
    Machine { id: "memory_load", what: "memory: dependent random loads", unit: Each },
    Machine { id: "loopback", what: "loopback TCP: stream", unit: Bytes },
    Machine { id: "round_trips_1", what: "loopback TCP: round trips, 1 caller", unit: Each },
    Machine { id: "round_trips_32", what: "loopback TCP: round trips, 32 callers", unit: Each },
    Machine { id: "appends", what: "disk: append 128 B, then fdatasync", unit: Each },
    Machine { id: "small_files", what: "disk: small file, fsync it and its folder", unit: Each },
];

/// All work of the cluster, in the order in which it is shown.
pub const METRICS: &[Metric] = &[
    Metric { id: "write", what: "sequential write", unit: Bytes, beside: "disk_write" },
    Metric { id: "read", what: "sequential read", unit: Bytes, beside: "cached_read" },
    Metric { id: "read_tcp", what: "sequential read over TCP", unit: Bytes, beside: "loopback" },
    Metric { id: "files_1", what: "small files, 1 caller", unit: Each, beside: "small_files" },
    Metric { id: "files_32", what: "small files, 32 callers", unit: Each, beside: "small_files" },
    Metric { id: "info_1", what: "getFileInfo, 1 caller", unit: Each, beside: "round_trips_1" },
    Metric { id: "info_32", what: "getFileInfo, 32 callers", unit: Each, beside: "round_trips_32" },
    Metric { id: "mkdirs_1", what: "mkdirs, 1 caller", unit: Each, beside: "appends" },
    Metric { id: "mkdirs_32", what: "mkdirs, 32 callers", unit: Each, beside: "appends" },
    Metric { id: "create_1", what: "create + complete, 1 caller", unit: Each, beside: "appends" },
    Metric {
        id: "create_32",
        what: "create + complete, 32 callers",
        unit: Each,
        beside: "appends",
    },
    Metric { id: "index", what: "inverted index of text", unit: Bytes, beside: "disk_write" },
    Metric { id: "sort", what: "sort records", unit: Bytes, beside: "memory_copy" },
    Metric {
        id: "table",
        what: "build a table of sorted records",
        unit: Bytes,
        beside: "disk_write",
    },
    Metric { id: "gets", what: "gets in process", unit: Each, beside: "memory_load" },
    Metric {
        id: "multi_gets",
        what: "gets in process, 32 at a time",
        unit: Each,
        beside: "memory_load",
    },
    Metric {
        id: "redis_1",
        what: "GET over the Redis protocol",
        unit: Each,
        beside: "round_trips_1",
    },
    Metric { id: "redis_16", what: "GET, pipelines of 16", unit: Each, beside: "round_trips_1" },
    Metric { id: "redis_64", what: "GET, pipelines of 64", unit: Each, beside: "round_trips_1" },
];

/// Values by name, one for each round.
#[derive(Clone, Debug, Default)]
pub struct Values {
    by_id: Vec<(&'static str, Vec<f64>)>,
}

impl Values {
    /// Adds a round's value.
    pub fn add(&mut self, id: &'static str, value: f64) {
        match self.by_id.iter_mut().find(|(known, _)| *known == id) {
            Some((_, values)) => values.push(value),
            None => self.by_id.push((id, vec![value])),
        }
    }

    /// All values of a figure.
    pub fn of(&self, id: &str) -> &[f64] {
        self.by_id.iter().find(|(known, _)| *known == id).map_or(&[], |(_, values)| values)
    }

    /// The median of a figure, if it was measured.
    pub fn median(&self, id: &str) -> Option<f64> {
        median(self.of(id))
    }
}

/// The middle value; the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len(), sorted.len() % 2) {
        (0, _) => None,
        (_, 1) => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// All that was measured.
#[derive(Debug, Default)]
pub struct Figures {
    /// Of this machine.
    pub machine: Values,
    /// Of Granary.
    pub granary: Values,
    /// Of the reference, if one was named.
    pub reference: Option<Values>,
}

/// A figure as JSON.
#[derive(Debug, Serialize)]
pub struct Told {
    what: &'static str,
    unit: Unit,
    median: f64,
    rounds: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

/// All figures as JSON, by name.
pub type ToldByName = std::collections::BTreeMap<&'static str, Told>;

impl Figures {
    /// A row for each kind of work.
    pub fn table(&self) -> Table {
        let mut columns = vec![
            ("", Align::Left),
            ("Granary", Align::Right),
            ("spread", Align::Right),
            ("this machine", Align::Right),
            ("ratio", Align::Right),
            ("", Align::Left),
        ];
        if self.reference.is_some() {
            columns.splice(3..3, [("reference", Align::Right), ("ratio", Align::Right)]);
        }
        let mut table = Table::new(&columns);
        for metric in METRICS {
            let Some(own) = self.granary.median(metric.id) else { continue };
            let mut row = vec![
                metric.what.to_owned(),
                metric.unit.show(own),
                spread(self.granary.of(metric.id)),
            ];
            if let Some(reference) = &self.reference {
                let its = reference.median(metric.id);
                row.push(its.map_or("-".into(), |value| metric.unit.show(value)));
                row.push(its.map_or("-".into(), |value| ratio(own, value)));
            }
            let machine = MACHINE.iter().find(|machine| machine.id == metric.beside);
            let beside = machine
                .and_then(|machine| self.machine.median(machine.id).map(|value| (machine, value)));
            match beside {
                Some((machine, value)) => row.extend([
                    machine.unit.show(value),
                    ratio(own, value),
                    machine.what.to_owned(),
                ]),
                None => row.extend(["-".into(), "-".into(), String::new()]),
            }
            table.row(row);
        }
        table
    }

    /// Everything of this machine.
    pub fn machine_told(&self) -> ToldByName {
        let told = MACHINE.iter().filter_map(|machine| {
            Some((machine.id, tell(machine.what, machine.unit, &self.machine, machine.id)?))
        });
        told.collect()
    }

    /// Everything of Granary, beside this machine's figures.
    pub fn granary_told(&self) -> ToldByName {
        self.told(&self.granary)
    }

    /// Everything of the reference, if there is one.
    pub fn reference_told(&self) -> Option<ToldByName> {
        self.reference.as_ref().map(|values| self.told(values))
    }

    fn told(&self, values: &Values) -> ToldByName {
        let told = METRICS.iter().filter_map(|metric| {
            let mut told = tell(metric.what, metric.unit, values, metric.id)?;
            told.beside = Some(metric.beside);
            told.ratio = self.machine.median(metric.beside).map(|beside| told.median / beside);
            Some((metric.id, told))
        });
        told.collect()
    }
}

fn tell(what: &'static str, unit: Unit, values: &Values, id: &str) -> Option<Told> {
    let median = values.median(id)?;
    Some(Told { what, unit, median, rounds: values.of(id).to_vec(), beside: None, ratio: None })
}

/// One figure over another, with two digits that tell something.
pub fn ratio(own: f64, other: f64) -> String {
    let ratio = own / other;
    if !ratio.is_finite() {
        return "-".into();
    }
    match ratio {
        10.0.. => format!("{ratio:.0}x"),
        1.0.. => format!("{ratio:.1}x"),
        0.1.. => format!("{ratio:.2}x"),
        _ => format!("{ratio:.3}x"),
    }
}

/// How far the rounds lie apart, as half their range over their median.
pub fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    match median(values) {
        Some(middle) if values.len() > 1 && middle > 0.0 => {
            format!("+-{:.0} %", (most - least) / 2.0 / middle * 100.0)
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn every_metric_stands_beside_a_figure_of_the_machine_and_has_a_name_of_its_own() {
        for (index, metric) in METRICS.iter().enumerate() {
            assert!(MACHINE.iter().any(|machine| machine.id == metric.beside), "{}", metric.id);
            assert!(METRICS[..index].iter().all(|other| other.id != metric.id), "{}", metric.id);
        }
    }

    #[test]
    fn figures_stand_beside_the_machines_and_the_references() {
        let mut figures = Figures::default();
        for value in [90.0, 100.0, 110.0] {
            figures.granary.add("mkdirs_1", value);
        }
        figures.machine.add("appends", 50.0);
        let lines = figures.table().lines();
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(words[..9].join(" "), "mkdirs, 1 caller 100/s +-10 % 50.0/s 2.0x disk:");
        figures.reference = Some(Values { by_id: vec![("mkdirs_1", vec![400.0])] });
        assert!(
            figures.table().lines()[1].contains("400/s  0.25x"),
            "{:?}",
            figures.table().lines()
        );
        assert_eq!(figures.granary_told()["mkdirs_1"].ratio, Some(2.0));
        assert_eq!(figures.reference_told().unwrap()["mkdirs_1"].ratio, Some(8.0));
    }

    #[test]
    fn ratios_show_two_digits_that_tell_something() {
        let shown = [25.0, 2.54, 0.254, 0.0254].map(|value| ratio(value, 1.0));
        assert_eq!(shown, ["25x", "2.5x", "0.25x", "0.025x"]);
        assert_eq!(ratio(1.0, 0.0), "-");
    }
}
