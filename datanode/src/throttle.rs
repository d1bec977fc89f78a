//! A limit on bytes per second that several tasks share.
//!
//! Whoever wants to move bytes books them first and waits until their turn: turns lie one behind the other at the set
//! rate, and what was not used for a while is kept for a short burst only. A rate of 0 is no limit. What holds: over any
//! stretch of time, what was let through is at most the rate times that time, plus one burst, plus one booking.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How much unused time is kept.
const BURST: Duration = Duration::from_millis(100);

/// A shared limit.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_s: AtomicU64,
    /// When the last booking's turn is over.
    booked: Mutex<Option<Instant>>,
}

impl Throttle {
    /// A limit; 0: none.
    pub fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: AtomicU64::new(bytes_per_s), booked: Mutex::default() }
    }

    /// Changes the limit for bookings to come; 0: none.
    pub fn set(&self, bytes_per_s: u64) {
        self.bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
    }

    /// Books `bytes` and waits for their turn.
    pub async fn take(&self, bytes: u64) {
        if let Some(turn) = self.book(Instant::now(), bytes) {
            tokio::time::sleep_until(turn).await;
        }
    }

    /// When the turn of these bytes is; `None`: now.
    fn book(&self, now: Instant, bytes: u64) -> Option<Instant> {
        let rate = self.bytes_per_s.load(Ordering::Relaxed);
        if rate == 0 {
            return None;
        }
        let mut booked = self.booked.lock().expect("nobody panics while holding it");
        let begin = booked.map_or(now, |booked| booked.max(now.checked_sub(BURST).unwrap_or(now)));
        *booked = Some(begin + Duration::from_secs_f64(bytes as f64 / rate as f64));
        Some(begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(of: Duration) -> u128 {
        of.as_millis()
    }

    #[test]
    fn turns_lie_behind_each_other_at_the_rate() {
        let throttle = Throttle::new(1_000);
        let now = Instant::now();
        let turns: Vec<u128> =
            (0..20).map(|_| ms(throttle.book(now, 100).unwrap() - now)).collect();
        assert_eq!(turns, (0..20).map(|n| n * 100).collect::<Vec<_>>());
    }

    #[test]
    fn a_pause_is_not_saved_up_and_no_limit_does_not_wait() {
        let throttle = Throttle::new(1_000);
        let begin = Instant::now();
        throttle.book(begin, 100);
        let later = begin + Duration::from_secs(60);
        let last = (0..11).map(|_| throttle.book(later, 100).unwrap()).last().unwrap();
        // Ten bookings before it, less the burst.
        assert_eq!(ms(last - later), 900);
        throttle.set(0);
        assert_eq!(throttle.book(later, u64::MAX), None);
    }
}
