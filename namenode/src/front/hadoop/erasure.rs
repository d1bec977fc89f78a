//! ClientNamenodeProtocol: erasure coding. HDFS's built-in policies, by the names and numbers that its clients know.
//!
//! Messages that tell how a file is coded name a built-in policy by its number alone, as HDFS does. A folder that says
//! "replicated" is shown as one without a policy. Policies cannot be added: clients must know how to code.

use ipc::exceptions;
use proto::Code;
use proto::erasure::{Codec, POLICIES, Policy};
use proto::hadoop::hdfs::*;

use super::Asked;
use super::errors::{Answered, Failure};
use crate::op::Op;
use crate::op::erasure::ErasureOp;

const NO_POLICY: &str = "org.apache.hadoop.hdfs.protocol.NoECPolicySetException";
/// What clients call the absence of a policy.
const REPLICATION: &str = "replication";
/// What is meant where a client names none.
const DEFAULT_POLICY: Policy = POLICIES[0];

fn refused<T>(message: String) -> Answered<T> {
    Err(Failure::java(exceptions::HADOOP_ILLEGAL_ARGUMENT, message))
}

/// A policy as HDFS tells how a file is coded; `None`: it is replicated.
pub fn coded_by(id: u32) -> Option<ErasureCodingPolicyProto> {
    let policy = u8::try_from(id).ok().and_then(Policy::by_id)?;
    Some(ErasureCodingPolicyProto { id: policy.id.into(), ..Default::default() })
}

/// A policy in full.
pub fn in_full(policy: Policy, enabled: bool) -> ErasureCodingPolicyProto {
    let state = match enabled {
        true => ErasureCodingPolicyState::Enabled,
        false => ErasureCodingPolicyState::Disabled,
    };
    ErasureCodingPolicyProto {
        name: Some(policy.name.to_owned()),
        schema: Some(EcSchemaProto {
            codec_name: policy.codec.name().to_owned(),
            data_units: policy.data_units.into(),
            parity_units: policy.parity_units.into(),
            options: Vec::new(),
        }),
        cell_size: Some(policy.cell_bytes),
        id: policy.id.into(),
        state: Some(state as i32),
    }
}

fn known(name: &str) -> Answered<Policy> {
    match Policy::by_name(name) {
        Some(policy) => Ok(policy),
        None => refused(format!("The policy name {name} does not exist")),
    }
}

/// The number of the policy that a client names for a folder or file; 0: replicated.
pub fn wanted(asked: &Asked, name: &str) -> Answered<u8> {
    if name.eq_ignore_ascii_case(REPLICATION) {
        return Ok(0);
    }
    let policy = Policy::by_name(name).filter(|policy| asked.node.is_coding_enabled(*policy));
    match policy {
        Some(policy) => Ok(policy.id),
        None => refused(format!(
            "Policy '{name}' does not match any enabled erasure coding policies: [{}]. An erasure \
             coding policy can be enabled by enableErasureCodingPolicy API.",
            enabled(asked).iter().map(|policy| policy.name).collect::<Vec<_>>().join(", ")
        )),
    }
}

fn enabled(asked: &Asked) -> Vec<Policy> {
    let all = asked.node.coding_policies().into_iter();
    all.filter(|(_, enabled)| *enabled).map(|(policy, _)| policy).collect()
}

pub fn get_policies(
    asked: &Asked,
    _: GetErasureCodingPoliciesRequestProto,
) -> Answered<GetErasureCodingPoliciesResponseProto> {
    asked.enter()?;
    let all = asked.node.coding_policies().into_iter();
    let ec_policies = all.map(|(policy, enabled)| in_full(policy, enabled)).collect();
    Ok(GetErasureCodingPoliciesResponseProto { ec_policies })
}

pub fn get_codecs(
    asked: &Asked,
    _: GetErasureCodingCodecsRequestProto,
) -> Answered<GetErasureCodingCodecsResponseProto> {
    asked.enter()?;
    let codec = |codec: Codec| {
        let name = codec.name().to_uppercase();
        CodecProto { coders: format!("{name}_GRANARY"), codec: name }
    };
    let codec = [Codec::ReedSolomon, Codec::Xor].map(codec).to_vec();
    Ok(GetErasureCodingCodecsResponseProto { codec })
}

pub fn get_policy(
    asked: &Asked,
    request: GetErasureCodingPolicyRequestProto,
) -> Answered<GetErasureCodingPolicyResponseProto> {
    let (caller, _) = asked.enter()?;
    let path = asked.path(&request.src)?;
    let policy = asked.node.coding_policy(&caller, &path)?;
    Ok(GetErasureCodingPolicyResponseProto { ec_policy: coded_by(policy.into()) })
}

