//! The file system as a folder: what programs do to files through `granary mount`, while processes are killed.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;
use tests::cluster::{Cluster, Options, path};
use tests::mounting::{Mount, can_mount, is_mounted, refusal, within};
use tests::seed::Seed;

const MIB: usize = 1 << 20;
/// For everything that one test does on its mount, in a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A cluster and a mount of it. The mount goes first.
struct Mounted {
    mount: Mount,
    cluster: Cluster,
}

async fn mounted(datanodes: usize, options: &[&str]) -> Mounted {
    let cluster = Cluster::start(Options { datanodes, ..Options::default() }).await;
    let mount = Mount::start(cluster.namenode_addr(), &cluster.folder().join("mnt"), options);
    Mounted { mount, cluster }
}

impl Mounted {
    /// Blocking work on the mount's folder, with a deadline.
    async fn on<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> T {
        let dir = self.mount.dir().to_owned();
        within(what, LIMIT, move || work(&dir)).await
    }
}

/// Runs a program; panics unless it succeeds in silence.
fn run(program: &str, arguments: &[&Path], option: &str) {
    let output = Command::new(program).arg(option).args(arguments).output().expect(program);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{program} {arguments:?}: {said}");
}

/// Folders within folders, and files from nothing to several megabytes.
fn plant(tree: &Path) {
    let mut seed = Seed::from_env(41);
    for folder in ["", "a", "a/b", "a/b/c d", "a/empty", "ä"] {
        fs::create_dir_all(tree.join(folder)).expect("folder");
        for size in [0, 1, 4095, 131_073, seed.below(300_000) as usize] {
            fs::write(tree.join(folder).join(format!("f{size}")), seed.bytes(size)).expect("file");
        }
    }
    fs::write(tree.join("a/large"), seed.bytes(9 * MIB + 5)).expect("file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_copied_in_and_out_is_equal_and_can_be_removed() {
    if !can_mount() {
        return;
    }
    let here = mounted(3, &[]).await;
    let tree = here.cluster.folder().join("tree");
    plant(&tree);
    here.on("cp -r, diff -r, rm -r", move |dir| {
        let (inside, back) = (dir.join("tree"), tree.with_file_name("back"));
        run("cp", &[&tree, &inside], "-r");
        run("diff", &[&tree, &inside], "-r");
        run("cp", &[&inside, &back], "-r");
        run("diff", &[&tree, &back], "-r");
        run("rm", &[&inside], "-r");
        assert_eq!(fs::read_dir(dir).expect("list").count(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appended_bytes_follow_what_was_there_and_a_cut_file_starts_anew() {
    if !can_mount() {
        return;
    }
    let here = mounted(3, &[]).await;
    let expected = here
        .on("appends", |dir| {
            let file = dir.join("log");
            let mut seed = Seed::from_env(42);
            let mut expected = Vec::new();
            for size in [10, 0, 200_000, 3, 2 * MIB, 1] {
                let bytes = seed.bytes(size);
                let mut end =
                    OpenOptions::new().append(true).create(true).open(&file).expect("open");
                end.write_all(&bytes).expect("append");
                drop(end);
                expected.extend(bytes);
                assert!(fs::read(&file).expect("read") == expected, "{} bytes", expected.len());
            }
            // What is written, but not closed, is read back.
            let both = OpenOptions::new().append(true).read(true).open(&file);
            let mut both = both.expect("open");
            both.write_all(b"unclosed").expect("append");
            both.seek(SeekFrom::End(-10)).expect("seek");
            let mut tail = Vec::new();
            both.read_to_end(&mut tail).expect("read");
            assert!(tail.ends_with(b"unclosed") && tail.len() == 10, "{tail:?}");
            expected.extend(b"unclosed");

            fs::write(dir.join("cut"), b"long and old").expect("write");
            fs::write(dir.join("cut"), b"new").expect("write over");
            let cut = OpenOptions::new().write(true).open(dir.join("cut")).expect("open");
            cut.set_len(2).expect("cut");
            cut.write_all_at(b"xt", 2).expect("write at the new end");
            drop(cut);
            assert_eq!(fs::read(dir.join("cut")).expect("read"), b"next");
            expected
        })
        .await;
    let found = here.cluster.fs().await.read_all(&path("/log"), 8 << 20).await.expect("read");
    assert!(found[..] == expected[..], "{} bytes, expected {}", found.len(), expected.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_over_a_file_replaces_it_and_whoever_reads_the_old_one_reads_on() {
    if !can_mount() {
        return;
    }
    let here = mounted(3, &[]).await;
    here.on("rename", |dir| {
        let (old, new) = (dir.join("kept"), dir.join("kept.tmp"));
        fs::write(&old, b"old contents").expect("write");
        let mut reader = File::open(&old).expect("open");
        reader.read_exact(&mut [0; 4]).expect("read");
        let mut writer = File::create(&new).expect("create");
        writer.write_all(b"new").expect("write");
        fs::rename(&new, &old).expect("rename under a writer");
        writer.write_all(b" contents").expect("write after the rename");
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("read on");
        assert_eq!(rest, "contents");
        assert_eq!(fs::read(&old).expect("read"), b"new contents");
        assert_eq!(fs::metadata(&new).expect_err("moved away").kind(), ErrorKind::NotFound);
        fs::create_dir_all(dir.join("from/below")).expect("folders");
        fs::write(dir.join("from/below/f"), b"f").expect("write");
        fs::rename(dir.join("from"), dir.join("to")).expect("rename a folder");
        assert_eq!(fs::read(dir.join("to/below/f")).expect("read"), b"f");
    })
    .await;
    let found = here.cluster.fs().await.read_all(&path("/kept"), 100).await.expect("read");
    assert_eq!(&found[..], b"new contents");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_stores_what_an_open_file_was_given_and_unmounts() {
    if !can_mount() {
        return;
    }
    let Mounted { mount, cluster } = mounted(3, &[]).await;
    let bytes = Seed::from_env(43).bytes(3 * MIB + 7);
    let (file, written) = (mount.path("open"), bytes.clone());
    let mut open = within("write", LIMIT, move || {
        let mut open = File::create(file).expect("create");
        open.write_all(&written).expect("write");
        open
    })
    .await;
    let dir = mount.dir().to_owned();
    let (well, said) = within("SIGTERM", LIMIT, move || mount.terminate()).await;
    assert!(well && said.contains("everything that was written is stored"), "{said}");
    assert!(!is_mounted(&dir));
    let found = cluster.fs().await.read_all(&path("/open"), 8 << 20).await.expect("read");
    assert!(found[..] == bytes[..], "{} bytes, expected {}", found.len(), bytes.len());
    let gone = open.write_all(b"more").expect_err("its file system is gone");
    assert_eq!(gone.raw_os_error(), Some(Errno::NOTCONN.raw_os_error()));
}

fn assert_errno<T>(what: &str, result: io::Result<T>, expected: Errno) {
    let found = result.err().and_then(|error| error.raw_os_error());
    assert_eq!(found, Some(expected.raw_os_error()), "{what}: expected {expected}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_has_the_errno_that_programs_know() {
    if !can_mount() {
        return;
    }
    let here = mounted(1, &[]).await;
    here.on("errnos", |dir| {
        let file = dir.join("f");
        fs::write(&file, b"0123456789").expect("write");
        fs::create_dir_all(dir.join("full/inner")).expect("folders");
        let open = OpenOptions::new().read(true).write(true).open(&file).expect("open");
        assert_errno("write in the middle", open.write_all_at(b"x", 3), Errno::OPNOTSUPP);
        assert_errno("write past the end", open.write_all_at(b"x", 11), Errno::OPNOTSUPP);
        assert_errno("extend", open.set_len(11), Errno::PERM);
        open.write_all_at(b"x", 10).expect("the errors before do not spoil a write at the end");
        drop(open);
        assert_eq!(fs::read(&file).expect("read"), b"0123456789x");

        assert_errno("symlink", symlink("f", dir.join("s")), Errno::PERM);
        let attribute =
            rustix::fs::setxattr(&file, "user.a", b"1", rustix::fs::XattrFlags::empty());
        assert_errno("setxattr", attribute.map_err(io::Error::from), Errno::OPNOTSUPP);
        assert_errno("missing", File::open(dir.join("no")), Errno::NOENT);
        assert_errno("below a file", File::open(dir.join("f/x")), Errno::NOTDIR);
        assert_errno("open a folder", File::create(dir.join("full")), Errno::ISDIR);
        assert_errno("make twice", fs::create_dir(dir.join("full")), Errno::EXIST);
        assert_errno("make exclusively", File::create_new(&file), Errno::EXIST);
        assert_errno("rmdir of a full one", fs::remove_dir(dir.join("full")), Errno::NOTEMPTY);
        assert_errno("rmdir of a file", fs::remove_dir(&file), Errno::NOTDIR);
        assert_errno("file over folder", fs::rename(&file, dir.join("full")), Errno::ISDIR);
        assert_errno("folder over file", fs::rename(dir.join("full"), &file), Errno::NOTDIR);
        let inside = fs::rename(dir.join("full"), dir.join("full/inner/x"));
        assert_errno("folder into itself", inside, Errno::INVAL);
        assert_errno("long", File::create(dir.join("n".repeat(256))), Errno::NAMETOOLONG);
        File::create(dir.join("n".repeat(255))).expect("255 bytes are a name");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_owners_and_times_are_kept_and_modes_are_heeded() {
    if !can_mount() {
        return;
    }
    let here = mounted(1, &["--allow-other"]).await;
    here.on("modes", |dir| {
        let file = dir.join("f");
        fs::write(&file, b"secret").expect("write");
        for mode in [0o600, 0o755, 0o1777, 0o4711, 0o000, 0o640] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).expect("chmod");
            assert_eq!(fs::metadata(&file).expect("stat").mode() & 0o7777, mode);
        }
        let cat = |uid| {
            let mut cat = Command::new("cat");
            cat.arg(&file).uid(uid).gid(uid).output().expect("cat")
        };
        assert_eq!(cat(0).stdout, b"secret");
        let refused = cat(1);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
        std::os::unix::fs::chown(&file, Some(1), Some(1)).expect("chown");
        assert_eq!(cat(1).stdout, b"secret");
        std::os::unix::fs::chown(&file, Some(4_000_001), Some(4_000_002)).expect("chown");
        let shown = fs::metadata(&file).expect("stat");
        assert_eq!((shown.uid(), shown.gid()), (4_000_001, 4_000_002));

        let time = std::time::UNIX_EPOCH + Duration::new(981_173_106, 789_000_001);
        let open = OpenOptions::new().append(true).open(&file).expect("open");
        (&open).write_all(b"s").expect("write");
        open.set_modified(time).expect("touch");
        drop(open);
        let shown = fs::metadata(&file).expect("stat");
        assert_eq!((shown.modified().expect("time"), shown.len()), (time, 7));

        fs::create_dir(dir.join("all")).expect("mkdir");
        fs::set_permissions(dir.join("all"), Permissions::from_mode(0o777)).expect("chmod");
        let made = Command::new("touch").arg(dir.join("all/own")).uid(1).gid(1).status();
        assert!(made.expect("touch").success());
        let own = fs::metadata(dir.join("all/own")).expect("stat");
        assert_eq!((own.uid(), own.gid()), (1, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statvfs_tells_the_space_that_files_with_all_their_replicas_have() {
    if !can_mount() {
        return;
    }
    let here = mounted(3, &[]).await;
    let fs = here.cluster.fs().await;
    let replicas = u64::from(fs.server_defaults().replication);
    let told = fs.stats().await.expect("stats");
    let shown = here.on("statvfs", |dir| rustix::fs::statvfs(dir).expect("statvfs")).await;
    assert_eq!((shown.f_bsize, shown.f_namemax), (4096, 255));
    assert_eq!(shown.f_blocks, told.capacity_bytes / replicas / 4096);
    assert!(shown.f_bavail <= shown.f_blocks && shown.f_bfree == shown.f_bavail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_writes_does_not_notice_that_a_datanode_is_killed() {
    if !can_mount() {
        return;
    }
    let mut here = mounted(4, &[]).await;
    let bytes = Seed::from_env(44).bytes(12 * MIB);
    let (first, second) = bytes.split_at(5 * MIB);
    let (first, second) = (first.to_vec(), second.to_vec());
    let mut open = here
        .on("write", move |dir| {
            let mut open = File::create(dir.join("f")).expect("create");
            open.write_all(&first).expect("write");
            open
        })
        .await;
    here.cluster.kill_datanode(0);
    here.cluster.kill_datanode(1);
    here.on("write, close and read", move |dir| {
        open.write_all(&second).expect("write after the kill");
        open.sync_all().expect("fsync");
        drop(open);
        assert!(fs::read(dir.join("f")).expect("read") == bytes);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_writes_does_not_notice_that_the_namenode_is_killed() {
    if !can_mount() {
        return;
    }
    let mut here = mounted(3, &[]).await;
    let mut open = here
        .on("write", |dir| {
            // With a block stored, the new NameNode waits for DataNodes before it takes changes.
            fs::write(dir.join("stored"), b"stored").expect("write");
            let mut open = File::create(dir.join("f")).expect("create");
            open.write_all(b"before, ").expect("write");
            open
        })
        .await;
    here.cluster.kill_namenode();
    let dir = here.mount.dir().to_owned();
    let mut writing = tokio::spawn(within("write, close and read", LIMIT, move || {
        open.write_all(b"after").expect("write");
        drop(open);
        assert_eq!(fs::read(dir.join("f")).expect("read"), b"before, after");
    }));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut writing).await;
    assert!(early.is_err(), "closing a file needs the NameNode, and waits for it");
    here.cluster.start_namenode();
    writing.await.expect("written, closed and read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_a_mount_would_hide_or_that_is_not_there_is_refused_by_name() {
    if !can_mount() {
        return;
    }
    let here = mounted(1, &[]).await;
    let folder = here.cluster.folder().to_owned();
    let namenode = here.cluster.namenode_addr().to_owned();
    here.on("refusals", move |dir| {
        fs::create_dir(folder.join("full")).expect("mkdir");
        fs::write(folder.join("full/f"), b"").expect("write");
        for (bad, why) in [
            (dir.to_owned(), "mounted there already"),
            (folder.join("full"), "not empty"),
            (folder.join("full/f"), "not a folder"),
            (folder.join("missing"), "there is no such folder"),
        ] {
            let (code, said) = refusal(&namenode, &bad);
            assert!(code.is_some_and(|code| code != 0), "{}: {code:?}", bad.display());
            assert!(said.contains(why) && said.contains(bad.to_str().expect("UTF-8")), "{said}");
            assert!(!said.contains("panicked"), "{said}");
        }
        fs::write(dir.join("still"), b"there").expect("the mount that is there goes on");
    })
    .await;
    assert!(here.mount.is_mounted());
}
