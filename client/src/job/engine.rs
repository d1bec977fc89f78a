//! Runs a job from its plan to its commit.
//!
//! The work runs in a task of its own, so that a caller who drops the future of [`super::Job::run`] cancels the job and
//! its folder is removed all the same. Mapping and reducing run on plain threads; the input is loaded by the runtime.

use std::sync::Arc;
use std::time::Instant;

use proto::{Code, Error, FsPath, Result};
use tokio::sync::mpsc;

use super::Job;
use super::commit::Output;
use super::input::{self, Plan};
use super::map::{MapStage, MapWork, Mapped};
use super::output::Format;
use super::partition::Partitions;
use super::progress::{Cancel, Count, Counters, Phase, Progress};
use super::reduce::{ReduceWork, Reduced};
use super::report::{JobReport, Part, Times};
use super::sort::{SorterOptions, Ties};
use crate::fs::{CreateOptions, Fs};

/// Of a job's memory, the part that holds loaded input: one in so many.
const INPUT_SHARE: usize = 4;

/// Runs a job to its end.
pub(super) async fn run(job: Job, fs: Fs, progress: Progress) -> Result<JobReport> {
    let mut stop = StopOnDrop(Some(job.cancel.clone()));
    let name = job.name.clone();
    let task = tokio::spawn(async move { Running::start(job, fs, progress)?.run().await });
    let result = task.await.unwrap_or_else(|error| {
        Err(Error::new(Code::Internal, format!("its task ended unexpectedly: {error}")))
    });
    stop.0 = None;
    result.map_err(|error| error.context(format!("job {name:?}")))
}

/// Cancels the job whose caller went away.
struct StopOnDrop(Option<Cancel>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.cancel();
        }
    }
}

/// A job that was found complete, and runs.
struct Running {
    job: Job,
    map: MapStage,
    target: FsPath,
    format: Format,
    partitions: Partitions,
    fs: Fs,
    progress: Progress,
}

impl Running {
    fn start(mut job: Job, fs: Fs, progress: Progress) -> Result<Arc<Self>> {
        let missing = |what: &str| Error::new(Code::InvalidArgument, format!("it has no {what}"));
        let map = job.map.take().ok_or_else(|| missing("map function"))?;
        let (target, format) = job.output.take().ok_or_else(|| missing("output"))?;
        if job.inputs.is_empty() {
            return Err(missing("input"));
        }
        let partitions = Partitions::new(job.partitions)?;
        Ok(Arc::new(Self { job, map, target, format, partitions, fs, progress }))
    }

    async fn run(self: Arc<Self>) -> Result<JobReport> {
        let begun = Instant::now();
        let existing = self.job.existing;
        let output = Output::begin(&self.fs, &self.target, existing).await?;
        let mut report = match self.work(output.folder()).await {
            Ok(report) => report,
            Err(error) => return Err(output.abandon(error).await),
        };
        self.progress.enter(Phase::Commit);
        if let Err(error) = self.job.cancel.check() {
            return Err(output.abandon(error).await);
        }
        let committing = Instant::now();
        output.commit().await?;
        report.times.commit = committing.elapsed();
        report.elapsed = begun.elapsed();
        self.progress.enter(Phase::Done);
        Ok(report)
    }

    /// All but the commit.
    async fn work(self: &Arc<Self>, folder: &FsPath) -> Result<JobReport> {
        let mut times = Times::default();
        let begun = Instant::now();
        self.progress.enter(Phase::Plan);
        let (job, threads) = (&self.job, self.job.threads);
        let plan = Arc::new(input::plan(&self.fs, &job.inputs, job.limits, threads).await?);
        self.progress.add(Count::InputFiles, plan.files.len() as u64);
        self.progress.add(Count::InputBytesTotal, plan.bytes);
        times.plan = begun.elapsed();

        let begun = Instant::now();
        self.progress.enter(Phase::Map);
        let mapped = self.map(plan.clone()).await?;
        times.map = begun.elapsed();

        let begun = Instant::now();
        self.progress.enter(Phase::Reduce);
        let (this, files, to) = (self.clone(), plan.clone(), folder.clone());
        let work = move || {
            let reduced = this.reduce(&files, &mapped, &to)?;
            Ok((mapped, reduced))
        };
        let (mapped, reduced) = blocking(work).await?;
        times.reduce = begun.elapsed();
        self.report(&plan, &mapped, reduced, times)
    }

