//! The store against a model, through finishes, appends, deletions, recoveries and unclean stops.

mod fencing;
mod volumes;

use std::collections::BTreeMap;

use super::*;
use crate::replica::Expected;
use crate::testing::{copy_tree, open, pattern, read_block, write, write_block};
use proptest::prelude::*;
use proto::granary::ReplicaChange;
use transfer::Checksum;

const GS: GenerationStamp = GenerationStamp(1001);
const GS2: GenerationStamp = GenerationStamp(1002);
const GS3: GenerationStamp = GenerationStamp(1003);

fn change(asked: GenerationStamp, new: GenerationStamp, length: u64) -> Change {
    Change { asked, new, length }
}

async fn told(store: &Store) -> Vec<(u64, ReplicaState)> {
    let mut all = Vec::new();
    let next = async {
        match store.changes().next(1000).await {
            crate::changes::Due::Changes(changes) => changes,
            crate::changes::Due::FullReport => panic!("no report is owed"),
        }
    };
    let of = |change: &ReplicaChange| (change.block.unwrap().id, change.state());
    if let Ok(changes) = tokio::time::timeout(Duration::from_millis(20), next).await {
        all.extend(changes.iter().map(of));
    }
    all
}

#[tokio::test]
async fn a_block_is_written_finished_read_and_deleted_and_each_step_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let data = pattern(1, 100_000);
    write_block(&store, 7, 1001, &data).await.unwrap();
    assert_eq!(read_block(&store, 7, 1001).unwrap(), data);
    let states = told(&store).await;
    assert_eq!(states, [(7, ReplicaState::BeingWritten), (7, ReplicaState::Finalized)]);
    assert_eq!(store.volume_statuses()[0].used_bytes, 100_000);
    assert_eq!(read_block(&store, 7, 1002).unwrap_err().code, Code::Stale);
    assert_eq!(write_block(&store, 7, 1001, &data).await.unwrap_err().code, Code::AlreadyExists);
    assert_eq!(
        store.delete(BlockId(7), GenerationStamp(1000)).await.unwrap_err().code,
        Code::Stale
    );
    store.delete(BlockId(7), GS).await.unwrap();
    assert_eq!(told(&store).await, [(7, ReplicaState::Deleted)]);
    assert_eq!(read_block(&store, 7, 1001).unwrap_err().code, Code::NotFound);
    assert_eq!(store.volume_statuses()[0].used_bytes, 0);
    store.stop();
}

#[tokio::test]
async fn readers_see_what_was_acknowledged_and_nothing_beyond() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let data = pattern(2, 5_000);
    let purpose = Purpose::Create { stamp: GS, bytes: 0, checksum: Checksum::NATIVE };
    let session = store.begin_write(BlockId(7), purpose).await.unwrap();
    let packet = crate::testing::packet(0, &data[..1000], 0, false);
    let run = session.write(vec![packet], Checksum::NATIVE).await.unwrap().await.unwrap();
    let wrote = run.wrote[0];
    assert_eq!(store.visible_length(BlockId(7), GS).unwrap(), 0);
    session.replica().acked(wrote);
    assert_eq!(read_block(&store, 7, 1001).unwrap(), &data[..1000]);
    // A reader that was opened before the chunk grew still gets the checksum that belongs to its length.
    let reader = store.open_reader(BlockId(7), GS).unwrap();
    write(&session, 512, &data[512..2000], false).await.unwrap();
    let (mut bytes, mut sums) = (vec![0; 1000], Vec::new());
    reader.read(0, &mut bytes, &mut sums).unwrap();
    assert_eq!(Checksum::NATIVE.verify(&bytes, &sums), Ok(()));
    assert_eq!(read_block(&store, 7, 1001).unwrap(), &data[..2000]);
    store.stop();
}

