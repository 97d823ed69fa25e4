//! Takes the gradient of every parameter out of the backward pass as soon as it is there.
//!
//! burn keeps the gradients of all leaves until the backward pass is over: as much again as the model. Here every
//! parameter enters the graph through a node of ours, whose backward pass adds what arrives to the flattened gradient
//! and hands nothing on. A backward pass goes by depth, the nodes furthest from the leaves first: so that it comes to
//! ours early, a node also names an activation *after* which it enters, as if it were made of that too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, Flex};
use burn::tensor::backend::Backend;
use burn::tensor::{Element, Int, Tensor, TensorData, TensorPrimitive};
use soup_core::schema::Schema;
use soup_core::{Error, Result};

use crate::parameters::FlatGradient;
use crate::parameters::visitor::{Layout, Stored};

/// A backend whose tensors can enter a graph in such a way.
pub(crate) trait Deposits: Backend {
    /// The leaf `x`, for one pass through the graph, after which its gradient has been added to `slot`. `after` is
    /// what the graph has come to: an activation that the loss depends on by itself, or a constant. A backend that has
    /// no graph gives the tensor as it is.
    fn enter<const D: usize, const A: usize>(
        x: &Tensor<Self, D>,
        slot: Slot,
        after: &Tensor<Self, A>,
    ) -> Tensor<Self, D> {
        let (_, _) = (slot, after);
        x.clone()
    }

    /// Rows `rows` of the leaf `x`, a table of embeddings, for one pass through the graph, after which the gradient of each has been added
    /// to its place in `slot`: nothing as large as the table is made of it.
    fn enter_rows(x: &Tensor<Self, 2>, slot: Slot, rows: &Rows) -> Tensor<Self, 2> {
        let _ = slot;
        rows.of(x)
    }
}

/// Which rows of a table are looked up.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    /// In range.
    at: Arc<[u32]>,
    learned: Learned,
}

/// Which rows of a table have a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    All,
    /// The row of padding has none, as `torch.nn.Embedding` has it for its `padding_idx`: also where it is looked up.
    AllBut(u32),
    /// The table is a constant.
    Nothing,
}

impl Rows {
    /// The rows `at`, which the table has.
    pub(crate) fn new(at: Arc<[u32]>, learned: Learned) -> Rows {
        Rows { at, learned }
    }

    /// Them, of `table`.
    pub(crate) fn of<B: Backend>(&self, table: &Tensor<B, 2>) -> Tensor<B, 2> {
        let at: Vec<i64> = self.at.iter().map(|&row| i64::from(row)).collect();
        let at = TensorData::new(at, [self.at.len()]);
        let at = Tensor::<B, 1, Int>::from_data(at, (&table.device(), B::IntElem::dtype()));
        table.clone().select(0, at)
    }

    /// Which row of the table each is; `None` for those that have no gradient.
    fn learned(&self) -> impl Iterator<Item = Option<usize>> {
        self.at.iter().map(|&row| match self.learned {
            Learned::AllBut(other) if other == row => None,
            Learned::Nothing => None,
            _ => Some(row as usize),
        })
    }
}

impl Deposits for Flex {}

impl<B: Backend> Deposits for Autodiff<B> {
    fn enter<const D: usize, const A: usize>(
        x: &Tensor<Self, D>,
        slot: Slot,
        after: &Tensor<Self, A>,
    ) -> Tensor<Self, D> {
        let x = x.clone().into_primitive().tensor();
        let after = after.clone().into_primitive().tensor();
        let step = Deposit::<D>.prepare::<NoCheckpointing>([x.node, after.node]).compute_bound();
        Tensor::from_primitive(TensorPrimitive::Float(match step.stateful() {
            OpsKind::Tracked(step) => step.finish(slot, x.primitive),
            OpsKind::UnTracked(step) => step.finish(x.primitive),
        }))
    }

