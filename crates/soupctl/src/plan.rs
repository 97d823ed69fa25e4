//! `soupctl plan`: what a cook would do. Reads the headers of the pool and surveys the datasets as a worker would; loads no shard
//! and writes nothing.

use std::path::Path;

use soup_coordinator::Configuration;
use soup_core::agree::agree;
use soup_core::batch_norm;
use soup_core::machine::{LINE_SEGMENTS, PLANE_SIDE, Room, Space, Tier, choose_room};
use soup_core::memory::{Cut, SHARDS_AHEAD, memory_for, soups_kept};
use soup_core::plan::{DatasetPlan, Evaluations, FilePlan, Memory, PlanReport, Shards};
use soup_core::recipe::{RecipeKind, given, ranking};
use soup_core::run::{DatasetSpec, DiagnosisLevel, RunSpec};
use soup_core::schema::Schema;
use soup_core::shard::ShardPlan;
use soup_core::{Error, Result};
use soup_store::checkpoint::Checkpoint;
use soup_store::layout::{FILE_BYTES_MAX, plan_files};
use soup_store::location::Location;
use soup_store::signing::SigningKey;
use soup_store::{companion, data, output, pool};

use crate::args::CookArgs;
use crate::choices::OutputFormat;
use crate::inspect::{dtypes, dtypes_text, schemas};
use crate::print;
use crate::quantity::{Bytes, count, grouped};
use crate::spec::{Cluster, Cook, Embedded, Listening, Purpose};
use crate::table::pairs;

/// Plans a cook.
///
/// # Errors
/// Those that the cook would meet before it starts.
pub(crate) async fn run(args: CookArgs) -> Result<()> {
    if args.resume.is_some() {
        return Err(Error::usage("--resume goes on with a run, and a plan is of one to come: leave it out"));
    }
    let Cook { spec, cluster, notes, .. } = args.cook(Purpose::Cook)?.with_configs().await?;
    check_key(&cluster)?;
    let mut report = plan(&spec, &cluster).await?;
    report.notes.splice(0..0, notes);
    for warning in &report.warnings {
        print::line(&format!("warning: {warning}"));
    }
    match args.format {
        OutputFormat::Json => print::json(&report),
        OutputFormat::Table => print::result(&render(&report)),
    }
}

/// Reads the key that the cluster of this process would sign with.
fn check_key(cluster: &Cluster) -> Result<()> {
    let key = match cluster {
        Cluster::Embedded(Embedded { signing_key, .. })
        | Cluster::Listening(Listening { signing_key, .. }) => signing_key.as_deref(),
        Cluster::Remote(_) => None,
    };
    key.map_or(Ok(()), |file| SigningKey::read(Path::new(file)).map(drop))
}

/// The schema of checkpoints that agree with each other, as their files do, and what is to be said of that.
async fn agreed(spec: &RunSpec, checkpoints: &[Checkpoint], notes: &mut Vec<String>) -> Result<Schema> {
    let agreement = agree(&schemas(checkpoints), spec.terms())?;
    notes.extend(agreement.notes);
    notes.extend(companion::check(checkpoints, &spec.ignore_config).await?);
    let (schema, note) = batch_norm::settle(agreement.schema, spec.batch_norm)?;
    notes.extend(note);
    notes.extend(batch_norm::note_of_learning(schema.batch_norm()).filter(|_| spec.train.is_some()));
    Ok(schema)
}

/// What names ingredients has to name these.
fn check_names(
    spec: &RunSpec,
    ingredients: &[String],
    schema: &Schema,
    notes: &mut Vec<String>,
) -> Result<()> {
    if let Some(table) = &spec.ingredient_weights {
        notes.extend(given::soup(table, ingredients, schema)?.1);
    }
    if let Some(table) = &spec.ranked_by {
        ranking::given(table, ingredients)?;
    }
    Ok(())
}

