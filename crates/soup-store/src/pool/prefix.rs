//! Prefixes that training tools put before the name of every tensor.
//!
//! A model inside of a wrapper has its wrapper's name before all of its own names. Where every tensor of a checkpoint has it, it is
//! taken off. `model.` is the name of Lightning's wrapper and of a part of many models (`model.layers` beside `lm_head`, or
//! alone where weights are tied), so it is taken off only where other ingredients, or the model's type, say that it is a wrapper's.

use std::collections::HashSet;

use soup_core::Result;
use soup_core::companion::CONFIG;
use soup_core::schema::TensorSpec;

use super::companions;
use crate::checkpoint::{Checkpoint, TensorPlace, table};
use crate::kept::Kept;

/// Names of wrappers, which are no part of any model: of DistributedDataParallel and DataParallel, `torch.compile`, DeepSpeed
/// in Lightning, FullyShardedDataParallel.
const WRAPPERS: [&str; 4] = ["module.", "_orig_mod.", "_forward_module.", "_fsdp_wrapped_module."];
/// The name of a wrapper that may be a part of the model.
const AMBIGUOUS: &str = "model.";

/// What a wrapper that averages keeps beside the model, and puts no prefix before.
const WRAPPERS_OWN: &str = "n_averaged";

/// Takes wrappers' names off, and says so, one line for each prefix.
pub(super) async fn strip(checkpoints: &mut [Checkpoint], kept: &Kept) -> Result<Vec<String>> {
    let mut taken = Vec::new();
    for checkpoint in checkpoints.iter_mut() {
        let length = wrapped(checkpoint, &WRAPPERS);
        taken.push(shorten(checkpoint, length, kept)?);
    }
    for at in 0..checkpoints.len() {
        let all = [&WRAPPERS[..], &[AMBIGUOUS]].concat();
        let length = wrapped(&checkpoints[at], &all);
        if length > 0 && is_wrapper(checkpoints, at, length).await? {
            taken[at] += &shorten(&mut checkpoints[at], length, kept)?;
        }
    }
    let mut prefixes: Vec<&String> = taken.iter().filter(|p| !p.is_empty()).collect();
    prefixes.sort();
    prefixes.dedup();
    let note = |prefix: &String| {
        let names: Vec<&str> = checkpoints
            .iter()
            .zip(&taken)
            .filter(|(_, p)| *p == prefix)
            .map(|(c, _)| c.name.as_str())
            .collect();
        let who = if names.len() == 1 { "ingredient" } else { "ingredients" };
        format!(
            "{who} {}: the prefix {prefix:?} of every tensor's name is taken off",
            super::survey::some(names.into_iter())
        )
    };
    Ok(prefixes.into_iter().map(note).collect())
}

/// The names of the model's tensors.
fn names(checkpoint: &Checkpoint) -> impl Iterator<Item = &str> {
    checkpoint.schema.tensors().iter().map(|t| t.name.as_str()).filter(|name| *name != WRAPPERS_OWN)
}

/// Length of what all names begin with and is made of `wrappers`.
fn wrapped(checkpoint: &Checkpoint, wrappers: &[&str]) -> usize {
    let mut length = 0;
    loop {
        let more = |w: &&&str| {
            names(checkpoint).all(|n| n[length..].strip_prefix(**w).is_some_and(|rest| !rest.is_empty()))
        };
        match wrappers.iter().find(more) {
            Some(wrapper) if names(checkpoint).next().is_some() => length += wrapper.len(),
            _ => return length,
        }
    }
}

/// Takes the first `length` bytes off every name; returns them.
fn shorten(checkpoint: &mut Checkpoint, length: usize, kept: &Kept) -> Result<String> {
    let Some(prefix) = names(checkpoint).next().map(|name| name[..length].to_owned()) else {
        return Ok(String::new());
    };
    if length == 0 {
        return Ok(prefix);
    }
    let mut tensors: Vec<(TensorSpec, TensorPlace)> =
        checkpoint.tensors().map(|(spec, place)| (spec.clone(), place)).collect();
    for (tensor, _) in &mut tensors {
        if tensor.name != WRAPPERS_OWN {
            tensor.name.drain(..length);
        }
    }
    let (schema, places) = table(tensors).map_err(|e| e.context(checkpoint.location.to_string()))?;
    (checkpoint.schema, checkpoint.places) = kept.keep(&checkpoint.location, schema, places)?;
    Ok(prefix)
}

/// Whether the ambiguous prefix of `length` bytes is a wrapper's: others of the pool have more names in common with this one
/// without it; or, where all have it, what comes after it is called as the model's type is (`model.vit.embeddings`).
async fn is_wrapper(checkpoints: &[Checkpoint], at: usize, length: usize) -> Result<bool> {
    let this = &checkpoints[at];
    let others = checkpoints.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, c)| c);
    let ambiguous = |c: &Checkpoint| wrapped(c, &[AMBIGUOUS]) > 0;
    if let Some(reference) = others.into_iter().find(|c| !ambiguous(c)) {
        let theirs: HashSet<&str> = names(reference).collect();
        let common = |skip: usize| names(this).filter(|name| theirs.contains(&name[skip..])).count();
        return Ok(common(length) > common(0));
    }
    let found = companions(this).await?;
    let config = found.iter().find(|(name, _)| name == CONFIG).map(|(_, content)| content);
    let config: serde_json::Value = config.and_then(|c| serde_json::from_slice(c).ok()).unwrap_or_default();
    let Some(kind) = config["model_type"].as_str().filter(|kind| !kind.is_empty()) else { return Ok(false) };
    let part = format!("{kind}.");
    Ok(names(this).any(|name| name[length..].starts_with(&part)))
}

#[cfg(test)]
mod tests;
