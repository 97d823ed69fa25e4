//! What files are to a pool, by their names.

use crate::checkpoint::{EXTENSION, INDEX_FILE, MODEL_FILE};

/// What a file is to a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A safetensors file that may be a checkpoint.
    Weights,
    /// One of several safetensors files of a checkpoint.
    Shard,
    /// The one file, or the index, of a checkpoint in another variant: `model.fp16.safetensors`.
    Variant(String),
    /// Weights that are added to those of another model.
    Adapter,
    /// What a training run keeps to go on.
    Training,
    /// A checkpoint in a format that is not read: which one, and what to do.
    Foreign(&'static str),
    /// A file of such a format that need not be a checkpoint.
    Doubtful,
    /// A safetensors file that is not whole, or packed.
    Unfinished,
    /// Nothing that holds weights.
    Other,
}

const TORCH: &str = "a PyTorch file: load it there and save it as safetensors (`save_pretrained`, or `safetensors.torch.save_file`)";
const TENSORFLOW: &str = "a TensorFlow file: load it with `from_tf=True` and save it with `save_pretrained`";
const FLAX: &str = "a Flax file: load it with `from_flax=True` and save it with `save_pretrained`";
const GGUF: &str = "a GGUF file: take the model that it was converted from";
const DISTRIBUTED: &str =
    "a part of a distributed checkpoint: merge it into one first (`accelerate merge-weights`)";
const ZERO: &str =
    "a part of a DeepSpeed checkpoint: merge it into one first (`zero_to_fp32.py --safe_serialization`)";

impl Kind {
    /// The kind of the file `name`.
    pub(super) fn of(name: &str) -> Kind {
        let lower = name.to_ascii_lowercase();
        if is_upload(&lower) {
            return Kind::Unfinished;
        }
        if let Some(stem) = lower.strip_suffix(EXTENSION) {
            return safetensors(stem);
        }
        let index = INDEX_FILE.trim_end_matches("json");
        let variant = lower.strip_prefix(index).and_then(|rest| rest.strip_suffix(".json"));
        if let Some(variant) = variant.filter(|v| !v.is_empty()) {
            return Kind::Variant(variant.to_owned());
        }
        if let Some((_, after)) = lower.split_once(&format!("{EXTENSION}.")) {
            return match after {
                "gz" | "zip" | "xz" | "zst" | "bz2" | "part" | "partial" | "incomplete" | "crdownload"
                | "download" | "tmp" | "aria2" => Kind::Unfinished,
                "bak" | "backup" | "old" | "orig" => Kind::Doubtful,
                _ => Kind::Other,
            };
        }
        if lower.ends_with(".index.json") {
            return Kind::Other;
        }
        other_formats(&lower)
    }

    /// Whether a file of this kind holds a model's weights, in whatever way.
    pub(super) fn is_weights(&self) -> bool {
        !matches!(self, Kind::Training | Kind::Doubtful | Kind::Other)
    }
}

