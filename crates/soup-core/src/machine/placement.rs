//! Which worker holds which shard.
//!
//! Shards without an owner go to the worker with the fewest resident bytes that has room. An owner keeps its shards for
//! as long as it lives: a loss moves only what was lost.

use super::{Action, BTreeMap, Error, Machine, Report, Result, WorkerId};
use crate::shard::Shard;

/// Where a shard is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Holding {
    /// Nowhere.
    Nobody,
    /// Being loaded by its owner.
    Loading(WorkerId),
    /// Loaded by its owner.
    Resident(WorkerId),
}

impl Holding {
    pub(super) fn owner(self) -> Option<WorkerId> {
        match self {
            Holding::Nobody => None,
            Holding::Loading(worker) | Holding::Resident(worker) => Some(worker),
        }
    }
}

impl Machine {
    /// Gives every shard an owner, as far as there is room.
    pub(super) fn place(&mut self) -> Result<()> {
        if self.shards.iter().all(|h| h.owner().is_some()) {
            return Ok(());
        }
        let mut used: BTreeMap<WorkerId, u64> = self.workers.keys().map(|&w| (w, 0)).collect();
        for (holding, bytes) in self.shards.iter().zip(&self.plan.shard_bytes) {
            if let Some(used) = holding.owner().and_then(|w| used.get_mut(&w)) {
                *used += bytes;
            }
        }
        for index in 0..self.shards.len() {
            if self.shards[index].owner().is_some() {
                continue;
            }
            let bytes = self.plan.shard_bytes[index];
            let fits = |w: &WorkerId, used: u64| used.saturating_add(bytes) <= self.workers[w].capacity_bytes;
            // Who has it already has nothing to load.
            let holds = |w: &WorkerId| self.workers[w].held.contains(&Shard(index as u32));
            let best = used
                .iter()
                .filter(|(w, used)| fits(w, **used))
                .min_by_key(|(w, used)| (!holds(w), **used, **w));
            let Some((&worker, _)) = best else { return Err(self.does_not_fit()) };
            self.shards[index] = Holding::Loading(worker);
            used.entry(worker).and_modify(|u| *u += bytes);
        }
        Ok(())
    }

    fn does_not_fit(&self) -> Error {
        let need: u64 = self.plan.shard_bytes.iter().sum();
        let have: u64 = self.workers.values().fold(0, |sum, w| sum.saturating_add(w.capacity_bytes));
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        Error::configuration(format!(
            "the pool needs {} MiB resident, and the {} workers offer {} MiB: add workers or raise their --memory",
            mib(need),
            self.workers.len(),
            mib(have)
        ))
    }

    pub(super) fn loaded(
        &mut self,
        worker: WorkerId,
        shard: Shard,
        sha256: Vec<[u8; 32]>,
        out: &mut Vec<Action>,
    ) {
        let index = shard.0 as usize;
        if self.shards[index] != Holding::Loading(worker) {
            return;
        }
        if sha256.len() != self.plan.ingredients as usize {
            let text = format!(
                "a worker returned {} digests for {} ingredients",
                sha256.len(),
                self.plan.ingredients
            );
            return self.finish(Err(Error::internal(text)), out);
        }
        if let Some(known) = self.digests[index].as_ref().filter(|known| **known != sha256) {
            let changed = known.iter().zip(&sha256).position(|(a, b)| a != b).unwrap_or(0);
            let text = format!("ingredient {changed} changed while the run was reading it: run again");
            return self.finish(Err(Error::data(text)), out);
        }
        self.digests[index] = Some(sha256);
        self.shards[index] = Holding::Resident(worker);
        let resident = self.shards.iter().filter(|h| matches!(h, Holding::Resident(_))).count() as u32;
        out.push(Action::Report(Report::Loading { resident, shards: self.shards.len() as u32 }));
        if self.all_resident() {
            self.workers.values_mut().for_each(|w| w.placed = false);
            self.check_digests(out);
        }
    }

    pub(super) fn all_resident(&self) -> bool {
        self.shards.iter().all(|h| matches!(h, Holding::Resident(_)))
    }

    /// Tells `worker` the placement, unless it knows.
    pub(super) fn announce(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        if self.workers.get(&worker).is_none_or(|w| w.placed) {
            return;
        }
        let owners = self.shards.iter().filter_map(|h| h.owner()).collect();
        out.push(Action::Place(worker, owners));
        self.workers.entry(worker).and_modify(|w| w.placed = true);
    }

    pub(super) fn abandon_shards_of(&mut self, worker: WorkerId) {
        for index in 0..self.shards.len() {
            if self.shards[index].owner() == Some(worker) {
                self.shards[index] = Holding::Nobody;
                self.tasks.forget(&super::Work::Load(Shard(index as u32)));
                self.lose_products(Shard(index as u32));
            }
        }
    }
}
