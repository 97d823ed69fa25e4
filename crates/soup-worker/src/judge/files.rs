//! A dataset's files on any store, for evaluators, which read on compute threads and block.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use soup_core::{Error, Result};
use soup_eval::{FileEntry, Files};
use soup_store::location::Location;
use soup_store::read::Stamp;
use soup_store::{data, read};

use crate::compute::Waiting;

/// What a URL names on a store: a file, a folder, or what a glob matches.
pub(crate) struct StoreFiles {
    url: String,
    /// What they were when the run was submitted.
    pin: Option<String>,
    waiting: Waiting,
    /// By their names relative to the URL; read is what they were when they were listed, and nothing else.
    listing: OnceLock<BTreeMap<String, (Stamp, Location)>>,
}

impl StoreFiles {
    /// The dataset at `url`, which has to be that of the fingerprint `pin`; nothing is read yet. Its methods must not be called on the
    /// runtime's own threads.
    pub(crate) fn new(url: &str, pin: Option<String>, waiting: Waiting) -> StoreFiles {
        StoreFiles { url: url.to_owned(), pin, waiting, listing: OnceLock::new() }
    }

    fn listing(&self) -> Result<&BTreeMap<String, (Stamp, Location)>> {
        if let Some(listing) = self.listing.get() {
            return Ok(listing);
        }
        let entries = self.waiting.wait(data::files(&self.url))?;
        data::check_pin(&self.url, &entries, self.pin.as_deref())?;
        let file = |e: read::Entry| Some((e.name, (e.stamp?, e.location)));
        Ok(self.listing.get_or_init(|| entries.into_iter().filter_map(file).collect()))
    }
}

impl Files for StoreFiles {
    fn list(&self) -> Result<Vec<FileEntry>> {
        let file = |(path, (stamp, _)): (&String, &(Stamp, Location))| FileEntry {
            path: path.clone(),
            size_bytes: stamp.size_bytes,
        };
        Ok(self.listing()?.iter().map(file).collect())
    }

    fn read(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let Some((stamp, location)) = self.listing()?.get(path) else {
            return Err(Error::data(format!("dataset {} has no file {path:?}", self.url)));
        };
        self.waiting.wait(read::read_range(location, range, stamp.etag.as_deref()))
    }

    fn describe(&self) -> String {
        self.url.clone()
    }
}
