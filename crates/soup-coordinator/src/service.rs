//! The gRPC face: each method converts, asks the hub, converts. What workers say and are told is converted on the tasks of their
//! streams, however much it is.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use soup_core::journal::{Fold, RunState};
use soup_core::machine::WorkerId;
use soup_core::run::RunSpec;
use soup_core::{Error, ErrorKind};
use soup_proto::v1::coordinator_server::Coordinator;
use soup_proto::v1::run_event::Event;
use soup_proto::v1::{
    CancelRequest, CancelResponse, CoordinatorMessage, JudgesRequest, JudgesResponse, ListRequest,
    ListResponse, ProbeRequest, ProbeResponse, Register, RunEvent, SubmitRequest, SubmitResponse,
    WatchRequest, WorkerMessage, worker_message,
};
use soup_proto::{CONTROL_BYTES_MAX, PROTOCOL_VERSION, exhausted, message_bytes, status_of};
use soup_store::fresh;
use soup_store::state::State;
use soup_trust::{Caller, Held, Peer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc};
use tonic::transport::Uri;
use tonic::{Request, Response, Status, Streaming};

use crate::addresses::{Addresses, Place};
use crate::backlog::Backlog;
use crate::event_log;
use crate::exchange::{Newcomer, Said, Told};
use crate::hub::{Handle, Meant, NamedRun};
use crate::messages;
use crate::places;
use crate::registration;
use crate::roster::OUTBOX_MESSAGES_MAX;

/// The service over a hub.
pub(crate) struct Service {
    hub: Handle,
    state: State,
    one_process: bool,
    /// Whether runs can be submitted here.
    takes_runs: bool,
    /// Requests that read logs of runs, or make lists: a few at a time.
    reading: Semaphore,
    /// Room for replies that are not read yet.
    replies: Backlog,
    /// Room for large answers of workers that the hub has not taken yet.
    answers: Backlog,
    /// Where workers come from.
    addresses: Arc<Addresses>,
}

/// Requests that read logs of runs, or make lists, at a time.
const READING_MAX: usize = 4;
/// What lists take until they are read, in bytes.
const REPLIES_BYTES_MAX: usize = 64 << 20;
/// Largest list in a reply, in bytes: there is a little around it.
const JSON_BYTES_MAX: usize = CONTROL_BYTES_MAX - (1 << 10);
/// What the longest of them is of.
const RUNS: &str = "runs";
/// What large answers of workers take until the hub takes them, in bytes; smaller ones are bounded by their number.
const ANSWERS_BYTES_MAX: usize = 256 << 20;
const SMALL_ANSWER_BYTES: usize = 32 << 10;

