//! The client against a NameNode and DataNodes in memory that fail exactly when a test wants them to.
//!
//! The real roles are tested with the client in `tests/`; here faults hit a chosen packet, call or chunk.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod datanode;
mod local;
mod namenode;
mod rpc;
mod striped;

use client::{Code, Config, CreateOptions, Fs, FsPath};
use datanode::FakeDatanode;
use namenode::FakeNamenode;

const BLOCK: u64 = 256 << 10;
const PACKET: u32 = 16 << 10;

struct Cluster {
    namenode: FakeNamenode,
    datanodes: Vec<FakeDatanode>,
    fs: Fs,
    path: FsPath,
}

impl Cluster {
    async fn of(datanodes: usize) -> Self {
        let mut nodes = Vec::new();
        for index in 0..datanodes {
            nodes.push(FakeDatanode::start(&format!("dn-{index}")).await);
        }
        let addresses = nodes.iter().map(|node| node.address.clone()).collect();
        let (namenode, address) = FakeNamenode::start(BLOCK, 3, addresses).await;
        let config = Config {
            namenode: address,
            user: "tester".into(),
            packet_bytes: PACKET,
            write_packets_in_flight_max: 4,
            retry_pause_min_ms: 1,
            retry_pause_max_ms: 20,
            transfer_timeout_ms: 2_000,
            ..Config::default()
        };
        let fs = Fs::connect(config).await.unwrap();
        Self { namenode, datanodes: nodes, fs, path: "/file".parse().unwrap() }
    }

    async fn write(&self, bytes: &[u8]) -> client::Result<()> {
        let mut writer = self.fs.create(&self.path, CreateOptions::default()).await?;
        for piece in bytes.chunks(10_007) {
            writer.write(piece).await?;
        }
        assert_eq!(writer.position(), bytes.len() as u64);
        writer.close().await?;
        Ok(())
    }

    async fn read(&self) -> client::Result<Vec<u8>> {
        Ok(self.fs.read_all(&self.path, 1 << 30).await?.to_vec())
    }

    /// Every live DataNode that the NameNode names for a block has it whole, finalized, at the right stamp.
    fn check_replicas(&self, content: &[u8]) {
        let state = self.namenode.state.lock().unwrap();
        let mut at = 0;
        for located in &state.blocks {
            let block = located.block.unwrap();
            assert_eq!(located.offset, at as u64);
            let expected = &content[at..at + block.length as usize];
            for node in &self.datanodes {
                if located.locations.iter().any(|l| l.uuid == node.address.uuid) {
                    let replica = node.replica(block.id).unwrap();
                    assert!(replica.finalized, "{} of {block:?}", node.address.uuid);
                    assert_eq!(replica.stamp, block.generation_stamp);
                    assert!(replica.data == expected, "bytes of {block:?}");
                }
            }
            at += block.length as usize;
        }
        assert_eq!(at, content.len());
    }

    fn fail_calls(&self, name: &'static str, times: usize, code: Code) {
        self.namenode.state.lock().unwrap().fail_next.insert(name, (times, Some(code)));
    }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 31 % 253) as u8).collect()
}

#[tokio::test]
async fn files_of_every_size_around_packets_and_blocks_come_back() {
    let cluster = Cluster::of(3).await;
    let (packet, block) = (PACKET as usize, BLOCK as usize);
    for bytes in [
        0,
        1,
        511,
        512,
        513,
        packet - 1,
        packet,
        packet + 1,
        block - 1,
        block,
        block + 1,
        2 * block,
        3 * block + 777,
    ] {
        let content = content(bytes);
        cluster.write(&content).await.unwrap();
        cluster.check_replicas(&content);
        assert!(cluster.read().await.unwrap() == content, "{bytes}");
    }
}

#[tokio::test]
async fn a_small_file_costs_one_create_one_block_and_one_complete() {
    let cluster = Cluster::of(3).await;
    cluster.write(b"small").await.unwrap();
    let calls = cluster.namenode.state.lock().unwrap().calls.clone();
    let names: Vec<_> = calls.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["defaults", "create", "add", "complete"]);
}

