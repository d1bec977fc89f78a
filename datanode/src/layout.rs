//! Names on a volume: which folder and file a replica's bytes are in. Pure; `docs/formats/replica.md` is its page.
//!
//! ```text
//! <volume>/identity.toml, lock, index/
//! <volume>/current/finalized/sAA/sBB/blk_N, blk_N_GS.meta
//! <volume>/rbw/blk_N, blk_N_GS.meta, blk_N.synced
//! <volume>/tmp/blk_N, blk_N_GS.meta
//! <volume>/moving/blk_N, blk_N_GS.meta
//! ```
//!
//! Names are made of ids only, never of what a peer sent as text. 256 ids in sequence share a sub-folder, so that
//! blocks written together share its sync; 2^20 ids fill all 4096 sub-folders before one is used again.

use std::path::{Path, PathBuf};

use proto::{BlockId, GenerationStamp};

/// Sub-folders of `finalized`, counted over both levels.
pub const FOLDERS: usize = 1 << (2 * LEVEL_BITS);
const LEVEL_BITS: u32 = 6;
const LEVEL_MASK: u64 = (1 << LEVEL_BITS) - 1;
/// Ids in sequence that share a sub-folder, as a power of two.
const ID_BITS: u32 = 8;

/// A sub-folder of `finalized`: 0..[`FOLDERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Folder(u16);

impl Folder {
    /// Where a finished replica of this block lies.
    pub fn of(block: BlockId) -> Self {
        let number = (block.0 >> ID_BITS) & (FOLDERS as u64 - 1);
        Self(u16::try_from(number).expect("there are 4096 sub-folders"))
    }

    /// The sub-folder with this number.
    pub fn from_number(number: usize) -> Option<Self> {
        (number < FOLDERS).then(|| Self(u16::try_from(number).expect("there are 4096 sub-folders")))
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..FOLDERS).filter_map(Self::from_number)
    }

    /// Its number.
    pub fn number(self) -> usize {
        usize::from(self.0)
    }

    /// The upper level's folder.
    pub fn parent_path(self, root: &Path) -> PathBuf {
        let upper = u64::from(self.0) >> LEVEL_BITS;
        finalized_path(root).join(format!("s{upper:02}"))
    }

    /// The folder itself.
    pub fn path(self, root: &Path) -> PathBuf {
        let lower = u64::from(self.0) & LEVEL_MASK;
        self.parent_path(root).join(format!("s{lower:02}"))
    }
}

/// Where finished replicas are.
pub fn finalized_path(root: &Path) -> PathBuf {
    root.join("current").join("finalized")
}

/// Where replicas being written are.
pub fn rbw_path(root: &Path) -> PathBuf {
    root.join("rbw")
}

/// Where replicas of transfers are until they are whole.
pub fn tmp_path(root: &Path) -> PathBuf {
    root.join("tmp")
}

/// Where copies from other volumes are until they are whole.
pub fn moving_path(root: &Path) -> PathBuf {
    root.join("moving")
}

/// The name of a replica's data file.
pub fn data_name(block: BlockId) -> String {
    format!("blk_{}", block.0)
}

/// The name of a replica's checksum file.
pub fn meta_name(block: BlockId, stamp: GenerationStamp) -> String {
    format!("blk_{}_{}.meta", block.0, stamp.0)
}

/// The name of the record of a replica's last sync within a chunk.
pub fn synced_name(block: BlockId) -> String {
    format!("blk_{}.synced", block.0)
}

/// What a file's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileName {
    /// A replica's bytes.
    Data(BlockId),
    /// A replica's checksums.
    Meta(BlockId, GenerationStamp),
    /// How far a replica was synced within a chunk.
    Synced(BlockId),
}

impl FileName {
    /// Reads a name; `None` if it is not one that this module makes.
    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("blk_")?;
        let parsed = if let Some(rest) = rest.strip_suffix(".meta") {
            let (block, stamp) = rest.split_once('_')?;
            Self::Meta(BlockId(block.parse().ok()?), GenerationStamp(stamp.parse().ok()?))
        } else if let Some(block) = rest.strip_suffix(".synced") {
            Self::Synced(BlockId(block.parse().ok()?))
        } else {
            Self::Data(BlockId(rest.parse().ok()?))
        };
        (parsed.to_name() == name).then_some(parsed)
    }

    /// The block.
    pub fn block(self) -> BlockId {
        match self {
            Self::Data(block) | Self::Meta(block, _) | Self::Synced(block) => block,
        }
    }

    fn to_name(self) -> String {
        match self {
            Self::Data(block) => data_name(block),
            Self::Meta(block, stamp) => meta_name(block, stamp),
            Self::Synced(block) => synced_name(block),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_nothing_else_is() {
        for name in ["blk_1", "blk_18446744073709551615", "blk_7_1001.meta", "blk_7.synced"] {
            assert_eq!(FileName::parse(name).unwrap().to_name(), name);
        }
        for name in ["blk_", "blk_01", "blk_+1", "blk_1.meta", "blk_1_2", "blk_1_2_3.meta", "x", ""]
        {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn neighbours_share_a_folder_and_a_million_ids_fill_all_of_them_evenly() {
        let first = BlockId(BlockId::FIRST.0 & !255);
        assert_eq!(Folder::of(first), Folder::of(BlockId(first.0 + 255)));
        let mut counts = vec![0; FOLDERS];
        for id in 0..1 << 20 {
            counts[Folder::of(BlockId(first.0 + id)).number()] += 1;
        }
        assert!(counts.iter().all(|&count| count == 256));
        let path = Folder::from_number(65).unwrap().path(Path::new("/v"));
        assert_eq!(path, Path::new("/v/current/finalized/s01/s01"));
    }
}
