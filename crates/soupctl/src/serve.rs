//! `soupctl coordinator` and `soupctl worker`: the roles of a cluster as processes.

use std::net::SocketAddr;
#[cfg(feature = "worker")]
use std::process::ExitCode;

use soup_coordinator::{CoordinatorConfig, Window};
#[cfg(feature = "worker")]
use soup_core::memory::Cut;
use soup_core::{Error, Result};
use soup_store::state::State;
use soup_trust::{Role, plain_beyond_loopback};
use tokio::net::TcpListener;

use crate::admin;
use crate::args::{CoordinatorArgs, TimingArgs};
use crate::print;
#[cfg(feature = "worker")]
use crate::signals::Request;
use crate::signals::StopSignals;
use crate::trust::TrustArgs;

/// Serves as coordinator until asked to stop.
///
/// # Errors
/// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where the address cannot be listened on.
pub(crate) async fn coordinator(args: CoordinatorArgs) -> Result<()> {
    let window = Window::default();
    admin::beside(&args.admin, Some(admin::watch(&window)), coordinate(&args, window)).await
}

async fn coordinate(args: &CoordinatorArgs, window: Window) -> Result<()> {
    let mut signals = StopSignals::new()?;
    let config = CoordinatorConfig {
        one_process: false,
        runs_per_client_max: args.runs_per_client as usize,
        window,
        ..timed(&args.timing)
    };
    args.places.confine(Some(&args.state_url), args.client_places.as_deref())?;
    let credentials = args.trust.credentials(&[Role::Coordinator])?;
    let state = crate::keys::signing(State::open(&args.state_url)?, args.signing_key.as_deref())?;
    state.check_owner()?;
    state.probe().await?;
    let listener = listen(&args.listen).await?;
    let beyond = reach(&listener, &args.trust)?;
    ready(&listener)?;
    if beyond {
        print::line(
            "warning: whoever reaches this address can submit runs and join as a worker: --insecure speaks plain text",
        );
    }
    let config = CoordinatorConfig { insecure: beyond, ..config };
    soup_coordinator::serve(config, state, listener, credentials, async move { _ = signals.next().await })
        .await
}

/// Works for a coordinator until that says that the work is over, or asked to stop. Gives the exit code.
///
/// # Errors
/// Those of listening and of reaching the coordinator.
#[cfg(feature = "worker")]
pub(crate) async fn worker(args: crate::args::WorkerArgs) -> Result<ExitCode> {
    let mut signals = StopSignals::new()?;
    let coordinator = args.trust.url(&crate::spec::coordinator_url(&args.coordinator)?)?;
    args.places.confine(None, None)?;
    let credentials = args.trust.credentials(&[Role::Worker])?;
    args.trust.check_reach(&coordinator).await?;
    let listen_on = match &args.listen {
        Some(address) => address.clone(),
        None => default_listen(&coordinator).await.to_owned(),
    };
    let listener = listen(&listen_on).await?;
    reach(&listener, &args.trust)?;
    let address = ready(&listener)?;
    let share = args.memory.is_none().then(crate::resources::memory_share);
    let judge_beside = !args.judges.is_empty();
    let judges = args.judges.iter().map(|judge| crate::judges::config(judge, args.judge_timeout.0));
    let config = soup_worker::WorkerConfig {
        coordinator,
        name: args.name.unwrap_or_else(|| default_name(address)),
        advertise: args.advertise,
        slots: args.threads.unwrap_or_else(|| crate::resources::threads_per_worker(1)),
        memory_bytes: args.memory.map_or_else(|| crate::resources::memory_per_worker(1), |m| m.0),
        disk_cache: args.disk_cache.map(|folder| {
            let free = || crate::resources::disk_per_worker(&folder, 1);
            let bytes = args.disk.map_or_else(free, |d| d.0);
            soup_worker::DiskCache { folder, bytes }
        }),
        device: soup_worker::DeviceConfig {
            name: args.device,
            memory_bytes: args.device_memory.map(|m| m.0),
            sharers: 1,
            precision: args.precision,
        },
        connect_timeout_ms: args.connect_timeout.0,
        orphan_timeout_ms: args.orphan_timeout.0,
        judges: judges.collect::<Result<_>>()?,
        judge_dir: args.judge_dir,
    };
    let of = share.map_or(String::new(), |of| format!(" ({of})"));
    let uses = crate::quantity::Bytes(config.memory_bytes);
    let offers = crate::quantity::Bytes(Cut::of(config.memory_bytes, false).shards);
    print::line(&format!(
        "uses {uses} of memory{of}, {offers} of it for shards, and {}",
        crate::quantity::count(u64::from(config.slots), "thread")
    ));
    let (asked, request) = std::sync::mpsc::channel();
    let shutdown = async move {
        // Who asks is read once the worker has ended.
        let _ = asked.send(signals.next().await);
    };
    let ended = soup_worker::run(config, listener, (credentials, args.trust.insecure), shutdown).await;
    if let Some(text) = crate::resources::memory_peak(None, judge_beside) {
        print::line(&text);
    }
    Ok(match ended? {
        soup_worker::Ended::Over => {
            print::line("the work is over");
            ExitCode::SUCCESS
        }
        soup_worker::Ended::Stopped if args.stop_is_success => ExitCode::SUCCESS,
        soup_worker::Ended::Stopped => {
            print::line("stopped before the work was over");
            request.try_recv().unwrap_or(Request::Terminate).exit_code()
        }
    })
}

