//! Storage policies: on which kinds of disks HDFS would put replicas.
//!
//! They are kept, inherited and told as HDFS has them, since jobs set and read them. Placement takes no notice:
//! a DataNode's volumes have no kinds here.

use proto::{Code, Error, FsPath, Result};

use super::missing;
use crate::op::Caller;
use crate::op::quota::StorageType;
use crate::state::State;
use crate::state::permissions::{READ, WRITE};
use crate::state::slab::NONE;

use StorageType::{Archive, Disk, Provided, RamDisk, Ssd};

/// A storage policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoragePolicy {
    /// Its number: 1 to 15.
    pub id: u8,
    /// Its name.
    pub name: &'static str,
    /// The kinds for the first, second ... replica; the last one for all further.
    pub types: &'static [StorageType],
    /// Instead, if those are full when a block is made.
    pub creation_fallbacks: &'static [StorageType],
    /// Instead, if those are full when a replica is copied.
    pub replication_fallbacks: &'static [StorageType],
    /// Whether a new file keeps the policy that it inherits, also when it is moved elsewhere.
    pub copied_to_new_files: bool,
}

const fn policy(
    id: u8,
    name: &'static str,
    types: &'static [StorageType],
    creation_fallbacks: &'static [StorageType],
    replication_fallbacks: &'static [StorageType],
) -> StoragePolicy {
    let copied_to_new_files = false;
    StoragePolicy {
        id,
        name,
        types,
        creation_fallbacks,
        replication_fallbacks,
        copied_to_new_files,
    }
}

/// All policies, by their numbers.
pub const STORAGE_POLICIES: &[StoragePolicy] = &[
    policy(1, "PROVIDED", &[Provided, Disk], &[Provided, Disk], &[Provided, Disk]),
    policy(2, "COLD", &[Archive], &[], &[]),
    policy(5, "WARM", &[Disk, Archive], &[Disk, Archive], &[Disk, Archive]),
    policy(7, "HOT", &[Disk], &[], &[Archive]),
    policy(10, "ONE_SSD", &[Ssd, Disk], &[Ssd, Disk], &[Ssd, Disk]),
    policy(12, "ALL_SSD", &[Ssd], &[Disk], &[Disk]),
    StoragePolicy {
        copied_to_new_files: true,
        ..policy(15, "LAZY_PERSIST", &[RamDisk, Disk], &[Disk], &[Disk])
    },
];

const NOTHING: &str = "File/Directory does not exist:";
/// What holds where nobody set a policy: HOT.
const DEFAULT_POLICY: u8 = 7;

/// The policy with this number.
pub fn storage_policy(id: u8) -> Option<&'static StoragePolicy> {
    STORAGE_POLICIES.iter().find(|policy| policy.id == id)
}

impl StoragePolicy {
    /// The policy of this name, in capitals or not.
    pub fn named(name: &str) -> Option<&'static Self> {
        STORAGE_POLICIES.iter().find(|policy| policy.name.eq_ignore_ascii_case(name))
    }

    fn in_full(&self) -> String {
        let list = |types: &[StorageType]| {
            let names: Vec<_> = types.iter().map(|one| one.name()).collect();
            names.join(", ")
        };
        format!(
            "BlockStoragePolicy{{{}:{}, storageTypes=[{}], creationFallbacks=[{}], \
             replicationFallbacks=[{}]}}",
            self.name,
            self.id,
            list(self.types),
            list(self.creation_fallbacks),
            list(self.replication_fallbacks)
        )
    }
}

impl State {
    /// The number of the policy that holds for an inode: its own, or that of the nearest folder with one; 0 if there
    /// is none. A file with several names inherits by that of its folders which it knows.
    pub(crate) fn policy_of(&self, slot: u32) -> u8 {
        if self.attributes.policies == 0 {
            return 0;
        }
        let mut slot = slot;
        while slot != NONE {
            match self.attached(slot).map_or(0, |attached| attached.policy) {
                0 => slot = self.inodes.get(slot).parent,
                policy => return policy,
            }
        }
        0
    }

    /// The policy that a new file gets for its own from its folder; 0 for none.
    pub(super) fn copied_policy(&self, slot: u32, parent: u32) -> u8 {
        if self.inodes.get(slot).is_folder() {
            return 0;
        }
        let inherited = self.policy_of(parent);
        storage_policy(inherited).filter(|p| p.copied_to_new_files).map_or(0, |p| p.id)
    }

    /// The policy that holds for a path; HOT if nobody set one. Needs `r`.
    pub fn storage_policy(&self, caller: &Caller, path: &FsPath) -> Result<&'static StoragePolicy> {
        let seen = self.existing_seen(caller, path);
        let slot = seen.map_err(|error| missing(error, NOTHING, path))?.slot;
        self.demand(caller, slot, READ, path)?;
        let id = match self.policy_of(slot) {
            0 => DEFAULT_POLICY,
            id => id,
        };
        Ok(storage_policy(id).expect("a plan lets only known policies in"))
    }

    pub(super) fn plan_set_policy(&self, caller: &Caller, path: &FsPath, id: u8) -> Result<u32> {
        let refused = |message: String| Err(Error::new(Code::InvalidArgument, message));
        let wanted = storage_policy(id);
        if id != 0 && wanted.is_none() {
            return refused(format!("Cannot find a block policy with the id {id}"));
        }
        let found = self.existing(caller, path);
        let (slot, _) = found.map_err(|error| missing(error, NOTHING, path))?;
        self.demand(caller, slot, WRITE, path)?;
        if self.inodes.get(slot).is_folder() {
            return Ok(slot);
        }
        if let Some(policy) = wanted.filter(|policy| policy.copied_to_new_files) {
            let policy = policy.in_full();
            return refused(format!("Policy {policy} cannot be set after file creation."));
        }
        let own = self.attached(slot).and_then(|attached| storage_policy(attached.policy));
        if let Some(policy) = own.filter(|policy| policy.copied_to_new_files) {
            let name = policy.name;
            return refused(format!(
                "Existing policy {name} cannot be changed after file creation."
            ));
        }
        Ok(slot)
    }
}
