//! From options to a specification: defaults, and checks that need no I/O.

mod learned;
mod ranking;
mod trials;

use std::path::Path;

use soup_core::judge::JudgeId;
use soup_core::recipe::given::{self, WeightTable};
use soup_core::recipe::{ALPHA_DEFAULT, Accept, RecipeKind, RecipeSpec};
use soup_core::run::{CONFIG_BYTES_MAX, DiagnosisSpec, Evaluate, NamedConfig, RunSpec};
use soup_core::{Error, ErrorKind, Result};
use soup_store::location::Location;
use soup_store::{local, pool, read};

use crate::choices::DiagnosisName;
use crate::cookfile::{CookOptions, is_own, is_url};
use crate::gates::{self, Gate};
use crate::judges::{JudgeFlag, JudgeSource};
use crate::quantity::Lookahead;
use crate::resources;

/// Workers of an embedded cluster, if not said.
const WORKERS_DEFAULT: u32 = 2;
/// Most workers of an embedded cluster.
const WORKERS_MAX: u32 = 1024;
const BATCH_SIZE_DEFAULT: u32 = 32;
/// Where embedded workers compute unless told otherwise.
const CPU: &str = "cpu";
/// The precision of a native judge that nobody asks for another one.
const PRECISION_DEFAULT: &str = "f32";
const JUDGE_TIMEOUT_DEFAULT_MS: u64 = 60_000;
/// Name of the validation set in reports.
const VALIDATION: &str = "validation";
/// Name of the calibration set.
const CALIBRATION: &str = "calibration";

/// A cook that is ready to be submitted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cook {
    /// What to do.
    pub(crate) spec: RunSpec,
    /// Whether it is a run of its own.
    pub(crate) fresh: bool,
    /// What the soup has to score.
    pub(crate) gates: Vec<Gate>,
    /// Who does it.
    pub(crate) cluster: Cluster,
    /// What people should know of how it was asked for.
    pub(crate) notes: Vec<String>,
}

/// What a cook is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A soup, with what was found out about its pool.
    Cook,
    /// What can be found out about the pool, without a soup.
    Taste,
}

/// Who does the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cluster {
    /// A coordinator and workers in this process.
    Embedded(Embedded),
    /// The cluster of the coordinator at this address.
    Remote(String),
    /// This process as coordinator, for workers that join.
    Listening(Listening),
}

/// A coordinator for one cook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listening {
    /// Where workers join, `HOST:PORT`.
    pub(crate) listen: String,
    /// Where runs are kept; `None`: beside the output.
    pub(crate) state_url: Option<String>,
    /// What it signs with.
    pub(crate) signing_key: Option<String>,
}

/// An embedded cluster; what is `None` depends on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Embedded {
    pub(crate) workers: u32,
    /// Bytes of shards that each worker may keep.
    pub(crate) memory_bytes: Option<u64>,
    /// Where shards are kept that have no room in memory, and how many bytes each worker may keep there.
    pub(crate) disk_cache: Option<(String, Option<u64>)>,
    /// Threads of each worker.
    pub(crate) threads: Option<u32>,
    pub(crate) device: String,
    /// Bytes of the device's memory that each worker may use.
    pub(crate) device_memory_bytes: Option<u64>,
    /// Arithmetic of the native judge.
    pub(crate) precision: Option<String>,
    /// Where runs are kept; `None`: beside the output.
    pub(crate) state_url: Option<String>,
    /// What the coordinator signs with.
    pub(crate) signing_key: Option<String>,
    pub(crate) judge: Option<Judge>,
}

/// The judge of an embedded cluster, besides the native one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judge {
    pub(crate) flag: JudgeFlag,
    /// Through which it is handed soups; `None` depends on this machine.
    pub(crate) folder: Option<String>,
    /// How long it may say nothing.
    pub(crate) silence_ms: u64,
}

impl Embedded {
    /// Bytes of shards that each worker may keep in memory.
    pub(crate) fn memory_per_worker(&self) -> u64 {
        self.memory_bytes.unwrap_or_else(|| resources::memory_per_worker(self.workers))
    }