#[tokio::test]
async fn an_append_continues_mid_chunk_and_an_older_writer_is_fenced_off() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let data = pattern(3, 3_000);
    write_block(&store, 7, 1001, &data[..700]).await.unwrap();
    let old_reader = store.open_reader(BlockId(7), GS).unwrap();
    let wrong = store.begin_write(BlockId(7), Purpose::Append(change(GS, GS2, 701))).await;
    assert_eq!(wrong.err().unwrap().code, Code::Stale);
    let append = Purpose::Append(change(GS, GS2, 700));
    let session = store.begin_write(BlockId(7), append).await.unwrap();
    write(&session, 700, &data[700..1024], false).await.unwrap();
    // Another pipeline takes over; the first writer is told to stop and can do nothing more.
    let expected = Expected { acked_min: 1024, sent_max: 1024 };
    let recover = Purpose::RecoverStreaming { asked: GS2, new: GS3, expected };
    let taking = store.begin_write(BlockId(7), recover);
    let old = async {
        session.stopped().await;
        drop(session);
    };
    let (second, ()) = tokio::join!(taking, old);
    let second = second.unwrap();
    write(&second, 1024, &data[1024..], false).await.unwrap();
    second.finish().await.unwrap().await.unwrap().unwrap();
    drop(second);
    assert_eq!(read_block(&store, 7, 1003).unwrap(), data);
    let late = store.begin_write(BlockId(7), Purpose::RecoverAppend(change(GS, GS2, 3000))).await;
    assert_eq!(late.err().unwrap().code, Code::Stale);
    // The files that a reader opened before the append still hold what it was promised.
    let (mut bytes, mut sums) = (vec![0; 700], Vec::new());
    old_reader.read(0, &mut bytes, &mut sums).unwrap();
    assert_eq!(Checksum::NATIVE.verify(&bytes, &sums), Ok(()));
    store.stop();
}

#[tokio::test]
async fn a_recovery_stops_the_writer_and_settles_the_length_once() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let data = pattern(4, 2_000);
    let purpose = Purpose::Create { stamp: GS, bytes: 0, checksum: Checksum::NATIVE };
    let session = store.begin_write(BlockId(7), purpose).await.unwrap();
    write(&session, 0, &data, false).await.unwrap();
    let stop = async {
        session.stopped().await;
        drop(session);
    };
    let (info, ()) = tokio::join!(store.init_recovery(BlockId(7), GS, GS2), stop);
    assert_eq!(info.unwrap().unwrap().length, 2_000);
    assert_eq!(read_block(&store, 7, 1001).unwrap(), data, "readable in between");
    assert!(store.finish_recovery(BlockId(7), GS3, 1_500).await.is_err());
    store.finish_recovery(BlockId(7), GS2, 1_500).await.unwrap();
    store.finish_recovery(BlockId(7), GS2, 1_500).await.unwrap();
    assert_eq!(read_block(&store, 7, 1002).unwrap(), &data[..1_500]);
    assert_eq!(store.volume_statuses()[0].used_bytes, 1_500);
    // A finished replica takes part too: once as it is, once cut.
    let info = store.init_recovery(BlockId(7), GS2, GS3).await.unwrap().unwrap();
    assert_eq!((info.length, info.state), (1_500, State::Finalized));
    store.finish_recovery(BlockId(7), GS3, 1_500).await.unwrap();
    let gs4 = GenerationStamp(1004);
    store.init_recovery(BlockId(7), GS3, gs4).await.unwrap().unwrap();
    store.finish_recovery(BlockId(7), gs4, 100).await.unwrap();
    assert_eq!(read_block(&store, 7, 1004).unwrap(), &data[..100]);
    let image = tempfile::tempdir().unwrap();
    copy_tree(folder.path(), image.path());
    let (restarted, _) = open(image.path());
    assert_eq!(read_block(&restarted, 7, 1004).unwrap(), &data[..100]);
    assert_eq!(store.init_recovery(BlockId(8), GS, GS2).await.unwrap(), None);
    store.stop();
    restarted.stop();
}

