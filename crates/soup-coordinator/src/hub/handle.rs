//! How everything else reaches the hub: each question is a message that takes the way back with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use soup_core::judge::{JudgeId, WorkerJudges};
use soup_core::machine::WorkerId;
use soup_core::run::RunSpec;
use soup_core::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::judges::Wanted;
use super::probing::Probed;
use super::{Asked, Meant, Message};
use crate::admission::{Admission, Admitted};
use crate::event_log::EventLog;
use crate::exchange::{Newcomer, Said};
use crate::live::View;
use crate::prepare::prepare;
use crate::roster::Outbox;

/// How everything else reaches the hub.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(super) inbox: mpsc::Sender<Message>,
    pub(super) admission: Arc<Admission>,
}

fn stopped() -> Error {
    Error::unavailable("the coordinator is stopping")
}

impl Handle {
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T> {
        let (answer, reply) = oneshot::channel();
        self.inbox.send(question(answer)).await.map_err(|_| stopped())?;
        reply.await.map_err(|_| stopped())
    }

    pub(crate) async fn join(&self, newcomer: Newcomer, outbox: Outbox) -> Result<WorkerId> {
        self.ask(|reply| Message::Join(newcomer, outbox, reply)).await
    }

    /// A worker says something; a large message takes room until the hub takes it.
    pub(crate) async fn said(
        &self,
        worker: WorkerId,
        said: Said,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<()> {
        self.inbox.send(Message::Said(worker, Box::new(said), room)).await.map_err(|_| stopped())
    }

    pub(crate) async fn left(&self, worker: WorkerId) -> Result<()> {
        self.inbox.send(Message::Left(worker)).await.map_err(|_| stopped())
    }

    /// Takes a request for a run in.
    ///
    /// # Errors
    /// [`TryAgain`](soup_core::ErrorKind::TryAgain) where there are as many already as may be.
    pub(crate) fn admit(&self, client: Option<&str>) -> Result<Admitted> {
        self.admission.enter(client)
    }

    /// Asks for a run: reads its pool here, when its turn to has come, so that the hub need not wait.
    pub(crate) async fn submit(&self, mut spec: RunSpec, meant: Meant, admitted: Admitted) -> Result<String> {
        // What it means is the judge's from here on.
        let judge = match (spec.judge.clone(), spec.numerics.take()) {
            _ if spec.streams() => None,
            (None, None) => Some(JudgeId::native()),
            (name, numerics) => {
                let name = name.unwrap_or_else(|| JudgeId::native().name);
                let (wanted, workers_min) = (Wanted { name, numerics }, spec.workers_min);
                Some(self.ask(|reply| Message::WhoJudges(wanted, workers_min, reply)).await??)
            }
        };
        let (fresh, named) = match meant {
            Meant::Any => (None, None),
            Meant::Fresh(nonce) => (Some(nonce), None),
            Meant::Run(run) => (None, Some(run)),
        };
        let turn = admitted.turn().await?;
        let mut prepared = Box::new(prepare(spec, fresh, judge).await);
        if let Ok(prepared) = &mut *prepared {
            prepared._room = Some(admitted.keep(prepared.bytes())?);
        }
        drop(turn);
        let client = admitted.client().map(str::to_owned);
        self.ask(|reply| Message::Prepared(prepared, Asked { client, named, reply })).await?
    }

    pub(crate) async fn judges(&self) -> Result<Vec<WorkerJudges>> {
        self.ask(Message::Judges).await
    }

    pub(crate) async fn view(&self) -> Result<View> {
        self.ask(Message::View).await
    }

    pub(crate) async fn probe(&self) -> Probed {
        self.ask(Message::Probe).await?
    }

    pub(crate) async fn live(&self) -> Result<BTreeMap<String, u32>> {
        self.ask(Message::Live).await
    }

    pub(crate) async fn log(&self, run: String) -> Result<Option<Arc<EventLog>>> {
        self.ask(|reply| Message::Log(run, reply)).await
    }

    pub(crate) async fn cancel(&self, run: String) -> Result<()> {
        let unknown = Error::usage(format!("this coordinator knows no run {run:?}"));
        if self.ask(|reply| Message::Cancel(run, reply)).await? { Ok(()) } else { Err(unknown) }
    }

    /// Tells the workers, at least `expected`, that there will be no more work, and returns once they are gone.
    ///
    /// # Errors
    /// Where the hub is gone itself.
    pub(crate) async fn over(&self, expected: usize) -> Result<()> {
        self.ask(|reply| Message::Over(expected, reply)).await
    }

    pub(crate) async fn stop(&self) {
        // Where the hub is gone, it has stopped.
        let _ = self.inbox.send(Message::Stop).await;
    }
}
