//! Setting quotas: the operation and its bytes. See docs/formats/journal.md.
//!
//! A quota limits how many names (files and folders, the folder itself included) and how many bytes (replicas
//! counted) a folder's tree may take. Does not know what is used: `state::quotas` counts that.

use proto::FsPath;

use super::Op;
use super::codec::{path, put_path};
use crate::coding::{Malformed, Reader, put_u8, put_u64};

/// The tag of this family in the journal.
pub(crate) const TAG: u8 = 41;

/// A type of storage that a quota may be set for. The numbers are Hadoop's, and part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum StorageType {
    /// A spinning disk. Every replica of Granary is on this type.
    Disk = 1,
    /// A solid-state disk.
    Ssd = 2,
    /// Slow, dense storage.
    Archive = 3,
    /// Memory.
    RamDisk = 4,
    /// Storage outside the cluster.
    Provided = 5,
    /// Non-volatile memory.
    Nvdimm = 6,
}

/// Every type of storage, in the order of their numbers.
pub const STORAGE_TYPES: [StorageType; 6] = [
    StorageType::Disk,
    StorageType::Ssd,
    StorageType::Archive,
    StorageType::RamDisk,
    StorageType::Provided,
    StorageType::Nvdimm,
];

impl StorageType {
    /// The type with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        STORAGE_TYPES.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Hadoop's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "DISK",
            Self::Ssd => "SSD",
            Self::Archive => "ARCHIVE",
            Self::RamDisk => "RAM_DISK",
            Self::Provided => "PROVIDED",
            Self::Nvdimm => "NVDIMM",
        }
    }
}

/// What becomes of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// It stays as it is.
    Keep,
    /// There is none any more.
    Clear,
    /// This many names or bytes at most.
    Set(u64),
}

/// A change of quotas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuotaOp {
    /// Sets limits of a folder. With `storage`, `space` is the limit for that type of storage, and `names` stays.
    Set {
        /// The folder.
        path: FsPath,
        /// Of names.
        names: Limit,
        /// Of bytes, replicas counted.
        space: Limit,
        /// Of which type of storage; `None` for all.
        storage: Option<StorageType>,
    },
}

impl QuotaOp {
    /// The verb, for messages and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Set { .. } => "setQuota",
        }
    }

    /// Appends the journal's form, the family's tag first.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u8(out, TAG);
        match self {
            Self::Set { path, names, space, storage } => {
                put_u8(out, 1);
                put_path(out, path);
                encode_limit(*names, out);
                encode_limit(*space, out);
                put_u8(out, storage.map_or(0, |kind| kind as u8));
            }
        }
    }

    /// Reads what follows the family's tag.
    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Op, Malformed> {
        let malformed = r.malformed("a known operation on quotas");
        if r.u8()? != 1 {
            return Err(malformed);
        }
        let (path, names, space) = (path(r)?, decode_limit(r)?, decode_limit(r)?);
        let malformed = r.malformed("a known type of storage, or 0");
        let storage = match r.u8()? {
            0 => None,
            number => Some(StorageType::from_number(number).ok_or(malformed)?),
        };
        Ok(Op::Quota(Self::Set { path, names, space, storage }))
    }
}

fn encode_limit(limit: Limit, out: &mut Vec<u8>) {
    match limit {
        Limit::Keep => put_u8(out, 0),
        Limit::Clear => put_u8(out, 1),
        Limit::Set(value) => {
            put_u8(out, 2);
            put_u64(out, value);
        }
    }
}

fn decode_limit(r: &mut Reader<'_>) -> Result<Limit, Malformed> {
    let malformed = r.malformed("keep, clear or set");
    Ok(match r.u8()? {
        0 => Limit::Keep,
        1 => Limit::Clear,
        2 => Limit::Set(r.u64()?),
        _ => return Err(malformed),
    })
}
