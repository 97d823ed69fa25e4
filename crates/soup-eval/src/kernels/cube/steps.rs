//! The steps between two products, one launch each: what goes into them, how they are cut, and where the result lies.
//!
//! They go by rows of the last dimension. Rows lie one after the other at one distance, the *pitch*, which is the row's length or, where
//! a device likes rows aligned, more.

pub(super) mod programs;

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::super::Activation;

/// Fewest and most units that share a row.
const UNITS: (usize, usize) = (32, 256);
/// Elements of a row that one of them takes, where there are enough.
const ELEMENTS_A_UNIT: usize = 4;

/// A tensor whose rows are at one distance.
pub(super) struct Rows<R: CubeRuntime> {
    pub(super) tensor: CubeTensor<R>,
    pub(super) rows: usize,
    /// Elements of a row.
    pub(super) width: usize,
    pub(super) pitch: usize,
}

impl<R: CubeRuntime> Rows<R> {
    /// Those of `tensor`; copied where they are at several distances.
    pub(super) fn of(tensor: CubeTensor<R>) -> Rows<R> {
        let tensor = match pitch(&tensor) {
            Some(_) => tensor,
            None => into_contiguous(tensor),
        };
        let elements: usize = tensor.meta.shape().iter().product();
        let width = tensor.meta.shape().iter().next_back().copied().unwrap_or(1);
        let pitch = pitch(&tensor).unwrap_or(width);
        Rows { rows: elements.checked_div(width).unwrap_or(0), width, pitch, tensor }
    }

    /// Those of a new tensor of the same shape, but rows of `width`.
    pub(super) fn like(&self, width: usize) -> Rows<R> {
        let mut shape = self.tensor.meta.shape().clone();
        let last = shape.num_dims() - 1;
        shape[last] = width;
        let CubeTensor { client, device, dtype, .. } = &self.tensor;
        Rows::of(empty_device_dtype(client.clone(), device.clone(), shape, *dtype))
    }

    pub(super) fn elements(&self) -> usize {
        self.rows * self.width
    }

    /// Those of a new matrix of so many rows of so many elements, of the same type.
    pub(super) fn matrix(&self, shape: [usize; 2]) -> Rows<R> {
        let CubeTensor { client, device, dtype, .. } = &self.tensor;
        Rows::of(empty_device_dtype(client.clone(), device.clone(), shape.into(), *dtype))
    }

    /// One unit for each of `elements`.
    pub(super) fn by_element(&self, elements: usize) -> (CubeCount, CubeDim) {
        let dim = CubeDim::new(&self.tensor.client, elements);
        (calculate_cube_count_elemwise(&self.tensor.client, elements, dim), dim)
    }

    /// So many cubes of so many units.
    pub(super) fn by_cube(&self, cubes: usize, units: usize) -> (CubeCount, CubeDim) {
        let count = calculate_cube_count_elemwise(&self.tensor.client, cubes, CubeDim::new_1d(1));
        (count, CubeDim::new_1d(units as u32))
    }

    /// One cube for each row, and the units of it: a power of two.
    pub(super) fn by_row(&self) -> (CubeCount, CubeDim, usize) {
        let units = (self.width / ELEMENTS_A_UNIT).next_power_of_two().clamp(UNITS.0, UNITS.1);
        let (count, dim) = self.by_cube(self.rows, units);
        (count, dim, units)
    }

    pub(super) fn arg(&self) -> TensorArg<R> {
        self.tensor.clone().into_tensor_arg()
    }
}

/// Whole numbers where `like` is.
pub(super) fn u32s<R: CubeRuntime>(like: &CubeTensor<R>, values: &[u32]) -> CubeTensor<R> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
    let (client, shape) = (like.client.clone(), [values.len()].into());
    let handle = client.create_from_slice(&bytes);
    CubeTensor::new_contiguous(client, like.device.clone(), shape, handle, DType::U32)
}

/// The distance of the rows of `tensor`, where it is one.
fn pitch<R: CubeRuntime>(tensor: &CubeTensor<R>) -> Option<usize> {
    let mut dims = tensor.meta.shape().iter().copied().zip(tensor.meta.strides().iter().copied()).rev();
    let (width, step) = dims.next()?;
    // Of the dimensions that are one, the distance says nothing.
    let mut outer = dims.filter(|&(length, _)| length != 1);
    if step != 1 && width != 1 {
        return None;
    }
    let Some((length, pitch)) = outer.next() else { return Some(width) };
    let mut next = length * pitch;
    for (length, stride) in outer {
        if stride != next {
            return None;
        }
        next = length * stride;
    }
    (pitch >= width).then_some(pitch)
}

