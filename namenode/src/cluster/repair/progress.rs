//! How far repair is: what is left, how fast it goes, and how long that takes if it goes on like this.

use std::collections::VecDeque;

use super::queue::Danger;

/// The rate is that of so long a time.
const WINDOW_MS: u64 = 60_000;
/// Rates are kept in steps of this time.
const STEP_MS: u64 = 5_000;

/// What an operator sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Blocks (groups) that wait, by danger, the worst first: see [`Danger`].
    pub waiting_by_danger: [u64; Danger::COUNT],
    /// Of those, blocks for which no DataNode could be found at the last try, or whose grace time runs.
    pub waiting_later: u64,
    /// Bytes that wait to be written.
    pub waiting_bytes: u64,
    /// Copies under way.
    pub copies: u64,
    /// Their bytes.
    pub copies_bytes: u64,
    /// Blocks that were copied since the process began.
    pub done_blocks: u64,
    /// Their bytes.
    pub done_bytes: u64,
    /// Copies that did not show in time, or whose node died.
    pub failed: u64,
    /// Bytes per second over the last minute.
    pub bytes_per_s: u64,
    /// What is left at that rate, in milliseconds; `None`: nothing is left, or nothing moves.
    pub left_ms: Option<u64>,
    /// Whether the replicas of some dead or leaving node are still being searched for: then more may come.
    pub searching: bool,
    /// Blocks in too few racks, as of the last round over all blocks.
    pub misplaced: u64,
    /// Blocks that found no room in the queue since the process began; they are found again.
    pub left_out: u64,
}

impl Progress {
    /// Blocks that wait.
    pub fn waiting(&self) -> u64 {
        self.waiting_by_danger.iter().sum()
    }

    /// Bytes that have yet to be written: of what waits and of what is under way.
    pub fn bytes_left(&self) -> u64 {
        self.waiting_bytes.saturating_add(self.copies_bytes)
    }
}

/// Bytes done lately.
#[derive(Debug, Default)]
pub struct Rate {
    steps: VecDeque<(u64, u64)>,
}

impl Rate {
    /// So many bytes are done.
    pub fn add(&mut self, now_ms: u64, bytes: u64) {
        self.forget(now_ms);
        let step = now_ms / STEP_MS;
        match self.steps.back_mut() {
            Some((at, sum)) if *at == step => *sum = sum.saturating_add(bytes),
            _ => self.steps.push_back((step, bytes)),
        }
    }

    /// Bytes per second over the last minute, or since the first of it.
    pub fn bytes_per_s(&mut self, now_ms: u64) -> u64 {
        self.forget(now_ms);
        let Some(&(first, _)) = self.steps.front() else { return 0 };
        let span_ms = now_ms.saturating_sub(first * STEP_MS).max(1_000);
        let bytes = self.steps.iter().fold(0, |sum: u64, &(_, bytes)| sum.saturating_add(bytes));
        u64::try_from(u128::from(bytes) * 1_000 / u128::from(span_ms)).unwrap_or(u64::MAX)
    }

    fn forget(&mut self, now_ms: u64) {
        let from = now_ms.saturating_sub(WINDOW_MS) / STEP_MS;
        while self.steps.front().is_some_and(|&(step, _)| step < from) {
            self.steps.pop_front();
        }
    }
}

/// How long `bytes` take at a rate.
pub fn left_ms(bytes: u64, bytes_per_s: u64) -> Option<u64> {
    if bytes == 0 || bytes_per_s == 0 {
        return None;
    }
    u64::try_from(u128::from(bytes) * 1_000 / u128::from(bytes_per_s)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let mut rate = Rate::default();
        assert_eq!(rate.bytes_per_s(0), 0);
        rate.add(10_000, 50_000);
        rate.add(20_000, 50_000);
        assert_eq!(rate.bytes_per_s(20_000), 10_000);
        assert_eq!(rate.bytes_per_s(60_000), 2_000);
        assert_eq!(rate.bytes_per_s(200_000), 0);
        assert!(rate.steps.is_empty());
    }

    #[test]
    fn the_time_left_is_told_only_if_something_moves() {
        assert_eq!(left_ms(5_000, 1_000), Some(5_000));
        assert_eq!((left_ms(0, 1_000), left_ms(5, 0)), (None, None));
        assert_eq!(left_ms(u64::MAX, 1), None, "longer than can be told");
    }
}
