//! Where computations get the ingredients' bytes from.
//!
//! They work in *pieces* of a shard and ask for a piece of every ingredient at a time. Memory lends what it has; a disk reads
//! into a thread's own scratch. Pieces are cut without regard to that, so the bits are the same.

use std::ops::Range;

use soup_core::Result;

/// One shard of all ingredients.
pub(crate) trait Source: Sync {
    /// Size of the shard of one ingredient, in bytes.
    fn bytes(&self) -> usize;

    /// How many ingredients there are.
    fn ingredients(&self) -> usize;

    /// The bytes `range` of the shard of each of `ingredients`, aligned as they are in the shard if that begins at a multiple of
    /// 8 bytes, and for every dtype if `range` does.
    ///
    /// # Errors
    /// Where they cannot be read.
    fn lend<'a>(
        &'a self,
        ingredients: &[usize],
        range: Range<usize>,
        scratch: &'a mut Scratch,
    ) -> Result<Vec<&'a [u8]>>;
}

/// Memory of one thread that pieces are read into: as large as the largest of them, all ingredients together. Pieces have 256 KiB
/// an ingredient in a blend and at most 512 KiB (64 Ki elements of f64) in products.
#[derive(Default)]
pub(crate) struct Scratch {
    words: Vec<u64>,
}

impl Scratch {
    /// `count` times `bytes`, each aligned for every dtype; whatever was in there.
    pub(crate) fn parts(&mut self, count: usize, bytes: usize) -> impl Iterator<Item = &mut [u8]> {
        let words = bytes.div_ceil(size_of::<u64>()).max(1);
        if self.words.len() < words * count {
            self.words.resize(words * count, 0);
        }
        self.words.chunks_exact_mut(words).take(count).map(move |part| {
            let part: &mut [u8] = bytemuck::cast_slice_mut(part);
            &mut part[..bytes]
        })
    }
}

/// Ingredients in memory.
pub(crate) struct Lent<'a>(pub(crate) Vec<&'a [u8]>);

impl Source for Lent<'_> {
    fn bytes(&self) -> usize {
        self.0.first().map_or(0, |first| first.len())
    }

    fn ingredients(&self) -> usize {
        self.0.len()
    }

    fn lend<'a>(
        &'a self,
        ingredients: &[usize],
        range: Range<usize>,
        _: &'a mut Scratch,
    ) -> Result<Vec<&'a [u8]>> {
        Ok(ingredients.iter().map(|&i| &self.0[i][range.clone()]).collect())
    }
}
