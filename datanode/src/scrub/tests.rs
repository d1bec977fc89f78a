//! Whole DataNodes that find what was flipped, cut and lost, and leave the page cache alone.

use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use proto::GenerationStamp;
use proto::granary::ReplicaState;

use super::*;
use crate::changes::Due;
use crate::layout::{self, Folder};
use crate::server::start;
use crate::store::Purpose;
use crate::testing::{config, open, pattern, wait_until, write, write_block};

fn quick(volume: &Path) -> Config {
    Config { scrub_period_ms: 3_600_000, scrub_bytes_per_s: 0, ..config(volume) }
}

fn files(volume: &Path, block: u64) -> (std::path::PathBuf, std::path::PathBuf) {
    let folder = Folder::of(BlockId(block)).path(volume);
    let meta = layout::meta_name(BlockId(block), GenerationStamp(1001));
    (folder.join(layout::data_name(BlockId(block))), folder.join(meta))
}

fn flip(path: &Path, at: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 8], at).unwrap();
}

fn scrubber(config: &Config, store: &Arc<Store>) -> Arc<Scrubber> {
    let limits = crate::data_server::Limits::from(config);
    let server = DataServer::new(store.clone(), limits);
    Scrubber::new(config, store.clone(), server)
}

async fn corrupt_ones(store: &Store) -> Vec<u64> {
    let mut told = Vec::new();
    while let Ok(due) =
        tokio::time::timeout(Duration::from_millis(20), store.changes().next(100)).await
    {
        let Due::Changes(changes) = due else { panic!("no report is owed") };
        let corrupt = changes.iter().filter(|change| change.state() == ReplicaState::Corrupt);
        told.extend(corrupt.map(|change| change.block.unwrap().id));
    }
    told.sort_unstable();
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_finds_flipped_bits_cut_files_and_lost_ones_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let handle = {
        let (store, _) = open(folder.path());
        for block in 1..=9 {
            let length = [0, 1, 511, 512, 513, 4_096, 70_001, 1 << 20, 1_500_000, 100][block];
            write_block(&store, block as u64, 1001, &pattern(3, length)).await.unwrap();
        }
        write_block(&store, 1 << 63 | 5, 1001, &pattern(4, 2_000_000)).await.unwrap();
        store.flush_indexes().await.unwrap();
        store.stop();
        drop(store);
        flip(&files(folder.path(), 6).0, 70_000);
        flip(&files(folder.path(), 8).1, 100);
        flip(&files(folder.path(), 1 << 63 | 5).0, 1_048_575);
        std::fs::remove_file(files(folder.path(), 3).0).unwrap();
        let cut = std::fs::File::options().write(true).open(files(folder.path(), 7).0).unwrap();
        cut.set_len(1 << 19).unwrap();
        start(quick(folder.path())).await.unwrap()
    };
    let scrubber = handle.scrubber().clone();
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    wait_until("a round has ended", || count(&scrubber.counters().rounds) == 1).await;
    assert_eq!(corrupt_ones(handle.store()).await, [3, 6, 7, 8, 1 << 63 | 5]);
    assert_eq!(count(&scrubber.counters().corrupt), 5);
    assert_eq!(count(&scrubber.counters().replicas), 5);
    let progress = scrubber.progress(0).unwrap();
    assert_eq!((progress.corrupt, progress.left_bytes), (5, 0));
    assert!(progress.last_finished_ms >= progress.started_ms && progress.started_ms > 0);
    handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_where_scrubbing_was_and_a_round_that_ended_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    for block in 1..=4 {
        write_block(&store, block, 1001, &pattern(block, 10_000)).await.unwrap();
    }
    // As if blocks 1 and 2 had been looked at an hour ago.
    let part = Folder::of(BlockId(1)).number() / 64;
    let begun = Cursor { part, block: Some(BlockId(2)), ..Cursor::new(now_ms() - 1_000) };
    begun.save(folder.path()).unwrap();
    flip(&files(folder.path(), 1).0, 5);
    flip(&files(folder.path(), 4).0, 5);
    let settings = quick(folder.path());
    let first = scrubber(&settings, &store);
    let running = tokio::spawn(first.clone().run());
    wait_until("the round has ended", || first.counters().rounds.load(Ordering::Relaxed) == 1)
        .await;
    // It takes nothing any more of what is put under suspicion below.
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    assert_eq!(corrupt_ones(&store).await, [4]);
    let cursor = Cursor::load(folder.path()).unwrap();
    assert_eq!((cursor.part, cursor.started_ms, cursor.corrupt), (PARTS, begun.started_ms, 1));
    // The next start has nothing to do before the period is over, but for what is under suspicion.
    let second = scrubber(&settings, &store);
    for suspect in [1, 1, 77] {
        store.suspects().push(BlockId(suspect));
    }
    // Not before all wait: one that was taken already may come again, and be found damaged twice.
    let running = tokio::spawn(second.clone().run());
    wait_until("it was looked at", || second.counters().suspects.load(Ordering::Relaxed) >= 2)
        .await;
    wait_until("it is told", || second.counters().corrupt.load(Ordering::Relaxed) == 1).await;
    assert_eq!(corrupt_ones(&store).await, [1]);
    assert_eq!(second.counters().replicas.load(Ordering::Relaxed), 0);
    running.abort();
    store.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_changes_while_it_is_looked_at_is_not_called_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let settings = Config { scrub_period_ms: 0, ..quick(folder.path()) };
    let scrubber = scrubber(&settings, &store);
    let running = tokio::spawn(scrubber.clone().run());
    for round in 0..30u64 {
        let stamp = GenerationStamp(1001);
        write_block(&store, round, 1001, &pattern(round, 3_000_000)).await.unwrap();
        store.suspects().push(BlockId(round));
        if round % 2 == 0 {
            store.delete(BlockId(round), stamp).await.unwrap();
        } else {
            let change = crate::store::Change {
                asked: stamp,
                new: GenerationStamp(1002),
                length: 3_000_000,
            };
            let append = Purpose::Append(change);
            let session = store.begin_write(BlockId(round), append).await.unwrap();
            write(&session, 3_000_000, &pattern(9, 700), false).await.unwrap();
            session.finish().await.unwrap().await.unwrap().unwrap();
        }
    }
    wait_until("all were looked at", || scrubber.counters().suspects.load(Ordering::Relaxed) == 30)
        .await;
    store.suspects().push(BlockId(1));
    wait_until("the last too", || scrubber.counters().replicas.load(Ordering::Relaxed) > 0).await;
    assert_eq!(corrupt_ones(&store).await, [] as [u64; 0]);
    running.abort();
    store.stop();
}

