//! Which judge a name means: that is asked of the workers before a run is prepared, since it is part of what the run is.

use soup_core::judge::JudgeId;
use soup_core::machine::Millis;
use soup_core::{Error, Result};
use tokio::sync::oneshot;

use super::Hub;

/// Whoever waits for a worker that has a judge.
pub(super) struct AwaitsJudge {
    name: String,
    workers_min: u32,
    until: Millis,
    reply: oneshot::Sender<Result<JudgeId>>,
}

impl Hub {
    /// Somebody wants to know which judge workers call `name`.
    pub(super) fn who_judges(
        &mut self,
        name: String,
        workers_min: u32,
        reply: oneshot::Sender<Result<JudgeId>>,
    ) {
        if let Ok(Some(judge)) = self.roster.judge(&name) {
            // A caller that went away does not want the answer; here and below.
            let _ = reply.send(Ok(judge));
            return;
        }
        self.awaiting_judges.retain(|waiting| !waiting.reply.is_closed());
        if self.awaiting_judges.len() >= self.config.runs_queued_max {
            let text = format!("{} runs wait for a judge already: try again", self.awaiting_judges.len());
            let _ = reply.send(Err(Error::try_again(text)));
            return;
        }
        let until = self.now().saturating_add(self.config.start_timeout_ms);
        self.awaiting_judges.push(AwaitsJudge { name, workers_min, until, reply });
        self.tell_judges();
    }

    /// Answers whoever can be answered: once as many workers are there as a run wants, they are not waited for any longer.
    pub(super) fn tell_judges(&mut self) {
        let now = self.now();
        for waiting in std::mem::take(&mut self.awaiting_judges) {
            let AwaitsJudge { name, workers_min, until, reply } = &waiting;
            let enough = self.roster.len() >= (*workers_min).max(1) as usize;
            let answer = match self.roster.judge(name) {
                Ok(Some(judge)) => Ok(judge),
                Err(error) => Err(error),
                Ok(None) if enough => Err(self.nobody_has(name)),
                Ok(None) if now >= *until => Err(Error::unavailable(format!(
                    "no worker with judge {name:?} came in {} s: start one with `soupctl worker --judge {name}=…`",
                    self.config.start_timeout_ms / 1000
                ))),
                Ok(None) if reply.is_closed() => continue,
                Ok(None) => {
                    self.awaiting_judges.push(waiting);
                    continue;
                }
            };
            let _ = waiting.reply.send(answer);
        }
    }

    fn nobody_has(&self, name: &str) -> Error {
        let all = self.roster.judges();
        let mut names: Vec<&str> =
            all.iter().flat_map(|of| of.judges.iter().map(|offer| offer.id.name.as_str())).collect();
        names.sort_unstable();
        names.dedup();
        Error::usage(format!(
            "no worker has judge {name:?}, there are {}: start workers with `--judge {name}=…`",
            names.join(", ")
        ))
    }
}
