//! The shards that this worker holds.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use soup_core::machine::Tier;
use soup_tensor::ShardMemory;

use crate::room::Place;

/// What is said of a shard that was loaded.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Loaded {
    /// SHA-256 of the shard of every ingredient, in pool order; none where nothing was read.
    pub(crate) digests: Vec<[u8; 32]>,
    /// What people should know.
    pub(crate) notes: Vec<String>,
    /// Bytes that were read for this.
    pub(crate) bytes_read: u64,
}

fn bytes_on(memory: &Arc<dyn ShardMemory>, tier: Tier) -> u64 {
    match tier {
        Tier::Device => memory.device_bytes(),
        Tier::Memory => memory.resident_bytes(),
        Tier::Disk => memory.disk_bytes(),
    }
}

/// A resident shard, and the room that it takes of what this worker offers.
#[derive(Clone)]
struct Resident {
    memory: Arc<dyn ShardMemory>,
    _place: Arc<Place>,
}

/// What is resident.
#[derive(Default)]
pub(crate) struct Shards {
    resident: RwLock<BTreeMap<u32, Resident>>,
    /// What was said when they were loaded, for a coordinator that did not hear it.
    loaded: RwLock<BTreeMap<u32, Loaded>>,
}

impl Shards {
    /// A resident shard.
    pub(crate) fn get(&self, shard: u32) -> Option<Arc<dyn ShardMemory>> {
        self.resident
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&shard)
            .map(|shard| shard.memory.clone())
    }

    /// How many are resident.
    pub(crate) fn count(&self) -> usize {
        self.resident.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What they take on a tier.
    pub(crate) fn bytes_on(&self, tier: Tier) -> u64 {
        let resident = self.resident.read().unwrap_or_else(PoisonError::into_inner);
        resident.values().map(|shard| bytes_on(&shard.memory, tier)).fold(0, u64::saturating_add)
    }

    /// Bytes of all ingredients in them, wherever they are.
    pub(crate) fn bytes(&self) -> u64 {
        Tier::ALL.into_iter().map(|tier| self.bytes_on(tier)).fold(0, u64::saturating_add)
    }

    /// Their numbers.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.resident.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// The numbers of those that take something on a tier.
    pub(crate) fn on(&self, tier: Tier) -> Vec<u32> {
        let resident = self.resident.read().unwrap_or_else(PoisonError::into_inner);
        resident
            .iter()
            .filter(|(_, shard)| bytes_on(&shard.memory, tier) > 0)
            .map(|(&shard, _)| shard)
            .collect()
    }

    /// The same shards, for a later epoch of the run.
    pub(crate) fn handed_on(&self) -> Shards {
        Shards {
            resident: RwLock::new(self.resident.read().unwrap_or_else(PoisonError::into_inner).clone()),
            loaded: RwLock::new(self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()),
        }
    }

    /// Forgets the shards that `keep` does not want.
    pub(crate) fn retain(&self, keep: impl Fn(u32) -> bool) {
        self.resident.write().unwrap_or_else(PoisonError::into_inner).retain(|&shard, _| keep(shard));
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).retain(|&shard, _| keep(shard));
    }

    /// What was said when one was loaded.
    pub(crate) fn loaded(&self, shard: u32) -> Option<Loaded> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).get(&shard).cloned()
    }

    /// Keeps one, and what is said of it.
    pub(crate) fn keep(&self, shard: u32, memory: Box<dyn ShardMemory>, place: Place, loaded: &Loaded) {
        let resident = Resident { memory: memory.into(), _place: Arc::new(place) };
        self.resident.write().unwrap_or_else(PoisonError::into_inner).insert(shard, resident);
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).insert(shard, loaded.clone());
    }
}
