//! Random operations against a map of paths, with checkpoints and drops without shutdown in between.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::{Code, FsPath};

use super::{no_sink, path, request, settings};
use crate::log::Log;
use crate::op::{Block, Caller, FileRef, Op, RenameMode, Reply};

/// A folder, or a file with its length.
#[derive(Clone, Debug, PartialEq)]
enum Thing {
    Folder,
    File(u64),
}

type Model = BTreeMap<String, Thing>;

#[derive(Clone, Debug)]
enum Step {
    Mkdirs(String),
    Write(String, u64),
    Append(String, u64),
    Truncate(String, u64),
    Rename(String, String, bool),
    Delete(String, bool),
    Checkpoint,
    DirtyReboot,
    Shutdown,
}

fn paths() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "dd"]), 1..4)
        .prop_map(|names| format!("/{}", names.join("/")))
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => paths().prop_map(Step::Mkdirs),
        8 => (paths(), 0u64..9000).prop_map(|(path, length)| Step::Write(path, length)),
        3 => (paths(), 0u64..9000).prop_map(|(path, length)| Step::Append(path, length)),
        2 => (paths(), 0u64..9000).prop_map(|(path, length)| Step::Truncate(path, length)),
        6 => (paths(), paths(), any::<bool>()).prop_map(|(a, b, r)| Step::Rename(a, b, r)),
        4 => (paths(), any::<bool>()).prop_map(|(path, all)| Step::Delete(path, all)),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::DirtyReboot),
        1 => Just(Step::Shutdown),
    ]
}

fn parent(path: &str) -> &str {
    match path.rfind('/').unwrap() {
        0 => "/",
        at => &path[..at],
    }
}

fn under<'m>(model: &'m Model, path: &str) -> Vec<&'m String> {
    let prefix = format!("{path}/");
    model.keys().filter(|name| name.starts_with(&prefix)).collect()
}

/// Whether all that is above exists and is a folder, or could be made.
fn can_make(model: &Model, path: &str) -> bool {
    let mut up = parent(path);
    loop {
        match model.get(up) {
            Some(Thing::File(_)) => return false,
            Some(Thing::Folder) => return true,
            None => up = parent(up),
        }
    }
}

fn make_parents(model: &mut Model, path: &str) {
    let mut up = parent(path).to_owned();
    while up != "/" {
        model.insert(up.clone(), Thing::Folder);
        up = parent(&up).to_owned();
    }
}

/// Blocks of 4 KiB, as the operations below make them.
async fn write_blocks(log: &Log, file: &FileRef, mut previous: Option<Block>, mut left: u64) {
    while left > 0 {
        let op = Op::AddBlock { file: file.clone(), holder: "h".into(), previous };
        let Reply::BlockAllocated { block, .. } = log.propose(request(1, op)).await.unwrap() else {
            panic!("addBlock answers with a block");
        };
        let length = left.min(4096);
        previous = Some(Block { length, ..block });
        left -= length;
    }
    let op = Op::Complete { file: file.clone(), holder: "h".into(), last: previous };
    log.propose(request(1, op)).await.unwrap();
}

