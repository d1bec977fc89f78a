//! Any bytes as a part of a journal: no panic; what decodes encodes to the same; applying it twice gives one state, and a
//! checkpoint of that state loads as it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use namenode::fuzzing::{payload_of, replay, samples};

#[path = "../scenario.rs"]
mod scenario;

/// One of each operation, and what a day of a NameNode left in its journal.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> =
        samples().into_iter().map(|request| payload_of(&[request])).collect();
    seeds.push(payload_of(&samples()));
    let day = scenario::play().1;
    seeds.push(payload_of(&day[..day.len() / 2]));
    seeds.push(payload_of(&day));
    seeds
}

fuzz_target!(init: fuzz::start(seeds), |bytes: &[u8]| {
    replay(bytes);
});