/// The settings of a coordinator that waits for its workers as it is told to.
pub(crate) fn timed(timing: &TimingArgs) -> CoordinatorConfig {
    let defaults = CoordinatorConfig::default();
    let lease_ms = timing.lease.map_or(defaults.lease_ms, |l| l.0);
    CoordinatorConfig {
        // Several heartbeats fit into a lease, so that one that is late costs nothing.
        heartbeat_ms: defaults.heartbeat_ms.min(u32::try_from(lease_ms / 4).unwrap_or(u32::MAX)).max(1),
        lease_ms,
        start_timeout_ms: timing.start_timeout.map_or(defaults.start_timeout_ms, |t| t.0),
        ..defaults
    }
}

/// A socket to listen on.
///
/// # Errors
/// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where there is none to be had at `address`.
pub(crate) async fn listen(address: &str) -> Result<TcpListener> {
    let refused = |e: std::io::Error| {
        let what = match e.kind() {
            std::io::ErrorKind::AddrInUse => ", on which somebody else does: name another one with --listen",
            std::io::ErrorKind::AddrNotAvailable => {
                ", which is no address of this host: name one of its own with --listen"
            }
            _ => "",
        };
        Error::configuration(format!("cannot listen on {address:?}{what}")).with_source(e)
    };
    TcpListener::bind(address).await.map_err(refused)
}

/// Whether a listener takes plain text from beyond this host.
///
/// # Errors
/// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where that is not wanted.
pub(crate) fn reach(listener: &TcpListener, trust: &TrustArgs) -> Result<bool> {
    let address =
        listener.local_addr().map_err(|e| Error::internal("a listener has no address").with_source(e))?;
    if trust.is_secure() {
        return Ok(false);
    }
    plain_beyond_loopback("would listen on", &[address], trust.insecure)?;
    Ok(!address.ip().to_canonical().is_loopback())
}

/// Says where a listener listens, for people and scripts.
pub(crate) fn ready(listener: &TcpListener) -> Result<SocketAddr> {
    let address =
        listener.local_addr().map_err(|e| Error::internal("a listener has no address").with_source(e))?;
    print::line(&format!("listening on {address}"));
    Ok(address)
}

/// Beside a coordinator on this host a worker stays on loopback; else its peers have to reach it.
#[cfg(feature = "worker")]
async fn default_listen(coordinator: &str) -> &'static str {
    let host = coordinator.split_once("://").map_or(coordinator, |(_, host)| host);
    // A name that does not resolve yet is no reason to fail here: connecting says it better.
    let loopback =
        tokio::net::lookup_host(host).await.is_ok_and(|mut found| found.all(|a| a.ip().is_loopback()));
    if loopback { "127.0.0.1:0" } else { "0.0.0.0:0" }
}

/// The host's name and the port, which tells the workers of a host apart.
#[cfg(feature = "worker")]
fn default_name(address: SocketAddr) -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    format!("{}:{}", if host.is_empty() { "worker" } else { &host }, address.port())
}

#[cfg(all(test, feature = "worker"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn workers_listen_where_their_peers_are() {
        assert_eq!(default_listen("http://127.0.0.1:7070").await, "127.0.0.1:0");
        assert_eq!(default_listen("http://192.0.2.1:7070").await, "0.0.0.0:0");
        assert_eq!(default_listen("http://no.such.host.invalid:7070").await, "0.0.0.0:0");
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_listened_on_is_named() {
        let error = listen("256.0.0.1:0").await.unwrap_err();
        assert_eq!(error.kind(), soup_core::ErrorKind::Configuration);
        assert!(error.chain().contains("256.0.0.1:0"), "{}", error.chain());
        let taken = listen("127.0.0.1:0").await.unwrap();
        let error = listen(&taken.local_addr().unwrap().to_string()).await.unwrap_err().chain();
        assert!(error.contains("on which somebody else does: name another one with --listen"), "{error}");
    }
}
