//! Who scores soups on a worker.
//!
//! # Words
//!
//! A *judge* knows the data, the model and the figures. It is handed the parameters of a soup, and is then asked about samples of
//! a dataset by their positions: what happened to each, or how the loss changes with the parameters. What a sample is, how it
//! is decoded, on which device and by which architecture it is judged is the judge's alone.
//!
//! # Flow
//!
//! A run's judge is made when the run begins ([`native`] is the one there is). It *surveys* the datasets before anything is loaded.
//! Whoever has assembled a soup has it [loaded](Judge::load), and asks what was loaded for as long as it is kept.

pub(crate) mod files;
pub(crate) mod native;
pub(crate) mod samples;

use std::sync::Arc;

use soup_core::Result;
use soup_core::machine::PartFigures;
use soup_core::tally;
use soup_core::weights::Weights;

use crate::survey::Surveyed;
use crate::task::Cancelled;

/// The loss that is differentiated: the cross-entropy of beta times the logits against smoothed labels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loss {
    pub(crate) beta: f64,
    pub(crate) label_smoothing: f64,
    /// What the loss of each sample is multiplied by.
    pub(crate) scale: f64,
}

/// What differentiating gives.
pub(crate) struct Gradient {
    pub(crate) figures: PartFigures,
    /// One value for each element of the flattened parameters.
    pub(crate) values: Vec<f32>,
}

/// What judging gives.
pub(crate) struct Judged {
    /// What happened to the samples, in the order of the positions, or what it adds up to.
    pub(crate) said: tally::Judged,
    /// One row a sample, where they were asked for.
    pub(crate) logits: Option<Vec<f32>>,
}

/// See the module. Positions of samples may come in any order.
#[tonic::async_trait]
pub(crate) trait Judge: Send + Sync {
    /// Looks at every dataset, and at whether the model fits the tensors; datasets stay open.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) for what is not understood or does not fit, by its name.
    async fn survey(&self) -> Result<Surveyed>;

    /// A soup that can be asked about, from its weights, which are used up.
    ///
    /// # Errors
    /// Where they do not fit the model.
    async fn load(&self, weights: Weights) -> Result<Arc<dyn Loaded>>;

    /// Loss and gradient on some samples of a dataset.
    ///
    /// # Errors
    /// As for [`load`](Self::load) and [`judge`](Loaded::judge).
    async fn differentiate(
        &self,
        parameters: Arc<Vec<u8>>,
        dataset: u32,
        positions: Vec<u64>,
        loss: Loss,
        cancelled: Cancelled,
    ) -> Result<Gradient>;

    /// The labels of some samples of a dataset, and how many classes there are.
    ///
    /// # Errors
    /// Where a sample cannot be read.
    async fn labels(&self, dataset: u32, positions: Vec<u64>) -> Result<(Vec<u32>, u32)>;
}

/// A soup with a judge.
#[tonic::async_trait]
pub(crate) trait Loaded: Send + Sync {
    /// What happens to some samples of a dataset, with their logits where those are wanted.
    ///
    /// # Errors
    /// Where a sample cannot be read; [`Cancelled`](soup_core::ErrorKind::Cancelled).
    async fn judge(
        &self,
        dataset: u32,
        positions: Vec<u64>,
        logits: bool,
        cancelled: Cancelled,
    ) -> Result<Judged>;
}
