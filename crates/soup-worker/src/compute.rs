//! The worker's own threads for computing. Async code hands them closures and waits for the answer, so heartbeats and
//! peers are served however long a computation takes.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use soup_core::{Error, Result};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads that run one job each at a time. Jobs beyond that wait; their number is bounded by the
/// tasks that a worker is given.
#[derive(Clone)]
pub(crate) struct Compute {
    jobs: mpsc::Sender<Job>,
}

impl Compute {
    pub(crate) fn new(threads: u32) -> Compute {
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
        Compute { jobs }
    }

    /// Runs `job` on one of the threads.
    ///
    /// # Errors
    /// The job's own; [`Internal`](soup_core::ErrorKind::Internal) where it panicked or no thread is left.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, reply) = oneshot::channel();
        let caught = move || {
            // A panic is a defect; it must cost its task, not the thread and with it the worker.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            let result = result
                .unwrap_or_else(|_| Err(Error::internal("a computation panicked; see the worker's log")));
            // Where nobody waits any more, nobody wants the result.
            let _ = answer.send(result);
        };
        self.jobs.send(Box::new(caught)).map_err(|_| Error::internal("no compute thread is left"))?;
        reply.await.map_err(|_| Error::internal("a compute thread ended"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_run_on_the_threads_and_panics_stay_there() {
        let compute = Compute::new(1);
        let name = compute.run(|| Ok(std::thread::current().name().map(str::to_owned))).await.unwrap();
        assert_eq!(name.as_deref(), Some("compute-0"));
        let panicked: Result<()> = compute.run(|| panic!("on purpose")).await;
        assert!(panicked.unwrap_err().chain().contains("panicked"));
        assert_eq!(compute.run(|| Ok(1)).await.unwrap(), 1);
    }
}
