//! What tests across crates share: clusters of real processes, seeds, and waiting for a condition.
//!
//! The tests themselves are one binary per kind: `it/` (clusters whose processes are killed), `powercut/` (file
//! systems whose power is cut), `hadoop/` (clients that others wrote). `chaos/` is a program for hours by hand. Nothing here is part of the product, and nothing in the product depends on it.

#![allow(clippy::print_stdout, reason = "tests print their seeds and why they are skipped")]

pub mod chaos;
pub mod cluster;
pub mod mounting;
pub mod powercut;
pub mod seed;
pub mod wait;
