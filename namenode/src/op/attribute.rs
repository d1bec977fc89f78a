//! Operations on what hangs on files and folders beside owner, group and mode: extended attributes, access control
//! lists, storage policies. What they are made of, their bounds, and their bytes in the journal.
//!
//! An [`AclEntry`] orders as HDFS orders it: by scope, kind and name, the unnamed first. A whole list holds the
//! entries for owner, group and other as well; which of them are stored is the state's business.
//!
//! Always holds: a sub-tag is never reused; reading is total.

use proto::FsPath;

use super::codec::{Decoded, path, principal, put_path};
use crate::coding::{Malformed, Reader, put_bool, put_bytes, put_text, put_u8, put_u16};

/// Extended attributes of one file or folder, at most.
pub const XATTRS_MAX: usize = 32;
/// Bytes of an extended attribute's name and value together, at most.
pub const XATTR_BYTES_MAX: usize = 16_384;
/// Entries of an access control list, at most: for access, and again for defaults.
pub const ACL_ENTRIES_MAX: usize = 32;
/// Files that one concat takes, at most.
pub const CONCAT_SOURCES_MAX: usize = 100_000;

/// Who may see and set an extended attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum XAttrSpace {
    /// Whoever may read or write the file.
    User = 0,
    /// Superusers.
    Trusted = 1,
    /// Nobody but the file system, with the exception of [`UNREADABLE_BY_SUPERUSER`].
    Security = 2,
    /// Nobody but the file system.
    System = 3,
    /// Superusers, by a path under `/.reserved/raw`.
    Raw = 4,
}

/// The one attribute of the security space that users may set: a superuser may not read the file then.
pub const UNREADABLE_BY_SUPERUSER: &str = "hdfs.unreadable.by.superuser";

impl XAttrSpace {
    const ALL: [Self; 5] = [Self::User, Self::Trusted, Self::Security, Self::System, Self::Raw];

    /// The space of this number: HDFS's.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// What stands before the dot in a full name.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Trusted => "trusted",
            Self::Security => "security",
            Self::System => "system",
            Self::Raw => "raw",
        }
    }

    /// Takes `user.a` apart. The prefix may be in capitals, as HDFS has it.
    pub fn parse(full_name: &str) -> Option<(Self, &str)> {
        let (prefix, name) = full_name.split_once('.')?;
        let space = Self::ALL.into_iter().find(|s| s.prefix().eq_ignore_ascii_case(prefix))?;
        (!name.is_empty()).then_some((space, name))
    }
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XAttr {
    /// Who may see it.
    pub space: XAttrSpace,
    /// Its name without the space's prefix.
    pub name: String,
    /// Any bytes. HDFS's protocol does not tell an empty value from none.
    pub value: Vec<u8>,
}

impl XAttr {
    /// The name with its prefix.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.space.prefix(), self.name)
    }
}

/// What setting an extended attribute does if it is there, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum XAttrMode {
    /// It must not be there.
    Create = 1,
    /// It must be there.
    Replace = 2,
    /// Either.
    CreateOrReplace = 3,
}

impl XAttrMode {
    /// By the sum of HDFS's flags: 1 create, 2 replace.
    pub fn from_flags(flags: u32) -> Option<Self> {
        match flags {
            1 => Some(Self::Create),
            2 => Some(Self::Replace),
            3 => Some(Self::CreateOrReplace),
            _ => None,
        }
    }
}

/// Whether an entry decides about a folder's own access, or about that of what will be made in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AclScope {
    /// Of the file or folder itself.
    Access = 0,
    /// Of what will be made in the folder.
    Default = 1,
}

/// Whom an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AclKind {
    /// The owner, or a user by name.
    User = 0,
    /// The owning group, or a group by name.
    Group = 1,
    /// What named entries and the owning group get at most.
    Mask = 2,
    /// Everybody else.
    Other = 3,
}

impl AclKind {
    /// The kind of this number: HDFS's.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::User, Self::Group, Self::Mask, Self::Other].get(usize::from(number)).copied()
    }
}

