//! Attention of some rows to others under automatic differentiation: one node for all pairs.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::{Tensor, TensorPrimitive};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};

use super::super::attention::Attention;
use crate::kernels::relative::{Buckets, Pairs, Relative};

/// What differentiates on a device.
type Graph<R, F, I, T> = Autodiff<CubeBackend<R, F, I, T>>;

/// What an attention was made of, and its shares.
#[derive(Clone, Debug)]
struct Attended<R: CubeRuntime> {
    query: CubeTensor<R>,
    key_value: CubeTensor<R>,
    shares: CubeTensor<R>,
    pairs: Pairs,
    heads: usize,
    scale: f32,
    relative: Option<(CubeTensor<R>, Buckets)>,
}

/// Of queries, keys and values, and of a table where there is one.
#[derive(Debug)]
struct Attend;

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement, const N: usize>
    Backward<CubeBackend<R, F, I, T>, N> for Attend
{
    type State = Attended<R>;

    fn backward(self, ops: Ops<Attended<R>, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<CubeBackend<R, F, I, T>>(&ops.node);
        let Attended { query, key_value, shares, pairs, heads, scale, relative } = ops.state;
        let attention = Attention { query, key_value, pairs: &pairs, heads, scale, relative };
        let (of_query, of_key_value, of_table) = attention.backward(gradient, &shares);
        let all = [Some(of_query), Some(of_key_value), of_table];
        for (parent, of) in ops.parents.into_iter().zip(all) {
            if let (Some(parent), Some(of)) = (parent, of) {
                gradients.register::<CubeBackend<R, F, I, T>>(parent.id, of);
            }
        }
    }
}

/// [`Kernels::attend_texts`](crate::kernels::Kernels::attend_texts) and [`Kernels::attend_pairs`](crate::kernels::Kernels::attend_pairs),
/// with products times `scale`.
pub(super) fn attend<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement>(
    query: Tensor<Graph<R, F, I, T>, 2>,
    key_value: Tensor<Graph<R, F, I, T>, 2>,
    (pairs, heads, scale): (&Pairs, usize, f32),
    relative: Option<&Relative<Graph<R, F, I, T>>>,
) -> Tensor<Graph<R, F, I, T>, 2> {
    let (query, key_value) = (query.into_primitive().tensor(), key_value.into_primitive().tensor());
    let table = relative.map(|relative| relative.table.clone().into_primitive().tensor());
    let state = |relative: Option<(CubeTensor<R>, Buckets)>| {
        let (query, key_value) = (query.primitive.clone(), key_value.primitive.clone());
        let (out, shares) = {
            let (query, key_value, relative) = (query.clone(), key_value.clone(), relative.clone());
            Attention { query, key_value, pairs, heads, scale, relative }.forward()
        };
        (Attended { query, key_value, shares, pairs: pairs.clone(), heads, scale, relative }, out)
    };
    let out = match (table, relative) {
        (Some(table), Some(relative)) => {
            let (state, out) = state(Some((table.primitive, relative.buckets)));
            let nodes = [query.node.clone(), key_value.node.clone(), table.node];
            match Attend.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(step) => step.finish(state, out),
                OpsKind::UnTracked(step) => step.finish(out),
            }
        }
        _ => {
            let (state, out) = state(None);
            let nodes = [query.node.clone(), key_value.node.clone()];
            match Attend.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(step) => step.finish(state, out),
                OpsKind::UnTracked(step) => step.finish(out),
            }
        }
    };
    Tensor::from_primitive(TensorPrimitive::Float(out))
}
