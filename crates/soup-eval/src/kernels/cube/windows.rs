//! Convolutions, poolings and what follows them. Windows are written out and multiplied, some images at a time: as many as divide the
//! batch, so that no image is in a smaller part than others and its products are always of one shape.

mod programs;

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::steps::Rows;
use crate::kernels::Activation;
use crate::kernels::windows::Windows;

/// Values of windows that are written out at a time, at most, unless those of one image are more.
const WRITTEN_AT_ONCE: usize = 1 << 26;
/// Rows that a unit adds up.
const ROWS_A_UNIT: usize = 256;

/// Windows on images of so many channels, whatever their number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Over {
    channels: usize,
    image: [usize; 2],
    places: [usize; 2],
    size: [usize; 2],
    stride: usize,
    /// Padding above and on the left, and what is cut off there instead.
    before: [usize; 2],
    cut: [usize; 2],
}

impl Over {
    fn new(windows: &Windows, channels: usize) -> Over {
        let window = &windows.window;
        let before = window.padding.map(|[before, _]| before);
        Over {
            channels,
            image: windows.image,
            places: windows.places,
            size: window.size,
            stride: window.stride,
            before: before.map(|padding| padding.max(0).unsigned_abs()),
            cut: before.map(|padding| padding.min(0).unsigned_abs()),
        }
    }

    /// Pixels of an image.
    const fn pixels(&self) -> usize {
        self.image[0] * self.image[1]
    }

    /// Windows of an image.
    const fn per_image(&self) -> usize {
        self.places[0] * self.places[1]
    }

    /// Values of a window.
    const fn inputs(&self) -> usize {
        self.size[0] * self.size[1] * self.channels
    }
}

/// How many images are written out at a time.
pub(super) fn at_once(windows: &Windows, channels: usize) -> usize {
    let over = Over::new(windows, channels);
    let most = (WRITTEN_AT_ONCE / (over.per_image() * over.inputs()).max(1)).clamp(1, windows.batch.max(1));
    (1..=most).rev().find(|&images| windows.batch.is_multiple_of(images)).unwrap_or(1)
}

/// The windows of `images` images from `first` on, one a row.
pub(super) fn unfolded<R: CubeRuntime>(
    x: CubeTensor<R>,
    windows: &Windows,
    (first, images): (usize, usize),
) -> CubeTensor<R> {
    let x = Rows::of(x);
    let over = Over::new(windows, x.width);
    let out = x.matrix([images * over.per_image(), over.inputs()]);
    let (count, dim) = x.by_element(out.elements());
    programs::unfold::launch(
        &x.tensor.client,
        count,
        dim,
        x.arg(),
        out.arg(),
        out.elements(),
        first,
        x.pitch,
        out.pitch,
        over,
        x.tensor.dtype.into(),
    );
    out.tensor
}

/// Images of so many channels whose gradient is written some images at a time.
pub(super) struct Folded<'a, R: CubeRuntime> {
    windows: &'a Windows,
    out: Rows<R>,
}

impl<'a, R: CubeRuntime> Folded<'a, R> {
    /// Of images like `x`.
    pub(super) fn like(x: &CubeTensor<R>, windows: &'a Windows) -> Folded<'a, R> {
        let x = Rows::of(x.clone());
        Folded { windows, out: x.like(x.width) }
    }

    /// Writes that of the images from `first` on by that of their windows, one a row.
    pub(super) fn add(&self, gradient: CubeTensor<R>, (first, images): (usize, usize)) {
        let gradient = Rows::of(gradient);
        let over = Over::new(self.windows, self.out.width);
        let elements = images * over.pixels() * over.channels;
        let (count, dim) = gradient.by_element(elements);
        programs::fold::launch(
            &gradient.tensor.client,
            count,
            dim,
            gradient.arg(),
            self.out.arg(),
            elements,
            first,
            gradient.pitch,
            self.out.pitch,
            over,
            gradient.tensor.dtype.into(),
        );
    }

    /// That of all of them.
    pub(super) fn whole(self) -> CubeTensor<R> {
        self.out.tensor
    }
}

/// A convolution of every channel by itself.
pub(super) fn per_channel<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: CubeTensor<R>,
    windows: &Windows,
) -> CubeTensor<R> {
    let (x, weight) = (Rows::of(x), Rows::of(weight));
    let out = x.matrix([windows.rows(), x.width]);
    let (count, dim) = x.by_element(out.elements());
    programs::per_channel::launch(
        &x.tensor.client,
        count,
        dim,
        x.arg(),
        weight.arg(),
        out.arg(),
        out.elements(),
        x.pitch,
        weight.pitch,
        out.pitch,
        Over::new(windows, x.width),
        x.tensor.dtype.into(),
    );
    out.tensor
}

