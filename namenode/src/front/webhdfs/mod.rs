//! WebHDFS on the NameNode: the namespace over HTTP, and where on the DataNodes file contents are.
//!
//! | module | owns |
//! |---|---|
//! | [`reads`] | GET: what changes nothing |
//! | [`listing`] | folders, page by page, in bounded memory |
//! | [`changes`] | PUT, POST and DELETE |
//! | [`attributes`] | ACLs and extended attributes, as text and back |
//! | [`redirect`] | OPEN, CREATE, APPEND, GETFILECHECKSUM: which DataNode does it |
//! | [`trash`] | where users' trash is |
//! | [`json`] | HDFS's messages as WebHDFS's JSON |
//!
//! As in HDFS, an operation is a call of the client protocol in another dress: a request is taken apart by
//! [`webhdfs`]'s rules and becomes the message that Hadoop's RPC would bring, for the same method. There is one set of
//! rules, one check of permissions, and one table of errors. No byte of a file passes through here.

mod attributes;
mod changes;
mod json;
mod listing;
mod reads;
mod redirect;
mod trash;

use std::sync::Arc;

use ::webhdfs::{Exception, PREFIX, Params, Peer, Result, answer, paths};
use axum::Router;
use axum::extract::{ConnectInfo, Request, State as Shared};
use axum::http::{Method as HttpMethod, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use ipc::exceptions as class;
use ipc::{Answer, Call, Identity, RpcError, Service};
use prost::Message;
use proto::FsPath;
use proto::granary;
use proto::hadoop::hdfs::{GetFileInfoRequestProto, GetFileInfoResponseProto, HdfsFileStatusProto};

use super::hadoop::{CLIENT_PROTOCOL, HadoopService};
use super::node::Node;

/// The routes.
pub fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route(PREFIX, any(serve))
        .route(&format!("{PREFIX}/"), any(serve))
        .route(&format!("{PREFIX}/{{*path}}"), any(serve))
        .with_state(Arc::new(HadoopService(node)))
}

/// One request, taken apart.
#[derive(Clone)]
struct Ask {
    service: Arc<HadoopService>,
    params: Params,
    path: FsPath,
    /// The operation, in upper case.
    op: String,
    identity: Arc<Identity>,
    peer: Peer,
}

async fn serve(
    Shared(service): Shared<Arc<HadoopService>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let answered = match Ask::new(service, peer, &head.uri) {
        Err(exception) => Err(exception),
        Ok(ask) => match head.method {
            HttpMethod::GET | HttpMethod::HEAD => reads::answer(&ask).await,
            HttpMethod::PUT => changes::put(&ask).await,
            HttpMethod::POST => changes::post(&ask).await,
            HttpMethod::DELETE => changes::delete(&ask).await,
            method => Err(Exception::unsupported(format!("the method {method} is not supported"))),
        },
    };
    answer::drain(&head.headers, body).await;
    answered.unwrap_or_else(|exception| {
        let Exception { class, message, .. } = &exception;
        tracing::debug!(uri = %head.uri, class, message, "refused");
        exception.into_response()
    })
}

impl Ask {
    fn new(service: Arc<HadoopService>, peer: Peer, uri: &Uri) -> Result<Self> {
        let params = Params::parse(uri.query().unwrap_or(""))?;
        let user = params.user()?.to_owned();
        let path = FsPath::parse(&paths::path_of(uri.path())?)?;
        let identity = Arc::new(Identity { user, real_user: None });
        Ok(Self { service, op: params.op(), params, path, identity, peer })
    }

    fn node(&self) -> &Arc<Node> {
        &self.service.0
    }

    /// The path as messages have it.
    fn src(&self) -> String {
        self.path.to_string()
    }

    /// Calls a method of the client protocol. Over HTTP nothing is repeated under one call id.
    async fn call<Q: Message, R: Message + Default>(
        &self,
        method: &'static str,
        request: Q,
    ) -> Result<R> {
        let call = Call {
            identity: Arc::clone(&self.identity),
            peer: self.peer.remote,
            client_id: [0; 16],
            call_id: 0,
            retry_count: -1,
            protocol: CLIENT_PROTOCOL.into(),
            method: method.into(),
            body: request.encode_to_vec().into(),
        };
        let answered = match self.service.call(call) {
            Some(Answer::Now(answered)) => answered,
            Some(Answer::Later(answered)) => answered.await,
            None => Err(RpcError::application(
                class::UNSUPPORTED,
                format!("{} is not supported: there is no method {method}", self.op),
            )),
        };
        let reply = answered.map_err(|error| Exception::new(error.class, error.message))?;
        R::decode(reply).map_err(|error| {
            Exception::new(class::RUNTIME, format!("the reply of {method} is none: {error}"))
        })
    }

    /// [`Ask::call`] for a method whose reply says nothing.
    async fn tell<R: Message + Default>(
        &self,
        method: &'static str,
        request: impl Message,
    ) -> Result<Response> {
        self.call::<_, R>(method, request).await?;
        Ok(answer::empty())
    }

    /// Who calls, as Granary's own messages say it.
    fn caller(&self) -> Option<granary::Caller> {
        Some(granary::Caller { user: self.identity.user.clone(), ..Default::default() })
    }

    /// What is known of the path, if something has it.
    async fn try_status(&self) -> Result<Option<HdfsFileStatusProto>> {
        let request = GetFileInfoRequestProto { src: self.src() };
        let reply: GetFileInfoResponseProto = self.call("getFileInfo", request).await?;
        Ok(reply.fs)
    }

    /// What is known of the path. `FileNotFoundException` with this text if nothing has it.
    async fn status(&self, missing: impl FnOnce(&FsPath) -> String) -> Result<HdfsFileStatusProto> {
        self.try_status().await?.ok_or_else(|| Exception::not_found(missing(&self.path)))
    }

    /// A parameter that is an absolute path.
    fn path_param(&self, name: &str) -> Result<String> {
        let text = self.params.required(name)?;
        if text.starts_with('/') {
            return Ok(text.to_owned());
        }
        Err(Exception::parameter(
            name,
            format_args!("Invalid parameter value: {name} = \"{text}\" is not an absolute path."),
        ))
    }
}

/// HDFS's text for a path that nothing has.
fn file_does_not_exist(path: &FsPath) -> String {
    format!("File does not exist: {path}")
}
