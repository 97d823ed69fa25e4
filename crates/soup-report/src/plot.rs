//! Plot primitives: numbers and ticks, scales, frames with axes, heat maps, labels that do not overlap.

pub(crate) mod bars;
pub(crate) mod frame;
pub(crate) mod heat;
pub(crate) mod label;
pub(crate) mod number;
pub(crate) mod ramp;
pub(crate) mod scale;
