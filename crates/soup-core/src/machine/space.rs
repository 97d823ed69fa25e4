//! Where a worker may keep shards, how many bytes, and who is chosen for one.

/// Where a worker keeps a shard, the fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// In the memory of its device, where that is a GPU.
    Device,
    /// In its host's memory.
    Memory,
    /// In its disk cache.
    Disk,
}

impl Tier {
    /// All of them.
    pub const ALL: [Tier; 3] = [Tier::Device, Tier::Memory, Tier::Disk];

    /// The name in messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Device => "device",
            Tier::Memory => "memory",
            Tier::Disk => "disk",
        }
    }
}

/// Bytes of parameters that a worker may keep, by where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// In the memory of its device; none where it computes on the processor.
    pub device: u64,
    /// In its host's memory.
    pub memory: u64,
    /// In its disk cache.
    pub disk: u64,
}

impl Space {
    /// On one tier.
    pub fn of(&self, tier: Tier) -> u64 {
        match tier {
            Tier::Device => self.device,
            Tier::Memory => self.memory,
            Tier::Disk => self.disk,
        }
    }

    pub(super) fn add(self, other: &Space) -> Space {
        Space {
            device: self.device.saturating_add(other.device),
            memory: self.memory.saturating_add(other.memory),
            disk: self.disk.saturating_add(other.disk),
        }
    }
}

/// What a worker offers for shards, and what of it is taken, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    offered: Space,
    taken: [u64; Tier::ALL.len()],
}

impl Room {
    /// Nothing is taken yet.
    pub fn new(offered: Space) -> Room {
        Room { offered, taken: [0; Tier::ALL.len()] }
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
        self.taken(tier).saturating_add(bytes) <= self.offered.of(tier)
    }

    /// The first tier with room for `bytes`.
    fn tier(&self, bytes: u64) -> Option<Tier> {
        Tier::ALL.into_iter().find(|&tier| self.fits(tier, bytes))
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
