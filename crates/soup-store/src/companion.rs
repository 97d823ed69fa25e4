//! The small files of every ingredient, read to be compared.
//!
//! Ingredients in one folder share its files, so each folder is looked into once and speaks in the name of the first ingredient
//! that lies in it. A file that is not beside an ingredient is looked for in the folder around it, as for
//! [`companions`](crate::pool::companions).

pub(crate) mod bounds;
mod lacking;

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value};
use soup_core::companion::{
    self, CONFIG, Companion, Content, IMAGES, Ignored, OPEN_CLIP_CONFIG, PREPROCESSOR, PROCESSOR, PROMPTS,
    TOKENIZER, TOKENIZER_CONFIG,
};
use soup_core::instead;
use soup_core::{Error, Result};

use crate::checkpoint::Checkpoint;
use crate::kept;
use crate::listing;
use crate::location::Location;
use crate::pool::{COMPANION_BYTES_MAX, COMPONENTS};
use crate::read::{self, Stamp};

/// Files that are compared setting by setting.
pub(crate) const SETTINGS: [&str; 5] = [CONFIG, OPEN_CLIP_CONFIG, PREPROCESSOR, PROCESSOR, TOKENIZER_CONFIG];
/// Files that are compared as a whole: they say which token a row of an embedding stands for, and what the classes are called.
const VOCABULARIES: [&str; 8] = [
    TOKENIZER,
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    PROMPTS,
];
/// Folders looked into, and files read, at a time.
const IN_FLIGHT: usize = 16;

/// A file that was found, and whose it is.
struct Found {
    ingredient: String,
    location: Location,
    stamp: Stamp,
}

/// Whether the small files of a pool agree, except for the settings `ignored`; returns what people should know.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for the first setting that differs and gives tensors their meaning; those of
/// [`of_pool`].
pub async fn check(checkpoints: &[Checkpoint], ignored: &[String]) -> Result<Vec<String>> {
    let mut ignored = Ignored::new(ignored);
    let (companions, mut notes) = of_pool(checkpoints).await?;
    for (file, companions) in companions {
        notes.extend(companion::agree(file, &companions, &mut ignored)?);
    }
    let unused = ignored
        .unused()
        .map(|key| format!("nothing differs between ingredients that --ignore-config {key} would be about"));
    notes.extend(unused);
    Ok(notes)
}

/// Companions by file name, each in pool order.
type ByFile = BTreeMap<&'static str, Vec<Companion>>;

/// The companions of a pool that can be compared, and notes about who has nothing to compare; nothing where all ingredients share one
/// folder.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for settings that are no JSON object, naming the file; otherwise what the
/// store says.
async fn of_pool(checkpoints: &[Checkpoint]) -> Result<(ByFile, Vec<String>)> {
    let mut folders: Vec<(&str, Location)> = Vec::new();
    for checkpoint in checkpoints {
        if let Some(folder) = checkpoint.folder()
            && !folders.iter().any(|(_, known)| *known == folder)
        {
            folders.push((&checkpoint.name, folder));
        }
    }
    let mut companions = ByFile::new();
    if folders.len() < 2 {
        return Ok((companions, Vec::new()));
    }
    let listings = listings(&folders).await?;
    for name in SETTINGS {
        let found = found(name, &folders, &listings);
        let bytes = found.iter().map(|f| f.stamp.size_bytes).fold(0, u64::saturating_add);
        if let Some(first) = found.first().filter(|_| bytes > bounds::ALL_BYTES_MAX) {
            return Err(Error::data(format!(
                "{} and the {name} of the other ingredients have {} MiB together, and at most {} MiB are compared",
                first.location,
                bytes >> 20,
                bounds::ALL_BYTES_MAX >> 20
            )));
        }
        companions.insert(name, settings(name, found).await?);
    }
    for name in VOCABULARIES {
        companions.insert(name, vocabularies(found(name, &folders, &listings)).await?);
    }
    let ingredients: Vec<&str> = folders.iter().map(|(ingredient, _)| *ingredient).collect();
    let notes = lacking::notes(&ingredients, &companions);
    join_images(&ingredients, &mut companions);
    companions.retain(|_, of| of.len() > 1);
    Ok((companions, notes))
}

