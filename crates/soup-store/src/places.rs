//! Where a server reads and writes for others: below the prefixes that its operator named, and nowhere else.
//!
//! # Flow
//!
//! A process that works for others is *confined* once, before it takes any request ([`confine`]); one that works for whoever started it is
//! not, and everything is as the system allows it. What a request names is compared first, as text ([`check`]): nothing is looked up for
//! somebody who may not know the answer. That a local name is no link to elsewhere shows only when it is opened: then where the open file
//! or folder really is is compared ([`within`]), which no exchange of names in between can deceive.
//!
//! What is the process's own, such as its state, is no place of a run's, whatever allowed folder it lies in and whatever link leads there:
//! who opens something says [whose](Whose) it is. Of what is outside nothing is told, not even whether it is there ([`told`]).

mod leads;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use soup_core::{Error, Result};

use self::leads::leads_to;
use crate::location::Location;

/// Whose something is that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// A run's, which named it or what it is in.
    Run,
    /// The process's own, such as its state: no run names it.
    Own,
}

/// What a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Checkpoints.
    Pool,
    /// Samples.
    Data,
    /// The soup.
    Output,
}

impl Use {
    const ALL: [Use; 3] = [Use::Pool, Use::Data, Use::Output];

    /// As flags spell it.
    fn name(self) -> &'static str {
        match self {
            Use::Pool => "pool",
            Use::Data => "data",
            Use::Output => "output",
        }
    }

    fn of_what(self) -> &'static str {
        match self {
            Use::Pool => "checkpoints",
            Use::Data => "data",
            Use::Output => "output",
        }
    }

    fn flag(self) -> &'static str {
        if self == Use::Output { "--allow-write" } else { "--allow-read" }
    }
}

/// A prefix, and what for.
#[derive(Clone, Debug)]
struct Rule {
    /// Everything that is read, or everything that is written, if none.
    of: Option<Use>,
    write: bool,
    /// None: everywhere.
    prefix: Option<Location>,
    /// Where a local prefix really is.
    real: Option<PathBuf>,
}

/// What flags call all places there are.
const EVERYWHERE: &str = "everywhere";

impl Rule {
    /// `[KIND=]PREFIX`.
    fn parse(text: &str, write: bool) -> Result<Rule> {
        let kind =
            |name: &str| Use::ALL.into_iter().find(|of| of.name() == name && (*of == Use::Output) == write);
        let (of, place) = match text.split_once('=').and_then(|(name, place)| Some((kind(name)?, place))) {
            Some((of, place)) => (Some(of), place),
            None => (None, text),
        };
        if place == EVERYWHERE {
            return Ok(Rule { of, write, prefix: None, real: Some(PathBuf::from("/")) });
        }
        let prefix = Location::parse(place)?;
        if prefix.is_http() && write {
            return Err(Error::usage(format!("{prefix}: plain HTTP servers cannot be written to")));
        }
        let real = prefix.local_path().map(|path| {
            path.canonicalize().map_err(|e| {
                Error::configuration(format!("{prefix} has to be there to be allowed")).with_source(e)
            })
        });
        Ok(Rule { of, write, real: real.transpose()?, prefix: Some(prefix) })
    }

    fn covers(&self, place: &Location) -> bool {
        self.prefix.as_ref().is_none_or(|prefix| place.is_below(prefix))
    }

    fn is_for(&self, what: Use) -> bool {
        self.write == (what == Use::Output) && self.of.is_none_or(|of| of == what)
    }
}

/// What a process may read and write for others.
#[derive(Clone, Debug, Default)]
pub struct Places {
    rules: Vec<Rule>,
    /// What is the process's own: it reads and writes there, and nobody names places there.
    own: Vec<(Location, Option<PathBuf>)>,
    /// Where single clients are kept to, by name; none where all may name all places.
    clients: Option<BTreeMap<String, Places>>,
}

/// In place of a client's name: every one that is not named.
const OTHERS: &str = "*";

