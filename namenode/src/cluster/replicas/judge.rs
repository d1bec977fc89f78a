//! What one reported replica is, seen beside the namespace's view.

use proto::granary::ReplicaState;

use super::super::block::{BlockTruth, Reported, Verdict};
use super::{Odd, OddState};

/// What one reported replica is, seen beside the namespace's view. A replica that was found damaged stays so until a
/// newer stamp of it, or its deletion, is told: a report says what the files are called, not what is in them.
pub(super) fn judge(
    replica: &Reported,
    truth: &BlockTruth,
    known_corrupt: bool,
) -> (Option<Odd>, Verdict) {
    let odd = |state| Some(Odd { stamp: replica.stamp.0, length: replica.length, state });
    let fits = replica.stamp == truth.stamp;
    match replica.state {
        _ if known_corrupt => (odd(OddState::Corrupt), Verdict::Bad),
        ReplicaState::Corrupt => (odd(OddState::Corrupt), Verdict::Bad),
        // Nobody writes these on: the block was completed without them.
        ReplicaState::WaitingRecovery if truth.complete => (odd(OddState::Finalized), Verdict::Bad),
        ReplicaState::BeingWritten if truth.complete && replica.stamp < truth.stamp => {
            (odd(OddState::Finalized), Verdict::Bad)
        }
        ReplicaState::BeingWritten | ReplicaState::WaitingRecovery => {
            (odd(OddState::BeingWritten), Verdict::Noted)
        }
        _ if !truth.complete => {
            let verdict = if fits { Verdict::Finalized } else { Verdict::Noted };
            (odd(OddState::Finalized), verdict)
        }
        _ if fits && replica.length == truth.length => (None, Verdict::Finalized),
        _ if fits => (odd(OddState::Corrupt), Verdict::Bad),
        _ => (odd(OddState::Finalized), Verdict::Bad),
    }
}
