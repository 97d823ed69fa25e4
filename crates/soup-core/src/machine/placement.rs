//! Which worker holds which shard, and where.
//!
//! Shards without an owner go to the worker with the fewest resident bytes that has room: on a device as long as any worker has room
//! there, then in memory, then on disk. An owner keeps its shards for as long as it lives: a loss moves only what was lost.

use super::space::{Room, Space, Tier, choose_room};
use super::{Action, BTreeMap, BTreeSet, Error, Machine, Millis, Report, Result, WorkerId};
use crate::shard::Shard;

/// Said of a pool that is larger than the workers' memory.
const ON_DISK_NOTE: &str = "the pool does not fit into the workers' memory: some shards are kept in their disk caches, and blended at their speed";

/// Said of a pool that is larger than the devices' memory.
const OFF_DEVICE_NOTE: &str = "the pool does not fit into the memory of the workers' devices: some shards are kept in host memory or on disk, and \
                               blended by processors";

/// Where a shard is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Holding {
    /// Nowhere.
    Nobody,
    /// Being loaded by its owner.
    Loading(WorkerId, Tier),
    /// Loaded by its owner.
    Resident(WorkerId, Tier),
}

impl Holding {
    fn owner(self) -> Option<WorkerId> {
        self.place().map(|(owner, _)| owner)
    }

    fn place(self) -> Option<(WorkerId, Tier)> {
        match self {
            Holding::Nobody => None,
            Holding::Loading(worker, tier) | Holding::Resident(worker, tier) => Some((worker, tier)),
        }
    }
}

/// What workers have room for.
type Rooms = BTreeMap<WorkerId, Room>;

/// What is known of the shards.
#[derive(Debug)]
pub(super) struct Placement {
    holdings: Vec<Holding>,
    /// `digests[shard]`: SHA-256 of every ingredient's shard, once it was read, and who read it.
    digests: Vec<Option<(WorkerId, Vec<[u8; 32]>)>>,
    /// The workers that know it.
    told: BTreeSet<WorkerId>,
    /// Since when there has been no room for some shards; `None` while there is.
    unplaced_since: Option<Millis>,
    /// Whether there has been room for all shards, here or for an earlier coordinator.
    had_room: bool,
    /// Why the last worker that is there does not take part.
    left_out: Option<String>,
}

impl Placement {
    /// Nobody has any of `shards`.
    pub(super) fn of(shards: usize) -> Placement {
        Placement {
            holdings: vec![Holding::Nobody; shards],
            digests: vec![None; shards],
            told: BTreeSet::new(),
            unplaced_since: None,
            had_room: false,
            left_out: None,
        }
    }

    /// A worker does not take part, and why.
    pub(super) fn left_out(&mut self, why: &str) {
        self.left_out = Some(why.to_owned());
    }

