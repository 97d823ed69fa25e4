//! Logs of runs, a record a line: each is read, written and read again as the same, what they add up to does not depend on how they are
//! written, and decisions that are not the recipe's are found. Records are numbered and chained here, where they do not say otherwise.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use soup_core::journal::{Fold, Record, verify};
use soup_core::ledger::Dataset;
use soup_core::recipe::{RecipeSpec, Setting};

const INGREDIENTS: u32 = 3;

fuzz_target!(|log: &[u8]| {
    let mut fold = Fold::default();
    let mut records: Vec<Record> = Vec::new();
    for line in log.split(|byte| *byte == b'\n') {
        let tail = fold.tail().clone();
        let mut line = line.to_vec();
        if let Ok(Value::Object(mut record)) = serde_json::from_slice(&line) {
            record.entry("seq").or_insert(json!(tail.seq));
            record.entry("prev_sha256").or_insert(json!(tail.prev_sha256));
            line = serde_json::to_vec(&record).unwrap();
        }
        let Ok(record) = fold.push(tail.seq, &line) else { break };
        let written = serde_json::to_vec(&record).unwrap();
        let again: Record = serde_json::from_slice(&written).expect("what was written can be read");
        assert_eq!(serde_json::to_vec(&again).unwrap(), written);
        records.push(record);
    }
    assert_eq!(fold.tail().seq, records.len() as u64);
    assert!(fold.scores.len() <= records.len());
    for kind in ["best-single", "greedy", "pruned"] {
        let recipe = json!({"kind": kind, "order": "sorted", "accept": "at-least", "seed": 0, "max_ingredients": null, "passes": 1,
            "metric": "accuracy"});
        let recipe: RecipeSpec = serde_json::from_value(recipe).expect("a recipe");
        if let Ok(seen) = verify(&recipe, &Setting::of(INGREDIENTS), Dataset::VALIDATION, &records) {
            assert_eq!(seen.records, records.len() as u64);
        }
    }
});
