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
//! A run's judge is made when the run begins: [`native`], or [`external`]. It *surveys* the datasets before anything is loaded.
//! Whoever assembles a soup asks it for a [`Vessel`], fills that with the soup's parameters, and has it [loaded](Vessel::load); what
//! was loaded is asked for as long as it is kept. So only the judge knows where parameters lie.

pub(crate) mod external;
pub(crate) mod files;
pub(crate) mod native;
pub(crate) mod samples;
pub(crate) mod statistics;

use std::sync::Arc;

use bytes::Bytes;
use soup_core::Result;
use soup_core::machine::PartFigures;
use soup_core::tally;

use self::statistics::Statistics;
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

/// What a soup is assembled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be judged.
    Judging,
    /// To be differentiated.
    Learning,
}

/// See the module.
#[tonic::async_trait]
pub(crate) trait Judge: Send + Sync {
    /// Looks at every dataset, and at whether the model fits the tensors; datasets stay open.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) for what is not understood or does not fit, by its name.
    async fn survey(&self) -> Result<Surveyed>;

    /// Something to fill with the parameters of one soup.
    ///
    /// # Errors
    /// Where there is no room for it.
    async fn vessel(&self, purpose: Purpose) -> Result<Box<dyn Vessel>>;

    /// Makes ready what is judged first, as far as there is room for it and until `cancelled` says so. What goes wrong is found again, and told,
    /// by whoever needs it.
    async fn make_ready(&self, _cancelled: Cancelled) {}

    /// Soups that it has at most at a time.
    fn soups_max(&self) -> u64 {
        u64::MAX
    }

    /// By how much two workers with it may differ in a mean loss or figure, relative to it.
    fn tolerance(&self) -> f64 {
        0.0
    }
}

/// Where the parameters of one soup are gathered, in pieces and in any order.
#[tonic::async_trait]
pub(crate) trait Vessel: Send {
    /// All of the flattened parameters, where they lie in one piece of memory: then they may be written there instead.
    fn flat(&mut self) -> Option<&mut [u8]> {
        None
    }

    /// Takes what belongs at byte `start` of the flattened parameters.
    ///
    /// # Errors
    /// Where there is no such place, or it cannot be written.
    async fn fill(&mut self, start: u64, bytes: Bytes) -> Result<()>;

    /// The soup, once all of it is here.
    ///
    /// # Errors
    /// Where the parameters do not fit the model.
    async fn load(self: Box<Self>) -> Result<Arc<dyn Loaded>>;
}

/// A soup with a judge. Positions of samples may come in any order.
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

    /// The running statistics that were recomputed for it, where they were.
    fn statistics(&self) -> Option<&Statistics> {
        None
    }

    /// Loss and gradient on some samples of a dataset, of a soup that was assembled for learning.
    ///
    /// # Errors
    /// As for [`judge`](Self::judge).
    async fn differentiate(
        &self,
        dataset: u32,
        positions: Vec<u64>,
        loss: Loss,
        cancelled: Cancelled,
    ) -> Result<Gradient>;
}
