//! Stores and versions with real streams of kvserve nodes.

use proto::Code;
use proto::granary::*;

use crate::world::*;

async fn publish(world: &mut World, node: &Datanode, number: u32) -> u64 {
    let folder = format!("/out/{number}");
    world.write(node, &format!("{folder}/part-00000.tbl"), 100).await;
    let table = TableInfo {
        path: format!("{folder}/part-00000.tbl"),
        bytes: 100,
        records: 10,
        slot_last: 16_383,
        footer_crc32: number,
        ..Default::default()
    };
    let message = PublishVersionRequest {
        caller: boss(),
        store: "s".into(),
        folder,
        tables: vec![table],
        activate: true,
        keep_versions: 0,
    };
    world.catalogue().publish_version(message).await.unwrap().into_inner().version
}

async fn store(world: &World) -> Store {
    let message = GetStoreRequest { caller: boss(), store: "s".into() };
    world.catalogue().get_store(message).await.unwrap().into_inner()
}

fn holds(down: &KvserveDown, current: u64, versions: &[u64]) -> bool {
    let Some(store) = down.stores.first() else { return false };
    let mut held: Vec<u64> = store.versions.iter().map(|version| version.version).collect();
    held.sort_unstable();
    store.current == current && held == versions
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_flips_when_all_are_ready_fails_by_one_and_rolls_back() {
    let mut world = World::new().await;
    let node = Datanode::attach(&world, "dn1", 1).await;
    let (mut a, mut b) = (Kvserve::attach(&world, "a").await, Kvserve::attach(&world, "b").await);
    assert_eq!(publish(&mut world, &node, 1).await, 1);
    let told = a.assigned("version 1", |down| holds(down, 0, &[1])).await;
    assert_eq!(told.stores[0].versions[0].tables[0].footer_crc32, 1);
    assert_eq!(told.cluster_id, world.handle().cluster_id());
    let path = &told.stores[0].versions[0].tables[0].path;
    assert_eq!(path, "/stores/s/v1/part-00000.tbl");
    assert_eq!(world.stat(path).await.unwrap().links, 2, "the table was linked");

    a.say("s", 1, ServerVersionState::Ready, "").await;
    b.say("s", 1, ServerVersionState::Verifying, "").await;
    world
        .until("both said something", |s| s.kvservers.iter().all(|k| !k.versions.is_empty()))
        .await;
    assert_eq!(store(&world).await.current, 0);
    b.say("s", 1, ServerVersionState::Ready, "").await;
    a.assigned("the flip", |down| holds(down, 1, &[1])).await;
    b.assigned("the flip", |down| holds(down, 1, &[1])).await;

    assert_eq!(publish(&mut world, &node, 2).await, 2);
    a.assigned("version 2", |down| holds(down, 1, &[1, 2])).await;
    b.say("s", 2, ServerVersionState::Failed, "part-00000.tbl: bad footer").await;
    a.assigned("version 2 is dropped", |down| holds(down, 1, &[1])).await;
    let failed = store(&world).await;
    assert_eq!((failed.current, failed.versions[0].state()), (1, VersionState::Failed));
    assert!(failed.versions[0].error.contains("bad footer"));
    assert_eq!(failed.versions[0].servers[0].server, "b");

    publish(&mut world, &node, 3).await;
    drop(b);
    a.say("s", 3, ServerVersionState::Ready, "").await;
    a.assigned("the flip to 3", |down| holds(down, 3, &[1, 3])).await;
    let back = ActivateVersionRequest { caller: boss(), store: "s".into(), version: 0 };
    let rolled = world.catalogue().activate_version(back).await.unwrap().into_inner();
    assert_eq!((rolled.current, rolled.previous), (1, 3));
    a.assigned("the rollback", |down| holds(down, 1, &[1, 3])).await;

    let mut late = Kvserve::attach(&world, "late").await;
    late.assigned("everything at once", |down| holds(down, 1, &[1, 3])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_is_there_after_a_restart_and_is_sent_on_attach() {
    let mut world = World::new().await;
    let node = Datanode::attach(&world, "dn1", 1).await;
    let mut a = Kvserve::attach(&world, "a").await;
    publish(&mut world, &node, 1).await;
    a.say("s", 1, ServerVersionState::Ready, "").await;
    a.assigned("the flip", |down| holds(down, 1, &[1])).await;
    world.restart().await;
    let mut a = Kvserve::attach(&world, "a").await;
    a.assigned("version 1", |down| holds(down, 1, &[1])).await;
    let delete = DeleteStoreRequest { caller: boss(), store: "s".into() };
    assert_eq!(code(world.catalogue().delete_store(delete).await), Code::SafeMode);
    let message = GetStoreRequest { caller: boss(), store: "none".into() };
    assert_eq!(code(world.catalogue().get_store(message).await), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_stream_of_a_kvserve_ends_the_earlier_one() {
    let world = World::new().await;
    let mut old = Kvserve::attach(&world, "a").await;
    // A stream is registered some time after it is open: the first must not be the later one.
    old.assigned("an assignment", |_| true).await;
    let mut new = Kvserve::attach(&world, "a").await;
    new.assigned("an assignment", |_| true).await;
    let end = async {
        loop {
            match old.down.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a stream ends with an error that says why"),
                Err(status) => return proto::Error::from(status).code,
            }
        }
    };
    assert_eq!(tokio::time::timeout(WAIT, end).await.unwrap(), Code::Stale);
}
