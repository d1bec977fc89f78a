//! The page that `hdfs fsck` reads.

use proto::granary::*;

use crate::http::get;
use crate::world::*;

async fn fsck(world: &World, query: &str) -> String {
    get(world.handle().http_addr(), &format!("/fsck?ugi=boss&{query}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_tree_is_healthy_in_hdfs_words() {
    let mut world = World::new().await;
    let node = Datanode::attach(&world, "dn1", 1).await;
    let block = world.write(&node, "/d/f", 9).await;
    let report = fsck(&world, "path=%2F&files=1&blocks=1&locations=1").await;
    let pool = world.handle().pool_id();
    for part in [
        "FSCK started by boss (auth:SIMPLE) from /127.0.0.1 for path / at ".to_owned(),
        "/d <dir>\n/d/f 9 bytes, 1 block(s):  OK\n".to_owned(),
        format!(
            "0. {pool}:blk_{}_{} len=9 repl=1 [DatanodeInfoWithStorage[10.9.9.1:1001,DS-dn1,DISK]]\n\n",
            block.id, block.generation_stamp
        ),
        "Status: HEALTHY\n Total size:\t9 B\n Total dirs:\t2\n Total files:\t1\n".to_owned(),
        " Total blocks (validated):\t1 (avg. block size 9 B)\n".to_owned(),
        " Minimally replicated blocks:\t1 (100.0 %)\n".to_owned(),
        " Missing replicas:\t\t0 (0.0 %)\n Number of data-nodes:\t\t1\n".to_owned(),
        "\n\nThe filesystem under path '/' is HEALTHY".to_owned(),
    ] {
        assert!(report.contains(&part), "{part:?} in {report}");
    }
    let dots = fsck(&world, "path=%2Fd%2Ff").await;
    assert!(dots.contains("\n.Status: HEALTHY"), "{dots}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_is_gone_makes_the_report_corrupt_and_may_be_deleted() {
    let mut world = World::new().await;
    let node = Datanode::attach(&world, "dn1", 1).await;
    let block = world.write(&node, "/d/bad", 9).await;
    world.write(&node, "/d/good", 5).await;
    let bad = ReportBadBlocksRequest {
        caller: boss(),
        replicas: vec![BadReplica { block: Some(block), datanode: "dn1".into() }],
    };
    world.fs.report_bad_blocks(bad).await.unwrap();
    let report = fsck(&world, "path=%2F").await;
    for part in [
        format!(
            "\n/d/bad: CORRUPT blockpool {} block blk_{}\n",
            world.handle().pool_id(),
            block.id
        ),
        "\n/d/bad: MISSING 1 blocks of total size 9 B.".to_owned(),
        "Status: CORRUPT\n".to_owned(),
        "  CORRUPT FILES:\t1\n  MISSING BLOCKS:\t1\n  MISSING SIZE:\t\t9 B\n".to_owned(),
        "The filesystem under path '/' is CORRUPT".to_owned(),
    ] {
        assert!(report.contains(&part), "{part:?} in {report}");
    }
    let list = fsck(&world, "path=%2F&listcorruptfileblocks=1").await;
    assert!(list.contains(&format!("blk_{}\t/d/bad\n", block.id)), "{list}");
    let cookie = list.split("Cookie:\t").nth(1).unwrap().lines().next().unwrap();
    let next = format!("path=%2F&listcorruptfileblocks=1&startblockafter={cookie}");
    assert!(fsck(&world, &next).await.contains("has no more CORRUPT files"));
    let single = fsck(&world, &format!("blockId=blk_{}+", block.id)).await;
    assert!(single.contains("Block belongs to: /d/bad\n"), "{single}");
    assert!(single.contains("No. of live Replica: 0\n"), "{single}");
    fsck(&world, "path=%2F&delete=1").await;
    assert!(world.stat("/d/bad").await.is_none());
    assert!(world.stat("/d/good").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_being_written_are_checked_only_when_asked_for() {
    let mut world = World::new().await;
    let _node = Datanode::attach(&world, "dn1", 1).await;
    world.create("/open").await;
    world.add_block("/open", None).await;
    let report = fsck(&world, "path=%2F").await;
    assert!(report.contains("(Files currently being written: 1)"), "{report}");
    assert!(report.contains("(Total open file blocks (not validated): 1)"), "{report}");
    let report = fsck(&world, "path=%2F&openforwrite=1").await;
    assert!(report.contains("/open 0 bytes, 1 block(s), OPENFORWRITE: "), "{report}");
    assert!(report.contains("Total files:\t1\n"), "{report}");
    assert!(report.ends_with("HEALTHY\r\n0\r\n\r\n"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_goes_no_further_than_its_caller_may() {
    let mut world = World::new().await;
    world.mkdir("/secret").await;
    let request = SetPermissionRequest { caller: boss(), path: "/secret".into(), mode: 0o700 };
    world.fs.set_permission(request).await.unwrap();
    let addr = world.handle().http_addr();
    let report = get(addr, "/fsck?ugi=eve&path=%2F").await;
    assert!(report.contains("Fsck on path '/' FAILED"), "{report}");
    for query in ["blockId=blk_1", "listcorruptfileblocks=1"] {
        let refused = get(addr, &format!("/fsck?ugi=eve&{query}")).await;
        assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    }
    let missing = get(addr, "/fsck?ugi=eve&path=%2Fnone").await;
    assert!(missing.contains("Path '/none' does not exist"), "{missing}");
    let bad = get(addr, "/fsck?ugi=boss&path=relative").await;
    assert!(bad.starts_with("HTTP/1.1 400"), "{bad}");
}