    fn enter_rows(x: &Tensor<Self, 2>, slot: Slot, rows: &Rows) -> Tensor<Self, 2> {
        let x = x.clone().into_primitive().tensor();
        let step = DepositRows.prepare::<NoCheckpointing>([x.node]).compute_bound();
        let out = rows.of(&Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(x.primitive)));
        let out = out.into_primitive().tensor();
        Tensor::from_primitive(TensorPrimitive::Float(match step.stateful() {
            OpsKind::Tracked(step) => step.finish((slot, rows.clone()), out),
            OpsKind::UnTracked(step) => step.finish(out),
        }))
    }
}

#[derive(Debug)]
struct DepositRows;

impl<B: Backend> Backward<B, 1> for DepositRows {
    type State = (Slot, Rows);

    fn backward(self, ops: Ops<(Slot, Rows), 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let (slot, rows) = ops.state;
        slot.add_rows(&rows, Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(gradient)).into_data());
    }
}

#[derive(Debug)]
struct Deposit<const D: usize>;

impl<B: Backend, const D: usize> Backward<B, 2> for Deposit<D> {
    type State = Slot;

    fn backward(self, ops: Ops<Slot, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        ops.state.add(Tensor::<B, D>::from_primitive(TensorPrimitive::Float(gradient)).into_data());
    }
}

/// The flattened gradient that backward passes add to.
#[derive(Clone)]
pub(crate) struct Sink(Arc<Mutex<Sum>>);

struct Sum {
    flat: FlatGradient,
    /// The first thing that went wrong: a backward pass cannot fail itself.
    error: Option<Error>,
}

impl Sink {
    pub(crate) fn zeros(schema: &Schema) -> Self {
        Sink(Arc::new(Mutex::new(Sum { flat: FlatGradient::zeros(schema), error: None })))
    }

    /// The slot of the tensors that one parameter of a model is made of.
    pub(crate) fn slot(&self, stored: Stored) -> Slot {
        Slot { names: stored.names.into(), layout: stored.layout, sink: self.clone() }
    }

