//! Checkpoints: one model on a store, opened by reading headers only.
//!
//! A checkpoint is a safetensors file, or a Hugging Face folder with `model.safetensors`, or with
//! `model.safetensors.index.json` that spreads the tensors over several files.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde::de::DeserializeSeed;
use soup_core::schema::{Schema, TensorSpec};
use soup_core::{Error, Result};

use crate::header::{self, Header, StringMapSeed, TENSORS_MAX};
use crate::kept::{self, Kept};
use crate::location::Location;
use crate::read::{self, Stamp};

/// The one file of a Hugging Face folder.
pub const MODEL_FILE: &str = "model.safetensors";
/// What spreads the tensors of a Hugging Face folder over several files.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// Ending of a checkpoint file.
pub const EXTENSION: &str = ".safetensors";

/// What is before the [`EXTENSION`] in the name of a safetensors file, in whichever case that is written; `None` for other files.
pub(crate) fn file_stem(name: &str) -> Option<&str> {
    let (stem, extension) = name.split_at_checked(name.len().checked_sub(EXTENSION.len())?)?;
    extension.eq_ignore_ascii_case(EXTENSION).then_some(stem)
}

/// Largest index file.
const INDEX_BYTES_MAX: u64 = 64 << 20;
/// Longest name of a file in it.
const FILE_NAME_BYTES_MAX: usize = 1024;
/// Most files of one checkpoint.
const FILES_MAX: usize = 4096;
/// Headers of one checkpoint read at a time.
const HEADERS_IN_FLIGHT: usize = 8;

/// A file of a checkpoint, as it was when its header was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// Its place.
    pub location: Location,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Version, if the store has one; loading is pinned to it.
    pub etag: Option<String>,
}

/// Where the bytes of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorPlace {
    /// Position in [`Checkpoint::files`].
    pub file: usize,
    /// First byte in that file.
    pub offset: u64,
}

/// One model on a store.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Name in reports: the stem of a file, the name of a folder.
    pub name: String,
    /// The file or the folder.
    pub location: Location,
    /// The files that hold tensors.
    pub files: Vec<FileStamp>,
    /// Names, dtypes and shapes, in canonical order.
    pub schema: Arc<Schema>,
    /// Where the tensors are: `places[i]` is where `schema.tensors()[i]` is. Checkpoints of a pool that say the same share both.
    pub places: Arc<Vec<TensorPlace>>,
}

impl Checkpoint {
    /// The folder that holds the files, and what goes along with them; `None` at the root of a store.
    pub fn folder(&self) -> Option<Location> {
        self.files.first().and_then(|f| f.location.parent())
    }

    /// The tensors, and where they are.
    pub fn tensors(&self) -> impl Iterator<Item = (&TensorSpec, TensorPlace)> {
        self.schema.tensors().iter().zip(self.places.iter().copied())
    }

    /// Memory that is taken by what is known of the tensors, in bytes.
    pub fn table_bytes(&self) -> u64 {
        self.schema.tensors().iter().map(kept::tensor_bytes).sum::<u64>()
            + size_of_val(self.places.as_slice()) as u64
    }

    /// Size of all files in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size_bytes).sum()
    }
}

/// Opens a checkpoint file or folder.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for a place that holds no checkpoint or a corrupt one, naming the file.
pub async fn open_checkpoint(location: &Location) -> Result<Checkpoint> {
    open_kept(location, &Kept::default()).await
}

/// [`open_checkpoint`], of a pool.
pub(crate) async fn open_kept(location: &Location, kept: &Kept) -> Result<Checkpoint> {
    if file_stem(location.name()).is_some() && read::stat_if_exists(location).await?.is_some() {
        return open_file(location, kept).await;
    }
    let (model, index) = (location.join(MODEL_FILE)?, location.join(INDEX_FILE)?);
    if read::stat_if_exists(&model).await?.is_some() {
        return open_folder(location, Layout::One, kept).await;
    }
    if read::stat_if_exists(&index).await?.is_some() {
        return open_folder(location, Layout::Indexed, kept).await;
    }
    if read::stat_if_exists(location).await?.is_some() {
        return Err(Error::data(format!("{location} is not a {EXTENSION} file")));
    }
    match file_stem(location.name()) {
        Some(_) => Err(Error::data(format!(
            "{location} does not exist, neither as a file nor as a folder with {MODEL_FILE} or {INDEX_FILE}"
        ))),
        None => Err(Error::data(format!(
            "{location} is no checkpoint: there is neither a {MODEL_FILE} nor a {INDEX_FILE} in it"
        ))),
    }
}

