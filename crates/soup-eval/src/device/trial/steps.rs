//! The steps that are tried: each of tensors of noise that are made for it alone, its *leaves*.

use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use soup_core::{Error, Result};

use crate::kernels::relative::{Buckets, Pairs, Relative};
use crate::kernels::texts::Spans;
use crate::kernels::windows::{Window, Windows};
use crate::kernels::{Activation, Filters, Finish, Kernels, Norm, tensor, values};
use crate::parameters::visitor::Layout;

/// Rows, inner and columns of products.
const PRODUCTS: [[usize; 3]; 5] = [[1, 1, 1], [1, 64, 10], [3, 7, 5], [65, 129, 33], [50, 192, 64]];
/// Rows and their lengths.
const ROWS: [[usize; 2]; 4] = [[1, 1], [3, 7], [17, 64], [5, 1030]];
/// Batch, heads, tokens that ask, tokens, width of a head.
const ATTENTIONS: [[usize; 5]; 3] = [[1, 1, 1, 1, 1], [3, 2, 5, 5, 4], [2, 4, 1, 17, 16]];

/// Values by what they are.
pub(super) type Named = Vec<(String, Vec<f32>)>;

/// What is taken of a step.
pub(super) trait Take<B: Kernels> {
    /// The leaf `x` as it goes into the step.
    fn leaf<const D: usize>(x: Tensor<B, D>) -> Tensor<B, D>;

    /// What is compared, of the step called `what`.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where it is not there.
    fn take(what: String, leaves: Vec<Leaf<B>>, out: Tensor<B, 2>, to: &mut Named) -> Result<()>;
}

/// The values that come out.
pub(super) struct Values;

impl<B: Kernels> Take<B> for Values {
    fn leaf<const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
        x
    }

    fn take(what: String, _: Vec<Leaf<B>>, out: Tensor<B, 2>, to: &mut Named) -> Result<()> {
        to.push((what, values(out, "values")?));
        Ok(())
    }
}

/// The slopes of a linear map of what comes out, by each leaf.
pub(super) struct Slopes;

impl<B: Kernels + AutodiffBackend> Take<B> for Slopes {
    fn leaf<const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
        x.require_grad()
    }

    fn take(what: String, leaves: Vec<Leaf<B>>, out: Tensor<B, 2>, to: &mut Named) -> Result<()> {
        let ([rows, columns], device) = (out.dims(), out.device());
        let map = tensor::<B, 2>(noise(rows * columns, 99), [rows, columns], &device);
        let mut gradients = (out * map).sum().backward();
        for (nth, leaf) in leaves.into_iter().enumerate() {
            let slopes = match leaf {
                Leaf::Vector(x) => slopes_by(&x, &mut gradients)?,
                Leaf::Matrix(x) => slopes_by(&x, &mut gradients)?,
                Leaf::Matrices(x) => slopes_by(&x, &mut gradients)?,
            };
            to.push((format!("slopes {nth} of {what}"), slopes));
        }
        Ok(())
    }
}

/// The slopes by one leaf.
fn slopes_by<B: AutodiffBackend, const D: usize>(
    x: &Tensor<B, D>,
    gradients: &mut B::Gradients,
) -> Result<Vec<f32>> {
    let slopes = x.grad_remove(gradients).ok_or_else(|| Error::internal("no slopes came back"))?;
    values(slopes, "slopes")
}

/// A tensor that a step is a function of.
pub(super) enum Leaf<B: Kernels> {
    Vector(Tensor<B, 1>),
    Matrix(Tensor<B, 2>),
    Matrices(Tensor<B, 4>),
}

/// Where steps are tried: makes the leaves of one, and takes what comes of it.
struct Bench<'a, B: Kernels, T: Take<B>> {
    device: &'a B::Device,
    leaves: Vec<Leaf<B>>,
    taken: Named,
    take: std::marker::PhantomData<T>,
}

impl<B: Kernels, T: Take<B>> Bench<'_, B, T> {
    fn vector(&mut self, seed: u32, length: usize) -> Tensor<B, 1> {
        let x = T::leaf(tensor(noise(length, seed), [length], self.device));
        self.leaves.push(Leaf::Vector(x.clone()));
        x
    }

    fn matrix(&mut self, seed: u32, [rows, columns]: [usize; 2]) -> Tensor<B, 2> {
        self.of(tensor(noise(rows * columns, seed), [rows, columns], self.device))
    }

    fn matrices(&mut self, seed: u32, shape: [usize; 4]) -> Tensor<B, 4> {
        let x = T::leaf(tensor(noise(shape.iter().product(), seed), shape, self.device));
        self.leaves.push(Leaf::Matrices(x.clone()));
        x
    }

    /// A parameter, which lies as the backend likes it; slopes by it do not.
    fn weight(&mut self, seed: u32, layout: &Layout, [rows, columns]: [usize; 2]) -> Tensor<B, 2> {
        self.of(B::parameter(noise(rows * columns, seed), layout, [rows, columns], self.device))
    }

    fn of(&mut self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let x = T::leaf(x);
        self.leaves.push(Leaf::Matrix(x.clone()));
        x
    }

    fn add(&mut self, what: impl Into<String>, out: Tensor<B, 2>) -> Result<()> {
        T::take(what.into(), std::mem::take(&mut self.leaves), out, &mut self.taken)
    }
}