    /// Where each worker may keep others, and how many bytes.
    pub(crate) fn disk_per_worker(&self) -> Option<(&Path, u64)> {
        let (folder, bytes) = self.disk_cache.as_ref()?;
        let folder = Path::new(folder);
        Some((folder, bytes.unwrap_or_else(|| resources::disk_per_worker(folder, self.workers))))
    }
}

impl Cook {
    /// The cook that `flags` and then `file` ask for. The paths of both are absolute already; the default output is
    /// under the folder `cwd`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for what is missing, out of range or contradictory.
    pub(crate) fn new(flags: CookOptions, file: CookOptions, cwd: &Path, purpose: Purpose) -> Result<Cook> {
        let mut file = beside(&flags, file);
        let notes = trials::moot(&flags, &mut file).into_iter().collect();
        let mut options = flags.or(file);
        if purpose == Purpose::Taste {
            options.diagnose = options.diagnose.or(Some(DiagnosisName::Full));
        }
        // First, since other messages quote what is wrong.
        check_places(&options)?;
        let cluster = cluster(&options)?;
        let recipe = recipe(&options)?;
        let suffix = if purpose == Purpose::Taste { "taste" } else { recipe.kind.name() };
        let output = match &options.output {
            Some(output) => output.clone(),
            None => default_output(&options.pool, suffix, cwd)?,
        };
        let mut validation = options.validation.clone().map(|v| v.named(VALIDATION)).transpose()?;
        let train = learned::train_set(&options, validation.as_mut())?;
        let baselines = validation.is_some() && !options.no_baselines.unwrap_or(false);
        let ingredient_weights = weights(&options)?;
        let native = validation.is_some() && options.judge.is_none();
        let numerics = options.numerics.or_else(|| numerics_of(&cluster).filter(|_| native));
        let spec = RunSpec {
            pool: options.pool,
            recipe,
            validation,
            tests: options.test.into_iter().map(|(name, set)| set.named(&name)).collect::<Result<_>>()?,
            train,
            diagnosis: DiagnosisSpec {
                level: options.diagnose.map(Into::into).unwrap_or_default(),
                base: options.base,
                require_shared_init: options.require_shared_init.unwrap_or(false),
                report_only: purpose == Purpose::Taste,
            },
            output,
            overwrite: options.overwrite.unwrap_or(false),
            batch_size: options.batch_size.unwrap_or(BATCH_SIZE_DEFAULT),
            allow_nan: options.allow_nan.unwrap_or(false),
            baselines,
            evaluate: options.evaluate.map_or_else(Evaluate::default, Into::into),
            digest: options.digest.map(Into::into).unwrap_or_default(),
            lookahead: options.lookahead.and_then(Lookahead::trials),
            workers_min: workers_min(options.min_workers, &cluster),
            audit_ppm: options.audit.map_or(0, |share| share.0),
            model_config: options.model_config.map(unread),
            preprocessor_config: options.preprocessor_config.map(unread),
            ignore_config: options.ignore_config,
            class_subset: options.class_subset.unwrap_or(false),
            ingredient_weights,
            ranked_by: options.ranked_by.as_deref().map(ranking::read).transpose()?,
            missing: options.missing.map(Into::into).unwrap_or_default(),
            out_dtype: options.out_dtype.map(Into::into),
            numerics,
            judge: options.judge.map(|judge| judge.name),
            batch_norm: options.batch_norm.map(Into::into),
            calibration: options.calibration.map(|set| set.named(CALIBRATION)).transpose()?,
            decoding: options.decoding.map(Into::into).unwrap_or_default(),
        };
        spec.validate()?;
        check_output(&spec)?;
        check_workers(&spec, &cluster)?;
        gates::check_spec(&options.gate, &spec)?;
        Ok(Cook { spec, fresh: options.fresh.unwrap_or(false), gates: options.gate, cluster, notes })
    }

