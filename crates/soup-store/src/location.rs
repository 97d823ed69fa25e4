//! Places in stores, named by paths and URLs.
//!
//! A [`Location`] is a store and a path inside it. Stores are made once per bucket or host and shared by the whole process,
//! so that connections are reused and `memory://` is one store for everybody in the process.

#[cfg(feature = "cloud")]
use std::collections::HashMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, LazyLock};
#[cfg(feature = "cloud")]
use std::sync::{Mutex, PoisonError};

use object_store::memory::InMemory;
use object_store::path::Path as StorePath;
use object_store::{Error as StoreError, ObjectStore};
use soup_core::{Error, ErrorKind, Result};
use url::Url;

pub use self::written::absolute;
use self::written::{refuse_unexpanded, without_dots};
use crate::cause::{Cause, one_line};
use crate::local::{LocalDisk, NotAFile};
use crate::places::Whose;

mod written;

/// A file or a folder in a store. Cheap to clone; nothing is opened until it is read.
///
/// Displayed as a plain path (local disk) or as a URL; both can be parsed again. Neither holds credentials: those come from
/// the environment.
#[derive(Clone)]
pub struct Location {
    store: Arc<dyn ObjectStore>,
    path: StorePath,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// An absolute path on the local disk.
    Local(PathBuf),
    Url {
        /// A plain HTTP server.
        http: bool,
        /// The URL of the store's root.
        base: Arc<Url>,
    },
}

#[cfg(feature = "cloud")]
type Stores = Mutex<HashMap<String, Arc<dyn ObjectStore>>>;

static LOCAL: LazyLock<Arc<dyn ObjectStore>> = LazyLock::new(|| Arc::new(LocalDisk::new(Whose::Run)));
static OWN_LOCAL: LazyLock<Arc<dyn ObjectStore>> = LazyLock::new(|| Arc::new(LocalDisk::new(Whose::Own)));
static MEMORY: LazyLock<Arc<dyn ObjectStore>> = LazyLock::new(|| Arc::new(InMemory::new()));
#[cfg(feature = "cloud")]
static REMOTE: LazyLock<Stores> = LazyLock::new(Stores::default);
/// Most stores that are kept to be shared: each has a client of its own, and names of hosts come from whoever submits runs.
#[cfg(feature = "cloud")]
const STORES_MAX: usize = 256;
/// Longest text of a place, in bytes: no store has longer names, and none of this program's messages is as long.
pub(crate) const TEXT_BYTES_MAX: usize = 8 << 10;
/// Where no store is needed.
static NOWHERE: LazyLock<Arc<dyn ObjectStore>> = LazyLock::new(|| Arc::new(InMemory::new()));

const MEMORY_ROOT: &str = "memory:///";

impl Location {
    /// The place that `text` names: a path, relative or absolute, or a URL (`file`, `memory`, `s3`, `gs`, `az`, `abfs`, `abfss`,
    /// `http`, `https`).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for text that names no place, or that holds credentials (which the text of the error leaves out);
    /// [`ErrorKind::Configuration`] for a store that cannot be set up.
    pub fn parse(text: &str) -> Result<Location> {
        Location::of(text, Location::local, remote)
    }

    /// The place that `text` names, to be compared with others and not to be read: nothing is looked up for it, neither links nor
    /// credentials, and no store is set up.
    ///
    /// # Errors
    /// As for [`Location::parse`], and [`ErrorKind::Usage`] for a path with `..`: where that leads depends on links.
    pub(crate) fn named(text: &str) -> Result<Location> {
        let local = |path: &Path| match path.components().any(|part| part == Component::ParentDir) {
            true => Err(Error::usage(format!("{path:?} has \"..\" in it: write where it leads"))),
            false => Location::local(path),
        };
        Location::of(text, local, |text| remote_in(text, |_| Ok(Arc::clone(&NOWHERE))))
    }

