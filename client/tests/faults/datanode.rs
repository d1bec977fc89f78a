//! A DataNode in memory that speaks the data-transfer protocol and fails on demand.
//!
//! It takes part in pipelines one packet at a time, and serves reads. It keeps no files and tells no NameNode.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proto::granary::DatanodeAddress;
use proto::hadoop::hdfs::{
    OpReadBlockProto, OpWriteBlockProto, ReadOpChecksumInfoProto, StatusProto,
};
use proto::{Code, Error};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use transfer::connection::dial;
use transfer::packet::{PacketHeader, PacketReader, SealedPacket};
use transfer::writer::Stage;
use transfer::{Checksum, Peer, PipelineAck, Request, Timeouts, meta, op, short_circuit};

/// What one replica holds.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    pub stamp: u64,
    pub data: Vec<u8>,
    pub finalized: bool,
}

/// How it fails.
#[derive(Debug, Default)]
pub struct Faults {
    /// Dies when it has taken so many more packets.
    pub die_after_packets: Option<usize>,
    /// Dies when the last packet of a block arrives.
    pub die_at_last_packet: bool,
    /// Refuses to set up pipelines.
    pub refuse_writes: bool,
    /// Flips a bit of what it serves, at this offset of the block.
    pub flip_at: Option<u64>,
    /// Takes requests for reads and does not answer.
    pub stall_reads: bool,
    /// Closes a read after so many packets.
    pub cut_reads_after: Option<usize>,
    dead: bool,
}

#[derive(Debug)]
pub struct Shared {
    pub replicas: Mutex<HashMap<u64, Replica>>,
    pub faults: Mutex<Faults>,
    pub reads: Mutex<usize>,
    /// Where it hands over open files.
    folder: tempfile::TempDir,
    pub handed_over: Mutex<usize>,
}

pub struct FakeDatanode {
    pub address: DatanodeAddress,
    pub shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

/// Data bytes of a packet that it sends.
const PACKET: u64 = 8192;

impl FakeDatanode {
    pub async fn start(uuid: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = DatanodeAddress {
            uuid: uuid.into(),
            host: "127.0.0.1".into(),
            data_port: u32::from(listener.local_addr().unwrap().port()),
            ..Default::default()
        };
        let shared = Arc::new(Shared {
            replicas: Mutex::default(),
            faults: Mutex::default(),
            reads: Mutex::default(),
            folder: tempfile::tempdir().unwrap(),
            handed_over: Mutex::default(),
        });
        let accepting = shared.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if accepting.is_dead() {
                    return; // the listener is closed: further connections are refused
                }
                let shared = accepting.clone();
                tokio::spawn(async move { shared.serve(stream).await });
            }
        });
        Self { address, shared, server }
    }

    pub fn fail(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared.faults.lock().unwrap());
    }

    /// From now on it hands over open files to clients on this machine. Gives the socket's path.
    pub fn listen_locally(&self) -> String {
        let path = self.shared.folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let shared = self.shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move { shared.hand_over(stream).await });
            }
        });
        path.to_str().unwrap().to_owned()
    }

    pub fn kill(&self) {
        self.fail(|faults| faults.dead = true);
        self.server.abort();
    }

    pub fn is_dead(&self) -> bool {
        self.shared.is_dead()
    }

    /// It loses all it has; gives that.
    pub fn take_replicas(&self) -> HashMap<u64, Replica> {
        std::mem::take(&mut self.shared.replicas.lock().unwrap())
    }

    pub fn replica(&self, block: u64) -> Option<Replica> {
        self.shared.replicas.lock().unwrap().get(&block).cloned()
    }
}

impl Shared {
    fn is_dead(&self) -> bool {
        self.faults.lock().unwrap().dead
    }

    async fn serve(&self, mut stream: TcpStream) {
        while let Ok(Some(request)) = op::read_request(&mut stream).await {
            if self.is_dead() {
                return;
            }
            match request {
                Request::WriteBlock(request) => {
                    self.write(&mut stream, *request).await;
                    return;
                }
                Request::ReadBlock(request) => {
                    if self.read(&mut stream, request).await.is_none() {
                        return;
                    }
                }
                other => panic!("not expected here: {other:?}"),
            }
        }
    }