async fn step(log: &Log, model: &mut Model, step: &Step) {
    match step {
        Step::Mkdirs(at) => {
            let op =
                Op::Mkdirs { path: path(at), mode: 0o755, unmasked: None, create_parents: true };
            let result = log.propose(request(1, op)).await;
            let possible = can_make(model, at) && !matches!(model.get(at), Some(Thing::File(_)));
            assert_eq!(result.is_ok(), possible, "{step:?} {result:?}");
            if possible {
                make_parents(model, at);
                model.insert(at.clone(), Thing::Folder);
            }
        }
        Step::Write(at, length) => {
            let op = Op::Create {
                path: path(at),
                holder: "h".into(),
                mode: 0o644,
                unmasked: None,
                overwrite: true,
                create_parents: true,
                replication: 1,
                block_bytes: 4096,
                erasure: None,
            };
            let result = log.propose(request(1, op)).await;
            let possible = can_make(model, at) && model.get(at) != Some(&Thing::Folder);
            assert_eq!(result.is_ok(), possible, "{step:?} {result:?}");
            if possible {
                write_blocks(log, &FileRef { path: path(at), inode: None }, None, *length).await;
                make_parents(model, at);
                model.insert(at.clone(), Thing::File(*length));
            }
        }
        Step::Append(at, length) => {
            let op = Op::Append { path: path(at), holder: "h".into(), new_block: false };
            let result = log.propose(request(1, op)).await;
            let Some(Thing::File(old)) = model.get_mut(at) else {
                assert!(result.is_err(), "{step:?}");
                return;
            };
            let Ok(Reply::Appended { last_block, .. }) = result else {
                panic!("{step:?} {result:?}")
            };
            let mut left = *length;
            let previous = last_block.map(|block| {
                let more = left.min(4096 - block.length);
                left -= more;
                Block { length: block.length + more, ..block }
            });
            write_blocks(log, &FileRef { path: path(at), inode: None }, previous, left).await;
            *old += length;
        }
        Step::Truncate(at, length) => {
            let op = Op::Truncate { path: path(at), length: *length, holder: "h".into() };
            let result = log.propose(request(1, op)).await;
            match model.get_mut(at) {
                Some(Thing::File(old)) if *length <= *old => *old = *length,
                _ => {
                    assert!(result.is_err(), "{step:?}");
                    return;
                }
            }
            if let Reply::Recovering { recovery: Some(recovery), .. } = result.unwrap() {
                let op = Op::CommitBlockSynchronization {
                    block: recovery.block,
                    new_stamp: recovery.new_stamp,
                    new_length: recovery.new_length.unwrap(),
                    close_file: true,
                    delete_block: false,
                };
                log.propose(request(1, op)).await.unwrap();
            }
        }
        Step::Rename(from, to, replace) => {
            let mode = if *replace { RenameMode::Replace } else { RenameMode::NoReplace };
            let op = Op::Rename { source: path(from), target: path(to), mode };
            let result = log.propose(request(1, op)).await;
            let possible = can_rename(model, from, to, *replace);
            assert_eq!(result.is_ok(), possible, "{step:?} {result:?}");
            if possible {
                let moved: Vec<_> = under(model, from).into_iter().cloned().collect();
                for name in moved.iter().chain([from]) {
                    let thing = model.remove(name).unwrap();
                    model.insert(format!("{to}{}", &name[from.len()..]), thing);
                }
            }
        }
        Step::Delete(at, all) => {
            let op = Op::Delete { path: path(at), recursive: *all };
            let result = log.propose(request(1, op)).await;
            let full = !under(model, at).is_empty();
            if full && !all {
                assert_eq!(result.unwrap_err().code, Code::NotEmpty);
                return;
            }
            assert_eq!(result.unwrap(), Reply::Deleted(model.contains_key(at)), "{step:?}");
            let gone: Vec<_> = under(model, at).into_iter().cloned().collect();
            for name in gone.iter().chain([at]) {
                model.remove(name);
            }
        }
        Step::Checkpoint => {
            log.checkpoint().await.unwrap();
        }
        Step::DirtyReboot | Step::Shutdown => unreachable!("done by the caller"),
    }
}

fn can_rename(model: &Model, from: &str, to: &str, replace: bool) -> bool {
    let Some(source) = model.get(from) else { return false };
    if from == to || to.starts_with(&format!("{from}/")) {
        return false;
    }
    if model.get(parent(to)) != Some(&Thing::Folder) {
        return false;
    }
    match (source, model.get(to)) {
        (_, None) => true,
        (Thing::File(_), Some(Thing::File(_))) => replace,
        (Thing::Folder, Some(Thing::Folder)) => replace && under(model, to).is_empty(),
        _ => false,
    }
}

fn compare(log: &Log, model: &Model) {
    let caller = Caller::superuser("root");
    let mut found = Model::from([("/".to_owned(), Thing::Folder)]);
    let mut pending = vec![FsPath::root()];
    while let Some(folder) = pending.pop() {
        let listing = log.read(|state| state.list(&caller, &folder, "", 0)).unwrap().unwrap();
        for entry in listing.entries {
            let child = folder.join(&entry.name).unwrap();
            if entry.kind == proto::granary::FileKind::Folder as i32 {
                found.insert(child.to_string(), Thing::Folder);
                pending.push(child);
            } else {
                assert!(!entry.open_for_write, "{child} is closed");
                found.insert(child.to_string(), Thing::File(entry.length));
            }
        }
    }
    assert_eq!(&found, model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_with_reboots_agree_with_a_map(steps in prop::collection::vec(steps(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut log = Some(Log::open(dir.path(), settings(), no_sink()).unwrap());
            let mut model = Model::from([("/".to_owned(), Thing::Folder)]);
            for one in &steps {
                if matches!(one, Step::DirtyReboot | Step::Shutdown) {
                    let old = log.take().unwrap();
                    let digest = old.read(|state| state.digest());
                    if matches!(one, Step::Shutdown) {
                        old.shutdown().await.unwrap();
                    }
                    drop(old);
                    let new = Log::open(dir.path(), settings(), no_sink()).unwrap();
                    assert_eq!(new.read(|state| state.digest()), digest);
                    assert!(new.open_report().damage.is_empty() && !new.open_report().torn_tail);
                    log = Some(new);
                } else {
                    step(log.as_ref().unwrap(), &mut model, one).await;
                }
            }
            compare(log.as_ref().unwrap(), &model);
        });
    }
}
