//! The example pool: its checkpoints, data and references.
#![allow(dead_code)] // each test file uses a part

use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::SafeTensors;
use soup_core::devices::DeviceKind;
use soup_core::run::DatasetOptions;
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::weights::Weights;
use soup_eval::{Dataset, Evaluator, EvaluatorSpec, Inputs, LocalFiles, Model, Prepared, evaluator};

/// The devices that this build has; where one of them is not there, its tests fail.
pub(crate) const DEVICES: &[DeviceKind] = &[
    DeviceKind::Cpu,
    #[cfg(feature = "vulkan")]
    DeviceKind::Vulkan(0),
    #[cfg(feature = "cuda")]
    DeviceKind::Cuda(0),
];

/// Names of the ingredients, in pool order.
pub(crate) fn names() -> Vec<String> {
    (0..16).map(|i| format!("m{i:02}")).collect()
}

/// A path inside the pool.
pub(crate) fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/pools/vit-fashion").join(relative)
}

pub(crate) fn text(relative: &str) -> String {
    std::fs::read_to_string(path(relative)).unwrap()
}

pub(crate) fn json(relative: &str) -> serde_json::Value {
    serde_json::from_str(&text(relative)).unwrap()
}

pub(crate) fn evaluator_of(batch_size: u32) -> Box<dyn Evaluator> {
    evaluator_on(DeviceKind::Cpu, batch_size)
}

pub(crate) fn evaluator_on(device: DeviceKind, batch_size: u32) -> Box<dyn Evaluator> {
    let spec = EvaluatorSpec {
        config_json: text("config.json"),
        preprocessor_json: Some(text("preprocessor_config.json")),
        batch_size,
        device,
        device_samples_bytes: 1 << 30,
        ..EvaluatorSpec::default()
    };
    evaluator(&spec).unwrap()
}

pub(crate) fn dataset(name: &str) -> Dataset {
    dataset_with(name, &DatasetOptions::default())
}

pub(crate) fn dataset_with(name: &str, options: &DatasetOptions) -> Dataset {
    Dataset::open(Arc::new(LocalFiles::new(path(&format!("data/{name}.parquet")))), options).unwrap()
}

/// Schema and flattened parameters of one ingredient.
pub(crate) fn parameters(name: &str) -> (Schema, Vec<u8>) {
    parameters_in(&path(&format!("ingredients/{name}.safetensors")))
}

/// Schema and flattened parameters of a file.
pub(crate) fn parameters_in(file: &Path) -> (Schema, Vec<u8>) {
    let file = std::fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let specs = tensors.iter().map(|(name, view)| {
        let dtype = match view.dtype() {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::I64 => Dtype::I64,
            other => panic!("{name} is {other:?}"),
        };
        TensorSpec::new(name, dtype, view.shape().iter().map(|&d| d as u64).collect::<Vec<_>>())
    });
    let schema = Schema::new(specs.collect()).unwrap();
    let bytes =
        schema.tensors().iter().flat_map(|t| tensors.tensor(&t.name).unwrap().data().to_vec()).collect();
    (schema, bytes)
}

pub(crate) fn model(evaluator: &dyn Evaluator, name: &str) -> Box<dyn Model> {
    let (schema, bytes) = parameters(name);
    evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap()
}

/// The pixels of prepared images.
pub(crate) fn pixels(prepared: &Prepared) -> &[f32] {
    match prepared.inputs() {
        Inputs::Pixels { values, .. } => values,
        Inputs::Tokens { .. } => panic!("the samples are tokens"),
    }
}

/// The mean of some ingredients: summed in f64 in pool order, divided once, rounded once.
pub(crate) fn mean(members: &[String]) -> (Schema, Vec<u8>) {
    let all: Vec<_> = members.iter().map(|m| parameters(m)).collect();
    let values = |bytes: &[u8]| -> Vec<f64> {
        bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
    };
    let mut sums = vec![0.0; all[0].1.len() / 4];
    for (_, bytes) in &all {
        sums.iter_mut().zip(values(bytes)).for_each(|(s, v)| *s += v);
    }
    let bytes = sums.iter().flat_map(|s| ((s / all.len() as f64) as f32).to_le_bytes()).collect();
    (all[0].0.clone(), bytes)
}

/// Flattened parameters as numbers, and back.
pub(crate) fn values_of(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

pub(crate) fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The values of the golden file's tensor `name`, as f64.
pub(crate) fn golden(name: &str) -> Vec<f64> {
    golden_in(&path("golden.safetensors"), name)
}

/// The values of tensor `name` of a golden file, as f64.
pub(crate) fn golden_in(file: &Path, name: &str) -> Vec<f64> {
    let file = std::fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let view = tensors.tensor(name).unwrap();
    match view.dtype() {
        safetensors::Dtype::F32 => {
            view.data().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
        }
        safetensors::Dtype::F64 => {
            view.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
        }
        safetensors::Dtype::I64 => {
            view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect()
        }
        other => panic!("golden {name} is {other:?}"),
    }
}
