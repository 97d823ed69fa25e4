//! The doors of the benchmarks: a worker's real loads, fetches and service, without a coordinator to ask for them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures::Stream;
use soup_core::Result;
use soup_core::soup::Soup;
use soup_proto::v1::{BeginRun, LoadShard, Placement};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::active::{Active, Worker};
use crate::device::DeviceConfig;
use crate::judge::external::{Folder, Handed};
use soup_trust::Connect;

use crate::{Compute, Tcp, WorkerConfig, assembling, loading, messages, service};

/// A worker on the host's memory that nobody coordinates, as large as there is room, with peers on `network`.
///
/// # Errors
/// Those of the device.
pub(crate) fn worker(network: Arc<dyn Connect>, slots: u32) -> Result<Worker> {
    let config = WorkerConfig {
        coordinator: String::new(),
        name: "bench".to_owned(),
        advertise: None,
        slots,
        memory_bytes: u64::MAX,
        disk_cache: None,
        device: DeviceConfig::default(),
        connect_timeout_ms: 0,
        orphan_timeout_ms: 0,
        judges: Vec::new(),
        judge_dir: None,
    };
    Ok(Worker::new(None, &config, Compute::threads(slots), network, BTreeMap::new()))
}

/// A folder for judges, in memory where the system has a file system for that.
pub struct HandingOver(Folder);

/// A soup that was handed over.
pub struct HandedOver(Handed);

impl HandingOver {
    /// A new one.
    ///
    /// # Errors
    /// Where none can be made.
    pub fn new() -> Result<HandingOver> {
        Folder::create(None).map(HandingOver)
    }

    /// Hands over a soup of so many pieces, as it is assembled, over one that was let go, if there is one.
    ///
    /// # Errors
    /// Where there is no room.
    pub fn soup(&self, piece: &[u8], pieces: u64, over: Option<HandedOver>) -> Result<HandedOver> {
        let bytes = piece.len() as u64 * pieces;
        let spare = over.and_then(|over| self.0.file_of(over.0, &soup_store::fresh::name(), bytes));
        let file = match spare {
            Some(file) => file,
            None => self.0.file(&soup_store::fresh::name(), bytes)?,
        };
        (0..pieces).try_for_each(|nth| file.write(nth * piece.len() as u64, piece))?;
        Ok(HandedOver(file))
    }
}

/// A worker with one run.
#[derive(Clone)]
pub struct BenchWorker {
    worker: Arc<Worker>,
    run: Arc<Active>,
}

impl BenchWorker {
    /// A worker on the host's memory that has begun `begin`.
    ///
    /// # Errors
    /// Where the run makes no sense.
    pub fn new(slots: u32, begin: BeginRun) -> Result<BenchWorker> {
        BenchWorker::on(Arc::new(Tcp), slots, begin)
    }

    /// [`BenchWorker::new`], with peers on another network.
    ///
    /// # Errors
    /// Where the run makes no sense.
    pub fn on(network: Arc<dyn Connect>, slots: u32, begin: BeginRun) -> Result<BenchWorker> {
        let worker = Arc::new(worker(network, slots)?);
        let (id, epoch) = (begin.run.clone(), begin.epoch);
        worker.begin(id.clone(), epoch, begin.try_into());
        let run = worker.run(&id, epoch)?;
        Ok(BenchWorker { worker, run })
    }

    /// Serves its blends to peers for as long as the process lives.
    pub fn serve<C>(&self, incoming: impl Stream<Item = io::Result<C>> + Send + 'static)
    where
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let service = service::Service::new(self.worker.clone());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    }

    /// Takes a placement, as the worker of number `me`.
    pub fn place(&self, placement: Placement, me: u64) {
        self.run.place(placement.into(), me);
    }

    /// Loads one shard of every ingredient; gives the bytes that were read.
    ///
    /// # Errors
    /// Those of the load.
    pub async fn load(&self, task: LoadShard) -> Result<u64> {
        let sources = messages::shard_sources(task, &self.run.begun)?;
        loading::load_shard(&self.worker, &self.run, sources).await.map(|loaded| loaded.bytes_read)
    }

    /// The flattened parameters of `soup`, from all owners, into `parameters`, which has their length.
    ///
    /// # Errors
    /// Those of the fetches.
    pub async fn assemble(&self, soup: &Soup, parameters: &mut [u8]) -> Result<()> {
        assembling::assemble(&self.run, soup, parameters).await
    }
}