    /// Takes over whether an earlier coordinator found room.
    pub(super) fn adopt(&mut self, had_room: bool) {
        self.had_room = had_room;
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> usize {
        self.holdings.len()
    }

    pub(super) fn all_resident(&self) -> bool {
        self.holdings.iter().all(|h| matches!(h, Holding::Resident(..)))
    }

    /// The shards that are resident, who has them, and where.
    pub(super) fn resident(&self) -> impl Iterator<Item = (Shard, WorkerId, Tier)> {
        let resident = |(shard, holding): (Shard, &Holding)| match *holding {
            Holding::Resident(owner, tier) => Some((shard, owner, tier)),
            _ => None,
        };
        (0..).map(Shard).zip(&self.holdings).filter_map(resident)
    }

    /// What the owner of a shard has loaded does not count before somebody else says the same.
    pub(super) fn not_yet_resident(&mut self, shard: Shard) {
        let holding = &mut self.holdings[shard.0 as usize];
        if let Holding::Resident(owner, tier) = *holding {
            *holding = Holding::Loading(owner, tier);
        }
    }

    /// The shards of every owner.
    pub(super) fn by_owner(&self) -> BTreeMap<WorkerId, Vec<Shard>> {
        let mut owned: BTreeMap<WorkerId, Vec<Shard>> = BTreeMap::new();
        for (holding, shard) in self.holdings.iter().zip((0..).map(Shard)) {
            if let Some(owner) = holding.owner() {
                owned.entry(owner).or_default().push(shard);
            }
        }
        owned
    }

    /// Whether `worker` is to load a shard.
    pub(super) fn is_loading(&self, shard: Shard, worker: WorkerId) -> bool {
        let holding = self.holdings.get(shard.0 as usize);
        matches!(holding, Some(Holding::Loading(owner, _)) if *owner == worker)
    }

    /// The shards that `worker` is to load.
    pub(super) fn loading_of(&self, worker: WorkerId) -> Vec<Shard> {
        let shards = (0..self.holdings.len() as u32).map(Shard);
        shards.filter(|shard| self.is_loading(*shard, worker)).collect()
    }

    /// Who has a shard, or is to load it.
    pub(super) fn owner(&self, shard: Shard) -> Option<WorkerId> {
        self.holdings.get(shard.0 as usize).and_then(|holding| holding.owner())
    }

    /// What was found in a shard, and by whom.
    pub(super) fn digests_of(&self, shard: Shard) -> Option<(WorkerId, &[[u8; 32]])> {
        let digests = self.digests.get(shard.0 as usize)?.as_ref();
        digests.map(|(by, digests)| (*by, digests.as_slice()))
    }

    /// Who read shards under one number has another one.
    pub(super) fn renumber(&mut self, from: WorkerId, to: WorkerId) {
        let by = self.digests.iter_mut().flatten().map(|(by, _)| by);
        by.filter(|by| **by == from).for_each(|by| *by = to);
    }

    /// Forgets what was found by those that are not believed.
    pub(super) fn forget_digests(&mut self, of: impl Fn(WorkerId) -> bool) {
        self.digests.iter_mut().for_each(|digests| _ = digests.take_if(|(by, _)| of(*by)));
    }

    /// Whether a shard was read.
    pub(super) fn is_digested(&self, shard: Shard) -> bool {
        self.digests.get(shard.0 as usize).is_some_and(Option::is_some)
    }

    /// Whether all were.
    pub(super) fn all_digested(&self) -> bool {
        self.digests.iter().all(Option::is_some)
    }

    /// Whether some shards lie there.
    fn uses(&self, tier: Tier) -> bool {
        self.holdings.iter().any(|h| h.place().is_some_and(|(_, of)| of == tier))
    }
}

impl Machine {
    /// The digest of each shard of ingredient `index`, once all are loaded.
    pub fn ingredient_digests(&self, index: usize) -> Option<Vec<[u8; 32]>> {
        let of = |d: &Option<(WorkerId, Vec<[u8; 32]>)>| d.as_ref().and_then(|(_, d)| d.get(index).copied());
        self.placement.digests.iter().map(of).collect()
    }

    /// Gives every shard an owner. A pool that does not fit ends the run at its start; later, when workers were lost or have
    /// not come back yet, the run waits for others first.
    pub(super) fn all_placed(&mut self, now: Millis, out: &mut Vec<Action>) -> bool {
        let error = match self.place() {
            Ok(placed) => {
                self.placement.unplaced_since = None;
                self.placement.had_room = true;
                if placed {
                    self.tell_of_tiers(out);
                }
                return true;
            }
            // Whom the run went on without may have had room.
            Err(_) if self.ask_again(out) => return self.all_placed(now, out),
            Err(error) => error,
        };
        let since = *self.placement.unplaced_since.get_or_insert(now);
        let patience_ms = self.plan.limits.start_timeout_ms;
        if !self.placement.had_room || now.saturating_sub(since) >= patience_ms {
            self.finish(Err(error), out);
        } else {
            self.note(format!("waiting for workers: {error}"), out);
        }
        false
    }

    /// What people should know of where shards are.
    fn tell_of_tiers(&mut self, out: &mut Vec<Action>) {
        let [in_memory, on_disk] = [Tier::Memory, Tier::Disk].map(|tier| self.placement.uses(tier));
        if on_disk {
            self.note(ON_DISK_NOTE.to_owned(), out);
        }
        if (in_memory || on_disk) && self.workers.values().any(|w| w.space.device > 0) {
            self.note(OFF_DEVICE_NOTE.to_owned(), out);
        }
    }

