//! Attention, head by head: scores, shares and what they take stay in the cache, and nothing is laid out anew but the keys and values
//! of the head that it is about.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::product::{PANEL, TILE, pack_columns, pack_rows, packed_len, put, tile};
use super::{LANES, reduce};
use crate::kernels::math::exp;

/// What attends to what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) heads: usize,
    /// Queries of an image.
    pub(super) asked: usize,
    pub(super) tokens: usize,
    /// Of a head.
    pub(super) width: usize,
}

impl Sizes {
    /// The scale of scaled dot-product attention.
    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }
}

/// The attention that [`Kernels::attend`](crate::kernels::Kernels::attend) is about.
pub(super) struct Attention<'a> {
    pub(super) sizes: Sizes,
    /// [batch * asked, heads * width].
    pub(super) query: &'a [f32],
    /// [batch * tokens, 2 * heads * width].
    pub(super) key_value: &'a [f32],
    /// [batch * asked, heads * width].
    pub(super) out: &'a mut [f32],
    /// What the sum of a product and its bias is multiplied by.
    pub(super) scale: f32,
    /// What is added to products by how far the token is from the query, from the farthest before it on: [heads, asked + tokens - 1]. A
    /// token with -inf is not looked at.
    pub(super) bias: Option<&'a [f32]>,
    /// How much of every token each query takes, [batch, heads, asked, tokens], where that is wanted.
    pub(super) shares: Option<&'a mut [f32]>,
}

impl WithSimd for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 1, 1>(simd),
            8 => self.run::<S, 2, 1>(simd),
            4 => self.run::<S, 4, 2>(simd),
            _ => self.run::<S, 16, 8>(simd),
        }
    }
}

/// One head of one image.
struct Head<'a> {
    image: usize,
    head: usize,
    /// The keys as columns, packed.
    keys: &'a [f32],
    /// The values as rows, packed.
    values: &'a [f32],
}

impl Attention<'_> {
    /// The vectors of a row of a panel are `V`, those of half a one `H`.
    #[inline(always)]
    fn run<S: Simd, const V: usize, const H: usize>(mut self, simd: S) {
        let Sizes { batch, heads, asked, tokens, width } = self.sizes;
        let mut keys = vec![0.0; packed_len(width, tokens)];
        let mut values = vec![0.0; packed_len(tokens, width)];
        let mut scores = vec![0.0; TILE * tokens.next_multiple_of(PANEL)];
        for image in 0..batch {
            for head in 0..heads {
                let key_value = self.key_value;
                let part = |token: usize, head: usize| {
                    &key_value[((image * tokens + token) * 2 * heads + head) * width..][..width]
                };
                pack_columns(&mut keys, width, tokens, |token| part(token, head));
                pack_rows(&mut values, tokens, width, |token| part(token, heads + head));
                let head = Head { image, head, keys: &keys, values: &values };
                for first in (0..asked).step_by(TILE) {
                    match asked - first {
                        1 => self.rows::<S, 1, V, H>(simd, &head, first, &mut scores),
                        2 => self.rows::<S, 2, V, H>(simd, &head, first, &mut scores),
                        3 => self.rows::<S, 3, V, H>(simd, &head, first, &mut scores),
                        4 => self.rows::<S, 4, V, H>(simd, &head, first, &mut scores),
                        5 => self.rows::<S, 5, V, H>(simd, &head, first, &mut scores),
                        _ => self.rows::<S, TILE, V, H>(simd, &head, first, &mut scores),
                    }
                }
            }
        }
    }

    /// `R` queries from `first` on.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const V: usize, const H: usize>(
        &mut self,
        simd: S,
        of: &Head<'_>,
        first: usize,
        scores: &mut [f32],
    ) {
        let Sizes { heads, asked, tokens, width, .. } = self.sizes;
        let padded = tokens.next_multiple_of(PANEL);
        let at = |row: usize| ((of.image * asked + first + row) * heads + of.head) * width;
        let mut query: [&[f32]; R] = [&[]; R];
        for (row, query) in query.iter_mut().enumerate() {
            *query = &self.query[at(row)..][..width];
        }
        times::<S, R, V, H>(simd, query, of.keys, tokens, scores, |row, column| {
            row * padded + column..row * padded + column + PANEL
        });
        let mut shares: [&[f32]; R] = [&[]; R];
        for (row, (scores, shares)) in scores.chunks_exact_mut(padded).zip(&mut shares).enumerate() {
            if let Some(bias) = self.bias {
                let places = asked + tokens - 1;
                let bias = &bias[of.head * places..][asked - 1 - (first + row)..][..tokens];
                scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
            }
            softmax(scores, tokens, self.scale);
            *shares = &scores[..tokens];
            if let Some(wanted) = &mut self.shares {
                let at = ((of.image * heads + of.head) * asked + first + row) * tokens;
                wanted[at..at + tokens].copy_from_slice(shares);
            }
        }
        times::<S, R, V, H>(simd, shares, of.values, width, self.out, |row, column| {
            at(row) + column..at(row) + width.min(column + PANEL)
        });
    }
}

