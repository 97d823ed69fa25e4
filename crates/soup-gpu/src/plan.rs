//! How a shard lies on a device, and the tables by which kernels find their way in it.
//!
//! What is averaged goes to the device in *pieces*: matrices of one row an ingredient, all of one format, each in one allocation
//! that a kernel can be given whole. In a row, tensors begin at multiples of [`UNIT_BYTES`], so that the units that work on one are
//! of one tensor, and what a blend gives can be used as tensors where it lies. Between them are zeros. Where a tensor is cut, it is
//! between two blocks of its inner products ([`BLOCK_ELEMENTS`]), which are summed by themselves.
//!
//! Tensors that are a soup's first member's are in pieces of their own: they are copied and never blended. Integers stay in the host's
//! memory.

use std::ops::Range;

use soup_core::schema::Dtype;
use soup_core::shard::Segment;
use soup_core::{Error, Result};
use soup_tensor::Layout;

/// Tensors begin at multiples of so many bytes of a row.
pub(crate) const UNIT_BYTES: usize = 512;
/// Elements of a block of inner products with a gradient, as on the host.
pub(crate) const BLOCK_ELEMENTS: usize = 4096;
/// Elements of a block of inner products among ingredients, as on the host.
pub(crate) const GRAM_BLOCK_ELEMENTS: usize = 256;
/// Elements of a segment whose blocks are added up before they are added to the segment's, as on the host.
pub(crate) const SPAN_ELEMENTS: usize = 64 << 10;

/// A format of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Format {
    F64,
    F32,
    F16,
    Bf16,
}

impl Format {
    /// All of them.
    pub(crate) const ALL: [Format; 4] = [Format::F64, Format::F32, Format::F16, Format::Bf16];

    /// The dtype.
    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Format::F64 => Dtype::F64,
            Format::F32 => Dtype::F32,
            Format::F16 => Dtype::F16,
            Format::Bf16 => Dtype::BF16,
        }
    }

    /// Bytes of an element.
    pub(crate) fn width(self) -> usize {
        self.dtype().width_bytes() as usize
    }
}

/// Part of a segment in a row of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Position of the segment in the shard.
    pub(crate) segment: usize,
    /// Position of its tensor in the schema.
    pub(crate) tensor: usize,
    /// First of its elements, in the segment: a multiple of [`BLOCK_ELEMENTS`].
    pub(crate) first: usize,
    /// The same among all elements of the shard.
    pub(crate) in_shard: usize,
    /// How many.
    pub(crate) count: usize,
    /// Its bytes in the shard of an ingredient.
    pub(crate) bytes: Range<usize>,
    /// Where it begins in the row, in bytes: a multiple of [`UNIT_BYTES`].
    pub(crate) at: usize,
}

/// A matrix on the device: a row an ingredient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) format: Format,
    /// Whether its elements are those of a soup's first member.
    pub(crate) of_first_member: bool,
    /// In order; never empty.
    pub(crate) parts: Vec<Part>,
    /// Bytes of a row: a multiple of [`UNIT_BYTES`].
    pub(crate) stride: usize,
}

/// Some elements of a part whose products are added up by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Position of the segment in the shard.
    pub(crate) segment: usize,
    /// Which [span](SPAN_ELEMENTS) of the segment it is in.
    pub(crate) span: usize,
    /// First element, in the row of the piece.
    pub(crate) start: usize,
    /// How many.
    pub(crate) count: usize,
}

/// Where everything in a shard is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) pieces: Vec<Piece>,
    /// What stays in the host's memory: bytes of the shard of the first ingredient.
    pub(crate) on_host: Vec<Range<usize>>,
}

impl Plan {
    /// The plan of a shard, with pieces of at most `limit` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where a block of all ingredients is more.
    pub(crate) fn new(layout: &Layout, limit: u64) -> Result<Plan> {
        let ingredients = layout.ingredients();
        // A gradient has twice the bytes of a row of 16-bit elements, and must not be more either.
        let rows = ingredients.max(2);
        let row_limit = usize::try_from(limit).unwrap_or(usize::MAX) / rows / UNIT_BYTES * UNIT_BYTES;
        let mut in_shard = 0;
        let mut starts = Vec::new();
        for segment in layout.segments() {
            starts.push(in_shard);
            in_shard += segment.elements();
        }
        let mut pieces = Vec::new();
        for format in Format::ALL {
            for of_first_member in [false, true] {
                let class = |(_, s): &(usize, &Segment)| {
                    s.dtype == format.dtype() && s.of_first_member == of_first_member
                };
                let mut cutter =
                    Cutter { format, of_first_member, row_limit, pieces: &mut pieces, open: None };
                for (index, segment) in layout.segments().iter().enumerate().filter(class) {
                    cutter.add(index, segment, starts[index]).ok_or_else(|| {
                        Error::configuration(format!(
                            "{ingredients} ingredients are too many for this device, whose kernels can be given {limit} bytes at a \
                             time: use the device \"cpu\""
                        ))
                    })?;
                }
                cutter.close();
            }
        }
        let on_host = layout.segments().iter().filter(|s| !s.dtype.is_float());
        Ok(Plan { pieces, on_host: on_host.map(|s| s.range.clone()).collect() })
    }

