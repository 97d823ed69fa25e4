//! Every kernel, and its gradient, on every device that this build has, against the plain operations on the processor.

use burn::backend::flex::FlexDevice;
use burn::backend::{Autodiff, Flex};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};

use super::flex::tests::noise;
use super::{Activation, Kernels, Norm, plain, tensor, values};
use crate::device::{Differentiable, Precision, Site, With, open};
use crate::parameters::visitor::Layout;
use soup_core::devices::DeviceKind;

/// Where one of them is not there, these tests fail.
const DEVICES: &[DeviceKind] = &[
    DeviceKind::Cpu,
    #[cfg(feature = "vulkan")]
    DeviceKind::Vulkan(0),
    #[cfg(feature = "cuda")]
    DeviceKind::Cuda(0),
];

/// Rows and their lengths.
const ROWS: [[usize; 2]; 6] = [[1, 2], [3, 7], [17, 64], [5, 129], [2, 1030], [70_000, 3]];
/// How far a value may be off, by the largest of its tensor.
const TOLERANCE: f32 = 4e-6;
/// Most values whose sums are compared.
const SUMMED_MAX: usize = 10_000;

type Values = Vec<f32>;

/// A function of tensors that every backend has: leaves of some sizes in, one tensor out.
trait Step {
    fn run<B: Kernels>(&self, leaves: &[Tensor<B, 1>]) -> Tensor<B, 2>;
    /// The same in plain operations.
    fn plain(&self, leaves: &[Tensor<Autodiff<Flex>, 1>]) -> Tensor<Autodiff<Flex>, 2>;
}

/// What comes out on a device, evaluated and differentiated, and the gradients of the leaves of a loss that is a linear map of that.
struct Run<'a, S>(&'a S, &'a [usize]);

struct Ran {
    evaluated: Values,
    out: Values,
    gradients: Vec<Values>,
}

fn leaves<B: Kernels>(sizes: &[usize], device: &B::Device) -> Vec<Tensor<B, 1>> {
    let leaf = |(seed, &size): (usize, &usize)| tensor(host(size, seed), [size], device);
    sizes.iter().enumerate().map(leaf).collect()
}

fn host(size: usize, seed: usize) -> Values {
    noise([size], 2.0, seed as u32).into_data().to_vec().unwrap()
}

fn differentiated<B: AutodiffBackend + Kernels>(
    sizes: &[usize],
    device: &B::Device,
    run: impl Fn(&[Tensor<B, 1>]) -> Tensor<B, 2>,
) -> (Values, Vec<Values>) {
    let leaves: Vec<_> = leaves::<B>(sizes, device).into_iter().map(Tensor::require_grad).collect();
    let out = run(&leaves);
    let [rows, columns] = out.dims();
    let weights = tensor::<B, 2>(host(rows * columns, 99), [rows, columns], device);
    let mut gradients = (out.clone() * weights).sum().backward();
    let of = |leaf: &Tensor<B, 1>| leaf.grad_remove(&mut gradients).unwrap().into_data().to_vec().unwrap();
    (values(out, "values").unwrap(), leaves.iter().map(of).collect())
}

impl<S: Step> With for Run<'_, S> {
    type Out = Ran;

    fn with<B: Differentiable>(self, site: Site<B>) -> Ran {
        let Run(step, sizes) = self;
        let evaluated = B::InnerBackend::on(&site.device, site.precision, || {
            values(step.run(&leaves::<B::InnerBackend>(sizes, &site.device)), "values")
        });
        let (out, gradients) = B::on(&site.device, site.precision, || {
            Ok(differentiated::<B>(sizes, &site.device, |leaves| step.run(leaves)))
        })
        .unwrap();
        Ran { evaluated: evaluated.unwrap(), out, gradients }
    }
}

