//! What is wrong with freshly loaded ingredients: elements that are not finite, integers that differ.

use soup_core::Result;
use soup_core::schema::Dtype;
use soup_core::shard::Segment;
use soup_core::soup::Ingredient;

use crate::blend::PIECE_BYTES;
use crate::format::{Bf16, F16, F32, F64, Format};
use crate::source::{Scratch, Source};

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
    /// Appends what was found in `ingredient`. `has_tensor` says which of the tensors it has at all.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(crate) fn inspect(
        &mut self,
        source: &dyn Source,
        segments: &[Segment],
        ingredient: Ingredient,
        scratch: &mut Scratch,
        has_tensor: impl Fn(usize) -> bool,
    ) -> Result<()> {
        for segment in segments {
            let (tensor, end) = (segment.tensor, segment.range.end);
            let (mut elements, mut differs) = (0, false);
            for start in segment.range.clone().step_by(PIECE_BYTES) {
                let piece = start..end.min(start + PIECE_BYTES);
                if segment.dtype.is_float() {
                    let part = source.lend(&[ingredient.index()], piece, scratch)?[0];
                    elements += count_non_finite(segment.dtype, part);
                } else if has_tensor(tensor) {
                    let parts = source.lend(&[ingredient.index(), 0], piece, scratch)?;
                    differs |= parts[0] != parts[1];
                }
            }
            if differs {
                self.differing_integers.push(DifferingIntegers { ingredient, tensor });
            }
            if elements > 0 {
                self.non_finite.push(NonFinite { ingredient, tensor, elements });
            }
        }
        Ok(())
    }

    /// Appends the findings of the next ingredient.
    pub(crate) fn append(&mut self, mut next: Findings) {
        self.non_finite.append(&mut next.non_finite);
        self.differing_integers.append(&mut next.differing_integers);
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
