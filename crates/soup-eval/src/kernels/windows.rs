//! Windows that move over images: what convolutions and poolings look at, and both in plain operations.
//!
//! Images lie with their channels last, one row of a matrix for every pixel: `[batch * height * width, channels]`. A convolution by
//! windows of one pixel is then a product of matrices as it is, and the channels of a pixel are next to each other in every kernel.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::{Filters, Finish, Kernels, plain};

/// A window, and how it moves over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Its height and width, in pixels; at least 1.
    pub(crate) size: [usize; 2],
    /// Pixels from one place of it to the next, in both directions; at least 1.
    pub(crate) stride: usize,
    /// Pixels of zeros above and below an image, and left and right of it. What is negative is cut off instead.
    pub(crate) padding: [[isize; 2]; 2],
}

impl Window {
    /// A square one of odd side, with as much padding as leaves its middle on every pixel of the image.
    pub(crate) fn centred(side: usize, stride: usize) -> Window {
        let half = (side / 2) as isize;
        Window { size: [side; 2], stride, padding: [[half; 2]; 2] }
    }

    /// Height and width of an image with its padding.
    fn padded(&self, [height, width]: [usize; 2]) -> Option<[usize; 2]> {
        let along = |have: usize, [before, after]: [isize; 2]| {
            have.checked_add_signed(before.checked_add(after)?).filter(|&padded| padded > 0)
        };
        Some([along(height, self.padding[0])?, along(width, self.padding[1])?])
    }

    /// Places of it in each direction, over images of so many pixels in height and width; `None` where it fits nowhere.
    pub(crate) fn places(&self, image: [usize; 2]) -> Option<[usize; 2]> {
        let [height, width] = self.padded(image)?;
        let along = |have: usize, own: usize| Some(have.checked_sub(own)? / self.stride + 1);
        Some([along(height, self.size[0])?, along(width, self.size[1])?])
    }
}

/// A window on so many images of one size, which it fits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    pub(crate) window: Window,
    pub(crate) batch: usize,
    /// Height and width of an image.
    pub(crate) image: [usize; 2],
    /// Places in each direction: height and width of what comes out.
    pub(crate) places: [usize; 2],
}

impl Windows {
    /// `window` on `batch` images; none of its places where it fits nowhere, which a config that was
    /// [resized](crate::architecture::Architecture::resized) rules out.
    pub(crate) fn new(window: Window, batch: usize, image: [usize; 2]) -> Windows {
        Windows { window, batch, image, places: window.places(image).unwrap_or([0; 2]) }
    }

    /// Height and width of an image with its padding.
    pub(crate) fn padded(&self) -> [usize; 2] {
        self.window.padded(self.image).unwrap_or([0; 2])
    }

    /// Pixels of a window.
    pub(crate) fn pixels(&self) -> usize {
        self.window.size[0] * self.window.size[1]
    }

    /// Pixels of all that comes out.
    pub(crate) fn rows(&self) -> usize {
        self.batch * self.places[0] * self.places[1]
    }

    /// Whether each window is one pixel, and each pixel a window.
    pub(crate) fn are_pixels(&self) -> bool {
        self.window == Window { size: [1; 2], stride: 1, padding: [[0; 2]; 2] }
    }
}

/// The convolution, the largest values and so on in plain operations, which any backend runs and automatic differentiation can go
/// through.
pub(crate) mod by_pixel {
    use super::*;

    /// Images `[batch, height, width, channels]` with their padding of `beyond`, and as much more at the end as lets every pixel of a
    /// window be stepped over from the first place to the last.
    fn padded<B: Backend>(x: &Tensor<B, 2>, windows: &Windows, beyond: f32) -> Tensor<B, 4> {
        let ([_, channels], [height, width]) = (x.dims(), windows.image);
        let mut image = x.clone().reshape([windows.batch, height, width, channels]);
        let (mut pads, window) = ([(0, 0); 4], &windows.window);
        for (along, [before, after]) in window.padding.into_iter().enumerate() {
            let cut = |side: isize| (-side).max(0) as usize;
            let length = windows.image[along];
            image = image.slice_dim(along + 1, cut(before)..length - cut(after));
            let reached = window.size[along] - 1 + windows.places[along] * window.stride;
            let more = reached.saturating_sub(windows.padded()[along]);
            pads[along + 1] = (before.max(0) as usize, after.max(0) as usize + more);
        }
        image.pad(pads, beyond)
    }

