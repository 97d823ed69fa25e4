//! Attention within texts under automatic differentiation: one node for all texts of a batch.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexDevice;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::{attention_gradients, lift, primitive};
use crate::kernels::flex::{attend_texts, contiguous_owned, shares_len, values};
use crate::kernels::texts::Spans;
use crate::kernels::{Kernels, tensor};

/// [`Kernels::attend_texts`].
pub(super) fn attend(
    query: Tensor<Autodiff<Flex>, 2>,
    key_value: Tensor<Autodiff<Flex>, 2>,
    texts: &Spans,
    heads: usize,
) -> Tensor<Autodiff<Flex>, 2> {
    let (query, key_value) = (primitive(query), primitive(key_value));
    let step = AttendTexts.prepare::<NoCheckpointing>([query.node, key_value.node]);
    let (query, key_value) = (lift(query.primitive), lift(key_value.primitive));
    match step.compute_bound().stateful() {
        OpsKind::Tracked(step) => {
            let [rows, _] = Tensor::<Flex, 2>::dims(&query);
            let mut shares = vec![0.0; shares_len(texts, rows, heads)];
            let out = attend_texts(query.clone(), key_value.clone(), texts, heads, Some(&mut shares));
            let state = Attended { query, key_value, shares, texts: texts.clone(), heads };
            lift(step.finish(state, primitive(out)))
        }
        OpsKind::UnTracked(step) => {
            lift(step.finish(primitive(attend_texts(query, key_value, texts, heads, None))))
        }
    }
}

/// [`Kernels::first_of_each`].
pub(super) fn first_of_each(x: Tensor<Autodiff<Flex>, 2>, texts: &Spans) -> Tensor<Autodiff<Flex>, 2> {
    let x = primitive(x);
    let step = FirstOfEach.prepare::<NoCheckpointing>([x.node]);
    let out = primitive(Flex::first_of_each(lift(x.primitive), texts));
    lift(match step.compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish(texts.clone(), out),
        OpsKind::UnTracked(step) => step.finish(out),
    })
}

#[derive(Debug)]
struct FirstOfEach;

impl Backward<Flex, 1> for FirstOfEach {
    type State = Spans;

    fn backward(self, ops: Ops<Spans, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient: Tensor<Flex, 2> = lift(gradients.consume::<Flex>(&ops.node));
        let [_, hidden] = gradient.dims();
        let gradient = contiguous_owned(gradient);
        let texts = ops.state;
        let mut d_x = vec![0.0; texts.rows() * hidden];
        for (row, tokens) in values(&gradient).chunks_exact(hidden).zip(texts.iter()) {
            d_x[tokens.start * hidden..][..hidden].copy_from_slice(row);
        }
        let [parent] = ops.parents;
        if let Some(parent) = parent {
            let d_x = tensor::<Flex, 2>(d_x, [texts.rows(), hidden], &FlexDevice);
            gradients.register::<Flex>(parent.id, primitive(d_x));
        }
    }
}

#[derive(Debug)]
struct AttendTexts;

/// What an attention was made of.
#[derive(Clone, Debug)]
struct Attended {
    query: Tensor<Flex, 2>,
    key_value: Tensor<Flex, 2>,
    /// `[heads, asked, tokens]` of one text after the other.
    shares: Vec<f32>,
    texts: Spans,
    heads: usize,
}

impl Backward<Flex, 2> for AttendTexts {
    type State = Attended;

    fn backward(self, ops: Ops<Attended, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient: Tensor<Flex, 2> = lift(gradients.consume::<Flex>(&ops.node));
        let Attended { query, key_value, shares, texts, heads } = ops.state;
        let [rows, hidden] = query.dims();
        let (mut d_queries, mut d_key_values) =
            (Vec::with_capacity(texts.count()), Vec::with_capacity(texts.count()));
        let mut at = 0;
        for (asked, tokens) in texts.asked(rows) {
            let sizes = [1, heads, asked.len(), tokens.len()];
            let of_text = shares[at..at + sizes.iter().product::<usize>()].to_vec();
            at += of_text.len();
            let (d_query, d_key_value) = attention_gradients(
                gradient.clone().slice([asked.clone(), 0..hidden]),
                query.clone().slice([asked, 0..hidden]),
                key_value.clone().slice([tokens, 0..2 * hidden]),
                tensor(of_text, sizes, &FlexDevice),
            );
            d_queries.push(d_query);
            d_key_values.push(d_key_value);
        }
        for (parent, parts) in ops.parents.into_iter().zip([d_queries, d_key_values]) {
            if let Some(parent) = parent {
                gradients.register::<Flex>(parent.id, primitive(Tensor::cat(parts, 0)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    type Differentiable = Autodiff<Flex>;

    #[test]
    fn the_first_of_each() {
        let (hidden, texts) = (4, Spans::new([2, 1, 3]));
        let shaped = |l: &[Tensor<Differentiable, 1>]| l[0].clone().reshape([texts.rows(), hidden]);
        check(
            "first",
            (&[texts.rows() * hidden], 2.0),
            // As in a layer: all rows are looked at besides.
            &|l| {
                let first = Differentiable::first_of_each(shaped(l), &texts);
                Tensor::cat(vec![first.clone() * first, shaped(l).tanh()], 0)
            },
            &|l| {
                let row = |at: usize| shaped(l).slice([at..at + 1, 0..hidden]);
                let first = Tensor::cat(vec![row(0), row(2), row(3)], 0);
                Tensor::cat(vec![first.clone() * first, shaped(l).tanh()], 0)
            },
        );
    }

    #[test]
    fn an_attention_within_texts() {
        let (heads, hidden) = (2, 8);
        let texts = Spans::new([5, 1, 17]);
        for rows in [texts.rows(), texts.count()] {
            let sizes = [rows * hidden, texts.rows() * 2 * hidden];
            let of = |l: &[Tensor<Differentiable, 1>]| {
                let query = l[0].clone().reshape([rows, hidden]);
                (query, l[1].clone().reshape([texts.rows(), 2 * hidden]))
            };
            check(
                &format!("{rows} rows"),
                (&sizes, 2.0),
                &|l| {
                    let (query, key_value) = of(l);
                    Differentiable::attend_texts(query, key_value, &texts, heads)
                },
                // Each text alone.
                &|l| {
                    let (query, key_value) = of(l);
                    let alone = texts.asked(rows).map(|(asked, tokens)| {
                        let query = query.clone().slice([asked, 0..hidden]);
                        let key_value = key_value.clone().slice([tokens, 0..2 * hidden]);
                        Differentiable::attend(query, key_value, [1, heads])
                    });
                    Tensor::cat(alone.collect(), 0)
                },
            );
        }
    }
}
