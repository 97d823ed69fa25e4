//! The worker: holds its shards of all ingredients, serves blends of them to its peers, has soups judged.
//!
//! # Words
//!
//! - The *link* is the one bidirectional stream to the coordinator. Heartbeats go up it on a timer of their own.
//! - Loaded are *shards*, sent to peers are *blends*, assembled from blends are the *weights* of a soup, which a *judge* loads and
//!   is then asked about *slices* of samples. A run without data has *passes* over shards instead, and no judge.
//!
//! # Flow
//!
//! [`run`] serves `Blends` to peers, opens the link and registers. Each task the coordinator assigns becomes a tokio task
//! ([`task`]) that does its I/O there and its computing on the worker's own compute threads ([`compute`]), so that neither
//! heartbeats nor peers ever wait for compute. Everything kept is kept per run ([`active`]), in modules that know nothing of it:
//! resident [`shards`], what was found in [`passages`], [`soups`] in work, [`logits`], [`gradients`], the [`judge`] with its decoded
//! samples; all of it is a cache of what object storage holds. What is done with them is in modules that know the run: [`loading`],
//! [`passing`], [`blends`], [`assembling`], [`learn`], [`diagnose`], [`write`].

mod active;
mod assembling;
mod begun;
#[doc(hidden)]
pub mod bench;
mod blends;
mod compute;
mod connect;
pub mod device;
mod diagnose;
mod frames;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gradients;
mod handing_in;
mod judge;
mod learn;
mod link;
mod loading;
mod logits;
mod messages;
mod outgoing;
mod passages;
mod passing;
mod peers;
mod probing;
mod recent;
mod room;
mod service;
mod shards;
mod soups;
mod sources;
pub mod survey;
mod task;
mod turns;
mod write;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use soup_core::{Error, Result};
use soup_trust::{Connect, Credentials, Dialer, Gate, Intake, Policy, Role, Sizes};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::transport::Server;
use tonic::transport::server::Connected;

pub use crate::compute::Compute;
pub use crate::connect::Tcp;
pub use crate::device::DeviceConfig;
pub use crate::judge::external::{JudgeConfig, Source};

/// How long streams to peers may take to end after a shutdown was asked for.
const GRACE: Duration = Duration::from_secs(2);

/// A connection that says nothing for so long is asked for a sign of life, and closed if none comes for as long again.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Requests that are open on one connection.
const STREAMS_MAX: u32 = 256;

/// How long a reply may lie there unread: peers read right into place, and give a fetch up after half of that.
const UNREAD: Duration = Duration::from_secs(60);

/// How long tasks may go on after a shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(15);

/// Settings of a worker.
#[derive(Clone)]
pub struct WorkerConfig {
    /// The coordinator's URL: `http://host:port`, `https://host:port`, or a name on a network of its own.
    pub coordinator: String,
    /// A name for people.
    pub name: String,
    /// URL at which peers reach this worker; by default its listener's address.
    pub advertise: Option<String>,
    /// Tasks computed at the same time, one thread each.
    pub slots: u32,
    /// Bytes of memory that may be used for shards, soups and samples.
    pub memory_bytes: u64,
    /// Where what has no room there is kept.
    pub disk_cache: Option<DiskCache>,
    /// Where to compute besides the host.
    pub device: DeviceConfig,
    /// How long to try to reach a coordinator before giving up.
    pub connect_timeout_ms: u64,
    /// How long one that there was may stay away.
    pub orphan_timeout_ms: u64,
    /// The judges that this worker has besides the native one.
    pub judges: Vec<JudgeConfig>,
    /// Folder through which those are handed soups; by default where memory is.
    pub judge_dir: Option<PathBuf>,
}

/// Why a worker ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The coordinator said that there will be no more work.
    Over,
    /// It was asked to, by its `shutdown`.
    Stopped,
}

/// Room for shards on a local disk. Files there have no name, and are gone when the worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskCache {
    /// The folder; it is created where it is missing.
    pub folder: PathBuf,
    /// Bytes of parameters that may be kept there.
    pub bytes: u64,
}

