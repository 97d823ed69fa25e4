//! What a soup is, and what to do next: the pure heart of the orchestrator.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | ingredient | one fine-tuned checkpoint; same tensor names and shapes as the others |
//! | pool | all ingredients given to one cook, in *pool order* |
//! | soup | what a model is made of: a non-empty set of ingredients with weights; a description, not tensors |
//! | recipe | the algorithm that decides which soups to try |
//! | trial | one soup under evaluation against a bar |
//! | shard | a contiguous range of the flattened parameters, the same range in every ingredient |
//! | blend | the tensors of a soup on one shard |
//! | sequence | the order in which a dataset's samples are judged, where that is not their own |
//! | slice | a range of a dataset's samples, in a sequence |
//! | outcome | what happened to each sample; *tally*: what outcomes add up to; *score*: the tally of a whole dataset |
//! | ledger | everything known so far about a run |
//!
//! # Flow
//!
//! [`agree`](agree::agree) turns the headers of a pool into one [`Schema`](schema::Schema), which
//! [`ShardPlan`](shard::ShardPlan) cuts. A [`Recipe`](recipe::Recipe) reads the [`Ledger`](ledger::Ledger) and says which
//! soups to score next. [`Machine`](machine::Machine) is the state machine of one run: it takes an event and returns actions.
//!
//! Nothing here does I/O, reads a clock or draws randomness of its own: time and seeds are arguments.

pub mod agree;
pub mod batch_norm;
pub mod companion;
pub mod devices;
pub mod diagnosis;
pub mod digest;
pub mod error;
pub mod instead;
pub mod journal;
pub mod judge;
pub mod layer;
pub mod ledger;
pub mod machine;
pub mod memory;
pub mod metric;
pub mod plain;
pub mod plan;
mod random;
pub mod reach;
pub mod recipe;
pub mod report;
pub mod rounding;
pub mod run;
pub mod schema;
pub mod sequence;
pub mod shard;
pub mod significance;
pub mod soup;
pub mod survey;
pub mod tally;
pub mod texts;
pub mod transformers;
pub mod weights;

pub use error::{Error, ErrorKind, Result};
