//! Running statistics of normalisation layers: what becomes of them in a soup.
//!
//! A layer such as BatchNorm normalises by the mean and the variance that its inputs had in training, which are kept beside the
//! parameters. They are not learned, and those of an averaged model are not the average of the ingredients': whoever averages has to
//! say what becomes of them ([`BatchNorm`]), as Izmailov et al. (2018, section 3.2) do for averaged weights and Jordan et al. (2023,
//! "REPAIR") for interpolated networks. Where nobody says so, a pool that has some is refused.
//!
//! They are told by their names, which frameworks prescribe ([`is_statistic`]); counters of batches are integers, and copied.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::schema::{Schema, TensorSpec};

/// Tensors named in a message; further ones are counted.
const NAMED_MAX: usize = 2;

/// What becomes of running statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNorm {
    /// They are averaged like parameters, with the same weights.
    Average,
    /// They are those of the soup's first ingredient in pool order.
    First,
    /// The judge computes them anew for every soup, on a calibration set.
    Recompute,
}

impl BatchNorm {
    /// All of them.
    pub const ALL: [BatchNorm; 3] = [BatchNorm::Average, BatchNorm::First, BatchNorm::Recompute];

    /// The name in options, messages and records.
    pub fn name(self) -> &'static str {
        match self {
            BatchNorm::Average => "average",
            BatchNorm::First => "first",
            BatchNorm::Recompute => "recompute",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<BatchNorm> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// Whether a tensor is a running statistic: by the last part of its name in PyTorch (`running_mean`, `running_var`) and TensorFlow
/// (`moving_mean`, `moving_variance`), by the collection that it is in for Flax (`batch_stats`).
pub fn is_statistic(tensor: &TensorSpec) -> bool {
    let mut parts = tensor.name.rsplit(['.', '/']);
    let last = parts.next().unwrap_or_default();
    let named =
        matches!(last, "running_mean" | "running_var" | "moving_mean" | "moving_variance" | "moving_var");
    tensor.dtype.is_float() && (named || parts.any(|part| part == "batch_stats"))
}

/// Positions of the running statistics in a schema, in order.
pub fn statistics(schema: &Schema) -> impl Iterator<Item = usize> {
    schema.tensors().iter().enumerate().filter(|(_, tensor)| is_statistic(tensor)).map(|(at, _)| at)
}

/// Size in bytes of all running statistics of a schema, one after the other.
pub fn statistics_bytes(schema: &Schema) -> u64 {
    statistics(schema).map(|at| schema.range(at)).map(|range| range.end - range.start).sum()
}

/// What people should know of a soup that is learned, whose running statistics become `what`.
pub fn note_of_learning(what: Option<BatchNorm>) -> Option<String> {
    (what == Some(BatchNorm::Average)).then(|| {
        "weights are learned as if running statistics did not follow them, where the judge has no gradient by them (PyTorch has none)"
            .to_owned()
    })
}

/// The schema of soups whose running statistics become `what`, and what people should know of that.
///
/// # Errors
/// [`Usage`](crate::ErrorKind::Usage) where there are some and nobody said what becomes of them, or where there are none to recompute.
pub fn settle(schema: Schema, what: Option<BatchNorm>) -> Result<(Schema, Option<String>)> {
    let all: Vec<&str> = statistics(&schema).map(|at| schema.tensors()[at].name.as_str()).collect();
    let some = all.iter().take(NAMED_MAX).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let more = all.len().saturating_sub(NAMED_MAX);
    let some = if more > 0 { format!("{some} and {more} more") } else { some };
    let note = match (what, all.is_empty()) {
        (None, true) => return Ok((schema, None)),
        (None, false) => {
            return Err(Error::usage(format!(
                "the pool has running statistics of BatchNorm ({some}), and an average of them is not what the averaged model has: \
                 say what becomes of them with --batch-norm recompute and a --calibration set (the judge computes them anew for \
                 every soup), average, or first"
            )));
        }
        (Some(BatchNorm::Recompute), true) => {
            return Err(Error::usage(
                "--batch-norm recompute, and the pool has no running statistics: leave it and --calibration out",
            ));
        }
        (Some(_), true) => "--batch-norm changes nothing: the pool has no running statistics".to_owned(),
        (Some(BatchNorm::Average), false) => {
            format!("running statistics are averaged like parameters: {some}")
        }
        (Some(BatchNorm::First), false) => {
            format!("running statistics are those of a soup's first ingredient in pool order: {some}")
        }
        (Some(BatchNorm::Recompute), false) => {
            format!("running statistics are computed anew for every soup, on the calibration set: {some}")
        }
    };
    let what = what.filter(|_| !all.is_empty());
    Ok((schema.normalised(what), Some(note)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::schema::Dtype;

    fn schema(names: &[&str]) -> Schema {
        Schema::new(names.iter().map(|name| TensorSpec::new(*name, Dtype::F32, [2])).collect()).unwrap()
    }

    #[test]
    fn statistics_are_told_by_the_names_of_frameworks() {
        let is = |name: &str, dtype| is_statistic(&TensorSpec::new(name, dtype, [4]));
        for name in [
            "running_mean",
            "resnet.embedder.embedder.normalization.running_var",
            "bn1/moving_mean",
            "layer/moving_variance",
            "batch_stats/BatchNorm_0/mean",
            "model.batch_stats.bn.var",
        ] {
            assert!(is(name, Dtype::F32) && is(name, Dtype::BF16), "{name}");
        }
        for name in
            ["running_mean.weight", "bn.weight", "my_running_mean", "mean", "batch_stats", "running_means"]
        {
            assert!(!is(name, Dtype::F32), "{name}");
        }
        assert!(!is("bn.num_batches_tracked", Dtype::I64) && !is("bn.running_mean", Dtype::I64));
    }

    #[test]
    fn nothing_is_guessed_about_them() {
        let (plain, with) =
            (|| schema(&["a", "b"]), || schema(&["a", "n.running_mean", "n.running_var", "m.running_var"]));
        assert_eq!(settle(plain(), None).unwrap(), (plain(), None));
        let error = settle(with(), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        for part in ["\"m.running_var\", \"n.running_mean\" and 1 more", "--batch-norm", "--calibration"] {
            assert!(error.chain().contains(part), "{}", error.chain());
        }
        for what in BatchNorm::ALL {
            let (settled, note) = settle(with(), Some(what)).unwrap();
            assert_eq!(settled.batch_norm(), Some(what));
            assert_eq!(settled.tensors(), with().tensors());
            assert!(note.unwrap().contains("running_mean"));
            assert_eq!(BatchNorm::from_name(what.name()), Some(what));
        }
        let (settled, note) = settle(plain(), Some(BatchNorm::First)).unwrap();
        assert_eq!(settled, plain());
        assert!(note.unwrap().contains("changes nothing"));
        assert!(settle(plain(), Some(BatchNorm::Recompute)).is_err());
        assert_eq!(statistics_bytes(&with()), 24);
    }
}
