//! Inner products: of a gradient with every ingredient, and of all ingredients with each other.
//!
//! As on the CPU, element e of a block is added to lane e mod 16, and lanes are added up in order; blocks of a gradient are added by
//! the host, those of ingredients, which are many more, here. No sum depends on which unit is done first.

use cubecl::prelude::*;

use super::format::{F32, F64, f64_of_words, widen_at, widen_f32, widen_half};
use super::{VECTOR, elements, product};
use crate::plan::GRAM_BLOCK_ELEMENTS;

/// Lanes of a block, and elements of a group: one of each lane.
pub(crate) const GROUP: usize = 16;
/// Ingredients that a unit multiplies with what it has read of the gradient.
pub(crate) const MEMBERS_AT_ONCE: usize = 4;
/// Blocks of a cube, each in a row of units.
pub(crate) const BLOCKS_A_CUBE: usize = 32;
/// Pairs of vectors that a cube multiplies.
pub(crate) const PAIRS_A_CUBE: usize = 16;

/// The values of a gradient that belong to vector `at` of a row.
#[cube]
fn gradient_of<N: Size>(
    gradient: &Array<Vector<u32, N>>,
    values: &mut Array<f64>,
    at: usize,
    #[comptime] format: u32,
    #[comptime] native: bool,
) {
    if comptime!(format == F64) {
        let v = gradient[at / 2usize];
        let second = at % 2usize == 1usize;
        values[0usize] = widen_f32(select(second, v[2usize], v[0usize]), native);
        values[1usize] = widen_f32(select(second, v[3usize], v[1usize]), native);
    } else if comptime!(format == F32) {
        let v = gradient[at];
        #[unroll]
        for lane in 0..VECTOR {
            values[lane] = widen_f32(v[lane], native);
        }
    } else {
        let v = gradient[at * 2usize];
        let w = gradient[at * 2usize + 1usize];
        #[unroll]
        for lane in 0..VECTOR {
            values[lane] = widen_f32(v[lane], native);
            values[lane + VECTOR] = widen_f32(w[lane], native);
        }
    }
}

/// Adds the products of a vector's elements with the gradient's to the sums from `first` on.
#[cube]
fn add_products<N: Size>(
    sums: &mut Array<f64>,
    first: usize,
    v: Vector<u32, N>,
    values: &Array<f64>,
    neg_zero: f64,
    #[comptime] format: u32,
    #[comptime] native: bool,
) {
    if comptime!(format == F64) {
        sums[first] += product(values[0usize], f64_of_words(v[0usize], v[1usize]), neg_zero);
        sums[first + 1usize] += product(values[1usize], f64_of_words(v[2usize], v[3usize]), neg_zero);
    } else if comptime!(format == F32) {
        #[unroll]
        for lane in 0..VECTOR {
            sums[first + lane] += product(values[lane], widen_f32(v[lane], native), neg_zero);
        }
    } else {
        #[unroll]
        for lane in 0..VECTOR {
            let low = widen_half(v[lane] & 0xffffu32, format, native);
            let high = widen_half(v[lane] >> 16u32, format, native);
            sums[first + lane * 2usize] += product(values[lane * 2usize], low, neg_zero);
            sums[first + lane * 2usize + 1usize] += product(values[lane * 2usize + 1usize], high, neg_zero);
        }
    }
}

/// The products of a gradient, one value an element of a row, with the blocks of every ingredient. A block begins at vector
/// `starts[b]` of a row and has `groups[b]` groups; behind its elements are zeros. A row of units is for one block, each of them for
/// one vector of every group. `out` has one sum a block and ingredient, and the token.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn dots<N: Size>(
    pool: &Array<Vector<u32, N>>,
    gradient: &Array<Vector<u32, N>>,
    starts: &Array<u32>,
    groups: &Array<u32>,
    out: &mut Array<f64>,
    stride: usize,
    ingredients: usize,
    blocks: usize,
    neg_zero: f64,
    token: f64,
    #[comptime] format: u32,
    #[comptime] native: bool,
) {
    let each = comptime!(elements(format));
    let units = comptime!(GROUP / elements(format));
    let unit = UNIT_POS_X as usize;
    let row = UNIT_POS_Y as usize;
    let block = CUBE_POS_X as usize * BLOCKS_A_CUBE + row;
    let member = CUBE_POS_Y as usize * MEMBERS_AT_ONCE;
    let mut lanes = SharedMemory::<f64>::new(comptime!(BLOCKS_A_CUBE * MEMBERS_AT_ONCE * GROUP));
    let mut sums = Array::<f64>::new(comptime!(MEMBERS_AT_ONCE * elements(format)));
    let mut values = Array::<f64>::new(each);
    #[unroll]
    for s in 0..comptime!(MEMBERS_AT_ONCE * elements(format)) {
        sums[s] = 0.0f64;
    }
    if block < blocks {
        let start = starts[block] as usize + unit;
        let count = groups[block] as usize;
        for group in 0..count {
            let at = start + group * units;
            gradient_of::<N>(gradient, &mut values, at, format, native);
            #[unroll]
            for m in 0..MEMBERS_AT_ONCE {
                // The last ones again where there are no more: those sums go nowhere.
                let ingredient = select(member + m < ingredients, member + m, ingredients - 1usize);
                let v = pool[ingredient * stride + at];
                add_products::<N>(&mut sums, m * each, v, &values, neg_zero, format, native);
            }
        }
    }
    #[unroll]
    for m in 0..MEMBERS_AT_ONCE {
        #[unroll]
        for e in 0..each {
            lanes[(row * MEMBERS_AT_ONCE + m) * GROUP + unit * each + e] = sums[m * each + e];
        }
    }
    sync_cube();
    let flat = row * units + unit;
    let turns = comptime!((MEMBERS_AT_ONCE * elements(format)).div_ceil(GROUP));
    #[unroll]
    for turn in 0..turns {
        let task = turn * comptime!(BLOCKS_A_CUBE * GROUP / elements(format)) + flat;
        if task < comptime!(BLOCKS_A_CUBE * MEMBERS_AT_ONCE) {
            let block = CUBE_POS_X as usize * BLOCKS_A_CUBE + task / MEMBERS_AT_ONCE;
            let ingredient = member + task % MEMBERS_AT_ONCE;
            if block < blocks && ingredient < ingredients {
                let mut sum = lanes[task * GROUP];
                for lane in 1..GROUP {
                    sum += lanes[task * GROUP + lane];
                }
                out[block * ingredients + ingredient] = sum;
            }
        }
    }
    if ABSOLUTE_POS == 0usize {
        out[blocks * ingredients] = token;
    }
}