#[track_caller]
fn check(what: &str, step: &impl Step, sizes: &[usize]) {
    let (out, gradients) = differentiated(sizes, &FlexDevice, |leaves| step.plain(leaves));
    for &device in DEVICES {
        let ran = open(device, Precision::F32, Run(step, sizes)).unwrap();
        close(&format!("{device}: {what}"), &ran.evaluated, &out);
        close(&format!("{device}: {what} in a graph"), &ran.out, &out);
        assert_eq!(ran.gradients.len(), gradients.len());
        // A sum of so many values in f32 is another one in every order.
        if sizes[0] > SUMMED_MAX {
            continue;
        }
        for (leaf, (got, want)) in ran.gradients.iter().zip(&gradients).enumerate() {
            close(&format!("{device}: gradient {leaf} of {what}"), got, want);
        }
    }
}

#[track_caller]
fn close(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(1.0f32, |m, v| m.max(v.abs()));
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= TOLERANCE * largest, "{what}, value {at}: {got} for {want}");
    }
}

/// A step of two functions with one text: over any backend, and plain.
macro_rules! step {
    ($name:ident { $($field:ident: $kind:ty),* }, |$leaves:ident, $self:ident| $of:expr, $plain:expr) => {
        struct $name { $($field: $kind),* }
        impl Step for $name {
            fn run<B: Kernels>(&$self, $leaves: &[Tensor<B, 1>]) -> Tensor<B, 2> {
                $of
            }
            fn plain(&$self, $leaves: &[Tensor<Autodiff<Flex>, 1>]) -> Tensor<Autodiff<Flex>, 2> {
                $plain
            }
        }
    };
}

mod convolution;
mod texts;

fn shaped<B: Kernels>(leaf: &Tensor<B, 1>, shape: [usize; 2]) -> Tensor<B, 2> {
    leaf.clone().reshape(shape)
}

/// A weight as a model has it, beside a leaf.
fn weight_of<B: Kernels>(leaf: &Tensor<B, 1>, [inputs, outputs]: [usize; 2]) -> Tensor<B, 2> {
    B::parameter(host(inputs * outputs, 7), &Layout::Transposed, [inputs, outputs], &leaf.device())
}

/// The same for plain operations.
fn plain_weight([inputs, outputs]: [usize; 2]) -> Tensor<Autodiff<Flex>, 2> {
    tensor(host(inputs * outputs, 7), [outputs, inputs], &FlexDevice).transpose()
}