/// How a folder keeps its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    One,
    Indexed,
}

/// A checkpoint that is one file; named by the stem.
pub(crate) async fn open_file(location: &Location, kept: &Kept) -> Result<Checkpoint> {
    let name = file_stem(location.name()).unwrap_or(location.name()).to_string();
    let (header, stamp, _permit) = header::read_with_permit(location).await?;
    assemble(name, location.clone(), vec![(location.clone(), header, stamp)], kept)
}

/// A checkpoint that is a folder of the given layout; named by the folder.
pub(crate) async fn open_folder(location: &Location, layout: Layout, kept: &Kept) -> Result<Checkpoint> {
    let name = location.name().to_string();
    match layout {
        Layout::One => {
            let model = location.join(MODEL_FILE)?;
            let (header, stamp, _permit) = header::read_with_permit(&model).await?;
            assemble(name, location.clone(), vec![(model, header, stamp)], kept)
        }
        Layout::Indexed => open_indexed(name, location, kept).await,
    }
}

async fn open_indexed(name: String, folder: &Location, kept: &Kept) -> Result<Checkpoint> {
    let index = folder.join(INDEX_FILE)?;
    let bytes = read::stat(&index).await?.size_bytes.min(INDEX_BYTES_MAX);
    let _permit = kept::index_permit(bytes).await?;
    let weight_map = {
        let json = read::read_small(&index, bytes).await?;
        parse_index(&index, &json)?
    };
    let mut files: Vec<&str> = weight_map.values().map(String::as_str).collect();
    files.sort_unstable();
    files.dedup();
    if files.len() > FILES_MAX {
        return Err(Error::data(format!(
            "{index} names {} files, at most {FILES_MAX} are allowed",
            files.len()
        )));
    }
    let places: Vec<Location> = files
        .iter()
        .map(|f| folder.join(f).map_err(|e| e.context(format!("{index}: a file of the weight map"))))
        .collect::<Result<_>>()?;
    let read = |(nth, place): (usize, Location)| async move {
        let named = |e: Error| e.context(format!("a file that {INDEX_FILE} names"));
        let (header, stamp, permit) = header::read_with_permit(&place).await.map_err(named)?;
        Ok::<_, Error>((nth, (place, header, stamp), permit))
    };
    let places = places.into_iter().enumerate();
    // As they come: whoever has a permit must not wait for whoever wants one.
    let mut reads = futures::stream::iter(places).map(read).buffer_unordered(HEADERS_IN_FLIGHT);
    let (mut opened, mut tensors) = (Vec::new(), 0);
    while let Some((nth, file, _permit)) = reads.try_next().await? {
        tensors += file.1.tensors.len();
        opened.push((nth, file));
        // What the index does not name, or what is there twice, is found among those.
        if tensors > weight_map.len() {
            break;
        }
    }
    drop(reads);
    opened.sort_by_key(|(nth, _)| *nth);
    let opened: Vec<_> = opened.into_iter().map(|(_, file)| file).collect();
    if tensors > weight_map.len() {
        check_named(&index, &weight_map, &opened)?;
    }
    let checkpoint = assemble(name, folder.clone(), opened, kept)?;
    check_index(&index, &weight_map, &files, &checkpoint)?;
    Ok(checkpoint)
}

/// Tensor to file, every tensor once.
fn parse_index(index: &Location, json: &[u8]) -> Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Index {
        #[serde(deserialize_with = "string_map")]
        weight_map: BTreeMap<String, String>,
    }
    fn string_map<'de, D: serde::Deserializer<'de>>(d: D) -> Result<BTreeMap<String, String>, D::Error> {
        StringMapSeed { entries_max: TENSORS_MAX, value_bytes_max: FILE_NAME_BYTES_MAX }.deserialize(d)
    }
    let corrupt = |e| Error::data(format!("{index}: the index is corrupt")).with_source(e);
    let parsed: Index = serde_json::from_slice(json).map_err(|e: serde_json::Error| corrupt(e))?;
    if parsed.weight_map.is_empty() {
        return Err(Error::data(format!("{index} names no tensors")));
    }
    Ok(parsed.weight_map)
}

