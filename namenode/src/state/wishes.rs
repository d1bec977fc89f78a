//! What an operator wants of DataNodes, by name: to be decommissioned, to be away for a time.
//!
//! The volatile side acts on it; here it is only kept, so that a restart forgets nothing.

use std::collections::BTreeMap;

use proto::{Code, Error, Result};

use super::State;
use super::snapshots::demand_superuser;
use crate::coding::{Malformed, Reader, put_text, put_u32};
use crate::op::node::{NODE_NAME_BYTES_MAX, NodeOp, NodeWish, decode_wish, encode_wish, name};
use crate::op::{Caller, Effect, Reply};

/// Names that something may be wanted of.
const WISHES_MAX: usize = 100_000;
/// The fewest bytes that a wish takes in a checkpoint.
const ENTRY_BYTES_MIN: usize = 4 + 1 + 8;

/// All wishes.
#[derive(Default)]
pub(crate) struct NodeWishes {
    by_name: BTreeMap<String, NodeWish>,
}

impl NodeWishes {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.by_name.len() as u32);
        for (node, &wish) in &self.by_name {
            put_text(out, node);
            encode_wish(wish, out);
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let malformed = r.malformed("the names of nodes in order");
        let mut wishes = Self::default();
        for _ in 0..r.count(ENTRY_BYTES_MIN)? {
            let node = name(r)?;
            if wishes.by_name.last_key_value().is_some_and(|(last, _)| *last >= node) {
                return Err(malformed);
            }
            let wish = decode_wish(r)?;
            wishes.by_name.insert(node, wish);
        }
        Ok(wishes)
    }
}

impl State {
    /// What is wanted of nodes, by name.
    pub fn node_wishes(&self) -> impl Iterator<Item = (&str, NodeWish)> {
        self.wishes.by_name.iter().map(|(node, &wish)| (&node[..], wish))
    }

    pub(super) fn plan_on_node(&self, caller: &Caller, op: &NodeOp) -> Result<Option<Reply>> {
        demand_superuser(caller)?;
        let node = op.node();
        let known = self.wishes.by_name.get(node).copied();
        match op {
            _ if node.is_empty() || node.len() > NODE_NAME_BYTES_MAX => Err(Error::new(
                Code::InvalidArgument,
                format!(
                    "the name of a DataNode has {} bytes, expected 1 to {NODE_NAME_BYTES_MAX}",
                    node.len()
                ),
            )),
            NodeOp::Wish { wish, .. } if known == Some(*wish) => Ok(Some(Reply::Done)),
            NodeOp::Wish { .. } if known.is_none() && self.wishes.by_name.len() >= WISHES_MAX => {
                let text = format!("something is wanted of {WISHES_MAX} DataNodes already");
                Err(Error::new(Code::LimitExceeded, text))
            }
            NodeOp::Forget { .. } if known.is_none() => Ok(Some(Reply::Done)),
            _ => Ok(None),
        }
    }

    pub(super) fn perform_on_node(
        &mut self,
        caller: &Caller,
        op: &NodeOp,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply> {
        if let Some(reply) = self.plan_on_node(caller, op)? {
            return Ok(reply);
        }
        let (node, wish) = match op {
            NodeOp::Wish { node, wish } => (node, Some(*wish)),
            NodeOp::Forget { node } => (node, None),
        };
        match wish {
            Some(wish) => self.wishes.by_name.insert(node.clone(), wish),
            None => self.wishes.by_name.remove(node),
        };
        effects.push(Effect::NodeWished { node: node.clone(), wish });
        Ok(Reply::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Op, Request};

    fn wished(state: &mut State, superuser: bool, op: NodeOp) -> (Result<Reply>, Vec<Effect>) {
        let caller = Caller { superuser, ..Caller::user("op") };
        let request = Request { caller, call_id: None, now_ns: 1, op: Op::Node(op) };
        let mut effects = Vec::new();
        (state.apply(&request, &mut effects), effects)
    }

    #[test]
    fn wishes_are_kept_by_name_and_survive_a_checkpoint() {
        let mut state = State::new("root");
        let until = NodeWish::Maintenance { until_ns: 7 };
        let wish = |node: &str, wish| NodeOp::Wish { node: node.into(), wish };
        for (op, changes) in [
            (wish("a", NodeWish::Decommission), 1),
            (wish("b:9866", until), 1),
            (wish("b:9866", until), 0),
            (wish("a", until), 1),
            (NodeOp::Forget { node: "a".into() }, 1),
            (NodeOp::Forget { node: "a".into() }, 0),
            (wish("c", NodeWish::Decommission), 1),
        ] {
            let (reply, effects) = wished(&mut state, true, op);
            assert_eq!((reply.unwrap(), effects.len()), (Reply::Done, changes));
        }
        let (refused, _) = wished(&mut state, false, wish("a", until));
        assert_eq!(refused.unwrap_err().code, Code::PermissionDenied);
        let (refused, _) = wished(&mut state, true, wish("", until));
        assert_eq!(refused.unwrap_err().code, Code::InvalidArgument);
        let mut bytes = Vec::new();
        state.wishes.encode(&mut bytes);
        let read = NodeWishes::decode(&mut Reader::new(&bytes)).unwrap();
        assert_eq!(read.by_name, state.wishes.by_name);
        let expected = [("b:9866", until), ("c", NodeWish::Decommission)];
        assert_eq!(state.node_wishes().collect::<Vec<_>>(), expected);
        for cut in 0..bytes.len() {
            assert!(NodeWishes::decode(&mut Reader::new(&bytes[..cut])).is_err());
        }
    }
}
