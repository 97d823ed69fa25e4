//! What is done with texts under automatic differentiation, besides attention (`relative`): one node for all texts of a batch.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexDevice;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::{lift, primitive};
use crate::kernels::flex::{contiguous_owned, values};
use crate::kernels::texts::Spans;
use crate::kernels::{Kernels, tensor};

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
