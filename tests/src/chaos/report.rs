//! What happened in a run: faults, operations, bytes, and what must not have happened.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Violations that are kept in words.
const KEPT_MAX: usize = 50;

#[derive(Debug, Default)]
struct Counts {
    faults: BTreeMap<&'static str, u64>,
    acknowledged: BTreeMap<&'static str, u64>,
    failed: BTreeMap<&'static str, u64>,
    reads: u64,
    bytes_verified: u64,
    files_lost: u64,
    violations: Vec<String>,
    violations_more: u64,
}

/// The report of a run.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    counts: Mutex<Counts>,
}

impl Report {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, counts: Mutex::default() }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fault(&self, kind: &'static str) {
        *self.counts().faults.entry(kind).or_default() += 1;
    }

    pub(super) fn acknowledged(&self, kind: &'static str) {
        *self.counts().acknowledged.entry(kind).or_default() += 1;
    }

    pub(super) fn failed(&self, kind: &'static str) {
        *self.counts().failed.entry(kind).or_default() += 1;
    }

    pub(super) fn verified(&self, bytes: usize) {
        let mut counts = self.counts();
        counts.reads += 1;
        counts.bytes_verified += bytes as u64;
    }

    pub(super) fn lost(&self, path: &str, what: String) {
        self.counts().files_lost += 1;
        self.violation(format!("{path}: {what}"));
    }

    pub(super) fn violation(&self, what: String) {
        let mut counts = self.counts();
        if counts.violations.len() < KEPT_MAX {
            println!("VIOLATION {what}");
            counts.violations.push(what);
        } else {
            counts.violations_more += 1;
        }
    }

    /// What went wrong; empty is what everybody wants. A run in which nothing was exercised went wrong.
    pub fn verdict(&self) -> Result<(), String> {
        let counts = self.counts();
        if !counts.violations.is_empty() {
            return Err(counts.violations.join("\n"));
        }
        let sum = |by: &BTreeMap<&'static str, u64>| by.values().sum::<u64>();
        if sum(&counts.faults) == 0 || sum(&counts.acknowledged) == 0 || counts.reads == 0 {
            return Err("nothing was exercised".into());
        }
        Ok(())
    }

    /// Faults that fired.
    pub fn faults(&self) -> u64 {
        self.counts().faults.values().sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        let list = |by: &BTreeMap<&'static str, u64>| {
            by.iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ")
        };
        writeln!(out, "seed          {}", self.seed)?;
        writeln!(out, "faults        {}", list(&counts.faults))?;
        writeln!(out, "acknowledged  {}", list(&counts.acknowledged))?;
        writeln!(out, "failed        {}", list(&counts.failed))?;
        writeln!(out, "reads         {}, {} bytes verified", counts.reads, counts.bytes_verified)?;
        writeln!(out, "files lost    {}", counts.files_lost)?;
        write!(out, "violations    {}", counts.violations.len() as u64 + counts.violations_more)
    }
}
