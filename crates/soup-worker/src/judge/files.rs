//! A dataset's files on any store, for evaluators, which read on compute threads and block.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use soup_core::{Error, Result};
use soup_eval::{FileEntry, Files};
use soup_store::location::Location;
use soup_store::{data, read};

use crate::compute::Waiting;

/// What a URL names on a store: a file, a folder, or what a glob matches.
pub(crate) struct StoreFiles {
    url: String,
    waiting: Waiting,
    /// By their names relative to the URL.
    listing: OnceLock<BTreeMap<String, (u64, Location)>>,
}

impl StoreFiles {
    /// The dataset at `url`; nothing is read yet. Its methods must not be called on the runtime's own threads.
    pub(crate) fn new(url: &str, waiting: Waiting) -> StoreFiles {
        StoreFiles { url: url.to_owned(), waiting, listing: OnceLock::new() }
    }

    fn listing(&self) -> Result<&BTreeMap<String, (u64, Location)>> {
        if let Some(listing) = self.listing.get() {
            return Ok(listing);
        }
        let entries = self.waiting.wait(data::files(&self.url))?;
        let file = |e: read::Entry| Some((e.name, (e.stamp?.size_bytes, e.location)));
        Ok(self.listing.get_or_init(|| entries.into_iter().filter_map(file).collect()))
    }
}

impl Files for StoreFiles {
    fn list(&self) -> Result<Vec<FileEntry>> {
        let file = |(path, (size_bytes, _)): (&String, &(u64, Location))| FileEntry {
            path: path.clone(),
            size_bytes: *size_bytes,
        };
        Ok(self.listing()?.iter().map(file).collect())
    }

    fn read(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let Some((_, location)) = self.listing()?.get(path) else {
            return Err(Error::data(format!("dataset {} has no file {path:?}", self.url)));
        };
        self.waiting.wait(read::read_range(location, range, None))
    }

    fn describe(&self) -> String {
        self.url.clone()
    }
}
