//! The gradient of the example pool's models against PyTorch's, and against the loss itself.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a panic is how a test fails; the differences are worth printing

mod pool;

use std::ops::Range;
use std::path::PathBuf;

use soup_core::ErrorKind;
use soup_core::devices::DeviceKind;
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::weights::Weights;
use soup_eval::{Evaluator, Gradient, LossSpec, Prepared};

const NEVER: &dyn Fn() -> bool = &|| false;
/// Every how many elements the golden file has one of the gradient.
const GOLDEN_STRIDE: usize = 37;
const PLAIN: LossSpec = LossSpec { beta: 1.0, label_smoothing: 0.0, scale: 1.0 };

fn golden(name: &str) -> Vec<f64> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gradient.safetensors");
    pool::golden_in(&path, name)
}

/// The first samples of the validation set.
fn samples(count: u64) -> Prepared {
    pool::evaluator_of(1).prepare(&pool::dataset("val"), 0..count).unwrap()
}

/// Schema and parameters of an ingredient, or of the uniform soup.
fn model(name: &str) -> (Schema, Vec<u8>) {
    if name == "uniform" { pool::mean(&pool::names()) } else { pool::parameters(name) }
}

fn differentiate(
    evaluator: &dyn Evaluator,
    (schema, bytes): &(Schema, Vec<u8>),
    prepared: &Prepared,
    range: Range<usize>,
    loss: &LossSpec,
) -> Gradient {
    evaluator.differentiate(schema, bytes, prepared, range, loss, NEVER).unwrap()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// The elements of tensor `index` of a schema of f32 alone.
fn elements(schema: &Schema, index: usize) -> Range<usize> {
    let range = schema.range(index);
    range.start as usize / 4..range.end as usize / 4
}

/// Largest differences from PyTorch's gradient in f64.
#[derive(Clone, Copy, Debug, Default)]
struct Differences {
    /// Of an element, by the root mean square of its tensor's gradient.
    element: f64,
    /// Of a tensor's norm, by itself.
    norm: f64,
    /// Of a tensor's sum, by its norm times the root of its size: the largest that a sum can be.
    sum: f64,
    /// Of the loss and its derivative by beta, by themselves.
    scalar: f64,
}

impl Differences {
    fn of(schema: &Schema, got: &Gradient, case: &str) -> Differences {
        let mut worst = Differences::default();
        let (sample, norms, sums) = (
            golden(&format!("{case}/sample")),
            golden(&format!("{case}/norm")),
            golden(&format!("{case}/sum")),
        );
        assert_eq!(sample.len(), got.values.len().div_ceil(GOLDEN_STRIDE));
        let rms_of_all = norm(norms.iter().copied()) / (got.values.len() as f64).sqrt();
        for index in 0..schema.tensors().len() {
            let range = elements(schema, index);
            let root = (range.len() as f64).sqrt();
            // A key's bias moves no attention: its gradient is 0 but for rounding, which is compared with the others'.
            let scale = (norms[index] / root).max(0.1 * rms_of_all);
            let part = || got.values[range.clone()].iter().map(|&v| f64::from(v));
            worst.norm = worst.norm.max((norm(part()) - norms[index]).abs() / (scale * root));
            worst.sum =
                worst.sum.max((part().sum::<f64>() - sums[index]).abs() / (scale * range.len() as f64));
            for at in range.filter(|at| at.is_multiple_of(GOLDEN_STRIDE)) {
                let difference = (f64::from(got.values[at]) - sample[at / GOLDEN_STRIDE]).abs();
                worst.element = worst.element.max(difference / scale);
            }
        }
        for (got, want) in [got.loss, got.d_beta].iter().zip(golden(&format!("{case}/scalars"))) {
            worst.scalar = worst.scalar.max((got - want).abs() / want.abs());
        }
        worst
    }
}

/// Both compute in f32, in which rounding alone moves a gradient by about 1e-6 of its tensor's norm (PyTorch's own f32
/// differs by 1.5e-6 from its f64). A tensor that is swapped, transposed or scaled wrongly differs by about 1.
#[test]
fn gradients_agree_with_pytorch() {
    pool::DEVICES.iter().for_each(|&device| agree_with_pytorch(device));
}

fn agree_with_pytorch(device: DeviceKind) {
    let evaluator = pool::evaluator_on(device, 32);
    for (case, name, rows, beta, label_smoothing) in [
        ("uniform", "uniform", 64, 1.0, 0.0),
        ("uniform_smoothed", "uniform", 64, 1.3, 0.1),
        ("m10", "m10", 64, 1.0, 0.0),
        ("m10_smoothed", "m10", 64, 1.3, 0.1),
        ("start", "uniform", 250, 1.0, 0.0),
    ] {
        let (prepared, model) = (samples(rows), model(name));
        let spec = LossSpec { beta, label_smoothing, scale: 1.0 / rows as f64 };
        let got = differentiate(evaluator.as_ref(), &model, &prepared, 0..prepared.len(), &spec);
        let worst = Differences::of(&model.0, &got, case);
        let Differences { element, norm, sum, scalar } = worst;
        println!(
            "{device}, {case}: element {element:.1e}, norm {norm:.1e}, sum {sum:.1e}, scalar {scalar:.1e}"
        );
        assert!(element < 1e-4 && norm < 1e-5 && sum < 1e-5 && scalar < 1e-5, "{device}, {case}: {worst:?}");
    }
}

/// The derivative by an ingredient's weight is the product of the gradient with it, which is all that learning needs.
#[test]
fn a_learned_soup_begins_as_pytorch_begins_it() {
    let model = model("uniform");
    let prepared = samples(250);
    let spec = LossSpec { scale: 1.0 / 250.0, ..PLAIN };
    let got = differentiate(pool::evaluator_of(32).as_ref(), &model, &prepared, 0..250, &spec);
    let want = golden("start/alpha");
    let mut worst = 0f64;
    for (name, want) in pool::names().iter().zip(want) {
        let product = dot(&got.values, &pool::values_of(&pool::parameters(name).1));
        worst = worst.max((product - want).abs() / want.abs());
    }
    println!("derivatives by the ingredients' weights: largest relative difference {worst:.1e}");
    assert!(worst < 1e-4, "{worst}");
    let reference = pool::json("reference.json");
    let loss = reference["soups"]["learned_softmax"]["first_loss"].as_f64().unwrap();
    assert!((got.loss - loss).abs() < 1e-6, "{} for {loss}", got.loss);
}

/// Moves the parameters along a direction: the loss follows the gradient.
#[test]
fn the_loss_moves_by_the_gradient() {
    let evaluator = pool::evaluator_of(32);
    let (schema, bytes) = model("m10");
    let prepared = samples(40);
    let spec = LossSpec { beta: 1.3, label_smoothing: 0.1, scale: 1.0 / 40.0 };
    let values = pool::values_of(&bytes);
    let at = |values: &[f32], spec: &LossSpec| {
        let model = (schema.clone(), pool::bytes_of(values));
        differentiate(evaluator.as_ref(), &model, &prepared, 0..40, spec)
    };
    let start = at(&values, &spec);
    let mut state = 1u32;
    for round in 0..4 {
        // Each parameter moves by up to a hundredth of its tensor's size, this way or that.
        let mut direction = vec![0.0; values.len()];
        for index in 0..schema.tensors().len() {
            let range = elements(&schema, index);
            let size =
                norm(values[range.clone()].iter().map(|&v| f64::from(v))) / (range.len() as f64).sqrt();
            for d in &mut direction[range] {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *d = (f64::from(state >> 8) / f64::from(1 << 23) - 1.0) * 0.01 * size;
            }
        }
        let moved = |by: f64| -> Vec<f32> {
            values.iter().zip(&direction).map(|(&v, d)| (f64::from(v) + by * d) as f32).collect()
        };
        // Fourth order: what is left is the rounding of the loss, divided by the step.
        let loss = |by: f64| at(&moved(by), &spec).loss;
        let slope = (8.0 * (loss(0.25) - loss(-0.25)) - (loss(0.5) - loss(-0.5))) / 3.0;
        let want: f64 = start.values.iter().zip(&direction).map(|(&g, d)| f64::from(g) * d).sum();
        // How steep a direction of this kind is: the deviation, were every sign drawn anew.
        let typical = norm(start.values.iter().zip(&direction).map(|(&g, d)| f64::from(g) * d));
        let off = (slope - want).abs() / typical;
        println!(
            "direction {round}: slope {slope:.6e}, by the gradient {want:.6e}, {off:.1e} of {typical:.1e}"
        );
        assert!(off < 1e-3, "direction {round}: {slope} for {want}");
    }
    let step = 1e-4;
    let loss = |by: f64| at(&values, &LossSpec { beta: spec.beta + by, ..spec }).loss;
    let slope = (loss(step) - loss(-step)) / (2.0 * step);
    assert!((slope - start.d_beta).abs() < 1e-7, "{slope} for {}", start.d_beta);
}

/// Largest difference of an element, by the root mean square of all.
fn difference(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let rms = norm(want.iter().map(|&v| f64::from(v))) / (want.len() as f64).sqrt();
    got.iter().zip(want).map(|(g, w)| f64::from((g - w).abs())).fold(0.0, f64::max) / rms
}

#[test]
fn where_samples_are_cut_shows_in_the_rounding_only() {
    let model = model("m10");
    let prepared = samples(77);
    let spec = LossSpec { scale: 1.0 / 77.0, ..PLAIN };
    let whole = differentiate(pool::evaluator_of(77).as_ref(), &model, &prepared, 0..77, &spec);
    assert_eq!(whole.total, 77);
    for batch_size in [1, 8, 32, 128] {
        let evaluator = pool::evaluator_of(batch_size);
        let all = differentiate(evaluator.as_ref(), &model, &prepared, 0..77, &spec);
        let again = differentiate(evaluator.as_ref(), &model, &prepared, 0..77, &spec);
        assert_eq!(all, again, "the same call gives the same bits");
        let parts = [0..20, 20..21, 21..77]
            .map(|range| differentiate(evaluator.as_ref(), &model, &prepared, range, &spec));
        let added: Vec<f32> =
            (0..all.values.len()).map(|i| parts.iter().map(|p| p.values[i]).sum()).collect();
        let (cut, split) = (difference(&all.values, &whole.values), difference(&added, &whole.values));
        println!("batch size {batch_size}: {cut:.1e}, in parts {split:.1e}");
        assert!(cut < 1e-4 && split < 1e-4, "batch size {batch_size}: {cut}, {split}");
        for (name, of) in [
            ("loss", (|g: &Gradient| g.loss) as fn(&Gradient) -> f64),
            ("d_beta", |g| g.d_beta),
            ("correct", |g| g.correct as f64),
            ("total", |g| g.total as f64),
        ] {
            let added: f64 = parts.iter().map(of).sum();
            assert!((of(&all) - of(&whole)).abs() < 1e-6 && (added - of(&whole)).abs() < 1e-6, "{name}");
        }
    }
    // What is right is what an evaluation finds right, and so is the loss.
    let evaluator = pool::evaluator_of(32);
    let loaded = evaluator.load(&model.0, Weights::copied_from(&model.0, &model.1).unwrap()).unwrap();
    let logits = loaded.logits(&prepared, 0..77, NEVER).unwrap();
    let outcomes = prepared.outcomes(0..77, &logits).unwrap();
    let right = outcomes.iter().filter(|o| o.prediction == o.label).count();
    assert_eq!(whole.correct, right as u64);
    let loss = outcomes.iter().map(|o| o.loss).sum::<f64>() / 77.0;
    assert!((whole.loss - loss).abs() < 1e-6);
}

#[test]
fn threads_do_not_disturb_each_other() {
    let evaluator = pool::evaluator_of(8);
    let (model, prepared) = (model("m10"), samples(48));
    let of = |thread: usize| {
        let range = thread * 12..(thread + 1) * 12;
        differentiate(evaluator.as_ref(), &model, &prepared, range, &PLAIN)
    };
    let alone: Vec<Gradient> = (0..4).map(of).collect();
    std::thread::scope(|scope| {
        let together: Vec<_> = (0..4).map(|thread| scope.spawn(move || of(thread))).collect();
        for (thread, alone) in together.into_iter().zip(&alone) {
            assert_eq!(&thread.join().unwrap(), alone);
        }
    });
}

#[test]
fn every_dtype_has_its_gradient_and_what_is_not_used_has_none() {
    let evaluator = pool::evaluator_of(8);
    let prepared = samples(8);
    let (schema, bytes) = model("m00");
    let want = differentiate(evaluator.as_ref(), &(schema.clone(), bytes.clone()), &prepared, 0..8, &PLAIN);
    // The classifier in f64 (which comes first), half of the rest in f16, a tensor that nobody uses, and integers.
    let dtype = |index: usize, name: &str| match name {
        "classifier.weight" | "classifier.bias" => Dtype::F64,
        _ if index.is_multiple_of(2) => Dtype::F16,
        _ => Dtype::F32,
    };
    let mut specs: Vec<TensorSpec> = schema
        .tensors()
        .iter()
        .enumerate()
        .map(|(i, t)| TensorSpec::new(&t.name, dtype(i, &t.name), t.shape.clone()))
        .collect();
    specs.push(TensorSpec::new("vit.pooler.dense.bias", Dtype::F32, [64]));
    specs.push(TensorSpec::new("vit.steps", Dtype::I64, [3]));
    let mixed = Schema::new(specs).unwrap();
    let values = pool::values_of(&bytes);
    let mut mixed_bytes = Vec::new();
    let mut expected = Vec::new();
    for tensor in mixed.tensors() {
        let Some(index) = schema.index_of(&tensor.name) else {
            mixed_bytes.resize(mixed_bytes.len() + tensor.bytes().unwrap() as usize, 1);
            expected.resize(expected.len() + tensor.elements().unwrap() as usize, 0.0);
            continue;
        };
        expected.extend(&want.values[elements(&schema, index)]);
        for &v in &values[elements(&schema, index)] {
            match tensor.dtype {
                Dtype::F64 => mixed_bytes.extend(f64::from(v).to_le_bytes()),
                Dtype::F16 => mixed_bytes.extend(half::f16::from_f32(v).to_le_bytes()),
                _ => mixed_bytes.extend(v.to_le_bytes()),
            }
        }
    }
    let got = differentiate(evaluator.as_ref(), &(mixed.clone(), mixed_bytes), &prepared, 0..8, &PLAIN);
    assert_eq!(got.values.len() as u64, mixed.parameters());
    // Half precision moves the parameters by up to 1 in 2048, and the gradient about as much.
    let rms = norm(expected.iter().map(|&v| f64::from(v)));
    let off = norm(got.values.iter().zip(&expected).map(|(g, w)| f64::from(g - w))) / rms;
    assert!((1e-6..0.05).contains(&off), "{off}");
    let mut at = 0;
    for tensor in mixed.tensors() {
        let range = at..at + tensor.elements().unwrap() as usize;
        at = range.end;
        let unused = schema.index_of(&tensor.name).is_none();
        assert!(!unused || got.values[range].iter().all(|&v| v == 0.0), "{} has a gradient", tensor.name);
    }
}

#[test]
fn weights_that_are_not_finite_give_a_gradient_that_is_not() {
    let evaluator = pool::evaluator_of(4);
    let (schema, mut bytes) = model("m00");
    let at = schema.range(schema.index_of("vit.layernorm.weight").unwrap()).start as usize;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let got = differentiate(evaluator.as_ref(), &(schema, bytes), &samples(6), 0..6, &PLAIN);
    assert!(got.loss == f64::INFINITY && got.d_beta.is_nan());
    assert_eq!((got.correct, got.total), (0, 6));
    assert!(got.values.iter().all(|v| !v.is_finite()));
}

#[test]
fn what_cannot_be_differentiated_is_refused() {
    let evaluator = pool::evaluator_of(4);
    let prepared = samples(8);
    let (schema, bytes) = model("m00");
    let asked = std::cell::Cell::new(0);
    let cancel = || {
        asked.set(asked.get() + 1);
        asked.get() == 2
    };
    let run = |bytes: &[u8], prepared: &Prepared, range: Range<usize>, loss: &LossSpec| {
        let result = evaluator.differentiate(&schema, bytes, prepared, range, loss, &cancel);
        result.map_err(|e| (e.kind(), e.chain()))
    };
    assert_eq!(run(&bytes, &prepared, 0..8, &PLAIN).unwrap_err().0, ErrorKind::Cancelled);
    assert_eq!(asked.get(), 2, "asked before every micro-batch");

    let (kind, text) = run(&bytes, &prepared, 3..9, &PLAIN).unwrap_err();
    assert_eq!((kind, text.as_str()), (ErrorKind::Internal, "samples 3..9 of 8 prepared ones"));
    let (kind, _) = run(&bytes[1..], &prepared, 0..8, &PLAIN).unwrap_err();
    assert_eq!(kind, ErrorKind::Internal);
    let (kind, text) = run(&bytes, &prepared, 0..8, &LossSpec { label_smoothing: 1.5, ..PLAIN }).unwrap_err();
    assert_eq!((kind, text.as_str()), (ErrorKind::Usage, "label smoothing 1.5 is out of range: 0 to 1"));
    let strange = Prepared::from_pixels(pool::pixels(&prepared).to_vec(), vec![10; 8]).unwrap();
    let (kind, text) = run(&bytes, &strange, 0..8, &PLAIN).unwrap_err();
    assert_eq!((kind, text.as_str()), (ErrorKind::Data, "label 10 is not one of the model's 10 classes"));
    let wide = Prepared::from_pixels(vec![0.0; 80], vec![0; 8]).unwrap();
    assert_eq!(run(&bytes, &wide, 0..8, &PLAIN).unwrap_err().0, ErrorKind::Data);
    assert_eq!(asked.get(), 2, "refused before anything is computed");

    let nothing = run(&bytes, &prepared, 3..3, &PLAIN).unwrap();
    assert_eq!((nothing.loss, nothing.d_beta, nothing.total), (0.0, 0.0, 0));
    assert_eq!(nothing.values, vec![0.0; schema.parameters() as usize]);
}
