//! Checkpoints: one model on a store, opened by reading headers only.
//!
//! A checkpoint is a safetensors file, or a Hugging Face folder with `model.safetensors`, or with
//! `model.safetensors.index.json` that spreads the tensors over several files.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde::de::DeserializeSeed;
use soup_core::schema::{Schema, TensorSpec};
use soup_core::{Error, Result};

use crate::header::{self, Header, StringMapSeed, TENSORS_MAX};
use crate::location::Location;
use crate::read::{self, Stamp};

/// The one file of a Hugging Face folder.
pub const MODEL_FILE: &str = "model.safetensors";
/// What spreads the tensors of a Hugging Face folder over several files.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// Ending of a checkpoint file.
pub const EXTENSION: &str = ".safetensors";

/// Largest index file.
const INDEX_BYTES_MAX: u64 = 64 << 20;
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlace {
    /// Name, dtype, shape.
    pub spec: TensorSpec,
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
    /// The tensors in canonical order: `tensors[i]` is where `schema.tensors()[i]` is.
    pub tensors: Vec<TensorPlace>,
    /// Names, dtypes and shapes.
    pub schema: Schema,
}

impl Checkpoint {
    /// The folder that holds the files, and what goes along with them; `None` at the root of a store.
    pub fn folder(&self) -> Option<Location> {
        self.files.first().and_then(|f| f.location.parent())
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
    if location.name().ends_with(EXTENSION) && read::stat_if_exists(location).await?.is_some() {
        return open_file(location).await;
    }
    let (model, index) = (location.join(MODEL_FILE)?, location.join(INDEX_FILE)?);
    if read::stat_if_exists(&model).await?.is_some() {
        return open_folder(location, Layout::One).await;
    }
    if read::stat_if_exists(&index).await?.is_some() {
        return open_folder(location, Layout::Indexed).await;
    }
    if read::stat_if_exists(location).await?.is_some() {
        return Err(Error::data(format!("{location} is not a {EXTENSION} file")));
    }
    Err(Error::data(format!(
        "{location} is no checkpoint: there is neither a {MODEL_FILE} nor a {INDEX_FILE} in it"
    )))
}

/// How a folder keeps its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    One,
    Indexed,
}

/// A checkpoint that is one file; named by the stem.
pub(crate) async fn open_file(location: &Location) -> Result<Checkpoint> {
    let name = location.name().strip_suffix(EXTENSION).unwrap_or(location.name()).to_string();
    let (header, stamp) = header::read_header(location).await?;
    assemble(name, location.clone(), vec![(location.clone(), header, stamp)])
}

/// A checkpoint that is a folder of the given layout; named by the folder.
pub(crate) async fn open_folder(location: &Location, layout: Layout) -> Result<Checkpoint> {
    let name = location.name().to_string();
    match layout {
        Layout::One => {
            let model = location.join(MODEL_FILE)?;
            let (header, stamp) = header::read_header(&model).await?;
            assemble(name, location.clone(), vec![(model, header, stamp)])
        }
        Layout::Indexed => open_indexed(name, location).await,
    }
}

async fn open_indexed(name: String, folder: &Location) -> Result<Checkpoint> {
    let index = folder.join(INDEX_FILE)?;
    let json = read::read_small(&index, INDEX_BYTES_MAX).await?;
    let weight_map = parse_index(&index, &json)?;
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
    let read = |place: Location| async move {
        let named = |e: Error| e.context(format!("a file that {INDEX_FILE} names"));
        let (header, stamp) = header::read_header(&place).await.map_err(named)?;
        Ok::<_, Error>((place, header, stamp))
    };
    let opened: Vec<_> =
        futures::stream::iter(places).map(read).buffered(HEADERS_IN_FLIGHT).try_collect().await?;
    let checkpoint = assemble(name, folder.clone(), opened)?;
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
        StringMapSeed.deserialize(d)
    }
    let corrupt = |e| Error::data(format!("{index}: the index is corrupt")).with_source(e);
    let parsed: Index = serde_json::from_slice(json).map_err(|e: serde_json::Error| corrupt(e))?;
    if parsed.weight_map.is_empty() {
        return Err(Error::data(format!("{index} names no tensors")));
    }
    Ok(parsed.weight_map)
}

/// The index and the headers must say the same.
fn check_index(
    index: &Location,
    weight_map: &BTreeMap<String, String>,
    files: &[&str],
    checkpoint: &Checkpoint,
) -> Result<()> {
    let found: HashMap<&str, usize> =
        checkpoint.tensors.iter().map(|t| (t.spec.name.as_str(), t.file)).collect();
    for (tensor, file) in weight_map {
        if found.get(tensor.as_str()).is_none_or(|&f| files[f] != file) {
            return Err(Error::data(format!("{index}: tensor {tensor:?} is not in {file:?}")));
        }
    }
    match checkpoint.tensors.iter().find(|t| !weight_map.contains_key(&t.spec.name)) {
        None => Ok(()),
        Some(extra) => Err(Error::data(format!(
            "{index} does not name tensor {:?}, which is in {:?}",
            extra.spec.name, files[extra.file]
        ))),
    }
}

/// Lays the tensors of the files out in canonical order.
fn assemble(name: String, location: Location, opened: Vec<(Location, Header, Stamp)>) -> Result<Checkpoint> {
    let mut files = Vec::new();
    let mut placed: HashMap<String, (usize, u64)> = HashMap::new();
    let mut specs = Vec::new();
    for (file, (place, header, stamp)) in opened.into_iter().enumerate() {
        for (spec, range) in header.tensors {
            if let Some((other, _)) = placed.insert(spec.name.clone(), (file, range.start)) {
                let other: &FileStamp = &files[other];
                return Err(Error::data(format!(
                    "tensor {:?} is in two files: {} and {place}",
                    spec.name, other.location
                )));
            }
            specs.push(spec);
        }
        if specs.len() > TENSORS_MAX {
            return Err(Error::data(format!("{location} has more than {TENSORS_MAX} tensors")));
        }
        files.push(FileStamp { location: place, size_bytes: stamp.size_bytes, etag: stamp.etag });
    }
    let schema = Schema::new(specs).map_err(|e| e.context(location.to_string()))?;
    let place = |spec: &TensorSpec| {
        let (file, offset) = placed[&spec.name];
        TensorPlace { spec: spec.clone(), file, offset }
    };
    let tensors = schema.tensors().iter().map(place).collect();
    Ok(Checkpoint { name, location, files, tensors, schema })
}

#[cfg(test)]
mod tests;
