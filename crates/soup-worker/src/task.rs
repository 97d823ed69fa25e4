//! One attempt of one task: what the coordinator assigned, until its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use soup_core::soup::Soup;
use soup_core::{Error, Result};
use soup_proto::v1::assign::Work;
use soup_proto::v1::task_done::Result as Answer;
use soup_proto::v1::{Evaluate, Evaluated, Surveyed, TaskKey};
use tokio::sync::Semaphore;

use crate::active::{Active, Worker};
use crate::{assembling, diagnose, learn, loading, passing, survey, write};

/// A flag that long computations look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What an attempt works with.
pub(crate) struct Context {
    pub(crate) worker: Arc<Worker>,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) cancelled: Cancelled,
}

/// Does the work.
///
/// # Errors
/// The work's own; [`TryAgain`](soup_core::ErrorKind::TryAgain) for a run that this worker does not know.
pub(crate) async fn execute(context: &Context, key: &TaskKey, work: Work) -> Result<Answer> {
    let run = context.worker.run(&key.run, key.epoch)?;
    Ok(match work {
        Work::Load(task) => {
            let _slot = slot(context).await?;
            Answer::Loaded(loading::load_shard(&context.worker, &run, task).await?)
        }
        Work::Survey(_) => Answer::Surveyed(survey(&run).await?),
        Work::Evaluate(task) => Answer::Evaluated(evaluate(context, run, task).await?),
        Work::Write(task) => Answer::Written(write::write(&run, &soup(task.soup)?, task.file).await?),
        Work::Digest(task) => Answer::Digested(write::digest(&run, &soup(task.soup)?).await?),
        Work::Differentiate(task) => Answer::Differentiated(learn::differentiate(context, run, task).await?),
        Work::Dot(task) => Answer::Dotted(learn::dot(&run, task).await?),
        Work::Gram(task) => Answer::Measured(diagnose::gram(context, run, task).await?),
        Work::Compare(task) => Answer::Compared(diagnose::compare(context, run, task).await?),
        Work::Pass(task) => Answer::Passed(passing::found(&run, task.shard).await?),
    })
}

pub(crate) async fn slot(context: &Context) -> Result<tokio::sync::SemaphorePermit<'_>> {
    context.slots.acquire().await.map_err(|_| Error::internal("the worker is stopping"))
}

pub(crate) fn soup(wire: Option<soup_proto::v1::Soup>) -> Result<Soup> {
    wire.ok_or_else(|| Error::internal("a task has no soup"))?.try_into()
}

/// Looks at every dataset, which stay open.
async fn survey(run: &Active) -> Result<Surveyed> {
    let survey::Surveyed { survey, notes } = run.judge()?.survey().await?;
    Ok(Surveyed::new(survey, notes))
}

/// Scores a soup on a slice. It is assembled before a slot is taken, so that the next trial's blends travel while this one's
/// samples are judged.
async fn evaluate(context: &Context, run: Arc<Active>, task: Evaluate) -> Result<Evaluated> {
    let soup = soup(task.soup)?;
    if task.start >= task.end {
        return Err(Error::internal("an evaluation without samples"));
    }
    let loaded = assembling::loaded(&run, &soup).await?;
    let _slot = slot(context).await?;
    let (positions, logits) = ((task.start..task.end).collect(), run.begun.keep_logits);
    let judged = loaded.soup.judge(task.dataset, positions, logits, context.cancelled.clone()).await?;
    if let Some(logits) = judged.logits {
        run.logits.keep(&soup, (task.dataset, task.start, task.end), logits);
    }
    Ok(Evaluated::from(&judged.said))
}
