//! Shards that are read as the output is written, and not kept.
//!
//! Whoever writes a file asks the owners of the shards for their blends; an owner then makes one *pass* over the shard of every
//! ingredient, in which it digests, inspects, multiplies and blends what it reads, and keeps what it found. When the files are
//! written that is asked for, shard by shard. An owner that was lost with it has a successor, who reads the shard again.

use super::{Action, LayerGram, Machine, Millis, Report, Work, WorkerId};
use crate::shard::Shard;

impl Machine {
    /// A shard of `worker` of which it is not known what was found in it.
    pub(super) fn pick_pass(&self, worker: WorkerId, own: &[Shard], now: Millis) -> Option<Work> {
        // Before, what has not been read for a file would be read twice.
        if !self.plan.streams || !self.writing.all_files() {
            return None;
        }
        let unknown = |shard: &Shard| !self.placement.is_digested(*shard);
        let mut works = own.iter().copied().filter(unknown).map(Work::Pass);
        works.find(|w| self.tasks.is_open(w, now) && !self.tasks.failed_on(w, worker))
    }

    /// What was found in a shard is known.
    pub(super) fn passed(
        &mut self,
        worker: WorkerId,
        shard: Shard,
        digests: Vec<[u8; 32]>,
        grams: Vec<LayerGram>,
        notes: Vec<String>,
        out: &mut Vec<Action>,
    ) {
        // Somebody else reads it too, and nothing is published before both say the same.
        self.load_claimed(worker, shard, &digests, out);
        // Where others said something else, one more worker tells who is right; who is not is left out.
        let disputed = self.rereading.is_open(shard)
            && self.placement.digests_of(shard).is_some_and(|(_, known)| known != digests);
        if disputed || self.deeds.is_quarantined(worker) || !self.digested(worker, shard, digests, out) {
            return;
        }
        notes.into_iter().for_each(|n| self.note(n, out));
        if self.placement.all_digested() {
            let shards = self.placement.shards() as u32;
            out.push(Action::Report(Report::Loading { resident: shards, shards }));
        }
        self.check_digests(out);
        self.deeds.measured(worker);
        self.gram_done(shard, grams, out);
    }

    /// Whether everything about the ingredients is known, where they are streamed.
    pub(super) fn streamed_enough(&self) -> bool {
        !self.plan.streams || self.recorder.surveyed() && self.measured_enough()
    }
}
