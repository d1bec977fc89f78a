//! Event tables of the life of a version, and properties over arbitrary histories.

use proptest::prelude::*;

use super::*;

fn tables(seed: u32) -> Arc<[TableSpec]> {
    Arc::from([TableSpec {
        path: format!("/stores/s/{seed}"),
        bytes: 100,
        records: 1,
        slot_first: 0,
        slot_last: 16383,
        footer_crc32: seed,
    }])
}

fn id(number: u64) -> VersionId {
    VersionId { store: "s".into(), number }
}

fn assigned(txid: u64, current: u64, versions: &[u64]) -> Event {
    let versions = versions.iter().map(|&n| (n, tables(n as u32))).collect();
    Event::Assigned { txid, stores: vec![Assignment { store: "s".into(), current, versions }] }
}

fn ticket_of(effects: &[Effect]) -> Ticket {
    match effects {
        [Effect::Fetch { ticket, .. } | Effect::Open { ticket, .. }] => *ticket,
        other => panic!("one piece of work was expected: {other:?}"),
    }
}

fn fail(ticket: Ticket, kind: FailureKind) -> Event {
    Event::Failed { ticket, failure: Failure { kind, message: "why".into() } }
}

/// Brings version `number` from its fetch to open and gives the last effects.
fn finish(life: &mut Lifecycle, fetch: Ticket) -> Vec<Effect> {
    let open = ticket_of(&life.handle(0, Event::Fetched { ticket: fetch }));
    life.handle(0, Event::Opened { ticket: open })
}

fn phases(life: &Lifecycle) -> Vec<(u64, Phase)> {
    life.reports().into_iter().map(|report| (report.id.number, report.phase)).collect()
}

#[test]
fn a_version_is_fetched_verified_opened_and_then_made_current() {
    let mut life = Lifecycle::new(Pauses::default());
    let fetch = ticket_of(&life.handle(0, assigned(1, 0, &[1])));
    assert_eq!(phases(&life), [(1, Phase::Fetching)]);
    life.handle(0, Event::Progress { ticket: fetch, bytes_done: 42 });
    assert_eq!(life.reports()[0].bytes_done, 42);
    let open = ticket_of(&life.handle(0, Event::Fetched { ticket: fetch }));
    assert_eq!(phases(&life), [(1, Phase::Verifying)]);
    let effects = life.handle(0, Event::Opened { ticket: open });
    assert_eq!(effects, [Effect::Install { ticket: open, id: id(1) }]);
    assert_eq!((phases(&life), life.serving("s")), (vec![(1, Phase::Ready)], None));
    let effects = life.handle(0, assigned(2, 1, &[1]));
    assert_eq!(effects, [Effect::MakeCurrent { id: id(1) }]);
    assert_eq!(phases(&life), [(1, Phase::Serving)]);
    assert_eq!(life.handle(0, assigned(2, 1, &[1])), [], "told twice, done once");
}

#[test]
fn the_old_version_serves_until_the_new_one_can_and_a_rollback_costs_one_effect() {
    let mut life = Lifecycle::new(Pauses::default());
    let fetch = ticket_of(&life.handle(0, assigned(1, 1, &[1])));
    finish(&mut life, fetch);
    // Version 1 is not even assigned any more, but nothing else can serve.
    let fetch = ticket_of(&life.handle(0, assigned(2, 2, &[2])));
    assert_eq!(life.serving("s"), Some(1));
    let effects = finish(&mut life, fetch);
    assert_eq!(effects[1..], [Effect::MakeCurrent { id: id(2) }, Effect::Drop { id: id(1) }]);
    life.handle(0, Event::Dropped { id: id(1) });

    let fetch = ticket_of(&life.handle(0, assigned(3, 2, &[2, 3])));
    finish(&mut life, fetch);
    assert_eq!(life.handle(0, assigned(4, 3, &[2, 3])), [Effect::MakeCurrent { id: id(3) }]);
    assert_eq!(phases(&life), [(2, Phase::Ready), (3, Phase::Serving)]);
    assert_eq!(life.handle(0, assigned(5, 2, &[2, 3])), [Effect::MakeCurrent { id: id(2) }]);
}

#[test]
fn an_older_assignment_than_one_already_seen_is_ignored() {
    let mut life = Lifecycle::new(Pauses::default());
    let fetch = ticket_of(&life.handle(0, assigned(7, 1, &[1])));
    finish(&mut life, fetch);
    assert_eq!(life.handle(0, assigned(6, 0, &[])), []);
    assert_eq!(life.serving("s"), Some(1));
}

