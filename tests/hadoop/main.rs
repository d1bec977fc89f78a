//! Programs that we did not write, on clusters of real processes: Hadoop's shell and Java client, Spark, and the Python
//! clients, most of them side by side with a real HDFS.
//!
//! `./check hadoop` runs a short form in minutes, `./check hadoop all` everything: `GRANARY_TEST_HADOOP` is `short` or
//! `all` then. Without it, or without a JDK of 17 or newer and Python 3, every test says why it is skipped.
//! `fetch` gets the programs from PyPI. What differs from HDFS on purpose stands in `differences.md`.
#![allow(missing_docs, reason = "tests")]
#![allow(clippy::print_stdout, reason = "tests print what they compared and why they are skipped")]

mod differential;
mod messages;
mod python;
mod reference;
mod shell;
mod spark;
mod tools;
