//! What every unit of a device does for attention of rows to others. All of it computes in f32, whatever is stored, and shares stay f32.
//!
//! What a query comes out as is added up in an order that its own pair alone decides: no length of another text shows in it.
#![allow(missing_docs, clippy::too_many_arguments)] // of what the macro makes of them

use cubecl::prelude::*;

use super::{NOBODY, ROW};
use crate::kernels::cube::steps::programs::{larger, together};

/// How much of every token each query takes; a cube a query and head.
#[cube(launch)]
pub(super) fn shares<F: Float>(
    query: &Tensor<F>,
    key_value: &Tensor<F>,
    asking: &Tensor<u32>,
    table: &Tensor<F>,
    places: &Tensor<u32>,
    out: &mut Tensor<f32>,
    cubes: usize,
    heads: usize,
    width: usize,
    query_pitch: usize,
    key_pitch: usize,
    table_pitch: usize,
    before: usize,
    scale: f32,
    #[comptime] units: usize,
    #[comptime] relative: bool,
    #[define(F)] _dtype: StorageType,
) {
    let cube = CUBE_POS;
    if cube < cubes {
        let mut shared = SharedMemory::<f32>::new(units);
        let unit = UNIT_POS as usize;
        let row = cube / heads;
        let head = cube % heads;
        let first = usize::cast_from(asking[row * ROW]);
        let tokens = usize::cast_from(asking[row * ROW + 1]);
        let own = usize::cast_from(asking[row * ROW + 2]);
        let at = usize::cast_from(asking[row * ROW + 3]) + head * tokens;
        let query_at = row * query_pitch + head * width;

        let mut largest = f32::new(-3.402_823_5e38);
        let mut token = unit;
        while token < tokens {
            let key_at = (first + token) * key_pitch + head * width;
            let mut product = f32::new(0.0);
            for column in 0..width {
                product +=
                    f32::cast_from(query[query_at + column]) * f32::cast_from(key_value[key_at + column]);
            }
            let mut score = product * scale;
            if comptime!(relative) {
                let bucket = places[before + token - own];
                if bucket == NOBODY {
                    // As far below all others as there is.
                    score = f32::new(-3.402_823_5e38);
                } else {
                    score += f32::cast_from(table[usize::cast_from(bucket) * table_pitch + head]);
                }
            }
            out[at + token] = score;
            largest = larger(score, largest);
            token += units;
        }
        let largest = together(largest, &mut shared, units, true);

        // Every unit reads what it has written itself.
        let mut sum = f32::new(0.0);
        let mut token = unit;
        while token < tokens {
            let share = (out[at + token] - largest).exp();
            out[at + token] = share;
            sum += share;
            token += units;
        }
        let inverse = f32::new(1.0) / together(sum, &mut shared, units, false);
        let mut token = unit;
        while token < tokens {
            out[at + token] = out[at + token] * inverse;
            token += units;
        }
    }
}

/// What each query takes of the rows that it asks, by weights: a unit an element.
#[cube(launch)]
pub(super) fn taken<F: Float>(
    weights: &Tensor<f32>,
    key_value: &Tensor<F>,
    asking: &Tensor<u32>,
    out: &mut Tensor<F>,
    elements: usize,
    all: usize,
    width: usize,
    first_column: usize,
    key_pitch: usize,
    out_pitch: usize,
    #[define(F)] _dtype: StorageType,
) {
    let position = ABSOLUTE_POS;
    if position < elements {
        let row = position / all;
        let column = position % all;
        let first = usize::cast_from(asking[row * ROW]);
        let tokens = usize::cast_from(asking[row * ROW + 1]);
        let at = usize::cast_from(asking[row * ROW + 3]) + column / width * tokens;
        let mut sum = f32::new(0.0);
        for token in 0..tokens {
            let value = f32::cast_from(key_value[(first + token) * key_pitch + first_column + column]);
            sum += weights[at + token] * value;
        }
        out[row * out_pitch + column] = F::cast_from(sum);
    }
}