step!(
    BiasAct { shape: [usize; 2], act: Activation },
    |l, self| B::bias_act(shaped(&l[0], self.shape), Some(&l[1]), self.act),
    plain::bias_act(shaped(&l[0], self.shape), Some(&l[1]), self.act)
);
step!(
    Act { shape: [usize; 2], act: Activation },
    |l, self| B::bias_act(shaped(&l[0], self.shape), None, self.act),
    plain::bias_act(shaped(&l[0], self.shape), None, self.act)
);
step!(
    BiasResidual { shape: [usize; 2] },
    |l, self| B::bias_residual(shaped(&l[0], self.shape), &l[1], &shaped(&l[2], self.shape)),
    plain::bias_residual(shaped(&l[0], self.shape), &l[1], &shaped(&l[2], self.shape))
);
step!(
    ScaleResidual { shape: [usize; 2] },
    |l, self| B::scale_residual(shaped(&l[0], self.shape), &l[1], &shaped(&l[2], self.shape)),
    plain::scale_residual(shaped(&l[0], self.shape), &l[1], &shaped(&l[2], self.shape))
);
step!(
    Gate { shape: [usize; 2] },
    |l, self| B::swiglu(shaped(&l[0], [self.shape[0], 2 * self.shape[1]])),
    plain::swiglu(shaped(&l[0], [self.shape[0], 2 * self.shape[1]]))
);
step!(
    LayerNorm { shape: [usize; 2] },
    |l, self| {
        let norm = Norm { gamma: l[1].clone(), beta: l[2].clone(), epsilon: 0.1 };
        B::norm_rows(&shaped(&l[0], self.shape), &norm)
    },
    {
        let norm = Norm { gamma: l[1].clone(), beta: l[2].clone(), epsilon: 0.1 };
        plain::layer_norm(&shaped(&l[0], self.shape), &norm)
    }
);
step!(
    Softmax { shape: [usize; 2] },
    |l, self| {
        let [rows, width] = self.shape;
        B::softmax_scaled(l[0].clone().reshape([1, 1, rows, width]), 2.5).reshape(self.shape)
    },
    {
        let [rows, width] = self.shape;
        plain::softmax(l[0].clone().reshape([1, 1, rows, width]), 2.5).reshape(self.shape)
    }
);
step!(
    Product { shape: [usize; 3] },
    |l, self| {
        let [rows, inner, columns] = self.shape;
        B::matmul(shaped(&l[0], [rows, inner]), shaped(&l[1], [inner, columns]))
    },
    {
        let [rows, inner, columns] = self.shape;
        shaped(&l[0], [rows, inner]).matmul(shaped(&l[1], [inner, columns]))
    }
);
step!(
    Map { shape: [usize; 3], act: Activation },
    |l, self| {
        let [rows, inputs, outputs] = self.shape;
        let weight = weight_of(&l[0], [inputs, outputs]);
        B::linear_act(shaped(&l[0], [rows, inputs]), (weight, outputs), Some(&l[1]), self.act)
    },
    {
        let [rows, inputs, outputs] = self.shape;
        let product = shaped(&l[0], [rows, inputs]).matmul(plain_weight([inputs, outputs]));
        plain::bias_act(product, Some(&l[1]), self.act)
    }
);
step!(
    MapResidual { shape: [usize; 3] },
    |l, self| {
        let [rows, inputs, outputs] = self.shape;
        let weight = weight_of(&l[0], [inputs, outputs]);
        let (x, residual) = (shaped(&l[0], [rows, inputs]), shaped(&l[1], [rows, outputs]));
        B::linear_residual(x, (weight, outputs), None, &residual)
    },
    {
        let [rows, inputs, outputs] = self.shape;
        let product = shaped(&l[0], [rows, inputs]).matmul(plain_weight([inputs, outputs]));
        product + shaped(&l[1], [rows, outputs])
    }
);
step!(
    Transposed { shape: [usize; 3] },
    |l, self| {
        let [rows, inner, columns] = self.shape;
        B::matmul(shaped(&l[0], [inner, rows]).transpose(), shaped(&l[1], [columns, inner]).transpose())
    },
    {
        let [rows, inner, columns] = self.shape;
        shaped(&l[0], [inner, rows]).transpose().matmul(shaped(&l[1], [columns, inner]).transpose())
    }
);
step!(
    Attention { sizes: [usize; 5] },
    |l, self| {
        let [batch, heads, asked, tokens, width] = self.sizes;
        let query = shaped(&l[0], [batch * asked, heads * width]);
        B::attend(query, shaped(&l[1], [batch * tokens, 2 * heads * width]), [batch, heads])
    },
    {
        let [batch, heads, asked, tokens, width] = self.sizes;
        let query = l[0].clone().reshape([batch, asked, heads, width]).swap_dims(1, 2);
        let both = l[1].clone().reshape([batch, tokens, 2, heads, width]).permute([2, 0, 3, 1, 4]);
        let part = |nth: usize| both.clone().slice(nth..nth + 1).reshape([batch, heads, tokens, width]);
        let scores = query.matmul(part(0).swap_dims(2, 3));
        let context = plain::softmax(scores, 1.0 / (width as f32).sqrt()).matmul(part(1));
        context.swap_dims(1, 2).reshape([batch * asked, heads * width])
    }
);

#[test]
fn steps_between_products() {
    for shape @ [rows, width] in ROWS {
        let (all, name) = (rows * width, format!("{rows} x {width}"));
        for act in Activation::ALL {
            check(&format!("{act:?} with bias, {name}"), &BiasAct { shape, act }, &[all, width]);
            check(&format!("{act:?}, {name}"), &Act { shape, act }, &[all]);
        }
        check(&format!("bias and residual, {name}"), &BiasResidual { shape }, &[all, width, all]);
        check(&format!("scale and residual, {name}"), &ScaleResidual { shape }, &[all, width, all]);
        check(&format!("gate, {name}"), &Gate { shape }, &[2 * all]);
        check(&format!("layer norm, {name}"), &LayerNorm { shape }, &[all, width, width]);
        check(&format!("softmax, {name}"), &Softmax { shape }, &[all]);
    }
}

