//! The wire: generated messages and services, and checked conversions between them and soup-core's types.
//!
//! Wire types stop here: every other crate works with soup-core's types and calls the conversions at its edge. What
//! comes from the wire is checked ([`convert`]); what goes to it cannot fail. The wire's specification is the comments
//! of the `.proto` files.

pub mod bounded;
mod convert;
mod status;

pub use convert::{report_event, sha256, statistics, tensors_of};
pub use status::{error_of, exhausted, lost, no_http2, status_of};

/// Version of what coordinators, workers and those who submit runs say to each other: raised with every change of a message or of its
/// meaning. A worker of another one is refused, and so is a run.
pub const PROTOCOL_VERSION: u32 = 15;
/// Largest control message, in bytes. Control messages grow with the number of tensors, never with their size; weights
/// are streamed in chunks of [`CHUNK_BYTES_MAX`].
pub const CONTROL_BYTES_MAX: usize = 64 << 20;
/// Largest chunk of weights in one message, in bytes.
pub const CHUNK_BYTES_MAX: usize = 2 << 20;

/// Version of what workers and external judges say to each other.
pub const JUDGE_PROTOCOL_VERSION: u32 = 1;
/// Largest message of an external judge, in bytes: a block with its logits.
pub const JUDGE_BYTES_MAX: usize = 256 << 20;

/// Size of a message on the wire, in bytes.
pub fn message_bytes(message: &impl prost::Message) -> usize {
    message.encoded_len()
}

/// The messages and the service of `proto/soup/judge/v1`, as generated.
#[allow(missing_docs, clippy::all, clippy::too_many_lines, rust_2018_idioms, unreachable_pub)]
pub mod judge_v1 {
    tonic::include_proto!("soup.judge.v1");
}

/// The messages and services of `proto/soup/v1`, as generated.
#[allow(missing_docs, clippy::all, clippy::too_many_lines, rust_2018_idioms, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("soup.v1");
}