    /// Of every window the pixel `[row, column]`: `[windows, channels]`.
    fn nth<B: Backend>(padded: &Tensor<B, 4>, windows: &Windows, [row, column]: [usize; 2]) -> Tensor<B, 2> {
        let ([batch, _, _, channels], [high, wide]) = (padded.dims(), windows.places);
        let stride = windows.window.stride;
        padded
            .clone()
            .slice([0..batch, row..row + high * stride, column..column + wide * stride, 0..channels])
            .reshape([batch, high, stride, wide, stride, channels])
            .slice([0..batch, 0..high, 0..1, 0..wide, 0..1, 0..channels])
            .reshape([windows.rows(), channels])
    }

    /// The places of a window's pixels, row by row.
    fn pixels(windows: &Windows) -> impl Iterator<Item = [usize; 2]> {
        let [high, wide] = windows.window.size;
        (0..high).flat_map(move |row| (0..wide).map(move |column| [row, column]))
    }

    /// See [`Kernels::convolve`].
    pub(crate) fn convolve<B: Kernels>(
        x: Tensor<B, 2>,
        filters: Filters<B>,
        windows: &Windows,
    ) -> Tensor<B, 2> {
        let padded = padded(&x, windows, 0.0);
        let parts = pixels(windows).map(|at| nth(&padded, windows, at));
        match filters {
            Filters::Dense(weight, _) => B::matmul(Tensor::cat(parts.collect(), 1), weight),
            Filters::PerChannel(weight) => {
                let products =
                    parts.enumerate().map(|(at, part)| part * weight.clone().slice_dim(0, at..at + 1));
                let [_, channels] = x.dims();
                let nothing = Tensor::zeros([windows.rows(), channels], &x.device());
                products.fold(nothing, |sum, product| sum + product)
            }
        }
    }

    /// See [`Kernels::largest`].
    pub(crate) fn largest<B: Backend>(x: &Tensor<B, 2>, windows: &Windows) -> Tensor<B, 2> {
        let padded = padded(x, windows, f32::NEG_INFINITY);
        let mut parts =
            pixels(windows).map(|at| nth(&padded, windows, at).unsqueeze_dim::<3>(0)).collect::<Vec<_>>();
        match parts.len() {
            1 => parts.remove(0).squeeze_dim(0),
            _ => Tensor::cat(parts, 0).max_dim(0).squeeze_dim(0),
        }
    }

    /// See [`Kernels::finish`].
    pub(crate) fn finish<B: Backend>(x: Tensor<B, 2>, finish: Finish<'_, B>) -> Tensor<B, 2> {
        let x = x * finish.scale.unsqueeze() + finish.shift.unsqueeze();
        let x = match finish.residual {
            Some(residual) => x + residual.clone(),
            None => x,
        };
        plain::bias_act(x, None, finish.act)
    }

    /// See [`Kernels::mean`].
    pub(crate) fn mean<B: Backend>(x: Tensor<B, 2>, batch: usize) -> Tensor<B, 2> {
        let [rows, channels] = x.dims();
        x.reshape([batch, rows / batch, channels]).mean_dim(1).reshape([batch, channels])
    }

    /// See [`Kernels::scale_images`].
    pub(crate) fn scale_images<B: Backend>(x: Tensor<B, 2>, factors: Tensor<B, 2>) -> Tensor<B, 2> {
        let ([rows, channels], [batch, _]) = (x.dims(), factors.dims());
        let factors = factors.reshape([batch, 1, channels]);
        (x.reshape([batch, rows / batch, channels]) * factors).reshape([rows, channels])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(size: usize, stride: usize, padding: [isize; 2], image: usize) -> Option<usize> {
        let window = Window { size: [size; 2], stride, padding: [padding; 2] };
        window.places([image; 2]).map(|[high, _]| high)
    }

    #[test]
    fn a_window_has_as_many_places_as_in_pytorch() {
        // A stem, a pooling and a layer of ResNet; the stem and a depthwise layer of EfficientNet.
        assert_eq!(places(7, 2, [3, 3], 224), Some(112));
        assert_eq!(places(3, 2, [1, 1], 112), Some(56));
        assert_eq!(places(1, 2, [0, 0], 7), Some(4));
        assert_eq!(places(3, 2, [0, 1], 15), Some(7));
        assert_eq!(places(5, 2, [1, 2], 8), Some(4));
        // What is cut off is no place.
        assert_eq!(places(1, 2, [-1, 0], 2), Some(1));
        assert_eq!(places(1, 2, [-1, 0], 1), None);
        assert_eq!(places(3, 1, [0, 0], 2), None);
        assert_eq!(places(2, 1, [isize::MIN, 0], 2), None);
        assert_eq!(Window::centred(7, 2), Window { size: [7; 2], stride: 2, padding: [[3; 2]; 2] });
    }
}