    fn of(
        text: &str,
        local: impl Fn(&Path) -> Result<Location>,
        remote: impl Fn(&str) -> Result<Location>,
    ) -> Result<Location> {
        refuse_long(text)?;
        let Some((scheme, rest)) = text.split_once("://") else {
            refuse_unexpanded(text)?;
            return local(Path::new(text));
        };
        refuse_doubtful(scheme, rest)?;
        match scheme.to_ascii_lowercase().as_str() {
            "file" => {
                let path = parse_url(text)?.to_file_path().map_err(|()| {
                    Error::usage(format!("{text:?} is not a local file: write file:///absolute/path"))
                })?;
                local(&path)
            }
            "memory" => {
                let path = StorePath::from_url_path(rest.trim_matches('/')).map_err(|e| {
                    Error::usage(format!("{text:?} is not a usable place")).with_source(in_one_line(e))
                })?;
                Ok(Location::memory(path))
            }
            "s3" | "s3a" | "gs" | "az" | "azure" | "adl" | "abfs" | "abfss" | "http" | "https" => {
                remote(text)
            }
            other => Err(Error::usage(format!(
                "{other:?} is not a known kind of store: use a path, file, memory, s3, gs, az, http or https"
            ))),
        }
    }

    /// The place of a local path; relative ones start at the current folder.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for an empty path or one that is not UTF-8, and for `..` after a link that leads nowhere.
    pub fn local(path: &Path) -> Result<Location> {
        let usage = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::usage(format!("{path:?} is not a usable path")).with_source(in_one_line(e))
        };
        let absolute = without_dots(&std::path::absolute(path).map_err(|e| usage(e.into()))?)?;
        let inside = StorePath::from_absolute_path(&absolute).map_err(|e| usage(e.into()))?;
        Ok(Location { store: Arc::clone(&LOCAL), path: inside, kind: Kind::Local(absolute) })
    }

    fn memory(path: StorePath) -> Location {
        let base = Arc::new(Url::parse(MEMORY_ROOT).expect("a constant"));
        #[cfg(any(test, feature = "faults"))]
        if let Some(store) = crate::faults::memory_store() {
            return Location { store, path, kind: Kind::Url { http: false, base } };
        }
        Location { store: Arc::clone(&MEMORY), path, kind: Kind::Url { http: false, base } }
    }

    /// The place `rel` below this one: names separated by `/`.
    ///
    /// # Errors
    /// [`ErrorKind::Data`] for an empty or absolute `rel`, or one with `.`, `..` or empty parts: it would name another folder.
    pub fn join(&self, rel: &str) -> Result<Location> {
        let refuse =
            || Error::data(format!("{rel:?} is not a name below {self}: no absolute paths, no \"..\""));
        let mut path = self.path.clone();
        let mut kind = self.kind.clone();
        for part in rel.split('/') {
            if part.is_empty() || part == "." || part == ".." || part.contains('\0') {
                return Err(refuse());
            }
            // Unlike `Path::from`, this keeps names as they are: no encoding on the way.
            let parent = if path.as_ref().is_empty() { String::new() } else { format!("{path}/") };
            path = StorePath::parse(format!("{parent}{part}")).map_err(|_| refuse())?;
            if let Kind::Local(p) = &mut kind {
                p.push(part);
            }
        }
        Ok(Location { store: Arc::clone(&self.store), path, kind })
    }

    /// The folder that holds this place; `None` for the root of a store.
    pub fn parent(&self) -> Option<Location> {
        let path = match self.path.as_ref().rsplit_once('/') {
            Some((parent, _)) => StorePath::parse(parent).ok()?,
            None if self.path.as_ref().is_empty() => return None,
            None => StorePath::default(),
        };
        let kind = match &self.kind {
            Kind::Local(p) => Kind::Local(p.parent()?.to_path_buf()),
            other => other.clone(),
        };
        Some(Location { store: Arc::clone(&self.store), path, kind })
    }

    /// The last component; empty for the root of a store.
    pub fn name(&self) -> &str {
        let path = self.path.as_ref();
        path.rsplit_once('/').map_or(path, |(_, name)| name)
    }

    /// Whether this is `above` or a place below it, by name: links are not followed.
    pub fn is_below(&self, above: &Location) -> bool {
        match (&self.kind, &above.kind) {
            (Kind::Local(path), Kind::Local(above)) => path.starts_with(above),
            (Kind::Url { base, .. }, Kind::Url { base: other, .. }) => {
                base == other && self.path.prefix_matches(&above.path)
            }
            _ => false,
        }
    }

    /// Whether this is a place on the local disk.
    pub fn is_local(&self) -> bool {
        self.local_path().is_some()
    }

    /// The path on the local disk, absolute.
    pub fn local_path(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Local(path) => Some(path),
            Kind::Url { .. } => None,
        }
    }

    /// Whether files here are read from a plain HTTP server, which can neither list nor create.
    pub fn is_http(&self) -> bool {
        matches!(self.kind, Kind::Url { http: true, .. })
    }

    /// The same place, and what is below it, as this process's own: what no run may open, it may.
    #[must_use]
    pub(crate) fn owned(self) -> Location {
        match &self.kind {
            Kind::Local(_) => Location { store: Arc::clone(&OWN_LOCAL), ..self },
            Kind::Url { .. } => self,
        }
    }

    /// Whose it is, by how it came to be known.
    pub(crate) fn whose(&self) -> Whose {
        if Arc::ptr_eq(&self.store, &OWN_LOCAL) { Whose::Own } else { Whose::Run }
    }

    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    pub(crate) fn path(&self) -> &StorePath {
        &self.path
    }

    fn url(&self, base: &Url) -> Url {
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(self.path.as_ref().split('/').filter(|s| !s.is_empty()));
        }
        url
    }

    /// Turns an error of the store into one of ours: the kind says what to do, the text names this place.
    pub(crate) fn error(&self, doing: &str, error: StoreError) -> Error {
        use std::io::ErrorKind as Io;
        if let Some(other) = not_a_file(&error) {
            return Error::data(format!("{self} is {}", other.what()));
        }
        let io = io_kind(&error);
        #[cfg(feature = "cloud")]
        if let Some(none) = find::<crate::cloud::NoCredentials>(&error) {
            return Error::configuration(format!("cannot {doing} {self}: {none}"));
        }
        #[cfg(feature = "cloud")]
        if let Some(endless) = find::<crate::cloud::Endless>(&error) {
            return Error::data(format!("cannot {doing} {self}: {endless}"));
        }
        let cause = Cause::of(&error);
        let (kind, text) = match (&error, io) {
            (StoreError::NotFound { .. }, _) if cause.as_ref().is_some_and(Cause::is_about_the_bucket) => {
                (ErrorKind::Configuration, format!("cannot {doing} {self}"))
            }
            (StoreError::NotFound { .. }, _)
            | (_, Some(Io::NotFound | Io::NotADirectory | Io::IsADirectory)) => {
                // The cause only says the same again.
                let target = self.local_path().and_then(|path| std::fs::read_link(path).ok());
                return Error::data(match target {
                    Some(target) => format!("{self} is a broken link to {}", target.display()),
                    None => format!("{self} does not exist"),
                });
            }
            (StoreError::Precondition { .. }, _) => (
                ErrorKind::Data,
                format!(
                    "{self} changed while it was being read: its ETag is no longer the one seen at first"
                ),
            ),
            (StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. }, _)
            | (
                _,
                Some(
                    Io::PermissionDenied
                    | Io::ReadOnlyFilesystem
                    | Io::StorageFull
                    | Io::QuotaExceeded
                    | Io::FileTooLarge
                    | Io::InvalidFilename,
                ),
            ) => (ErrorKind::Configuration, format!("cannot {doing} {self}")),
            (StoreError::NotSupported { .. } | StoreError::NotImplemented { .. }, _) => {
                (ErrorKind::Configuration, format!("cannot {doing} {self}: its store does not support that"))
            }
            (StoreError::InvalidPath { .. }, _) => (ErrorKind::Data, format!("cannot {doing} {self}")),
            _ => {
                let kind = cause.map_or(ErrorKind::Unavailable, |cause| cause.kind());
                (kind, format!("cannot {doing} {self}"))
            }
        };
        Error::new(kind, text).with_source(one_line(error))
    }

    /// [`Location::error`] for plain file operations.
    pub(crate) fn io_error(&self, doing: &str, error: std::io::Error) -> Error {
        self.error(doing, StoreError::Generic { store: "local disk", source: error.into() })
    }
}