/// Whether a store's client (`object_store`) was writing a safetensors file under this name: `m.safetensors#1`.
fn is_upload(lower: &str) -> bool {
    let part = lower.split_once('#').filter(|(name, _)| name.ends_with(EXTENSION));
    part.is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

fn safetensors(stem: &str) -> Kind {
    if is_training(stem) {
        return Kind::Training;
    }
    if stem == "adapter_model" || stem.starts_with("adapter_model-") || stem == "pytorch_lora_weights" {
        return Kind::Adapter;
    }
    if of_several(stem) {
        return Kind::Shard;
    }
    let base = MODEL_FILE.strip_suffix(EXTENSION).unwrap_or(MODEL_FILE);
    match stem.strip_prefix(base).and_then(|rest| rest.strip_prefix('.')).filter(|v| !v.is_empty()) {
        Some(variant) => Kind::Variant(variant.to_owned()),
        None => Kind::Weights,
    }
}

/// Whether a stem ends in `-00001-of-00002`. One of one is whole.
fn of_several(stem: &str) -> bool {
    let Some((before, total)) = stem.rsplit_once("-of-") else { return false };
    let Some((_, number)) = before.rsplit_once('-') else { return false };
    let digits = |s: &str| s.len() >= 3 && s.bytes().all(|b| b.is_ascii_digit());
    digits(total) && digits(number) && total.trim_start_matches('0') != "1"
}

/// Whether a training run keeps its own state in a file of this stem: `optimizer`, `rng_state_0`.
fn is_training(stem: &str) -> bool {
    let base = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    let base = if base.len() < stem.len() { base.trim_end_matches(['_', '-']) } else { base };
    [
        "optimizer",
        "optim",
        "scheduler",
        "scaler",
        "sampler",
        "rng_state",
        "random_states",
        "training_args",
        "trainer_state",
        "custom_checkpoint",
    ]
    .contains(&base)
}

fn other_formats(lower: &str) -> Kind {
    let (stem, extension) = lower.rsplit_once('.').unwrap_or((lower, ""));
    if is_training(stem) || lower.contains("optim_states") {
        return Kind::Training;
    }
    if stem == "adapter_model" {
        return Kind::Adapter;
    }
    let model = [
        "pytorch_model",
        "model",
        "tf_model",
        "flax_model",
        "diffusion_pytorch_model",
        "open_clip_pytorch_model",
    ]
    .iter()
    .any(|m| stem == *m || stem.strip_prefix(m).is_some_and(|rest| rest.starts_with(['-', '.', '_'])));
    match extension {
        "pt" | "pth" if lower.contains("model_states") || lower.contains("zero_pp_rank") => {
            Kind::Foreign(ZERO)
        }
        "pt" | "pth" | "ckpt" => Kind::Foreign(TORCH),
        "gguf" => Kind::Foreign(GGUF),
        "distcp" => Kind::Foreign(DISTRIBUTED),
        "bin" if model => Kind::Foreign(TORCH),
        "h5" if model => Kind::Foreign(TENSORFLOW),
        "keras" => Kind::Foreign(TENSORFLOW),
        "pb" if stem == "saved_model" => Kind::Foreign(TENSORFLOW),
        "msgpack" if model => Kind::Foreign(FLAX),
        "bin" | "h5" | "msgpack" | "onnx" | "npz" | "npy" | "pkl" | "st" | "safetensor" => Kind::Doubtful,
        "zip" | "tar" | "tgz" | "gz" | "xz" | "zst" | "bz2" | "7z" => Kind::Doubtful,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_by_name() {
        let check = |kind: Kind, names: &[&str]| {
            names.iter().for_each(|name| assert_eq!(Kind::of(name), kind, "{name}"));
        };
        check(
            Kind::Weights,
            &["model.safetensors", "m 1.safetensors", "a.fp16.safetensors", "optimizer-sgd.safetensors"],
        );
        check(
            Kind::Weights,
            &[
                "model-00001-of-00001.safetensors",
                "best-of-3.safetensors",
                "consolidated.safetensors",
                "m#1.safetensors",
            ],
        );
        check(Kind::Shard, &["model-00001-of-00002.safetensors", "x-00003-of-00010.safetensors"]);
        check(Kind::Variant("fp16".into()), &["model.fp16.safetensors", "model.safetensors.index.fp16.json"]);
        check(
            Kind::Adapter,
            &["adapter_model.safetensors", "adapter_model.bin", "pytorch_lora_weights.safetensors"],
        );
        check(
            Kind::Training,
            &[
                "optimizer.pt",
                "optimizer.safetensors",
                "optimizer_1.bin",
                "scheduler.pt",
                "training_args.bin",
            ],
        );
        check(Kind::Training, &["rng_state_0.pth", "random_states_0.pkl", "trainer_state.json"]);
        check(
            Kind::Foreign(TORCH),
            &["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "last.ckpt", "BEST.PT", "x.pth"],
        );
        check(Kind::Foreign(TENSORFLOW), &["tf_model.h5", "saved_model.pb"]);
        check(Kind::Foreign(FLAX), &["flax_model.msgpack"]);
        check(Kind::Foreign(ZERO), &["mp_rank_00_model_states.pt"]);
        check(Kind::Foreign(DISTRIBUTED), &["__0_0.distcp"]);
        check(
            Kind::Unfinished,
            &[
                "model.safetensors.gz",
                "model.safetensors.incomplete",
                "m.safetensors.download",
                "m.safetensors#1",
            ],
        );
        check(
            Kind::Doubtful,
            &["features.bin", "x.h5", "x.safetensor", "x.st", "a.zip", "b.tar.gz", "m.ckpt.zip"],
        );
        check(Kind::Doubtful, &["m.safetensors.bak", "M.SAFETENSORS.old"]);
        check(Kind::Weights, &["M.SAFETENSORS", "m.Safetensors"]);
        check(
            Kind::Other,
            &["model.safetensors.index.json", "config.json", "README.md", "model.safetensors.sha256", "log"],
        );
    }
}
