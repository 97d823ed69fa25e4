//! What folders hold.
//!
//! One odd name never stops a listing: what cannot be named or read is an [`Odd`], beside the entries that can. Local folders
//! are read here and not by the store's client, which stops at names that are not UTF-8 and leaves out broken links in
//! silence.
//!
//! Links of folders are followed, so that a few of them can make endless trees: how often one walk comes to folders that it has seen
//! already is bounded, and so is all that it looks at. Nobody walks on for a caller that is gone.

use std::collections::HashSet;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::UNIX_EPOCH;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use soup_core::{Error, Result};

use crate::cause::one_line;
#[cfg(feature = "cloud")]
pub(crate) use crate::cloud::with_left_out;
#[cfg(feature = "cloud")]
use crate::cloud::within_pages;
use crate::local::NotAFile;
use crate::location::Location;
use crate::places::{self, Whose};
use crate::read::Stamp;

/// Most entries that one listing may have.
pub const ENTRIES_MAX: usize = 100_000;
/// Most pages of a remote listing one level deep, all of which are in memory before the first entry is looked at: of a thousand entries each
/// a tenth of them are too many already. And of one that is looked at as it comes.
const PAGES_MAX: usize = 1000;
const DEEP_PAGES_MAX: usize = 20_000;
/// Most odd names that are remembered of one listing.
const ODD_MAX: usize = 1000;
/// How often one walk, or one glob, comes by links to folders that it has seen already.
pub(crate) const FOLDERS_AGAIN_MAX: usize = 1000;
/// Most entries that one walk finds in folders that it has seen already.
const ENTRIES_AGAIN_MAX: usize = 100_000;
/// What one walk looks at besides as many hidden entries as may be listed: folders, and what is left out.
const LOOKED_BESIDES: usize = 100_000;
/// Deepest folder that is looked into.
const DEPTH_MAX: usize = 64;
/// The folder that is every disk's own, and its administrator's.
pub(crate) const LOST_AND_FOUND: &str = "lost+found";

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name relative to the folder that was listed.
    pub name: String,
    /// Its place.
    pub location: Location,
    /// Its stamp; `None` for a folder.
    pub stamp: Option<Stamp>,
}

/// Something in a folder that can be no entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Odd {
    /// Name relative to the folder that was listed, as far as it can be shown.
    pub name: String,
    /// What it is, in words that follow "is".
    pub what: String,
    /// Whether it is there and can be read, but is neither a file nor a folder: a FIFO, a socket, a device.
    pub special: bool,
    /// Whether it is, or may have been, a folder.
    pub may_be_folder: bool,
    /// Whether it is a link to where nothing may be read, whatever is there.
    pub away: bool,
}

/// What a folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Files and folders, by name.
    pub entries: Vec<Entry>,
    /// What can be neither, by name. Hidden ones are not listed here.
    pub odd: Vec<Odd>,
    /// Where the folder really is, on a local disk.
    pub(crate) real: Option<PathBuf>,
}

/// Whether people and programs take a file of this relative name for something that is not there: it, or a folder it is in,
/// begins with a dot (`.cache`, and the `._x` that macOS leaves on foreign disks), or is a file manager's own.
pub fn is_hidden(name: &str) -> bool {
    let hidden = |part: &str| {
        part.starts_with('.')
            || part == "__MACOSX"
            || ["thumbs.db", "desktop.ini"].iter().any(|own| part.eq_ignore_ascii_case(own))
    };
    name.split('/').any(hidden)
}

