//! The last step of a run: what goes beside the tensors, and making it all visible.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};
use soup_core::companion::CONFIG;
use soup_core::journal::sha256_hex;
use soup_core::machine::FileDigest;
use soup_core::report::{Figures, RunReport, decimal};
use soup_core::{Error, Result};
use soup_store::card::{self, Card, CardIngredient, CardRow};
use soup_store::checkpoint::{Checkpoint, FileStamp, INDEX_FILE};
use soup_store::layout::{self, OutputFile};
use soup_store::location::Location;
use soup_store::output::{MANIFEST_FILE, Staging};
use soup_store::pool;
use soup_store::signing::Subject;

use crate::journaling::Head;
use crate::prepare::PreparedRun;

/// The report for people.
const REPORT_FILE: &str = "report.html";
/// Version of the manifest's shape.
const MANIFEST_VERSION: u32 = 1;

/// What workers have found and written, and where that is recorded.
pub(crate) struct Written<'a> {
    /// One per output file.
    pub(crate) files: &'a [FileDigest],
    /// The digests of the shards of every ingredient, where they are known.
    pub(crate) ingredients: &'a [Option<Vec<[u8; 32]>>],
    pub(crate) head: &'a Head,
}

/// Writes configuration, index, card and manifest beside the files that workers have written, and publishes. Returns the
/// report that is visible, as JSON.
///
/// # Errors
/// Where something cannot be written; nothing is visible then.
pub(crate) async fn publish(
    prepared: &PreparedRun,
    staging: &Staging,
    report: RunReport,
    written: &Written<'_>,
) -> Result<String> {
    let small = small_files(prepared, &report).await;
    for (name, content) in &small {
        staging.put(name, content.clone()).await?;
    }
    let manifest = manifest(prepared, &report, written, &small);
    let text = serde_json::to_vec_pretty(&manifest).map_err(unprintable)?;
    let text = match &written.head.key {
        Some(key) => key.seal(Subject::Manifest, &text)?,
        None => text,
    };
    staging.put(MANIFEST_FILE, Bytes::from(text)).await?;
    let written =
        prepared.files.iter().zip(written.files).map(|(file, digest)| (file.name.as_str(), digest.bytes));
    match staging.publish(written).await? {
        None => serde_json::to_string(&report).map_err(unprintable),
        // What people find there is what they are told.
        Some(visible) => Ok(visible["report"].to_string()),
    }
}

fn unprintable(e: serde_json::Error) -> Error {
    Error::internal("a report could not be written as JSON").with_source(e)
}

/// What goes beside the tensors, the manifest excepted.
async fn small_files(prepared: &PreparedRun, report: &RunReport) -> Vec<(String, Bytes)> {
    let mut files = Vec::new();
    // A report alone has no model to go with.
    if !prepared.spec.diagnosis.report_only {
        files.extend(prepared.companions.iter().map(|(name, content)| (name.clone(), content.clone())));
        let card = model_card(prepared, report, base_model(prepared).await);
        files.push(("README.md".to_owned(), card::card(&card).into()));
    }
    if prepared.files.len() > 1 {
        let index = layout::index_json(&prepared.schema, &prepared.files);
        files.push((INDEX_FILE.to_owned(), index.into()));
    }
    files.push((REPORT_FILE.to_owned(), soup_report::html(report).into()));
    files
}

fn manifest(
    prepared: &PreparedRun,
    report: &RunReport,
    written: &Written<'_>,
    small: &[(String, Bytes)],
) -> serde_json::Value {
    let ingredient = |(c, shards): (&Checkpoint, &Option<Vec<[u8; 32]>>)| {
        let stamp =
            |f: &FileStamp| json!({ "url": f.location.to_string(), "bytes": f.size_bytes, "etag": f.etag });
        json!({
            "name": c.name,
            "files": c.files.iter().map(stamp).collect::<Vec<_>>(),
            "sha256": shards.as_ref().map(|s| hex::encode(ingredient_digest(s))),
        })
    };
    let file = |(planned, digest): (&OutputFile, &FileDigest)| json!({ "name": planned.name, "bytes": digest.bytes, "sha256": hex::encode(digest.file_sha256) });
    let small_file = |(name, content): &(String, Bytes)| json!({ "name": name, "bytes": content.len(), "sha256": sha256_hex(content) });
    let Head { tail, .. } = written.head;
    json!({
        "version": MANIFEST_VERSION,
        "written_by": format!("soupctl {}", env!("CARGO_PKG_VERSION")),
        "written_at": chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        "report": report,
        "specification": prepared.spec,
        "pool": prepared.checkpoints.iter().zip(written.ingredients).map(ingredient).collect::<Vec<_>>(),
        "pool_digest": {
            "algorithm": format!("SHA-256 of the {} of each shard of the flattened parameters, in order", prepared.spec.digest.name()),
            "shard_bytes": prepared.shards.shard_bytes(),
        },
        "files": prepared.files.iter().zip(written.files).map(file).collect::<Vec<_>>(),
        "small_files": small.iter().map(small_file).collect::<Vec<_>>(),
        // The records that the journal had then, and the SHA-256 of the last of them.
        "journal": { "records": tail.seq, "sha256": tail.prev_sha256 },
    })
}