/// The kind of the I/O error at the root of `error`, if there is one.
fn io_kind(error: &StoreError) -> Option<std::io::ErrorKind> {
    find::<std::io::Error>(error).map(std::io::Error::kind)
}

/// What is there instead of a file, where that is what `error` is about.
pub(crate) fn not_a_file(error: &StoreError) -> Option<&NotAFile> {
    NotAFile::behind(find::<std::io::Error>(error)?)
}

/// The first cause of `error` that is a `T`.
fn find<T: std::error::Error + 'static>(error: &StoreError) -> Option<&T> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = next {
        if let Some(found) = e.downcast_ref::<T>() {
            return Some(found);
        }
        next = e.source();
    }
    None
}

/// What the store's client says of a name, with what is in that spelled out: a line's end in a name is none in a log.
fn in_one_line(error: impl fmt::Display) -> String {
    let spelled = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    error.to_string().chars().map(spelled).collect()
}

/// Refuses text that is longer than any place's.
pub(crate) fn refuse_long(text: &str) -> Result<()> {
    if text.len() <= TEXT_BYTES_MAX {
        return Ok(());
    }
    let start: String = text.chars().take(32).collect();
    Err(Error::usage(format!(
        "the name {start:?}… of a place has {} bytes, at most {TEXT_BYTES_MAX} are allowed",
        text.len()
    )))
}

