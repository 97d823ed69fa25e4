//! Outputs: Hugging Face folders that become visible at once, when they are whole.
//!
//! One process begins a [`Staging`] and publishes or discards it; others [`resume`](Staging::resume) it to write files.
//!
//! - **Local disk:** files are written into the sibling folder `NAME.partial-RUN`, which is renamed at the end. An output
//!   that is replaced is renamed away just before, and deleted just after.
//! - **Object stores:** files are written in place, under a claim (`soup.partial.json`) that keeps other runs out. The
//!   manifest `soup.json` is created last: a folder without it is no output. An output that is replaced loses its manifest
//!   first, when the staging begins. A claim is created only where none is and deleted only by its own run, so one that a
//!   dead run left behind has to be deleted by hand: nobody can tell it from one in use.
//!
//! Only what has a manifest is ever replaced: `--overwrite` on a home folder deletes nothing.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use object_store::{Error as StoreError, ObjectStoreExt, PutMode, PutPayload};
use soup_core::{Error, Result};

use crate::location::Location;
use crate::read;
use crate::upload::TEMPORARY;
pub use crate::upload::{FileDigest, FileWriter};

/// The manifest of an output; a folder without it is none.
pub const MANIFEST_FILE: &str = "soup.json";
/// Who is writing an output on an object store.
const CLAIM_FILE: &str = "soup.partial.json";
/// Largest claim or manifest that is read back.
const READ_BACK_BYTES_MAX: u64 = 256 << 20;
const RUN_BYTES_MAX: usize = 128;
/// A worker may still be taking back a file while its folder is removed: how often, and how long apart, that is tried.
const REMOVE_ATTEMPTS: u32 = 20;
const REMOVE_PAUSE: Duration = Duration::from_millis(50);
/// How often something is created that a store says exists and does not show, and the first pause between.
const CREATE_ATTEMPTS: u32 = 8;
const CREATE_PAUSE: Duration = Duration::from_millis(50);

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
    if !entries.iter().any(|e| e.name == MANIFEST_FILE) {
        return Err(Error::usage(format!(
            "output {target} exists and has no {MANIFEST_FILE}, so it is not replaced: choose another or delete it"
        )));
    }
    Ok(())
}

impl Staging {
    /// Begins the output of `run` (letters, digits, `.`, `-`, `_`), or goes on with it. Nothing is visible at `target`
    /// yet, except that on object stores an output that is to be replaced is taken away now.
    ///
    /// # Errors
    /// As for [`check_target`].
    pub async fn begin(target: &Location, run: &str, overwrite: bool) -> Result<Staging> {
        let mut staging = Staging { overwrite, ..Staging::resume(target, run)? };
        if let Some(path) = staging.place.local_path() {
            check_target(target, overwrite).await?;
            let path = path.to_path_buf();
            staging.created =
                path.ancestors().skip(1).take_while(|p| !p.exists()).map(Path::to_path_buf).collect();
            if let Err(e) = blocking(move || std::fs::create_dir_all(path)).await? {
                remove_empty(&staging.created);
                return Err(unwritable(target, e));
            }
        } else if claimant(target).await?.as_deref() != Some(run) {
            check_target(target, overwrite).await?;
            staging.claim().await?;
        }
        Ok(staging)
    }