#[test]
fn products() {
    for shape @ [rows, inner, columns] in
        [[1, 1, 1], [1, 64, 10], [3, 7, 5], [64, 1, 3], [2, 300, 1], [65, 129, 33], [50, 192, 64]]
    {
        let sizes = [rows * inner, inner * columns];
        check(&format!("product of {shape:?}"), &Product { shape }, &sizes);
        check(&format!("product of {shape:?}, transposed"), &Transposed { shape }, &sizes);
    }
}

#[test]
fn linear_maps() {
    for shape @ [rows, inputs, outputs] in
        [[1, 1, 1], [1, 64, 10], [3, 7, 5], [2, 300, 1], [65, 129, 33], [50, 64, 192], [7, 600, 16]]
    {
        for act in [Activation::Linear, Activation::Gelu] {
            let sizes = [rows * inputs, outputs];
            check(&format!("{act:?} of a map of {shape:?}"), &Map { shape, act }, &sizes);
        }
        let sizes = [rows * inputs, rows * outputs];
        check(&format!("map of {shape:?} and residual"), &MapResidual { shape }, &sizes);
    }
}

#[test]
fn attention() {
    for sizes @ [batch, heads, asked, tokens, width] in [
        [1, 1, 1, 1, 1],
        [3, 2, 5, 5, 4],
        [2, 4, 1, 17, 16],
        [1, 3, 50, 50, 16],
        [1, 4, 36, 36, 5],
        [4, 4, 36, 36, 5],
        [4, 4, 1, 36, 5],
    ] {
        let all = [batch * asked * heads * width, 2 * batch * tokens * heads * width];
        check(&format!("attention of {sizes:?}"), &Attention { sizes }, &all);
    }
}

/// A parameter as `layout` says, and views that are not whole rows, beside the host's own.
struct Views;

impl With for Views {
    type Out = (Vec<Values>, Vec<Values>);

    fn with<B: Differentiable>(self, site: Site<B>) -> Self::Out {
        let device = &site.device;
        let stored: Values = (0..15).map(|i| i as f32).collect();
        let done = B::InnerBackend::on(device, site.precision, || {
            let turned = tensor::<B::InnerBackend, 2>(stored.clone(), [3, 5], device).swap_dims(0, 1);
            let weight = B::InnerBackend::parameter(stored, &Layout::Transposed, [5, 3], device);
            let identity = (0..25).map(|i| if i % 6 == 0 { 1.0 } else { 0.0 }).collect();
            let identity = tensor::<B::InnerBackend, 2>(identity, [5, 5], device);
            let parameter = B::InnerBackend::linear_act(identity, (weight, 3), None, Activation::Linear);
            let whole = tensor::<B::InnerBackend, 2>((0..24).map(|i| i as f32).collect(), [4, 6], device);
            let before = whole.clone();
            let some = whole.clone().slice([1..3, 2..5]);
            let out = B::InnerBackend::bias_act(some.clone(), None, Activation::Relu);
            let twice =
                B::InnerBackend::bias_residual(some.clone(), &turned.slice([0..1, 0..3]).reshape([3]), &some);
            let across = B::InnerBackend::bias_act(whole.transpose(), None, Activation::Relu);
            [parameter, out, twice, across, before].into_iter().map(|t| values(t, "values")).collect()
        });
        let f = |values: &[u8]| values.iter().map(|&v| f32::from(v)).collect();
        let want = vec![
            f(&[0, 5, 10, 1, 6, 11, 2, 7, 12, 3, 8, 13, 4, 9, 14]),
            f(&[8, 9, 10, 14, 15, 16]),
            f(&[16, 23, 30, 28, 35, 42]),
            f(&[0, 6, 12, 18, 1, 7, 13, 19, 2, 8, 14, 20, 3, 9, 15, 21, 4, 10, 16, 22, 5, 11, 17, 23]),
            (0..24).map(|i| i as f32).collect(),
        ];
        (done.unwrap(), want)
    }
}

