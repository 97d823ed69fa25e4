//! `soupctl`: the one binary. It asks a cluster to cook, and it is also the cluster's coordinator and worker.
//!
//! # Flow
//!
//! [`args`] parses the command line. `cook` and `plan` merge flags and cook file ([`cookfile`]) into a specification
//! ([`spec`]). `cook` starts an embedded cluster ([`cluster`]) unless it is given one, submits the run and watches it
//! ([`client`]); events become lines and bars on stderr ([`narrate`], [`progress`]), the result a table or JSON on
//! stdout ([`table`], [`print`]). `runs`, `status`, `log` read the state, `watch`, `wait` and `cancel` ask a coordinator
//! ([`runs`]), `verify` an output ([`verify`]). Whom a process believes is in one place ([`trust`]); `ca` makes what it proves itself
//! with ([`authority`]). `coordinator` and `worker` are thin ([`serve`]). `k8s` makes the objects of one cook ([`kubernetes`]).
//!
//! Everything ends here: errors are printed once, and their kind is the exit code. What a shell made of the command line is told from what is
//! wrong with it ([`unquoted`]).

mod admin;
mod args;
mod authority;
mod choices;
mod client;
#[cfg(feature = "worker")]
mod cluster;
mod cook;
mod cookfile;
mod datasets;
#[cfg(feature = "worker")]
mod devices;
mod doctor;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gates;
mod inspect;
mod journal;
mod judges;
mod keys;
mod kubernetes;
mod listening;
mod logs;
mod metric;
mod narrate;
mod plan;
mod print;
mod progress;
mod quantity;
mod resources;
mod runs;
mod serve;
mod signals;
mod spec;
mod table;
mod trust;
mod unquoted;
mod verify;

use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue};
use soup_core::{Error, Result};
use tokio::runtime::Runtime;

use crate::args::{Cli, Command};
use crate::kubernetes::KubernetesCommand;
use crate::spec::Purpose;

/// Soups are made by whatever threads are free, of tensors of many MB. glibc's allocator keeps for each thread what was freed of its
/// memory, up to a model; this one lets all threads have it, and gives back to the system what nobody takes for a second.
#[cfg(feature = "worker")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The program: parses the command line, does what it says, prints an error if there is one. Gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::of_process() {
        Ok(cli) => cli,
        Err(error) => {
            let code = ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
            match is_help(&error) {
                // Where it cannot be printed there is nobody to tell.
                true => drop(error.print()),
                false => {
                    let args: Vec<_> =
                        std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
                    print::line(&complaint(error, &args));
                }
            }
            return code;
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            print::line(&format!("error: {}", error.chain()));
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// Whether an error of the command line is nothing but help or the version, which this program has made of nothing but itself.
fn is_help(error: &clap::Error) -> bool {
    !error.use_stderr() || error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}

/// What an error of the command line says. Arguments are in it, which whoever made them may have meant for a terminal: so it has no colours,
/// and what is odd in them is spelled out before colours are taken off, which would hide it.
fn complaint(mut error: clap::Error, args: &[String]) -> String {
    let plain = |text: &String| print::plain(text).into_owned();
    let spelled = |value: &ContextValue| match value {
        ContextValue::String(text) => Some(ContextValue::String(plain(text))),
        ContextValue::Strings(texts) => Some(ContextValue::Strings(texts.iter().map(plain).collect())),
        _ => None,
    };
    let is_there = |path: &str| std::path::Path::new(path).exists();
    let advice = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (clap::error::ErrorKind::UnknownArgument, Some(ContextValue::String(unexpected))) => {
            unquoted::advice(args, unexpected, is_there)
        }
        _ => None,
    };
    let values: Vec<_> = error.context().filter_map(|(kind, value)| Some((kind, spelled(value)?))).collect();
    for (kind, value) in values {
        error.insert(kind, value);
    }
    let text = print::plain(error.render().to_string().trim_end()).into_owned();
    match advice {
        Some(advice) => format!("{text}\n\n  tip: {advice}"),
        None => text,
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    // Where their number is not given, the runtime takes it from the environment, and panics at what is none.
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|e| Error::configuration("the runtime cannot be started").with_source(e))?;
    one_more_thread(|| std::thread::Builder::new().spawn(|| ()).map(drop))?;
    let telemetry = {
        let _inside = runtime.enter();
        let filter = cli.log.as_deref().unwrap_or(cli.command.logged());
        logs::start(filter, cli.log_format, cli.command.role())?
    };
    let done = perform(cli.command, &runtime);
    // Sends what is left.
    drop(telemetry);
    // Nothing that is still running is waited for: a second interrupt means now.
    runtime.shutdown_background();
    done
}

/// Requires that the runtime's threads are not the last that this process may have: whatever waits for a disk needs one, and a
/// runtime that gets none panics.
fn one_more_thread(start: impl FnOnce() -> std::io::Result<()>) -> Result<()> {
    start().map_err(|e| {
        let text = "no thread can be started: raise the limit of processes and threads (ulimit -u, TasksMax, pids.max)";
        Error::configuration(text).with_source(e)
    })
}