#[tokio::test]
async fn a_transfer_that_does_not_finish_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let purpose = Purpose::Transfer { stamp: GS, bytes: 0, checksum: Checksum::NATIVE };
    let session = store.begin_write(BlockId(7), purpose).await.unwrap();
    write(&session, 0, b"abc", false).await.unwrap();
    assert_eq!(store.reported(BlockId(7)), None);
    drop(session);
    crate::testing::wait_until("it is gone", || store.replica_count() == 0).await;
    assert_eq!(std::fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    // One of a replica being written stays open.
    let session = store.begin_write(BlockId(7), purpose).await.unwrap();
    write(&session, 0, b"abc", false).await.unwrap();
    session.promote().await.unwrap().await.unwrap().unwrap();
    drop(session);
    assert_eq!(read_block(&store, 7, 1001).unwrap(), b"abc");
    let (told, state) = store.reported(BlockId(7)).unwrap();
    assert_eq!((told.length, state), (3, ReplicaState::BeingWritten));
    store.stop();
}

/// The bug this guards against: a DataNode that had been killed while it wrote a block, and came back, refused the copy
/// with which a later pipeline of the same block wanted to go on there. A client that met three of them gave up.
#[tokio::test]
async fn a_copy_takes_the_place_of_any_replica_that_the_cluster_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let create = Purpose::Create { stamp: GS, bytes: 0, checksum: Checksum::NATIVE };
    for block in [7, 8] {
        let session = store.begin_write(BlockId(block), create).await.unwrap();
        write(&session, 0, b"old", true).await.unwrap();
    }
    let image = tempfile::tempdir().unwrap();
    copy_tree(folder.path(), image.path());
    store.stop();
    let (store, found) = open(image.path());
    assert_eq!(found.waiting, 2);
    let transfer = |stamp| Purpose::Transfer { stamp, bytes: 0, checksum: Checksum::NATIVE };
    let same = store.begin_write(BlockId(7), transfer(GS)).await.err().unwrap();
    assert_eq!(same.code, Code::AlreadyExists, "not older");
    let session = store.begin_write(BlockId(7), transfer(GS2)).await.unwrap();
    write(&session, 0, b"newer", false).await.unwrap();
    session.promote().await.unwrap().await.unwrap().unwrap();
    assert_eq!(read_block(&store, 7, 1002).unwrap(), b"newer");
    // One that is under recovery may come out of it newer than the copy.
    store.init_recovery(BlockId(8), GS, GenerationStamp(1003)).await.unwrap().unwrap();
    let refused = store.begin_write(BlockId(8), transfer(GS2)).await.err().unwrap();
    assert_eq!(refused.code, Code::AlreadyExists);
    store.stop();
}

/// Each step of a close, as a crash would leave it; the step is named by what is where.
#[tokio::test]
async fn each_crash_image_of_a_close_leads_to_a_whole_replica() {
    let data = pattern(5, 1_300);
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let session = store
        .begin_write(
            BlockId(7),
            Purpose::Create { stamp: GS, bytes: 0, checksum: Checksum::NATIVE },
        )
        .await
        .unwrap();
    write(&session, 0, &data, true).await.unwrap();
    let before = tempfile::tempdir().unwrap();
    copy_tree(folder.path(), before.path());
    session.finish().await.unwrap().await.unwrap().unwrap();
    let after = tempfile::tempdir().unwrap();
    copy_tree(folder.path(), after.path());
    store.stop();

    let rbw = before.path().join("rbw");
    let finalized = Folder::of(BlockId(7)).path(after.path());
    let place = |image: &Path, data_done: bool, meta_done: bool| {
        copy_tree(before.path(), image);
        // The log of touched sub-folders is written before the first rename.
        copy_tree(&after.path().join("index"), &image.join("index"));
        let target = Folder::of(BlockId(7)).path(image);
        std::fs::create_dir_all(&target).unwrap();
        for (name, done) in [("blk_7", data_done), ("blk_7_1001.meta", meta_done)] {
            if done {
                std::fs::remove_file(image.join("rbw").join(name)).unwrap();
                std::fs::copy(finalized.join(name), target.join(name)).unwrap();
            }
        }
    };
    assert!(rbw.join("blk_7").exists() && finalized.join("blk_7").exists());
    for (data_done, meta_done, state) in [
        (false, false, ReplicaState::WaitingRecovery),
        (false, true, ReplicaState::Finalized),
        (true, true, ReplicaState::Finalized),
    ] {
        let image = tempfile::tempdir().unwrap();
        place(image.path(), data_done, meta_done);
        let (restarted, _) = open(image.path());
        let (told, found) = restarted.reported(BlockId(7)).unwrap();
        assert_eq!((found, told.length), (state, 1_300), "{data_done} {meta_done}");
        assert_eq!(read_block(&restarted, 7, 1001).unwrap(), data);
        restarted.stop();
    }
    // The acknowledged close, whatever else was lost.
    let (restarted, found) = open(after.path());
    assert_eq!(found.finalized, 1);
    assert_eq!(read_block(&restarted, 7, 1001).unwrap(), data);
    restarted.stop();
}

