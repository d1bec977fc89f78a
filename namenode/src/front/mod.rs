//! The front ends: every way to ask the NameNode something, in front of one set of functions.
//!
//! | module | owns |
//! |---|---|
//! | [`access`] | the table of methods: who may call them; callers and their groups |
//! | [`node`] | what all front ends share; how an operation is proposed and counted |
//! | [`namespace`], [`blocks`], [`leases`] | what clients ask: names; blocks of open files; who writes |
//! | `groups` | block groups of open striped files |
//! | [`datanodes`] | the streams of DataNodes |
//! | [`catalogue`] | stores, and the streams of kvserve nodes |
//! | [`quotas`] | quotas, sums over trees |
//! | [`attributes`] | extended attributes, access control lists, storage policies, concat |
//! | [`snapshots`] | snapshots |
//! | [`erasure`] | erasure-coding policies, exchange of content |
//! | [`nodes`] | what operators want of DataNodes; balancing; how far repair is |
//! | [`admin`] | status and safe mode |
//! | [`fsck`] | checking files |
//! | [`jmx`] | figures under the names of HDFS's beans |
//! | [`http`], [`metrics`] | the status page and counters |
//! | [`hadoop`] | Hadoop's protocols: what clients of HDFS ask |
//! | [`webhdfs`] | the namespace over HTTP |
//! | [`native`] | the service Namespace over Hadoop's RPC framing |
//! | [`volatile`] | locks, clock and wake-ups around the volatile cores |
//! | [`stop`] | the switch that ends all tasks |
//!
//! Rules of the namespace are not here: `state` has them, and answers for both protocols alike.

pub mod access;
pub mod admin;
pub mod attributes;
pub mod blocks;
pub mod catalogue;
pub mod datanodes;
pub mod erasure;
pub mod fsck;
mod groups;
pub mod hadoop;
pub mod http;
pub mod jmx;
pub mod leases;
pub mod metrics;
pub mod namespace;
pub mod native;
pub mod node;
pub mod nodes;
pub mod quotas;
pub mod snapshots;
pub mod stop;
pub mod volatile;
pub mod webhdfs;
