//! Outputs: Hugging Face folders that become visible at once, when they are whole.
//!
//! One process, the owner of a run in an *epoch*, begins a [`Staging`] and publishes or discards it; others
//! [`resume`](Staging::resume) it to write files.
//!
//! - **Local disk:** files are written into the sibling folder `NAME.partial-RUN.eEPOCH`, which is renamed at the end. An
//!   output that is replaced is renamed away just before, and deleted just after. A staging is discarded by renaming it first:
//!   whoever wanted to publish it finds all of it or nothing.
//! - **Object stores:** files are written in place, under a [claim] that keeps other runs out. The manifest `soup.json` is
//!   created last: a folder without it is no output. Of an output that is replaced the [manifest] becomes a tombstone before
//!   anything else is written, and what is not written anew is deleted just before the tombstone becomes the new one. All coordinators of a run write
//!   the same tensors under the same names, so they share the claim, and a later one deletes nothing that an earlier one
//!   might still publish. A claim that a dead run left behind has to be deleted by hand: nobody can tell it from one in use.
//!
//! Only what has a manifest is ever replaced: `--overwrite` on a home folder deletes nothing.
//!
//! On a local disk, links in the path that somebody named are theirs and are followed: an output that is named by a link to an
//! empty folder appears there. Nothing is deleted through a link: an output that is named by a link to another one is not
//! replaced. Below the output no link is followed, nor one in the place of its staging: it is somebody else's.

mod claim;
mod local;
mod manifest;
mod verify;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use soup_core::{Error, Result};

pub use self::claim::claimant;
use self::claim::{CLAIM_FILE, claimed, delete};
use self::local::{
    aside, check_local, has_manifest, is_taken, publish_local, remove_empty, remove_folder, stage,
};
use self::manifest::Seen;
pub use self::manifest::run_of;
pub use self::verify::{Head, VerifiedOutput, head_of, verify};
pub use self::whole::damage;
use crate::location::Location;
use crate::places::{self, Whose};
use crate::read::{self, Digest};
pub use crate::upload::FileWriter;

/// The manifest of an output; a folder without it is none.
pub const MANIFEST_FILE: &str = "soup.json";
/// Largest claim or manifest that is read back.
const READ_BACK_BYTES_MAX: u64 = 256 << 20;
const RUN_BYTES_MAX: usize = 128;

/// An output that is being written and is not visible yet.
#[derive(Debug)]
pub struct Staging {
    target: Location,
    /// Where files are written meanwhile.
    place: Location,
    run: String,
    overwrite: bool,
    /// Held back until everything else is there.
    manifest: Mutex<Option<Bytes>>,
    /// Names of the files that were put.
    put: Mutex<BTreeSet<String>>,
    /// Folders above a local place that were missing before, the innermost first.
    created: Vec<PathBuf>,
}

/// Whether an output could be written to `target`. Leaves nothing behind; meant to be asked before the work starts.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) if there is something already (with `overwrite`: something that is no
/// output, or is being written by another run), [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) if it is not writable.
pub async fn check_target(target: &Location, overwrite: bool) -> Result<()> {
    if target.is_http() {
        return Err(Error::configuration(format!(
            "output {target}: plain HTTP servers cannot be written to"
        )));
    }
    if target.name().is_empty() {
        return Err(Error::usage(format!("output {target} is the root of a store: name a folder")));
    }
    if let Some(path) = target.local_path() {
        places::leads_within(path, Whose::Run, true).map_err(|e| unwritable(target, e))?;
    }
    if let Some(path) = meant(target)?.local_path() {
        let path = path.to_path_buf();
        if !blocking(move || check_local(&path)).await?.map_err(|e| unwritable(target, e))? {
            return Err(Error::usage(format!("output {target} is a file: choose another")));
        }
    }
    if !target.is_local()
        && let Some(run) = claimant(target).await?
    {
        return Err(claimed(target, &run));
    }
    check_replaceable(target, overwrite).await
}

/// The place that the output `target` goes to: where it leads, if it is a link on a local disk.
fn meant(target: &Location) -> Result<Location> {
    let Some(path) = target.local_path() else { return Ok(target.clone()) };
    let Ok(to) = std::fs::read_link(path) else { return Ok(target.clone()) };
    let broken = |e| {
        let text = format!(
            "output {target} is a broken link to {}: make that folder, or name another",
            to.display()
        );
        Error::usage(text).with_source(e)
    };
    Location::local(&path.canonicalize().map_err(broken)?)
}

