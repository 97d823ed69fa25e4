//! Datasets that are the same files under several names. That is allowed, and what a score on such a set means is another thing: it is
//! said.

use super::{DatasetSpec, RunSpec};

impl RunSpec {
    /// Which datasets are the same data as another one, as far as their `fingerprints` tell, in the order of
    /// [`datasets`](RunSpec::datasets).
    pub fn overlaps(&self, fingerprints: &[String]) -> Vec<String> {
        let sets: Vec<(&DatasetSpec, &String)> = self.datasets().zip(fingerprints).collect();
        let mut notes = Vec::new();
        for (at, second) in sets.iter().enumerate() {
            // With the first of them it is said of all.
            if let Some(first) = sets[..at].iter().find(|first| is_same(first, second)) {
                notes.push(self.overlap(first.0, second.0));
            }
        }
        notes
    }

    /// What it means that both are the same.
    fn overlap(&self, first: &DatasetSpec, second: &DatasetSpec) -> String {
        let is_test = |set: &DatasetSpec| self.tests.iter().any(|test| test.name == set.name);
        let is = |a: &DatasetSpec, b: &DatasetSpec| {
            format!("dataset {:?} is the same data as dataset {:?}", a.name, b.name)
        };
        match (is_test(first), is_test(second)) {
            (true, true) => is(second, first),
            (true, false) => format!("{}: it says nothing about data that was held out", is(first, second)),
            (false, true) => format!("{}: it says nothing about data that was held out", is(second, first)),
            (false, false) => {
                format!("{}: scores on it are not those of data that was held out", is(second, first))
            }
        }
    }
}

/// Whether some samples are in both.
fn is_same(
    (first, of_first): &(&DatasetSpec, &String),
    (second, of_second): &(&DatasetSpec, &String),
) -> bool {
    let (a, b) = (&first.options, &second.options);
    let read_alike = (&a.image_column, &a.label_column, &a.named_split, &a.others)
        == (&b.image_column, &b.label_column, &b.named_split, &b.others);
    // The two parts of one split have nothing in common.
    let apart = matches!((a.split, b.split), (Some(a), Some(b)) if a.train != b.train);
    // Servers may tell of no more than a name and a size, and a judge's own data have no fingerprint.
    let told = !of_first.is_empty() && !first.url.starts_with("http");
    of_first == of_second && (told || first.url == second.url) && read_alike && !apart
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What is said of these datasets: each with its name, its URL and its fingerprint.
    fn said(sets: &[(&str, &str, &str)], change: impl Fn(&mut RunSpec)) -> Vec<String> {
        let set = |(name, url, _): &(&str, &str, &str)| json!({ "name": name, "url": url, "limit": null });
        let find = |wanted: &str| sets.iter().find(|(name, _, _)| *name == wanted).map_or(Value::Null, set);
        let known = ["validation", "train", "calibration"];
        let tests: Vec<Value> = sets.iter().filter(|(name, _, _)| !known.contains(name)).map(set).collect();
        let mut spec: RunSpec = serde_json::from_value(json!({
            "pool": ["/p"], "recipe": {
                "kind": "uniform", "order": "sorted", "accept": "at-least", "seed": 0, "max_ingredients": null, "passes": 1,
                "metric": "accuracy"
            },
            "validation": find("validation"), "train": find("train"), "calibration": find("calibration"), "tests": tests,
            "output": "/o", "overwrite": false, "batch_size": 1, "allow_nan": false, "baselines": false, "lookahead": 0,
            "workers_min": 1, "model_config": null, "preprocessor_config": null
        }))
        .unwrap();
        change(&mut spec);
        let of = |set: &DatasetSpec| sets.iter().find(|(name, _, _)| *name == set.name).unwrap().2.to_owned();
        let fingerprints: Vec<String> = spec.datasets().map(of).collect();
        spec.overlaps(&fingerprints)
    }

    #[test]
    fn the_same_data_under_several_names_is_said_to_be() {
        let validation = ("validation", "/v", "x");
        let nothing = |_: &mut RunSpec| {};
        let held_out = "it says nothing about data that was held out";
        assert_eq!(
            said(&[validation, ("t", "/t", "x"), ("u", "/u", "y"), ("w", "/w", "y")], nothing),
            [
                format!("dataset \"t\" is the same data as dataset \"validation\": {held_out}"),
                "dataset \"w\" is the same data as dataset \"u\"".to_owned(),
            ]
        );
        for fitted in ["train", "calibration"] {
            let expected = format!("dataset \"t\" is the same data as dataset {fitted:?}: {held_out}");
            assert_eq!(said(&[validation, ("t", "/t", "y"), (fitted, "/t", "y")], nothing), [expected]);
        }
        let said_of_train = said(&[validation, ("train", "/v", "x")], nothing);
        assert_eq!(
            said_of_train,
            [
                "dataset \"train\" is the same data as dataset \"validation\": scores on it are not those of data that was held out"
            ]
        );
        // Fewer samples of it are the same still.
        let limited = said(&[validation, ("t", "/v", "x")], |spec| spec.tests[0].options.limit = Some(3));
        assert_eq!(limited.len(), 1);
    }

    #[test]
    fn other_data_is_not() {
        let validation = ("validation", "/v", "x");
        let check = |sets: &[(&str, &str, &str)], change: fn(&mut RunSpec)| {
            assert_eq!(said(sets, change), Vec::<String>::new());
        };
        check(&[validation, ("t", "/t", "y")], |_| {});
        check(&[validation, ("t", "/v", "x")], |spec| {
            spec.tests[0].options.named_split = Some("test".to_owned())
        });
        check(&[validation, ("t", "/v", "x")], |spec| {
            spec.tests[0].options.label_column = Some("fine".to_owned())
        });
        check(&[validation, ("train", "/v", "x")], |spec| {
            let part = |train| Some(super::super::Split { train, train_ppm: 500_000 });
            spec.validation.as_mut().unwrap().options.split = part(false);
            spec.train.as_mut().unwrap().options.split = part(true);
        });
        // Names and sizes alone, and no fingerprint.
        let of_server = |end: &str| format!("https://h/{end}/data.parquet");
        check(&[("validation", &of_server("a"), "x"), ("t", &of_server("b"), "x")], |_| {});
        check(&[("validation", "lm:dev", ""), ("t", "lm:test", "")], |_| {});
        assert_eq!(said(&[("validation", "lm:dev", ""), ("t", "lm:dev", "")], |_| {}).len(), 1);
    }
}
