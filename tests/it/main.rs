//! Clusters of real processes: files, jobs and stores while roles are killed, disks fill up and garbage comes in.
#![allow(missing_docs, reason = "tests")]

mod bad_input;
mod files;
mod jobs;
mod kills;
mod mount;
mod serving;
mod snapshots;
mod striped;
mod volumes;
mod webhdfs;
