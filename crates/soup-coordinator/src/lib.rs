//! The coordinator: feeds events to soup-core's state machine and performs the actions it returns.
//!
//! # Words
//!
//! - The *hub* is the one task that owns all state: the roster of workers, the queue of runs, the run in progress.
//!   Everything else sends it messages and waits for answers.
//! - A run is *prepared* once its pool's headers are read and agree and it is known which run it is; it is *opened* once its
//!   journal is this coordinator's, and *started*, when its turn has come, once its output is staged.
//! - The *event log* of a run is what its watchers see, from the first event on.
//!
//! # Flow
//!
//! `soupctl` submits a run ([`service`]); it is prepared ([`prepare`]), opened ([`opening`]) and queued; the hub then drives
//! its [`Machine`](soup_core::machine::Machine): what workers say becomes events, and actions become what workers are told
//! ([`exchange`]), records of the journal ([`journaling`]), entries of the event log, and in the end the published output
//! ([`publish`]). Soups that earlier runs scored are not scored again ([`recall`]). However a run ends, it ends in one way
//! ([`hub::ending`]).
//!
//! The hub knows nothing of the wire: streams of workers translate what is said and told ([`messages`]), the event log keeps what
//! watchers are sent.
//!
//! A coordinator that finds that another one owns its run stops at once and touches nothing ([`hub`]).
//!
//! No parameter of any model passes through here: only headers, shapes, counts and digests.

mod addresses;
mod admission;
mod backlog;
mod configuration;
mod diagnosis;
mod event_log;
mod exchange;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hub;
mod identity;
mod journaling;
mod learned;
mod live;
mod messages;
mod opening;
mod places;
mod prepare;
mod publish;
mod recall;
mod registration;
mod roster;
mod running;
mod seal;
mod service;
mod significance;
mod streaming;
mod trace;

pub use crate::configuration::{Configuration, configuration};
pub use crate::live::Window;
pub use crate::prepare::base;

use std::future::Future;
use std::time::Duration;

use futures::{FutureExt as _, Stream};
use soup_core::{Error, Result};
use soup_proto::CONTROL_BYTES_MAX;
use soup_proto::v1::coordinator_server::CoordinatorServer;
use soup_store::state::State;
use soup_trust::{Credentials, Gate, Intake, Policy, Sizes};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::Server;
use tonic::transport::server::Connected;

/// How long open streams may take to end after a shutdown was asked for.
const GRACE: Duration = Duration::from_secs(5);

/// How long workers are waited for that are to hear that the work is over; one whose connection broke is back within that.
const LINGER: Duration = Duration::from_secs(10);

/// A connection that says nothing for so long is asked for a sign of life, and closed if none comes for as long again.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Requests that are open on one connection.
const STREAMS_MAX: u32 = 64;

/// Windows of a stream and of a connection: what somebody may send before it is taken. Answers of workers are the largest.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// How long a reply may lie there unread.
const UNREAD: Duration = Duration::from_secs(300);

/// How large messages may be, by method: a worker introduces itself with what is checked in [`registration`], then its answers grow with
/// the number of tensors; a run may have weights for each tensor of each ingredient; all else is a name.
fn sizes(path: &str) -> Sizes {
    match path.rsplit('/').next() {
        Some("Work") => Sizes { first: 256 << 10, others: CONTROL_BYTES_MAX },
        Some("Submit") => Sizes::of_all(32 << 20),
        _ => Sizes::of_all(4 << 10),
    }
}

/// Settings of a coordinator.
#[derive(Clone, Debug)]
pub struct CoordinatorConfig {
    /// Interval at which workers send heartbeats.
    pub heartbeat_ms: u32,
    /// A worker that has not been heard for so long is lost.
    pub lease_ms: u64,
    /// How long a run waits for workers.
    pub start_timeout_ms: u64,
    /// Runs that may wait behind the one in progress.
    pub runs_queued_max: usize,
    /// Runs that one client may have waiting or in progress.
    pub runs_per_client_max: usize,
    /// Plain text is spoken beyond this host.
    pub insecure: bool,
    /// Go on with the runs that an earlier coordinator left in the state.
    pub recover: bool,
    /// Workers are in this process, and so see what is in its memory.
    pub one_process: bool,
    /// Through which others in its process see what it does.
    pub window: Window,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        CoordinatorConfig {
            heartbeat_ms: 1000,
            lease_ms: 10_000,
            start_timeout_ms: 600_000,
            runs_queued_max: 16,
            runs_per_client_max: 16,
            insecure: false,
            recover: true,
            one_process: true,
            window: Window::default(),
        }
    }
}

/// Serves workers and `soupctl` on `listener` until `shutdown` resolves: with credentials members of their cluster, without them
/// everybody. Runs live in `state`; one that is in progress then is left there for the next coordinator.
///
/// # Errors
/// [`ErrorKind::Unavailable`](soup_core::ErrorKind::Unavailable) where the listener breaks or the journal cannot be written;
/// [`ErrorKind::TryAgain`](soup_core::ErrorKind::TryAgain) where runs are left that are not done, or where another
/// coordinator took one over.
pub async fn serve(
    config: CoordinatorConfig,
    state: State,
    listener: TcpListener,
    credentials: Option<Credentials>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let mut coordinator = Coordinator::start(config, state);
    coordinator.listen(listener, credentials, Takes::Runs);
    coordinator.serve(shutdown.map(|()| Stop::Suspend)).await
}