impl Service {
    pub(crate) fn new(hub: Handle, state: State, one_process: bool, takes_runs: bool) -> Service {
        let reading = Semaphore::new(READING_MAX);
        let replies = Backlog::new(REPLIES_BYTES_MAX);
        let answers = Backlog::new(ANSWERS_BYTES_MAX);
        let addresses = Arc::default();
        Service { hub, state, one_process, takes_runs, reading, replies, answers, addresses }
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
        let peer = request.extensions().get::<Peer>().cloned();
        let mut up = request.into_inner();
        let newcomer = registration::newcomer(first_message(&mut up).await?).map_err(|e| status_of(&e))?;
        is_there(peer.as_ref(), &newcomer).map_err(|e| status_of(&e))?;
        let member = peer.as_ref().and_then(|peer| peer.member.as_ref());
        let newcomer = Newcomer { certificate: member.map(|member| member.name.clone()), ..newcomer };
        let place =
            self.addresses.take(peer.as_ref().map(|peer| peer.address.ip())).map_err(|e| exhausted(&e))?;
        let (outbox, down) = mpsc::channel(OUTBOX_MESSAGES_MAX);
        let worker = self.hub.join(newcomer, outbox).await.map_err(|e| status_of(&e))?;
        if let Some(Peer { address, member: Some(member), .. }) = &peer {
            // Names are what workers say of themselves.
            tracing::info!(worker = worker.0, from = %address, who = %member, "whose certificate a worker has");
        }
        let (hub, answers, waiting) = (self.hub.clone(), self.answers.clone(), place.waiting());
        tokio::spawn(async move {
            while let Ok(Some(message)) = up.message().await {
                let bytes = message_bytes(&message);
                let room = match bytes > SMALL_ANSWER_BYTES {
                    true => {
                        let Some(_waits) = waiting.unheard(bytes) else {
                            tracing::warn!(
                                worker = worker.0,
                                "cut off: what workers at its address say waits, and there is as much of it as may be"
                            );
                            break;
                        };
                        // Others' answers are taken first, and this worker's next one is not read before.
                        answers.room(bytes).await
                    }
                    false => None,
                };
                let said = messages::said(message).unwrap_or_else(|e| {
                    let error = e.chain();
                    tracing::warn!(worker = worker.0, error, "dropped what a worker handed in");
                    Said::Alive
                });
                if hub.said(worker, said, room).await.is_err() {
                    break;
                }
            }
            // Where the hub is gone, so is the roster.
            let _ = hub.left(worker).await;
        });
        Ok(Response::new(Box::pin(down_to(self.hub.clone(), worker, down, place))))
    }

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        let caller = caller(&request);
        if !self.takes_runs {
            return Err(status_of(&Error::usage(
                "this coordinator is there for one cook, and takes no other",
            )));
        }
        let admitted = self.hub.admit(caller.client().as_deref()).map_err(|e| exhausted(&e))?;
        let SubmitRequest { spec, fresh, version, protocol, run } = request.into_inner();
        check_protocol("the client", &version, protocol)?;
        let wire = spec.ok_or_else(|| status_of(&Error::usage("the request has no run")))?;
        let spec = RunSpec::try_from(wire).map_err(|e| status_of(&e))?;
        if !self.one_process {
            refuse_memory(&spec).map_err(|e| status_of(&e))?;
        }
        places::check_run(&spec, caller.kept_to_places()).map_err(|e| status_of(&e))?;
        let theirs = self.is_theirs(&caller, &run).await.map_err(|e| status_of(&e))?;
        let meant = meant(fresh, NamedRun { run, theirs }).map_err(|e| status_of(&e))?;
        let run = self.hub.submit(spec, meant, admitted).await.map_err(|e| status_of(&e))?;
        Ok(Response::new(SubmitResponse { run }))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller(&request);
        let run = request.into_inner().run;
        let log = self.hub.log(run.clone()).await.map_err(|e| status_of(&e))?;
        if let Some(log) = log.filter(|log| log.may_watch(&caller)) {
            return Ok(Response::new(Box::pin(log.watch().map(|event| event.map_err(|e| status_of(&e))))));
        }
        // One that ended before this coordinator began, or before somebody else asked for it too.
        let event = self.past(&caller, &run).await.map_err(|e| status_of(&e))?;
        let (event, under_way) = event_log::give(&RunEvent { event: Some(event) }).await;
        let mut response: Response<Self::WatchStream> =
            Response::new(Box::pin(futures::stream::iter([Ok(event)])));
        response.extensions_mut().insert(Held::new(under_way));
        Ok(response)
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        let caller = caller(&request);
        let run = request.into_inner().run;
        let log = self.hub.log(run.clone()).await.map_err(|e| status_of(&e))?;
        let may = log.is_some_and(|log| log.may_cancel(&caller));
        allow(&caller, "cancel", &run, may).map_err(|e| status_of(&e))?;
        self.hub.cancel(run).await.map_err(|e| status_of(&e))?;
        Ok(Response::new(CancelResponse {}))
    }

    async fn judges(&self, _: Request<JudgesRequest>) -> Result<Response<JudgesResponse>, Status> {
        let _turn = self.turn().await.map_err(|e| status_of(&e))?;
        let judges = self.hub.judges().await.map_err(|e| status_of(&e))?;
        self.reply(json("judges", &judges)?, |judges_json| JudgesResponse { judges_json })
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let workers = self.hub.probe().await.map_err(|e| status_of(&e))?;
        let _turn = self.turn().await.map_err(|e| status_of(&e))?;
        self.reply(json("workers", &workers)?, |workers_json| ProbeResponse { workers_json })
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let caller = caller(&request);
        let _turn = self.turn().await.map_err(|e| status_of(&e))?;
        let live = self.hub.live().await.map_err(|e| status_of(&e))?;
        let mut runs = self.state.summaries().await.map_err(|e| status_of(&e))?;
        runs.retain(|run| caller.may_touch(run.client.as_deref()));
        for run in &mut runs {
            run.ahead = live.get(&run.run).copied();
        }
        self.reply(json(RUNS, &runs)?, |runs_json| ListResponse { runs_json })
    }
}

