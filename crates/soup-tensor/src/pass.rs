//! One pass over a shard of which nothing is kept: what is read is digested, inspected, multiplied and blended while it is in the
//! processor's cache.
//!
//! # Words
//!
//! A shard is cut into *pieces* of one tensor, those in which inner products are summed, and pieces into *tiles*: what is read of every ingredient at a time. What an ingredient *stores* of a tile may have other dtypes than the
//! soup; then its elements are widened to `f64`, which is exact, and the blend is rounded once, to the soup's dtype.
//!
//! # Flow
//!
//! [`Passing`] says what is where. Whoever reads makes a [`Pass`] for a soup, gives it tile after tile, and gets what was found
//! ([`Passed`]) when it is through. Bits are those of a shard that is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use soup_core::digest::DigestKind;
use soup_core::schema::{Dtype, Schema};
use soup_core::shard::{Segment, Stored, segments};
use soup_core::soup::{Ingredient, Soup};
use soup_core::{Error, Result};

use crate::blend::{Parts, check_fit, copied};
use crate::check::{DifferingIntegers, Findings, NonFinite, count_non_finite};
use crate::digests::Digests;
use crate::format::{Bf16, F16, F32, F64, Format};
use crate::kernel::Sums;
use crate::products::{PIECE_ELEMENTS, Piece, add_piece, gram, pieces};
use crate::{SegmentGram, kernel};

/// What is read of one ingredient at a time: with all of them it should stay in a processor's cache.
const TILE_BYTES: usize = 256 << 10;

/// What an ingredient, or the base, has of a shard.
#[derive(Clone, Debug, Default)]
pub struct Having {
    /// The dtypes of tensors, by position, that are stored in another one than the soup's.
    pub dtypes: BTreeMap<usize, Dtype>,
    /// Byte ranges of what is read, in the layout of [`Stored`], that the ingredient has; the others are zeros.
    pub covered: Vec<Range<usize>>,
}

/// A shard that is to be passed over.
pub struct Passing {
    segments: Vec<Segment>,
    /// One a segment: whose it is, for those that are copied.
    copied_from: Vec<Option<usize>>,
    tensors: usize,
    bytes: usize,
    stored: Vec<Stored>,
    /// Whether each ingredient has each segment.
    has: Vec<Vec<bool>>,
    base: Option<Stored>,
    /// Whether all is stored in the soup's dtypes.
    native: bool,
    products: bool,
    digest: DigestKind,
    pieces: Vec<Piece>,
    tiles: Vec<Range<usize>>,
}

/// Where a piece is in what is read of an ingredient.
fn in_stored(piece: &Piece, stored: &Stored) -> Range<usize> {
    stored.range(piece.segment, piece.first, piece.count)
}

impl Passing {
    /// The byte range `range` of the flattened parameters of `schema`, of what these `ingredients` have, and the base. With
    /// `products`, their inner products are wanted.
    pub fn new(
        schema: &Schema,
        range: Range<u64>,
        ingredients: &[Having],
        base: Option<&Having>,
        products: bool,
    ) -> Passing {
        let segments = segments(schema, range.clone());
        let layout = |having: &Having| {
            Stored::new(&segments, |s| having.dtypes.get(&s.tensor).copied().unwrap_or(s.dtype))
        };
        let stored: Vec<Stored> = ingredients.iter().map(layout).collect();
        let base = base.map(layout);
        let has = |(having, stored): (&Having, &Stored)| {
            let covers = |within: Range<usize>| {
                having.covered.iter().any(|c| c.start <= within.start && within.end <= c.end)
            };
            segments.iter().enumerate().map(|(at, s)| covers(stored.range(at, 0, s.elements()))).collect()
        };
        let copied_from = |s: &Segment| {
            let first = schema.taken_from(s.tensor).map_or(0, Ingredient::index);
            (!schema.is_averaged(s.tensor)).then_some(first)
        };
        let mut passing = Passing {
            has: ingredients.iter().zip(&stored).map(has).collect(),
            copied_from: segments.iter().map(copied_from).collect(),
            tensors: schema.tensors().len(),
            bytes: (range.end - range.start) as usize,
            native: stored.iter().chain(&base).all(|s| s.is_native(&segments)),
            pieces: pieces(&segments),
            tiles: Vec::new(),
            segments,
            stored,
            base,
            products,
            digest: DigestKind::default(),
        };
        passing.cut();
        passing
    }

    /// The same, of which what is read is digested by this algorithm.
    #[must_use]
    pub fn digested_by(self, digest: DigestKind) -> Passing {
        Passing { digest, ..self }
    }