    /// Bytes on the device for so many ingredients.
    pub(crate) fn bytes(&self, ingredients: usize) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes(ingredients)).sum()
    }
}

/// Cuts segments of one class into pieces.
struct Cutter<'a> {
    format: Format,
    of_first_member: bool,
    row_limit: usize,
    pieces: &'a mut Vec<Piece>,
    open: Option<Piece>,
}

impl Cutter<'_> {
    /// Adds a segment; `None` where not even a block fits.
    fn add(&mut self, index: usize, segment: &Segment, in_shard: usize) -> Option<()> {
        let width = self.format.width();
        let block_bytes = BLOCK_ELEMENTS * width;
        let mut first = 0;
        while first < segment.elements() {
            let (format, of_first_member) = (self.format, self.of_first_member);
            let empty = || Piece { format, of_first_member, parts: Vec::new(), stride: 0 };
            let mut open = self.open.take().unwrap_or_else(empty);
            let left = segment.elements() - first;
            let room = self.row_limit - open.stride;
            let count = if (left * width).next_multiple_of(UNIT_BYTES) <= room {
                left
            } else {
                room / block_bytes * BLOCK_ELEMENTS
            };
            if count == 0 {
                if open.parts.is_empty() {
                    return None;
                }
                self.pieces.push(open);
                continue;
            }
            let start = segment.range.start + first * width;
            open.parts.push(Part {
                segment: index,
                tensor: segment.tensor,
                first,
                in_shard: in_shard + first,
                count,
                bytes: start..start + count * width,
                at: open.stride,
            });
            open.stride += (count * width).next_multiple_of(UNIT_BYTES);
            self.open = Some(open);
            first += count;
        }
        Some(())
    }

    fn close(&mut self) {
        self.pieces.extend(self.open.take());
    }
}

impl Piece {
    /// Bytes of it on the device.
    pub(crate) fn bytes(&self, ingredients: usize) -> u64 {
        self.stride as u64 * ingredients as u64
    }

    /// Elements of a row, those between tensors included.
    pub(crate) fn row_elements(&self) -> usize {
        self.stride / self.format.width()
    }

    /// For every unit of a row, which part it is of.
    pub(crate) fn parts_of_units(&self) -> Vec<u32> {
        let units = |part: &Part| (part.bytes.len()).div_ceil(UNIT_BYTES);
        let parts = (0u32..).zip(&self.parts);
        parts.flat_map(|(index, part)| std::iter::repeat_n(index, units(part))).collect()
    }

    /// The blocks of so many elements into which its parts are cut, in order.
    pub(crate) fn blocks(&self, elements: usize) -> Vec<Block> {
        let width = self.format.width();
        let of_part = |part: &Part| {
            let (part, start) = (part.clone(), part.at / width);
            (0..part.count).step_by(elements).map(move |first| Block {
                segment: part.segment,
                span: (part.first + first) / SPAN_ELEMENTS,
                start: start + first,
                count: elements.min(part.count - first),
            })
        };
        self.parts.iter().flat_map(of_part).collect()
    }

    /// Where the bytes `range` of a row are: in the shard, and in that range; in order.
    fn overlaps(&self, range: Range<usize>) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let end = |part: &Part| part.at + part.bytes.len();
        let from = self.parts.partition_point(|part| end(part) <= range.start);
        self.parts[from..].iter().take_while(move |part| part.at < range.end).map(move |part| {
            let row = part.at.max(range.start)..end(part).min(range.end);
            let in_shard = part.bytes.start + row.start - part.at..part.bytes.start + row.end - part.at;
            (in_shard, row.start - range.start..row.end - range.start)
        })
    }

    /// Writes the bytes from `start` on of the row of the ingredient whose shard is `shard`.
    pub(crate) fn gather(&self, shard: &[u8], start: usize, out: &mut [u8]) {
        let mut written = 0;
        for (in_shard, within) in self.overlaps(start..start + out.len()) {
            out[written..within.start].fill(0);
            written = within.end;
            out[within].copy_from_slice(&shard[in_shard]);
        }
        out[written..].fill(0);
    }

    /// Writes the bytes of a row from `start` on to where they are in `shard`.
    pub(crate) fn scatter(&self, row: &[u8], start: usize, shard: &mut [u8]) {
        for (in_shard, within) in self.overlaps(start..start + row.len()) {
            shard[in_shard].copy_from_slice(&row[within]);
        }
    }

    /// The values of a gradient of the shard, one an element of a row.
    pub(crate) fn gather_gradient(&self, gradient: &[f32]) -> Vec<f32> {
        let mut row = vec![0.0; self.row_elements()];
        for part in &self.parts {
            let at = part.at / self.format.width();
            row[at..at + part.count].copy_from_slice(&gradient[part.in_shard..part.in_shard + part.count]);
        }
        row
    }
}

#[cfg(test)]
mod tests;
