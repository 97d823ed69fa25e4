//! The trial of a device: every kernel on awkward shapes, against the processor.
//!
//! What is found out here would otherwise show in scores alone: a driver without its compiler that answers with zeros, products that are
//! rougher than they were said to be, a step that is wrong for rows of odd lengths.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use soup_core::{Error, Result};

use super::Precision;
use crate::kernels::relative::{Buckets, Pairs, Relative};
use crate::kernels::texts::Spans;
use crate::kernels::windows::{Window, Windows};
use crate::kernels::{Activation, Filters, Finish, Kernels, Norm, tensor, values};
use crate::parameters::visitor::Layout;
use soup_core::devices::DeviceKind;

/// Rows, inner and columns of products.
const PRODUCTS: [[usize; 3]; 5] = [[1, 1, 1], [1, 64, 10], [3, 7, 5], [65, 129, 33], [50, 192, 64]];
/// Rows and their lengths.
const ROWS: [[usize; 2]; 4] = [[1, 1], [3, 7], [17, 64], [5, 1030]];
/// Batch, heads, tokens that ask, tokens, width of a head.
const ATTENTIONS: [[usize; 5]; 3] = [[1, 1, 1, 1, 1], [3, 2, 5, 5, 4], [2, 4, 1, 17, 16]];

/// How far a value may be off, by the largest of its tensor.
fn tolerance(precision: Precision) -> f32 {
    match precision {
        // A tenth of what TF32 would be off.
        Precision::F32 => 1e-5,
        Precision::Tf32 => 4e-3,
        Precision::Bf16 => 4e-2,
    }
}

/// Tries `device`, once a process and precision.
///
/// # Errors
/// [`Configuration`](soup_core::ErrorKind::Configuration), naming it, where it does not compute what the processor does.
pub(super) fn pass<B: Kernels>(
    device: &B::Device,
    (name, title): (DeviceKind, &str),
    precision: Precision,
) -> Result<()> {
    type Tried = BTreeMap<(DeviceKind, Precision), std::result::Result<(), String>>;
    static TRIED: Mutex<Tried> = Mutex::new(BTreeMap::new());
    let mut tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    let result = tried.entry((name, precision)).or_insert_with(|| attempt::<B>(device, precision));
    let refused = |why: &String| {
        Error::configuration(format!("{name} ({title}) is not fit to judge in {precision}: {why}"))
    };
    result.as_ref().copied().map_err(refused)
}

fn attempt<B: Kernels>(device: &B::Device, precision: Precision) -> std::result::Result<(), String> {
    let want = steps::<Flex>(&FlexDevice).map_err(|e| e.chain())?;
    let got = B::on(device, precision, || steps::<B>(device)).map_err(|e| e.chain())?;
    for ((what, got), (_, want)) in got.iter().zip(&want) {
        compare(got, want, tolerance(precision)).map_err(|why| format!("{what}: {why}"))?;
    }
    Ok(())
}

fn compare(got: &[f32], want: &[f32], tolerance: f32) -> std::result::Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{} values for {}", got.len(), want.len()));
    }
    // Where nothing but zeros is wanted, nothing else will do.
    let largest = want.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    for (got, want) in got.iter().zip(want) {
        let off = (got - want).abs() / largest;
        // NaN is not within anything.
        if off.is_nan() || off > tolerance {
            return Err(format!(
                "{got:e} for {want:e}, which is off by {off:.1e} of the largest, and may be by {tolerance:e}"
            ));
        }
    }
    Ok(())
}

/// What a backend makes of the same numbers: each step by its name.
fn steps<B: Kernels>(device: &B::Device) -> Result<Vec<(String, Vec<f32>)>> {
    let mut all = Vec::new();
    products::<B>(device, &mut all)?;
    rows::<B>(device, &mut all)?;
    for [batch, heads, asked, tokens, width] in ATTENTIONS {
        let hidden = heads * width;
        let query = tensor::<B, 2>(noise(batch * asked * hidden, 1), [batch * asked, hidden], device);
        let both = [batch * tokens, 2 * hidden];
        let both = tensor::<B, 2>(noise(both[0] * both[1], 2), both, device);
        let out = B::attend(query, both, [batch, heads]);
        all.push((format!("attention of {tokens} tokens"), values(out, "values")?));
    }
    texts::<B>(device, &mut all)?;
    images::<B>(device, &mut all)?;
    Ok(all)
}

