//! The flags of commands that ask: about checkpoints, runs, outputs, judges, devices, and how things are. And of `keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::choices::OutputFormat;
use crate::trust::TrustArgs;

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
    /// Arithmetic of the native judge of which the class is shown: f32, tf32 (CUDA) or bf16 (cpu and CUDA)
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
