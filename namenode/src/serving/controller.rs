//! Decides when a version is ready, when it becomes current, and when it has failed.
//!
//! Every server holds every version that is being prepared, ready, current or previous. A version in preparation is
//! ready when every live attached server says so, and at least one does; if it was published to be activated, it then
//! becomes current, unless a later one did before. It has failed as soon as a server refuses it; the current version
//! is not touched by that. A server that comes later gets the same assignment and delays only what is in preparation.
//!
//! Always holds: a decision depends on the catalogue as last given and on the newest registration of each server
//! alone; asked again without a change, the same decisions come out, so that a lost op is proposed again.
//!
//! No clock, no IO; does not change the catalogue.

use std::collections::BTreeMap;

use proto::granary::{
    KvserveAddress, KvserveHeartbeat, KvserveRegister, KvserveStatus, ServerVersion,
    ServerVersionState, StoreAssignment, TableInfo, VersionAssignment, VersionState,
};
use proto::{Code, Error, Result};

/// kvserve nodes that may be known at once.
pub const SERVERS_MAX: usize = 10_000;
/// Versions that one server may tell of.
pub const SERVER_VERSIONS_MAX: usize = 10_000;
/// Bytes of a server's error that are kept.
const ERROR_BYTES_MAX: usize = 1_024;

/// A store as the catalogue has it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreView {
    /// Its name.
    pub name: String,
    /// The version that answers; 0: none.
    pub current: u64,
    /// Its versions.
    pub versions: Vec<VersionView>,
}

/// A version as the catalogue has it.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionView {
    /// 1, 2, 3 ... per store.
    pub number: u64,
    /// What the journal says it is.
    pub state: VersionState,
    /// To become current when it is ready.
    pub activate: bool,
    /// Its tables.
    pub tables: Vec<TableInfo>,
}

/// What shall be journaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Every live server has it open.
    Ready {
        /// Of this store.
        store: String,
        /// This version.
        version: u64,
    },
    /// It is ready, and was published to be activated.
    Activate {
        /// Of this store.
        store: String,
        /// This version.
        version: u64,
    },
    /// A server refused it.
    Failed {
        /// Of this store.
        store: String,
        /// This version.
        version: u64,
        /// Which server, and what it said.
        error: String,
    },
}

#[derive(Debug)]
struct Server {
    address: KvserveAddress,
    epoch: u64,
    attached: bool,
    last_heard_ms: u64,
    dead: bool,
    versions: BTreeMap<(String, u64), ServerVersion>,
    capacity_bytes: u64,
    used_bytes: u64,
}

impl Server {
    fn is_live(&self) -> bool {
        self.attached && !self.dead
    }
}

/// The controller of one NameNode.
#[derive(Debug)]
pub struct Controller {
    servers: BTreeMap<String, Server>,
    stores: Vec<StoreView>,
    catalogue_txid: u64,
    last_epoch: u64,
    dead_after_ms: u64,
}

impl Controller {
    /// No server, no store. A server that is silent for `dead_after_ms` does not count.
    pub fn new(dead_after_ms: u64) -> Self {
        Self {
            servers: BTreeMap::new(),
            stores: Vec::new(),
            catalogue_txid: 0,
            last_epoch: 0,
            dead_after_ms,
        }
    }

    /// The catalogue changed. A view older than the one at hand is ignored; true if it was taken.
    pub fn set_catalogue(&mut self, txid: u64, stores: Vec<StoreView>) -> bool {
        let newer = txid >= self.catalogue_txid;
        if newer {
            self.catalogue_txid = txid;
            self.stores = stores;
        }
        newer
    }

    /// The transaction that the view at hand is of.
    pub fn catalogue_txid(&self) -> u64 {
        self.catalogue_txid
    }

    /// A server registers; gives the epoch of its stream. Errors: `InvalidArgument`, `LimitExceeded`.
    pub fn register(&mut self, now_ms: u64, message: KvserveRegister) -> Result<u64> {
        let address = message.address.unwrap_or_default();
        check_address(&address)?;
        if !self.servers.contains_key(&address.uuid) && self.servers.len() >= SERVERS_MAX {
            let gone = self.servers.iter().find(|(_, server)| !server.is_live());
            let Some(uuid) = gone.map(|(uuid, _)| uuid.clone()) else {
                return Err(Error::new(
                    Code::LimitExceeded,
                    format!("kvserve {}: {SERVERS_MAX} are attached already", address.uuid),
                ));
            };
            self.servers.remove(&uuid);
        }
        self.last_epoch += 1;
        let server = Server {
            epoch: self.last_epoch,
            attached: true,
            last_heard_ms: now_ms,
            dead: false,
            versions: BTreeMap::new(),
            capacity_bytes: 0,
            used_bytes: 0,
            address,
        };
        self.servers.insert(server.address.uuid.clone(), server);
        Ok(self.last_epoch)
    }