/// Images are cut into patches, and what lies beyond the last whole one is dropped.
struct Patches([usize; 6]);

impl With for Patches {
    type Out = [Values; 5];

    fn with<B: Differentiable>(self, site: Site<B>) -> Self::Out {
        let [batch, rows, columns, side, height, width] = self.0;
        let done = B::InnerBackend::on(&site.device, site.precision, || {
            let images = host(batch * 3 * height * width, 1);
            let images = tensor::<B::InnerBackend, 4>(images, [batch, 3, height, width], &site.device);
            let fused = B::InnerBackend::patches(images.clone(), [rows, columns], [side, side]);
            let whole = B::InnerBackend::crop(images, [rows * side, columns * side]);
            let cut = whole.clone().reshape([batch, 3, rows, side, columns, side]);
            let patches = cut.clone().permute([0, 2, 4, 1, 3, 5]);
            let flat = patches.clone().reshape([batch * rows * columns, 3 * side * side]);
            let flat = values(flat, "v")?;
            let fused = values(fused, "v")?;
            assert!(fused == flat, "{:?}", self.0);
            Ok([values(whole, "v")?, values(cut, "v")?, values(patches, "v")?, flat, fused])
        });
        done.unwrap()
    }
}

#[test]
fn images_are_cut_into_patches() {
    for sizes in [[1, 5, 7, 4, 23, 31], [4, 5, 7, 4, 23, 31], [2, 2, 2, 4, 8, 8], [3, 2, 3, 5, 11, 16]] {
        let want = open(DeviceKind::Cpu, Precision::F32, Patches(sizes)).unwrap();
        for &device in DEVICES {
            let got = open(device, Precision::F32, Patches(sizes)).unwrap();
            for (nth, (got, want)) in got.iter().zip(&want).enumerate() {
                assert!(got == want, "{device}: step {nth} of {sizes:?}");
            }
        }
    }
}

#[test]
fn views_are_read_as_they_lie_and_left_alone() {
    for &device in DEVICES {
        let (got, want) = open(device, Precision::F32, Views).unwrap();
        assert_eq!(got, want, "{device}");
    }
}

/// NaN in one row, that of each step.
struct NotANumber;

impl With for NotANumber {
    type Out = Vec<(String, Values)>;

    fn with<B: Differentiable>(self, site: Site<B>) -> Self::Out {
        let device = &site.device;
        let done = B::InnerBackend::on(device, site.precision, || {
            let x = tensor::<B::InnerBackend, 2>(vec![f32::NAN, 1.0, 1.0, 2.0], [2, 2], device);
            let one = Tensor::from_data(TensorData::new(vec![1.0f32, 1.0], [2]), device);
            let norm = Norm { gamma: one.clone(), beta: one, epsilon: 1e-6 };
            let mut all = vec![
                ("norm".to_owned(), values(B::InnerBackend::norm_rows(&x, &norm), "values")?),
                ("gate".to_owned(), values(B::InnerBackend::swiglu(x.clone()), "values")?),
                (
                    "softmax".to_owned(),
                    values(B::InnerBackend::softmax_scaled(x.clone().reshape([1, 1, 2, 2]), 1.0), "values")?,
                ),
            ];
            for act in Activation::ALL {
                let out = B::InnerBackend::bias_act(x.clone(), None, act);
                all.push((format!("{act:?}"), values(out, "values")?));
            }
            Ok(all)
        });
        done.unwrap()
    }
}

#[test]
fn nan_stays_nan_in_its_row() {
    for &device in DEVICES {
        for (what, out) in open(device, Precision::F32, NotANumber).unwrap() {
            assert!(out[0].is_nan(), "{device}: {what}: {out:?}");
            let rest = &out[out.len() / 2..];
            assert!(rest.iter().all(|v| v.is_finite()), "{device}: {what}: {out:?}");
        }
    }
}