async fn plan(spec: &RunSpec, cluster: &Cluster) -> Result<PlanReport> {
    let pool::Pool { checkpoints, mut notes } = pool::open_pool(&spec.pool).await?;
    let schema = agreed(spec, &checkpoints, &mut notes).await?;
    let mut configuration = soup_coordinator::configuration(spec, &checkpoints[0]).await?;
    notes.append(&mut configuration.notes);
    let ingredients: Vec<String> = checkpoints.iter().map(|c| c.name.clone()).collect();
    check_names(spec, &ingredients, &schema, &mut notes)?;
    soup_coordinator::base(spec, &checkpoints[0], &schema).await?;
    let k = ingredients.len() as u32;
    let shards = ShardPlan::new(schema.bytes());
    let memory = match spec.streams() {
        true => memory_of_streams(&shards, k, cluster, spec.workers_min),
        false => memory(&shards, k, cluster, spec.workers_min),
    };
    notes.extend(beside_devices(&shards, k, &memory));
    // A full diagnosis keeps logits too, where samples would be.
    let memory = match (memory.memory_bytes_per_worker, spec.diagnosis.level == DiagnosisLevel::Full) {
        (Some(bytes), true) => {
            Memory { samples_bytes_per_worker: Some(Cut::of(bytes, true).samples), ..memory }
        }
        _ => memory,
    };
    let (mut datasets, mut fingerprints) = (Vec::new(), Vec::new());
    for set in spec.datasets() {
        let (dataset, fingerprint) = match spec.judges_own(set) {
            Some(_) => (of_judge(set), String::new()),
            None => dataset(set).await?,
        };
        datasets.push(dataset);
        fingerprints.push(fingerprint);
    }
    notes.extend(spec.overlaps(&fingerprints));
    let mut warnings: Vec<String> = does_not_fit(&shards, k, &memory).into_iter().collect();
    if let Err(error) = output::check_target(&Location::parse(&spec.output)?, spec.overwrite).await {
        warnings.push(error.chain());
    }
    let samples = if spec.datasets().next().is_none() {
        Vec::new()
    } else {
        survey(spec, cluster, configuration, &schema, &mut notes).await?
    };
    for (dataset, samples) in datasets.iter_mut().zip(samples) {
        dataset.samples = Some(samples);
    }
    let file = |f: &soup_store::layout::OutputFile| FilePlan {
        name: f.name.clone(),
        bytes: f.header.len() as u64 + (f.range.end - f.range.start),
    };
    Ok(PlanReport {
        recipe: spec.recipe.kind.name().to_owned(),
        options: spec.recipe.clone(),
        parameters: schema.parameters(),
        dtypes: dtypes(&schema),
        bytes_per_ingredient: schema.bytes(),
        shards: Shards { count: shards.count(), bytes: shards.shard_bytes().min(schema.bytes()) },
        memory,
        evaluations: evaluations(spec, k),
        datasets,
        bytes_read: checkpoints.iter().map(|c| c.schema.bytes()).fold(0, u64::saturating_add),
        streams: spec.streams(),
        output: spec.output.clone(),
        files: plan_files(&schema, FILE_BYTES_MAX).iter().map(file).collect(),
        notes,
        warnings,
        ingredients,
    })
}

