//! Several volumes: those that fail, those that come, and replicas that move between them.

use std::path::Path;

use super::*;
use crate::balance::{Balancer, Move};
use crate::testing::wait_until;
use crate::throttle::Throttle;

fn two(one: &Path, two: &Path) -> Config {
    let mut config = crate::testing::config(one);
    config.volumes.push(two.to_owned());
    config
}

fn data_file(volume: &Path, block: u64) -> PathBuf {
    let block = BlockId(block);
    Folder::of(block).path(volume).join(crate::layout::data_name(block))
}

fn on(store: &Store, block: u64) -> u8 {
    store.map.get(BlockId(block)).unwrap().volume()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_moves_with_its_bytes_and_its_record_while_it_is_read() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = two(one.path(), other.path());
    let (store, _) = Store::open(&config).unwrap();
    let data = pattern(1, 2_500_001);
    write_block(&store, 7, 1001, &data).await.unwrap();
    let (from, to) = (on(&store, 7), 1 - on(&store, 7));
    let reader = store.open_reader(BlockId(7), GS).unwrap();
    told(&store).await;
    let moved = store.move_replica(BlockId(7), to, &Throttle::new(0)).await.unwrap();
    assert_eq!((moved, on(&store, 7)), (2_500_001, to));
    // A reader of before reads on.
    assert!(reader.read_verified(0..2_500_001).unwrap() == data);
    assert!(read_block(&store, 7, 1001).unwrap() == data);
    assert_eq!(told(&store).await, [(7, ReplicaState::Finalized)]);
    let volumes = store.volumes();
    let used = |volume: u8| volumes[usize::from(volume)].used_bytes();
    assert_eq!((used(from), used(to)), (0, 2_500_001));
    assert!(!data_file(volumes[usize::from(from)].root(), 7).exists());
    for error in [
        store.move_replica(BlockId(7), to, &Throttle::new(0)).await.unwrap_err(),
        store.move_replica(BlockId(8), to, &Throttle::new(0)).await.unwrap_err(),
    ] {
        assert_eq!(error.code, Code::Stale);
    }
    store.flush_indexes().await.unwrap();
    store.stop();
    drop((store, reader, volumes));
    let (again, found) = Store::open(&config).unwrap();
    assert_eq!((found.finalized, found.strays), (1, 0));
    assert!(read_block(&again, 7, 1001).unwrap() == data);
    again.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_appended_to_or_deleted_during_its_move_stays_as_its_writer_left_it() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, _) = Store::open(&two(one.path(), other.path())).unwrap();
    for round in 0..20u64 {
        write_block(&store, round, 1001, &pattern(round, 3_000_000)).await.unwrap();
        let to = 1 - on(&store, round);
        let throttle = Throttle::new(0);
        let moving = store.move_replica(BlockId(round), to, &throttle);
        let changing = async {
            tokio::time::sleep(Duration::from_micros(round * 700)).await;
            if round % 2 == 0 {
                return store.delete(BlockId(round), GS).await.unwrap();
            }
            let append = Purpose::Append(change(GS, GS2, 3_000_000));
            let session = store.begin_write(BlockId(round), append).await.unwrap();
            write(&session, 3_000_000, &pattern(99, 1_000), false).await.unwrap();
            session.finish().await.unwrap().await.unwrap().unwrap();
        };
        let (moved, ()) = tokio::join!(moving, changing);
        if let Err(error) = moved {
            assert!(
                matches!(error.code, Code::Stale | Code::NotFound | Code::Unavailable),
                "{error}"
            );
        }
        if round % 2 == 0 {
            assert!(store.reported(BlockId(round)).is_none());
        } else {
            let expected = [pattern(round, 3_000_000), pattern(99, 1_000)].concat();
            assert!(read_block(&store, round, 1002).unwrap() == expected);
        }
    }
    for volume in store.volumes() {
        let left = std::fs::read_dir(crate::layout::moving_path(volume.root())).unwrap().count();
        assert_eq!(left, 0);
    }
    let used: u64 = store.volumes().iter().map(|volume| volume.used_bytes()).sum();
    assert_eq!(used, 10 * 3_001_000);
    store.stop();
}

