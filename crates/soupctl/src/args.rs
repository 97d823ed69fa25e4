//! The command line. The doc comments are the help.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use soup_core::Result;

use crate::authority::AuthorityCommand;
use crate::choices::{LogFormat, OnInterrupt, OutputFormat};
use crate::cookfile::{CookOptions, current_folder};
#[cfg(feature = "worker")]
use crate::judges::JudgeFlag;
use crate::kubernetes::KubernetesCommand;
#[cfg(feature = "worker")]
use crate::quantity::Bytes;
use crate::quantity::Millis;
use crate::spec::{Cook, Purpose};
use crate::trust::{PlaceArgs, TrustArgs};

/// Cooks model soups: averages fine-tuned checkpoints into one better model, on a cluster or on this machine.
#[derive(Debug, Parser)]
#[command(name = "soupctl", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What is logged to stderr, such as info or soup_worker=debug [default: error for a cook of one's own, else warn]
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER", help_heading = LOGS)]
    pub(crate) log: Option<String>,
    /// How it is logged
    #[arg(long, global = true, value_enum, default_value_t, help_heading = LOGS)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// The process's command line, and what its environment says where flags do not. An empty variable says nothing.
    ///
    /// # Errors
    /// What is wrong, or wanted instead of a command: help, the version.
    pub(crate) fn of_process() -> Result<Cli, clap::Error> {
        let mut command = without_empty(Cli::command(), &|name| std::env::var_os(name));
        let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
        Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }
}

/// `command` without the variables that are empty: people, and programs that fill in templates, write those for what is not set.
fn without_empty(command: clap::Command, variable: &impl Fn(&OsStr) -> Option<OsString>) -> clap::Command {
    let empty = |arg: &clap::Arg| arg.get_env().and_then(variable).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| match empty(&arg) {
        true => arg.env(Resettable::<clap::builder::OsStr>::Reset),
        false => arg,
    });
    command.mut_subcommands(|command| without_empty(command, variable))
}

/// Shortest lease.
const LEASE_MIN_MS: u64 = 1_000;
const LOGS: &str = "Logs";
const TIMING: &str = "Coordinator, with --listen or by itself";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Find the average of a pool of checkpoints that does best on held-out data, and write it
    #[command(after_help = COOK_EXAMPLES, after_long_help = COOK_EXAMPLES_LONG)]
    Cook(Box<CookArgs>),
    /// Explain a pool: lengths and angles, what lies between its checkpoints, what averaging and ensembles of them are worth
    ///
    /// Cooks like cook and takes its flags, but writes a report (report.html, soup.json) and no model. A cook.yaml in the
    /// pool's folder is used where no other says what to cook.
    #[command(after_help = TASTE_EXAMPLES)]
    Taste(Box<TasteArgs>),
    /// Say what a cook would load and where, how many trials it could take, and what it would write
    ///
    /// Takes the flags of cook. Reads the headers of the pool and the metadata of the datasets, compares their classes with the
    /// model's, and decodes one sample of each; what would end a cook ends it too. Loads no shard and writes nothing.
    Plan(Box<CookArgs>),
    /// Show the tensors of a checkpoint or a pool, and whether its ingredients agree
    Inspect(InspectArgs),
    /// List the judges that the workers of a coordinator have
    Judges(JudgesArgs),
    /// List what there is to compute on here, compare it with the processor, and measure it
    #[cfg(feature = "worker")]
    Devices(DevicesArgs),
    /// List the runs in a state, or those of a coordinator
    Runs(ListArgs),
    /// Show one run: how far it is, who has it, why it failed
    Status(RunArgs),
    /// Watch a run of a coordinator to its end, and print its result
    Watch(WatchArgs),
    /// Wait for a run of a coordinator to end; the exit code is the run's
    Wait(RemoteArgs),
    /// Cancel a run of a coordinator; cooking the same again goes on with it
    Cancel(RemoteArgs),
    /// Print the journal of a run, and check it
    Log(LogArgs),
    /// Check an output: its files against its manifest, and the manifest against the key that signed it
    Verify(VerifyArgs),
    /// Make keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Run a coordinator: it takes runs from `cook --coordinator` and gives work to workers
    Coordinator(CoordinatorArgs),
    /// Run a worker: it holds shards of the ingredients, averages and evaluates
    #[cfg(feature = "worker")]
    Worker(WorkerArgs),
    /// Be a lab's own authority: make one, and certificates of it for --tls
    Ca {
        #[command(subcommand)]
        command: AuthorityCommand,
    },
    /// A cook on Kubernetes: its objects, and the chart for those who use Helm
    K8s {
        #[command(subcommand)]
        command: KubernetesCommand,
    },
    /// Say what works from here and what does not, and what to do about it: stores, credentials, clocks, peers, memory
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// Print the JSON schema of cook files
    Schema,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// What is logged unless something else is said. Whoever sits before a cook of their own is told of what fails anyway.
    pub(crate) fn logged(&self) -> &'static str {
        match self {
            Command::Cook(cook) if cook.options.listen.is_none() => "error",
            Command::Taste(_) => "error",
            _ => "warn",
        }
    }

    /// What a process does, for whoever collects what it tells.
    pub(crate) fn role(&self) -> &'static str {
        match self {
            Command::Coordinator(_) => "coordinator",
            #[cfg(feature = "worker")]
            Command::Worker(_) => "worker",
            Command::Cook(_) | Command::Taste(_) => "cook",
            _ => "client",
        }
    }
}

