//! On the small pool of the tests: a ViT of twelve classes, and twelve images.

use std::path::{Path, PathBuf};

use soup_core::memory::DECODING_BYTES_MIN;
use soup_core::run::DatasetOptions;
use soup_core::tally::Outcome;
use soup_eval::Budget;
use soup_store::checkpoint::open_checkpoint;
use soup_store::load::{LoadLimits, ReadFrom, load, plan_reads};
use soup_store::location::Location;

use super::*;

const SAMPLES: u64 = 12;

fn animals() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/pools/animals").canonicalize().unwrap()
}

/// A judge in blocks of `batch_size`, and the parameters of the model.
async fn judge(batch_size: u32, samples_bytes_max: u64) -> (Native, Vec<u8>) {
    let model = animals().join("m0");
    let read = |name: &str| std::fs::read_to_string(model.join(name)).unwrap();
    let setting = Setting {
        model_json: read("config.json"),
        preprocessor_json: read("preprocessor_config.json"),
        batch_size,
        class_subset: false,
        datasets: vec![DatasetSpec {
            name: "validation".into(),
            url: animals().join("validation.parquet").to_str().unwrap().into(),
            options: DatasetOptions::default(),
        }],
        calibration: None,
        fingerprints: Vec::new(),
    };
    let checkpoint = open_checkpoint(&Location::parse(model.to_str().unwrap()).unwrap()).await.unwrap();
    let files: Vec<ReadFrom> = checkpoint.files.iter().map(ReadFrom::from).collect();
    let bytes = checkpoint.schema.bytes();
    let mut parameters = vec![0; bytes as usize];
    let reads = plan_reads(&checkpoint, &checkpoint.schema, 0..bytes);
    load(&files, &reads, &mut parameters, LoadLimits::default()).await.unwrap();
    let schema = checkpoint.schema;
    let memory = SamplesMemory {
        kept_bytes: samples_bytes_max,
        threads: 1,
        decoding: Budget::new(DECODING_BYTES_MIN),
    };
    (Native::new(setting, schema, Compute::threads(1), memory, Place::default()), parameters)
}

/// The soup of `parameters`, which come in two pieces.
async fn load_soup(native: &Native, parameters: &[u8], purpose: Purpose) -> Arc<dyn Loaded> {
    let mut vessel = native.vessel(purpose).await.unwrap();
    let (first, second) = parameters.split_at(parameters.len() / 3);
    vessel.fill(first.len() as u64, Bytes::copy_from_slice(second)).await.unwrap();
    vessel.fill(0, Bytes::copy_from_slice(first)).await.unwrap();
    assert!(vessel.fill(parameters.len() as u64, Bytes::from_static(&[0])).await.is_err());
    vessel.load().await.unwrap()
}

/// What happened to each sample.
fn outcomes(judged: &Judged) -> &[Outcome] {
    let tally::Judged::Outcomes(outcomes) = &judged.said else {
        unreachable!("the native judge tells of each sample")
    };
    outcomes
}

fn same(a: &Outcome, b: &Outcome) -> bool {
    (a.label, a.prediction, a.loss.to_bits()) == (b.label, b.prediction, b.loss.to_bits())
}

