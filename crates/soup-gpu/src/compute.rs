//! What a device does for shards, whichever library drives it.

use std::ops::Range;

use cubecl::server::Handle;
use soup_core::Result;

use crate::budget::Memory;
use crate::plan::{Block, Format};

/// Memory of a device; given back when it is dropped and [`Compute::give_back`] is called.
#[derive(Clone, Debug)]
pub(crate) struct Held(pub(crate) Handle);

/// A piece as it lies on a device.
pub(crate) struct Rows {
    pub(crate) format: Format,
    /// Bytes of a row.
    pub(crate) stride: usize,
    pub(crate) ingredients: usize,
    pub(crate) memory: Held,
    /// Of every unit of a row, the part that it is of: see [`Piece::parts_of_units`](crate::plan::Piece::parts_of_units).
    pub(crate) parts_of_units: Held,
}

/// Whose elements a blend adds up, and how.
pub(crate) struct Terms<'a> {
    /// Positions of the members in the pool.
    pub(crate) members: &'a [u32],
    /// No weights: the mean. Else one a member in each row, and one row, or one a part of the piece.
    pub(crate) rows: Option<Vec<f64>>,
}

/// A device. A failure is told by whichever call comes next, and no call after that does anything.
pub(crate) trait Compute: Send + Sync {
    /// Bytes that a kernel can be given in one piece.
    fn limit(&self) -> u64;

    /// Memory, where that can be asked.
    fn memory(&self) -> Result<Option<Memory>>;

    /// Takes `bytes` bytes for long, whatever is in there.
    fn allocate(&self, bytes: u64) -> Result<Held>;

    /// A small table.
    fn table(&self, words: &[u32]) -> Result<Held>;

    /// Copies `bytes` bytes, a multiple of 16, to `to` from byte `start` on; `fill` writes those from an offset on.
    fn upload(
        &self,
        to: &Held,
        start: usize,
        bytes: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<()>;

    /// Copies the bytes `range` of `from` to the host; `take` is given them in order, with their offsets in the range.
    fn download(&self, from: &Held, range: Range<usize>, take: &mut dyn FnMut(usize, &[u8])) -> Result<()>;

    /// A blend of a piece: a row. `take` is given its bytes in order.
    fn blend(&self, rows: &Rows, terms: &Terms<'_>, take: &mut dyn FnMut(usize, &[u8])) -> Result<()>;

    /// The products of a gradient, one value an element of a row, with every ingredient: one sum a block and ingredient.
    fn dots(&self, rows: &Rows, gradient: &[f32], blocks: &[Block]) -> Result<Vec<f64>>;

    /// The inner products of all ingredients minus an origin, and of the origin (see [`soup_tensor::ShardMemory::gram`]), of a piece
    /// in `blocks`: `spans` is asked for the sums of the first one's span so far and given those of every span, in order.
    fn gram(&self, rows: &Rows, base: Option<&[u8]>, blocks: &[Block], spans: &mut dyn Spans) -> Result<()>;

    /// Copies bytes on the device, from the first half of `within` to the second, and waits; for measurements.
    fn copy_within(&self, within: &Held, bytes: usize) -> Result<()>;

    /// Gives memory that was dropped back to whoever else uses the device.
    fn give_back(&self) -> Result<()>;
}

/// Who adds up the inner products of spans.
pub(crate) trait Spans {
    /// The sums of the span of `block` so far.
    fn so_far(&mut self, block: &Block) -> Vec<f64>;

    /// They are `sums` now.
    fn are_now(&mut self, block: &Block, sums: &[f64]);
}
