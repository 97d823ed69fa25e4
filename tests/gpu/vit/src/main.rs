//! Forward pass of ViT-B/16 on burn-cuda, random weights: throughput, and whether two processes give the same bits.
use burn_cubecl::kernel::matmul::init_matmul_output;
use burn_cuda::{Cuda, CudaDevice};
use burn_tensor::backend::Backend;
use burn_tensor::module::attention;
use burn_tensor::{Distribution, Tensor, TensorPrimitive, activation};
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::Strategy;
use cubek::matmul::routines::BlueprintStrategy;
use cubek::std::InputBinding;
use std::time::Instant;

const HIDDEN: usize = 768;
const LAYERS: usize = 12;
const HEADS: usize = 12;
const TOKENS: usize = 197;

/// How matrices are multiplied.
#[derive(Clone, Copy, PartialEq)]
enum Matmul {
    Burn,
    Pinned(usize),
}

fn strategy(index: usize) -> (&'static str, Strategy) {
    match index {
        0 => ("simple_cyclic_cmma", Strategy::SimpleCyclicCmma(Default::default())),
        1 => ("simple_cyclic_mma", Strategy::SimpleCyclicMma(Default::default())),
        2 => ("double_cyclic_cmma", Strategy::DoubleCyclicCmma(Default::default())),
        3 => ("double_cyclic_mma", Strategy::DoubleCyclicMma(Default::default())),
        4 => ("ordered_double_cmma", Strategy::OrderedDoubleCmma(Default::default())),
        5 => ("ordered_double_mma", Strategy::OrderedDoubleMma(Default::default())),
        6 => ("simple_tma_cmma", Strategy::SimpleTmaCmma(Default::default())),
        7 => ("simple_tma_mma", Strategy::SimpleTmaMma(Default::default())),
        8 => ("specialized_tma_cmma", Strategy::SpecializedTmaCmma(BlueprintStrategy::Inferred(().into()))),
        9 => ("specialized_tma_mma", Strategy::SpecializedTmaMma(BlueprintStrategy::Inferred(().into()))),
        10 => ("simple_unit (true f32)", Strategy::SimpleUnit(Default::default())),
        _ => ("double_unit (true f32)", Strategy::DoubleUnit(Default::default())),
    }
}

trait Pinned: Backend {
    fn pinned<const D: usize>(
        a: Tensor<Self, D>,
        b: Tensor<Self, D>,
        index: usize,
    ) -> Result<Tensor<Self, D>, String>;
}
macro_rules! pinned {
    ($t:ty) => {
        impl Pinned for Cuda<$t> {
            fn pinned<const D: usize>(
                a: Tensor<Self, D>,
                b: Tensor<Self, D>,
                index: usize,
            ) -> Result<Tensor<Self, D>, String> {
                let (a, b) = (a.into_primitive().tensor(), b.into_primitive().tensor());
                let out = init_matmul_output(&a, &b, a.dtype);
                let dtype = a.dtype;
                let mut elements = MatmulElems::from_globals(&MatmulGlobalElems {
                    lhs: dtype.into(),
                    rhs: dtype.into(),
                    out: dtype.into(),
                });
                let client = out.client.clone();
                cubek::matmul::launch::launch_ref(
                    &strategy(index).1,
                    &client,
                    InputBinding::new(a.binding(), dtype.into()),
                    InputBinding::new(b.binding(), dtype.into()),
                    out.clone().binding(),
                    &mut elements,
                )
                .map_err(|e| format!("{e:?}"))?;
                Ok(Tensor::from_primitive(TensorPrimitive::Float(out)))
            }
        }
    };
}
pinned!(f32);
pinned!(half::bf16);
pinned!(half::f16);

fn matmul<B: Pinned, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>, how: Matmul) -> Tensor<B, D> {
    match how {
        Matmul::Burn => a.matmul(b),
        Matmul::Pinned(i) => B::pinned(a, b, i).expect("matmul"),
    }
}

struct Linear<B: Backend> {
    w: Tensor<B, 2>,
    b: Tensor<B, 1>,
}
impl<B: Pinned> Linear<B> {
    fn new(i: usize, o: usize, d: &B::Device) -> Self {
        let s = Distribution::Normal(0.0, 0.02);
        Linear { w: Tensor::random([i, o], s, d), b: Tensor::random([o], s, d) }
    }
    fn forward(&self, x: Tensor<B, 2>, how: Matmul) -> Tensor<B, 2> {
        matmul(x, self.w.clone(), how) + self.b.clone().unsqueeze()
    }
}

struct Layer<B: Backend> {
    q: Linear<B>,
    k: Linear<B>,
    v: Linear<B>,
    o: Linear<B>,
    up: Linear<B>,
    down: Linear<B>,
}

fn norm<B: Backend>(x: &Tensor<B, 2>) -> Tensor<B, 2> {
    let c = x.clone() - x.clone().mean_dim(1);
    let v = c.clone().square().mean_dim(1);
    c / (v + 1e-6).sqrt()
}