    fn cut(&mut self) {
        let (mut tile_bytes, mut first) = (0, 0);
        for (at, piece) in self.pieces.iter().enumerate() {
            tile_bytes += piece.range(&self.segments).len();
            if tile_bytes >= TILE_BYTES || at + 1 == self.pieces.len() {
                self.tiles.push(first..at + 1);
                (tile_bytes, first) = (0, at + 1);
            }
        }
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.tiles.len()
    }

    /// Number of ingredients.
    pub fn ingredients(&self) -> usize {
        self.stored.len()
    }

    /// Size of the blend in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a base is read too.
    pub fn has_base(&self) -> bool {
        self.base.is_some()
    }

    /// Where the tiles `tiles` are in what is read of ingredient `ingredient`; of the base, if that is as many as there are.
    pub fn stored_range(&self, ingredient: usize, tiles: Range<usize>) -> Range<usize> {
        let Some(stored) = self.stored.get(ingredient).or(self.base.as_ref()) else { return 0..0 };
        match self.pieces_of(tiles) {
            [] => 0..0,
            [first, .., last] => in_stored(first, stored).start..in_stored(last, stored).end,
            [only] => in_stored(only, stored),
        }
    }

    fn pieces_of(&self, tiles: Range<usize>) -> &[Piece] {
        match self.tiles.get(tiles) {
            Some([first, .., last]) => &self.pieces[first.start..last.end],
            Some([only]) => &self.pieces[only.clone()],
            _ => &[],
        }
    }

    /// Where a tile is in the blend.
    pub fn blend_range(&self, tile: usize) -> Range<usize> {
        match self.pieces_of(tile..tile + 1) {
            [] => 0..0,
            [first, .., last] => first.range(&self.segments).start..last.range(&self.segments).end,
            [only] => only.range(&self.segments),
        }
    }
}

/// What was found in a shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Passed {
    /// The digest of what each ingredient stores of it.
    pub digests: Vec<[u8; 32]>,
    /// What is wrong with the ingredients.
    pub findings: Findings,
    /// Inner products, if they are wanted; by part of a tensor that is averaged.
    pub grams: Vec<SegmentGram>,
    /// Tensors of the soup, by position, with elements that are not finite though all of the members' are: the dtype cannot hold
    /// them.
    pub overflown: BTreeSet<usize>,
}

/// A pass in progress. Tiles are given in order, each once.
pub struct Pass {
    passing: Arc<Passing>,
    soup: Option<Parts>,
    digests: Digests,
    non_finite: BTreeMap<(usize, usize), u64>,
    differing: BTreeSet<(usize, usize)>,
    /// By segment.
    grams: Vec<(usize, Vec<f64>)>,
    overflown: BTreeSet<usize>,
    sums: Sums,
    /// Elements as `f64`, one an ingredient and one for the base, and the blend of them.
    widened: Vec<Vec<f64>>,
    blended: Vec<f64>,
}

impl Pass {
    /// A pass that blends `soup`, if there is one to blend.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for a soup that does not fit the shard.
    pub fn new(passing: Arc<Passing>, soup: Option<&Soup>) -> Result<Pass> {
        if let Some(soup) = soup {
            check_fit(soup, passing.ingredients(), passing.tensors, [passing.bytes; 2])?;
        }
        let wide = if passing.native { 0 } else { PIECE_ELEMENTS };
        let vectors = passing.ingredients() + usize::from(passing.has_base());
        Ok(Pass {
            soup: soup.map(Parts::new),
            digests: Digests::new(passing.digest, passing.ingredients()),
            non_finite: BTreeMap::new(),
            differing: BTreeSet::new(),
            grams: Vec::new(),
            overflown: BTreeSet::new(),
            sums: Sums::new(),
            widened: vec![vec![0.0; wide]; vectors],
            blended: vec![0.0; wide],
            passing,
        })
    }

