//! What peers see of a worker.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use soup_core::soup::Soup;
use soup_core::{Error, Result};
use soup_metrics::metrics;
use soup_proto::v1::blends_server::SERVICE_NAME;
use soup_proto::{message_bytes, status_of};
use soup_trust::{Held, Peer};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};

use crate::active::Worker;
use crate::turns::{Asker, Turn, Turns};
use crate::{blends, frames};

/// The service `soup.v1.Blends` over a worker; see [`frames`] for why it is not a generated one.
#[derive(Clone)]
pub(crate) struct Service {
    worker: Arc<Worker>,
    turns: Arc<Turns>,
}

impl Service {
    pub(crate) fn new(worker: Arc<Worker>) -> Service {
        Service { worker, turns: Arc::default() }
    }

    /// What is asked for, and the asker's turn, which lasts until that is read.
    async fn blend(&self, peer: Option<&Peer>, body: Body) -> Result<(bytes::Bytes, Turn)> {
        let request = frames::read_request(body).await?;
        let bytes = message_bytes(&request);
        let run = self.worker.run(&request.run, request.epoch)?;
        let worker = blends::check(&run, request.ticket)
            .inspect_err(|e| tracing::warn!(run = request.run, why = e.chain(), "denied a fetch"))?;
        let _asks = self.turns.asks(peer.map(|peer| peer.address.ip()), bytes)?;
        let known = run.owners().is_ok_and(|owners| owners.address(worker).is_some());
        let (asker, until) = (Asker::new(peer, worker, known), blends::patience(&run));
        let turn = self.turns.turn(asker, run.fetches_max(), until).await?;
        if let Some(gradient) = request.gradient {
            return Ok((blends::own_gradient(&run, request.shard, gradient, until).await?, turn));
        }
        let soup = Soup::try_from(request.soup.ok_or_else(|| Error::usage("the request has no soup"))?)?;
        Ok((blends::own_until(&run, request.shard, &soup, until).await?, turn))
    }

    async fn answer(&self, request: http::Request<Body>) -> http::Response<Body> {
        if request.uri().path() != frames::FETCH_PATH {
            return Status::new(Code::Unimplemented, "workers serve Fetch and nothing else").into_http();
        }
        let (head, body) = request.into_parts();
        match self.blend(head.extensions.get::<Peer>(), body).await {
            Ok((blend, turn)) => {
                metrics().worker.sent.inc_by(blend.len() as u64);
                let mut reply = frames::reply(blend);
                reply.extensions_mut().insert(Held::new(turn));
                reply
            }
            Err(error) => status_of(&error).into_http(),
        }
    }
}

impl NamedService for Service {
    const NAME: &'static str = SERVICE_NAME;
}

impl tower_service::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        async move { Ok(service.answer(request).await) }.boxed()
    }
}
