//! What HDFS's own clients send and expect, by hand: Java's DFSClient, hdfs-native, gohdfs.

use ::transfer::ChecksumKind;
use proto::hadoop::hdfs::{
    BlockChecksumOptionsProto, OpBlockChecksumResponseProto, PipelineAckProto,
};
use tokio::net::TcpListener;

use super::*;

/// Java's packets: 126 chunks of 512 bytes.
const JAVA_PACKET: usize = 126 * 512;
const BLOCK_BYTES: u64 = 128 << 20;

fn checksum(kind: ChecksumKind, chunk_bytes: u32) -> Checksum {
    Checksum::new(kind, chunk_bytes).unwrap()
}

/// All that a client may choose.
fn choices() -> Vec<Checksum> {
    vec![
        checksum(ChecksumKind::Crc32c, 512),
        checksum(ChecksumKind::Crc32, 512),
        checksum(ChecksumKind::Crc32c, 4096),
        checksum(ChecksumKind::Crc32, 1000),
        checksum(ChecksumKind::Crc32c, 1),
        checksum(ChecksumKind::Crc32, 1 << 20),
    ]
}

/// A request as Java makes it: the size limit of the block in the header, the acknowledged bytes as lower bound.
struct Setup {
    stage: Stage,
    old: u64,
    new: u64,
    acked: u64,
    sent: u64,
    checksum: Checksum,
}

impl Setup {
    fn create(checksum: Checksum) -> Self {
        Self { stage: Stage::PipelineSetupCreate, old: 1001, new: 0, acked: 0, sent: 0, checksum }
    }

    fn append(old: u64, new: u64, length: u64, checksum: Checksum) -> Self {
        Self { stage: Stage::PipelineSetupAppend, old, new, acked: length, sent: 0, checksum }
    }

    fn request(&self, targets: &[DatanodeAddress]) -> Request {
        Request::WriteBlock(Box::new(OpWriteBlockProto {
            header: op::client_header(
                "BP",
                &block(self.old, BLOCK_BYTES),
                "DFSClient_NONMAPREDUCE",
            ),
            targets: targets.iter().map(datanode_info).collect(),
            stage: self.stage as i32,
            pipeline_size: 1 + targets.len() as u32,
            min_bytes_rcvd: self.acked,
            max_bytes_rcvd: self.sent,
            latest_generation_stamp: self.new,
            requested_checksum: self.checksum.to_proto(),
            ..Default::default()
        }))
    }

    async fn try_open(&self, node: &Node, targets: &[DatanodeAddress]) -> Result<Pipe> {
        let mut stream = node.connect().await;
        stream.set_nodelay(true).unwrap();
        stream.write_all(&self.request(targets).encode()).await.unwrap();
        let reply = op::read_response(&mut stream).await?;
        op::check(&reply)?;
        assert_eq!(reply.first_bad_link.as_deref(), Some(""));
        Ok(Pipe { stream, acks: bytes::BytesMut::new(), checksum: self.checksum, seqno: 0 })
    }

    async fn open(&self, node: &Node) -> Pipe {
        self.try_open(node, &[]).await.unwrap()
    }
}

/// The client's end of a pipeline.
struct Pipe {
    stream: TcpStream,
    acks: bytes::BytesMut,
    checksum: Checksum,
    seqno: i64,
}

impl Pipe {
    async fn put(&mut self, offset: u64, data: &[u8], sync: bool) {
        let header = PacketHeader {
            offset_in_block: offset,
            seqno: self.seqno,
            last: false,
            data_len: 0,
            sync,
        };
        self.seqno += 1;
        let packet = SealedPacket::new(header, self.checksum, Bytes::copy_from_slice(data));
        self.stream.write_all(&packet.head).await.unwrap();
        self.stream.write_all(&packet.data).await.unwrap();
    }