/// What a backend makes of the same numbers: each step by its name.
pub(super) fn steps<B: Kernels, T: Take<B>>(device: &B::Device) -> Result<Named> {
    let mut bench =
        Bench::<B, T> { device, leaves: Vec::new(), taken: Vec::new(), take: std::marker::PhantomData };
    products(&mut bench)?;
    rows(&mut bench)?;
    for [batch, heads, asked, tokens, width] in ATTENTIONS {
        let hidden = heads * width;
        let query = bench.matrix(1, [batch * asked, hidden]);
        let both = bench.matrix(2, [batch * tokens, 2 * hidden]);
        bench.add(format!("attention of {tokens} tokens"), B::attend(query, both, [batch, heads]))?;
    }
    texts(&mut bench)?;
    images(&mut bench)?;
    patches(&mut bench)?;
    Ok(bench.taken)
}

/// Attention within texts and by pairs, with what is done with texts besides.
fn texts<B: Kernels, T: Take<B>>(bench: &mut Bench<'_, B, T>) -> Result<()> {
    let (texts, heads, width) = (Spans::new([5, 1, 70]), 3, 12);
    let rows = texts.rows();
    let asked =
        |bench: &mut Bench<'_, B, T>| (bench.matrix(13, [rows, width]), bench.matrix(14, [rows, 2 * width]));
    let (query, both) = asked(bench);
    bench.add("attention within texts", B::attend_texts(query, both, &texts, heads))?;
    let (query, both) = asked(bench);
    let buckets = Buckets { count: 8, farthest: 20, causal: true };
    let relative = Relative { table: bench.matrix(15, [8, heads]), buckets };
    let pairs = Pairs::within(texts.clone());
    let by_place = B::attend_pairs(query, both, (&pairs, heads), Some(&relative));
    bench.add("attention by relative position", by_place)?;
    let (few, both) = (bench.matrix(16, [6, width]), bench.matrix(14, [rows, 2 * width]));
    let pairs = Pairs::new(Spans::new([1, 2, 3]), texts.clone());
    bench.add("attention of others", B::attend_pairs(few, both, (&pairs, heads), None))?;
    let query = bench.matrix(13, [rows, width]);
    bench.add("first tokens", B::first_of_each(query, &texts))?;
    let (query, gamma) = (bench.matrix(13, [rows, width]), bench.vector(17, width));
    bench.add("root mean square", B::rms_rows(&query, &gamma, 1e-6))?;
    let at: Vec<u32> = (0..rows).map(|row| (row % 24) as u32).collect();
    let both = bench.matrix(14, [rows, 2 * width]);
    let at = at.into();
    let likely = B::log_likelihoods(both.clone(), &at);
    // Where slopes are taken, they are those of the first one.
    bench.add("likelihoods", likely + B::most_probable(both, &at))
}

/// Patches of images, and tokens of patches. No gradient is wanted of images: the slopes are those of what is added.
fn patches<B: Kernels, T: Take<B>>(bench: &mut Bench<'_, B, T>) -> Result<()> {
    let device = bench.device;
    // Lines with more than whole patches, of a length that some devices fill up where it lies in memory.
    let (batch, rows, columns, side, height, width) = (3, 4, 2, 4, 16, 11);
    let images = noise(batch * 3 * height * width, 26);
    let images = tensor::<B, 4>(images, [batch, 3, height, width], device);
    let along = bench.matrix(27, [batch * rows * columns, 3 * side * side]);
    bench.add("patches", B::patches(images, [rows, columns], [side, side]) + along)?;
    let (count, hidden) = (rows * columns, 36);
    let patches = bench.matrix(28, [batch * count, hidden]);
    let whole = tensor::<B, 3>(noise(hidden, 29), [1, 1, hidden], device);
    let positions = tensor::<B, 3>(noise((count + 1) * hidden, 30), [1, count + 1, hidden], device);
    let tokens = B::tokens(vec![whole], patches, positions);
    bench.add("tokens", tokens.reshape([batch * (count + 1), hidden]))
}

