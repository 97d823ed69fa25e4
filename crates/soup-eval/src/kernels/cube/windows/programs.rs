//! What every unit of a device does for windows on images. All of it computes in f32, whatever is stored.
//!
//! Sizes of images and windows are known when a program is compiled, so that no unit divides by a number that it has to read. Sums over a
//! window go by its rows and columns.
#![allow(missing_docs, clippy::too_many_arguments)] // of what the macro makes of them
#![allow(clippy::manual_is_multiple_of)] // programs of a device have no such function

use cubecl::prelude::*;

use super::Over;
use crate::kernels::Activation;
use crate::kernels::cube::steps::programs::activate;

/// The windows of some images, written out: a unit an element.
#[cube(launch)]
pub(super) fn unfold<F: Float>(
    x: &Tensor<F>,
    out: &mut Tensor<F>,
    elements: usize,
    first_image: usize,
    x_pitch: usize,
    out_pitch: usize,
    #[comptime] over: Over,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at < elements {
        let row = at / comptime!(over.inputs());
        let column = at % comptime!(over.inputs());
        let pixel = column / comptime!(over.channels);
        let channel = column % comptime!(over.channels);
        let image = first_image + row / comptime!(over.per_image());
        let place = row % comptime!(over.per_image());
        let y = place / comptime!(over.places[1]) * comptime!(over.stride) + pixel / comptime!(over.size[1]);
        let x_at =
            place % comptime!(over.places[1]) * comptime!(over.stride) + pixel % comptime!(over.size[1]);
        let mut value = F::new(0.0);
        if inside(y, over, 0usize) && inside(x_at, over, 1usize) {
            value = x[pixel_at(image, y, x_at, over) * x_pitch + channel];
        }
        out[row * out_pitch + column] = value;
    }
}

/// The other way round: what is added up for every pixel of some images of the windows that it is in; a unit an element.
#[cube(launch)]
pub(super) fn fold<F: Float>(
    windows: &Tensor<F>,
    out: &mut Tensor<F>,
    elements: usize,
    first_image: usize,
    pitch: usize,
    out_pitch: usize,
    #[comptime] over: Over,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at < elements {
        let pixel = at / comptime!(over.channels);
        let channel = at % comptime!(over.channels);
        let image = pixel / comptime!(over.pixels());
        // As seen by windows: with the padding, without what is cut off.
        let y = pixel % comptime!(over.pixels()) / comptime!(over.image[1]) + comptime!(over.before[0]);
        let x = pixel % comptime!(over.image[1]) + comptime!(over.before[1]);
        let mut sum = f32::new(0.0);
        for row in 0..comptime!(over.size[0]).runtime() {
            for column in 0..comptime!(over.size[1]).runtime() {
                if covers(y, row, over, 0usize) && covers(x, column, over, 1usize) {
                    let place = image * comptime!(over.per_image()) + place_of(y, row, x, column, over);
                    let of_pixel = (row * comptime!(over.size[1]) + column) * comptime!(over.channels);
                    sum += f32::cast_from(windows[place * pitch + of_pixel + channel]);
                }
            }
        }
        out[(first_image * comptime!(over.pixels()) + pixel) * out_pitch + channel] = F::cast_from(sum);
    }
}

/// A convolution of every channel by itself; a unit an element.
#[cube(launch)]
pub(super) fn per_channel<F: Float>(
    x: &Tensor<F>,
    weight: &Tensor<F>,
    out: &mut Tensor<F>,
    elements: usize,
    x_pitch: usize,
    weight_pitch: usize,
    out_pitch: usize,
    #[comptime] over: Over,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at < elements {
        let row = at / comptime!(over.channels);
        let channel = at % comptime!(over.channels);
        let image = row / comptime!(over.per_image());
        let place = row % comptime!(over.per_image());
        let mut sum = f32::new(0.0);
        for high in 0..comptime!(over.size[0]).runtime() {
            let y = place / comptime!(over.places[1]) * comptime!(over.stride) + high;
            for wide in 0..comptime!(over.size[1]).runtime() {
                let x_at = place % comptime!(over.places[1]) * comptime!(over.stride) + wide;
                if inside(y, over, 0usize) && inside(x_at, over, 1usize) {
                    let pixel = high * comptime!(over.size[1]) + wide;
                    sum += f32::cast_from(x[pixel_at(image, y, x_at, over) * x_pitch + channel])
                        * f32::cast_from(weight[pixel * weight_pitch + channel]);
                }
            }
        }
        out[row * out_pitch + channel] = F::cast_from(sum);
    }
}

