//! One description of an architecture's parameters, for everything that goes over them.
//!
//! An architecture names each of its parameters once, to a [`Visitor`]: which tensors of a checkpoint it is made of, of
//! what shape, and how they lie in the model. What the visitor gives for it takes the parameter's place. [`Listing`]
//! notes names and shapes, for the check of a schema; [`Loader`] gives values that know where their gradient goes.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use soup_core::{Error, Result};

use super::Parameters;
use super::interpolation::Interpolation;
use crate::device::Precision;
use crate::gradient::sink::{Rows, Sink, Slot};
use crate::kernels::Kernels;

/// The tensors of a checkpoint that one parameter of a model is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    /// Their names, in the order in which they lie in the model.
    pub(crate) names: Vec<String>,
    /// The shape of each of them.
    pub(crate) shape: Vec<usize>,
    pub(crate) layout: Layout,
}

/// How tensors of a checkpoint lie in one of a model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Layout {
    /// End to end, each in its own order.
    EndToEnd,
    /// Matrices, `[out, in]` once all dimensions but the first are taken as one, side by side and transposed:
    /// `[in, names * out]`.
    Transposed,
    /// A matrix `[in, out]`, as it is in the model.
    Matrix,
    /// One tensor of position embeddings, `[1, tokens, width]`, at the places of another grid.
    Interpolated(Arc<Interpolation>),
    /// Filters of a convolution, `[out, channels, height, width]`, transposed and the channels last:
    /// `[height * width * channels, out]`.
    Filters { channels: usize },
    /// Filters of one channel each, `[channels, 1, height, width]`, the channels last: `[height * width, channels]`.
    PerChannel,
}

/// What stands for the parameters of a model.
pub(crate) trait Form: 'static {
    /// What stands for one of rank `D`.
    type Parameter<const D: usize>: Send + Sync;
    /// What stands for a tensor of rank `D` that is made of parameters, once, and kept.
    type Kept<const D: usize>: Default + Send + Sync;
}

/// Goes over the parameters of an architecture.
pub(crate) trait Visitor {
    /// What it gives for them.
    type Form: Form;

    /// Takes the next parameter, which has `shape` in the model.
    ///
    /// # Errors
    /// The visitor's own.
    fn visit<const D: usize>(
        &mut self,
        stored: Stored,
        shape: [usize; D],
    ) -> Result<<Self::Form as Form>::Parameter<D>>;

    /// The tensor `name` of `shape`, as it is stored.
    ///
    /// # Errors
    /// As [`visit`](Visitor::visit).
    fn tensor<const D: usize>(
        &mut self,
        name: String,
        shape: [usize; D],
    ) -> Result<<Self::Form as Form>::Parameter<D>> {
        self.reshaped(name, shape.to_vec(), shape)
    }

    /// The tensor `name` of shape `stored`, which has another `shape` of as many elements in the model.
    ///
    /// # Errors
    /// As [`visit`](Visitor::visit).
    fn reshaped<const D: usize>(
        &mut self,
        name: String,
        stored: Vec<usize>,
        shape: [usize; D],
    ) -> Result<<Self::Form as Form>::Parameter<D>> {
        self.visit(Stored { names: vec![name], shape: stored, layout: Layout::EndToEnd }, shape)
    }

    /// The vectors `names` of `width` elements each, end to end.
    ///
    /// # Errors
    /// As [`visit`](Visitor::visit).
    fn vectors(&mut self, names: Vec<String>, width: usize) -> Result<<Self::Form as Form>::Parameter<1>> {
        let shape = [names.len() * width];
        self.visit(Stored { names, shape: vec![width], layout: Layout::EndToEnd }, shape)
    }

    /// The tensor `name` of position embeddings of `width` elements each, interpolated by `map`: `[1, tokens, width]`.
    ///
    /// # Errors
    /// As [`visit`](Visitor::visit).
    fn interpolated(
        &mut self,
        name: String,
        map: Interpolation,
        width: usize,
    ) -> Result<<Self::Form as Form>::Parameter<3>> {
        let (stored, shape) = (vec![1, map.stored(), width], [1, map.tokens(), width]);
        let layout = Layout::Interpolated(Arc::new(map));
        self.visit(Stored { names: vec![name], shape: stored, layout }, shape)
    }

