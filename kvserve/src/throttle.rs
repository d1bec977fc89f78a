//! A token bucket: how long to wait before so many bytes may pass. Pure; time is given in milliseconds.
//!
//! The bucket may be overdrawn by one request: whoever takes the tokens waits until the debt would be paid, so that
//! a request larger than the bucket still passes, and the long-run rate holds whatever the sizes are.

/// Lets `rate` bytes pass per second, with bursts of at most one second's worth.
#[derive(Debug)]
pub struct TokenBucket {
    bytes_per_second: u64,
    /// Thousandths of a byte; negative: owed.
    tokens: i128,
    updated_ms: u64,
}

impl TokenBucket {
    /// A full bucket. `bytes_per_second` 0: no limit.
    pub fn new(bytes_per_second: u64, now_ms: u64) -> Self {
        let tokens = i128::from(bytes_per_second) * 1000;
        Self { bytes_per_second, tokens, updated_ms: now_ms }
    }

    /// Takes `bytes` and gives the milliseconds to wait before they may pass.
    pub fn take(&mut self, bytes: u64, now_ms: u64) -> u64 {
        if self.bytes_per_second == 0 {
            return 0;
        }
        let rate = i128::from(self.bytes_per_second);
        let elapsed = now_ms.saturating_sub(self.updated_ms);
        self.updated_ms = self.updated_ms.max(now_ms);
        self.tokens = (self.tokens + rate * i128::from(elapsed)).min(rate * 1000);
        self.tokens -= i128::from(bytes) * 1000;
        if self.tokens >= 0 {
            return 0;
        }
        u64::try_from((-self.tokens + rate - 1) / rate).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_the_rest_waits() {
        let mut bucket = TokenBucket::new(1000, 0);
        assert_eq!(bucket.take(1000, 0), 0);
        assert_eq!(bucket.take(500, 0), 500);
        assert_eq!(bucket.take(500, 500), 500);
        assert_eq!(bucket.take(0, 1000), 0);
    }

    #[test]
    fn no_rate_is_no_limit_and_a_clock_that_steps_back_is_harmless() {
        assert_eq!(TokenBucket::new(0, 0).take(u64::MAX, 0), 0);
        let mut bucket = TokenBucket::new(10, 1000);
        assert_eq!(bucket.take(10, 1000), 0);
        assert_eq!(bucket.take(10, 500), 1000);
        assert_eq!(bucket.take(0, 1000), 1000);
    }

    proptest! {
        #[test]
        fn the_rate_holds_whatever_the_sizes_are(
            rate in 1_u64..1_000_000, sizes in proptest::collection::vec(0_u64..3_000_000, 1..50)
        ) {
            let mut bucket = TokenBucket::new(rate, 0);
            let mut now = 0;
            for &bytes in &sizes {
                now += bucket.take(bytes, now);
            }
            let total: u64 = sizes.iter().sum();
            let least_ms = total.saturating_sub(rate) as u128 * 1000 / u128::from(rate);
            prop_assert!(u128::from(now) >= least_ms);
            prop_assert!(u128::from(now) <= least_ms + sizes.len() as u128 + 1);
        }
    }
}