/// What a worker would find before it loads anything: the samples of every dataset, and notes.
#[cfg(feature = "worker")]
async fn survey(
    spec: &RunSpec,
    cluster: &Cluster,
    configuration: Configuration,
    schema: &Schema,
    notes: &mut Vec<String>,
) -> Result<Vec<u64>> {
    let judge = match (&spec.judge, cluster) {
        (None, _) => None,
        (Some(_), Cluster::Embedded(Embedded { judge: Some(judge), .. })) => {
            let config = crate::judges::config(&judge.flag, judge.silence_ms)?;
            Some((config, judge.folder.clone().map(Into::into)))
        }
        (Some(name), _) => {
            notes.push(format!(
                "the datasets were not looked into: judge {name} is with the cluster's workers"
            ));
            return Ok(Vec::new());
        }
    };
    let survey = soup_worker::survey::Survey {
        model_json: configuration.model_json,
        preprocessor_json: configuration.preprocessor_json,
        batch_size: spec.batch_size,
        class_subset: spec.class_subset,
        schema: schema.clone(),
        datasets: spec.datasets().cloned().collect(),
        calibration: spec.calibration_set().map(|set| set.0),
        judge,
    };
    let found = survey.run().await?;
    let soup_worker::survey::Found { judge, surveyed: found } = found;
    found.survey.check(&soup_core::survey::Demands {
        judge: &judge,
        datasets: spec.datasets().count(),
        recipe: &spec.recipe,
        full_diagnosis: spec.diagnosis.level == DiagnosisLevel::Full,
        recompute: spec.calibration.is_some(),
        answers: !spec.decoding.is_labels(),
        train: spec.train_set(),
    })?;
    notes.extend(found.notes);
    Ok(found.survey.samples)
}

/// This program cannot look into datasets: what they hold is found by the first worker.
#[cfg(not(feature = "worker"))]
async fn survey(
    _spec: &RunSpec,
    _cluster: &Cluster,
    _configuration: Configuration,
    _schema: &Schema,
    notes: &mut Vec<String>,
) -> Result<Vec<u64>> {
    notes.push("the datasets were not looked into: this program was built without the worker".to_owned());
    Ok(Vec::new())
}

/// Shards are placed as the coordinator places them.
fn memory(shards: &ShardPlan, k: u32, cluster: &Cluster, workers_min: u32) -> Memory {
    let (workers, memory, disk_offered) = match cluster {
        Cluster::Embedded(e) => {
            (e.workers, Some(e.memory_per_worker()), e.disk_per_worker().map(|(_, bytes)| bytes))
        }
        Cluster::Remote(_) | Cluster::Listening(_) => (workers_min, None, None),
    };
    let cut = memory.map(|bytes| Cut::of(bytes, false));
    let offered = cut.map(|cut| cut.shards);
    let device_memory = match cluster {
        Cluster::Embedded(e) => e.device_memory_bytes,
        Cluster::Remote(_) | Cluster::Listening(_) => None,
    };
    let device_offered = device_memory.map(|bytes| Cut::of(bytes, false).shards);
    let room = Room::new(Space {
        device: device_offered.unwrap_or(0),
        memory: offered.unwrap_or(u64::MAX),
        disk: disk_offered.unwrap_or(0),
    });
    let mut rooms = vec![room; workers.clamp(1, shards.count()) as usize];
    for shard in shards.shards() {
        let range = shards.range(shard);
        let bytes = (range.end - range.start).saturating_mul(u64::from(k));
        // What fits nowhere is counted as memory, to say how much is missing.
        let least =
            || rooms.iter().enumerate().min_by_key(|(_, r)| r.taken(Tier::Memory)).map_or(0, |(at, _)| at);
        let (at, tier) = choose_room(&rooms, bytes, |_| None).unwrap_or_else(|| (least(), Tier::Memory));
        rooms[at].take(tier, bytes);
    }
    let most = |tier| rooms.iter().map(|r| r.taken(tier)).max().unwrap_or(0);
    let (resident, on_disk) = (most(Tier::Memory), most(Tier::Disk));
    let all_of =
        |room: &Room| Tier::ALL.into_iter().map(|tier| room.taken(tier)).fold(0, u64::saturating_add);
    let all = rooms.iter().map(all_of).max().unwrap_or(0);
    let free = offered.map_or(u64::MAX, |offered| offered.saturating_sub(resident));
    // A worker that owns everything is asked for no blend.
    let blends = if rooms.len() == 1 { 0 } else { all / u64::from(k.max(1)) };
    let soups = soups_kept(free, shards.bytes_total().saturating_add(blends));
    Memory {
        workers,
        resident_bytes_per_worker: resident,
        device_bytes_per_worker: most(Tier::Device),
        device_offered_bytes_per_worker: device_offered,
        memory_bytes_per_worker: memory,
        offered_bytes_per_worker: offered,
        offered_of: match cluster {
            Cluster::Embedded(e) if e.memory_bytes.is_none() => Some(crate::resources::memory_share()),
            _ => None,
        },
        threads_of: match cluster {
            Cluster::Embedded(e) if e.threads.is_none() => Some(crate::resources::threads_share(e.workers)),
            _ => None,
        },
        disk_bytes_per_worker: on_disk,
        disk_offered_bytes_per_worker: disk_offered,
        model_bytes: shards.bytes_total(),
        soups_per_worker: soups,
        models_bytes_per_worker: shards.bytes_total().saturating_mul(soups),
        blends_bytes_per_worker: blends.saturating_mul(soups),
        samples_bytes_per_worker: cut.map(|cut| cut.samples),
    }
}

