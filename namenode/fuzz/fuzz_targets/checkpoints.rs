//! Any bytes as a checkpoint: refused, or a state that every operation can be asked of, and that is written and loaded
//! again as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use namenode::fuzzing::{image_of, load, payload_of, replay, samples};

#[path = "../scenario.rs"]
mod scenario;

/// Checkpoints of an empty namespace and of what a day left.
fn seeds() -> Vec<Vec<u8>> {
    let day = scenario::play().1;
    let states = [&day[..0], &day[..day.len() / 3], &day[..]].map(payload_of);
    states.map(|payload| image_of(&mut replay(&payload))).to_vec()
}

fuzz_target!(init: fuzz::start(seeds), |image: &[u8]| {
    let Ok(mut state) = load(image) else { return };
    let digest = state.digest();
    let again = load(&image_of(&mut state)).expect("what was written can be loaded");
    assert_eq!(again.digest(), digest);
    for request in samples() {
        // Most are refused: there is no such file.
        drop(state.apply(&request, &mut Vec::new()));
    }
});
