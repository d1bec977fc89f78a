//! A file system whose power can be cut: ext4 on a loop image, shut down without a flush.
//!
//! `EXT4_IOC_SHUTDOWN` with "no log flush" drops everything that was not synced, as a power cut does. Needs root and
//! loop devices; [`Disk::new`] says why not where it can't.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One ext4 file system in an image file, mounted under its own folder.
pub struct Disk {
    folder: tempfile::TempDir,
    mounted: bool,
}

impl Disk {
    /// Makes and mounts an image of `mib` MiB. The error says what this machine lacks.
    pub fn new(mib: u64) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("granary-disk-").tempdir();
        let folder = folder.map_err(|error| format!("no folder: {error}"))?;
        let disk = Self { folder, mounted: false };
        let image = std::fs::File::create(disk.image()).map_err(|error| error.to_string())?;
        image.set_len(mib << 20).map_err(|error| error.to_string())?;
        std::fs::create_dir(disk.root()).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", text(&disk.image())])?;
        let mut disk = disk;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// Where the file system is mounted.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Mounts the image again after a cut.
    pub fn mount(&mut self) -> Result<(), String> {
        run("mount", &["-o", "loop", text(&self.image()), text(&self.root())])?;
        self.mounted = true;
        Ok(())
    }

    /// Cuts the power: what was not synced is gone. Nothing may hold files open when this returns to mount again.
    pub fn cut(&mut self) {
        shutdown(&self.root()).expect("EXT4_IOC_SHUTDOWN");
    }

    /// Unmounts after a cut.
    pub fn unmount(&mut self) {
        run("umount", &[text(&self.root())]).expect("umount");
        self.mounted = false;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted && run("umount", &["-l", text(&self.root())]).is_err() {
            eprintln!("could not unmount {}", self.root().display());
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// `ioctl(folder, EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH)`.
fn shutdown(root: &Path) -> std::io::Result<()> {
    /// `_IOR('X', 125, __u32)` of linux/ext4.h.
    const EXT4_IOC_SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
    const NO_LOG_FLUSH: u32 = 2;
    let folder = std::fs::File::open(root)?;
    // SAFETY: the opcode reads one u32 through the pointer that Setter passes, and writes nothing.
    unsafe {
        let cut = rustix::ioctl::Setter::<EXT4_IOC_SHUTDOWN, u32>::new(NO_LOG_FLUSH);
        rustix::ioctl::ioctl(folder.as_fd(), cut)?;
    }
    Ok(())
}
