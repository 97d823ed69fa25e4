//! What is cooked in a simulation: a tiny pool and tiny datasets, in the real formats, in memory.

use std::collections::BTreeMap;
use std::io::Cursor;

use image::{GrayImage, ImageFormat};
use serde_json::{Value, json};
use soup_core::agree::Missing;
use soup_core::batch_norm::BatchNorm;
use soup_core::metric::MetricName;
use soup_core::recipe::learned::{Granularity, Init, LearnSpec};
use soup_core::recipe::{Accept, Order, RecipeKind, RecipeSpec};
use soup_core::run::{DatasetOptions, DatasetSpec, DiagnosisSpec, Evaluate, RunSpec};
use soup_core::texts::Decoding;

use crate::random::Random;

/// Classes of the datasets and the models.
const CLASSES: usize = 3;
/// Width and height of images.
const SIZE: u32 = 8;
const HIDDEN: usize = 64;
const INTERMEDIATE: usize = 256;
pub const INGREDIENTS: [&str; 4] = ["a", "b", "c", "d"];
/// Samples of the validation set and of the test set.
pub const SAMPLES: [(&str, u64); 2] = [("validation", 40), ("test", 21)];
/// The name of the judge that is a program of its own.
pub const JUDGE: &str = "lin";
/// The model does not depend on the world's seed, so that every world must cook the same soup.
const SEED: u64 = 11;

/// Places of the state and of the output.
pub const STATE: &str = "memory:///state";
pub const OUTPUT: &str = "memory:///soup";
/// A file of an output that is replaced, which the new one does not have.
pub const LEFT: &str = "old.txt";

/// All files, by their path in the store.
pub fn files() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut put =
        |folder: String, name: String, bytes: Vec<u8>| files.insert(format!("{folder}/{name}"), bytes);
    for (index, name) in INGREDIENTS.iter().enumerate() {
        put("pool".into(), format!("{name}.safetensors"), safetensors(index as u64));
        for (folder, normalises) in [("linear", false), ("normalised", true)] {
            let checkpoint = soup_tests::judge::checkpoint(index as u32, normalises);
            put(folder.into(), format!("{name}.safetensors"), checkpoint);
        }
    }
    put("pool".into(), "config.json".into(), config().to_string().into());
    put("pool".into(), "preprocessor_config.json".into(), preprocessor().to_string().into());
    for (set, (name, samples)) in SAMPLES.into_iter().enumerate() {
        for index in 0..samples {
            let class = index as usize % CLASSES;
            let file = format!("{index:03}.png");
            put(format!("{name}/class{class}"), file, png(&mut Random::new(set as u64, 1000 + index), class));
        }
    }
    files
}

