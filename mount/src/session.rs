//! A mount that is under way, and its end.
//!
//! One thread takes the kernel's requests. The mount ends when [`Session::unmount`] is called, or
//! when somebody unmounts it from outside; in either case everything that was written is on stable
//! storage before the call returns without an error. If programs still have files open, the mount
//! point is freed all the same: they get errors from then on.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::{Code, Error, Fs, Result};
use fuser::{Config, MountOption, SessionACL, SessionUnmounter};
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;

use crate::Options;
use crate::names::Mounted;
use crate::ops::Adapter;

/// How the source of every mount begins in the system's table; the NameNode's address follows.
const SOURCE_PREFIX: &str = "granary@";

/// A mounted file system. Dropping it leaves the mount in place until the process ends: call
/// [`Session::unmount`].
#[derive(Debug)]
pub struct Session {
    dir: PathBuf,
    mounted: Arc<Mounted>,
    /// Taken by the first one to unmount.
    unmounter: Option<SessionUnmounter>,
    ended: watch::Receiver<Option<std::result::Result<(), String>>>,
}

/// Mounts the file system on an existing folder. Requests are answered on `runtime`.
///
/// Errors name the folder, and what to do where that is known: no `/dev/fuse`, no permission, not an
/// empty folder, or one where the file system is mounted already.
pub fn mount(fs: Fs, runtime: Runtime, dir: &Path, options: Options) -> Result<Session> {
    let dir = check_folder(dir)?;
    let config = fuse_config(&fs, &options);
    let read_ahead_bytes = options.read_ahead_bytes;
    let mounted = Arc::new(Mounted::new(fs, runtime, options));
    let adapter = Adapter::new(mounted.clone());
    let mut session =
        fuser::Session::new(adapter, &dir, &config).map_err(|error| mount_error(&dir, &error))?;
    let unmounter = Some(session.unmount_callable());
    let (end, ended) = watch::channel(None);
    let spawned = std::thread::Builder::new().name("mount".to_owned()).spawn(move || {
        let result = session.run().map_err(|error| error.to_string());
        end.send_replace(Some(result));
    });
    spawned.map_err(|error| Error::io("start the mount's thread", &error))?;
    set_read_ahead(&dir, read_ahead_bytes);
    tracing::info!(dir = %dir.display(), "mounted");
    Ok(Session { dir, mounted, unmounter, ended })
}

impl Session {
    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns when the mount has ended, by whoever. Can be waited for beside a signal.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error means that the thread is gone without a word: that is an end as well.
        let _gone = ended.wait_for(Option::is_some).await.is_err();
    }

    /// Makes everything durable that was written, unmounts, and waits for the end:
    /// `unmount_timeout_ms` for each.
    pub async fn unmount(mut self) -> Result<()> {
        let finished = self.finish().await;
        if self.take_away().await? == Gone::Wholly {
            // The kernel may take a moment to say goodbye.
            let goodbye = tokio::time::timeout(self.timeout(), self.ended()).await;
            if goodbye.is_err() {
                tracing::warn!(dir = %self.dir.display(), "the kernel does not end the mount");
            }
        } else {
            tracing::warn!(dir = %self.dir.display(), "unmounted while programs have files open");
        }
        // What was written between the first pass and the end.
        let late = self.finish().await;
        tracing::info!(dir = %self.dir.display(), "unmounted");
        finished.and(late)
    }

    /// Waits until somebody unmounts, and makes everything durable that was written.
    pub async fn join(self) -> Result<()> {
        self.ended().await;
        self.finish().await?;
        tracing::info!(dir = %self.dir.display(), "unmounted");
        let result = self.ended.borrow().clone();
        match result {
            Some(Ok(())) => Ok(()),
            Some(Err(why)) => Err(self.error(Code::Io, &why)),
            None => Err(self.error(Code::Internal, "its thread ended without a word")),
        }
    }

    async fn finish(&self) -> Result<()> {
        match tokio::time::timeout(self.timeout(), self.mounted.finish_all()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(errno)) => {
                let why = io::Error::from_raw_os_error(errno.code());
                Err(self.error(Code::Io, &format!("a file could not be closed: {why}")))
            }
            Err(_) => Err(self.error(Code::Timeout, "files could not be closed in time")),
        }
    }

    /// Takes the mount out of the system's tree, off the async threads: `umount` waits for the
    /// kernel, which may wait for requests that the runtime answers.
    async fn take_away(&mut self) -> Result<Gone> {
        let Some(mut unmounter) = self.unmounter.take() else { return Ok(Gone::Wholly) };
        let dir = self.dir.clone();
        let task = tokio::task::spawn_blocking(move || match unmounter.unmount() {
            Ok(()) => Ok(Gone::Wholly),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                detach(&dir).map(|()| Gone::InUse)
            }
            Err(error) => Err(error),
        });
        match task.await {
            Ok(Ok(gone)) => Ok(gone),
            Ok(Err(error)) => Err(Error::io(format!("unmount {}", self.dir.display()), &error)),
            Err(_) => Err(self.error(Code::Internal, "the thread that unmounts ended")),
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.mounted.options.unmount_timeout_ms)
    }

    fn error(&self, code: Code, why: &str) -> Error {
        Error::new(code, format!("mount on {}: {why}", self.dir.display()))
    }
}

/// What is left of a mount after `umount`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// Nothing.
    Wholly,
    /// Programs still have files open; the kernel lets go of them when this process ends.
    InUse,
}

