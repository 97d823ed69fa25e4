//! Judges models: what happens to each sample of a dataset when a model looks at it.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | dataset | labelled images, as Hugging Face Parquet or as one folder per class; read by [`Files`] |
//! | sample | one encoded image with its label |
//! | prepared | samples decoded, resized and normalised: what a model eats; made once, evaluated many times |
//! | model | an architecture with parameters in it, ready to evaluate |
//! | gradient | of a loss over samples, with respect to every parameter of a model |
//! | outcome | what happened to one sample: prediction, loss ([`soup_core::tally::Outcome`]) |
//!
//! # Flow
//!
//! ```text
//! config.json, preprocessor_config.json ─► evaluator() ─► Evaluator ─ load(schema, bytes) ─► Model
//! Files ─► Dataset ─────────────────────────────────────► Evaluator ─ prepare(range) ──────► Prepared
//!                                                                Model.evaluate(Prepared) ─► Vec<Outcome>
//!                         Evaluator ─ differentiate(schema, bytes, Prepared, LossSpec) ─────► Gradient
//! ```
//!
//! Everything is blocking and single-threaded on purpose: the caller owns the threads, shares one [`Evaluator`] and one
//! [`Model`] among them, and hands each a range of samples. A sample's outcome does not depend on which others are
//! evaluated with it, so the way the work is cut never shows in a score.

mod architecture;
pub mod classes;
mod config;
pub mod dataset;
mod deit;
mod dinov2;
pub mod evaluator;
mod gradient;
mod kernels;
mod outcome;
mod parameters;
mod prepared;
pub mod preprocess;
pub mod source;
mod transformer;
mod vit;

pub use classes::Classes;
pub use dataset::{Dataset, Sample};
pub use evaluator::{BATCH_SIZE_DEFAULT, Evaluator, EvaluatorSpec, Model, evaluator};
pub use gradient::{Gradient, LossSpec};
pub use prepared::Prepared;
pub use source::{FileEntry, Files, LocalFiles};
