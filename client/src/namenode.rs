//! The NameNode as the client sees it: one gRPC channel, framed RPC beside it for the Namespace service, deadlines, and
//! repetition.
//!
//! Every call carries the user and, so that a repetition is recognised, the client's id and a call number: both are
//! the same on each attempt of one call. What holds: a call ends within the retry policy's total time plus one
//! attempt; only errors that pass are repeated ([`crate::retry`]). A NameNode that is killed and started again is
//! ridden out by the channel, which connects anew on the next attempt. It decides nothing about files.
#![allow(clippy::disallowed_methods, reason = "a shell: deadlines need the clock")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use proto::granary::admin_client::AdminClient;
use proto::granary::catalogue_client::CatalogueClient;
use proto::granary::namespace_client::NamespaceClient;
use proto::granary::{Caller, GetServerDefaultsRequest, ServerDefaults};
use proto::{Code, Error, Result, limits};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::config::Config;
use crate::retry::{self, Policy};
use crate::rpc::Rpc;

/// A stub with deadlines and repetition.
#[derive(Debug)]
pub(crate) struct NameNode {
    channel: Channel,
    /// Who calls stands in each message, so that clients of several users share it.
    rpc: Arc<Rpc>,
    address: String,
    user: String,
    client_id: uuid::Uuid,
    next_call: AtomicU64,
    policy: Policy,
    call_timeout: Duration,
}

impl NameNode {
    /// Connects, and asks for the server's defaults. The error names the address.
    pub(crate) async fn connect(config: &Config, user: String) -> Result<(Self, ServerDefaults)> {
        let bad = |what: String| {
            Error::new(
                Code::InvalidArgument,
                format!("setting `namenode` is {:?}, expected host:port: {what}", config.namenode),
            )
        };
        let host = match config.namenode.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => host,
            _ => return Err(bad("there is no port".into())),
        };
        let endpoint = Endpoint::from_shared(format!("http://{}", config.namenode))
            .map_err(|error| bad(error.to_string()))?
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        let client_id = uuid::Uuid::new_v4();
        let mut this = Self {
            channel: endpoint.connect_lazy(),
            rpc: Arc::new(Rpc::new(host, &user, client_id.into_bytes())),
            address: config.namenode.clone(),
            user,
            client_id,
            next_call: AtomicU64::new(1),
            policy: Policy {
                total_ms: config.connect_total_ms,
                pause_min_ms: config.retry_pause_min_ms,
                pause_max_ms: config.retry_pause_max_ms,
            },
            call_timeout: Duration::from_millis(config.call_timeout_ms),
        };
        let defaults = this.repeat("connect", || this.defaults()).await?;
        if defaults.rpc_port == 0 {
            this.rpc.pause();
        }
        this.policy.total_ms = config.retry_total_ms;
        Ok((this, defaults))
    }

    /// The same connection for calls of another user, as a client of its own.
    pub(crate) fn for_user(&self, user: &str) -> Self {
        Self {
            channel: self.channel.clone(),
            rpc: Arc::clone(&self.rpc),
            address: self.address.clone(),
            user: user.to_owned(),
            client_id: uuid::Uuid::new_v4(),
            next_call: AtomicU64::new(1),
            policy: self.policy,
            call_timeout: self.call_timeout,
        }
    }

    /// Who calls, with the number of a new call. Put it into a request once, before the first attempt.
    pub(crate) fn caller(&self) -> Option<Caller> {
        Some(Caller {
            user: self.user.clone(),
            client_id: bytes::Bytes::copy_from_slice(self.client_id.as_bytes()),
            call_id: self.next_call.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Who calls.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// The channel, for streams.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The call `name` of the Namespace service, repeated as the policy says: by framed RPC if the NameNode has it,
    /// else by `grpc`.
    pub(crate) async fn namespace<Q, R, F>(
        &self,
        what: &str,
        name: &str,
        request: Q,
        grpc: impl Fn(NamespaceClient<Channel>, Q) -> F,
    ) -> Result<R>
    where
        Q: Message + Clone,
        R: Message + Default,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let attempt = async || {
            if let Some(client) = self.rpc.client(async || self.defaults().await).await {
                match self.rpc.call(&client, name, &request).await {
                    Ok(result) => return result,
                    Err(error) => tracing::debug!(?error, name, "gRPC must do"),
                }
            }
            Ok(grpc(self.stub(), request.clone()).await?.into_inner())
        };
        self.repeat(what, attempt).await
    }

    fn stub(&self) -> NamespaceClient<Channel> {
        NamespaceClient::new(self.channel.clone())
            .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
    }

    /// What the NameNode tells of itself, by gRPC, asked once.
    async fn defaults(&self) -> Result<ServerDefaults> {
        Ok(self.stub().get_server_defaults(GetServerDefaultsRequest {}).await?.into_inner())
    }

    /// A call of the Catalogue service, repeated as the policy says.
    pub(crate) async fn catalogue<Q: Clone, R, F>(
        &self,
        what: &str,
        request: Q,
        rpc: impl Fn(CatalogueClient<Channel>, Q) -> F,
    ) -> Result<R>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let stub = CatalogueClient::new(self.channel.clone())
            .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX);
        let attempt = async || Ok(rpc(stub.clone(), request.clone()).await?.into_inner());
        self.repeat(what, attempt).await
    }

    /// A call of the Admin service, repeated as the policy says.
    pub(crate) async fn admin<Q: Clone, R, F>(
        &self,
        what: &str,
        request: Q,
        rpc: impl Fn(AdminClient<Channel>, Q) -> F,
    ) -> Result<R>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let stub = AdminClient::new(self.channel.clone())
            .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX);
        let attempt = async || Ok(rpc(stub.clone(), request.clone()).await?.into_inner());
        self.repeat(what, attempt).await
    }

    async fn repeat<R, F>(&self, what: &str, attempt: impl Fn() -> F) -> Result<R>
    where
        F: Future<Output = Result<R>>,
    {
        let began = Instant::now();
        let seed = u64::from(self.client_id.as_fields().0) ^ self.next_call.load(Ordering::Relaxed);
        for number in 1.. {
            let error = match tokio::time::timeout(self.call_timeout, attempt()).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => error,
                Err(_) => {
                    // Perhaps nobody is at the other end any more.
                    self.rpc.forget();
                    let what = format!("no answer within {} ms", self.call_timeout.as_millis());
                    Error::new(Code::Timeout, what)
                }
            };
            if !retry::is_passing(&error) {
                return Err(error);
            }
            let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let Some(pause_ms) = self.policy.pause_ms(number, elapsed_ms, seed) else {
                return Err(error.context(format_args!(
                    "NameNode {}: {what} was tried {number} times in {} s",
                    self.address,
                    elapsed_ms / 1000
                )));
            };
            tracing::debug!(what, number, pause_ms, %error, "the NameNode is asked again");
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
        unreachable!("the policy ends the loop")
    }
}
