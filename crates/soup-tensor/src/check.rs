//! What is wrong with freshly loaded ingredients: elements that are not finite, integers that differ.
//!
//! An ingredient is inspected when it comes, by itself: the first one may come later, or be gone to where it stays. Of its
//! integers a digest a tensor is kept, and those are compared in the end.

use sha2::{Digest, Sha256};
use soup_core::schema::Dtype;
use soup_core::shard::Segment;
use soup_core::soup::Ingredient;

use crate::format::{Bf16, F16, F32, F64, Format};

/// What was found in one shard. Findings of several shards add up by appending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Infinite and NaN elements; by ingredient, then tensor.
    pub non_finite: Vec<NonFinite>,
    /// Integer tensors unlike the first ingredient's; by ingredient, then tensor.
    pub differing_integers: Vec<DifferingIntegers>,
}

/// Infinite and NaN elements of one tensor of one ingredient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonFinite {
    /// Whose.
    pub ingredient: Ingredient,
    /// Position of the tensor in the schema.
    pub tensor: usize,
    /// How many, in this shard.
    pub elements: u64,
}

/// An integer tensor whose part in this shard is not that of the first ingredient. Soups have the first ingredient's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DifferingIntegers {
    /// Whose.
    pub ingredient: Ingredient,
    /// Position of the tensor in the schema.
    pub tensor: usize,
}

/// What was found in the shard of one ingredient.
pub(crate) struct Inspected {
    /// Infinite and NaN elements, by tensor, where there are any.
    non_finite: Vec<(usize, u64)>,
    /// SHA-256 of every segment that is not averaged, in order.
    integers: Vec<[u8; 32]>,
}

impl Inspected {
    /// Inspects `bytes`, the shard of an ingredient.
    pub(crate) fn of(bytes: &[u8], segments: &[Segment]) -> Inspected {
        let mut found = Inspected { non_finite: Vec::new(), integers: Vec::new() };
        for segment in segments {
            let part = &bytes[segment.range.clone()];
            if !segment.dtype.is_float() {
                found.integers.push(Sha256::digest(part).into());
                continue;
            }
            let elements = count_non_finite(segment.dtype, part);
            if elements > 0 {
                found.non_finite.push((segment.tensor, elements));
            }
        }
        found
    }
}

impl Findings {
    /// What was found in all ingredients. `has_tensor` says which of the tensors each has at all.
    pub(crate) fn of(
        inspected: &[Inspected],
        segments: &[Segment],
        has_tensor: impl Fn(Ingredient, usize) -> bool,
    ) -> Findings {
        let mut all = Findings::default();
        let first = inspected.first().map_or(&[][..], |first| &first.integers);
        // A pool has at most u32::MAX ingredients.
        for (ingredient, found) in (0..).map(Ingredient).zip(inspected) {
            let non_finite = |&(tensor, elements): &(usize, u64)| NonFinite { ingredient, tensor, elements };
            all.non_finite.extend(found.non_finite.iter().map(non_finite));
            let integers = segments.iter().filter(|s| !s.dtype.is_float());
            for ((segment, own), first) in integers.zip(&found.integers).zip(first) {
                let tensor = segment.tensor;
                if own != first && has_tensor(ingredient, tensor) {
                    all.differing_integers.push(DifferingIntegers { ingredient, tensor });
                }
            }
        }
        all
    }
}

/// Infinite and NaN elements; none of integers.
pub(crate) fn count_non_finite(dtype: Dtype, part: &[u8]) -> u64 {
    match dtype {
        Dtype::F64 => count_non_finite_as::<F64>(part),
        Dtype::F32 => count_non_finite_as::<F32>(part),
        Dtype::F16 => count_non_finite_as::<F16>(part),
        Dtype::BF16 => count_non_finite_as::<Bf16>(part),
        _ => 0,
    }
}

fn count_non_finite_as<F: Format>(part: &[u8]) -> u64 {
    let elements: &[F::Bits] = bytemuck::cast_slice(part);
    elements.iter().map(|&bits| u64::from(F::is_not_finite(bits))).sum()
}
