//! Names, permissions, and calls that must be refused.

use proto::Code;
use proto::granary::*;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_users_that_are_none_are_refused() {
    let mut world = World::new().await;
    let long = "u".repeat(300);
    for user in ["", "a\0b", &long] {
        let message = PathRequest { caller: caller(user), path: "/".into() };
        assert_eq!(code(world.fs.get_file_info(message).await), Code::InvalidArgument, "{user:?}");
    }
    for path in ["", "a", "/a/../b", "/a\0", "//"] {
        let message = PathRequest { caller: boss(), path: path.into() };
        assert_eq!(code(world.fs.get_file_info(message).await), Code::InvalidPath, "{path:?}");
    }
    let zero = RenameRequest { caller: boss(), source: "/a".into(), target: "/b".into(), mode: 0 };
    assert_eq!(code(world.fs.rename(zero).await), Code::InvalidArgument);
    let tiny = CreateRequest {
        caller: boss(),
        path: "/f".into(),
        holder: "w".into(),
        block_bytes: 1,
        ..Default::default()
    };
    assert_eq!(code(world.fs.create(tiny).await), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_group_and_mode_decide_and_groups_come_from_the_settings() {
    let mut world = World::with(|config| config.groups = vec!["alice=staff".into()]).await;
    world.mkdir("/private").await;
    let own = SetOwnerRequest {
        caller: boss(),
        path: "/private".into(),
        owner: String::new(),
        group: "staff".into(),
    };
    world.fs.set_owner(own).await.unwrap();
    let mode = SetPermissionRequest { caller: boss(), path: "/private".into(), mode: 0o770 };
    world.fs.set_permission(mode).await.unwrap();
    let make = |user: &str| MkdirsRequest {
        caller: caller(user),
        path: "/private/x".into(),
        mode: 0o755,
        create_parents: true,
        ..Default::default()
    };
    assert_eq!(code(world.fs.mkdirs(make("bob")).await), Code::PermissionDenied);
    world.fs.mkdirs(make("alice")).await.unwrap();
    assert_eq!(world.stat("/private/x").await.unwrap().owner, "alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn safe_mode_by_hand_is_for_superusers_and_refuses_changes() {
    let mut world = World::new().await;
    let set = |user: &str, action| SetSafeModeRequest { caller: caller(user), action };
    use set_safe_mode_request::Action;
    let enter = set("bob", Action::Enter as i32);
    assert_eq!(code(world.admin().set_safe_mode(enter).await), Code::PermissionDenied);
    let enter = set("boss", Action::Enter as i32);
    assert!(world.admin().set_safe_mode(enter).await.unwrap().into_inner().safe_mode);
    let make =
        MkdirsRequest { caller: boss(), path: "/x".into(), mode: 0o755, ..Default::default() };
    assert_eq!(code(world.fs.mkdirs(make).await), Code::SafeMode);
    assert!(world.stat("/").await.is_some(), "reads go on");
    let leave = set("boss", Action::Leave as i32);
    assert!(!world.admin().set_safe_mode(leave).await.unwrap().into_inner().safe_mode);
    assert!(world.mkdir("/x").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_comes_in_pages_ordered_by_name() {
    let mut world = World::new().await;
    for name in ["c", "a", "b"] {
        world.mkdir(&format!("/l/{name}")).await;
    }
    let page = |start_after: &str, limit| GetListingRequest {
        caller: boss(),
        path: "/l".into(),
        start_after: start_after.into(),
        limit,
    };
    let first = world.fs.get_listing(page("", 2)).await.unwrap().into_inner();
    let names: Vec<_> = first.entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!((names, first.remaining), (vec!["a", "b"], 1));
    let rest = world.fs.get_listing(page("b", 2)).await.unwrap().into_inner();
    assert_eq!((rest.entries.len(), rest.remaining), (1, 0));
    let mut none = page("", 0);
    none.path = "/none".into();
    assert_eq!(code(world.fs.get_listing(none).await), Code::NotFound);
}