#[tokio::test]
async fn an_append_cut_in_two_by_a_crash_waits_for_recovery_whole() {
    let data = pattern(6, 1_300);
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    write_block(&store, 7, 1001, &data).await.unwrap();
    store.stop();
    let image = tempfile::tempdir().unwrap();
    copy_tree(folder.path(), image.path());
    let from = Folder::of(BlockId(7)).path(image.path()).join("blk_7_1001.meta");
    std::fs::rename(from, image.path().join("rbw/blk_7_1002.meta")).unwrap();
    let (restarted, found) = open(image.path());
    assert_eq!((found.finalized, found.waiting), (0, 1));
    let (told, state) = restarted.reported(BlockId(7)).unwrap();
    assert_eq!((told.generation_stamp, state), (1002, ReplicaState::WaitingRecovery));
    assert_eq!(read_block(&restarted, 7, 1002).unwrap(), data);
    restarted.stop();
}

#[tokio::test]
async fn a_clean_restart_scans_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    for block in 0..20u64 {
        write_block(&store, block << 8, 1001, &pattern(block, 100)).await.unwrap();
    }
    store.flush_indexes().await.unwrap();
    store.stop();
    let image = tempfile::tempdir().unwrap();
    copy_tree(folder.path(), image.path());
    let (restarted, found) = open(image.path());
    assert_eq!((found.finalized, found.folders_scanned), (20, 0));
    for block in 0..20u64 {
        assert_eq!(read_block(&restarted, block << 8, 1001).unwrap(), pattern(block, 100));
    }
    restarted.stop();
}

#[tokio::test]
async fn a_damaged_replica_is_reported_and_its_neighbours_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    write_block(&store, 7, 1001, &pattern(7, 5_000)).await.unwrap();
    write_block(&store, 8, 1001, &pattern(8, 5_000)).await.unwrap();
    told(&store).await;
    let path = Folder::of(BlockId(7)).path(folder.path()).join("blk_7");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4_000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    for block in [7, 8] {
        let reader = store.open_reader(BlockId(block), GS).unwrap();
        assert_eq!(reader.verify().is_ok(), block == 8);
    }
    assert_eq!(told(&store).await, [(7, ReplicaState::Corrupt)]);
    // A file that became shorter shows when it is opened.
    std::fs::write(&path, &bytes[..4_000]).unwrap();
    assert_eq!(read_block(&store, 7, 1001).unwrap_err().code, Code::Corrupt);
    assert_eq!(told(&store).await, [(7, ReplicaState::Corrupt)]);
    store.stop();
}

#[tokio::test]
async fn replicas_of_a_failed_volume_are_gone_and_the_others_serve() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut config = crate::testing::config(one.path());
    config.volumes.push(two.path().to_owned());
    let (store, _) = Store::open(&config).unwrap();
    for block in 0..4 {
        write_block(&store, block, 1001, &pattern(block, 100)).await.unwrap();
    }
    let watching = tokio::spawn({
        let store = store.clone();
        async move { store.watch_volumes(1).await }
    });
    store.disk(0).volume.fail("expected by the test");
    crate::testing::wait_until("two are left", || store.replica_count() == 2).await;
    assert_eq!(store.changes().next(1).await, crate::changes::Due::FullReport);
    store.changes().begin_report();
    for block in 4..8 {
        write_block(&store, block, 1001, &pattern(block, 100)).await.unwrap();
    }
    assert_eq!(store.replica_count(), 6);
    watching.abort();
    store.stop();
}

