//! ClientNamenodeProtocol: erasure coding. The policies that HDFS has built in are known, and none is enabled: no file
//! is coded. So lists are true, and what would need a policy is refused as HDFS refuses a policy that is not enabled.

use ipc::exceptions;
use proto::Code;
use proto::erasure::{POLICIES, Policy};
use proto::hadoop::hdfs::*;

use super::Asked;
use super::errors::{Answered, Failure};
use super::namespace::status_of;

const NO_POLICY: &str = "org.apache.hadoop.hdfs.protocol.NoECPolicySetException";

/// A policy that the call needs is not enabled.
pub fn not_enabled(name: &str) -> Failure {
    let message = format!(
        "Policy '{name}' is not enabled: no erasure coding policy is, files are replicated"
    );
    Failure::java(exceptions::HADOOP_ILLEGAL_ARGUMENT, message)
}

fn known(name: &str) -> Answered<()> {
    if POLICIES.iter().any(|policy| policy.name == name) {
        return Ok(());
    }
    let message = format!("The policy name {name} does not exist");
    Err(Failure::java(exceptions::HADOOP_ILLEGAL_ARGUMENT, message))
}

/// The path must exist: whether there is a policy is asked of a file or folder.
fn existing(asked: &Asked, path: &str) -> Answered<()> {
    match status_of(asked, path)? {
        Some(_) => Ok(()),
        None => Err(proto::Error::new(Code::NotFound, format!("{path} does not exist")).into()),
    }
}

pub fn get_policies(
    asked: &Asked,
    _: GetErasureCodingPoliciesRequestProto,
) -> Answered<GetErasureCodingPoliciesResponseProto> {
    asked.enter()?;
    let policy = |policy: &Policy| ErasureCodingPolicyProto {
        name: Some(policy.name.to_owned()),
        schema: Some(EcSchemaProto {
            codec_name: policy.codec.name().to_owned(),
            data_units: policy.data_units.into(),
            parity_units: policy.parity_units.into(),
            options: Vec::new(),
        }),
        cell_size: Some(policy.cell_bytes),
        id: policy.id.into(),
        state: Some(ErasureCodingPolicyState::Disabled as i32),
    };
    let ec_policies = POLICIES.iter().map(policy).collect();
    Ok(GetErasureCodingPoliciesResponseProto { ec_policies })
}

pub fn get_codecs(
    asked: &Asked,
    _: GetErasureCodingCodecsRequestProto,
) -> Answered<GetErasureCodingCodecsResponseProto> {
    asked.enter()?;
    Ok(GetErasureCodingCodecsResponseProto { codec: Vec::new() })
}

pub fn get_policy(
    asked: &Asked,
    request: GetErasureCodingPolicyRequestProto,
) -> Answered<GetErasureCodingPolicyResponseProto> {
    existing(asked, &request.src)?;
    Ok(GetErasureCodingPolicyResponseProto { ec_policy: None })
}

pub fn set_policy(
    asked: &Asked,
    request: SetErasureCodingPolicyRequestProto,
) -> Answered<SetErasureCodingPolicyResponseProto> {
    existing(asked, &request.src)?;
    // Without a name the default one is meant.
    Err(not_enabled(request.ec_policy_name.as_deref().unwrap_or(POLICIES[0].name)))
}

pub fn unset_policy(
    asked: &Asked,
    request: UnsetErasureCodingPolicyRequestProto,
) -> Answered<UnsetErasureCodingPolicyResponseProto> {
    existing(asked, &request.src)?;
    Err(Failure::java(NO_POLICY, format!("{} has no erasure coding policy", request.src)))
}

pub fn enable_policy(
    asked: &Asked,
    request: EnableErasureCodingPolicyRequestProto,
) -> Answered<EnableErasureCodingPolicyResponseProto> {
    asked.enter()?;
    known(&request.ec_policy_name)?;
    let message = format!(
        "{} cannot be enabled: files cannot be erasure coded here yet",
        request.ec_policy_name
    );
    Err(Failure::java(exceptions::UNSUPPORTED, message))
}

pub fn disable_policy(
    asked: &Asked,
    request: DisableErasureCodingPolicyRequestProto,
) -> Answered<DisableErasureCodingPolicyResponseProto> {
    asked.enter()?;
    known(&request.ec_policy_name)?;
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
    known(&request.ec_policy_name)?;
    let message = format!("{} is built in: it cannot be removed", request.ec_policy_name);
    Err(Failure::java(exceptions::HADOOP_ILLEGAL_ARGUMENT, message))
}

pub fn get_topology_result(
    asked: &Asked,
    _: GetEcTopologyResultForPoliciesRequestProto,
) -> Answered<GetEcTopologyResultForPoliciesResponseProto> {
    asked.enter()?;
    let response = EcTopologyVerifierResultProto {
        is_supported: false,
        result_message: "No erasure coding policy is enabled.".to_owned(),
    };
    Ok(GetEcTopologyResultForPoliciesResponseProto { response })
}
