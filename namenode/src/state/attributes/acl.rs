//! Access control lists: POSIX.1e draft 17 as HDFS applies it. Pure: a list and a wish give a list or an error.
//!
//! A *whole* list has entries for owner, group and other, a mask if there are named entries, and perhaps the same
//! again as defaults. What is stored ([`Acl`]) leaves out what the mode says: owner, other, and in the group bits the
//! mask, so that chmod changes the mask and an `ls` shows it.
//!
//! Where a change does not name a mask, the mask becomes the union of what it limits; where it does, it stays as
//! named. Defaults are completed from the access entries.
//!
//! Always holds: a list that is stored is ordered by kind and name, without twins.

use std::collections::BTreeSet;

use proto::{Code, Error, Result};

use crate::coding::{Malformed, Reader, put_u8, put_u32};
use crate::op::attribute::{ACL_ENTRIES_MAX, AclEntry, AclKind, AclScope};
use crate::state::interned::Table;
use crate::state::slab::NONE;

/// An entry as it is stored: the name is a number, or `NONE` for an unnamed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Grant {
    pub kind: AclKind,
    pub permission: u8,
    pub name: u32,
}

/// What a list says beyond the mode.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Acl {
    /// Named users, the owning group, named groups; empty if there is none but the mode.
    pub access: Box<[Grant]>,
    /// All default entries, unnamed ones included; empty for a file.
    pub defaults: Box<[Grant]>,
}

impl Acl {
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + (self.access.len() + self.defaults.len()) * size_of::<Grant>() + 24
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for grants in [&self.access, &self.defaults] {
            put_u8(out, u8::try_from(grants.len()).expect("32 entries at most"));
            for grant in grants {
                put_u8(out, grant.kind as u8 | grant.permission << 4);
                put_u32(out, grant.name);
            }
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let malformed = r.malformed("an access control list that says something");
        let acl = Self { access: decode_grants(r)?, defaults: decode_grants(r)? };
        if acl.access.is_empty() && acl.defaults.is_empty() { Err(malformed) } else { Ok(acl) }
    }

    /// Whether the entries are such as the functions below make them.
    pub(crate) fn is_sound(&self, names: &Table<Box<str>>, folder: bool) -> bool {
        let key = |grant: &Grant| match grant.name {
            NONE => Some((grant.kind, "")),
            name if (name as usize) < names.len() => Some((grant.kind, &**names.get(name))),
            _ => None,
        };
        let ordered = |grants: &[Grant]| {
            let keys: Option<Vec<_>> = grants.iter().map(key).collect();
            keys.is_some_and(|keys| keys.is_sorted_by(|a, b| a < b))
        };
        let count = |grants: &[Grant], kind| {
            grants.iter().filter(|grant| grant.kind == kind && grant.name == NONE).count()
        };
        let named = |grants: &[Grant]| {
            grants.iter().all(|grant| grant.name == NONE || grant.kind <= AclKind::Group)
        };
        let access = &self.access;
        let access_sound = access.is_empty()
            || access.iter().all(|grant| grant.kind <= AclKind::Group)
                && count(access, AclKind::User) == 0
                && count(access, AclKind::Group) == 1;
        let defaults = &self.defaults;
        let required = [AclKind::User, AclKind::Group, AclKind::Other];
        let any_named = defaults.iter().any(|grant| grant.name != NONE);
        let defaults_sound = defaults.is_empty()
            || folder
                && required.into_iter().all(|kind| count(defaults, kind) == 1)
                && (!any_named || count(defaults, AclKind::Mask) == 1);
        ordered(access) && ordered(defaults) && named(defaults) && access_sound && defaults_sound
    }
}

fn decode_grants(r: &mut Reader<'_>) -> Result<Box<[Grant]>, Malformed> {
    let malformed = r.malformed("at most 32 entries of known kinds");
    let count = usize::from(r.u8()?);
    if count > ACL_ENTRIES_MAX {
        return Err(malformed);
    }
    let grants = (0..count).map(|_| {
        let (first, name) = (r.u8()?, r.u32()?);
        let kind = AclKind::from_number(first & 0xf).ok_or_else(|| malformed.clone())?;
        let permission = first >> 4;
        if permission > 7 { Err(malformed.clone()) } else { Ok(Grant { kind, permission, name }) }
    });
    grants.collect()
}

