//! Safe mode: the NameNode changes nothing until enough blocks have shown up.
//!
//! At the start it waits until the share of complete blocks with enough good replicas reaches the threshold, and from
//! then until every block has all its replicas, for `extension_ms` at most: an append that knew of one replica out of
//! three would make the other two stale. An operator enters and leaves it by hand; what was entered by hand ends by hand only.

use proto::{Code, Error, Result};

use super::replicas::Totals;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waiting for reports.
    Starting,
    /// The threshold was reached at this time.
    Extension { since_ms: u64 },
    /// Entered by an operator.
    Manual,
    /// Not in safe mode.
    Off,
}

/// Whether, and why, the NameNode is in safe mode.
#[derive(Debug)]
pub struct SafeMode {
    state: State,
    threshold: f64,
    extension_ms: u64,
}

impl SafeMode {
    /// In safe mode, as at every start. `threshold` is a share from 0 to 1.
    pub fn new(threshold: f64, extension_ms: u64) -> Self {
        assert!((0.0..=1.0).contains(&threshold), "the threshold is a share");
        Self { state: State::Starting, threshold, extension_ms }
    }

    /// Looks at the counts; true if safe mode ended by that.
    pub fn check(&mut self, now_ms: u64, totals: &Totals) -> bool {
        let since_ms = match self.state {
            State::Off | State::Manual => return false,
            State::Starting if totals.safe < self.needed(totals) => return false,
            State::Starting => now_ms,
            State::Extension { since_ms } => since_ms,
        };
        let whole = totals.safe == totals.complete && totals.under_replicated == 0;
        let over = whole || now_ms.saturating_sub(since_ms) >= self.extension_ms;
        self.state = if over { State::Off } else { State::Extension { since_ms } };
        over
    }

    /// Enters by hand.
    pub fn enter(&mut self) {
        self.state = State::Manual;
    }

    /// Leaves by hand.
    pub fn leave(&mut self) {
        self.state = State::Off;
    }

    /// Whether nothing may be changed.
    pub fn is_on(&self) -> bool {
        self.state != State::Off
    }

    /// Why nothing may be changed; empty when it may.
    pub fn reason(&self, totals: &Totals, living: usize) -> String {
        match self.state {
            State::Off => String::new(),
            State::Manual => "entered by an operator; it ends by hand".to_owned(),
            State::Extension { .. } => format!(
                "enough blocks are reported, {} lack replicas; it ends {} ms after that",
                totals.under_replicated, self.extension_ms
            ),
            State::Starting => format!(
                "{} of {} blocks have enough reported replicas, {} are needed; {living} DataNodes live",
                totals.safe,
                totals.complete,
                self.needed(totals)
            ),
        }
    }

    /// Errors with `SafeMode` and the reason if nothing may be changed.
    pub fn check_off(&self, totals: &Totals, living: usize) -> Result<()> {
        if !self.is_on() {
            return Ok(());
        }
        let reason = self.reason(totals, living);
        Err(Error::new(Code::SafeMode, format!("the NameNode is in safe mode: {reason}")))
    }

    fn needed(&self, totals: &Totals) -> u64 {
        (totals.complete as f64 * self.threshold).ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(complete: u64, safe: u64) -> Totals {
        Totals { blocks: complete, complete, safe, ..Default::default() }
    }

    #[test]
    fn a_namespace_without_blocks_leaves_at_once() {
        let mut mode = SafeMode::new(0.999, 5_000);
        assert!(mode.is_on());
        assert!(mode.check(5_000, &totals(0, 0)) && !mode.is_on());
    }

    #[test]
    fn it_ends_at_once_when_every_block_has_all_its_replicas() {
        let mut mode = SafeMode::new(0.9, 100);
        let lacking = Totals { under_replicated: 1, ..totals(10, 10) };
        assert!(!mode.check(0, &lacking), "one replica may be a moment away");
        assert!(mode.check(1, &totals(10, 10)));
    }

    #[test]
    fn it_ends_when_the_threshold_is_reached_and_the_extension_is_over() {
        let mut mode = SafeMode::new(0.9, 100);
        assert!(!mode.check(0, &totals(10, 8)));
        let error = mode.check_off(&totals(10, 8), 2).unwrap_err();
        assert_eq!(error.code, Code::SafeMode);
        assert!(error.message.contains("8 of 10") && error.message.contains("9 are needed"));
        assert!(!mode.check(10, &totals(10, 9)));
        assert!(!mode.check(109, &totals(10, 9)));
        assert!(mode.check(110, &totals(10, 9)));
        assert!(mode.check_off(&totals(10, 0), 0).is_ok(), "it does not come back by itself");
    }

    #[test]
    fn what_was_entered_by_hand_ends_by_hand_only() {
        let mut mode = SafeMode::new(0.999, 0);
        mode.enter();
        assert!(!mode.check(1_000_000, &totals(1, 1)) && mode.is_on());
        mode.leave();
        assert!(!mode.is_on());
    }
}