/// Samples of the validation set that are kept from the first on.
fn kept(native: &Native) -> u64 {
    let all: Vec<u64> = (0..SAMPLES).collect();
    let block = native.0.samples.block_len() as usize;
    let missing = |positions: &[u64]| native.0.samples.missing(0, positions, 1).is_empty();
    all.chunks(block).take_while(|block| missing(block)).map(|block| block.len() as u64).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_judged_first_is_made_ready_as_far_as_there_is_room() {
    let (native, parameters) = judge(5, u64::MAX).await;
    let cancelled = Cancelled::default();
    cancelled.set();
    native.make_ready(cancelled).await;
    assert_eq!(kept(&native), 0, "nobody wants it any more");
    native.make_ready(Cancelled::default()).await;
    assert_eq!(kept(&native), SAMPLES);
    // What was made ready is what is judged otherwise.
    let (other, _) = judge(5, u64::MAX).await;
    let judged = async |native: &Native| {
        let loaded = load_soup(native, &parameters, Purpose::Judging).await;
        loaded.judge(0, (0..SAMPLES).collect(), false, Cancelled::default()).await.unwrap()
    };
    let (ready, otherwise) = (judged(&native).await, judged(&other).await);
    assert!(outcomes(&ready).iter().zip(outcomes(&otherwise)).all(|(a, b)| same(a, b)));

    let sample =
        native.0.compute(|inner, waiting| Ok(inner.evaluator(waiting)?.sample_bytes())).await.unwrap();
    let (small, _) = judge(5, 7 * sample).await;
    small.make_ready(Cancelled::default()).await;
    assert_eq!(kept(&small), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn few_samples_of_blocks_that_are_not_kept_are_the_same() {
    let (native, parameters) = judge(4, u64::MAX).await;
    let (forgetful, _) = judge(4, 0).await;
    for positions in
        [vec![9, 0], vec![5, 4, 11, 5], vec![10], vec![0, 1, 2, 3, 7, 6], (0..SAMPLES).rev().collect()]
    {
        let judged = async |native: &Native| {
            let loaded = load_soup(native, &parameters, Purpose::Judging).await;
            loaded.judge(0, positions.clone(), false, Cancelled::default()).await.unwrap()
        };
        let (all, some) = (judged(&native).await, judged(&forgetful).await);
        assert_eq!(outcomes(&all).len(), positions.len());
        assert!(outcomes(&all).iter().zip(outcomes(&some)).all(|(a, b)| same(a, b)), "{positions:?}");
    }
    assert_eq!(kept(&forgetful), 0);
}

#[tokio::test]
async fn a_sample_is_judged_the_same_in_any_order_of_positions() {
    let (native, parameters) = judge(5, u64::MAX).await;
    assert_eq!(native.survey().await.unwrap().survey.samples, [SAMPLES]);
    let loaded = load_soup(&native, &parameters, Purpose::Judging).await;
    let all =
        async |positions: Vec<u64>| loaded.judge(0, positions, true, Cancelled::default()).await.unwrap();
    let in_order = all((0..SAMPLES).collect()).await;
    let classes = |inner: &Inner, waiting: &Waiting| Ok(inner.evaluator(waiting)?.classes() as usize);
    let classes = native.0.compute(classes).await.unwrap();
    let rows = in_order.logits.clone().unwrap();
    assert_eq!(rows.len(), SAMPLES as usize * classes);
    let orders: [Vec<u64>; 4] =
        [(0..SAMPLES).rev().collect(), vec![7, 0, 11, 3, 3, 4, 5, 6, 1], vec![4, 5], (2..9).collect()];
    for positions in orders {
        let judged = all(positions.clone()).await;
        let logits = judged.logits.clone().unwrap();
        for (at, &position) in positions.iter().enumerate() {
            let expect = &outcomes(&in_order)[position as usize];
            assert!(same(&outcomes(&judged)[at], expect), "{position} in {positions:?}");
            let row = position as usize * classes;
            assert_eq!(logits[at * classes..][..classes], rows[row..][..classes]);
        }
    }
    assert!(outcomes(&all(vec![]).await).is_empty());
    assert!(loaded.judge(0, vec![0], false, Cancelled::default()).await.unwrap().logits.is_none());
}

#[tokio::test]
async fn samples_that_are_not_kept_are_judged_the_same() {
    let (native, parameters) = judge(5, 0).await;
    let loaded = load_soup(&native, &parameters, Purpose::Judging).await;
    let (kept, _) = judge(5, u64::MAX).await;
    let others = load_soup(&kept, &parameters, Purpose::Judging).await;
    let positions: Vec<u64> = vec![9, 2, 3, 4, 10];
    let one = loaded.judge(0, positions.clone(), false, Cancelled::default()).await.unwrap();
    let two = others.judge(0, positions, false, Cancelled::default()).await.unwrap();
    assert!(outcomes(&one).iter().zip(outcomes(&two)).all(|(a, b)| same(a, b)));
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let (native, parameters) = judge(5, u64::MAX).await;
    let loaded = load_soup(&native, &parameters, Purpose::Judging).await;
    let judged = async |dataset, positions| {
        loaded.judge(dataset, positions, false, Cancelled::default()).await.map(|j| outcomes(&j).len())
    };
    let refused = |result: Result<usize>, part: &str| {
        let error = result.unwrap_err();
        assert!(error.chain().contains(part), "{}", error.chain());
    };
    refused(judged(0, vec![1, SAMPLES]).await, "sample 12 is not in the dataset");
    refused(judged(0, vec![u64::MAX]).await, "is not in the dataset");
    refused(judged(1, vec![0]).await, "no dataset 1");
    let loss = Loss { beta: 1.0, label_smoothing: 0.0, scale: 1.0 };
    let purpose = loaded.differentiate(0, vec![0], loss, Cancelled::default()).await.err().unwrap();
    assert!(purpose.chain().contains("assembled for something else"));
    let cancelled = Cancelled::default();
    cancelled.set();
    let error = loaded.judge(0, vec![0], false, cancelled).await.err().unwrap();
    assert_eq!(error.kind(), soup_core::ErrorKind::Cancelled);
}

#[tokio::test]
async fn a_gradient_is_of_the_samples_that_were_asked_for() {
    let (native, parameters) = judge(4, u64::MAX).await;
    let step = load_soup(&native, &parameters, Purpose::Learning).await;
    let loss = Loss { beta: 1.0, label_smoothing: 0.0, scale: 0.5 };
    let of = async |positions: Vec<u64>| {
        let gradient = step.differentiate(0, positions, loss, Cancelled::default());
        gradient.await.unwrap()
    };
    let (first, second, both) = (of(vec![9]).await, of(vec![2]).await, of(vec![9, 2]).await);
    assert_eq!(both.figures.total, 2);
    assert!((both.figures.loss - first.figures.loss - second.figures.loss).abs() < 1e-9);
    let sum: f64 = both.values.iter().map(|v| f64::from(*v).powi(2)).sum();
    assert!(sum > 0.0);
    let far = |(at, v): (usize, &f32)| (v - first.values[at] - second.values[at]).abs() > 1e-4;
    assert_eq!(both.values.iter().enumerate().filter(|(at, v)| far((*at, v))).count(), 0);
}

#[tokio::test]
async fn a_dataset_that_the_run_has_not_is_refused() {
    let (native, parameters) = judge(4, 1 << 20).await;
    let soup = load_soup(&native, &parameters, Purpose::Judging).await;
    for dataset in [1, u32::MAX] {
        let error = soup.judge(dataset, vec![0, 1], false, Cancelled::default()).await.err().unwrap();
        assert!(error.chain().contains(&format!("no dataset {dataset}")), "{}", error.chain());
    }
    // Nor is anything of none made ready.
    let setting = Setting { datasets: Vec::new(), ..native.0.setting.clone() };
    let memory = SamplesMemory { kept_bytes: 1 << 20, threads: 1, decoding: Budget::new(DECODING_BYTES_MIN) };
    let schema = native.0.schema.clone();
    let without = Native::new(setting, schema, Compute::threads(1), memory, Place::default());
    let error = without.0.compute(|of, waiting| of.decode_ahead(0, waiting)).await.unwrap_err();
    assert!(error.chain().contains("no dataset 0"), "{}", error.chain());
}