/// What ingredients have besides the origin, and the origin, of the blocks from `first` on: a cube a block, a unit an element. Rows of
/// `out` are blocks, in each one vector an ingredient and that of the origin, with zeros behind what the block has. The origin is
/// `base`, a row, or else the ingredients' mean.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn deltas(
    pool: &Array<u32>,
    base: &Array<u32>,
    starts: &Array<u32>,
    counts: &Array<u32>,
    out: &mut Array<f64>,
    row_elements: usize,
    ingredients: usize,
    divisor: f64,
    #[comptime] format: u32,
    #[comptime] has_base: bool,
    #[comptime] native: bool,
) {
    let block = CUBE_POS_X as usize;
    let e = UNIT_POS_X as usize;
    let vectors = ingredients + 1usize;
    let to = block * vectors * GRAM_BLOCK_ELEMENTS + e;
    if e < counts[block] as usize {
        let at = starts[block] as usize + e;
        let mut origin = 0.0f64.runtime();
        if comptime!(has_base) {
            origin = widen_at(base, at, format, native);
        } else {
            for i in 0..ingredients {
                origin += widen_at(pool, i * row_elements + at, format, native);
            }
            origin /= divisor;
        }
        for i in 0..ingredients {
            let x = widen_at(pool, i * row_elements + at, format, native);
            out[to + i * GRAM_BLOCK_ELEMENTS] = x - origin;
        }
        out[to + ingredients * GRAM_BLOCK_ELEMENTS] = origin;
    } else {
        for i in 0..vectors {
            out[to + i * GRAM_BLOCK_ELEMENTS] = 0.0f64;
        }
    }
}

/// The inner products of pairs of vectors on blocks, as [`deltas`] gives them: a cube for one block and [`PAIRS_A_CUBE`] pairs, a row
/// of units a pair, a unit a lane. `out` has one sum a block and pair.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn inner(
    vectors: &Array<f64>,
    firsts: &Array<u32>,
    seconds: &Array<u32>,
    out: &mut Array<f64>,
    count: usize,
    pairs: usize,
    neg_zero: f64,
) {
    let lane = UNIT_POS_X as usize;
    let row = UNIT_POS_Y as usize;
    let block = CUBE_POS_X as usize;
    let pair = CUBE_POS_Y as usize * PAIRS_A_CUBE + row;
    let mut lanes = SharedMemory::<f64>::new(comptime!(PAIRS_A_CUBE * GROUP));
    let mut sum = 0.0f64.runtime();
    if pair < pairs {
        let a = (block * count + firsts[pair] as usize) * GRAM_BLOCK_ELEMENTS + lane;
        let b = (block * count + seconds[pair] as usize) * GRAM_BLOCK_ELEMENTS + lane;
        for group in 0..comptime!(GRAM_BLOCK_ELEMENTS / GROUP) {
            sum += product(vectors[a + group * GROUP], vectors[b + group * GROUP], neg_zero);
        }
    }
    lanes[row * GROUP + lane] = sum;
    sync_cube();
    if lane == 0usize && pair < pairs {
        let mut total = lanes[row * GROUP];
        for l in 1..GROUP {
            total += lanes[row * GROUP + l];
        }
        out[block * pairs + pair] = total;
    }
}

/// Adds up the sums of blocks, each of `width`: those of span s are the blocks from `bounds[s]` to `bounds[s + 1]`, and the first span
/// goes on from `carry`. `out` has the sums of the spans, and the token.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn add_blocks(
    sums: &Array<f64>,
    bounds: &Array<u32>,
    carry: &Array<f64>,
    out: &mut Array<f64>,
    width: usize,
    spans: usize,
    token: f64,
) {
    let at = ABSOLUTE_POS;
    if at == 0usize {
        out[spans * width] = token;
    }
    if at < spans * width {
        let span = at / width;
        let column = at % width;
        let mut sum = 0.0f64.runtime();
        if span == 0usize {
            sum = carry[column];
        }
        for block in bounds[span] as usize..bounds[span + 1usize] as usize {
            sum += sums[block * width + column];
        }
        out[at] = sum;
    }
}