/// [`serve`], on connections of any kind and to everybody: what a simulated network gives, for one.
///
/// # Errors
/// As for [`serve`].
pub async fn serve_with<C, E>(
    config: CoordinatorConfig,
    state: State,
    incoming: impl Stream<Item = Result<C, E>> + Send + 'static,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    let mut coordinator = Coordinator::start(config, state);
    coordinator.face(incoming, Policy::Everybody, Takes::Runs);
    coordinator.serve(shutdown.map(|()| Stop::Suspend)).await
}

/// Serves one cook: workers on `listener`, as for [`serve`], and on `own` whoever cooks, in this process. Nobody else can submit runs. When
/// the work is over, workers are told so.
///
/// # Errors
/// As for [`serve`].
pub async fn serve_one_cook<C, E>(
    config: CoordinatorConfig,
    state: State,
    (listener, credentials): (TcpListener, Option<Credentials>),
    own: impl Stream<Item = Result<C, E>> + Send + 'static,
    stop: impl Future<Output = Stop> + Send + 'static,
) -> Result<()>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    let mut coordinator = Coordinator::start(config, state);
    coordinator.listen(listener, credentials, Takes::NoRuns);
    coordinator.face(own, Policy::Everybody, Takes::Runs);
    coordinator.serve(stop).await
}

/// How a coordinator is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// What is in progress goes on with the next coordinator, for which workers wait.
    Suspend,
    /// There is no more work: workers, of which there were to be so many, are told so and end.
    Over {
        /// How many have to be told at least, if they come in time.
        workers: u32,
    },
}

/// Whether runs can be submitted somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Runs,
    NoRuns,
}

/// A hub, and the servers through which it is reached.
struct Coordinator {
    config: CoordinatorConfig,
    state: State,
    handle: hub::Handle,
    hub: JoinHandle<Result<()>>,
    servers: JoinSet<std::result::Result<(), tonic::transport::Error>>,
    stopped: watch::Sender<bool>,
}

impl Coordinator {
    fn start(config: CoordinatorConfig, state: State) -> Coordinator {
        let (handle, hub) = hub::start(config.clone(), opening::Keeper::new(state.clone()));
        config.window.open(handle.clone());
        let (servers, stopped) = (JoinSet::new(), watch::Sender::new(false));
        Coordinator { config, state, handle, hub, servers, stopped }
    }

    /// Serves on a socket: members of a cluster, or everybody.
    fn listen(&mut self, listener: TcpListener, credentials: Option<Credentials>, takes: Takes) {
        let policy = Policy::of(credentials.as_ref());
        let incoming = soup_trust::listen(listener, credentials, soup_trust::connections_max());
        self.face(incoming, policy, takes);
    }

    /// Serves on connections.
    fn face<C, E>(
        &mut self,
        incoming: impl Stream<Item = Result<C, E>> + Send + 'static,
        policy: Policy,
        takes: Takes,
    ) where
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let service = service::Service::new(
            self.handle.clone(),
            self.state.clone(),
            self.config.one_process,
            takes == Takes::Runs,
        );
        let service = CoordinatorServer::new(service)
            .max_decoding_message_size(CONTROL_BYTES_MAX)
            .max_encoding_message_size(CONTROL_BYTES_MAX);
        let mut stop = self.stopped.subscribe();
        let until_stopped = async move {
            // An error means that the sender is gone, which is a stop too.
            let _ = stop.wait_for(|s| *s).await;
        };
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .layer(Gate::new(policy))
            .layer(Intake::new(sizes, UNREAD))
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, until_stopped);
        self.servers.spawn(server);
    }

    /// Serves until the hub ends, or is asked to.
    async fn serve(mut self, stop: impl Future<Output = Stop>) -> Result<()> {
        let broke = |e: tonic::transport::Error| {
            Error::unavailable("the coordinator's listener broke").with_source(e)
        };
        let panicked = |e| Error::internal("the coordinator's hub ended early").with_source(e);
        let ended = tokio::select! {
            stop = stop => Err(stop),
            ended = &mut self.hub => Ok(ended.map_err(panicked).flatten()),
            Some(served) = self.servers.join_next() => Ok(match served {
                Ok(Err(e)) => Err(broke(e)),
                _ => Err(Error::internal("the coordinator's server ended early")),
            }),
        };
        // The hub goes first: it ends the streams that the servers would otherwise wait for.
        let result = match ended {
            Ok(ended) => ended,
            Err(stop) => {
                if let Stop::Over { workers } = stop {
                    // Whoever does not come in time finds out by itself.
                    let _ = tokio::time::timeout(LINGER, self.handle.over(workers as usize)).await;
                }
                self.handle.stop().await;
                self.hub.await.map_err(panicked).flatten()
            }
        };
        let _ = self.stopped.send(true);
        let all_ended = async { while self.servers.join_next().await.is_some() {} };
        // Those that take longer are dropped.
        let _ = tokio::time::timeout(GRACE, all_ended).await;
        result
    }
}