    /// Gives every shard an owner, as far as there is room; false where all have one already.
    fn place(&mut self) -> Result<bool> {
        if self.placement.holdings.iter().all(|h| h.owner().is_some()) {
            return Ok(false);
        }
        let mut rooms = self.rooms();
        for index in 0..self.placement.holdings.len() {
            if self.placement.holdings[index].owner().is_some() {
                continue;
            }
            let shard = Shard(index as u32);
            let good = |w: WorkerId| !self.troubles.doubts(w) && !self.is_bad_at(shard, w);
            let chosen = self.choose(&rooms, shard, good).or_else(|| self.choose(&rooms, shard, |_| true));
            let Some((worker, tier)) = chosen else { return Err(self.does_not_fit()) };
            self.put(&mut rooms, shard, (worker, tier));
        }
        Ok(true)
    }

    /// What every worker has room for.
    fn rooms(&self) -> Rooms {
        let room = |(&worker, w): (&WorkerId, &super::WorkerState)| (worker, Room::new(w.space));
        let mut rooms: Rooms = self.workers.iter().map(room).collect();
        for (holding, &bytes) in self.placement.holdings.iter().zip(&self.plan.shard_bytes) {
            if let Some((owner, tier)) = holding.place() {
                rooms.entry(owner).and_modify(|room| room.take(tier, bytes));
            }
        }
        rooms
    }

    /// Who gets a shard, of those that `may`.
    fn choose(
        &self,
        rooms: &Rooms,
        shard: Shard,
        may: impl Fn(WorkerId) -> bool,
    ) -> Option<(WorkerId, Tier)> {
        let bytes = self.plan.shard_bytes[shard.0 as usize];
        let workers: Vec<WorkerId> = rooms.keys().copied().filter(|w| may(*w)).collect();
        let held = |at: usize| self.workers[&workers[at]].held.get(&shard).copied();
        let (at, tier) = choose_room(workers.iter().map(|w| &rooms[w]), bytes, held)?;
        Some((workers[at], tier))
    }

    fn put(&mut self, rooms: &mut Rooms, shard: Shard, (worker, tier): (WorkerId, Tier)) {
        let index = shard.0 as usize;
        self.placement.holdings[index] = Holding::Loading(worker, tier);
        rooms.entry(worker).and_modify(|room| room.take(tier, self.plan.shard_bytes[index]));
    }

    /// Whether `worker` failed at loading a shard, or was slow at it.
    fn is_bad_at(&self, shard: Shard, worker: WorkerId) -> bool {
        let load = super::Work::Load(shard);
        self.tasks.failed_on(&load, worker) || self.tasks.was_late(&load, worker)
    }

    /// Who else could load a shard.
    fn elsewhere(&self, shard: Shard, than: WorkerId) -> Option<(WorkerId, Tier)> {
        let good = |w: WorkerId| {
            let stays = self.workers.get(&w).is_some_and(|state| !state.leaving);
            w != than && stays && !self.troubles.doubts(w) && !self.is_bad_at(shard, w)
        };
        self.choose(&self.rooms(), shard, good)
    }

    /// Whether anybody else could.
    pub(super) fn has_room_elsewhere(&self, shard: Shard, than: WorkerId) -> bool {
        self.elsewhere(shard, than).is_some()
    }

    /// Gives a shard that `from` is to load to another worker; false where nobody has room for it.
    pub(super) fn move_load(&mut self, shard: Shard, from: WorkerId) -> bool {
        let to = self.elsewhere(shard, from).filter(|_| self.placement.is_loading(shard, from));
        if let Some((worker, tier)) = to {
            self.placement.holdings[shard.0 as usize] = Holding::Loading(worker, tier);
        }
        to.is_some()
    }

    /// Whether the others have room for what `worker` holds.
    pub(super) fn fits_without(&self, worker: WorkerId) -> bool {
        let mut rooms = self.rooms();
        rooms.remove(&worker);
        (0..).map(Shard).zip(&self.placement.holdings).filter(|(_, h)| h.owner() == Some(worker)).all(
            |(shard, _)| {
                let Some((to, tier)) = self.choose(&rooms, shard, |_| true) else { return false };
                let bytes = self.plan.shard_bytes[shard.0 as usize];
                rooms.entry(to).and_modify(|room| room.take(tier, bytes));
                true
            },
        )
    }

    /// How many shards each worker owns, of those that own some.
    pub fn shards_of(&self) -> BTreeMap<WorkerId, u32> {
        let mut owned = BTreeMap::new();
        for owner in self.placement.holdings.iter().filter_map(|h| h.owner()) {
            *owned.entry(owner).or_default() += 1;
        }
        owned
    }

