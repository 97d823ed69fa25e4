//! The flags of `cook`, `plan` and `taste`.

use std::path::PathBuf;

use clap::Args;
use soup_core::Result;

use super::{AdminArgs, TimingArgs};
use crate::choices::{OnInterrupt, OutputFormat};
use crate::cookfile::{CookOptions, current_folder};
use crate::spec::{Cook, Purpose};
use crate::trust::TrustArgs;

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
