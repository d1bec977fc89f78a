//! Where DataNodes stand: a rack for each host, by configuration, and what placement asks of racks.
//!
//! A rack is a path such as `/row1/rack7`; only whole paths are compared. A DataNode is looked for by its uuid, then
//! by its host; one that is not named stands in the rack that it tells itself, or in the default one.

use std::collections::BTreeMap;

use proto::granary::DatanodeAddress;

/// The rack of a node of which nothing is known, as HDFS names it.
pub const RACK_DEFAULT: &str = "/default-rack";
/// Bytes of a rack's path, at most.
const RACK_BYTES_MAX: usize = 255;

/// Racks by uuid or host.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    racks: BTreeMap<String, String>,
}

impl Topology {
    /// Of entries `host=/rack`, which were checked by [`parse_entry`]; others are left out.
    pub fn new(entries: &[String]) -> Self {
        let parsed = entries.iter().filter_map(|entry| parse_entry(entry));
        Self { racks: parsed.map(|(host, rack)| (host.to_owned(), rack.to_owned())).collect() }
    }

    /// The rack of a DataNode.
    pub fn rack_of(&self, address: &DatanodeAddress) -> String {
        let named = self.racks.get(&address.uuid).or_else(|| self.racks.get(&address.host));
        match named {
            Some(rack) => rack.clone(),
            None if is_rack(&address.rack) => address.rack.clone(),
            None => RACK_DEFAULT.to_owned(),
        }
    }
}

/// Takes `host=/rack` apart; `None` if it is not that.
pub fn parse_entry(entry: &str) -> Option<(&str, &str)> {
    let (host, rack) = entry.split_once('=')?;
    let (host, rack) = (host.trim(), rack.trim());
    (!host.is_empty() && is_rack(rack)).then_some((host, rack))
}

/// Whether a text is a rack's path: `/`, then names without control characters or spaces, none of them empty.
pub fn is_rack(text: &str) -> bool {
    text.len() <= RACK_BYTES_MAX
        && text.strip_prefix('/').is_some_and(|names| {
            names.split('/').all(|name| {
                !name.is_empty() && !name.contains(|c: char| c.is_control() || c.is_whitespace())
            })
        })
}

/// What the next replica asks of its rack, as HDFS's default policy has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RackRule<'a> {
    /// Any.
    Any,
    /// Another than all of these: the loss of one rack must not be the loss of the block.
    NoneOf(&'a str),
    /// This one: the second and the third replica share a rack, so that the bytes cross between racks once.
    Same(&'a str),
    /// One that has fewer replicas than this.
    FewerThan(usize),
}

/// The rule for the next of `replicas` replicas, after those in the racks `placed`, among `racks` racks.
pub fn next_rule<'a>(placed: &[&'a str], replicas: usize, racks: usize) -> RackRule<'a> {
    match placed {
        _ if racks < 2 => RackRule::Any,
        [] => RackRule::Any,
        [only] => RackRule::NoneOf(only),
        [first, second] if first == second => RackRule::NoneOf(first),
        [_, second] => RackRule::Same(second),
        _ => {
            let first = placed[0];
            if placed.iter().all(|rack| *rack == first) {
                return RackRule::NoneOf(first);
            }
            RackRule::FewerThan(replicas.max(placed.len() + 1).saturating_sub(1) / racks + 2)
        }
    }
}

impl RackRule<'_> {
    /// Whether a rack fits, with replicas in the racks `placed`.
    pub fn allows(&self, rack: &str, placed: &[&str]) -> bool {
        match self {
            Self::Any => true,
            Self::NoneOf(other) => rack != *other,
            Self::Same(same) => rack == *same,
            Self::FewerThan(most) => placed.iter().filter(|other| **other == rack).count() < *most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rack_is_found_by_uuid_then_host_then_the_nodes_own_word() {
        let entries = ["u1=/a/1", "10.0.0.2 = /b", "bad", "x=y"].map(String::from);
        let topology = Topology::new(&entries);
        let rack = |uuid: &str, host: &str, rack: &str| {
            topology.rack_of(&DatanodeAddress {
                uuid: uuid.into(),
                host: host.into(),
                rack: rack.into(),
                ..Default::default()
            })
        };
        assert_eq!(rack("u1", "10.0.0.2", "/c"), "/a/1");
        assert_eq!(rack("u2", "10.0.0.2", "/c"), "/b");
        assert_eq!(rack("u2", "10.0.0.3", "/c"), "/c");
        for none in ["", "c", "/", "/a//b", "/a b", "/a\n"] {
            assert_eq!(rack("u2", "10.0.0.3", none), RACK_DEFAULT, "{none:?}");
        }
    }

    #[test]
    fn the_second_goes_elsewhere_and_the_third_joins_it() {
        use RackRule::*;
        assert_eq!(next_rule(&[], 3, 4), Any);
        assert_eq!(next_rule(&["/a"], 3, 4), NoneOf("/a"));
        assert_eq!(next_rule(&["/a", "/b"], 3, 4), Same("/b"));
        assert_eq!(next_rule(&["/a", "/a"], 3, 4), NoneOf("/a"));
        assert_eq!(next_rule(&["/a", "/a", "/a"], 4, 4), NoneOf("/a"));
        assert_eq!(next_rule(&["/a", "/b", "/b"], 10, 4), FewerThan(4));
        assert_eq!(next_rule(&["/a"], 3, 1), Any);
        assert!(FewerThan(2).allows("/a", &["/a", "/b", "/b"]));
        assert!(!FewerThan(2).allows("/b", &["/a", "/b", "/b"]));
    }
}
