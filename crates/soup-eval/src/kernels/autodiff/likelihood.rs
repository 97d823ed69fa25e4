//! How likely one choice of many is, under automatic differentiation.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::{lift, primitive};
use crate::kernels::Kernels;
use crate::kernels::flex::{contiguous_owned, partition, rows_in_place, values};
use crate::kernels::math::exp;

/// [`Kernels::log_likelihoods`].
pub(super) fn log_likelihoods(
    logits: Tensor<Autodiff<Flex>, 2>,
    at: &Arc<[u32]>,
) -> Tensor<Autodiff<Flex>, 2> {
    let logits = primitive(logits);
    let step = LogLikelihoods.prepare::<NoCheckpointing>([logits.node]);
    let out = primitive(Flex::log_likelihoods(lift(logits.primitive.clone()), at));
    lift(match step.compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish((logits.primitive, at.clone()), out),
        OpsKind::UnTracked(step) => step.finish(out),
    })
}

#[derive(Debug)]
struct LogLikelihoods;

impl Backward<Flex, 1> for LogLikelihoods {
    /// The logits, and the choices.
    type State = (FlexTensor, Arc<[u32]>);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = contiguous_owned::<2>(lift(gradients.consume::<Flex>(&ops.node)));
        let gradient = values(&gradient);
        let [parent] = ops.parents;
        let Some(parent) = parent else { return };
        let (logits, at) = ops.state;
        // Of a choice: one where it is made, less its probability.
        let d_logits = rows_in_place::<2>(lift(logits), |row, index| {
            let (largest, sum) = partition(row);
            let factor = gradient[index] / sum;
            for v in row.iter_mut() {
                *v = -factor * exp(*v - largest);
            }
            row[at[index] as usize] += gradient[index];
        });
        gradients.register::<Flex>(parent.id, primitive(d_logits));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Differentiable, check};
    use crate::kernels::{Kernels, plain};

    #[test]
    fn a_likelihood() {
        for (rows, choices) in [(1, 2), (3, 7), (17, 64), (5, 129)] {
            let at: Vec<u32> = (0..rows).map(|row| (row * 3 % choices) as u32).collect();
            check(
                "log_likelihoods",
                (&[rows * choices], 3.0),
                &|l| {
                    let logits = l[0].clone().reshape([rows, choices]);
                    Differentiable::log_likelihoods(logits, &at.clone().into())
                },
                &|l| plain::log_likelihoods(l[0].clone().reshape([rows, choices]), &at),
            );
        }
    }
}
