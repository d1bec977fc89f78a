//! What `stat` shows of a file or folder. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::{FileKind, FileStatus};
use fuser::{FileAttr, FileType, INodeNo};

use crate::inode_map::number_of;

/// What programs are told to read and write at once, in bytes.
const PREFERRED_IO_BYTES: u32 = 128 << 10;

/// The attributes of `status` with the ids of its owner and group.
pub(crate) fn attributes(status: &FileStatus, (uid, gid): (u32, u32)) -> FileAttr {
    let folder = is_folder(status);
    let modified = time(status.modified_ns);
    FileAttr {
        ino: INodeNo(number_of(status.inode)),
        size: status.length,
        blocks: status.length.div_ceil(512),
        atime: if status.accessed_ns == 0 { modified } else { time(status.accessed_ns) },
        mtime: modified,
        ctime: time(status.changed_ns),
        crtime: UNIX_EPOCH,
        kind: if folder { FileType::Directory } else { FileType::RegularFile },
        perm: (status.mode & 0o7777) as u16,
        nlink: status.links,
        uid,
        gid,
        rdev: 0,
        blksize: PREFERRED_IO_BYTES,
        flags: 0,
    }
}

pub(crate) fn is_folder(status: &FileStatus) -> bool {
    status.kind == FileKind::Folder as i32
}

/// Nanoseconds since 1970 as the kernel's time; before 1970 as well.
fn time(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    if nanoseconds >= 0 { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance }
}

/// The kernel's time as nanoseconds since 1970, held within what 64 bits can say (1677 to 2262).
pub(crate) fn nanoseconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_to_the_nanosecond_before_and_after_1970() {
        for ns in [0, 1, -1, 1_700_000_000_123_456_789, -999_999_999_999, i64::MAX, i64::MIN + 1] {
            assert_eq!(nanoseconds(time(ns)), ns);
        }
    }

    #[test]
    fn a_file_is_shown_with_its_size_links_and_bits() {
        let status = FileStatus {
            inode: 20_000,
            kind: FileKind::File as i32,
            length: 1025,
            mode: 0o100_640,
            modified_ns: 5,
            links: 2,
            ..FileStatus::default()
        };
        let shown = attributes(&status, (7, 8));
        assert_eq!((shown.ino.0, shown.size, shown.blocks), (20_000, 1025, 3));
        assert_eq!((shown.perm, shown.nlink, shown.uid, shown.gid), (0o640, 2, 7, 8));
        assert_eq!((shown.kind, shown.atime), (FileType::RegularFile, shown.mtime));
    }
}