    /// The same with the text of the configurations that are named.
    ///
    /// # Errors
    /// Those of reading them; [`ErrorKind::Data`](soup_core::ErrorKind::Data) for one that is empty, too large or no text.
    pub(crate) async fn with_configs(mut self) -> Result<Cook> {
        let RunSpec { model_config, preprocessor_config, .. } = &mut self.spec;
        for config in [model_config, preprocessor_config].into_iter().flatten() {
            let bytes = read::read_small(&Location::parse(&config.url)?, CONFIG_BYTES_MAX).await?;
            config.text = String::from_utf8(bytes.into())
                .map_err(|e| Error::data(format!("{} is not UTF-8", config.url)).with_source(e))?;
            if config.text.is_empty() {
                return Err(Error::data(format!("{} is empty", config.url)));
            }
        }
        Ok(self)
    }
}

/// A configuration of which only the name is known yet.
fn unread(url: String) -> NamedConfig {
    NamedConfig { url, text: String::new() }
}

/// What a cook file says beside these flags: where the command line says who works, the file's cluster is moot.
fn beside(flags: &CookOptions, mut file: CookOptions) -> CookOptions {
    if flags.coordinator.is_some() || flags.listen.is_some() {
        file = file.without_workers();
        (file.judge_dir, file.judge_timeout) = (None, None);
        (file.coordinator, file.listen) = (None, None);
    }
    if flags.coordinator.is_some() {
        file.signing_key = None;
    }
    file
}

/// Largest file of weights.
const WEIGHTS_BYTES_MAX: u64 = 64 << 20;

/// The weights that are given, from a file or in a cook file.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for both, and for a file that cannot be read or understood.
fn weights(options: &CookOptions) -> Result<Option<WeightTable>> {
    let (path, inline) = (&options.weights_file, &options.ingredient_weights);
    let Some(path) = path else { return Ok(inline.clone()) };
    if inline.is_some() {
        return Err(Error::usage(
            "--weights-file and ingredient-weights both give weights: give one of them",
        ));
    }
    let about = format!("weights file {path:?}");
    let table = given::parse(&small_file(&about, path, WEIGHTS_BYTES_MAX)?).map_err(|e| {
        Error::usage(format!("{about} is not a JSON object from ingredients to weights")).with_source(e)
    })?;
    Ok(Some(table))
}

/// The content of the file at `path`, which has at most `bytes_max` bytes; `about` names it.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) where it cannot be read.
fn small_file(about: &str, path: &str, bytes_max: u64) -> Result<Vec<u8>> {
    let unreadable = |e: std::io::Error| Error::usage(format!("{about} cannot be read")).with_source(e);
    local::read_small(Path::new(path), bytes_max).map_err(unreadable)
}

/// Refuses what names no place, and URLs with credentials, which must not be shown.
fn check_places(options: &CookOptions) -> Result<()> {
    let CookOptions {
        pool,
        validation,
        train,
        calibration,
        test,
        model_config,
        preprocessor_config,
        base,
        output,
        state_url,
        ..
    } = options;
    let own = |url: &&String| is_own(options.judge.as_ref(), url);
    let sets = validation
        .iter()
        .chain(train)
        .chain(calibration)
        .chain(test.iter().map(|(_, set)| set))
        .map(|set| &set.url);
    let sets = sets.filter(|url| !own(url));
    let others = [model_config, preprocessor_config, base, output, state_url].into_iter().flatten();
    let places = sets.chain(others).filter(|url| !url.is_empty()).map(|url| Location::parse(url).map(|_| ()));
    let pools = pool.iter().filter(|url| !url.is_empty()).map(|url| pool::check_url(url));
    for checked in pools.chain(places) {
        match checked {
            Err(e) if e.kind() == ErrorKind::Usage => return Err(e),
            // A store that cannot be set up here may well be on the cluster's machines.
            _ => {}
        }
    }
    Ok(())
}