pub async fn set_policy(
    asked: Asked,
    request: SetErasureCodingPolicyRequestProto,
) -> Answered<SetErasureCodingPolicyResponseProto> {
    let name = request.ec_policy_name().to_owned();
    let policy = match name.as_str() {
        "" => wanted(&asked, DEFAULT_POLICY.name)?,
        name => wanted(&asked, name)?,
    };
    let path = asked.path(&request.src)?;
    let set = asked.propose(Op::Erasure(ErasureOp::SetPolicy { path, policy })).await;
    set.map_err(|error| Failure::from(error).with_class(Code::NotFolder, exceptions::IO))?;
    Ok(SetErasureCodingPolicyResponseProto {})
}

pub async fn unset_policy(
    asked: Asked,
    request: UnsetErasureCodingPolicyRequestProto,
) -> Answered<UnsetErasureCodingPolicyResponseProto> {
    let path = asked.path(&request.src)?;
    let unset = asked.propose(Op::Erasure(ErasureOp::UnsetPolicy { path })).await;
    unset.map_err(|error| {
        Failure::from(error)
            .with_class(Code::NoSuchAttribute, NO_POLICY)
            .with_class(Code::NotFolder, exceptions::IO)
    })?;
    Ok(UnsetErasureCodingPolicyResponseProto {})
}

async fn enable(asked: &Asked, name: &str, enabled: bool) -> Answered<()> {
    let policy = known(name)?.id;
    asked.propose(Op::Erasure(ErasureOp::Enable { policy, enabled })).await?;
    Ok(())
}

pub async fn enable_policy(
    asked: Asked,
    request: EnableErasureCodingPolicyRequestProto,
) -> Answered<EnableErasureCodingPolicyResponseProto> {
    enable(&asked, &request.ec_policy_name, true).await?;
    Ok(EnableErasureCodingPolicyResponseProto {})
}

pub async fn disable_policy(
    asked: Asked,
    request: DisableErasureCodingPolicyRequestProto,
) -> Answered<DisableErasureCodingPolicyResponseProto> {
    enable(&asked, &request.ec_policy_name, false).await?;
    Ok(DisableErasureCodingPolicyResponseProto {})
}

pub fn add_policies(
    asked: &Asked,
    request: AddErasureCodingPoliciesRequestProto,
) -> Answered<AddErasureCodingPoliciesResponseProto> {
    asked.enter()?;
    let refused = |policy| AddErasureCodingPolicyResponseProto {
        policy,
        succeed: false,
        error_msg: Some("only the built-in policies are known".to_owned()),
    };
    let responses = request.ec_policies.into_iter().map(refused).collect();
    Ok(AddErasureCodingPoliciesResponseProto { responses })
}

pub fn remove_policy(
    asked: &Asked,
    request: RemoveErasureCodingPolicyRequestProto,
) -> Answered<RemoveErasureCodingPolicyResponseProto> {
    asked.enter()?;
    let policy = known(&request.ec_policy_name)?;
    refused(format!("{} is built in: it cannot be removed", policy.name))
}

/// Whether there are DataNodes for all units of the policies, and racks enough that the loss of one is not the loss of
/// a file: as HDFS counts, and in its words.
pub fn get_topology_result(
    asked: &Asked,
    request: GetEcTopologyResultForPoliciesRequestProto,
) -> Answered<GetEcTopologyResultForPoliciesResponseProto> {
    asked.enter()?;
    let named: Vec<Policy> = match request.policies.is_empty() {
        true => enabled(asked),
        false => request.policies.iter().map(|name| known(name)).collect::<Answered<_>>()?,
    };
    let names = named.iter().map(|policy| policy.name).collect::<Vec<_>>().join(", ");
    let nodes_needed = named.iter().map(|policy| policy.units()).max().unwrap_or(0);
    let racks_of = |policy: &Policy| policy.units().div_ceil(policy.parity_units);
    let racks_needed = named.iter().map(racks_of).max().unwrap_or(0);
    let (nodes, racks) = asked
        .node
        .volatile
        .cluster(|cluster, _| (cluster.datanodes.living(), cluster.datanodes.racks()));
    let (is_supported, result_message) = if named.is_empty() {
        (false, "No erasure coding policy is given.".to_owned())
    } else if nodes < usize::from(nodes_needed) {
        let message = format!(
            "{nodes_needed} DataNodes are required for the erasure coding policies: {names}. The \
             number of DataNodes is only {nodes}."
        );
        (false, message)
    } else if racks < usize::from(racks_needed) {
        let message = format!(
            "{racks_needed} racks are required for the erasure coding policies: {names}. The \
             number of racks is only {racks}."
        );
        (false, message)
    } else {
        (true, format!("The cluster setup can support EC policies: {names}"))
    };
    let response = EcTopologyVerifierResultProto { is_supported, result_message };
    Ok(GetEcTopologyResultForPoliciesResponseProto { response })
}
