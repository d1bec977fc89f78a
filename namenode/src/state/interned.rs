//! Names of users and groups, permission triples and file layouts, each kept once and named by a `u32`.
//!
//! Numbers are given in the order of first use, and entries stay: there are as many as distinct values were ever
//! used. Reading them back in order gives the same numbers.

use std::collections::BTreeMap;

use proto::limits::PRINCIPAL_BYTES_MAX;

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
    pub replication: u32,
    pub block_bytes: u64,
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
            put_u32(out, layout.replication);
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
            let malformed = r.malformed("a layout with a block size");
            let layout = Layout { replication: r.u32()?, block_bytes: r.u64()? };
            if layout.block_bytes == 0 {
                return Err(malformed);
            }
            all.layouts.number(layout);
        }
        Ok(all)
    }
}