    /// The matrices `names` from `inputs`, whose dimensions count as one, to `outputs`, side by side and transposed.
    ///
    /// # Errors
    /// As [`visit`](Visitor::visit).
    fn matrices(
        &mut self,
        names: Vec<String>,
        outputs: usize,
        inputs: &[usize],
    ) -> Result<<Self::Form as Form>::Parameter<2>> {
        let shape = [inputs.iter().product(), names.len() * outputs];
        let stored = [&[outputs], inputs].concat();
        self.visit(Stored { names, shape: stored, layout: Layout::Transposed }, shape)
    }

    /// The matrix `name` from `inputs` to `outputs`, stored as `[inputs, outputs]`.
    ///
    /// # Errors
    /// As [`visit`](Visitor::visit).
    fn matrix(
        &mut self,
        name: String,
        [inputs, outputs]: [usize; 2],
    ) -> Result<<Self::Form as Form>::Parameter<2>> {
        let shape = [inputs, outputs];
        self.visit(Stored { names: vec![name], shape: shape.to_vec(), layout: Layout::Matrix }, shape)
    }

    /// The filters `name` from `channels` to `outputs`, of a window of that height and width: `[height * width * channels, outputs]`.
    ///
    /// # Errors
    /// As [`visit`](Visitor::visit).
    fn filters(
        &mut self,
        name: String,
        [channels, outputs]: [usize; 2],
        [height, width]: [usize; 2],
    ) -> Result<<Self::Form as Form>::Parameter<2>> {
        let stored = vec![outputs, channels, height, width];
        let layout = Layout::Filters { channels };
        let shape = [height * width * channels, outputs];
        self.visit(Stored { names: vec![name], shape: stored, layout }, shape)
    }

    /// The filters `name` of one channel each, of a window of that height and width: `[height * width, channels]`.
    ///
    /// # Errors
    /// As [`visit`](Visitor::visit).
    fn filters_per_channel(
        &mut self,
        name: String,
        channels: usize,
        [height, width]: [usize; 2],
    ) -> Result<<Self::Form as Form>::Parameter<2>> {
        let stored = vec![channels, 1, height, width];
        self.visit(
            Stored { names: vec![name], shape: stored, layout: Layout::PerChannel },
            [height * width, channels],
        )
    }
}

/// Nothing: the parameters are only named.
pub(crate) struct Listed;

impl Form for Listed {
    type Parameter<const D: usize> = ();
    type Kept<const D: usize> = ();
}

/// Notes the tensors of a checkpoint that an architecture needs.
#[derive(Default)]
pub(crate) struct Listing {
    /// Name and shape of each, in the order of the visit.
    pub(crate) tensors: Vec<(String, Vec<u64>)>,
}

impl Visitor for Listing {
    type Form = Listed;

    fn visit<const D: usize>(&mut self, stored: Stored, _: [usize; D]) -> Result<()> {
        let shape: Vec<u64> = stored.shape.iter().map(|&d| d as u64).collect();
        self.tensors.extend(stored.names.into_iter().map(|name| (name, shape.clone())));
        Ok(())
    }
}

/// Values.
pub(crate) struct Loaded<B: Backend>(PhantomData<fn() -> B>);

impl<B: Backend> Form for Loaded<B> {
    type Parameter<const D: usize> = Parameter<B, D>;
    type Kept<const D: usize> = OnceLock<Tensor<B, D>>;
}

/// One parameter of a model, with values in it.
#[derive(Clone, Debug)]
pub(crate) struct Parameter<B: Backend, const D: usize> {
    values: Tensor<B, D>,
    /// Where its gradient goes, of a model that is differentiated.
    slot: Option<Slot>,
}

impl<B: Kernels, const D: usize> Parameter<B, D> {
    /// The values, for one use. `activation` is what they are used on: it says how far the graph has come, so that the
    /// gradient leaves the backward pass as soon as that comes to this use ([`Deposits`](crate::gradient::sink::Deposits)).
    pub(crate) fn on<const A: usize>(&self, activation: &Tensor<B, A>) -> Tensor<B, D> {
        match &self.slot {
            Some(slot) => B::enter(&self.values, slot.clone(), activation),
            None => self.values.clone(),
        }
    }

