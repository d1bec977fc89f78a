//! What the tests run: the fetched programs, the compiled Java sources of this folder, and how a process is watched.
//!
//! A process that is started here is ended when its guard is dropped, and has a deadline: nothing outlives a test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tests::cluster::{Cluster, Options};

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Minutes on two cores.
    Short,
    /// Everything.
    All,
}

/// Where the programs are.
#[derive(Debug)]
pub struct Tools {
    /// How much is run.
    pub extent: Extent,
    /// The folder of Spark with Hadoop's client 3.5.0.
    client: PathBuf,
    /// The folder of the jars of HDFS 2.7.3.
    reference: PathBuf,
    /// A Python with the packages that the scripts need.
    pub python: PathBuf,
    /// The folder of libhdfs; empty if there is none.
    pub libhdfs: PathBuf,
    /// The Java that runs the programs.
    pub java_home: PathBuf,
    /// Compiled classes and configuration.
    built: PathBuf,
}

/// The programs, fetched and compiled at the first call; `None`, and the reason on standard output, if they cannot be
/// had here.
pub fn tools() -> Option<&'static Tools> {
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    match TOOLS.get_or_init(find) {
        Ok(tools) => Some(tools),
        Err(reason) => {
            println!("skipped, because {reason}");
            None
        }
    }
}

/// This folder of the sources.
pub fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hadoop")
}

fn find() -> Result<Tools, String> {
    let extent = match std::env::var("GRANARY_TEST_HADOOP").as_deref() {
        Ok("short") => Extent::Short,
        Ok("all") => Extent::All,
        _ => {
            let how = "./check hadoop runs Hadoop's clients, which it fetches at first";
            return Err(format!("GRANARY_TEST_HADOOP is neither short nor all: {how}"));
        }
    };
    let version = said(Command::new("javac").arg("-version"))
        .map_err(|error| format!("no Java compiler of version 17 or newer is here: {error}"))?;
    let number = version.trim().trim_start_matches("javac ").split('.').next().unwrap_or_default();
    if number.parse::<u32>().is_ok_and(|number| number < 17) {
        return Err(format!("{} is older than Java 17", version.trim()));
    }
    said(Command::new("python3").arg("--version"))
        .map_err(|error| format!("no Python 3: {error}"))?;
    // From here on a failure is a failure, not a reason to skip.
    let fetched = said(&mut Command::new(here().join("fetch"))).expect("tests/hadoop/fetch");
    let told = |name: &str| {
        let line = fetched.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        PathBuf::from(line.unwrap_or_else(|| panic!("fetch did not tell {name}: {fetched}")))
    };
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hadoop");
    let tools = Tools {
        extent,
        client: told("client"),
        reference: told("reference"),
        python: told("python"),
        libhdfs: told("libhdfs"),
        java_home: told("java"),
        built,
    };
    tools.build().expect("compile the Java sources");
    Ok(tools)
}

impl Tools {
    /// Spark's folder.
    pub fn spark_home(&self) -> PathBuf {
        self.client.join("deps")
    }

    /// The folder with Spark's Python package.
    pub fn spark_python(&self) -> &Path {
        &self.client
    }

    /// Compiles `client/` for Hadoop 3.5.0 and for 2.7.3 as far as it goes there, `messages/` for 3.5.0, and
    /// `reference/` for 2.7.3.
    fn build(&self) -> Result<(), String> {
        let old: Vec<PathBuf> = ["Differences", "Mask", "Shell", "Side"]
            .map(|class| here().join(format!("client/{class}.java")))
            .into_iter()
            .chain(sources("reference"))
            .collect();
        let new = ["client", "messages"].map(sources).concat();
        compile(&self.jars_of_client(), &new, &self.built.join("client"))?;
        compile(&self.jars_of_reference(), &old, &self.built.join("reference"))?;
        let write = |name: &str, text: &str| {
            let file = self.built.join(name);
            std::fs::create_dir_all(file.parent().expect("a folder"))
                .and_then(|()| std::fs::write(&file, text))
                .map_err(|error| format!("{}: {error}", file.display()))
        };
        // What the client would log is not part of its answers.
        write("client/log4j2.properties", "rootLogger.level = off\n")?;
        write("reference/log4j.properties", "log4j.rootLogger=OFF\n")?;
        // The servers look for the pages that they would show.
        write("reference/webapps/hdfs/WEB-INF/web.xml", "<web-app/>\n")?;
        write("reference/webapps/datanode/WEB-INF/web.xml", "<web-app/>\n")
    }

