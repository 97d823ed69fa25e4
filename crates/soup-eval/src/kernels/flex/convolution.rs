//! Convolutions and poolings of images whose channels are last.
//!
//! A convolution is a product of matrices whose left rows are the windows. They are written one after the other, no more at a time than
//! are gone over panel by panel, and multiplied at once; windows of one pixel need none of this. Filters of one channel each are no
//! product: for some places beside each other and some channels the sums stay in registers while a window's pixels are gone over.
//!
//! Zeros around an image are written beside a copy of it, so that no step asks where it is. Every element is one chain of fused steps, a
//! window's pixels row by row and the channels of each in their order: what an image comes out as depends on that image alone.

use burn::backend::Flex;
use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};

use super::activation::activate;
use super::product::{PANEL, Packed, Then, pack_rows, packed_len, rows_worth_making};
use super::{contiguous_owned, tensor, values};
use crate::kernels::Filters;
use crate::kernels::windows::Windows;

/// Places of a window side by side whose sums are made at once: with two vectors each, eight sums in the sixteen registers of AVX2.
const PLACES: usize = 4;
/// Pixels that are added up before their sum is added to the others'.
const SUMMED: usize = 32;

/// One image with its padding.
pub(in crate::kernels) struct Image<'a> {
    windows: &'a Windows,
    /// Values of a pixel: as they come, and as they are kept, where the rest are zeros.
    channels: [usize; 2],
    values: Vec<f32>,
}

impl<'a> Image<'a> {
    /// Zeros, for images of so many channels.
    pub(in crate::kernels) fn new(windows: &'a Windows, channels: usize) -> Image<'a> {
        Image::wider(windows, [channels; 2])
    }

    fn wider(windows: &'a Windows, channels: [usize; 2]) -> Image<'a> {
        let [height, width] = windows.padded();
        Image { windows, channels, values: vec![0.0; height * width * channels[1]] }
    }

    /// Puts `image` in the place of the one before it.
    pub(in crate::kernels) fn fill(&mut self, image: &[f32]) {
        let [own, kept] = self.channels;
        for (padded, inner, pixels) in rows(self.windows) {
            let from = &image[inner * own..][..pixels * own];
            let to = &mut self.values[padded * kept..][..pixels * kept];
            if own == kept {
                to.copy_from_slice(from);
                continue;
            }
            for (to, from) in to.chunks_exact_mut(kept).zip(from.chunks_exact(own)) {
                to[..own].copy_from_slice(from);
            }
        }
    }

    /// Writes the image without its padding to `image`; what was cut off is zeros.
    pub(in crate::kernels) fn inner(&self, image: &mut [f32]) {
        let [own, _] = self.channels;
        image.fill(0.0);
        for (padded, inner, pixels) in rows(self.windows) {
            let from = &self.values[padded * own..][..pixels * own];
            image[inner * own..][..pixels * own].copy_from_slice(from);
        }
    }

    /// All values, those of the padding too.
    pub(in crate::kernels) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Where the rows of pixels of a window begin among the values, by its place. Each has as many values as the window is wide.
    pub(in crate::kernels) fn window(
        &self,
        [row, column]: [usize; 2],
    ) -> impl Iterator<Item = usize> + use<> {
        let ([_, kept], [_, width]) = (self.channels, self.windows.padded());
        let window = self.windows.window;
        let (top, left) = (row * window.stride, column * window.stride);
        (top..top + window.size[0]).map(move |row| (row * width + left) * kept)
    }

    /// Writes the pixels of a window end to end.
    pub(in crate::kernels) fn gather(&self, place: [usize; 2], out: &mut [f32]) {
        let wide = self.windows.window.size[1] * self.channels[1];
        for (first, out) in self.window(place).zip(out.chunks_exact_mut(wide)) {
            out.copy_from_slice(&self.values[first..][..wide]);
        }
    }
}

/// Of every row of an image of which something is seen: its first such pixel with the padding counted, the same without, and how many.
fn rows(windows: &Windows) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
    let ([height, width], [high, wide]) = (windows.image, windows.padded());
    let [[top, _], [left, _]] = windows.window.padding;
    let from = left.min(0).unsigned_abs();
    let to = left.max(0) as usize;
    let pixels = width.saturating_sub(from).min(wide.saturating_sub(to));
    (0..height).filter_map(move |row| {
        let padded = row.checked_add_signed(top).filter(|&padded| padded < high && pixels > 0)?;
        Some((padded * wide + to, row * width + from, pixels))
    })
}

/// The places of the windows on an image, row by row.
pub(in crate::kernels) fn places(windows: &Windows) -> impl Iterator<Item = [usize; 2]> + use<> {
    let [high, wide] = windows.places;
    (0..high).flat_map(move |row| (0..wide).map(move |column| [row, column]))
}

/// A convolution by filters of all channels.
pub(super) struct Dense<'a> {
    /// Images, one after the other.
    pub(super) input: &'a [f32],
    /// Channels and outputs.
    pub(super) sizes: [usize; 2],
    pub(super) windows: &'a Windows,
    /// [pixels * channels, outputs].
    pub(super) right: Packed<'a>,
    pub(super) then: Then<'a>,
}

