//! Life cycles of versions, told as servers and the catalogue tell them.

use super::*;
use ServerVersionState as S;

struct World {
    controller: Controller,
    stores: Vec<StoreView>,
    txid: u64,
    epochs: BTreeMap<String, u64>,
}

impl World {
    fn new() -> Self {
        let store = StoreView { name: "s".into(), current: 0, versions: Vec::new() };
        let controller = Controller::new(10_000);
        Self { controller, stores: vec![store], txid: 0, epochs: BTreeMap::new() }
    }

    fn publish(&mut self, number: u64, activate: bool) {
        let state = VersionState::Preparing;
        let version = VersionView { number, state, activate, tables: vec![TableInfo::default()] };
        self.stores[0].versions.push(version);
        self.set();
    }

    fn set(&mut self) {
        self.txid += 1;
        assert!(self.controller.set_catalogue(self.txid, self.stores.clone()));
    }

    fn attach(&mut self, uuid: &str) {
        let address = KvserveAddress { uuid: uuid.into(), host: "h".into(), ..Default::default() };
        let message = KvserveRegister { address: Some(address), ..Default::default() };
        let epoch = self.controller.register(0, message).unwrap();
        self.epochs.insert(uuid.into(), epoch);
    }

    fn say(&mut self, uuid: &str, versions: &[(u64, S)]) {
        let versions = versions.iter().map(|&(version, state)| ServerVersion {
            store: "s".into(),
            version,
            state: state as i32,
            error: if state == S::Failed { "bad footer".into() } else { String::new() },
            ..Default::default()
        });
        let message = KvserveHeartbeat { versions: versions.collect(), ..Default::default() };
        self.controller.heartbeat(0, uuid, self.epochs[uuid], message).unwrap();
    }

    /// Journals what is decided until nothing is left; tells what was.
    fn settle(&mut self) -> Vec<Decision> {
        let mut all = Vec::new();
        loop {
            let decisions = self.controller.decide();
            if decisions.is_empty() {
                return all;
            }
            for decision in &decisions {
                self.apply(decision);
            }
            self.set();
            all.extend(decisions);
        }
    }

    fn apply(&mut self, decision: &Decision) {
        let store = &mut self.stores[0];
        let (wanted, state) = match decision {
            Decision::Ready { version, .. } => (*version, VersionState::Ready),
            Decision::Failed { version, .. } => (*version, VersionState::Failed),
            Decision::Activate { version, .. } => {
                for old in &mut store.versions {
                    if old.state == VersionState::Current {
                        old.state = VersionState::Previous;
                    }
                }
                store.current = *version;
                (*version, VersionState::Current)
            }
        };
        store.versions.iter_mut().find(|v| v.number == wanted).unwrap().state = state;
    }

    fn state(&self, number: u64) -> VersionState {
        self.stores[0].versions.iter().find(|v| v.number == number).unwrap().state
    }

    fn assigned(&self) -> Vec<u64> {
        self.controller.assignment()[0].versions.iter().map(|v| v.version).collect()
    }
}

#[test]
fn a_version_flips_only_when_every_live_server_is_ready() {
    let mut world = World::new();
    world.publish(1, true);
    assert_eq!(world.settle(), [], "nobody serves it");
    world.attach("a");
    world.attach("b");
    world.say("a", &[(1, S::Ready)]);
    for state in [S::Fetching, S::Verifying] {
        world.say("b", &[(1, state)]);
        assert_eq!(world.settle(), []);
    }
    world.say("b", &[(1, S::Ready)]);
    let store = || "s".to_owned();
    let (ready, activate) = (
        Decision::Ready { store: store(), version: 1 },
        Decision::Activate { store: store(), version: 1 },
    );
    assert_eq!(world.settle(), [ready, activate]);
    assert_eq!(world.controller.assignment()[0].current, 1);
}

#[test]
fn a_version_that_a_server_refuses_fails_and_the_old_one_goes_on() {
    let mut world = World::new();
    world.attach("a");
    world.attach("b");
    world.publish(1, true);
    world.say("a", &[(1, S::Ready)]);
    world.say("b", &[(1, S::Ready)]);
    world.settle();
    world.publish(2, true);
    world.say("a", &[(1, S::Serving), (2, S::Ready)]);
    world.say("b", &[(1, S::Serving), (2, S::Failed)]);
    let [Decision::Failed { version: 2, error, .. }] = &world.settle()[..] else {
        panic!("it fails, and nothing else happens");
    };
    assert_eq!(error, "kvserve b: bad footer");
    assert_eq!((world.state(1), world.stores[0].current), (VersionState::Current, 1));
    assert_eq!(world.assigned(), [1], "what failed is dropped everywhere");
}

