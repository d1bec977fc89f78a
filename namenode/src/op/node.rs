//! What an operator wants of DataNodes: the operations and their bytes. See docs/formats/journal.md.
//!
//! A wish names nodes by a uuid, by `host:port` of the data port, or by a host. It stands until it is taken back,
//! whether such a node is there or not.

use super::Op;
use crate::coding::{Malformed, Reader, put_i64, put_text, put_u8};

/// The tag of this family in the journal.
pub(crate) const TAG: u8 = 47;
/// Bytes of the name of a node.
pub const NODE_NAME_BYTES_MAX: usize = 300;

/// What is wanted of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeWish {
    /// It shall go.
    Decommission,
    /// It shall be away until then, in nanoseconds since 1970-01-01 UTC.
    Maintenance {
        /// The end of it.
        until_ns: i64,
    },
}

/// A change of what is wanted of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeOp {
    /// Wants something of a node, in place of what was wanted before.
    Wish {
        /// Its name.
        node: String,
        /// What.
        wish: NodeWish,
    },
    /// Wants nothing special of it any more.
    Forget {
        /// Its name.
        node: String,
    },
}

impl NodeOp {
    /// The verb, for messages and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Wish { wish: NodeWish::Decommission, .. } => "decommissionNode",
            Self::Wish { .. } => "maintainNode",
            Self::Forget { .. } => "recommissionNode",
        }
    }

    /// The name of the node.
    pub fn node(&self) -> &str {
        match self {
            Self::Wish { node, .. } | Self::Forget { node } => node,
        }
    }

    /// Appends the journal's form, the family's tag first.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u8(out, TAG);
        match self {
            Self::Wish { node, wish } => {
                put_u8(out, 1);
                put_text(out, node);
                encode_wish(*wish, out);
            }
            Self::Forget { node } => {
                put_u8(out, 2);
                put_text(out, node);
            }
        }
    }

    /// Reads what follows the family's tag.
    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Op, Malformed> {
        let malformed = r.malformed("a known operation on nodes");
        Ok(Op::Node(match r.u8()? {
            1 => Self::Wish { node: name(r)?, wish: decode_wish(r)? },
            2 => Self::Forget { node: name(r)? },
            _ => return Err(malformed),
        }))
    }
}

/// A wish as the journal and the checkpoint have it: what, and until when.
pub(crate) fn encode_wish(wish: NodeWish, out: &mut Vec<u8>) {
    let (what, until_ns) = match wish {
        NodeWish::Decommission => (1, 0),
        NodeWish::Maintenance { until_ns } => (2, until_ns),
    };
    put_u8(out, what);
    put_i64(out, until_ns);
}

/// Reads what [`encode_wish`] wrote.
pub(crate) fn decode_wish(r: &mut Reader<'_>) -> Result<NodeWish, Malformed> {
    let malformed = r.malformed("1 to decommission a node or 2 for maintenance");
    match (r.u8()?, r.i64()?) {
        (1, 0) => Ok(NodeWish::Decommission),
        (2, until_ns) => Ok(NodeWish::Maintenance { until_ns }),
        _ => Err(malformed),
    }
}

/// The name of a node.
pub(crate) fn name(r: &mut Reader<'_>) -> Result<String, Malformed> {
    r.text(NODE_NAME_BYTES_MAX).map(str::to_owned)
}
