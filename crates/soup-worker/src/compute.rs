//! Where the worker computes: on threads of its own. Async code hands them closures and waits for the answer, so heartbeats
//! and peers are served however long a computation takes.
//!
//! Where everything has to happen on one thread, in an order that can be repeated, computations run *inline* instead: in
//! the task that asks for them, after a pause that stands for the time they take.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use futures::FutureExt;
use soup_core::{Error, Result};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Where computations run.
#[derive(Clone)]
pub struct Compute(Place);

#[derive(Clone)]
enum Place {
    Threads(mpsc::Sender<Job>),
    Inline(Arc<dyn Fn() -> Duration + Send + Sync>),
}

impl Compute {
    /// On so many threads of their own, each of which runs one job at a time. Jobs beyond that wait; their number is bounded
    /// by the tasks that a worker is given.
    pub fn threads(threads: u32) -> Compute {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for index in 0..threads.max(1) {
            let queue = queue.clone();
            let work = move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    match next {
                        Ok(job) => job(),
                        Err(_) => return,
                    }
                }
            };
            let spawned = std::thread::Builder::new().name(format!("compute-{index}")).spawn(work);
            if let Err(error) = spawned {
                tracing::error!(%error, "cannot start a compute thread");
            }
        }
        Compute(Place::Threads(jobs))
    }

    /// On the thread of whoever asks, after a pause by tokio's clock of the length that `pause` gives for each computation.
    /// Stores that datasets are read from must then answer at once, as the one in memory does.
    pub fn inline(pause: impl Fn() -> Duration + Send + Sync + 'static) -> Compute {
        Compute(Place::Inline(Arc::new(pause)))
    }

    /// Runs `job` on one of the threads.
    ///
    /// # Errors
    /// The job's own; [`Internal`](soup_core::ErrorKind::Internal) where it panicked or no thread is left.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let jobs = match &self.0 {
            Place::Threads(jobs) => jobs,
            Place::Inline(pause) => {
                tokio::time::sleep(pause()).await;
                return job();
            }
        };
        let (answer, reply) = oneshot::channel();
        let caught = move || {
            // A panic is a defect; it must cost its task, not the thread and with it the worker.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            let result = result
                .unwrap_or_else(|_| Err(Error::internal("a computation panicked; see the worker's log")));
            // Where nobody waits any more, nobody wants the result.
            let _ = answer.send(result);
        };
        jobs.send(Box::new(caught)).map_err(|_| Error::internal("no compute thread is left"))?;
        reply.await.map_err(|_| Error::internal("a compute thread ended"))?
    }

    /// Runs a short `job` beside the threads, on tokio's for blocking calls, so that it never waits for a long one.
    ///
    /// # Errors
    /// The job's own; [`Internal`](soup_core::ErrorKind::Internal) where it panicked.
    pub(crate) async fn beside<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match &self.0 {
            Place::Threads(_) => tokio::task::spawn_blocking(job)
                .await
                .map_err(|e| Error::internal("a computation panicked").with_source(e))?,
            Place::Inline(_) => job(),
        }
    }

    /// Whether computations go on by themselves while others are waited for.
    pub(crate) fn is_concurrent(&self) -> bool {
        matches!(self.0, Place::Threads(_))
    }

    /// How a computation waits for I/O. Call on the runtime that does the I/O.
    pub(crate) fn waiting(&self) -> Waiting {
        Waiting(matches!(self.0, Place::Threads(_)).then(Handle::current))
    }
}

/// How a computation waits for I/O: blocked, while a runtime does it, or inline, not at all.
#[derive(Clone)]
pub(crate) struct Waiting(Option<Handle>);

impl Waiting {
    /// Waits for what `io` gives. Not for the runtime's own threads.
    ///
    /// # Errors
    /// Those of `io`; [`Unavailable`](soup_core::ErrorKind::Unavailable) inline, where it is not ready at once.
    pub(crate) fn wait<T>(&self, io: impl Future<Output = Result<T>>) -> Result<T> {
        match &self.0 {
            Some(runtime) => runtime.block_on(io),
            None => io
                .now_or_never()
                .unwrap_or_else(|| Err(Error::unavailable("a store did not answer an inline read at once"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_run_on_the_threads_and_panics_stay_there() {
        let compute = Compute::threads(1);
        let name = compute.run(|| Ok(std::thread::current().name().map(str::to_owned))).await.unwrap();
        assert_eq!(name.as_deref(), Some("compute-0"));
        let panicked: Result<()> = compute.run(|| panic!("on purpose")).await;
        assert!(panicked.unwrap_err().chain().contains("panicked"));
        assert_eq!(compute.run(|| Ok(1)).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn inline_jobs_run_here_after_a_pause() {
        let pauses = Arc::new(Mutex::new(0));
        let count = pauses.clone();
        let compute = Compute::inline(move || {
            *count.lock().unwrap() += 1;
            Duration::from_millis(1)
        });
        let here = std::thread::current().id();
        assert_eq!(compute.run(|| Ok(std::thread::current().id())).await.unwrap(), here);
        assert_eq!(*pauses.lock().unwrap(), 1);
        assert_eq!(compute.beside(|| Ok(std::thread::current().id())).await.unwrap(), here);
        assert_eq!(*pauses.lock().unwrap(), 1);
    }

    #[tokio::test]
    async fn inline_reads_never_block() {
        let waiting = Compute::inline(|| Duration::ZERO).waiting();
        assert_eq!(waiting.wait(async { Ok(1) }).unwrap(), 1);
        let never = waiting.wait(std::future::pending::<Result<()>>());
        assert_eq!(never.unwrap_err().kind(), soup_core::ErrorKind::Unavailable);
    }
}
