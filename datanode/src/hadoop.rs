//! ClientDatanodeProtocol: what Hadoop's clients and operators ask this DataNode by Hadoop RPC.
//!
//! Calls are answered from memory, and at once, but for the two that look at all replicas. Clients need one method, the visible length of a replica that is being
//! written; they send the block's name as their user then, which is why nothing is asked of a user except by the orders
//! and looks that HDFS keeps to its superuser. What a DataNode here can't do (serve another NameNode, change settings
//! while it runs, give out paths of its files) is refused with the reason.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ipc::exceptions::{self, Verb, class_of};
use ipc::{Answer, Call, RpcError, Service, Settings};
use prost::Message;
use proto::hadoop::hdfs as messages;
use proto::{BlockId, Code, Error, GenerationStamp, Result};

use crate::store::Store;

/// The protocol's name.
pub const PROTOCOL: &str = "org.apache.hadoop.hdfs.protocol.ClientDatanodeProtocol";
/// The only version of it that there is.
const VERSION: u64 = 1;
/// The class by which a client knows that this DataNode just has no such replica.
const REPLICA_NOT_FOUND: &str = "org.apache.hadoop.hdfs.server.datanode.ReplicaNotFoundException";
/// An error of a method, not of the RPC around it.
const APPLICATION: i32 =
    messages::rpc_response_header_proto::RpcErrorCodeProto::ErrorApplication as i32;

/// The service.
pub struct ClientService {
    store: Arc<Store>,
    superuser: String,
    started: Instant,
}

impl ClientService {
    /// A service of these replicas that takes orders from `superuser`.
    pub fn new(store: Arc<Store>, superuser: String) -> Self {
        Self { store, superuser, started: Instant::now() }
    }

    /// Answers a method; `None` if there is none of this name.
    fn answer(&self, method: &str, user: &str, body: Bytes) -> Option<Result<Bytes>> {
        Some(match method {
            "getReplicaVisibleLength" => decode(body).and_then(|m| self.visible_length(&m)),
            "getBlockLocalPathInfo" => Err(no_local_paths(user)),
            "getDatanodeInfo" => Ok(self.info()),
            "queryDiskBalancerPlan" => self.as_superuser(user, no_plan),
            "getBalancerBandwidth" => self.as_superuser(user, no_bandwidth_bound),
            "getReconfigurationStatus" => self.as_superuser(user, never_reconfigured),
            "listReconfigurableProperties" => self.as_superuser(user, || {
                encode(&messages::ListReconfigurablePropertiesResponseProto::default())
            }),
            "triggerBlockReport" => {
                let request = decode::<messages::TriggerBlockReportRequestProto>(body);
                request.and_then(|request| self.as_superuser(user, || self.report(&request)))
            }
            _ => return self.refusal(method, user),
        })
    }

    /// Why a method that HDFS has is not served here.
    fn refusal(&self, method: &str, user: &str) -> Option<Result<Bytes>> {
        let why = match method {
            "refreshNamenodes" => "its NameNode stands in its configuration: restart it",
            "deleteBlockPool" => "it has one block pool: stop it and remove its volumes",
            "shutdownDatanode" => "stop its process with SIGTERM: it ends in order",
            "startReconfiguration" => {
                "its settings are read at start: restart it (new volumes: SIGHUP)"
            }
            "submitDiskBalancerPlan" | "cancelDiskBalancerPlan" | "getDiskBalancerSetting" => {
                "it balances its volumes by itself (datanode.balance_threshold_percent)"
            }
            _ => return None,
        };
        let refused = Error::new(Code::Unsupported, format!("{method}: {why}"));
        Some(self.check_superuser(user).and(Err(refused)))
    }

    fn visible_length(
        &self,
        request: &messages::GetReplicaVisibleLengthRequestProto,
    ) -> Result<Bytes> {
        let block = &request.block;
        self.store.check_pool(&block.pool_id)?;
        let stamp = GenerationStamp(block.generation_stamp);
        let length = self.store.visible_length(BlockId(block.block_id), stamp)?;
        Ok(encode(&messages::GetReplicaVisibleLengthResponseProto { length }))
    }

    fn info(&self) -> Bytes {
        let local_info = messages::DatanodeLocalInfoProto {
            software_version: proto::SOFTWARE_VERSION.to_owned(),
            config_version: String::new(),
            uptime: self.started.elapsed().as_secs(),
        };
        encode(&messages::GetDatanodeInfoResponseProto { local_info })
    }

