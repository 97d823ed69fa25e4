//! Launches of the kernels.
//!
//! `unsafe` is allowed here because cubecl's launches trust the lengths that they are told, and the kernels look at no index that the
//! tables do not bound. Every length is compared with the buffer it is of first ([`array`]).
#![allow(unsafe_code)]

use cubecl::Runtime;
use cubecl::client::ComputeClient;
use cubecl::prelude::{AddressType, ArrayArg, CubeCount, CubeDim};
use soup_core::{Error, Result};

use crate::compute::{Held, Rows, Terms};
use crate::kernels::{self, BLOCKS_A_CUBE, GROUP, MEMBERS_AT_ONCE, PAIRS_A_CUBE, VECTOR};
use crate::plan::{Block, Format, GRAM_BLOCK_ELEMENTS};

/// Bytes of a vector.
const VECTOR_BYTES: usize = VECTOR * size_of::<u32>();
/// Units of a cube of element-wise kernels.
const CUBE_UNITS: u32 = 256;
/// Cubes in one direction that every device has.
const CUBES_MAX: u32 = 65_535;
/// What a kernel must not know beforehand: see `kernels.rs`.
const NEG_ZERO: f64 = -0.0;

impl Format {
    fn code(self) -> u32 {
        match self {
            Format::F64 => kernels::F64,
            Format::F32 => kernels::F32,
            Format::F16 => kernels::F16,
            Format::Bf16 => kernels::BF16,
        }
    }

    /// Members whose vectors are loaded before the first is used.
    fn unroll(self) -> usize {
        match self {
            Format::F64 | Format::F32 => 8,
            // Twice the sums to hold.
            Format::F16 | Format::Bf16 => 4,
        }
    }
}

/// `held` as `length` elements of `width` bytes.
///
/// # Errors
/// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where it has not so many.
fn array<R: Runtime>(held: &Held, length: usize, width: usize) -> Result<ArrayArg<R>> {
    if (length * width) as u64 > held.0.size_in_used() {
        return Err(Error::internal(format!(
            "a kernel was to be given {length} elements of {width} bytes of {}",
            held.0.size_in_used()
        )));
    }
    // SAFETY: the buffer has so many elements.
    Ok(unsafe { ArrayArg::from_raw_parts(held.0.clone(), length) })
}

fn vectors<R: Runtime>(held: &Held, bytes: usize) -> Result<ArrayArg<R>> {
    array(held, bytes / VECTOR_BYTES, VECTOR_BYTES)
}

fn words<R: Runtime>(held: &Held, length: usize) -> Result<ArrayArg<R>> {
    array(held, length, size_of::<u32>())
}

fn doubles<R: Runtime>(held: &Held, length: usize) -> Result<ArrayArg<R>> {
    array(held, length, size_of::<f64>())
}

/// Cubes of [`CUBE_UNITS`] for so many units.
fn cubes(units: usize) -> Result<CubeCount> {
    let count = units.div_ceil(CUBE_UNITS as usize).max(1);
    let count = u32::try_from(count).map_err(|_| Error::internal("more units than a device has"))?;
    Ok(match count <= CUBES_MAX {
        true => CubeCount::Static(count, 1, 1),
        false => CubeCount::Static(CUBES_MAX, count.div_ceil(CUBES_MAX), 1),
    })
}

