//! The steps of the demo as they end, and all of them as one table at the end.

use std::time::Duration;

use crate::failure::Result;
use crate::output::{Align, Out, Table};
use crate::units;

/// One step: what was done, how much, how fast.
#[derive(Clone, Debug)]
pub struct Step {
    /// What was done.
    pub name: &'static str,
    /// How much.
    pub amount: String,
    /// How long it took.
    pub time: Duration,
    /// How fast, if that tells something.
    pub rate: String,
}

/// All steps so far.
#[derive(Default)]
pub struct Report {
    steps: Vec<Step>,
}

impl Report {
    /// Adds a step that has ended, and shows it.
    pub fn done(&mut self, step: Step, out: &mut Out) -> Result<()> {
        let rate = if step.rate.is_empty() { String::new() } else { format!(", {}", step.rate) };
        let time = units::duration(step.time);
        out.line(format_args!("  {:<18} {} in {time}{rate}", step.name, step.amount))?;
        out.flush()?;
        self.steps.push(step);
        Ok(())
    }

    /// The table of all steps.
    pub fn print(&self, out: &mut Out) -> Result<()> {
        use Align::{Left, Right};
        let mut table =
            Table::new(&[("step", Left), ("time", Right), ("rate", Right), ("amount", Left)]);
        for step in &self.steps {
            let time = units::duration(step.time);
            table.row(vec![step.name.into(), time, step.rate.clone(), step.amount.clone()]);
        }
        table.print(out)
    }
}