/// What the two files say of images becomes one, under [`IMAGES`], where some ingredients have it in the one and some in the other.
fn join_images(ingredients: &[&str], companions: &mut ByFile) {
    let flat = companions.get(PREPROCESSOR).map_or(&[][..], Vec::as_slice);
    let has_flat = |ingredient: &str| flat.iter().any(|c| c.ingredient == ingredient);
    let nested = companions.get(PROCESSOR).into_iter().flatten().filter(|c| !has_flat(&c.ingredient));
    let nested: Vec<Companion> = nested.filter_map(of_images).collect();
    if flat.is_empty() || nested.is_empty() {
        return;
    }
    let of = |ingredient: &&str| flat.iter().chain(&nested).find(|c| c.ingredient == **ingredient).cloned();
    let joined: Vec<Companion> = ingredients.iter().filter_map(of).collect();
    companions.remove(PREPROCESSOR);
    companions.insert(IMAGES, joined);
    // What was said there need not be said again.
    for companion in companions.get_mut(PROCESSOR).into_iter().flatten() {
        if let Content::Settings(settings) = &mut companion.content
            && nested.iter().any(|n| n.ingredient == companion.ingredient)
        {
            settings.remove("image_processor");
        }
    }
}

/// The part of a `processor_config.json` that is about images.
fn of_images(companion: &Companion) -> Option<Companion> {
    let Content::Settings(all) = &companion.content else { return None };
    let settings = all.get("image_processor")?.as_object()?.clone();
    Some(Companion { ingredient: companion.ingredient.clone(), content: Content::Settings(settings) })
}

type Listing = HashMap<String, (Location, Stamp)>;

/// The files of all folders and of the folders around them. Where a folder may not be listed, each file is asked for.
async fn listings(folders: &[(&str, Location)]) -> Result<HashMap<String, Listing>> {
    let mut wanted: Vec<Location> = Vec::new();
    for (_, folder) in folders {
        wanted.extend(folder.parent().into_iter().chain([folder.clone()]));
    }
    wanted.sort_by_key(Location::to_string);
    wanted.dedup();
    let looked: Vec<(Location, Listing, bool)> =
        stream::iter(wanted).map(look).buffered(IN_FLIGHT).try_collect().await?;
    let mut components = Vec::new();
    for (folder, ..) in looked.iter().filter(|(_, _, has_components)| *has_components) {
        for component in COMPONENTS {
            components.push(folder.join(component)?);
        }
    }
    let in_components: Vec<(Location, Listing, bool)> =
        stream::iter(components).map(look).buffered(IN_FLIGHT).try_collect().await?;
    let all = looked.into_iter().chain(in_components);
    Ok(all.map(|(folder, files, _)| (folder.to_string(), files)).collect())
}

/// The files of a folder, and whether there is a folder of MLflow's components among its entries.
async fn look(folder: Location) -> Result<(Location, Listing, bool)> {
    let Ok(listing) = listing::look(&folder).await else {
        let files = asked_for(&folder).await?;
        return Ok((folder, files, false));
    };
    let compared = |name: &str| SETTINGS.contains(&name) || VOCABULARIES.contains(&name);
    if let Some(odd) = listing.odd.iter().find(|odd| (odd.special || odd.away) && compared(&odd.name)) {
        return Err(odd.refusal(&folder));
    }
    let entries = listing.entries;
    if let Some(inner) = entries.iter().find(|e| e.stamp.is_none() && folder.is_local() && compared(&e.name))
    {
        return Err(Error::data(format!("{} is a folder, not a file", inner.location)));
    }
    let has_components = entries.iter().any(|e| e.stamp.is_none() && e.name == "components");
    let file = |e: read::Entry| Some((e.name, (e.location, e.stamp?)));
    Ok((folder, entries.into_iter().filter_map(file).collect(), has_components))
}

async fn asked_for(folder: &Location) -> Result<Listing> {
    let mut files = Listing::new();
    for name in SETTINGS.into_iter().chain(VOCABULARIES) {
        let location = folder.join(name)?;
        // What may not be seen is as good as absent: whoever needs it says so.
        if let Ok(Some(stamp)) = read::stat_if_a_file(&location).await {
            files.insert(name.to_owned(), (location, stamp));
        }
    }
    Ok(files)
}

