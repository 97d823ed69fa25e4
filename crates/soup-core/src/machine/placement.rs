//! Which worker holds which shard, and where.
//!
//! Shards without an owner go to the worker with the fewest resident bytes that has room: in memory as long as any worker has
//! room there, then on disk. An owner keeps its shards for as long as it lives: a loss moves only what was lost.

use super::{Action, BTreeMap, Error, Machine, Report, Result, WorkerId};
use crate::shard::Shard;

/// Where a worker keeps a shard. The first is the faster one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// In the memory of its device.
    Memory,
    /// In its disk cache.
    Disk,
}

/// Where a shard is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Holding {
    /// Nowhere.
    Nobody,
    /// Being loaded by its owner.
    Loading(WorkerId, Tier),
    /// Loaded by its owner.
    Resident(WorkerId, Tier),
}

impl Holding {
    pub(super) fn owner(self) -> Option<WorkerId> {
        self.place().map(|(owner, _)| owner)
    }

    fn place(self) -> Option<(WorkerId, Tier)> {
        match self {
            Holding::Nobody => None,
            Holding::Loading(worker, tier) | Holding::Resident(worker, tier) => Some((worker, tier)),
        }
    }
}

/// What a worker offers for shards, and what of it is taken, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    offered: [u64; 2],
    taken: [u64; 2],
}

impl Room {
    /// Nothing is taken yet.
    pub fn new(memory_bytes: u64, disk_bytes: u64) -> Room {
        Room { offered: [memory_bytes, disk_bytes], taken: [0; 2] }
    }

    /// Takes `bytes` of it.
    pub fn take(&mut self, tier: Tier, bytes: u64) {
        let taken = &mut self.taken[tier as usize];
        *taken = taken.saturating_add(bytes);
    }

    /// What is taken.
    pub fn taken(&self, tier: Tier) -> u64 {
        self.taken[tier as usize]
    }

    fn fits(&self, tier: Tier, bytes: u64) -> bool {
        self.taken(tier).saturating_add(bytes) <= self.offered[tier as usize]
    }

    /// The first tier with room for `bytes`.
    fn tier(&self, bytes: u64) -> Option<Tier> {
        [Tier::Memory, Tier::Disk].into_iter().find(|&tier| self.fits(tier, bytes))
    }
}

/// Who gets a shard of `bytes` that nobody has: the position in `rooms` and the tier. `held` says where it is already.
pub fn choose_room<'a>(
    rooms: impl IntoIterator<Item = &'a Room>,
    bytes: u64,
    held: impl Fn(usize) -> Option<Tier>,
) -> Option<(usize, Tier)> {
    let offers = rooms.into_iter().enumerate().filter_map(|(at, room)| {
        // Who has it already has nothing to load.
        let held = held(at).filter(|&tier| room.fits(tier, bytes));
        let tier = held.or_else(|| room.tier(bytes))?;
        Some((held.is_none(), tier, room.taken(tier), at))
    });
    offers.min().map(|(_, tier, _, at)| (at, tier))
}

impl Machine {
    /// Gives every shard an owner, as far as there is room; false where all have one already.
    pub(super) fn place(&mut self) -> Result<bool> {
        if self.shards.iter().all(|h| h.owner().is_some()) {
            return Ok(false);
        }
        let workers: Vec<WorkerId> = self.workers.keys().copied().collect();
        let at: BTreeMap<WorkerId, usize> = workers.iter().copied().zip(0..).collect();
        let mut rooms: Vec<Room> =
            self.workers.values().map(|w| Room::new(w.capacity_bytes, w.disk_bytes)).collect();
        for (holding, &bytes) in self.shards.iter().zip(&self.plan.shard_bytes) {
            if let Some((owner, tier)) = holding.place() {
                rooms[at[&owner]].take(tier, bytes);
            }
        }
        for index in 0..self.shards.len() {
            if self.shards[index].owner().is_some() {
                continue;
            }
            let bytes = self.plan.shard_bytes[index];
            let held = |at: usize| self.workers[&workers[at]].held.get(&Shard(index as u32)).copied();
            let chosen = choose_room(&rooms, bytes, held);
            let Some((at, tier)) = chosen else { return Err(self.does_not_fit()) };
            self.shards[index] = Holding::Loading(workers[at], tier);
            rooms[at].take(tier, bytes);
        }
        Ok(true)
    }

    /// Where the owner of a shard is to keep it.
    pub fn tier(&self, shard: Shard) -> Tier {
        let place = self.shards.get(shard.0 as usize).and_then(|h| h.place());
        place.map_or(Tier::Memory, |(_, tier)| tier)
    }

    /// Whether some shards do not lie in memory.
    pub(super) fn uses_disk(&self) -> bool {
        self.shards.iter().any(|h| matches!(h.place(), Some((_, Tier::Disk))))
    }

    fn does_not_fit(&self) -> Error {
        let need: u64 = self.plan.shard_bytes.iter().sum();
        let workers = self.workers.values();
        let (memory, disk) = workers.fold((0u64, 0u64), |(memory, disk), w| {
            (memory.saturating_add(w.capacity_bytes), disk.saturating_add(w.disk_bytes))
        });
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let (on_disk, advice) = match disk {
            0 => (String::new(), "raise their --memory, or give them a --disk-cache"),
            _ => (format!(" of memory and {} MiB of disk", mib(disk)), "raise their --memory or --disk"),
        };
        let workers = match self.workers.len() {
            1 => "the one worker offers".to_owned(),
            count => format!("the {count} workers offer"),
        };
        Error::configuration(format!(
            "the pool needs {} MiB resident, and {workers} {} MiB{on_disk}: add workers, {advice}",
            mib(need),
            mib(memory)
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
        let Holding::Loading(owner, tier) = self.shards[index] else { return };
        if owner != worker {
            return;
        }
        if !self.plan.streams && !self.digested(shard, sha256, out) {
            return;
        }
        self.shards[index] = Holding::Resident(worker, tier);
        if !self.plan.streams {
            let resident = self.shards.iter().filter(|h| matches!(h, Holding::Resident(..))).count() as u32;
            out.push(Action::Report(Report::Loading { resident, shards: self.shards.len() as u32 }));
        }
        if self.all_resident() {
            self.workers.values_mut().for_each(|w| w.placed = false);
            self.check_digests(out);
        }
    }

    /// Notes the digests of a shard; false where they end the run.
    pub(super) fn digested(&mut self, shard: Shard, sha256: Vec<[u8; 32]>, out: &mut Vec<Action>) -> bool {
        let slot = &mut self.digests[shard.0 as usize];
        let error = if sha256.len() != self.plan.ingredients as usize {
            Error::internal(format!(
                "a worker returned {} digests for {} ingredients",
                sha256.len(),
                self.plan.ingredients
            ))
        } else if let Some(known) = slot.as_ref().filter(|known| **known != sha256) {
            let changed = known.iter().zip(&sha256).position(|(a, b)| a != b).unwrap_or(0);
            Error::data(format!("ingredient {changed} changed while the run was reading it: run again"))
        } else {
            *slot = Some(sha256);
            return true;
        };
        self.finish(Err(error), out);
        false
    }

    pub(super) fn all_resident(&self) -> bool {
        self.shards.iter().all(|h| matches!(h, Holding::Resident(..)))
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
