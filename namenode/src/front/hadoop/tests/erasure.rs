//! Erasure coding as HDFS's clients ask for it: policies, and files that are striped by them.

use super::files::{MIB, complete, create};
use super::*;

const POLICY: &str = "RS-3-2-1024k";
const POLICY_ID: u32 = 2;

fn set(path: &str, policy: &str) -> SetErasureCodingPolicyRequestProto {
    SetErasureCodingPolicyRequestProto {
        src: path.into(),
        ec_policy_name: Some(policy.into()).filter(|name: &String| !name.is_empty()),
    }
}

impl World {
    async fn policy_of(&self, path: &str) -> Option<u32> {
        let request = GetErasureCodingPolicyRequestProto { src: path.into() };
        let reply: GetErasureCodingPolicyResponseProto =
            self.ask("getErasureCodingPolicy", &request).await;
        reply.ec_policy.map(|policy| policy.id)
    }

    async fn set_policy(&self, path: &str, policy: &str) {
        self.ask::<SetErasureCodingPolicyResponseProto>(
            "setErasureCodingPolicy",
            &set(path, policy),
        )
        .await;
    }
}

#[tokio::test]
async fn policies_are_listed_with_their_states_and_all_that_can_be_coded_are_enabled() {
    let world = World::new().await;
    let states = async || -> Vec<(String, i32)> {
        let all: GetErasureCodingPoliciesResponseProto =
            world.ask("getErasureCodingPolicies", &GetErasureCodingPoliciesRequestProto {}).await;
        all.ec_policies.iter().map(|policy| (policy.name().into(), policy.state() as i32)).collect()
    };
    let (off, on) =
        (ErasureCodingPolicyState::Disabled as i32, ErasureCodingPolicyState::Enabled as i32);
    let of = |name: &str, all: &[(String, i32)]| all.iter().find(|(n, _)| n == name).unwrap().1;
    let all = states().await;
    assert_eq!(all.len(), 5);
    for name in ["RS-6-3-1024k", POLICY, "XOR-2-1-1024k", "RS-10-4-1024k"] {
        assert_eq!(of(name, &all), on, "{name}");
    }
    assert_eq!(of("RS-LEGACY-6-3-1024k", &all), off);
    let disable = DisableErasureCodingPolicyRequestProto { ec_policy_name: POLICY.into() };
    world
        .ask::<DisableErasureCodingPolicyResponseProto>("disableErasureCodingPolicy", &disable)
        .await;
    assert_eq!(of(POLICY, &states().await), off);
    let illegal = "HadoopIllegalArgumentException";
    assert_eq!(world.refused("setErasureCodingPolicy", &set("/", POLICY)).await, illegal);
    for (name, class) in [("RS-LEGACY-6-3-1024k", illegal), ("none", illegal)] {
        let enable = EnableErasureCodingPolicyRequestProto { ec_policy_name: name.into() };
        assert_eq!(world.refused("enableErasureCodingPolicy", &enable).await, class);
    }
    let enable = EnableErasureCodingPolicyRequestProto { ec_policy_name: POLICY.into() };
    world.ask::<EnableErasureCodingPolicyResponseProto>("enableErasureCodingPolicy", &enable).await;
    world.set_policy("/", POLICY).await;
}

#[tokio::test]
async fn a_folders_policy_holds_below_it_until_a_nearer_one_says_otherwise() {
    let world = World::new().await;
    world.mkdirs("/d/e/f").await;
    assert_eq!(world.policy_of("/d/e").await, None);
    world.set_policy("/d", POLICY).await;
    world.set_policy("/d/e", "replication").await;
    world.set_policy("/d/e/f", "").await;
    assert_eq!(world.policy_of("/d").await, Some(POLICY_ID));
    assert_eq!(world.policy_of("/d/e").await, None);
    assert_eq!(world.policy_of("/d/e/f").await, Some(1), "RS-6-3-1024k is what no name means");
    let stat = world.stat("/d").await.unwrap();
    assert_eq!((stat.flags() & 4, stat.ec_policy.unwrap().id), (4, POLICY_ID));
    let unset = UnsetErasureCodingPolicyRequestProto { src: "/d/e/f".into() };
    world.ask::<UnsetErasureCodingPolicyResponseProto>("unsetErasureCodingPolicy", &unset).await;
    assert_eq!(world.policy_of("/d/e/f").await, None);
    assert_eq!(world.refused("unsetErasureCodingPolicy", &unset).await, "NoECPolicySetException");
    assert_eq!(
        world.refused("setErasureCodingPolicy", &set("/x", POLICY)).await,
        "FileNotFoundException"
    );
    world.create("/file").await;
    assert_eq!(world.refused("setErasureCodingPolicy", &set("/file", POLICY)).await, "IOException");
}