/// The file `name` of every folder that has one, or whose surrounding folder has.
fn found(name: &str, folders: &[(&str, Location)], listings: &HashMap<String, Listing>) -> Vec<Found> {
    let in_folder = |folder: &Location| listings.get(&folder.to_string())?.get(name).cloned();
    let of = |(ingredient, folder): &(&str, Location)| {
        let around = folder.parent();
        let own = in_folder(folder).or_else(|| in_folder(around.as_ref()?));
        let in_component = || {
            let folders = [Some(folder), around.as_ref()].into_iter().flatten();
            let component = |folder: &Location| {
                COMPONENTS.iter().find_map(|component| in_folder(&folder.join(component).ok()?))
            };
            folders.filter(|_| [PREPROCESSOR, PROCESSOR].contains(&name)).filter_map(component).next()
        };
        let (location, stamp) = own.or_else(in_component)?;
        Some(Found { ingredient: (*ingredient).to_owned(), location, stamp })
    };
    folders.iter().filter_map(of).collect()
}

/// Files of settings: they are read several at a time, and made values one after the other. What is in one that is the first one again
/// is not kept.
async fn settings(name: &str, found: Vec<Found>) -> Result<Vec<Companion>> {
    let read = |found: Found| async move {
        let _permit = kept::header_permit(found.stamp.size_bytes.min(bounds::BYTES_MAX)).await?;
        let bytes = read::read_small(&found.location, bounds::BYTES_MAX).await?;
        Ok::<_, Error>((found, bytes))
    };
    // Of these, parts are taken out.
    let whole = ![PREPROCESSOR, PROCESSOR].contains(&name);
    let mut files = stream::iter(found).map(read).buffered(IN_FLIGHT);
    let (mut first, mut values, mut companions) = (None, 0, Vec::new());
    while let Some((Found { ingredient, location, .. }, bytes)) = files.try_next().await? {
        let content = if whole && first.as_ref() == Some(&bytes) {
            Content::Same
        } else {
            values += bounds::check(&location, &bytes)?;
            if values > bounds::ALL_VALUES_MAX {
                return Err(Error::data(format!(
                    "{location} and the {name} of the ingredients before it have {values} values together, and at most {} are compared",
                    bounds::ALL_VALUES_MAX
                )));
            }
            Content::Settings(object(&location, &bytes)?)
        };
        first.get_or_insert(bytes);
        companions.push(Companion { ingredient, content });
    }
    Ok(companions)
}

/// The JSON object in a file of settings.
fn object(location: &Location, bytes: &[u8]) -> Result<Map<String, Value>> {
    instead::check(location, bytes)?;
    let wrong = || Error::data(format!("{location} is not a JSON object"));
    if let Some(key) = companion::named_twice(bytes) {
        return Err(Error::data(format!(
            "{location} has {key:?} twice in one object, and which of the two is meant is not known: leave one out"
        )));
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(settings)) => Ok(settings),
        Ok(_) => Err(wrong()),
        Err(e) => Err(wrong().with_source(e)),
    }
}