fn recipe(options: &CookOptions) -> Result<RecipeSpec> {
    let kind = options.recipe.map(RecipeKind::from).unwrap_or_default();
    let learn = learned::learn(options, kind)?;
    trials::check(options)?;
    let accept = options.accept.map(Into::into).unwrap_or_default();
    Ok(RecipeSpec {
        kind,
        order: options.order.map(Into::into).unwrap_or_default(),
        accept,
        alpha: options.alpha.or_else(|| (accept == Accept::Significant).then_some(ALPHA_DEFAULT)),
        seed: options.seed.unwrap_or(0),
        max_ingredients: options.max_ingredients,
        passes: options.passes.unwrap_or(if kind == RecipeKind::Pruned { 2 } else { 1 }),
        metric: options.metric.as_ref().map(|m| m.0.clone()).unwrap_or_default(),
        learn,
    })
}

/// How the name of the arithmetic begins by which the embedded cluster's native judge judges, where that is not the processor's f32.
fn numerics_of(cluster: &Cluster) -> Option<String> {
    let Cluster::Embedded(embedded) = cluster else { return None };
    let kind = embedded.device.split(':').next().unwrap_or_default();
    match &embedded.precision {
        _ if kind != CPU => Some(kind.to_owned()),
        // Where there is none of that precision, workers say so.
        Some(precision) if precision != PRECISION_DEFAULT => Some(JudgeId::processors(precision)),
        _ => None,
    }
}

/// Who does the work.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for options that contradict each other.
pub(crate) fn cluster(options: &CookOptions) -> Result<Cluster> {
    let embedded_only = embedded_only(options);
    if let Some(url) = &options.coordinator {
        let coordinator = coordinator_url(url)?;
        if options.listen.is_some() {
            return Err(Error::usage(format!(
                "--listen makes this process the coordinator, but --coordinator (or SOUP_COORDINATOR) names {coordinator}: give one of them"
            )));
        }
        let signing_key = options.signing_key.as_ref().map(|_| "signing-key");
        if let Some(name) = embedded_only.or(signing_key) {
            return Err(Error::usage(format!(
                "--{name} is about an embedded cluster, but --coordinator (or SOUP_COORDINATOR) names the cluster \
                 {coordinator}: give one of them"
            )));
        }
        return Ok(Cluster::Remote(coordinator));
    }
    if let Some(listen) = &options.listen {
        if let Some(name) = embedded_only {
            return Err(Error::usage(format!(
                "--{name} is about an embedded cluster, but with --listen workers join that bring their own: give it to soupctl worker"
            )));
        }
        let (state_url, signing_key) = (options.state_url.clone(), options.signing_key.clone());
        return Ok(Cluster::Listening(Listening { listen: listen.clone(), state_url, signing_key }));
    }
    let judge = judge(options)?;
    let device = device(options)?;
    let one = judge.is_some() || device != CPU;
    let workers = options.workers.unwrap_or(if one { 1 } else { WORKERS_DEFAULT });
    if let Some(Judge { flag: JudgeFlag { source: Some(JudgeSource::Unix(path)), .. }, .. }) = &judge
        && workers > 1
    {
        return Err(Error::usage(format!(
            "the judge at {path} serves one worker: leave out --workers, or have each worker start one with cmd:COMMAND"
        )));
    }
    for (name, value, max) in [("workers", Some(workers), WORKERS_MAX), ("threads", options.threads, 4096)] {
        if value.is_some_and(|v| v < 1 || v > max) {
            return Err(Error::usage(format!("--{name} must be 1 to {max}")));
        }
    }
    let disk_bytes = options.disk.map(|d| d.0);
    if let Some(folder) = options.disk_cache.as_deref().filter(|folder| is_url(folder)) {
        return Err(Error::usage(format!("--disk-cache {folder}: name a folder on a disk of this machine")));
    }
    if options.disk_cache.is_none() && disk_bytes.is_some() {
        return Err(Error::usage("--disk is about the space in a --disk-cache: name its folder too"));
    }
    Ok(Cluster::Embedded(Embedded {
        workers,
        memory_bytes: options.memory.map(|m| m.0),
        disk_cache: options.disk_cache.clone().map(|folder| (folder, disk_bytes)),
        threads: options.threads,
        device,
        precision: options.precision.clone(),
        device_memory_bytes: options.device_memory.map(|m| m.0),
        state_url: options.state_url.clone(),
        signing_key: options.signing_key.clone(),
        judge,
    }))
}

