//! The erasure-coding policies: HDFS's built-in ones, with the numbers that its clients know them by.

/// A codec, by the name that HDFS gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Reed-Solomon by a Cauchy matrix: "rs".
    ReedSolomon,
    /// The sum of all: "xor".
    Xor,
    /// Reed-Solomon as HDFS-RAID had it: "rs-legacy". Known by name alone: nothing is coded by it here.
    ReedSolomonLegacy,
}

impl Codec {
    /// Its name in HDFS's messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReedSolomon => "rs",
            Self::Xor => "xor",
            Self::ReedSolomonLegacy => "rs-legacy",
        }
    }
}

/// How a file's blocks are striped and coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Its number on the wire; 0 is "replicated".
    pub id: u8,
    /// Its name, as users write it.
    pub name: &'static str,
    /// The codec.
    pub codec: Codec,
    /// Data units: k.
    pub data_units: u8,
    /// Parity units: m.
    pub parity_units: u8,
    /// Bytes of a cell.
    pub cell_bytes: u32,
}

const CELL_BYTES: u32 = 1 << 20;

const fn policy(id: u8, name: &'static str, codec: Codec, data: u8, parity: u8) -> Policy {
    Policy { id, name, codec, data_units: data, parity_units: parity, cell_bytes: CELL_BYTES }
}

/// All of them, in the order of their numbers.
pub const POLICIES: [Policy; 5] = [
    policy(1, "RS-6-3-1024k", Codec::ReedSolomon, 6, 3),
    policy(2, "RS-3-2-1024k", Codec::ReedSolomon, 3, 2),
    policy(3, "RS-LEGACY-6-3-1024k", Codec::ReedSolomonLegacy, 6, 3),
    policy(4, "XOR-2-1-1024k", Codec::Xor, 2, 1),
    policy(5, "RS-10-4-1024k", Codec::ReedSolomon, 10, 4),
];

impl Policy {
    /// The policy with this number.
    pub fn by_id(id: u8) -> Option<Self> {
        POLICIES.into_iter().find(|policy| policy.id == id)
    }

    /// The policy with this name, in any case, as HDFS's tools take it.
    pub fn by_name(name: &str) -> Option<Self> {
        POLICIES.into_iter().find(|policy| policy.name.eq_ignore_ascii_case(name))
    }

    /// All units of a stripe.
    pub const fn units(self) -> u8 {
        self.data_units + self.parity_units
    }

    /// Bytes of data in one whole stripe.
    pub const fn stripe_bytes(self) -> u64 {
        self.data_units as u64 * self.cell_bytes as u64
    }

    /// Bytes of one unit of a block group with so many bytes of data. Parity is as long as the first unit.
    pub fn unit_bytes(self, group_bytes: u64, unit: u8) -> u64 {
        let (cell, stripe) = (u64::from(self.cell_bytes), self.stripe_bytes());
        let column = if unit < self.data_units { u64::from(unit) } else { 0 };
        let rest = (group_bytes % stripe).saturating_sub(column * cell);
        group_bytes / stripe * cell + rest.min(cell)
    }

    /// Bytes that a block group with so many bytes of data takes in all its units.
    pub fn group_space(self, group_bytes: u64) -> u64 {
        let parity = u64::from(self.parity_units).saturating_mul(self.unit_bytes(group_bytes, 0));
        group_bytes.saturating_add(parity)
    }

    /// Data units that hold any byte of a block group with so many bytes of data. As many units, whichever, are
    /// enough to read all of it: the data units without a byte are known to be zeros.
    pub fn units_needed(self, group_bytes: u64) -> u8 {
        let cells = group_bytes.div_ceil(self.cell_bytes.into());
        cells.min(self.data_units.into()) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_a_group_take_what_its_cells_take() {
        let policy = Policy::by_name("RS-3-2-1024k").expect("built in");
        let cell = u64::from(policy.cell_bytes);
        let units = |bytes| (0..5).map(|unit| policy.unit_bytes(bytes, unit)).collect::<Vec<_>>();
        assert_eq!(units(0), [0; 5]);
        assert_eq!(units(10), [10, 0, 0, 10, 10]);
        assert_eq!(units(cell + 1), [cell, 1, 0, cell, cell]);
        assert_eq!(units(3 * cell + 7), [cell + 7, cell, cell, cell + 7, cell + 7]);
        for bytes in [0, 1, cell, cell + 1, 3 * cell, 4 * cell + 9, 1 << 40] {
            assert_eq!(units(bytes).iter().sum::<u64>(), policy.group_space(bytes));
            let with_bytes = units(bytes)[..3].iter().filter(|&&unit| unit > 0).count();
            assert_eq!(usize::from(policy.units_needed(bytes)), with_bytes);
        }
    }

    #[test]
    fn a_policy_is_found_by_number_and_by_name() {
        for (index, policy) in POLICIES.into_iter().enumerate() {
            assert_eq!(usize::from(policy.id), index + 1);
            assert_eq!(Policy::by_id(policy.id), Some(policy));
            assert_eq!(Policy::by_name(&policy.name.to_lowercase()), Some(policy));
        }
        assert_eq!(Policy::by_id(0), None);
        assert_eq!(Policy::by_name("RS-6-3"), None);
    }
}
