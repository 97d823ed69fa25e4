//! Getting a run ready: reading the pool's headers, checking that they agree, cutting shards, telling which run it is.
//! Nothing is written.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use bytes::Bytes;
use soup_core::agree::{Terms, agree};
use soup_core::batch_norm;
use soup_core::judge::JudgeId;
use soup_core::recipe::learned::Groups;
use soup_core::recipe::{given, ranking};
use soup_core::run::RunSpec;
use soup_core::schema::{Dtype, Schema};
use soup_core::shard::ShardPlan;
use soup_core::soup::Soup;
use soup_core::{Error, Result};
use soup_store::checkpoint::Checkpoint;
use soup_store::layout::{self, OutputFile};
use soup_store::{companion, data, pool};

use crate::admission::Room;
use crate::configuration::configuration;
use crate::identity::Inputs;

/// A run that is ready to be driven.
pub(crate) struct PreparedRun {
    /// Its id.
    pub(crate) run: String,
    /// The document that is its identity.
    pub(crate) plan: Bytes,
    /// Where scores of its soups are kept, one context per dataset; empty for a run that is to know of no others.
    pub(crate) contexts: Vec<String>,
    pub(crate) spec: RunSpec,
    /// Names of the ingredients, in pool order.
    pub(crate) names: Vec<String>,
    pub(crate) checkpoints: Vec<Checkpoint>,
    pub(crate) schema: Schema,
    pub(crate) shards: ShardPlan,
    /// The pretrained model, where it was named.
    pub(crate) base: Option<Checkpoint>,
    /// What has weights of its own, for a recipe that learns.
    pub(crate) groups: Arc<Groups>,
    /// The soup of the weights that are given, for the recipe that takes them.
    pub(crate) given: Option<Soup>,
    /// The scores by which ingredients are ranked, in pool order, where these are given.
    pub(crate) ranking: Option<Arc<[f64]>>,
    /// What the datasets are, as far as their stores tell; empty for a judge's own.
    pub(crate) fingerprints: Vec<String>,
    /// Names of the datasets, the validation set first, the one that is learned from last.
    pub(crate) datasets: Vec<String>,
    pub(crate) model_config_json: String,
    pub(crate) preprocessor_config_json: Option<String>,
    /// Files that go with the model: name and content.
    pub(crate) companions: Vec<(String, Bytes)>,
    pub(crate) files: Vec<OutputFile>,
    /// Who judges; nobody where there is no data.
    pub(crate) judge: Option<JudgeId>,
    pub(crate) notes: Vec<String>,
    pub(crate) seconds: f64,
    /// Room for all this, where somebody asked for the run; a run that an earlier coordinator left has to be kept.
    pub(crate) _room: Option<Room>,
}

/// What is kept of an ingredient besides its tensors, in bytes, and of each of its files.
const INGREDIENT_BYTES: usize = 1 << 10;

impl PreparedRun {
    /// Names of the datasets that results are reported on, the validation set first.
    pub(crate) fn reported(&self) -> &[String] {
        &self.datasets[..self.spec.reported().count()]
    }

    /// Whether that may be a soup of this run: one that somebody made up is of any size.
    pub(crate) fn may_be_of(&self, soup: &Soup) -> bool {
        soup.fits(self.names.len(), self.schema.tensors().len())
    }

    /// About how much memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let mut tables = BTreeSet::new();
        let all = self.checkpoints.iter().chain(&self.base);
        // Ingredients of the same tensors share what is known of them.
        let tables = all.clone().filter(|c| tables.insert((Arc::as_ptr(&c.schema), Arc::as_ptr(&c.places))));
        // The run's own tensors, and what is made of them.
        let schema = self.checkpoints.first().map_or(0, |first| 2 * first.table_bytes());
        let texts =
            [self.model_config_json.len(), self.preprocessor_config_json.as_ref().map_or(0, String::len)];
        let companions = self.companions.iter().map(|(_, content)| content.len()).sum::<usize>();
        let files = all.map(|c| (1 + c.files.len()) * INGREDIENT_BYTES).sum::<usize>();
        // The plan has the specification in it.
        let known = texts.iter().sum::<usize>() + companions + files + 2 * self.plan.len();
        schema + tables.map(Checkpoint::table_bytes).sum::<u64>() + known as u64
    }
}

/// What people should know of a ranking that is given.
const RANKED: &str = "ingredients were ranked by scores that were given (ranked-by), not by this run's: the best single ingredient is the best of these";

/// What the datasets are, one by one.
///
/// # Errors
/// Where one cannot be listed.
async fn fingerprints(spec: &RunSpec) -> Result<Vec<String>> {
    let mut fingerprints = Vec::new();
    for dataset in spec.datasets() {
        let named = |e: Error| e.context(format!("dataset {:?}", dataset.name));
        fingerprints.push(match spec.judges_own(dataset) {
            // What is in it is the judge's, and so is its identity.
            Some(_) => String::new(),
            None => data::fingerprint(&dataset.url).await.map_err(named)?,
        });
    }
    Ok(fingerprints)
}

