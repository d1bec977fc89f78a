//! Queries in the background: how many, how fast, and whether any was wrong, failed or mixed two versions.
//!
//! Each connection sends `MGET` of the same probe keys again and again over the Redis protocol. The probes have different
//! values in the two versions, so an answer tells by itself which version it is from; one that is neither version's is
//! counted as mixed. The expected answers are read from each version by its number, not learnt from the traffic.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proto::Result;
use tokio::task::JoinHandle;

use crate::resp::RespClient;

/// Distinct answers that are remembered; two are right.
const DISTINCT_MAX: usize = 64;
/// Latencies that one connection remembers; later ones overwrite the oldest.
const LATENCIES_MAX: usize = 1 << 20;

/// The values of the probe keys, in their order.
pub type Answer = Vec<Option<Vec<u8>>>;

/// What one connection saw.
#[derive(Debug, Default)]
struct Seen {
    answers: HashMap<Answer, u64>,
    latencies_us: Vec<u32>,
    queries: u64,
    errors: u64,
    first_error: Option<String>,
    other_answers: u64,
}

/// Running connections.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    running: Vec<JoinHandle<Seen>>,
    begun: Instant,
}

/// What all connections saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// `MGET`s that were answered.
    pub queries: u64,
    /// Those that failed, and why the first did.
    pub errors: u64,
    /// The first error.
    pub first_error: Option<String>,
    /// Answers from the old version.
    pub old: u64,
    /// Answers from the new version.
    pub new: u64,
    /// Answers that are neither version's.
    pub mixed: u64,
    /// Half were faster.
    pub p50: Duration,
    /// 99 of 100 were faster.
    pub p99: Duration,
    /// The slowest.
    pub slowest: Duration,
    /// How long it went on.
    pub time: Duration,
}

impl Traffic {
    /// Starts `connections` that ask `addr` for `keys`.
    pub async fn start(addr: &str, keys: Vec<Vec<u8>>, connections: usize) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let keys = Arc::new(keys);
        let mut running = Vec::with_capacity(connections);
        for _ in 0..connections {
            let client = RespClient::connect(addr).await?;
            let addr = addr.to_owned();
            running.push(tokio::spawn(ask(client, addr, Arc::clone(&keys), Arc::clone(&stop))));
        }
        Ok(Self { stop, running, begun: Instant::now() })
    }

    /// Stops, and compares all answers with those of the two versions.
    pub async fn finish(self, old: &Answer, new: &Answer) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::with_capacity(self.running.len());
        for connection in self.running {
            all.push(connection.await.expect("a connection's task does not panic"));
        }
        tally(all, old, new, self.begun.elapsed())
    }
}

async fn ask(
    mut client: RespClient,
    addr: String,
    keys: Arc<Vec<Vec<u8>>>,
    stop: Arc<AtomicBool>,
) -> Seen {
    const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match client.mget(&keys).await {
            Ok(answer) => seen.note(answer, begun.elapsed()),
            Err(error) => {
                seen.errors += 1;
                seen.first_error.get_or_insert_with(|| error.to_string());
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                if let Ok(fresh) = RespClient::connect(&addr).await {
                    client = fresh;
                }
            }
        }
    }
    seen
}

impl Seen {
    fn note(&mut self, answer: Answer, time: Duration) {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        if self.latencies_us.len() < LATENCIES_MAX {
            self.latencies_us.push(micros);
        } else {
            self.latencies_us[self.queries as usize % LATENCIES_MAX] = micros;
        }
        self.queries += 1;
        if let Some(count) = self.answers.get_mut(&answer) {
            *count += 1;
        } else if self.answers.len() < DISTINCT_MAX {
            self.answers.insert(answer, 1);
        } else {
            self.other_answers += 1; // cannot be one of the two that are right: those come often
        }
    }
}

fn tally(all: Vec<Seen>, old: &Answer, new: &Answer, time: Duration) -> Tally {
    let mut tally = Tally { time, ..Tally::default() };
    let mut latencies: Vec<u32> = Vec::new();
    for seen in all {
        tally.queries += seen.queries;
        tally.errors += seen.errors;
        tally.first_error = tally.first_error.or(seen.first_error);
        tally.mixed += seen.other_answers;
        for (answer, count) in &seen.answers {
            let which = if answer == old {
                &mut tally.old
            } else if answer == new {
                &mut tally.new
            } else {
                &mut tally.mixed
            };
            *which += count;
        }
        latencies.extend(seen.latencies_us);
    }
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        let micros = latencies.get(index.min(latencies.len().saturating_sub(1)));
        Duration::from_micros(micros.copied().unwrap_or(0).into())
    };
    (tally.p50, tally.p99, tally.slowest) = (at(0.5), at(0.99), at(1.0));
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_and_mixed_ones_are_counted() {
        let answer =
            |a: &str, b: &str| vec![Some(a.as_bytes().to_vec()), Some(b.as_bytes().to_vec())];
        let (old, new) = (answer("1", "1"), answer("2", "2"));
        let mut seen = Seen::default();
        for (answer, micros) in
            [(old.clone(), 10), (new.clone(), 20), (answer("1", "2"), 30), (new.clone(), 400)]
        {
            seen.note(answer, Duration::from_micros(micros));
        }
        let tally = tally(vec![seen], &old, &new, Duration::from_secs(1));
        assert_eq!((tally.queries, tally.old, tally.new, tally.mixed), (4, 1, 2, 1));
        assert_eq!(tally.slowest, Duration::from_micros(400));
    }
}