    /// The gradient of every element of the flattened parameters. It ends there: nothing can be added any more.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where gradients were not of the schema's shapes.
    pub(crate) fn take(&self) -> Result<Vec<f32>> {
        let mut sum = self.lock();
        match sum.error.take() {
            Some(error) => Err(error),
            None => Ok(sum.flat.take_values()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sum> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which tensors of the schema the gradient of one tensor of a model belongs to.
#[derive(Clone)]
pub(crate) struct Slot {
    names: Arc<[String]>,
    layout: Layout,
    sink: Sink,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Slot {
    fn add(&self, gradient: TensorData) {
        let mut sum = self.sink.lock();
        if let Err(error) = self.add_to(&mut sum.flat, gradient) {
            sum.error.get_or_insert(error);
        }
    }

    /// The same of a gradient of some rows.
    fn add_rows(&self, rows: &Rows, gradient: TensorData) {
        let mut sum = self.sink.lock();
        let [name] = &self.names[..] else {
            sum.error.get_or_insert(Error::internal("rows of several tensors"));
            return;
        };
        let added = self.values(gradient).and_then(|values| sum.flat.add_rows(name, rows.learned(), &values));
        if let Err(error) = added {
            sum.error.get_or_insert(error);
        }
    }

    fn values(&self, gradient: TensorData) -> Result<Vec<f32>> {
        let values = gradient.convert::<f32>().into_vec::<f32>();
        values.map_err(|e| Error::internal(format!("gradient of {:?} is not f32: {e:?}", self.names)))
    }

    fn add_to(&self, flat: &mut FlatGradient, gradient: TensorData) -> Result<()> {
        let inputs = gradient.shape.iter().next().copied().unwrap_or(1);
        let values = self.values(gradient)?;
        match &self.layout {
            Layout::Transposed => flat.add_transposed(&self.names, &values, inputs),
            Layout::EndToEnd | Layout::Matrix => flat.add_parts(&self.names, &values),
            Layout::Interpolated(map) => flat.add_parts(&self.names, &map.transposed(&values)),
            &Layout::Filters { channels } => flat.add_filters(&self.names, &values, [inputs, channels]),
            Layout::PerChannel => flat.add_transposed(&self.names, &values, inputs),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::flex::FlexDevice;
    use soup_core::schema::{Dtype, TensorSpec};

    use super::*;

    type Differentiable = Autodiff<Flex>;

    fn leaf(values: [[f32; 2]; 3]) -> Tensor<Differentiable, 2> {
        Tensor::from_data(values, &FlexDevice).require_grad()
    }

    fn schema() -> Schema {
        Schema::new(vec![
            TensorSpec::new("a", Dtype::F32, [1, 3]),
            TensorSpec::new("b", Dtype::F32, [1, 3]),
            TensorSpec::new("c", Dtype::F32, [6]),
        ])
        .unwrap()
    }

    /// The slot of tensors of `sink`'s schema.
    fn slot(sink: &Sink, names: &[&str], layout: Layout) -> Slot {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        sink.slot(Stored { names, shape: Vec::new(), layout })
    }

    #[test]
    fn gradients_add_up_over_passes_and_uses() {
        let sink = Sink::zeros(&schema());
        let (x, y) = (leaf([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), leaf([[1.0; 2]; 3]));
        for _ in 0..2 {
            let nothing = Tensor::<_, 1>::zeros([1], &FlexDevice);
            let x = Differentiable::enter(&x, slot(&sink, &["a", "b"], Layout::Transposed), &nothing);
            let squares: Tensor<Differentiable, 3> = (x.clone() * x).unsqueeze();
            let y = Differentiable::enter(&y, slot(&sink, &["c"], Layout::EndToEnd), &squares);
            // Its derivatives: 2 x, and 3.
            (squares + y.unsqueeze() * 3.0).sum().backward();
        }
        let (a, b) = ([4.0, 12.0, 20.0], [8.0, 16.0, 24.0]);
        let want: Vec<f32> = a.into_iter().chain(b).chain([6.0; 6]).collect();
        assert_eq!(sink.take().unwrap(), want);
    }

    #[test]
    fn the_gradient_of_rows_lands_in_their_rows() {
        let table = Schema::new(vec![TensorSpec::new("t", Dtype::F32, [3, 2])]).unwrap();
        let x = leaf([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
        let of = |learned| {
            let sink = Sink::zeros(&table);
            let rows = Rows::new(vec![2, 0, 2, 1].into(), learned);
            let out = Differentiable::enter_rows(&x, slot(&sink, &["t"], Layout::EndToEnd), &rows);
            let weights = Tensor::from_data([[1.0, 1.0], [2.0, 3.0], [10.0, 20.0], [7.0, 7.0]], &FlexDevice);
            assert_eq!(out.to_data().to_vec::<f32>().unwrap(), [5.0, 6.0, 1.0, 2.0, 5.0, 6.0, 3.0, 4.0]);
            (out * weights).sum().backward();
            sink.take().unwrap()
        };
        assert_eq!(of(Learned::All), [2.0, 3.0, 7.0, 7.0, 11.0, 21.0]);
        assert_eq!(of(Learned::AllBut(2)), [2.0, 3.0, 7.0, 7.0, 0.0, 0.0]);
        assert_eq!(of(Learned::Nothing), [0.0; 6]);
    }

    #[test]
    fn what_goes_wrong_in_a_backward_pass_comes_out() {
        let sink = Sink::zeros(&schema());
        let (x, nothing) = (leaf([[1.0; 2]; 3]), Tensor::<_, 1>::zeros([1], &FlexDevice));
        for name in ["d", "a"] {
            Differentiable::enter(&x, slot(&sink, &[name], Layout::EndToEnd), &nothing).sum().backward();
        }
        assert_eq!(sink.take().unwrap_err().chain(), "tensor \"d\" is missing");
    }
}
