//! Convolutions, poolings and what follows them under automatic differentiation. Windows are written out once more for the backward pass,
//! some images at a time, instead of being kept: they are many times as large as the images.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexDevice, FlexTensor};
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::super::flex::{self, Image, contiguous_owned, places, rows_in_place, seen, values};
use super::super::windows::Windows;
use super::super::{Activation, Filters, Finish, Kernels, tensor};
use super::{lift, primitive, times_slope, vector};

/// Values of windows that are written out at a time.
const GATHERED_AT_ONCE: usize = 1 << 20;

/// See [`Kernels::convolve`].
pub(super) fn convolve(
    x: Tensor<Autodiff<Flex>, 2>,
    filters: Filters<Autodiff<Flex>>,
    windows: &Windows,
) -> Tensor<Autodiff<Flex>, 2> {
    let (weight, per_channel) = match filters {
        Filters::Dense(weight, _) => (weight, false),
        Filters::PerChannel(weight) => (weight, true),
    };
    let (x, weight) = (primitive(x), primitive(weight));
    let step = Convolve.prepare::<NoCheckpointing>([x.node, weight.node]);
    let (x, weight): (Tensor<Flex, 2>, Tensor<Flex, 2>) = (lift(x.primitive), lift(weight.primitive));
    let filters = match per_channel {
        true => Filters::PerChannel(weight.clone()),
        false => flex::dense_by_rows(weight.clone()),
    };
    let out = primitive(Flex::convolve(x.clone(), filters, windows));
    lift(match step.compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish(Convolved { x, weight, per_channel, windows: *windows }, out),
        OpsKind::UnTracked(step) => step.finish(out),
    })
}

/// A convolution.
#[derive(Debug)]
struct Convolve;

/// What a convolution was made of.
#[derive(Clone, Debug)]
struct Convolved {
    x: Tensor<Flex, 2>,
    /// [pixels * channels, outputs], or [pixels, channels].
    weight: Tensor<Flex, 2>,
    per_channel: bool,
    windows: Windows,
}

impl Backward<Flex, 2> for Convolve {
    type State = Convolved;

    fn backward(self, ops: Ops<Convolved, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient: Tensor<Flex, 2> = lift(gradients.consume::<Flex>(&ops.node));
        let [x, weight] = ops.parents;
        let (d_x, d_weight) = match ops.state.per_channel {
            true => ops.state.backward_per_channel(gradient),
            false => ops.state.backward(gradient, x.is_some()),
        };
        if let Some(x) = x {
            gradients.register::<Flex>(x.id, primitive(d_x));
        }
        if let Some(weight) = weight {
            gradients.register::<Flex>(weight.id, primitive(d_weight));
        }
    }
}

impl Convolved {
    /// The gradients of images and weight, by filters of all channels: products with the windows, and those with the weight, added where
    /// the windows were. Where nobody wants that of the images it is zeros.
    fn backward(self, gradient: Tensor<Flex, 2>, of_images: bool) -> (Tensor<Flex, 2>, Tensor<Flex, 2>) {
        let ([all, channels], [inputs, outputs]) = (self.x.dims(), self.weight.dims());
        let (input, windows) = (contiguous_owned(self.x), self.windows);
        let [height, width] = windows.image;
        let (pixels, per_image) = (height * width, windows.places[0] * windows.places[1]);
        let at_once = (GATHERED_AT_ONCE / (per_image * inputs)).max(1);
        let transposed = self.weight.transpose();
        let mut d_x = vec![0.0; all * channels];
        let mut d_weight = Tensor::<Flex, 2>::zeros([inputs, outputs], &FlexDevice);
        let mut image = Image::new(&windows, channels);
        let some = values(&input).chunks(at_once * pixels * channels);
        for (nth, (images, d_images)) in some.zip(d_x.chunks_mut(at_once * pixels * channels)).enumerate() {
            let rows = images.len() / (pixels * channels) * per_image;
            let first = nth * at_once * per_image;
            let gradient = gradient.clone().slice_dim(0, first..first + rows);
            let mut gathered = vec![0.0; rows * inputs];
            let by_image = gathered.chunks_exact_mut(per_image * inputs);
            for (one, gathered) in images.chunks_exact(pixels * channels).zip(by_image) {
                image.fill(one);
                for (place, window) in places(&windows).zip(gathered.chunks_exact_mut(inputs)) {
                    image.gather(place, window);
                }
            }
            let gathered = tensor::<Flex, 2>(gathered, [rows, inputs], &FlexDevice);
            d_weight = d_weight + gathered.transpose().matmul(gradient.clone());
            if of_images {
                let d_windows = contiguous_owned(gradient.matmul(transposed.clone()));
                let by_image = values(&d_windows).chunks_exact(per_image * inputs);
                for (d_image, d_windows) in d_images.chunks_exact_mut(pixels * channels).zip(by_image) {
                    scatter(&windows, channels, d_windows, d_image);
                }
            }
        }
        (tensor(d_x, [all, channels], &FlexDevice), d_weight)
    }

