//! Identities that several crates pass around, one type each, so that two integers cannot be swapped.
//!
//! All are plain `u64` on the wire. None is ever reused within a cluster's life.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The identity that follows this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("2^64 identities are never used up"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// A file or folder, whatever its names are. The root is [`InodeId::ROOT`].
    InodeId, "inode_");
id!(
    /// A block of a file. Hadoop shows it as `blk_N`.
    BlockId, "blk_");
id!(
    /// The generation of a block: a pipeline failure, an append or a recovery mints a new one, and a replica
    /// of an older one is stale.
    GenerationStamp, "gs_");
id!(
    /// The place of an operation in the journal: 1 is the first.
    Txid, "tx_");

impl InodeId {
    /// The root folder. HDFS uses the same number.
    pub const ROOT: Self = Self(16385);
}

impl BlockId {
    /// The first block id that a new cluster gives (as HDFS does).
    pub const FIRST: Self = Self(1_073_741_825);
    /// The first block group (as in HDFS). Groups follow each other by [`BlockId::GROUP_STEP`], so that a group's id
    /// leaves room for those of its units.
    pub const FIRST_GROUP: Self = Self(1 << 63);
    /// How far ids of block groups are apart.
    pub const GROUP_STEP: u64 = 16;

    /// Whether this is a block group, or a unit of one.
    pub fn is_striped(self) -> bool {
        self >= Self::FIRST_GROUP
    }

    /// The block group that this is, or is a unit of.
    #[must_use]
    pub fn group(self) -> Self {
        Self(self.0 & !(Self::GROUP_STEP - 1))
    }

    /// Which unit of its block group this is.
    pub fn unit(self) -> u8 {
        (self.0 & (Self::GROUP_STEP - 1)) as u8
    }

    /// The block that stores a unit of this block group.
    #[must_use]
    pub fn of_unit(self, unit: u8) -> Self {
        debug_assert!(self.is_striped() && self.unit() == 0 && u64::from(unit) < Self::GROUP_STEP);
        Self(self.0 | u64::from(unit))
    }
}

impl GenerationStamp {
    /// The first stamp that a new cluster gives (as HDFS does).
    pub const FIRST: Self = Self(1001);
}