/// Whether what is at `target`, its claim aside, may go.
async fn check_replaceable(target: &Location, overwrite: bool) -> Result<()> {
    let entries = read::list(target).await?;
    let is_claim = |name: &str| name == CLAIM_FILE && !target.is_local();
    if entries.iter().all(|e| is_claim(&e.name)) {
        return Ok(());
    }
    if !overwrite {
        return Err(exists(target));
    }
    let manifest = match target.local_path() {
        Some(path) => has_manifest(path),
        None => entries.iter().any(|e| e.name == MANIFEST_FILE),
    };
    if !manifest {
        return Err(Error::usage(format!(
            "output {target} exists and has no {MANIFEST_FILE}, so it is not replaced: choose another or delete it"
        )));
    }
    let meant = meant(target)?;
    if meant != *target {
        return Err(Error::usage(format!(
            "output {target} is a link to {meant}, and nothing is replaced through a link: name {meant} itself"
        )));
    }
    Ok(())
}

impl Staging {
    /// Begins the output of `run` (letters, digits, `.`, `-`, `_`) in an epoch, or goes on with it. Nothing is visible at
    /// `target` yet, except that on object stores an output that is to be replaced is taken away now.
    ///
    /// # Errors
    /// As for [`check_target`].
    pub async fn begin(target: &Location, run: &str, epoch: u64, overwrite: bool) -> Result<Staging> {
        let mut staging = Staging { overwrite, ..Staging::resume(target, run, epoch)? };
        if let Some(path) = staging.place.local_path() {
            check_target(target, overwrite).await?;
            let path = path.to_path_buf();
            staging.created =
                path.ancestors().skip(1).take_while(|p| !p.exists()).map(PathBuf::from).collect();
            if let Err(e) = blocking(move || stage(&path)).await? {
                remove_empty(&staging.created);
                return Err(match e.kind() {
                    std::io::ErrorKind::AlreadyExists => Error::configuration(format!(
                        "output {target} cannot be staged: {} is there and is no folder of this run's: remove it",
                        staging.place
                    )),
                    _ => unwritable(target, e),
                });
            }
        } else {
            staging.begin_in_place().await?;
        }
        Ok(staging)
    }

    /// Claims the folder and takes the output away that is to be replaced.
    async fn begin_in_place(&self) -> Result<()> {
        let ours = async || Ok::<_, Error>(claimant(&self.target).await?.as_deref() == Some(&self.run));
        let mut held = ours().await?;
        if !held {
            match check_target(&self.target, self.overwrite).await {
                Ok(()) => claim::claim(&self.target, &self.run).await?,
                // Another coordinator of this run may have begun meanwhile.
                Err(e) => {
                    held = ours().await?;
                    if !held {
                        return Err(e);
                    }
                }
            }
        }
        // An earlier coordinator of this run may just have published it.
        let keep = |manifest: &Value| held && run_of(manifest) == Some(&self.run);
        if self.overwrite {
            return manifest::make_way(&self.target, &self.run, keep).await;
        }
        if manifest::is_free(&self.target, &self.run, keep).await? {
            return Ok(());
        }
        // Another run was there between the look and the claim.
        claim::release(&self.target, &self.run).await?;
        Err(exists(&self.target))
    }

    /// The staging of `run` that another process began: to write files into.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for a target or a run that cannot be one.
    pub fn resume(target: &Location, run: &str, epoch: u64) -> Result<Staging> {
        let target = &meant(target)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if run.is_empty() || run.len() > RUN_BYTES_MAX || !run.chars().all(plain) {
            return Err(Error::usage(format!("{run:?} cannot be the id of a run")));
        }
        let parent = target.parent().filter(|_| !target.name().is_empty());
        let parent = parent.ok_or_else(|| Error::usage(format!("output {target} is the root of a store")))?;
        let place = match target.is_local() {
            true => parent.join(&format!("{}.partial-{run}.e{epoch}", target.name()))?,
            false => target.clone(),
        };
        Ok(Staging {
            target: target.clone(),
            place,
            run: run.to_string(),
            overwrite: false,
            manifest: Mutex::default(),
            put: Mutex::default(),
            created: Vec::new(),
        })
    }

