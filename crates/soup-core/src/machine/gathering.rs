//! Waiting for workers: at the start for as many as were asked for, after a restart for those that the run had, later for one.

use super::{Action, Error, Machine, Millis};

/// Since when there are too few.
#[derive(Debug)]
pub(super) struct Gathering {
    /// Since when there have been fewer workers than needed; `None` while there are enough.
    short_since: Option<Millis>,
    /// No shard is placed before this time.
    settled_at: Millis,
}

impl Gathering {
    /// There are none yet.
    pub(super) fn new(now: Millis) -> Gathering {
        Gathering { short_since: Some(now), settled_at: now }
    }

    /// Waits until `at` for the workers that an earlier coordinator had, which may hold its shards.
    pub(super) fn settle(&mut self, at: Millis) {
        self.settled_at = at;
    }
}

impl Machine {
    /// Waits for workers; fails the run when that takes too long.
    pub(super) fn enough_workers(&mut self, now: Millis, out: &mut Vec<Action>) -> bool {
        let have = self.workers.len() as u32;
        // Once work has begun, one worker is enough to go on.
        let need = if self.tasks.is_empty() { self.plan.workers_min } else { 1 };
        let unjudged = self.is_judging() && !self.workers.values().any(|w| w.judges);
        if have >= need && !unjudged {
            self.gathering.short_since = None;
            return now >= self.gathering.settled_at || !self.tasks.is_empty();
        }
        if self.ask_again(out) {
            return self.enough_workers(now, out);
        }
        let since = *self.gathering.short_since.get_or_insert(now);
        let timeout_ms = self.plan.limits.start_timeout_ms;
        if now.saturating_sub(since) >= timeout_ms {
            let text = match &self.plan.judge {
                Some(judge) if have >= need => format!(
                    "waited {} s for a worker with judge {judge}: none of the {have} that are there has it",
                    timeout_ms / 1000
                ),
                _ => format!(
                    "waited {} s for workers: {have} of {need} are there; start more with `soupctl worker --coordinator URL`",
                    timeout_ms / 1000
                ),
            };
            self.finish(Err(Error::unavailable(text)), out);
        }
        false
    }
}
