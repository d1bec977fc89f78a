//! Which replica of a block to ask first. Pure.
//!
//! The NameNode orders locations by nearness. The client puts replicas that it can open as local files in front, and
//! DataNodes that failed lately at the end; among equals the NameNode's order stays.

use proto::granary::DatanodeAddress;

/// What the client knows of a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Its files can be opened on this machine.
    Local,
    /// Nothing speaks against it.
    Good,
    /// It failed lately.
    Suspect,
    /// It failed for this very block: not to be asked again.
    Excluded,
}

/// The locations to try, best first, without the excluded ones.
pub(crate) fn order(
    locations: &[DatanodeAddress],
    standing: impl Fn(&DatanodeAddress) -> Standing,
) -> Vec<DatanodeAddress> {
    let mut ranked: Vec<(Standing, &DatanodeAddress)> =
        locations.iter().map(|location| (standing(location), location)).collect();
    ranked.retain(|(standing, _)| *standing != Standing::Excluded);
    ranked.sort_by_key(|(standing, _)| *standing); // stable: the NameNode's order among equals
    ranked.into_iter().map(|(_, location)| location.clone()).collect()
}

/// The part of a read that lies in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Offset of its first byte in the block.
    pub(crate) offset_in_block: u64,
    /// Its bytes.
    pub(crate) length: u64,
}

/// What of the file's range `offset..offset + length` lies in the block at `block_offset` of `block_length` bytes.
pub(crate) fn piece_of(offset: u64, length: u64, block_offset: u64, block_length: u64) -> Piece {
    let end = offset.saturating_add(length).min(block_offset.saturating_add(block_length));
    let begin = offset.max(block_offset);
    Piece { offset_in_block: begin - block_offset, length: end.saturating_sub(begin) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(uuid: &str) -> DatanodeAddress {
        DatanodeAddress { uuid: uuid.into(), ..Default::default() }
    }

    #[test]
    fn local_replicas_come_first_and_suspects_last_and_excluded_ones_not_at_all() {
        let nodes = ["s", "a", "x", "l", "b"].map(node);
        let ordered = order(&nodes, |node| match node.uuid.as_str() {
            "l" => Standing::Local,
            "s" => Standing::Suspect,
            "x" => Standing::Excluded,
            _ => Standing::Good,
        });
        let uuids: Vec<_> = ordered.iter().map(|node| node.uuid.as_str()).collect();
        assert_eq!(uuids, ["l", "a", "b", "s"]);
    }

    #[test]
    fn a_range_is_cut_at_both_ends_of_the_block() {
        let piece = |offset, length| piece_of(offset, length, 100, 50);
        assert_eq!(piece(0, 1000), Piece { offset_in_block: 0, length: 50 });
        assert_eq!(piece(110, 5), Piece { offset_in_block: 10, length: 5 });
        assert_eq!(piece(140, u64::MAX), Piece { offset_in_block: 40, length: 10 });
        assert_eq!(piece(150, 10), Piece { offset_in_block: 50, length: 0 });
        assert_eq!(piece(90, 5).length, 0);
    }
}