/// `act(x + bias)`.
pub(super) fn bias_act<R: CubeRuntime>(
    x: CubeTensor<R>,
    bias: Option<CubeTensor<R>>,
    act: Activation,
) -> CubeTensor<R> {
    let x = Rows::of(x);
    let out = x.like(x.width);
    let (count, dim) = x.by_element(x.elements());
    let (client, dtype) = (&x.tensor.client, x.tensor.dtype.into());
    match bias {
        Some(bias) => programs::bias_act::launch(
            client,
            count,
            dim,
            x.arg(),
            Rows::of(bias).arg(),
            out.arg(),
            x.elements(),
            x.width,
            x.pitch,
            out.pitch,
            act,
            dtype,
        ),
        None => programs::act::launch(
            client,
            count,
            dim,
            x.arg(),
            out.arg(),
            x.elements(),
            x.width,
            x.pitch,
            out.pitch,
            act,
            dtype,
        ),
    }
    out.tensor
}

/// `gradient` times the slope of `act` at `x`.
pub(super) fn times_slope<R: CubeRuntime>(
    gradient: CubeTensor<R>,
    x: CubeTensor<R>,
    act: Activation,
) -> CubeTensor<R> {
    let (gradient, x) = (Rows::of(gradient), Rows::of(x));
    let out = x.like(x.width);
    let (count, dim) = x.by_element(x.elements());
    programs::times_slope::launch(
        &x.tensor.client,
        count,
        dim,
        gradient.arg(),
        x.arg(),
        out.arg(),
        x.elements(),
        x.width,
        gradient.pitch,
        x.pitch,
        out.pitch,
        act,
        x.tensor.dtype.into(),
    );
    out.tensor
}

/// `x + bias + residual`.
pub(super) fn bias_residual<R: CubeRuntime>(
    x: CubeTensor<R>,
    bias: CubeTensor<R>,
    residual: CubeTensor<R>,
) -> CubeTensor<R> {
    with_residual(x, bias, residual, false)
}

/// `x * scale + residual`.
pub(super) fn scale_residual<R: CubeRuntime>(
    x: CubeTensor<R>,
    scale: CubeTensor<R>,
    residual: CubeTensor<R>,
) -> CubeTensor<R> {
    with_residual(x, scale, residual, true)
}

fn with_residual<R: CubeRuntime>(
    x: CubeTensor<R>,
    along: CubeTensor<R>,
    residual: CubeTensor<R>,
    scales: bool,
) -> CubeTensor<R> {
    let (x, along, residual) = (Rows::of(x), Rows::of(along), Rows::of(residual));
    let out = x.like(x.width);
    let (count, dim) = x.by_element(x.elements());
    programs::with_residual::launch(
        &x.tensor.client,
        count,
        dim,
        x.arg(),
        along.arg(),
        residual.arg(),
        out.arg(),
        x.elements(),
        x.width,
        x.pitch,
        residual.pitch,
        out.pitch,
        scales,
        x.tensor.dtype.into(),
    );
    out.tensor
}

/// `silu(gate) * value` of rows of both, the gate first.
pub(super) fn swiglu<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    let x = Rows::of(x);
    let out = x.like(x.width / 2);
    let (count, dim) = x.by_element(out.elements());
    programs::swiglu::launch(
        &x.tensor.client,
        count,
        dim,
        x.arg(),
        out.arg(),
        out.elements(),
        out.width,
        x.pitch,
        out.pitch,
        x.tensor.dtype.into(),
    );
    out.tensor
}

/// Layer normalisation of every row.
pub(super) fn norm_rows<R: CubeRuntime>(
    x: CubeTensor<R>,
    gamma: CubeTensor<R>,
    beta: CubeTensor<R>,
    epsilon: f32,
) -> CubeTensor<R> {
    let (x, gamma, beta) = (Rows::of(x), Rows::of(gamma), Rows::of(beta));
    let out = x.like(x.width);
    let (count, dim, units) = x.by_row();
    programs::norm_rows::launch(
        &x.tensor.client,
        count,
        dim,
        x.arg(),
        gamma.arg(),
        beta.arg(),
        out.arg(),
        x.rows,
        x.width,
        x.pitch,
        out.pitch,
        epsilon,
        units,
        x.tensor.dtype.into(),
    );
    out.tensor
}

/// `softmax(scale * x)` of every row.
pub(super) fn softmax<R: CubeRuntime>(x: CubeTensor<R>, scale: f32) -> CubeTensor<R> {
    let x = Rows::of(x);
    let out = x.like(x.width);
    let (count, dim, units) = x.by_row();
    programs::softmax::launch(
        &x.tensor.client,
        count,
        dim,
        x.arg(),
        out.arg(),
        x.rows,
        x.width,
        x.pitch,
        out.pitch,
        scale,
        units,
        x.tensor.dtype.into(),
    );
    out.tensor
}

/// Every row over its root mean square, times `gamma`.
pub(super) fn rms_rows<R: CubeRuntime>(
    x: CubeTensor<R>,
    gamma: CubeTensor<R>,
    epsilon: f32,
) -> CubeTensor<R> {
    let (x, gamma) = (Rows::of(x), Rows::of(gamma));
    let out = x.like(x.width);
    let (count, dim, units) = x.by_row();
    programs::rms_rows::launch(
        &x.tensor.client,
        count,
        dim,
        x.arg(),
        gamma.arg(),
        out.arg(),
        x.rows,
        x.width,
        x.pitch,
        out.pitch,
        epsilon,
        units,
        x.tensor.dtype.into(),
    );
    out.tensor
}
