//! Boosting a pool against scikit-learn's AdaBoost over the same learners: `tests/reference/boosting.py` wrote the file.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use serde_json::Value;
use soup_core::diagnosis::boosting::samme;
use soup_core::diagnosis::ensemble::{Asked, compare};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/boosting.json");

fn classes_of(column: &Value) -> Vec<u32> {
    column.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// Logits of which the predicted class has the only one.
fn logits(predictions: &[u32], classes: usize) -> Vec<f32> {
    let mut logits = vec![0.0; predictions.len() * classes];
    predictions.iter().enumerate().for_each(|(sample, p)| logits[sample * classes + *p as usize] = 1.0);
    logits
}

#[test]
fn votes_and_what_they_say_are_scikit_learns() {
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(PATH).unwrap()).unwrap();
    for pool in golden.as_array().unwrap() {
        let classes = pool["classes"].as_u64().unwrap() as usize;
        let labels = classes_of(&pool["labels"]);
        let predictions: Vec<Vec<u32>> =
            pool["predictions"].as_array().unwrap().iter().map(classes_of).collect();
        let all: Vec<Vec<f32>> = predictions.iter().map(|p| logits(p, classes)).collect();
        let all: Vec<&[f32]> = all.iter().map(Vec::as_slice).collect();
        let weights = vec![1.0; all.len()];

        let asked = Asked { weights: weights.clone(), hits: true, ..Asked::default() };
        let hits = compare(&all, &labels, classes, &asked).unwrap().hits.unwrap();
        let votes = samme(&hits, classes as u32);
        let expected: Vec<f64> =
            pool["votes"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert!(votes.iter().zip(&expected).all(|(got, e)| (got - e).abs() < 1e-9), "{votes:?} {expected:?}");

        let asked = Asked { weights, votes, hits: false };
        let found = compare(&all, &labels, classes, &asked).unwrap().boosted.unwrap();
        let boosted = classes_of(&pool["boosted"]);
        let right = boosted.iter().zip(&labels).filter(|(b, l)| b == l).count() as u64;
        assert_eq!(found.correct, right, "of {} samples", labels.len());
        for (&(label, prediction), &count) in &found.confusion {
            let theirs =
                labels.iter().zip(&boosted).filter(|(l, b)| (**l, **b) == (label, prediction)).count();
            assert_eq!(count, theirs as u64, "{label} taken for {prediction}");
        }
    }
}
