//! Ways in for the fuzz targets (`namenode/fuzz`), to what is nobody else's business. Compiled for them and for tests
//! alone.
//!
//! | what | for |
//! |---|---|
//! | [`World`] | a NameNode with DataNodes, asked without a socket |
//! | [`replay`] | the requests of a journal's batch, applied |
//! | [`load`], [`image_of`] | a checkpoint's sections and pages, from bytes and to bytes |
//! | [`samples`] | one request of each operation |
//!
//! An image is `u32 length, sections`, then `u8 kind, u32 number, u32 length, page` again and again.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use bytes::Bytes;
use ipc::{Answer, Call, Identity, RpcError, Service};
use proto::granary::{DatanodeAddress, DatanodeRegister, DatanodeUp, VolumeStatus, datanode_up};
use proto::{Result, Txid};

use crate::coding::{Malformed, Reader, put_bytes, put_u8, put_u32};
use crate::front::datanodes::Epoch;
use crate::front::hadoop::HadoopService;
use crate::op::Request;
use crate::state::State;
use crate::state::image::PageKind;
use crate::state::slab::Side;
use crate::{Config, Handle, journal};

/// Who may do everything in a [`World`].
pub const SUPERUSER: &str = "boss";
/// DataNodes of a [`World`].
const DATANODES: u32 = 3;
/// Pages of an image that is loaded.
const PAGES_MAX: u32 = 1_000;
/// Requests of one batch that are applied.
const REQUESTS_MAX: usize = 200;

/// A NameNode in a folder, with DataNodes that are nothing but registered.
pub struct World {
    handle: Handle,
    service: Arc<HadoopService>,
    calls: AtomicI32,
}

impl World {
    /// Starts one. It goes with the runtime.
    pub async fn start(dir: &Path) -> Result<Self> {
        let free = || "127.0.0.1:0".to_owned();
        let config = Config {
            dir: dir.join("nn"),
            grpc_addr: free(),
            http_addr: free(),
            hadoop_rpc_addr: free(),
            superuser: SUPERUSER.into(),
            groups: vec!["ann=staff,web".into()],
            block_bytes: 1 << 20,
            complete_hold_ms: 1,
            journal_segment_bytes: 4 << 20,
            datanode_dead_after_ms: 3_600_000,
            datanode_suspect_after_ms: 1_800_000,
            ..Config::default()
        };
        let handle = crate::start(config).await?;
        let service = Arc::new(HadoopService(Arc::clone(handle.node())));
        let world = Self { handle, service, calls: AtomicI32::new(0) };
        for number in 0..DATANODES {
            world.register(Self::datanode(number))?;
        }
        Ok(world)
    }

    /// What a DataNode registers with.
    pub fn datanode(number: u32) -> DatanodeRegister {
        let address = DatanodeAddress {
            uuid: format!("dn{number}"),
            host: format!("10.0.0.{number}"),
            data_port: 9_866,
            ..DatanodeAddress::default()
        };
        let volume = VolumeStatus {
            id: format!("volume{number}"),
            capacity_bytes: 1 << 40,
            remaining_bytes: 1 << 40,
            ..VolumeStatus::default()
        };
        DatanodeRegister {
            address: Some(address),
            volumes: vec![volume],
            ..DatanodeRegister::default()
        }
    }

    /// Registers a DataNode; where its messages belong from then on.
    pub fn register(&self, message: DatanodeRegister) -> Result<Epoch> {
        let volatile = &self.handle.node().volatile;
        let registration = volatile.cluster(|cluster, now_ms| cluster.register(now_ms, message))?;
        Ok(Epoch { index: registration.index, epoch: registration.epoch })
    }

    /// Takes a message of a DataNode; its first one counts as sent by the first that is known.
    pub async fn hear(&self, at: &mut Epoch, message: DatanodeUp) -> Result<()> {
        if let Some(datanode_up::Message::Register(register)) = message.message {
            *at = self.register(register)?;
            return Ok(());
        }
        crate::front::datanodes::take(self.handle.node(), *at, message).await
    }

    /// Asks a method of one of Hadoop's protocols; `None` if there is none of that name.
    pub async fn ask(
        &self,
        user: &str,
        protocol: &str,
        method: &str,
        body: Bytes,
    ) -> Option<std::result::Result<Bytes, RpcError>> {
        self.service.protocol_version(protocol)?;
        let call = Call {
            identity: Arc::new(Identity { user: user.into(), real_user: None }),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            client_id: [7; 16],
            call_id: self.calls.fetch_add(1, Ordering::Relaxed),
            retry_count: 0,
            protocol: protocol.into(),
            method: method.into(),
            body,
        };
        Some(match self.service.call(call)? {
            Answer::Now(answer) => answer,
            Answer::Later(answer) => answer.await,
        })
    }

