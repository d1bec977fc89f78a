//! Copies under way, counted against what a node and the cluster may carry.
//!
//! A copy takes one outgoing stream of its source and one incoming stream of each target. With a limit in bytes per
//! second, a node takes part in the next copy only when the last ones would be through at that rate; the same for the
//! cluster as a whole.
//!
//! Always holds: no count is above its limit; a stream that was begun is ended once.

use std::collections::BTreeMap;

use super::super::datanodes::NodeIndex;

/// What may be under way at once. A rate of 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Outgoing streams of one node; incoming ones as many.
    pub per_node: usize,
    /// Copies in the cluster.
    pub total: usize,
    /// Bytes per second that one node sends, and that it receives.
    pub node_bytes_per_s: u64,
    /// Bytes per second in the cluster.
    pub total_bytes_per_s: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    streams: usize,
    free_at_ms: u64,
}

/// Which way a stream goes, seen from its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Out,
    In,
}

/// The counts.
#[derive(Debug)]
pub struct Streams {
    limits: StreamLimits,
    lanes: BTreeMap<(Way, NodeIndex), Lane>,
    copies: usize,
    free_at_ms: u64,
}

impl Streams {
    /// None under way.
    pub fn new(limits: StreamLimits) -> Self {
        assert!(limits.per_node > 0 && limits.total > 0, "a limit of none is no repair at all");
        Self { limits, lanes: BTreeMap::new(), copies: 0, free_at_ms: 0 }
    }

    /// What may be under way.
    pub fn limits(&self) -> StreamLimits {
        self.limits
    }

    /// Copies under way.
    pub fn copies(&self) -> usize {
        self.copies
    }

    /// Whether the cluster carries one more copy.
    pub fn has_room(&self, now_ms: u64) -> bool {
        self.copies < self.limits.total && self.free_at_ms <= now_ms
    }

    /// Whether a node may send one more.
    pub fn may_send(&self, now_ms: u64, node: NodeIndex) -> bool {
        self.may(now_ms, (Way::Out, node))
    }

    /// Whether a node may receive one more.
    pub fn may_receive(&self, now_ms: u64, node: NodeIndex) -> bool {
        self.may(now_ms, (Way::In, node))
    }

    /// Nodes that may not receive one more.
    pub fn full_receivers(&self, now_ms: u64) -> impl Iterator<Item = NodeIndex> + '_ {
        let lanes =
            self.lanes.keys().filter(move |&&key| key.0 == Way::In && !self.may(now_ms, key));
        lanes.map(|&(_, node)| node)
    }

    /// Streams that a node sends.
    pub fn sending(&self, node: NodeIndex) -> usize {
        self.lanes.get(&(Way::Out, node)).map_or(0, |lane| lane.streams)
    }

    /// Streams that a node receives.
    pub fn receiving(&self, node: NodeIndex) -> usize {
        self.lanes.get(&(Way::In, node)).map_or(0, |lane| lane.streams)
    }

    /// A copy of `bytes` begins.
    pub fn begin(&mut self, now_ms: u64, sources: &[NodeIndex], targets: &[NodeIndex], bytes: u64) {
        self.copies += 1;
        let carried = bytes.saturating_mul(targets.len() as u64);
        let total_rate = self.limits.total_bytes_per_s;
        self.free_at_ms = paced(now_ms, self.free_at_ms, carried, total_rate);
        let outgoing = sources.iter().map(|&node| (Way::Out, node));
        for key in outgoing.chain(targets.iter().map(|&node| (Way::In, node))) {
            let lane = self.lanes.entry(key).or_default();
            lane.streams += 1;
            lane.free_at_ms = paced(now_ms, lane.free_at_ms, bytes, self.limits.node_bytes_per_s);
        }
    }

    /// A copy is over for its sources.
    pub fn end(&mut self, sources: &[NodeIndex]) {
        self.copies -= 1;
        for &node in sources {
            self.end_lane((Way::Out, node));
        }
    }

    /// A copy is over for one target.
    pub fn end_target(&mut self, node: NodeIndex) {
        self.end_lane((Way::In, node));
    }

    fn may(&self, now_ms: u64, key: (Way, NodeIndex)) -> bool {
        self.lanes
            .get(&key)
            .is_none_or(|lane| lane.streams < self.limits.per_node && lane.free_at_ms <= now_ms)
    }

    fn end_lane(&mut self, key: (Way, NodeIndex)) {
        let lane = self.lanes.get_mut(&key).expect("a stream that ends was begun");
        lane.streams -= 1;
        if lane.streams == 0 && self.limits.node_bytes_per_s == 0 {
            self.lanes.remove(&key);
        }
    }
}

/// When the next copy may begin after one of `bytes` at `rate` bytes per second.
fn paced(now_ms: u64, free_at_ms: u64, bytes: u64, rate: u64) -> u64 {
    match rate {
        0 => 0,
        rate => now_ms.max(free_at_ms).saturating_add(bytes.saturating_mul(1_000) / rate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeIndex = NodeIndex(0);
    const B: NodeIndex = NodeIndex(1);

    #[test]
    fn streams_are_counted_per_node_and_way_and_in_all() {
        let limits =
            StreamLimits { per_node: 1, total: 2, node_bytes_per_s: 0, total_bytes_per_s: 0 };
        let mut streams = Streams::new(limits);
        streams.begin(0, &[A], &[B], 100);
        assert!(!streams.may_send(0, A) && streams.may_receive(0, A));
        assert!(streams.may_send(0, B) && !streams.may_receive(0, B));
        assert!(streams.has_room(0));
        streams.begin(0, &[B], &[A], 100);
        assert!(!streams.has_room(0));
        streams.end_target(B);
        streams.end(&[A]);
        assert!(streams.has_room(0) && streams.may_send(0, A) && streams.may_receive(0, B));
        assert_eq!((streams.sending(B), streams.receiving(A), streams.copies()), (1, 1, 1));
    }

    #[test]
    fn a_rate_in_bytes_holds_the_next_copy_back() {
        let limits = StreamLimits {
            per_node: 9,
            total: 9,
            node_bytes_per_s: 1_000,
            total_bytes_per_s: 10_000,
        };
        let mut streams = Streams::new(limits);
        streams.begin(5, &[A], &[B], 500);
        assert!(!streams.may_send(504, A) && streams.may_send(505, A));
        assert!(!streams.has_room(54) && streams.has_room(55));
        streams.end_target(B);
        streams.end(&[A]);
        assert!(!streams.may_receive(504, B), "that it was faster changes nothing");
    }
}