fn perform(command: Command, runtime: &Runtime) -> Result<ExitCode> {
    let done = match command {
        #[cfg(feature = "worker")]
        Command::Worker(args) => {
            return block_on(runtime, admin::beside(&args.admin.clone(), None, serve::worker(args)));
        }
        Command::Schema => print::json(&schemars::schema_for!(cookfile::CookOptions)),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "soupctl", &mut text);
            print::own(&String::from_utf8_lossy(&text))
        }
        Command::Cook(args) => block_on(runtime, cook::run(*args, Purpose::Cook)),
        Command::Taste(args) => block_on(runtime, cook::run(args.into_cook(), Purpose::Taste)),
        Command::Plan(args) => block_on(runtime, plan::run(*args)),
        Command::Doctor(args) => block_on(runtime, doctor::run(args)),
        Command::Inspect(args) => block_on(runtime, inspect::run(args)),
        Command::Judges(args) => block_on(runtime, judges::run(args)),
        #[cfg(feature = "worker")]
        Command::Devices(args) => block_on(runtime, devices::run(args)),
        Command::Runs(args) => block_on(runtime, runs::runs(args)),
        Command::Status(args) => block_on(runtime, runs::status(args)),
        Command::Watch(args) => block_on(runtime, runs::watch(args)),
        Command::Wait(args) => block_on(runtime, runs::wait(args)),
        Command::Cancel(args) => block_on(runtime, runs::cancel(args)),
        Command::Log(args) => block_on(runtime, journal::log(args)),
        Command::Ca { command } => authority::run(command),
        Command::Verify(args) => block_on(runtime, verify::run(args)),
        Command::Keys(command) => keys::run(command),
        #[cfg(feature = "k8s")]
        Command::K8s { command: KubernetesCommand::Submit(args) } => {
            return block_on(runtime, kubernetes::submit(args));
        }
        Command::K8s { command: KubernetesCommand::Render(args) } => kubernetes::render(&args),
        Command::K8s { command: KubernetesCommand::Chart { folder } } => kubernetes::chart(&folder),
        Command::Coordinator(args) => block_on(runtime, serve::coordinator(args)),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn block_on<T>(runtime: &Runtime, work: impl Future<Output = Result<T>>) -> Result<T> {
    runtime.block_on(Box::pin(async {
        // For as long as this process writes anything.
        let _file_size = signals::no_death_by_file_size()?;
        work.await
    }))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_spelled_out_in_errors_of_the_command_line() {
        let odd = "evil\u{1b}]0;owned\u{7}\u{1b}[31m\u{9b}\u{202e}";
        let shown = "evil\\u{1b}]0;owned\\u{7}\\u{1b}[31m\\u{9b}\\u{202e}";
        for args in
            [&["verify", "x", odd][..], &["verify", "x", &format!("--{odd}")], &["cook", "--log-format", odd]]
        {
            let error = Cli::try_parse_from([&["soupctl"][..], args].concat()).unwrap_err();
            assert!(!is_help(&error), "{args:?}");
            let text = complaint(error, &[]);
            assert!(text.contains(shown) && text.starts_with("error: "), "{text}");
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        }
        for args in [&["soupctl"][..], &["soupctl", "--help"], &["soupctl", "--version"]] {
            assert!(is_help(&Cli::try_parse_from(args).unwrap_err()), "{args:?}");
        }
    }

    #[test]
    fn paths_that_a_shell_made_of_a_glob_are_told_from_arguments_that_are_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name).display().to_string());
        paths.iter().for_each(|path| std::fs::write(path, "").unwrap());
        let args =
            ["soupctl", "cook", "--pool", &paths[0], &paths[1], "--recipe", "uniform"].map(str::to_owned);
        let text = complaint(Cli::try_parse_from(&args).unwrap_err(), &args);
        assert!(text.starts_with("error: unexpected argument"), "{text}");
        assert!(text.contains("tip: --pool is followed by 2 paths") && text.contains("in quotes"), "{text}");
        let args = ["soupctl", "cook", "--pool", &paths[0], "nowhere"].map(str::to_owned);
        let text = complaint(Cli::try_parse_from(&args).unwrap_err(), &args);
        assert!(!text.contains("in quotes"), "{text}");
    }

    #[test]
    fn a_process_without_threads_says_which_limit_it_met() {
        one_more_thread(|| std::thread::Builder::new().spawn(|| ()).map(drop)).unwrap();
        let refused = one_more_thread(|| Err(std::io::Error::from_raw_os_error(11))).unwrap_err();
        assert_eq!(refused.kind(), soup_core::ErrorKind::Configuration);
        assert!(refused.chain().contains("ulimit -u"), "{}", refused.chain());
    }
}
