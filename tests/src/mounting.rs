//! `granary mount` as a process of its own, on a folder of a test, and work on it with deadlines.
//!
//! Dropping a [`Mount`] ends it, also when the test panics: SIGTERM, SIGKILL if that is not heard, and `umount -l` for
//! what is left of it. Work on a mount goes through [`within`]: a file system that hangs fails the test by name.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::cluster::granary;

/// How long a mount may take to say that it is there, and to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether this machine lets the test mount at all; says why not.
pub fn can_mount() -> bool {
    if !rustix::process::geteuid().is_root() {
        println!("skipped, because mounting needs root");
        return false;
    }
    let opened = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    if let Err(error) = opened {
        println!("skipped, because /dev/fuse cannot be opened: {error}");
        return false;
    }
    true
}

/// `granary mount DIR` with these options, not started yet.
fn command(namenode: &str, dir: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(granary());
    command.args(["mount", "--cluster", namenode]).args(options).arg(dir);
    command.env("GRANARY_LOG", "info").stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::piped());
    command
}

/// What `granary mount` says on a folder where it must not succeed, and its exit code.
pub fn refusal(namenode: &str, dir: &Path) -> (Option<i32>, String) {
    let child = command(namenode, dir, &[]).spawn().expect("start granary mount");
    // Ends it if it mounts after all.
    let mut mount = Mount { child, dir: dir.to_owned(), said: mpsc::channel().1 };
    mount.said = listen(&mut mount.child);
    let (status, said) = mount.until_ended();
    if status.is_some_and(|status| !status.success()) {
        // What is mounted there now is somebody else's.
        mount.dir.clear();
    }
    (status.and_then(|status| status.code()), said.join("\n"))
}

/// A running `granary mount`.
pub struct Mount {
    child: Child,
    dir: PathBuf,
    /// Lines of its standard error.
    said: mpsc::Receiver<String>,
}

impl Mount {
    /// Mounts the file system of the NameNode at `namenode` on `dir`, which is made, and waits until it is there.
    pub fn start(namenode: &str, dir: &Path, options: &[&str]) -> Self {
        std::fs::create_dir_all(dir).expect("folder to mount on");
        let dir = dir.canonicalize().expect("the folder's real path");
        let child = command(namenode, &dir, options).spawn().expect("start granary mount");
        let mut mount = Self { child, dir, said: mpsc::channel().1 };
        mount.said = listen(&mut mount.child);
        let mut before = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match mount.said.recv_timeout(left) {
                Ok(line) if line.starts_with("mounted on ") => return mount,
                Ok(line) => before.push(line),
                Err(why) => panic!("granary mount: {why}; it said:\n{}", before.join("\n")),
            }
        }
    }

    /// A path below the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// SIGTERM, and waits for the end. Whether it ended well, and what it said since it was there.
    pub fn terminate(mut self) -> (bool, String) {
        self.signal();
        let (status, said) = self.until_ended();
        (status.is_some_and(|status| status.success()), said.join("\n"))
    }

    /// Whether the system's table has a mount on the folder.
    pub fn is_mounted(&self) -> bool {
        is_mounted(&self.dir)
    }

    fn signal(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
    }

    /// Its end, if it ends in time, and what it says until then.
    fn until_ended(&mut self) -> (Option<ExitStatus>, Vec<String>) {
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(line) => said.push(line),
                Err(mpsc::RecvTimeoutError::Timeout) => return (None, said),
                // Its standard error was closed, as its end does.
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return (Some(self.child.wait().expect("reap granary mount")), said);
                }
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal();
            if self.until_ended().0.is_none() {
                self.child.kill().expect("kill granary mount");
                self.child.wait().expect("reap granary mount");
            }
        }
        if is_mounted(&self.dir) {
            let status = Command::new("umount").arg("-l").arg(&self.dir).status();
            println!("umount -l {}: {status:?}", self.dir.display());
        }
    }
}

/// Whether the system's table has a mount on `dir`, a real path without spaces.
pub fn is_mounted(dir: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mounts").expect("the table of mounts");
    table.lines().any(|line| line.split(' ').nth(1) == dir.to_str())
}

/// Does blocking work on a thread of its own; panics with `what` if it takes longer than `limit`.
pub async fn within<T: Send + 'static>(
    what: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, result) = tokio::sync::oneshot::channel();
    // Not the runtime's threads: its end would wait for work that hangs.
    std::thread::spawn(move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // Nobody waits any more: the test has failed already.
        let _late = done.send(result).is_err();
    });
    let Ok(result) = tokio::time::timeout(limit, result).await else {
        panic!("not within {limit:?}: {what}");
    };
    match result.expect("the thread sends its result") {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Reads the lines of a child's standard error as they come; echoes them, for a test that fails.
fn listen(child: &mut Child) -> mpsc::Receiver<String> {
    let (send, said) = mpsc::channel();
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            println!("granary mount: {line}");
            // Nobody may listen any more; it is read on all the same, so that its pipe never fills.
            let _unheard = send.send(line).is_err();
        }
    });
    said
}
