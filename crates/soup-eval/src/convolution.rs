//! The parts that convolutional networks are made of, over any backend.
//!
//! Images go through them as [`Maps`]. A convolution is followed by a normalisation of each channel ([`BatchNorm`]) throughout, and both
//! are one step ([`Normed`]): in evaluation a normalisation is a factor and a summand. Whose statistics it takes is the forward
//! pass's affair: those of the checkpoint, others that were given, or those of what it sees, which are then noted ([`Norms`]).

pub(crate) mod norm;

use burn::tensor::Tensor;
use soup_core::Result;

use self::norm::{BatchNorm, Norms};
use crate::config::wrong;
use crate::kernels::windows::{Window, Windows};
use crate::kernels::{Activation, Filters, Finish, Kernels};
use crate::parameters::visitor::{Form, Loaded, Visitor};

/// Largest height and width of a window.
const SIDE_MAX: usize = 255;

/// What images have become: for every pixel of each the values of its channels.
#[derive(Clone)]
pub(crate) struct Maps<B: Kernels> {
    /// [batch * height * width, channels].
    pub(crate) values: Tensor<B, 2>,
    pub(crate) batch: usize,
    /// Height and width.
    pub(crate) size: [usize; 2],
}

impl<B: Kernels> Maps<B> {
    /// Of images `[batch, channels, height, width]`.
    pub(crate) fn of(images: Tensor<B, 4>) -> Maps<B> {
        let [batch, _, height, width] = images.dims();
        Maps { values: B::channels_last(images), batch, size: [height, width] }
    }

    /// The largest values in a window.
    pub(crate) fn largest(self, window: Window) -> Maps<B> {
        let windows = Windows::new(window, self.batch, self.size);
        Maps { values: B::largest(self.values, &windows), batch: self.batch, size: windows.places }
    }

    /// The largest value of each channel over each image, `[batch, channels]`.
    pub(crate) fn largest_of_all(self) -> Tensor<B, 2> {
        let window = Window { size: self.size, stride: 1, padding: [[0; 2]; 2] };
        self.largest(window).values
    }

    /// The mean of each channel over each image, `[batch, channels]`.
    pub(crate) fn mean(self) -> Tensor<B, 2> {
        B::mean(self.values, self.batch)
    }
}

/// What a convolution looks at, and what it makes of that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) channels: usize,
    pub(crate) outputs: usize,
    pub(crate) window: Window,
    /// Whether every channel has a filter of its own, and there are as many outputs.
    pub(crate) per_channel: bool,
}

impl Shape {
    /// One from all channels to all outputs.
    pub(crate) fn dense([channels, outputs]: [usize; 2], window: Window) -> Shape {
        Shape { channels, outputs, window, per_channel: false }
    }

    /// Height and width of what comes out of images of `size`.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where they are smaller than the window.
    pub(crate) fn out_of(&self, size: [usize; 2]) -> Result<[usize; 2]> {
        let [height, width] = size;
        self.window.places(size).ok_or_else(|| {
            wrong(format!(
                "the images are too small: nothing is left of {width} x {height} pixels after a convolution with windows of {} x {}",
                self.window.size[1], self.window.size[0]
            ))
        })
    }
}

/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where the setting `name` is no side of a window.
pub(crate) fn check_side(name: &str, side: usize) -> Result<()> {
    match side {
        1..=SIDE_MAX => Ok(()),
        _ => Err(wrong(format!("{name} has {side}, expected 1 to {SIDE_MAX}"))),
    }
}

/// A convolution without a bias, and the normalisation after it.
pub(crate) struct Normed<F: Form> {
    shape: Shape,
    filters: F::Parameter<2>,
    norm: BatchNorm<F>,
}

impl<F: Form> Normed<F> {
    /// The convolution whose tensor is `convolution` less `.weight`, and the normalisation called `norm`.
    pub(crate) fn visit(
        visitor: &mut impl Visitor<Form = F>,
        (convolution, norm): (&str, &str),
        shape: Shape,
        epsilon: f64,
    ) -> Result<Self> {
        let (name, size) = (format!("{convolution}.weight"), shape.window.size);
        let filters = match shape.per_channel {
            true => visitor.filters_per_channel(name, shape.channels, size)?,
            false => visitor.filters(name, [shape.channels, shape.outputs], size)?,
        };
        Ok(Normed { shape, filters, norm: BatchNorm::visit(visitor, norm, shape.outputs, epsilon)? })
    }
}

impl<B: Kernels> Normed<Loaded<B>> {
    /// Both, then what is added, where there is something, then `act`.
    pub(crate) fn forward(
        &self,
        x: &Maps<B>,
        residual: Option<&Maps<B>>,
        act: Activation,
        norms: &mut Norms<'_, B>,
    ) -> Maps<B> {
        let windows = Windows::new(self.shape.window, x.batch, x.size);
        let filters = self.filters.on(&x.values);
        let filters = match self.shape.per_channel {
            true => Filters::PerChannel(filters),
            false => Filters::Dense(filters, self.shape.outputs),
        };
        let residual = residual.map(|maps| &maps.values);
        let x = x.values.clone();
        let values = match self.norm.known(&x, norms) {
            Some([scale, shift]) => {
                B::convolve_then(x, filters, &windows, Finish { scale, shift, residual, act })
            }
            None => {
                let x = B::convolve(x, filters, &windows);
                let [scale, shift] = self.norm.observe(&x, norms);
                B::finish(x, Finish { scale, shift, residual, act })
            }
        };
        Maps { values, batch: windows.batch, size: windows.places }
    }
}
