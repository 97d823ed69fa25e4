//! What happens to a run beside the hub: it is opened (its journal is claimed), started (its output is staged) and closed
//! (the last record is appended). Each of these waits for stores; the hub is told when it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use soup_core::journal::{Claim, Entry, Fold, RunState};
use soup_core::run::RunSpec;
use soup_core::{Error, Result};
use soup_store::fresh;
use soup_store::location::Location;
use soup_store::outcomes::Outcomes;
use soup_store::output::{self, Staging, run_of};
use soup_store::state::{AppendError, Journal, State};
use tokio::sync::mpsc;

use crate::exchange::Incarnation;
use crate::hub::Message;
use crate::identity::{PlanDocument, operation, set_operation};
use crate::places;
use crate::prepare::{PreparedRun, prepare};
use crate::recall::Recall;
use crate::seal::Seals;

/// Stagings of earlier coordinators that are looked for.
const EARLIER_STAGINGS_MAX: u64 = 64;

/// A run that this coordinator owns.
pub(crate) struct Owned {
    pub(crate) prepared: Arc<PreparedRun>,
    pub(crate) journal: Journal,
    pub(crate) fold: Fold,
    /// Who asked for it.
    pub(crate) client: Option<String>,
}

impl Owned {
    pub(crate) fn incarnation(&self) -> Incarnation {
        Incarnation { run: self.prepared.run.clone(), epoch: self.journal.epoch() }
    }
}

/// What became of a request for a run.
pub(crate) enum Opened {
    /// It is ours, and waits for its turn.
    Owned(Box<Owned>),
    /// It is done, its output is there, and this is its report.
    Done(Arc<PreparedRun>, String),
}

/// A run whose turn has come.
pub(crate) struct Started {
    pub(crate) owned: Owned,
    pub(crate) staging: Arc<Staging>,
    pub(crate) recall: Recall,
    pub(crate) outcomes: Outcomes,
    pub(crate) seals: Seals,
    /// The report of an output that was made visible just before its coordinator died.
    pub(crate) visible: Option<String>,
}

/// What a run has from its place in the state and of its output.
struct Staged {
    staging: Staging,
    recall: Recall,
    outcomes: Outcomes,
    seals: Seals,
    visible: Option<String>,
}

/// Who this coordinator is, and where it keeps runs.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) state: State,
    name: String,
    claims: Arc<AtomicU64>,
}

impl Keeper {
    pub(crate) fn new(state: State) -> Keeper {
        let name = format!("{}-{}-{}", host(), std::process::id(), fresh::name());
        Keeper { state, name, claims: Arc::default() }
    }

    /// The writer of one claim. Every claim has its own: a record of an earlier one may still be on its way to the store,
    /// and must not be taken for one of this.
    fn writer(&self) -> String {
        format!("{}-{}", self.name, self.claims.fetch_add(1, Ordering::Relaxed))
    }

    fn me(&self) -> Claim {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Claim { host: host(), pid: std::process::id(), version }
    }

    /// Opens a run that somebody asks for.
    ///
    /// # Errors
    /// Where its output cannot be written, or the state cannot.
    pub(crate) async fn open(&self, prepared: Arc<PreparedRun>, client: Option<String>) -> Result<Opened> {
        let run = prepared.run.as_str();
        let target = Location::parse(&prepared.spec.output)?;
        let before = match self.state.plan(run).await? {
            Some(_) => Some(self.state.read(run).await?.0),
            None => None,
        };
        if !prepared.spec.overwrite
            && let Some(Fold { state: RunState::Published, report: Some(report), .. }) = &before
            && let Some(Visible::Whole(_)) = visible(&target, run).await?
        {
            return Ok(Opened::Done(prepared, report.to_string()));
        }
        // What this very run has written or published is not in its own way, whichever of its coordinators did.
        if let Err(error) = output::check_target(&target, prepared.spec.overwrite).await
            && !staged_by(&target, run).await?
            && visible(&target, run).await?.is_none()
        {
            return Err(error);
        }
        if before.is_none() {
            self.state.probe().await?;
            self.state.create_plan(run, prepared.plan.clone()).await?;
        }
        let claimed = self.state.claim(run, &self.writer(), self.me()).await.map_err(AppendError::into_error);
        let (mut journal, fold) = claimed?;
        soup_store::failpoint::reach("after-claim");
        let submitted = Entry::Submitted(operation(&prepared.spec, client.clone()));
        journal.append(submitted).await.map_err(AppendError::into_error)?;
        Ok(Opened::Owned(Box::new(Owned { prepared, journal, fold, client })))
    }

