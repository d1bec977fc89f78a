//! Any bytes as calls of Hadoop's protocols on a NameNode that lives on: no panic, an answer to each, errors that are not
//! our own mistakes. See `scenario.rs` for the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../scenario.rs"]
mod scenario;

/// Calls of one input; and inputs until there is a new NameNode.
const CALLS_MAX: usize = 16;
const INPUTS_MAX: usize = 2_000;

/// The calls of a day, and each of them alone.
fn seeds() -> Vec<Vec<u8>> {
    let calls = scenario::play().0;
    let mut seeds: Vec<Vec<u8>> = calls.iter().map(|call| call.encode()).collect();
    seeds.extend(calls.chunks(CALLS_MAX).map(|calls| {
        let each: Vec<Vec<u8>> = calls.iter().map(|call| call.encode()).collect();
        each.concat()
    }));
    seeds
}

thread_local! {
    static WORLD: std::cell::RefCell<Option<(scenario::Living, usize)>> = const { std::cell::RefCell::new(None) };
}

fuzz_target!(init: fuzz::start(seeds), |bytes: &[u8]| {
    WORLD.with_borrow_mut(|world| {
        let (living, inputs) = world.get_or_insert_with(|| (scenario::Living::new(), 0));
        let mut rest = bytes;
        for _ in 0..CALLS_MAX {
            let Some(call) = scenario::Call::decode(&mut rest) else { break };
            if let Some(Err(error)) = living.ask(&call) {
                assert!(!error.class.is_empty());
                assert!(!error.message.contains("was answered by"), "{error:?}");
            }
        }
        *inputs += 1;
        if *inputs == INPUTS_MAX {
            *world = None;
        }
    });
});
