//! Copies that break off go on; tables that differ in any part from what was published are refused.

use super::*;
use crate::testing::{LocalFiles, build, records, small_limits};

async fn fetch(
    fetcher: &Arc<Fetcher>,
    folder: &Path,
    specs: &Arc<[TableSpec]>,
) -> Result<u64, Failure> {
    let done = Arc::new(AtomicU64::new(0));
    fetcher.fetch(folder, specs, &done).await?;
    Ok(done.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_copy_that_broke_off_goes_on_at_the_byte_where_it_stopped() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let specs = build(source.path(), "v1", 2, &records(1000, 1));
    let files = LocalFiles::default();
    files.fail_after.store(10_000, Ordering::SeqCst);
    let fetcher = Arc::new(Fetcher::new(files.origin(), small_limits()));
    let failure = fetch(&fetcher, target.path(), &specs).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Transient);
    let here: Vec<u64> = (0..2)
        .map(|n| std::fs::metadata(partial_path(target.path(), n)).map_or(0, |m| m.len()))
        .collect();
    assert!(here.iter().sum::<u64>() >= 8_000, "{here:?} were fetched");

    // A server that was started anew knows nothing but the files.
    files.fail_after.store(0, Ordering::SeqCst);
    files.offsets.lock().unwrap().clear();
    let fetcher = Arc::new(Fetcher::new(files.origin(), small_limits()));
    let total: u64 = specs.iter().map(|spec| spec.bytes).sum();
    assert_eq!(fetch(&fetcher, target.path(), &specs).await.unwrap(), total);
    for (n, spec) in specs.iter().enumerate() {
        let offsets = files.offsets.lock().unwrap();
        let first = offsets
            .iter()
            .filter(|(path, _)| *path == Path::new(&spec.path))
            .map(|(_, o)| *o)
            .min();
        assert_eq!(first, Some(here[n]), "table {n} goes on where it stopped");
    }
    let open = verify_and_open(target.path(), &specs, 2, true).unwrap();
    assert_eq!(open.iter().map(|(_, table)| table.records()).sum::<u64>(), 1000);
    assert!(target.path().join("part-00001.tbl").exists());
    assert!(!partial_path(target.path(), 1).exists());
    open_verified(target.path(), &specs).unwrap();
}

#[tokio::test]
async fn a_table_that_was_altered_or_cut_in_any_part_is_refused_and_fetched_again() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let specs = build(source.path(), "v1", 1, &records(2000, 1));
    let good = std::fs::read(&specs[0].path).unwrap();
    let table = Table::open(&specs[0].path).unwrap();
    let footer = table.footer().clone();
    let middle = |section: sstable::Section| section.offset + section.bytes / 2;
    let mut damages: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, at) in [
        ("header", 3),
        ("first block", 40),
        ("last block", footer.index.offset - 70),
        ("index", middle(footer.index)),
        ("hash", middle(footer.hash)),
        ("properties", middle(footer.properties)),
        ("footer", good.len() as u64 - 20),
        ("end mark", good.len() as u64 - 1),
    ] {
        let mut bad = good.clone();
        bad[at as usize] ^= 0x10;
        damages.push((format!("a bit of the {name}"), bad));
    }
    for cut in [0, 1, 100, good.len() / 2, good.len() - 1] {
        damages.push((format!("cut to {cut} bytes"), good[..cut].to_vec()));
    }
    let other = build(source.path(), "v2", 1, &records(2000, 2));
    damages.push(("another table".into(), std::fs::read(&other[0].path).unwrap()));
    damages.push(("bytes behind it".into(), [&good[..], b"more"].concat()));

    let fetcher = Arc::new(Fetcher::new(LocalFiles::default().origin(), small_limits()));
    for (what, bytes) in damages {
        let partial = partial_path(target.path(), 0);
        std::fs::write(&partial, bytes).unwrap();
        let failure = verify_and_open(target.path(), &specs, 1, false).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Damaged, "{what}: {}", failure.message);
        assert!(failure.message.contains(&specs[0].path), "{what}: {}", failure.message);
        assert!(!partial.exists(), "{what}: it is thrown away");
        assert!(!target.path().join(file_name(0)).exists(), "{what}: it never gets its name");
    }
    fetch(&fetcher, target.path(), &specs).await.unwrap();
    verify_and_open(target.path(), &specs, 1, false).unwrap();
}

#[tokio::test]
async fn a_fetch_that_would_fill_the_disk_does_not_start() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let specs = build(source.path(), "v1", 1, &records(10, 1));
    let files = LocalFiles::default();
    let limits = FetchLimits { disk_reserve_bytes: u64::MAX / 2, ..small_limits() };
    let fetcher = Arc::new(Fetcher::new(files.origin(), limits));
    let failure = fetch(&fetcher, target.path(), &specs).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Lasting);
    assert!(failure.message.contains("bytes free"), "{}", failure.message);
    assert_eq!(files.served.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_file_of_another_length_than_published_is_told_as_such() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let specs = build(source.path(), "v1", 1, &records(10, 1));
    let mut wrong = specs[0].clone();
    wrong.bytes += 1;
    let fetcher = Arc::new(Fetcher::new(LocalFiles::default().origin(), small_limits()));
    let failure = fetch(&fetcher, target.path(), &Arc::from([wrong])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Lasting);
    assert!(failure.message.contains("the catalogue says"), "{}", failure.message);
}