#[derive(Clone, Debug)]
enum Op {
    Write(u64, usize),
    Append(u64, usize),
    Delete(u64),
    LeaveOpen(u64, usize),
    Flush,
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let block = (0u64..12).prop_map(|n| n * 100);
    prop_oneof![
        4 => (block.clone(), 0usize..3000).prop_map(|(b, n)| Op::Write(b, n)),
        2 => (block.clone(), 1usize..900).prop_map(|(b, n)| Op::Append(b, n)),
        2 => block.clone().prop_map(Op::Delete),
        1 => (block, 1usize..900).prop_map(|(b, n)| Op::LeaveOpen(b, n)),
        1 => Just(Op::Flush),
        2 => Just(Op::Crash),
    ]
}

/// What the model knows of a block: stamp, bytes, finished.
type Model = BTreeMap<u64, (u64, Vec<u8>, bool)>;

async fn apply(store: &Arc<Store>, model: &mut Model, stamp: u64, op: &Op) {
    match op {
        Op::Write(block, length) => {
            let data = pattern(stamp, *length);
            let result = write_block(store, *block, stamp, &data).await;
            assert_eq!(result.is_ok(), !model.contains_key(block), "{result:?}");
            model.entry(*block).or_insert((stamp, data, true));
        }
        Op::Append(block, length) => {
            let Some((old, data, true)) = model.get_mut(block) else { return };
            let change = change(GenerationStamp(*old), GenerationStamp(stamp), data.len() as u64);
            let session =
                store.begin_write(BlockId(*block), Purpose::Append(change)).await.unwrap();
            let more = pattern(stamp, *length);
            write(&session, data.len() as u64, &more, false).await.unwrap();
            session.finish().await.unwrap().await.unwrap().unwrap();
            data.extend(more);
            *old = stamp;
        }
        Op::Delete(block) => {
            store.delete(BlockId(*block), GenerationStamp(stamp)).await.unwrap();
            model.remove(block);
        }
        Op::LeaveOpen(block, length) => {
            if model.contains_key(block) {
                return;
            }
            let purpose = Purpose::Create {
                stamp: GenerationStamp(stamp),
                bytes: 0,
                checksum: Checksum::NATIVE,
            };
            let session = store.begin_write(BlockId(*block), purpose).await.unwrap();
            let data = pattern(stamp, *length);
            write(&session, 0, &data, false).await.unwrap();
            model.insert(*block, (stamp, data, false));
        }
        Op::Flush => store.flush_indexes().await.unwrap(),
        Op::Crash => unreachable!("the caller restarts"),
    }
}

fn check(store: &Arc<Store>, model: &Model, restarted: bool) {
    let ids: Vec<u64> = store.sorted_ids().iter().map(|id| id.0).collect();
    assert_eq!(ids, model.keys().copied().collect::<Vec<_>>());
    for (block, (stamp, data, finished)) in model {
        assert_eq!(&read_block(store, *block, *stamp).unwrap(), data, "blk_{block}");
        let state = match (finished, restarted) {
            (true, _) => ReplicaState::Finalized,
            (false, true) => ReplicaState::WaitingRecovery,
            (false, false) => store.reported(BlockId(*block)).unwrap().1,
        };
        assert_eq!(store.reported(BlockId(*block)).unwrap().1, state);
    }
    let used: u64 = model.values().map(|(_, data, _)| data.len() as u64).sum();
    assert_eq!(store.volume_statuses()[0].used_bytes, used);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn whatever_happened_an_unclean_restart_finds_what_the_model_knows(
        ops in proptest::collection::vec(op(), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut folder = tempfile::tempdir().unwrap();
            let (mut store, _) = open(folder.path());
            let mut model = Model::new();
            for (stamp, op) in (1001..).zip(&ops) {
                if !matches!(op, Op::Crash) {
                    apply(&store, &mut model, stamp, op).await;
                    continue;
                }
                check(&store, &model, false);
                let image = tempfile::tempdir().unwrap();
                copy_tree(folder.path(), image.path());
                store.stop();
                let (restarted, _) = open(image.path());
                check(&restarted, &model, true);
                (store, folder) = (restarted, image);
            }
            check(&store, &model, false);
            store.stop();
        });
    }
}