/// From the gradient of that those of images and filters.
pub(super) fn per_channel_gradients<R: CubeRuntime>(
    gradient: CubeTensor<R>,
    x: CubeTensor<R>,
    weight: CubeTensor<R>,
    windows: &Windows,
) -> [CubeTensor<R>; 2] {
    let (gradient, x, weight) = (Rows::of(gradient), Rows::of(x), Rows::of(weight));
    let over = Over::new(windows, x.width);
    let (of_images, dtype) = (x.like(x.width), x.tensor.dtype);
    let (count, dim) = x.by_element(x.elements());
    programs::per_channel_images::launch(
        &x.tensor.client,
        count,
        dim,
        gradient.arg(),
        weight.arg(),
        of_images.arg(),
        x.elements(),
        gradient.pitch,
        weight.pitch,
        of_images.pitch,
        over,
        dtype.into(),
    );
    let elements = windows.batch * over.inputs();
    let of_each = contiguous(&x.tensor, [windows.batch, over.inputs()]);
    let (count, dim) = x.by_element(elements);
    programs::per_channel_filters::launch(
        &x.tensor.client,
        count,
        dim,
        x.arg(),
        gradient.arg(),
        of_each.clone().into_tensor_arg(),
        elements,
        x.pitch,
        gradient.pitch,
        over,
        dtype.into(),
    );
    let CubeTensor { client, device, handle, .. } = column_sums(of_each, None, dtype);
    // As the filters lie.
    let shape = [windows.pixels(), x.width].into();
    [of_images.tensor, CubeTensor::new_contiguous(client, device, shape, handle, dtype)]
}

/// A matrix of f32 without gaps, not yet written.
fn contiguous<R: CubeRuntime>(like: &CubeTensor<R>, shape: [usize; 2]) -> CubeTensor<R> {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), DType::F32)
}

/// The largest value of each channel in every window, and which pixel of it has it first, where that is `noted`.
pub(super) fn largest<R: CubeRuntime>(
    x: CubeTensor<R>,
    windows: &Windows,
    noted: bool,
) -> (CubeTensor<R>, CubeTensor<R>) {
    let x = Rows::of(x);
    let out = x.matrix([windows.rows(), x.width]);
    let places = if noted { out.elements() } else { 1 };
    let (client, device) = (x.tensor.client.clone(), x.tensor.device.clone());
    let of = empty_device_contiguous_dtype(client, device, [places].into(), DType::U32);
    let (count, dim) = x.by_element(out.elements());
    programs::largest::launch(
        &x.tensor.client,
        count,
        dim,
        x.arg(),
        out.arg(),
        of.clone().into_tensor_arg(),
        out.elements(),
        x.pitch,
        out.pitch,
        Over::new(windows, x.width),
        noted,
        x.tensor.dtype.into(),
    );
    (out.tensor, of)
}

