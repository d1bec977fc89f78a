//! A cluster of real processes in a temporary folder: one `granary` per role, killed and started at will.
//!
//! Every port is chosen free at the first start and kept over restarts, as an operator's would be. Dropping the
//! cluster ends the processes that it started, and no others.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use client::{Config, Fs};
use proto::FsPath;

/// The `granary` binary that was built beside the test's own.
pub fn granary() -> PathBuf {
    let own = std::env::current_exe().expect("the test's own path");
    // target/<profile>/deps/<test>, or target/<profile>/<program>.
    let mut folders = own.ancestors().skip(1).take(2);
    let binary = folders.find_map(|folder| Some(folder.join("granary")).filter(|b| b.is_file()));
    binary.expect("granary beside the tests: cargo build -p cli --bin granary")
}

/// One running role.
pub struct Process {
    child: Child,
    /// What the role said when it was ready: `name=value` pairs.
    ready: Vec<(String, String)>,
}

impl Process {
    /// Starts `granary ROLE --config FILE` and waits for its line `ready name=value ...` on standard output.
    pub fn start(role: &str, config: &Path, log: &Path) -> Self {
        let stderr =
            std::fs::File::options().create(true).append(true).open(log).expect("log file");
        let mut child = Command::new(granary())
            .arg(role)
            .arg("--config")
            .arg(config)
            .env("GRANARY_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("start granary");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("ready "));
        let Some(ready) = ready else {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            panic!("granary {role} did not get ready; its log:\n{said}");
        };
        // Whatever else it prints is read away, so that its pipe never fills.
        std::thread::spawn(move || lines.for_each(drop));
        let pairs = ready.split_whitespace().filter_map(|word| word.split_once('='));
        let ready = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { child, ready }
    }

    /// What the role said of `name` when it was ready.
    pub fn told(&self, name: &str) -> &str {
        let found = self.ready.iter().find(|(key, _)| key == name);
        &found.unwrap_or_else(|| panic!("no {name} in {:?}", self.ready)).1
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGSTOP: it lives and does not answer.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    /// SIGHUP: it reads its configuration again.
    pub fn hang_up(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("signal");
    }

    /// SIGKILL: no destructor, no flush.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("reap");
    }

    /// SIGTERM, and waits for the end. Returns whether the process said that it ended well.
    pub fn terminate(mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
        self.child.wait().expect("reap").success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already: nothing to do.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().expect("kill");
            self.child.wait().expect("reap");
        }
    }
}

/// What a test wants to be different from the defaults.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// DataNodes; 0 means 3.
    pub datanodes: usize,
    /// kvserve nodes.
    pub kvservers: usize,
    /// Further lines of `[namenode]`.
    pub namenode: String,
    /// Further lines of `[datanode]`.
    pub datanode: String,
    /// The folder of each DataNode's one volume, if not in the cluster's own folder.
    pub volumes: Vec<PathBuf>,
    /// Where all data goes, if not to a temporary folder of its own.
    pub folder: Option<PathBuf>,
}

/// A running cluster.
pub struct Cluster {
    folder: PathBuf,
    /// Removed at the end, if the folder is the cluster's own. `GRANARY_TEST_KEEP` keeps it after a failure.
    temporary: Option<tempfile::TempDir>,
    options: Options,
    namenode_addr: String,
    namenode: Option<Process>,
    datanodes: Vec<Option<Process>>,
    kvservers: Vec<Option<Process>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // What is left behind tells what went wrong.
        if std::thread::panicking()
            && std::env::var_os("GRANARY_TEST_KEEP").is_some()
            && let Some(folder) = self.temporary.take()
        {
            println!("kept: {}", folder.keep().display());
        }
    }
}

impl Cluster {
    /// Starts a cluster and waits until all its DataNodes are known to the NameNode.
    pub async fn start(options: Options) -> Self {
        let temporary = options
            .folder
            .is_none()
            .then(|| tempfile::Builder::new().prefix("granary-test-").tempdir().expect("folder"));
        let folder = match (&temporary, &options.folder) {
            (Some(folder), _) => folder.path().to_owned(),
            (None, Some(folder)) => folder.clone(),
            (None, None) => unreachable!("one of both is there"),
        };
        std::fs::create_dir_all(&folder).expect("folder");
        let datanodes = if options.datanodes == 0 { 3 } else { options.datanodes };
        let mut cluster = Self {
            folder,
            temporary,
            namenode_addr: "127.0.0.1:0".into(),
            namenode: None,
            datanodes: (0..datanodes).map(|_| None).collect(),
            kvservers: (0..options.kvservers).map(|_| None).collect(),
            options,
        };
        cluster.start_all();
        cluster.until_alive(datanodes).await;
        cluster
    }

    /// How many DataNodes it has.
    pub fn datanodes(&self) -> usize {
        self.datanodes.len()
    }

    /// Keeps the folder after the end, and tells where it is.
    pub fn keep(&mut self) {
        if let Some(folder) = self.temporary.take() {
            println!("kept: {}", folder.keep().display());
        }
    }

    /// The folder that holds all of the cluster's data.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `host:port` of the NameNode's gRPC service.
    pub fn namenode_addr(&self) -> &str {
        &self.namenode_addr
    }

    /// A client with defaults.
    pub async fn fs(&self) -> Fs {
        self.fs_with(Config::default()).await
    }