fn parse_url(text: &str) -> Result<Url> {
    // `#` is an ordinary character in names of objects, never the start of a fragment.
    let url = Url::parse(&text.replace('#', "%23"))
        .map_err(|e| Error::usage("a place is neither a path nor a URL").with_source(e))?;
    refuse_user(&url)?;
    let shown = &url[url::Position::BeforeHost..url::Position::AfterPath];
    if url.query().is_some() {
        return Err(Error::usage(format!(
            "{}://{shown}: signed URLs and other queries are not supported: put credentials into the environment",
            url.scheme()
        )));
    }
    Ok(url)
}

/// Refuses what of a URL is read in more than one way: `%2F`, which is part of a name to some and to others what ends one, and control
/// characters, some of which are dropped where URLs are read. The text is not repeated: nobody has looked for credentials in it yet.
fn refuse_doubtful(scheme: &str, rest: &str) -> Result<()> {
    let what = if rest.contains(char::is_control) {
        "a control character in its name: no name may have one"
    } else if rest.as_bytes().windows(3).any(|three| three.eq_ignore_ascii_case(b"%2f")) {
        "%2F in its name, which not everybody takes for a slash: write \"/\""
    } else {
        return Ok(());
    };
    Err(Error::usage(format!("a place in {scheme}:// has {what}")))
}

/// Refuses a URL with credentials, before anything else is said about it. What is no URL passes.
pub(crate) fn refuse_credentials(text: &str) -> Result<()> {
    Url::parse(&text.replace('#', "%23")).map_or(Ok(()), |url| refuse_user(&url))
}

fn refuse_user(url: &Url) -> Result<()> {
    // Of Azure's URLs the user part is the container.
    let azure = matches!(url.scheme(), "az" | "azure" | "adl" | "abfs" | "abfss");
    if url.password().is_none() && (azure || url.username().is_empty()) {
        return Ok(());
    }
    let shown = &url[url::Position::BeforeHost..url::Position::AfterPath];
    Err(Error::usage(format!(
        "{}://{shown}: URLs with a user or a password are refused: put credentials into environment variables \
         (AWS_..., GOOGLE_..., AZURE_...)",
        url.scheme()
    )))
}

#[cfg(not(feature = "cloud"))]
fn remote(text: &str) -> Result<Location> {
    remote_in(text, |_| Ok(Arc::clone(&NOWHERE)))
}

#[cfg(not(feature = "cloud"))]
fn remote_in(text: &str, _: impl FnOnce(&Url) -> Result<Arc<dyn ObjectStore>>) -> Result<Location> {
    let scheme = parse_url(text)?.scheme().to_string();
    Err(Error::configuration(format!(
        "this program was built without the feature \"cloud\", which {scheme}:// needs"
    )))
}

#[cfg(feature = "cloud")]
fn remote(text: &str) -> Result<Location> {
    remote_in(text, shared_store)
}

/// A place in a store of its own with `settings` instead of the environment's, so that tests can run beside each other.
#[cfg(all(test, feature = "cloud"))]
pub(crate) fn remote_with(text: &str, settings: &[(&str, &str)]) -> Result<Location> {
    let settings = settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    remote_in(text, |base| crate::cloud::new_store(base, settings))
}

