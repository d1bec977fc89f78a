//! Erasure-coding policies and the exchange of content, for all front ends.
//!
//! Changes are one operation each; reads are one look at the state. See `state::erasure` for what they mean.

use std::net::IpAddr;

use proto::erasure::{POLICIES, Policy};
use proto::granary::change_erasure_coding_request::Action;
use proto::granary::*;
use proto::{Code, Error, FsPath, InodeId, Result};

use super::access::Method;
use super::groups::policy_of;
use super::namespace::policy_number;
use super::node::{Node, path};
use crate::op::erasure::ErasureOp;
use crate::op::{CallId, Caller, Op};

impl Node {
    /// Sets, unsets, enables, disables; exchanges contents.
    pub(super) async fn change_coding(
        &self,
        call: (Caller, Option<CallId>),
        op: ErasureOp,
    ) -> Result<()> {
        self.propose(call, Op::Erasure(op)).await.map(|_| ())
    }

    /// The policy of a file, or of new files in a folder; 0: replicated.
    pub(super) fn coding_policy(&self, caller: &Caller, path: &FsPath) -> Result<u8> {
        self.log.read(|state| state.coding_policy(caller, path))
    }

    /// What HDFS's sums tell of a file's or folder's policy: its name, "Replicated" for a file without one.
    pub(super) fn coding_shown(&self, caller: &Caller, path: &FsPath) -> Result<String> {
        let status = self.log.read(|state| state.status(caller, path))?;
        let Some(status) = status else { return Ok(String::new()) };
        Ok(match (policy_of(&status), status.kind()) {
            (Some(policy), _) => policy.name.to_owned(),
            (None, FileKind::File) => "Replicated".to_owned(),
            (None, _) => String::new(),
        })
    }

    /// All policies that are known, and whether each is enabled.
    pub(super) fn coding_policies(&self) -> Vec<(Policy, bool)> {
        let enabled = |policy: Policy| (policy, self.is_coding_enabled(policy));
        POLICIES.into_iter().map(enabled).collect()
    }

    /// Whether a policy may be given to folders and new files.
    pub(super) fn is_coding_enabled(&self, policy: Policy) -> bool {
        self.log.read(|state| state.is_coding_enabled(policy.id))
    }

    pub(super) async fn change_erasure_coding(
        &self,
        message: ChangeErasureCodingRequest,
    ) -> Result<ChangeErasureCodingReply> {
        let (action, policy) = (message.action(), policy_number(message.policy)?);
        let (method, op) = match action {
            Action::Set => {
                let path = path(&message.path)?;
                (Method::ErasureCodingSet, ErasureOp::SetPolicy { path, policy })
            }
            Action::Unset => {
                let path = path(&message.path)?;
                (Method::ErasureCodingSet, ErasureOp::UnsetPolicy { path })
            }
            Action::Enable | Action::Disable => {
                let enabled = action == Action::Enable;
                (Method::ErasureCodingAdmin, ErasureOp::Enable { policy, enabled })
            }
            Action::Unspecified => {
                let message = "changeErasureCoding: the action is not given";
                return Err(Error::new(Code::InvalidArgument, message));
            }
        };
        let call = self.enter(method, message.caller)?;
        self.change_coding(call, op).await?;
        Ok(ChangeErasureCodingReply {})
    }

    pub(super) fn get_erasure_coding(
        &self,
        message: GetErasureCodingRequest,
    ) -> Result<GetErasureCodingReply> {
        let (caller, _) = self.enter(Method::ErasureCodingRead, message.caller)?;
        let told = |(policy, enabled): (Policy, bool)| ErasurePolicy {
            id: policy.id.into(),
            name: policy.name.to_owned(),
            codec: policy.codec.name().to_owned(),
            data_units: policy.data_units.into(),
            parity_units: policy.parity_units.into(),
            cell_bytes: policy.cell_bytes,
            enabled,
        };
        let policies = self.coding_policies().into_iter().map(told).collect();
        let (mut policy, mut own) = (0, None);
        if !message.path.is_empty() {
            let path = path(&message.path)?;
            policy = self.coding_policy(&caller, &path)?.into();
            own = self.log.read(|state| state.own_coding_policy(&caller, &path))?.map(u32::from);
        }
        Ok(GetErasureCodingReply { policy, own, policies })
    }

    pub(super) async fn exchange_content(
        &self,
        message: ExchangeContentRequest,
        _: Option<IpAddr>,
    ) -> Result<Empty> {
        let call = self.enter(Method::ExchangeContent, message.caller)?;
        let op = ErasureOp::Exchange {
            target: path(&message.target)?,
            source: path(&message.source)?,
            inode: InodeId(message.inode),
            modified_ns: message.modified_ns,
        };
        self.change_coding(call, op).await.map(|()| Empty {})
    }
}