/// One entry of an access control list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AclEntry {
    /// Access or default.
    pub scope: AclScope,
    /// Whom it is about.
    pub kind: AclKind,
    /// A user or group; empty for the owner, the owning group, the mask and others.
    pub name: String,
    /// Read 4, write 2, execute 1. Means nothing where entries are to be removed.
    pub permission: u8,
}

/// The access control list of a file or folder as readers get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclStatus {
    /// Its owner.
    pub owner: String,
    /// Its group.
    pub group: String,
    /// Its permission bits, 07777; if there are access entries, the group bits are the mask.
    pub mode: u32,
    /// Named entries, the owning group's entry if there are any, and all default entries, in order. What the mode
    /// says (owner, mask, other) is not repeated.
    pub entries: Vec<AclEntry>,
}

/// One change of what hangs on a file or folder.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields say what the wire messages of the same names say")]
pub enum AttributeOp {
    /// Sets an extended attribute. `raw`: the path was given under `/.reserved/raw`.
    SetXAttr { path: FsPath, raw: bool, xattr: XAttr, mode: XAttrMode },
    /// Removes one.
    RemoveXAttr { path: FsPath, raw: bool, space: XAttrSpace, name: String },
    /// Adds and replaces entries.
    ModifyAclEntries { path: FsPath, entries: Vec<AclEntry> },
    /// Removes entries.
    RemoveAclEntries { path: FsPath, entries: Vec<AclEntry> },
    /// Removes the default entries.
    RemoveDefaultAcl { path: FsPath },
    /// Removes all but the mode.
    RemoveAcl { path: FsPath },
    /// Replaces the whole list, for each scope that is named.
    SetAcl { path: FsPath, entries: Vec<AclEntry> },
    /// Sets the storage policy by its number; 0 removes it.
    SetStoragePolicy { path: FsPath, policy: u8 },
}

impl AttributeOp {
    /// The verb, for messages and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SetXAttr { .. } => "setXAttr",
            Self::RemoveXAttr { .. } => "removeXAttr",
            Self::ModifyAclEntries { .. } => "modifyAclEntries",
            Self::RemoveAclEntries { .. } => "removeAclEntries",
            Self::RemoveDefaultAcl { .. } => "removeDefaultAcl",
            Self::RemoveAcl { .. } => "removeAcl",
            Self::SetAcl { .. } => "setAcl",
            Self::SetStoragePolicy { .. } => "setStoragePolicy",
        }
    }

    /// Whether a repeated call must get the first one's reply: it would fail otherwise.
    pub fn answers_retries(&self) -> bool {
        matches!(self, Self::SetXAttr { .. } | Self::RemoveXAttr { .. })
    }

    /// The path it is about.
    pub fn path(&self) -> &FsPath {
        match self {
            Self::SetXAttr { path, .. }
            | Self::RemoveXAttr { path, .. }
            | Self::ModifyAclEntries { path, .. }
            | Self::RemoveAclEntries { path, .. }
            | Self::RemoveDefaultAcl { path }
            | Self::RemoveAcl { path }
            | Self::SetAcl { path, .. }
            | Self::SetStoragePolicy { path, .. } => path,
        }
    }

    /// Appends the sub-tag and the fields.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u8(out, self.tag());
        put_path(out, self.path());
        match self {
            Self::SetXAttr { raw, xattr, mode, .. } => {
                put_bool(out, *raw);
                encode_xattr(xattr, out);
                put_u8(out, *mode as u8);
            }
            Self::RemoveXAttr { raw, space, name, .. } => {
                put_bool(out, *raw);
                put_u8(out, *space as u8);
                put_text(out, name);
            }
            Self::ModifyAclEntries { entries, .. }
            | Self::RemoveAclEntries { entries, .. }
            | Self::SetAcl { entries, .. } => encode_entries(entries, out),
            Self::RemoveDefaultAcl { .. } | Self::RemoveAcl { .. } => {}
            Self::SetStoragePolicy { policy, .. } => put_u8(out, *policy),
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Self::SetXAttr { .. } => 1,
            Self::RemoveXAttr { .. } => 2,
            Self::ModifyAclEntries { .. } => 3,
            Self::RemoveAclEntries { .. } => 4,
            Self::RemoveDefaultAcl { .. } => 5,
            Self::RemoveAcl { .. } => 6,
            Self::SetAcl { .. } => 7,
            Self::SetStoragePolicy { .. } => 8,
        }
    }

    /// Reads what `encode` wrote.
    pub(super) fn decode(r: &mut Reader<'_>) -> Decoded<Self> {
        let malformed = r.malformed("a known tag of an attribute operation");
        let tag = r.u8()?;
        let path = path(r)?;
        Ok(match tag {
            1 => Self::SetXAttr {
                path,
                raw: r.bool()?,
                xattr: decode_xattr(r)?,
                mode: XAttrMode::from_flags(u32::from(r.u8()?)).ok_or(malformed)?,
            },
            2 => Self::RemoveXAttr {
                path,
                raw: r.bool()?,
                space: decode_space(r)?,
                name: r.text(XATTR_BYTES_MAX)?.to_owned(),
            },
            3 => Self::ModifyAclEntries { path, entries: decode_entries(r)? },
            4 => Self::RemoveAclEntries { path, entries: decode_entries(r)? },
            5 => Self::RemoveDefaultAcl { path },
            6 => Self::RemoveAcl { path },
            7 => Self::SetAcl { path, entries: decode_entries(r)? },
            8 => Self::SetStoragePolicy { path, policy: r.u8()? },
            _ => return Err(malformed),
        })
    }
}