/// The run. The uniform recipe averages without data; all others decide by it.
pub fn spec(kind: RecipeKind, lookahead: Option<u32>) -> RunSpec {
    let dataset = |(name, _): (&str, u64)| DatasetSpec {
        name: name.to_owned(),
        url: format!("memory:///{name}"),
        options: DatasetOptions::default(),
    };
    let learns = kind == RecipeKind::Learned;
    let judges = kind != RecipeKind::Uniform;
    RunSpec {
        pool: vec!["memory:///pool".to_owned()],
        recipe: RecipeSpec {
            kind,
            order: Order::Sorted,
            accept: Accept::default(),
            alpha: None,
            seed: 0,
            max_ingredients: None,
            passes: 1,
            metric: MetricName::default(),
            learn: learns.then(|| LearnSpec {
                granularity: Granularity::Layer,
                lr: 0.1,
                epochs: 2,
                batch_size: 16,
                parts: 2,
                init: Init::Greedy,
                ..LearnSpec::default()
            }),
        },
        validation: judges.then(|| dataset(SAMPLES[0])),
        tests: SAMPLES[1..].iter().filter(|_| judges).copied().map(dataset).collect(),
        train: learns.then(|| DatasetSpec { name: "train".to_owned(), ..dataset(SAMPLES[0]) }),
        diagnosis: DiagnosisSpec::default(),
        output: OUTPUT.to_owned(),
        overwrite: false,
        batch_size: 4,
        allow_nan: false,
        baselines: judges,
        evaluate: Evaluate::Early,
        digest: soup_core::digest::DigestKind::Sha256,
        lookahead,
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

/// The same, of linear models by a judge that is a program of its own. But for the learned recipe, models normalise, and their
/// statistics are recomputed.
pub fn judged(kind: RecipeKind, lookahead: Option<u32>) -> RunSpec {
    let of = spec(kind, lookahead);
    let own = |set: DatasetSpec| DatasetSpec { url: format!("{JUDGE}:points/{}/1", SAMPLES[0].1), ..set };
    let test = |set: DatasetSpec| DatasetSpec { url: format!("{JUDGE}:points/{}/2", SAMPLES[1].1), ..set };
    let recomputes = matches!(kind, RecipeKind::Greedy | RecipeKind::Pruned | RecipeKind::BestSingle);
    let calibration = DatasetSpec {
        name: "calibration".to_owned(),
        url: format!("{JUDGE}:points/40/3"),
        options: Default::default(),
    };
    RunSpec {
        pool: vec![format!("memory:///{}", if recomputes { "normalised" } else { "linear" })],
        batch_norm: recomputes.then_some(BatchNorm::Recompute),
        calibration: recomputes.then_some(calibration),
        validation: of.validation.map(own),
        train: of.train.map(own),
        tests: of.tests.into_iter().map(test).collect(),
        judge: Some(JUDGE.to_owned()),
        ..of
    }
}

/// An output of another run, by path in the store.
pub fn replaced() -> Vec<(String, Vec<u8>)> {
    let manifest = json!({ "report": { "run": "other" } }).to_string();
    vec![("soup/soup.json".to_owned(), manifest.into()), (format!("soup/{LEFT}"), b"old".to_vec())]
}

fn config() -> Value {
    let labels: BTreeMap<String, String> =
        (0..CLASSES).map(|c| (c.to_string(), format!("class{c}"))).collect();
    json!({
        "model_type": "vit", "hidden_act": "gelu", "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_channels": 1, "image_size": SIZE,
        "patch_size": SIZE / 2, "layer_norm_eps": 1e-12, "qkv_bias": true, "id2label": labels,
    })
}

fn preprocessor() -> Value {
    json!({
        "image_processor_type": "ViTImageProcessor", "do_resize": false, "do_rescale": true,
        "rescale_factor": 1.0 / 255.0, "do_normalize": true, "image_mean": [0.5], "image_std": [0.5],
        "size": { "height": SIZE, "width": SIZE },
    })
}

/// Names and shapes of a ViT's tensors.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let mut all: Vec<(String, Vec<usize>)> = vec![
        ("classifier.bias".into(), vec![CLASSES]),
        ("classifier.weight".into(), vec![CLASSES, HIDDEN]),
        ("vit.embeddings.cls_token".into(), vec![1, 1, HIDDEN]),
        ("vit.embeddings.patch_embeddings.projection.bias".into(), vec![HIDDEN]),
        ("vit.embeddings.patch_embeddings.projection.weight".into(), vec![HIDDEN, 1, 4, 4]),
        ("vit.embeddings.position_embeddings".into(), vec![1, 5, HIDDEN]),
        ("vit.layernorm.bias".into(), vec![HIDDEN]),
        ("vit.layernorm.weight".into(), vec![HIDDEN]),
    ];
    let layer = [
        ("attention.attention.key", HIDDEN, HIDDEN),
        ("attention.attention.query", HIDDEN, HIDDEN),
        ("attention.attention.value", HIDDEN, HIDDEN),
        ("attention.output.dense", HIDDEN, HIDDEN),
        ("intermediate.dense", INTERMEDIATE, HIDDEN),
        ("output.dense", HIDDEN, INTERMEDIATE),
    ];
    for (name, outputs, inputs) in layer {
        all.push((format!("vit.encoder.layer.0.{name}.bias"), vec![outputs]));
        all.push((format!("vit.encoder.layer.0.{name}.weight"), vec![outputs, inputs]));
    }
    for name in ["layernorm_before", "layernorm_after"] {
        all.push((format!("vit.encoder.layer.0.{name}.bias"), vec![HIDDEN]));
        all.push((format!("vit.encoder.layer.0.{name}.weight"), vec![HIDDEN]));
    }
    all
}

/// An ingredient: what all share, and a little of its own.
fn safetensors(ingredient: u64) -> Vec<u8> {
    let (mut shared, mut own) = (Random::new(SEED, 1), Random::new(SEED, 100 + ingredient));
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in tensors() {
        let start = data.len();
        let base = if name.contains("layernorm") && name.ends_with("weight") { 1.0 } else { 0.0 };
        for _ in 0..shape.iter().product::<usize>() {
            let value = base + 0.15 * shared.unit() + 0.1 * own.unit();
            data.extend(value.to_le_bytes());
        }
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] }));
    }
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// Noise, brighter in the rows of its class.
fn png(random: &mut Random, class: usize) -> Vec<u8> {
    let image = GrayImage::from_fn(SIZE, SIZE, |_, y| {
        let bright = if y as usize * CLASSES / SIZE as usize == class { 90 } else { 0 };
        image::Luma([(random.number(0..166) + bright) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}
