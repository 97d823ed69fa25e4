//! Rows over their root mean square under automatic differentiation.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::{lift, primitive, vector};
use crate::kernels::Kernels;
use crate::kernels::flex::{contiguous_owned, rows_in_place, sum, sum_of_two, values};

/// [`Kernels::rms_rows`].
pub(super) fn rms_rows(
    x: &Tensor<Autodiff<Flex>, 2>,
    gamma: &Tensor<Autodiff<Flex>, 1>,
    epsilon: f64,
) -> Tensor<Autodiff<Flex>, 2> {
    let (x, gamma) = (primitive(x.clone()), primitive(gamma.clone()));
    let step = RmsRows.prepare::<NoCheckpointing>([x.node, gamma.node]);
    let (input, factors) = (lift(x.primitive.clone()), lift(gamma.primitive.clone()));
    let out = primitive(Flex::rms_rows(&input, &factors, epsilon));
    lift(match step.compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish((x.primitive, gamma.primitive, epsilon), out),
        OpsKind::UnTracked(step) => step.finish(out),
    })
}

#[derive(Debug)]
struct RmsRows;

impl Backward<Flex, 2> for RmsRows {
    /// The input, gamma, epsilon.
    type State = (FlexTensor, FlexTensor, f64);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient: Tensor<Flex, 2> = lift(gradients.consume::<Flex>(&ops.node));
        let (x, gamma, epsilon) = ops.state;
        let (x, gamma) = (contiguous_owned::<2>(lift(x)), contiguous_owned::<1>(lift(gamma)));
        let (input, gamma) = (values(&x), values(&gamma));
        let width = gamma.len();
        let mut d_gamma = vec![0.0; width];
        let d_x = rows_in_place(gradient, |row, index| {
            let input = &input[index * width..][..width];
            let inverse = 1.0 / (sum(input, |v| v * v) / width as f32 + epsilon as f32).sqrt();
            for (((g, &v), &scale), d_gamma) in row.iter_mut().zip(input).zip(gamma).zip(&mut d_gamma) {
                *d_gamma += *g * v * inverse;
                *g *= scale;
            }
            // With n = input * inverse and h = row * gamma: inverse * (h - n * mean(h * n)).
            let mean_hn = sum_of_two(row, input, |h, v| h * v * inverse) / width as f32;
            for (h, &v) in row.iter_mut().zip(input) {
                *h = inverse * (*h - v * inverse * mean_hn);
            }
        });
        let [x, gamma] = ops.parents;
        if let Some(gamma) = gamma {
            gradients.register::<Flex>(gamma.id, vector(d_gamma));
        }
        if let Some(x) = x {
            gradients.register::<Flex>(x.id, primitive(d_x));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Differentiable, check};
    use crate::kernels::{Kernels, plain};

    #[test]
    fn a_normalisation_by_the_root_mean_square() {
        for (rows, width) in [(1, 2), (3, 7), (17, 64), (5, 129)] {
            check(
                "rms_rows",
                (&[rows * width, width], 2.0),
                &|l| Differentiable::rms_rows(&l[0].clone().reshape([rows, width]), &l[1], 0.01),
                &|l| plain::rms_norm(&l[0].clone().reshape([rows, width]), &l[1], 0.01),
            );
        }
    }
}
