//! What a worker is told of a run, in its own words: wire messages end here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use soup_core::judge::JudgeId;
use soup_core::schema::Schema;
use soup_core::shard::ShardPlan;
use soup_core::{Error, Result};
use soup_proto::v1::{BeginRun, Placement};

use crate::judge::native::Setting;

/// Everything about a run that does not change.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    pub(crate) run: String,
    /// Which incarnation of its coordinator says so.
    pub(crate) epoch: u64,
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

impl TryFrom<BeginRun> for Begun {
    type Error = Error;
    fn try_from(begin: BeginRun) -> Result<Self> {
        let schema = Arc::new(begin.schema()?);
        let plan = ShardPlan::new(schema.bytes());
        if plan.shard_bytes() != begin.shard_bytes {
            let text =
                format!("shards of {} bytes expected, not of {}", plan.shard_bytes(), begin.shard_bytes);
            return Err(Error::internal(text));
        }
        let file = |f: soup_proto::v1::OutputFile| {
            let range = f.start..f.end;
            match range.start <= range.end && range.end <= schema.bytes() {
                true => Ok(OutputFile { name: f.name, header: f.header, range }),
                false => Err(Error::internal(format!("file {:?} is not of this run's parameters", f.name))),
            }
        };
        Ok(Begun {
            files: begin.files.into_iter().map(file).collect::<Result<_>>()?,
            run: begin.run,
            epoch: begin.epoch,
            ingredients: begin.ingredients,
            judging: Setting {
                model_json: begin.model_config_json,
                preprocessor_json: begin.preprocessor_config_json,
                batch_size: begin.batch_size,
                class_subset: begin.class_subset,
                datasets: begin.datasets.into_iter().map(Into::into).collect(),
            },
            judge: begin.judge.map(Into::into),
            keep_logits: begin.keep_logits,
            allow_nan: begin.allow_nan,
            streams: begin.streams,
            output: begin.output,
            schema,
            plan,
        })
    }
}

/// Who holds which shard, and where they are. Workers go by the numbers that the coordinator gave them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owners {
    /// One a shard.
    of_shard: Vec<u64>,
    addresses: BTreeMap<u64, String>,
}

impl From<Placement> for Owners {
    fn from(placement: Placement) -> Self {
        let addresses = placement.peers.into_iter().map(|p| (p.worker, p.address)).collect();
        Owners { of_shard: placement.owners, addresses }
    }
}

impl Owners {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let tensor = |name: &str| soup_proto::v1::Tensor {
            name: name.into(),
            dtype: "F32".into(),
            shape: vec![4],
            taken_from: None,
        };
        let file = |start, end| soup_proto::v1::OutputFile { start, end, ..Default::default() };
        let begin = |files| BeginRun {
            tensors: vec![tensor("a"), tensor("b")],
            shard_bytes: ShardPlan::new(32).shard_bytes(),
            files,
            ..Default::default()
        };
        assert_eq!(Begun::try_from(begin(vec![file(0, 16), file(16, 32)])).unwrap().files.len(), 2);
        for bad in [file(0, 33), file(9, 8)] {
            assert!(Begun::try_from(begin(vec![bad])).is_err());
        }
        assert!(Begun::try_from(BeginRun { shard_bytes: 8, ..begin(vec![]) }).is_err());
        let twice = BeginRun { tensors: vec![tensor("a"), tensor("a")], ..begin(vec![]) };
        assert!(Begun::try_from(twice).is_err());
    }
}
