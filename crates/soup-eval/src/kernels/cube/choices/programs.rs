//! What every unit of a device does for rows that are picked, and for likelihoods. All of it computes in f32, whatever is stored.
#![allow(missing_docs, clippy::too_many_arguments)] // of what the macro makes of them

use cubecl::prelude::*;

use super::NONE;
use crate::kernels::cube::steps::programs::{larger, together};

/// Some rows; a unit an element.
#[cube(launch)]
pub(super) fn rows<F: Float>(
    x: &Tensor<F>,
    at: &Tensor<u32>,
    out: &mut Tensor<F>,
    elements: usize,
    width: usize,
    x_pitch: usize,
    out_pitch: usize,
    #[define(F)] _dtype: StorageType,
) {
    let position = ABSOLUTE_POS;
    if position < elements {
        let row = position / width;
        let column = position % width;
        let from = at[row];
        let mut value = F::new(0.0);
        if from != NONE {
            value = x[usize::cast_from(from) * x_pitch + column];
        }
        out[row * out_pitch + column] = value;
    }
}

/// Logarithms of probabilities; a cube a row.
#[cube(launch)]
pub(super) fn log_likelihoods<F: Float>(
    logits: &Tensor<F>,
    at: &Tensor<u32>,
    out: &mut Tensor<F>,
    rows: usize,
    width: usize,
    pitch: usize,
    out_pitch: usize,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row < rows {
        let mut shared = SharedMemory::<f32>::new(units);
        let first = row * pitch;
        let largest = largest_of(logits, first, width, &mut shared, units);
        let sum = sum_above(logits, first, width, largest, &mut shared, units);
        if UNIT_POS == 0 {
            let chosen = f32::cast_from(logits[first + usize::cast_from(at[row])]);
            out[row * out_pitch] = F::cast_from(chosen - largest - sum.ln());
        }
    }
}

/// Whether a choice is the most probable one; a cube a row.
#[cube(launch)]
pub(super) fn most_probable<F: Float>(
    logits: &Tensor<F>,
    at: &Tensor<u32>,
    out: &mut Tensor<F>,
    rows: usize,
    width: usize,
    pitch: usize,
    out_pitch: usize,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row < rows {
        let mut shared = SharedMemory::<f32>::new(units);
        let first = row * pitch;
        let chosen = usize::cast_from(at[row]);
        let own = f32::cast_from(logits[first + chosen]);
        // So many of the row are below it, or are it or one after it and no more. What is not a number is neither.
        let mut below = f32::new(0.0);
        let mut column = UNIT_POS as usize;
        while column < width {
            let value = f32::cast_from(logits[first + column]);
            if value < own || (value == own && column >= chosen) {
                below += f32::new(1.0);
            }
            column += units;
        }
        let below = together(below, &mut shared, units, false);
        if UNIT_POS == 0 {
            out[row * out_pitch] =
                F::cast_from(select(below == f32::cast_from(width), f32::new(1.0), f32::new(0.0)));
        }
    }
}

/// The gradients of logits: of a choice, one where it is made, less its probability; a cube a row.
#[cube(launch)]
pub(super) fn log_likelihood_gradients<F: Float>(
    gradient: &Tensor<F>,
    logits: &Tensor<F>,
    at: &Tensor<u32>,
    out: &mut Tensor<F>,
    rows: usize,
    width: usize,
    gradient_pitch: usize,
    pitch: usize,
    out_pitch: usize,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row < rows {
        let mut shared = SharedMemory::<f32>::new(units);
        let first = row * pitch;
        let largest = largest_of(logits, first, width, &mut shared, units);
        let sum = sum_above(logits, first, width, largest, &mut shared, units);
        let of_row = f32::cast_from(gradient[row * gradient_pitch]);
        let chosen = usize::cast_from(at[row]);
        let mut column = UNIT_POS as usize;
        while column < width {
            let share = (f32::cast_from(logits[first + column]) - largest).exp() / sum;
            let is = select(column == chosen, f32::new(1.0), f32::new(0.0));
            out[row * out_pitch + column] = F::cast_from(of_row * (is - share));
            column += units;
        }
    }
}

/// The largest of a row.
#[cube]
fn largest_of<F: Float>(
    x: &Tensor<F>,
    first: usize,
    width: usize,
    shared: &mut SharedMemory<f32>,
    #[comptime] units: usize,
) -> f32 {
    let mut largest = f32::new(-3.402_823_5e38);
    let mut column = UNIT_POS as usize;
    while column < width {
        largest = larger(f32::cast_from(x[first + column]), largest);
        column += units;
    }
    together(largest, shared, units, true)
}

/// The sum of the exponentials of how far a row is above its largest.
#[cube]
fn sum_above<F: Float>(
    x: &Tensor<F>,
    first: usize,
    width: usize,
    largest: f32,
    shared: &mut SharedMemory<f32>,
    #[comptime] units: usize,
) -> f32 {
    let mut sum = f32::new(0.0);
    let mut column = UNIT_POS as usize;
    while column < width {
        sum += (f32::cast_from(x[first + column]) - largest).exp();
        column += units;
    }
    together(sum, shared, units, false)
}