/// Attention within texts and by pairs, with what is done with texts besides.
fn texts<B: Kernels>(device: &B::Device, all: &mut Vec<(String, Vec<f32>)>) -> Result<()> {
    let (texts, heads, width) = (Spans::new([5, 1, 70]), 3, 12);
    let matrix = |seed, rows, width| tensor::<B, 2>(noise(rows * width, seed), [rows, width], device);
    let rows = texts.rows();
    let (query, both) = (matrix(13, rows, width), matrix(14, rows, 2 * width));
    let mut add = |what: &str, out| -> Result<()> {
        all.push((what.to_owned(), values::<B, 2>(out, "values")?));
        Ok(())
    };
    add("attention within texts", B::attend_texts(query.clone(), both.clone(), &texts, heads))?;
    let buckets = Buckets { count: 8, farthest: 20, causal: true };
    let relative = Relative { table: matrix(15, 8, heads), buckets };
    let pairs = Pairs::within(texts.clone());
    let by_place = B::attend_pairs(query.clone(), both.clone(), (&pairs, heads), Some(&relative));
    add("attention by relative position", by_place)?;
    let few = matrix(16, 6, width);
    let pairs = Pairs::new(Spans::new([1, 2, 3]), texts.clone());
    add("attention of others", B::attend_pairs(few, both.clone(), (&pairs, heads), None))?;
    add("first tokens", B::first_of_each(query.clone(), &texts))?;
    let gamma = tensor::<B, 1>(noise(width, 17), [width], device);
    add("root mean square", B::rms_rows(&query, &gamma, 1e-6))?;
    let at: Vec<u32> = (0..rows).map(|row| (row % 24) as u32).collect();
    add("likelihoods", B::log_likelihoods(both, &at.into()))
}

/// Convolutions, and what comes after them.
fn images<B: Kernels>(device: &B::Device, all: &mut Vec<(String, Vec<f32>)>) -> Result<()> {
    let (channels, outputs) = (6, 5);
    let window = Window { size: [3, 2], stride: 2, padding: [[1, 1], [-1, 2]] };
    let windows = Windows::new(window, 2, [7, 6]);
    let x = tensor::<B, 2>(noise(2 * 42 * channels, 18), [84, channels], device);
    let mut add = |what: &str, out| -> Result<()> {
        all.push((what.to_owned(), values::<B, 2>(out, "values")?));
        Ok(())
    };
    let inputs = windows.pixels() * channels;
    let (dense, each) = (noise(inputs * outputs, 19), noise(inputs, 20));
    let dense = B::parameter(dense, &Layout::Filters { channels }, [inputs, outputs], device);
    let each = B::parameter(each, &Layout::PerChannel, [windows.pixels(), channels], device);
    let out = B::convolve(x.clone(), Filters::Dense(dense, outputs), &windows);
    add("convolution", out.clone())?;
    add("convolution of each channel", B::convolve(x.clone(), Filters::PerChannel(each), &windows))?;
    add("largest values", B::largest(x.clone(), &windows))?;
    add("means of images", B::mean(x.clone(), 2))?;
    let factors = tensor::<B, 2>(noise(2 * channels, 23), [2, channels], device);
    add("scaled images", B::scale_images(x, factors))?;
    let [scale, shift] = [21, 22].map(|seed| tensor::<B, 1>(noise(outputs, seed), [outputs], device));
    for residual in [None, Some(&out)] {
        let (scale, shift, act) = (scale.clone(), shift.clone(), Activation::Relu);
        add("what follows it", B::finish(out.clone(), Finish { scale, shift, residual, act }))?;
    }
    Ok(())
}

