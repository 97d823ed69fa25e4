//! One attempt of one task: what the coordinator assigned, until its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use soup_core::machine::Proof;
use soup_core::soup::Soup;
use soup_core::{Error, Result};
use soup_metrics::{Open, metrics};
use tokio::sync::Semaphore;

use crate::active::{Active, Worker};
use crate::judge::statistics::Statistics;
use crate::logits::Rows;
use crate::messages::{Answer, Done, Positions, Samples, Task};
use crate::{assembling, diagnose, learn, loading, passing, write};

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

/// Does what is to be done in a run.
///
/// # Errors
/// The task's own.
pub(crate) async fn execute(context: &Context, run: Arc<Active>, task: Task) -> Result<Done> {
    let answer = match task {
        Task::Load(sources) => {
            let _slot = slot(context).await?;
            Answer::Loaded(loading::load_shard(&context.worker, &run, sources).await?)
        }
        Task::Survey => Answer::Surveyed(run.judge()?.survey().await?),
        Task::Evaluate(soup, asked) => return evaluate(context, run, &soup, asked).await,
        Task::Prove(soup, samples) => Answer::Proved(Box::new(prove(context, run, &soup, samples).await?)),
        Task::Write(soup, file) => return write::write(&run, &soup, file).await,
        Task::ReadBack(file) => Answer::ReadBack(write::read_back(&run, file).await?),
        Task::Digest(soup) => return write::digest(&run, &soup).await,
        Task::Differentiate(dataset, part) => {
            Answer::Differentiated(learn::differentiate(context, run, dataset, part).await?)
        }
        Task::Dot(dot) => Answer::Dotted(learn::dot(&run, dot).await?),
        Task::Gram(shard, base) => Answer::Measured(diagnose::gram(context, run, shard, base).await?),
        Task::Compare(samples, asked) => {
            Answer::Compared(Box::new(diagnose::compare(context, run, samples, asked).await?))
        }
        Task::Pass(shard) => Answer::Passed(passing::found(&run, shard).await?),
        Task::Reread(sources, soup) => {
            let (reread, bytes_read) = passing::reread(&run, sources, soup.as_ref()).await?;
            Answer::Reread(reread, bytes_read)
        }
    };
    Ok(answer.into())
}

pub(crate) async fn slot(context: &Context) -> Result<tokio::sync::SemaphorePermit<'_>> {
    let _waiting = Open::of(&metrics().worker.tasks_waiting);
    context.slots.acquire().await.map_err(|_| Error::internal("the worker is stopping"))
}

/// Scores a soup on a slice, twice.
async fn prove(
    context: &Context,
    run: Arc<Active>,
    soup: &Soup,
    Samples { dataset, start, end }: Samples,
) -> Result<Proof> {
    let loaded = assembling::loaded(&run, soup).await?;
    let _slot = slot(context).await?;
    let judge = || loaded.soup.judge(dataset, (start..end).collect(), false, context.cancelled.clone());
    let (judged, second) = (judge().await?.said, judge().await?.said);
    let of = run.judge()?;
    let (tolerance, survey) = (of.tolerance(), of.survey().await?.survey);
    let statistics = loaded.soup.statistics().map(Statistics::sha256);
    Ok(Proof { again: judged.is_same(&second), judged, tolerance, survey, statistics })
}

/// Scores a soup on a slice. It is assembled before a slot is taken, so that the next trial's blends travel while this one's
/// samples are judged.
async fn evaluate(context: &Context, run: Arc<Active>, soup: &Soup, asked: Positions) -> Result<Done> {
    let loaded = assembling::loaded(&run, soup).await?;
    let _slot = slot(context).await?;
    let cancelled = context.cancelled.clone();
    let (judged, samples) = match asked {
        Positions::Range(Samples { dataset, start, end }) => {
            let logits = run.begun.keep_logits;
            let judged = loaded.soup.judge(dataset, (start..end).collect(), logits, cancelled).await?;
            if logits {
                run.logits.keep(soup, (dataset, start, end), &Arc::new(Rows::of(&judged)?));
            }
            (judged, end - start)
        }
        // What is compared later are slices of consecutive samples.
        Positions::Named { dataset, positions } => {
            let samples = positions.len() as u64;
            (loaded.soup.judge(dataset, positions, false, cancelled).await?, samples)
        }
    };
    metrics().worker.judged_samples.inc_by(samples);
    Ok(Done::of(Answer::Evaluated(judged.said), loaded.soup.statistics()))
}