#[test]
fn a_server_that_joins_late_gets_everything_and_delays_only_what_is_prepared() {
    let mut world = World::new();
    world.attach("a");
    world.publish(1, true);
    world.say("a", &[(1, S::Ready)]);
    world.settle();
    world.publish(2, true);
    world.attach("late");
    world.say("a", &[(1, S::Serving), (2, S::Ready)]);
    assert_eq!(world.settle(), []);
    assert_eq!(world.assigned(), [1, 2]);
    world.say("late", &[(1, S::Serving), (2, S::Ready)]);
    assert_eq!(world.settle().len(), 2);
    assert_eq!((world.state(1), world.state(2)), (VersionState::Previous, VersionState::Current));
    assert_eq!(world.assigned(), [1, 2], "the previous one is held for a rollback");
}

#[test]
fn a_server_that_dies_or_detaches_no_longer_delays() {
    for dies in [true, false] {
        let mut world = World::new();
        world.attach("a");
        world.attach("b");
        world.publish(1, false);
        world.say("a", &[(1, S::Ready)]);
        assert_eq!(world.settle(), []);
        if dies {
            assert!(!world.controller.check(9_999));
            let epoch = world.epochs["a"];
            let versions = world.controller.version_servers("s", 1);
            let message = KvserveHeartbeat { versions, ..Default::default() };
            world.controller.heartbeat(9_999, "a", epoch, message).unwrap();
            assert!(world.controller.check(10_000));
        } else {
            let epoch = world.epochs["b"];
            assert!(!world.controller.detach("b", epoch + 1), "another epoch's end is ignored");
            assert!(world.controller.detach("b", epoch));
        }
        assert_eq!(world.settle(), [Decision::Ready { store: "s".into(), version: 1 }]);
    }
}

#[test]
fn an_older_version_that_gets_ready_late_does_not_flip_back() {
    let mut world = World::new();
    world.attach("a");
    world.publish(1, true);
    world.publish(2, true);
    world.say("a", &[(2, S::Ready)]);
    world.settle();
    world.say("a", &[(1, S::Ready), (2, S::Serving)]);
    assert_eq!(world.settle(), [Decision::Ready { store: "s".into(), version: 1 }]);
    assert_eq!(world.stores[0].current, 2);
}

#[test]
fn a_new_registration_fences_the_old_stream_and_an_old_view_is_ignored() {
    let mut world = World::new();
    world.attach("a");
    let old = world.epochs["a"];
    world.attach("a");
    let error = world.controller.heartbeat(0, "a", old, KvserveHeartbeat::default()).unwrap_err();
    assert_eq!(error.code, Code::Stale);
    world.publish(1, false);
    assert!(!world.controller.set_catalogue(0, Vec::new()));
    assert_eq!(world.assigned(), [1]);
}

#[test]
fn hostile_registrations_and_heartbeats_are_refused_or_cut() {
    let mut world = World::new();
    let long = "x".repeat(300);
    for (uuid, host, port) in [("", "h", 1), ("u", "", 1), ("u", &long, 1), ("u", "h", 65_536)] {
        let address = KvserveAddress {
            uuid: uuid.into(),
            host: host.into(),
            redis_port: port,
            ..Default::default()
        };
        let message = KvserveRegister { address: Some(address), ..Default::default() };
        assert_eq!(world.controller.register(0, message).unwrap_err().code, Code::InvalidArgument);
    }
    world.attach("a");
    let epoch = world.epochs["a"];
    let many = vec![ServerVersion::default(); SERVER_VERSIONS_MAX + 1];
    let message = KvserveHeartbeat { versions: many, ..Default::default() };
    assert!(world.controller.heartbeat(0, "a", epoch, message).is_err());
    let error = "\u{e4}".repeat(5_000);
    let loud = ServerVersion { store: "s".into(), version: 1, error, ..Default::default() };
    let message = KvserveHeartbeat { versions: vec![loud], ..Default::default() };
    world.controller.heartbeat(0, "a", epoch, message).unwrap();
    assert!(world.controller.version_servers("s", 1)[0].error.len() <= ERROR_BYTES_MAX);
}
