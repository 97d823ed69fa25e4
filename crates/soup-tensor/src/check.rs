//! What is wrong with freshly loaded ingredients: elements that are not finite, integers that differ.

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

impl Findings {
    /// Appends what was found in `ingredient`, whose shard is `bytes`; `first` is the first ingredient's. `has_tensor` says
    /// which of the tensors the ingredient has at all.
    pub(crate) fn inspect(
        &mut self,
        segments: &[Segment],
        ingredient: Ingredient,
        bytes: &[u8],
        first: &[u8],
        has_tensor: impl Fn(usize) -> bool,
    ) {
        for segment in segments {
            let (tensor, part) = (segment.tensor, &bytes[segment.range.clone()]);
            let elements = match segment.dtype {
                Dtype::F64 => count_non_finite::<F64>(part),
                Dtype::F32 => count_non_finite::<F32>(part),
                Dtype::F16 => count_non_finite::<F16>(part),
                Dtype::BF16 => count_non_finite::<Bf16>(part),
                _ => {
                    if has_tensor(tensor) && part != &first[segment.range.clone()] {
                        self.differing_integers.push(DifferingIntegers { ingredient, tensor });
                    }
                    0
                }
            };
            if elements > 0 {
                self.non_finite.push(NonFinite { ingredient, tensor, elements });
            }
        }
    }

    /// Appends the findings of the next ingredient.
    pub(crate) fn append(&mut self, mut next: Findings) {
        self.non_finite.append(&mut next.non_finite);
        self.differing_integers.append(&mut next.differing_integers);
    }
}

fn count_non_finite<F: Format>(part: &[u8]) -> u64 {
    let elements: &[F::Bits] = bytemuck::cast_slice(part);
    elements.iter().map(|&bits| u64::from(F::is_not_finite(bits))).sum()
}
