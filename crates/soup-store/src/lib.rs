//! Keeps: checkpoints, and the outputs made of them, on any store that a URL can name.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | location | a place in a store: a file or a folder, named by a path or a URL |
//! | stamp | size and ETag of a file when it was first seen; later reads are pinned to it |
//! | header | the table of tensors at the start of a safetensors file |
//! | checkpoint | one model on a store: a safetensors file, or a Hugging Face folder of one or several |
//! | placement | where the bytes of one tensor of a checkpoint are: file and offset |
//! | read | a run of bytes to be copied from a file into a shard |
//! | staging | an output that is being written and is not visible yet |
//! | state | the place that keeps runs: their plans, their logs, and scores of soups by content |
//! | signature | says that a record or a manifest is what a coordinator with a key wrote |
//!
//! # Flow
//!
//! [`Location::parse`](location::Location::parse) names a place. [`open_pool`](pool::open_pool) finds the checkpoints there
//! and reads their headers only. [`plan_reads`](load::plan_reads) says which bytes of which files make up a shard, and
//! [`load`](load::load) fetches exactly those, straight into the shard. [`Staging`](output::Staging) receives the soup's
//! files and makes them visible at once. [`State`](state::State) keeps the journals of runs, and
//! [`Scores`](scores::Scores) what soups scored, for later runs, and
//! [`Outcomes`](outcomes::Outcomes) what happened to every sample.
//!
//! Everything read is untrusted: sizes are capped before anything is allocated, and every error names the object. So is what
//! lies on a [local disk](local): a name there can be anything.

pub mod card;
mod cause;
pub mod checkpoint;
#[cfg(feature = "cloud")]
mod cloud;
pub mod companion;
pub mod data;
pub mod failpoint;
#[cfg(any(test, feature = "faults"))]
pub mod faults;
pub mod fresh;
pub mod glob;
pub mod header;
mod kept;
pub mod layout;
pub mod listing;
pub mod load;
pub mod local;
pub mod location;
pub mod outcomes;
pub mod output;
pub mod places;
pub mod pool;
pub mod read;
pub mod scores;
pub mod signing;
pub mod state;
mod upload;

#[cfg(test)]
mod conformance;
#[cfg(all(test, feature = "cloud"))]
mod http_fixture;
#[cfg(all(test, feature = "cloud"))]
mod s3_fixture;