/// Prepares what `spec` asks for; `fresh` makes it a run of its own. `judge` is who judges, where anything is judged.
///
/// # Errors
/// Where the pool cannot be read or does not agree, or a configuration file is missing.
pub(crate) async fn prepare(
    spec: RunSpec,
    fresh: Option<String>,
    judge: Option<JudgeId>,
) -> Result<PreparedRun> {
    let begun = Instant::now();
    let pool::Pool { checkpoints, mut notes } = pool::open_pool(&spec.pool).await?;
    let pairs: Vec<(&str, &Schema)> = checkpoints.iter().map(|c| (c.name.as_str(), &*c.schema)).collect();
    let agreement = agree(&pairs, spec.terms())?;
    notes.extend(agreement.notes);
    let (schema, note) = batch_norm::settle(agreement.schema, spec.batch_norm)?;
    notes.extend(note);
    notes.extend(batch_norm::note_of_learning(schema.batch_norm()).filter(|_| spec.train.is_some()));
    notes.extend(companion::check(&checkpoints, &spec.ignore_config).await?);
    let mut configuration = configuration(&spec, &checkpoints[0]).await?;
    notes.append(&mut configuration.notes);
    let names: Vec<String> = checkpoints.iter().map(|c| c.name.clone()).collect();
    let given = match &spec.ingredient_weights {
        Some(table) => {
            let (soup, said) = given::soup(table, &names, &schema)?;
            notes.extend(said);
            Some(soup)
        }
        None => None,
    };
    let ranking = spec.ranked_by.as_ref().map(|table| ranking::given(table, &names)).transpose()?;
    notes.extend(ranking.as_ref().map(|_| RANKED.to_owned()));
    let fingerprints = fingerprints(&spec).await?;
    notes.extend(spec.overlaps(&fingerprints));
    let base = base(&spec, &checkpoints[0], &schema).await?;
    let inputs = Inputs {
        spec: &spec,
        fresh: fresh.as_deref(),
        checkpoints: &checkpoints,
        base: base.as_ref(),
        fingerprints: &fingerprints,
        model_config: &configuration.model_json,
        preprocessor_config: Some(&configuration.preprocessor_json),
        judge: judge.as_ref(),
    };
    let (run, plan) = inputs.document()?;
    let contexts = if fresh.is_none() { inputs.contexts()? } else { Vec::new() };
    Ok(PreparedRun {
        run,
        plan: plan.into(),
        contexts,
        names,
        given,
        ranking,
        shards: ShardPlan::new(schema.bytes()),
        groups: Arc::new(Groups::new(spec.recipe.learn.unwrap_or_default().granularity, &schema)),
        datasets: spec.datasets().map(|d| d.name.clone()).collect(),
        fingerprints,
        files: match spec.diagnosis.report_only {
            true => Vec::new(),
            false => layout::plan_files(&schema, layout::FILE_BYTES_MAX),
        },
        base,
        checkpoints,
        schema,
        model_config_json: configuration.model_json,
        preprocessor_config_json: Some(configuration.preprocessor_json),
        companions: configuration.companions,
        judge,
        notes,
        seconds: begun.elapsed().as_secs_f64(),
        _room: None,
        spec,
    })
}

/// The checkpoint that deltas are measured from, which must have the tensors of the ingredients, of which `first` is one and that make up
/// `schema`; `None` where none was named.
///
/// # Errors
/// Where it is not one checkpoint, and where it is another model's.
pub async fn base(spec: &RunSpec, first: &Checkpoint, schema: &Schema) -> Result<Option<Checkpoint>> {
    let Some(url) = &spec.diagnosis.base else { return Ok(None) };
    let about = |e: Error| e.context(format!("base {url:?}"));
    let mut found = pool::open_pool(std::slice::from_ref(url)).await.map_err(about)?.checkpoints;
    let (Some(base), true) = (found.pop(), found.is_empty()) else {
        return Err(Error::usage(format!(
            "base {url:?} is not one checkpoint: name a file, or a folder with one"
        )));
    };
    let advice = "leave out --base to measure from the pool's mean";
    if spec.terms() == Terms::default() {
        let pair = [(first.name.as_str(), &*first.schema), ("the base", &*base.schema)];
        agree(&pair, Terms::default()).map_err(|e| about(e).context(advice))?;
        return Ok(Some(base));
    }
    // What is measured is what is averaged.
    let tensors = schema.tensors().iter().enumerate();
    let averaged: BTreeSet<&str> =
        tensors.filter(|(at, _)| schema.is_averaged(*at)).map(|(_, t)| t.name.as_str()).collect();
    let of = |whole: &Schema| {
        let tensors = whole.tensors().iter().filter(|t| averaged.contains(t.name.as_str()));
        Schema::new(tensors.cloned().collect())
    };
    let (soup, measured) = (of(schema)?, of(&base.schema)?);
    let terms = Terms { out_dtype: Some(Dtype::F64), ..Terms::default() };
    agree(&[("the soup", &soup), ("the base", &measured)], terms).map_err(|e| about(e).context(advice))?;
    Ok(Some(base))
}
