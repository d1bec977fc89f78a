//! Names of users and groups, permission triples and file layouts, each kept once and named by a `u32`.
//!
//! Numbers are given in the order of first use, and entries stay: there are as many as distinct values were ever
//! used. Reading them back in order gives the same numbers.

use std::collections::BTreeMap;

use proto::erasure::{Codec, Policy};
use proto::limits::{PRINCIPAL_BYTES_MAX, REPLICATION_MAX};

use crate::coding::{Malformed, Reader, put_text, put_u16, put_u32, put_u64};

/// Who owns a file or folder and who may do what with it. Owner and group are numbers of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Permission {
    pub owner: u32,
    pub group: u32,
    /// Permission bits, 07777.
    pub mode: u16,
}

/// How a file's bytes are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Layout {
    /// Of a striped file 1: each unit once.
    pub replication: u32,
    /// The most bytes of a block; of a striped file, of a unit.
    pub block_bytes: u64,
    /// The number of its erasure-coding policy; 0: replicated.
    pub policy: u8,
}

/// Where a layout's policy stands in the number that begins it in a checkpoint; replications are far smaller.
const POLICY_SHIFT: u32 = 24;
const _: () = assert!(REPLICATION_MAX < 1 << POLICY_SHIFT, "replication and policy share a number");

impl Layout {
    /// How blocks are coded; `None`: they are replicated.
    pub(crate) fn coding(&self) -> Option<Policy> {
        if self.policy == 0 { None } else { Policy::by_id(self.policy) }
    }

    /// The most bytes of data in one block or block group.
    pub(crate) fn data_max(&self) -> u64 {
        match self.coding() {
            None => self.block_bytes,
            Some(policy) => self.block_bytes.saturating_mul(policy.data_units.into()),
        }
    }

    /// The bytes that a block with so much data takes, in all its replicas or units.
    pub(crate) fn space(&self, data: u64) -> u64 {
        match self.coding() {
            None => data.saturating_mul(self.replication.into()),
            Some(policy) => policy.group_space(data),
        }
    }

    /// What a block is charged until its length is final: a whole one.
    pub(crate) fn space_max(&self) -> u64 {
        match self.coding() {
            None => self.space(self.block_bytes),
            Some(policy) => self.block_bytes.saturating_mul(policy.units().into()),
        }
    }
}

/// The policy with this number, if files can be coded by it here.
pub(crate) fn coding(id: u8) -> Option<Policy> {
    Policy::by_id(id).filter(|policy| policy.codec != Codec::ReedSolomonLegacy)
}

/// Values with the numbers they got.
pub(crate) struct Table<T> {
    values: Vec<T>,
    numbers: BTreeMap<T, u32>,
}

impl<T: Ord + Clone> Table<T> {
    fn new() -> Self {
        Self { values: Vec::new(), numbers: BTreeMap::new() }
    }

    pub(crate) fn get(&self, number: u32) -> &T {
        &self.values[number as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn number(&mut self, value: T) -> u32 {
        if let Some(&number) = self.numbers.get(&value) {
            return number;
        }
        let number = u32::try_from(self.values.len()).expect("2^32 values are never used up");
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }
}

/// All three tables.
pub(crate) struct Interned {
    pub names: Table<Box<str>>,
    pub permissions: Table<Permission>,
    pub layouts: Table<Layout>,
}

impl Interned {
    pub(crate) fn new() -> Self {
        Self { names: Table::new(), permissions: Table::new(), layouts: Table::new() }
    }

    pub(crate) fn name(&mut self, name: &str) -> u32 {
        match self.names.numbers.get(name) {
            Some(&number) => number,
            None => self.names.number(name.into()),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.names.len() as u32);
        for name in &self.names.values {
            put_text(out, name);
        }
        put_u32(out, self.permissions.len() as u32);
        for permission in &self.permissions.values {
            put_u32(out, permission.owner);
            put_u32(out, permission.group);
            put_u16(out, permission.mode);
        }
        put_u32(out, self.layouts.len() as u32);
        for layout in &self.layouts.values {
            put_u32(out, layout.replication | u32::from(layout.policy) << POLICY_SHIFT);
            put_u64(out, layout.block_bytes);
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut all = Self::new();
        for _ in 0..r.count(4)? {
            all.names.number(r.text(PRINCIPAL_BYTES_MAX)?.into());
        }
        for _ in 0..r.count(10)? {
            let malformed = r.malformed("a permission of known names");
            let permission = Permission { owner: r.u32()?, group: r.u32()?, mode: r.u16()? };
            if permission.owner.max(permission.group) as usize >= all.names.len() {
                return Err(malformed);
            }
            all.permissions.number(permission);
        }
        for _ in 0..r.count(12)? {
            let malformed =
                r.malformed("a layout with a block size, replicated or of a known policy");
            let (first, block_bytes) = (r.u32()?, r.u64()?);
            let replication = first & ((1 << POLICY_SHIFT) - 1);
            let layout = Layout { replication, block_bytes, policy: (first >> POLICY_SHIFT) as u8 };
            let known = layout.policy == 0 || coding(layout.policy).is_some();
            if layout.block_bytes == 0 || !known {
                return Err(malformed);
            }
            all.layouts.number(layout);
        }
        Ok(all)
    }
}
