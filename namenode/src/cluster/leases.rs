//! When each lease holder was last heard: volatile, beside the journaled fact of who holds which file.
//!
//! A holder that was silent for the soft limit may be replaced by another writer; for the hard limit, the NameNode
//! recovers its files. A holder that is met for the first time counts as heard just then, so that after a start all
//! get a full term.
//!
//! Only holders that have a file open are kept: the caller says when one has none left.

use std::collections::BTreeMap;

/// Last renewals by holder.
#[derive(Debug)]
pub struct Leases {
    renewed_ms: BTreeMap<String, u64>,
    soft_limit_ms: u64,
    hard_limit_ms: u64,
}

impl Leases {
    /// No holder yet.
    pub fn new(soft_limit_ms: u64, hard_limit_ms: u64) -> Self {
        assert!(soft_limit_ms <= hard_limit_ms, "the soft limit comes first");
        Self { renewed_ms: BTreeMap::new(), soft_limit_ms, hard_limit_ms }
    }

    /// The holder, who has a file open, was heard.
    pub fn renew(&mut self, now_ms: u64, holder: &str) {
        match self.renewed_ms.get_mut(holder) {
            Some(at) => *at = now_ms,
            None => {
                self.renewed_ms.insert(holder.to_owned(), now_ms);
            }
        }
    }

    /// The holder has no open file left.
    pub fn forget(&mut self, holder: &str) {
        self.renewed_ms.remove(holder);
    }

    /// Whether another writer may take the holder's files over. Meeting a holder starts its term.
    pub fn is_soft_expired(&mut self, now_ms: u64, holder: &str) -> bool {
        match self.renewed_ms.get(holder) {
            Some(&at) => now_ms.saturating_sub(at) >= self.soft_limit_ms,
            None => {
                self.renew(now_ms, holder);
                false
            }
        }
    }

    /// Holders whose files are to be recovered, by name.
    pub fn hard_expired(&self, now_ms: u64) -> Vec<String> {
        self.renewed_ms
            .iter()
            .filter(|&(_, &at)| now_ms.saturating_sub(at) >= self.hard_limit_ms)
            .map(|(holder, _)| holder.clone())
            .collect()
    }

    /// Holders known.
    pub fn len(&self) -> usize {
        self.renewed_ms.len()
    }

    /// Whether no holder is known.
    pub fn is_empty(&self) -> bool {
        self.renewed_ms.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_holder_passes_the_soft_then_the_hard_limit() {
        let mut leases = Leases::new(60, 1200);
        assert!(!leases.is_soft_expired(0, "a"), "meeting it starts its term");
        leases.renew(10, "b");
        assert!(leases.is_soft_expired(60, "a") && !leases.is_soft_expired(60, "b"));
        assert_eq!(leases.hard_expired(1200), ["a"]);
        leases.renew(1200, "a");
        assert_eq!(leases.hard_expired(1210), ["b"]);
        leases.forget("b");
        assert!(leases.hard_expired(2399).is_empty() && leases.len() == 1);
    }
}