/// Where embedded workers are to compute; what `auto` stands for is looked up.
#[cfg(feature = "worker")]
fn device(options: &CookOptions) -> Result<String> {
    let Some(name) = options.device.clone() else { return Ok(CPU.to_owned()) };
    let config = soup_worker::DeviceConfig { name, ..soup_worker::DeviceConfig::default() };
    config.resolved().map(|config| config.name)
}

/// Where embedded workers would compute.
#[cfg(not(feature = "worker"))]
fn device(options: &CookOptions) -> Result<String> {
    Ok(options.device.clone().unwrap_or_else(|| CPU.to_owned()))
}

/// An option that is given, and is about an embedded cluster alone.
fn embedded_only(options: &CookOptions) -> Option<&'static str> {
    let all = [
        ("workers", options.workers.is_some()),
        ("memory", options.memory.is_some()),
        ("disk-cache", options.disk_cache.is_some()),
        ("disk", options.disk.is_some()),
        ("threads", options.threads.is_some()),
        ("device", options.device.is_some()),
        ("device-memory", options.device_memory.is_some()),
        ("precision", options.precision.is_some()),
        ("judge-dir", options.judge_dir.is_some()),
        ("judge-timeout", options.judge_timeout.is_some()),
        ("judge NAME=SOURCE", options.judge.as_ref().is_some_and(|judge| judge.source.is_some())),
    ];
    all.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
}

/// The judge that embedded workers are to have.
fn judge(options: &CookOptions) -> Result<Option<Judge>> {
    let Some(flag) = options.judge.clone() else {
        let given =
            [("judge-dir", options.judge_dir.is_some()), ("judge-timeout", options.judge_timeout.is_some())];
        return match given.into_iter().find(|(_, given)| *given) {
            None => Ok(None),
            Some((name, _)) => Err(Error::usage(format!("--{name} is about a judge: name it with --judge"))),
        };
    };
    if flag.source.is_none() {
        return Err(Error::usage(format!(
            "nobody says where judge {0:?} is: give --judge {0}=unix:/path/of/socket or {0}='cmd:COMMAND' on the command line, or \
             the --coordinator of a cluster that has it",
            flag.name
        )));
    }
    let silence_ms = options.judge_timeout.map_or(JUDGE_TIMEOUT_DEFAULT_MS, |t| t.0);
    Ok(Some(Judge { flag, folder: options.judge_dir.clone(), silence_ms }))
}

