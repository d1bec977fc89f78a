//! The methods of Hadoop's protocols, asked as the RPC server asks them, without a socket.

mod attributes;
mod erasure;
mod files;
mod names;
mod quotas;
mod service;
mod snapshots;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use bytes::Bytes;
use ipc::{Answer, Call, Identity, RpcError, Service};
use prost::Message;
use proto::hadoop::hdfs::*;

use super::{CLIENT_PROTOCOL, HadoopService};
use crate::{Config, Handle};

/// A NameNode and the service in front of it. `boss` is its superuser.
pub(super) struct World {
    pub service: Arc<HadoopService>,
    _handle: Handle,
    _dir: tempfile::TempDir,
    call: AtomicI32,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = || "127.0.0.1:0".to_owned();
        let mut config = Config {
            dir: dir.path().join("nn"),
            grpc_addr: free(),
            http_addr: free(),
            hadoop_rpc_addr: free(),
            superuser: "boss".into(),
            groups: vec!["ann=staff,web".into()],
            block_bytes: 1 << 20,
            replication: 1,
            complete_hold_ms: 10,
            ..Config::default()
        };
        change(&mut config);
        let handle = crate::start(config).await.unwrap();
        let service = Arc::new(HadoopService(Arc::clone(handle.node())));
        Self { service, _handle: handle, _dir: dir, call: AtomicI32::new(0) }
    }

    /// The number of a new call.
    pub fn new_call(&self) -> i32 {
        self.call.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks as a user, under this number of a call.
    pub async fn ask_again<R: Message + Default>(
        &self,
        user: &str,
        call_id: i32,
        method: &str,
        request: &impl Message,
    ) -> Result<R, RpcError> {
        let call = Call {
            identity: Arc::new(Identity { user: user.into(), real_user: None }),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            client_id: [7; 16],
            call_id,
            retry_count: 0,
            protocol: CLIENT_PROTOCOL.into(),
            method: method.into(),
            body: request.encode_to_vec().into(),
        };
        let answer = match self.service.call(call).expect("a method that exists") {
            Answer::Now(answer) => answer,
            Answer::Later(answer) => answer.await,
        };
        answer.map(|bytes| R::decode(bytes).expect("the reply is its message"))
    }

    /// Asks as a user.
    pub async fn ask_as<R: Message + Default>(
        &self,
        user: &str,
        method: &str,
        request: &impl Message,
    ) -> Result<R, RpcError> {
        self.ask_again(user, self.new_call(), method, request).await
    }

    /// Asks as the superuser, and gets an answer.
    pub async fn ask<R: Message + Default>(&self, method: &str, request: &impl Message) -> R {
        let answer = self.ask_as("boss", method, request).await;
        answer.unwrap_or_else(|error| panic!("{method}: {error:?}"))
    }

    /// Asks as the superuser, and gets an error of this class.
    pub async fn refused(&self, method: &str, request: &impl Message) -> &'static str {
        match self.ask_as::<Nothing>("boss", method, request).await {
            Err(error) => error.class.rsplit('.').next().expect("a class has a name"),
            Ok(_) => panic!("{method} was not refused"),
        }
    }

    pub async fn mkdirs(&self, path: &str) {
        let request = MkdirsRequestProto {
            src: path.into(),
            masked: FsPermissionProto { perm: 0o755 },
            create_parent: true,
            unmasked: None,
        };
        let reply: MkdirsResponseProto = self.ask("mkdirs", &request).await;
        assert!(reply.result);
    }

    pub async fn stat(&self, path: &str) -> Option<HdfsFileStatusProto> {
        let request = GetFileInfoRequestProto { src: path.into() };
        self.ask::<GetFileInfoResponseProto>("getFileInfo", &request).await.fs
    }

    pub async fn list(&self, path: &str, after: &str) -> Option<DirectoryListingProto> {
        let request = GetListingRequestProto {
            src: path.into(),
            start_after: after.as_bytes().to_vec().into(),
            need_location: false,
        };
        self.ask::<GetListingResponseProto>("getListing", &request).await.dir_list
    }
}

/// A message whose fields are not looked at.
type Nothing = GetServerDefaultsRequestProto;
