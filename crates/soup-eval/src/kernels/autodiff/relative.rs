//! Attention of some rows to others under automatic differentiation: one node for all pairs of a batch.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexDevice;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::{lift, primitive, split_gradients};
use crate::kernels::attention::Split;
use crate::kernels::flex::{attend_pairs as forward, contiguous_owned, values};
use crate::kernels::relative::{Buckets, Pairs, Relative, Scores};
use crate::kernels::tensor;

/// [`Kernels::attend_texts`](crate::kernels::Kernels::attend_texts) and [`Kernels::attend_pairs`](crate::kernels::Kernels::attend_pairs).
pub(super) fn attend(
    query: Tensor<Autodiff<Flex>, 2>,
    key_value: Tensor<Autodiff<Flex>, 2>,
    (pairs, heads): (&Pairs, usize),
    scores: &Scores<'_, Autodiff<Flex>>,
) -> Tensor<Autodiff<Flex>, 2> {
    let (query, key_value) = (primitive(query), primitive(key_value));
    let nodes = [query.node, key_value.node];
    let (query, key_value) = (lift::<Flex, 2>(query.primitive), lift::<Flex, 2>(key_value.primitive));
    let out = |scores: &Scores<'_, Flex>, shares: Option<&mut [f32]>| {
        primitive(forward(query.clone(), key_value.clone(), (pairs, heads), scores, shares))
    };
    let tracked = |scores: &Scores<'_, Flex>| {
        let mut shares = vec![0.0; pairs.shares_len(heads)];
        let out = out(scores, Some(&mut shares));
        let (query, key_value, pairs) = (query.clone(), key_value.clone(), pairs.clone());
        let (scaled, buckets) = match scores {
            Scores::Scaled => (true, None),
            Scores::And(relative) => (false, relative.map(|relative| relative.buckets)),
        };
        (Attended { query, key_value, shares, pairs, heads, scaled, buckets }, out)
    };
    if let Scores::And(Some(Relative { table, buckets })) = scores {
        let table = primitive(table.clone());
        let [query, key_value] = nodes;
        let step = Attend.prepare::<NoCheckpointing>([query, key_value, table.node]);
        let relative = Relative { table: lift(table.primitive), buckets: *buckets };
        let scores = Scores::And(Some(&relative));
        return lift(match step.compute_bound().stateful() {
            OpsKind::Tracked(step) => {
                let (state, out) = tracked(&scores);
                step.finish(state, out)
            }
            OpsKind::UnTracked(step) => step.finish(out(&scores, None)),
        });
    }
    let scores = if matches!(scores, Scores::Scaled) { Scores::Scaled } else { Scores::And(None) };
    lift(match Attend.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(step) => {
            let (state, out) = tracked(&scores);
            step.finish(state, out)
        }
        OpsKind::UnTracked(step) => step.finish(out(&scores, None)),
    })
}

/// What an attention was made of.
#[derive(Clone, Debug)]
struct Attended {
    query: Tensor<Flex, 2>,
    key_value: Tensor<Flex, 2>,
    /// `[heads, asking, asked]` of one pair after the other.
    shares: Vec<f32>,
    pairs: Pairs,
    heads: usize,
    /// Whether products were scaled.
    scaled: bool,
    buckets: Option<Buckets>,
}

