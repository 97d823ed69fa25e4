//! What the entries of a folder are to a pool: ingredients, or something that is left out.
//!
//! What plainly is a checkpoint that somebody meant, and cannot be read as one, is refused: a soup without it would be another
//! soup. Everything else that may matter is left out with a note; what cannot be an ingredient at all (configuration, text,
//! what is hidden) is left out in silence.

use futures::{StreamExt, TryStreamExt};
use soup_core::{Error, ErrorKind, Result};

use super::kinds::Kind;
use super::{Form, Found, IN_FLIGHT, beside, stem};
use crate::checkpoint::{INDEX_FILE, Layout, MODEL_FILE, file_stem};
use crate::listing::{self, Entry, Listing, Odd, is_hidden};
use crate::location::Location;
use crate::output::MANIFEST_FILE;

/// Files looked at to find out whether checkpoints are deeper in a folder.
pub(super) const DEEP_FILES_MAX: usize = 1000;
/// Most names that a text lists.
pub(super) const NAMES_MAX: usize = 8;

/// What was found in a place.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Ingredients.
    pub(super) found: Vec<Found>,
    /// Soups of earlier cooks, which are ingredients only where nothing else is.
    pub(super) soups: Vec<Found>,
    /// Checkpoints that cannot be read: which, why, what to do.
    pub(super) refused: Vec<String>,
    /// What is left out, and why.
    pub(super) notes: Vec<String>,
    /// Folders that hold no checkpoint.
    nothing: Vec<String>,
    /// Files that may hold one.
    doubtful: Vec<String>,
    training: Vec<String>,
    duplicates: Vec<String>,
    /// Folders that hold checkpoints deeper than a pool is looked into.
    deep: Vec<Deep>,
}

#[derive(Debug)]
struct Deep {
    name: String,
    location: Location,
    /// The path of its first checkpoint, in it.
    first: String,
}

impl Deep {
    fn file(&self) -> &str {
        self.first.rsplit('/').next().unwrap_or_default()
    }

    /// What names its checkpoints, and those of the folders beside it, where they are files that are read.
    fn with_others(&self) -> Option<String> {
        let files = matches!(Kind::of(self.file()), Kind::Weights | Kind::Variant(_));
        let parent = self.location.parent().filter(|_| files)?;
        Some(format!("{parent}/**/{}", self.file()))
    }

    /// What is said of it alone.
    fn note(&self) -> String {
        let Deep { location, first, .. } = self;
        match Kind::of(self.file()) {
            Kind::Foreign(what) => {
                format!(
                    "left out: {location}, which holds checkpoints deeper that are not read: {first} is {what}"
                )
            }
            Kind::Adapter => format!("left out: {location}, of which {}", adapter(&format!("{first} is"))),
            // A part of one; its folder is the checkpoint.
            Kind::Shard => format!(
                "left out: {location}, which holds checkpoints deeper, such as {first}: name {location}/{} in the pool to take it",
                first.rsplit_once('/').map_or("*", |(folder, _)| folder)
            ),
            _ => format!(
                "left out: {location}, which holds checkpoints deeper, such as {first}: name {location}/**/{} in the pool to take \
                 them",
                self.file()
            ),
        }
    }
}

/// What is said of such folders: one name for all of them, where there is one.
fn deep_notes(place: &str, deep: &[Deep]) -> Vec<String> {
    let with_others = match deep {
        [first, _, ..] => {
            first.with_others().filter(|all| deep.iter().all(|d| d.with_others().as_ref() == Some(all)))
        }
        _ => None,
    };
    match with_others {
        Some(all) => vec![format!(
            "left out of {place}: {}, which hold checkpoints deeper, such as {}/{}: name {all} in the pool to take them",
            some(deep.iter().map(|d| d.name.as_str())),
            deep[0].name,
            deep[0].first
        )],
        None => deep.iter().map(Deep::note).collect(),
    }
}

impl Survey {
    /// One ingredient and nothing else.
    pub(super) fn of(found: Found) -> Survey {
        Survey { found: vec![found], ..Survey::default() }
    }

    fn add(&mut self, other: Survey) {
        self.found.extend(other.found);
        self.soups.extend(other.soups);
        self.refused.extend(other.refused);
        self.notes.extend(other.notes);
        self.nothing.extend(other.nothing);
        self.doubtful.extend(other.doubtful);
        self.training.extend(other.training);
        self.duplicates.extend(other.duplicates);
        self.deep.extend(other.deep);
    }

