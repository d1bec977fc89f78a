//! Who comes late, with an older stamp or an older recovery, changes nothing.

use super::*;

/// Everything that a late comer with stamps up to `new` may try with block 7, which has 1000 bytes of `GS` or newer.
async fn all_refused(store: &Arc<Store>, new: GenerationStamp) {
    let expected = Expected { acked_min: 0, sent_max: 1_000 };
    let checksum = Checksum::NATIVE;
    for purpose in [
        Purpose::Append(change(GS, new, 1_000)),
        Purpose::RecoverAppend(change(GS, new, 1_000)),
        Purpose::RecoverClose(change(GS, new, 1_000)),
        Purpose::RecoverStreaming { asked: GS, new, expected },
        Purpose::Create { stamp: new, bytes: 1_000, checksum },
        Purpose::Transfer { stamp: new, bytes: 1_000, checksum },
    ] {
        let begun = store.begin_write(BlockId(7), purpose).await;
        let code = begun.err().unwrap_or_else(|| panic!("{purpose:?} was let in")).code;
        assert!(matches!(code, Code::Stale | Code::AlreadyExists), "{purpose:?}: {code:?}");
    }
    assert_eq!(store.init_recovery(BlockId(7), GS, new).await.unwrap_err().code, Code::Stale);
    let finished = store.finish_recovery(BlockId(7), new, 500).await;
    assert_eq!(finished.unwrap_err().code, Code::Stale);
}

#[tokio::test]
async fn a_recovery_that_was_accepted_fences_older_recoveries_and_every_writer() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let data = pattern(1, 1_000);
    write_block(&store, 7, 1001, &data).await.unwrap();
    let recovery = GenerationStamp(1005);
    assert!(store.init_recovery(BlockId(7), GS, recovery).await.unwrap().is_some());
    all_refused(&store, GenerationStamp(1004)).await;
    store.finish_recovery(BlockId(7), recovery, 900).await.unwrap();
    // Settled: still nobody older gets in, and a deletion that was meant for an older generation does nothing.
    all_refused(&store, GenerationStamp(1004)).await;
    let late = store.delete(BlockId(7), GenerationStamp(1004)).await;
    assert_eq!(late.unwrap_err().code, Code::Stale);
    assert_eq!(read_block(&store, 7, 1005).unwrap(), &data[..900]);
    // Said twice, the second step is harmless; another length is not taken.
    store.finish_recovery(BlockId(7), recovery, 900).await.unwrap();
    assert!(store.finish_recovery(BlockId(7), recovery, 800).await.is_err());
    store.stop();
    let copy = tempfile::tempdir().unwrap();
    copy_tree(folder.path(), copy.path());
    let (again, _) = open(copy.path());
    assert_eq!(read_block(&again, 7, 1005).unwrap(), &data[..900]);
    all_refused(&again, GenerationStamp(1004)).await;
    again.stop();
}

#[tokio::test]
async fn a_writer_that_went_on_under_a_new_stamp_fences_the_pipeline_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let data = pattern(2, 1_000);
    let create = Purpose::Create { stamp: GS, bytes: 0, checksum: Checksum::NATIVE };
    let old = store.begin_write(BlockId(7), create).await.unwrap();
    write(&old, 0, &data[..600], false).await.unwrap();
    let expected = Expected { acked_min: 600, sent_max: 600 };
    let go_on = Purpose::RecoverStreaming { asked: GS, new: GS3, expected };
    // The old connection's task drops its session when it is told to stop.
    let stopping = async {
        old.stopped().await;
        drop(old);
    };
    let (new, ()) = tokio::join!(store.begin_write(BlockId(7), go_on), stopping);
    let new = new.unwrap();
    // The old one comes back with the stamp that it has, or one that was minted before.
    for stamp in [GS, GS2] {
        let expected = Expected { acked_min: 0, sent_max: 1_000 };
        let back = Purpose::RecoverStreaming { asked: GS, new: stamp, expected };
        assert_eq!(store.begin_write(BlockId(7), back).await.err().unwrap().code, Code::Stale);
        let recovered = store.init_recovery(BlockId(7), GS, stamp).await;
        assert_eq!(recovered.unwrap_err().code, Code::Stale);
    }
    // Nobody has stopped the new one.
    let stopped = tokio::time::timeout(Duration::from_millis(1), new.stopped()).await;
    assert!(stopped.is_err());
    write(&new, 600, &data[600..], false).await.unwrap();
    new.finish().await.unwrap().await.unwrap().unwrap();
    assert_eq!(read_block(&store, 7, 1003).unwrap(), data);
    store.stop();
}
