//! The example pool against transformers: pixels, logits, and counts on the validation set.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a panic is how a test fails; the differences are worth printing

mod pool;

use soup_core::ErrorKind;
use soup_core::devices::DeviceKind;
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::tally::{Counts, Outcome};
use soup_core::weights::Weights;
use soup_eval::{Evaluator, Model, Prepared};

const NEVER: &dyn Fn() -> bool = &|| false;

fn largest_difference(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(&g, w)| (f64::from(g) - w).abs()).fold(0.0, f64::max)
}

/// What `model` makes of the samples `range`.
fn evaluate(
    model: &dyn Model,
    prepared: &Prepared,
    range: std::ops::Range<usize>,
    cancel: &dyn Fn() -> bool,
) -> soup_core::Result<Vec<Outcome>> {
    let logits = model.logits(prepared, range.clone(), cancel)?;
    prepared.outcomes(range, &logits)
}

/// The golden file's rows, prepared by us.
fn golden_rows(evaluator: &dyn Evaluator) -> Prepared {
    evaluator.prepare(&pool::dataset("test"), 0..8).unwrap()
}

#[test]
fn pixels_agree_with_transformers() {
    let prepared = golden_rows(pool::evaluator_of(8).as_ref());
    let difference = largest_difference(pool::pixels(&prepared), &pool::golden("pixel_values"));
    println!("pixel_values: largest difference {difference:.2e}");
    assert!(difference <= 1e-6, "{difference}");
    let labels: Vec<f64> = prepared.labels().iter().map(|&l| f64::from(l)).collect();
    assert_eq!(labels, pool::golden("labels"));
}

/// Largest differences of the logits of a model from transformers' in f32 and in f64.
fn check_logits(model: &dyn Model, prepared: &Prepared, name: &str) -> (f64, f64) {
    let got = model.logits(prepared, 0..8, NEVER).unwrap();
    let f32 = largest_difference(&got, &pool::golden(&format!("logits/{name}")));
    let f64 = largest_difference(&got, &pool::golden(&format!("logits_f64/{name}")));
    assert!(f32 <= 1e-4 && f64 <= 1e-4, "{name}: {f32} from f32, {f64} from f64");
    (f32, f64)
}

#[test]
fn logits_agree_with_transformers() {
    pool::DEVICES.iter().for_each(|&device| agrees_with_transformers(device));
}

fn agrees_with_transformers(device: DeviceKind) {
    let evaluator = pool::evaluator_on(device, 32);
    let prepared = golden_rows(evaluator.as_ref());
    let reference = pool::json("reference.json");
    let (mut worst32, mut worst64) = (0f64, 0f64);
    let mut check = |model: &dyn Model, name: &str| {
        let (f32, f64) = check_logits(model, &prepared, name);
        (worst32, worst64) = (worst32.max(f32), worst64.max(f64));
    };
    for name in pool::names() {
        check(pool::model(evaluator.as_ref(), &name).as_ref(), &name);
    }
    for soup in ["uniform", "greedy", "pruned"] {
        let chosen = reference["soups"][soup]["chosen"].as_array().unwrap();
        let mut members: Vec<String> = chosen.iter().map(|m| m.as_str().unwrap().to_owned()).collect();
        members.sort();
        let (schema, bytes) = pool::mean(&members);
        check(
            evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap().as_ref(),
            &format!("soup_{soup}"),
        );
    }
    println!("{device}: largest difference {worst32:.2e} from f32, {worst64:.2e} from f64");
}

#[test]
fn counts_on_the_validation_set_are_the_references() {
    pool::DEVICES.iter().for_each(|&device| counts_as_the_references(device));
}

fn counts_as_the_references(device: DeviceKind) {
    let evaluator = pool::evaluator_on(device, soup_eval::BATCH_SIZE_DEFAULT);
    let dataset = pool::dataset("val");
    let prepared = evaluator.prepare(&dataset, 0..dataset.len()).unwrap();
    let reference = pool::json("reference.json");
    // A driver in software is slow.
    let every = if device == DeviceKind::Cpu { 1 } else { 10 };
    for name in pool::names().into_iter().step_by(every) {
        let want = &reference["ingredients"][&name]["val"];
        let model = pool::model(evaluator.as_ref(), &name);
        let outcomes = evaluate(model.as_ref(), &prepared, 0..prepared.len(), NEVER).unwrap();
        let score: Counts = outcomes.iter().collect();
        assert_eq!(score.correct, want["correct"].as_u64().unwrap(), "{device}, {name}");
        assert_eq!(score.total, want["n"].as_u64().unwrap(), "{device}, {name}");
        let loss = score.loss_sum / score.total as f64;
        assert!((loss - want["nll"].as_f64().unwrap()).abs() < 1e-6, "{device}, {name}: loss {loss}");
    }
}

/// Bits of an outcome.
fn bits(o: &Outcome) -> (u32, u32, u64) {
    (o.label, o.prediction, o.loss.to_bits())
}

/// `prepared` with its samples in another order.
fn reordered(prepared: &Prepared, order: &[usize]) -> Prepared {
    let stride = pool::pixels(prepared).len() / prepared.len();
    let pixels =
        order.iter().flat_map(|&i| &pool::pixels(prepared)[i * stride..][..stride]).copied().collect();
    Prepared::from_pixels(pixels, order.iter().map(|&i| prepared.labels()[i]).collect()).unwrap()
}