/// From the gradient of what came out that of the products of queries and keys; a cube a query and head.
#[cube(launch)]
pub(super) fn product_gradients<F: Float>(
    gradient: &Tensor<F>,
    key_value: &Tensor<F>,
    shares: &Tensor<f32>,
    asking: &Tensor<u32>,
    out: &mut Tensor<f32>,
    cubes: usize,
    heads: usize,
    width: usize,
    gradient_pitch: usize,
    key_pitch: usize,
    scale: f32,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let cube = CUBE_POS;
    if cube < cubes {
        let mut shared = SharedMemory::<f32>::new(units);
        let unit = UNIT_POS as usize;
        let row = cube / heads;
        let head = cube % heads;
        let first = usize::cast_from(asking[row * ROW]);
        let tokens = usize::cast_from(asking[row * ROW + 1]);
        let at = usize::cast_from(asking[row * ROW + 3]) + head * tokens;
        let gradient_at = row * gradient_pitch + head * width;

        let mut sum = f32::new(0.0);
        let mut token = unit;
        while token < tokens {
            let value_at = (first + token) * key_pitch + (heads + head) * width;
            let mut of_share = f32::new(0.0);
            for column in 0..width {
                of_share += f32::cast_from(gradient[gradient_at + column])
                    * f32::cast_from(key_value[value_at + column]);
            }
            out[at + token] = of_share;
            sum += of_share * shares[at + token];
            token += units;
        }
        let mean = together(sum, &mut shared, units, false);
        let mut token = unit;
        while token < tokens {
            out[at + token] = scale * shares[at + token] * (out[at + token] - mean);
            token += units;
        }
    }
}

/// The gradients of keys and values side by side, by those of products and by shares: a unit an element.
#[cube(launch)]
pub(super) fn key_value_gradients<F: Float>(
    query: &Tensor<F>,
    gradient: &Tensor<F>,
    of_products: &Tensor<f32>,
    shares: &Tensor<f32>,
    asking: &Tensor<u32>,
    asked: &Tensor<u32>,
    out: &mut Tensor<F>,
    elements: usize,
    all: usize,
    width: usize,
    query_pitch: usize,
    gradient_pitch: usize,
    out_pitch: usize,
    #[define(F)] _dtype: StorageType,
) {
    let position = ABSOLUTE_POS;
    if position < elements {
        let row = position / (2 * all);
        let column = position % all;
        let is_value = position % (2 * all) >= all;
        let first = usize::cast_from(asked[row * ROW]);
        let queries = usize::cast_from(asked[row * ROW + 1]);
        let own = usize::cast_from(asked[row * ROW + 2]);
        let mut sum = f32::new(0.0);
        for nth in 0..queries {
            let other = first + nth;
            let tokens = usize::cast_from(asking[other * ROW + 1]);
            let at = usize::cast_from(asking[other * ROW + 3]) + column / width * tokens + own;
            if is_value {
                sum += shares[at] * f32::cast_from(gradient[other * gradient_pitch + column]);
            } else {
                sum += of_products[at] * f32::cast_from(query[other * query_pitch + column]);
            }
        }
        let column = position % (2 * all);
        out[row * out_pitch + column] = F::cast_from(sum);
    }
}

/// The gradients of products by how far apart rows are, `[places, heads]`: a unit an element.
#[cube(launch)]
pub(super) fn by_place(
    of_products: &Tensor<f32>,
    asking: &Tensor<u32>,
    out: &mut Tensor<f32>,
    elements: usize,
    rows: usize,
    heads: usize,
    before: usize,
) {
    let position = ABSOLUTE_POS;
    if position < elements {
        let place = position / heads;
        let head = position % heads;
        let mut sum = f32::new(0.0);
        for row in 0..rows {
            let tokens = usize::cast_from(asking[row * ROW + 1]);
            let own = usize::cast_from(asking[row * ROW + 2]);
            // Places are counted from the farthest before.
            if own + place >= before && own + place - before < tokens {
                let token = own + place - before;
                sum += of_products[usize::cast_from(asking[row * ROW + 3]) + head * tokens + token];
            }
        }
        out[position] = sum;
    }
}

/// Those of places, added up by the buckets that the places are in: a unit an element of the table.
#[cube(launch)]
pub(super) fn by_bucket<F: Float>(
    of_places: &Tensor<f32>,
    places: &Tensor<u32>,
    out: &mut Tensor<F>,
    elements: usize,
    count: usize,
    heads: usize,
    out_pitch: usize,
    #[define(F)] _dtype: StorageType,
) {
    let position = ABSOLUTE_POS;
    if position < elements {
        let bucket = position / heads;
        let head = position % heads;
        let mut sum = f32::new(0.0);
        for place in 0..count {
            if usize::cast_from(places[place]) == bucket {
                sum += of_places[place * heads + head];
            }
        }
        out[bucket * out_pitch + head] = F::cast_from(sum);
    }
}
