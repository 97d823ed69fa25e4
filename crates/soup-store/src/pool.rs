//! Pools: finding checkpoints by folder, by glob and by list, and the small files that go along with a model.
//!
//! A pool is given as URLs. Each is, in this order of preference:
//!
//! 1. a glob: `*` and `?` in the last component, in the one before it, or in both (`runs/*/model.safetensors`);
//! 2. a checkpoint file;
//! 3. a checkpoint folder;
//! 4. a folder with a folder `ingredients`, which then counts instead;
//! 5. a folder of checkpoints: `*.safetensors` files and checkpoint folders; anything else in it is ignored.
//!
//! *Pool order* is the order of the URLs, and by name within each.

use std::collections::HashMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use soup_core::{Error, Result};

use crate::checkpoint::{self, Checkpoint, EXTENSION, INDEX_FILE, Layout, MODEL_FILE};
use crate::location::{self, Location};
use crate::read::{self, Entry};

/// Most ingredients of a pool.
pub const INGREDIENTS_MAX: usize = 4096;
/// Checkpoints opened, and folders looked into, at a time.
const IN_FLIGHT: usize = 16;
/// The folder that counts instead of the one it is in.
const INGREDIENTS_FOLDER: &str = "ingredients";
/// Largest file that is copied along with a model.
pub const COMPANION_BYTES_MAX: u64 = 64 << 20;

/// The small files that go along with a model: configuration, preprocessing, tokenizer.
pub const COMPANIONS: [&str; 13] = [
    "config.json",
    "preprocessor_config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
];

/// A checkpoint that was found and not opened yet.
#[derive(Clone, Debug)]
struct Found {
    name: String,
    location: Location,
    form: Form,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    File,
    Folder(Layout),
    /// To be found out on opening: the place cannot be listed, or was named by the user.
    Unknown,
}

/// Opens all checkpoints of a pool, in pool order. Only headers are read.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for a URL without checkpoints, two of the same name, more than
/// [`INGREDIENTS_MAX`], and for the first checkpoint that is corrupt.
pub async fn open_pool(urls: &[String]) -> Result<Vec<Checkpoint>> {
    let mut found: Vec<Found> = Vec::new();
    for url in urls {
        let mut here = Box::pin(discover(url)).await?;
        if here.is_empty() {
            return Err(Error::data(format!(
                "no checkpoints in {url:?}: expected {EXTENSION} files, or folders with {MODEL_FILE} or {INDEX_FILE}"
            )));
        }
        here.sort_by(|a, b| a.name.cmp(&b.name));
        found.append(&mut here);
        if found.len() > INGREDIENTS_MAX {
            return Err(Error::data(format!(
                "the pool has more than {INGREDIENTS_MAX} ingredients at {url:?}"
            )));
        }
    }
    let mut names: HashMap<&str, &Location> = HashMap::new();
    for f in &found {
        if let Some(other) = names.insert(&f.name, &f.location) {
            return Err(Error::data(format!(
                "two ingredients are called {:?}: {other} and {}: rename one",
                f.name, f.location
            )));
        }
    }
    futures::stream::iter(found).map(open).buffered(IN_FLIGHT).try_collect().await
}

/// Whether `url` can be one of a pool's, without looking at the store.
///
/// # Errors
/// Those of [`Location::parse`], and [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for wildcards where none are allowed.
pub fn check_url(url: &str) -> Result<()> {
    match Glob::parse(url)? {
        Some(glob) => glob.place().map(|_| ()),
        None => Location::parse(url).map(|_| ()),
    }
}

async fn open(found: Found) -> Result<Checkpoint> {
    let mut opened = match found.form {
        Form::File => checkpoint::open_file(&found.location).await?,
        Form::Folder(layout) => checkpoint::open_folder(&found.location, layout).await?,
        Form::Unknown => checkpoint::open_checkpoint(&found.location).await?,
    };
    opened.name = found.name;
    Ok(opened)
}

async fn discover(url: &str) -> Result<Vec<Found>> {
    if let Some(glob) = Glob::parse(url)? {
        return glob.discover().await;
    }
    let location = Location::parse(url)?;
    if location.name().ends_with(EXTENSION) && read::stat_if_exists(&location).await?.is_some() {
        return Ok(vec![Found { name: stem(location.name()), location, form: Form::File }]);
    }
    if location.is_http() {
        return Ok(vec![Found { name: location.name().to_string(), location, form: Form::Unknown }]);
    }
    let entries = read::list(&location).await?;
    if let Some(layout) = layout(&entries) {
        let name = location.name().to_string();
        return Ok(vec![Found { name, location, form: Form::Folder(layout) }]);
    }
    if entries.is_empty() {
        // A file that is no checkpoint deserves its own message, as does a place that is not there.
        read::stat(&location)
            .await
            .map(|_| ())
            .or_else(|e| if location.local_path().is_some_and(|p| p.is_dir()) { Ok(()) } else { Err(e) })?;
        return Ok(Vec::new());
    }
    match entries.iter().find(|e| e.stamp.is_none() && e.name == INGREDIENTS_FOLDER) {
        Some(ingredients) => among(read::list(&ingredients.location).await?).await,
        None => among(entries).await,
    }
}