#[test]
fn transient_failures_are_retried_for_ever_with_growing_pauses() {
    let mut life = Lifecycle::new(Pauses::default());
    let mut ticket = ticket_of(&life.handle(0, assigned(1, 0, &[1])));
    let mut now = 0;
    for pause in [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000] {
        assert_eq!(life.handle(now, fail(ticket, FailureKind::Transient)), []);
        assert_eq!(life.deadline_ms(), Some(now + pause));
        assert_eq!(life.reports()[0].error, "why");
        assert_eq!(life.handle(now + pause - 1, Event::Tick), []);
        now += pause;
        ticket = ticket_of(&life.handle(now, Event::Tick));
    }
    assert_eq!(finish(&mut life, ticket).len(), 1);
    assert_eq!(life.reports()[0].error, "");
}

#[test]
fn a_damaged_table_is_fetched_once_more_then_the_version_fails_and_the_old_one_serves() {
    let mut life = Lifecycle::new(Pauses::default());
    let fetch = ticket_of(&life.handle(0, assigned(1, 1, &[1])));
    finish(&mut life, fetch);
    let fetch = ticket_of(&life.handle(0, assigned(2, 1, &[1, 2])));
    let open = ticket_of(&life.handle(0, Event::Fetched { ticket: fetch }));
    let fetch = ticket_of(&life.handle(0, fail(open, FailureKind::Damaged)));
    let open = ticket_of(&life.handle(0, Event::Fetched { ticket: fetch }));
    assert_eq!(life.handle(0, fail(open, FailureKind::Damaged)), []);
    assert_eq!(phases(&life), [(1, Phase::Serving), (2, Phase::Failed)]);
    assert_eq!(life.deadline_ms(), None, "a failed version rests");
    // Other servers may have got it right: then it is tried again, and version 1 serves meanwhile.
    assert_eq!(life.handle(0, assigned(3, 2, &[1, 2])), []);
    assert_eq!(life.deadline_ms(), Some(60_000));
    let fetch = ticket_of(&life.handle(60_000, Event::Tick));
    assert_eq!(finish(&mut life, fetch)[1], Effect::MakeCurrent { id: id(2) });
}

#[test]
fn lasting_failures_get_a_few_attempts_and_permanent_ones_none() {
    let mut life = Lifecycle::new(Pauses::default());
    let mut ticket = ticket_of(&life.handle(0, assigned(1, 0, &[1])));
    let mut now = 0;
    for _ in 1..LASTING_ATTEMPTS_MAX {
        life.handle(now, fail(ticket, FailureKind::Lasting));
        now += 100_000;
        ticket = ticket_of(&life.handle(now, Event::Tick));
    }
    life.handle(now, fail(ticket, FailureKind::Lasting));
    assert_eq!(phases(&life), [(1, Phase::Failed)]);

    let ticket = ticket_of(&life.handle(now, assigned(2, 0, &[2])).split_off(1));
    life.handle(now, fail(ticket, FailureKind::Permanent));
    assert_eq!(phases(&life), [(2, Phase::Failed)]);
}

#[test]
fn work_that_is_no_longer_wanted_is_cancelled_and_its_outcome_ignored() {
    let mut life = Lifecycle::new(Pauses::default());
    let fetch = ticket_of(&life.handle(0, assigned(1, 0, &[1])));
    let effects = life.handle(0, assigned(2, 0, &[]));
    assert_eq!(effects, [Effect::Cancel { ticket: fetch }, Effect::Drop { id: id(1) }]);
    assert_eq!(life.handle(0, Event::Fetched { ticket: fetch }), []);
    assert_eq!(life.handle(0, Event::Opened { ticket: fetch }), [Effect::Cancel { ticket: fetch }]);
    assert_eq!(life.handle(0, fail(fetch, FailureKind::Transient)), []);
    let effects = life.handle(0, Event::Dropped { id: id(1) });
    assert_eq!(effects, [Effect::ForgetStore { store: "s".into() }]);
}

#[test]
fn a_store_made_anew_under_its_old_name_does_not_serve_the_old_tables() {
    let mut life = Lifecycle::new(Pauses::default());
    let fetch = ticket_of(&life.handle(0, assigned(1, 1, &[1])));
    finish(&mut life, fetch);
    let versions = vec![(1, tables(77))];
    let stores = vec![Assignment { store: "s".into(), current: 0, versions }];
    let effects = life.handle(0, Event::Assigned { txid: 9, stores });
    let cleared = Effect::ClearCurrent { store: "s".into() };
    assert_eq!(effects, [cleared, Effect::Drop { id: id(1) }]);
    let effects = life.handle(0, Event::Dropped { id: id(1) });
    assert!(matches!(&effects[..], [Effect::Fetch { tables: t, .. }] if t[0].footer_crc32 == 77));
}

#[test]
fn what_served_before_a_restart_serves_after_it_without_the_namenode() {
    let mut life = Lifecycle::new(Pauses::default());
    let restored = |number, current| Event::Restored {
        id: id(number),
        tables: tables(number as u32),
        current,
    };
    assert_eq!(life.handle(0, restored(1, false)), []);
    assert_eq!(life.handle(0, restored(2, true)), [Effect::MakeCurrent { id: id(2) }]);
    assert_eq!(phases(&life), [(1, Phase::Ready), (2, Phase::Serving)]);
    // The NameNode is back and agrees: nothing is fetched.
    assert_eq!(life.handle(0, assigned(5, 2, &[1, 2])), []);
}

