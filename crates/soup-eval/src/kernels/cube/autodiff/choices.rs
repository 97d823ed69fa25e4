//! Rows that are picked, and likelihoods, under automatic differentiation.

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::{Tensor, TensorPrimitive};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};

use super::super::choices::{self, NONE};
use crate::kernels::texts::Spans;

/// See [`Kernels::first_of_each`](crate::kernels::Kernels::first_of_each).
pub(super) fn first_of_each<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement>(
    x: Tensor<Autodiff<CubeBackend<R, F, I, T>>, 2>,
    texts: &Spans,
) -> Tensor<Autodiff<CubeBackend<R, F, I, T>>, 2> {
    let x = x.into_primitive().tensor();
    let out = choices::rows(x.primitive, &texts.firsts());
    let step = FirstOfEach.prepare::<NoCheckpointing>([x.node]).compute_bound();
    Tensor::from_primitive(TensorPrimitive::Float(match step.stateful() {
        OpsKind::Tracked(step) => step.finish(texts.clone(), out),
        OpsKind::UnTracked(step) => step.finish(out),
    }))
}

#[derive(Debug)]
struct FirstOfEach;

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement> Backward<CubeBackend<R, F, I, T>, 1>
    for FirstOfEach
{
    type State = Spans;

    fn backward(self, ops: Ops<Spans, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<CubeBackend<R, F, I, T>>(&ops.node);
        let [Some(parent)] = ops.parents else { return };
        let mut at = vec![NONE; ops.state.rows()];
        for (nth, first) in (0..).zip(ops.state.firsts()) {
            at[first as usize] = nth;
        }
        gradients.register::<CubeBackend<R, F, I, T>>(parent.id, choices::rows(gradient, &at));
    }
}

/// See [`Kernels::log_likelihoods`](crate::kernels::Kernels::log_likelihoods).
pub(super) fn log_likelihoods<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement>(
    logits: Tensor<Autodiff<CubeBackend<R, F, I, T>>, 2>,
    at: &Arc<[u32]>,
) -> Tensor<Autodiff<CubeBackend<R, F, I, T>>, 2> {
    let logits = logits.into_primitive().tensor();
    let out = choices::log_likelihoods(logits.primitive.clone(), at);
    let step = LogLikelihoods.prepare::<NoCheckpointing>([logits.node]).compute_bound();
    Tensor::from_primitive(TensorPrimitive::Float(match step.stateful() {
        OpsKind::Tracked(step) => step.finish((logits.primitive, at.clone()), out),
        OpsKind::UnTracked(step) => step.finish(out),
    }))
}

#[derive(Debug)]
struct LogLikelihoods;

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement> Backward<CubeBackend<R, F, I, T>, 1>
    for LogLikelihoods
{
    /// The logits, and the choices.
    type State = (CubeTensor<R>, Arc<[u32]>);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<CubeBackend<R, F, I, T>>(&ops.node);
        let (logits, at) = ops.state;
        if let [Some(parent)] = ops.parents {
            let of_logits = choices::log_likelihood_gradients(gradient, logits, &at);
            gradients.register::<CubeBackend<R, F, I, T>>(parent.id, of_logits);
        }
    }
}
