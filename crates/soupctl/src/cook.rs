//! `soupctl cook`: submits a run to a cluster, embedded or not, and prints its result.

use soup_core::report::RunReport;
use soup_core::{Error, Result};

use crate::args::CookArgs;
use crate::choices::OutputFormat;
use crate::client::Client;
use crate::print;
use crate::progress::Progress;
use crate::signals::StopSignals;
use crate::spec::{Cluster, Cook, Embedded};
use crate::table;

/// Cooks.
///
/// # Errors
/// Those of the run, and of reaching or starting a cluster.
pub(crate) async fn run(args: CookArgs) -> Result<()> {
    let Cook { spec, cluster } = args.cook()?;
    let mut signals = StopSignals::new()?;
    let mut progress = Progress::new(&spec, args.quiet);
    let json = match &cluster {
        Cluster::Remote(url) => submit(url, &spec, &mut progress, &mut signals).await,
        Cluster::Embedded(config) => embedded(config, &spec, &mut progress, &mut signals).await,
    }?;
    let report: RunReport = serde_json::from_str(&json)
        .map_err(|e| Error::internal("the coordinator's report cannot be read").with_source(e))?;
    progress.line(&format!("the soup is in {}", report.output));
    match args.format {
        OutputFormat::Json => print::json(&report),
        OutputFormat::Table => {
            let tests: Vec<String> = spec.tests.iter().map(|t| t.name.clone()).collect();
            print::result(&table::render(&report, &tests))
        }
    }
}

async fn submit(
    url: &str,
    spec: &soup_core::run::RunSpec,
    progress: &mut Progress,
    signals: &mut StopSignals,
) -> Result<String> {
    Client::connect(url).await?.cook(spec, progress, signals).await
}

#[cfg(feature = "worker")]
async fn embedded(
    config: &Embedded,
    spec: &soup_core::run::RunSpec,
    progress: &mut Progress,
    signals: &mut StopSignals,
) -> Result<String> {
    let mut cluster = crate::cluster::EmbeddedCluster::start(config).await?;
    let url = cluster.url.clone();
    let result = tokio::select! {
        result = submit(&url, spec, progress, signals) => result,
        error = cluster.failure() => Err(error),
    };
    progress.end();
    cluster.stop().await;
    result
}

#[cfg(not(feature = "worker"))]
async fn embedded(
    _: &Embedded,
    _: &soup_core::run::RunSpec,
    _: &mut Progress,
    _: &mut StopSignals,
) -> Result<String> {
    Err(Error::usage("this soupctl was built without workers of its own: name a cluster with --coordinator"))
}