#[cfg(feature = "cloud")]
fn remote_in(text: &str, store_of: impl FnOnce(&Url) -> Result<Arc<dyn ObjectStore>>) -> Result<Location> {
    use object_store::ObjectStoreScheme;

    let url = parse_url(text)?;
    let (scheme, path) = ObjectStoreScheme::parse(&url)
        .map_err(|e| Error::usage(format!("{url} is not a usable place")).with_source(in_one_line(e)))?;
    let whole = StorePath::from_url_path(url.path())
        .map_err(|e| Error::usage(format!("{url} is not a usable place")).with_source(in_one_line(e)))?;
    let mut base = url.clone();
    // Of `https://s3.region.amazonaws.com/bucket/key` the bucket belongs to the store.
    let bucket = url.path_segments().and_then(|mut names| names.next()).filter(|_| path != whole);
    base.set_path(bucket.unwrap_or_default());
    let store = store_of(&base)?;
    Ok(Location {
        store,
        path,
        kind: Kind::Url { http: scheme == ObjectStoreScheme::Http, base: Arc::new(base) },
    })
}

#[cfg(feature = "cloud")]
fn shared_store(base: &Url) -> Result<Arc<dyn ObjectStore>> {
    let mut stores = REMOTE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(store) = stores.get(base.as_str()) {
        return Ok(Arc::clone(store));
    }
    let store = crate::cloud::new_store(base, crate::cloud::environment())?;
    keep(&mut stores, base, &store);
    Ok(store)
}

