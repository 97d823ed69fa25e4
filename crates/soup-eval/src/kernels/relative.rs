//! Attention that knows how far apart tokens are, and nothing else of where they are (Raffel et al., "Exploring the limits of transfer
//! learning with a unified text-to-text transformer").
//!
//! Distances are put into *buckets*: the nearest have one each, those farther away share one with more and more others, and all from
//! some distance on share the last. Every bucket has a number for each head, which is added to the product of a query and a key.

use std::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{Element, Int, Tensor, TensorData};

use super::attention::Split;
use super::texts::Spans;
use super::{Kernels, tensor};

/// Which rows ask which.
#[derive(Clone, Debug)]
pub(crate) struct Pairs {
    asking: Spans,
    /// As many.
    asked: Spans,
}

impl Pairs {
    /// The rows of each of `asking` ask those of the one of `asked` that has its place; there are as many.
    pub(crate) fn new(asking: Spans, asked: Spans) -> Pairs {
        Pairs { asking, asked }
    }

    /// The rows of each text ask each other.
    pub(crate) fn within(texts: Spans) -> Pairs {
        Pairs { asking: texts.clone(), asked: texts }
    }

    /// Queries of so many rows ask the tokens of their text: one for each token, or one for each text.
    pub(super) fn of_texts(texts: &Spans, rows: usize) -> Pairs {
        match rows == texts.rows() {
            true => Pairs::within(texts.clone()),
            false => Pairs::new(Spans::new(vec![1; texts.count()]), texts.clone()),
        }
    }

    /// The rows of those that ask, and of those that are asked.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        self.asking.iter().zip(self.asked.iter())
    }

    /// How many shares there are in all.
    pub(super) fn shares_len(&self, heads: usize) -> usize {
        self.iter().map(|(asking, asked)| heads * asking.len() * asked.len()).sum()
    }
}

/// What the products of queries and keys become before they are shares.
pub(super) enum Scores<'a, B: Backend> {
    /// They are divided by the root of a head's width.
    Scaled,
    /// They stay, and this is added to them.
    And(Option<&'a Relative<B>>),
}

/// How distances become buckets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Buckets {
    /// At least 2; at least 4 where tokens look both ways.
    pub(crate) count: usize,
    /// From where on all distances share a bucket; more than half of `count`.
    pub(crate) farthest: usize,
    /// Whether tokens look at those before them and at themselves alone.
    pub(crate) causal: bool,
}

impl Buckets {
    /// The bucket of a token that is so many places after the one that looks at it; `None` where that does not look there.
    ///
    /// In f32, as the checkpoints were made: where the scale of distances has a step can depend on a rounding.
    pub(crate) fn of(&self, after: isize) -> Option<usize> {
        let (first, count) = match (self.causal, after > 0) {
            (true, true) => return None,
            (true, false) => (0, self.count),
            (false, later) => (if later { self.count / 2 } else { 0 }, self.count / 2),
        };
        let (distance, exact) = (after.unsigned_abs(), count / 2);
        if distance < exact {
            return Some(first + distance);
        }
        let log = f64::from(distance as f32 / exact as f32).ln() as f32;
        let log_of_all = (self.farthest as f64 / exact as f64).ln() as f32;
        let beyond = (log / log_of_all * (count - exact) as f32) as usize;
        Some(first + (exact + beyond).min(count - 1))
    }

    /// The buckets of all places between `asking` and `asked` tokens that begin at the same one, from the farthest before on.
    pub(super) fn places(&self, asking: usize, asked: usize) -> impl Iterator<Item = Option<usize>> {
        (1 - asking as isize..asked as isize).map(move |after| self.of(after))
    }
}

/// What is added to products by how far apart the tokens are.
#[derive(Clone, Debug)]
pub(crate) struct Relative<B: Backend> {
    /// `[buckets, heads]`.
    pub(crate) table: Tensor<B, 2>,
    pub(crate) buckets: Buckets,
}

