//! The NameNode over framed RPC: the fast way for the calls of the Namespace service, when the NameNode has it.
//!
//! The NameNode tells its port by gRPC; the connection is taken only if the same cluster answers on it, since a port
//! may be somebody else's by the time it is used. What holds: without such a connection, calls go by gRPC as before,
//! and it is tried again after a pause. Which call is repeated, and when, is [`crate::namenode`]'s business.
#![allow(clippy::disallowed_methods, reason = "a shell: pauses need the clock")]

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipc::RemoteError;
use ipc::request::Method;
use ipc::{CallError, Client, ClientSettings, Identity};
use prost::Message;
use proto::granary::{GetServerDefaultsRequest, ServerDefaults};
use proto::{Code, Error, Result, limits, rpc};

/// How long to go without, after it could not be had.
const PAUSE: Duration = Duration::from_secs(5);
/// How long connecting may take: the calls that wait for it could go by gRPC.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// The connection, if there is one.
pub(crate) struct Rpc {
    /// The NameNode's host, without a port.
    host: String,
    settings: ClientSettings,
    state: Mutex<State>,
    connecting: tokio::sync::Mutex<()>,
}

enum State {
    /// To be connected to when it is needed next.
    Wanted,
    Connected(Client),
    /// Not before then.
    Without(Instant),
}

impl Rpc {
    pub(crate) fn new(host: &str, user: &str, client_id: [u8; 16]) -> Self {
        Self {
            host: host.to_owned(),
            settings: ClientSettings {
                identity: Identity { user: user.to_owned(), real_user: None },
                client_id,
                protocol: rpc::NAMESPACE_PROTOCOL.to_owned(),
                reply_bytes_max: limits::GRPC_MESSAGE_BYTES_MAX,
                ..ClientSettings::default()
            },
            state: Mutex::new(State::Wanted),
            connecting: tokio::sync::Mutex::new(()),
        }
    }

    /// The connection; `None` to use gRPC. `defaults` asks the NameNode by gRPC for what it is and which port it has.
    pub(crate) async fn client(
        &self,
        defaults: impl AsyncFnOnce() -> Result<ServerDefaults>,
    ) -> Option<Client> {
        if let Some(known) = self.known() {
            return known;
        }
        let _one = self.connecting.lock().await;
        if let Some(known) = self.known() {
            return known;
        }
        let connected = tokio::time::timeout(CONNECT_TIME_MAX, self.connect(defaults)).await;
        let client = match connected {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the NameNode's framed RPC cannot be had");
                None
            }
            Err(_) => None,
        };
        *self.lock() = match &client {
            Some(client) => State::Connected(client.clone()),
            None => State::Without(Instant::now() + PAUSE),
        };
        client
    }

    /// Asks over a connection. The outer error says that gRPC has to be used.
    pub(crate) async fn call<Q: Message, R: Message + Default>(
        &self,
        client: &Client,
        name: &str,
        request: &Q,
    ) -> std::result::Result<Result<R>, RemoteError> {
        match client.call(&method(name), request).await {
            Ok(reply) => Ok(R::decode(reply).map_err(|error| {
                Error::new(Code::Incompatible, format!("the NameNode's reply to {name}: {error}"))
            })),
            Err(CallError::Remote(error)) => match rpc::code_of(error.detail) {
                Some(code) if error.class == rpc::ERROR_CLASS => {
                    Ok(Err(Error::new(code, error.message)))
                }
                _ => {
                    self.pause();
                    Err(error)
                }
            },
            Err(CallError::Lost(why)) => {
                let mut state = self.lock();
                if matches!(&*state, State::Connected(client) if client.is_lost()) {
                    *state = State::Wanted;
                }
                Ok(Err(Error::new(Code::Unavailable, format!("the connection is lost: {why}"))))
            }
        }
    }

    /// Does without for a while.
    pub(crate) fn pause(&self) {
        *self.lock() = State::Without(Instant::now() + PAUSE);
    }

    /// Takes another connection for the next call.
    pub(crate) fn forget(&self) {
        let mut state = self.lock();
        if matches!(*state, State::Connected(_)) {
            *state = State::Wanted;
        }
    }

    /// What is known without asking: the connection, or that there is none for now.
    fn known(&self) -> Option<Option<Client>> {
        match &*self.lock() {
            State::Connected(client) if !client.is_lost() => Some(Some(client.clone())),
            State::Without(until) if Instant::now() < *until => Some(None),
            State::Wanted | State::Connected(_) | State::Without(_) => None,
        }
    }

    async fn connect(
        &self,
        defaults: impl AsyncFnOnce() -> Result<ServerDefaults>,
    ) -> Result<Option<Client>> {
        let expected = defaults().await?;
        let Ok(port @ 1..) = u16::try_from(expected.rpc_port) else { return Ok(None) };
        let lost = |error: &dyn fmt::Display| Error::new(Code::Unavailable, error.to_string());
        let client = Client::connect(format!("{}:{port}", self.host), self.settings.clone())
            .await
            .map_err(|error| lost(&error))?;
        let reply = client
            .call(&method("GetServerDefaults"), &GetServerDefaultsRequest {})
            .await
            .map_err(|error| lost(&error))?;
        let got = ServerDefaults::decode(reply).map_err(|error| lost(&error))?;
        if got.cluster_id != expected.cluster_id {
            let what = format!("port {port} is of cluster {:?}", got.cluster_id);
            return Err(Error::new(Code::Incompatible, what));
        }
        Ok(Some(client))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn method(name: &str) -> Method<'_> {
    Method { protocol: rpc::NAMESPACE_PROTOCOL, version: rpc::NAMESPACE_VERSION, name }
}

impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rpc {{ host: {:?} }}", self.host)
    }
}