#[cfg(feature = "cloud")]
fn keep(stores: &mut HashMap<String, Arc<dyn ObjectStore>>, base: &Url, store: &Arc<dyn ObjectStore>) {
    if stores.len() >= STORES_MAX {
        // Those in use live on with the places that are in them; the others are set up again where they are named again.
        stores.clear();
    }
    stores.insert(base.to_string(), Arc::clone(store));
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Local(path) => write!(f, "{}", path.display()),
            Kind::Url { base, .. } => write!(f, "{}", self.url(base)),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

impl PartialEq for Location {
    fn eq(&self, other: &Location) -> bool {
        self.path == other.path
            && match (&self.kind, &other.kind) {
                (Kind::Local(a), Kind::Local(b)) => a == b,
                (Kind::Url { base: a, .. }, Kind::Url { base: b, .. }) => a == b,
                _ => false,
            }
    }
}

impl Eq for Location {}

impl std::hash::Hash for Location {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.path.as_ref().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shown(text: &str, expect: &str) {
        let location = Location::parse(text).unwrap();
        assert_eq!(location.to_string(), expect);
        assert_eq!(Location::parse(expect).unwrap(), location);
    }

    #[track_caller]
    fn refused(text: &str, kind: ErrorKind, expect: &str) {
        let e = Location::parse(text).unwrap_err();
        assert_eq!(e.kind(), kind);
        assert!(e.chain().contains(expect), "{}", e.chain());
    }

    #[test]
    fn what_another_try_does_not_change_is_not_tried_again() {
        let location = Location::parse("/data/v.parquet").unwrap();
        for name in ["n".repeat(300), format!("/{}", "n/".repeat(5000))] {
            let error = std::fs::metadata(&name).unwrap_err();
            let error = location.io_error("read", error);
            assert_eq!(error.kind(), ErrorKind::Configuration, "{}", error.chain());
            assert!(error.chain().starts_with("cannot read /data/v.parquet: "), "{}", error.chain());
        }
    }

    #[test]
    fn paths_and_urls_are_shown_as_they_can_be_parsed() {
        let here = std::env::current_dir().unwrap();
        shown("/data/my pool/m 1", "/data/my pool/m 1");
        shown("/data/100%/a#b", "/data/100%/a#b");
        shown("/data/./x//y/", "/data/x/y");
        shown("/no/such/../folder", "/no/folder");
        shown("pool", &format!("{}/pool", here.display()));
        shown("file:///data/my%20pool", "/data/my pool");
        shown("memory://pool/a", "memory:///pool/a");
        shown("memory:///pool/a%20b/", "memory:///pool/a%20b");
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn remote_urls_are_shown_as_they_can_be_parsed() {
        shown("http://127.0.0.1:9/a b/c", "http://127.0.0.1:9/a%20b/c");
        shown("s3://bucket/pool/m#1", "s3://bucket/pool/m%231");
        shown("s3://bucket", "s3://bucket");
        shown(
            "https://s3.eu-west-1.amazonaws.com/bucket/a/b",
            "https://s3.eu-west-1.amazonaws.com/bucket/a/b",
        );
    }

    #[test]
    fn no_text_is_more_than_refused() {
        let plain = "/ // a a/ a//b /a %2Fa a%2Fb a%2fb/c a%2F a/%2F/b %252Fa a/../b .. %2e%2e/a a/%2e/b %00 a%0Ab % %z %ff/a a#1 a%23 ä/ß \
                     %C3%A4 a\\b a|b [ : :1/a @ a:b ~ $HOME ? a?b=%2F * b/%252e%252e/c";
        let paths = plain.split(' ').chain(["", " ", "a b", "a\u{0}b", "a\tb", "\u{202e}a"]);
        let starts = "/ file:// file:/// memory:// s3:// s3://b/ s3a://b/ gs://b/ az://c/ abfss://c@h/ http://h/ https://h/ \
                      https://s3.eu-west-1.amazonaws.com/ https://s3.eu-west-1.amazonaws.com/b/ https://b.s3.eu-west-1.amazonaws.com/ \
                      https://x.blob.core.windows.net/ https://x.r2.cloudflarestorage.com/b/";
        let starts = starts.split(' ').chain([""]);
        for text in starts.flat_map(|start| paths.clone().map(move |path| format!("{start}{path}"))) {
            match Location::named(&text) {
                Ok(place) => {
                    let shown = place.to_string();
                    assert_eq!(Location::named(&shown).unwrap(), place, "{text:?} as {shown:?}");
                    let slash = text.to_ascii_lowercase().contains("%2f");
                    assert!(!slash || !text.contains("://"), "{text:?}");
                }
                // Without the feature there are fewer stores.
                Err(e) if !cfg!(feature = "cloud") && e.kind() == ErrorKind::Configuration => {}
                Err(e) => assert_eq!(e.kind(), ErrorKind::Usage, "{text:?}: {}", e.chain()),
            }
        }
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn a_bucket_in_the_path_is_no_part_of_a_place() {
        for (text, path) in [
            ("https://s3.eu-west-1.amazonaws.com/b/a%20b/c", "a b/c"),
            ("https://s3.eu-west-1.amazonaws.com/b/", ""),
            ("https://b.s3.eu-west-1.amazonaws.com/a/c", "a/c"),
            ("https://x.r2.cloudflarestorage.com/b/b", "b"),
            ("s3://b/b/c", "b/c"),
        ] {
            let place = Location::named(text).unwrap();
            assert_eq!(place.path().as_ref(), path, "{text}");
            assert_eq!(place.to_string(), text.trim_end_matches('/'));
        }
        refused("s3://b/pool%2Fa", ErrorKind::Usage, "a place in s3:// has %2F in its name");
        refused("http://h/a%2fb", ErrorKind::Usage, "write \"/\"");
        refused("file:///a%2Fb", ErrorKind::Usage, "%2F");
        refused("s3://b/a\tb", ErrorKind::Usage, "has a control character in its name");
        refused("s3://b/a//b", ErrorKind::Usage, "not a usable place");
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn one_store_serves_a_bucket() {
        let a = Location::parse("s3://shared/a").unwrap();
        let b = Location::parse("s3://shared/b").unwrap();
        let c = Location::parse("s3://other/b").unwrap();
        assert!(Arc::ptr_eq(&a.store, &b.store));
        assert!(!Arc::ptr_eq(&a.store, &c.store));
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn not_every_host_that_was_ever_named_is_kept() {
        let mut stores = HashMap::new();
        for host in 0..3 * STORES_MAX {
            let base = Url::parse(&format!("http://host-{host}")).unwrap();
            keep(&mut stores, &base, &NOWHERE);
            assert!(stores.len() <= STORES_MAX && stores.contains_key(base.as_str()));
        }
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn to_compare_places_no_store_is_set_up() {
        let named = Location::named("s3://only-compared/a").unwrap();
        assert!(!REMOTE.lock().unwrap().keys().any(|base| base.contains("only-compared")));
        let above = Location::parse("s3://only-compared").unwrap();
        assert!(named.is_below(&above) && REMOTE.lock().unwrap().contains_key("s3://only-compared"));
    }

    #[test]
    fn links_are_not_looked_up_to_compare_places() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("secret/below")).unwrap();
        std::os::unix::fs::symlink(root.join("secret/below"), root.join("link")).unwrap();
        let through = format!("{}/link/../x", root.display());
        // Read, it is where the kernel takes it to be.
        assert_eq!(Location::parse(&through).unwrap().to_string(), format!("{}/secret/x", root.display()));
        for text in [through.clone(), format!("file://{}/link/%2e%2e%2fx", root.display())] {
            let error = Location::named(&text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(!error.chain().contains("secret"), "{}", error.chain());
        }
        assert_eq!(Location::named("/a/./b//c").unwrap(), Location::parse("/a/b/c").unwrap());
    }

    #[test]
    fn what_names_no_place_is_refused() {
        refused("", ErrorKind::Usage, "not a usable path");
        refused("ftp://host/a", ErrorKind::Usage, "\"ftp\" is not a known kind of store");
        refused("file://host/a", ErrorKind::Usage, "not a local file");
        refused("memory:///a/../b", ErrorKind::Usage, "not a usable place");
        refused(
            &"a/".repeat(TEXT_BYTES_MAX),
            ErrorKind::Usage,
            "\"a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/\"… of a place has",
        );
        refused("https://host/a?sig=x", ErrorKind::Usage, "https://host/a: signed URLs");
    }

    #[test]
    fn a_line_s_end_in_a_name_is_none_in_what_is_said_of_it() {
        for text in ["/data/a\nERROR b", "a\u{1b}[31m", "memory:///a%0AERROR%20b", "file:///a%0AERROR"] {
            for refused in [Location::parse(text).unwrap_err(), Location::named(text).unwrap_err()] {
                let said = refused.chain();
                assert_eq!(refused.kind(), ErrorKind::Usage, "{said:?}");
                assert!(!said.contains(char::is_control) && said.contains("not a usable"), "{said:?}");
            }
        }
    }

    #[test]
    fn credentials_in_urls_are_refused_and_not_repeated() {
        for text in [
            "https://user:SECRET@host/a",
            "https://SECRET@host/a",
            "HTTP://:SECRET@host/a?sig=SECRET",
            "https://user:SEC#RET@host/a",
            "s3://SECRET:SECRET@bucket/a",
            "s3a://user:SECRET@bucket/a",
            "gs://SECRET@bucket/a",
            "abfss://container:SECRET@account.dfs.core.windows.net/a",
        ] {
            let e = Location::parse(text).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Usage, "{text}");
            assert!(e.chain().contains("put credentials into environment variables"), "{}", e.chain());
            assert!(!e.chain().contains("SEC"), "{}", e.chain());
        }
    }

    #[test]
    fn the_container_of_an_azure_url_is_no_secret() {
        let url = parse_url("abfss://container@account.dfs.core.windows.net/a").unwrap();
        assert_eq!(url.username(), "container");
    }

    #[test]
    fn join_stays_below() {
        for base in ["/data", "memory:///data", "/"] {
            let base = Location::parse(base).unwrap();
            for rel in ["", "/", "/etc", "..", "a/../b", "a//b", ".", "a/", "a\0"] {
                assert_eq!(base.join(rel).unwrap_err().kind(), ErrorKind::Data, "{rel:?}");
            }
            let below = base.join("a b/c%20d").unwrap();
            assert_eq!(below.name(), "c%20d");
            assert_eq!(below.parent().unwrap().parent().unwrap(), base);
            assert_eq!(Location::parse(&below.to_string()).unwrap(), below);
        }
    }

    #[test]
    fn what_is_below_the_process_s_own_is_its_own() {
        let place = Location::parse("/data").unwrap();
        assert_eq!(place.whose(), Whose::Run);
        let own = place.clone().owned();
        assert_eq!(own, place);
        let below = own.join("a/b").unwrap();
        assert_eq!((below.whose(), below.parent().unwrap().whose()), (Whose::Own, Whose::Own));
        assert_eq!(place.join("a/b").unwrap().whose(), Whose::Run);
        assert_eq!(Location::parse("memory:///a").unwrap().owned().whose(), Whose::Run);
    }

    #[test]
    fn roots_have_neither_name_nor_parent() {
        for root in ["/", "memory://"] {
            let root = Location::parse(root).unwrap();
            assert_eq!(root.name(), "");
            assert!(root.parent().is_none());
        }
    }
}