    /// Where the owner of a shard is to keep it.
    pub fn tier(&self, shard: Shard) -> Tier {
        let place = self.placement.holdings.get(shard.0 as usize).and_then(|h| h.place());
        place.map_or(Tier::Memory, |(_, tier)| tier)
    }

    fn does_not_fit(&self) -> Error {
        let need: u64 = self.plan.shard_bytes.iter().sum();
        let space = self.workers.values().fold(Space::default(), |space, w| space.add(&w.space));
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let on_device = match space.device {
            0 => String::new(),
            device => format!("{} MiB of device memory and ", mib(device)),
        };
        let (on_disk, advice) = match space.disk {
            0 => (
                String::new(),
                "raise their --memory (four fifths of it are for shards), or give them a --disk-cache",
            ),
            disk => (format!(" of memory and {} MiB of disk", mib(disk)), "raise their --memory or --disk"),
        };
        let workers = match self.workers.len() {
            1 => "the one worker offers".to_owned(),
            count => format!("the {count} workers offer"),
        };
        let without = self.placement.left_out.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        Error::configuration(format!(
            "the pool needs {} MiB resident, and {workers} {on_device}{} MiB{on_disk}: add workers, {advice}{without}",
            mib(need),
            mib(space.memory)
        ))
    }

    pub(super) fn loaded(
        &mut self,
        worker: WorkerId,
        shard: Shard,
        digests: Vec<[u8; 32]>,
        out: &mut Vec<Action>,
    ) {
        if !self.placement.is_loading(shard, worker) {
            return;
        }
        if !self.plan.streams
            && (self.load_claimed(worker, shard, &digests, out)
                || !self.digested(worker, shard, digests, out))
        {
            return;
        }
        self.known_to_be_loaded(worker, shard, out);
    }

    /// What `worker` says to have loaded is what is in the ingredients, as far as that is audited.
    pub(super) fn known_to_be_loaded(&mut self, worker: WorkerId, shard: Shard, out: &mut Vec<Action>) {
        let index = shard.0 as usize;
        let Holding::Loading(owner, tier) = self.placement.holdings[index] else { return };
        if owner != worker {
            return;
        }
        self.placement.holdings[index] = Holding::Resident(worker, tier);
        if !self.plan.streams {
            let resident = self.placement.resident().count() as u32;
            out.push(Action::Report(Report::Loading {
                resident,
                shards: self.placement.holdings.len() as u32,
            }));
        }
        self.auditing.look_again();
        self.deeds.serves(worker);
        if self.placement.all_resident() {
            self.placement.told.clear();
            self.check_digests(out);
        }
    }

    /// Notes the digests of a shard; false where they end the run.
    pub(super) fn digested(
        &mut self,
        by: WorkerId,
        shard: Shard,
        digests: Vec<[u8; 32]>,
        out: &mut Vec<Action>,
    ) -> bool {
        let slot = &mut self.placement.digests[shard.0 as usize];
        let error = if let Some((_, known)) = slot.as_ref().filter(|(_, known)| *known != digests) {
            let changed = known.iter().zip(&digests).position(|(a, b)| a != b).unwrap_or(0);
            Error::data(format!("ingredient {changed} changed while the run was reading it: run again"))
        } else {
            *slot = Some((by, digests));
            return true;
        };
        self.finish(Err(error), out);
        false
    }

    /// Tells `worker` the placement, unless it knows.
    pub(super) fn announce(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        if !self.workers.contains_key(&worker) || !self.placement.told.insert(worker) {
            return;
        }
        let owners = self.placement.holdings.iter().filter_map(|h| h.owner()).collect();
        out.push(Action::Place(worker, owners));
    }

    pub(super) fn abandon_shards_of(&mut self, worker: WorkerId) {
        self.placement.told.remove(&worker);
        for index in 0..self.placement.holdings.len() {
            if self.placement.holdings[index].owner() == Some(worker) {
                self.placement.holdings[index] = Holding::Nobody;
                let shard = Shard(index as u32);
                self.tasks.forget(&super::Work::Load(shard));
                self.rereading.lose(shard);
                self.lose_products(shard);
            }
        }
    }
}