/// Of a run that keeps nothing: blends on their way to a file, and what is read of every ingredient for the next.
fn memory_of_streams(shards: &ShardPlan, k: u32, cluster: &Cluster, workers_min: u32) -> Memory {
    let shard = shards.shard_bytes().min(shards.bytes_total());
    Memory {
        resident_bytes_per_worker: 0,
        device_bytes_per_worker: 0,
        disk_bytes_per_worker: 0,
        model_bytes: 0,
        soups_per_worker: 0,
        models_bytes_per_worker: 0,
        blends_bytes_per_worker: shard.saturating_mul(SHARDS_AHEAD),
        samples_bytes_per_worker: None,
        ..memory(shards, k, cluster, workers_min)
    }
}

/// Bytes of one shard of all ingredients.
fn shard_of_all(shards: &ShardPlan, k: u32) -> u64 {
    shards.shard_bytes().min(shards.bytes_total()).saturating_mul(u64::from(k)).max(1)
}

/// What has no room on the devices, and with how many workers of this size it would have.
fn beside_devices(shards: &ShardPlan, k: u32, memory: &Memory) -> Option<String> {
    let offered = memory.device_offered_bytes_per_worker?;
    let elsewhere = memory.resident_bytes_per_worker.saturating_add(memory.disk_bytes_per_worker);
    if elsewhere == 0 {
        return None;
    }
    let shard = shard_of_all(shards, k);
    let advice = match offered / shard {
        0 => format!("a device would need {} for one of them", Bytes(memory_for(shard))),
        each => format!(
            "{} of this size would have room for all",
            count(u64::from(shards.count()).div_ceil(each), "worker")
        ),
    };
    Some(format!(
        "some shards have no room in the memory of the devices, and are blended by processors: {advice}"
    ))
}

fn does_not_fit(shards: &ShardPlan, k: u32, memory: &Memory) -> Option<String> {
    let offered = memory.offered_bytes_per_worker?;
    if memory.resident_bytes_per_worker <= offered {
        return None;
    }
    let shard = shard_of_all(shards, k);
    let disk = memory.disk_offered_bytes_per_worker;
    let each = (offered / shard).saturating_add(disk.unwrap_or(0) / shard);
    let advice = match each.min(u64::from(u32::MAX)) {
        0 => format!(
            "give each at least {} of memory (for one shard of all ingredients)",
            Bytes(memory_for(shard))
        ),
        shards_each => format!(
            "take {} of this size, or give each {} of memory",
            count(u64::from(shards.count()).div_ceil(shards_each), "worker"),
            Bytes(memory_for(memory.resident_bytes_per_worker))
        ),
    };
    let disk = disk.map_or(String::new(), |disk| format!(" of memory and {} of disk", Bytes(disk)));
    Some(format!(
        "the pool does not fit: {} would each hold up to {} of ingredients, but offer {}{disk}: {advice}",
        count(memory.workers.into(), "worker"),
        Bytes(memory.resident_bytes_per_worker.saturating_add(memory.disk_bytes_per_worker)),
        Bytes(offered)
    ))
}