impl Service {
    /// The turn to read a log, or to make a list, which a few have at a time.
    async fn turn(&self) -> soup_core::Result<SemaphorePermit<'_>> {
        let turn = self.reading.acquire().await;
        turn.map_err(|e| Error::unavailable("the coordinator is stopping").with_source(e))
    }

    /// A reply with a list, which takes room for as long as it is not read.
    fn reply<T>(&self, list: String, reply: impl FnOnce(String) -> T) -> Result<Response<T>, Status> {
        let room = self.replies.try_room(list.len());
        let room = room.ok_or_else(|| {
            exhausted(&Error::try_again("lists that nobody reads take what there is for them: try again"))
        })?;
        let mut response = Response::new(reply(list));
        response.extensions_mut().insert(Held::new(room));
        Ok(response)
    }

    /// Whether a run that is named is the caller's to see: who tells nobody from anybody, or sees all, need not be asked.
    async fn is_theirs(&self, caller: &Caller, run: &str) -> soup_core::Result<bool> {
        if run.is_empty() || caller.may_touch(None) {
            return Ok(true);
        }
        if self.hub.log(run.to_owned()).await?.is_some_and(|log| log.may_watch(caller)) {
            return Ok(true);
        }
        let _turn = self.turn().await?;
        match self.state.read(run).await {
            Ok((fold, _)) => Ok(caller.may_touch(client(&fold))),
            Err(error) if error.kind().is_transient() => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// How a run ended that this coordinator has no events of.
    async fn past(&self, caller: &Caller, run: &str) -> soup_core::Result<Event> {
        let _turn = self.turn().await?;
        let fold = match self.state.read(run).await {
            Ok((fold, _)) => fold,
            // One that there is not is answered as one that is another's.
            Err(error) if error.kind() == ErrorKind::Usage => return Err(unknown(run)),
            // Whose it is cannot be read either.
            Err(error) if !caller.may_touch(None) && !error.kind().is_transient() => {
                tracing::warn!(run, error = error.chain(), "denied: nobody knows whose run it is");
                return Err(unknown(run));
            }
            Err(error) => return Err(error),
        };
        allow(caller, "watch", run, caller.may_touch(client(&fold)))?;
        Ok(match (fold.state, fold.report, fold.failure) {
            (RunState::Published, Some(report), _) => Event::FinishedJson(report.to_string()),
            (RunState::Failed, _, Some((code, text))) => {
                Event::Failed((&Error::new(ErrorKind::from_exit_code(code), text)).into())
            }
            (RunState::Cancelled, ..) => Event::Failed((&Error::cancelled("the run was cancelled")).into()),
            _ => return Err(Error::try_again(format!("run {run} is not with this coordinator"))),
        })
    }
}

/// All that a worker is told, each when it has read what came before, and large things when there is room for them. Until that ends, it has
/// its place.
fn down_to(
    hub: Handle,
    worker: WorkerId,
    down: mpsc::Receiver<Told>,
    place: Place,
) -> impl Stream<Item = Result<CoordinatorMessage, Status>> + Send {
    let start = (down, None::<OwnedSemaphorePermit>);
    futures::stream::unfold(start, move |(mut down, under_way)| {
        // It has read that.
        drop(under_way);
        let (hub, waiting) = (hub.clone(), place.waiting());
        async move {
            loop {
                let told = down.recv().await?;
                // Before it is put into words: those take memory, too.
                let room = waiting.unread(messages::weight(&told)).await;
                let Some(message) = tell(hub.clone(), worker, told).await else { continue };
                let bytes = message.as_ref().map_or(0, message_bytes);
                let room = if room.is_some() { room } else { waiting.unread(bytes).await };
                return Some((message, (down, room)));
            }
        }
    })
}

/// What a worker is told; nothing where that is a task which is too large to be told, at which it has failed then.
async fn tell(hub: Handle, worker: WorkerId, told: Told) -> Option<Result<CoordinatorMessage, Status>> {
    match messages::sendable(messages::told(told), CONTROL_BYTES_MAX) {
        Ok(message) => Some(Ok(message)),
        Err((attempt, error)) => {
            // Where the hub is gone, so is the task.
            let _ = hub.said(worker, Said::Failed(attempt, error, None), None).await;
            None
        }
    }
}

/// A list of these as JSON, where it is no more than a reply may have.
fn json<T: serde::Serialize>(what: &str, list: &[T]) -> Result<String, Status> {
    let json = serde_json::to_string(list).map_err(|e| {
        status_of(&Error::internal(format!("{what} could not be written as JSON")).with_source(e))
    })?;
    within(what, json, JSON_BYTES_MAX).map_err(|e| status_of(&e))
}

/// Refuses a list that is too large for a reply: it is so the next time, too.
fn within(what: &str, json: String, bytes_max: usize) -> soup_core::Result<String> {
    if json.len() <= bytes_max {
        return Ok(json);
    }
    let instead = match what {
        RUNS => ": soupctl runs --state-url reads them from the state",
        _ => "",
    };
    Err(Error::configuration(format!(
        "the list of {what} has {} bytes, and a reply at most {bytes_max}{instead}",
        json.len()
    )))
}

/// Who sent a request: behind the gate everybody is somebody.
fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or(Caller::Anybody)
}