impl Places {
    /// What flags allow: prefixes, each after `pool=` or `data=` for that alone, or `everywhere`.
    ///
    /// # Errors
    /// [`Usage`](soup_core::ErrorKind::Usage) for what is no place; [`Configuration`](soup_core::ErrorKind::Configuration) for a local
    /// folder that is not there.
    pub fn new(read: &[String], write: &[String]) -> Result<Places> {
        let read = read.iter().map(|text| Rule::parse(text, false));
        let write = write.iter().map(|text| Rule::parse(text, true));
        Ok(Places { rules: read.chain(write).collect::<Result<_>>()?, ..Places::default() })
    }

    /// The same, with a place of the process's own, such as its state.
    #[must_use]
    pub fn with_own(mut self, place: Location) -> Places {
        // What is not there yet is created by this process, so its name is as good.
        let real = place.local_path().map(real_of);
        self.own.push((place, real));
        self
    }

    /// The same, where each client may name only those of these places that are its own; under `*` those of clients that are not named.
    #[must_use]
    pub fn with_clients(mut self, clients: BTreeMap<String, Places>) -> Places {
        self.clients = Some(clients);
        self
    }

    fn check_for(&self, client: &str, what: Use, place: &Location) -> Result<()> {
        let Some(clients) = &self.clients else { return Ok(()) };
        let nothing = Places::default();
        clients.get(client).or_else(|| clients.get(OTHERS)).unwrap_or(&nothing).check(what, place).map_err(|_| {
            tracing::warn!(%place, client, what = what.name(), "denied: a place that is not that client's");
            Error::configuration(format!(
                "{place} is no place for {} of client {client:?}: whoever runs the cluster says whose it is with --client-places",
                what.of_what()
            ))
        })
    }

    fn check(&self, what: Use, place: &Location) -> Result<()> {
        let allowed = self.rules.iter().any(|rule| rule.is_for(what) && rule.covers(place));
        let own = self.own.iter().any(|(own, _)| place.is_below(own) || own.is_below(place));
        if allowed && !own {
            return Ok(());
        }
        tracing::warn!(place = %place, what = what.name(), "denied: a place that is not allowed here");
        Err(Error::configuration(format!(
            "{place} is no place for {} here: whoever runs the cluster allows places with {} PREFIX, on the coordinator and on workers",
            what.of_what(),
            what.flag()
        )))
    }

    /// Whether that is somewhere that may be read, or written. What may be written may be read back.
    fn is_within(&self, real: &Path, whose: Whose, write: bool) -> bool {
        let mut roots =
            self.rules.iter().filter(|rule| rule.write || !write).filter_map(|rule| rule.real.as_ref());
        match self.is_own(real) {
            true => whose == Whose::Own,
            false => roots.any(|root| real.starts_with(root)),
        }
    }

    /// Whether that is somewhere in what is the process's own.
    fn is_own(&self, real: &Path) -> bool {
        self.own.iter().filter_map(|(_, own)| own.as_ref()).any(|own| real.starts_with(own))
    }
}

impl Places {
    /// Whether something may be made at `real`: where may be written, and on the way to what is the process's own by the process.
    fn may_make(&self, real: &Path, whose: Whose) -> bool {
        let mut own = self.own.iter().filter_map(|(_, real)| real.as_ref());
        self.is_within(real, whose, true) || (whose == Whose::Own && own.any(|own| own.starts_with(real)))
    }
}

/// Where a path really leads, as far as it is there.
fn real_of(path: &Path) -> PathBuf {
    for above in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (above.canonicalize(), path.strip_prefix(above)) {
            return real.join(rest);
        }
    }
    path.to_owned()
}

static PLACES: OnceLock<Places> = OnceLock::new();

/// Confines this process, for good.
///
/// # Errors
/// [`Internal`](soup_core::ErrorKind::Internal) where it is confined already.
pub fn confine(places: Places) -> Result<()> {
    PLACES.set(places).map_err(|_| Error::internal("this process is confined already"))
}

/// Whether this process is confined.
#[cfg(feature = "cloud")]
pub(crate) fn confined() -> bool {
    PLACES.get().is_some()
}

