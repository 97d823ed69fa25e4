//! The command line. The doc comments are the help.

mod asking;
mod cook;
mod serving;

use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use soup_core::Result;

#[cfg(feature = "worker")]
pub(crate) use self::asking::DevicesArgs;
pub(crate) use self::asking::{
    DoctorArgs, InspectArgs, JudgesArgs, KeysCommand, ListArgs, LogArgs, Lookup, RemoteArgs, RunArgs,
    VerifyArgs, WatchArgs,
};
pub(crate) use self::cook::{CookArgs, TasteArgs};
#[cfg(feature = "worker")]
pub(crate) use self::serving::WorkerArgs;
pub(crate) use self::serving::{AdminArgs, CoordinatorArgs, TimingArgs};
use crate::authority::AuthorityCommand;
use crate::choices::LogFormat;
use crate::kubernetes::KubernetesCommand;

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

const LOGS: &str = "Logs";

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choices::OutputFormat;
    use crate::spec::Purpose;

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
