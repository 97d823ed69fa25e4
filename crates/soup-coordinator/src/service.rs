//! The gRPC face: each method converts, asks the hub, converts.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use soup_core::Error;
use soup_core::run::RunSpec;
use soup_proto::status_of;
use soup_proto::v1::coordinator_server::Coordinator;
use soup_proto::v1::{
    CancelRequest, CancelResponse, CoordinatorMessage, Register, RunEvent, SubmitRequest, SubmitResponse,
    WatchRequest, WorkerMessage, worker_message,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::hub::Handle;
use crate::roster::OUTBOX_MESSAGES_MAX;

/// The service over a hub.
pub(crate) struct Service {
    hub: Handle,
}

impl Service {
    pub(crate) fn new(hub: Handle) -> Service {
        Service { hub }
    }
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Coordinator for Service {
    type WorkStream = Events<CoordinatorMessage>;
    type WatchStream = Events<RunEvent>;

    async fn work(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let mut up = request.into_inner();
        let register = first_message(&mut up).await?;
        let (outbox, down) = mpsc::channel(OUTBOX_MESSAGES_MAX);
        let worker = self.hub.join(register, outbox).await.map_err(|e| status_of(&e))?;
        let hub = self.hub.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = up.message().await {
                if hub.said(worker, message).await.is_err() {
                    break;
                }
            }
            // Where the hub is gone, so is the roster.
            let _ = hub.left(worker).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(down).map(Ok))))
    }

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        let wire =
            request.into_inner().spec.ok_or_else(|| status_of(&Error::usage("the request has no run")))?;
        let spec = RunSpec::try_from(wire).map_err(|e| status_of(&e))?;
        let run = self.hub.submit(spec).await.map_err(|e| status_of(&e))?;
        Ok(Response::new(SubmitResponse { run }))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let log = self.hub.log(request.into_inner().run).await.map_err(|e| status_of(&e))?;
        Ok(Response::new(Box::pin(log.watch().map(Ok))))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        self.hub.cancel(request.into_inner().run).await.map_err(|e| status_of(&e))?;
        Ok(Response::new(CancelResponse {}))
    }
}

/// A worker's first message, which has to introduce it.
async fn first_message(up: &mut Streaming<WorkerMessage>) -> Result<Register, Status> {
    let register = match up.message().await? {
        Some(WorkerMessage { message: Some(worker_message::Message::Register(register)) }) => register,
        _ => return Err(status_of(&Error::usage("a worker's first message has to register it"))),
    };
    let ours = env!("CARGO_PKG_VERSION");
    if register.version != ours {
        let text = format!(
            "worker {:?} is version {}, this coordinator is version {ours}: start the same version",
            register.name, register.version
        );
        return Err(status_of(&Error::configuration(text)));
    }
    Ok(register)
}
