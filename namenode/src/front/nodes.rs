//! What operators ask of DataNodes as a whole: that some go, for good or for a time; that their load be balanced; how far
//! repair is.

use proto::granary::balance_request::Action as BalanceAction;
use proto::granary::change_nodes_request::Action;
use proto::granary::*;
use proto::{Code, Error, Result};

use super::access::Method;
use super::node::Node;
use crate::cluster::balance::THRESHOLD_PERCENT;
use crate::cluster::datanodes::NodeIndex;
use crate::cluster::repair::progress::Progress;
use crate::cluster::repair::queue::Danger;
use crate::cluster::service::Service;
use crate::op::Op;
use crate::op::node::{NodeOp, NodeWish};

/// Nodes that one request may name.
const NODES_MAX: usize = 1_000;

impl Node {
    /// Wants something of nodes, one journaled operation each.
    pub(super) async fn change_nodes(
        &self,
        message: ChangeNodesRequest,
    ) -> Result<ChangeNodesReply> {
        let action = message.action();
        let (caller, _) = self.enter(Method::ChangeNodes, message.caller)?;
        if message.nodes.is_empty() || message.nodes.len() > NODES_MAX {
            let count = message.nodes.len();
            let text = format!("{count} DataNodes are named, expected 1 to {NODES_MAX}");
            return Err(Error::new(Code::InvalidArgument, text));
        }
        for node in message.nodes {
            let op = match action {
                Action::Decommission => NodeOp::Wish { node, wish: NodeWish::Decommission },
                Action::Maintenance => {
                    let wish = NodeWish::Maintenance { until_ns: message.until_ns };
                    NodeOp::Wish { node, wish }
                }
                Action::Recommission => NodeOp::Forget { node },
                Action::Unspecified => {
                    let text = "changeNodes: the action is not given";
                    return Err(Error::new(Code::InvalidArgument, text));
                }
            };
            tracing::warn!(op = op.name(), node = op.node(), by = %caller.user, "asked of a DataNode");
            self.propose((caller.clone(), None), Op::Node(op)).await?;
        }
        Ok(ChangeNodesReply {})
    }

    /// The DataNodes of these names. Errors: `NotFound` for one that names none.
    pub(super) fn nodes_named(&self, names: &[String]) -> Result<Vec<NodeIndex>> {
        if names.len() > NODES_MAX {
            let text = format!("{} DataNodes are named, at most {NODES_MAX}", names.len());
            return Err(Error::new(Code::InvalidArgument, text));
        }
        self.volatile.cluster(|cluster, _| {
            let mut nodes = Vec::new();
            for name in names {
                let named = cluster.datanodes.named(name);
                if named.is_empty() {
                    let text = format!("no DataNode is called {}", name.escape_debug());
                    return Err(Error::new(Code::NotFound, text));
                }
                nodes.extend(named);
            }
            Ok(nodes)
        })
    }

    pub(super) fn list_nodes(&self, message: ListNodesRequest) -> Result<ListNodesReply> {
        self.enter(Method::ListNodes, message.caller)?;
        let wish = |(node, wish): (&str, NodeWish)| {
            let (wanted, until_ns) = match wish {
                NodeWish::Decommission => (NodeService::Decommissioned, 0),
                NodeWish::Maintenance { until_ns } => (NodeService::InMaintenance, until_ns),
            };
            proto::granary::NodeWish { node: node.to_owned(), wanted: wanted as i32, until_ns }
        };
        let wishes = self.log.read(|state| state.node_wishes().map(wish).collect());
        Ok(ListNodesReply { wishes })
    }

    pub(super) fn balance(&self, message: BalanceRequest) -> Result<BalanceStatus> {
        let action = message.action();
        let (caller, _) = self.enter(Method::Balance, message.caller)?;
        let threshold = match message.threshold_percent {
            0 => THRESHOLD_PERCENT,
            percent @ 1..=100 => percent,
            percent => {
                let text = format!("balance: a threshold of {percent} %, expected 1 to 100");
                return Err(Error::new(Code::InvalidArgument, text));
            }
        };
        let status = self.volatile.cluster(|cluster, _| {
            let rate = match message.bytes_per_second {
                0 => cluster.balance_rate(),
                rate => rate,
            };
            if action != BalanceAction::Status {
                tracing::warn!(?action, threshold, rate, by = %caller.user, "the balancer");
            }
            match action {
                BalanceAction::Status => {}
                BalanceAction::Start => cluster.start_balancing(threshold, rate),
                BalanceAction::Stop => cluster.stop_balancing(),
            }
            cluster.balance_status()
        });
        Ok(BalanceStatus {
            running: status.running,
            outcome: status.outcome.to_owned(),
            threshold_percent: status.threshold_percent,
            bytes_per_second: status.bytes_per_s,
            moved_blocks: status.moved_blocks,
            moved_bytes: status.moved_bytes,
            failed_moves: status.failed,
            moves: status.moves,
            bytes_left: status.bytes_left,
            average_percent: status.average_percent,
            fullest_percent: status.fullest_percent,
            emptiest_percent: status.emptiest_percent,
        })
    }
}

/// What a node is for, as messages have it.
pub(super) fn service_number(service: Service) -> i32 {
    let service = match service {
        Service::InService => NodeService::InService,
        Service::Decommissioning => NodeService::Decommissioning,
        Service::Decommissioned => NodeService::Decommissioned,
        Service::EnteringMaintenance => NodeService::EnteringMaintenance,
        Service::InMaintenance => NodeService::InMaintenance,
    };
    service as i32
}

/// How far repair is, as messages have it.
pub(super) fn repair_status(progress: &Progress) -> RepairStatus {
    RepairStatus {
        endangered_blocks: progress.waiting_by_danger[0],
        waiting_blocks: progress.waiting(),
        waiting_bytes: progress.waiting_bytes,
        later_blocks: progress.waiting_later,
        copies: progress.copies,
        copies_bytes: progress.copies_bytes,
        done_blocks: progress.done_blocks,
        done_bytes: progress.done_bytes,
        failed_copies: progress.failed,
        bytes_per_second: progress.bytes_per_s,
        left_ms: progress.left_ms,
        searching: progress.searching,
        misplaced_blocks: progress.misplaced,
        leaving_blocks: progress.waiting_by_danger[Danger::LEAVING.index()],
    }
}