/// From the gradient of that the one of the images; a unit an element.
#[cube(launch)]
pub(super) fn per_channel_images<F: Float>(
    gradient: &Tensor<F>,
    weight: &Tensor<F>,
    out: &mut Tensor<F>,
    elements: usize,
    gradient_pitch: usize,
    weight_pitch: usize,
    out_pitch: usize,
    #[comptime] over: Over,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at < elements {
        let pixel = at / comptime!(over.channels);
        let channel = at % comptime!(over.channels);
        let image = pixel / comptime!(over.pixels());
        let y = pixel % comptime!(over.pixels()) / comptime!(over.image[1]) + comptime!(over.before[0]);
        let x = pixel % comptime!(over.image[1]) + comptime!(over.before[1]);
        let mut sum = f32::new(0.0);
        for row in 0..comptime!(over.size[0]).runtime() {
            for column in 0..comptime!(over.size[1]).runtime() {
                if covers(y, row, over, 0usize) && covers(x, column, over, 1usize) {
                    let place = image * comptime!(over.per_image()) + place_of(y, row, x, column, over);
                    let of_pixel = row * comptime!(over.size[1]) + column;
                    sum += f32::cast_from(gradient[place * gradient_pitch + channel])
                        * f32::cast_from(weight[of_pixel * weight_pitch + channel]);
                }
            }
        }
        out[pixel * out_pitch + channel] = F::cast_from(sum);
    }
}

/// And the one of the filters, for each image by itself: `[batch, pixels * channels]`; a unit an element.
#[cube(launch)]
pub(super) fn per_channel_filters<F: Float>(
    x: &Tensor<F>,
    gradient: &Tensor<F>,
    out: &mut Tensor<f32>,
    elements: usize,
    x_pitch: usize,
    gradient_pitch: usize,
    #[comptime] over: Over,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at < elements {
        let image = at / comptime!(over.inputs());
        let pixel = at % comptime!(over.inputs()) / comptime!(over.channels);
        let channel = at % comptime!(over.channels);
        let mut sum = f32::new(0.0);
        for high in 0..comptime!(over.places[0]).runtime() {
            let y = high * comptime!(over.stride) + pixel / comptime!(over.size[1]);
            for wide in 0..comptime!(over.places[1]).runtime() {
                let x_at = wide * comptime!(over.stride) + pixel % comptime!(over.size[1]);
                if inside(y, over, 0usize) && inside(x_at, over, 1usize) {
                    let place = image * comptime!(over.per_image()) + high * comptime!(over.places[1]) + wide;
                    sum += f32::cast_from(x[pixel_at(image, y, x_at, over) * x_pitch + channel])
                        * f32::cast_from(gradient[place * gradient_pitch + channel]);
                }
            }
        }
        out[at] = sum;
    }
}

/// The largest value of every window, and which pixel of it has it first, where that is noted; a unit an element.
#[cube(launch)]
pub(super) fn largest<F: Float>(
    x: &Tensor<F>,
    out: &mut Tensor<F>,
    of: &mut Tensor<u32>,
    elements: usize,
    x_pitch: usize,
    out_pitch: usize,
    #[comptime] over: Over,
    #[comptime] noted: bool,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at < elements {
        let row = at / comptime!(over.channels);
        let channel = at % comptime!(over.channels);
        let image = row / comptime!(over.per_image());
        let place = row % comptime!(over.per_image());
        let mut largest = f32::new(0.0);
        let mut nth = u32::new(0);
        let mut any = u32::new(0);
        for high in 0..comptime!(over.size[0]).runtime() {
            let y = place / comptime!(over.places[1]) * comptime!(over.stride) + high;
            for wide in 0..comptime!(over.size[1]).runtime() {
                let x_at = place % comptime!(over.places[1]) * comptime!(over.stride) + wide;
                if inside(y, over, 0usize) && inside(x_at, over, 1usize) {
                    let value = f32::cast_from(x[pixel_at(image, y, x_at, over) * x_pitch + channel]);
                    if any == 0 || value > largest || value.is_nan() {
                        largest = value;
                        nth = u32::cast_from(high * comptime!(over.size[1]) + wide);
                        any = u32::new(1);
                    }
                }
            }
        }
        out[row * out_pitch + channel] = F::cast_from(largest);
        if comptime!(noted) {
            of[at] = nth;
        }
    }
}