/// A blend of all of a piece into a row and a token.
pub(crate) fn blend<R: Runtime>(
    client: &ComputeClient<R>,
    rows: &Rows,
    terms: &Terms<'_>,
    (members, weights, out): (&Held, &Held, &Held),
    token: u32,
    native: bool,
) -> Result<()> {
    let (stride, count) = (rows.stride / VECTOR_BYTES, terms.members.len());
    let all_weights = terms.rows.as_ref().map_or(1, Vec::len);
    // One row for all parts, or one a part.
    let rows_apart = if all_weights > count { count } else { 0 };
    let units = rows.stride / crate::plan::UNIT_BYTES;
    if count == 0 || terms.members.iter().any(|&m| m as usize >= rows.ingredients) {
        return Err(Error::internal("a blend of no ingredient, or of one that is not there"));
    }
    // SAFETY: the units beyond a row do nothing, members are in the pool, and there is a row of weights for every part.
    unsafe {
        kernels::blend::launch_unchecked::<R>(
            client,
            cubes(stride)?,
            CubeDim::new_1d(CUBE_UNITS),
            AddressType::U32,
            VECTOR,
            vectors(&rows.memory, rows.stride * rows.ingredients)?,
            words(members, count)?,
            doubles(weights, all_weights)?,
            words(&rows.parts_of_units, units)?,
            vectors(out, rows.stride + VECTOR_BYTES)?,
            stride,
            count,
            rows_apart,
            count as f64,
            NEG_ZERO,
            token,
            rows.format.code(),
            terms.rows.is_none(),
            native,
            rows.format.unroll(),
        );
    }
    Ok(())
}

/// Copies `bytes` bytes from the beginning of `from` to `to`, from byte `start` on; both multiples of 16. The token goes to `place` of
/// `proof`.
pub(crate) fn put<R: Runtime>(
    client: &ComputeClient<R>,
    from: &Held,
    (to, start): (&Held, usize),
    bytes: usize,
    (proof, place): (&Held, usize),
    token: u32,
) -> Result<()> {
    let (first, count) = (start / VECTOR_BYTES, bytes / VECTOR_BYTES);
    // SAFETY: the buffers have the vectors that are copied and the place of the token, as `vectors` and `words` look.
    unsafe {
        kernels::put::launch_unchecked::<R>(
            client,
            cubes(count)?,
            CubeDim::new_1d(CUBE_UNITS),
            AddressType::U32,
            VECTOR,
            vectors(from, bytes)?,
            vectors(to, start + bytes)?,
            words(proof, place + 1)?,
            first,
            count,
            place,
            token,
        );
    }
    Ok(())
}

/// The tables of [`dots`]: the first vector of every block, and how many groups it has.
pub(crate) fn vectors_and_groups(format: Format, blocks: &[Block]) -> (Vec<u32>, Vec<u32>) {
    let each = kernels::elements(format.code());
    let starts = blocks.iter().map(|b| (b.start / each) as u32);
    (starts.collect(), blocks.iter().map(|b| b.count.div_ceil(GROUP) as u32).collect())
}

/// The products of a gradient with every ingredient in blocks, and a token.
pub(crate) fn dots<R: Runtime>(
    client: &ComputeClient<R>,
    rows: &Rows,
    gradient: &Held,
    ([starts, groups], blocks): (&[Held; 2], usize),
    out: &Held,
    token: u32,
    native: bool,
) -> Result<()> {
    let each = kernels::elements(rows.format.code());
    let elements = rows.stride / rows.format.width();
    let across = cast(blocks.div_ceil(BLOCKS_A_CUBE))?;
    let cubes = CubeCount::Static(across, cast(rows.ingredients.div_ceil(MEMBERS_AT_ONCE))?, 1);
    // SAFETY: blocks lie in a row, and groups behind the last element of a part in the unit that it ends in.
    unsafe {
        kernels::dots::launch_unchecked::<R>(
            client,
            cubes,
            CubeDim::new_2d((GROUP / each) as u32, BLOCKS_A_CUBE as u32),
            AddressType::U32,
            VECTOR,
            vectors(&rows.memory, rows.stride * rows.ingredients)?,
            vectors(gradient, elements * size_of::<f32>())?,
            words(starts, blocks)?,
            words(groups, blocks)?,
            doubles(out, blocks * rows.ingredients + 1)?,
            rows.stride / VECTOR_BYTES,
            rows.ingredients,
            blocks,
            NEG_ZERO,
            f64::from(token),
            rows.format.code(),
            native,
        );
    }
    Ok(())
}

fn cast(count: usize) -> Result<u32> {
    u32::try_from(count)
        .ok()
        .filter(|&c| c <= CUBES_MAX)
        .ok_or_else(|| Error::internal("more blocks than a device has units"))
}