fn refused(message: impl std::fmt::Display) -> Error {
    Error::new(Code::InvalidArgument, format!("Invalid ACL: {message}."))
}

/// Whether two entries are about the same.
fn same(a: &AclEntry, b: &AclEntry) -> bool {
    (a.scope, a.kind, &a.name) == (b.scope, b.kind, &b.name)
}

fn scope_of(index: usize) -> AclScope {
    if index == 0 { AclScope::Access } else { AclScope::Default }
}

/// A list in the making; by scope where there are two of something.
#[derive(Default)]
struct Change {
    entries: Vec<AclEntry>,
    masks: [Option<u8>; 2],
    /// Whether the wish names the mask.
    mask_named: [bool; 2],
    /// Whether the wish names the scope.
    named: [bool; 2],
}

impl Change {
    /// An entry that stays as it was.
    fn keep(&mut self, entry: &AclEntry) {
        if entry.kind == AclKind::Mask {
            self.masks[entry.scope as usize] = Some(entry.permission);
        } else {
            self.entries.push(entry.clone());
        }
    }

    /// An entry that the wish names.
    fn put(&mut self, entry: &AclEntry) {
        self.mention(entry);
        self.keep(entry);
    }

    fn mention(&mut self, entry: &AclEntry) {
        self.named[entry.scope as usize] = true;
        self.mask_named[entry.scope as usize] |= entry.kind == AclKind::Mask;
    }

    fn finish(mut self) -> Result<Vec<AclEntry>> {
        self.complete_defaults();
        self.add_masks()?;
        self.entries.sort();
        check(&self.entries)?;
        Ok(self.entries)
    }

    /// Where there are default entries, those for owner, group and other are copied from the access entries.
    fn complete_defaults(&mut self) {
        if self.entries.iter().all(|entry| entry.scope == AclScope::Access) {
            return;
        }
        for kind in [AclKind::User, AclKind::Group, AclKind::Other] {
            let find = |scope| {
                let unnamed =
                    |e: &&AclEntry| e.scope == scope && e.kind == kind && e.name.is_empty();
                self.entries.iter().find(unnamed)
            };
            if let (Some(access), None) = (find(AclScope::Access), find(AclScope::Default)) {
                let copied = AclEntry { scope: AclScope::Default, ..access.clone() };
                self.entries.push(copied);
            }
        }
    }

    fn add_masks(&mut self) -> Result<()> {
        for index in 0..2 {
            let scope = scope_of(index);
            let mut of_scope = self.entries.iter().filter(|e| e.scope == scope).peekable();
            if of_scope.peek().is_none() {
                continue;
            }
            let limited = of_scope.filter(|e| e.kind == AclKind::Group || !e.name.is_empty());
            let (union, needed) = limited.fold((0, false), |(union, needed), entry| {
                (union | entry.permission, needed || !entry.name.is_empty())
            });
            let permission = match self.masks[index] {
                None if needed && self.mask_named[index] => {
                    return Err(refused("mask is required and cannot be deleted"));
                }
                Some(mask) if !self.named[index] || self.mask_named[index] => mask,
                None if !needed => continue,
                _ => union,
            };
            let name = String::new();
            self.entries.push(AclEntry { scope, kind: AclKind::Mask, name, permission });
        }
        Ok(())
    }
}

/// Bounds of a list or of a wish, and names where there may be none.
fn check_entries(entries: &[AclEntry]) -> Result<()> {
    for (scope, word) in [(AclScope::Access, "access"), (AclScope::Default, "default")] {
        let count = entries.iter().filter(|entry| entry.scope == scope).count();
        if count > ACL_ENTRIES_MAX {
            return Err(refused(format_args!(
                "ACL has {count} {word} entries, which exceeds maximum of {ACL_ENTRIES_MAX}"
            )));
        }
    }
    match entries.iter().find(|entry| entry.kind >= AclKind::Mask && !entry.name.is_empty()) {
        Some(entry) => {
            Err(refused(format_args!("this entry type must not have a name: {}", shown(entry))))
        }
        None => Ok(()),
    }
}