/// Takes a mount that is in use out of the tree.
fn detach(dir: &Path) -> io::Result<()> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that outlives the call.
    match unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn check_folder(dir: &Path) -> Result<PathBuf> {
    let what = || format!("mount on {}", dir.display());
    let found = dir.canonicalize().and_then(|real| Ok((real.metadata()?.is_dir(), real)));
    match found {
        Ok((true, real)) => check_unused(&real).map(|()| real),
        Ok((false, _)) => Err(Error::new(Code::NotFolder, format!("{}: not a folder", what()))),
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => Err(Error::new(
            Code::Unavailable,
            format!("{}: a mount whose process has died is there: `umount` it first", what()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::new(Code::NotFound, format!("{}: there is no such folder: make it", what())))
        }
        Err(error) => Err(Error::io(what(), &error)),
    }
}

/// Refuses a folder whose contents a mount would hide.
fn check_unused(dir: &Path) -> Result<()> {
    let refused = |code, why| Err(Error::new(code, format!("mount on {}: {why}", dir.display())));
    if mount_table().as_deref().and_then(|table| found(table, dir)).is_some_and(|m| m.granary) {
        return refused(Code::AlreadyExists, "a Granary file system is mounted there already");
    }
    let what = || format!("mount on {}", dir.display());
    let mut entries = std::fs::read_dir(dir).map_err(|error| Error::io(what(), &error))?;
    if entries.next().is_some() {
        let why =
            "the folder is not empty, and the mount would hide what is in it: take an empty one";
        return refused(Code::NotEmpty, why);
    }
    Ok(())
}

fn fuse_config(fs: &Fs, options: &Options) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(format!("{SOURCE_PREFIX}{}", fs.config().namenode)),
        MountOption::Subtype("granary".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
        if options.read_only { MountOption::RO } else { MountOption::RW },
    ];
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config
}

fn mount_error(dir: &Path, error: &io::Error) -> Error {
    const NEEDS: &str = "mounting needs root and a /dev/fuse that may be opened, \
                         or fusermount3 from the package fuse3";
    let what = format!("mount on {}", dir.display());
    if !Path::new("/dev/fuse").exists() {
        let why = "there is no /dev/fuse: load the kernel's module fuse, or give the container the device";
        return Error::new(Code::Unsupported, format!("{what}: {why}"));
    }
    match error.kind() {
        // The folder is there; what was not found is fusermount3, which is tried when root's way is closed.
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            Error::new(Code::PermissionDenied, format!("{what}: {NEEDS}"))
        }
        _ => Error::io(what, error),
    }
}

/// Raises the kernel's read-ahead for this mount, which starts at 128 KiB. Needs root; without it
/// sequential reads come in smaller requests, and are read ahead by the mount alone.
fn set_read_ahead(dir: &Path, bytes: u64) {
    let Some(table) = mount_table() else { return };
    let Some(Found { device, .. }) = found(&table, dir) else { return };
    let file = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = std::fs::write(&file, (bytes / 1024).to_string()) {
        tracing::debug!(file, %error, "the kernel's read-ahead stays as it is");
    }
}

/// The system's table of mounts.
fn mount_table() -> Option<String> {
    std::fs::read_to_string("/proc/self/mountinfo").ok()
}

/// A mount in the system's table.
#[derive(Debug, PartialEq, Eq)]
struct Found<'a> {
    /// `major:minor`.
    device: &'a str,
    /// One of ours.
    granary: bool,
}

/// The last mount on `dir` in a table like `/proc/self/mountinfo`.
fn found<'a>(table: &'a str, dir: &Path) -> Option<Found<'a>> {
    table.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let (device, _root, target) = (fields.next()?, fields.next()?, fields.next()?);
        let mut source = fields.skip_while(|field| *field != "-").skip(1);
        let (kind, source) = (source.next()?, source.next()?);
        // The kind is `fuse`, and `fuse.granary` by way of fusermount3.
        let granary = kind.starts_with("fuse") && source.starts_with(SOURCE_PREFIX);
        let found = Found { device, granary };
        (unescape(target) == dir.as_os_str().as_bytes()).then_some(found)
    })
}

/// The table has spaces, tabs, newlines and backslashes as `\NNN` in octal.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if byte == b'\\' => {
                out.push(code);
                rest = &tail[3..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_on_a_folder_is_the_last_one_there() {
        let table = "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
                     90 22 0:50 / /mnt/a\\040b rw,nosuid - ext4 /dev/sdb1 rw\n\
                     91 22 0:51 / /mnt/a\\040b rw,nosuid shared:2 - fuse granary@h:1 rw\n\
                     broken line\n";
        let ours = Found { device: "0:51", granary: true };
        assert_eq!(found(table, Path::new("/mnt/a b")), Some(ours));
        assert_eq!(found(table, Path::new("/")), Some(Found { device: "8:1", granary: false }));
        assert_eq!(found(table, Path::new("/mnt")), None);
    }

    #[test]
    fn a_folder_that_cannot_be_mounted_on_is_refused_by_name() {
        let missing = check_folder(Path::new("/no/such/folder")).unwrap_err();
        assert!(missing.code == Code::NotFound && missing.message.contains("/no/such/folder"));
        let file = check_folder(Path::new("/proc/self/exe")).unwrap_err();
        assert_eq!(file.code, Code::NotFolder);
        let full = check_folder(Path::new("/proc/self")).unwrap_err();
        assert!(full.code == Code::NotEmpty && full.message.contains("not empty"), "{full}");
    }
}
