//! Writing one file: streamed, hashed on the way, and not there before it is whole.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use bytes::Bytes;
use object_store::{ObjectStoreExt, WriteMultipart};
use sha2::{Digest, Sha256};
use soup_core::machine::FileDigest;
use soup_core::{Error, Result};

use crate::local::{Folder, Temporary};
use crate::location::Location;
use crate::places::{self, Whose};

/// Size of the parts of an upload. Stores allow 10,000 parts, so files of up to 160 GB.
const PART_BYTES: usize = 16 << 20;
/// Parts of an upload at a time: with the one being filled, 80 MiB a file.
const PARTS_IN_FLIGHT: usize = 4;
/// Hashing so little takes less time than the way to another thread and back.
pub(crate) const HASHED_HERE_BYTES_MAX: usize = 64 << 10;

/// Writes one file from its start to its end. The file is there once [`finish`](FileWriter::finish) returns; a writer that
/// is dropped before leaves nothing.
pub struct FileWriter {
    location: Location,
    /// `None` once a write failed or was cancelled half-way.
    sink: Option<Sink>,
    temporary: Option<Temporary>,
}

struct Sink {
    output: Output,
    hashes: Hashes,
}

enum Output {
    Local(File),
    Store(WriteMultipart),
}

#[derive(Default)]
struct Hashes {
    bytes: u64,
    file: Sha256,
    data: Sha256,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Header,
    Data,
}

impl Hashes {
    fn update(&mut self, part: Part, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.file.update(bytes);
        if part == Part::Data {
            self.data.update(bytes);
        }
    }
}

impl FileWriter {
    /// A writer for a file of the output `target`, which is what people know it by.
    pub(crate) async fn create(location: Location, target: &Location) -> Result<FileWriter> {
        let (output, temporary) = match location.local_path() {
            Some(path) => {
                let (file, temporary) = create(path).map_err(|e| match e.kind() {
                    // Whoever began the output created its folder.
                    std::io::ErrorKind::NotFound => Error::configuration(format!(
                        "output {target} is not on storage that this worker shares with the coordinator"
                    )),
                    std::io::ErrorKind::NotADirectory => Error::configuration(format!(
                        "output {target} cannot be written: somebody replaced the folder in which its files are staged, \
                         that of {location}"
                    )),
                    _ => location.io_error("write", e),
                })?;
                (Output::Local(file), Some(temporary))
            }
            None => {
                let upload = location.store().put_multipart(location.path()).await;
                let upload = upload.map_err(|e| location.error("write", e))?;
                (Output::Store(WriteMultipart::new_with_chunk_size(upload, PART_BYTES)), None)
            }
        };
        Ok(FileWriter { location, sink: Some(Sink { output, hashes: Hashes::default() }), temporary })
    }

    /// Appends to the file what does not count as its data.
    ///
    /// # Errors
    /// What the store says; [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) for a full disk.
    pub async fn write_header(&mut self, bytes: Bytes) -> Result<()> {
        self.append(Part::Header, bytes).await
    }

    /// Appends to the file. Waits while too much is in flight, so that memory stays bounded.
    ///
    /// # Errors
    /// What the store says; [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) for a full disk.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.append(Part::Data, bytes).await
    }

    async fn append(&mut self, part: Part, bytes: Bytes) -> Result<()> {
        let Sink { output, mut hashes } = self.take()?;
        let output = match output {
            Output::Local(mut file) => {
                let work = tokio::task::spawn_blocking(move || {
                    hashes.update(part, &bytes);
                    file.write_all(&bytes).map(|()| (file, hashes))
                });
                let (file, updated) = joined(work).await?.map_err(|e| self.location.io_error("write", e))?;
                hashes = updated;
                Output::Local(file)
            }
            Output::Store(mut upload) => {
                let ready = if bytes.len() <= HASHED_HERE_BYTES_MAX {
                    hashes.update(part, &bytes);
                    upload.wait_for_capacity(PARTS_IN_FLIGHT).await
                } else {
                    let hashed = bytes.clone();
                    let work = tokio::task::spawn_blocking(move || {
                        hashes.update(part, &hashed);
                        hashes
                    });
                    let ready = upload.wait_for_capacity(PARTS_IN_FLIGHT).await;
                    hashes = joined(work).await?;
                    ready
                };
                if let Err(e) = ready {
                    abort(upload);
                    return Err(self.location.error("write", e));
                }
                upload.put(bytes);
                Output::Store(upload)
            }
        };
        self.sink = Some(Sink { output, hashes });
        Ok(())
    }

    /// Makes the file whole and durable.
    ///
    /// # Errors
    /// What the store says. There is no file then.
    pub async fn finish(mut self) -> Result<FileDigest> {
        let Sink { output, hashes } = self.take()?;
        match output {
            Output::Local(file) => {
                let temporary = self.temporary.take();
                let work = tokio::task::spawn_blocking(move || {
                    file.sync_all()?;
                    temporary.map_or(Ok(()), |t| t.keep())
                });
                joined(work).await?.map_err(|e| self.location.io_error("write", e))?;
            }
            Output::Store(upload) => {
                upload.finish().await.map_err(|e| self.location.error("write", e))?;
            }
        }
        Ok(FileDigest {
            bytes: hashes.bytes,
            file_sha256: hashes.file.finalize().into(),
            data_sha256: hashes.data.finalize().into(),
        })
    }

    fn take(&mut self) -> Result<Sink> {
        self.sink
            .take()
            .ok_or_else(|| Error::internal(format!("{} is written to after a failed write", self.location)))
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if let Some(Sink { output: Output::Store(upload), .. }) = self.sink.take() {
            abort(upload);
        }
    }
}

/// Frees the parts that a store keeps of an upload. Without a runtime there is no way to; stores expire them.
fn abort(upload: WriteMultipart) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move {
            if let Err(e) = upload.abort().await {
                tracing::debug!(error = %e, "an upload could not be aborted");
            }
        });
    }
}

/// Creates the file that will be at `path`, in a folder that is no link.
fn create(path: &Path) -> std::io::Result<(File, Temporary)> {
    let above = path.parent().unwrap_or(Path::new("/"));
    let folder = Folder::open_itself(above).map_err(|e| places::told(above, Whose::Run, true, e))?;
    folder.create(path.file_name().unwrap_or(OsStr::new("")))
}

async fn joined<T>(work: tokio::task::JoinHandle<T>) -> Result<T> {
    work.await.map_err(|e| Error::internal("a write was cut off").with_source(e))
}