    /// What a server says of all its versions. True if a state changed, so that there may be something to decide.
    /// Errors: `Stale` if a newer registration ended the epoch; `InvalidArgument`.
    pub fn heartbeat(
        &mut self,
        now_ms: u64,
        uuid: &str,
        epoch: u64,
        message: KvserveHeartbeat,
    ) -> Result<bool> {
        let server = self.servers.get_mut(uuid).filter(|server| server.epoch == epoch);
        let Some(server) = server else {
            return Err(Error::new(
                Code::Stale,
                format!("epoch {epoch} of kvserve {uuid} is over: register again"),
            ));
        };
        if message.versions.len() > SERVER_VERSIONS_MAX {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("{} versions, at most {SERVER_VERSIONS_MAX}", message.versions.len()),
            ));
        }
        let came_back = std::mem::replace(&mut server.dead, false);
        server.last_heard_ms = server.last_heard_ms.max(now_ms);
        server.capacity_bytes = message.capacity_bytes;
        server.used_bytes = message.used_bytes;
        let mut versions = BTreeMap::new();
        for mut version in message.versions {
            version.server = uuid.to_owned();
            shorten(&mut version.error);
            versions.insert((version.store.clone(), version.version), version);
        }
        let states = |versions: &BTreeMap<_, ServerVersion>| {
            versions.values().map(|v| (v.store.clone(), v.version, v.state)).collect::<Vec<_>>()
        };
        let changed = came_back || states(&versions) != states(&server.versions);
        server.versions = versions;
        Ok(changed)
    }

    /// The stream of an epoch ended; true if that leaves something to decide.
    pub fn detach(&mut self, uuid: &str, epoch: u64) -> bool {
        match self.servers.get_mut(uuid).filter(|server| server.epoch == epoch) {
            Some(server) => {
                server.attached = false;
                true
            }
            None => false,
        }
    }

    /// Whether this epoch is the one that is listened to.
    pub fn is_current(&self, uuid: &str, epoch: u64) -> bool {
        self.servers.get(uuid).is_some_and(|server| server.epoch == epoch)
    }

    /// Silent servers stop counting; true if one did just now.
    pub fn check(&mut self, now_ms: u64) -> bool {
        let mut died = false;
        for server in self.servers.values_mut() {
            let silent = now_ms.saturating_sub(server.last_heard_ms) >= self.dead_after_ms;
            died |= silent && !server.dead;
            server.dead |= silent;
        }
        died
    }

    /// What shall be journaled now, by store and version.
    pub fn decide(&self) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for store in &self.stores {
            for version in &store.versions {
                decisions.extend(self.decide_version(store, version));
            }
        }
        decisions
    }

    /// What every server shall hold.
    pub fn assignment(&self) -> Vec<StoreAssignment> {
        let held = |version: &&VersionView| {
            matches!(
                version.state,
                VersionState::Preparing
                    | VersionState::Ready
                    | VersionState::Current
                    | VersionState::Previous
            )
        };
        let assign = |version: &VersionView| VersionAssignment {
            version: version.number,
            tables: version.tables.clone(),
        };
        self.stores
            .iter()
            .map(|store| StoreAssignment {
                store: store.name.clone(),
                current: store.current,
                versions: store.versions.iter().filter(held).map(assign).collect(),
            })
            .collect()
    }

    /// What each known server says of a version, by server.
    pub fn version_servers(&self, store: &str, version: u64) -> Vec<ServerVersion> {
        let key = (store.to_owned(), version);
        self.servers
            .values()
            .filter(|server| server.is_live())
            .filter_map(|server| server.versions.get(&key).cloned())
            .collect()
    }

    /// Live servers, by uuid.
    pub fn live_servers(&self) -> Vec<KvserveAddress> {
        let live = self.servers.values().filter(|server| server.is_live());
        live.map(|server| server.address.clone()).collect()
    }

    /// Every known server, by uuid.
    pub fn statuses(&self, now_ms: u64) -> Vec<KvserveStatus> {
        self.servers
            .values()
            .map(|server| KvserveStatus {
                address: Some(server.address.clone()),
                alive: server.is_live(),
                last_heartbeat_ms_ago: now_ms.saturating_sub(server.last_heard_ms),
                versions: server.versions.values().cloned().collect(),
                capacity_bytes: server.capacity_bytes,
                used_bytes: server.used_bytes,
            })
            .collect()
    }

    fn decide_version(&self, store: &StoreView, version: &VersionView) -> Option<Decision> {
        let (name, number) = (store.name.clone(), version.number);
        match version.state {
            VersionState::Preparing => self.decide_prepared(name, number),
            VersionState::Ready if version.activate && number > store.current => {
                Some(Decision::Activate { store: name, version: number })
            }
            _ => None,
        }
    }

    fn decide_prepared(&self, store: String, version: u64) -> Option<Decision> {
        let key = (store.clone(), version);
        let (mut live, mut ready) = (0, 0);
        for server in self.servers.values().filter(|server| server.is_live()) {
            live += 1;
            let Some(said) = server.versions.get(&key) else { continue };
            match said.state() {
                ServerVersionState::Ready | ServerVersionState::Serving => ready += 1,
                ServerVersionState::Failed => {
                    let error = format!("kvserve {}: {}", server.address.uuid, said.error);
                    return Some(Decision::Failed { store, version, error });
                }
                _ => {}
            }
        }
        (live > 0 && live == ready).then_some(Decision::Ready { store, version })
    }
}

fn check_address(address: &KvserveAddress) -> Result<()> {
    let bad =
        |why: String| Err(Error::new(Code::InvalidArgument, format!("a kvserve tells {why}")));
    if address.uuid.is_empty() || address.uuid.len() > 64 || address.uuid.contains('\0') {
        return bad(format!("a uuid of {} bytes, expected 1 to 64", address.uuid.len()));
    }
    if address.host.is_empty() || address.host.len() > 255 || address.host.contains('\0') {
        return bad(format!("a host of {} bytes, expected 1 to 255", address.host.len()));
    }
    for port in [address.redis_port, address.grpc_port, address.http_port] {
        if port > 65_535 {
            return bad(format!("port {port}, at most 65535"));
        }
    }
    Ok(())
}

/// Cuts a text at a character within the bound.
fn shorten(text: &mut String) {
    if text.len() > ERROR_BYTES_MAX {
        let cut = (0..=ERROR_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(cut);
    }
}

#[cfg(test)]
mod tests;