    /// Takes tile `tile`: what each ingredient stores of it, and the base; writes the blend of it to `out`, where there is one.
    /// What is stored begins at a multiple of 8 bytes, or as far from one as it does in the shard.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for bytes that are not the tile's.
    pub fn tile(&mut self, tile: usize, read: &[&[u8]], base: Option<&[u8]>, out: &mut [u8]) -> Result<()> {
        let passing = self.passing.clone();
        let place = passing.blend_range(tile);
        let fits =
            |(at, bytes): (usize, &&[u8])| bytes.len() == passing.stored_range(at, tile..tile + 1).len();
        let whole = read.len() == passing.ingredients() && read.iter().chain(&base).enumerate().all(fits);
        if !whole || (self.soup.is_some() && out.len() != place.len()) || base.is_some() != passing.has_base()
        {
            return Err(Error::internal(format!("what was read is not tile {tile} of its shard")));
        }
        self.digests.update(read);
        let starts: Vec<usize> =
            (0..read.len() + 1).map(|at| passing.stored_range(at, tile..tile + 1).start).collect();
        for piece in passing.pieces_of(tile..tile + 1) {
            let within_read = |at: usize, stored: &Stored| {
                let range = in_stored(piece, stored);
                range.start - starts[at]..range.end - starts[at]
            };
            let each = read.iter().zip(&passing.stored).enumerate();
            let elements: Vec<&[u8]> =
                each.map(|(at, (bytes, stored))| &bytes[within_read(at, stored)]).collect();
            let base = base.zip(passing.base.as_ref());
            let base = base.map(|(bytes, stored)| &bytes[within_read(read.len(), stored)]);
            let within = piece.range(&passing.segments);
            let out = match self.soup {
                Some(_) => &mut out[within.start - place.start..within.end - place.start],
                None => &mut [],
            };
            match passing.copied_from[piece.segment] {
                Some(source) => self.copy(piece, &elements, source, out),
                None if passing.native => self.average(piece, &elements, base, out),
                None => self.average_widened(piece, &elements, base, out),
            }
        }
        Ok(())
    }

    /// What is not averaged is one ingredient's.
    fn copy(&mut self, piece: &Piece, elements: &[&[u8]], source: usize, out: &mut [u8]) {
        let passing = &self.passing;
        let segment = &passing.segments[piece.segment];
        if !segment.dtype.is_float() {
            for (ingredient, bytes) in elements.iter().enumerate() {
                if passing.has[ingredient][piece.segment] && *bytes != elements[source] {
                    self.differing.insert((ingredient, segment.tensor));
                }
            }
        }
        if self.soup.is_none() {
            return;
        }
        let stored = passing.stored[source].dtype(piece.segment);
        if stored == segment.dtype {
            return out.copy_from_slice(elements[source]);
        }
        let values = &mut self.widened[source][..piece.count];
        widen(stored, elements[source], values);
        self.narrow(piece, source, out);
    }

    /// Elements that are stored in the dtype of the soup.
    fn average(&mut self, piece: &Piece, elements: &[&[u8]], base: Option<&[u8]>, out: &mut [u8]) {
        let passing = self.passing.clone();
        let segment = &passing.segments[piece.segment];
        for (ingredient, bytes) in elements.iter().enumerate() {
            self.count(ingredient, segment.tensor, count_non_finite(segment.dtype, bytes));
        }
        if passing.products {
            add_piece(&mut self.grams, piece.segment, gram(segment.dtype, elements, base));
        }
        if let Some(soup) = &self.soup {
            let members: Vec<&[u8]> = soup.members.iter().map(|&m| elements[m]).collect();
            soup.write(segment, &members, &mut self.sums, out);
            self.check_blended(segment, out);
        }
    }

    /// Elements that some ingredients store in other dtypes.
    fn average_widened(&mut self, piece: &Piece, elements: &[&[u8]], base: Option<&[u8]>, out: &mut [u8]) {
        let passing = self.passing.clone();
        let segment = &passing.segments[piece.segment];
        let stored = passing.stored.iter().chain(&passing.base);
        for ((bytes, stored), values) in elements.iter().chain(&base).zip(stored).zip(&mut self.widened) {
            widen(stored.dtype(piece.segment), bytes, &mut values[..piece.count]);
        }
        for ingredient in 0..elements.len() {
            let found = self.widened[ingredient][..piece.count].iter().filter(|v| !v.is_finite()).count();
            self.count(ingredient, segment.tensor, found as u64);
        }
        if passing.products {
            let wide: Vec<&[u8]> =
                self.widened.iter().map(|v| bytemuck::cast_slice(&v[..piece.count])).collect();
            let (wide, base) = match passing.base {
                Some(_) => wide.split_last().map_or((&wide[..], None), |(base, wide)| (wide, Some(*base))),
                None => (&wide[..], None),
            };
            let product = gram(Dtype::F64, wide, base);
            add_piece(&mut self.grams, piece.segment, product);
        }
        let Some(soup) = &self.soup else { return };
        if let Some(only) = copied(segment, soup.weights(segment.tensor), &soup.members) {
            return match passing.stored[only].dtype(piece.segment) == segment.dtype {
                true => out.copy_from_slice(elements[only]),
                false => self.narrow(piece, only, out),
            };
        }
        let members: Vec<&[u8]> =
            soup.members.iter().map(|&m| bytemuck::cast_slice(&self.widened[m][..piece.count])).collect();
        let blended = bytemuck::cast_slice_mut(&mut self.blended[..piece.count]);
        kernel::blend::<F64>(&members, soup.weights(segment.tensor), &mut self.sums, blended);
        narrow(segment.dtype, &self.blended[..piece.count], out);
        self.check_blended(segment, out);
    }