    async fn map(self: &Arc<Self>, plan: Arc<Plan>) -> Result<Vec<Mapped>> {
        let threads = self.job.threads;
        let (to, queue) = mpsc::channel(threads);
        let input_bytes = self.job.memory_bytes / INPUT_SHARE;
        let temp_dir = self.job.temp_dir.clone();
        let feeder =
            tokio::spawn(input::feed(self.fs.clone(), plan.clone(), input_bytes, temp_dir, to));
        let this = self.clone();
        let mapped = blocking(move || {
            let work = MapWork {
                stage: &this.map,
                files: &plan.files,
                partitions: this.partitions,
                sorter: this.sorter(input_bytes),
                progress: &this.progress,
                cancel: &this.job.cancel,
            };
            work.run(threads, queue)
        })
        .await;
        // It ended, or nobody takes anything from it.
        feeder.abort();
        mapped
    }

    fn sorter(&self, input_bytes: usize) -> SorterOptions {
        SorterOptions {
            memory_bytes: (self.job.memory_bytes - input_bytes) / self.job.threads,
            temp_dir: self.job.temp_dir.clone(),
            ties: Ties::Value,
            combiner: self.job.combiner.clone(),
        }
    }

    fn reduce(&self, plan: &Plan, mapped: &[Mapped], folder: &FsPath) -> Result<Reduced> {
        let work = ReduceWork {
            job: &self.job.name,
            stage: &self.job.reduce,
            summary: self.job.summary.as_ref(),
            files: &plan.files,
            partitions: self.partitions,
            mapped,
            format: &self.format,
            progress: &self.progress,
            cancel: &self.job.cancel,
        };
        let runtime = self.fs.runtime();
        let open = |name: &str| {
            let path = folder.join(name)?;
            let options = CreateOptions { create_parents: false, ..CreateOptions::default() };
            Ok(runtime.block_on(self.fs.create(&path, options))?.into_blocking())
        };
        work.run(self.job.threads, open, |file| file.close().map(|_| ()))
    }

    fn report(
        &self,
        plan: &Plan,
        mapped: &[Mapped],
        reduced: Reduced,
        times: Times,
    ) -> Result<JobReport> {
        let mut counters = Counters::default();
        mapped.iter().try_for_each(|mapped| counters.merge(&mapped.counters))?;
        counters.merge(&reduced.counters)?;
        if plan.skipped > 0 {
            counters.add("documents_too_large", plan.skipped)?;
        }
        let sum = |of: fn(&Mapped) -> u64| mapped.iter().map(of).sum();
        let parts = reduced.parts.iter().map(|part| {
            let path = self.target.join(&part.name)?;
            let slots = self.partitions.slots(part.partition);
            Ok(Part { path, slots, records: part.records, bytes: part.bytes })
        });
        Ok(JobReport {
            name: self.job.name.clone(),
            output: self.target.clone(),
            input_files: plan.files.len() as u64,
            input_bytes: plan.bytes,
            input_records: self.progress.snapshot().input_records,
            mapped_records: sum(|mapped| mapped.sorted.stats().records),
            mapped_bytes: sum(|mapped| mapped.sorted.stats().bytes),
            spills: sum(|mapped| mapped.sorted.stats().spills),
            spilled_bytes: sum(|mapped| mapped.sorted.stats().spilled_bytes),
            groups: reduced.parts.iter().map(|part| part.groups).sum(),
            output_records: reduced.parts.iter().map(|part| part.records).sum(),
            output_bytes: reduced.parts.iter().map(|part| part.bytes).sum(),
            parts: parts.collect::<Result<_>>()?,
            counters: counters.by_name,
            threads: self.job.threads,
            elapsed: std::time::Duration::ZERO,
            times,
        })
    }
}

/// Runs what blocks off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::new(Code::Internal, format!("its threads ended: {error}")))?
}