    /// The same by filters of one channel each.
    fn backward_per_channel(self, gradient: Tensor<Flex, 2>) -> (Tensor<Flex, 2>, Tensor<Flex, 2>) {
        let [all, channels] = self.x.dims();
        let windows = self.windows;
        let (input, weight) = (contiguous_owned(self.x), contiguous_owned(self.weight));
        let (weight, gradient) = (values(&weight), contiguous_owned(gradient));
        let (pixels, wide) = (windows.image[0] * windows.image[1], windows.window.size[1]);
        let per_image = windows.places[0] * windows.places[1];
        let mut d_x = vec![0.0; all * channels];
        let mut d_weight = vec![0.0; weight.len()];
        let (mut image, mut d_image) = (Image::new(&windows, channels), Image::new(&windows, channels));
        let images = values(&input).chunks_exact(pixels * channels);
        let gradients = values(&gradient).chunks_exact(per_image * channels);
        for ((one, d_one), gradient) in images.zip(d_x.chunks_exact_mut(pixels * channels)).zip(gradients) {
            image.fill(one);
            d_image.values_mut().fill(0.0);
            for (place, gradient) in places(&windows).zip(gradient.chunks_exact(channels)) {
                for (row, first) in image.window(place).enumerate() {
                    for column in 0..wide {
                        let of = (row * wide + column) * channels..(row * wide + column + 1) * channels;
                        let at = first + column * channels..first + (column + 1) * channels;
                        add_products(&mut d_weight[of.clone()], &image.values_mut()[at.clone()], gradient);
                        add_products(&mut d_image.values_mut()[at], &weight[of], gradient);
                    }
                }
            }
            d_image.inner(d_one);
        }
        (
            tensor(d_x, [all, channels], &FlexDevice),
            tensor(d_weight, [windows.pixels(), channels], &FlexDevice),
        )
    }
}

/// Adds the windows of one image, end to end, where they were in it.
fn scatter(windows: &Windows, channels: usize, d_windows: &[f32], d_image: &mut [f32]) {
    let mut image = Image::new(windows, channels);
    let wide = windows.window.size[1] * channels;
    let each = d_windows.chunks_exact(windows.pixels() * channels);
    for (place, window) in places(windows).zip(each) {
        for (first, row) in image.window(place).zip(window.chunks_exact(wide)) {
            image.values_mut()[first..first + wide].iter_mut().zip(row).for_each(|(v, d)| *v += d);
        }
    }
    image.inner(d_image);
}

fn add_products(to: &mut [f32], a: &[f32], b: &[f32]) {
    to.iter_mut().zip(a).zip(b).for_each(|((to, a), b)| *to += a * b);
}

