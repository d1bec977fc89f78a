//! A port over loopback: under clients that behave, under clients that do not, and under our own client.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod bounds;
mod client;
mod conversation;
mod port;
