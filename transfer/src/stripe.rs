//! Where the bytes of a striped block group are: cells, stripes, units. Pure arithmetic.
//!
//! A group's data goes round the k data units in cells: cell c is in unit c mod k, at row c / k. Each row, a stripe, has
//! m parity cells beside it. In the last row cells may be short or missing; parity is then computed as if they were
//! filled with zeros up to the length of the first, and parity cells are as long as the first.
//!
//! ```text
//! k = 3, m = 2, cells of 4:      unit 0  unit 1  unit 2 | unit 3  unit 4
//!                        row 0    0..4    4..8   8..12  |  4 B     4 B
//!  a group of 18 bytes:  row 1   12..16  16..18    -    |  4 B     4 B
//! ```
//!
//! Unit u of the group with id g is stored as the block with id g + u: ids of groups have their low four bits clear.

use std::ops::Range;

use proto::erasure::Policy;

/// Units that a group's id leaves room for.
pub const UNITS_MAX: u8 = 16;

/// The shape of a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Data units: k.
    pub data_units: usize,
    /// Parity units: m.
    pub parity_units: usize,
    /// Bytes of a cell.
    pub cell_bytes: u64,
}

/// A part of a unit that holds wanted bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which data unit.
    pub unit: usize,
    /// Where in the unit, in bytes.
    pub unit_offset: u64,
    /// Where in the group's data.
    pub offset: u64,
    /// Bytes; all in one cell.
    pub length: u64,
}

impl From<Policy> for Layout {
    fn from(policy: Policy) -> Self {
        Self {
            data_units: policy.data_units.into(),
            parity_units: policy.parity_units.into(),
            cell_bytes: policy.cell_bytes.into(),
        }
    }
}

impl Layout {
    /// All units.
    pub fn units(&self) -> usize {
        self.data_units + self.parity_units
    }

    /// Bytes of data in a whole stripe.
    pub fn stripe_bytes(&self) -> u64 {
        self.data_units as u64 * self.cell_bytes
    }

    /// Rows of a group with so many bytes of data, the last one perhaps not whole.
    pub fn rows(&self, group_bytes: u64) -> u64 {
        group_bytes.div_ceil(self.stripe_bytes())
    }

    /// Bytes of a unit's cell in a row: 0 where the data has ended.
    pub fn cell_length(&self, group_bytes: u64, row: u64, unit: usize) -> u64 {
        let cell = if unit < self.data_units { unit as u64 } else { 0 };
        let begin = row * self.stripe_bytes() + cell * self.cell_bytes;
        group_bytes.saturating_sub(begin).min(self.cell_bytes)
    }

    /// Bytes of a unit of a group with so many bytes of data.
    pub fn unit_length(&self, group_bytes: u64, unit: usize) -> u64 {
        let whole = group_bytes / self.stripe_bytes();
        whole * self.cell_bytes + self.cell_length(group_bytes, whole, unit)
    }

    /// The unit and the place in it of a byte of data.
    pub fn place(&self, offset: u64) -> (usize, u64) {
        let cell = offset / self.cell_bytes;
        let (row, unit) = (cell / self.data_units as u64, cell % self.data_units as u64);
        (unit as usize, row * self.cell_bytes + offset % self.cell_bytes)
    }

    /// The pieces that a range of data is in, in its order.
    pub fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = Piece> + use<> {
        let layout = *self;
        let mut offset = range.start;
        std::iter::from_fn(move || {
            if offset >= range.end {
                return None;
            }
            let (unit, unit_offset) = layout.place(offset);
            let left = layout.cell_bytes - offset % layout.cell_bytes;
            let length = left.min(range.end - offset);
            let piece = Piece { unit, unit_offset, offset, length };
            offset += length;
            Some(piece)
        })
    }
}

/// The block that holds a unit of a group.
pub fn unit_block(group: u64, unit: usize) -> u64 {
    debug_assert!(unit < usize::from(UNITS_MAX) && group & 0xf == 0, "a group's id and its unit");
    group | unit as u64
}

/// The group and the unit that a block of a group stands for.
pub fn group_of(block: u64) -> (u64, usize) {
    (block & !0xf, (block & 0xf) as usize)
}

/// Whether an id is that of a group or of one of its units: as HDFS has it, the highest bit is set.
pub fn is_striped(block: u64) -> bool {
    block >> 63 == 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: Layout = Layout { data_units: 3, parity_units: 2, cell_bytes: 4 };

    #[test]
    fn the_example_of_the_module() {
        let lengths: Vec<u64> = (0..5).map(|unit| SMALL.unit_length(18, unit)).collect();
        assert_eq!(lengths, [8, 6, 4, 8, 8]);
        assert_eq!(SMALL.rows(18), 2);
        assert_eq!(SMALL.place(17), (1, 5));
        let pieces: Vec<Piece> = SMALL.pieces(3..13).collect();
        let piece = |unit, unit_offset, offset, length| Piece { unit, unit_offset, offset, length };
        assert_eq!(
            pieces,
            [piece(0, 3, 3, 1), piece(1, 0, 4, 4), piece(2, 0, 8, 4), piece(0, 4, 12, 1)]
        );
    }

    #[test]
    fn ids_of_units_follow_their_groups() {
        let group = 1u64 << 63 | 0x20;
        assert!(is_striped(group) && !is_striped(1 << 30));
        assert_eq!(group_of(unit_block(group, 8)), (group, 8));
    }

    proptest! {
        #[test]
        fn every_byte_is_in_one_place_of_a_unit_that_is_long_enough(
            k in 1usize..11, m in 1usize..5, cell in 1u64..40, length in 0u64..2000,
        ) {
            let layout = Layout { data_units: k, parity_units: m, cell_bytes: cell };
            let mut seen = vec![Vec::new(); k];
            for offset in 0..length {
                let (unit, place) = layout.place(offset);
                prop_assert_eq!(place, seen[unit].len() as u64);
                seen[unit].push(offset);
            }
            for (unit, seen) in seen.iter().enumerate() {
                prop_assert_eq!(layout.unit_length(length, unit), seen.len() as u64);
            }
            for unit in k..k + m {
                prop_assert_eq!(layout.unit_length(length, unit), layout.unit_length(length, 0));
            }
            let sum: u64 = (0..layout.rows(length))
                .flat_map(|row| (0..k).map(move |unit| layout.cell_length(length, row, unit)))
                .sum();
            prop_assert_eq!(sum, length);
        }

        #[test]
        fn pieces_cover_a_range_once_and_in_order(
            k in 1usize..11, cell in 1u64..40, start in 0u64..500, length in 0u64..500,
        ) {
            let layout = Layout { data_units: k, parity_units: 1, cell_bytes: cell };
            let mut at = start;
            for piece in layout.pieces(start..start + length) {
                prop_assert_eq!(piece.offset, at);
                prop_assert_eq!((piece.unit, piece.unit_offset), layout.place(at));
                prop_assert_eq!(piece.unit_offset / cell, (piece.unit_offset + piece.length - 1) / cell);
                at += piece.length;
            }
            prop_assert_eq!(at, start + length);
        }
    }
}
