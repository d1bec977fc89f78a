//! Attributes, what the NameNode says of itself, and what there is none of.

use super::*;
use crate::cluster::Cluster;

fn set_owner(path: &str, user: Option<&str>, group: Option<&str>) -> SetOwnerRequestProto {
    SetOwnerRequestProto {
        src: path.into(),
        username: user.map(str::to_owned),
        groupname: group.map(str::to_owned),
    }
}

#[tokio::test]
async fn owners_change_by_the_superuser_and_groups_by_their_members() {
    let world = World::new().await;
    world.mkdirs("/d").await;
    world.ask::<SetOwnerResponseProto>("setOwner", &set_owner("/d", Some("ann"), None)).await;
    assert_eq!(world.stat("/d").await.unwrap().owner, "ann");
    let ann = async |request: SetOwnerRequestProto| {
        world.ask_as::<SetOwnerResponseProto>("ann", "setOwner", &request).await.is_ok()
    };
    assert!(ann(set_owner("/d", Some("ann"), Some("web"))).await);
    assert!(!ann(set_owner("/d", Some("bob"), None)).await);
    assert!(!ann(set_owner("/d", None, Some("wheel"))).await);
    assert!(!ann(set_owner("/", None, Some("web"))).await);
    assert_eq!(world.stat("/d").await.unwrap().group, "web");
    let missing = set_owner("/none", Some("x"), None);
    assert_eq!(world.refused("setOwner", &missing).await, "FileNotFoundException");
}

#[tokio::test]
async fn times_are_milliseconds_and_minus_one_leaves_them() {
    let world = World::new().await;
    world.mkdirs("/d").await;
    for (mtime, atime, expected) in
        [(1_234_567, 7_654_321, (1_234_567, 7_654_321)), (u64::MAX, 5, (1_234_567, 5))]
    {
        let request = SetTimesRequestProto { src: "/d".into(), mtime, atime };
        world.ask::<SetTimesResponseProto>("setTimes", &request).await;
        let status = world.stat("/d").await.unwrap();
        assert_eq!((status.modification_time, status.access_time), expected);
    }
}

#[tokio::test]
async fn replication_of_what_is_no_file_is_false() {
    let world = World::new().await;
    world.mkdirs("/d").await;
    for path in ["/d", "/none"] {
        let request = SetReplicationRequestProto { src: path.into(), replication: 2 };
        assert!(!world.ask::<SetReplicationResponseProto>("setReplication", &request).await.result);
    }
}

#[tokio::test]
async fn access_is_checked_bit_by_bit() {
    let world = World::new().await;
    world.mkdirs("/d").await;
    let check = async |mode: i32, path: &str| {
        let request = CheckAccessRequestProto { path: path.into(), mode };
        let answer = world.ask_as::<CheckAccessResponseProto>("eve", "checkAccess", &request).await;
        answer.err().map(|error| error.class.rsplit('.').next().unwrap())
    };
    assert_eq!(check(5, "/d").await, None);
    assert_eq!(check(2, "/d").await, Some("AccessControlException"));
    assert_eq!(check(4, "/none").await, Some("FileNotFoundException"));
}

#[tokio::test]
async fn what_there_is_none_of_is_answered_truly() {
    let world = World::new().await;
    let token: GetDelegationTokenResponseProto = world
        .ask("getDelegationToken", &GetDelegationTokenRequestProto { renewer: "x".into() })
        .await;
    assert_eq!(token.token, None);
    let zones: ListEncryptionZonesResponseProto =
        world.ask("listEncryptionZones", &ListEncryptionZonesRequestProto { id: 0 }).await;
    assert!(zones.zones.is_empty() && !zones.has_more);
    let zone = GetEzForPathRequestProto { src: "/".into() };
    assert_eq!(world.ask::<GetEzForPathResponseProto>("getEZForPath", &zone).await.zone, None);
    let link =
        CreateSymlinkRequestProto { target: "/a".into(), link: "/b".into(), ..Default::default() };
    assert_eq!(world.refused("createSymlink", &link).await, "UnsupportedOperationException");
    let state: HaServiceStateResponseProto =
        world.ask("getHAServiceState", &HaServiceStateRequestProto {}).await;
    assert_eq!(state.state(), HaServiceStateProto::Active);
}

#[tokio::test]
async fn every_protocol_of_javas_tools_is_spoken_and_others_are_not() {
    let world = World::new().await;
    for (protocol, version) in super::super::PROTOCOLS.iter().map(|(name, _)| (*name, Some(1))) {
        assert_eq!(world.service.protocol_version(protocol), version);
    }
    assert_eq!(world.service.protocol_version("org.apache.hadoop.NoSuchProtocol"), None);
    assert_eq!(world.service.0.access.groups_of("ann"), ["staff", "web"]);
    assert_eq!(world.service.0.access.groups_of("bob"), ["bob"]);
}

#[tokio::test]
async fn a_bandwidth_of_the_balancer_is_that_of_each_datanode() {
    let world = World::new().await;
    let volatile = &world.service.0.volatile;
    let rate = || volatile.cluster(|cluster, _| cluster.balance_status().bytes_per_s);
    for number in 0..3 {
        let message = crate::fuzzing::World::datanode(number);
        volatile.cluster(|cluster, now_ms| cluster.register(now_ms, message)).unwrap();
    }
    let set = |bandwidth| SetBalancerBandwidthRequestProto { bandwidth };
    let refused = world.ask_as::<Nothing>("ann", "setBalancerBandwidth", &set(5)).await;
    assert!(refused.unwrap_err().class.ends_with("AccessControlException"));
    let start = |cluster: &mut Cluster| cluster.start_balancing(10, cluster.balance_rate());
    volatile.cluster(|cluster, _| start(cluster));
    assert_eq!(rate(), crate::cluster::balance::BYTES_PER_S);
    let _: SetBalancerBandwidthResponseProto = world.ask("setBalancerBandwidth", &set(1_000)).await;
    assert_eq!(rate(), 3_000, "the run that is under way follows");
    let _: SetBalancerBandwidthResponseProto = world.ask("setBalancerBandwidth", &set(0)).await;
    volatile.cluster(|cluster, _| start(cluster));
    assert_eq!(rate(), 3_000, "0 is no bandwidth");
}