fn evaluations(spec: &RunSpec, k: u32) -> Evaluations {
    let given_ranking = spec.ranked_by.is_some();
    let (ranked, trials_max) = spec.recipe.trials_max(k, given_ranking);
    let kind = spec.recipe.kind;
    // Baselines cost the single ingredients where the recipe does not rank them, and the uniform soup where it does
    // not begin with it. The result of the uniform recipe is scored in any case.
    // Where the ranking is given, only its best one is a baseline; greedy begins with it. A full diagnosis looks at all of them, and has
    // baselines.
    let full = spec.diagnosis.level == DiagnosisLevel::Full;
    let (baselines, all_singles) = (spec.baselines || full, !given_ranking || full);
    let singles = match (baselines, all_singles) {
        (true, true) if ranked < u64::from(k) => u64::from(k),
        (true, false) => u64::from(kind != RecipeKind::Greedy),
        _ => 0,
    };
    let given = matches!(kind, RecipeKind::Uniform | RecipeKind::Weighted);
    let uniform = (baselines && kind != RecipeKind::Pruned) || given;
    let soups = if baselines { 3 } else { 1 };
    // A learned soup is found on a set of its own, and then scored like any other.
    let validation_max = match kind {
        RecipeKind::Learned if baselines => {
            if all_singles {
                u64::from(k) + 2
            } else {
                3
            }
        }
        RecipeKind::Learned => 1,
        _ if spec.validation.is_none() => 0,
        RecipeKind::Weighted if baselines => u64::from(k) + 2,
        _ => ranked + trials_max + singles + u64::from(uniform),
    };
    Evaluations {
        ranked,
        trials_max,
        validation_max: validation_max + if full { between(k) } else { 0 },
        tests_max: match spec.tests.is_empty() {
            true => 0,
            // The best single one is among all of them.
            false if full => u64::from(k) + 2,
            false => soups,
        },
    }
}

/// Soups that a full diagnosis scores on the validation set besides single ingredients and the mean of all: means of some, points of lines and of a
/// plane.
fn between(k: u32) -> u64 {
    let lines = match k {
        0 | 1 => 0,
        2 => 1,
        _ => 2,
    };
    let plane = if k < 3 { 0 } else { PLANE_SIDE * PLANE_SIDE };
    u64::from(k.saturating_sub(2) + lines * (LINE_SEGMENTS - 1) + plane)
}

/// The size of a dataset, and what it is.
async fn dataset(set: &DatasetSpec) -> Result<(DatasetPlan, String)> {
    let context = |e: Error| e.context(format!("dataset {:?}", set.name));
    let files = data::files(&set.url).await.map_err(context)?;
    let bytes = files.iter().filter_map(|f| f.stamp.as_ref()).map(|s| s.size_bytes).sum();
    Ok((DatasetPlan { bytes: Some(bytes), ..of_judge(set) }, data::fingerprint_of(&files)))
}

/// One of a judge's own.
fn of_judge(set: &DatasetSpec) -> DatasetPlan {
    DatasetPlan { name: set.name.clone(), url: set.url.clone(), bytes: None, samples: None }
}

/// How often each byte of the pool is read.
fn how_often(report: &PlanReport) -> &'static str {
    match report.streams && report.files.len() > 1 {
        true => "each byte once, but twice where a shard is in two files",
        false => "each byte once",
    }
}