impl Attended {
    /// From the gradient of what came out those of queries, of keys and values, and of the table `[buckets, heads]`.
    fn gradients(self, gradient: Tensor<Flex, 2>) -> [Tensor<Flex, 2>; 3] {
        let Attended { query, key_value, shares, pairs, heads, scaled, buckets } = self;
        let [_, width] = query.dims();
        let rows = buckets.map_or(1, |buckets| buckets.count);
        let mut d_table = vec![0.0; rows * heads];
        let (mut d_queries, mut d_key_values) = (Vec::new(), Vec::new());
        let mut at = 0;
        for (asking, asked) in pairs.iter() {
            let sizes = [1, heads, asking.len(), asked.len()];
            let of_pair = shares[at..at + sizes.iter().product::<usize>()].to_vec();
            at += of_pair.len();
            let query = query.clone().slice([asking.clone(), 0..width]);
            let split = Split::new(query, key_value.clone().slice([asked, 0..2 * width]), [1, heads]);
            let gradient = gradient.clone().slice([asking, 0..width]);
            let shares = tensor(of_pair, sizes, &FlexDevice);
            let scale = if scaled { split.scale() } else { 1.0 };
            let (d_query, d_key_value, d_scores) = split_gradients(gradient, split, shares, scale);
            d_queries.push(d_query);
            d_key_values.push(d_key_value);
            if let Some(buckets) = buckets {
                add_by_bucket(&mut d_table, buckets, d_scores);
            }
        }
        let table = tensor(d_table, [rows, heads], &FlexDevice);
        [Tensor::cat(d_queries, 0), Tensor::cat(d_key_values, 0), table]
    }
}

/// Adds the gradient of scores `[1, heads, asking, asked]` to that of the table whose rows were added to them.
fn add_by_bucket(d_table: &mut [f32], buckets: Buckets, d_scores: Tensor<Flex, 4>) {
    let [_, heads, asking, asked] = d_scores.dims();
    let d_scores = contiguous_owned(d_scores);
    let places: Vec<Option<usize>> = buckets.places(asking, asked).collect();
    for (nth, row) in values(&d_scores).chunks_exact(asked).enumerate() {
        let (head, asking_at) = (nth / asking, nth % asking);
        for (d_score, bucket) in row.iter().zip(&places[asking - 1 - asking_at..]) {
            if let Some(bucket) = bucket {
                d_table[bucket * heads + head] += d_score;
            }
        }
    }
}

/// Of queries, keys and values, and of a table where there is one.
#[derive(Debug)]
struct Attend;

impl<const N: usize> Backward<Flex, N> for Attend {
    type State = Attended;

    fn backward(self, ops: Ops<Attended, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient: Tensor<Flex, 2> = lift(gradients.consume::<Flex>(&ops.node));
        for (parent, of) in ops.parents.into_iter().zip(ops.state.gradients(gradient)) {
            if let Some(parent) = parent {
                gradients.register::<Flex>(parent.id, primitive(of));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Differentiable, check};
    use super::*;
    use crate::kernels::texts::Spans;
    use crate::kernels::{Kernels, relative};

    #[test]
    fn an_attention_by_relative_position() {
        let (heads, width) = (2, 8);
        let texts = Spans::new([5, 1, 17]);
        for (pairs, causal) in [
            (Pairs::new(Spans::new([2, 3, 4]), texts.clone()), None),
            (Pairs::within(texts.clone()), Some(false)),
            (Pairs::within(texts.clone()), Some(true)),
        ] {
            let rows = pairs.iter().last().map_or(0, |(asking, _)| asking.end);
            let mut sizes = vec![rows * width, texts.rows() * 2 * width];
            sizes.extend(causal.map(|_| 9 * heads));
            let of = |l: &[Tensor<Differentiable, 1>]| {
                let query = l[0].clone().reshape([rows, width]);
                let relative = causal.map(|causal| Relative {
                    table: l[2].clone().reshape([9, heads]),
                    buckets: Buckets { count: 9, farthest: 12, causal },
                });
                (query, l[1].clone().reshape([texts.rows(), 2 * width]), relative)
            };
            check(
                &format!("{causal:?}"),
                (&sizes, 1.0),
                &|l| {
                    let (query, key_value, relative) = of(l);
                    Differentiable::attend_pairs(query, key_value, (&pairs, heads), relative.as_ref())
                },
                &|l| {
                    let (query, key_value, relative) = of(l);
                    relative::attend_pairs(query, key_value, (&pairs, heads), relative.as_ref())
                },
            );
        }
    }
}