#[tokio::test]
async fn a_striped_file_is_written_and_located_with_the_numbers_of_its_units() {
    let world = World::new().await;
    let nodes: Vec<_> = (1..=5).map(|number| world.datanode(number)).collect();
    world.mkdirs("/d").await;
    world.set_policy("/d", POLICY).await;
    let status = world.create("/d/f").await;
    assert_eq!(status.block_replication(), 1);
    assert_eq!(status.ec_policy.unwrap().id, POLICY_ID);
    let located = world.add_block("/d/f", None).await;
    assert_eq!(located.block_indices(), [0, 1, 2, 3, 4]);
    assert_eq!((located.locs.len(), located.block_tokens.len()), (5, 5));
    assert_eq!(located.b.block_id, 1 << 63);
    let group = ExtendedBlockProto { num_bytes: Some(2 * MIB), ..located.b };
    for (at, unit) in located.locs.iter().zip(0..) {
        let node = &nodes[at.id.datanode_uuid[2..].parse::<usize>().unwrap() - 1];
        let num_bytes = Some(if unit == 2 { 0 } else { MIB });
        let block_id = group.block_id + unit;
        world.stored(node, &ExtendedBlockProto { block_id, num_bytes, ..group.clone() });
    }
    let reply: CompleteResponseProto = world.ask("complete", &complete("/d/f", Some(group))).await;
    assert!(reply.result);
    let found = world.locate("/d/f").await;
    assert_eq!((found.file_length, found.ec_policy.unwrap().id), (2 * MIB, POLICY_ID));
    assert_eq!(found.blocks[0].block_indices(), [0, 1, 3, 4], "unit 2 has no byte");
    let sum = GetContentSummaryRequestProto { path: "/d/f".into() };
    let sum: GetContentSummaryResponseProto = world.ask("getContentSummary", &sum).await;
    assert_eq!(sum.summary.erasure_coding_policy(), POLICY);
    assert_eq!(sum.summary.space_consumed, 4 * MIB);
    let request = SetReplicationRequestProto { src: "/d/f".into(), replication: 2 };
    assert!(!world.ask::<SetReplicationResponseProto>("setReplication", &request).await.result);
    let cut = TruncateRequestProto { src: "/d/f".into(), new_length: 1, client_name: "c".into() };
    assert_eq!(world.refused("truncate", &cut).await, "UnsupportedOperationException");
    let concat = ConcatRequestProto { trg: "/d/f".into(), srcs: vec!["/d/f".into()] };
    assert_eq!(world.refused("concat", &concat).await, "HadoopIllegalArgumentException");
}

#[tokio::test]
async fn a_file_is_coded_or_replicated_as_its_writer_names_it() {
    let world = World::new().await;
    world.set_policy("/", POLICY).await;
    let coded = async |request: CreateRequestProto| {
        let reply: CreateResponseProto = world.ask("create", &request).await;
        reply.fs.unwrap().ec_policy.map(|policy| policy.id)
    };
    let named = |name: &str| CreateRequestProto {
        ec_policy_name: Some(name.into()),
        ..create(&format!("/{name}"))
    };
    assert_eq!(coded(named("XOR-2-1-1024k")).await, Some(4));
    assert_eq!(coded(named("replication")).await, None);
    let create_flag = CreateFlagProto::Create as u32 | CreateFlagProto::ShouldReplicate as u32;
    assert_eq!(coded(CreateRequestProto { create_flag, ..create("/plain") }).await, None);
    let both = CreateRequestProto { create_flag, ..named(POLICY) };
    assert_eq!(world.refused("create", &both).await, "HadoopIllegalArgumentException");
    let small = CreateRequestProto { block_size: MIB / 2, ..create("/small") };
    assert_eq!(world.refused("create", &small).await, "IOException");
}
