//! The volatile side of the serving tier: which kvserve nodes are there, what they say, and what follows from it.
//!
//! The catalogue itself (stores, versions, tables, what is current) is journaled state; [`controller`] sees a copy of
//! it, and what it decides becomes an op.

pub mod controller;
