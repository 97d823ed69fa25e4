//! The flags of `coordinator` and `worker`, and what other commands have of them.

use std::path::PathBuf;

use clap::Args;

#[cfg(feature = "worker")]
use crate::judges::JudgeFlag;
#[cfg(feature = "worker")]
use crate::quantity::Bytes;
use crate::quantity::Millis;
use crate::trust::{PlaceArgs, TrustArgs};

/// Shortest lease.
const LEASE_MIN_MS: u64 = 1_000;
const TIMING: &str = "Coordinator, with --listen or by itself";

/// Flags of `coordinator`.
#[derive(Args, Debug)]
pub(crate) struct CoordinatorArgs {
    /// Address to listen on; beyond loopback with --tls, or --insecure. Without --tls every user of this host may do everything
    #[arg(long, env = "SOUP_LISTEN", default_value = "127.0.0.1:7070", value_name = "HOST:PORT")]
    pub(crate) listen: String,
    /// Where runs are kept: a folder, or an object store that creates only if absent; unfinished runs go on from there
    #[arg(long, env = "SOUP_STATE_URL", default_value = ".soup-state", value_name = "URL")]
    pub(crate) state_url: String,
    /// Sign the records of runs and the manifests of outputs with this key; soupctl keys new makes one
    #[arg(long, env = "SOUP_SIGNING_KEY", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) signing_key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) timing: TimingArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// YAML file that keeps clients to places of their own, among those that are allowed: {NAME: {read: [PREFIX], write: [PREFIX]}}
    #[arg(long, value_name = "FILE", requires = "tls", value_hint = clap::ValueHint::FilePath, help_heading = "Trust")]
    pub(crate) client_places: Option<PathBuf>,
    /// Runs that one client may have waiting or in progress, with --tls
    #[arg(long, env = "SOUP_RUNS_PER_CLIENT", default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) runs_per_client: u32,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    #[command(flatten)]
    pub(crate) places: PlaceArgs,
}

/// Where operators look.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct AdminArgs {
    /// Answer /livez, /readyz and /metrics here, in plain HTTP: whoever reaches it can read what is counted
    #[arg(long, env = "SOUP_ADMIN", value_name = "HOST:PORT")]
    pub(crate) admin: Option<String>,
}

/// How long a coordinator waits for workers.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct TimingArgs {
    /// How long a run waits for its workers, such as 90s or 10m [default: 10m]
    #[arg(long, env = "SOUP_START_TIMEOUT", value_name = "DURATION", help_heading = TIMING)]
    pub(crate) start_timeout: Option<Millis>,
    /// A worker that is not heard for so long, at least 1s, is lost [default: 10s]
    #[arg(long, env = "SOUP_LEASE", value_name = "DURATION", value_parser = lease, help_heading = TIMING)]
    pub(crate) lease: Option<Millis>,
}

/// A lease that leaves room for several heartbeats and an ordinary hiccup.
fn lease(text: &str) -> std::result::Result<Millis, String> {
    let lease: Millis = text.parse()?;
    if lease.0 < LEASE_MIN_MS {
        return Err(format!(
            "a lease is at least {LEASE_MIN_MS} ms: workers that are only busy would be lost"
        ));
    }
    Ok(lease)
}

/// Flags of `worker`.
#[cfg(feature = "worker")]
#[derive(Args, Debug)]
pub(crate) struct WorkerArgs {
    /// The coordinator to work for
    #[arg(long, env = "SOUP_COORDINATOR", default_value = "127.0.0.1:7070", value_name = "URL")]
    pub(crate) coordinator: String,
    /// Address on which peers are served [default: 127.0.0.1:0 if the coordinator is on this host, else 0.0.0.0:0]
    #[arg(long, env = "SOUP_LISTEN", value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// URL at which peers reach this worker [default: the address it listens on]
    #[arg(long, env = "SOUP_ADVERTISE", value_name = "URL")]
    pub(crate) advertise: Option<String>,
    /// Name for people [default: host and port]
    #[arg(long, env = "SOUP_NAME")]
    pub(crate) name: Option<String>,
    /// Threads that compute [default: all cores]
    #[arg(long, env = "SOUP_THREADS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) threads: Option<u32>,
    /// Memory, such as 8GiB: four fifths for shards, soups and blends, one for decoded samples; a single soup may come on top
    /// [default: 75 % of what is available]
    #[arg(long, env = "SOUP_MEMORY", value_name = "SIZE")]
    pub(crate) memory: Option<Bytes>,
    /// Folder on a local disk for shards that have no room in memory; its files have no name and go with the worker
    #[arg(long, env = "SOUP_DISK_CACHE", value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    pub(crate) disk_cache: Option<PathBuf>,
    /// Space for shards in --disk-cache, such as 200GiB [default: 90 % of what is free]
    #[arg(long, env = "SOUP_DISK", value_name = "SIZE", requires = "disk_cache")]
    pub(crate) disk: Option<Bytes>,
    /// Where to compute: cpu, cuda:N or vulkan:N (in builds that have them, see soupctl devices), or auto: the first card that works, or else
    /// cpu
    #[arg(long, env = "SOUP_DEVICE", default_value = "cpu")]
    pub(crate) device: String,
    /// Memory of the device that may be used, such as 80GiB: four fifths for shards, the rest for soups in work, samples and what is under
    /// way [default: 90 % of what is free]
    #[arg(long, env = "SOUP_DEVICE_MEMORY", value_name = "SIZE")]
    pub(crate) device_memory: Option<Bytes>,
    /// Arithmetic of the native judge: f32, tf32 (CUDA) or bf16 (cpu and CUDA)
    #[arg(long, env = "SOUP_PRECISION", default_value = "f32")]
    pub(crate) precision: String,
    /// A judge besides the native one: NAME=unix:/path/of/socket of one that is served, or NAME='cmd:COMMAND' of one to start; repeatable
    #[arg(long = "judge", env = "SOUP_JUDGE", value_name = "NAME=SOURCE")]
    pub(crate) judges: Vec<JudgeFlag>,
    /// Folder through which judges are handed soups [default: one in /dev/shm, for this worker alone]
    #[arg(long, env = "SOUP_JUDGE_DIR", value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    pub(crate) judge_dir: Option<PathBuf>,
    /// A judge that says nothing for so long while it is asked is started again
    #[arg(long, env = "SOUP_JUDGE_TIMEOUT", default_value = "60s", value_name = "DURATION")]
    pub(crate) judge_timeout: Millis,
    /// How long to try to reach a coordinator to begin with; the exit code is 69 then
    #[arg(long, env = "SOUP_CONNECT_TIMEOUT", default_value = "60s", value_name = "DURATION")]
    pub(crate) connect_timeout: Millis,
    /// How long a coordinator that there was may stay away; the exit code is 75 then
    #[arg(long, env = "SOUP_ORPHAN_TIMEOUT", default_value = "15m", value_name = "DURATION")]
    pub(crate) orphan_timeout: Millis,
    /// Exit with 0 when stopped by a signal too, and not with 143 (130 for Ctrl-C), for supervisors that take any other code for a failure
    #[arg(long, env = "SOUP_STOP_IS_SUCCESS")]
    pub(crate) stop_is_success: bool,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    #[command(flatten)]
    pub(crate) places: PlaceArgs,
}