/// SHA-256 of the digests of an ingredient's shards, in order. Owners hash what they load, so no byte is read twice.
fn ingredient_digest(shards: &[[u8; 32]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    shards.iter().for_each(|s| hash.update(s));
    hash.finalize().into()
}

/// The id of the pretrained model that the ingredients come from: `--base` where that leads to one, else what configurations
/// name.
async fn base_model(prepared: &PreparedRun) -> Option<String> {
    let named = |config: &[u8]| {
        let config: serde_json::Value = serde_json::from_slice(config).unwrap_or_default();
        config["_name_or_path"].as_str().and_then(card::hub_id)
    };
    if let Some(base) = &prepared.base {
        if let Some(id) = card::hub_id(&base.location.to_string()) {
            return Some(id);
        }
        // Only a line of the card depends on it.
        let files = pool::companions(base).await.unwrap_or_default();
        if let Some(id) = files.iter().find(|(name, _)| name == CONFIG).and_then(|(_, c)| named(c)) {
            return Some(id);
        }
    }
    named(prepared.model_config_json.as_bytes())
}

fn model_card(prepared: &PreparedRun, report: &RunReport, base_model: Option<String>) -> Card {
    let metric = &report.options.metric;
    let row = |name: String, validation: &Figures, test: &BTreeMap<String, Figures>| {
        let tests = prepared
            .reported()
            .iter()
            .skip(1)
            .map(|d| test.get(d).map_or_else(String::new, |of| of.headlines(metric)));
        CardRow { name, figures: std::iter::once(validation.headlines(metric)).chain(tests).collect() }
    };
    let mut figures = Vec::new();
    for (name, baseline) in
        [("best single model", &report.baselines.best_single), ("uniform soup", &report.baselines.uniform)]
    {
        figures.extend(baseline.as_ref().map(|b| row(name.to_owned(), &b.score, &b.test)));
    }
    let own = report.score.as_ref();
    figures.extend(own.map(|score| row(format!("this model ({} soup)", report.recipe), score, &report.test)));
    let ingredient = |name: &String| CardIngredient {
        name: name.clone(),
        chosen: report.ingredients.contains(name),
        weight: report.weights.get(name).map_or_else(String::new, |w| decimal(*w)),
    };
    let config: serde_json::Value = serde_json::from_str(&prepared.model_config_json).unwrap_or_default();
    Card {
        of_transformers: ["architectures", "model_type"].iter().any(|key| !config[key].is_null()),
        name: Location::parse(&report.output).map_or_else(|_| "soup".to_owned(), |l| l.name().to_owned()),
        recipe: report.recipe.clone(),
        base_model,
        ingredients: prepared.names.iter().map(ingredient).collect(),
        figures_are: figures_are(report),
        figure_columns: prepared.reported().to_vec(),
        figures,
    }
}

/// What the figures of a card are.
fn figures_are(report: &RunReport) -> String {
    let Some(score) = &report.score else { return String::new() };
    let less = if report.lower_is_better { ", of which less is better" } else { "" };
    let metric = &report.options.metric;
    match (score.accuracy().is_some(), score.has_two(metric)) {
        (true, false) => "Shares of correct predictions.".to_owned(),
        (true, true) => {
            format!(
                "Shares of correct predictions; in parentheses {metric}{less}, by which soups were compared."
            )
        }
        (false, _) => format!("By {metric}{less}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(metric: &str, lower_is_better: bool, score: serde_json::Value) -> RunReport {
        serde_json::from_value(json!({
            "run": "r", "recipe": "uniform", "options": {
                "kind": "uniform", "order": "sorted", "accept": "at-least", "seed": 0, "max_ingredients": null, "passes": 1,
                "metric": metric
            },
            "lower_is_better": lower_is_better, "ingredients": ["a"], "weights": {}, "score": score, "test": {}, "baselines": {},
            "ranking": [], "order": [], "trials": [], "validation": "validation", "output": "/o", "sha256": "", "notes": [],
            "seconds": {}
        }))
        .unwrap()
    }

    #[test]
    fn cards_say_what_their_figures_are() {
        let said = |report: RunReport| {
            (figures_are(&report), report.score.as_ref().unwrap().headlines(&report.options.metric))
        };
        let classes = |more: &str, value: f64| {
            let mut score = json!({ "correct": 7, "total": 8, "accuracy": 0.875, "loss": 0.25 });
            score[more] = value.into();
            score
        };
        let (what, cell) = said(report("accuracy", false, classes("loss", 0.25)));
        assert_eq!((what.as_str(), cell.as_str()), ("Shares of correct predictions.", "87.50 %"));
        let (what, cell) = said(report("macro-f1", false, classes("macro_f1", 0.8125)));
        assert!(what.ends_with("in parentheses macro-f1, by which soups were compared."), "{what}");
        assert_eq!(cell, "87.50 % (0.8125)");
        let (what, cell) = said(report("loss", true, classes("loss", 0.25)));
        assert!(what.contains("loss, of which less is better"), "{what}");
        assert_eq!(cell, "87.50 % (0.2500)");
        let sums = json!({ "samples": 8, "figures": { "nll": 16.0 }, "value": 7.5 });
        let (what, cell) = said(report("perplexity", true, sums));
        assert_eq!((what.as_str(), cell.as_str()), ("By perplexity, of which less is better.", "7.5000"));
    }
}