fn memory_text(report: &PlanReport) -> String {
    let memory = &report.memory;
    let workers = count(memory.workers.into(), "worker");
    if report.streams {
        return format!(
            "{workers} that keep nothing of the ingredients; up to {} of the soup on its way",
            Bytes(memory.blends_bytes_per_worker)
        );
    }
    let of = memory.offered_of.as_ref().map_or(String::new(), |of| format!(" ({of})"));
    let offered = match (memory.offered_bytes_per_worker, memory.memory_bytes_per_worker) {
        (Some(offered), Some(all)) => {
            format!(" of {} offered, of {} of memory{of}", Bytes(offered), Bytes(all))
        }
        _ => String::new(),
    };
    let on_disk = match (memory.disk_bytes_per_worker, memory.disk_offered_bytes_per_worker) {
        (0, _) | (_, None) => String::new(),
        (used, Some(offered)) => format!(", and {} on disk of {} offered", Bytes(used), Bytes(offered)),
    };
    let on_device = match memory.device_offered_bytes_per_worker {
        None => String::new(),
        Some(offered) => format!(
            "{} of ingredients each on its device of {} offered, and ",
            Bytes(memory.device_bytes_per_worker),
            Bytes(offered)
        ),
    };
    let resident = Bytes(memory.resident_bytes_per_worker);
    format!("{workers} with {on_device}{resident} of ingredients each{offered}{on_disk}")
}