    /// The values, of which no gradient is wanted: it stays 0.
    pub(crate) fn constant(&self) -> Tensor<B, D> {
        match &self.slot {
            Some(_) => self.values.clone().set_require_grad(false),
            None => self.values.clone(),
        }
    }

    /// Whether its gradient goes anywhere: what is made of it is then made anew for every pass through the graph.
    pub(crate) fn is_learned(&self) -> bool {
        self.slot.is_some()
    }
}

impl<B: Kernels> Parameter<B, 2> {
    /// Some rows of a table, for one use.
    pub(crate) fn rows(&self, rows: &Rows) -> Tensor<B, 2> {
        match &self.slot {
            Some(slot) => B::enter_rows(&self.values, slot.clone(), rows),
            None => rows.of(&self.values),
        }
    }
}

/// Takes values out of flattened parameters whose schema has passed
/// [`check_schema`](crate::architecture::Architecture::check_schema).
pub(crate) struct Loader<'a, B: Backend> {
    pub(crate) parameters: &'a Parameters<'a>,
    /// What gets the gradients; on a backend that differentiates, every parameter is then a leaf.
    pub(crate) sink: Option<&'a Sink>,
    pub(crate) device: &'a B::Device,
    pub(crate) precision: Precision,
}

impl<B: Kernels> Visitor for Loader<'_, B> {
    type Form = Loaded<B>;

    fn visit<const D: usize>(&mut self, stored: Stored, shape: [usize; D]) -> Result<Parameter<B, D>> {
        let elements = stored.names.len() * stored.shape.iter().product::<usize>();
        let mut values = Vec::with_capacity(elements);
        for name in &stored.names {
            self.parameters.append(name, &mut values)?;
        }
        if values.len() != elements {
            return Err(Error::internal(format!(
                "{} elements of {:?} are not of shape {shape:?}",
                values.len(),
                stored.names
            )));
        }
        // Others may use a device between one parameter and the next.
        let values = B::on(self.device, self.precision, || {
            Ok(B::parameter(values, &stored.layout, shape, self.device))
        })?;
        Ok(match self.sink {
            Some(sink) => Parameter { values: values.require_grad(), slot: Some(sink.slot(stored)) },
            None => Parameter { values, slot: None },
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::flex::FlexDevice;
    use burn::backend::{Autodiff, Flex};
    use soup_core::schema::{Dtype, Schema, TensorSpec};

    use super::*;

    type Differentiable = Autodiff<Flex>;

    /// One parameter of every rank that models have, and matrices whose inputs have three dimensions.
    struct Ranks<F: Form> {
        one: F::Parameter<1>,
        two: F::Parameter<2>,
        three: F::Parameter<3>,
        four: F::Parameter<4>,
        matrices: F::Parameter<2>,
        filters: F::Parameter<2>,
        filters_per_channel: F::Parameter<2>,
    }

    fn ranks<V: Visitor>(visitor: &mut V) -> Result<Ranks<V::Form>> {
        Ok(Ranks {
            one: visitor.tensor("one".to_owned(), [3])?,
            two: visitor.tensor("two".to_owned(), [2, 3])?,
            three: visitor.tensor("three".to_owned(), [2, 1, 3])?,
            four: visitor.tensor("four".to_owned(), [2, 3, 1, 2])?,
            matrices: visitor.matrices(vec!["left".to_owned(), "right".to_owned()], 2, &[1, 2, 2])?,
            filters: visitor.filters("filters".to_owned(), [3, 2], [1, 2])?,
            filters_per_channel: visitor.filters_per_channel("each".to_owned(), 3, [2, 1])?,
        })
    }

    fn schema() -> Schema {
        let mut listing = Listing::default();
        ranks(&mut listing).unwrap();
        let spec = |(name, shape): (String, Vec<u64>)| TensorSpec::new(&name, Dtype::F32, shape);
        Schema::new(listing.tensors.into_iter().map(spec).collect()).unwrap()
    }

    #[test]
    fn a_listing_has_every_tensor_of_the_checkpoint() {
        let mut listing = Listing::default();
        ranks(&mut listing).unwrap();
        assert_eq!(listing.tensors.len(), 8);
        assert_eq!(listing.tensors[6], ("filters".to_owned(), vec![2, 3, 1, 2]));
        assert_eq!(listing.tensors[7], ("each".to_owned(), vec![3, 1, 2, 1]));
        assert_eq!(listing.tensors[3], ("four".to_owned(), vec![2, 3, 1, 2]));
        assert_eq!(listing.tensors[5], ("right".to_owned(), vec![2, 1, 2, 2]));
    }

    #[test]
    fn a_gradient_of_any_rank_lands_where_its_parameter_is() {
        let schema = schema();
        let values: Vec<f32> = (0..schema.parameters()).map(|i| i as f32 - 7.0).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let parameters = Parameters::new(&schema, &bytes).unwrap();
        let sink = Sink::zeros(&schema);
        let mut loader = Loader::<Differentiable> {
            parameters: &parameters,
            sink: Some(&sink),
            device: &FlexDevice,
            precision: Precision::F32,
        };
        let model = ranks(&mut loader).unwrap();
        // Half the sum of all squares: the gradient is the parameters themselves, in the checkpoint's order.
        let nothing = Tensor::<_, 1>::zeros([1], &FlexDevice);
        let one = model.one.on(&nothing).square().sum();
        let two = model.two.on(&one).square().sum();
        let three = model.three.on(&two).square().sum();
        let four = model.four.on(&three).square().sum();
        let matrices = model.matrices.on(&nothing);
        assert_eq!(matrices.dims(), [4, 4]);
        let filters = model.filters.on(&nothing);
        // The second pixel's last channel of the first output.
        let at = schema.range(schema.index_of("filters").unwrap()).start as usize / 4;
        let shown = filters.clone().slice([5..6, 0..1]).into_data().to_vec::<f32>().unwrap();
        assert_eq!((filters.dims(), shown), ([6, 2], vec![values[at + 5]]));
        let filters = filters.square().sum() + model.filters_per_channel.on(&nothing).square().sum();
        ((one + two + three + four + matrices.square().sum() + filters) * 0.5).backward();
        assert_eq!(sink.take().unwrap(), values);
    }

    #[test]
    fn embeddings_are_interpolated_and_their_gradient_is_of_those_in_the_checkpoint() {
        let schema = Schema::new(vec![TensorSpec::new("p", Dtype::F32, [1, 10, 2])]).unwrap();
        let values: Vec<f32> = (0..20u8).map(|i| f32::from(i * 5 % 7)).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let parameters = Parameters::new(&schema, &bytes).unwrap();
        let sink = Sink::zeros(&schema);
        let mut loader = Loader::<Differentiable> {
            parameters: &parameters,
            sink: Some(&sink),
            device: &FlexDevice,
            precision: Precision::F32,
        };
        let map = Interpolation::new(1, (3, 3), (2, 4));
        let want = map.apply(&values);
        let model = loader.interpolated("p".to_owned(), map.clone(), 2).unwrap();
        let on = model.on(&Tensor::<_, 1>::zeros([1], &FlexDevice));
        assert_eq!((on.dims(), on.to_data().to_vec::<f32>().unwrap()), ([1, 9, 2], want.clone()));
        (on.square().sum() * 0.5).backward();
        assert_eq!(sink.take().unwrap(), map.transposed(&want));
    }

    #[test]
    fn a_model_that_is_only_evaluated_has_the_values() {
        let schema = schema();
        let bytes: Vec<u8> = (0..schema.parameters()).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let parameters = Parameters::new(&schema, &bytes).unwrap();
        let mut loader = Loader::<Flex> {
            parameters: &parameters,
            sink: None,
            device: &FlexDevice,
            precision: Precision::F32,
        };
        let model = ranks(&mut loader).unwrap();
        let at = schema.range(schema.index_of("left").unwrap()).start as f32 / 4.0;
        // Column 1 is the second output of the first matrix.
        let column = model.matrices.on(&model.one.values).slice([0..4, 1..2]).into_data();
        assert_eq!(column.to_vec::<f32>().unwrap(), [at + 4.0, at + 5.0, at + 6.0, at + 7.0]);
        let wrong = loader.tensor("one".to_owned(), [4]).err().unwrap();
        assert_eq!(wrong.chain(), "3 elements of [\"one\"] are not of shape [4]");
    }
}