/// From the gradient of that the one of the images: it goes to the first pixel that has the largest value.
pub(super) fn largest_gradient<R: CubeRuntime>(
    gradient: CubeTensor<R>,
    of: CubeTensor<R>,
    windows: &Windows,
) -> CubeTensor<R> {
    let gradient = Rows::of(gradient);
    let pixels = windows.batch * windows.image[0] * windows.image[1];
    let out = gradient.matrix([pixels, gradient.width]);
    let (count, dim) = gradient.by_element(out.elements());
    programs::largest_images::launch(
        &gradient.tensor.client,
        count,
        dim,
        gradient.arg(),
        of.into_tensor_arg(),
        out.arg(),
        out.elements(),
        gradient.pitch,
        out.pitch,
        Over::new(windows, gradient.width),
        gradient.tensor.dtype.into(),
    );
    out.tensor
}

/// `act(x * scale + shift + residual)`.
pub(super) fn finish<R: CubeRuntime>(
    x: CubeTensor<R>,
    [scale, shift]: [CubeTensor<R>; 2],
    residual: Option<CubeTensor<R>>,
    act: Activation,
) -> CubeTensor<R> {
    let (x, scale, shift) = (Rows::of(x), Rows::of(scale), Rows::of(shift));
    let adds = residual.is_some();
    // Where nothing is added nobody looks at it.
    let residual = Rows::of(residual.unwrap_or_else(|| x.tensor.clone()));
    let out = x.like(x.width);
    let (count, dim) = x.by_element(x.elements());
    programs::finish::launch(
        &x.tensor.client,
        count,
        dim,
        x.arg(),
        scale.arg(),
        shift.arg(),
        residual.arg(),
        out.arg(),
        x.elements(),
        x.width,
        x.pitch,
        residual.pitch,
        out.pitch,
        adds,
        act,
        x.tensor.dtype.into(),
    );
    out.tensor
}

/// The sum of every column of `x`, or of the products with those of `y`: in f32, some rows at a time, and those sums in the same way.
pub(super) fn column_sums<R: CubeRuntime>(
    x: CubeTensor<R>,
    y: Option<CubeTensor<R>>,
    dtype: DType,
) -> CubeTensor<R> {
    let (mut x, mut y) = (Rows::of(x), y.map(Rows::of));
    loop {
        let parts = x.rows.div_ceil(ROWS_A_UNIT);
        let last = parts <= 1;
        let out_dtype = if last { dtype } else { DType::F32 };
        let shape = if last { [x.width].into() } else { [parts, x.width].into() };
        let (client, device) = (x.tensor.client.clone(), x.tensor.device.clone());
        let out = Rows::of(empty_device_contiguous_dtype(client, device, shape, out_dtype));
        let factor = y.as_ref().unwrap_or(&x);
        let (count, dim) = x.by_element(out.elements());
        programs::columns::launch(
            &x.tensor.client,
            count,
            dim,
            x.arg(),
            factor.arg(),
            out.arg(),
            out.elements(),
            x.rows,
            x.width,
            x.pitch,
            factor.pitch,
            out.pitch,
            ROWS_A_UNIT,
            y.is_some(),
            [x.tensor.dtype.into(), out_dtype.into()],
        );
        if last {
            return out.tensor;
        }
        (x, y) = (out, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::windows::Window;

    #[test]
    fn as_many_images_at_once_as_divide_the_batch() {
        let of = |batch, side| at_once(&Windows::new(Window::centred(3, 1), batch, [side; 2]), 64);
        // 576 values a window.
        assert_eq!((of(32, 8), of(32, 56), of(30, 112), of(7, 112)), (32, 32, 6, 7));
        assert_eq!((of(1, 4000), of(31, 112)), (1, 1));
    }

    #[test]
    fn padding_is_before_an_image_or_cuts_it() {
        let window = Window { size: [2, 3], stride: 3, padding: [[-1, 2], [4, -2]] };
        let over = Over::new(&Windows::new(window, 2, [7, 8]), 5);
        assert_eq!((over.before, over.cut), ([0, 4], [1, 0]));
        assert_eq!((over.pixels(), over.inputs(), over.per_image()), (56, 30, 3 * 3));
    }
}
