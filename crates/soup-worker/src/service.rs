//! What peers see of a worker.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, stream};
use soup_core::soup::Soup;
use soup_core::{Error, Result};
use soup_proto::status_of;
use soup_proto::v1::blends_server::Blends;
use soup_proto::v1::{Chunk, FetchRequest};
use tonic::{Request, Response, Status};

use crate::active::Worker;
use crate::blends;

/// The service over a worker.
pub(crate) struct Service {
    worker: Arc<Worker>,
}

impl Service {
    pub(crate) fn new(worker: Arc<Worker>) -> Service {
        Service { worker }
    }

    async fn blend(&self, request: FetchRequest) -> Result<bytes::Bytes> {
        let run = self.worker.run(&request.run, request.epoch)?;
        let soup = Soup::try_from(request.soup.ok_or_else(|| Error::usage("the request has no soup"))?)?;
        blends::own(&run, request.shard, &soup).await
    }
}

#[tonic::async_trait]
impl Blends for Service {
    type FetchStream = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let blend = self.blend(request.into_inner()).await.map_err(|e| status_of(&e))?;
        Ok(Response::new(Box::pin(stream::iter(blends::chunks(blend).map(|data| Ok(Chunk { data }))))))
    }
}