/// What a folder holds, one level deep. A folder that does not exist is empty: object stores have none.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for plain HTTP servers, which cannot list;
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for more than [`ENTRIES_MAX`] entries.
pub async fn look(folder: &Location) -> Result<Listing> {
    if folder.local_path().is_some() {
        return local(folder, false, ENTRIES_MAX, false).await;
    }
    let listed = within_pages(PAGES_MAX, folder.store().list_with_delimiter(Some(folder.path())));
    let (listed, left_out) = with_left_out(listed).await;
    let listed = listed.map_err(|e| list_error(folder, e))?;
    if listed.objects.len() + listed.common_prefixes.len() > ENTRIES_MAX {
        return Err(too_many(folder, ENTRIES_MAX));
    }
    let files = listed.objects.into_iter().map(|meta| (meta.location.clone(), Some(Stamp::from(meta))));
    let folders = listed.common_prefixes.into_iter().map(|path| (path, None));
    let mut listing = remote(folder, files.chain(folders));
    for key in left_out {
        push_odd(&mut listing, no_path(folder, &key));
    }
    listing.odd.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listing)
}

/// A key below `folder` that is no path: of a file, or what keys begin with that are told as a folder.
fn no_path(folder: &Location, key: &str) -> Odd {
    let name = key.strip_prefix(folder.path().as_ref()).unwrap_or(key);
    let name = name.strip_prefix('/').unwrap_or(name);
    let what = "a key that is no path";
    match name.strip_suffix('/') {
        // Of `pool//x`, which many tools write.
        Some("") => Odd::new("/", what),
        Some(folder) => Odd::folder(folder, what),
        None => Odd::new(name, what),
    }
}

/// Nothing is left out where there are no object stores.
#[cfg(not(feature = "cloud"))]
pub(crate) async fn with_left_out<T>(listing: impl Future<Output = T>) -> (T, Vec<String>) {
    (listing.await, Vec::new())
}

/// All files below a folder, at any depth. What is [hidden](is_hidden) is left out.
///
/// # Errors
/// As for [`look`].
pub async fn look_deep(folder: &Location) -> Result<Listing> {
    look_deep_up_to(folder, ENTRIES_MAX).await
}

/// [`look_deep`] with another bound.
pub(crate) async fn look_deep_up_to(folder: &Location, entries_max: usize) -> Result<Listing> {
    if folder.local_path().is_some() {
        return local(folder, true, entries_max, false).await;
    }
    let files = within_pages(DEEP_PAGES_MAX, shown_below(folder, entries_max)).await?;
    let mut listing = remote(folder, files.into_iter().map(|m| (m.location.clone(), Some(Stamp::from(m)))));
    let folders: HashSet<String> = listing
        .entries
        .iter()
        .flat_map(|e| e.name.match_indices('/').map(|(at, _)| e.name[..at].to_owned()))
        .collect();
    // Some tools keep an empty object for every folder.
    let marker = |e: &Entry| e.stamp.as_ref().is_some_and(|s| s.size_bytes == 0) && folders.contains(&e.name);
    listing.entries.retain(|e| !marker(e));
    Ok(listing)
}

/// The files below a remote folder that are not hidden.
async fn shown_below(folder: &Location, entries_max: usize) -> Result<Vec<ObjectMeta>> {
    let mut files = Vec::new();
    let mut listed = folder.store().list(Some(folder.path()));
    while let Some(meta) = listed.try_next().await.map_err(|e| list_error(folder, e))? {
        if is_hidden(below(folder, &meta.location).unwrap_or_default()) {
            continue;
        }
        files.push(meta);
        if files.len() > entries_max {
            return Err(too_many(folder, entries_max));
        }
    }
    Ok(files)
}

/// There are no pages where there are no object stores.
#[cfg(not(feature = "cloud"))]
async fn within_pages<T>(_most: usize, listing: impl Future<Output = T>) -> T {
    listing.await
}

/// The first files below a folder that are found, at most `entries_max`.
pub(crate) async fn some_below(folder: &Location, entries_max: usize) -> Result<Vec<Entry>> {
    if folder.local_path().is_some() {
        return Ok(local(folder, true, entries_max, true).await?.entries);
    }
    let listed = folder.store().list(Some(folder.path())).take(entries_max);
    let files = within_pages(DEEP_PAGES_MAX, listed.try_collect::<Vec<ObjectMeta>>()).await;
    let files = files.map_err(|e| list_error(folder, e))?;
    let files = files.into_iter().map(|m| (m.location.clone(), Some(Stamp::from(m))));
    let mut entries = remote(folder, files).entries;
    entries.retain(|e| !is_hidden(&e.name));
    Ok(entries)
}

