//! Owners' names, as the file system keeps them, to this machine's user and group ids, and back.
//!
//! The system's user database is asked (files, LDAP or whatever it is set up for) off the async
//! threads, and its answers are kept for a while in a bounded cache. A name that this machine does
//! not know is nobody's. An id without a name is kept as `uid-N` or `gid-N`, which this module
//! reads back as the same number.
#![allow(clippy::disallowed_methods, reason = "a shell: cached answers age by the clock")]

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The id of an owner whom this machine does not know.
const NOBODY: u32 = 65534;
/// How long an answer of the user database is kept.
const KEEP: Duration = Duration::from_secs(300);
/// Answers that are kept; all are dropped when there would be more.
const ANSWERS_MAX: usize = 4096;
/// Bytes of one entry of the user database (a group's members) at most.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Users or groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    User,
    Group,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::User => "uid-",
            Self::Group => "gid-",
        }
    }
}

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    answers: Mutex<HashMap<(Kind, String), (u32, Instant)>>,
}

impl Owners {
    /// The ids of an owner and a group.
    pub(crate) async fn ids(&self, owner: &str, group: &str) -> (u32, u32) {
        (self.id(Kind::User, owner).await, self.id(Kind::Group, group).await)
    }

    async fn id(&self, kind: Kind, name: &str) -> u32 {
        if let Some(id) = self.kept(kind, name) {
            return id;
        }
        let asked = name.to_owned();
        let found = tokio::task::spawn_blocking(move || find_id(kind, &asked)).await;
        let id = found.ok().flatten().unwrap_or(NOBODY);
        let mut answers = self.answers.lock().expect("nobody panics while holding the answers");
        if answers.len() >= ANSWERS_MAX {
            answers.clear();
        }
        answers.insert((kind, name.to_owned()), (id, Instant::now()));
        id
    }

    fn kept(&self, kind: Kind, name: &str) -> Option<u32> {
        let answers = self.answers.lock().expect("nobody panics while holding the answers");
        let (id, since) = answers.get(&(kind, name.to_owned()))?;
        (since.elapsed() < KEEP).then_some(*id)
    }

    /// The name under which the file system keeps an id. Asked rarely: on chown.
    pub(crate) async fn name(&self, kind: Kind, id: u32) -> String {
        let found = tokio::task::spawn_blocking(move || find_name(kind, id)).await;
        found.ok().flatten().unwrap_or_else(|| format!("{}{id}", kind.prefix()))
    }
}

/// The id of a name: from the user database, or the number that the name spells.
fn find_id(kind: Kind, name: &str) -> Option<u32> {
    let c_name = CString::new(name).ok()?;
    let found = match kind {
        // SAFETY: the name is a C string; the rest is as `entry` describes.
        Kind::User => entry(
            |out, buffer, length, result| unsafe {
                libc::getpwnam_r(c_name.as_ptr(), out, buffer, length, result)
            },
            |user: &libc::passwd| user.pw_uid,
        ),
        // SAFETY: the name is a C string; the rest is as `entry` describes.
        Kind::Group => entry(
            |out, buffer, length, result| unsafe {
                libc::getgrnam_r(c_name.as_ptr(), out, buffer, length, result)
            },
            |group: &libc::group| group.gr_gid,
        ),
    };
    found.or_else(|| name.strip_prefix(kind.prefix()).unwrap_or(name).parse().ok())
}

/// The name of an id, from the user database.
fn find_name(kind: Kind, id: u32) -> Option<String> {
    let name = match kind {
        // SAFETY: as `entry` describes; the name is read before the buffer goes.
        Kind::User => entry(
            |out, buffer, length, result| unsafe {
                libc::getpwuid_r(id, out, buffer, length, result)
            },
            |user: &libc::passwd| unsafe { CStr::from_ptr(user.pw_name) }.to_owned(),
        ),
        // SAFETY: as `entry` describes; the name is read before the buffer goes.
        Kind::Group => entry(
            |out, buffer, length, result| unsafe {
                libc::getgrgid_r(id, out, buffer, length, result)
            },
            |group: &libc::group| unsafe { CStr::from_ptr(group.gr_name) }.to_owned(),
        ),
    };
    name?.into_string().ok().filter(|name| !name.is_empty())
}

/// Calls one of the reentrant look-ups of the user database with a buffer that grows as it asks
/// for, and reads its answer while the buffer, into which the answer points, is there. `ask` gets
/// the record to fill, the buffer and its length, and where to put the record's address, null if
/// there is none.
fn entry<T, R>(
    ask: impl Fn(*mut T, *mut libc::c_char, usize, *mut *mut T) -> libc::c_int,
    read: impl FnOnce(&T) -> R,
) -> Option<R> {
    let mut length = 1024;
    loop {
        let mut buffer = vec![0u8; length];
        let mut record = MaybeUninit::<T>::uninit();
        let mut result: *mut T = ptr::null_mut();
        match ask(record.as_mut_ptr(), buffer.as_mut_ptr().cast(), length, &raw mut result) {
            0 if result.is_null() => return None,
            // SAFETY: success with a result that is not null means that the record was filled.
            0 => return Some(read(unsafe { record.assume_init_ref() })),
            libc::EINTR => {}
            libc::ERANGE if length < ENTRY_BYTES_MAX => length *= 4,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_numbers_speak_for_themselves() {
        assert_eq!(find_id(Kind::User, "root"), Some(0));
        assert_eq!(find_id(Kind::Group, "root"), Some(0));
        assert_eq!(find_name(Kind::User, 0).as_deref(), Some("root"));
        assert_eq!(find_name(Kind::User, 3_999_999_999), None);
        assert_eq!(find_id(Kind::User, "uid-1234567"), Some(1_234_567));
        assert_eq!(find_id(Kind::Group, "gid-7654321"), Some(7_654_321));
        assert_eq!(find_id(Kind::User, "no such user"), None);
        assert_eq!(find_id(Kind::User, "nul\0nul"), None);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_unknown_are_nobody_and_ids_come_back() {
        let owners = Owners::default();
        assert_eq!(owners.ids("root", "no such group").await, (0, NOBODY));
        assert_eq!(owners.kept(Kind::Group, "no such group"), Some(NOBODY));
        let name = owners.name(Kind::User, 3_999_999_999).await;
        assert_eq!(owners.ids(&name, "root").await, (3_999_999_999, 0));
    }
}