/// See [`Kernels::finish`].
pub(super) fn finish(
    x: Tensor<Autodiff<Flex>, 2>,
    finish: Finish<'_, Autodiff<Flex>>,
) -> Tensor<Autodiff<Flex>, 2> {
    let Finish { scale, shift, residual, act } = finish;
    // One that is not there is a constant.
    let residual = residual.cloned();
    let added = primitive(residual.clone().unwrap_or_else(|| Tensor::zeros([1, 1], &FlexDevice)));
    let (x, scale, shift) = (primitive(x), primitive(scale), primitive(shift));
    let step = Finished.prepare::<NoCheckpointing>([x.node, scale.node, shift.node, added.node]);
    let input = x.primitive.clone();
    let residual = residual.map(|_| lift(added.primitive));
    let inner = Finish {
        scale: lift(scale.primitive.clone()),
        shift: lift(shift.primitive),
        residual: residual.as_ref(),
        act: Activation::Linear,
    };
    let sum: Tensor<Flex, 2> = Flex::finish(lift(x.primitive), inner);
    let before = (act != Activation::Linear).then(|| primitive(sum.clone()));
    let out = primitive(Flex::bias_act(sum, None, act));
    lift(match step.compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish((input, scale.primitive, (act, before)), out),
        OpsKind::UnTracked(step) => step.finish(out),
    })
}

/// `act(x * scale + shift + residual)`.
#[derive(Debug)]
struct Finished;

impl Backward<Flex, 4> for Finished {
    /// The input; the scale; the activation, and what it was applied to, where its slope depends on that.
    type State = (FlexTensor, FlexTensor, (Activation, Option<FlexTensor>));

    fn backward(self, ops: Ops<Self::State, 4>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let mut gradient: Tensor<Flex, 2> = lift(gradients.consume::<Flex>(&ops.node));
        let (input, scale, activated) = ops.state;
        if let (act, Some(before)) = activated {
            gradient = times_slope(gradient, &contiguous_owned::<2>(lift(before)), act);
        }
        let (input, scale) = (contiguous_owned::<2>(lift(input)), contiguous_owned::<1>(lift(scale)));
        let (input, scale) = (values(&input), values(&scale));
        let width = scale.len();
        // As many rows as all images have pixels: their sums are not left to f32.
        let (mut d_scale, mut d_shift) = (vec![0.0f64; width], vec![0.0f64; width]);
        let d_x = rows_in_place(gradient.clone(), |row, index| {
            let input = &input[index * width..][..width];
            let sums = d_scale.iter_mut().zip(&mut d_shift);
            for (((g, &v), &s), (d_scale, d_shift)) in row.iter_mut().zip(input).zip(scale).zip(sums) {
                *d_scale += f64::from(*g) * f64::from(v);
                *d_shift += f64::from(*g);
                *g *= s;
            }
        });
        let [x, scale, shift, residual] = ops.parents;
        for (parent, sums) in [(scale, d_scale), (shift, d_shift)] {
            if let Some(parent) = parent {
                gradients.register::<Flex>(parent.id, vector(sums.into_iter().map(|s| s as f32).collect()));
            }
        }
        if let Some(x) = x {
            gradients.register::<Flex>(x.id, primitive(d_x));
        }
        if let Some(residual) = residual {
            gradients.register::<Flex>(residual.id, primitive(gradient));
        }
    }
}

/// See [`Kernels::largest`].
pub(super) fn largest(x: Tensor<Autodiff<Flex>, 2>, windows: &Windows) -> Tensor<Autodiff<Flex>, 2> {
    let x = primitive(x);
    let step = Largest.prepare::<NoCheckpointing>([x.node]);
    let out = primitive(Flex::largest(lift(x.primitive.clone()), windows));
    lift(match step.compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish((x.primitive, *windows), out),
        OpsKind::UnTracked(step) => step.finish(out),
    })
}

/// The largest value of every window: its gradient goes to the first pixel that has it.
#[derive(Debug)]
struct Largest;

