//! The way of a run through the hub: asked for, opened, queued, started. How it ends is told in [`ending`](super::ending).

use std::collections::BTreeMap;
use std::sync::Arc;

use soup_core::machine::Event;
use soup_core::{Error, Result};

use super::ending::{End, Ending};
use super::{Asked, Current, Hub, Message, NamedRun};
use crate::event_log::EventLog;
use crate::opening::{Opened, Owned, StartError, Started};
use crate::prepare::PreparedRun;
use crate::running::Running;
use crate::service::unknown;

impl Hub {
    /// Somebody asks for a run whose pool is known.
    pub(super) fn asked(&mut self, prepared: Result<PreparedRun>, asked: Asked) {
        let refuse = |asked: Asked, error: Error| {
            // A caller that went away does not want the answer; here and below.
            let _ = asked.reply.send(Err(error));
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return refuse(asked, error),
        };
        let run = prepared.run.clone();
        if let Some(NamedRun { run: named, theirs }) = asked.named.clone().filter(|named| named.run != run) {
            if !theirs {
                let client = asked.client.as_deref();
                tracing::warn!(
                    client,
                    run = named,
                    "denied: to go on with a run that is not theirs, or not there"
                );
                return refuse(asked, unknown(&named));
            }
            let keeper = self.keeper.clone();
            tokio::spawn(async move { refuse(asked, keeper.another_than(&named, &prepared).await) });
            return;
        }
        if let Some(log) = self.logs.get(&run).filter(|log| !log.ended()) {
            log.asked_by(asked.client.as_deref());
            let _ = asked.reply.send(Ok(run));
            return;
        }
        if let Some(waiting) = self.opening.get_mut(&run) {
            return waiting.push(asked);
        }
        let queued = self.queue.len() + self.opening.len() + self.postponed.len();
        if queued >= self.config.runs_queued_max {
            let text = format!("{queued} runs are queued already: try again when one is done");
            return refuse(asked, Error::try_again(text));
        }
        if let Some(error) = self.has_enough(asked.client.as_deref()) {
            return refuse(asked, error);
        }
        if self.recovery.waits_for(&run) {
            return self.postponed.push((prepared, asked));
        }
        let client = asked.client.clone();
        self.opening.insert(run.clone(), vec![asked]);
        let (keeper, inbox) = (self.keeper.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let opened = keeper.open(Arc::new(prepared), client).await;
            let _ = inbox.send(Message::Opened(run, Box::new(opened))).await;
        });
    }

    /// Why a client may not have one more run, if so.
    fn has_enough(&self, client: Option<&str>) -> Option<Error> {
        let client = client?;
        let going = self.logs.values().filter(|log| !log.ended() && log.is_of(client)).count();
        let waiting =
            self.opening.values().filter_map(|all| all.first()).chain(self.postponed.iter().map(|p| &p.1));
        let runs = going + waiting.filter(|asked| asked.client.as_deref() == Some(client)).count();
        let max = self.config.runs_per_client_max;
        (runs >= max).then(|| {
            tracing::warn!(client, runs, "denied: as many runs as one client may have");
            Error::try_again(format!(
                "{runs} of your runs are queued or in progress, and {max} may be: try again when one is done"
            ))
        })
    }

    pub(super) fn opened(&mut self, run: &str, opened: Result<Opened>) {
        let waiting = self.opening.remove(run).unwrap_or_default();
        let answer = match opened {
            Ok(Opened::Owned(owned)) => {
                self.enqueue(*owned);
                Ok(run.to_owned())
            }
            Ok(Opened::Done(prepared, report)) => {
                let client = waiting.first().and_then(|asked| asked.client.clone());
                self.done_before(run, client, &prepared.spec.output, report);
                Ok(run.to_owned())
            }
            Err(error) => {
                tracing::warn!(run, error = error.chain(), "run cannot be had");
                Err(error)
            }
        };
        for asked in waiting {
            let copy = match &answer {
                Ok(run) => Ok(run.clone()),
                Err(e) => Err(Error::new(e.kind(), e.chain())),
            };
            if let Some(log) = self.logs.get(run) {
                log.asked_by(asked.client.as_deref());
            }
            let _ = asked.reply.send(copy);
        }
    }

    fn enqueue(&mut self, owned: Owned) {
        let run = owned.prepared.run.clone();
        let log = EventLog::new(owned.client.clone());
        let ahead = self.queue.len() as u32 + u32::from(!matches!(self.current, Current::None));
        log.queued(ahead);
        self.logs.insert(run.clone(), log);
        tracing::info!(run = run.as_str(), ahead, epoch = owned.journal.epoch(), "run queued");
        let place = self.recovery.place(&run, self.queue.iter().map(|queued| queued.prepared.run.as_str()));
        self.queue.insert(place, owned);
    }

    /// The runs that are not done, with how many are ahead of each.
    pub(super) fn live(&self) -> BTreeMap<String, u32> {
        let current = match &self.current {
            Current::None => None,
            Current::Starting { run, .. } => Some(run.clone()),
            Current::Running(running) => Some(running.run().to_owned()),
        };
        let queued = self.queue.iter().map(|o| o.prepared.run.clone());
        current.into_iter().map(|run| (run, 0)).chain(queued.zip(1..)).collect()
    }

    /// Gives the next run its turn.
    pub(super) fn start_next(&mut self) {
        if !matches!(self.current, Current::None) || self.recovery.holds_turns(self.now()) {
            return;
        }
        let Some(owned) = self.queue.pop_front() else { return };
        self.current = Current::Starting { run: owned.prepared.run.clone(), cancelled: false };
        let (keeper, inbox) = (self.keeper.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let started = keeper.start(owned).await;
            let _ = inbox.send(Message::Started(Box::new(started))).await;
        });
    }

    pub(super) fn started(&mut self, started: Result<Started, (Box<Owned>, StartError)>) {
        let cancelled = matches!(&self.current, Current::Starting { cancelled: true, .. });
        self.current = Current::None;
        let started = match started {
            Ok(started) => started,
            Err((_, StartError::Journal(error))) => {
                self.broken.get_or_insert(error.into_error());
                return;
            }
            Err((owned, StartError::Run(error))) => return self.end(Ending::of_unstaged(*owned, error)),
        };
        let Some(log) = self.logs.get(&started.owned.prepared.run).cloned() else { return };
        if let Some(report) = &started.visible {
            let end = End::Published(report.clone());
            return self.end(Ending::of_started(started, end));
        }
        if cancelled {
            return self.end(Ending::of_started(started, End::cancelled()));
        }
        let now = self.now();
        match Running::begin(started, log, &self.config, now, self.inbox.clone()) {
            Ok(running) => {
                let workers = self.roster.offers(running.prepared());
                self.current = Current::Running(Box::new(running));
                self.drive(now, Event::WorkersJoined(workers));
            }
            Err((started, error)) => self.end(Ending::of_started(*started, End::Failed(error))),
        }
    }

    /// Ends a run that has not ended; true if the run is known.
    pub(super) fn cancel(&mut self, run: &str) -> bool {
        if !self.logs.contains_key(run) {
            return false;
        }
        if let Some(at) = self.queue.iter().position(|o| o.prepared.run == run) {
            if let Some(owned) = self.queue.remove(at) {
                self.end(Ending::of_queued(owned, End::cancelled()));
            }
            return true;
        }
        match &mut self.current {
            Current::Starting { run: current, cancelled } if current == run => *cancelled = true,
            Current::Running(running) if running.run() == run => {
                let now = self.now();
                self.drive(now, Event::Cancel);
            }
            _ => {}
        }
        true
    }
}
