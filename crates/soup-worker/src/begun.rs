//! What a worker is told of a run.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use soup_core::digest::DigestKind;
use soup_core::judge::JudgeId;
use soup_core::schema::Schema;
use soup_core::shard::ShardPlan;
use soup_trust::ticket;

use crate::judge::native::Setting;

/// Everything about a run that does not change.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    pub(crate) run: String,
    /// Which incarnation of its coordinator says so.
    pub(crate) epoch: u64,
    /// With which its workers prove to each other that they take part.
    pub(crate) key: ticket::Key,
    /// Names of the ingredients, in pool order.
    pub(crate) ingredients: Vec<String>,
    /// The tensors of every soup.
    pub(crate) schema: Arc<Schema>,
    pub(crate) plan: ShardPlan,
    /// Who judges, where anything is judged.
    pub(crate) judge: Option<JudgeId>,
    /// What soups are judged on.
    pub(crate) judging: Setting,
    /// Keep the logits of single ingredients, as far as there is room.
    pub(crate) keep_logits: bool,
    /// Accept elements that are not finite.
    pub(crate) allow_nan: bool,
    /// By which algorithm shards of ingredients are digested.
    pub(crate) digest: DigestKind,
    /// Keep no shard.
    pub(crate) streams: bool,
    /// Where the output is staged, and its files.
    pub(crate) output: String,
    pub(crate) files: Vec<OutputFile>,
}

/// A file of the output.
#[derive(Clone, Debug)]
pub(crate) struct OutputFile {
    pub(crate) name: String,
    /// The safetensors header, with its length.
    pub(crate) header: Vec<u8>,
    /// Its data, in the flattened parameters.
    pub(crate) range: Range<u64>,
}

/// Who holds which shard, and where they are. Workers go by the numbers that the coordinator gave them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owners {
    /// One a shard.
    of_shard: Vec<u64>,
    addresses: BTreeMap<u64, String>,
}

impl Owners {
    /// `of_shard` has one worker a shard.
    pub(crate) fn new(of_shard: Vec<u64>, addresses: BTreeMap<u64, String>) -> Owners {
        Owners { of_shard, addresses }
    }

    /// Who holds a shard.
    pub(crate) fn of(&self, shard: u32) -> Option<u64> {
        self.of_shard.get(shard as usize).copied()
    }

    /// Whether `worker` holds all of them.
    pub(crate) fn all_with(&self, worker: u64) -> bool {
        self.of_shard.iter().all(|owner| *owner == worker)
    }

    /// Where a worker is.
    pub(crate) fn address(&self, worker: u64) -> Option<&str> {
        self.addresses.get(&worker).map(String::as_str)
    }
}