    /// The runs in the state that have not ended, the oldest first.
    pub(crate) async fn unfinished(&self) -> Result<Vec<String>> {
        let unfinished = |state: &str| matches!(state, "queued" | "running" | "suspended");
        let all = self.state.summaries().await?;
        for run in all.iter().filter(|s| matches!(s.state.as_str(), "broken" | "unreadable")) {
            tracing::warn!(run = run.run, why = run.failure, "a run cannot be read, and is not gone on with");
        }
        Ok(all.into_iter().filter(|s| unfinished(&s.state)).map(|s| s.run).collect())
    }

    /// Takes over a run that an earlier coordinator left; `None` for one that it had not accepted yet. Whoever asked for
    /// that asks again, and only they know how it was meant.
    ///
    /// # Errors
    /// Where it is not the run any more that it was: that is in its journal then too.
    pub(crate) async fn recover(&self, run: &str) -> Result<Option<Owned>> {
        let plan = self.state.plan(run).await?;
        let plan = plan.ok_or_else(|| Error::data(format!("run {run:?} has no plan")))?;
        let document = PlanDocument::read(run, &plan)?;
        let Some(operation) = self.state.read(run).await?.0.operation else { return Ok(None) };
        let mut spec: RunSpec = document.spec;
        set_operation(&mut spec, &operation);
        // Whether it is its client's place was asked when it was submitted.
        let allowed = places::check_run(&spec, None);
        let prepared = match allowed {
            Ok(()) => prepare(spec, document.fresh, document.judge).await,
            Err(error) => Err(error),
        };
        let prepared = match prepared {
            Ok(prepared) if prepared.run != run => Err(self.another_than(run, &prepared).await),
            prepared => prepared,
        };
        if let Err(error) = &prepared
            && error.kind().is_transient()
        {
            return Err(Error::unavailable(error.chain()));
        }
        let claimed = self.state.claim(run, &self.writer(), self.me()).await.map_err(AppendError::into_error);
        let (mut journal, fold) = claimed?;
        match prepared {
            Ok(prepared) => {
                let (prepared, client) = (Arc::new(prepared), operation.client);
                Ok(Some(Owned { prepared, journal, fold, client }))
            }
            Err(error) => {
                journal.append(Entry::failed(&error)).await.map_err(AppendError::into_error)?;
                Err(error)
            }
        }
    }

    /// Why `prepared` is not `run`, which was meant, or was to be gone on with.
    pub(crate) async fn another_than(&self, run: &str, prepared: &PreparedRun) -> Error {
        let documents = async {
            let none = || Error::usage(format!("there is no run {run:?} in {}", self.state.location()));
            let plan = self.state.plan(run).await?.ok_or_else(none)?;
            Ok((PlanDocument::read(run, &plan)?, PlanDocument::read(&prepared.run, &prepared.plan)?))
        };
        match documents.await {
            Ok((before, now)) => Error::data(format!(
                "what run {run} is made of changed since it was submitted ({}): submit it again",
                now.changes_since(&before)
            )),
            Err(error) => error,
        }
    }

    /// Begins the turn of a run.
    ///
    /// # Errors
    /// With the run, so that it can be closed.
    pub(crate) async fn start(&self, mut owned: Owned) -> Result<Started, (Box<Owned>, StartError)> {
        match self.stage(&mut owned).await {
            Ok(Staged { staging, recall, outcomes, seals, visible }) => {
                Ok(Started { owned, staging: Arc::new(staging), recall, outcomes, seals, visible })
            }
            Err(error) => Err((Box::new(owned), error)),
        }
    }