impl Dense<'_> {
    /// Writes [windows, outputs].
    pub(super) fn run(&self, out: &mut [f32]) {
        let ([channels, _], [height, width]) = (self.sizes, self.windows.image);
        let inputs = self.windows.pixels() * channels;
        let at_once = rows_worth_making(inputs).min(self.windows.rows());
        let mut gathered = vec![0.0; at_once * inputs];
        let mut padded = Image::new(self.windows, channels);
        let (mut filled, mut done) = (0, 0);
        for image in self.input.chunks_exact(height * width * channels) {
            padded.fill(image);
            for place in places(self.windows) {
                padded.gather(place, &mut gathered[filled * inputs..][..inputs]);
                filled += 1;
                if filled == at_once {
                    self.multiply(&gathered, done, out);
                    (filled, done) = (0, done + filled);
                }
            }
        }
        if filled > 0 {
            self.multiply(&gathered[..filled * inputs], done, out);
        }
    }

    /// The products of windows of which the first is the one after `done` others.
    fn multiply(&self, windows: &[f32], done: usize, out: &mut [f32]) {
        let [channels, outputs] = self.sizes;
        let inputs = self.windows.pixels() * channels;
        let rows = done..done + windows.len() / inputs;
        let out = &mut out[rows.start * outputs..rows.end * outputs];
        let then = self.then.of_rows(rows, outputs);
        self.right.multiply(windows, [inputs, outputs], then, out);
    }
}

/// Filters of all channels as the kernels take them, of `weight`, [pixels * channels, outputs].
pub(in crate::kernels) fn dense_by_rows(weight: Tensor<Flex, 2>) -> Filters<Flex> {
    let ([inputs, outputs], device) = (weight.dims(), weight.device());
    let weight = contiguous_owned(weight);
    let mut packed = vec![0.0; packed_len(inputs, outputs)];
    pack_rows(&mut packed, inputs, outputs, |input| &values(&weight)[input * outputs..][..outputs]);
    let shape = [packed.len() / PANEL, PANEL];
    Filters::Dense(tensor(packed, shape, &device), outputs)
}

/// A convolution by filters of one channel each.
pub(super) struct PerChannel<'a> {
    /// Images, one after the other.
    pub(super) input: &'a [f32],
    pub(super) channels: usize,
    pub(super) windows: &'a Windows,
    /// [pixels, channels].
    pub(super) weight: &'a [f32],
    pub(super) then: Then<'a>,
    /// [windows, channels].
    pub(super) out: &'a mut [f32],
}

impl WithSimd for PerChannel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 1>(simd),
            8 => self.run::<S, 2>(simd),
            4 => self.run::<S, 4>(simd),
            _ => self.run::<S, 16>(simd),
        }
    }
}

impl PerChannel<'_> {
    /// The vectors of as many channels as a panel has columns are `V`.
    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, simd: S) {
        let PerChannel { input, channels, windows, weight, then, out } = self;
        let ([height, width], [_, wide]) = (windows.image, windows.places);
        let kept = channels.next_multiple_of(PANEL);
        let mut weights = vec![0.0; windows.pixels() * kept];
        for (to, from) in weights.chunks_exact_mut(kept).zip(weight.chunks_exact(channels)) {
            to[..channels].copy_from_slice(from);
        }
        let mut padded = Image::wider(windows, [channels, kept]);
        let mut lines = out.chunks_exact_mut(wide * channels).enumerate();
        for image in input.chunks_exact(height * width * channels) {
            padded.fill(image);
            for (row, (index, line)) in (0..windows.places[0]).zip(&mut lines) {
                for column in (0..wide).step_by(PLACES) {
                    let line = &mut line[column * channels..];
                    match wide - column {
                        1 => places_of::<S, 1, V>(simd, &padded, &weights, [row, column], line),
                        2 => places_of::<S, 2, V>(simd, &padded, &weights, [row, column], line),
                        3 => places_of::<S, 3, V>(simd, &padded, &weights, [row, column], line),
                        _ => places_of::<S, PLACES, V>(simd, &padded, &weights, [row, column], line),
                    }
                }
                for (column, pixel) in line.chunks_exact_mut(channels).enumerate() {
                    finish(pixel, then, index * wide + column);
                }
            }
        }
    }
}