#[test]
fn an_outcome_depends_on_its_sample_alone() {
    let mut of_others = None;
    for batch_size in [1, 7, 32] {
        let evaluator = pool::evaluator_of(batch_size);
        let model = pool::model(evaluator.as_ref(), "m10");
        let prepared = evaluator.prepare(&pool::dataset("test_noisy"), 0..80).unwrap();
        let of = |prepared: &Prepared, range: std::ops::Range<usize>| -> Vec<_> {
            evaluate(model.as_ref(), prepared, range, NEVER).unwrap().iter().map(bits).collect()
        };
        let all = of(&prepared, 0..80);
        assert_eq!(&all, of_others.get_or_insert(all.clone()), "batch size {batch_size}");
        for at in [0, 1, 6, 31, 32, 63, 79] {
            assert_eq!(of(&prepared, at..at + 1), all[at..at + 1], "sample {at} alone");
        }
        for start in 0..40 {
            assert_eq!(of(&prepared, start..start + 40), all[start..start + 40], "from {start}");
        }
        let order: Vec<usize> = (0..80).map(|i| (i * 37 + 11) % 80).collect();
        let want: Vec<_> = order.iter().map(|&i| all[i]).collect();
        assert_eq!(of(&reordered(&prepared, &order), 0..80), want, "other order");
    }
}

#[test]
fn parameters_of_other_dtypes_are_converted() {
    let evaluator = pool::evaluator_of(8);
    let prepared = golden_rows(evaluator.as_ref());
    let (schema, bytes) = pool::parameters("m00");
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let with = |dtype: Dtype, bytes: Vec<u8>| {
        let specs = schema.tensors().iter().map(|t| TensorSpec::new(&t.name, dtype, t.shape.clone()));
        let schema = Schema::new(specs.collect()).unwrap();
        let model = evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
        model.logits(&prepared, 0..8, NEVER).unwrap()
    };
    let exact = with(Dtype::F32, bytes.clone());
    let wide = with(Dtype::F64, values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect());
    assert_eq!(wide, exact);
    let half = with(Dtype::F16, values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect());
    let brain =
        with(Dtype::BF16, values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect());
    let exact: Vec<f64> = exact.into_iter().map(f64::from).collect();
    assert!((1e-6..0.05).contains(&largest_difference(&half, &exact)));
    assert!((1e-6..0.5).contains(&largest_difference(&brain, &exact)));
}

#[test]
fn weights_that_are_not_finite_make_every_sample_wrong() {
    let evaluator = pool::evaluator_of(8);
    let prepared = golden_rows(evaluator.as_ref());
    let (schema, mut bytes) = pool::parameters("m00");
    let at = schema.range(schema.index_of("vit.layernorm.weight").unwrap()).start as usize;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let model = evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
    for outcome in evaluate(model.as_ref(), &prepared, 0..8, NEVER).unwrap() {
        assert_ne!(outcome.prediction, outcome.label);
        assert_eq!(outcome.loss, f64::INFINITY);
    }
}

#[test]
fn a_cancelled_evaluation_stops() {
    let evaluator = pool::evaluator_of(4);
    let prepared = golden_rows(evaluator.as_ref());
    let model = pool::model(evaluator.as_ref(), "m00");
    let asked = std::cell::Cell::new(0);
    let cancel = || {
        asked.set(asked.get() + 1);
        asked.get() == 2
    };
    let error = evaluate(model.as_ref(), &prepared, 0..8, &cancel).unwrap_err();
    assert_eq!((error.kind(), asked.get()), (ErrorKind::Cancelled, 2));
    assert!(evaluate(model.as_ref(), &prepared, 3..3, &|| true).unwrap().is_empty());
    let error = evaluate(model.as_ref(), &prepared, 3..9, NEVER).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[test]
fn a_pool_of_another_shape_is_refused_by_name() {
    let evaluator = pool::evaluator_of(4);
    let (schema, _) = pool::parameters("m00");
    assert!(evaluator.check_schema(&schema).is_ok());
    let changed = |change: &dyn Fn(&mut Vec<TensorSpec>)| {
        let mut specs = schema.tensors().to_vec();
        change(&mut specs);
        evaluator.check_schema(&Schema::new(specs).unwrap()).map_err(|e| e.chain())
    };
    let extra =
        |specs: &mut Vec<TensorSpec>| specs.push(TensorSpec::new("vit.pooler.dense.bias", Dtype::F32, [64]));
    assert_eq!(changed(&extra), Ok(()));
    let further = |specs: &mut Vec<TensorSpec>| {
        let last = "vit.encoder.layer.5.output.dense.weight";
        let last = specs.iter().find(|t| t.name == last).unwrap().clone();
        specs.push(TensorSpec { name: last.name.replace(".5.", ".6."), ..last });
    };
    assert!(changed(&further).unwrap_err().contains("its num_hidden_layers leaves it out"));
    let missing = |specs: &mut Vec<TensorSpec>| specs.retain(|t| t.name != "classifier.weight");
    assert!(changed(&missing).unwrap_err().contains("tensor \"classifier.weight\" is missing"));
    let reshaped = |specs: &mut Vec<TensorSpec>| {
        specs.iter_mut().find(|t| t.name == "classifier.weight").unwrap().shape = vec![11, 64];
    };
    assert_eq!(
        changed(&reshaped).unwrap_err(),
        "tensor \"classifier.weight\" has shape [11, 64], expected [10, 64] by config.json"
    );
}
