//! `soupctl cook` and `taste`: submit a run to a cluster, embedded or not, and prints its result.

use std::path::Path;

use soup_coordinator::Window;
use soup_core::judge::JudgeId;
use soup_core::report::RunReport;
use soup_core::run::RunSpec;
use soup_core::{Error, Result};
use soup_store::state::State;

use crate::admin;
use crate::args::CookArgs;
use crate::choices::OutputFormat;
use crate::client::{Ask, Client};
use crate::cookfile::current_folder;
use crate::gates;
use crate::judges::JudgeFlag;
use crate::listening;
use crate::print;
use crate::progress::Progress;
use crate::quantity::Lookahead;
use crate::runs;
use crate::signals::StopSignals;
use crate::spec::{Cluster, Cook, Embedded, Purpose};
use crate::table;

/// Cooks.
///
/// # Errors
/// Those of the run, and of reaching or starting a cluster.
pub(crate) async fn run(args: CookArgs, purpose: Purpose) -> Result<()> {
    let window = Window::default();
    let watch = Some(admin::watch(&window));
    let cooked = admin::beside(&args.admin, watch, Box::pin(cook(&args, purpose, window))).await;
    if let Some(file) = &args.termination_message {
        admin::leave(file, cooked.as_deref());
    }
    cooked.map(|_| ())
}

/// Cooks, shows the result, and gives the line that says where it is.
async fn cook(args: &CookArgs, purpose: Purpose, window: Window) -> Result<String> {
    let Cook { spec, fresh, gates, cluster, notes } = match &args.resume {
        Some(run) => resumed(args, run).await?,
        None => args.cook(purpose)?.with_configs().await?,
    };
    let mut signals = StopSignals::new()?;
    let mut progress = Progress::new(&spec, args.quiet);
    for note in notes {
        progress.line(&format!("note: {note}"));
    }
    let ask = Ask { spec: &spec, fresh, run: args.resume.as_deref(), on_interrupt: args.on_interrupt };
    let json = match &cluster {
        Cluster::Remote(url) => {
            Client::connect(url, &args.trust).await?.cook(&ask, &mut progress, &mut signals).await
        }
        Cluster::Embedded(config) => embedded(config, window, &ask, &mut progress, &mut signals).await,
        Cluster::Listening(config) => {
            let with = (&args.timing, &args.trust);
            listening::cook(config, window, with, &ask, &mut progress, &mut signals).await
        }
    }?;
    let tests: Vec<String> = spec.tests.iter().map(|t| t.name.clone()).collect();
    let (line, report) = show(&json, &tests, args.format, &progress)?;
    gates::check(&gates, &report)?;
    Ok(line)
}

/// Prints the result of a run, and gives the line that says where it is, and the result.
///
/// # Errors
/// Where it cannot be printed.
pub(crate) fn show(
    json: &str,
    tests: &[String],
    format: OutputFormat,
    progress: &Progress,
) -> Result<(String, RunReport)> {
    let report: RunReport = serde_json::from_str(json)
        .map_err(|e| Error::internal("the coordinator's report cannot be read").with_source(e))?;
    let what = if report.sha256.is_empty() { "report" } else { "soup" };
    let line = format!("the {what} is in {}", report.output);
    progress.line(&line);
    match format {
        OutputFormat::Json => print::json(&report),
        OutputFormat::Table => print::result(&table::render(&report, tests)),
    }?;
    Ok((line, report))
}

/// The cook that a run in the state was, on the cluster that `args` name.
async fn resumed(args: &CookArgs, run: &str) -> Result<Cook> {
    let cwd = current_folder()?;
    let mut flags = args.options.clone();
    flags.resolve(&cwd, None)?;
    let url = flags.state_url.clone().unwrap_or_else(runs::default_state);
    let state = State::open(&url)?;
    if flags.state_url.is_none() {
        state.check_owner()?;
    }
    let plan = state.plan(run).await?;
    let plan =
        plan.ok_or_else(|| Error::usage(format!("there is no run {run:?} in {}", state.location())))?;
    let plan: serde_json::Value = serde_json::from_slice(&plan)
        .map_err(|e| Error::data(format!("the plan of run {run:?} cannot be read")).with_source(e))?;
    if plan.get("fresh").is_some() {
        let text =
            format!("run {run} was cooked with --fresh: only a coordinator on its state goes on with it");
        return Err(Error::usage(text));
    }
    let mut spec: RunSpec = serde_json::from_value(plan["spec"].clone())
        .map_err(|e| Error::data(format!("the plan of run {run:?} cannot be read")).with_source(e))?;
    let judge = serde_json::from_value(plan["judge"].clone()).unwrap_or_default();
    judged_by(&mut spec, judge, flags.judge.as_ref())?;
    let operation = state.read(run).await?.0.operation.unwrap_or_default();
    spec.overwrite = flags.overwrite.unwrap_or(operation.overwrite);
    spec.lookahead = flags.lookahead.map_or(operation.lookahead, Lookahead::trials);
    spec.audit_ppm = flags.audit.map_or(operation.audit_ppm, |share| share.0);
    flags.state_url = Some(url);
    let cluster = crate::spec::cluster(&flags)?;
    spec.workers_min = crate::spec::workers_min(flags.min_workers, &cluster);
    crate::spec::check_workers(&spec, &cluster)?;
    gates::check_spec(&flags.gate, &spec)?;
    Ok(Cook { cluster, spec, fresh: false, gates: flags.gate, notes: Vec::new() })
}