const COOK_EXAMPLES: &str = "\
Examples:
  soupctl cook -f cook.yaml --recipe greedy
  soupctl cook --pool checkpoints/ --validation val.parquet --test sketch=sketch.parquet
  soupctl cook -f cook.yaml --coordinator http://node0:7070 -o json > result.json";

const TASTE_EXAMPLES: &str = "\
Examples:
  soupctl taste checkpoints/ --validation val.parquet --test sketch=sketch.parquet
  soupctl taste checkpoints/ --validation val.parquet --base pretrained/model.safetensors
  soupctl taste checkpoints/ --validation val.parquet --diagnose geometry -o json | jq .diagnosis.shared_init";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  soupctl doctor
  soupctl doctor --state-url s3://lab/soup-state --pool s3://lab/sweep/
  soupctl doctor --coordinator node0:7070 --tls client-ada      # every worker tries to reach every other one
  soupctl doctor --admin 127.0.0.1:9090                         # a health check of a container

The exit code is that of the first problem: 0 none, 65 data, 69 unavailable, 78 configuration.";

const COOK_EXAMPLES_LONG: &str = "\
Examples:
  Everything is in a cook file; flags win over it:
    soupctl cook -f cook.yaml --recipe greedy

  Sixteen checkpoints in a folder, one held-out set, one more to report on:
    soupctl cook --pool checkpoints/ --validation val.parquet --test sketch=sketch.parquet

  On a cluster (soupctl coordinator, soupctl worker), the result as JSON:
    soupctl cook -f cook.yaml --coordinator http://node0:7070 -o json > result.json

  With workers that are there for this cook alone, and end when it does:
    soupctl cook -f cook.yaml --listen 0.0.0.0:7070 --min-workers 4 --tls coordinator-c0
    soupctl worker --coordinator node0:7070 --tls worker-w --allow-read /data --allow-write /data
  (the second line four times)

A cook file has the flags' names as its keys (soupctl schema prints its JSON schema):
    pool: checkpoints/
    validation: {url: val.parquet, label-column: fine_label}
    test:
      sketch: sketch.parquet
    recipe: greedy

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a demand is not met (--gate, --require-shared-init),
65 bad data, 69 store or cluster unavailable, 75 try again, 78 configuration, 130 interrupted.";

/// Options of a cook that may stand beside `--resume`: who does it and how, and nothing of what it is. Whatever else there is may not.
const BESIDE_RESUME: [&str; 20] = [
    "overwrite",
    "state_url",
    "signing_key",
    "gate",
    "lookahead",
    "audit",
    "judge",
    "judge_dir",
    "judge_timeout",
    "workers",
    "min_workers",
    "memory",
    "disk_cache",
    "disk",
    "threads",
    "device",
    "device_memory",
    "precision",
    "coordinator",
    "listen",
];

/// Refuses an argument that says what to cook beside a run that is gone on with, which says so already.
fn apart_from_resume(arg: clap::Arg) -> clap::Arg {
    let options = CookOptions::augment_args(clap::Command::new("cook"));
    let id = arg.get_id().as_str();
    let of_a_cook = options.get_arguments().any(|option| option.get_id() == id);
    let what = of_a_cook && !BESIDE_RESUME.contains(&id) || matches!(id, "file" | "pools");
    if what { arg.conflicts_with("resume") } else { arg }
}