/// The product of some rows and a packed matrix of `columns`, to where `place` says that the columns of a row from one on are.
#[inline(always)]
fn times<S: Simd, const R: usize, const V: usize, const H: usize>(
    simd: S,
    left: [&[f32]; R],
    right: &[f32],
    columns: usize,
    out: &mut [f32],
    place: impl Fn(usize, usize) -> Range<usize>,
) {
    for (nth, panel) in right.chunks_exact(left[0].len() * PANEL).enumerate() {
        let mut sums = [[[0.0; PANEL]; 1]; R];
        match columns - nth * PANEL > PANEL / 2 {
            true => tile::<S, R, V>(simd, left, panel, &mut sums),
            false => tile::<S, R, H>(simd, left, panel, &mut sums),
        }
        for (row, sums) in sums.iter().enumerate() {
            put(sums, &mut out[place(row, nth * PANEL)]);
        }
    }
}

/// `softmax(scale * row)` of the first `tokens` of a row of whole panels; no share is left to the others.
#[inline(always)]
fn softmax(row: &mut [f32], tokens: usize, scale: f32) {
    row[tokens..].fill(f32::NEG_INFINITY);
    let (parts, _) = row.as_chunks_mut::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    for part in parts.iter() {
        for (largest, &v) in largest.iter_mut().zip(part) {
            *largest = if v > *largest { v } else { *largest };
        }
    }
    // Scales are positive, so the largest stays the largest.
    let largest = reduce(largest, |a, b| if b > a { b } else { a });
    let mut sums = [0.0; LANES];
    for part in parts.iter_mut() {
        for (sum, v) in sums.iter_mut().zip(part) {
            *v = exp((*v - largest) * scale);
            *sum += *v;
        }
    }
    let inverse = 1.0 / reduce(sums, |a, b| a + b);
    for v in parts.as_flattened_mut() {
        *v *= inverse;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::flex::tests::noise;

    /// What comes out, and the shares; `scalar` is without any vectors.
    fn attention(sizes: Sizes, query: &[f32], key_value: &[f32], scalar: bool) -> (Vec<f32>, Vec<f32>) {
        let mut out = vec![f32::NAN; query.len()];
        let mut shares = vec![f32::NAN; sizes.batch * sizes.heads * sizes.asked * sizes.tokens];
        // With a bias by place that is a little different for every head, and -inf for tokens after the query where all are asked.
        let (asked, places) = (sizes.asked, sizes.asked + sizes.tokens - 1);
        let of_place = |at: usize| match at % places {
            place if asked == sizes.tokens && place >= asked => f32::NEG_INFINITY,
            _ => (at % 7) as f32 * 0.25,
        };
        let bias: Vec<f32> = (0..sizes.heads * places).map(of_place).collect();
        let (scale, bias) = if sizes.heads == 3 { (sizes.scale(), None) } else { (1.0, Some(&bias[..])) };
        let work =
            Attention { sizes, query, key_value, out: &mut out, scale, bias, shares: Some(&mut shares) };
        match scalar {
            true => work.with_simd(pulp::Scalar::new()),
            false => pulp::Arch::new().dispatch(work),
        }
        (out, shares)
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|v| v.to_bits()).collect()
    }

    #[test]
    fn an_image_comes_out_the_same_alone_and_with_vectors_of_any_width() {
        for (heads, asked, tokens, width) in [(1, 1, 1, 1), (2, 17, 17, 16), (3, 1, 50, 20), (1, 8, 24, 8)] {
            let sizes = Sizes { batch: 3, heads, asked, tokens, width };
            let host = |len: usize, seed| noise([len], 2.0, seed).into_data().to_vec::<f32>().unwrap();
            let query = host(3 * asked * heads * width, 1);
            let key_value = host(6 * tokens * heads * width, 2);
            let (all, shares) = attention(sizes, &query, &key_value, false);
            let (scalar, scalar_shares) = attention(sizes, &query, &key_value, true);
            assert_eq!((bits(&all), bits(&shares)), (bits(&scalar), bits(&scalar_shares)), "{sizes:?}");
            assert!(shares.chunks_exact(tokens).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
            let (queries, keys) = (query.len() / 3, key_value.len() / 3);
            for image in 0..3 {
                let (query, key_value) =
                    (&query[image * queries..][..queries], &key_value[image * keys..][..keys]);
                let (alone, _) = attention(Sizes { batch: 1, ..sizes }, query, key_value, false);
                assert_eq!(bits(&alone), bits(&all[image * queries..][..queries]), "{sizes:?}");
            }
        }
    }
}