    /// Sends one packet and takes its ack.
    async fn send(&mut self, offset: u64, data: &[u8], sync: bool) {
        self.put(offset, data, sync).await;
        self.acked(self.seqno - 1).await;
    }

    /// Sends `data` from `offset`, which begins a chunk, in Java's packets.
    async fn send_all(&mut self, offset: u64, data: &[u8]) {
        let chunk = self.checksum.chunk_bytes();
        let packet = (JAVA_PACKET / chunk).max(1) * chunk;
        let mut at = offset;
        for part in data.chunks(packet) {
            self.send(at, part, false).await;
            at += part.len() as u64;
        }
    }

    async fn close(mut self, length: u64) {
        self.stream.write_all(&last(length, self.seqno).head).await.unwrap();
        self.acked(self.seqno).await;
    }

    async fn ack(&mut self) -> Option<PipelineAck> {
        loop {
            if let Some(ack) = PipelineAck::decode(&mut self.acks).unwrap() {
                return Some(ack);
            }
            if self.stream.read_buf(&mut self.acks).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn acked(&mut self, seqno: i64) {
        let ack = self.ack().await.expect("an ack");
        assert_eq!((ack.seqno, ack.first_failure()), (seqno, None), "{ack:?}");
    }
}

async fn ask_checksum(
    node: &Node,
    stamp: u64,
    length: u64,
    options: Option<(u32, u64)>,
) -> OpBlockChecksumResponseProto {
    let mut stream = node.connect().await;
    let request = Request::BlockChecksum(OpBlockChecksumProto {
        header: op::base_header("BP", &block(stamp, length)),
        block_checksum_options: options.map(|(kind, stripe)| BlockChecksumOptionsProto {
            block_checksum_type: Some(kind),
            stripe_length: Some(stripe),
        }),
    });
    stream.write_all(&request.encode()).await.unwrap();
    let reply = op::read_response(&mut stream).await.unwrap();
    op::check(&reply).unwrap();
    reply.checksum_response.unwrap()
}

fn md5_of(checksum: Checksum, data: &[u8]) -> Vec<u8> {
    use md5::{Digest, Md5};
    let mut sums = vec![0; checksum.sum_bytes(data.len())];
    checksum.compute(data, &mut sums);
    Md5::digest(&sums).to_vec()
}

/// The bug this guards against: whatever a client asked for, CRC32C over 512 bytes was stored, and a file's checksum
/// was another than HDFS's.
#[tokio::test]
async fn a_block_keeps_the_checksums_that_its_writer_asked_for() {
    for choice in choices() {
        let node = Node::start().await;
        let data = pattern(1, 200_123);
        let length = data.len() as u64;
        let mut pipe = Setup::create(choice).open(&node).await;
        pipe.send_all(0, &data).await;
        pipe.close(length).await;
        assert_eq!(read(&node, block(1001, length), 0, length).await.unwrap(), data, "{choice:?}");
        assert_eq!(
            read(&node, block(1001, length), 70_001, 9).await.unwrap(),
            data[70_001..70_010]
        );
        let meta = crate::layout::Folder::of(BlockId(7)).path(node.folder.path());
        let header = std::fs::read(meta.join("blk_7_1001.meta")).unwrap();
        assert_eq!(::transfer::meta::decode_header(&header).unwrap(), choice);
        for asked in [length, 150_000, 1_000, 1] {
            let told = ask_checksum(&node, 1001, asked, None).await;
            let wanted = choice.to_proto();
            assert_eq!(told.bytes_per_crc, wanted.bytes_per_checksum);
            assert_eq!(told.crc_type, Some(wanted.r#type));
            let expected = md5_of(choice, &data[..asked as usize]);
            assert_eq!(told.block_checksum, expected, "{choice:?} {asked}");
        }
        // And after a restart, which finds the files by what their header says.
        node.handle.shutdown().await.unwrap();
        std::fs::remove_dir_all(node.folder.path().join("index")).unwrap();
        let again = start(config(node.folder.path())).await.unwrap();
        let node = Node { handle: again, folder: node.folder };
        assert_eq!(read(&node, block(1001, length), 0, length).await.unwrap(), data, "{choice:?}");
        node.handle.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_composite_crc_is_the_crc_of_the_bytes_whatever_the_chunks() {
    for choice in choices() {
        let node = Node::start().await;
        let data = pattern(2, 70_321);
        let mut pipe = Setup::create(choice).open(&node).await;
        pipe.send_all(0, &data).await;
        pipe.close(data.len() as u64).await;
        for asked in [70_321usize, 65_536, 999] {
            let told = ask_checksum(&node, 1001, asked as u64, Some((2, 0))).await;
            assert_eq!(told.block_checksum[..], choice.of(&data[..asked]).to_be_bytes(), "{asked}");
            assert_eq!(told.block_checksum_options.unwrap().block_checksum_type, Some(2));
        }
        let stripe = choice.chunk_bytes() * 30_000usize.div_ceil(choice.chunk_bytes());
        let told = ask_checksum(&node, 1001, 70_321, Some((2, stripe as u64))).await;
        let expected: Vec<u8> =
            data.chunks(stripe).flat_map(|part| choice.of(part).to_be_bytes()).collect();
        assert_eq!(told.block_checksum, expected);
        node.handle.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_writer_without_checksums_is_stored_with_them() {
    let node = Node::start().await;
    let data = pattern(3, 100_000);
    let mut pipe = Setup::create(checksum(ChecksumKind::Null, 512)).open(&node).await;
    pipe.send_all(0, &data).await;
    pipe.close(100_000).await;
    assert_eq!(read(&node, block(1001, 0), 0, 100_000).await.unwrap(), data);
    let told = ask_checksum(&node, 1001, 100_000, None).await;
    assert_eq!(told.block_checksum, md5_of(Checksum::NATIVE, &data));
}

/// Java flushes in the middle of a chunk and sends from that chunk's start again.
#[tokio::test]
async fn what_overlaps_after_a_flush_or_sync_in_a_chunk_is_taken_once() {
    for choice in choices() {
        let node = Node::start().await;
        let data = pattern(4, 900_000);
        let chunk = choice.chunk_bytes() as u64;
        let mut pipe = Setup::create(choice).open(&node).await;
        let mut at = 0u64;
        for (end, sync) in
            [(10, false), (11, true), (400_000, true), (400_001, false), (700_500, true)]
        {
            let start = at - at % chunk;
            pipe.send(start, &data[start as usize..end], sync).await;
            // An empty packet that only syncs, as hsync() sends it when nothing is new.
            pipe.send(end as u64, &[], true).await;
            assert_eq!(read(&node, block(1001, 0), 0, end as u64).await.unwrap(), &data[..end]);
            at = end as u64;
        }
        let start = at - at % chunk;
        pipe.send_all(start, &data[start as usize..]).await;
        pipe.close(900_000).await;
        assert_eq!(read(&node, block(1001, 0), 0, 900_000).await.unwrap(), data, "{choice:?}");
        let told = ask_checksum(&node, 1001, 900_000, None).await;
        assert_eq!(told.block_checksum, md5_of(choice, &data));
        node.handle.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn an_append_completes_the_chunk_first_whoever_wrote_it_and_whatever_checksums_come() {
    let stored = checksum(ChecksumKind::Crc32, 4096);
    let appended = Checksum::NATIVE;
    let node = Node::start().await;
    let data = pattern(5, 300_000);
    let mut pipe = Setup::create(stored).open(&node).await;
    pipe.send_all(0, &data[..10_001]).await;
    pipe.close(10_001).await;
    let mut pipe = Setup::append(1001, 1002, 10_001, appended).open(&node).await;
    // To the end of the client's own chunk, then whole chunks.
    pipe.send(10_001, &data[10_001..10_240], false).await;
    pipe.send_all(10_240, &data[10_240..200_000]).await;
    pipe.close(200_000).await;
    // hdfs-native appends under the stamp that it was told, without asking for a new one.
    let mut pipe = Setup::append(1002, 1002, 200_000, stored).open(&node).await;
    pipe.send(200_000, &data[200_000..200_704], false).await;
    pipe.send_all(200_704, &data[200_704..]).await;
    pipe.close(300_000).await;
    assert_eq!(read(&node, block(1002, 0), 0, 300_000).await.unwrap(), data);
    let told = ask_checksum(&node, 1002, 300_000, None).await;
    assert_eq!(told.block_checksum, md5_of(stored, &data), "the first writer's checksums stay");
    // A packet that begins within a chunk and reaches beyond it cannot have been meant.
    let mut pipe = Setup::append(1002, 1003, 300_000, appended).open(&node).await;
    pipe.put(300_000, &[1; 400], false).await;
    let ack = pipe.ack().await.unwrap();
    assert_eq!(ack.first_failure(), Some(0));
}

#[tokio::test]
async fn an_append_that_failed_is_set_up_again_and_an_empty_last_block_is_appended_to() {
    let node = Node::start().await;
    let native = Checksum::NATIVE;
    Setup::create(native).open(&node).await.close(0).await;
    let pipe = Setup::append(1001, 1002, 0, native).open(&node).await;
    drop(pipe);
    let again =
        Setup { stage: Stage::PipelineSetupAppendRecovery, ..Setup::append(1001, 1003, 0, native) };
    let mut pipe = again.open(&node).await;
    pipe.send(0, b"abc", false).await;
    pipe.close(3).await;
    assert_eq!(read(&node, block(1003, 0), 0, 3).await.unwrap(), b"abc");
    // The bytes that the writer believes to be there are not.
    let wrong = Setup::append(1003, 1004, 4, native);
    assert_eq!(wrong.try_open(&node, &[]).await.err().unwrap().code, Code::Stale);
    for stage in [Stage::DataStreaming, Stage::PipelineClose] {
        let setup = Setup { stage, ..Setup::append(1003, 1004, 3, native) };
        assert_eq!(setup.try_open(&node, &[]).await.err().unwrap().code, Code::InvalidArgument);
    }
}

#[tokio::test]
async fn packets_of_nearly_16_mib_are_taken_and_larger_ones_close_the_connection() {
    let node = Node::start().await;
    let data = pattern(6, 15 << 20);
    let mut pipe = Setup::create(Checksum::NATIVE).open(&node).await;
    pipe.send(0, &data, false).await;
    let mut huge = (16 << 20 | 5u32).to_be_bytes().to_vec();
    huge.extend([0, 25]);
    huge.extend([0; 64]);
    pipe.stream.write_all(&huge).await.unwrap();
    assert_eq!(pipe.ack().await, None);
    assert_eq!(read(&node, block(1001, 0), 0, 15 << 20).await.unwrap(), data);
}

#[tokio::test]
async fn every_ack_tells_each_status_twice_for_old_and_new_clients() {
    let nodes = chain(3).await;
    let targets = [nodes[1].address(), nodes[2].address()];
    let setup = Setup::create(Checksum::NATIVE);
    let mut pipe = setup.try_open(&nodes[0], &targets).await.unwrap();
    pipe.stream.write_all(&SealedPacket::heartbeat().head).await.unwrap();
    pipe.put(0, b"abc", false).await;
    for seqno in [-1, 0] {
        let message = op::read_delimited(&mut pipe.stream, 1_000).await.unwrap();
        let ack = PipelineAckProto::decode(message).unwrap();
        assert_eq!((ack.seqno, &ack.reply[..], &ack.flag[..]), (seqno, &[0; 3][..], &[0; 3][..]));
    }
    pipe.close(3).await;
    for node in &nodes {
        node.holds(7, 1001, 3).await;
    }
}

/// gohdfs: CRC32, sequence numbers from 1, a pipeline size that is one too small.
#[tokio::test]
async fn a_writer_that_counts_from_one_and_miscounts_the_pipeline_is_served() {
    let nodes = chain(2).await;
    let setup = Setup::create(checksum(ChecksumKind::Crc32, 512));
    let Request::WriteBlock(mut request) = setup.request(&[nodes[1].address()]) else { panic!() };
    request.pipeline_size = 1;
    request.header.client_name = "go-hdfs-x".into();
    let mut stream = nodes[0].connect().await;
    stream.write_all(&Request::WriteBlock(request).encode()).await.unwrap();
    op::check(&op::read_response(&mut stream).await.unwrap()).unwrap();
    let checksum = setup.checksum;
    let mut pipe = Pipe { stream, acks: bytes::BytesMut::new(), checksum, seqno: 1 };
    let data = pattern(7, 200_000);
    for (index, part) in data.chunks(65_536).enumerate() {
        pipe.send(index as u64 * 65_536, part, false).await;
    }
    pipe.close(200_000).await;
    for node in &nodes {
        assert_eq!(read(node, block(1001, 0), 0, 200_000).await.unwrap(), data);
    }
}

#[tokio::test]
async fn a_copy_of_an_open_replica_has_its_checksums_and_goes_on_in_a_pipeline() {
    let nodes = chain(2).await;
    let choice = checksum(ChecksumKind::Crc32, 4096);
    let data = pattern(8, 100_000);
    let mut pipe = Setup::create(choice).open(&nodes[0]).await;
    pipe.send_all(0, &data[..50_001]).await;
    drop(pipe);
    let mut stream = nodes[0].connect().await;
    let request = Request::TransferBlock(Box::new(OpTransferBlockProto {
        header: op::client_header("BP", &block(1001, BLOCK_BYTES), "DFSClient_X"),
        targets: vec![datanode_info(&nodes[1].address())],
        target_storage_types: vec![],
        target_storage_ids: vec![],
    }));
    stream.write_all(&request.encode()).await.unwrap();
    op::check(&op::read_response(&mut stream).await.unwrap()).unwrap();
    let recovery = Setup {
        stage: Stage::PipelineSetupStreamingRecovery,
        new: 1002,
        acked: 40_960,
        sent: 60_000,
        ..Setup::create(choice)
    };
    let mut pipe = recovery.try_open(&nodes[0], &[nodes[1].address()]).await.unwrap();
    // The client resends what it has no ack of, some of which is there already.
    pipe.send_all(40_960, &data[40_960..]).await;
    pipe.close(100_000).await;
    for node in &nodes {
        assert_eq!(read(node, block(1002, 0), 0, 100_000).await.unwrap(), data);
        let told = ask_checksum(node, 1002, 100_000, None).await;
        assert_eq!(told.block_checksum, md5_of(choice, &data));
    }
}

/// The bug this guards against: a reader who had its length from the last DataNode of a pipeline was refused by the
/// first, where the acknowledgement of the same bytes was still on its way.
#[tokio::test]
async fn a_read_waits_for_bytes_whose_acknowledgement_is_on_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let config = crate::Config { visible_wait_ms: 10_000, ..config(folder.path()) };
    let node = Node { handle: start(config).await.unwrap(), folder };
    let (listener, target) = silent_node().await;
    let setup = Setup::create(Checksum::NATIVE);
    let targets = [target];
    let (pipe, mut mirror) = tokio::join!(setup.try_open(&node, &targets), be_set_up(&listener));
    let mut pipe = pipe.unwrap();
    let data = pattern(9, 700);
    pipe.put(0, &data, false).await;
    let store = node.handle.store().clone();
    wait_until("it is written", || {
        store.reported(BlockId(7)).is_some_and(|(b, _)| b.length == 700)
    })
    .await;
    let acknowledge = async {
        assert_eq!(store.visible_length(BlockId(7), GenerationStamp(1001)).unwrap(), 0);
        let ack = PipelineAck::new(0, StatusProto::Success);
        mirror.write_all(&ack.encode()).await.unwrap();
    };
    let (bytes, ()) = tokio::join!(read(&node, block(1001, 0), 0, 700), acknowledge);
    assert_eq!(bytes.unwrap(), data);
}

/// Where the test itself is a DataNode.
async fn silent_node() -> (TcpListener, DatanodeAddress) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = DatanodeAddress {
        uuid: "silent".into(),
        host: "127.0.0.1".into(),
        data_port: listener.local_addr().unwrap().port().into(),
        ..Default::default()
    };
    (listener, address)
}

/// Takes part in one pipeline's set-up.
async fn be_set_up(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    op::read_request(&mut stream).await.unwrap();
    let mut reply = op::response(StatusProto::Success);
    reply.first_bad_link = Some(String::new());
    stream.write_all(&op::encode_delimited(&reply)).await.unwrap();
    stream
}

/// The bug this guards against: all DataNodes of a pipeline waited equally long for an ack, so that the first of them
/// might blame the second, which was well, when the third hung.
#[tokio::test]
async fn a_hanging_node_is_named_by_the_one_before_it() {
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::Config { stall_timeout_ms: 200, ..config(folder.path()) };
        nodes.push(Node { handle: start(config).await.unwrap(), folder });
    }
    let (listener, target) = silent_node().await;
    let targets = [nodes[1].address(), target];
    let setup = Setup::create(Checksum::NATIVE);
    let (pipe, _silent) = tokio::join!(setup.try_open(&nodes[0], &targets), be_set_up(&listener));
    let mut pipe = pipe.unwrap();
    pipe.put(0, b"abc", false).await;
    assert_eq!(pipe.ack().await.unwrap().first_failure(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_beside_a_writer_always_gets_what_is_visible_and_checksums_that_fit() {
    let node = Arc::new(Node::start().await);
    let data = Arc::new(pattern(10, 60_000));
    let choice = checksum(ChecksumKind::Crc32, 700);
    let mut pipe = Setup::create(choice).open(&node).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let reading = tokio::spawn({
        let (node, data) = (node.clone(), data.clone());
        async move {
            let mut reads = 0;
            while !*stopped.borrow() || reads == 0 {
                let store = node.handle.store();
                let visible = store.visible_length(BlockId(7), GenerationStamp(1001)).unwrap();
                if visible > 0 {
                    let bytes = read(&node, block(1001, 0), 0, visible).await.unwrap();
                    assert_eq!(bytes, data[..visible as usize]);
                    reads += 1;
                }
                tokio::task::yield_now().await;
            }
            reads
        }
    });
    let mut at = 0usize;
    let mut step = 1;
    while at < data.len() {
        let end = (at + step).min(data.len());
        let start = at - at % 700;
        pipe.send(start as u64, &data[start..end], false).await;
        at = end;
        step = step % 97 + 13;
    }
    stop.send_replace(true);
    assert!(reading.await.unwrap() > 10);
    pipe.close(60_000).await;
    assert_eq!(read(&node, block(1001, 0), 0, 60_000).await.unwrap(), *data);
}

#[tokio::test]
async fn requests_that_are_not_served_are_refused_in_words() {
    let node = Node::start().await;
    for number in [82u8, 83, 84, 88, 89, 127] {
        let mut stream = node.connect().await;
        stream.write_all(&[0, 28, number, 2, 8, 1]).await.unwrap();
        let reply = op::read_response(&mut stream).await.unwrap();
        assert_eq!(reply.status, StatusProto::ErrorUnsupported as i32, "{number}");
        // Where the replies about shared memory have their text.
        assert!(reply.first_bad_link.unwrap().contains(&number.to_string()));
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "and the connection ends");
    }
}
