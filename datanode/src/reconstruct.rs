//! Lost units of block groups, computed from others at the NameNode's command.
//!
//! A command names a group, good units and who has them, and the lost units and who shall hold them. All lost ones are
//! computed in one pass: exactly k units are read, side by side, in steps of bounded size; what is decoded goes to the
//! targets as a transfer does, so that a unit is seen by nobody before it is whole and durable. A source that fails is
//! replaced by another that the command names, from the step on at which it failed; a target that fails is left out.
//!
//! | part | owns |
//! |---|---|
//! | [`job`] | what a command means, checked (pure) |
//! | [`decode`] | reading k units and computing others, step by step |
//! | [`sink`] | a unit on its way to its target |
//!
//! Bounds: [`Settings::groups_max`] groups at once, each with two steps of each source and a few of each target in memory;
//! bytes read per second over all of them. A group whose command comes again while the first is under way is not done
//! twice. What always holds: a source's bytes are decoded only after their checksums fitted.

pub mod decode;
pub mod job;
pub mod sink;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use proto::granary::ReconstructUnits;
use proto::limits::CHECKSUM_CHUNK_BYTES;
use proto::{Code, Error, Result};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::data_server::DataServer;
use crate::store::Store;
use crate::throttle::Throttle;

use decode::Decoder;
use job::Job;
use sink::Sink;

/// What reconstruction takes from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Groups at once.
    pub groups_max: usize,
    /// Bytes of a unit that are read and decoded at once.
    pub step_bytes: u64,
    /// Bytes read per second over all groups; 0: no limit.
    pub bytes_per_s: u64,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            groups_max: usize::try_from(config.reconstruction_groups_max)
                .unwrap_or(Semaphore::MAX_PERMITS)
                .min(Semaphore::MAX_PERMITS),
            step_bytes: config.reconstruction_step_bytes,
            bytes_per_s: config.reconstruction_bytes_per_s,
        }
    }
}

/// What was done since the start.
#[derive(Default)]
pub struct Counters {
    /// Groups under way or waiting.
    pub active: AtomicU64,
    /// Units that were computed and are held by their targets.
    pub units: AtomicU64,
    /// Bytes of them.
    pub written_bytes: AtomicU64,
    /// Bytes of other units that were read for them.
    pub read_bytes: AtomicU64,
    /// Sources that failed and were replaced, or could not be.
    pub source_failures: AtomicU64,
    /// Units that were not reconstructed.
    pub failures: AtomicU64,
}

/// What computes lost units.
pub struct Reconstructor {
    store: Arc<Store>,
    server: Arc<DataServer>,
    step_bytes: u64,
    slots: Semaphore,
    throttle: Throttle,
    /// Groups under way or waiting.
    groups: Mutex<HashSet<u64>>,
    counters: Counters,
}

impl Reconstructor {
    /// For this DataNode.
    pub fn new(settings: Settings, store: Arc<Store>, server: Arc<DataServer>) -> Arc<Self> {
        Arc::new(Self {
            store,
            server,
            // Steps begin at chunks.
            step_bytes: settings.step_bytes.next_multiple_of(CHECKSUM_CHUNK_BYTES.into()),
            slots: Semaphore::new(settings.groups_max),
            throttle: Throttle::new(settings.bytes_per_s),
            groups: Mutex::default(),
            counters: Counters::default(),
        })
    }

    /// What it counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Obeys a command; tells how many units their targets hold now. An error if none do.
    ///
    /// `is_current` is asked before anything is read: a command that waited may be out of date.
    pub async fn run(
        self: &Arc<Self>,
        command: ReconstructUnits,
        is_current: impl Fn() -> bool,
    ) -> Result<usize> {
        let job = Job::check(command)?;
        let Some(_group) = self.begin(job.group.id) else {
            return Err(Error::new(
                Code::AlreadyExists,
                format!("blk_{}: its units are being reconstructed", job.group.id),
            ));
        };
        let _slot = self.slots.acquire().await.expect("it is never closed");
        if !is_current() {
            return Err(Error::new(Code::Stale, "the NameNode's command is out of date"));
        }
        let wanted = job.targets.len();
        let done = self.reconstruct(job).await;
        let failed = wanted - done.as_ref().map_or(0, |done| *done);
        self.counters.failures.fetch_add(failed as u64, Ordering::Relaxed);
        done
    }