/// Vocabularies by their digests; those of another size than the first one's need not be read to differ.
async fn vocabularies(found: Vec<Found>) -> Result<Vec<Companion>> {
    let Some(first) = found.first() else { return Ok(Vec::new()) };
    let (size, etag) = (first.stamp.size_bytes, first.stamp.etag.clone());
    let same = |f: &Found| f.location == first.location || (etag.is_some() && f.stamp.etag == etag);
    let all_same = found.iter().all(|f| f.stamp.size_bytes == size && same(f));
    let digest = |f: Found| async move {
        let content = if all_same {
            String::new()
        } else if f.stamp.size_bytes == size {
            let _permit = kept::header_permit(size.min(COMPANION_BYTES_MAX)).await?;
            let bytes = read::read_small(&f.location, COMPANION_BYTES_MAX).await?;
            soup_core::journal::sha256_hex(&bytes)
        } else {
            format!("{} bytes", f.stamp.size_bytes)
        };
        Ok::<_, Error>(Companion { ingredient: f.ingredient, content: Content::Digest(content) })
    };
    stream::iter(found).map(digest).buffered(IN_FLIGHT).try_collect().await
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A pool of these ingredients, each with these files; what was noted, or refused.
    async fn checked(pool: &[(&str, &[(&str, &str)])]) -> std::result::Result<Vec<String>, String> {
        let root = tempfile::tempdir().unwrap();
        let header = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let model = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
        let write = |path: &Path, bytes: &[u8]| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        for (ingredient, files) in pool {
            let folder = root.path().join("pool").join(ingredient);
            write(&folder.join("model.safetensors"), &model);
            files.iter().for_each(|(name, text)| write(&folder.join(name), text.as_bytes()));
        }
        let url = root.path().join("pool").to_str().unwrap().to_owned();
        let pool = crate::pool::open_pool(&[url]).await.unwrap();
        check(&pool.checkpoints, &[]).await.map_err(|e| e.chain())
    }

    #[tokio::test]
    async fn images_are_compared_in_whichever_file_they_are() {
        let flat = (PREPROCESSOR, r#"{"image_mean": [0.5], "size": {"height": 4, "width": 4}}"#);
        let nested = |mean: f64| {
            format!(r#"{{"image_processor": {{"image_mean": [{mean}], "size": 4}}, "processor_class": "X"}}"#)
        };
        let (same, other) = (nested(0.5), nested(0.9));
        let agree = checked(&[("a", &[flat]), ("b", &[(PROCESSOR, &same)]), ("c", &[flat])]).await;
        assert_eq!(agree, Ok(Vec::new()));
        let error = checked(&[("a", &[flat]), ("b", &[(PROCESSOR, &other)])]).await.unwrap_err();
        assert!(error.contains(r#"says "image_mean" is [0.9], but ingredient "a" says [0.5]"#), "{error}");
        let error =
            checked(&[("a", &[(PROCESSOR, &same)]), ("b", &[(PROCESSOR, &other)])]).await.unwrap_err();
        assert!(error.contains("image_processor.image_mean"), "{error}");
    }

    #[tokio::test]
    async fn settings_are_compared_with_those_that_are_the_first_ones_again_in_between() {
        let (a, b) = ((CONFIG, r#"{"hidden_act": "gelu"}"#), (CONFIG, r#"{"hidden_act": "relu"}"#));
        assert_eq!(checked(&[("a", &[a]), ("b", &[a]), ("c", &[a])]).await, Ok(Vec::new()));
        let error = checked(&[("a", &[a]), ("b", &[a]), ("c", &[b])]).await.unwrap_err();
        assert!(error.contains(r#"ingredient "c""#) && error.contains("hidden_act"), "{error}");
        let broken = (CONFIG, "{");
        let error = checked(&[("a", &[broken]), ("b", &[broken])]).await.unwrap_err();
        assert!(error.contains("is not a JSON object"), "{error}");
        let many = format!(r#"{{"x": [{}0]}}"#, "0,".repeat(1 << 20));
        let error = checked(&[("a", &[a]), ("b", &[(CONFIG, &many)])]).await.unwrap_err();
        assert!(error.contains("b/config.json has") && error.contains("at most 524288"), "{error}");
    }

    #[tokio::test]
    async fn who_has_nothing_to_compare_is_noted() {
        let config = (CONFIG, r#"{"x": 1}"#);
        let notes = checked(&[("a", &[config]), ("b", &[]), ("c", &[config]), ("d", &[])]).await.unwrap();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].starts_with(r#"ingredient "b" and 1 more have no config.json"#), "{notes:?}");
        let (whole, words) = ((TOKENIZER, "{}"), ("vocab.txt", "a"));
        let notes = checked(&[("a", &[whole]), ("b", &[words])]).await.unwrap();
        assert!(notes.len() == 1 && notes[0].contains("have no file in common"), "{notes:?}");
        // The second one has both, so that all are compared.
        let linked = checked(&[("a", &[whole]), ("b", &[whole, words]), ("c", &[words])]).await;
        assert_eq!(linked, Ok(Vec::new()));
        assert_eq!(checked(&[("a", &[]), ("b", &[])]).await, Ok(Vec::new()));
    }
}
