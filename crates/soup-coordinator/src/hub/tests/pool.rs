//! What is cooked in scripts: two ingredients of two shards, and a dataset that nobody opens.

use serde_json::json;
use soup_core::agree::Missing;
use soup_core::metric::MetricName;
use soup_core::recipe::{Accept, Order, RecipeKind, RecipeSpec};
use soup_core::run::{DatasetOptions, DatasetSpec, DiagnosisLevel, DiagnosisSpec, Evaluate, RunSpec};
use soup_core::shard::SHARD_BYTES_MIN;
use soup_core::texts::Decoding;
use soup_store::location::Location;
use soup_store::output::Staging;

/// Samples of the dataset, of which four are a batch and so a slice.
pub(super) const SAMPLES: u64 = 12;
pub(super) const CLASSES: u32 = 2;

/// Puts the files into the folder `name` in memory.
pub(super) async fn put(name: &str) {
    let folder = |folder: &str| {
        let place = Location::parse(&format!("memory:///{name}/{folder}")).unwrap();
        Staging::resume(&place, "files", 1).unwrap()
    };
    let pool = folder("pool");
    for ingredient in ["a", "b"] {
        pool.put(&format!("{ingredient}.safetensors"), safetensors().into()).await.unwrap();
    }
    let config = json!({ "model_type": "vit" }).to_string();
    pool.put("config.json", config.into()).await.unwrap();
    pool.put("preprocessor_config.json", json!({ "do_resize": false }).to_string().into()).await.unwrap();
    folder("data").put("validation.parquet", "rows".into()).await.unwrap();
}

fn safetensors() -> Vec<u8> {
    let bytes = 2 * SHARD_BYTES_MIN;
    let tensor = json!({ "dtype": "F32", "shape": [bytes / 4], "data_offsets": [0, bytes] });
    let mut header = json!({ "weight": tensor }).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; bytes as usize]].concat()
}

/// An average without data, written to the folder `output`.
pub(super) fn averages(name: &str, output: &str) -> RunSpec {
    RunSpec {
        pool: vec![format!("memory:///{name}/pool")],
        recipe: RecipeSpec {
            kind: RecipeKind::Uniform,
            order: Order::Sorted,
            accept: Accept::default(),
            alpha: None,
            seed: 0,
            max_ingredients: None,
            passes: 1,
            metric: MetricName::default(),
            learn: None,
        },
        validation: None,
        tests: Vec::new(),
        train: None,
        diagnosis: DiagnosisSpec { level: DiagnosisLevel::None, ..DiagnosisSpec::default() },
        output: format!("memory:///{name}/{output}"),
        overwrite: false,
        batch_size: 4,
        allow_nan: false,
        baselines: false,
        evaluate: Evaluate::Full,
        digest: soup_core::digest::DigestKind::Sha256,
        lookahead: Some(0),
        workers_min: 1,
        model_config: None,
        preprocessor_config: None,
        ignore_config: Vec::new(),
        class_subset: false,
        ingredient_weights: None,
        ranked_by: None,
        missing: Missing::Refuse,
        out_dtype: None,
        judge: None,
        numerics: None,
        batch_norm: None,
        calibration: None,
        audit_ppm: 0,
        decoding: Decoding::Labels,
    }
}

/// A greedy soup, which begins with so many workers.
pub(super) fn greedy(name: &str, output: &str, workers_min: u32) -> RunSpec {
    let plain = averages(name, output);
    RunSpec {
        recipe: RecipeSpec { kind: RecipeKind::Greedy, ..plain.recipe },
        validation: Some(DatasetSpec {
            name: "validation".to_owned(),
            url: format!("memory:///{name}/data/validation.parquet"),
            options: DatasetOptions::default(),
        }),
        workers_min,
        ..plain
    }
}