    /// The staging of `run` that another process began: to write files into.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for a target or a run that cannot be one.
    pub fn resume(target: &Location, run: &str) -> Result<Staging> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if run.is_empty() || run.len() > RUN_BYTES_MAX || !run.chars().all(plain) {
            return Err(Error::usage(format!("{run:?} cannot be the id of a run")));
        }
        let parent = target.parent().filter(|_| !target.name().is_empty());
        let parent = parent.ok_or_else(|| Error::usage(format!("output {target} is the root of a store")))?;
        let place = match target.is_local() {
            true => parent.join(&format!("{}.partial-{run}", target.name()))?,
            false => target.clone(),
        };
        let (target, run) = (target.clone(), run.to_string());
        Ok(Staging { target, place, run, overwrite: false, manifest: Mutex::new(None), created: Vec::new() })
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
        writer.finish().await.map(|_| ())
    }

    /// Makes the output visible, at once and durably.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) if something is at the target by now and may not be replaced, or the
    /// claim is another run's; otherwise what the store says. Nothing is visible then once this is
    /// [discarded](Staging::discard), and what was there before still is (local disk).
    pub async fn publish(&self) -> Result<()> {
        let manifest = self.manifest.lock().unwrap_or_else(PoisonError::into_inner).take();
        let manifest = manifest
            .ok_or_else(|| Error::internal(format!("output {} has no {MANIFEST_FILE}", self.target)))?;
        let (Some(place), Some(target)) = (self.place.local_path(), self.target.local_path()) else {
            return self.publish_store(manifest).await;
        };
        self.put_now(MANIFEST_FILE, manifest).await?;
        let (place, target) = (place.to_path_buf(), target.to_path_buf());
        let aside = self.overwrite.then(|| aside(&target, &self.run));
        match blocking(move || publish_local(&place, &target, aside.as_deref())).await? {
            Ok(()) => Ok(()),
            Err(e) if is_taken(&e) => Err(exists(&self.target)),
            Err(e) => Err(unwritable(&self.target, e)),
        }
    }

    async fn publish_store(&self, manifest: Bytes) -> Result<()> {
        let place = self.target.join(MANIFEST_FILE)?;
        self.check_claim().await?;
        // What is there is ours, if the answer to an earlier attempt was lost.
        if create_or_find(&place, manifest.clone()).await?.is_some_and(|found| found != manifest) {
            return Err(exists(&self.target));
        }
        self.check_claim().await?;
        if let Err(e) = delete(&self.target.join(CLAIM_FILE)?).await {
            // The output is there and whole; only the next run that replaces it will be in the way of this.
            tracing::warn!(error = e.chain(), "the claim of a published output could not be deleted");
        }
        Ok(())
    }

    /// Requires that the claim is this run's.
    async fn check_claim(&self) -> Result<()> {
        match claimant(&self.target).await? {
            Some(run) if run == self.run => Ok(()),
            Some(run) => Err(claimed(&self.target, &run)),
            None => Err(Error::usage(format!(
                "output {} is no longer claimed by run {:?}: its {CLAIM_FILE} was deleted",
                self.target, self.run
            ))),
        }
    }

    /// The manifest of what is visible at the target now, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](soup_core::ErrorKind::Data) if it is no JSON; otherwise what the store says.
    pub async fn visible(target: &Location) -> Result<Option<serde_json::Value>> {
        let place = target.join(MANIFEST_FILE)?;
        let Some(bytes) = read::read_small_if_exists(&place, READ_BACK_BYTES_MAX).await? else {
            return Ok(None);
        };
        let manifest = serde_json::from_slice(&bytes);
        manifest.map(Some).map_err(|e| Error::data(format!("{place} is not JSON")).with_source(e))
    }

    /// Ends a staging whose output is visible, if whoever published it died before it could.
    ///
    /// # Errors
    /// What the store says.
    pub async fn settle(&self) -> Result<()> {
        match self.place.local_path() {
            Some(_) => self.discard().await,
            None if claimant(&self.target).await?.as_deref() == Some(self.run.as_str()) => {
                delete(&self.target.join(CLAIM_FILE)?).await
            }
            None => Ok(()),
        }
    }

    /// Removes everything that was staged.
    ///
    /// # Errors
    /// What the store says.
    pub async fn discard(&self) -> Result<()> {
        if let Some(path) = self.place.local_path() {
            let path = path.to_path_buf();
            let created = self.created.clone();
            let removed = blocking(move || remove_folder(&path).map(|()| remove_empty(&created))).await?;
            return removed.map_err(|e| self.place.io_error("remove", e));
        }
        match claimant(&self.target).await? {
            Some(run) if run == self.run => {
                self.clear().await?;
                delete(&self.target.join(CLAIM_FILE)?).await
            }
            // Published, or somebody else's by now.
            _ => Ok(()),
        }
    }

    /// Takes the folder for this run and empties it. The claim comes first: it is what keeps two runs apart.
    async fn claim(&self) -> Result<()> {
        let place = self.target.join(CLAIM_FILE)?;
        create_or_find(&place, serde_json::json!({ "run": self.run }).to_string().into()).await?;
        // If it was there it may be ours: the answer to an earlier attempt was lost.
        self.check_claim().await?;
        // Another run may have published between the first look and the claim.
        if let Err(e) = check_replaceable(&self.target, self.overwrite).await {
            delete(&place).await?;
            return Err(e);
        }
        self.clear().await
    }

    /// Deletes the files of the folder except the claim: the manifest first, so that it stops being an output.
    async fn clear(&self) -> Result<()> {
        delete(&self.target.join(MANIFEST_FILE)?).await?;
        let entries = read::list(&self.target).await?;
        for file in entries.iter().filter(|e| e.stamp.is_some() && e.name != CLAIM_FILE) {
            delete(&file.location).await?;
        }
        Ok(())
    }
}

/// Creates `place`, or gives what is there. A store under contention may say that something exists and have written nothing
/// (S3's 409): that is tried again.
async fn create_or_find(place: &Location, bytes: Bytes) -> Result<Option<Bytes>> {
    for attempt in 0..CREATE_ATTEMPTS {
        match create(place, bytes.clone()).await {
            Ok(()) => return Ok(None),
            Err(StoreError::AlreadyExists { .. }) => {
                if let Some(found) = read::read_small_if_exists(place, READ_BACK_BYTES_MAX).await? {
                    return Ok(Some(found));
                }
            }
            Err(e) => return Err(place.error("write", e)),
        }
        tokio::time::sleep(CREATE_PAUSE * (attempt + 1)).await;
    }
    Err(Error::unavailable(format!(
        "cannot create {place}: the store says that it exists, but there is nothing to read"
    )))
}