/// A coordinator's address, `HOST:PORT` or a URL of these, checked.
pub(crate) fn coordinator_url(text: &str) -> Result<String> {
    let url = if is_url(text) { text.to_owned() } else { format!("http://{text}") };
    // Without what may be a password.
    let shown = text.rsplit('@').next().unwrap_or_default();
    let wrong = |why: &str| Err(Error::usage(format!("coordinator {shown:?} {why}: name it as HOST:PORT")));
    let Ok(parsed) = url::Url::parse(&url) else {
        return wrong("is not a URL");
    };
    if !matches!(parsed.scheme(), "http" | "https") {
        return wrong("begins with neither http:// nor https://");
    }
    if parsed.host_str().is_none_or(str::is_empty) || parsed.port_or_known_default().is_none() {
        return wrong("has no host");
    }
    if !parsed.username().is_empty() || parsed.password().is_some() || parsed.path() != "/" {
        return wrong("is more than a host and a port");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// `<cwd>/soups/<pool>-<recipe>`.
fn default_output(pool: &[String], suffix: &str, cwd: &Path) -> Result<String> {
    let Some(first) = pool.first().filter(|p| !p.is_empty()) else {
        return Err(Error::usage("no pool given: name a folder of checkpoints with --pool"));
    };
    let folder = cwd.join("soups").join(format!("{}-{suffix}", pool_name(first)));
    let output = folder
        .to_str()
        .ok_or_else(|| Error::usage("the current folder's name is not UTF-8: name a folder with --output"))?
        .to_owned();
    match pool.iter().find(|entry| within(&output, entry)) {
        Some(entry) => Err(Error::usage(format!(
            "the default output {output:?} would be inside the pool {entry:?}: name a folder outside with --output"
        ))),
        None => Ok(output),
    }
}

/// The name of the folder that a pool entry is about: the last one without wildcards that says something.
fn pool_name(entry: &str) -> &str {
    let path = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    let telling = |part: &&str| {
        !part.is_empty()
            && !part.contains(['*', '?', '[', '{'])
            && !part.contains(".safetensors")
            && *part != "ingredients"
    };
    path.rsplit('/').find(telling).unwrap_or("pool")
}

/// Whether `inner` is `outer`, or in the folder `outer`.
fn within(inner: &str, outer: &str) -> bool {
    let outer = outer.trim_end_matches('/');
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Refuses an output whose replacement would remove what the run reads.
fn check_output(spec: &RunSpec) -> Result<()> {
    let configs = spec.model_config.iter().chain(&spec.preprocessor_config).map(|config| &config.url);
    let inputs = spec.pool.iter().chain(spec.datasets().map(|d| &d.url)).chain(configs);
    match inputs.into_iter().find(|input| within(input, &spec.output)) {
        Some(input) => Err(Error::usage(format!(
            "output {:?} holds the input {input:?}: name another folder",
            spec.output
        ))),
        None => Ok(()),
    }
}

/// With how many workers a run begins: as many as are asked for, or all of an embedded cluster.
pub(crate) fn workers_min(asked: Option<u32>, cluster: &Cluster) -> u32 {
    asked.unwrap_or(match cluster {
        Cluster::Embedded(embedded) => embedded.workers,
        Cluster::Remote(_) | Cluster::Listening(_) => 1,
    })
}

/// An embedded cluster never grows, so it must be able to start.
pub(crate) fn check_workers(spec: &RunSpec, cluster: &Cluster) -> Result<()> {
    match cluster {
        Cluster::Embedded(e) if spec.workers_min > e.workers => Err(Error::usage(format!(
            "--min-workers is {}, but the embedded cluster has --workers {}",
            spec.workers_min, e.workers
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choices::RecipeName;
    use crate::quantity::Bytes;

    fn options() -> CookOptions {
        let mut options = CookOptions::parse("pool: /pools/vit\nvalidation: /data/val.parquet\n").unwrap();
        options.resolve(Path::new("/"), None).unwrap();
        options
    }

    fn cook(flags: CookOptions) -> Result<Cook> {
        Cook::new(flags, CookOptions::default(), Path::new("/home"), Purpose::Cook)
    }

    #[track_caller]
    fn refused(flags: CookOptions, expect: &str) {
        let error = cook(flags).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.chain().contains(expect), "{}", error.chain());
    }

    #[test]
    fn defaults() {
        let Cook { spec, cluster, .. } = cook(options()).unwrap();
        assert_eq!(spec.output, "/home/soups/vit-greedy");
        assert_eq!((spec.batch_size, spec.lookahead, spec.workers_min, spec.recipe.passes), (32, None, 2, 1));
        assert!(spec.baselines && !spec.overwrite && !spec.allow_nan);
        assert_eq!(spec.validation.unwrap().name, "validation");
        let embedded = Embedded {
            workers: 2,
            memory_bytes: None,
            disk_cache: None,
            threads: None,
            device: "cpu".into(),
            device_memory_bytes: None,
            precision: None,
            state_url: None,
            signing_key: None,
            judge: None,
        };
        assert_eq!(cluster, Cluster::Embedded(embedded));
    }

    #[test]
    fn a_device_judges_by_its_own_numerics() {
        let numerics = |options| cook(options).unwrap().spec.numerics;
        let on = |device: &str| CookOptions { device: Some(device.into()), ..options() };
        assert_eq!(numerics(on("cpu")), None);
        assert_eq!(numerics(on("cuda:1")), Some("cuda".to_owned()));
        let in_precision = |precision: &str| CookOptions { precision: Some(precision.into()), ..options() };
        assert_eq!(numerics(in_precision("f32")), None);
        assert_eq!(numerics(in_precision("bf16")), Some("flex-bf16".to_owned()));
        assert_eq!(
            numerics(CookOptions { numerics: Some("flex".into()), ..on("cuda") }),
            Some("flex".to_owned())
        );
        // Where nothing is judged, and where another judge does, there is nothing to say.
        let averaged = CookOptions { recipe: Some(RecipeName::Uniform), validation: None, ..on("cuda") };
        assert_eq!(numerics(averaged), None);
        let lm = || Some("lm=cmd:x".parse().unwrap());
        assert_eq!(numerics(CookOptions { judge: lm(), ..on("cuda") }), None);
        refused(
            CookOptions { numerics: Some("cuda".into()), judge: lm(), ..options() },
            "is about the native judge",
        );
        refused(CookOptions { numerics: Some("Cuda!".into()), ..options() }, "--numerics \"Cuda!\" is none");
    }

    #[test]
    fn pruned_makes_two_passes() {
        let pruned = cook(CookOptions { recipe: Some(RecipeName::Pruned), ..options() }).unwrap();
        assert_eq!(pruned.spec.recipe.passes, 2);
        assert_eq!(pruned.spec.output, "/home/soups/vit-pruned");
    }

    #[test]
    fn options_that_mean_nothing_are_refused_from_flags_and_noted_from_a_file() {
        let uniform = || Some(RecipeName::Uniform);
        let odd = CookOptions { recipe: uniform(), passes: Some(2), ..options() };
        refused(odd.clone(), "--passes belongs to the greedy and the pruned recipe, and this one is uniform");
        let file = CookOptions { passes: Some(2), ..options() };
        let of =
            |flags: CookOptions, file: CookOptions| Cook::new(flags, file, Path::new("/home"), Purpose::Cook);
        let flags = CookOptions { recipe: uniform(), ..CookOptions::default() };
        let cooked = of(flags, file.clone()).unwrap();
        assert_eq!((cooked.notes.len(), cooked.spec.recipe.passes), (1, 1));
        assert!(cooked.notes[0].contains("passes means nothing to --recipe uniform"), "{:?}", cooked.notes);
        let cooked = of(CookOptions::default(), file).unwrap();
        assert_eq!((cooked.notes.len(), cooked.spec.recipe.passes), (0, 2));
        // The file's own recipe does not look at it.
        assert!(of(CookOptions::default(), odd).is_err());
    }

    #[test]
    fn submitted_runs_start_with_one_worker() {
        let Cook { spec, cluster, .. } =
            cook(CookOptions { coordinator: Some("host:7070".into()), ..options() }).unwrap();
        assert_eq!((spec.workers_min, cluster), (1, Cluster::Remote("host:7070".into())));
    }

    #[test]
    fn what_is_missing_is_named() {
        refused(CookOptions { pool: vec![], ..options() }, "--pool");
        refused(CookOptions { pool: vec![], output: Some("/o".into()), ..options() }, "--pool");
        refused(CookOptions { validation: None, ..options() }, "--validation");
    }

    #[test]
    fn contradictions_and_ranges_are_named() {
        let remote = || CookOptions { coordinator: Some("http://host:1".into()), ..options() };
        refused(CookOptions { workers: Some(3), ..remote() }, "--workers is about an embedded cluster");
        refused(CookOptions { memory: Some(Bytes(1)), ..remote() }, "--memory is about an embedded cluster");
        let disk_cache = Some("/cache".to_owned());
        refused(CookOptions { disk_cache, ..remote() }, "--disk-cache is about an embedded cluster");
        refused(
            CookOptions { disk: Some(Bytes(1)), ..options() },
            "--disk is about the space in a --disk-cache",
        );
        refused(CookOptions { threads: Some(1), ..remote() }, "--threads is about an embedded cluster");
        refused(CookOptions { workers: Some(0), ..options() }, "--workers must be 1 to");
        refused(CookOptions { min_workers: Some(3), ..options() }, "--min-workers is 3");
        refused(CookOptions { batch_size: Some(0), ..options() }, "--batch-size is 0");
        refused(CookOptions { passes: Some(0), ..options() }, "passes is 0");
        refused(CookOptions { output: Some("/pools".into()), ..options() }, "holds the input \"/pools/vit\"");
        refused(CookOptions { output: Some("/pools/vit/".into()), ..options() }, "holds the input");
    }

    #[test]
    fn credentials_are_refused_before_anything_is_quoted() {
        let secret = || "s3://user:SECRET@bucket/x".to_owned();
        for flags in [
            CookOptions { pool: vec![secret()], ..options() },
            CookOptions { pool: vec![secret() + "/*.safetensors"], ..options() },
            CookOptions { pool: vec![secret() + "/*/x/y?"], ..options() },
            CookOptions { validation: Some(secret().parse().unwrap()), ..options() },
            CookOptions { test: vec![("a".to_owned(), secret().parse().unwrap())], ..options() },
            CookOptions { model_config: Some(secret()), ..options() },
            CookOptions { preprocessor_config: Some(secret()), ..options() },
            CookOptions { output: Some(secret()), ..options() },
            CookOptions { output: Some(secret()), batch_size: Some(0), ..options() },
        ] {
            let error = cook(flags).unwrap_err().chain();
            assert!(error.contains("environment variables") && !error.contains("SECRET"), "{error}");
        }
        let error = coordinator_url("http://user:SECRET@host:1").unwrap_err().chain();
        assert!(!error.contains("SECRET"), "{error}");
    }

    #[test]
    fn test_sets_have_names_of_their_own() {
        let set = || "/t".parse().unwrap();
        let twice = vec![("a".to_owned(), set()), ("a".to_owned(), set())];
        refused(CookOptions { test: twice, ..options() }, "dataset name \"a\" is empty or used twice");
        refused(CookOptions { test: vec![("validation".to_owned(), set())], ..options() }, "used twice");
    }

    #[test]
    fn a_coordinator_on_the_command_line_replaces_the_files_cluster() {
        let flags = CookOptions { coordinator: Some("http://host:1".into()), ..CookOptions::default() };
        let file = CookOptions { workers: Some(8), memory: Some(Bytes(5)), ..options() };
        let cook = Cook::new(flags, file, Path::new("/home"), Purpose::Cook).unwrap();
        assert_eq!(cook.cluster, Cluster::Remote("http://host:1".into()));
    }

    #[test]
    fn the_default_output_is_named_after_the_pool_and_outside_of_it() {
        let check = |entry: &str, expect: &str| assert_eq!(pool_name(entry), expect, "{entry}");
        check("/pools/vit-fashion", "vit-fashion");
        check("/pools/vit-fashion/", "vit-fashion");
        check("/pools/vit-fashion/ingredients", "vit-fashion");
        check("s3://bucket/vit/*.safetensors", "vit");
        check("/a/b/m1.safetensors", "b");
        check("s3://bucket", "bucket");
        check("/", "pool");
        refused(CookOptions { pool: vec!["/home".into()], ..options() }, "inside the pool \"/home\"");
        assert!(!within("/pools/vit-2", "/pools/vit"));
    }

    #[test]
    fn coordinators_are_hosts_and_ports() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(coordinator_url(text).ok().as_deref(), expect, "{text}")
        };
        check("127.0.0.1:7070", Some("127.0.0.1:7070"));
        check("http://host:7070/", Some("http://host:7070"));
        check("http://[::1]:7070", Some("http://[::1]:7070"));
        check("https://host:7070/", Some("https://host:7070"));
        check("ftp://host:7070", None);
        check("http://user:secret@host:7070", None);
        check("http://host:7070/path", None);
        check("", None);
        check("http://", None);
        check("host:99999", None);
    }
}