    async fn stage(&self, owned: &mut Owned) -> Result<Staged, StartError> {
        owned.journal.append(Entry::Begun {}).await.map_err(StartError::Journal)?;
        let staged = async {
            let of = owned.incarnation();
            let target = Location::parse(&owned.prepared.spec.output)?;
            let staging = |epoch| Staging::resume(&target, &of.run, epoch);
            // After this no earlier coordinator can publish on a local disk. Elsewhere it still may.
            for epoch in 1.max(of.epoch.saturating_sub(EARLIER_STAGINGS_MAX))..of.epoch {
                staging(epoch)?.leave().await?;
            }
            let recall = Recall::open(&self.state, &owned.prepared.contexts).await?;
            let outcomes = self.state.outcomes()?;
            let seals = Seals::new(&of.run, &self.state.secret(&of.run).await?)?;
            let published = async || match owned.fold.publishing {
                true => visible(&target, &of.run).await,
                false => Ok(None),
            };
            let mut found = published().await?;
            // What is left of this run's own output makes way for it.
            let damaged = matches!(found, Some(Visible::Damaged));
            if damaged || found.is_none() {
                soup_store::failpoint::reach("before-staging");
                let overwrite = owned.prepared.spec.overwrite || damaged;
                match Staging::begin(&target, &of.run, of.epoch, overwrite).await {
                    Ok(staging) => return Ok(Staged { staging, recall, outcomes, seals, visible: None }),
                    // What is in the way may be the output of this very run, which has just become visible.
                    Err(error) => match published().await? {
                        Some(Visible::Whole(report)) => found = Some(Visible::Whole(report)),
                        _ => return Err(error),
                    },
                }
            }
            let report = match found {
                Some(Visible::Whole(report)) => Some(report),
                _ => None,
            };
            let staging = staging(of.epoch)?;
            staging.settle().await?;
            Ok(Staged { staging, recall, outcomes, seals, visible: report })
        };
        staged.await.map_err(StartError::Run)
    }
}

/// An idle coordinator looks so often whether another one serves its state.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Takes a seat, and tells the hub when somebody else takes the next one. A store that fails says nothing: every run has its
/// own owner, whatever becomes of seats.
pub(crate) async fn watch_seat(keeper: Keeper, inbox: mpsc::Sender<Message>) {
    let seat = loop {
        match keeper.state.take_seat(&keeper.writer(), keeper.me()).await {
            Ok(seat) => break seat,
            Err(error) => tracing::warn!(error = error.chain(), "no seat of the state could be taken"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = inbox.closed() => return,
        }
        if let Ok(Some(by)) = seat.successor().await {
            let text = format!(
                "state {} is served by the coordinator on {} (process {}) now: this one ends",
                keeper.state.location(),
                by.host,
                by.pid
            );
            // Where the hub is gone, it has ended.
            let _ = inbox.send(Message::Superseded(Error::try_again(text))).await;
            return;
        }
    }
}

/// Why a run could not be started.
pub(crate) enum StartError {
    /// Its journal is not ours any more, or cannot be written.
    Journal(AppendError),
    /// The run's own failure.
    Run(Error),
}

/// The output of a run, where it is visible.
enum Visible {
    /// As it was made visible, and its report.
    Whole(String),
    /// Files are missing, or are others by now.
    Damaged,
}

/// The output of `run`, if that is what is visible at `target`.
async fn visible(target: &Location, run: &str) -> Result<Option<Visible>> {
    let manifest = Staging::visible(target, run).await?.filter(|manifest| run_of(manifest) == Some(run));
    let Some(manifest) = manifest else { return Ok(None) };
    Ok(Some(match output::damage(target, &manifest).await? {
        None => Visible::Whole(manifest["report"].to_string()),
        Some(damage) => {
            tracing::warn!(run, %target, damage, "the output of this run is not whole any more");
            Visible::Damaged
        }
    }))
}

/// Whether the output is being written by some coordinator of `run`, as far as its store shows that.
async fn staged_by(target: &Location, run: &str) -> Result<bool> {
    if target.is_local() {
        return Ok(false);
    }
    Ok(output::claimant(target).await?.as_deref() == Some(run))
}

fn host() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    if plain.is_empty() { "localhost".to_owned() } else { plain }
}
