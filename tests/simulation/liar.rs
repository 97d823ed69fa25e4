//! Workers that lie: between a worker and its coordinator sits one that changes what the worker is told, or what it says.
//!
//! What lies this way is the real worker with its real certificate: it loads, serves and judges as all do, but for what it is made to say.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, StreamExt};
use soup_proto::v1::coordinator_client::CoordinatorClient;
use soup_proto::v1::coordinator_message::Message as Down;
use soup_proto::v1::coordinator_server::{Coordinator, CoordinatorServer};
use soup_proto::v1::evaluated::Judged;
use soup_proto::v1::task_done::Result as Answer;
use soup_proto::v1::worker_message::Message as Up;
use soup_proto::v1::{self, CoordinatorMessage, RunEvent, WorkerMessage, assign};
use soup_trust::Connect;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::network::{self, Network};

/// Where it sits, on the worker's own host.
pub const PORT: u16 = 7071;
const MESSAGES_MAX: usize = 64;

/// What is a lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// The first slice that it is asked for has other predictions.
    OneSlice,
    /// All have.
    Slices,
    /// The digests of shards that it loads, or passes over.
    Loads,
    /// Blends, whose checksums are right, of shards whose digests are right: it has the ingredients in another order.
    Blends,
    /// It hands in slices that nobody has given to it, besides what it does well.
    HandIns,
}

impl Lie {
    pub const ALL: [Lie; 5] = [Lie::OneSlice, Lie::Slices, Lie::Loads, Lie::Blends, Lie::HandIns];

    /// Whether it is found out where everything is audited.
    pub fn is_found(self) -> bool {
        self != Lie::HandIns
    }
}

/// The one between. Clones share what they know.
#[derive(Clone)]
pub struct Liar {
    network: Network,
    lie: Lie,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    has_lied: bool,
    /// Tasks that load a shard, and were changed.
    changed: BTreeSet<(u64, u64, u32)>,
    /// The run and its epoch.
    run: (String, u64),
}

fn of(key: &v1::TaskKey) -> (u64, u64, u32) {
    (key.epoch, key.task, key.attempt)
}

impl Liar {
    /// Serves the worker of this host, until the host ends.
    pub async fn serve(network: Network, lie: Lie) {
        let liar = Liar { network, lie, known: Arc::default() };
        let Ok(incoming) = network::listen(PORT).await else { return };
        let service = CoordinatorServer::new(liar);
        let ended = Server::builder().add_service(service).serve_with_incoming(incoming).await;
        tracing::info!(target: "simulation", "a liar ended: {ended:?}");
    }

    /// What the worker is told instead.
    fn down(&self, mut message: CoordinatorMessage) -> CoordinatorMessage {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut message.message {
            Some(Down::Begin(begin)) => known.run = (begin.run.clone(), begin.epoch),
            Some(Down::Assign(v1::Assign {
                key: Some(key), work: Some(assign::Work::Load(load)), ..
            })) if self.lie == Lie::Blends => {
                load.ingredients.reverse();
                known.changed.insert(of(key));
            }
            _ => {}
        }
        message
    }

    /// What the coordinator is told instead.
    fn up(&self, mut message: WorkerMessage) -> Vec<WorkerMessage> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Up::Done(v1::TaskDone { key: Some(key), result: Some(result), .. })) = &mut message.message
        else {
            return vec![message];
        };
        match (self.lie, result) {
            (Lie::OneSlice | Lie::Slices, Answer::Evaluated(evaluated))
                if self.lie == Lie::Slices || !known.has_lied =>
            {
                known.has_lied |= change(evaluated);
            }
            (
                Lie::Loads,
                Answer::Loaded(v1::Loaded { digests, .. }) | Answer::Passed(v1::Passed { digests, .. }),
            ) => {
                digests.iter_mut().for_each(|digest| digest[0] ^= 1);
            }
            (Lie::Blends, Answer::Loaded(loaded)) if known.changed.contains(&of(key)) => {
                loaded.digests.reverse()
            }
            (Lie::HandIns, Answer::Evaluated(evaluated)) => {
                let (run, epoch) = known.run.clone();
                let mut evaluated = evaluated.clone();
                change(&mut evaluated);
                let soup = Some(v1::Soup { members: vec![0, 1], ..v1::Soup::default() });
                let samples = outcomes(&mut evaluated).map_or(0, |of| of.labels.len() as u64);
                let seal = vec![7; 32];
                let work = v1::JudgeSlice { soup, start: 0, end: samples, seal, ..Default::default() };
                let handed = v1::HandedIn { run, epoch, work: Some(work), evaluated: Some(evaluated) };
                return vec![WorkerMessage { message: Some(Up::HandedIn(handed)) }, message];
            }
            _ => {}
        }
        vec![message]
    }
}

fn outcomes(evaluated: &mut v1::Evaluated) -> Option<&mut v1::Outcomes> {
    match &mut evaluated.judged {
        Some(Judged::Outcomes(outcomes)) => Some(outcomes),
        _ => None,
    }
}

/// Every other sample has another prediction. Whether there are any.
fn change(evaluated: &mut v1::Evaluated) -> bool {
    let Some(outcomes) = outcomes(evaluated) else { return false };
    for (label, prediction) in outcomes.labels.iter().zip(&mut outcomes.predictions).step_by(2) {
        *prediction = if prediction == label { (label + 1) % 3 } else { *label };
    }
    true
}

#[tonic::async_trait]
impl Coordinator for Liar {
    type WorkStream = Pin<Box<dyn Stream<Item = Result<CoordinatorMessage, Status>> + Send>>;
    type WatchStream = Pin<Box<dyn Stream<Item = Result<RunEvent, Status>> + Send>>;

    async fn work(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let unavailable = |e: tonic::transport::Error| Status::unavailable(e.to_string());
        let endpoint = Endpoint::from_static(crate::world::COORDINATOR);
        let channel = self.network.connect(&endpoint).await.map_err(unavailable)?;
        let (to, outbox) = mpsc::channel(MESSAGES_MAX);
        let (liar, mut up) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(message)) = up.message().await {
                for message in liar.up(message) {
                    if to.send(message).await.is_err() {
                        return;
                    }
                }
            }
        });
        let mut client = CoordinatorClient::new(channel);
        let down = client.work(ReceiverStream::new(outbox)).await?.into_inner();
        let liar = self.clone();
        Ok(Response::new(down.map(move |message| message.map(|message| liar.down(message))).boxed()))
    }

    async fn submit(&self, _: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        Err(Status::unimplemented("it is for its worker alone"))
    }

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("it is for its worker alone"))
    }

    async fn cancel(&self, _: Request<v1::CancelRequest>) -> Result<Response<v1::CancelResponse>, Status> {
        Err(Status::unimplemented("it is for its worker alone"))
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        Err(Status::unimplemented("it is for its worker alone"))
    }

    async fn judges(&self, _: Request<v1::JudgesRequest>) -> Result<Response<v1::JudgesResponse>, Status> {
        Err(Status::unimplemented("it is for its worker alone"))
    }

    async fn probe(&self, _: Request<v1::ProbeRequest>) -> Result<Response<v1::ProbeResponse>, Status> {
        Err(Status::unimplemented("it is for its worker alone"))
    }
}
