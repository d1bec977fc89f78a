//! Replies to calls that may be repeated: the retry cache, part of the state.
//!
//! Keyed by client and call, bounded by count and by age. Age is counted in the time that operations carry, so that
//! replaying the journal drops the same entries at the same places. Errors are not kept: a repeated call that failed
//! is tried again.

use std::collections::{BTreeMap, VecDeque};

use crate::coding::{Malformed, Reader, put_i64, put_u32, put_u64};
use crate::op::{CallId, Reply, decode_reply, encode_reply};

/// Entries kept at most. Part of the format: every replica of the state must drop the same ones.
pub const RETRY_ENTRIES_MAX: usize = 1 << 18;
/// How long an entry is kept, in nanoseconds of operation time.
pub const RETRY_AGE_NS_MAX: i64 = 600 * 1_000_000_000;

struct Entry {
    at_ns: i64,
    /// Checksum of the operation: the same call asks the same.
    asked: u32,
    reply: Reply,
}

/// See the module.
#[derive(Default)]
pub(crate) struct RetryCache {
    entries: BTreeMap<CallId, Entry>,
    order: VecDeque<CallId>,
}

impl RetryCache {
    /// The reply that this call got, with the checksum of what it asked.
    pub(crate) fn get(&self, id: &CallId) -> Option<(u32, &Reply)> {
        self.entries.get(id).map(|entry| (entry.asked, &entry.reply))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Drops what is older than [`RETRY_AGE_NS_MAX`], oldest call first.
    pub(crate) fn expire(&mut self, now_ns: i64) {
        while let Some(id) = self.order.front()
            && self.entries[id].at_ns < now_ns.saturating_sub(RETRY_AGE_NS_MAX)
        {
            self.drop_oldest();
        }
    }

    pub(crate) fn insert(&mut self, id: CallId, at_ns: i64, asked: u32, reply: Reply) {
        if self.order.len() == RETRY_ENTRIES_MAX {
            self.drop_oldest();
        }
        if self.entries.insert(id, Entry { at_ns, asked, reply }).is_none() {
            self.order.push_back(id);
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(id) = self.order.pop_front() {
            self.entries.remove(&id);
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.order.len() as u32);
        for id in &self.order {
            let entry = &self.entries[id];
            out.extend_from_slice(&id.client);
            put_u64(out, id.call);
            put_i64(out, entry.at_ns);
            put_u32(out, entry.asked);
            encode_reply(&entry.reply, out);
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut cache = Self::default();
        for _ in 0..r.count(37)? {
            let id = CallId { client: r.id16()?, call: r.u64()? };
            let (at_ns, asked) = (r.i64()?, r.u32()?);
            let reply = decode_reply(r)?;
            cache.insert(id, at_ns, asked, reply);
        }
        Ok(cache)
    }
}
