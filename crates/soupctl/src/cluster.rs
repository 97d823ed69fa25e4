//! The embedded cluster: a coordinator and workers in this process, which talk over loopback as real ones do.

use std::net::Ipv4Addr;
use std::time::Duration;

use soup_coordinator::CoordinatorConfig;
use soup_core::{Error, ErrorKind, Result};
use soup_store::state::State;
use soup_worker::{DiskCache, WorkerConfig};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::resources;
use crate::spec::Embedded;

/// How long the roles may take to end.
const GRACE: Duration = Duration::from_secs(10);
/// Workers connect to a listener of their own process.
const CONNECT_TIMEOUT_MS: u64 = 30_000;

/// A running embedded cluster.
pub(crate) struct EmbeddedCluster {
    /// Where its coordinator listens.
    pub(crate) url: String,
    workers_stop: watch::Sender<bool>,
    coordinator_stop: watch::Sender<bool>,
    roles: JoinSet<Result<()>>,
}

impl EmbeddedCluster {
    /// Starts the coordinator and the workers.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where loopback cannot be listened on.
    pub(crate) async fn start(config: &Embedded, state: State) -> Result<EmbeddedCluster> {
        let (coordinator_stop, workers_stop) = (watch::Sender::new(false), watch::Sender::new(false));
        let mut roles = JoinSet::new();
        let (listener, url) = loopback().await?;
        // Other runs in the same state may be in the hands of other processes.
        let coordinator = CoordinatorConfig { recover: false, ..CoordinatorConfig::default() };
        let coordinator = soup_coordinator::serve(coordinator, state, listener, stop(&coordinator_stop));
        roles.spawn(coordinator);
        let threads = config.threads.unwrap_or_else(|| resources::threads_per_worker(config.workers));
        let memory_bytes = config.memory_per_worker();
        let disk_cache =
            config.disk_per_worker().map(|(folder, bytes)| DiskCache { folder: folder.to_path_buf(), bytes });
        for number in 1..=config.workers {
            let (listener, _) = loopback().await?;
            let worker = WorkerConfig {
                coordinator: url.clone(),
                name: format!("w{number}"),
                advertise: None,
                slots: threads,
                memory_bytes,
                disk_cache: disk_cache.clone(),
                device: config.device.clone(),
                connect_timeout_ms: CONNECT_TIMEOUT_MS,
            };
            roles.spawn(soup_worker::run(worker, listener, stop(&workers_stop)));
        }
        Ok(EmbeddedCluster { url, workers_stop, coordinator_stop, roles })
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

async fn loopback() -> Result<(TcpListener, String)> {
    let failed = |e| Error::configuration("cannot listen on 127.0.0.1").with_source(e);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
    let url = format!("http://{}", listener.local_addr().map_err(failed)?);
    Ok((listener, url))
}

fn stop(sender: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut receiver = sender.subscribe();
    async move {
        // An error means that the sender is gone, which is a stop too.
        let _ = receiver.wait_for(|stop| *stop).await;
    }
}
