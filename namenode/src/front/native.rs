//! The service Namespace over Hadoop's RPC framing: the same methods and messages as by gRPC, at a fraction of its cost.
//!
//! Reads answer on the connection's task; what waits for the journal answers later. It decides nothing: each method
//! is the same function of [`Node`] that gRPC calls. Which client uses it, and why it is there, is told in
//! `docs/decisions/0007-metadata-over-framed-rpc.md`.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ipc::{Answer, Call, RpcError};
use prost::Message;
use proto::{Code, Error, Result, rpc};

use super::access::Method;
use super::node::Node;

type Answered = std::result::Result<Bytes, RpcError>;

/// One call, to be counted.
struct Asked {
    node: Arc<Node>,
    peer: Option<IpAddr>,
    method: Method,
    since: Instant,
}

macro_rules! methods {
    ($($kind:ident $text:literal $function:ident $method:ident;)*) => {
        /// Answers a call; `None` if there is no such method.
        pub fn call(node: &Arc<Node>, call: Call) -> Option<Answer> {
            let asked = |method| Asked {
                node: Arc::clone(node),
                peer: Some(call.peer.ip()),
                method,
                since: Instant::now(),
            };
            Some(match call.method.as_str() {
                $($text => method!($kind asked(Method::$method), call.body, $function),)*
                _ => return None,
            })
        }
    };
}

macro_rules! method {
    (now $asked:expr, $body:expr, $function:ident) => {
        $asked.now($body, |node, request, peer| node.$function(request, peer))
    };
    (later $asked:expr, $body:expr, $function:ident) => {
        $asked.later($body, async |node, request, peer| node.$function(request, peer).await)
    };
}

methods! {
    now "GetFileInfo" get_file_info GetFileInfo;
    now "GetListing" get_listing GetListing;
    now "GetBlockLocations" get_block_locations GetBlockLocations;
    now "GetServerDefaults" get_server_defaults GetServerDefaults;
    now "GetFsStats" get_fs_stats GetFsStats;
    later "GetContentSummary" get_content_summary GetContentSummary;
    later "Mkdirs" mkdirs Mkdirs;
    later "Create" create Create;
    later "Append" append Append;
    later "AddBlock" add_block AddBlock;
    later "AbandonBlock" abandon_block AbandonBlock;
    later "GetAdditionalDatanode" get_additional_datanode GetAdditionalDatanode;
    later "UpdateBlockForPipeline" update_block_for_pipeline UpdateBlockForPipeline;
    later "UpdatePipeline" update_pipeline UpdatePipeline;
    later "Fsync" fsync Fsync;
    later "Complete" complete Complete;
    later "RenewLease" renew_lease RenewLease;
    later "RecoverLease" recover_lease RecoverLease;
    later "ReportBadBlocks" report_bad_blocks ReportBadBlocks;
    later "Rename" rename Rename;
    later "Delete" delete Delete;
    later "Link" link Link;
    later "Truncate" truncate Truncate;
    later "SetPermission" set_permission SetPermission;
    later "SetOwner" set_owner SetOwner;
    later "SetTimes" set_times SetTimes;
    later "SetReplication" set_replication SetReplication;
    later "ExchangeContent" exchange_content ExchangeContent;
}

impl Asked {
    fn now<Q, R>(
        self,
        body: Bytes,
        answer: impl FnOnce(&Node, Q, Option<IpAddr>) -> Result<R>,
    ) -> Answer
    where
        Q: Message + Default,
        R: Message,
    {
        let result = decode(body).and_then(|request| answer(&self.node, request, self.peer));
        Answer::Now(self.counted(result))
    }

    fn later<Q, R, F>(
        self,
        body: Bytes,
        answer: impl FnOnce(Arc<Node>, Q, Option<IpAddr>) -> F,
    ) -> Answer
    where
        Q: Message + Default,
        R: Message,
        F: Future<Output = Result<R>> + Send + 'static,
    {
        match decode(body) {
            Ok(request) => {
                let answered = answer(Arc::clone(&self.node), request, self.peer);
                Answer::Later(Box::pin(async move { self.counted(answered.await) }))
            }
            Err(error) => Answer::Now(self.counted::<R>(Err(error))),
        }
    }

    fn counted<R: Message>(&self, result: Result<R>) -> Answered {
        let micros = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.node.volatile.metrics.called(self.method, result.is_err(), micros);
        match result {
            Ok(reply) => Ok(Bytes::from(reply.encode_to_vec())),
            Err(Error { code, message }) => {
                Err(RpcError { class: rpc::ERROR_CLASS, message, detail: rpc::detail_of(code) })
            }
        }
    }
}

fn decode<Q: Message + Default>(body: Bytes) -> Result<Q> {
    let bytes = body.len();
    Q::decode(body).map_err(|error| {
        let what = format!("the request's {bytes} bytes are not its message: {error}");
        Error::new(Code::InvalidArgument, what)
    })
}