/// Flags of `cook` and `plan`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = apart_from_resume)]
pub(crate) struct CookArgs {
    /// Cook file (YAML): keys are the names of the flags below, paths are relative to the file; flags win
    #[arg(short = 'f', long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: CookOptions,
    /// How the result is printed on stdout
    #[arg(short = 'o', long, value_enum, default_value_t, help_heading = "Output")]
    pub(crate) format: OutputFormat,
    /// Show no progress
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,
    /// Go on with this run, as it was asked for then, without other flags about the cook: of --state-url (soups/.soup-state unless named), or of a coordinator
    #[arg(long, value_name = "RUN", help_heading = "Output")]
    pub(crate) resume: Option<String>,
    /// What Ctrl-C does to a run on a cluster; an embedded one always stops, and goes on when asked for again
    #[arg(long, value_enum, default_value_t, help_heading = "Cluster")]
    pub(crate) on_interrupt: OnInterrupt,
    #[command(flatten)]
    pub(crate) timing: TimingArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// File for one line about how this ended, where the output is or why not, as Kubernetes shows it: /dev/termination-log
    #[arg(long, env = "SOUP_TERMINATION_MESSAGE", value_name = "FILE", help_heading = "Output")]
    pub(crate) termination_message: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

impl CookArgs {
    /// The cook that flags and file ask for.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage), naming the flag or the key and the file.
    pub(crate) fn cook(&self, purpose: Purpose) -> Result<Cook> {
        let cwd = current_folder()?;
        let mut flags = self.options.clone();
        let file = match self.file.as_deref() {
            Some(path) => CookOptions::read(path, flags.judge.as_ref())?,
            None => CookOptions::default(),
        };
        let judge = flags.judge.clone().or_else(|| file.judge.clone());
        flags.resolve(&cwd, judge.as_ref())?;
        Cook::new(flags, file, &cwd, purpose)
    }
}

/// Flags of `taste`.
#[derive(Args, Clone, Debug)]
pub(crate) struct TasteArgs {
    /// The pool, as for --pool
    #[arg(value_name = "POOL")]
    pub(crate) pools: Vec<String>,
    #[command(flatten)]
    pub(crate) cook: CookArgs,
}

impl TasteArgs {
    /// The same as flags of a cook.
    pub(crate) fn into_cook(self) -> CookArgs {
        let TasteArgs { pools, mut cook } = self;
        if let ([only], None, None) = (&pools[..], &cook.file, &cook.options.validation) {
            let beside = PathBuf::from(only).join(COOK_FILE);
            cook.file = beside.is_file().then_some(beside);
        }
        cook.options.pool.splice(0..0, pools);
        cook
    }
}

/// The cook file of a pool that brings its own.
const COOK_FILE: &str = "cook.yaml";

/// Flags of `inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// A checkpoint, or a pool: folder of checkpoints, glob, or several checkpoints
    #[arg(required = true, value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// List all tensors
    #[arg(long)]
    pub(crate) tensors: bool,
    /// How the result is printed on stdout
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub(crate) format: OutputFormat,
}

/// Where runs are looked up.
#[derive(Args, Clone, Debug)]
pub(crate) struct Lookup {
    /// The state: a folder or an object store [default: soups/.soup-state if it exists, else the coordinator is asked]
    #[arg(long, value_name = "URL", env = "SOUP_STATE_URL")]
    pub(crate) state_url: Option<String>,
    /// Ask this coordinator [default: 127.0.0.1:7070]
    #[arg(long, value_name = "URL", env = "SOUP_COORDINATOR")]
    pub(crate) coordinator: Option<String>,
    /// How the result is printed on stdout
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub(crate) format: OutputFormat,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

/// Flags of `runs`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) lookup: Lookup,
}

/// Flags of `judges`.
#[derive(Args, Debug)]
pub(crate) struct JudgesArgs {
    /// The coordinator
    #[arg(long, env = "SOUP_COORDINATOR", default_value = "127.0.0.1:7070", value_name = "URL")]
    pub(crate) coordinator: String,
    /// How the result is printed on stdout
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub(crate) format: OutputFormat,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

/// Flags of `devices`.
#[cfg(feature = "worker")]
#[derive(Args, Debug)]
pub(crate) struct DevicesArgs {
    /// Arithmetic of the native judge of which the class is shown: f32, tf32 (CUDA) or bf16 (CUDA)
    #[arg(long, default_value = "f32")]
    pub(crate) precision: String,
    /// How the result is printed on stdout
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub(crate) format: OutputFormat,
}

/// Flags of `status`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The run
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) lookup: Lookup,
}