/// From the gradient of that the one of the images; a unit an element.
#[cube(launch)]
pub(super) fn largest_images<F: Float>(
    gradient: &Tensor<F>,
    of: &Tensor<u32>,
    out: &mut Tensor<F>,
    elements: usize,
    gradient_pitch: usize,
    out_pitch: usize,
    #[comptime] over: Over,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at < elements {
        let pixel = at / comptime!(over.channels);
        let channel = at % comptime!(over.channels);
        let image = pixel / comptime!(over.pixels());
        let y = pixel % comptime!(over.pixels()) / comptime!(over.image[1]) + comptime!(over.before[0]);
        let x = pixel % comptime!(over.image[1]) + comptime!(over.before[1]);
        let mut sum = f32::new(0.0);
        for row in 0..comptime!(over.size[0]).runtime() {
            for column in 0..comptime!(over.size[1]).runtime() {
                if covers(y, row, over, 0usize) && covers(x, column, over, 1usize) {
                    let place = image * comptime!(over.per_image()) + place_of(y, row, x, column, over);
                    let own = u32::cast_from(row * comptime!(over.size[1]) + column);
                    if of[place * comptime!(over.channels) + channel] == own {
                        sum += f32::cast_from(gradient[place * gradient_pitch + channel]);
                    }
                }
            }
        }
        out[pixel * out_pitch + channel] = F::cast_from(sum);
    }
}

/// `act(x * scale + shift + residual)`; a unit an element.
#[cube(launch)]
pub(super) fn finish<F: Float>(
    x: &Tensor<F>,
    scale: &Tensor<F>,
    shift: &Tensor<F>,
    residual: &Tensor<F>,
    out: &mut Tensor<F>,
    elements: usize,
    width: usize,
    x_pitch: usize,
    residual_pitch: usize,
    out_pitch: usize,
    #[comptime] adds: bool,
    #[comptime] activation: Activation,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at < elements {
        let row = at / width;
        let column = at % width;
        let mut value = f32::cast_from(x[row * x_pitch + column]) * f32::cast_from(scale[column])
            + f32::cast_from(shift[column]);
        if comptime!(adds) {
            value += f32::cast_from(residual[row * residual_pitch + column]);
        }
        out[row * out_pitch + column] = F::cast_from(activate(value, activation));
    }
}

/// Sums of the columns of so many rows at a time, or of their products with those of `y`; a unit a sum.
#[cube(launch)]
pub(super) fn columns<F: Float, G: Float>(
    x: &Tensor<F>,
    y: &Tensor<F>,
    out: &mut Tensor<G>,
    elements: usize,
    rows: usize,
    width: usize,
    x_pitch: usize,
    y_pitch: usize,
    out_pitch: usize,
    at_a_time: usize,
    #[comptime] products: bool,
    #[define(F, G)] _dtypes: [StorageType; 2],
) {
    let at = ABSOLUTE_POS;
    if at < elements {
        let part = at / width;
        let column = at % width;
        let mut sum = f32::new(0.0);
        let mut row = part * at_a_time;
        let mut last = row + at_a_time;
        if last > rows {
            last = rows;
        }
        while row < last {
            let mut value = f32::cast_from(x[row * x_pitch + column]);
            if comptime!(products) {
                value *= f32::cast_from(y[row * y_pitch + column]);
            }
            sum += value;
            row += 1;
        }
        out[part * out_pitch + column] = G::cast_from(sum);
    }
}

/// Whether what windows reach, counted from where the first of them begins, is in the image in this direction.
#[cube]
fn inside(reached: usize, #[comptime] over: Over, #[comptime] along: usize) -> bool {
    let at = reached + comptime!(over.cut[along]);
    at >= comptime!(over.before[along]) && at < comptime!(over.image[along] + over.before[along])
}

/// The row of the pixel that windows reach there.
#[cube]
fn pixel_at(image: usize, y: usize, x: usize, #[comptime] over: Over) -> usize {
    let row = y + comptime!(over.cut[0]) - comptime!(over.before[0]);
    let column = x + comptime!(over.cut[1]) - comptime!(over.before[1]);
    image * comptime!(over.pixels()) + row * comptime!(over.image[1]) + column
}

/// Whether a window has a pixel of the image at its place `of_window`: the pixel's own is counted with the padding before it.
#[cube]
fn covers(padded: usize, of_window: usize, #[comptime] over: Over, #[comptime] along: usize) -> bool {
    let first = of_window + comptime!(over.cut[along]);
    padded >= first
        && (padded - first) % comptime!(over.stride) == 0
        && (padded - first) / comptime!(over.stride) < comptime!(over.places[along])
}

/// Which window that is, of those of an image.
#[cube]
fn place_of(y: usize, row: usize, x: usize, column: usize, #[comptime] over: Over) -> usize {
    let high = (y - row - comptime!(over.cut[0])) / comptime!(over.stride);
    let wide = (x - column - comptime!(over.cut[1])) / comptime!(over.stride);
    high * comptime!(over.places[1]) + wide
}