/// Refuses a place that is not allowed for that. Looks nothing up.
///
/// # Errors
/// [`Configuration`](soup_core::ErrorKind::Configuration), naming the place and the flag; [`Usage`](soup_core::ErrorKind::Usage) for a path
/// with `..`, and what else names no place.
pub fn check(what: Use, url: &str) -> Result<()> {
    match PLACES.get() {
        Some(places) => places.check(what, &Location::named(url)?),
        None => Ok(()),
    }
}

/// Refuses a place that this client may not name, where clients have places of their own.
///
/// # Errors
/// As for [`check`].
pub fn check_for(client: &str, what: Use, url: &str) -> Result<()> {
    match PLACES.get() {
        Some(places) => places.check_for(client, what, &Location::named(url)?),
        None => Ok(()),
    }
}

/// Refuses what was opened at an allowed name and is not at an allowed place.
///
/// # Errors
/// [`PermissionDenied`](io::ErrorKind::PermissionDenied), without saying where it is.
pub(crate) fn within(opened: impl AsFd, whose: Whose, write: bool) -> io::Result<()> {
    let Some(places) = PLACES.get() else { return Ok(()) };
    let real = std::fs::read_link(format!("/proc/self/fd/{}", opened.as_fd().as_raw_fd()))?;
    if places.is_within(&real, whose, write) { Ok(()) } else { Err(away()) }
}

/// Refuses to make `name`, a folder or what is renamed to it, in a folder that is open, where that is no allowed place.
///
/// # Errors
/// As for [`within`].
pub(crate) fn may_make(above: impl AsFd, whose: Whose, name: &OsStr) -> io::Result<()> {
    let Some(places) = PLACES.get() else { return Ok(()) };
    let real = std::fs::read_link(format!("/proc/self/fd/{}", above.as_fd().as_raw_fd()))?;
    if places.may_make(&real.join(name), whose) { Ok(()) } else { Err(away()) }
}

/// Refuses to look into a folder that is, without links, at `real`, where that is no allowed place to read.
///
/// # Errors
/// As for [`within`].
pub(crate) fn within_path(real: &Path, whose: Whose) -> io::Result<()> {
    match PLACES.get() {
        Some(places) if !places.is_within(real, whose, false) => Err(away()),
        _ => Ok(()),
    }
}

/// Refuses a path that leads to no allowed place, in the same words whether something is there or not. What is opened afterwards is
/// compared all the same.
///
/// # Errors
/// As for [`within`].
pub(crate) fn leads_within(path: &Path, whose: Whose, write: bool) -> io::Result<()> {
    match PLACES.get() {
        Some(places) if !places.is_within(&leads_to(path), whose, write) => Err(away()),
        _ => Ok(()),
    }
}

/// Why `path` could not be opened, as it may be told to whoever named it: where it leads to no allowed place, that and nothing else.
pub(crate) fn told(path: &Path, whose: Whose, write: bool, error: io::Error) -> io::Error {
    leads_within(path, whose, write).err().unwrap_or(error)
}

/// Whether what is, without links, at `real` is the process's own, which nobody else is shown.
pub(crate) fn is_own(real: &Path) -> bool {
    PLACES.get().is_some_and(|places| places.is_own(real))
}

fn away() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, LeadsAway)
}

/// What is said of a name that leads out of what is allowed.
pub(crate) const AWAY: &str = "leads out of the places that are allowed here (--allow-read, --allow-write)";

/// A name that leads out of what is allowed.
#[derive(Debug)]
struct LeadsAway;

impl fmt::Display for LeadsAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it {AWAY}")
    }
}

