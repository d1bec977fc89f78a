//! When to repeat a call, and after which pause. Pure: no clock, no randomness of its own.
//!
//! Pauses double from the smallest to the largest; each is shortened by up to half, by a number derived from the
//! call, so that many clients that lost one NameNode do not come back in step. What holds: a call is repeated only if
//! its error says that the same node may answer later, and never beyond the total time.

use proto::{Code, Error};

/// How long to go on, and how fast. All in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// From the first attempt until the last one begins.
    pub total_ms: u64,
    /// The first pause.
    pub pause_min_ms: u64,
    /// The longest pause.
    pub pause_max_ms: u64,
}

/// Whether the same call may succeed later at the same node.
pub fn is_passing(error: &Error) -> bool {
    matches!(
        error.code,
        Code::Unavailable
            | Code::Timeout
            | Code::SafeMode
            | Code::NotReplicatedYet
            | Code::Overloaded
    )
}

impl Policy {
    /// The pause before attempt number `attempt` (1 is the first repetition), `elapsed_ms` after the first attempt
    /// began; `None` to give up. `seed` tells one call from another.
    pub fn pause_ms(&self, attempt: u32, elapsed_ms: u64, seed: u64) -> Option<u64> {
        if elapsed_ms >= self.total_ms {
            return None;
        }
        let doublings = attempt.saturating_sub(1).min(32);
        let full = self.pause_min_ms.saturating_mul(1 << doublings).min(self.pause_max_ms);
        let shortened = full - mix(seed ^ u64::from(attempt)) % (full / 2 + 1);
        Some(shortened.min(self.total_ms - elapsed_ms))
    }
}

/// SplitMix64's finalizer: spreads neighbouring numbers.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Policy = Policy { total_ms: 10_000, pause_min_ms: 20, pause_max_ms: 1_000 };

    #[test]
    fn only_passing_troubles_are_repeated() {
        for code in [Code::Unavailable, Code::Timeout, Code::SafeMode] {
            assert!(is_passing(&Error::new(code, "")));
        }
        for code in [Code::NotFound, Code::LeaseExpired, Code::BlockMissing, Code::Io] {
            assert!(!is_passing(&Error::new(code, "")));
        }
    }

    proptest! {
        #[test]
        fn pauses_stay_in_their_bounds_and_end_in_time(seed: u64, attempts in 1u32..200) {
            let mut elapsed = 0;
            for attempt in 1..=attempts {
                let Some(pause) = POLICY.pause_ms(attempt, elapsed, seed) else {
                    prop_assert!(elapsed >= POLICY.total_ms);
                    break;
                };
                prop_assert!(pause <= POLICY.pause_max_ms);
                prop_assert!(pause >= 10 || elapsed + pause == POLICY.total_ms);
                elapsed += pause;
                prop_assert!(elapsed <= POLICY.total_ms);
            }
        }
    }
}