/// A whole list, ordered.
fn check(entries: &[AclEntry]) -> Result<()> {
    check_entries(entries)?;
    if entries.windows(2).any(|pair| same(&pair[0], &pair[1])) {
        return Err(refused("multiple entries with same scope, type and name"));
    }
    let required = [AclKind::User, AclKind::Group, AclKind::Other];
    let has = |kind| {
        let fits =
            |e: &AclEntry| e.scope == AclScope::Access && e.kind == kind && e.name.is_empty();
        entries.iter().any(fits)
    };
    if required.into_iter().all(has) {
        Ok(())
    } else {
        Err(refused("the user, group and other entries are required"))
    }
}

/// An entry as people write it: `default:user:ann:rw-`.
pub(crate) fn shown(entry: &AclEntry) -> String {
    let scope = if entry.scope == AclScope::Default { "default:" } else { "" };
    let kind = ["user", "group", "mask", "other"][entry.kind as usize];
    let bit = |bit: u8, letter| if entry.permission & bit == 0 { '-' } else { letter };
    format!("{scope}{kind}:{}:{}{}{}", entry.name, bit(4, 'r'), bit(2, 'w'), bit(1, 'x'))
}

/// Adds the entries of the wish, and replaces those that are there.
pub(crate) fn modify(list: &[AclEntry], wish: &[AclEntry]) -> Result<Vec<AclEntry>> {
    check_entries(wish)?;
    let mut change = Change::default();
    for entry in list {
        match wish.iter().find(|wanted| same(wanted, entry)) {
            Some(wanted) => change.put(wanted),
            None => change.keep(entry),
        }
    }
    for wanted in wish.iter().filter(|wanted| !list.iter().any(|entry| same(wanted, entry))) {
        change.put(wanted);
    }
    change.finish()
}

/// Removes entries; what they permit does not matter.
pub(crate) fn remove(list: &[AclEntry], wish: &[AclEntry]) -> Result<Vec<AclEntry>> {
    check_entries(wish)?;
    let mut change = Change::default();
    for entry in list {
        if wish.iter().any(|unwanted| same(unwanted, entry)) {
            change.mention(entry);
        } else {
            change.keep(entry);
        }
    }
    change.finish()
}

/// Replaces each scope that the wish names.
pub(crate) fn replace(list: &[AclEntry], wish: &[AclEntry]) -> Result<Vec<AclEntry>> {
    check_entries(wish)?;
    let mut change = Change::default();
    wish.iter().for_each(|wanted| change.put(wanted));
    let scopes: BTreeSet<_> = wish.iter().map(|wanted| wanted.scope).collect();
    for entry in list.iter().filter(|entry| !scopes.contains(&entry.scope)) {
        change.keep(entry);
    }
    change.finish()
}

/// Removes the default entries.
pub(crate) fn without_defaults(list: &[AclEntry]) -> Result<Vec<AclEntry>> {
    let access: Vec<_> = list.iter().filter(|e| e.scope == AclScope::Access).cloned().collect();
    check(&access)?;
    Ok(access)
}

/// What is stored of one scope of a whole list, and the bits of the mode: rwx of owner, of mask or group, of other.
pub(crate) fn split_access(access: &[Grant]) -> (u16, Box<[Grant]>) {
    let [owner, limited @ .., group, other] = access else {
        unreachable!("a whole list has entries for owner, group and other");
    };
    let bits = [owner, group, other].into_iter();
    let bits = bits.fold(0, |bits, grant| bits << 3 | u16::from(grant.permission));
    (bits, limited.into())
}

/// The access entries that a new entry of a folder gets from the folder's defaults, and its mode. `mode` is what was
/// asked for: it limits the owner, the mask (or the group, where there is no mask) and the others.
pub(crate) fn inherit(defaults: &[Grant], mode: u16, folder: bool) -> (u16, Option<Acl>) {
    let plain = defaults.len() == 3;
    let access: Vec<_> = defaults
        .iter()
        .map(|grant| {
            let limit = match grant.kind {
                AclKind::User if grant.name == NONE => mode >> 6,
                AclKind::Group if plain => mode >> 3,
                AclKind::Mask => mode >> 3,
                AclKind::Other => mode,
                AclKind::User | AclKind::Group => 7,
            };
            Grant { permission: grant.permission & limit as u8, ..*grant }
        })
        .collect();
    let (bits, access) = split_access(&access);
    let defaults: Box<[Grant]> = if folder { defaults.into() } else { Box::new([]) };
    let says_more = !access.is_empty() || !defaults.is_empty();
    (mode & 0o7000 | bits, says_more.then_some(Acl { access, defaults }))
}
