//! Globs: URLs with wildcards, expanded by listing.
//!
//! In any component of the path `*` is any run of characters and `?` any one; a component `**` is any number of folders, none
//! included. What is [hidden](crate::listing::is_hidden) matches only a component that begins with a dot itself. Matches come
//! in the order of their paths.

use std::collections::HashSet;
use std::path::PathBuf;

use futures::{StreamExt, TryStreamExt};
use soup_core::{Error, ErrorKind, Result};

use crate::listing::{self, Entry, FOLDERS_AGAIN_MAX, Listing, Odd, is_hidden};
use crate::location::{self, Location};

/// Most places that one glob may match.
pub const MATCHES_MAX: usize = 100_000;
/// Most folders that are listed for one glob.
const FOLDERS_MAX: usize = 20_000;
/// Folders listed at a time, and of a local disk, whose listings may be large and are never far.
const IN_FLIGHT: usize = 16;
const IN_FLIGHT_LOCAL: usize = 4;
/// Deepest folder that `**` reaches.
const DEPTH_MAX: usize = 32;
/// The component that is any number of folders.
const ANY_DEPTH: &str = "**";

/// A URL with wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    url: String,
    /// What is before the first component with wildcards.
    base: String,
    /// The components from there on.
    parts: Vec<String>,
}

/// What a glob matches.
#[derive(Clone, Debug, Default)]
pub struct Matches {
    /// Files and folders, with their names relative to where the wildcards begin.
    pub entries: Vec<Entry>,
    /// What matches and can be neither.
    pub odd: Vec<Odd>,
    /// What may be a folder in which something matches, and cannot be looked into.
    pub unseen: Vec<Odd>,
}

/// The files that `url` names: those that its wildcards match, or `None` if it has no wildcards. Folders that match are left
/// out.
///
/// # Errors
/// Those of [`Glob::parse`] and [`Glob::matches`], and [`ErrorKind::Data`](soup_core::ErrorKind::Data) where no file matches.
pub async fn expand(url: &str) -> Result<Option<Matches>> {
    let Some(glob) = Glob::parse(url)? else { return Ok(None) };
    let mut matches = glob.matches().await?;
    matches.entries.retain(|e| e.stamp.is_some());
    if matches.entries.is_empty() {
        return Err(Error::data(format!("no file matches {url:?}{}", no_wildcards(url))));
    }
    Ok(Some(matches))
}

impl Glob {
    /// The glob in `url`; `None` if it has no wildcards. In an HTTP URL `?` starts a query and is none.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for credentials in the URL, for wildcards outside of its path, and for one that is too long.
    pub fn parse(url: &str) -> Result<Option<Glob>> {
        let wild: &[char] = if is_http(url) { &['*'] } else { &['*', '?'] };
        if !url.contains(wild) {
            return Ok(None);
        }
        location::refuse_long(url)?;
        location::refuse_credentials(url)?;
        let path_start = match url.find("://") {
            Some(at) => url[at + 3..].find('/').map_or(url.len(), |slash| at + 3 + slash + 1),
            None => 0,
        };
        if url[..path_start].contains(wild) {
            return Err(Error::usage(format!("{url:?}: wildcards are allowed in the path only")));
        }
        let before = url.find(wild).unwrap_or(url.len());
        let parts_at = url[path_start..before].rfind('/').map_or(path_start, |slash| path_start + slash + 1);
        let mut parts: Vec<String> =
            url[parts_at..].split('/').filter(|p| !p.is_empty() && *p != ".").map(str::to_owned).collect();
        if parts.iter().any(|p| p == "..") {
            return Err(Error::usage(format!("{url:?}: there is no \"..\" after wildcards")));
        }
        parts.dedup_by(|a, b| a == ANY_DEPTH && b == ANY_DEPTH);
        Ok(Some(Glob { url: url.to_owned(), base: url[..parts_at].to_owned(), parts }))
    }

    /// The components from the first with wildcards on.
    pub fn parts(&self) -> &[String] {
        &self.parts
    }

    /// Where the wildcards begin.
    ///
    /// # Errors
    /// Those of [`Location::parse`].
    pub fn base(&self) -> Result<Location> {
        Location::parse(if self.base.is_empty() { "." } else { &self.base })
    }

    /// Everything that matches. Nothing may: that is no error.
    ///
    /// # Errors
    /// What the store says, and [`ErrorKind::Data`](soup_core::ErrorKind::Data) for more than [`MATCHES_MAX`].
    pub async fn matches(&self) -> Result<Matches> {
        let (mut matches, mut looked) = (Matches::default(), Looked::default());
        let base = self.base()?;
        let in_flight = if base.is_local() { IN_FLIGHT_LOCAL } else { IN_FLIGHT };
        let root = Folder { prefix: String::new(), location: base, states: self.reachable([0]) };
        let (mut level, mut depth) = (vec![root], 0_usize);
        while !level.is_empty() && depth < self.parts.len().max(DEPTH_MAX) {
            looked.folders = looked.folders.saturating_add(level.len());
            let folders = std::mem::take(&mut level);
            let mut found = futures::stream::iter(folders).map(look).buffered(in_flight);
            while let Some((folder, listing)) = found.try_next().await? {
                let is_new = looked.is_new(&folder, &listing);
                looked.again += usize::from(!is_new);
                self.step(&folder, listing, &mut matches, &mut level);
                self.bounded(&looked, &matches, level.len())?;
            }
            depth += 1;
        }
        matches.entries.sort_by(|a, b| a.name.cmp(&b.name));
        matches.odd.sort_by(|a, b| a.name.cmp(&b.name));
        matches.unseen.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(matches)
    }