    /// The survey with its counts made notes, and soups where they belong.
    fn finished(mut self, place: &str) -> Survey {
        self.notes.extend(deep_notes(place, &std::mem::take(&mut self.deep)));
        let counted = [
            (std::mem::take(&mut self.nothing), "holds no checkpoint", "hold no checkpoint"),
            (
                std::mem::take(&mut self.doubtful),
                "may hold a checkpoint and is not read",
                "may hold checkpoints and are not read",
            ),
            (std::mem::take(&mut self.training), "is a training run's own", "are a training run's own"),
            (
                std::mem::take(&mut self.duplicates),
                "is a checkpoint that is there as safetensors too",
                "are checkpoints that are there as safetensors too",
            ),
        ];
        for (names, one, many) in counted {
            match names.as_slice() {
                [] => {}
                [name] => self.notes.push(format!("left out of {place}: {name:?}, which {one}")),
                all => self.notes.push(format!(
                    "left out of {place}: {}, which {many}",
                    some(all.iter().map(String::as_str))
                )),
            }
        }
        let soups = std::mem::take(&mut self.soups);
        if self.found.is_empty() && self.refused.is_empty() {
            self.found = soups;
        } else if !soups.is_empty() {
            let names: Vec<&str> = soups.iter().map(|s| s.entry.as_str()).collect();
            let text = if soups.len() == 1 { "which is a soup" } else { "which are soups" };
            self.notes.push(format!(
                "left out of {place}: {}, {text}, as its {MANIFEST_FILE} says: name it in the pool to take it",
                some(names.into_iter())
            ));
        }
        self
    }
}

/// `"a", "b" and 3 more`.
pub(super) fn some<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let shown: Vec<String> = names.take(NAMES_MAX).map(|n| format!("{n:?}")).collect();
    match (more, shown.as_slice()) {
        (0, [before @ .., last]) if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        (0, _) => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}

/// What makes a folder a checkpoint.
pub(super) fn layout(listing: &Listing) -> Option<Layout> {
    if has(listing, MODEL_FILE) {
        Some(Layout::One)
    } else if has(listing, INDEX_FILE) {
        Some(Layout::Indexed)
    } else {
        None
    }
}

/// Refuses a checkpoint whose file or index may not be read: that whoever runs the cluster has to allow.
pub(super) fn refuse_away(location: &Location, listing: &Listing) -> Result<()> {
    let is_it = |odd: &&Odd| odd.away && (odd.name == MODEL_FILE || odd.name == INDEX_FILE);
    listing.odd.iter().find(is_it).map_or(Ok(()), |odd| Err(odd.refusal(location)))
}

fn has(listing: &Listing, name: &str) -> bool {
    listing.entries.iter().any(|e| e.stamp.is_some() && e.name == name)
}

fn files(listing: &Listing) -> impl Iterator<Item = (&str, Kind)> {
    let files = listing.entries.iter().filter(|e| e.stamp.is_some() && !is_hidden(&e.name));
    files.map(|e| (e.name.as_str(), Kind::of(&e.name)))
}

/// The ingredients among the entries of a folder, or among what a glob matches: files by name, folders by what they hold.
/// `place` names it for people.
pub(super) async fn among(place: &str, entries: Vec<Entry>, odd: Vec<Odd>) -> Result<Survey> {
    let mut survey = Survey::default();
    let weights = |odd: &&Odd| Kind::of(odd.name.rsplit('/').next().unwrap_or_default()).is_weights();
    if let Some(away) = odd.iter().filter(|odd| odd.away && !is_hidden(&odd.name)).find(weights) {
        return Err(away.refusal(place));
    }
    for odd in odd.iter().filter(|o| !is_hidden(&o.name)) {
        odd_entry(place, odd, &mut survey);
    }
    let mut folders = Vec::new();
    let stems: Vec<String> = entries
        .iter()
        .filter(|e| e.stamp.is_some())
        .filter_map(|e| file_stem(&e.name).map(str::to_owned))
        .collect();
    for entry in entries {
        let last = entry.name.rsplit('/').next().unwrap_or_default();
        if last.starts_with('.') || is_hidden(last) {
            continue;
        }
        match entry.stamp {
            Some(_) => file(entry, &stems, &mut survey),
            None => folders.push(entry),
        }
    }
    let surveys: Vec<Survey> =
        futures::stream::iter(folders).map(folder).buffered(IN_FLIGHT).try_collect().await?;
    surveys.into_iter().for_each(|s| survey.add(s));
    Ok(survey.finished(place))
}