/// Flags of `wait` and `cancel`.
#[derive(Args, Debug)]
pub(crate) struct RemoteArgs {
    /// The run
    pub(crate) run: String,
    /// The coordinator
    #[arg(long, env = "SOUP_COORDINATOR", default_value = "127.0.0.1:7070", value_name = "URL")]
    pub(crate) coordinator: String,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

/// Flags of `watch`.
#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    /// How the result is printed on stdout
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub(crate) format: OutputFormat,
}

/// Flags of `log`.
#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    /// The run
    pub(crate) run: String,
    /// The state it is kept in [default: soups/.soup-state]
    #[arg(long, value_name = "URL", env = "SOUP_STATE_URL")]
    pub(crate) state_url: Option<String>,
    /// Check the chain of records, who wrote them, and make every decision again from the scores before it
    #[arg(long)]
    pub(crate) verify: bool,
    /// Check that every record is signed with this key: the file of a public key, as soupctl keys new makes it
    #[arg(long, value_name = "FILE", requires = "verify", value_hint = clap::ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,
    /// How the result is printed on stdout
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub(crate) format: OutputFormat,
}

/// Flags of `verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The output: a folder with a soup.json
    #[arg(value_name = "URL")]
    pub(crate) output: String,
    /// Check that its manifest is signed with this key: the file of a public key, as soupctl keys new makes it
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,
    /// Check also that the journal of its run, in this state, is whole up to what the manifest was made of
    #[arg(long, value_name = "URL")]
    pub(crate) state_url: Option<String>,
    /// How the result is printed on stdout
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub(crate) format: OutputFormat,
}

/// Flags of `doctor`.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Whether a state can be kept here; a probe is written and removed
    #[arg(long, value_name = "URL")]
    pub(crate) state_url: Option<String>,
    /// Whether these checkpoints can be read, and agree; repeatable
    #[arg(long, value_name = "URL")]
    pub(crate) pool: Vec<String>,
    /// Whether this coordinator answers, and its workers reach each other
    #[arg(long, value_name = "URL")]
    pub(crate) coordinator: Option<String>,
    /// Whether the process with this admin port is ready; with no other flag nothing else is looked at
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) admin: Option<String>,
    /// What there is for a disk cache in this folder
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    pub(crate) disk_cache: Option<PathBuf>,
    /// What there is for judges in this folder [default: /dev/shm]
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    pub(crate) judge_dir: Option<PathBuf>,
    /// How the result is printed on stdout
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub(crate) format: OutputFormat,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

impl DoctorArgs {
    /// Whether nothing is named but, perhaps, an admin port.
    pub(crate) fn names_nothing(&self) -> bool {
        let DoctorArgs { state_url, pool, coordinator, admin: _, disk_cache, judge_dir, format: _, trust: _ } =
            self;
        state_url.is_none()
            && pool.is_empty()
            && coordinator.is_none()
            && disk_cache.is_none()
            && judge_dir.is_none()
    }
}