#[test]
fn tables_that_overlap_are_refused_without_a_fetch() {
    let mut life = Lifecycle::new(Pauses::default());
    let twice: Arc<[TableSpec]> = Arc::from([tables(1)[0].clone(), tables(2)[0].clone()]);
    let stores = vec![Assignment { store: "s".into(), current: 0, versions: vec![(1, twice)] }];
    assert_eq!(life.handle(0, Event::Assigned { txid: 1, stores }), []);
    assert_eq!(phases(&life), [(1, Phase::Failed)]);
    assert!(life.reports()[0].error.contains("overlap"));
}

/// What the shell would know: which work runs, what is installed, what answers.
#[derive(Default)]
struct Shell {
    running: BTreeMap<Ticket, VersionId>,
    installed: BTreeSet<u64>,
    current: Option<u64>,
    dropping: Vec<VersionId>,
}

impl Shell {
    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Fetch { ticket, id, .. } => {
                    assert!(!self.dropping.contains(&id), "{id} is fetched while it is dropped");
                    assert!(
                        !self.running.values().any(|other| *other == id),
                        "{id} worked on twice"
                    );
                    self.running.insert(ticket, id);
                }
                Effect::Open { ticket, id, .. } => {
                    self.running.retain(|_, other| *other != id);
                    self.running.insert(ticket, id);
                }
                Effect::Cancel { ticket } => {
                    self.running.remove(&ticket);
                }
                Effect::Install { ticket, id } => {
                    assert_eq!(self.running.remove(&ticket), Some(id.clone()));
                    self.installed.insert(id.number);
                }
                Effect::MakeCurrent { id } => {
                    assert!(self.installed.contains(&id.number), "{id} is current but not open");
                    self.current = Some(id.number);
                }
                Effect::ClearCurrent { .. } => self.current = None,
                Effect::Drop { id } => {
                    assert_ne!(self.current, Some(id.number), "{id} is dropped while it serves");
                    self.installed.remove(&id.number);
                    self.dropping.push(id);
                }
                Effect::ForgetStore { .. } => assert!(self.installed.is_empty()),
            }
        }
    }
}

proptest! {
    #[test]
    fn no_history_makes_two_versions_current_or_one_that_is_not_open(
        steps in proptest::collection::vec((0_u8..9, any::<u64>(), any::<u8>()), 1..120)
    ) {
        let mut life = Lifecycle::new(Pauses::default());
        let (mut shell, mut now, mut txid) = (Shell::default(), 0, 0);
        for (kind, pick, bits) in steps {
            now += pick % 40_000;
            let some = |shell: &Shell| {
                let keys: Vec<Ticket> = shell.running.keys().copied().collect();
                keys.get(pick as usize % keys.len().max(1)).copied().unwrap_or(Ticket(pick % 50))
            };
            let event = match kind {
                0..3 => {
                    txid += 1;
                    let listed: Vec<u64> = (0..8).filter(|n| bits >> n & 1 == 1).map(|n| n + 1).collect();
                    let current = listed.get(pick as usize % (listed.len() + 1)).copied().unwrap_or(0);
                    let salt = u32::from(pick % 7 == 0) * 1000;
                    let versions = listed.iter().map(|&n| (n, tables(n as u32 + salt))).collect();
                    let store = Assignment { store: "s".into(), current, versions };
                    Event::Assigned { txid, stores: if pick % 11 == 0 { vec![] } else { vec![store] } }
                }
                3 => Event::Tick,
                4 if !shell.dropping.is_empty() => {
                    Event::Dropped { id: shell.dropping.remove(0) }
                }
                5 => {
                    let kinds = [FailureKind::Transient, FailureKind::Lasting,
                        FailureKind::Damaged, FailureKind::Permanent];
                    let ticket = some(&shell);
                    shell.running.remove(&ticket);
                    fail(ticket, kinds[usize::from(bits) % 4])
                }
                _ => {
                    // Finish what runs, as its state asks for.
                    let ticket = some(&shell);
                    let verifying = shell.running.get(&ticket).is_some_and(|id| life.reports().iter()
                        .any(|r| r.id == *id && r.phase == Phase::Verifying));
                    if verifying { Event::Opened { ticket } } else { Event::Fetched { ticket } }
                }
            };
            let effects = life.handle(now, event);
            shell.perform(effects);
            prop_assert_eq!(life.serving("s"), shell.current);
            let serving = life.reports().iter().filter(|r| r.phase == Phase::Serving).count();
            prop_assert!(serving <= 1);
        }
    }
}
