//! The threads that do a volume's file IO, and lanes: jobs of one writer, run in order.
//!
//! A [`DiskPool`] is a fixed number of threads over one queue. [`DiskPool::run`] waits for a job's result. A [`Lane`]
//! keeps its own jobs in the order in which they were pushed and takes at most one thread at a time, so that a writer
//! streams into it without waiting for each packet, and many writers share the threads fairly.
//!
//! Bounds: the queue holds at most one entry for each lane and for each caller that waits in `run`; lanes are bounded
//! by who pushes (a writer's byte permits). What always holds: a job that was accepted is run, or its caller is told;
//! a job that panics fails alone.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use proto::{Code, Error, Result};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Jobs of one lane that run before other lanes get the thread.
const LANE_BURST: usize = 8;

/// Threads for file IO.
#[derive(Clone)]
pub struct DiskPool {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    stopping: bool,
}

impl DiskPool {
    /// Starts `threads` threads named `name`. They end when the pool is stopped and its queue is empty.
    pub fn start(name: &str, threads: u64) -> Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), ready: Condvar::new() });
        for _ in 0..threads {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || shared.work())
                .map_err(|error| Error::io("start a disk thread", &error))?;
        }
        Ok(Self { shared })
    }

    /// Runs `job` on a disk thread and waits for its result.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (send, receive) = oneshot::channel();
        self.submit(Box::new(move || {
            // Whoever waited may have gone away: then nobody wants the result.
            drop(send.send(job()));
        }))?;
        receive.await.map_err(|_| Error::new(Code::Internal, "a disk job panicked"))?
    }

    /// A lane over these threads.
    pub fn lane(&self) -> Lane {
        Lane { pool: self.clone(), jobs: Arc::default() }
    }

    /// Lets the queue run empty and ends the threads. Later jobs are refused.
    pub fn stop(&self) {
        self.shared.lock().stopping = true;
        self.shared.ready.notify_all();
    }

    fn submit(&self, job: Job) -> Result<()> {
        let mut queue = self.shared.lock();
        if queue.stopping {
            return Err(Error::new(Code::Unavailable, "the DataNode is stopping"));
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.shared.ready.notify_one();
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no job runs under the lock")
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                run_guarded(job);
                queue = self.lock();
            } else if queue.stopping {
                return;
            } else {
                queue = self.ready.wait(queue).expect("no job runs under the lock");
            }
        }
    }
}

fn run_guarded(job: Job) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("a disk job panicked");
    }
}

/// Jobs of one writer, in order.
#[derive(Clone)]
pub struct Lane {
    pool: DiskPool,
    jobs: Arc<Mutex<LaneJobs>>,
}

#[derive(Default)]
struct LaneJobs {
    waiting: VecDeque<Job>,
    scheduled: bool,
}

impl Lane {
    /// Adds a job behind those that were pushed before.
    pub fn push(&self, job: impl FnOnce() + Send + 'static) -> Result<()> {
        let mut jobs = self.jobs.lock().expect("no job runs under the lock");
        jobs.waiting.push_back(Box::new(job));
        if jobs.scheduled {
            return Ok(());
        }
        let lane = self.clone();
        self.pool.submit(Box::new(move || lane.drain()))?;
        jobs.scheduled = true;
        Ok(())
    }

    /// Runs `job` behind those that were pushed before, and waits for its result.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (send, receive) = oneshot::channel();
        self.push(move || drop(send.send(job())))?;
        receive.await.map_err(|_| Error::new(Code::Internal, "a disk job panicked"))?
    }

    fn drain(self) {
        for _ in 0..LANE_BURST {
            let job = {
                let mut jobs = self.jobs.lock().expect("no job runs under the lock");
                match jobs.waiting.pop_front() {
                    Some(job) => job,
                    None => {
                        jobs.scheduled = false;
                        return;
                    }
                }
            };
            run_guarded(job);
        }
        let pool = self.pool.clone();
        let mut queue = pool.shared.lock();
        queue.jobs.push_back(Box::new(move || self.drain()));
        drop(queue);
        pool.shared.ready.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lanes_keep_their_order_and_a_panic_fails_alone() {
        let pool = DiskPool::start("disk-test", 3).unwrap();
        let seen: Arc<Mutex<Vec<(u32, u32)>>> = Arc::default();
        let lanes: Vec<Lane> = (0..4).map(|_| pool.lane()).collect();
        for step in 0..100 {
            for (number, lane) in (0..).zip(&lanes) {
                let seen = seen.clone();
                lane.push(move || {
                    assert!(step != 50, "this step fails");
                    seen.lock().unwrap().push((number, step));
                })
                .unwrap();
            }
        }
        for lane in &lanes {
            lane.run(|| Ok(())).await.unwrap();
        }
        for number in 0..4 {
            let steps: Vec<u32> =
                seen.lock().unwrap().iter().filter(|s| s.0 == number).map(|s| s.1).collect();
            assert_eq!(steps, (0..100).filter(|&step| step != 50).collect::<Vec<_>>());
        }
        let failed = pool.run(|| -> Result<()> { panic!("expected by the test") }).await;
        assert_eq!(failed.unwrap_err().code, Code::Internal);
        pool.stop();
        assert_eq!(pool.run(|| Ok(())).await.unwrap_err().code, Code::Unavailable);
    }
}
