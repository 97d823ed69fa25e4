//! The store's client for the local disk, except that it opens nothing but files, and that what it creates has no foreseeable
//! name before it is whole.

use std::fmt;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::Folder;
use crate::listing::stamp;
use crate::places::{self, Whose};

const NAME: &str = "local disk";

/// See the module. What is put is durable.
#[derive(Debug)]
pub(crate) struct LocalDisk(LocalFileSystem, Whose);

impl LocalDisk {
    /// For places that are so somebody's.
    pub(crate) fn new(whose: Whose) -> LocalDisk {
        LocalDisk(LocalFileSystem::new(), whose)
    }
}

impl fmt::Display for LocalDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}

/// Where `location` is. Unlike the store's client this knows no names that are its own: `run#2` is a folder like any other.
fn path_of(location: &StorePath) -> PathBuf {
    Path::new("/").join(location.as_ref())
}

fn failed(path: &Path, error: io::Error) -> Error {
    let shown = || path.display().to_string();
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path: shown(), source: error.into() },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path: shown(), source: error.into() },
        _ => Error::Generic { store: NAME, source: error.into() },
    }
}

fn get(path: &Path, whose: Whose, location: StorePath, options: &GetOptions) -> Result<GetResult> {
    let told = |e| failed(path, places::told(path, whose, false, e));
    let file = super::open(path).map_err(told)?;
    places::within(&file, whose, false).map_err(|e| failed(path, e))?;
    let about = file.metadata().map_err(|e| failed(path, e))?;
    let stamp = stamp(&about);
    let last_modified = about.modified().map_err(|e| failed(path, e))?.into();
    let (size, e_tag) = (stamp.size_bytes, stamp.etag);
    let meta = ObjectMeta { location, last_modified, size, e_tag, version: None };
    options.check_preconditions(&meta)?;
    let out_of_range = |e| Error::Generic { store: NAME, source: Box::new(e) };
    let range: Range<u64> = match &options.range {
        Some(range) => range.as_range(size).map_err(out_of_range)?,
        None => 0..size,
    };
    let payload = GetResultPayload::File(file, path.to_path_buf());
    Ok(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() })
}

fn put(path: &Path, whose: Whose, payload: &PutPayload, create: bool) -> io::Result<PutResult> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    let (mut file, temporary) = Folder::make_for(parent, whose)?.create(name)?;
    payload.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()?;
    let e_tag = stamp(&file.metadata()?).etag;
    match create {
        true => temporary.keep_if_absent()?,
        false => temporary.keep()?,
    }
    temporary.folder().sync()?;
    Ok(PutResult { e_tag, version: None, extensions: Default::default() })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|source| Err(Error::JoinError { source }))
}

// The methods are written as `async_trait` would expand them, which spares a dependency.
impl ObjectStore for LocalDisk {
    fn put_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b StorePath,
        payload: PutPayload,
        options: PutOptions,
    ) -> BoxFuture<'c, Result<PutResult>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        async move {
            let create = match options.mode {
                PutMode::Create => true,
                PutMode::Overwrite => false,
                // Which it refuses.
                PutMode::Update(_) => return self.0.put_opts(location, payload, options).await,
            };
            let (path, whose) = (path_of(location), self.1);
            let told = move |path: &Path, e| failed(path, places::told(path, whose, true, e));
            blocking(move || put(&path, whose, &payload, create).map_err(|e| told(&path, e))).await
        }
        .boxed()
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b StorePath,
        options: PutMultipartOptions,
    ) -> BoxFuture<'c, Result<Box<dyn MultipartUpload>>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.0.put_multipart_opts(location, options)
    }

    fn get_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b StorePath,
        options: GetOptions,
    ) -> BoxFuture<'c, Result<GetResult>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        async move {
            let (path, whose) = (path_of(location), self.1);
            let location = location.clone();
            blocking(move || get(&path, whose, location, &options)).await
        }
        .boxed()
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<StorePath>>,
    ) -> BoxStream<'static, Result<StorePath>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&StorePath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_delimiter<'a, 'b, 'c>(
        &'a self,
        prefix: Option<&'b StorePath>,
    ) -> BoxFuture<'c, Result<ListResult>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.0.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'c, 'd>(
        &'a self,
        from: &'b StorePath,
        to: &'c StorePath,
        options: CopyOptions,
    ) -> BoxFuture<'d, Result<()>>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
        Self: 'd,
    {
        self.0.copy_opts(from, to, options)
    }
}
