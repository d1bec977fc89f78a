//! The table of legal transitions, and a random walk that holds the invariants.

use super::*;
use proptest::prelude::*;

const BLOCK: BlockId = BlockId(7);
const OLD: GenerationStamp = GenerationStamp(1000);
const OWN: GenerationStamp = GenerationStamp(1001);
const NEW: GenerationStamp = GenerationStamp(1002);
const NEWER: GenerationStamp = GenerationStamp(1003);

/// A replica of 100 bytes (60 of them visible where that can be) in each state.
fn in_state(state: State) -> Replica {
    let mut open = Replica::create(BLOCK, OWN);
    open.wrote(100);
    open.acked(60);
    match state {
        State::BeingWritten => open,
        State::Finalized => Replica::finalized(BLOCK, OWN, 100),
        State::WaitingRecovery => Replica::waiting(BLOCK, OWN, 100),
        State::Temporary => {
            let mut replica = Replica::open_temporary(BLOCK, OWN);
            replica.wrote(100);
            replica
        }
        State::UnderRecovery => {
            open.begin_recovery(OWN, NEW).unwrap();
            open
        }
    }
}

const STATES: [State; 5] = [
    State::BeingWritten,
    State::Finalized,
    State::Temporary,
    State::WaitingRecovery,
    State::UnderRecovery,
];

/// Runs `op` in every state; it must succeed exactly in `legal`, lead to `to`, and change nothing when refused.
fn check(legal: &[State], to: State, op: impl Fn(&mut Replica) -> Result<()>) {
    for state in STATES {
        let before = in_state(state);
        let mut after = before.clone();
        match op(&mut after) {
            Ok(()) => {
                assert!(legal.contains(&state), "{state:?} must refuse");
                assert_eq!(after.state(), to);
                assert!(after.stamp() >= before.stamp());
            }
            Err(error) => {
                assert!(!legal.contains(&state), "{state:?} must accept, but: {error}");
                assert_eq!(after, before, "a refused operation changes nothing");
            }
        }
    }
}

#[test]
fn each_operation_is_legal_in_its_states_and_no_other() {
    use State::*;
    check(&[Finalized], BeingWritten, |r| r.append(OWN, NEW, 100));
    check(&[Finalized, BeingWritten], BeingWritten, |r| r.recover_append(OWN, NEW, 100));
    check(&[Finalized, BeingWritten], BeingWritten, |r| r.recover_close(OWN, NEW, 100));
    let expected = Expected { acked_min: 60, sent_max: 100 };
    check(&[Finalized, BeingWritten], BeingWritten, |r| r.recover_streaming(OWN, NEW, expected));
    let recoverable = [Finalized, BeingWritten, WaitingRecovery, UnderRecovery];
    check(&recoverable, UnderRecovery, |r| r.begin_recovery(OWN, NEWER).map(|_| ()));
    check(&[UnderRecovery], Finalized, |r| {
        r.check_finish_recovery(NEW, 80)?;
        r.finish_recovery(NEW, 80);
        Ok(())
    });
}

#[test]
fn stamps_fence_both_ways() {
    type Op = fn(&mut Replica, GenerationStamp, GenerationStamp) -> Result<()>;
    let all: [Op; 4] = [
        |r, asked, new| r.append(asked, new, 100),
        |r, asked, new| r.recover_append(asked, new, 100),
        |r, asked, new| r.recover_close(asked, new, 100),
        |r, asked, new| r.recover_streaming(asked, new, Expected { acked_min: 0, sent_max: 100 }),
    ];
    for op in all {
        for (asked, new, legal) in [
            (OWN, NEW, true),
            (OLD, NEW, true),
            (OWN, OWN, true),
            (OLD, OLD, false),
            (NEW, NEWER, false),
        ] {
            let mut replica = in_state(State::Finalized);
            let result = op(&mut replica, asked, new);
            assert_eq!(result.is_ok(), legal, "{asked} {new}: {result:?}");
            if let Err(error) = result {
                assert_eq!(error.code, Code::Stale);
            }
        }
    }
}

#[test]
fn going_on_cuts_what_was_not_acknowledged() {
    let mut replica = in_state(State::BeingWritten);
    let expected = Expected { acked_min: 50, sent_max: 100 };
    replica.recover_streaming(OWN, NEW, expected).unwrap();
    assert_eq!((replica.written(), replica.visible(), replica.stamp()), (60, 60, NEW));
    for expected in
        [Expected { acked_min: 61, sent_max: 100 }, Expected { acked_min: 0, sent_max: 59 }]
    {
        assert!(replica.clone().recover_streaming(NEW, NEWER, expected).is_err());
    }
}

#[test]
fn a_newer_recovery_takes_over_and_an_older_one_is_refused() {
    let mut replica = in_state(State::WaitingRecovery);
    replica.begin_recovery(OWN, NEW).unwrap();
    let info = replica.begin_recovery(OWN, NEWER).unwrap();
    assert_eq!(info, RecoveryInfo { stamp: OWN, length: 100, state: State::WaitingRecovery });
    assert!(replica.begin_recovery(OWN, NEW).is_err());
    assert!(replica.check_finish_recovery(NEW, 100).is_err());
    assert!(replica.check_finish_recovery(NEWER, 101).is_err());
    replica.finish_recovery(NEWER, 70);
    assert_eq!(replica, Replica::finalized(BLOCK, NEWER, 70));
}

#[test]
fn a_temporary_replica_shows_nothing_until_it_is_promoted() {
    let mut replica = in_state(State::Temporary);
    assert_eq!(replica.visible(), 0);
    replica.promote();
    assert_eq!((replica.state(), replica.visible()), (State::BeingWritten, 100));
}

proptest! {
    #[test]
    fn any_walk_keeps_visible_within_written_and_never_lowers_the_stamp(
        ops in proptest::collection::vec((0u8..8, 0u64..6, 0u64..6, 0u64..200), 1..60)
    ) {
        let mut replica = Replica::create(BLOCK, GenerationStamp(2));
        for (op, asked, new, length) in ops {
            let before = replica.clone();
            let (asked, new) = (GenerationStamp(asked), GenerationStamp(new));
            let open = matches!(replica.state(), State::BeingWritten);
            match op {
                0 if open => replica.wrote(replica.written().max(length)),
                1 if open => replica.acked(replica.written().min(length)),
                2 if open => replica.finish(),
                3 => { drop(replica.append(asked, new, length)); }
                4 => { drop(replica.recover_append(asked, new, length)); }
                5 => {
                    let expected = Expected { acked_min: length / 2, sent_max: length };
                    drop(replica.recover_streaming(asked, new, expected));
                }
                6 => { drop(replica.begin_recovery(asked, new)); }
                7 if replica.check_finish_recovery(new, length).is_ok() => {
                    replica.finish_recovery(new, length);
                }
                _ => {}
            }
            prop_assert!(replica.visible() <= replica.written());
            prop_assert!(replica.stamp() >= before.stamp());
        }
    }
}