/// Which vectors are multiplied with which: the upper triangle, row by row.
pub(crate) struct Pairs {
    pub(crate) firsts: Vec<u32>,
    pub(crate) seconds: Vec<u32>,
}

impl Pairs {
    /// Those of so many vectors.
    pub(crate) fn of(vectors: usize) -> Pairs {
        let all = (0..vectors as u32).flat_map(|i| (i..vectors as u32).map(move |j| (i, j)));
        let (firsts, seconds) = all.unzip();
        Pairs { firsts, seconds }
    }

    pub(crate) fn count(&self) -> usize {
        self.firsts.len()
    }
}

/// Blocks, and where their vectors go.
pub(crate) struct Deltas<'a> {
    pub(crate) starts: &'a Held,
    pub(crate) counts: &'a Held,
    pub(crate) out: &'a Held,
    pub(crate) blocks: usize,
}

/// The vectors of blocks.
pub(crate) fn deltas<R: Runtime>(
    client: &ComputeClient<R>,
    rows: &Rows,
    base: Option<&Held>,
    made: &Deltas<'_>,
    native: bool,
) -> Result<()> {
    let row_words = rows.stride / size_of::<u32>();
    let vectors = rows.ingredients + 1;
    // SAFETY: blocks lie in a row, and `out` has room for all of their vectors.
    unsafe {
        kernels::deltas::launch_unchecked::<R>(
            client,
            CubeCount::Static(cast(made.blocks)?, 1, 1),
            CubeDim::new_1d(GRAM_BLOCK_ELEMENTS as u32),
            AddressType::U32,
            words(&rows.memory, row_words * rows.ingredients)?,
            words(base.unwrap_or(&rows.memory), row_words)?,
            words(made.starts, made.blocks)?,
            words(made.counts, made.blocks)?,
            doubles(made.out, made.blocks * vectors * GRAM_BLOCK_ELEMENTS)?,
            rows.stride / rows.format.width(),
            rows.ingredients,
            rows.ingredients as f64,
            rows.format.code(),
            base.is_some(),
            native,
        );
    }
    Ok(())
}

/// The inner products of the vectors of blocks: one a block and pair.
pub(crate) fn inner<R: Runtime>(
    client: &ComputeClient<R>,
    (deltas, vectors): (&Held, usize),
    ([firsts, seconds], pairs): (&[Held; 2], &Pairs),
    out: &Held,
    blocks: usize,
) -> Result<()> {
    let count = pairs.count();
    // SAFETY: pairs are of vectors that every block has, and `out` has a number for each.
    unsafe {
        kernels::inner::launch_unchecked::<R>(
            client,
            CubeCount::Static(cast(blocks)?, cast(count.div_ceil(PAIRS_A_CUBE))?, 1),
            CubeDim::new_2d(GROUP as u32, PAIRS_A_CUBE as u32),
            AddressType::U32,
            doubles(deltas, blocks * vectors * GRAM_BLOCK_ELEMENTS)?,
            words(firsts, count)?,
            words(seconds, count)?,
            doubles(out, blocks * count)?,
            vectors,
            count,
            NEG_ZERO,
        );
    }
    Ok(())
}

/// The sums of spans of blocks, and a token.
pub(crate) fn add_blocks<R: Runtime>(
    client: &ComputeClient<R>,
    (sums, blocks): (&Held, usize),
    (bounds, spans): (&Held, usize),
    carry: &Held,
    (out, width): (&Held, usize),
    token: u32,
) -> Result<()> {
    // SAFETY: bounds are of blocks that there are, and `out` has a number for every sum.
    unsafe {
        kernels::add_blocks::launch_unchecked::<R>(
            client,
            cubes(spans * width)?,
            CubeDim::new_1d(CUBE_UNITS),
            AddressType::U32,
            doubles(sums, blocks * width)?,
            words(bounds, spans + 1)?,
            doubles(carry, width)?,
            doubles(out, spans * width + 1)?,
            width,
            spans,
            f64::from(token),
        );
    }
    Ok(())
}