/// Who asked for a run, by its log.
fn client(fold: &Fold) -> Option<&str> {
    fold.operation.as_ref().and_then(|operation| operation.client.as_deref())
}

/// What is said of a run that there is not, and of one that is another's.
pub(crate) fn unknown(run: &str) -> Error {
    Error::usage(format!("this coordinator knows no run {run:?}"))
}

/// Refuses what is not the caller's, in the words that are for what there is not.
fn allow(caller: &Caller, what: &str, run: &str, may: bool) -> soup_core::Result<()> {
    if may {
        return Ok(());
    }
    tracing::warn!(?caller, what, run, "denied: it is no run of theirs, or there is none");
    Err(unknown(run))
}

/// Refuses a worker that wants its peers to look for it where it has no business to be.
fn is_there(peer: Option<&Peer>, newcomer: &Newcomer) -> soup_core::Result<()> {
    let Some(peer) = peer else { return Ok(()) };
    let address = &*newcomer.address;
    let url = address.parse::<Uri>().map_err(|e| {
        Error::usage(format!("address {address:?} of worker {:?} is no URL", newcomer.name)).with_source(e)
    })?;
    let scheme = if peer.member.is_some() { "https" } else { "http" };
    let host = url.host().unwrap_or_default();
    if url.scheme_str() == Some(scheme) && peer.may_be_at(host) {
        return Ok(());
    }
    tracing::warn!(worker = newcomer.name, address, from = %peer.address, "denied: peers would not find that worker there");
    Err(Error::configuration(format!(
        "worker {:?} says that peers reach it at {address}, and that has to be {scheme}://HOST:PORT with a host of its certificate, or the \
         address that it connects from if that names none: give another --advertise or another certificate",
        newcomer.name
    )))
}

/// Refuses a run with places in memory: each of several processes has its own, so what one writes there no other one finds.
fn refuse_memory(spec: &RunSpec) -> soup_core::Result<()> {
    let sets = spec.datasets().map(|set| &set.url);
    let mut places = spec.pool.iter().chain(sets).chain(&spec.diagnosis.base).chain([&spec.output]);
    let in_memory = |url: &&String| {
        url.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("memory"))
    };
    match places.find(in_memory) {
        Some(url) => Err(Error::usage(format!(
            "{url} is in the memory of one process, and a cluster has several: name a place on storage that all of them share"
        ))),
        None => Ok(()),
    }
}

/// Something that no other run has.
fn nonce() -> String {
    format!("{}-{}", chrono::Utc::now().format("%Y%m%dT%H%M%S"), fresh::name())
}

/// Which run is meant: one of its own, or that of this id where there is one.
fn meant(fresh: bool, named: NamedRun) -> soup_core::Result<Meant> {
    match (fresh, named.run.is_empty()) {
        (true, true) => Ok(Meant::Fresh(nonce())),
        (true, false) => Err(Error::usage(format!(
            "a run of its own is asked for, and run {:?} too: give one of them",
            named.run
        ))),
        (false, true) => Ok(Meant::Any),
        (false, false) => Ok(Meant::Run(named)),
    }
}

/// A worker's first message, which has to introduce it.
async fn first_message(up: &mut Streaming<WorkerMessage>) -> Result<Register, Status> {
    let register = match up.message().await? {
        Some(WorkerMessage { message: Some(worker_message::Message::Register(register)) }) => register,
        _ => return Err(status_of(&Error::usage("a worker's first message has to register it"))),
    };
    check_protocol(&format!("worker {:?}", register.name), &register.version, register.protocol)?;
    Ok(register)
}

/// Whether `who`, of `version`, means what this coordinator understands.
fn check_protocol(who: &str, version: &str, protocol: u32) -> Result<(), Status> {
    if protocol == PROTOCOL_VERSION {
        return Ok(());
    }
    Err(status_of(&Error::configuration(format!(
        "{who} (version {version:.64}) speaks protocol {protocol}, this coordinator (version {}) protocol {PROTOCOL_VERSION}: start the \
         same version",
        env!("CARGO_PKG_VERSION")
    ))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_no_reply_can_have_is_refused_for_good() {
        assert_eq!(within(RUNS, "[1, 2]".to_owned(), 6).unwrap(), "[1, 2]");
        let error = within(RUNS, "[1, 2, 3]".to_owned(), 6).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert_eq!(
            error.chain(),
            "the list of runs has 9 bytes, and a reply at most 6: soupctl runs --state-url reads them from the state"
        );
        // One that fits always has room when nobody else's is unread.
        const { assert!(JSON_BYTES_MAX <= REPLIES_BYTES_MAX) };
    }
}