#[tokio::test]
async fn shared_bytes_are_written_as_copied_ones_are() {
    let cluster = Cluster::of(3).await;
    let content = content(3 * BLOCK as usize + 12_345);
    let shared = bytes::Bytes::from(content.clone());
    for head in [0, 100, 512, 70_000] {
        let mut writer = cluster.fs.create(&cluster.path, CreateOptions::default()).await.unwrap();
        writer.write(&content[..head]).await.unwrap();
        writer.write_bytes(shared.slice(head..)).await.unwrap();
        writer.close().await.unwrap();
        cluster.check_replicas(&content);
    }
}

#[tokio::test]
async fn a_datanode_that_dies_at_any_packet_is_left_out_and_nothing_is_lost() {
    let content = content(BLOCK as usize + 100_000);
    for victim in 0..3 {
        for packets in [0, 1, 5, 15, 16, 17, 20] {
            let cluster = Cluster::of(3).await;
            cluster.datanodes[victim].fail(|f| f.die_after_packets = Some(packets));
            cluster.write(&content).await.unwrap();
            cluster.check_replicas(&content);
            assert!(cluster.read().await.unwrap() == content, "victim {victim} at {packets}");
            assert!(cluster.namenode.count("pipeline") >= 1);
        }
    }
}

#[tokio::test]
async fn a_datanode_that_dies_while_the_block_is_closed_is_left_out() {
    for victim in 0..3 {
        let cluster = Cluster::of(3).await;
        cluster.datanodes[victim].fail(|f| f.die_at_last_packet = true);
        let content = content(50_000);
        cluster.write(&content).await.unwrap();
        cluster.check_replicas(&content);
    }
}

#[tokio::test]
async fn two_of_three_datanodes_may_die_during_one_block() {
    let cluster = Cluster::of(3).await;
    cluster.datanodes[0].fail(|f| f.die_after_packets = Some(3));
    cluster.datanodes[2].fail(|f| f.die_after_packets = Some(7));
    let content = content(BLOCK as usize);
    cluster.write(&content).await.unwrap();
    cluster.check_replicas(&content);
}

#[tokio::test]
async fn a_set_up_that_is_refused_moves_the_block_to_other_datanodes() {
    for refusing in 0..3 {
        let cluster = Cluster::of(4).await;
        cluster.datanodes[refusing].fail(|f| f.refuse_writes = true);
        let content = content(40_000);
        cluster.write(&content).await.unwrap();
        cluster.check_replicas(&content);
        assert_eq!(cluster.namenode.count("abandon"), 1);
    }
}

#[tokio::test]
async fn a_block_that_lost_all_its_datanodes_is_written_anew_while_it_is_held() {
    let cluster = Cluster::of(6).await;
    for node in &cluster.datanodes[..3] {
        node.fail(|f| f.die_after_packets = Some(0));
    }
    let content = content(20_000);
    cluster.write(&content).await.unwrap();
    cluster.check_replicas(&content);
}

