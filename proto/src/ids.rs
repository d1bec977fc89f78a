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
}

impl GenerationStamp {
    /// The first stamp that a new cluster gives (as HDFS does).
    pub const FIRST: Self = Self(1001);
}
