//! How large a specification may be: what it names is kept for as long as the run waits, and told to every worker.

use super::{CONFIG_BYTES_MAX, DatasetSpec, RunSpec};
use crate::error::{Error, Result};
use crate::recipe::given::{GivenWeight, WeightTable};
use crate::recipe::ranking::ScoreTable;

/// Longest URL or path, in bytes.
const URL_BYTES_MAX: usize = 8 << 10;
/// Longest name: of a dataset, a column, a split, an ingredient, a setting.
const NAME_BYTES_MAX: usize = 1 << 10;
/// Most URLs of a pool: each names an ingredient at least.
const POOL_URLS_MAX: usize = 4096;
/// Most settings in which files may differ.
const IGNORED_MAX: usize = 1024;
/// The weights of all ingredients, with their names: a thousand tensors of two hundred ingredients are some 16 MB.
const WEIGHTS_BYTES_MAX: usize = 16 << 20;
/// All URLs of a pool.
const POOL_BYTES_MAX: usize = 4 << 20;
/// A weight in a table, besides its name.
const WEIGHT_BYTES: usize = 32;

/// Checks how long texts and lists are.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) naming the option, and not repeating the text.
pub(super) fn check(spec: &RunSpec) -> Result<()> {
    at_most("--pool", "URLs", spec.pool.len(), POOL_URLS_MAX)?;
    at_most("--pool", "bytes of URLs", spec.pool.iter().map(String::len).sum(), POOL_BYTES_MAX)?;
    let urls = [
        ("--output", Some(&spec.output)),
        ("--model-config", spec.model_config.as_ref().map(|config| &config.url)),
        ("--preprocessor-config", spec.preprocessor_config.as_ref().map(|config| &config.url)),
        ("--base", spec.diagnosis.base.as_ref()),
    ];
    let urls = urls.into_iter().filter_map(|(flag, url)| Some((flag, url?)));
    for (flag, url) in urls.chain(spec.pool.iter().map(|url| ("--pool", url))) {
        at_most(flag, "bytes in a URL", url.len(), URL_BYTES_MAX)?;
    }
    for config in spec.model_config.iter().chain(&spec.preprocessor_config) {
        at_most("a configuration", "bytes", config.text.len(), CONFIG_BYTES_MAX as usize)?;
    }
    at_most("--ignore-config", "settings", spec.ignore_config.len(), IGNORED_MAX)?;
    let names = spec.ignore_config.iter().map(|name| ("--ignore-config", name));
    let judges = spec.judge.iter().map(|name| ("--judge", name));
    let classes = spec.numerics.iter().map(|class| ("--numerics", class));
    for (flag, name) in names.chain(judges).chain(classes) {
        at_most(flag, "bytes in a name", name.len(), NAME_BYTES_MAX)?;
    }
    spec.datasets().try_for_each(dataset)?;
    spec.ranked_by.as_ref().map_or(Ok(()), ranking)?;
    spec.ingredient_weights.as_ref().map_or(Ok(()), weights)
}

fn dataset(set: &DatasetSpec) -> Result<()> {
    let options = &set.options;
    // Where reports and journals are shown, a line that a name breaks could be taken for one of theirs.
    if set.name.contains(char::is_control) {
        return Err(Error::usage("a dataset has a control character in its name, such as a line break"));
    }
    at_most("a dataset", "bytes in its URL", set.url.len(), URL_BYTES_MAX)?;
    let names = [&options.image_column, &options.label_column, &options.named_split].into_iter().flatten();
    names
        .chain([&set.name])
        .try_for_each(|name| at_most("a dataset", "bytes in a name", name.len(), NAME_BYTES_MAX))
}

fn ranking(table: &ScoreTable) -> Result<()> {
    let names = table.keys();
    names
        .clone()
        .try_for_each(|name| at_most("--ranked-by", "bytes in a name", name.len(), NAME_BYTES_MAX))?;
    at_most(
        "--ranked-by",
        "bytes of scores",
        names.map(|name| name.len() + WEIGHT_BYTES).sum(),
        WEIGHTS_BYTES_MAX,
    )
}

fn weights(table: &WeightTable) -> Result<()> {
    let mut bytes = 0;
    for (ingredient, given) in table {
        let parts = match given {
            GivenWeight::Model(_) => None,
            GivenWeight::Parts(parts) => Some(parts.keys()),
        };
        for name in parts.into_iter().flatten().chain([ingredient]) {
            at_most("--weights-file", "bytes in a name", name.len(), NAME_BYTES_MAX)?;
            bytes += name.len() + WEIGHT_BYTES;
        }
    }
    at_most("--weights-file", "bytes of weights", bytes, WEIGHTS_BYTES_MAX)
}

fn at_most(of: &str, what: &str, count: usize, max: usize) -> Result<()> {
    match count <= max {
        true => Ok(()),
        false => Err(Error::usage(format!("{of} has {count} {what}, and at most {max} are possible"))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::run::NamedConfig;

    fn spec() -> RunSpec {
        serde_json::from_value(serde_json::json!({
            "pool": ["/p"], "recipe": {
                "kind": "greedy", "order": "sorted", "accept": "at-least", "seed": 0, "max_ingredients": null,
                "passes": 1, "metric": "accuracy"
            },
            "validation": { "name": "v", "url": "/v" },
            "tests": [], "output": "/o", "overwrite": false, "batch_size": 1, "allow_nan": false, "baselines": false,
            "lookahead": 0, "workers_min": 1, "model_config": null, "preprocessor_config": null
        }))
        .unwrap()
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut RunSpec), part: &str) {
        let mut spec = spec();
        change(&mut spec);
        let error = spec.validate().unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Usage);
        assert!(error.chain().contains(part), "{}", error.chain());
        assert!(error.chain().len() < 200, "what is too long is not repeated");
    }

    #[test]
    fn what_is_too_long_is_refused_by_the_option() {
        spec().validate().unwrap();
        let long = |bytes: usize| "x".repeat(bytes);
        refused(|s| s.output = long(URL_BYTES_MAX + 1), "--output has 8193 bytes in a URL");
        refused(|s| s.pool = vec![long(1); POOL_URLS_MAX + 1], "--pool has 4097 URLs");
        refused(|s| s.pool = vec![long(URL_BYTES_MAX); 513], "--pool has 4202496 bytes of URLs");
        let config = |url: usize, text: usize| Some(NamedConfig { url: long(url), text: long(text) });
        refused(|s| s.model_config = config(30 << 20, 1), "--model-config has");
        refused(|s| s.preprocessor_config = config(1, (4 << 20) + 1), "a configuration has 4194305 bytes");
        refused(|s| s.ignore_config = vec![long(1); 1025], "--ignore-config has 1025 settings");
        refused(|s| s.judge = Some(long(1025)), "--judge has 1025");
        refused(
            |s| s.tests.push(DatasetSpec { name: long(1025), ..s.validation.clone().unwrap() }),
            "a dataset has 1025",
        );
        refused(
            |s| s.tests.push(DatasetSpec { name: "a\nb".to_owned(), ..s.validation.clone().unwrap() }),
            "a control character in its name",
        );
        refused(
            |s| {
                let parts = (0..400_000).map(|i| (format!("{i:016}"), 1.0)).collect::<BTreeMap<_, _>>();
                s.ingredient_weights = Some([("a".to_owned(), GivenWeight::Parts(parts))].into());
            },
            "--weights-file has 19200033 bytes of weights",
        );
    }
}
