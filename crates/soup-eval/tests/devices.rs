//! What holds on every device that this build has: the same bits from every call, thread and process, whatever is kept there.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a panic is how a test fails; one test prints for another

mod pool;

use std::process::Command;

use sha2::{Digest, Sha256};
use soup_core::devices::DeviceKind;
use soup_core::judge::JudgeId;
use soup_core::weights::Weights;
use soup_eval::{Evaluator, EvaluatorSpec, LossSpec, Precision, Prepared, evaluator, numerics};

const NEVER: &dyn Fn() -> bool = &|| false;

/// Half-full batches too.
const SAMPLES: u64 = 20;
const BATCH_SIZE: u32 = 8;

fn samples(evaluator: &dyn Evaluator) -> Prepared {
    evaluator.prepare(&pool::dataset("val"), 0..SAMPLES).unwrap()
}

/// An evaluator that may keep `kept` bytes of samples on the device.
fn evaluator_that_keeps(device: DeviceKind, kept: u64) -> Box<dyn Evaluator> {
    let spec = EvaluatorSpec {
        config_json: pool::text("config.json"),
        preprocessor_json: Some(pool::text("preprocessor_config.json")),
        batch_size: BATCH_SIZE,
        device,
        device_samples_bytes: kept,
        ..EvaluatorSpec::default()
    };
    evaluator(&spec).unwrap()
}

