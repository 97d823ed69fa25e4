//! What models look at, by kind: images or texts.
//!
//! A kind says how samples become what a model takes ([`Kind::add`]), whether prepared ones are that ([`Kind::check`]), and what a
//! forward pass gets of them ([`Kind::batch`]). An architecture names its kind; everything around it ([`crate::evaluator`],
//! [`crate::gradient`]) knows neither images nor texts.

mod images;
mod texts;

use std::ops::Range;

use burn::tensor::backend::Backend;
use soup_core::Result;

pub(crate) use self::images::Images;
pub(crate) use self::texts::{TextBatch, TextClassifier, Texts};
use crate::architecture::Architecture;
use crate::budget::Budget;
use crate::classes::Classes;
use crate::dataset::{Dataset, Input, InputKind};
use crate::evaluator::EvaluatorSpec;
use crate::prepared::{Inputs, Prepared};

/// A kind of what models look at, ready for one model.
pub(crate) trait Kind: Sized + Send + Sync + 'static {
    /// Which it is.
    const INPUT: InputKind;

    /// What a config says of what goes in and what comes out.
    type Classifier;

    /// What a forward pass takes.
    type Batch<B: Backend>: Clone + Send + 'static;

    /// Reads how samples become what `architecture` takes, which may change with that.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where that is not known or not understood.
    fn open<A: Architecture<Kind = Self>>(architecture: A, spec: &EvaluatorSpec) -> Result<(A, Self)>;

    /// The classes that come out.
    fn classes(classifier: &Self::Classifier) -> &Classes;

    /// Memory of one prepared sample, in bytes: at most, where samples differ.
    fn sample_bytes(&self) -> u64;

    /// No samples yet, with room for so many.
    fn none(&self, samples: usize) -> Inputs;

    /// Appends what a model takes of `input`; claims from `budget` what that takes on the way.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it cannot be taken, without saying which sample it is.
    fn add(&self, input: &Input, budget: &Budget, to: &mut Inputs) -> Result<()>;

    /// What people should know about how samples become what a model takes, whatever the dataset.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// What people should know about how the samples of `dataset` become what a model takes; reads them all where that is needed.
    ///
    /// # Errors
    /// Those of reading; [`Data`](soup_core::ErrorKind::Data) for a sample that cannot be taken.
    fn look_over(&self, dataset: &Dataset) -> Result<Vec<String>> {
        let _ = dataset;
        Ok(Vec::new())
    }

    /// Checks that the model `model` can take the samples `range` of `prepared`.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where they are not there,
    /// [`Data`](soup_core::ErrorKind::Data) where they are of another kind or shape.
    fn check(&self, prepared: &Prepared, range: Range<usize>, model: &str) -> Result<()>;

    /// How many of the samples `range` of `prepared`, which were [checked](Kind::check), go through a model at once, from the first one on,
    /// where all batches of up to `samples` of them have one shape; at least one.
    ///
    /// # Errors
    /// As [`check`](Kind::check).
    fn fitting(&self, prepared: &Prepared, range: Range<usize>, samples: usize) -> Result<usize> {
        let _ = prepared;
        Ok(range.len().min(samples))
    }

    /// The samples `range` of `prepared`, which were [checked](Kind::check), as a batch. Where it is to be of the one shape that batches of
    /// up to `of` samples have, which it [fits](Kind::fitting), others of no meaning follow them until there are as many.
    ///
    /// # Errors
    /// As [`check`](Kind::check).
    fn batch<B: Backend>(
        &self,
        prepared: &Prepared,
        range: Range<usize>,
        of: Option<usize>,
        device: &B::Device,
    ) -> Result<Self::Batch<B>>;

    /// What a batch of so many samples takes on a device, in bytes.
    fn batch_bytes<B: Backend>(&self, rows: usize) -> u64;
}