/// [`look`], the entries alone.
///
/// # Errors
/// As for [`look`].
pub async fn list(folder: &Location) -> Result<Vec<Entry>> {
    Ok(look(folder).await?.entries)
}

/// [`look_deep`], the entries alone.
///
/// # Errors
/// As for [`look`].
pub async fn list_recursive(folder: &Location) -> Result<Vec<Entry>> {
    Ok(look_deep(folder).await?.entries)
}

/// The name of `path` relative to `folder`; some stores list the folder itself, which has none.
fn below<'a>(folder: &Location, path: &'a object_store::path::Path) -> Option<&'a str> {
    let below = path.as_ref().strip_prefix(folder.path().as_ref()).map(|p| p.trim_start_matches('/'));
    below.filter(|n| !n.is_empty())
}

fn remote(
    folder: &Location,
    found: impl Iterator<Item = (object_store::path::Path, Option<Stamp>)>,
) -> Listing {
    let mut listing = Listing::default();
    for (path, stamp) in found {
        let Some(name) = below(folder, &path) else { continue };
        match folder.join(name) {
            Ok(location) => listing.entries.push(Entry { name: name.to_string(), location, stamp }),
            // Object stores allow keys such as `a//b`; nothing of ours is called that.
            Err(_) => push_odd(&mut listing, Odd::new(name, "not usable as a name")),
        }
    }
    listing.entries.sort_by(|a, b| a.name.cmp(&b.name));
    listing
}

impl Odd {
    pub(crate) fn new(name: impl Into<String>, what: impl Into<String>) -> Odd {
        Odd { name: name.into(), what: what.into(), special: false, may_be_folder: false, away: false }
    }

    pub(crate) fn folder(name: impl Into<String>, what: impl Into<String>) -> Odd {
        Odd { may_be_folder: true, ..Odd::new(name, what) }
    }

    /// A link to where nothing may be read.
    fn away(name: &str) -> Odd {
        let what = format!("a link that {}", places::AWAY);
        Odd { away: true, may_be_folder: !has_extension(name), ..Odd::new(name, what) }
    }

    /// Why `place` cannot be used without it.
    pub(crate) fn refusal(&self, place: impl std::fmt::Display) -> Error {
        let text = format!("{place}/{} is {}", self.name, self.what);
        if self.away { Error::configuration(text) } else { Error::data(text) }
    }
}

fn push_odd(listing: &mut Listing, odd: Odd) {
    if listing.odd.len() < ODD_MAX && !is_hidden(&odd.name) {
        listing.odd.push(odd);
    }
}

async fn local(folder: &Location, deep: bool, entries_max: usize, some: bool) -> Result<Listing> {
    let (owned, caller) = (folder.clone(), Arc::new(()));
    let called = Arc::downgrade(&caller);
    // Where this future is dropped, so is the caller.
    let listed =
        tokio::task::spawn_blocking(move || local_blocking(&owned, deep, entries_max, some, called)).await;
    drop(caller);
    listed.map_err(|e| Error::unavailable(format!("cannot list {folder}")).with_source(e))?
}

