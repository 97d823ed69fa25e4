//! What lies beside the ingredients of a pool and was left out for that: checkpoints within a checkpoint's own folder, and
//! those beside the folder `ingredients`. Either may have been meant, so each is noted by name.

use futures::{StreamExt, TryStreamExt};
use soup_core::{ErrorKind, Result};

use super::INGREDIENTS_FOLDER;
use super::kinds::Kind;
use super::survey::{DEEP_FILES_MAX, NAMES_MAX, some};
use crate::checkpoint::{INDEX_FILE, Layout, MODEL_FILE};
use crate::listing::{self, Entry, Listing, is_hidden};
use crate::location::Location;

/// Most folders that are looked into in one place.
const FOLDERS_MAX: usize = 64;
/// Folders looked into at a time, in one place.
const IN_FLIGHT: usize = 4;
/// Beginning of the names under which trainers keep checkpoints.
const CHECKPOINT: &str = "checkpoint";

/// Notes on the checkpoints in folders within that of a checkpoint.
pub(super) async fn checkpoint(
    location: &Location,
    layout: Layout,
    listing: &Listing,
) -> Result<Vec<String>> {
    let others = Others::look(listing, None).await?;
    let mut notes = others.notes(location);
    if !others.holding.is_empty() {
        let common = if others.holding.iter().all(|n| n.starts_with(CHECKPOINT)) { CHECKPOINT } else { "" };
        notes.push(format!(
            "left out of {location}: {}, {} beside its {}: name {location}/{common}* in the pool to take them",
            some(others.holding.iter().map(String::as_str)),
            which(&others.holding),
            if layout == Layout::One { MODEL_FILE } else { INDEX_FILE },
        ));
    }
    Ok(notes)
}

/// Notes on the checkpoints beside the folder `ingredients`.
pub(super) async fn ingredients(location: &Location, listing: &Listing) -> Result<Vec<String>> {
    let mut others = Others::look(listing, Some(INGREDIENTS_FOLDER)).await?;
    let files = listing.entries.iter().filter(|e| e.stamp.is_some() && !is_hidden(&e.name));
    others.holding.extend(files.filter(|e| Kind::of(&e.name).is_weights()).map(|e| e.name.clone()));
    let mut notes = others.notes(location);
    if !others.holding.is_empty() {
        others.holding.sort_unstable();
        notes.push(format!(
            "left out of {location}: {}, {} beside its folder {INGREDIENTS_FOLDER:?}, which counts instead: name what else \
             is to be taken",
            some(others.holding.iter().map(String::as_str)),
            which(&others.holding),
        ));
    }
    Ok(notes)
}

fn which(names: &[String]) -> &'static str {
    if names.len() == 1 { "which is" } else { "which are" }
}

/// Folders beside an ingredient, by name.
#[derive(Default)]
struct Others {
    /// Those with checkpoints, at whatever depth.
    holding: Vec<String>,
    /// Those of which nobody knows, and why.
    unknown: Vec<(String, String)>,
    /// How many more there are, which nobody looked into.
    more: usize,
}

impl Others {
    /// What the folders in `listing` hold, `but` one.
    async fn look(listing: &Listing, but: Option<&str>) -> Result<Others> {
        let folders = listing.entries.iter().filter(|e| e.stamp.is_none() && !is_hidden(&e.name));
        let folders: Vec<Entry> = folders.filter(|e| Some(e.name.as_str()) != but).cloned().collect();
        let odd = listing.odd.iter().filter(|odd| odd.may_be_folder);
        let mut others = Others {
            unknown: odd.map(|odd| (odd.name.clone(), format!("is {}", odd.what))).collect(),
            more: folders.len().saturating_sub(FOLDERS_MAX),
            ..Others::default()
        };
        let looks = folders.into_iter().take(FOLDERS_MAX);
        let looks: Vec<(String, Option<bool>)> =
            futures::stream::iter(looks).map(holds).buffered(IN_FLIGHT).try_collect().await?;
        for (name, holds) in looks {
            match holds {
                Some(true) => others.holding.push(name),
                Some(false) => {}
                None => others.unknown.push((name, "cannot be read".to_owned())),
            }
        }
        Ok(others)
    }

    /// Notes on those of which nobody knows what they hold.
    fn notes(&self, location: &Location) -> Vec<String> {
        let mut notes: Vec<String> = Vec::new();
        for (name, what) in self.unknown.iter().take(NAMES_MAX) {
            notes.push(format!("left out of {location}: {name:?}, which {what}"));
        }
        if let Some(more @ 1..) = self.unknown.len().checked_sub(NAMES_MAX) {
            notes.push(format!("left out of {location}: {more} more of which nobody knows what they are"));
        }
        if self.more > 0 {
            notes.push(format!("{location} has {} more folders, which were not looked into", self.more));
        }
        notes
    }
}

/// The folder's name, and whether there are checkpoints in it; `None` where it cannot be read.
async fn holds(folder: Entry) -> Result<(String, Option<bool>)> {
    if folder.name.starts_with(CHECKPOINT) {
        return Ok((folder.name, Some(true)));
    }
    let below = match listing::some_below(&folder.location, DEEP_FILES_MAX).await {
        // Such as the `lost+found` of a disk.
        Err(e) if folder.location.is_local() && e.kind() == ErrorKind::Configuration => {
            return Ok((folder.name, None));
        }
        other => other?,
    };
    let weights = |e: &Entry| Kind::of(e.name.rsplit('/').next().unwrap_or_default()).is_weights();
    Ok((folder.name, Some(below.iter().any(weights))))
}
