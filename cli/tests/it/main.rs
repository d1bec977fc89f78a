//! The binary as a user meets it: what it prints, how it ends, and clusters that it runs.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod admin;
mod bench;
mod binary;
mod config;
mod erasure;
mod files;
mod help;
mod stores;
mod up;
