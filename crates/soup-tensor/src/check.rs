//! What is wrong with freshly loaded ingredients: elements that are not finite, integers that differ.
//!
//! An ingredient is inspected while it comes, by itself: the first one may come later, or be gone to where it stays. Of its
//! integers a digest a tensor is kept, and those are compared in the end.

use sha2::{Digest, Sha256};
use soup_core::schema::Dtype;
use soup_core::shard::Segment;
use soup_core::soup::Ingredient;

use crate::format::{Bf16, F16, F32, F64, Format};

/// Elements among which is looked for those that are not finite, before they are counted.
const ELEMENTS_AT_ONCE: usize = 2048;

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
        let mut inspecting = Inspecting::new(segments);
        inspecting.update(bytes);
        inspecting.finish()
    }
}

/// Inspects the shard of one ingredient as it comes, in order, in parts that may end anywhere.
pub(crate) struct Inspecting<'a> {
    /// What is still to come; the first may have begun.
    segments: &'a [Segment],
    /// Bytes that came.
    seen: usize,
    /// Elements of the first segment that are not finite.
    elements: u64,
    /// Of an element that ended with no part: what came of it.
    split: Vec<u8>,
    /// Of the first segment, where it has integers.
    integers: Sha256,
    found: Inspected,
}

impl<'a> Inspecting<'a> {
    /// Of a shard with these segments, which cover it in order, and of which nothing has come.
    pub(crate) fn new(segments: &'a [Segment]) -> Inspecting<'a> {
        let found = Inspected { non_finite: Vec::new(), integers: Vec::new() };
        Inspecting { segments, seen: 0, elements: 0, split: Vec::new(), integers: Sha256::new(), found }
    }

    /// Takes what comes next.
    pub(crate) fn update(&mut self, mut part: &[u8]) {
        while let Some((segment, rest)) = self.segments.split_first() {
            let missing = segment.range.end.saturating_sub(self.seen);
            let (own, others) = part.split_at(missing.min(part.len()));
            self.take(segment.dtype, own);
            self.seen += own.len();
            if own.len() < missing {
                return;
            }
            self.close(segment);
            (self.segments, part) = (rest, others);
        }
    }

    /// What was found in all that came.
    pub(crate) fn finish(self) -> Inspected {
        self.found
    }

    fn take(&mut self, dtype: Dtype, mut bytes: &[u8]) {
        if !dtype.is_float() {
            return self.integers.update(bytes);
        }
        let size = dtype.width_bytes() as usize;
        if !self.split.is_empty() {
            let (end, others) = bytes.split_at((size - self.split.len()).min(bytes.len()));
            self.split.extend_from_slice(end);
            bytes = others;
            if self.split.len() < size {
                return;
            }
            self.elements += count_non_finite(dtype, &self.split);
            self.split.clear();
        }
        let (whole, begun) = bytes.split_at(bytes.len() - bytes.len() % size);
        self.elements += count_non_finite(dtype, whole);
        self.split.extend_from_slice(begun);
    }

    fn close(&mut self, segment: &Segment) {
        let elements = std::mem::take(&mut self.elements);
        if !segment.dtype.is_float() {
            self.found.integers.push(self.integers.finalize_reset().into());
        } else if elements > 0 {
            self.found.non_finite.push((segment.tensor, elements));
        }
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

/// Infinite and NaN elements of `part`, whole elements at any address; none of integers.
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
    let size = size_of::<F::Bits>();
    let of = |chunk: &[u8]| {
        let elements = || chunk.chunks_exact(size).map(bytemuck::pod_read_unaligned).map(F::is_not_finite);
        // There are hardly ever any, and whether there are is found faster than how many.
        if elements().fold(false, |any, one| any | one) { elements().map(u64::from).sum() } else { 0 }
    };
    part.chunks(ELEMENTS_AT_ONCE * size).map(of).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use soup_core::schema::{Schema, TensorSpec};
    use soup_core::shard::segments;

    use super::*;

    /// What is found, counted element by element.
    fn counted(bytes: &[u8], segments: &[Segment]) -> (Vec<(usize, u64)>, Vec<[u8; 32]>) {
        let (mut non_finite, mut integers) = (Vec::new(), Vec::new());
        for segment in segments {
            let part = &bytes[segment.range.clone()];
            let elements = part.chunks_exact(segment.dtype.width_bytes() as usize);
            let finite = |element: &[u8]| match segment.dtype {
                Dtype::F64 => f64::from_le_bytes(element.try_into().unwrap()).is_finite(),
                Dtype::F32 => f32::from_le_bytes(element.try_into().unwrap()).is_finite(),
                Dtype::F16 => half::f16::from_le_bytes(element.try_into().unwrap()).is_finite(),
                Dtype::BF16 => half::bf16::from_le_bytes(element.try_into().unwrap()).is_finite(),
                _ => true,
            };
            match elements.filter(|e| !finite(e)).count() as u64 {
                _ if !segment.dtype.is_float() => integers.push(Sha256::digest(part).into()),
                0 => {}
                some => non_finite.push((segment.tensor, some)),
            }
        }
        (non_finite, integers)
    }

    proptest! {
        /// Parts may end within an element, a segment, or several segments later.
        #[test]
        fn however_a_shard_comes_the_same_is_found(
            tensors in prop::collection::vec((prop::sample::select(Dtype::ALL.to_vec()), 0u64..9000), 1..6),
            seed in any::<u64>(),
            often in 1u64..400,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let specs = tensors.into_iter().enumerate();
            let specs = specs.map(|(i, (dtype, count))| TensorSpec::new(format!("t{i}"), dtype, [count]));
            let schema = Schema::new(specs.collect()).unwrap();
            let segments = segments(&schema, 0..schema.bytes());
            // Now and then a byte that makes an element infinite or NaN, if beside another such.
            let mut state = seed;
            let bytes: Vec<u8> = (0..schema.bytes()).map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if state >> 33 < (u64::from(u32::MAX) >> 1) / (often * 8) { 0xff } else { (i % 64) as u8 }
            }).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut inspecting = Inspecting::new(&segments);
            let starts = std::iter::once(0).chain(cuts.iter().copied());
            for (start, end) in starts.zip(cuts.iter().copied().chain([bytes.len()])) {
                inspecting.update(&bytes[start..end]);
            }
            let found = inspecting.finish();
            prop_assert_eq!((found.non_finite, found.integers), counted(&bytes, &segments));
        }
    }
}
