//! Judges models: what happens to each sample of a dataset when a model looks at it.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | dataset | labelled images, as Hugging Face Parquet or as one folder per class, or labelled texts, as Parquet or in lines; read by [`Files`] |
//! | sample | an input (an encoded image, a text or a pair of texts) and a target (its class) |
//! | prepared | samples as a model takes them (images decoded, resized and normalised; texts as tokens); made once, judged many times |
//! | model | an architecture with parameters in it, ready to evaluate |
//! | device | where models are evaluated, in an arithmetic: the processor, or what this build can drive besides ([`DeviceKind`], [`Precision`]) |
//! | class of numerics | what a device with its arithmetic is called; within one the same weights and samples give the same bits ([`numerics`]) |
//! | gradient | of a loss over samples, with respect to every parameter of a model |
//! | budget | what decoding may take, for all threads together; claimed before anything is unpacked |
//! | outcome | what happened to one sample: prediction, loss ([`soup_core::tally::Outcome`]) |
//!
//! # Flow
//!
//! ```text
//! config.json, preprocessor_config.json or tokenizer.json ─► evaluator() ─► Evaluator ─ load(schema, bytes) ─► Model
//! Files ─► Dataset ─────────────────────────────────────► Evaluator ─ prepare(range) ──────► Prepared
//!                                        Model.logits(Prepared) ─► Prepared.outcomes(logits) ─► Vec<Outcome>
//!                         Evaluator ─ differentiate(schema, bytes, Prepared, LossSpec) ─────► Gradient
//! ```
//!
//! Everything is blocking and single-threaded on purpose: the caller owns the threads, shares one [`Evaluator`] and one
//! [`Model`] among them, and hands each a range of samples. A sample's outcome does not depend on which others are
//! evaluated with it, so the way the work is cut never shows in a score. Threads that share a device take turns there.

mod architecture;
mod budget;
pub mod classes;
mod config;
mod convolution;
pub mod dataset;
mod device;
pub mod evaluator;
mod gradient;
mod kernels;
mod kind;
mod models;
mod outcome;
mod parameters;
mod prepared;
pub mod preprocess;
mod prompts;
pub mod source;
mod tokenizer;
mod transformer;

pub use budget::Budget;
pub use classes::Classes;
pub use convolution::norm::{Observed, add_block, averaged, rounded};
pub use dataset::{Dataset, Input, InputKind, Sample, Samples, Target};
pub use device::{Precision, numerics};
pub use evaluator::{BATCH_SIZE_DEFAULT, Evaluator, EvaluatorSpec, Model, evaluator};
pub use gradient::{Gradient, LossSpec};
pub use prepared::{Inputs, Predictions, Prepared};
pub use prompts::Prompts;
pub use source::{FileEntry, Files, LocalFiles};
pub use tokenizer::{TOKENIZER_BYTES_MAX, TokenizerFiles};