/// Of all bits of a model's logits and of its gradient.
fn digest(device: DeviceKind) -> String {
    let evaluator = evaluator_that_keeps(device, 1 << 30);
    let (prepared, (schema, bytes)) = (samples(evaluator.as_ref()), pool::parameters("m10"));
    let model = pool::model(evaluator.as_ref(), "m10");
    let mut hash = Sha256::new();
    for logit in model.logits(&prepared, 0..prepared.len(), NEVER).unwrap() {
        hash.update(logit.to_bits().to_le_bytes());
    }
    let loss = LossSpec { beta: 1.3, label_smoothing: 0.1, scale: 0.05 };
    let all = 0..prepared.len();
    let gradient = evaluator.differentiate(&schema, &bytes, &prepared, all, &loss, NEVER).unwrap();
    for value in gradient.values {
        hash.update(value.to_bits().to_le_bytes());
    }
    hash.update(gradient.loss.to_bits().to_le_bytes());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_call_and_process_gives_the_same_bits() {
    let own: Vec<String> = pool::DEVICES.iter().map(|&device| digest(device)).collect();
    for (&device, own) in pool::DEVICES.iter().zip(&own) {
        assert_eq!(&digest(device), own, "{device} twice");
    }
    let other = Command::new(std::env::current_exe().unwrap())
        .args(["digests_of_another_process", "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8(other.stdout).unwrap();
    for (device, own) in pool::DEVICES.iter().zip(own) {
        assert!(
            said.contains(&format!("{device} gives {own}")),
            "{device} gives {own}, another process: {said}"
        );
    }
}

#[test]
#[ignore = "another test runs it, in a process of its own"]
fn digests_of_another_process() {
    for &device in pool::DEVICES {
        println!("{device} gives {}", digest(device));
    }
}

#[test]
fn threads_do_not_disturb_each_other() {
    for &device in pool::DEVICES {
        let evaluator = evaluator_that_keeps(device, 1 << 20);
        let prepared = samples(evaluator.as_ref());
        let models = ["m00", "m10"].map(|name| pool::model(evaluator.as_ref(), name));
        let of = |thread: usize| {
            let range = thread * 3..thread * 3 + 11;
            models[thread % 2].logits(&prepared, range, NEVER).unwrap()
        };
        let alone: Vec<_> = (0..4).map(of).collect();
        std::thread::scope(|scope| {
            let of = &of;
            let together: Vec<_> = (0..4).map(|thread| scope.spawn(move || of(thread))).collect();
            for (thread, alone) in together.into_iter().zip(&alone) {
                assert_eq!(&thread.join().unwrap(), alone, "{device}");
            }
        });
    }
}

#[test]
fn what_a_device_keeps_changes_nothing() {
    for &device in pool::DEVICES {
        let mut logits = Vec::new();
        // None, a batch of three, all of them.
        for kept in [0, 30_000, 1 << 30] {
            let evaluator = evaluator_that_keeps(device, kept);
            let prepared = samples(evaluator.as_ref());
            for name in ["m00", "m10", "m00"] {
                let model = pool::model(evaluator.as_ref(), name);
                logits.push((name, model.logits(&prepared, 0..prepared.len(), NEVER).unwrap()));
            }
        }
        for (name, got) in &logits {
            let (_, want) = logits.iter().find(|(other, _)| other == name).unwrap();
            assert_eq!(got, want, "{device}");
        }
    }
}

/// All dtypes of a checkpoint become f32 on a device as they do on the processor.
#[test]
fn models_of_every_dtype_are_loaded() {
    use soup_core::schema::{Dtype, Schema, TensorSpec};
    let (schema, bytes) = pool::parameters("m10");
    let values = pool::values_of(&bytes);
    for &device in pool::DEVICES {
        let evaluator = evaluator_that_keeps(device, 0);
        let prepared = samples(evaluator.as_ref());
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F64] {
            let rounded = |v: f32| match dtype {
                Dtype::F16 => half::f16::from_f32(v).to_f32(),
                Dtype::BF16 => half::bf16::from_f32(v).to_f32(),
                _ => v,
            };
            let stored = |v: f32| match dtype {
                Dtype::F16 => half::f16::from_f32(v).to_le_bytes().to_vec(),
                Dtype::BF16 => half::bf16::from_f32(v).to_le_bytes().to_vec(),
                _ => f64::from(v).to_le_bytes().to_vec(),
            };
            let specs = schema.tensors().iter().map(|t| TensorSpec::new(&t.name, dtype, t.shape.clone()));
            let other = Schema::new(specs.collect()).unwrap();
            let logits = |schema: &Schema, bytes: Vec<u8>| {
                let weights = Weights::copied_from(schema, &bytes).unwrap();
                evaluator.load(schema, weights).unwrap().logits(&prepared, 0..5, NEVER).unwrap()
            };
            let want =
                logits(&schema, pool::bytes_of(&values.iter().map(|&v| rounded(v)).collect::<Vec<_>>()));
            // All tensors are of one width, so both schemas have them in one order.
            assert_eq!(
                logits(&other, values.iter().flat_map(|&v| stored(v)).collect()),
                want,
                "{device}, {dtype}"
            );
        }
    }
}

#[test]
fn evaluators_say_their_class_of_numerics() {
    for &device in pool::DEVICES {
        let class = numerics(device, Precision::F32).unwrap();
        assert_eq!(evaluator_that_keeps(device, 0).numerics(), class);
        assert_eq!(class == JudgeId::native().numerics, device == DeviceKind::Cpu, "{class}");
        assert!(!class.contains(|c: char| c.is_whitespace() || c.is_ascii_uppercase()), "{class}");
        println!("{device} is {class}");
    }
}

/// Near f32 and not the same; as f32, a sample's bits are the same whatever is beside it; there is no gradient.
#[test]
fn the_processor_computes_in_bf16_too() {
    let in_precision = |precision, batch_size| {
        let spec = EvaluatorSpec {
            config_json: pool::text("config.json"),
            preprocessor_json: Some(pool::text("preprocessor_config.json")),
            batch_size,
            precision,
            ..EvaluatorSpec::default()
        };
        evaluator(&spec).unwrap()
    };
    let logits = |evaluator: &dyn Evaluator| {
        let prepared = samples(evaluator);
        pool::model(evaluator, "m10").logits(&prepared, 0..prepared.len(), NEVER).unwrap()
    };
    let (whole, half) = (in_precision(Precision::F32, 8), in_precision(Precision::Bf16, 8));
    assert_eq!(half.numerics(), "flex-bf16");
    let (want, got) = (logits(&*whole), logits(&*half));
    assert_eq!(got, logits(&*in_precision(Precision::Bf16, 3)));
    // bf16 has eight bits; errors of many products are of either sign. Seen: 0.5 % of the largest logit.
    let largest = want.iter().fold(0.0f32, |largest, logit| largest.max(logit.abs()));
    let error = want.iter().zip(&got).fold(0.0f32, |most, (want, got)| most.max((want - got).abs()));
    println!("of {largest}, {error}");
    assert!(error > 1e-5 * largest && error < 0.02 * largest, "{error} of {largest}");
    let (prepared, (schema, bytes)) = (samples(&*half), pool::parameters("m10"));
    let loss = LossSpec { beta: 1.0, label_smoothing: 0.0, scale: 1.0 };
    assert!(whole.has_gradients() && !half.has_gradients());
    let refused = half.differentiate(&schema, &bytes, &prepared, 0..2, &loss, NEVER).err().unwrap();
    assert_eq!(refused.chain(), "cpu has gradients in f32 alone, not in bf16");
}

#[test]
fn logits_that_are_not_finite_come_out_as_they_are() {
    for &device in pool::DEVICES {
        let evaluator = evaluator_that_keeps(device, 0);
        let (prepared, (schema, mut bytes)) = (samples(evaluator.as_ref()), pool::parameters("m00"));
        let at = schema.range(schema.index_of("vit.layernorm.weight").unwrap()).start as usize;
        bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        let model = evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
        let logits = model.logits(&prepared, 0..3, NEVER).unwrap();
        assert!(logits.iter().all(|logit| logit.is_nan()), "{device}: {logits:?}");
    }
}
