//! The service Namespace over framed RPC: the same answers and errors as by gRPC.

use ipc::request::Method;
use ipc::{CallError, Client, ClientSettings, Identity};
use prost::Message;
use proto::granary::*;
use proto::{Code, rpc};

use crate::world::*;

async fn connect(world: &World) -> Client {
    let settings = ClientSettings {
        identity: Identity { user: "boss".into(), real_user: None },
        protocol: rpc::NAMESPACE_PROTOCOL.into(),
        ..ClientSettings::default()
    };
    Client::connect(world.handle().hadoop_rpc_addr(), settings).await.unwrap()
}

async fn ask<R: Message + Default>(
    client: &Client,
    name: &str,
    request: &impl Message,
) -> Result<R, (Option<Code>, i32)> {
    let method =
        Method { protocol: rpc::NAMESPACE_PROTOCOL, version: rpc::NAMESPACE_VERSION, name };
    let answer = tokio::time::timeout(WAIT, client.call(&method, request)).await.unwrap();
    match answer {
        Ok(reply) => Ok(R::decode(reply).unwrap()),
        Err(CallError::Remote(error)) => Err((rpc::code_of(error.detail), error.detail)),
        Err(lost) => panic!("{lost}"),
    }
}

fn root(path: &str) -> PathRequest {
    PathRequest { caller: boss(), path: path.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_tells_the_port_and_both_tell_the_same_of_the_cluster() {
    let mut world = World::new().await;
    let client = connect(&world).await;
    let told = world.fs.get_server_defaults(GetServerDefaultsRequest {}).await.unwrap();
    let told = told.into_inner();
    assert_eq!(told.rpc_port, u32::from(world.handle().hadoop_rpc_addr().port()));
    assert_eq!(ask(&client, "GetServerDefaults", &GetServerDefaultsRequest {}).await, Ok(told));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_by_one_protocol_are_seen_by_the_other() {
    let mut world = World::new().await;
    let client = connect(&world).await;
    let make = MkdirsRequest {
        caller: world.new_call(),
        path: "/made/by/rpc".into(),
        mode: 0o755,
        create_parents: true,
        ..Default::default()
    };
    for _ in 0..2 {
        // The repetition is the same call, so it gets the first answer.
        assert_eq!(ask(&client, "Mkdirs", &make).await, Ok(MkdirsReply { created: true }));
    }
    assert!(world.stat("/made/by/rpc").await.is_some());
    world.create("/made/by/grpc").await;
    let list = GetListingRequest { caller: boss(), path: "/made/by".into(), ..Default::default() };
    let listed = world.fs.get_listing(list.clone()).await.unwrap().into_inner();
    assert_eq!(listed.entries.len(), 2);
    assert_eq!(ask(&client, "GetListing", &list).await, Ok(listed));
    let status = world.fs.get_file_info(root("/made/by/grpc")).await.unwrap().into_inner();
    assert_eq!(ask(&client, "GetFileInfo", &root("/made/by/grpc")).await, Ok(status));
    assert_eq!(
        ask(&client, "GetFileInfo", &root("/missing")).await,
        Ok(GetFileInfoReply { status: None })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_keep_their_codes_and_strangers_are_refused() {
    let world = World::new().await;
    let client = connect(&world).await;
    let bad_path = ask::<GetFileInfoReply>(&client, "GetFileInfo", &root("/a/../b")).await;
    assert_eq!(bad_path.unwrap_err().0, Some(Code::InvalidPath));
    let list = GetListingRequest { caller: boss(), path: "/missing".into(), ..Default::default() };
    let missing = ask::<GetListingReply>(&client, "GetListing", &list).await;
    assert_eq!(missing.unwrap_err().0, Some(Code::NotFound));
    let make = MkdirsRequest { caller: caller("bob"), path: "/bob".into(), ..Default::default() };
    let denied = ask::<MkdirsReply>(&client, "Mkdirs", &make).await;
    assert_eq!(denied.unwrap_err().0, Some(Code::PermissionDenied));
    // Field 1 is a message: this is a number.
    let broken = ask::<MkdirsReply>(&client, "Mkdirs", &LinkCount { caller: 1 }).await;
    assert_eq!(broken.unwrap_err().0, Some(Code::InvalidArgument));
    assert_eq!(ask::<Empty>(&client, "Fly", &root("/")).await.unwrap_err(), (None, 2));
}

/// A message whose first field is not what the method wants.
#[derive(Clone, PartialEq, prost::Message)]
struct LinkCount {
    #[prost(uint64, tag = "1")]
    caller: u64,
}