    /// The class path of Hadoop's client 3.5.0.
    pub fn jars_of_client(&self) -> String {
        let jars = self.client.join("deps/jars");
        let wanted = ["hadoop-client-", "slf4j-api-", "log4j-", "commons-lang3-", "commons-cli-"];
        let names = std::fs::read_dir(&jars).expect("the client's jars");
        let names = names.map(|entry| entry.expect("an entry").path());
        let is_wanted = |path: &PathBuf| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            wanted.iter().any(|start| name.starts_with(start))
        };
        let found: Vec<String> =
            names.filter(is_wanted).map(|path| path.to_string_lossy().into_owned()).collect();
        found.join(":")
    }

    fn jars_of_reference(&self) -> String {
        format!("{}/*", self.reference.display())
    }

    /// A JVM with Hadoop's client 3.5.0 and the classes of `client/` and `messages/`.
    pub fn java(&self) -> Command {
        let mut java = Command::new("java");
        let path = format!("{}:{}", self.built.join("client").display(), self.jars_of_client());
        java.args(["-XX:TieredStopAtLevel=1", "-Xmx1g", "-cp"]).arg(path);
        // The names of local files are UTF-8 then.
        java.env("LC_ALL", "C.UTF-8");
        java
    }

    /// A JVM with everything of 2.7.3.
    pub fn java_of_reference(&self) -> Command {
        let mut java = Command::new("java");
        let path =
            format!("{}:{}", self.built.join("reference").display(), self.jars_of_reference());
        java.args(["-XX:TieredStopAtLevel=1", "-Xmx1g"]);
        for package in ["java.lang", "java.nio", "sun.nio.ch"] {
            java.args(["--add-opens", &format!("java.base/{package}=ALL-UNNAMED")]);
        }
        java.args(["--add-exports", "java.security.jgss/sun.security.krb5=ALL-UNNAMED"]);
        java.arg("-cp").arg(path).env("LC_ALL", "C.UTF-8");
        java
    }
}

fn sources(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(here().join(folder)).expect("Java sources");
    entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "java"))
        .collect()
}

fn compile(jars: &str, sources: &[PathBuf], into: &Path) -> Result<(), String> {
    let mut javac = Command::new("javac");
    javac.args(["-nowarn", "-proc:none", "-cp", jars, "-d"]).arg(into).args(sources);
    said(&mut javac).map(|_| ())
}

/// What a short command prints; its standard error is the error.
fn said(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{:?}: {}: {}", command.get_program(), output.status, complaint.trim()))
}

/// A started process; dropping it kills it.
pub struct Running(pub Child);

impl Running {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Waits for its end; panics after `limit`.
    pub async fn finish(mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait().expect("wait") {
                return status;
            }
            assert!(Instant::now() < deadline, "process {} runs after {limit:?}", self.0.id());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.0.kill().expect("kill");
            self.0.wait().expect("reap");
        }
    }
}

/// The groups of the test's users, `user=group,group`, as both clusters are told them.
pub const GROUPS: [&str; 4] =
    ["root=root,supergroup", "alice=alice,users", "bob=bob,users", "carol=carol"];

/// A cluster with `datanodes` DataNodes and the test's users; `root` is its superuser, as the user that runs HDFS is.
pub async fn granary(datanodes: usize) -> Cluster {
    let namenode =
        format!("superuser = \"root\"\ngroups = {GROUPS:?}\nlease_soft_limit_ms = 60000\n");
    Cluster::start(Options { datanodes, namenode, ..Options::default() }).await
}

/// Where Hadoop's clients find a cluster.
pub fn uri(cluster: &Cluster) -> String {
    format!("hdfs://{}", cluster.namenode().told("hadoop"))
}