    /// Stops it, and gives what its journal recorded.
    pub async fn end(self, dir: &Path) -> Result<Vec<Request>> {
        let cluster_id = self.handle.node().log.cluster_id().into_bytes();
        drop(self.service);
        self.handle.shutdown().await?;
        let folder = dir.join("nn/journal");
        let place = journal::Place { folder, segment_bytes: 4 << 20, cluster_id };
        let mut requests = Vec::new();
        journal::replay(&place, Txid(0), &mut |_, request| {
            requests.push(Request::decode(request)?);
            Ok(())
        })?;
        Ok(requests)
    }
}

/// What stands in a batch for these requests.
pub fn payload_of(requests: &[Request]) -> Vec<u8> {
    let mut out = Vec::new();
    for request in requests {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        put_bytes(&mut out, &bytes);
    }
    out
}

/// Reads bytes as a segment's header, as a batch, and as what stands in a batch; applies the requests of the last to an
/// empty namespace.
///
/// Claims: a request has one encoding; applying depends on nothing but the requests; what results can be loaded.
pub fn replay(bytes: &[u8]) -> State {
    journal::fuzzing::decode(bytes);
    let (mut state, mut again) = (State::new(SUPERUSER), State::new(SUPERUSER));
    let mut r = Reader::new(bytes);
    for _ in 0..REQUESTS_MAX {
        let Ok(bytes) = r.bytes(crate::op::REQUEST_BYTES_MAX) else { break };
        let Ok(request) = Request::decode(bytes) else { break };
        let mut encoded = Vec::new();
        request.encode(&mut encoded);
        assert_eq!(encoded, bytes, "there is one encoding of a request");
        let (mut effects, mut effects_again) = (Vec::new(), Vec::new());
        // The log refuses what the preview refuses, and journals nothing of it.
        if state.preview(&request).is_err() {
            continue;
        }
        let reply = state.apply(&request, &mut effects);
        assert_eq!(reply, again.apply(&request, &mut effects_again));
        assert_eq!(effects, effects_again);
    }
    assert_eq!(state.digest(), again.digest());
    let digest = state.digest();
    let loaded = load(&image_of(&mut again)).expect("what was written can be loaded");
    assert_eq!(loaded.digest(), digest);
    state
}

/// A whole checkpoint of a state.
pub fn image_of(state: &mut State) -> Vec<u8> {
    let mut out = Vec::new();
    state.mark_all_dirty(Side::A);
    put_bytes(&mut out, &state.freeze(Side::A));
    for kind in PageKind::ALL {
        for (number, page) in state.encode_frozen(kind, 0, usize::MAX) {
            put_u8(&mut out, kind as u8);
            put_u32(&mut out, number);
            put_bytes(&mut out, &page);
        }
    }
    state.unfreeze();
    out
}

/// Loads what [`image_of`] gave, or anything else.
pub fn load(image: &[u8]) -> std::result::Result<State, Malformed> {
    let mut r = Reader::new(image);
    let mut state = State::blank();
    state.load_sections(r.bytes(image.len())?)?;
    while r.remaining() > 0 {
        let unknown = r.malformed("a kind of page");
        let kind = PageKind::from_number(r.u8()?).ok_or(unknown)?;
        let number = r.u32()?;
        // Memory goes by the highest number. A checkpoint's manifest vouches for the numbers; an image has none.
        if number > PAGES_MAX {
            return Err(r.malformed("a page of a small namespace"));
        }
        state.load_page(kind, number, r.bytes(image.len())?)?;
    }
    state.finish_loading()?;
    Ok(state)
}

/// One request of each operation.
pub fn samples() -> Vec<Request> {
    crate::op::tests::every_op().into_iter().map(crate::op::tests::request).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_are_a_batch_that_is_read_to_its_end() {
        let payload = payload_of(&samples());
        let mut r = Reader::new(&payload);
        let count = std::iter::from_fn(|| r.bytes(payload.len()).ok()).count();
        assert_eq!(count, samples().len());
        replay(&payload);
    }

    #[tokio::test]
    async fn what_a_world_was_asked_is_in_its_journal() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::start(dir.path()).await.unwrap();
        let request = proto::hadoop::hdfs::SetPermissionRequestProto {
            src: "/".into(),
            permission: proto::hadoop::hdfs::FsPermissionProto { perm: 0o777 },
        };
        let body: Bytes = prost::Message::encode_to_vec(&request).into();
        let protocol = crate::front::hadoop::CLIENT_PROTOCOL;
        let answer = world.ask(SUPERUSER, protocol, "setPermission", body.clone()).await;
        assert!(answer.is_some_and(|answer| answer.is_ok()));
        assert_eq!(world.ask(SUPERUSER, protocol, "noSuchMethod", body).await, None);
        let requests = world.end(dir.path()).await.unwrap();
        assert_eq!(requests.len(), 1);
        assert_eq!(replay(&payload_of(&requests)).txid(), Txid(1));
    }
}