fn products<B: Kernels>(device: &B::Device, all: &mut Vec<(String, Vec<f32>)>) -> Result<()> {
    for [rows, inner, columns] in PRODUCTS {
        let left = tensor::<B, 2>(noise(rows * inner, 3), [rows, inner], device);
        let right = noise(inner * columns, 4);
        let weight = B::parameter(right.clone(), &Layout::Transposed, [inner, columns], device);
        let right = B::parameter(right, &Layout::EndToEnd, [inner, columns], device);
        // A weight lies as the backend likes it, and goes into its linear maps alone.
        let mapped = B::linear_act(left.clone(), (weight, columns), None, Activation::Linear);
        for (out, layout) in [(B::matmul(left.clone(), right), "as it is"), (mapped, "transposed")] {
            let what = format!("product of {rows} x {inner} and {inner} x {columns}, {layout}");
            all.push((what, values(out, "values")?));
        }
        let left = tensor::<B, 4>(noise(6 * rows * inner, 5), [2, rows, 3, inner], device).swap_dims(1, 2);
        let right = tensor::<B, 4>(noise(6 * inner * columns, 6), [2, columns, 3, inner], device);
        let out = B::matmul(left, right.permute([0, 2, 3, 1]));
        all.push((format!("6 products of {rows} x {inner} and {inner} x {columns}"), values(out, "values")?));
    }
    Ok(())
}

fn rows<B: Kernels>(device: &B::Device, all: &mut Vec<(String, Vec<f32>)>) -> Result<()> {
    for [rows, width] in ROWS {
        let mut add = |what: &str, out| -> Result<()> {
            all.push((format!("{what} of {rows} x {width}"), values::<B, 2>(out, "values")?));
            Ok(())
        };
        let matrix = |seed, width| tensor::<B, 2>(noise(rows * width, seed), [rows, width], device);
        let vector = |seed| tensor::<B, 1>(noise(width, seed), [width], device);
        let (x, along, residual) = (matrix(7, width), vector(8), matrix(9, width));
        for act in [
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::QuickGelu,
            Activation::Relu,
            Activation::Silu,
            Activation::Tanh,
            Activation::Sigmoid,
        ] {
            add("bias and activation", B::bias_act(x.clone(), Some(&along), act))?;
            add("activation", B::bias_act(x.clone(), None, act))?;
        }
        add("bias and residual", B::bias_residual(x.clone(), &along, &residual))?;
        add("scale and residual", B::scale_residual(x.clone(), &along, &residual))?;
        add("gate", B::swiglu(matrix(10, 2 * width)))?;
        let norm = Norm { gamma: vector(11), beta: vector(12), epsilon: 1e-6 };
        if width > 1 {
            add("layer norm", B::norm_rows(&x, &norm))?;
        }
        let shares = B::softmax_scaled(x.reshape([1, 1, rows, width]), 2.5);
        add("softmax", shares.reshape([rows, width]))?;
    }
    Ok(())
}

/// Reproducible values between -2 and 2, of all of f32's bits: rougher factors show.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The product of factors of which `round` made something.
    fn product(round: impl Fn(f32) -> f32) -> Vec<f32> {
        let factor = |seed, rows, columns| {
            let values: Vec<f32> = noise(rows * columns, seed).into_iter().map(&round).collect();
            tensor::<Flex, 2>(values, [rows, columns], &FlexDevice)
        };
        values(Flex::matmul(factor(3, 50, 192), factor(4, 192, 64)), "values").unwrap()
    }

    #[test]
    fn rough_products_are_no_f32() {
        let exact = product(|v| v);
        let tf32 = product(|v| f32::from_bits(v.to_bits() & !0x1fff));
        let bf16 = product(|v| half::bf16::from_f32(v).to_f32());
        for (got, is) in [(&exact, Precision::F32), (&tf32, Precision::Tf32), (&bf16, Precision::Bf16)] {
            compare(got, &exact, tolerance(is)).unwrap();
            let as_f32 = compare(got, &exact, tolerance(Precision::F32));
            assert_eq!(as_f32.is_ok(), is == Precision::F32, "{is}: {as_f32:?}");
        }
    }

    #[test]
    fn nothing_is_no_result() {
        let want = [1.0, -2.0];
        for got in [&[0.0, 0.0][..], &[1.0], &[1.0, f32::NAN], &[f32::INFINITY, -2.0]] {
            assert!(compare(got, &want, tolerance(Precision::Bf16)).is_err(), "{got:?}");
        }
        assert!(compare(&want, &want, 0.0).is_ok());
        assert!(compare(&[0.0], &[0.0], 0.0).is_ok() && compare(&[1e-9], &[0.0], 1e-2).is_err());
    }

    #[test]
    fn the_processor_passes_its_own_trial() {
        attempt::<Flex>(&FlexDevice, Precision::F32).unwrap();
    }
}