impl<B: Kernels> Relative<B> {
    /// For every query and token: `[1, heads, asking, asked]`.
    fn spread(&self, asking: usize, asked: usize) -> Tensor<B, 4> {
        let [_, heads] = self.table.dims();
        let of = |at: usize| self.buckets.of((at % asked) as isize - (at / asked) as isize);
        let buckets: Vec<_> = (0..asking * asked).map(of).collect();
        let rows: Vec<i64> = buckets.iter().map(|bucket| bucket.unwrap_or(0) as i64).collect();
        let unseen = buckets.iter().map(|bucket| if bucket.is_some() { 0.0 } else { f32::NEG_INFINITY });
        let device = self.table.device();
        let unseen = tensor::<B, 4>(unseen.collect(), [1, 1, asking, asked], &device);
        let rows = TensorData::new(rows, [asking * asked]);
        let rows = Tensor::<B, 1, Int>::from_data(rows, (&device, B::IntElem::dtype()));
        let bias = self.table.clone().select(0, rows).reshape([1, asking, asked, heads]);
        bias.permute([0, 3, 1, 2]) + unseen
    }
}

/// [`Kernels::attend_pairs`] in plain operations.
pub(super) fn attend_pairs<B: Kernels>(
    query: Tensor<B, 2>,
    key_value: Tensor<B, 2>,
    (pairs, heads): (&Pairs, usize),
    relative: Option<&Relative<B>>,
) -> Tensor<B, 2> {
    let [_, width] = query.dims();
    let parts = pairs.iter().map(|(asking, asked)| {
        let (rows, tokens) = (asking.len(), asked.len());
        let query = query.clone().slice([asking, 0..width]);
        let split = Split::new(query, key_value.clone().slice([asked, 0..2 * width]), [1, heads]);
        let products = B::matmul(split.query.clone(), split.key.clone().swap_dims(2, 3));
        let scores = match relative {
            Some(relative) => products + relative.spread(rows, tokens),
            None => products,
        };
        split.context(B::softmax_scaled(scores, 1.0)).swap_dims(1, 2).reshape([rows, width])
    });
    Tensor::cat(parts.collect(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against transformers' `_relative_position_bucket`.
    #[test]
    fn buckets_are_those_of_transformers() {
        let of = |count, farthest, causal, after: &[isize]| -> Vec<Option<usize>> {
            let buckets = Buckets { count, farthest, causal };
            after.iter().map(|&after| buckets.of(after)).collect()
        };
        let after = [-1000, -128, -127, -91, -90, -64, -16, -12, -8, -7, -1, 0, 1, 7, 8, 16, 32, 127, 128];
        let some = |values: &[usize]| values.iter().map(|&v| Some(v)).collect::<Vec<_>>();
        assert_eq!(
            of(32, 128, false, &after),
            some(&[15, 15, 15, 15, 14, 14, 10, 9, 8, 7, 1, 0, 17, 23, 24, 26, 28, 31, 31])
        );
        assert_eq!(of(32, 128, true, &after[..12]), some(&[31, 31, 31, 29, 29, 26, 16, 12, 8, 7, 1, 0]));
        assert_eq!(of(32, 128, true, &[1, 5]), [None, None]);
        assert_eq!(of(5, 9, false, &[-9, -2, -1, 0, 1, 2, 9]), some(&[1, 1, 1, 0, 3, 3, 3]));
    }

    #[test]
    fn places_go_from_the_farthest_before_to_the_farthest_after() {
        let buckets = Buckets { count: 8, farthest: 20, causal: true };
        assert_eq!(buckets.places(3, 3).collect::<Vec<_>>(), [Some(2), Some(1), Some(0), None, None]);
        assert_eq!(buckets.places(1, 1).collect::<Vec<_>>(), [Some(0)]);
    }

    #[test]
    fn queries_of_texts_ask_their_tokens() {
        let texts = Spans::new([3, 1, 2]);
        for rows in [texts.rows(), texts.count()] {
            let pairs = Pairs::of_texts(&texts, rows).iter().collect::<Vec<_>>();
            assert_eq!(pairs, texts.asked(rows).collect::<Vec<_>>());
        }
    }

    #[test]
    fn pairs_have_shares_of_every_token() {
        let pairs = Pairs::new(Spans::new([2, 3]), Spans::new([5, 1]));
        assert_eq!(pairs.iter().collect::<Vec<_>>(), [(0..2, 0..5), (2..5, 5..6)]);
        assert_eq!((pairs.shares_len(2), Pairs::within(Spans::new([2, 3])).shares_len(1)), (26, 13));
    }
}
