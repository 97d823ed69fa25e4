//! Pools: finding checkpoints by folder, by glob and by list, and the small files that go along with a model.
//!
//! A pool is given as URLs. Each is, in this order of preference:
//!
//! 1. a [glob](crate::glob): wildcards in any component (`runs/*/model.safetensors`, `mlruns/**/model.safetensors`);
//! 2. a checkpoint file;
//! 3. a checkpoint folder;
//! 4. a folder with a folder `ingredients`, which then counts instead;
//! 5. a folder of checkpoints: `*.safetensors` files and checkpoint folders.
//!
//! What is there and is no ingredient is [refused or noted](survey), and so is what lies [beside](beside) a checkpoint or the folder
//! `ingredients`. An ingredient is named by its file or folder, or by [what differs](names) in its path. *Pool order* is the order of
//! the URLs, and by name within each.

use std::collections::HashMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use soup_core::companion::{ADDED_TOKENS, PREPROCESSOR, PROCESSOR, SPECIAL_TOKENS};
use soup_core::instead;
use soup_core::{Error, Result};

use self::survey::Survey;
use crate::checkpoint::{self, Checkpoint, EXTENSION, INDEX_FILE, Layout, MODEL_FILE, file_stem};
use crate::companion::{self, bounds};
use crate::glob::{Glob, no_wildcards};
use crate::kept::Kept;
use crate::listing;
use crate::location::Location;
use crate::read;

mod beside;
mod kinds;
mod names;
mod prefix;
mod survey;

/// Most ingredients of a pool.
pub const INGREDIENTS_MAX: usize = 4096;
/// Checkpoints opened, and folders looked into, at a time.
const IN_FLIGHT: usize = 16;
/// The folder that counts instead of the one it is in.
const INGREDIENTS_FOLDER: &str = "ingredients";
/// Largest file that is copied along with a model.
pub const COMPANION_BYTES_MAX: u64 = 64 << 20;

/// The small files that go along with a model: configuration, preprocessing, tokenizer.
pub const COMPANIONS: [&str; 16] = [
    "config.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "processor_config.json",
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
    "prompts.json",
];

/// A pool, opened.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The ingredients, in pool order.
    pub checkpoints: Vec<Checkpoint>,
    /// What was left out and what was changed, one line each, for people.
    pub notes: Vec<String>,
}

/// Where MLflow keeps what makes pixels of images, beside the folder `model`.
pub(crate) const COMPONENTS: [&str; 3] =
    ["components/image_processor", "components/feature_extractor", "components/processor"];

/// A checkpoint that was found and not opened yet.
#[derive(Clone, Debug)]
struct Found {
    name: String,
    /// Its name where it was found: relative to the folder, or to where a glob's wildcards begin.
    entry: String,
    location: Location,
    form: Form,
    /// Other safetensors files in its folder.
    beside: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    File,
    Folder(Layout),
    /// To be found out on opening: the place cannot be listed, or was named by the user.
    Unknown,
}

/// Opens all checkpoints of a pool, in pool order. Only headers are read, and what they say is kept once where it is the same.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for a URL without checkpoints, for what plainly is a checkpoint and cannot
/// be read, two of the same name, more than [`INGREDIENTS_MAX`], and for the first checkpoint that is corrupt;
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for a checkpoint that two URLs name.
pub async fn open_pool(urls: &[String]) -> Result<Pool> {
    let mut found: Vec<Found> = Vec::new();
    let mut notes = Vec::new();
    let mut seen: HashMap<String, &str> = HashMap::new();
    for url in urls {
        let mut here = Box::pin(discover(url)).await?;
        if let Some(refusal) = survey::refusal(&format!("{url:?}"), &here.refused) {
            return Err(refusal);
        }
        if here.found.is_empty() {
            let why = here.notes.first().map_or(String::new(), |note| format!(" ({note})"));
            return Err(Error::data(format!(
                "no checkpoints in {url:?}: expected {EXTENSION} files, or folders with {MODEL_FILE} or {INDEX_FILE}{why}{}",
                no_wildcards(url)
            )));
        }
        here.found.sort_by(|a, b| a.name.cmp(&b.name));
        for f in &here.found {
            if let Some(before) = seen.insert(f.location.to_string(), url) {
                return Err(Error::usage(format!(
                    "{} is in the pool twice: {before:?} names it, and so does {url:?}: name it once",
                    f.location
                )));
            }
        }
        found.append(&mut here.found);
        notes.append(&mut here.notes);
        if found.len() > INGREDIENTS_MAX {
            return Err(Error::data(format!(
                "the pool has more than {INGREDIENTS_MAX} ingredients at {url:?}"
            )));
        }
    }
    names::tell_apart(&mut found);
    refuse_same_names(&found)?;
    let kept = Kept::default();
    let opened: Vec<(Checkpoint, Option<String>)> = futures::stream::iter(found)
        .map(|found| open(found, &kept))
        .buffered(IN_FLIGHT)
        .try_collect()
        .await?;
    let (mut checkpoints, beside): (Vec<Checkpoint>, Vec<Option<String>>) = opened.into_iter().unzip();
    notes.extend(beside.into_iter().flatten());
    notes.extend(prefix::strip(&mut checkpoints, &kept).await?);
    Ok(Pool { checkpoints, notes })
}