fn odd_entry(place: &str, odd: &Odd, survey: &mut Survey) {
    let Odd { name, what, may_be_folder, .. } = odd;
    let last = name.rsplit('/').next().unwrap_or_default();
    if Kind::of(last).is_weights() {
        survey.refused.push(format!("{name:?} is {what}"));
    } else if *may_be_folder && last != listing::LOST_AND_FOUND {
        survey.refused.push(format!("{name:?}, which may be a checkpoint, is {what}: repair or remove it"));
    } else if !last.contains('.') || what.contains("link") {
        survey.notes.push(format!("left out of {place}: {name:?}, which is {what}"));
    }
}

/// A file beside others, of which those of `safetensors` are such, by their stems.
fn file(entry: Entry, safetensors: &[String], survey: &mut Survey) {
    let name = entry.name;
    let last = name.rsplit('/').next().unwrap_or_default();
    match Kind::of(last) {
        // Beside others, a variant is a file like any other.
        Kind::Weights | Kind::Variant(_) if file_stem(&name).is_some() => survey.found.push(Found {
            name: stem(last),
            entry: name,
            location: entry.location,
            form: Form::File,
            beside: Vec::new(),
        }),
        Kind::Shard => survey.refused.push(format!(
            "{name:?} is one of several files of a checkpoint, and there is no {INDEX_FILE}: bring the index, or save the \
             model again"
        )),
        Kind::Adapter => survey.refused.push(adapter(&format!("{name:?} is"))),
        Kind::Unfinished => survey.refused.push(format!("{name:?} is not whole, or packed: finish or unpack it")),
        Kind::Foreign(what) => {
            let same = |stem: &str| safetensors.iter().any(|other| other == stem);
            match name.rsplit_once('.').is_some_and(|(stem, _)| same(stem)) {
                true => survey.duplicates.push(name),
                false => survey.refused.push(format!("{name:?} is {what}")),
            }
        }
        Kind::Training => survey.training.push(name),
        Kind::Doubtful => survey.doubtful.push(name),
        Kind::Weights | Kind::Variant(_) | Kind::Other => {}
    }
}

fn adapter(what: &str) -> String {
    format!("{what} an adapter (LoRA, PEFT), no model: merge it into its base first (`merge_and_unload`)")
}

/// A folder in a pool.
async fn folder(entry: Entry) -> Result<Survey> {
    let mut survey = Survey::default();
    let listing = match listing::look(&entry.location).await {
        Ok(listing) => listing,
        Err(e) if entry.location.is_local() && e.kind() == ErrorKind::Configuration => {
            odd_entry("the pool", &Odd::folder(entry.name, "a folder that cannot be read"), &mut survey);
            return Ok(survey);
        }
        Err(e) => return Err(e),
    };
    refuse_away(&entry.location, &listing)?;
    if let Some(layout) = layout(&listing) {
        let found = checkpoint(&entry.location, entry.name, layout, &listing, &mut survey.notes).await?;
        match has(&listing, MANIFEST_FILE) {
            true => survey.soups.push(found),
            false => survey.found.push(found),
        }
        return Ok(survey);
    }
    let name = &entry.name;
    if let Some(why) = unreadable(name, &entry.location, &listing) {
        survey.refused.push(why);
    } else if let Some(why) = loose(&entry.location, &listing) {
        survey.notes.push(why);
    } else if let Some(first) = first_below(&entry.location, &listing).await? {
        survey.deep.push(Deep { name: entry.name, location: entry.location, first });
    } else {
        survey.nothing.push(entry.name);
    }
    Ok(survey)
}

/// A folder that is a checkpoint, and notes about what else is in it.
pub(super) async fn checkpoint(
    location: &Location,
    entry: String,
    layout: Layout,
    listing: &Listing,
    notes: &mut Vec<String>,
) -> Result<Found> {
    let own = |name: &str| name == MODEL_FILE && layout == Layout::One;
    let mut others: Vec<String> = Vec::new();
    for (name, kind) in files(listing) {
        let holds = matches!(kind, Kind::Weights | Kind::Variant(_) | Kind::Adapter | Kind::Shard);
        if holds && file_stem(name).is_some() && !own(name) {
            others.push(name.to_owned());
        }
    }
    notes.extend(beside::checkpoint(location, layout, listing).await?);
    Ok(Found {
        name: location.name().to_owned(),
        entry,
        location: location.clone(),
        form: Form::Folder(layout),
        beside: others,
    })
}