/// What a worker reaches the world through. [`run`] takes the host's network and threads; an embedded cluster has a network
/// in its process ([`InProcess`](soup_trust::InProcess)), a simulation has a network and threads of its own.
pub struct Parts<I> {
    /// Connections of peers, as tonic takes them.
    pub incoming: I,
    /// Who of those is served.
    pub policy: Policy,
    /// URL at which peers reach those.
    pub address: String,
    /// How the coordinator is reached.
    pub coordinator: Arc<dyn Connect>,
    /// How peers are reached.
    pub peers: Arc<dyn Connect>,
    /// Where computations run.
    pub compute: Compute,
}

/// Works for a coordinator until that says that the work is over, or `shutdown` resolves: with credentials for one of their cluster, beside
/// workers of that.
///
/// # Errors
/// [`Unavailable`](soup_core::ErrorKind::Unavailable) where a judge does not come up, or no coordinator is reached for the configured time;
/// [`TryAgain`](soup_core::ErrorKind::TryAgain) where the one that there was stays away for as long as is configured;
/// [`Configuration`](soup_core::ErrorKind::Configuration) where it refuses this worker or the device is unknown.
pub async fn run(
    config: WorkerConfig,
    listener: TcpListener,
    (credentials, insecure): (Option<Credentials>, bool),
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Ended> {
    let local =
        listener.local_addr().map_err(|e| Error::internal("a listener has no address").with_source(e))?;
    let mut shutdown = Box::pin(shutdown);
    let patience = Duration::from_millis(config.connect_timeout_ms);
    let address = match &config.advertise {
        Some(url) => url.clone(),
        None => tokio::select! {
            address = advertised(local, &config.coordinator, patience) => address?,
            () = &mut shutdown => return Ok(Ended::Stopped),
        },
    };
    let dialer = |to| Arc::new(Dialer::new(credentials.clone(), insecure, to));
    let parts = Parts {
        policy: Policy::of(credentials.as_ref()),
        incoming: soup_trust::listen(listener, credentials.clone(), soup_trust::connections_max()),
        address,
        coordinator: dialer(Role::Coordinator),
        peers: dialer(Role::Worker),
        compute: Compute::threads(config.slots),
    };
    run_with(config, parts, shutdown).await
}

/// [`run`], with other parts.
///
/// # Errors
/// Those of [`run`].
pub async fn run_with<I, C, E>(
    config: WorkerConfig,
    parts: Parts<I>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Ended>
where
    I: Stream<Item = Result<C, E>> + Send + 'static,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    let Parts { incoming, policy, address, coordinator, peers, compute } = parts;
    let on_device = open(config.device.clone()).await?;
    if let Some(cache) = &config.disk_cache {
        std::fs::create_dir_all(&cache.folder).map_err(|e| {
            Error::configuration(format!("disk cache {} cannot be created", cache.folder.display()))
                .with_source(e)
        })?;
    }
    let judges = judge::external::start(&config.judges, config.judge_dir.as_deref());
    tokio::pin!(shutdown);
    let judges = tokio::select! {
        judges = judges => judges?,
        () = &mut shutdown => return Ok(Ended::Stopped),
    };
    let worker = Arc::new(active::Worker::new(on_device, &config, compute, peers, judges.clone()));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let until_stopped = {
        let mut stopped = stopped.clone();
        async move {
            // An error means that the sender is gone, which is a stop too.
            let _ = stopped.wait_for(|s| *s).await;
        }
    };
    let server = tokio::spawn(
        Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(STREAMS_MAX)
            .layer(Gate::new(policy))
            .layer(Intake::new(|_| Sizes::of_all(frames::REQUEST_BYTES_MAX), UNREAD))
            .add_service(service::Service::new(worker.clone()))
            .serve_with_incoming_shutdown(incoming, until_stopped),
    );
    tracing::info!(name = config.name, address, "worker serves blends");
    let (leave, leaving) = tokio::sync::watch::channel(false);
    let mut kept = std::pin::pin!(link::keep(&config, (&*coordinator, &address), worker, leaving));
    let result = tokio::select! {
        result = &mut kept => result,
        () = &mut shutdown => {
            // What is being computed is finished and sent; peers are served meanwhile.
            leave.send_replace(true);
            match tokio::time::timeout(DRAIN, kept).await {
                Ok(result) => result,
                Err(_) => {
                    tracing::warn!("tasks were left unfinished: they took longer than the time there is to stop");
                    Ok(Ended::Stopped)
                }
            }
        }
    };
    let _ = stop.send(true);
    // Peers that are still being served get a moment, no more.
    let _ = tokio::time::timeout(GRACE, server).await;
    futures::future::join_all(judges.values().map(|judge| judge.stop())).await;
    result
}

/// The device besides the host, if there is one. Kernels are compiled meanwhile, and that takes a thread of its own.
async fn open(config: DeviceConfig) -> Result<Option<device::OnDevice>> {
    if config == DeviceConfig::default() {
        return Ok(None);
    }
    let opened = tokio::task::spawn_blocking(move || device::OnDevice::open(&config)).await;
    opened.map_err(|e| Error::internal("opening the device panicked").with_source(e))?
}

/// How often the coordinator's name is looked up that is not known yet.
const LOOK_UP_EVERY: Duration = Duration::from_secs(1);

/// The URL at which peers reach a listener. A listener on all interfaces is reached at the address that this host uses
/// to talk to the coordinator, whose name may have to be waited for: where it is started later, it has none before.
async fn advertised(local: SocketAddr, coordinator: &str, patience: Duration) -> Result<String> {
    let scheme = if coordinator.starts_with("https://") { "https" } else { "http" };
    if !local.ip().is_unspecified() {
        return Ok(format!("{scheme}://{local}"));
    }
    let uri: tonic::transport::Uri = coordinator
        .parse()
        .map_err(|e| Error::usage(format!("coordinator {coordinator:?} is not a URL")).with_source(e))?;
    let target = (uri.host().unwrap_or("localhost").trim_matches(['[', ']']), uri.port_u16().unwrap_or(80));
    let until = Instant::now() + patience;
    loop {
        match tokio::net::lookup_host(target).await.and_then(|found| routed(&found.collect::<Vec<_>>())) {
            Ok(ip) => return Ok(format!("{scheme}://{}", SocketAddr::new(ip, local.port()))),
            Err(e) if Instant::now() >= until => {
                let text = format!(
                    "cannot tell at which address peers reach this worker, since no way leads to the coordinator {coordinator}: give \
                     --advertise, or look at --coordinator"
                );
                return Err(Error::unavailable(text).with_source(e));
            }
            Err(_) => tokio::time::sleep(LOOK_UP_EVERY).await,
        }
    }
}

/// The address from which this host talks to the first of `targets` that a way leads to.
fn routed(targets: &[SocketAddr]) -> std::io::Result<IpAddr> {
    let mut failed = std::io::Error::from(std::io::ErrorKind::NotFound);
    for target in targets {
        let any: IpAddr = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // Connecting a datagram socket sends nothing: it only makes the kernel choose the route.
        let route = UdpSocket::bind((any, 0)).and_then(|socket| {
            socket.connect(target)?;
            socket.local_addr()
        });
        match route {
            Ok(address) => return Ok(address.ip()),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn advertised(local: &str, coordinator: &str) -> Result<String> {
        super::advertised(local.parse().unwrap(), coordinator, Duration::ZERO).await
    }

    #[tokio::test]
    async fn a_listener_on_all_interfaces_advertises_its_route_to_the_coordinator() {
        for (coordinator, expect) in
            [("http://127.0.0.1:7070", "http://127.0.0.1:7071"), ("https://[::1]:7070", "https://[::1]:7071")]
        {
            let url = advertised("0.0.0.0:7071", coordinator).await;
            // A host may have no IPv6.
            assert!(url.as_ref().map_or(coordinator.contains("::1"), |url| url == expect), "{url:?}");
        }
    }

    #[tokio::test]
    async fn a_listener_on_one_interface_advertises_it() {
        let url = advertised("127.0.0.2:7071", "http://localhost:7070").await;
        assert_eq!(url.unwrap(), "http://127.0.0.2:7071");
    }

    #[tokio::test]
    async fn a_coordinator_without_an_address_is_waited_for_and_named() {
        let error = advertised("0.0.0.0:7071", "http://no.such.host.invalid:7070").await.unwrap_err();
        assert_eq!(error.kind(), soup_core::ErrorKind::Unavailable);
        assert!(error.chain().contains("no.such.host.invalid"), "{}", error.chain());
    }
}