    /// A client with these settings, but for the NameNode's address.
    pub async fn fs_with(&self, config: Config) -> Fs {
        let config = Config { namenode: self.namenode_addr.clone(), ..config };
        Fs::connect(config).await.expect("connect")
    }

    /// Waits until the NameNode sees `wanted` live DataNodes and is out of safe mode.
    pub async fn until_alive(&self, wanted: usize) {
        let fs = self.fs().await;
        crate::wait::until("DataNodes alive", Duration::from_secs(60), async || {
            let status = fs.cluster_status().await.ok()?;
            let alive = status.datanodes.iter().filter(|node| node.alive).count();
            (alive >= wanted && !status.safe_mode).then_some(())
        })
        .await;
    }

    /// The running NameNode.
    pub fn namenode(&self) -> &Process {
        self.namenode.as_ref().expect("the NameNode runs")
    }

    /// A running kvserve.
    pub fn kvserve(&self, index: usize) -> &Process {
        self.kvservers[index].as_ref().expect("the kvserve runs")
    }

    /// A running DataNode.
    pub fn datanode(&self, index: usize) -> &Process {
        self.datanodes[index].as_ref().expect("the DataNode runs")
    }

    /// The folder of a DataNode's volume.
    pub fn volume(&self, index: usize) -> PathBuf {
        let own = || self.folder.join(format!("datanode{index}"));
        self.options.volumes.get(index).cloned().unwrap_or_else(own)
    }

    /// SIGKILL to the NameNode.
    pub fn kill_namenode(&mut self) {
        self.namenode.take().expect("the NameNode runs").kill();
    }

    /// SIGKILL to a DataNode.
    pub fn kill_datanode(&mut self, index: usize) {
        self.datanodes[index].take().expect("the DataNode runs").kill();
    }

    /// SIGKILL to a kvserve.
    pub fn kill_kvserve(&mut self, index: usize) {
        self.kvservers[index].take().expect("the kvserve runs").kill();
    }

    /// SIGKILL to everything.
    pub fn kill_all(&mut self) {
        let nodes = self.kvservers.iter_mut().chain(&mut self.datanodes);
        nodes.chain([&mut self.namenode]).filter_map(Option::take).for_each(Process::kill);
    }

    /// Starts everything that was there at first.
    pub fn start_all(&mut self) {
        self.start_namenode();
        (0..self.datanodes.len()).for_each(|index| self.start_datanode(index));
        (0..self.kvservers.len()).for_each(|index| self.start_kvserve(index));
    }

    /// SIGTERM to everything, in the order in which an operator stops a cluster. True if all ended well.
    pub fn terminate(&mut self) -> bool {
        let kvservers = self.kvservers.iter_mut().filter_map(Option::take);
        let datanodes = self.datanodes.iter_mut().filter_map(Option::take);
        let all: Vec<_> = kvservers.chain(datanodes).chain(self.namenode.take()).collect();
        all.into_iter().map(Process::terminate).filter(|well| !well).count() == 0
    }

    /// Starts the NameNode, at the address it had before.
    pub fn start_namenode(&mut self) {
        let dir = self.folder.join("namenode");
        let config = format!(
            "[namenode]\ndir = {dir:?}\ngrpc_addr = \"{}\"\nhttp_addr = \"127.0.0.1:0\"\n\
             hadoop_rpc_addr = \"127.0.0.1:0\"\n{}\n",
            self.namenode_addr, self.options.namenode
        );
        let process = self.start_role("namenode", "namenode", &config);
        self.namenode_addr = process.told("grpc").to_owned();
        self.namenode = Some(process);
    }

    /// Starts a DataNode on the data it had before.
    pub fn start_datanode(&mut self, index: usize) {
        let volume = self.volume(index);
        let config = format!(
            "[datanode]\nnamenode = \"{}\"\nvolumes = [{volume:?}]\ndata_addr = \"127.0.0.1:0\"\n\
             control_addr = \"127.0.0.1:0\"\nhttp_addr = \"127.0.0.1:0\"\n\
             ipc_addr = \"127.0.0.1:0\"\n{}\n",
            self.namenode_addr, self.options.datanode
        );
        let process = self.start_role("datanode", &format!("datanode{index}"), &config);
        self.datanodes[index] = Some(process);
    }

    /// Starts a kvserve on the data it had before.
    pub fn start_kvserve(&mut self, index: usize) {
        let dir = self.folder.join(format!("kvserve{index}"));
        let config = format!(
            "[kvserve]\nnamenode = \"{}\"\ndir = {dir:?}\nredis_addr = \"127.0.0.1:0\"\n\
             grpc_addr = \"127.0.0.1:0\"\nhttp_addr = \"127.0.0.1:0\"\n",
            self.namenode_addr
        );
        let process = self.start_role("kvserve", &format!("kvserve{index}"), &config);
        self.kvservers[index] = Some(process);
    }

    fn start_role(&self, role: &str, name: &str, config: &str) -> Process {
        let file = self.folder.join(format!("{name}.toml"));
        std::fs::write(&file, config).expect("configuration");
        Process::start(role, &file, &self.folder.join(format!("{name}.log")))
    }
}

/// A path of the file system; panics on a bad one.
pub fn path(text: &str) -> FsPath {
    FsPath::parse(text).expect("a good path")
}