fn decode_space(r: &mut Reader<'_>) -> Decoded<XAttrSpace> {
    let malformed = r.malformed("a known space of extended attributes");
    XAttrSpace::from_number(r.u8()?).ok_or(malformed)
}

/// Appends an extended attribute, for the journal and for checkpoints.
pub(crate) fn encode_xattr(xattr: &XAttr, out: &mut Vec<u8>) {
    put_u8(out, xattr.space as u8);
    put_text(out, &xattr.name);
    put_bytes(out, &xattr.value);
}

/// Reads what [`encode_xattr`] wrote.
pub(crate) fn decode_xattr(r: &mut Reader<'_>) -> Result<XAttr, Malformed> {
    let malformed = r.malformed("an extended attribute within its limit");
    let space = decode_space(r)?;
    let name = r.text(XATTR_BYTES_MAX)?.to_owned();
    let value = r.bytes(XATTR_BYTES_MAX)?.to_vec();
    if name.len() + value.len() > XATTR_BYTES_MAX {
        return Err(malformed);
    }
    Ok(XAttr { space, name, value })
}

fn encode_entries(entries: &[AclEntry], out: &mut Vec<u8>) {
    put_u16(out, u16::try_from(entries.len()).expect("a plan bounds the entries"));
    for entry in entries {
        put_u8(out, entry.scope as u8);
        put_u8(out, entry.kind as u8);
        put_u8(out, entry.permission);
        put_text(out, &entry.name);
    }
}

fn decode_entries(r: &mut Reader<'_>) -> Decoded<Vec<AclEntry>> {
    let malformed = r.malformed("at most 32 entries of each scope");
    let count = usize::from(r.u16()?);
    if count > 2 * ACL_ENTRIES_MAX {
        return Err(malformed);
    }
    (0..count).map(|_| decode_entry(r)).collect()
}

fn decode_entry(r: &mut Reader<'_>) -> Decoded<AclEntry> {
    let malformed = r.malformed("an entry of an access control list");
    let scope = if r.bool()? { AclScope::Default } else { AclScope::Access };
    let kind = AclKind::from_number(r.u8()?).ok_or_else(|| malformed.clone())?;
    let permission = r.u8()?;
    if permission > 7 {
        return Err(malformed);
    }
    Ok(AclEntry { scope, kind, name: principal(r)?, permission })
}
