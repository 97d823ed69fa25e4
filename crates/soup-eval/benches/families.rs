//! Samples a second of processor time on one thread, of models and samples that `tests/reference/families_torch.py` has written while it
//! measured PyTorch: `cargo bench -p soup-eval --bench families -- FOLDER...`, also of their gradient with `gradient` before them, or in bf16
//! with `bf16`.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a bench prints, and has nobody to report errors to

#[path = "../tests/pool/mod.rs"]
mod pool;

use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};
use soup_core::weights::Weights;
use soup_eval::{Evaluator, EvaluatorSpec, InputKind, LossSpec, Precision, Prepared, evaluator};

/// Samples in a round, and as many as a forward pass takes.
const SAMPLES: usize = 32;
const ROUNDS: usize = 7;

fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Samples a second at best and in the median.
fn rates(mut work: impl FnMut()) -> (f64, f64) {
    work();
    let mut seconds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = processor_seconds();
            work();
            processor_seconds() - started
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    (SAMPLES as f64 / seconds[0], SAMPLES as f64 / seconds[ROUNDS / 2])
}

/// Samples that the evaluator's models take, of images that are made here, or of texts in files: what they are called, and they.
fn samples(folder: &Path, evaluator: &dyn Evaluator) -> Vec<(String, Prepared)> {
    let labels = vec![0; SAMPLES];
    if evaluator.input() == InputKind::Images {
        let values = (evaluator.sample_bytes() / 4 - 1) as usize * SAMPLES;
        let pixels = (0..values).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
        return vec![(String::new(), Prepared::from_pixels(pixels, labels).unwrap())];
    }
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.to_string_lossy().ends_with(" tokens.json")).collect();
    files.sort();
    let prepared = |file: PathBuf| {
        let texts: Vec<Vec<u32>> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        (format!(", {name}"), Prepared::from_tokens(&texts, labels.clone()).unwrap())
    };
    files.into_iter().map(prepared).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let (gradient, bf16) = (has("gradient"), has("bf16"));
    let precision = if bf16 { Precision::Bf16 } else { Precision::F32 };
    for folder in arguments.iter().filter(|a| !["gradient", "bf16"].contains(&a.as_str())).map(Path::new) {
        let text = |name: &str| std::fs::read_to_string(folder.join(name));
        let spec = EvaluatorSpec {
            config_json: text("config.json").unwrap(),
            preprocessor_json: text("preprocessor_config.json").ok(),
            label_tokens: text("labels.json").map(|l| serde_json::from_str(&l).unwrap()).unwrap_or_default(),
            batch_size: SAMPLES as u32,
            precision,
            ..EvaluatorSpec::default()
        };
        let evaluator = evaluator(&spec).unwrap();
        let (schema, bytes) = pool::parameters_in(&folder.join("model.safetensors"));
        let model = evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
        for (name, prepared) in samples(folder, &*evaluator) {
            let (best, median) = rates(|| drop(model.logits(&prepared, 0..SAMPLES, &|| false).unwrap()));
            println!("{}{name}: {best:.1} samples/s at best, {median:.1} in the median", folder.display());
            if gradient {
                let loss = LossSpec { beta: 1.0, label_smoothing: 0.0, scale: 1.0 };
                let differentiate =
                    || evaluator.differentiate(&schema, &bytes, &prepared, 0..SAMPLES, &loss, &|| false);
                let (best, median) = rates(|| drop(differentiate().unwrap()));
                println!("  its gradient: {best:.1} samples/s at best, {median:.1} in the median");
            }
        }
    }
}
