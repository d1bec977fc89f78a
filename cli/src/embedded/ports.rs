//! Which port each role of an embedded cluster listens on. Pure, but for the probe of [`Ports::standard_or_free`].

use std::net::TcpListener;

use crate::failure::Failure;

const HADOOP_RPC: u16 = 8020;
const NAMENODE_GRPC: u16 = 8030;
const NAMENODE_HTTP: u16 = 9870;
const REDIS: u16 = 6380;

/// Ports that one base takes: 6 for the NameNode and kvserve, 4 for each DataNode from the tenth on.
const DATANODE_FIRST: u16 = 10;
/// Data transfer, gRPC, HTTP, and Hadoop's RPC.
const PORTS_PER_DATANODE: u16 = 4;
/// DataNodes of one embedded cluster.
pub const DATANODES_MAX: usize = 64;
/// The largest base that leaves room for all.
pub const BASE_MAX: u16 = u16::MAX - DATANODE_FIRST - PORTS_PER_DATANODE * DATANODES_MAX as u16;

/// How ports are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The well-known ones; DataNodes and the kvserve's inner services take free ones.
    Standard,
    /// All in sequence from this one.
    Base(u16),
    /// All chosen free.
    Free,
}

impl Ports {
    /// What `--port-base` says: nothing, 0, or a number.
    pub fn from_base(base: Option<u16>) -> Self {
        match base {
            None => Self::Standard,
            Some(0) => Self::Free,
            Some(base) => Self::Base(base),
        }
    }

    /// The well-known ports if all of them are free now, else free ones.
    pub fn standard_or_free() -> Self {
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        let all = [HADOOP_RPC, NAMENODE_GRPC, NAMENODE_HTTP, REDIS].into_iter().all(free);
        if all { Self::Standard } else { Self::Free }
    }

    fn pick(self, standard: u16, offset: u16) -> u16 {
        match self {
            Self::Standard => standard,
            Self::Base(base) => base + offset,
            Self::Free => 0,
        }
    }

    /// Hadoop's RPC.
    pub fn hadoop_rpc(self) -> u16 {
        self.pick(HADOOP_RPC, 0)
    }

    /// The NameNode's gRPC service.
    pub fn namenode_grpc(self) -> u16 {
        self.pick(NAMENODE_GRPC, 1)
    }

    /// The NameNode's HTTP pages.
    pub fn namenode_http(self) -> u16 {
        self.pick(NAMENODE_HTTP, 2)
    }

    /// The Redis protocol.
    pub fn redis(self) -> u16 {
        self.pick(REDIS, 3)
    }

    /// The kvserve's gRPC service.
    pub fn kvserve_grpc(self) -> u16 {
        self.pick(0, 4)
    }

    /// The kvserve's HTTP pages.
    pub fn kvserve_http(self) -> u16 {
        self.pick(0, 5)
    }

    /// One of the ports of a DataNode.
    pub fn datanode(self, index: usize, which: u16) -> u16 {
        assert!(
            index < DATANODES_MAX && which < PORTS_PER_DATANODE,
            "checked when options are read"
        );
        self.pick(0, DATANODE_FIRST + PORTS_PER_DATANODE * index as u16 + which)
    }

    /// A port on loopback; 0 is chosen free.
    pub fn addr(self, port: u16) -> String {
        format!("127.0.0.1:{port}")
    }

    /// Tells what to do about a port in use.
    pub fn explain(self, failure: Failure) -> Failure {
        let in_use = failure.message.contains("in use");
        if !in_use || failure.hint.is_some() || self == Self::Free {
            return failure;
        }
        failure.hint("is another cluster running? --port-base PORT moves all ports, --port-base 0 takes free ones")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_roles_share_a_port() {
        let ports = Ports::Base(BASE_MAX);
        let mut all = vec![
            ports.hadoop_rpc(),
            ports.namenode_grpc(),
            ports.namenode_http(),
            ports.redis(),
            ports.kvserve_grpc(),
            ports.kvserve_http(),
        ];
        for index in 0..DATANODES_MAX {
            all.extend((0..PORTS_PER_DATANODE).map(|which| ports.datanode(index, which)));
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn the_well_known_ports_are_those_documented() {
        let ports = Ports::from_base(None);
        let all = [ports.hadoop_rpc(), ports.namenode_grpc(), ports.namenode_http(), ports.redis()];
        assert_eq!(all, [8020, 8030, 9870, 6380]);
        assert_eq!(Ports::from_base(Some(0)).redis(), 0);
    }
}
