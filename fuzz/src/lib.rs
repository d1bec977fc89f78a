//! What every fuzz target needs: a bound on memory, and inputs to start from.
//!
//! [`start`] comes first in each target. With `FUZZ_SEEDS` it writes the target's seeds into that folder and ends: they
//! are made by the code that is fuzzed, so that they follow its formats. Without, it sets the bound.
//!
//! Always holds: a target that holds more than [`BYTES_MAX`] at once beyond what it began with, in one piece or in many,
//! is aborted, as a panic is: libFuzzer's own limits see neither memory that is not touched nor, without a sanitizer,
//! single allocations.
//!
//! Does not run anything: `fuzz/run` and libFuzzer do.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that one input may make the code under test hold. The largest bounds of the formats are below: a packet of
/// 16 MiB with its copies.
pub const BYTES_MAX: usize = 128 << 20;

/// The folder to write seeds into.
const SEEDS: &str = "FUZZ_SEEDS";

/// The system's allocator, counted.
struct Bounded {
    held: AtomicUsize,
    held_max: AtomicUsize,
}

#[global_allocator]
static MEMORY: Bounded =
    Bounded { held: AtomicUsize::new(0), held_max: AtomicUsize::new(usize::MAX) };

/// Writes the seeds and ends the process, if it was asked to; else bounds what is held from here on.
pub fn start(seeds: impl FnOnce() -> Vec<Vec<u8>>) {
    if let Some(folder) = std::env::var_os(SEEDS).map(PathBuf::from) {
        let seeds = seeds();
        assert!(!seeds.is_empty(), "a target has something to start from");
        for (number, seed) in seeds.iter().enumerate() {
            let path = folder.join(format!("seed-{number}"));
            std::fs::write(&path, seed).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        std::process::exit(0);
    }
    MEMORY.held_max.store(MEMORY.held.load(Relaxed).saturating_add(BYTES_MAX), Relaxed);
}

impl Bounded {
    fn take(&self, bytes: usize) {
        let held = self.held.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if held > self.held_max.load(Relaxed) {
            // No second alarm while the first is told.
            self.held_max.store(usize::MAX, Relaxed);
            eprintln!("{bytes} bytes more make {held} held at once; an input may take {BYTES_MAX}");
            std::process::abort();
        }
    }
}

// SAFETY: every call is the system allocator's, with the layout as it came.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.take(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        self.take(bytes);
        self.held.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, bytes) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        self.held.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}
