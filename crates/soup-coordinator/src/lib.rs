//! The coordinator: feeds events to soup-core's state machine and performs the actions it returns.
//!
//! # Words
//!
//! - The *hub* is the one task that owns all state: the roster of workers, the queue of runs, the run in progress.
//!   Everything else sends it messages and waits for answers.
//! - A run is *prepared* once its pool's headers are read and agree, its shards are cut and its output is staged.
//! - The *event log* of a run is what its watchers see, from the first event on.
//!
//! # Flow
//!
//! `soupctl` submits a run ([`service`]); the hub queues it, has it prepared ([`prepare`]) and then drives its
//! [`Machine`](soup_core::machine::Machine): what workers say becomes events, and actions become messages to workers
//! ([`messages`]), entries of the event log, and in the end the published output ([`publish`]).
//!
//! No parameter of any model passes through here: only headers, shapes, counts and digests.

mod event_log;
mod hub;
mod messages;
mod prepare;
mod publish;
mod roster;
mod running;
mod service;

use std::future::Future;
use std::time::Duration;

use futures::Stream;
use soup_core::{Error, Result};
use soup_proto::CONTROL_BYTES_MAX;
use soup_proto::v1::coordinator_server::CoordinatorServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpIncoming};

/// How long open streams may take to end after a shutdown was asked for.
const GRACE: Duration = Duration::from_secs(5);

/// Settings of a coordinator.
#[derive(Clone, Copy, Debug)]
pub struct CoordinatorConfig {
    /// Interval at which workers send heartbeats.
    pub heartbeat_ms: u32,
    /// A worker that has not been heard for so long is lost.
    pub lease_ms: u64,
    /// How long a run waits for workers.
    pub start_timeout_ms: u64,
    /// Runs that may wait behind the one in progress.
    pub runs_queued_max: usize,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        CoordinatorConfig {
            heartbeat_ms: 1000,
            lease_ms: 10_000,
            start_timeout_ms: 600_000,
            runs_queued_max: 16,
        }
    }
}

/// Serves workers and `soupctl` on `listener` until `shutdown` resolves. A run in progress is cancelled then, and its
/// staged output removed.
///
/// # Errors
/// [`ErrorKind::Unavailable`](soup_core::ErrorKind::Unavailable) where the listener breaks.
pub async fn serve(
    config: CoordinatorConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    serve_with(config, TcpIncoming::from(listener).with_nodelay(Some(true)), shutdown).await
}

/// [`serve`], on connections of any kind: what a simulated network gives, for one.
///
/// # Errors
/// Those of [`serve`].
pub async fn serve_with<C, E>(
    config: CoordinatorConfig,
    incoming: impl Stream<Item = Result<C, E>> + Send + 'static,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    let (handle, hub) = hub::start(config);
    let service = CoordinatorServer::new(service::Service::new(handle.clone()))
        .max_decoding_message_size(CONTROL_BYTES_MAX)
        .max_encoding_message_size(CONTROL_BYTES_MAX);
    let (stopped, mut stop) = tokio::sync::watch::channel(false);
    let until_stopped = {
        let mut stop = stop.clone();
        async move {
            // An error means that the sender is gone, which is a stop too.
            let _ = stop.wait_for(|s| *s).await;
        }
    };
    let server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(15)))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, until_stopped);
    let server = tokio::spawn(server);
    tokio::select! {
        () = shutdown => {}
        _ = stop.changed() => {}
    }
    // The hub goes first: it ends the streams that the server would otherwise wait for.
    handle.stop().await;
    let _ = stopped.send(true);
    // The hub's own task cannot panic on input; joining it only waits for the removal of staged output.
    let _ = tokio::time::timeout(GRACE, hub).await;
    match tokio::time::timeout(GRACE, server).await {
        Ok(Ok(Err(e))) => Err(Error::unavailable("the coordinator's listener broke").with_source(e)),
        _ => Ok(()),
    }
}
