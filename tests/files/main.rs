//! Right answers on other people's files: what is understood gives the right score, everything else is refused with its name or
//! noted. Nothing is guessed in silence.
//!
//! Every test makes files as people have them, from the small pool of `pools/animals`, and looks at what a cook says of them.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod averaging;
mod checkpoints;
mod companions;
mod datasets;
mod families;
#[allow(dead_code)] // not every module uses all of it
mod fixture;
mod limits;
mod special;
mod stores;
