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
}

#[cfg(test)]
mod tests {
    use super::*;

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
