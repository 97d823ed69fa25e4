//! Which judge a name means: that is asked of the workers before a run is prepared, since it is part of what the run is.

use std::collections::BTreeSet;
use std::fmt;

use soup_core::judge::JudgeId;
use soup_core::machine::Millis;
use soup_core::{Error, Result};
use tokio::sync::oneshot;

use super::Hub;

/// The judge that a run asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// The class of its arithmetic, or how that begins.
    pub(crate) numerics: Option<String>,
}

impl Wanted {
    /// Whether a judge is one of those.
    pub(crate) fn is(&self, judge: &JudgeId) -> bool {
        let class = |wanted: &str| {
            let rest = judge.numerics.strip_prefix(wanted);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        judge.name == self.name && self.numerics.as_deref().is_none_or(class)
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.numerics {
            None => write!(f, "judge {:?}", self.name),
            Some(class) => write!(f, "judge {:?} of numerics {class:?}", self.name),
        }
    }
}

/// Whoever waits for a worker that has a judge.
pub(super) struct AwaitsJudge {
    wanted: Wanted,
    workers_min: u32,
    until: Millis,
    reply: oneshot::Sender<Result<JudgeId>>,
}

impl Hub {
    /// Somebody wants to know which judge that is among the workers.
    pub(super) fn who_judges(
        &mut self,
        wanted: Wanted,
        workers_min: u32,
        reply: oneshot::Sender<Result<JudgeId>>,
    ) {
        if let Ok(Some(judge)) = self.roster.judge(&wanted) {
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
        self.awaiting_judges.push(AwaitsJudge { wanted, workers_min, until, reply });
        self.tell_judges();
    }

    /// Answers whoever can be answered: once as many workers are there as a run wants, they are not waited for any longer.
    pub(super) fn tell_judges(&mut self) {
        let now = self.now();
        for waiting in std::mem::take(&mut self.awaiting_judges) {
            let AwaitsJudge { wanted, workers_min, until, reply } = &waiting;
            let enough = self.roster.len() >= (*workers_min).max(1) as usize;
            let answer = match self.roster.judge(wanted) {
                Ok(Some(judge)) => Ok(judge),
                Err(error) => Err(error),
                Ok(None) if enough => Err(self.nobody_has(wanted)),
                Ok(None) if now >= *until => Err(Error::unavailable(format!(
                    "no worker with {wanted} came in {} s: {}",
                    self.config.start_timeout_ms / 1000,
                    advice(wanted)
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

    fn nobody_has(&self, wanted: &Wanted) -> Error {
        let all = self.roster.judges();
        let offers = all.iter().flat_map(|of| &of.judges).map(|offer| match &wanted.numerics {
            None => offer.id.name.clone(),
            Some(_) => offer.id.to_string(),
        });
        let there: BTreeSet<String> = offers.collect();
        let there: Vec<String> = there.into_iter().collect();
        Error::usage(format!("no worker has {wanted}, there are {}: {}", there.join(", "), advice(wanted)))
    }
}

/// How to come by one.
fn advice(wanted: &Wanted) -> String {
    match &wanted.numerics {
        None => format!("start workers with `--judge {}=…`", wanted.name),
        Some(_) => {
            "start workers with a --device and --precision of that class (soupctl devices says of which they are)".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_of_numerics_is_named_whole_or_by_how_it_begins() {
        let judge = |name: &str, numerics: &str| JudgeId {
            name: name.to_owned(),
            numerics: numerics.to_owned(),
            ..JudgeId::native()
        };
        let wanted = |numerics: Option<&str>| Wanted {
            name: "native".to_owned(),
            numerics: numerics.map(str::to_owned),
        };
        let hopper = judge("native", "cuda-sm90-tf32");
        for (numerics, is) in [
            (None, true),
            (Some("cuda"), true),
            (Some("cuda-sm90"), true),
            (Some("cuda-sm90-tf32"), true),
            (Some("cuda-sm9"), false),
            (Some("cud"), false),
            (Some("cuda-sm90-tf32-x"), false),
            (Some("vulkan"), false),
        ] {
            assert_eq!(wanted(numerics).is(&hopper), is, "{numerics:?}");
        }
        assert!(!wanted(None).is(&judge("lm", "cuda-sm90-tf32")));
        assert_eq!(wanted(Some("cuda")).to_string(), "judge \"native\" of numerics \"cuda\"");
    }
}