/// With `some`, entries past the most are left out instead of refused.
fn local_blocking(
    folder: &Location,
    deep: bool,
    entries_max: usize,
    some: bool,
    caller: Weak<()>,
) -> Result<Listing> {
    use std::io::ErrorKind as Io;
    let mut listing = Listing::default();
    let Some(root) = folder.local_path() else { return Ok(listing) };
    // Whether something is where a name leads away to is not told.
    places::leads_within(root, folder.whose(), false).map_err(|e| folder.io_error("list", e))?;
    let mut walk = Walk::new(folder, deep, entries_max, caller);
    match walk.enter(root, "", &mut listing) {
        Err(Stop::Io(e)) if matches!(e.kind(), Io::NotFound | Io::NotADirectory) => {
            return Ok(Listing::default());
        }
        Err(Stop::Io(e)) => return Err(folder.io_error("list", e)),
        Err(Stop::TooMany | Stop::Again) if some => {}
        Err(Stop::TooMany) => return Err(too_many(folder, entries_max)),
        Err(Stop::Again) => return Err(again(folder)),
        Err(Stop::Unheard) => return Err(Error::cancelled(format!("nobody waits for what {folder} holds"))),
        Ok(()) => {}
    }
    listing.entries.sort_by(|a, b| a.name.cmp(&b.name));
    listing.odd.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listing)
}

/// One walk through a local folder.
struct Walk<'a> {
    folder: &'a Location,
    /// Whether to list the files below instead of the folders.
    deep: bool,
    entries_max: usize,
    /// The folders around the one that is being read, by their real paths: links may lead back.
    around: Vec<PathBuf>,
    /// All folders that were read, by their real paths.
    seen: HashSet<PathBuf>,
    /// How often one of them was come to again, and what was found there then.
    folders_again: usize,
    entries_again: usize,
    /// Entries looked at.
    looked: usize,
    /// Gone once nobody waits for the listing any more.
    caller: Weak<()>,
}

enum Stop {
    Io(std::io::Error),
    TooMany,
    /// The same folders come again and again.
    Again,
    /// Nobody waits.
    Unheard,
}