impl std::error::Error for LeadsAway {}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(read: &[&str], write: &[&str]) -> Places {
        let owned = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Places::new(&owned(read), &owned(write)).unwrap()
    }

    #[track_caller]
    fn allows(places: &Places, what: Use, url: &str, expect: bool) {
        let checked = places.check(what, &Location::parse(url).unwrap());
        assert_eq!(checked.is_ok(), expect, "{what:?} {url}");
        if let Err(error) = checked {
            assert_eq!(error.kind(), soup_core::ErrorKind::Configuration);
            assert!(error.chain().contains(what.flag()), "{}", error.chain());
        }
    }

    #[test]
    fn what_is_not_named_is_not_allowed() {
        let none = places(&[], &[]);
        for what in Use::ALL {
            allows(&none, what, "/tmp", false);
            allows(&none, what, "memory:///a", false);
        }
    }

    #[test]
    fn prefixes_end_at_names() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        let places = places(&[root], &[&format!("output={root}")]);
        for what in Use::ALL {
            allows(&places, what, root, true);
            allows(&places, what, &format!("{root}/a/b"), true);
            allows(&places, what, &format!("file://{root}/a"), true);
            allows(&places, what, &format!("{root}-other/a"), false);
            allows(&places, what, &format!("{root}/../etc"), false);
            allows(&places, what, &format!("{root}/a/../../etc/passwd"), false);
            allows(&places, what, "/", false);
            allows(&places, what, &format!("memory://{root}/a"), false);
        }
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn stores_are_told_apart() {
        let places =
            places(&["s3://pools/run-1", "https://data.lab", "http://127.0.0.1:9/x"], &["s3://soups"]);
        for (url, expect) in [
            ("s3://pools/run-1", true),
            ("s3://pools/run-1/a.safetensors", true),
            ("s3://pools/run-10", false),
            ("s3://pools", false),
            ("s3://other/run-1", false),
            ("gs://pools/run-1", false),
            ("https://data.lab/x/y", true),
            ("http://data.lab/x", false),
            ("https://data.lab:8443/x", false),
            ("https://data.lab.evil/x", false),
            ("http://127.0.0.1:9/x/y", true),
            ("http://127.0.0.1:9/xy", false),
            ("http://169.254.169.254/latest/meta-data", false),
            ("s3://soups/a", false),
        ] {
            allows(&places, Use::Pool, url, expect);
        }
        allows(&places, Use::Output, "s3://soups/a", true);
        allows(&places, Use::Output, "s3://pools/run-1/a", false);
        assert!(Places::new(&[], &["https://data.lab".to_owned()]).is_err());
    }

    #[test]
    fn kinds_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (pool, data, odd) = (folder("p"), folder("d"), folder("x=y"));
        let places = places(&[&format!("pool={pool}"), &format!("data={data}"), &odd], &[]);
        allows(&places, Use::Pool, &pool, true);
        allows(&places, Use::Data, &pool, false);
        allows(&places, Use::Data, &data, true);
        allows(&places, Use::Data, &odd, true);
        allows(&places, Use::Output, &odd, false);
        // A kind that is not read is no kind here, and so a part of a name that is not there.
        for kind in ["output", "config"] {
            assert!(Places::new(&[format!("{kind}={pool}")], &[]).is_err());
        }
        assert!(Places::new(&["/no/such/folder".to_owned()], &[]).is_err());
    }

    #[test]
    fn everywhere_is_a_word_of_its_own() {
        let places = places(&["data=everywhere", "/tmp"], &["everywhere"]);
        for url in ["/etc", "memory:///x"] {
            allows(&places, Use::Data, url, true);
            allows(&places, Use::Pool, url, false);
            allows(&places, Use::Output, url, true);
        }
        // A folder that is called so can still be named.
        assert!(Places::new(&["./everywhere".to_owned()], &[]).is_err());
    }

    #[test]
    fn nobody_names_what_is_the_servers_own() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        let places = places(&[root], &[root]).with_own(Location::parse(&format!("{root}/state")).unwrap());
        allows(&places, Use::Output, &format!("{root}/soups"), true);
        allows(&places, Use::Output, &format!("{root}/state/runs/x"), false);
        allows(&places, Use::Pool, &format!("{root}/state"), false);
        // Nor what it is in.
        allows(&places, Use::Output, root, false);
        // And what leads there by a link is not theirs, though it lies in an allowed folder.
        let real = dir.path().canonicalize().unwrap();
        for write in [false, true] {
            assert!(places.is_within(&real.join("state/runs"), Whose::Own, write));
            assert!(!places.is_within(&real.join("state/runs"), Whose::Run, write));
            assert!(!places.is_within(&real.join("state"), Whose::Run, write));
            assert!(places.is_within(&real.join("state-of-the-art"), Whose::Run, write));
        }
    }

    #[test]
    fn clients_have_places_of_their_own() {
        let may = |places: &Places, client: &str, what, url: &str| {
            places.check_for(client, what, &Location::parse(url).unwrap()).map_err(|e| e.chain())
        };
        let all = places(&["/tmp"], &["/tmp"]);
        may(&all, "ada", Use::Output, "/etc").unwrap();
        let ada = places(&["data=/tmp"], &["everywhere"]);
        let of = |clients: &[(&str, &Places)]| {
            all.clone().with_clients(clients.iter().map(|(n, p)| ((*n).to_owned(), (*p).clone())).collect())
        };
        let strict = of(&[("ada", &ada)]);
        may(&strict, "ada", Use::Data, "/tmp/x").unwrap();
        may(&strict, "ada", Use::Output, "/tmp/x").unwrap();
        let refused = may(&strict, "ada", Use::Pool, "/tmp/x").unwrap_err();
        assert!(refused.contains("\"ada\"") && refused.contains("--client-places"), "{refused}");
        may(&strict, "bob", Use::Data, "/tmp/x").unwrap_err();
        let open = of(&[("ada", &ada), ("*", &places(&["pool=/tmp"], &[]))]);
        may(&open, "bob", Use::Pool, "/tmp/x").unwrap();
        may(&open, "ada", Use::Pool, "/tmp/x").unwrap_err();
    }

    #[test]
    fn folders_are_made_where_may_be_written_and_on_the_way_to_the_servers_own() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("soups")).unwrap();
        let places = places(&[root.to_str().unwrap()], &[root.join("soups").to_str().unwrap()]);
        let places = places.with_own(Location::parse(root.join("a/state").to_str().unwrap()).unwrap());
        for (name, for_a_run, for_itself) in [
            ("soups/x", true, true),
            ("a", false, true),
            ("a/state/runs", false, true),
            ("a/b", false, false),
            ("x", false, false),
        ] {
            assert_eq!(places.may_make(&root.join(name), Whose::Run), for_a_run, "{name}");
            assert_eq!(places.may_make(&root.join(name), Whose::Own), for_itself, "{name}");
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let soups = root.join("soups");
        std::fs::create_dir_all(&soups).unwrap();
        let places = places(&[], &[soups.to_str().unwrap()]);
        assert!(places.is_within(&soups.join("x/model.safetensors"), Whose::Run, false));
        assert!(!places.is_within(&root.join("x"), Whose::Run, false));
        // Which makes it no place that anybody may name to be read.
        allows(&places, Use::Pool, soups.join("x").to_str().unwrap(), false);
    }

    #[test]
    fn links_are_where_they_lead() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("allowed/below")).unwrap();
        std::fs::create_dir(root.join("secret")).unwrap();
        std::os::unix::fs::symlink(root.join("allowed"), root.join("name")).unwrap();
        // An operator may name a link: what is behind it is meant.
        let places = places(&[root.join("name").to_str().unwrap()], &[]);
        assert!(places.is_within(&root.join("allowed/below/x"), Whose::Run, false));
        assert!(!places.is_within(&root.join("allowed/below/x"), Whose::Run, true));
        assert!(!places.is_within(&root.join("secret/x"), Whose::Run, false));
        assert!(!places.is_within(&root.join("allowed-not/x"), Whose::Run, false));
        let output = root.join("secret");
        let places = self::places(&[], &[output.to_str().unwrap()]);
        assert!(
            places.is_within(&output.join("soup"), Whose::Run, true)
                && places.is_within(&output.join("soup"), Whose::Run, false)
        );
    }
}
