//! Runs `granary` in a folder of its own, with none of the caller's settings, and keeps clusters for tests.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Ran {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// It succeeded.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// It ended with this code and said this on standard error.
    pub fn failed(self, code: i32, said: &str) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(said), "{said:?} is not in {:?}", self.err);
        self
    }
}

/// The binary in a folder of its own.
pub struct Home {
    pub dir: TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("granary-cli-").tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_granary"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GRANARY_") {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.dir.path()).env_remove("XDG_CONFIG_HOME");
        command.current_dir(self.dir.path()).args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"")
    }

    /// Runs with this on standard input.
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A command that does not read its input closes it.
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A running `granary up` on free ports.
pub struct Up {
    child: Child,
    pub addresses: serde_json::Value,
}

impl Up {
    /// Starts it in this folder and waits until it is ready.
    pub fn start(home: &Home, dir: &Path, more: &[&str]) -> Self {
        let dir = dir.to_str().unwrap();
        let mut args = vec!["up", "--dir", dir, "--port-base", "0", "--json"];
        args.extend(more);
        let log = std::fs::File::create(home.path("up.log")).unwrap();
        let mut command = home.command(&args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let mut text = String::new();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            text.push_str(&line);
            if line == "}" {
                let addresses = serde_json::from_str(&text).unwrap();
                return Self { child, addresses };
            }
        }
        // Its output has ended: so has it.
        let status = child.wait().unwrap();
        let said = std::fs::read_to_string(home.path("up.log")).unwrap();
        panic!("granary up ended with {status} before it was ready: {said}");
    }

    /// One of its addresses.
    pub fn addr(&self, name: &str) -> &str {
        self.addresses[name].as_str().unwrap()
    }

    /// SIGTERM; gives the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// A cluster and a way to talk to it.
pub struct Cluster {
    pub home: Home,
    pub up: Up,
}

impl Cluster {
    pub fn start(datanodes: usize) -> Self {
        let home = Home::new();
        let up = Up::start(&home, &home.path("cluster"), &["--datanodes", &datanodes.to_string()]);
        Self { home, up }
    }

    fn with_cluster<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["--cluster", self.up.addr("namenode")];
        all.extend(args);
        all
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.home.run(&self.with_cluster(args))
    }

    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        self.home.run_with(&self.with_cluster(args), input)
    }
}