fn render(report: &PlanReport) -> String {
    let k = report.ingredients.len() as u64;
    let memory = &report.memory;
    let evaluations = &report.evaluations;
    let mut rows = vec![
        ("recipe", report.recipe.to_owned()),
        ("pool", format!("{}, {} in all", count(k, "ingredient"), Bytes(report.bytes_read))),
        (
            // What is averaged without data may be stored in other ways.
            if report.streams { "soup" } else { "ingredient" },
            format!(
                "{} parameters ({}), {}",
                grouped(report.parameters),
                dtypes_text(&report.dtypes),
                Bytes(report.bytes_per_ingredient)
            ),
        ),
        (
            "shards",
            format!("{} of {}", count(report.shards.count.into(), "shard"), Bytes(report.shards.bytes)),
        ),
        ("memory", memory_text(report)),
        ("read", format!("{} of parameters, {}", Bytes(report.bytes_read), how_often(report))),
    ];
    if !report.streams {
        let samples = memory
            .samples_bytes_per_worker
            .map_or(String::new(), |b| format!(", and decoded samples of at most {}", Bytes(b)));
        let models = format!(
            "up to {} on each worker at a time, {}, with blends of {}{samples}",
            memory.soups_per_worker,
            Bytes(memory.models_bytes_per_worker),
            Bytes(memory.blends_bytes_per_worker)
        );
        rows.insert(rows.len() - 1, ("models", models));
        let tests = match evaluations.tests_max {
            0 => String::new(),
            most => format!("; on each test set at most {}", count(most, "soup")),
        };
        rows.push((
            "evaluations",
            format!(
                "on the validation set at most {}: {} ranked, at most {}{tests}",
                count(evaluations.validation_max, "soup"),
                grouped(evaluations.ranked),
                count(evaluations.trials_max, "trial"),
            ),
        ));
    }
    rows.extend(memory.threads_of.iter().map(|threads| ("threads", threads.clone())));
    rows.extend(report.datasets.iter().map(|d| {
        let samples = d.samples.map_or_else(String::new, |n| format!(", {}", count(n, "sample")));
        let bytes = d.bytes.map_or_else(|| "the judge's own".to_owned(), |bytes| Bytes(bytes).to_string());
        ("dataset", format!("{}: {} ({bytes}{samples})", d.name, d.url))
    }));
    rows.push(("output", report.output.clone()));
    rows.extend(report.files.iter().map(|f| ("file", format!("{} ({})", f.name, Bytes(f.bytes)))));
    rows.extend(report.notes.iter().map(|n| ("note", n.clone())));
    pairs(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choices::RecipeName;
    use crate::cookfile::CookOptions;

    fn embedded(workers: u32, memory_bytes: u64, disk_bytes: Option<u64>) -> Cluster {
        let memory_bytes = Some(memory_bytes);
        Cluster::Embedded(Embedded {
            workers,
            memory_bytes,
            threads: None,
            device: "cpu".into(),
            device_memory_bytes: None,
            precision: None,
            state_url: None,
            signing_key: None,
            judge: None,
            disk_cache: disk_bytes.map(|bytes| ("/cache".to_owned(), Some(bytes))),
        })
    }

    /// The plan of the mean of two checkpoints in `folder`, with this base.
    async fn plan_with_base(folder: &Path, base: Option<&str>) -> Result<PlanReport> {
        let header = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
        for name in ["a", "b"] {
            std::fs::write(folder.join(format!("{name}.safetensors")), &bytes).unwrap();
        }
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let options = CookOptions {
            pool: vec![path("a.safetensors"), path("b.safetensors")],
            recipe: Some(RecipeName::Uniform),
            base: base.map(path),
            output: Some(path("soup")),
            ..CookOptions::default()
        };
        let Cook { spec, cluster, .. } =
            Cook::new(options, CookOptions::default(), folder, Purpose::Cook).unwrap();
        plan(&spec, &cluster).await
    }

    #[tokio::test]
    async fn what_a_cook_would_refuse_before_it_reads_a_parameter_a_plan_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        plan_with_base(&root, None).await.unwrap();
        plan_with_base(&root, Some("a.safetensors")).await.unwrap();
        let error = plan_with_base(&root, Some("none")).await.unwrap_err();
        assert_eq!(error.kind(), soup_core::ErrorKind::Data);
        assert!(error.chain().starts_with("base \""), "{}", error.chain());
        let Cluster::Embedded(of) = embedded(1, 1 << 20, None) else { unreachable!() };
        check_key(&Cluster::Embedded(of.clone())).unwrap();
        let nowhere = Some(root.join("none.key").to_str().unwrap().to_owned());
        let error = check_key(&Cluster::Embedded(Embedded { signing_key: nowhere, ..of })).unwrap_err();
        assert_eq!(error.kind(), soup_core::ErrorKind::Configuration);
    }

    /// A pool of 4 ingredients with 16 shards of 64 KiB.
    fn memory_of(workers: u32, memory_bytes: u64) -> (Memory, Option<String>) {
        let shards = ShardPlan::new(1 << 20);
        let memory = memory(&shards, 4, &embedded(workers, memory_bytes, None), 1);
        let warning = does_not_fit(&shards, 4, &memory);
        (memory, warning)
    }

    #[test]
    fn shards_are_spread_over_the_workers() {
        let resident = |workers| memory_of(workers, 1 << 30).0.resident_bytes_per_worker;
        assert_eq!(resident(1), 4 << 20);
        assert_eq!(resident(2), 2 << 20);
        assert_eq!(resident(3), 6 << 18);
        assert_eq!(resident(1000), 1 << 18);
        let memory = memory_of(2, 1 << 30).0;
        assert_eq!((memory.models_bytes_per_worker, memory.blends_bytes_per_worker), (3 << 20, 3 << 19));
        // Where little is free there is one soup at a time, and without peers no blend is kept.
        let tight = memory_of(1, memory_for(5 << 20)).0;
        assert_eq!((tight.soups_per_worker, tight.models_bytes_per_worker), (1, 1 << 20));
        assert_eq!(tight.blends_bytes_per_worker, 0);
        assert_eq!(memory.samples_bytes_per_worker, Some((1u64 << 30) / 10));
    }

    #[test]
    fn pools_that_do_not_fit_are_told_what_would() {
        assert_eq!(memory_of(2, memory_for(2 << 20)).1, None);
        let warning = memory_of(2, memory_for(1 << 20)).1.unwrap();
        assert!(
            warning.contains("take 4 workers of this size, or give each 2.50 MiB of memory"),
            "{warning}"
        );
        let warning = memory_of(2, 1000).1.unwrap();
        assert!(
            warning.contains("at least 320 KiB of memory (for one shard of all ingredients)"),
            "{warning}"
        );
    }

    #[test]
    fn what_has_no_room_in_memory_goes_to_the_disk() {
        let shards = ShardPlan::new(1 << 20);
        let planned = |disk| {
            let memory = memory(&shards, 4, &embedded(2, memory_for(1 << 20), Some(disk)), 1);
            (
                memory.resident_bytes_per_worker,
                memory.disk_bytes_per_worker,
                does_not_fit(&shards, 4, &memory),
            )
        };
        assert_eq!(planned(1 << 20), (1 << 20, 1 << 20, None));
        let (.., warning) = planned(1 << 19);
        let warning = warning.unwrap();
        assert!(warning.contains("but offer 1.00 MiB of memory and 512 KiB of disk"), "{warning}");
    }

    /// 58 ingredients of ViT-G, 1.84 billion parameters each in bf16: what the workshop's largest soup was made of.
    #[test]
    fn a_pool_on_devices_says_how_many_it_needs() {
        let shards = ShardPlan::new(1_840_000_000 * 2);
        let planned = |workers, device_memory_bytes| {
            let Cluster::Embedded(embedded) = embedded(workers, memory_for(300 << 30), None) else {
                unreachable!()
            };
            let cluster = Cluster::Embedded(Embedded { device_memory_bytes, ..embedded });
            let memory = memory(&shards, 58, &cluster, 1);
            let note = beside_devices(&shards, 58, &memory);
            (memory, note)
        };
        let (memory, note) = planned(4, Some(80 << 30));
        assert_eq!((memory.resident_bytes_per_worker, note), (0, None));
        assert_eq!(memory.device_offered_bytes_per_worker, Some(64 << 30));
        let (memory, note) = planned(2, Some(80 << 30));
        assert!(memory.device_bytes_per_worker > 60 << 30 && memory.resident_bytes_per_worker > 0);
        let note = note.unwrap();
        assert!(note.contains("4 workers of this size would have room for all"), "{note}");
        let note = planned(1, Some(1 << 20)).1.unwrap();
        assert!(note.contains("a device would need"), "{note}");
        // Without a device there is nothing to say of one.
        assert_eq!(planned(1, None).1, None);
    }

    #[test]
    fn evaluations_are_bounded() {
        let check = |text: &str, expect: (u64, u64, u64, u64)| {
            let file = CookOptions::parse(&format!("pool: /p\nvalidation: /v\n{text}")).unwrap();
            let cook = Cook::new(CookOptions::default(), file, std::path::Path::new("/home"), Purpose::Cook)
                .unwrap();
            let e = evaluations(&cook.spec, 16);
            assert_eq!((e.ranked, e.trials_max, e.validation_max, e.tests_max), expect, "{text}");
        };
        check("recipe: greedy\ntest: {a: /t}\n", (16, 15, 32, 3));
        check("recipe: greedy\nno-baselines: true\ntest: {a: /t}\n", (16, 15, 31, 1));
        check("recipe: uniform\n", (0, 0, 17, 0));
        check("recipe: uniform\nno-baselines: true\n", (0, 0, 1, 0));
        check("recipe: best-single\n", (16, 0, 17, 0));
        check("recipe: pruned\norder: pool\n", (1, 31, 48, 0));
        check("recipe: learned\n", (0, 0, 18, 0));
        check("recipe: learned\ninit: greedy\nno-baselines: true\n", (16, 15, 1, 0));
        // Means of 2 to 15, two lines of 9 points without their ends, and a plane of 49; on test sets all ingredients.
        let full = 14 + 18 + 49;
        check("recipe: greedy\ndiagnose: full\ntest: {a: /t}\n", (16, 15, 32 + full, 18));
        check("recipe: uniform\nno-baselines: true\ndiagnose: full\ntest: {a: /t}\n", (0, 0, 17 + full, 18));
    }
}