/// Convolutions, and what comes after them.
fn images<B: Kernels, T: Take<B>>(bench: &mut Bench<'_, B, T>) -> Result<()> {
    let (channels, outputs) = (6, 5);
    let window = Window { size: [3, 2], stride: 2, padding: [[1, 1], [-1, 2]] };
    let windows = Windows::new(window, 2, [7, 6]);
    let image = |bench: &mut Bench<'_, B, T>| bench.matrix(18, [84, channels]);
    let inputs = windows.pixels() * channels;
    let (x, dense) = (image(bench), bench.weight(19, &Layout::Filters { channels }, [inputs, outputs]));
    let out = B::convolve(x, Filters::Dense(dense, outputs), &windows);
    let sizes = out.dims();
    bench.add("convolution", out)?;
    let each = &Layout::PerChannel;
    let (x, each) = (image(bench), bench.weight(20, each, [windows.pixels(), channels]));
    bench.add("convolution of each channel", B::convolve(x, Filters::PerChannel(each), &windows))?;
    let x = image(bench);
    bench.add("largest values", B::largest(x, &windows))?;
    let x = image(bench);
    bench.add("means of images", B::mean(x, 2))?;
    let (x, factors) = (image(bench), bench.matrix(23, [2, channels]));
    bench.add("scaled images", B::scale_images(x, factors))?;
    for with_residual in [false, true] {
        let (out, scale, shift) =
            (bench.matrix(24, sizes), bench.vector(21, outputs), bench.vector(22, outputs));
        let residual = with_residual.then(|| bench.matrix(25, sizes));
        let finish = Finish { scale, shift, residual: residual.as_ref(), act: Activation::Relu };
        bench.add("what follows it", B::finish(out, finish))?;
    }
    Ok(())
}

fn products<B: Kernels, T: Take<B>>(bench: &mut Bench<'_, B, T>) -> Result<()> {
    for [rows, inner, columns] in PRODUCTS {
        let shape = format!("{rows} x {inner} and {inner} x {columns}");
        let (left, right) =
            (bench.matrix(3, [rows, inner]), bench.weight(4, &Layout::EndToEnd, [inner, columns]));
        bench.add(format!("product of {shape}, as it is"), B::matmul(left, right))?;
        // A weight lies as the backend likes it, and goes into its linear maps alone.
        let weight = bench.weight(4, &Layout::Transposed, [inner, columns]);
        let left = bench.matrix(3, [rows, inner]);
        let mapped = B::linear_act(left, (weight, columns), None, Activation::Linear);
        bench.add(format!("product of {shape}, transposed"), mapped)?;
        let left = bench.matrices(5, [2, rows, 3, inner]).swap_dims(1, 2);
        let right = bench.matrices(6, [2, columns, 3, inner]).permute([0, 2, 3, 1]);
        let out = B::matmul(left, right).reshape([6 * rows, columns]);
        bench.add(format!("6 products of {shape}"), out)?;
    }
    Ok(())
}

fn rows<B: Kernels, T: Take<B>>(bench: &mut Bench<'_, B, T>) -> Result<()> {
    for sizes @ [rows, width] in ROWS {
        let of = |what: &str| format!("{what} of {rows} x {width}");
        // The identity is what all else is tried without.
        for act in Activation::ALL.into_iter().filter(|act| *act != Activation::Linear) {
            let (x, along) = (bench.matrix(7, sizes), bench.vector(8, width));
            bench.add(of("bias and activation"), B::bias_act(x, Some(&along), act))?;
            let x = bench.matrix(7, sizes);
            bench.add(of("activation"), B::bias_act(x, None, act))?;
        }
        let leaves = |bench: &mut Bench<'_, B, T>| {
            (bench.matrix(7, sizes), bench.vector(8, width), bench.matrix(9, sizes))
        };
        let (x, along, residual) = leaves(bench);
        bench.add(of("bias and residual"), B::bias_residual(x, &along, &residual))?;
        let (x, along, residual) = leaves(bench);
        bench.add(of("scale and residual"), B::scale_residual(x, &along, &residual))?;
        let x = bench.matrix(10, [rows, 2 * width]);
        bench.add(of("gate"), B::swiglu(x))?;
        if width > 1 {
            let x = bench.matrix(7, sizes);
            let norm = Norm { gamma: bench.vector(11, width), beta: bench.vector(12, width), epsilon: 1e-6 };
            bench.add(of("layer norm"), B::norm_rows(&x, &norm))?;
        }
        let x = bench.matrices(7, [1, 1, rows, width]);
        bench.add(of("softmax"), B::softmax_scaled(x, 2.5).reshape([rows, width]))?;
    }
    Ok(())
}

/// Reproducible values between -2 and 2, of all of f32's bits: rougher factors show.
pub(super) fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    std::iter::repeat_with(next).take(count).collect()
}