    /// Refuses what becomes too much, as soon as it does.
    fn bounded(&self, looked: &Looked, matches: &Matches, next: usize) -> Result<()> {
        let refuse = |what: String| Err(Error::data(format!("{:?} {what}", self.url)));
        if looked.folders.saturating_add(next) > FOLDERS_MAX {
            return refuse(format!("looks into more than {FOLDERS_MAX} folders: write a narrower one"));
        }
        if looked.again > FOLDERS_AGAIN_MAX {
            return refuse("comes by links to the same folders again and again: write a narrower one".into());
        }
        if matches.entries.len() > MATCHES_MAX {
            return refuse(format!("matches more than {MATCHES_MAX} places"));
        }
        if matches.odd.len() + matches.unseen.len() > MATCHES_MAX {
            return refuse(format!("finds more than {MATCHES_MAX} things that cannot be read"));
        }
        Ok(())
    }

    /// What `listing` adds: matches, and folders to look into.
    fn step(&self, folder: &Folder, listing: Listing, matches: &mut Matches, next: &mut Vec<Folder>) {
        for mut entry in listing.entries {
            let states = self.after(&folder.states, &entry.name);
            entry.name = format!("{}{}", folder.prefix, entry.name);
            let into: Vec<usize> = states.iter().copied().filter(|&s| s < self.parts.len()).collect();
            if entry.stamp.is_none() && !into.is_empty() {
                let (prefix, location) = (format!("{}/", entry.name), entry.location.clone());
                next.push(Folder { prefix, location, states: into });
            }
            if states.contains(&self.parts.len()) {
                matches.entries.push(entry);
            }
        }
        for mut odd in listing.odd {
            if odd.name.is_empty() {
                odd.name = folder.prefix.trim_end_matches('/').to_owned();
                matches.odd.push(odd);
                continue;
            }
            let states = self.after(&folder.states, &odd.name);
            odd.name = format!("{}{}", folder.prefix, odd.name);
            if states.contains(&self.parts.len()) {
                matches.odd.push(odd);
            } else if odd.may_be_folder && !states.is_empty() {
                matches.unseen.push(odd);
            }
        }
    }

    /// The states in which the next component may be looked for, when it is one of `states`: a `**` may be no folder at all.
    fn reachable(&self, states: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut reached: Vec<usize> = Vec::new();
        for mut state in states {
            loop {
                reached.push(state);
                // The last `**` of a glob is at least one component.
                if self.parts.get(state).is_none_or(|p| p != ANY_DEPTH) || state + 1 == self.parts.len() {
                    break;
                }
                state += 1;
            }
        }
        reached.sort_unstable();
        reached.dedup();
        reached
    }

    /// The states after a component called `name`. State `n` is to look for `parts[n]`; past the end is a match.
    fn after(&self, states: &[usize], name: &str) -> Vec<usize> {
        let mut after = Vec::new();
        for &state in states {
            let Some(part) = self.parts.get(state) else { continue };
            if is_hidden(name) && !part.starts_with('.') {
                continue;
            }
            if part == ANY_DEPTH {
                after.push(state);
                if state + 1 == self.parts.len() {
                    after.push(state + 1);
                }
            } else if matches(part, name) {
                after.push(state + 1);
            }
        }
        self.reachable(after)
    }
}

/// A folder to be listed.
struct Folder {
    /// Its name below the base, with a slash at the end.
    prefix: String,
    location: Location,
    /// Which parts its entries may be.
    states: Vec<usize>,
}

/// What a glob has looked at.
#[derive(Default)]
struct Looked {
    /// Folders that are listed, or are about to be.
    folders: usize,
    /// Those of a local disk that were listed, by their real paths, and what was looked for in them.
    seen: HashSet<(PathBuf, Vec<usize>)>,
    /// How often one came again, by a link.
    again: usize,
}

impl Looked {
    /// Whether `folder` is new.
    fn is_new(&mut self, folder: &Folder, listing: &Listing) -> bool {
        let new = |real: &PathBuf| self.seen.insert((real.clone(), folder.states.clone()));
        listing.real.as_ref().is_none_or(new)
    }
}

/// What is in a folder.
async fn look(folder: Folder) -> Result<(Folder, Listing)> {
    let denied = |e: &Error| folder.location.is_local() && e.kind() == ErrorKind::Configuration;
    let listing = match listing::look(&folder.location).await {
        // Such as the `lost+found` of a disk.
        Err(e) if denied(&e) && !folder.prefix.is_empty() => unreadable(),
        other => other?,
    };
    Ok((folder, listing))
}

/// What stands for the content of a folder that cannot be read: an odd thing that may be whatever was looked for.
fn unreadable() -> Listing {
    Listing { odd: vec![Odd::folder("", "a folder that cannot be read")], ..Listing::default() }
}

/// What is to be said of signs in a name that nothing has and that others take for wildcards: `{000..127}`, `[ab]`.
pub(crate) fn no_wildcards(url: &str) -> &'static str {
    if url.contains(['{', '[']) { ": wildcards are *, ? and **; braces and brackets are none" } else { "" }
}

/// In an HTTP URL `?` starts a query.
fn is_http(url: &str) -> bool {
    let start = url.split("://").next().unwrap_or_default();
    url.contains("://") && (start.eq_ignore_ascii_case("http") || start.eq_ignore_ascii_case("https"))
}

/// Whether `name` matches `pattern`: `*` is any run of characters, `?` any one.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on when the text after the last `*` does not fit: one character later.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((after_star, from)) = retry else { return false };
                retry = Some((after_star, from + 1));
                (p, n) = (after_star, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests;