fn refuse_same_names(found: &[Found]) -> Result<()> {
    let mut names: HashMap<&str, &Location> = HashMap::new();
    for f in found {
        if let Some(other) = names.insert(&f.name, &f.location) {
            return Err(Error::data(format!(
                "two ingredients are called {:?}: {other} and {}: rename one",
                f.name, f.location
            )));
        }
    }
    Ok(())
}

/// Whether `url` can be one of a pool's, without looking at the store.
///
/// # Errors
/// Those of [`Location::parse`], and [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for wildcards where none are allowed.
pub fn check_url(url: &str) -> Result<()> {
    match Glob::parse(url)? {
        Some(glob) => glob.base().map(|_| ()),
        None => Location::parse(url).map(|_| ()),
    }
}

/// The checkpoint, and a note about what is beside it.
async fn open(found: Found, kept: &Kept) -> Result<(Checkpoint, Option<String>)> {
    let mut opened = match found.form {
        Form::File => checkpoint::open_file(&found.location, kept).await?,
        Form::Folder(layout) => checkpoint::open_folder(&found.location, layout, kept).await?,
        Form::Unknown => checkpoint::open_kept(&found.location, kept).await?,
    };
    opened.name = found.name;
    let own: Vec<&str> = opened.files.iter().map(|f| f.location.name()).collect();
    let others: Vec<&str> = found.beside.iter().map(String::as_str).filter(|n| !own.contains(n)).collect();
    let note = (!others.is_empty()).then(|| {
        format!(
            "left out of {}: {}, beside {} of ingredient {:?}",
            found.location,
            survey::some(others.into_iter()),
            if own.len() == 1 { own[0] } else { INDEX_FILE },
            opened.name
        )
    });
    Ok((opened, note))
}

async fn discover(url: &str) -> Result<Survey> {
    if let Some(glob) = Glob::parse(url)? {
        return by_glob(url, &glob).await;
    }
    let location = Location::parse(url)?;
    if location.is_local() {
        // What is neither a file nor a folder is refused by name.
        read::stat_if_exists(&location).await?;
    }
    let single = |form| Found {
        name: stem(location.name()),
        entry: location.name().to_owned(),
        location: location.clone(),
        form,
        beside: Vec::new(),
    };
    if file_stem(location.name()).is_some() && read::stat_if_exists(&location).await?.is_some() {
        return Ok(Survey::of(single(Form::File)));
    }
    if location.is_http() {
        let named = Found { name: location.name().to_string(), ..single(Form::Unknown) };
        return Ok(Survey::of(named));
    }
    let listing = listing::look(&location).await?;
    survey::refuse_away(&location, &listing)?;
    if let Some(layout) = survey::layout(&listing) {
        let mut survey = Survey::default();
        let entry = location.name().to_owned();
        let found = survey::checkpoint(&location, entry, layout, &listing, &mut survey.notes).await?;
        survey.found.push(found);
        return Ok(survey);
    }
    if listing.entries.is_empty() && listing.odd.is_empty() {
        // A file that is no checkpoint deserves its own message, as does a place that is not there.
        read::stat(&location)
            .await
            .map(|_| ())
            .or_else(|e| if location.local_path().is_some_and(|p| p.is_dir()) { Ok(()) } else { Err(e) })?;
        return Ok(Survey::default());
    }
    match listing.entries.iter().find(|e| e.stamp.is_none() && e.name == INGREDIENTS_FOLDER) {
        Some(ingredients) => {
            let inside = listing::look(&ingredients.location).await?;
            let mut survey =
                survey::among(&ingredients.location.to_string(), inside.entries, inside.odd).await?;
            survey.notes.extend(beside::ingredients(&location, &listing).await?);
            Ok(survey)
        }
        None => survey::among(&location.to_string(), listing.entries, listing.odd).await,
    }
}

