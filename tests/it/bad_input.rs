//! Bad input and full disks: a clear error each, and nothing lost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use client::CreateOptions;
use proto::granary::namespace_client::NamespaceClient;
use proto::granary::{Caller, MkdirsRequest};
use proto::{Code, Error};
use tests::cluster::{Cluster, Options, granary, path};
use tests::seed::Seed;

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_break_a_rule_are_refused_by_the_namenode_itself() {
    let cluster = Cluster::start(Options { datanodes: 1, ..Options::default() }).await;
    let addr = format!("http://{}", cluster.namenode_addr());
    let mut stub = NamespaceClient::connect(addr).await.expect("connect");
    let long = format!("/{}", "n".repeat(256));
    for bad in ["/a/../b", "/a/./b", "/a\0b", "//", "a", "", &long] {
        let request = MkdirsRequest {
            caller: Some(Caller { user: "root".into(), client_id: vec![1; 16].into(), call_id: 1 }),
            path: bad.into(),
            mode: 0o755,
            create_parents: true,
            ..Default::default()
        };
        let error = Error::from(stub.mkdirs(request).await.expect_err("refused"));
        assert_eq!(error.code, Code::InvalidPath, "{bad:?}: {error:?}");
    }
    let name = format!("/{}", "n".repeat(255));
    assert!(cluster.fs().await.mkdirs(&path(&name), 0o755).await.expect("255 bytes are allowed"));
}

/// A small file system in memory, to fill up.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(mib: u64) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("granary-small-").tempdir().expect("folder");
        let size = format!("size={mib}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(folder))
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("volume")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "umount");
    }
}