/// A tensor is in a file, and not in the index.
fn unnamed(index: &Location, tensor: &str, file: &str) -> Error {
    Error::data(format!("{index} does not name tensor {tensor:?}, which is in {file:?}"))
}

/// The headers must have no tensor that the index does not name.
fn check_named(
    index: &Location,
    weight_map: &BTreeMap<String, String>,
    opened: &[(Location, Header, Stamp)],
) -> Result<()> {
    let all =
        opened.iter().flat_map(|(place, header, _)| header.tensors.iter().map(move |(t, _)| (place, t)));
    match all.into_iter().find(|(_, tensor)| !weight_map.contains_key(&tensor.name)) {
        None => Ok(()),
        Some((place, extra)) => Err(unnamed(index, &extra.name, place.name())),
    }
}

/// The index and the headers must say the same.
fn check_index(
    index: &Location,
    weight_map: &BTreeMap<String, String>,
    files: &[&str],
    checkpoint: &Checkpoint,
) -> Result<()> {
    let found: HashMap<&str, usize> =
        checkpoint.tensors().map(|(spec, place)| (spec.name.as_str(), place.file)).collect();
    for (tensor, file) in weight_map {
        if found.get(tensor.as_str()).is_none_or(|&f| files[f] != file) {
            return Err(Error::data(format!("{index}: tensor {tensor:?} is not in {file:?}")));
        }
    }
    match checkpoint.tensors().find(|(spec, _)| !weight_map.contains_key(&spec.name)) {
        None => Ok(()),
        Some((extra, place)) => Err(unnamed(index, &extra.name, files[place.file])),
    }
}

/// Lays the tensors of the files out in canonical order.
fn assemble(
    name: String,
    location: Location,
    opened: Vec<(Location, Header, Stamp)>,
    kept: &Kept,
) -> Result<Checkpoint> {
    let (mut files, mut tensors) = (Vec::new(), Vec::new());
    for (file, (place, header, stamp)) in opened.into_iter().enumerate() {
        let placed =
            |(spec, range): (TensorSpec, Range<u64>)| (spec, TensorPlace { file, offset: range.start });
        tensors.extend(header.tensors.into_iter().map(placed));
        if tensors.len() > TENSORS_MAX {
            return Err(Error::data(format!("{location} has more than {TENSORS_MAX} tensors")));
        }
        files.push(FileStamp { location: place, size_bytes: stamp.size_bytes, etag: stamp.etag });
    }
    let mut by_name: Vec<&(TensorSpec, TensorPlace)> = tensors.iter().collect();
    by_name.sort_by(|(a, at), (b, there)| (&a.name, at.file).cmp(&(&b.name, there.file)));
    if let Some([(spec, one), (_, other)]) =
        by_name.windows(2).map(|pair| [pair[0], pair[1]]).find(|[a, b]| a.0.name == b.0.name)
    {
        let (one, other): (&FileStamp, &FileStamp) = (&files[one.file], &files[other.file]);
        return Err(Error::data(format!(
            "tensor {:?} is in two files: {} and {}",
            spec.name, one.location, other.location
        )));
    }
    let (schema, places) = table(tensors).map_err(|e| e.context(location.to_string()))?;
    let (schema, places) = kept.keep(&location, schema, places)?;
    Ok(Checkpoint { name, location, files, schema, places })
}

/// Tensors, each of another name, in canonical order, and where they are.
///
/// # Errors
/// Those of [`Schema::new`].
pub(crate) fn table(mut tensors: Vec<(TensorSpec, TensorPlace)>) -> Result<(Schema, Vec<TensorPlace>)> {
    let order = |(a, _): &(TensorSpec, TensorPlace), (b, _): &(TensorSpec, TensorPlace)| {
        (Reverse(a.dtype.width_bytes()), &a.name).cmp(&(Reverse(b.dtype.width_bytes()), &b.name))
    };
    tensors.sort_by(order);
    let (specs, places) = tensors.into_iter().unzip();
    Ok((Schema::new(specs)?, places))
}

#[cfg(test)]
mod tests;
