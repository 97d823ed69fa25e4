//! `soupctl cook --listen`: a coordinator for one cook, which workers join over the network. Whoever cooks is in this process, and talks to
//! it over a network that is inside it too. When the run has ended the workers are told so, unless the same command goes on with it.

use std::time::Duration;

use soup_coordinator::{CoordinatorConfig, Stop, Window};
use soup_core::{Error, Result};
use soup_trust::{InProcess, Role};
use tokio::sync::oneshot;

use crate::args::TimingArgs;
use crate::client::{Ask, Client};
use crate::print;
use crate::progress::Progress;
use crate::serve;
use crate::signals::StopSignals;
use crate::spec::Listening;
use crate::trust::TrustArgs;

/// The coordinator's name on the network inside the process.
const COORDINATOR: &str = "coordinator";

/// Workers that are there hear within this time that it is over.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Cooks with the workers that join, and gives the result of the run, the JSON document.
///
/// # Errors
/// Those of the run; [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where the address cannot be listened on.
pub(crate) async fn cook(
    config: &Listening,
    window: Window,
    (timing, trust): (&TimingArgs, &TrustArgs),
    ask: &Ask<'_>,
    progress: &mut Progress,
    signals: &mut StopSignals,
) -> Result<String> {
    let state = crate::cook::state((&config.state_url, &config.signing_key), ask.spec)?;
    state.probe().await?;
    let credentials = trust.credentials(&[Role::Coordinator])?;
    let listener = serve::listen(&config.listen).await?;
    let beyond = serve::reach(&listener, trust)?;
    let address = serve::ready(&listener)?;
    if beyond {
        print::line(
            "warning: whoever reaches this address can join as a worker: --insecure speaks plain text",
        );
    }
    let network = InProcess::default();
    let own = network.listen(COORDINATOR)?;
    let url = own.address();
    // Other runs in the same state may be in the hands of other processes.
    let coordinator = CoordinatorConfig {
        recover: false,
        one_process: false,
        insecure: beyond,
        window,
        ..serve::timed(timing)
    };
    let (stop, stopped) = oneshot::channel();
    let stopped = async move { stopped.await.unwrap_or(Stop::Suspend) };
    let serving = soup_coordinator::serve_one_cook(coordinator, state, (listener, credentials), own, stopped);
    let mut serving = tokio::spawn(serving);
    let mut client = Client::embedded(&url, &network).await?;
    // What listens everywhere is reached by this host's name.
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let at = if address.ip().is_unspecified() {
        format!("{host}:{}", address.port())
    } else {
        address.to_string()
    };
    progress.line(&format!("workers join with: soupctl worker --coordinator {at}"));
    let result = tokio::select! {
        result = client.cook(ask, progress, signals) => result,
        ended = &mut serving => Err(ended_early(ended)),
    };
    progress.end();
    let last = match &result {
        Err(error) if error.kind().is_transient() => Stop::Suspend,
        _ => Stop::Over { workers: ask.spec.workers_min },
    };
    // Where it has ended, there is nobody to stop.
    if stop.send(last).is_ok() && !serving.is_finished() {
        let ended = match tokio::time::timeout(AT_ONCE, &mut serving).await {
            Ok(ended) => ended,
            Err(_) => {
                print::line("waiting for workers, which are to hear that it has ended: some seconds");
                serving.await
            }
        };
        tracing::debug!(?ended, "the coordinator ended");
    }
    result
}

/// Why a coordinator ended that nobody asked to.
fn ended_early(ended: std::result::Result<Result<()>, tokio::task::JoinError>) -> Error {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) => Error::internal("the coordinator ended early"),
        Err(panic) => Error::internal("the coordinator panicked").with_source(panic),
    }
}