fn forward<B: Pinned>(
    patch: &Linear<B>,
    layers: &[Layer<B>],
    head: &Linear<B>,
    patches: &Tensor<B, 2>,
    batch: usize,
    how: Matmul,
    flash: bool,
) -> Tensor<B, 2> {
    let d = HIDDEN / HEADS;
    let x = patch.forward(patches.clone(), how).reshape([batch, TOKENS - 1, HIDDEN]);
    let cls = x.clone().slice([0..batch, 0..1]);
    let mut x = Tensor::cat(vec![cls, x], 1).reshape([batch * TOKENS, HIDDEN]);
    for l in layers {
        let n = norm(&x);
        let split = |t: Tensor<B, 2>| t.reshape([batch, TOKENS, HEADS, d]).swap_dims(1, 2);
        let (q, k, v) = (
            split(l.q.forward(n.clone(), how)),
            split(l.k.forward(n.clone(), how)),
            split(l.v.forward(n, how)),
        );
        let c = if flash {
            attention(q, k, v, None, None, Default::default())
        } else {
            let s = activation::softmax(matmul(q, k.swap_dims(2, 3), how) * (d as f32).powf(-0.5), 3);
            matmul(s, v, how)
        };
        let c = c.swap_dims(1, 2).reshape([batch * TOKENS, HIDDEN]);
        x = x + l.o.forward(c, how);
        let n = norm(&x);
        x = x + l.down.forward(activation::gelu(l.up.forward(n, how)), how);
    }
    let cls = x.reshape([batch, TOKENS, HIDDEN]).slice([0..batch, 0..1]).reshape([batch, HIDDEN]);
    head.forward(norm(&cls), how)
}

fn run<B: Pinned<Device = CudaDevice>>(name: &str, batch: usize, modes: &[(Matmul, bool)]) {
    let device = CudaDevice::default();
    B::seed(&device, 42);
    let l = |i, o| Linear::<B>::new(i, o, &device);
    let layers: Vec<Layer<B>> = (0..LAYERS)
        .map(|_| Layer {
            q: l(HIDDEN, HIDDEN),
            k: l(HIDDEN, HIDDEN),
            v: l(HIDDEN, HIDDEN),
            o: l(HIDDEN, HIDDEN),
            up: l(HIDDEN, 4 * HIDDEN),
            down: l(4 * HIDDEN, HIDDEN),
        })
        .collect();
    let (patch, head) = (l(HIDDEN, HIDDEN), l(HIDDEN, 1000));
    let patches =
        Tensor::<B, 2>::random([batch * (TOKENS - 1), HIDDEN], Distribution::Normal(0.0, 1.0), &device);
    for &(how, flash) in modes {
        let label = match how {
            Matmul::Burn => {
                if cfg!(feature = "autotune") {
                    "autotuned"
                } else {
                    "burn default"
                }
            }
            Matmul::Pinned(i) => strategy(i).0,
        };
        let attempt = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let once = || forward(&patch, &layers, &head, &patches, batch, how, flash);
            let t = Instant::now();
            let data = once().into_data();
            let first = t.elapsed().as_secs_f64();
            let digest = data
                .as_bytes()
                .iter()
                .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
            let again = once().into_data();
            let same = data == again;
            B::sync(&device).expect("sync");
            let runs = 5;
            let t = Instant::now();
            let mut last = None;
            for _ in 0..runs {
                last = Some(once());
            }
            B::sync(&device).expect("sync");
            drop(last);
            let s = t.elapsed().as_secs_f64() / f64::from(runs);
            let finite = data.iter::<f32>().all(f32::is_finite);
            println!(
                "vit {name} {label} {}: {:.1} ms = {:.0} images/s ({:.0} TFLOP/s), first {first:.1} s, same twice {same}, finite {finite}, digest {digest:016x}",
                if flash { "attention()" } else { "three steps" },
                s * 1e3,
                batch as f64 / s,
                35.2e9 * batch as f64 / s / 1e12
            );
        }));
        if attempt.is_err() {
            println!("vit {name} {label}: FAILED (panic above)");
        }
    }
}

/// vitbench BATCH DTYPE MODES: modes are burn's own choice (`burn`), that with its `attention` (`flash`), or numbers of strategies.
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let batch: usize = args.get(1).map_or(256, |a| a.parse().expect("batch"));
    let modes: Vec<(Matmul, bool)> = args
        .get(3)
        .map_or("0", String::as_str)
        .split(',')
        .map(|m| match m {
            "burn" => (Matmul::Burn, false),
            "flash" => (Matmul::Burn, true),
            n => (Matmul::Pinned(n.parse().expect("mode")), false),
        })
        .collect();
    match args.get(2).map_or("bf16", String::as_str) {
        "f32" => run::<Cuda<f32>>("f32", batch, &modes),
        "f16" => run::<Cuda<half::f16>>("f16", batch, &modes),
        _ => run::<Cuda<half::bf16>>("bf16", batch, &modes),
    }
}
