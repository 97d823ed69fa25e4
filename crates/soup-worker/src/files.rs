//! A dataset's files on any store, for evaluators, which read on compute threads and block.

use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use soup_core::{Error, Result};
use soup_eval::{FileEntry, Files};
use soup_store::location::Location;
use soup_store::read;

use crate::compute::Waiting;

/// A file or a folder on a store.
pub(crate) struct StoreFiles {
    root: Location,
    waiting: Waiting,
    listing: OnceLock<Listing>,
}

/// What is there: one file, or a folder's entries by their relative names.
enum Listing {
    File(FileEntry, Location),
    Folder(std::collections::BTreeMap<String, (u64, Location)>),
}

impl StoreFiles {
    /// The dataset at `url`; nothing is read yet. Its methods must not be called on the runtime's own threads.
    pub(crate) fn new(url: &str, waiting: Waiting) -> Result<StoreFiles> {
        Ok(StoreFiles { root: Location::parse(url)?, waiting, listing: OnceLock::new() })
    }

    fn listing(&self) -> Result<&Listing> {
        if let Some(listing) = self.listing.get() {
            return Ok(listing);
        }
        let listing = self.waiting.wait(self.look())?;
        Ok(self.listing.get_or_init(|| listing))
    }

    async fn look(&self) -> Result<Listing> {
        if let Some(stamp) = read::stat_if_exists(&self.root).await? {
            let entry = FileEntry { path: self.root.name().to_owned(), size_bytes: stamp.size_bytes };
            return Ok(Listing::File(entry, self.root.clone()));
        }
        let entries = read::list_recursive(&self.root).await?;
        if entries.is_empty() {
            return Err(Error::data(format!("{} does not exist", self.root)));
        }
        let file = |e: read::Entry| Some((e.name, (e.stamp?.size_bytes, e.location)));
        Ok(Listing::Folder(entries.into_iter().filter_map(file).collect()))
    }
}

impl Files for StoreFiles {
    fn list(&self) -> Result<Vec<FileEntry>> {
        Ok(match self.listing()? {
            Listing::File(entry, _) => vec![entry.clone()],
            Listing::Folder(entries) => entries
                .iter()
                .map(|(path, (size_bytes, _))| FileEntry { path: path.clone(), size_bytes: *size_bytes })
                .collect(),
        })
    }

    fn read(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let location = match self.listing()? {
            Listing::File(entry, location) if entry.path == path => location,
            Listing::Folder(entries) if entries.contains_key(path) => &entries[path].1,
            _ => return Err(Error::data(format!("dataset {} has no file {path:?}", self.root))),
        };
        self.waiting.wait(read::read_range(location, range, None))
    }

    fn describe(&self) -> String {
        self.root.to_string()
    }
}