#[tokio::test]
async fn two_copies_that_a_crash_left_become_one() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = two(one.path(), other.path());
    let (store, _) = Store::open(&config).unwrap();
    let data = pattern(1, 70_000);
    write_block(&store, 7, 1001, &data).await.unwrap();
    let (from, to) = (on(&store, 7), 1 - on(&store, 7));
    store.flush_indexes().await.unwrap();
    let before = tempfile::tempdir().unwrap();
    let roots: Vec<PathBuf> = store.volumes().iter().map(|v| v.root().to_owned()).collect();
    copy_tree(&roots[usize::from(from)], before.path());
    store.move_replica(BlockId(7), to, &Throttle::new(0)).await.unwrap();
    // The old volume as it was before, the new one as it is, and half a copy.
    let after = tempfile::tempdir().unwrap();
    copy_tree(&roots[usize::from(to)], after.path());
    let half = crate::layout::moving_path(after.path()).join("blk_9");
    std::fs::write(&half, b"half").unwrap();
    store.stop();
    let (again, found) = Store::open(&two(before.path(), after.path())).unwrap();
    assert_eq!((found.finalized, found.strays), (1, 2));
    assert!(!half.exists());
    let left: Vec<bool> =
        [before.path(), after.path()].map(|root| data_file(root, 7).exists()).to_vec();
    assert_eq!(left.iter().filter(|there| **there).count(), 1);
    assert!(read_block(&again, 7, 1001).unwrap() == data);
    let used: u64 = again.volumes().iter().map(|volume| volume.used_bytes()).sum();
    assert_eq!(used, 70_000);
    again.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_comes_takes_replicas_and_brings_those_it_has() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (store, _) = open(folders[0].path());
    store.join_cluster("c", "p").unwrap();
    for block in 0..8 {
        write_block(&store, block, 1001, &pattern(block, 10_000)).await.unwrap();
    }
    told(&store).await;
    let roots: Vec<PathBuf> = folders.iter().map(|folder| folder.path().to_owned()).collect();
    assert_eq!(store.add_volumes(&roots).unwrap().0, 1);
    assert_eq!(store.add_volumes(&roots).unwrap().0, 0);
    assert_eq!(store.changes().next(1).await, crate::changes::Due::FullReport);
    store.changes().begin_report();
    assert_eq!(store.volumes()[1].identity().cluster_id, "c");
    for block in 8..16 {
        write_block(&store, block, 1001, &pattern(block, 10_000)).await.unwrap();
    }
    let come = (8..16).filter(|&block| on(&store, block) == 1).count();
    assert!((3..=5).contains(&come), "{come} of 8 went to the new volume");
    // What the balancer is told to move goes there too.
    let balancer = Balancer::new(&crate::testing::config(folders[0].path()), store.clone());
    let moved = balancer.carry_out(Move { from: 0, to: 1, bytes: 35_000 }).await;
    assert_eq!((moved, balancer.moved()), (30_000, (3, 30_000)));
    store.flush_indexes().await.unwrap();
    store.stop();
    drop((store, balancer));
    // The second volume with its replicas comes to a DataNode that has the first.
    let (store, found) = open(folders[0].path());
    let (added, brought) = store.add_volumes(&roots).unwrap();
    assert_eq!((found.finalized + brought.finalized, added), (16, 1));
    for block in 0..16 {
        assert!(read_block(&store, block, 1001).unwrap() == pattern(block, 10_000));
    }
    // A volume of another DataNode is refused, and nothing changes.
    let stranger = tempfile::tempdir().unwrap();
    open(stranger.path()).0.stop();
    let refused = store.add_volumes(&[stranger.path().to_owned()]).unwrap_err();
    assert_eq!(refused.code, Code::Incompatible);
    assert_eq!(store.volumes().len(), 2);
    store.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_vanishes_is_a_failed_volume_and_one_too_many_is_the_end() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, _) = Store::open(&two(one.path(), other.path())).unwrap();
    for block in 0..4 {
        write_block(&store, block, 1001, &pattern(block, 100)).await.unwrap();
    }
    for volume in store.volumes() {
        volume.probe().unwrap();
    }
    let watching = tokio::spawn({
        let store = store.clone();
        async move { store.watch_volumes(5).await }
    });
    std::fs::remove_dir_all(other.path()).unwrap();
    assert_eq!(store.volumes()[1].probe().unwrap_err().code, Code::Io);
    wait_until("its replicas are gone", || store.replica_count() == 2).await;
    assert_eq!(store.failed_volumes(), 1);
    assert!(!watching.is_finished(), "one is left");
    // EIO on one replica is damage to that replica, as long as the volume works; too often, it is the volume's.
    let eio = std::io::Error::from_raw_os_error(libc::EIO);
    let volume = store.volumes()[0].clone();
    for _ in 0..15 {
        assert_eq!(volume.read_error("read blk_0", &eio).code, Code::Corrupt);
    }
    assert!(!volume.is_failed());
    volume.read_error("read blk_0", &eio);
    assert!(volume.is_failed());
    let error = tokio::time::timeout(Duration::from_secs(10), watching).await.unwrap().unwrap();
    assert!(error.message.contains("failed_volumes_max is 5"), "{error}");
    store.stop();
}

#[tokio::test]
async fn a_write_error_takes_a_volume_out_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let volume = store.volumes()[0].clone();
    volume.io_error("write", &std::io::Error::from_raw_os_error(libc::ENOSPC));
    assert!(!volume.is_failed());
    volume.io_error("write", &std::io::Error::from_raw_os_error(libc::EIO));
    assert!(volume.is_failed());
    assert_eq!(write_block(&store, 1, 1001, b"x").await.unwrap_err().code, Code::Io);
    store.stop();
}
