//! Globs that a shell has replaced by what matches them before this program saw them: the option before gets the first path, and nobody
//! expects the others.

/// Options that take globs. Those of positions take many paths.
const OF_GLOBS: [&str; 5] = ["--pool", "--validation", "--test", "--train", "--calibration"];

/// What to do about an argument that was not expected, where a shell made it of a glob: it comes after the value of an option that takes
/// globs, and all of them are there.
pub(crate) fn advice(args: &[String], unexpected: &str, is_there: impl Fn(&str) -> bool) -> Option<String> {
    let at = args.iter().rposition(|arg| arg == unexpected)?;
    let option = args[..at].iter().rposition(|arg| arg.starts_with('-'))?;
    let name = OF_GLOBS.into_iter().find(|name| *name == args[option])?;
    let follow = args[option + 1..].iter().take_while(|arg| !arg.starts_with('-'));
    let paths = follow.take_while(|arg| is_there(arg)).count();
    // The first one is the option's.
    (paths > 1 && at <= option + paths).then(|| {
        let repeat = if name == "--pool" { ", or write --pool before each of them" } else { "" };
        format!(
            "{name} is followed by {paths} paths, which a shell makes of a glob: put the glob in quotes, as in {name} 'folder/*'{repeat}"
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    fn said(args: &[&str], there: &[&str]) -> Option<String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let unexpected = there.get(1).copied().unwrap_or_default();
        advice(&args, unexpected, |path| there.contains(&path))
    }

    #[test]
    fn a_glob_that_the_shell_took_is_to_be_quoted() {
        let paths = ["a/1/b", "a/2/b", "a/3/b"];
        let pool =
            said(&["cook", "--pool", "a/1/b", "a/2/b", "a/3/b", "--recipe", "greedy"], &paths).unwrap();
        assert!(pool.starts_with("--pool is followed by 3 paths"), "{pool}");
        assert!(pool.contains("in quotes, as in --pool 'folder/*', or write --pool before"), "{pool}");
        for option in OF_GLOBS {
            let text = said(&["cook", option, "a/1/b", "a/2/b"], &paths).unwrap();
            assert!(text.contains(&format!("as in {option} 'folder/*'")), "{text}");
        }
        // Nobody can tell what these are.
        assert_eq!(said(&["cook", "a/1/b", "a/2/b"], &paths), None);
        assert_eq!(said(&["cook", "--recipe", "a/1/b", "a/2/b"], &paths), None);
        assert_eq!(said(&["cook", "--pool", "a/1/b", "odd", "a/2/b"], &paths), None);
        assert_eq!(said(&["cook", "--pool", "a/1/b", "--quiet", "a/2/b"], &paths), None);
        assert_eq!(said(&["cook", "--pool", "nowhere", "a/2/b"], &paths), None);
    }

    #[test]
    fn the_options_are_those_of_the_command() {
        let command = Cli::command();
        let cook = command.find_subcommand("cook").unwrap();
        let longs: Vec<&str> = cook.get_arguments().filter_map(clap::Arg::get_long).collect();
        assert!(OF_GLOBS.iter().all(|name| longs.contains(&name.trim_start_matches('-'))), "{longs:?}");
    }
}