impl Backward<Flex, 1> for Largest {
    type State = (FlexTensor, Windows);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = contiguous_owned::<2>(lift(gradients.consume::<Flex>(&ops.node)));
        let [Some(parent)] = ops.parents else { return };
        let (input, windows) = ops.state;
        let shape = lift::<Flex, 2>(input.clone()).dims();
        let (input, [_, channels]) = (contiguous_owned::<2>(lift(input)), shape);
        let image = windows.image[0] * windows.image[1] * channels;
        let mut d_x = vec![0.0; values(&input).len()];
        let mut rows = values(&gradient).chunks_exact(channels);
        for (input, d_x) in values(&input).chunks_exact(image).zip(d_x.chunks_exact_mut(image)) {
            for (place, row) in places(&windows).zip(&mut rows) {
                for (channel, gradient) in row.iter().enumerate() {
                    let (mut largest, mut at) = (f32::NEG_INFINITY, None);
                    for pixel in seen(&windows, place) {
                        let v = input[pixel * channels + channel];
                        if v > largest || v.is_nan() || at.is_none() {
                            (largest, at) = (v, Some(pixel));
                        }
                    }
                    if let Some(pixel) = at {
                        d_x[pixel * channels + channel] += gradient;
                    }
                }
            }
        }
        gradients.register::<Flex>(parent.id, primitive(tensor::<Flex, 2>(d_x, shape, &FlexDevice)));
    }
}

/// See [`Kernels::mean`].
pub(super) fn mean(x: Tensor<Autodiff<Flex>, 2>, batch: usize) -> Tensor<Autodiff<Flex>, 2> {
    let [rows, _] = x.dims();
    let x = primitive(x);
    let step = Mean.prepare::<NoCheckpointing>([x.node]);
    let out = primitive(Flex::mean(lift(x.primitive), batch));
    lift(match step.compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish(rows / batch, out),
        OpsKind::UnTracked(step) => step.finish(out),
    })
}

/// The mean over an image.
#[derive(Debug)]
struct Mean;

impl Backward<Flex, 1> for Mean {
    /// Pixels of an image.
    type State = usize;

    fn backward(self, ops: Ops<usize, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient: Tensor<Flex, 2> = lift(gradients.consume::<Flex>(&ops.node));
        let ([batch, channels], pixels) = (gradient.dims(), ops.state);
        if let [Some(parent)] = ops.parents {
            let each = gradient / pixels as f32;
            let all = each.reshape([batch, 1, channels]).expand([batch, pixels, channels]);
            gradients.register::<Flex>(parent.id, primitive(all.reshape([batch * pixels, channels])));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Differentiable, check};
    use super::*;
    use crate::kernels::windows::{Window, by_pixel};

    /// Filters of all channels as leaves; those of one channel each are held against the plain ones with all other kernels.
    #[test]
    fn filters_have_gradients() {
        let window = |side, stride, padding| Window { size: [side; 2], stride, padding: [padding; 2] };
        for (batch, image, window) in [
            (2, [5, 6], window(3, 1, [1, 1])),
            (3, [7, 4], window(5, 2, [1, 2])),
            (2, [6, 5], window(1, 2, [-1, 0])),
            (1, [4, 4], window(4, 1, [0, 0])),
        ] {
            let (channels, outputs) = (3, 5);
            let windows = Windows::new(window, batch, image);
            let pixels = batch * image[0] * image[1];
            let inputs = windows.pixels() * channels;
            let of = |l: &[Tensor<Differentiable, 1>]| {
                let weight = l[1].clone().reshape([inputs, outputs]);
                (l[0].clone().reshape([pixels, channels]), Filters::Dense(weight, outputs))
            };
            check(
                &format!("{windows:?}"),
                (&[pixels * channels, inputs * outputs], 1.0),
                &|l| {
                    let (x, filters) = of(l);
                    Differentiable::convolve(x, filters, &windows)
                },
                &|l| {
                    let (x, filters) = of(l);
                    by_pixel::convolve(x, filters, &windows)
                },
            );
        }
    }
}