async fn by_glob(url: &str, glob: &Glob) -> Result<Survey> {
    let matches = glob.matches().await?;
    let mut survey = survey::among(&format!("{url:?}"), matches.entries, matches.odd).await?;
    for unseen in &matches.unseen {
        survey
            .notes
            .push(format!("not looked into for {url:?}: {:?}, which is {}", unseen.name, unseen.what));
    }
    names::by_glob(glob, &mut survey.found);
    Ok(survey)
}

fn stem(name: &str) -> String {
    file_stem(name).unwrap_or(name).to_string()
}

/// The small files that go along with `checkpoint`, by name: from its own folder, else from the folder around it (where a
/// pool keeps them beside its `ingredients`). Files that are in neither, or may not be read there, are left out;
/// [`why_missing`] tells the two apart.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for one larger than [`COMPANION_BYTES_MAX`], for settings of more values than any, and
/// for a pointer of Git LFS or a web page in the place of one.
pub async fn companions(checkpoint: &Checkpoint) -> Result<Vec<(String, Bytes)>> {
    let own = checkpoint.folder();
    let around = own.as_ref().and_then(Location::parent);
    let folders: Vec<Location> = own.into_iter().chain(around).collect();
    let folders = &folders;
    let find = |name: &'static str| async move {
        for folder in folders {
            let file = folder.join(name)?;
            if let Some(bytes) = companion_at(&file).await? {
                if companion::SETTINGS.contains(&name) || [SPECIAL_TOKENS, ADDED_TOKENS].contains(&name) {
                    bounds::check(&file, &bytes)?;
                }
                return Ok(Some((name.to_string(), bytes)));
            }
        }
        Ok::<_, Error>(None)
    };
    let finds: Vec<_> = COMPANIONS.into_iter().map(find).collect();
    let found: Vec<Option<_>> = futures::stream::iter(finds).buffered(COMPANIONS.len()).try_collect().await?;
    let mut found: Vec<(String, Bytes)> = found.into_iter().flatten().collect();
    if !found.iter().any(|(name, _)| name == PREPROCESSOR || name == PROCESSOR) {
        found.extend(component(folders).await?);
    }
    Ok(found)
}

/// A file that may go along with a model, where it is there. Web servers that have a page, or nothing, for whatever is not there say so
/// with success.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for one larger than [`COMPANION_BYTES_MAX`], and for what only stands in its place: a
/// soup would carry that on.
async fn companion_at(file: &Location) -> Result<Option<Bytes>> {
    let found = read::read_small_if_readable(file, COMPANION_BYTES_MAX).await?;
    let Some(bytes) = found.filter(|bytes| !(file.is_http() && read::is_no_file(bytes))) else {
        return Ok(None);
    };
    instead::check(file, &bytes)?;
    Ok(Some(bytes))
}

/// Where companion `name` of `checkpoint` lies, where there is one: it is found as [`companions`] finds it.
///
/// # Errors
/// As [`companions`].
pub async fn place_of(checkpoint: &Checkpoint, name: &str) -> Result<Option<Location>> {
    let own = checkpoint.folder();
    let around = own.as_ref().and_then(Location::parent);
    for folder in own.into_iter().chain(around) {
        let file = folder.join(name)?;
        if companion_at(&file).await?.is_some() {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// The preprocessing that MLflow keeps apart from the model, in a folder of its own.
async fn component(folders: &[Location]) -> Result<Option<(String, Bytes)>> {
    for folder in folders {
        for component in COMPONENTS {
            for name in [PREPROCESSOR, PROCESSOR] {
                let file = folder.join(component)?.join(name)?;
                if let Some(bytes) = companion_at(&file).await? {
                    return Ok(Some((name.to_owned(), bytes)));
                }
            }
        }
    }
    Ok(None)
}

/// Why companion `name` of `checkpoint` is missing, where it is not because there is none: it may not be read.
pub async fn why_missing(checkpoint: &Checkpoint, name: &str) -> Option<Error> {
    let own = checkpoint.folder();
    let around = own.as_ref().and_then(Location::parent);
    for folder in own.into_iter().chain(around) {
        if let Ok(file) = folder.join(name)
            && let Err(error) = read::read_small_if_exists(&file, COMPANION_BYTES_MAX).await
        {
            return Some(error);
        }
    }
    None
}

#[cfg(test)]
mod tests;