impl<'a> Walk<'a> {
    fn new(folder: &'a Location, deep: bool, entries_max: usize, caller: Weak<()>) -> Walk<'a> {
        let (around, seen) = (Vec::new(), HashSet::new());
        let (folders_again, entries_again, looked) = (0, 0, 0);
        Walk { folder, deep, entries_max, around, seen, folders_again, entries_again, looked, caller }
    }

    fn enter(&mut self, path: &Path, prefix: &str, listing: &mut Listing) -> Result<(), Stop> {
        let real = path.canonicalize().map_err(Stop::Io)?;
        if self.around.contains(&real) || self.around.len() >= DEPTH_MAX {
            push_odd(listing, Odd::new(prefix.trim_end_matches('/'), "a link in a circle"));
            return Ok(());
        }
        places::within_path(&real, self.folder.whose()).map_err(Stop::Io)?;
        if listing.real.is_none() {
            listing.real = Some(real.clone());
        }
        let again = !self.seen.insert(real.clone());
        self.folders_again += usize::from(again);
        if self.folders_again > FOLDERS_AGAIN_MAX {
            return Err(Stop::Again);
        }
        self.around.push(real);
        let entered = self.entries(path, prefix, again, listing);
        self.around.pop();
        entered
    }

    /// Counts one more entry; `again` if its folder was read before.
    fn count(&mut self, again: bool) -> Result<(), Stop> {
        self.looked += 1;
        self.entries_again += usize::from(again);
        if self.caller.strong_count() == 0 {
            Err(Stop::Unheard)
        } else if self.entries_again > ENTRIES_AGAIN_MAX {
            Err(Stop::Again)
        } else if self.looked > self.entries_max.saturating_mul(2).saturating_add(LOOKED_BESIDES) {
            Err(Stop::TooMany)
        } else {
            Ok(())
        }
    }

    fn entries(&mut self, path: &Path, prefix: &str, again: bool, listing: &mut Listing) -> Result<(), Stop> {
        for entry in std::fs::read_dir(path).map_err(Stop::Io)? {
            let entry = entry.map_err(Stop::Io)?;
            self.count(again)?;
            if self.is_hidden_from_runs(&entry) {
                continue;
            }
            let shown = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if self.deep && is_hidden(&shown) {
                continue;
            }
            let (location, metadata) = match self.usable(&entry, &shown) {
                Ok(usable) => usable,
                Err(odd) => {
                    push_odd(listing, odd);
                    continue;
                }
            };
            if self.deep && metadata.is_dir() {
                match self.enter(&entry.path(), &format!("{shown}/"), listing) {
                    Err(Stop::Io(e)) => {
                        push_odd(listing, Odd::folder(shown, format!("a folder that cannot be read ({e})")));
                    }
                    other => other?,
                }
                continue;
            }
            let stamp = metadata.is_file().then(|| stamp(&metadata));
            listing.entries.push(Entry { name: shown, location, stamp });
            if listing.entries.len() > self.entries_max {
                return Err(Stop::TooMany);
            }
        }
        Ok(())
    }

    /// Whether an entry is this program's own, which in a folder of runs' is nothing: a state may lie beside pools.
    fn is_hidden_from_runs(&self, entry: &std::fs::DirEntry) -> bool {
        let real = self.around.last().map(|folder| folder.join(entry.file_name()));
        self.folder.whose() == Whose::Run && real.is_some_and(|real| places::is_own(&real))
    }

    /// The place of an entry and what it is, or else what makes it odd.
    fn usable(&self, entry: &std::fs::DirEntry, shown: &str) -> Result<(Location, Metadata), Odd> {
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if is_link && places::leads_within(&entry.path(), self.folder.whose(), false).is_err() {
            return Err(Odd::away(shown));
        }
        let nameless = |what: &str| {
            let may_be_folder = std::fs::metadata(entry.path()).map_or(true, |about| about.is_dir());
            Odd { may_be_folder, ..Odd::new(shown, what) }
        };
        if entry.file_name().to_str().is_none() {
            return Err(nameless("not named in UTF-8"));
        }
        // With a line's end or another control character in it.
        let location = self.folder.join(shown).map_err(|_| nameless("not usable as a name"))?;
        let metadata =
            std::fs::metadata(entry.path()).map_err(|e| match std::fs::read_link(entry.path()) {
                Ok(target) => Odd {
                    may_be_folder: !has_extension(shown),
                    ..Odd::new(shown, format!("a broken link to {}", target.display()))
                },
                Err(_) => Odd::folder(shown, format!("not readable ({e})")),
            })?;
        match NotAFile::seen(&metadata).filter(|other| !other.is_folder()) {
            None => Ok((location, metadata)),
            Some(other) => Err(Odd { special: true, ..Odd::new(shown, other.what()) }),
        }
    }
}

/// Whether a name ends as those of files do: in a few letters after a dot.
fn has_extension(name: &str) -> bool {
    let extension = name.rsplit('/').next().and_then(|last| Some(last.rsplit_once('.')?.1));
    extension.is_some_and(|e| (1..=5).contains(&e.len()) && e.bytes().all(|b| b.is_ascii_alphabetic()))
}

/// As the store's client would say it, so that it can be compared with what that says.
pub(crate) fn stamp(metadata: &Metadata) -> Stamp {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let inode = 0;
    let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let (micros, size_bytes) = (modified.unwrap_or_default().as_micros(), metadata.len());
    Stamp { size_bytes, etag: Some(format!("\"{inode:x}-{micros:x}-{size_bytes:x}\"")) }
}

fn too_many(folder: &Location, entries_max: usize) -> Error {
    Error::data(format!("{folder} holds more than {entries_max} files"))
}

fn again(folder: &Location) -> Error {
    Error::data(format!(
        "links in {folder} lead to the same folders again and again: remove them, or name what is meant"
    ))
}

fn list_error(folder: &Location, error: object_store::Error) -> Error {
    if folder.is_http() {
        return Error::usage(format!(
            "{folder}: plain HTTP servers cannot be listed: give the URL of every file"
        ))
        .with_source(one_line(error));
    }
    folder.error("list", error)
}

#[cfg(test)]
mod tests;