/// The sums of `R` places beside each other, of which `place` is the first, to `out`. A function of its own, so that they stay in
/// registers.
#[inline(never)]
fn places_of<S: Simd, const R: usize, const V: usize>(
    simd: S,
    padded: &Image<'_>,
    weights: &[f32],
    place: [usize; 2],
    out: &mut [f32],
) {
    simd.vectorize(Places::<R, V> { padded, weights, place, out });
}

struct Places<'a, const R: usize, const V: usize> {
    padded: &'a Image<'a>,
    weights: &'a [f32],
    place: [usize; 2],
    out: &'a mut [f32],
}

impl<const R: usize, const V: usize> WithSimd for Places<'_, R, V> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Places { padded, weights, place, out } = self;
        let ([channels, kept], window) = (padded.channels, padded.windows.window);
        let (wide, step) = (window.size[1], window.stride * kept);
        for channel in (0..channels).step_by(PANEL) {
            let mut sums = [[simd.splat_f32s(0.0); V]; R];
            for (row, first) in padded.window(place).enumerate() {
                for column in 0..wide {
                    let weight = &weights[(row * wide + column) * kept + channel..][..PANEL];
                    let weight = S::as_simd_f32s(weight).0;
                    let at = first + column * kept + channel;
                    for (nth, sums) in sums.iter_mut().enumerate() {
                        let pixel = S::as_simd_f32s(&padded.values[at + nth * step..][..PANEL]).0;
                        for ((sum, &pixel), &weight) in sums.iter_mut().zip(pixel).zip(weight) {
                            *sum = simd.mul_add_f32s(pixel, weight, *sum);
                        }
                    }
                }
            }
            let width = PANEL.min(channels - channel);
            for (nth, sums) in sums.iter().enumerate() {
                let mut values = [0.0; PANEL];
                S::as_mut_simd_f32s(&mut values).0[..V].copy_from_slice(sums);
                out[nth * channels + channel..][..width].copy_from_slice(&values[..width]);
            }
        }
    }
}

/// Does what comes after a convolution to row `index` of its result, in the steps that a product takes.
#[inline(always)]
pub(super) fn finish(row: &mut [f32], then: Then<'_>, index: usize) {
    if let Some(scale) = then.scale {
        row.iter_mut().zip(scale).for_each(|(v, s)| *v *= s);
    }
    if let Some(bias) = then.bias {
        row.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
    }
    if let Some(residual) = then.residual {
        let residual = &residual[index * row.len()..][..row.len()];
        row.iter_mut().zip(residual).for_each(|(v, r)| *v += r);
    }
    activate(then.act, row);
}

/// The largest value of every window.
pub(super) struct Largest<'a> {
    pub(super) input: &'a [f32],
    pub(super) channels: usize,
    pub(super) windows: &'a Windows,
    /// [windows, channels].
    pub(super) out: &'a mut [f32],
}

impl WithSimd for Largest<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Largest { input, channels, windows, out } = self;
        let [height, width] = windows.image;
        let mut out = out.chunks_exact_mut(channels);
        for image in input.chunks_exact(height * width * channels) {
            for (place, out) in places(windows).zip(&mut out) {
                out.fill(f32::NEG_INFINITY);
                for pixel in seen(windows, place) {
                    for (largest, &v) in out.iter_mut().zip(&image[pixel * channels..][..channels]) {
                        // Not `max`, which would hide a NaN.
                        *largest = if v > *largest || v.is_nan() { v } else { *largest };
                    }
                }
            }
        }
    }
}

/// The pixels of the image that a window is on, row by row.
pub(in crate::kernels) fn seen(windows: &Windows, place: [usize; 2]) -> impl Iterator<Item = usize> + use<> {
    let (window, image) = (windows.window, windows.image);
    let along = move |dim: usize| {
        let first = (place[dim] * window.stride) as isize - window.padding[dim][0];
        let end = (first + window.size[dim] as isize).clamp(0, image[dim] as isize);
        first.max(0) as usize..end as usize
    };
    along(0).flat_map(move |row| along(1).map(move |column| row * image[1] + column))
}

/// The mean of every channel over an image.
pub(super) struct Mean<'a> {
    pub(super) input: &'a [f32],
    pub(super) channels: usize,
    /// [images, channels].
    pub(super) out: &'a mut [f32],
}

impl WithSimd for Mean<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Mean { input, channels, out } = self;
        let values = input.len() / (out.len() / channels);
        let mut some = vec![0.0f32; channels];
        for (image, out) in input.chunks_exact(values).zip(out.chunks_exact_mut(channels)) {
            for pixels in image.chunks(SUMMED * channels) {
                some.fill(0.0);
                for pixel in pixels.chunks_exact(channels) {
                    some.iter_mut().zip(pixel).for_each(|(s, v)| *s += v);
                }
                out.iter_mut().zip(&some).for_each(|(o, s)| *o += s);
            }
            let pixels = (values / channels) as f32;
            out.iter_mut().for_each(|o| *o /= pixels);
        }
    }
}
