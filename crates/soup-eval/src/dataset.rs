//! Labelled images.
//!
//! Two layouts are understood: the Parquet files of Hugging Face datasets ([`parquet`]), and folders of images with one
//! folder per class ([`folder`]). Opening reads metadata only; reading a range touches only what holds it.

mod folder;
mod parquet;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use soup_core::run::Split;
use soup_core::{Error, Result};

use crate::source::Files;

/// How to read a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatasetSpec {
    /// Column of the images; by default `image` or `img`. Parquet only.
    pub image_column: Option<String>,
    /// Column of the labels; by default `label`, `labels` or `fine_label`. Parquet only.
    pub label_column: Option<String>,
    /// Use only that many of the first samples.
    pub limit: Option<u64>,
    /// Of those, use one part only.
    pub split: Option<Split>,
}

/// One sample, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The encoded image (PNG, JPEG, WebP).
    pub image: Bytes,
    /// Its class.
    pub label: u32,
}

/// A dataset whose metadata has been read.
pub struct Dataset {
    files: Arc<dyn Files>,
    layout: Layout,
    len: u64,
    split: Option<Split>,
}

enum Layout {
    Parquet(parquet::Parquet),
    Folder(folder::Folder),
}

impl Dataset {
    /// Opens the dataset in `files`: Parquet if there is any `.parquet` file, else a folder of images by class.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where there is neither, where there are no labels, or where the metadata is
    /// corrupt; the errors of [`Files`].
    pub fn open(files: Arc<dyn Files>, spec: &DatasetSpec) -> Result<Dataset> {
        let mut entries = files.list().map_err(|e| e.context(format!("dataset {}", files.describe())))?;
        entries.sort();
        let tables: Vec<_> =
            entries.iter().filter(|e| has_extension(&e.path, &["parquet"])).cloned().collect();
        let layout = if tables.is_empty() {
            Layout::Folder(folder::Folder::new(&entries, &files.describe())?)
        } else {
            Layout::Parquet(parquet::Parquet::open(&files, &tables, spec)?)
        };
        let len = match &layout {
            Layout::Parquet(parquet) => parquet.len(),
            Layout::Folder(folder) => folder.len(),
        };
        if len == 0 {
            return Err(Error::data(format!("dataset {} has no samples", files.describe())));
        }
        let len = len.min(spec.limit.unwrap_or(u64::MAX));
        let len = spec.split.map_or(len, |split| split.len(len));
        Ok(Dataset { files, layout, len, split: spec.split })
    }

    /// Number of samples.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none (only with a limit of 0).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it is, for messages.
    pub fn describe(&self) -> String {
        self.files.describe()
    }

    /// Names of the classes by label, where the dataset has them.
    pub fn label_names(&self) -> Option<&[String]> {
        match &self.layout {
            Layout::Parquet(parquet) => parquet.label_names(),
            Layout::Folder(folder) => Some(folder.label_names()),
        }
    }

    /// Numbers the classes of a folder of images as the model does, if every folder is named after one of the model's
    /// classes (`names`, by class); says whether it did. Labels of Parquet files are numbers already and stay.
    pub fn align_labels(&mut self, names: &[String]) -> bool {
        match &mut self.layout {
            Layout::Parquet(_) => false,
            Layout::Folder(folder) => folder.align_labels(names),
        }
    }

    /// Position of a sample among all that the files hold.
    pub fn row(&self, sample: u64) -> u64 {
        self.split.map_or(sample, |split| split.row(sample))
    }

    /// The samples `range`, as stored.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where a sample lacks its image or its label, naming the row;
    /// [`Internal`](soup_core::ErrorKind::Internal) where `range` is not in the dataset; the errors of [`Files`].
    pub fn read(&self, range: Range<u64>) -> Result<Vec<Sample>> {
        if range.start > range.end || range.end > self.len {
            return Err(Error::internal(format!("rows {range:?} of a dataset of {}", self.len)));
        }
        let Some(last) = range.clone().next_back() else { return Ok(Vec::new()) };
        let rows = self.row(range.start)..self.row(last) + 1;
        let first = rows.start;
        let samples = match &self.layout {
            Layout::Parquet(parquet) => parquet.read(&self.files, rows)?,
            Layout::Folder(folder) => folder.read(self.files.as_ref(), rows)?,
        };
        if self.split.is_none() {
            return Ok(samples);
        }
        // What lies between belongs to the other part.
        let mut wanted = range.map(|sample| self.row(sample) - first).peekable();
        let mine = |(at, sample)| wanted.next_if_eq(&at).map(|_| sample);
        Ok((0u64..).zip(samples).filter_map(mine).collect())
    }
}

/// Whether the name ends in one of `extensions`, in any case.
fn has_extension(path: &str, extensions: &[&str]) -> bool {
    path.rsplit_once('.').is_some_and(|(_, e)| extensions.iter().any(|x| x.eq_ignore_ascii_case(e)))
}