    /// Writes a replica's two files and sends them open, with the bit flipped that the test wants.
    async fn hand_over(&self, mut stream: UnixStream) {
        while let Ok(Some(Request::ShortCircuitFds(request))) = op::read_request(&mut stream).await
        {
            let id = request.header.block.block_id;
            let replica = self.replicas.lock().unwrap().get(&id).cloned();
            let Some(mut replica) = replica else {
                let error = Error::new(Code::NotFound, format!("blk_{id} is not here"));
                short_circuit::send_error(&mut stream, &error).await.unwrap();
                continue;
            };
            let checksum = Checksum::NATIVE;
            let mut sums = vec![0; checksum.sum_bytes(replica.data.len())];
            checksum.compute(&replica.data, &mut sums);
            let meta = [&meta::encode_header(checksum)[..], &sums].concat();
            if let Some(at) = self.faults.lock().unwrap().flip_at {
                replica.data[at as usize] ^= 1;
            }
            let mut open = Vec::new();
            for (name, bytes) in [("data", &replica.data), ("meta", &meta)] {
                let path = self.folder.path().join(format!("{id}.{name}"));
                std::fs::write(&path, bytes).unwrap();
                open.push(std::fs::File::open(path).unwrap());
            }
            *self.handed_over.lock().unwrap() += 1;
            short_circuit::send_files(&mut stream, &open[0], &open[1]).await.unwrap();
        }
    }

    async fn write(&self, stream: &mut TcpStream, request: OpWriteBlockProto) {
        let block = request.header.base_header.block.clone();
        let stage = Stage::try_from(request.stage).unwrap();
        if self.faults.lock().unwrap().refuse_writes {
            let error = Error::new(Code::NoSpace, "no room for a block");
            reply(stream, &op::error_response(&error)).await;
            return;
        }
        let mut mirror = None;
        if let Some(next) = request.targets.first() {
            match set_up_mirror(&request).await {
                Ok(stream) => mirror = Some(stream),
                Err(bad) => {
                    let mut answer = op::response(StatusProto::Error);
                    let link = format!("{}:{}", next.id.ip_addr, next.id.xfer_port);
                    answer.first_bad_link = Some(bad.unwrap_or(link));
                    reply(stream, &answer).await;
                    return;
                }
            }
        }
        {
            let mut replicas = self.replicas.lock().unwrap();
            let replica = replicas.entry(block.block_id).or_default();
            match stage {
                Stage::PipelineSetupCreate => *replica = Replica::default(),
                _ => {
                    assert!(replica.data.len() as u64 >= request.min_bytes_rcvd);
                    assert!(replica.data.len() as u64 <= request.max_bytes_rcvd);
                }
            }
            assert!(request.latest_generation_stamp >= replica.stamp);
            replica.stamp = request.latest_generation_stamp;
            replica.finalized = false;
        }
        reply(stream, &op::response(StatusProto::Success)).await;
        self.take_packets(stream, mirror, block.block_id).await;
    }

    async fn take_packets(
        &self,
        stream: &mut TcpStream,
        mut mirror: Option<TcpStream>,
        block: u64,
    ) {
        let mut packets = PacketReader::new();
        let mut acks = bytes::BytesMut::new();
        while let Ok(packet) = packets.next(stream).await {
            let header = *packet.header();
            if self.dies_at(&header) {
                return;
            }
            packet.verify(Checksum::NATIVE, "packet").unwrap();
            if header.seqno >= 0 {
                let mut replicas = self.replicas.lock().unwrap();
                let replica = replicas.get_mut(&block).unwrap();
                let at = usize::try_from(header.offset_in_block).unwrap();
                assert!(at <= replica.data.len(), "packets leave no gap");
                replica.data.truncate(at);
                replica.data.extend_from_slice(packet.data());
                replica.finalized = header.last;
            }
            let mut ack = PipelineAck::new(header.seqno, StatusProto::Success);
            if let Some(next) = mirror.as_mut() {
                ack = match forward(next, packet.frame(), &mut acks).await {
                    Some(down) => PipelineAck::upstream(StatusProto::Success, &down),
                    None => {
                        let down = PipelineAck::new(header.seqno, StatusProto::Error);
                        let ack = PipelineAck::upstream(StatusProto::Success, &down);
                        let _gone = stream.write_all(&ack.encode()).await;
                        return;
                    }
                };
            }
            if stream.write_all(&ack.encode()).await.is_err() || header.last {
                return;
            }
        }
    }