#[tokio::test]
async fn the_loss_of_acknowledged_bytes_is_an_error_that_names_the_block_and_what_was_said() {
    let cluster = Cluster::of(6).await;
    for node in &cluster.datanodes[..3] {
        node.fail(|f| f.die_after_packets = Some(6));
    }
    let error = cluster.write(&content(BLOCK as usize)).await.unwrap_err();
    assert_eq!(error.code, Code::NotEnoughDatanodes);
    assert!(error.message.contains("/file") && error.message.contains("blk_"), "{error}");
    assert!(error.message.contains("127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn refusal_by_all_datanodes_tells_why() {
    let cluster = Cluster::of(3).await;
    for node in &cluster.datanodes {
        node.fail(|f| f.refuse_writes = true);
    }
    let error = cluster.write(b"x").await.unwrap_err();
    assert_eq!(error.code, Code::NotEnoughDatanodes);
    assert!(error.message.contains("no room for a block"), "{error}");
}

#[tokio::test]
async fn calls_are_repeated_with_the_same_number_while_the_namenode_is_away() {
    let cluster = Cluster::of(3).await;
    for name in ["create", "add", "complete"] {
        cluster.fail_calls(name, 3, Code::Unavailable);
    }
    cluster.write(b"persistent").await.unwrap();
    let calls = cluster.namenode.state.lock().unwrap().calls.clone();
    for name in ["create", "add", "complete"] {
        let ids: Vec<u64> = calls.iter().filter(|c| c.0 == name).map(|c| c.1).collect();
        assert_eq!(ids.len(), 4, "{name}");
        assert!(ids.iter().all(|id| *id == ids[0] && *id != 0), "{name}: {ids:?}");
    }
}

#[tokio::test]
async fn safe_mode_is_waited_out_and_other_refusals_are_not_repeated() {
    let cluster = Cluster::of(3).await;
    cluster.fail_calls("create", 2, Code::SafeMode);
    cluster.write(b"x").await.unwrap();
    cluster.fail_calls("create", 2, Code::AlreadyExists);
    let error = cluster.write(b"x").await.unwrap_err();
    assert_eq!(error.code, Code::AlreadyExists);
    assert_eq!(cluster.namenode.count("create"), 4);
}

#[tokio::test]
async fn close_asks_again_until_enough_replicas_are_reported() {
    let cluster = Cluster::of(3).await;
    cluster.fail_calls("complete", 2, Code::NotReplicatedYet);
    cluster.write(b"x").await.unwrap();
    let calls = cluster.namenode.state.lock().unwrap().calls.clone();
    let ids: std::collections::BTreeSet<u64> =
        calls.iter().filter(|c| c.0 == "complete").map(|c| c.1).collect();
    assert_eq!(ids.len(), 3, "each is a call of its own");
}

#[tokio::test]
async fn flushes_in_the_middle_of_chunks_keep_every_byte() {
    let cluster = Cluster::of(3).await;
    let content = content(BLOCK as usize + 5_000);
    let mut writer = cluster.fs.create(&cluster.path, CreateOptions::default()).await.unwrap();
    let mut at = 0;
    for (index, step) in [1, 511, 100, 412, 1_000, 50_000, 199_000, 12_000].iter().enumerate() {
        writer.write(&content[at..at + step]).await.unwrap();
        at += step;
        if index % 2 == 0 {
            writer.flush().await.unwrap()
        } else {
            writer.sync().await.unwrap()
        }
        writer.flush().await.unwrap();
        let written: usize = {
            let state = cluster.namenode.state.lock().unwrap();
            let lengths = state.blocks.iter().map(|located| {
                cluster.datanodes[2].replica(located.block.unwrap().id).unwrap().data.len()
            });
            lengths.sum()
        };
        assert_eq!(written, at, "every flushed byte is on the last DataNode");
    }
    writer.write(&content[at..]).await.unwrap();
    writer.close().await.unwrap();
    cluster.check_replicas(&content);
    assert_eq!(cluster.namenode.count("fsync"), 2, "once for each block");
}

#[tokio::test]
async fn an_append_completes_the_open_chunk_and_survives_a_dying_datanode() {
    for victim in [None, Some(0), Some(2)] {
        let cluster = Cluster::of(3).await;
        let content = content(BLOCK as usize + 60_000);
        let cut = 100_100;
        cluster.write(&content[..cut]).await.unwrap();
        if let Some(victim) = victim {
            cluster.datanodes[victim].fail(|f| f.die_after_packets = Some(2));
        }
        let mut writer = cluster.fs.append(&cluster.path).await.unwrap();
        assert_eq!(writer.position(), cut as u64);
        writer.write(&content[cut..cut + 7]).await.unwrap();
        writer.flush().await.unwrap();
        writer.write(&content[cut + 7..]).await.unwrap();
        writer.close().await.unwrap();
        cluster.check_replicas(&content);
        assert!(cluster.read().await.unwrap() == content);
    }
}

#[tokio::test]
async fn an_append_to_a_full_block_asks_for_the_next_one() {
    let cluster = Cluster::of(3).await;
    let content = content(2 * BLOCK as usize);
    cluster.write(&content[..BLOCK as usize]).await.unwrap();
    let mut writer = cluster.fs.append(&cluster.path).await.unwrap();
    writer.write(&content[BLOCK as usize..]).await.unwrap();
    writer.close().await.unwrap();
    cluster.check_replicas(&content);
}

#[tokio::test]
async fn a_damaged_replica_is_passed_over_and_reported() {
    let cluster = Cluster::of(3).await;
    let content = content(BLOCK as usize);
    cluster.write(&content).await.unwrap();
    cluster.datanodes[0].fail(|f| f.flip_at = Some(100_000));
    assert!(cluster.read().await.unwrap() == content);
    let reported = async {
        while cluster.namenode.state.lock().unwrap().reported_bad.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), reported).await.unwrap();
    assert_eq!(cluster.namenode.state.lock().unwrap().reported_bad, ["dn-0"]);
}

#[tokio::test]
async fn a_read_goes_on_where_the_dead_datanode_stopped() {
    let cluster = Cluster::of(3).await;
    let content = content(2 * BLOCK as usize);
    cluster.write(&content).await.unwrap();
    cluster.datanodes[0].fail(|f| f.cut_reads_after = Some(5));
    cluster.datanodes[1].kill();
    assert!(cluster.read().await.unwrap() == content);
}

#[tokio::test]
async fn a_read_without_a_good_replica_says_what_each_one_said() {
    let cluster = Cluster::of(3).await;
    cluster.write(&content(10_000)).await.unwrap();
    for node in &cluster.datanodes[..2] {
        node.fail(|f| f.flip_at = Some(5_000));
    }
    cluster.datanodes[2].shared.replicas.lock().unwrap().clear();
    let error = cluster.read().await.unwrap_err();
    assert_eq!(error.code, Code::BlockMissing);
    for part in ["/file", "blk_", "checksum", "is not here"] {
        assert!(error.message.contains(part), "{error} should tell {part}");
    }
    assert!(cluster.namenode.count("locate") >= 3, "the NameNode was asked anew");
}

#[tokio::test]
async fn positional_and_sequential_reads_agree_with_the_content() {
    let cluster = Cluster::of(3).await;
    let content = content(6 * BLOCK as usize + 333);
    cluster.write(&content).await.unwrap();
    let mut reader = cluster.fs.open(&cluster.path).await.unwrap();
    for (offset, length) in
        [(0, 10), (BLOCK as usize - 5, 10), (700, 300_000), (content.len() - 3, 100)]
    {
        let mut buffer = vec![0; length];
        let count = reader.read_at(offset as u64, &mut buffer).await.unwrap();
        let end = (offset + length).min(content.len());
        assert!(buffer[..count] == content[offset..end], "{offset}+{length}");
    }
    let mut byte = [0];
    assert_eq!(reader.read_at(content.len() as u64 + 5, &mut byte).await.unwrap(), 0);
    let reads = *cluster.datanodes[0].shared.reads.lock().unwrap();
    let mut all = Vec::new();
    while let Some(bytes) = reader.read_next().await.unwrap() {
        all.extend_from_slice(&bytes);
    }
    assert!(all == content);
    let streamed = *cluster.datanodes[0].shared.reads.lock().unwrap() - reads;
    assert_eq!(streamed, 7, "one request for each block");
    reader.seek(123_456);
    assert_eq!(reader.read_next().await.unwrap().unwrap()[0], content[123_456]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_threads_write_and_read_through_std_io() {
    use std::io::{Read, Seek, SeekFrom, Write};
    let cluster = Cluster::of(3).await;
    let content = content(2 * BLOCK as usize + 99);
    let (fs, path, expected) = (cluster.fs.clone(), cluster.path.clone(), content.clone());
    tokio::task::spawn_blocking(move || {
        let runtime = fs.runtime().clone();
        let writer = runtime.block_on(fs.create(&path, CreateOptions::default())).unwrap();
        let mut writer = writer.into_blocking();
        for piece in expected.chunks(1_000) {
            writer.write_all(piece).unwrap();
        }
        writer.close().unwrap();
        let mut reader = runtime.block_on(fs.open(&path)).unwrap().into_blocking();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert!(all == expected);
        reader.seek(SeekFrom::End(-50)).unwrap();
        let mut tail = Vec::new();
        reader.read_to_end(&mut tail).unwrap();
        assert!(tail == expected[expected.len() - 50..]);
        reader.seek(SeekFrom::Start(10)).unwrap();
        reader.seek(SeekFrom::Current(-3)).unwrap();
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        assert_eq!(byte[0], expected[7]);
    })
    .await
    .unwrap();
    cluster.check_replicas(&content);
}

#[tokio::test]
async fn a_wrong_namenode_address_is_told_with_the_systems_reason_or_the_setting() {
    let config =
        Config { namenode: "127.0.0.1:1".into(), connect_total_ms: 50, ..Config::default() };
    let error = Fs::connect(config).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    for said in ["127.0.0.1:1:", "Connection refused"] {
        assert!(error.message.contains(said), "{said:?} is not in {error}");
    }
    let config = Config { namenode: "nonsense".into(), ..Config::default() };
    let error = Fs::connect(config).await.unwrap_err();
    assert!(error.code == Code::InvalidArgument && error.message.contains("`namenode`"), "{error}");
}