/// What `keys` does.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key for --signing-key, which its owner alone can read, and its public half in FILE.pub
    New {
        /// The file of the key; nothing that is there is replaced
        #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
}

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
    /// Arithmetic of the native judge on the device: f32, tf32 (CUDA) or bf16 (CUDA)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn cook_args(flags: &[&str]) -> CookArgs {
        match Cli::try_parse_from(["soupctl", "cook"].iter().chain(flags)).unwrap().command {
            Command::Cook(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    /// The variables of all options, in order.
    fn variables(command: &clap::Command) -> Vec<String> {
        let own = command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned()));
        own.chain(command.get_subcommands().flat_map(variables)).collect()
    }

    #[test]
    fn servers_log_what_is_wrong_and_a_cook_tells_of_it() {
        let logged = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            cli.log.unwrap_or_else(|| cli.command.logged().to_owned())
        };
        for (line, level) in [
            ("soupctl cook --pool p", "error"),
            ("soupctl cook --pool p --listen 127.0.0.1:0", "warn"),
            ("soupctl coordinator", "warn"),
            ("soupctl runs", "warn"),
            ("soupctl cook --pool p --log debug", "debug"),
        ] {
            assert_eq!(logged(line), level, "{line}");
        }
    }

    #[test]
    fn an_empty_variable_is_one_that_is_not_set() {
        let all = variables(&Cli::command());
        assert!(all.iter().any(|name| name == "SOUP_STATE_URL") && all.iter().any(|name| name == "RUST_LOG"));
        let of = |value: fn(&OsStr) -> &'static str| {
            variables(&without_empty(Cli::command(), &|name| Some(value(name).into())))
        };
        assert_eq!(of(|_| ""), Vec::<String>::new());
        let others: Vec<String> = all.into_iter().filter(|name| name != "SOUP_STATE_URL").collect();
        assert_eq!(of(|name| if name == "SOUP_STATE_URL" { "" } else { "x" }), others);
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_run_that_is_gone_on_with_says_itself_what_it_is() {
        let what = ["What to cook", "Recipe", "Learned recipe", "Diagnosis"];
        for name in ["cook", "taste", "plan"] {
            let whole = Cli::command();
            let command = whole.find_subcommand(name).unwrap();
            for arg in command.get_arguments() {
                let id = arg.get_id().as_str();
                let apart =
                    command.get_arg_conflicts_with(arg).iter().any(|other| other.get_id() == "resume");
                let is_what = arg.get_help_heading().is_some_and(|heading| what.contains(&heading));
                assert!(apart || !is_what, "{name}: {id} is passed over beside --resume");
                let who = arg.get_help_heading() == Some("Cluster") || id == "termination_message";
                assert!(!apart || !who, "{name}: {id} is refused beside --resume");
            }
        }
        for flags in [
            &["--recipe", "uniform"][..],
            &["--fresh"],
            &["--output", "o"],
            &["--pool", "p"],
            &["--test", "a=b"],
            &["--numerics", "cuda"],
            &["-f", "cook.yaml"],
        ] {
            let flags = ["soupctl", "cook", "--resume", "r"].iter().chain(flags);
            let error = Cli::try_parse_from(flags.clone()).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::ArgumentConflict, "{flags:?}");
        }
        let args = cook_args(&["--resume", "r", "--state-url", "s", "--workers", "2", "--overwrite", "-q"]);
        assert_eq!(args.resume.as_deref(), Some("r"));
        let pool = Cli::try_parse_from(["soupctl", "taste", "p", "--resume", "r"]);
        assert_eq!(pool.unwrap_err().exit_code(), 2);
    }

    #[test]
    fn switches_can_be_turned_off() {
        let overwrite = |flags: &[&str]| cook_args(flags).options.overwrite;
        assert_eq!(overwrite(&[]), None);
        assert_eq!(overwrite(&["--overwrite"]), Some(true));
        assert_eq!(overwrite(&["--overwrite=false"]), Some(false));
        // A switch takes nothing from what follows it.
        let args = cook_args(&["--overwrite", "--pool", "a", "--pool", "b", "-o", "json", "-q"]);
        assert_eq!((args.options.pool.len(), args.format, args.quiet), (2, OutputFormat::Json, true));
    }

    #[test]
    fn wrong_flags_are_usage_errors() {
        for flags in [
            &["cook", "--recipe", "stew"][..],
            &["cook", "--test", "nameless"],
            &["cook", "--test", "=url"],
            &["cook", "--memory", "much"],
            &["inspect"],
            &["worker", "--threads", "0"],
            &["coordinator", "--lease", "999ms"],
            &["stew"],
        ] {
            let error = Cli::try_parse_from(["soupctl"].iter().chain(flags)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{flags:?}");
        }
    }

    #[test]
    fn flags_win_over_the_file_and_paths_are_relative_to_their_source() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let file = root.join("cook.yaml");
        std::fs::write(&file, "pool: .\nvalidation: val\nseed: 1\nrecipe: pruned\ntest: {a: b}\n").unwrap();
        let file = file.to_str().unwrap();
        let spec = cook_args(&["-f", file, "--recipe", "uniform", "--test", "c=d"])
            .cook(Purpose::Cook)
            .unwrap()
            .spec;
        let cwd = std::env::current_dir().unwrap();
        assert_eq!(spec.pool, [root.to_str().unwrap()]);
        assert_eq!(spec.validation.unwrap().url, root.join("val").to_str().unwrap());
        assert_eq!((spec.recipe.seed, spec.recipe.kind.name()), (1, "uniform"));
        assert_eq!(spec.tests.len(), 1);
        assert_eq!(
            (spec.tests[0].name.as_str(), spec.tests[0].url.as_str()),
            ("c", cwd.join("d").to_str().unwrap())
        );
    }
}