/// Has `spec` judged by whom its run was, who may be said to be somewhere by `flag`.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) where that is another judge.
fn judged_by(spec: &mut RunSpec, judge: Option<JudgeId>, flag: Option<&JudgeFlag>) -> Result<()> {
    let native = JudgeId::native();
    // What the client says of arithmetic is who judges, once a run is known.
    spec.numerics = judge.filter(|j| j.name == native.name && *j != native).map(|j| j.numerics);
    match flag {
        Some(flag) if spec.judge.as_ref() != Some(&flag.name) => Err(Error::usage(format!(
            "--judge names {:?}, and the run is judged by {:?}: leave it out",
            flag.name,
            spec.judge.as_ref().unwrap_or(&native.name)
        ))),
        _ => Ok(()),
    }
}

/// The state of a cook whose coordinator is in this process: where it is named, or beside the output; and what is signed there.
///
/// # Errors
/// Those of a place or a key that cannot be used.
pub(crate) fn state((url, key): (&Option<String>, &Option<String>), spec: &RunSpec) -> Result<State> {
    let state = match url {
        Some(url) => State::open(url)?,
        None => State::open(&State::beside(&spec.output)?)?,
    };
    // Who names one says whose it is.
    if url.is_none() {
        state.check_owner()?;
    }
    crate::keys::signing(state, key.as_deref().map(Path::new))
}

#[cfg(feature = "worker")]
async fn embedded(
    config: &Embedded,
    window: Window,
    ask: &Ask<'_>,
    progress: &mut Progress,
    signals: &mut StopSignals,
) -> Result<String> {
    let state = state((&config.state_url, &config.signing_key), ask.spec)?;
    let mut cluster = crate::cluster::EmbeddedCluster::start(config, window, state)?;
    let mut client = cluster.client().await?;
    let result = tokio::select! {
        result = client.cook(ask, progress, signals) => result,
        error = cluster.failure() => Err(error),
    };
    progress.end();
    cluster.stop().await;
    let peak = crate::resources::memory_peak(Some(config.workers), config.judge.is_some());
    if let (Ok(_), Some(text)) = (&result, peak) {
        progress.line(&text);
    }
    result
}

#[cfg(not(feature = "worker"))]
async fn embedded(
    _: &Embedded,
    _: Window,
    _: &Ask<'_>,
    _: &mut Progress,
    _: &mut StopSignals,
) -> Result<String> {
    Err(Error::usage("this soupctl was built without workers of its own: name a cluster with --coordinator"))
}

#[cfg(test)]
mod tests {
    use soup_core::ErrorKind;

    use super::*;

    fn spec(judge: Option<&str>) -> RunSpec {
        let spec = serde_json::json!({
            "pool": ["/p"], "recipe": {
                "kind": "uniform", "order": "sorted", "accept": "at-least", "seed": 0, "max_ingredients": null, "passes": 1,
                "metric": "accuracy"
            },
            "validation": { "name": "v", "url": "/v", "limit": null }, "tests": [], "output": "/o", "overwrite": false,
            "batch_size": 1, "allow_nan": false, "baselines": false, "lookahead": 0, "workers_min": 1, "model_config": null,
            "preprocessor_config": null, "judge": judge
        });
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn a_run_is_gone_on_with_by_its_own_judge() {
        let numerics = |judge: Option<JudgeId>| {
            let mut spec = spec(None);
            judged_by(&mut spec, judge, None).unwrap();
            spec.numerics
        };
        assert_eq!(numerics(None), None);
        assert_eq!(numerics(Some(JudgeId::native())), None);
        let cuda = JudgeId { numerics: "cuda-sm90-tf32".to_owned(), ..JudgeId::native() };
        assert_eq!(numerics(Some(cuda)).as_deref(), Some("cuda-sm90-tf32"));
        let flag: JudgeFlag = "lm=cmd:x".parse().unwrap();
        assert!(judged_by(&mut spec(Some("lm")), None, Some(&flag)).is_ok());
        let error = judged_by(&mut spec(None), Some(JudgeId::native()), Some(&flag)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.chain().contains("--judge names \"lm\", and the run is judged by \"native\""));
    }
}