fn reserve_nothing() -> String {
    "reserved_bytes = 0".into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_on_one_datanode_is_written_around() {
    let Some(disk) = SmallDisk::new(24) else {
        return println!("skipped, because tmpfs can't be mounted here");
    };
    let options =
        Options { volumes: vec![disk.root()], datanode: reserve_nothing(), ..Options::default() };
    let cluster = Cluster::start(options).await;
    let fs = cluster.fs().await;
    let bytes = Seed::from_env(20).bytes(16 << 20);
    for index in 0..4 {
        let name = path(&format!("/file-{index}"));
        let options = CreateOptions { block_bytes: 4 << 20, ..CreateOptions::default() };
        let mut file = fs.create(&name, options).await.expect("create");
        file.write(&bytes).await.expect("write");
        file.close().await.expect("close");
        assert!(fs.read_all(&name, 1 << 30).await.expect("read")[..] == bytes[..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disks_on_all_datanodes_are_a_clear_error_and_lose_nothing() {
    let disks: Vec<_> = (0..3).filter_map(|_| SmallDisk::new(24)).collect();
    if disks.len() < 3 {
        return println!("skipped, because tmpfs can't be mounted here");
    }
    let volumes = disks.iter().map(SmallDisk::root).collect();
    let options = Options { volumes, datanode: reserve_nothing(), ..Options::default() };
    let cluster = Cluster::start(options).await;
    // A DataNode takes a block only if it has room for a whole one.
    let small = client::Config { block_bytes: 4 << 20, ..client::Config::default() };
    let fs = cluster.fs_with(small).await;
    let kept = Seed::from_env(21).bytes(8 << 20);
    fs.write_all(&path("/kept"), &kept).await.expect("write");

    let mut file = fs.create(&path("/too-large"), CreateOptions::default()).await.expect("create");
    let error = loop {
        if let Err(error) = file.write(&kept).await {
            break error;
        }
        assert!(file.position() < 64 << 20, "a full disk must be told");
    };
    assert!(matches!(error.code, Code::NoSpace | Code::NotEnoughDatanodes), "{error:?}");
    file.abort().await.expect("abort");
    assert!(fs.read_all(&path("/kept"), 1 << 30).await.expect("read")[..] == kept[..]);
    // Room again, once the NameNode has had the remains deleted.
    fs.delete(&path("/too-large"), client::Recursion::No).await.expect("delete");
    tests::wait::until("room again", Duration::from_secs(30), async || {
        fs.delete(&path("/again"), client::Recursion::No).await.expect("delete");
        fs.write_all(&path("/again"), &kept[..4 << 20]).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_datanodes_than_replicas_store_what_they_can_and_no_datanode_is_a_clear_error() {
    let mut cluster = Cluster::start(Options { datanodes: 1, ..Options::default() }).await;
    let config = client::Config { retry_total_ms: 3_000, ..client::Config::default() };
    let fs = cluster.fs_with(config).await;
    fs.write_all(&path("/one"), b"one replica").await.expect("one of three is enough to go on");
    assert_eq!(&fs.read_all(&path("/one"), 100).await.expect("read")[..], b"one replica");
    let stats = fs.stats().await.expect("stats");
    assert_eq!(stats.under_replicated_blocks, 1);
    cluster.kill_datanode(0);
    let error = fs.write_all(&path("/none"), b"none").await.expect_err("nowhere to write");
    assert!(matches!(error.code, Code::NotEnoughDatanodes | Code::Unavailable), "{error:?}");
    let error = fs.read_all(&path("/one"), 100).await.expect_err("nowhere to read");
    assert_eq!(error.code, Code::BlockMissing, "{error:?}");
    cluster.start_datanode(0);
    cluster.until_alive(1).await;
    let fs = cluster.fs().await;
    assert_eq!(&fs.read_all(&path("/one"), 100).await.expect("read")[..], b"one replica");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_every_port_harms_nobody() {
    let cluster = Cluster::start(Options { kvservers: 1, ..Options::default() }).await;
    let fs = cluster.fs().await;
    fs.write_all(&path("/before"), b"before").await.expect("write");
    let mut seed = Seed::from_env(22);
    let ports = [
        cluster.namenode().told("grpc"),
        cluster.namenode().told("http"),
        cluster.namenode().told("hadoop"),
        cluster.datanode(0).told("data"),
        cluster.datanode(0).told("control"),
        cluster.datanode(0).told("http"),
        cluster.kvserve(0).told("redis"),
        cluster.kvserve(0).told("grpc"),
        cluster.kvserve(0).told("http"),
    ];
    for addr in ports {
        for round in 0..20 {
            let mut garbage = seed.bytes(3000);
            if round % 3 == 0 {
                // Lengths that promise far more than is sent.
                garbage[..8].copy_from_slice(&[0, 28, 80, 0xff, 0xff, 0xff, 0x7f, 0xff]);
            }
            let mut socket = TcpStream::connect(addr).expect("connect");
            socket.set_read_timeout(Some(Duration::from_millis(20))).expect("timeout");
            // The peer may hang up at once, or say something, or wait: all are its right.
            if socket.write_all(&garbage).is_ok() {
                drop(socket.read(&mut [0; 1000]));
            }
        }
    }
    fs.write_all(&path("/after"), b"after").await.expect("write");
    for name in ["before", "after"] {
        let found = fs.read_all(&path(&format!("/{name}")), 100).await.expect("read");
        assert_eq!(&found[..], name.as_bytes());
    }
    cluster.until_alive(3).await;
}

/// What `granary ROLE --set ...` says when it fails to start.
fn failing(args: &[&str]) -> String {
    let output = Command::new(granary()).args(args).output().expect("run");
    assert!(!output.status.success(), "{args:?} should fail");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_a_folder_in_use_and_a_folder_that_is_a_file_are_named_in_the_error() {
    let cluster = Cluster::start(Options { datanodes: 1, ..Options::default() }).await;
    let fresh = cluster.folder().join("fresh");
    let fresh = format!("namenode.dir={}", fresh.display());
    let grpc = format!("namenode.grpc_addr={}", cluster.namenode_addr());
    let said = failing(&["namenode", "--set", &fresh, "--set", &grpc]);
    assert!(said.contains(cluster.namenode_addr()) && said.contains("grpc_addr"), "{said}");

    let used = format!("namenode.dir={}", cluster.folder().join("namenode").display());
    let free = "namenode.grpc_addr=127.0.0.1:0";
    let said = failing(&["namenode", "--set", &used, "--set", free]);
    assert!(said.contains("namenode") && said.contains("use"), "{said}");

    let file = cluster.folder().join("a-file");
    std::fs::write(&file, b"not a folder").expect("write");
    let file = format!("namenode.dir={}", file.display());
    let said = failing(&["namenode", "--set", &file, "--set", free]);
    assert!(said.contains("a-file"), "{said}");
}

#[test]
fn a_folder_without_permission_is_named_in_the_error() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    let folder = tempfile::tempdir().expect("folder");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("permissions");
    let dir = format!("namenode.dir={}", folder.path().join("namenode").display());
    let set = ["--set", &dir, "--set", "namenode.grpc_addr=127.0.0.1:0"];
    let mut command = Command::new(granary());
    let output = command.arg("namenode").args(set).uid(NOBODY).gid(NOBODY).output();
    let output = match output {
        Ok(output) => output,
        // Not root, or the binary lies where nobody may not look.
        Err(error) => return println!("skipped, because no other user can run granary: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    let folder = folder.path().display().to_string();
    assert!(said.contains(&folder) && said.to_lowercase().contains("permission"), "{said}");
}