    fn volumes(&self) -> Bytes {
        let volumes =
            self.store.volume_facts().into_iter().map(|volume| messages::DatanodeVolumeInfoProto {
                path: volume.path,
                storage_type: messages::StorageTypeProto::Disk as i32,
                used_space: volume.status.used_bytes,
                free_space: volume.status.remaining_bytes,
                reserved_space: volume.reserved_bytes,
                reserved_space_for_replicas: volume.promised_bytes,
                num_blocks: volume.replicas,
            });
        encode(&messages::GetVolumeReportResponseProto { volume_info: volumes.collect() })
    }

    fn report(&self, request: &messages::TriggerBlockReportRequestProto) -> Bytes {
        // Changes are told as they happen: there never are any to be asked for.
        if !request.incremental {
            self.store.changes().owe_report();
        }
        encode(&messages::TriggerBlockReportResponseProto {})
    }

    fn evict(&self) -> Bytes {
        let evicted = self.store.evict_writers();
        tracing::info!(evicted, "writers were told to go elsewhere");
        encode(&messages::EvictWritersResponseProto {})
    }

    fn as_superuser(&self, user: &str, answer: impl FnOnce() -> Bytes) -> Result<Bytes> {
        self.check_superuser(user).map(|()| answer())
    }

    fn check_superuser(&self, user: &str) -> Result<()> {
        if user == self.superuser {
            return Ok(());
        }
        Err(Error::new(
            Code::PermissionDenied,
            format!("user {user} is not {}, the superuser of this DataNode", self.superuser),
        ))
    }
}

impl Service for ClientService {
    fn protocol_version(&self, protocol: &str) -> Option<u64> {
        (protocol == PROTOCOL).then_some(VERSION)
    }

    fn call(self: &Arc<Self>, call: Call) -> Option<Answer> {
        let user = &call.identity.user;
        let walk = match call.method.as_str() {
            "getVolumeReport" => Self::volumes,
            "evictWriters" => Self::evict,
            method => {
                let answer = self.answer(method, user, call.body)?;
                return Some(Answer::Now(answer.map_err(rpc_error)));
            }
        };
        if let Err(error) = self.check_superuser(user) {
            return Some(Answer::Now(Err(rpc_error(error))));
        }
        let this = self.clone();
        let walking = tokio::task::spawn_blocking(move || walk(&this));
        Some(Answer::Later(Box::pin(async move {
            let failed =
                |panic| Error::new(Code::Internal, format!("look at all replicas: {panic}"));
            walking.await.map_err(failed).map_err(rpc_error)
        })))
    }
}

/// The bounds of the port: requests are small and few.
pub fn bounds() -> Settings {
    Settings {
        frame_bytes_max: 1 << 20,
        buffered_bytes_max: 16 << 20,
        connections_max: 4_096,
        calls_in_flight_max: 4_096,
        connection_calls_in_flight_max: 128,
        ..Settings::default()
    }
}

/// Who this process runs as, by name.
pub fn process_user() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid{uid}"))
}

fn rpc_error(error: Error) -> RpcError {
    let class = match error.code {
        Code::NotFound => REPLICA_NOT_FOUND,
        Code::Stale => exceptions::IO,
        _ => class_of(&error, Verb::Other),
    };
    RpcError { class, message: error.message, detail: APPLICATION }
}

fn no_local_paths(user: &str) -> Error {
    Error::new(
        Code::PermissionDenied,
        format!("user {user} gets no paths of replicas: read through the DataNode or its socket"),
    )
}

fn no_plan() -> Bytes {
    encode(&messages::QueryPlanStatusResponseProto {
        result: Some(0),
        plan_id: Some(String::new()),
        current_status: Some(String::new()),
        plan_file: Some(String::new()),
    })
}

fn no_bandwidth_bound() -> Bytes {
    // Java reads a signed number.
    let bandwidth = i64::MAX.unsigned_abs();
    encode(&messages::GetBalancerBandwidthResponseProto { bandwidth })
}

fn never_reconfigured() -> Bytes {
    encode(&messages::GetReconfigurationStatusResponseProto {
        start_time: 0,
        end_time: None,
        changes: Vec::new(),
    })
}

fn decode<M: Message + Default>(body: Bytes) -> Result<M> {
    M::decode(body)
        .map_err(|error| Error::new(Code::InvalidArgument, format!("the request: {error}")))
}

fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

#[cfg(test)]
mod tests;