/// The run that is writing to the object store's folder `target`, if one is.
///
/// # Errors
/// What the store says.
pub async fn claimant(target: &Location) -> Result<Option<String>> {
    let claim = target.join(CLAIM_FILE)?;
    let bytes = read::read_small_if_exists(&claim, READ_BACK_BYTES_MAX).await?;
    let Some(bytes) = bytes else { return Ok(None) };
    let claim: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
    // One that cannot be read still is somebody's; no run is called like this.
    Ok(Some(
        claim.and_then(|c| c.get("run")?.as_str().map(str::to_string)).unwrap_or_else(|| "?".to_string()),
    ))
}

fn claimed(target: &Location, run: &str) -> Error {
    Error::usage(format!(
        "output {target} is being written by run {run:?}: choose another, or, if that run is dead, delete \
         {target}/{CLAIM_FILE} and what it left there"
    ))
}

fn exists(target: &Location) -> Error {
    Error::usage(format!("output {target} exists: choose another or pass --overwrite"))
}

fn unwritable(target: &Location, error: std::io::Error) -> Error {
    Error::configuration(format!("output {target} cannot be written")).with_source(error)
}

async fn create(place: &Location, bytes: Bytes) -> Result<(), StoreError> {
    place.store().put_opts(place.path(), PutPayload::from(bytes), PutMode::Create.into()).await.map(|_| ())
}

/// Deletes a file that may be gone already.
async fn delete(place: &Location) -> Result<()> {
    match place.store().delete(place.path()).await {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(e) => Err(place.error("delete", e)),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("a write was cut off").with_source(e))
}

/// Checks that the folder in which `target` will appear takes new files. `false` if `target` itself is a file.
fn check_local(target: &Path) -> std::io::Result<bool> {
    if target.exists() && !target.is_dir() {
        return Ok(false);
    }
    let above = target.ancestors().skip(1).find(|p| p.exists()).unwrap_or(Path::new("/"));
    let probe = above.join(format!(".soup-probe-{}{TEMPORARY}", std::process::id()));
    std::fs::File::create(&probe)?;
    std::fs::remove_file(&probe)?;
    Ok(true)
}

/// Where a replaced output waits for its end.
fn aside(target: &Path, run: &str) -> PathBuf {
    let mut path = target.as_os_str().to_owned();
    path.push(format!(".replaced-{run}"));
    PathBuf::from(path)
}

fn publish_local(place: &Path, target: &Path, aside: Option<&Path>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(place)? {
        let path = entry?.path();
        // Left by an attempt that died.
        if path.to_string_lossy().ends_with(TEMPORARY) {
            std::fs::remove_file(path)?;
        }
    }
    sync_folder(place)?;
    // Replaces nothing but an empty folder.
    let renamed = std::fs::rename(place, target);
    match (renamed, aside) {
        (Err(e), Some(aside)) if is_taken(&e) && target.join(MANIFEST_FILE).exists() => {
            std::fs::rename(target, aside)?;
            if let Err(e) = std::fs::rename(place, target) {
                if let Err(error) = std::fs::rename(aside, target) {
                    tracing::warn!(%error, at = %aside.display(), "the replaced output could not be put back");
                }
                return Err(e);
            }
            settle(target);
            if let Err(error) = std::fs::remove_dir_all(aside) {
                tracing::warn!(%error, at = %aside.display(), "the replaced output could not be removed");
            }
            Ok(())
        }
        (Err(e), _) => Err(e),
        (Ok(()), _) => {
            settle(target);
            Ok(())
        }
    }
}

/// Makes a published name durable. The output is there either way, so a failure is no failure of the publish.
fn settle(target: &Path) {
    if let Err(error) = sync_folder(target.parent().unwrap_or(Path::new("/"))) {
        tracing::warn!(%error, at = %target.display(), "the folder of a published output could not be synced");
    }
}

/// Removes a folder that others may still be writing to; one that is gone is fine.
fn remove_folder(folder: &Path) -> std::io::Result<()> {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
    for _ in 1..REMOVE_ATTEMPTS {
        match std::fs::remove_dir_all(folder) {
            Err(e) if e.kind() == DirectoryNotEmpty => std::thread::sleep(REMOVE_PAUSE),
            Err(e) if e.kind() != NotFound => return Err(e),
            _ => return Ok(()),
        }
    }
    std::fs::remove_dir_all(folder)
}

/// Removes `folders`, the innermost first, up to the first that somebody else uses by now.
fn remove_empty(folders: &[PathBuf]) {
    for folder in folders {
        match std::fs::remove_dir(folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return,
            _ => {}
        }
    }
}

fn is_taken(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};
    matches!(error.kind(), AlreadyExists | DirectoryNotEmpty | NotADirectory)
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
