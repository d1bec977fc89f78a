//! Positions of SCAN. A cursor names the last key that was looked at, so it stays valid across a switch of versions,
//! on any connection, and when a step is asked for twice. The oldest are forgotten when there are too many.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

/// Bytes of keys that are remembered.
const BYTES_MAX: usize = 16 << 20;

/// Remembered positions. Shared by all connections.
#[derive(Debug)]
pub struct Cursors {
    count_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    next: u64,
    keys: HashMap<u64, Vec<u8>>,
    order: VecDeque<u64>,
    bytes: usize,
}

impl Cursors {
    /// Remembers up to `count_max` positions. `first`: the first cursor; differs between runs of the server, so that
    /// a cursor from before a restart is not taken for another.
    pub fn new(count_max: usize, first: u64) -> Self {
        // Below 2^53, since some clients read cursors as floating point numbers.
        let next = (first % (1 << 50)).max(1);
        let inner = Inner { next, keys: HashMap::new(), order: VecDeque::new(), bytes: 0 };
        Self { count_max: count_max.max(1), inner: Mutex::new(inner) }
    }

    /// A cursor for the position behind `key`.
    pub fn remember(&self, key: Vec<u8>) -> u64 {
        let mut inner = self.inner.lock().expect("no holder panics");
        let cursor = inner.next;
        inner.next += 1;
        inner.bytes += key.len();
        inner.keys.insert(cursor, key);
        inner.order.push_back(cursor);
        while inner.order.len() > self.count_max || inner.bytes > BYTES_MAX {
            let Some(oldest) = inner.order.pop_front() else { break };
            let forgotten = inner.keys.remove(&oldest).map_or(0, |key| key.len());
            inner.bytes -= forgotten;
        }
        cursor
    }

    /// The key behind which to go on.
    pub fn key(&self, cursor: u64) -> Option<Vec<u8>> {
        self.inner.lock().expect("no holder panics").keys.get(&cursor).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_positions_are_forgotten_by_count_and_by_bytes() {
        let cursors = Cursors::new(2, 7);
        let ids: Vec<u64> = (0..3_u8).map(|n| cursors.remember(vec![n])).collect();
        assert_eq!(ids, [7, 8, 9]);
        assert_eq!(cursors.key(7), None);
        assert_eq!(cursors.key(9), Some(vec![2]));
        assert_eq!(cursors.key(9), Some(vec![2]), "a step may be asked for twice");
        let huge = cursors.remember(vec![0; BYTES_MAX]);
        assert_eq!((cursors.key(9), cursors.key(huge).map(|k| k.len())), (None, Some(BYTES_MAX)));
    }
}