    fn dies_at(&self, header: &PacketHeader) -> bool {
        let mut faults = self.faults.lock().unwrap();
        match &mut faults.die_after_packets {
            Some(0) => faults.dead = true,
            Some(left) => *left -= 1,
            None => {}
        }
        faults.dead |= faults.die_at_last_packet && header.last;
        faults.dead
    }

    async fn read(&self, stream: &mut TcpStream, request: OpReadBlockProto) -> Option<()> {
        *self.reads.lock().unwrap() += 1;
        if self.faults.lock().unwrap().stall_reads {
            std::future::pending::<()>().await;
        }
        let id = request.header.base_header.block.block_id;
        let replica = self.replicas.lock().unwrap().get(&id).cloned();
        let Some(replica) = replica else {
            let error = Error::new(Code::NotFound, format!("blk_{id} is not here"));
            reply(stream, &op::error_response(&error)).await;
            return Some(());
        };
        let begin = request.offset / 512 * 512;
        let length = replica.data.len() as u64;
        let end = (request.offset + request.len).next_multiple_of(512).min(length);
        let mut answer = op::response(StatusProto::Success);
        answer.read_op_checksum_info = Some(ReadOpChecksumInfoProto {
            checksum: Checksum::NATIVE.to_proto(),
            chunk_offset: begin,
        });
        reply(stream, &answer).await;
        let (flip_at, cut_after) = {
            let faults = self.faults.lock().unwrap();
            (faults.flip_at, faults.cut_reads_after)
        };
        let mut at = begin;
        for seqno in 0.. {
            if cut_after.is_some_and(|packets| seqno >= packets) {
                return None;
            }
            let next = (at + PACKET).min(end);
            let header = PacketHeader {
                offset_in_block: at,
                seqno: seqno as i64,
                last: at == end,
                data_len: 0,
                sync: false,
            };
            let mut data = replica.data[at as usize..next as usize].to_vec();
            let packet = SealedPacket::new(header, Checksum::NATIVE, data.clone().into());
            if let Some(flip) = flip_at.filter(|flip| (at..next).contains(flip)) {
                data[(flip - at) as usize] ^= 1;
            }
            stream.write_all(&packet.head).await.ok()?;
            stream.write_all(&data).await.ok()?;
            if at == end {
                break;
            }
            at = next;
        }
        op::read_delimited(stream, 100).await.ok().map(|_status: Bytes| ())
    }
}

async fn reply(stream: &mut TcpStream, message: &proto::hadoop::hdfs::BlockOpResponseProto) {
    let _gone = stream.write_all(&op::encode_delimited(message)).await;
}

/// Sets up the rest of the pipeline; on a failure tells the bad link, if it is further down.
async fn set_up_mirror(request: &OpWriteBlockProto) -> Result<TcpStream, Option<String>> {
    let peer = Peer::from_info(&request.targets[0]).unwrap();
    let mut onward = request.clone();
    onward.targets.remove(0);
    let mut stream = dial(&peer, &Timeouts::default()).await.map_err(|_| None)?;
    let bytes = Request::WriteBlock(Box::new(onward)).encode();
    stream.write_all(&bytes).await.map_err(|_| None)?;
    let reply = op::read_response(&mut stream).await.map_err(|_| None)?;
    op::check(&reply).map_err(|_| reply.first_bad_link)?;
    Ok(stream)
}

async fn forward(
    next: &mut TcpStream,
    frame: &Bytes,
    acks: &mut bytes::BytesMut,
) -> Option<PipelineAck> {
    next.write_all(frame).await.ok()?;
    loop {
        if let Some(ack) = PipelineAck::decode(acks).ok()? {
            return ack.first_failure().is_none().then_some(ack);
        }
        if tokio::io::AsyncReadExt::read_buf(next, acks).await.ok()? == 0 {
            return None;
        }
    }
}