    /// Writes one ingredient's elements, as they were widened, in the dtype of the soup.
    fn narrow(&mut self, piece: &Piece, ingredient: usize, out: &mut [u8]) {
        let passing = self.passing.clone();
        let segment = &passing.segments[piece.segment];
        let values = &self.widened[ingredient][..piece.count];
        narrow(segment.dtype, values, out);
        if values.iter().all(|v| v.is_finite()) && non_finite(segment.dtype, out) > 0 {
            self.overflown.insert(segment.tensor);
        }
    }

    /// Notes a blend that its dtype cannot hold.
    fn check_blended(&mut self, segment: &Segment, out: &[u8]) {
        if non_finite(segment.dtype, out) > 0 && self.members_are_finite(segment.tensor) {
            self.overflown.insert(segment.tensor);
        }
    }

    fn count(&mut self, ingredient: usize, tensor: usize, elements: u64) {
        if elements > 0 {
            *self.non_finite.entry((ingredient, tensor)).or_default() += elements;
        }
    }

    /// Whether all elements of a tensor of all members were finite so far.
    fn members_are_finite(&self, tensor: usize) -> bool {
        let finite = |&m: &usize| !self.non_finite.contains_key(&(m, tensor));
        self.soup.as_ref().is_none_or(|soup| soup.members.iter().all(finite))
    }

    /// What was found, once all tiles were taken.
    pub fn finish(self) -> Passed {
        let ingredient = |index: usize| Ingredient(index as u32);
        let non_finite = self.non_finite.into_iter().map(|((i, tensor), elements)| NonFinite {
            ingredient: ingredient(i),
            tensor,
            elements,
        });
        let differing = self
            .differing
            .into_iter()
            .map(|(i, tensor)| DifferingIntegers { ingredient: ingredient(i), tensor });
        Passed {
            digests: self.digests.finish(),
            findings: Findings { non_finite: non_finite.collect(), differing_integers: differing.collect() },
            grams: self
                .grams
                .into_iter()
                .map(|(segment, packed)| SegmentGram {
                    tensor: self.passing.segments[segment].tensor,
                    packed,
                })
                .collect(),
            overflown: self.overflown,
        }
    }
}

/// The elements of any alignment as `f64`; exact.
fn widen(dtype: Dtype, elements: &[u8], out: &mut [f64]) {
    fn all<F: Format>(elements: &[u8], out: &mut [f64]) {
        let each = elements.chunks_exact(size_of::<F::Bits>());
        out.iter_mut().zip(each).for_each(|(out, bits)| *out = F::widen(bytemuck::pod_read_unaligned(bits)));
    }
    match dtype {
        Dtype::F64 => all::<F64>(elements, out),
        Dtype::F32 => all::<F32>(elements, out),
        Dtype::F16 => all::<F16>(elements, out),
        Dtype::BF16 => all::<Bf16>(elements, out),
        // The caller takes floats only.
        _ => {}
    }
}

/// Rounds each to the nearest element, ties to even.
fn narrow(dtype: Dtype, values: &[f64], out: &mut [u8]) {
    fn all<F: Format>(values: &[f64], out: &mut [u8]) {
        let each = out.chunks_exact_mut(size_of::<F::Bits>());
        each.zip(values).for_each(|(out, &v)| out.copy_from_slice(bytemuck::bytes_of(&F::narrow(v))));
    }
    match dtype {
        Dtype::F64 => all::<F64>(values, out),
        Dtype::F32 => all::<F32>(values, out),
        Dtype::F16 => all::<F16>(values, out),
        Dtype::BF16 => all::<Bf16>(values, out),
        // The caller takes floats only.
        _ => {}
    }
}

/// Infinite and NaN elements in bytes of any alignment; none of integers.
pub fn non_finite(dtype: Dtype, elements: &[u8]) -> u64 {
    fn all<F: Format>(elements: &[u8]) -> u64 {
        let each = elements.chunks_exact(size_of::<F::Bits>());
        each.map(|bits| u64::from(F::is_not_finite(bytemuck::pod_read_unaligned(bits)))).sum()
    }
    match dtype {
        Dtype::F64 => all::<F64>(elements),
        Dtype::F32 => all::<F32>(elements),
        Dtype::F16 => all::<F16>(elements),
        Dtype::BF16 => all::<Bf16>(elements),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