/// The checkpoints among the entries of a folder: files by name, folders by what they hold.
async fn among(entries: Vec<Entry>) -> Result<Vec<Found>> {
    let look = |entry: Entry| async move {
        let (name, location) = (entry.name, entry.location);
        if name.starts_with('.') {
            return Ok(None);
        }
        if entry.stamp.is_some() {
            let form = Form::File;
            return Ok(name.ends_with(EXTENSION).then(|| Found { name: stem(&name), location, form }));
        }
        let layout = layout(&read::list(&location).await?);
        Ok::<_, Error>(layout.map(|l| Found { name, location, form: Form::Folder(l) }))
    };
    let found: Vec<Option<Found>> =
        futures::stream::iter(entries).map(look).buffered(IN_FLIGHT).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// What makes a folder a checkpoint.
fn layout(entries: &[Entry]) -> Option<Layout> {
    let has = |name: &str| entries.iter().any(|e| e.stamp.is_some() && e.name == name);
    if has(MODEL_FILE) {
        Some(Layout::One)
    } else if has(INDEX_FILE) {
        Some(Layout::Indexed)
    } else {
        None
    }
}

fn stem(name: &str) -> String {
    name.strip_suffix(EXTENSION).unwrap_or(name).to_string()
}

/// A pattern in the last two components of a URL.
#[derive(Debug, PartialEq, Eq)]
struct Glob<'a> {
    url: &'a str,
    base: &'a str,
    /// The component before the last, if it has wildcards.
    folder: Option<&'a str>,
    last: &'a str,
}

impl<'a> Glob<'a> {
    /// `None` if `url` has no wildcards.
    fn parse(url: &'a str) -> Result<Option<Glob<'a>>> {
        let wild: &[char] = if is_http(url) { &['*'] } else { &['*', '?'] };
        if !url.contains(wild) {
            return Ok(None);
        }
        location::refuse_credentials(url)?;
        // Wildcards may be in the path only.
        let path_start = match url.find("://") {
            Some(at) => url[at + 3..].find('/').map_or(url.len(), |slash| at + 3 + slash + 1),
            None => 0,
        };
        let end = url.trim_end_matches('/').len().max(path_start);
        let split = |end: usize| url[path_start..end].rfind('/').map_or(path_start, |at| path_start + at + 1);
        let last_at = split(end);
        let last = &url[last_at..end];
        let folder_at = if last_at > path_start { split(last_at - 1) } else { last_at };
        let folder = url[folder_at..last_at].trim_end_matches('/');
        let (base, folder) =
            if folder.contains(wild) { (&url[..folder_at], Some(folder)) } else { (&url[..last_at], None) };
        if base.contains(wild) {
            return Err(Error::usage(format!(
                "{url:?}: wildcards are allowed in the last two components of a path only"
            )));
        }
        Ok(Some(Glob { url, base, folder, last }))
    }

    /// Where the search begins.
    fn place(&self) -> Result<Location> {
        Location::parse(if self.base.is_empty() { "." } else { self.base })
    }

    async fn discover(&self) -> Result<Vec<Found>> {
        let base = self.place()?;
        let Some(pattern) = self.folder else {
            let entries = read::list(&base).await?;
            return among(entries.into_iter().filter(|e| matches(self.last, &e.name)).collect()).await;
        };
        let folders: Vec<Entry> = read::list(&base).await?;
        let folders = folders.into_iter().filter(|e| e.stamp.is_none() && matches(pattern, &e.name));
        let look = |folder: Entry| async move {
            let inside = read::list(&folder.location).await?;
            let inside = inside.into_iter().filter(|e| matches(self.last, &e.name)).collect();
            let mut found = among(inside).await?;
            for f in &mut found {
                // The component that varies is the name; where both do, both are needed.
                f.name = match self.last.contains(['*', '?']) {
                    false => folder.name.clone(),
                    true => format!("{}/{}", folder.name, f.name),
                };
            }
            Ok::<_, Error>(found)
        };
        let found: Vec<Vec<Found>> =
            futures::stream::iter(folders).map(look).buffered(IN_FLIGHT).try_collect().await?;
        let found: Vec<Found> = found.into_iter().flatten().collect();
        if found.len() > INGREDIENTS_MAX {
            return Err(Error::data(format!(
                "{:?} matches more than {INGREDIENTS_MAX} checkpoints",
                self.url
            )));
        }
        Ok(found)
    }
}

/// In an HTTP URL `?` starts a query.
fn is_http(url: &str) -> bool {
    let start = url.split("://").next().unwrap_or_default();
    url.contains("://") && (start.eq_ignore_ascii_case("http") || start.eq_ignore_ascii_case("https"))
}

/// Whether `name` matches `pattern`: `*` is any run of characters, `?` any one.
fn matches(pattern: &str, name: &str) -> bool {
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

/// The small files that go along with `checkpoint`, by name: from its own folder, else from the folder around it (where a
/// pool keeps them beside its `ingredients`). Files that are in neither are left out.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for one larger than [`COMPANION_BYTES_MAX`].
pub async fn companions(checkpoint: &Checkpoint) -> Result<Vec<(String, Bytes)>> {
    let own = checkpoint.folder();
    let around = own.as_ref().and_then(Location::parent);
    let folders: Vec<Location> = own.into_iter().chain(around).collect();
    let folders = &folders;
    let find = |name: &'static str| async move {
        for folder in folders {
            let file = folder.join(name)?;
            if let Some(bytes) = read::read_small_if_exists(&file, COMPANION_BYTES_MAX).await? {
                return Ok(Some((name.to_string(), bytes)));
            }
        }
        Ok::<_, Error>(None)
    };
    let finds: Vec<_> = COMPANIONS.into_iter().map(find).collect();
    let found: Vec<Option<_>> = futures::stream::iter(finds).buffered(COMPANIONS.len()).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests;
