//! How fast to scrub. Pure.
//!
//! The rate that is needed is what is left over the time that is left, less a margin. While clients read or write, no
//! more than that is taken; otherwise a little more, so that a quiet night makes room for a busy day. Never more than the
//! limit: a limit that is too low makes the round longer, not faster.

/// Bytes per second that a node with little data takes: it is done in minutes, not spread over days.
const IDLE_BYTES_PER_S: u64 = 4 << 20;
/// The least, also while others read and write.
const BUSY_BYTES_PER_S: u64 = 256 << 10;
/// How much of the period the round may take, in percent.
const SHARE_PERCENT: u64 = 80;

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Every replica is verified once in this time, in milliseconds.
    pub period_ms: u64,
    /// Bytes per second of one volume, at most; 0: no limit.
    pub bytes_per_s_max: u64,
}

impl Pace {
    /// The rate for a round that began at `started_ms` and has so much left, in bytes per second. At least 1.
    pub fn bytes_per_s(&self, left_bytes: u64, started_ms: u64, now_ms: u64, busy: bool) -> u64 {
        let share_ms = self.period_ms / 100 * SHARE_PERCENT;
        let left_ms = share_ms.saturating_sub(now_ms.saturating_sub(started_ms)).max(1_000);
        let needed = left_bytes.saturating_mul(1_000).div_ceil(left_ms);
        let rate = match busy {
            true => needed.max(BUSY_BYTES_PER_S),
            false => needed.saturating_mul(2).max(IDLE_BYTES_PER_S),
        };
        match self.bytes_per_s_max {
            0 => rate,
            max => rate.min(max),
        }
    }

    /// How long until the round after one that began at `started_ms`; 0: now.
    pub fn wait_ms(&self, started_ms: u64, now_ms: u64) -> u64 {
        // A clock that jumped back must not stop it for longer than a period.
        let elapsed = now_ms.checked_sub(started_ms).unwrap_or(self.period_ms);
        self.period_ms.saturating_sub(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_MS: u64 = 24 * 3_600_000;
    const WEEK: Pace = Pace { period_ms: 7 * DAY_MS, bytes_per_s_max: 64 << 20 };

    #[test]
    fn a_large_volume_is_spread_and_a_small_one_is_soon_done() {
        // 10 TB in 5.6 days: 20.7 MB/s.
        assert_eq!(WEEK.bytes_per_s(10_000_000_000_000, 0, 0, true) / 1_000_000, 20);
        assert_eq!(WEEK.bytes_per_s(10_000_000_000_000, 0, 0, false) / 1_000_000, 41);
        assert_eq!(WEEK.bytes_per_s(1 << 20, 0, 0, false), IDLE_BYTES_PER_S);
        assert_eq!(WEEK.bytes_per_s(1 << 20, 0, 0, true), BUSY_BYTES_PER_S);
        // Late: as fast as it may.
        assert_eq!(WEEK.bytes_per_s(10_000_000_000_000, 0, 6 * DAY_MS, true), 64 << 20);
    }

    #[test]
    fn rounds_follow_each_other_a_period_apart_and_a_clock_that_jumps_back_stops_nothing() {
        assert_eq!(WEEK.wait_ms(1_000, 1_000 + DAY_MS), 6 * DAY_MS);
        assert_eq!(WEEK.wait_ms(1_000, 1_000 + 8 * DAY_MS), 0);
        assert_eq!(WEEK.wait_ms(9 * DAY_MS, 1_000), 0);
    }

    proptest! {
        #[test]
        fn whatever_it_must_verify_it_ends_in_time_if_the_limit_allows(
            bytes in 1u64..100_000_000_000_000, busy in any::<bool>(),
        ) {
            let pace = Pace { bytes_per_s_max: 0, ..WEEK };
            let (mut left, mut now) = (bytes, 0);
            while left > 0 {
                left = left.saturating_sub(pace.bytes_per_s(left, 0, now, busy) * 600);
                now += 600_000;
                prop_assert!(now <= pace.period_ms, "{} left", left);
            }
        }
    }
}