    fn begin(self: &Arc<Self>, group: u64) -> Option<Group> {
        let mut groups = self.groups.lock().expect("nobody panics while holding it");
        groups.insert(group).then(|| {
            self.counters.active.fetch_add(1, Ordering::Relaxed);
            Group { group, of: self.clone() }
        })
    }

    async fn reconstruct(&self, job: Job) -> Result<usize> {
        let mut sinks = Vec::new();
        let mut errors = Vec::new();
        let opened =
            job.targets.iter().map(|target| Sink::open(&self.store, &self.server, &job, target));
        for opened in join_all(opened).await {
            match opened {
                Ok(sink) => sinks.push(sink),
                Err(error) => errors.push(error),
            }
        }
        if sinks.is_empty() {
            return Err(none_done(&job, &errors));
        }
        let wanted: Vec<usize> = sinks.iter().map(Sink::unit).collect();
        let mut decoder =
            Decoder::new(&self.store, self.server.pool(), &job, &wanted, self.step_bytes)?;
        let decoded = self.stream(&mut decoder, &mut sinks, &mut errors).await;
        let failures = decoder.source_failures();
        self.counters.source_failures.fetch_add(failures, Ordering::Relaxed);
        decoded?;
        let mut done = 0;
        for finished in join_all(sinks.into_iter().map(Sink::finish)).await {
            match finished {
                Ok(bytes) => {
                    done += 1;
                    self.counters.units.fetch_add(1, Ordering::Relaxed);
                    self.counters.written_bytes.fetch_add(bytes, Ordering::Relaxed);
                }
                Err(error) => errors.push(error),
            }
        }
        if done == 0 {
            return Err(none_done(&job, &errors));
        }
        for error in errors {
            tracing::warn!(group = job.group.id, %error, "a unit was not reconstructed");
        }
        Ok(done)
    }

    /// Decodes step after step and hands it to those targets that still take it.
    async fn stream(
        &self,
        decoder: &mut Decoder,
        sinks: &mut Vec<Sink>,
        errors: &mut Vec<Error>,
    ) -> Result<()> {
        loop {
            self.throttle.take(decoder.next_read_bytes()).await;
            let Some(step) = decoder.next().await? else { return Ok(()) };
            self.counters.read_bytes.fetch_add(step.read_bytes, Ordering::Relaxed);
            let writes = sinks.iter_mut().map(|sink| {
                let place = decoder.wanted().iter().position(|unit| *unit == sink.unit());
                let data =
                    step.units[place.expect("the wanted units are those of the sinks")].clone();
                sink.write(step.offset, data)
            });
            let results = join_all(writes).await;
            let mut results = results.into_iter();
            sinks.retain(|_| match results.next().expect("one for each") {
                Ok(()) => true,
                Err(error) => {
                    errors.push(error);
                    false
                }
            });
            if sinks.is_empty() {
                let why = errors.pop().expect("a sink that is left out has an error");
                return Err(why.context("every target failed; the last one"));
            }
        }
    }
}

/// A group under way.
struct Group {
    group: u64,
    of: Arc<Reconstructor>,
}

impl Drop for Group {
    fn drop(&mut self) {
        self.of.groups.lock().expect("nobody panics while holding it").remove(&self.group);
        self.of.counters.active.fetch_sub(1, Ordering::Relaxed);
    }
}

fn none_done(job: &Job, errors: &[Error]) -> Error {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let code = errors.first().map_or(Code::Unavailable, |error| error.code);
    Error::new(code, format!("blk_{}: no target took its unit: {}", job.group.id, texts.join("; ")))
}