/// How many pages of a file are in memory.
fn resident(path: &Path) -> usize {
    let file = std::fs::File::open(path).unwrap();
    let length = file.metadata().unwrap().len() as usize;
    let mut pages = vec![0u8; length.div_ceil(4_096)];
    // SAFETY: a private read-only mapping of a file that nobody cuts meanwhile; `pages` has a byte for each page.
    unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        assert_ne!(at, libc::MAP_FAILED);
        assert_eq!(libc::mincore(at, length, pages.as_mut_ptr()), 0);
        libc::munmap(at, length);
    }
    pages.iter().filter(|page| *page & 1 == 1).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scrubbing_neither_fills_the_page_cache_nor_empties_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    write_block(&store, 1, 1001, &pattern(1, 2 << 20)).await.unwrap();
    write_block(&store, 2, 1001, &pattern(2, 2 << 20)).await.unwrap();
    let (cold, warm) = (files(folder.path(), 1).0, files(folder.path(), 2).0);
    let drop_pages = |path: &Path| {
        let file = std::fs::File::open(path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    };
    drop_pages(&cold);
    if resident(&cold) > 0 {
        // A file system in memory: there is no cache to speak of.
        store.stop();
        return;
    }
    std::fs::read(&warm).unwrap();
    let before = resident(&warm);
    let settings = Config { scrub_period_ms: 0, ..quick(folder.path()) };
    let scrubber = scrubber(&settings, &store);
    let running = tokio::spawn(scrubber.clone().run());
    store.suspects().push(BlockId(1));
    store.suspects().push(BlockId(2));
    wait_until("both were verified", || scrubber.counters().replicas.load(Ordering::Relaxed) == 2)
        .await;
    assert_eq!((resident(&cold), resident(&warm)), (0, before));
    running.abort();
    store.stop();
}
