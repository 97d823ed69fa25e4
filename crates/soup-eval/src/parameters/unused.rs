//! Tensors of a checkpoint that a model makes no use of: what is averaged and not judged.
//!
//! `config.json` decides which tensors a model has. Where it leaves out what the checkpoint's own model had, the forward pass is another
//! one: a further layer of a stack, or the bias of a weight, is refused. The rest (a pooler, another head) is for people to know.

use std::collections::HashSet;

use soup_core::schema::Schema;
use soup_core::{Error, Result};

/// Most names that a note lists.
const LISTED_MAX: usize = 5;
/// What names end in of tensors that checkpoints have and evaluation never reads: numbers that programs make again, and what stands for
/// hidden patches.
const NEVER_READ: [&str; 7] = [
    "position_ids",
    "token_type_ids",
    "num_batches_tracked",
    "masked_bias",
    "inv_freq",
    "relative_position_index",
    "mask_token",
];
/// Parts of a layer's name whose bias has an option of its own.
const OF_ATTENTION: [&str; 7] = ["query", "key", "value", "qkv", "q_proj", "k_proj", "v_proj"];

/// The tensors of a checkpoint that are none of those that a model is made of.
pub(crate) struct Unused<'a> {
    names: Vec<&'a str>,
    expected: &'a [(String, Vec<u64>)],
}

impl<'a> Unused<'a> {
    /// Those of `schema`, in its order, that are none of `expected`, nor `known` to be there for other reasons.
    pub(crate) fn of(
        schema: &'a Schema,
        expected: &'a [(String, Vec<u64>)],
        known: impl Fn(&str) -> bool,
    ) -> Unused<'a> {
        let used: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let counts = |name: &str| {
            !used.contains(name) && !known(name) && !NEVER_READ.iter().any(|b| name.ends_with(b))
        };
        let tensors = schema.tensors().iter().filter(|t| t.dtype.is_float() && counts(&t.name));
        Unused { names: tensors.map(|t| t.name.as_str()).collect(), expected }
    }

    /// Refuses what the configuration leaves out of what the model has; `depth` is its setting for how many layers there are.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming the tensor and the setting.
    pub(crate) fn check(&self, depth: &str) -> Result<()> {
        if self.names.is_empty() {
            return Ok(());
        }
        let stacks = Stacks::of(self.expected);
        let weights: HashSet<&str> =
            self.expected.iter().filter_map(|(name, _)| name.strip_suffix(".weight")).collect();
        for name in &self.names {
            if let Some(layer) = stacks.beyond(name) {
                return Err(Error::data(format!(
                    "tensor {name:?} is of {layer:?}, and by config.json the model has no such layer: its {depth} leaves it out"
                )));
            }
            if let Some(of) = name.strip_suffix(".bias").filter(|of| weights.contains(of)) {
                let key = match of.split('.').any(|part| OF_ATTENTION.contains(&part)) {
                    true => "its qkv_bias leaves it out",
                    false => "it is that of another kind of model",
                };
                return Err(Error::data(format!(
                    "tensor {name:?} is the bias of a weight that the model has without one by config.json: {key}"
                )));
            }
        }
        Ok(())
    }

    /// What people should know.
    pub(crate) fn note(&self, architecture: &str) -> Option<String> {
        let listed = self.names.iter().take(LISTED_MAX).map(|name| format!("{name:?}")).collect::<Vec<_>>();
        let more = match self.names.len().saturating_sub(LISTED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!listed.is_empty()).then(|| {
            format!(
                "{architecture} makes no use of {}{more}: such tensors of the checkpoints are averaged, and not judged",
                listed.join(", ")
            )
        })
    }
}

/// Layers that are told apart by numbers in the names of their tensors.
struct Stacks<'a> {
    /// What stands before and after the number.
    around: HashSet<(&'a str, &'a str)>,
    /// What stands before it, and the number.
    layers: HashSet<(&'a str, &'a str)>,
    /// What names begin with, up to each dot.
    beginnings: HashSet<&'a str>,
}