/// Why a folder that is no checkpoint plainly is meant to be one, and what to do.
fn unreadable(name: &str, location: &Location, listing: &Listing) -> Option<String> {
    let of = |wanted: &dyn Fn(&Kind) -> bool| files(listing).find(|(_, kind)| wanted(kind));
    let broken = listing.odd.iter().find(|o| Kind::of(&o.name).is_weights() || o.name == INDEX_FILE);
    if let Some(odd) = broken {
        return Some(format!("{name:?}: {} is {}", odd.name, odd.what));
    }
    if has(listing, "adapter_config.json") || of(&|k| *k == Kind::Adapter).is_some() {
        return Some(adapter(&format!("{name:?} holds")));
    }
    if let Some((shard, _)) = of(&|k| *k == Kind::Shard) {
        return Some(format!(
            "{name:?} holds files of a checkpoint ({shard}) and no {INDEX_FILE}: bring the index, or save the model again"
        ));
    }
    if let Some((variant, _)) = of(&|k| matches!(k, Kind::Variant(_))) {
        let advice = match file_stem(variant).is_some() {
            true => format!("name {location}/{variant} in the pool to take it"),
            false => format!("copy it to {INDEX_FILE} to take it"),
        };
        return Some(format!("{name:?} holds only a variant, {variant}, and no {MODEL_FILE}: {advice}"));
    }
    let weights: Vec<&str> =
        files(listing).filter(|(_, k)| *k == Kind::Weights).map(|(name, _)| name).collect();
    match weights.as_slice() {
        [] => {}
        [one] => {
            return Some(format!(
                "{name:?} holds {one} and no {MODEL_FILE}: name {location}/{one}, or */{one}, in the pool to take it"
            ));
        }
        _ => return None,
    }
    if let Some((unfinished, _)) = of(&|k| *k == Kind::Unfinished) {
        return Some(format!("{name:?}: {unfinished} is not whole, or packed: finish or unpack it"));
    }
    files(listing).find_map(|(file, kind)| match kind {
        Kind::Foreign(what) => Some(format!("{name:?}: {file} is {what}")),
        _ => None,
    })
}

/// A note about checkpoints in a folder that is none itself.
fn loose(location: &Location, listing: &Listing) -> Option<String> {
    let loose: Vec<&str> =
        files(listing).filter(|(_, k)| *k == Kind::Weights).map(|(name, _)| name).collect();
    (!loose.is_empty()).then(|| {
        format!(
            "left out: {location}, which is a folder of checkpoints itself ({}): name it, or {location}/*, in the pool to \
             take them",
            some(loose.into_iter())
        )
    })
}

/// The path of the first checkpoint deeper in a folder.
async fn first_below(location: &Location, listing: &Listing) -> Result<Option<String>> {
    if !listing.entries.iter().any(|e| e.stamp.is_none() && !is_hidden(&e.name)) {
        return Ok(None);
    }
    let below = listing::some_below(location, DEEP_FILES_MAX).await?;
    let of = |e: &Entry| Kind::of(e.name.rsplit('/').next().unwrap_or_default());
    // One that can be read tells more than others beside it.
    let readable = |e: &&Entry| matches!(of(e), Kind::Weights | Kind::Variant(_) | Kind::Shard);
    let first = below.iter().find(readable).or_else(|| below.iter().find(|e| of(e).is_weights()));
    Ok(first.map(|first| first.name.clone()))
}

/// The error for checkpoints that cannot be read; `None` without any.
pub(super) fn refusal(place: &str, refused: &[String]) -> Option<Error> {
    let shown = refused.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = refused.len().saturating_sub(NAMES_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    match refused.len() {
        0 => None,
        1 => Some(Error::data(format!(
            "{place} has a checkpoint that cannot be read: {shown}; or take it out of the pool, or name the others with a glob"
        ))),
        n => Some(Error::data(format!(
            "{place} has {n} checkpoints that cannot be read: {shown}{more}; or take them out of the pool, or name the others \
             with a glob"
        ))),
    }
}