    /// A writer for the file `name` of the output. It replaces a file of that name that this run wrote before.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for a name that is none,
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) if this machine does not see the folder that
    /// [`begin`](Staging::begin) created, otherwise what the store says.
    pub async fn writer(&self, name: &str) -> Result<FileWriter> {
        if name.contains('/') {
            return Err(Error::data(format!("{name:?} is not the name of a file")));
        }
        FileWriter::create(self.place.join(name)?, &self.target).await
    }

    /// Size and SHA-256 of the file `name`, which was written.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) if it is not there; otherwise as for [`read::digest`].
    pub async fn digest(&self, name: &str) -> Result<Digest> {
        let place = self.place.join(name)?;
        if read::stat_if_exists(&place).await?.is_none() {
            return Err(Error::configuration(format!(
                "{place} was written and is not there: is output {} on storage that this worker shares with the others?",
                self.target
            )));
        }
        read::digest(&place).await
    }

    /// The bytes `range` of the file `name`, which was written.
    ///
    /// # Errors
    /// What the store says.
    pub async fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        read::read_range(&self.place.join(name)?, range, None).await
    }

    /// Writes the small file `name`. [`MANIFEST_FILE`] is held back until [`publish`](Staging::publish).
    ///
    /// # Errors
    /// As for [`writer`](Staging::writer) and [`FileWriter::write`].
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        if name == MANIFEST_FILE {
            *self.manifest.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
            return Ok(());
        }
        self.put_now(name, bytes).await
    }

    async fn put_now(&self, name: &str, bytes: Bytes) -> Result<()> {
        let mut writer = self.writer(name).await?;
        writer.write(bytes).await?;
        writer.finish().await?;
        self.put.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Ok(())
    }

    /// Makes the output visible, at once and durably. `written` are the names and sizes in bytes of the files that others
    /// wrote. Gives the manifest that is visible if that is one which an earlier coordinator of the run has created.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) if something is at the target by now and may not be replaced, or the
    /// claim is another run's; [`ErrorKind::Unavailable`](soup_core::ErrorKind::Unavailable) if a file is not there any more;
    /// otherwise what the store says. Nothing is visible then once this is [discarded](Staging::discard), and what was there
    /// before still is (local disk).
    pub async fn publish(&self, written: impl IntoIterator<Item = (&str, u64)>) -> Result<Option<Value>> {
        let manifest = self.manifest.lock().unwrap_or_else(PoisonError::into_inner).take();
        let manifest = manifest
            .ok_or_else(|| Error::internal(format!("output {} has no {MANIFEST_FILE}", self.target)))?;
        let (Some(place), Some(target)) = (self.place.local_path(), self.target.local_path()) else {
            let written = written.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
            return self.publish_in_place(manifest, written).await;
        };
        self.put_now(MANIFEST_FILE, manifest).await?;
        let (place, target) = (place.to_path_buf(), target.to_path_buf());
        let aside = self.overwrite.then(|| aside(&target, &self.run));
        match blocking(move || publish_local(&place, &target, aside.as_deref())).await? {
            Ok(()) => Ok(None),
            Err(e) if is_taken(&e) => Err(exists(&self.target)),
            Err(e) => Err(unwritable(&self.target, e)),
        }
    }

    async fn publish_in_place(
        &self,
        manifest: Bytes,
        written: BTreeMap<String, u64>,
    ) -> Result<Option<Value>> {
        let visible = Staging::visible(&self.target, &self.run).await?;
        let mut found = visible.filter(|manifest| run_of(manifest) == Some(&self.run));
        if found.is_none() {
            // A claim that somebody deleted is taken again: if another run had the folder meanwhile, files are missing.
            claim::claim(&self.target, &self.run).await?;
            self.leave_only(&written).await?;
            let taken = || exists(&self.target);
            found = manifest::publish(&self.target, &self.run, &manifest, taken).await?;
        }
        if let Err(e) = self.settle().await {
            // The output is there and whole; only the next run that replaces it will be in the way of this.
            tracing::warn!(error = e.chain(), "the claim of a published output could not be deleted");
        }
        Ok(found)
    }

    /// Requires that all files are there, and deletes what is left of a replaced output.
    async fn leave_only(&self, written: &BTreeMap<String, u64>) -> Result<()> {
        let put = self.put.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut missing: BTreeSet<&String> = written.keys().chain(&put).collect();
        for entry in read::list(&self.target).await? {
            let Some(stamp) = &entry.stamp else { continue };
            let ours = put.contains(&entry.name) || written.contains_key(&entry.name);
            if written.get(&entry.name).is_none_or(|bytes| *bytes == stamp.size_bytes) {
                missing.remove(&entry.name);
            }
            if self.overwrite && !ours && entry.name != CLAIM_FILE && entry.name != MANIFEST_FILE {
                delete(&entry.location).await?;
            }
        }
        match missing.first() {
            None => Ok(()),
            Some(name) => Err(Error::unavailable(format!(
                "{name} of output {} is not there as it was written: somebody changed the folder; cook again",
                self.target
            ))),
        }
    }

    /// The manifest of what is visible at the target now, if there is one. One that cannot be read is null: it still is
    /// somebody's. Of one that is not `run`'s there is no more than whose it is.
    ///
    /// # Errors
    /// What the store says.
    pub async fn visible(target: &Location, run: &str) -> Result<Option<Value>> {
        Ok(manifest::look(target, run).await?.and_then(Seen::into_manifest))
    }

    /// Ends a staging whose output is visible, if whoever published it died before it could.
    ///
    /// # Errors
    /// What the store says.
    pub async fn settle(&self) -> Result<()> {
        match self.place.is_local() {
            true => self.remove().await,
            false => claim::release(&self.target, &self.run).await,
        }
    }

    /// Ends a staging that a later coordinator of the run replaces: a local one is removed, so that nobody can publish it any
    /// more; on an object store it is the same one.
    ///
    /// # Errors
    /// What the store says.
    pub async fn leave(&self) -> Result<()> {
        match self.place.is_local() {
            true => self.remove().await,
            false => Ok(()),
        }
    }

    /// Removes everything that was staged. Only for the owner of a run that has ended: on object stores, other coordinators of
    /// the run write to the same place.
    ///
    /// # Errors
    /// What the store says.
    pub async fn discard(&self) -> Result<()> {
        if self.place.is_local() {
            return self.remove().await;
        }
        // Somebody else's by now, or published and done.
        if claimant(&self.target).await?.as_deref() != Some(self.run.as_str()) {
            return Ok(());
        }
        if Staging::visible(&self.target, &self.run).await?.is_none() {
            let entries = read::list(&self.target).await?;
            for file in entries.iter().filter(|e| e.stamp.is_some() && e.name != CLAIM_FILE) {
                delete(&file.location).await?;
            }
        }
        claim::release(&self.target, &self.run).await
    }

    /// What of it stays behind where nobody ends it, and what to do about that; `None` where nothing does.
    pub fn left(&self) -> Option<String> {
        let again = "cook the same again with the same state, or delete";
        match self.place.local_path() {
            Some(path) => path.symlink_metadata().is_ok().then(|| {
                format!(
                    "what was staged for output {} stays in {}: {again} that folder",
                    self.target, self.place
                )
            }),
            None => Some(format!(
                "what was staged for output {0} stays there, and other runs are kept out by {0}/{CLAIM_FILE}: {again} what is there",
                self.target
            )),
        }
    }

    /// Removes a local staging.
    async fn remove(&self) -> Result<()> {
        let Some(path) = self.place.local_path().map(PathBuf::from) else { return Ok(()) };
        let created = self.created.clone();
        let removed = blocking(move || remove_folder(&path).map(|()| remove_empty(&created))).await?;
        // It may have lost its name before.
        removed.map_err(|e| {
            let error = self.place.io_error("remove", e);
            error.context(format!("delete {0} and {0}.gone, whichever is there", self.place))
        })
    }
}

fn exists(target: &Location) -> Error {
    Error::usage(format!("output {target} exists: choose another or pass --overwrite"))
}

fn unwritable(target: &Location, error: std::io::Error) -> Error {
    Error::configuration(format!("output {target} cannot be written")).with_source(error)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("a write was cut off").with_source(e))
}

#[cfg(test)]
mod tests;