impl<'a> Stacks<'a> {
    fn of(expected: &'a [(String, Vec<u64>)]) -> Stacks<'a> {
        let all = || expected.iter().flat_map(|(name, _)| numbers(name));
        Stacks {
            around: all().map(|(before, _, after)| (before, after)).collect(),
            layers: all().map(|(before, number, _)| (before, number)).collect(),
            beginnings: expected
                .iter()
                .flat_map(|(name, _)| name.match_indices('.').map(move |(dot, _)| &name[..=dot]))
                .collect(),
        }
    }

    /// The layer of a tensor that others of a stack have, where the stack has no such layer.
    fn beyond(&self, name: &str) -> Option<String> {
        let further = |(before, number, after): &(&str, &str, &str)| {
            self.around.contains(&(*before, *after)) && !self.layers.contains(&(*before, *number))
        };
        let further = numbers(name).find(further);
        let layer =
            further.or_else(|| numbers(name).next().filter(|(before, _, _)| self.is_left_out(before)));
        layer.map(|(before, number, _)| format!("{before}{number}"))
    }

    /// Whether what stands before a number is a stack of a part of the model, which by its configuration has none of its layers: what is left of
    /// `encoder.layer.0` is no stack, then. Other parts (another tower, another head) may be left out with theirs.
    fn is_left_out(&self, before: &str) -> bool {
        let part = || before.trim_end_matches('.').rsplitn(3, '.').nth(2);
        !self.beginnings.contains(before)
            && (self.layers.is_empty()
                || part().is_some_and(|part| self.beginnings.contains(&before[..=part.len()])))
    }
}

/// The parts of a name that are numbers, with what stands before and after each.
fn numbers(name: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let parts = name.split('.').scan(0, |at, part| {
        let start = *at;
        *at += part.len() + 1;
        Some((start, part))
    });
    let numbers = parts.filter(|(_, part)| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    numbers.map(|(start, part)| (&name[..start], part, &name[start + part.len()..]))
}

#[cfg(test)]
mod tests {
    use soup_core::schema::{Dtype, TensorSpec};

    use super::*;

    /// What is said of a checkpoint that has `more` besides what the model needs.
    fn said(more: &str, dtype: Dtype) -> std::result::Result<Option<String>, String> {
        let names =
            ["m.layer.0.key.weight", "m.layer.0.norm.bias", "m.layer.1.key.weight", "m.layer.1.norm.bias"];
        let expected: Vec<(String, Vec<u64>)> =
            names.iter().map(|name| ((*name).to_owned(), vec![1])).collect();
        let all = names.iter().map(|name| TensorSpec::new(*name, Dtype::F32, [1]));
        let schema = Schema::new(all.chain([TensorSpec::new(more, dtype, [1])]).collect::<Vec<_>>()).unwrap();
        let unused = Unused::of(&schema, &expected, |name| name == "m.twin");
        unused.check("depth").map_err(|e| e.chain())?;
        Ok(unused.note("M"))
    }

    #[test]
    fn a_stack_of_which_the_configuration_leaves_out_all_layers_is_refused() {
        let check = |expected: &[&str], more: &str| {
            let names: Vec<(String, Vec<u64>)> =
                expected.iter().map(|name| ((*name).to_owned(), vec![1])).collect();
            let all = expected.iter().copied().chain([more]);
            let all = all.map(|name| TensorSpec::new(name, Dtype::F32, [1])).collect::<Vec<_>>();
            Unused::of(&Schema::new(all).unwrap(), &names, |_| false).check("depth").map_err(|e| e.chain())
        };
        let shallow = ["bert.embeddings.word.weight", "classifier.weight"];
        let error = check(&shallow, "bert.encoder.layer.0.key.weight").unwrap_err();
        assert!(error.contains("is of \"bert.encoder.layer.0\", and by config.json"), "{error}");
        check(&["patch_embed.weight", "head.weight"], "blocks.0.norm.weight").unwrap_err();
        check(&shallow, "bert.pooler.dense.weight").unwrap();
        // One tower of two has none.
        let towers = ["text.embeddings.weight", "vision.embeddings.weight", "vision.encoder.layers.0.weight"];
        check(&towers, "text.encoder.layers.0.weight").unwrap_err();
        // Another tower, and another head, are none of the model's own stacks.
        check(&towers[1..], "text.encoder.layers.0.weight").unwrap();
        check(&towers, "text.head.0.weight").unwrap();
    }

    #[test]
    fn what_the_configuration_leaves_out_is_refused() {
        let refused = |name: &str, part: &str| {
            let error = said(name, Dtype::F32).unwrap_err();
            assert!(error.starts_with(&format!("tensor {name:?}")) && error.contains(part), "{error}");
        };
        refused("m.layer.2.key.weight", "is of \"m.layer.2\", and by config.json");
        refused("m.layer.2.key.weight", "its depth leaves it out");
        refused("m.layer.12.norm.bias", "its depth leaves it out");
        refused("m.layer.1.key.bias", "its qkv_bias leaves it out");
    }

    #[test]
    fn the_rest_is_noted_unless_it_is_no_parameter() {
        for name in ["m.pooler.weight", "m.pooler.bias", "other.layer.2.key.weight", "m.layer.0.more.weight"]
        {
            let note = said(name, Dtype::F32).unwrap().unwrap();
            assert!(note.starts_with("M makes no use of") && note.contains(&format!("{name:?}")), "{note}");
        }
        assert_eq!(said("m.embeddings.position_ids", Dtype::F32), Ok(None));
        assert_eq!(said("m.pooler.weight", Dtype::I64), Ok(None));
        assert_eq!(said("m.twin", Dtype::F32), Ok(None));
    }
}
