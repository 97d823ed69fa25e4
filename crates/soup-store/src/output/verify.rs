//! Whether an output is what its manifest says, and its manifest what a coordinator wrote.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use soup_core::{Error, Result};

use super::claim::CLAIM_FILE;
use super::{MANIFEST_FILE, READ_BACK_BYTES_MAX};
use crate::location::Location;
use crate::read::{self, Digest};
use crate::signing::{PublicKey, Subject};

/// What is looked at of a manifest.
#[derive(Deserialize)]
struct Manifest {
    report: Run,
    files: Vec<File>,
    /// Absent in those of earlier versions.
    small_files: Option<Vec<File>>,
    journal: Option<Head>,
}

#[derive(Deserialize)]
struct Run {
    run: String,
}

#[derive(Deserialize)]
struct File {
    name: String,
    bytes: u64,
    sha256: String,
}

/// What the journal of a run had come to when its output was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its records.
    pub records: u64,
    /// SHA-256 of the last of them, in hexadecimal.
    pub sha256: String,
}

/// What was found to be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedOutput {
    /// The run whose output it is.
    pub run: String,
    /// Files that are there, with the sizes and digests of the manifest.
    pub files: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Whether these are all files; else it is an output of an earlier version, whose manifest knows of the tensors' files only.
    pub all_files: bool,
    /// Who signed the manifest, if that was checked.
    pub signed_by: Option<String>,
    /// What the run's journal had come to; absent in outputs of earlier versions.
    pub journal: Option<Head>,
}

/// Reads the output at `target` again and holds it against its manifest, and the manifest against the signature of `key`, if that is
/// given. An output has no other files than those of its manifest, hidden ones aside: a file more can be another model. `tell` hears the name
/// and the bytes of each file before it is read.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) naming what is missing, more, or not what it should be; otherwise what the store
/// says.
pub async fn verify(
    target: &Location,
    key: Option<&PublicKey>,
    tell: impl Fn(&str, u64),
) -> Result<VerifiedOutput> {
    let (place, text) = text(target).await?;
    let text = text.ok_or_else(|| {
        Error::data(format!(
            "{target} has no {MANIFEST_FILE}: it is no output; name a folder that a cook wrote"
        ))
    })?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|e| Error::data(format!("{place} is no manifest of an output")).with_source(e))?;
    check_signed(&place, &text, key)?;
    let all_files = manifest.small_files.is_some();
    let files = manifest.files.into_iter().chain(manifest.small_files.unwrap_or_default());
    let files: BTreeMap<String, File> = files.map(|file| (file.name.clone(), file)).collect();
    for entry in read::list(target).await?.iter().filter(|_| all_files) {
        let known = files.contains_key(&entry.name) || [MANIFEST_FILE, CLAIM_FILE].contains(&&*entry.name);
        if !known && !entry.name.starts_with('.') {
            let text = format!(
                "{} is in the output and not in its manifest: whoever loads the folder may load it, so move it away",
                entry.location
            );
            return Err(Error::data(text));
        }
    }
    let mut bytes = 0;
    for file in files.values() {
        tell(&file.name, file.bytes);
        check(target, file).await?;
        bytes += file.bytes;
    }
    Ok(VerifiedOutput {
        run: manifest.report.run,
        files: files.len() as u64,
        bytes,
        all_files,
        signed_by: key.map(PublicKey::id),
        journal: manifest.journal,
    })
}

/// What the journal of `run` had come to when the output that is at `target` now was made; `None` where that says nothing of it.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) where it is the run's and has no signature of `key`, if one is given; otherwise
/// what the store says.
pub async fn head_of(target: &Location, run: &str, key: Option<&PublicKey>) -> Result<Option<Head>> {
    let (place, text) = text(target).await?;
    let Some(text) = text else { return Ok(None) };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) else { return Ok(None) };
    if manifest.report.run != run {
        return Ok(None);
    }
    check_signed(&place, &text, key)?;
    Ok(manifest.journal)
}

async fn text(target: &Location) -> Result<(Location, Option<Bytes>)> {
    let place = target.join(MANIFEST_FILE)?;
    let text = read::read_small_if_exists(&place, READ_BACK_BYTES_MAX).await?;
    Ok((place, text))
}

fn check_signed(place: &Location, text: &[u8], key: Option<&PublicKey>) -> Result<()> {
    let checked = key.map_or(Ok(()), |key| key.check(Subject::Manifest, text));
    checked.map_err(|e| e.context(format!("{place} cannot be trusted")))
}

async fn check(target: &Location, file: &File) -> Result<()> {
    if file.name.contains('/') {
        return Err(Error::data(format!(
            "the manifest of {target} names {:?}, which is no file's name",
            file.name
        )));
    }
    let place = target.join(&file.name)?;
    let Digest { bytes, sha256 } = read::digest(&place).await?;
    let sha256 = hex::encode(sha256);
    if (bytes, &sha256) != (file.bytes, &file.sha256) {
        return Err(Error::data(format!(
            "{place} is not what was written: it has {bytes} bytes of SHA-256 {sha256}, and its manifest says {} of {}; copy the output \
             again, or cook it again",
            file.bytes, file.sha256
        )));
    }
    Ok(())
}
