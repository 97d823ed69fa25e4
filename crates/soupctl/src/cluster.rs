//! The embedded cluster: a coordinator and workers in this process. They talk as real ones do, but over a network that is inside the
//! process too: other users of this host have nothing to connect to.

use std::sync::Arc;
use std::time::Duration;

use soup_coordinator::{CoordinatorConfig, Window};
use soup_core::{Error, ErrorKind, Result};
use soup_store::state::State;
use soup_trust::{InProcess, Policy};
use soup_worker::{Compute, DeviceConfig, DiskCache, Parts, WorkerConfig};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::spec::Embedded;
use crate::{judges, resources};

/// The coordinator's name on the network; workers are `w1`, `w2` and so on.
const COORDINATOR: &str = "coordinator";
/// How long the roles may take to end.
const GRACE: Duration = Duration::from_secs(10);
/// Workers connect to a listener of their own process.
const CONNECT_TIMEOUT_MS: u64 = 30_000;

/// A running embedded cluster.
pub(crate) struct EmbeddedCluster {
    network: InProcess,
    /// Where its coordinator listens on that.
    url: String,
    workers_stop: watch::Sender<bool>,
    coordinator_stop: watch::Sender<bool>,
    roles: JoinSet<Result<()>>,
}

impl EmbeddedCluster {
    /// Starts the coordinator and the workers.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where two roles have one name.
    pub(crate) fn start(config: &Embedded, window: Window, state: State) -> Result<EmbeddedCluster> {
        let (coordinator_stop, workers_stop) = (watch::Sender::new(false), watch::Sender::new(false));
        let mut roles = JoinSet::new();
        let network = InProcess::default();
        let listener = network.listen(COORDINATOR)?;
        let url = listener.address();
        // Other runs in the same state may be in the hands of other processes.
        let coordinator = CoordinatorConfig { recover: false, window, ..CoordinatorConfig::default() };
        let coordinator = soup_coordinator::serve_with(coordinator, state, listener, stop(&coordinator_stop));
        roles.spawn(coordinator);
        let threads = config.threads.unwrap_or_else(|| resources::threads_per_worker(config.workers));
        let memory_bytes = config.memory_per_worker();
        let disk_cache =
            config.disk_per_worker().map(|(folder, bytes)| DiskCache { folder: folder.to_path_buf(), bytes });
        let judges = config.judge.iter().map(|judge| judges::config(&judge.flag, judge.silence_ms));
        let judges = judges.collect::<Result<Vec<_>>>()?;
        for number in 1..=config.workers {
            let name = format!("w{number}");
            let listener = network.listen(&name)?;
            let parts = Parts {
                address: listener.address(),
                incoming: listener,
                policy: Policy::Everybody,
                coordinator: Arc::new(network.clone()),
                peers: Arc::new(network.clone()),
                compute: Compute::threads(threads),
            };
            let worker = WorkerConfig {
                coordinator: url.clone(),
                name,
                advertise: None,
                slots: threads,
                memory_bytes,
                disk_cache: disk_cache.clone(),
                device: DeviceConfig {
                    name: config.device.clone(),
                    memory_bytes: config.device_memory_bytes,
                    sharers: config.workers,
                    precision: config.precision.clone().unwrap_or_else(|| DeviceConfig::default().precision),
                },
                connect_timeout_ms: CONNECT_TIMEOUT_MS,
                orphan_timeout_ms: CONNECT_TIMEOUT_MS,
                judges: judges.clone(),
                judge_dir: config.judge.as_ref().and_then(|judge| judge.folder.clone()).map(Into::into),
            };
            let working = soup_worker::run_with(worker, parts, stop(&workers_stop));
            roles.spawn(async move { working.await.map(|_| ()) });
        }
        Ok(EmbeddedCluster { network, url, workers_stop, coordinator_stop, roles })
    }

    /// A client of its coordinator.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](soup_core::ErrorKind::Unavailable) where that has ended already.
    pub(crate) async fn client(&self) -> Result<Client> {
        Client::embedded(&self.url, &self.network).await
    }

    /// Waits for a role to end although nobody asked it to, and says why.
    pub(crate) async fn failure(&mut self) -> Error {
        match self.roles.join_next().await {
            Some(Ok(Err(error))) if error.kind() == ErrorKind::TryAgain => error,
            Some(Ok(Err(error))) => error.context("the embedded cluster failed"),
            Some(Err(panic)) => Error::internal("a part of the embedded cluster panicked").with_source(panic),
            Some(Ok(Ok(()))) | None => Error::internal("a part of the embedded cluster ended early"),
        }
    }

    /// Ends all roles, the workers first.
    pub(crate) async fn stop(mut self) {
        self.workers_stop.send_replace(true);
        self.coordinator_stop.send_replace(true);
        let all_ended = async {
            while let Some(ended) = self.roles.join_next().await {
                tracing::debug!(?ended, "a role ended");
            }
        };
        if tokio::time::timeout(GRACE, all_ended).await.is_err() {
            tracing::warn!("the embedded cluster did not end in time");
        }
    }
}

fn stop(sender: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut receiver = sender.subscribe();
    async move {
        // An error means that the sender is gone, which is a stop too.
        let _ = receiver.wait_for(|stop| *stop).await;
    }
}
