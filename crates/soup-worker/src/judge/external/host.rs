//! A judge that this worker has: reached or started when the worker begins, and again whenever it fails.
//!
//! There is one call at a time: whoever wants to ask takes the *seat*. What a judge does that it must not (silence, an answer that
//! cannot be) is a *fault*: the connection is given up, the process is ended, and the next one who takes the seat waits a moment, then
//! reaches the judge again. Each time it was reached it has another *incarnation*, which knows nothing of what was loaded before.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, OnceLock, PoisonError};
use std::time::Duration;

use soup_core::{Error, ErrorKind, Result};
use soup_proto::judge_v1::judge_client::JudgeClient;
use soup_proto::judge_v1::{DescribeRequest, Progress, ReleaseRequest};
use soup_proto::{JUDGE_BYTES_MAX, JUDGE_PROTOCOL_VERSION};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};

use super::answers::{self, About, plain};
use super::folder::{Folder, Handed};
use super::process::{Pid, Process, Signal};
use soup_trust::Connect;

/// How long a judge may take until it serves: frameworks are imported, often from slow disks.
const START: Duration = Duration::from_secs(300);
/// From when on it is said that it is waited for.
const WORTH_SAYING: Duration = Duration::from_secs(10);
/// How often it is tried meanwhile.
const TRY_EVERY: Duration = Duration::from_millis(50);
/// Wait before a judge that failed is reached again; doubles with each failure in a row.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long a judge may take to let go of a soup.
const RELEASE: Duration = Duration::from_secs(10);
/// For so many times what it may be silent a judge may say that it is still at one thing.
const PROGRESS_MAX: u32 = 60;
/// Longest path of a socket that systems take.
const SOCKET_PATH_MAX: usize = 100;

/// Where a judge is.
#[derive(Clone)]
pub enum Source {
    /// The worker starts it, by the shell.
    Command(String),
    /// Somebody else starts it: at an address such as `unix:/run/judge.sock`, on this network.
    At(Arc<dyn Connect>, String),
}

/// A judge that a worker is to have.
#[derive(Clone)]
pub struct JudgeConfig {
    /// Its name in runs.
    pub name: String,
    /// Where it is.
    pub source: Source,
    /// How long it may say nothing while it is asked.
    pub silence: Duration,
}

/// See the module.
pub(crate) struct Host {
    config: JudgeConfig,
    socket: PathBuf,
    pub(super) folder: Arc<Folder>,
    about: OnceLock<About>,
    state: Mutex<State>,
    /// What is done with it beside whatever it is asked.
    beside: SyncMutex<Option<Beside>>,
    /// Soups that were handed over, of all runs.
    generations: AtomicU64,
    /// The last incarnation that did not let go of a soup.
    clings: AtomicU64,
    /// Soups that it is letting go.
    releasing: watch::Sender<usize>,
}

/// What there is, for whoever has no seat.
#[derive(Clone)]
struct Beside {
    incarnation: u64,
    client: JudgeClient<Channel>,
    /// Its process group, where it is this worker's.
    group: Option<Pid>,
}

struct State {
    live: Option<Live>,
    /// Whether it is asked something. Where that is so when somebody takes the seat, whoever asked has gone away in the middle, and it
    /// may still be at that.
    asked: AtomicBool,
    /// How often it was reached.
    incarnation: u64,
    /// Failures since it last answered.
    failures: u32,
    not_before: Instant,
}

struct Live {
    client: JudgeClient<Channel>,
    process: Option<Process>,
    /// Who has opened it, and as which session.
    session: Option<(String, String)>,
}

impl Host {
    /// Reaches the judge, and asks who it is. `nth` tells the judges of a worker apart.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) where it does not come up, saying what it printed last.
    pub(crate) async fn start(config: JudgeConfig, folder: Arc<Folder>, nth: usize) -> Result<Host> {
        let socket = folder.path().join(format!("{nth}.sock"));
        if matches!(config.source, Source::Command(_)) && socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(Error::configuration(format!(
                "{} is too long for a socket: name a shorter folder with --judge-dir",
                socket.display()
            )));
        }
        let state = State {
            live: None,
            asked: AtomicBool::new(false),
            incarnation: 0,
            failures: 0,
            not_before: Instant::now(),
        };
        let host = Host {
            config,
            socket,
            folder,
            about: OnceLock::new(),
            state: Mutex::new(state),
            beside: SyncMutex::default(),
            generations: AtomicU64::new(0),
            clings: AtomicU64::new(0),
            releasing: watch::Sender::new(0),
        };
        drop(host.seat().await?);
        Ok(host)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    /// Who it is.
    pub(crate) fn about(&self) -> &About {
        // It was asked when this was made.
        self.about.get_or_init(|| unreachable!("a judge is asked who it is when it is reached first"))
    }

    /// The turn to ask it; it is there then.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) where it cannot be reached.
    pub(super) async fn seat(&self) -> Result<Seat<'_>> {
        let mut state = self.state.lock().await;
        let clings = state.incarnation > 0 && state.incarnation == self.clings.load(Ordering::Relaxed);
        let ended = |live: &Live| clings || live.process.as_ref().is_some_and(Process::ended);
        if let Some(live) = state.live.take_if(|live| ended(live)) {
            let how = if clings { "does not let go of a soup" } else { "has ended" };
            tracing::warn!(judge = self.name(), "the judge {how}{}", live.last_words());
            live.end().await;
        }
        if state.live.is_none() {
            tokio::time::sleep_until(state.not_before).await;
            match self.reach().await {
                Ok(live) => {
                    state.incarnation += 1;
                    state.asked.store(false, Ordering::Relaxed);
                    let beside = Beside {
                        incarnation: state.incarnation,
                        client: live.client.clone(),
                        group: live.process.as_ref().map(Process::group),
                    };
                    *self.beside.lock().unwrap_or_else(PoisonError::into_inner) = Some(beside);
                    state.live = Some(live);
                }
                Err(error) => {
                    state.failed();
                    return Err(error.context(format!("judge {}", self.name())));
                }
            }
        }
        let abandoned = AtomicBool::new(state.asked.load(Ordering::Relaxed));
        Ok(Seat { host: self, state, abandoned })
    }

    fn beside(&self) -> Option<Beside> {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of the next soup that is handed over.
    pub(super) fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Ends it, where that is this worker's: nobody asks it any more.
    pub(crate) async fn stop(&self) {
        match tokio::time::timeout(RELEASE, self.state.lock()).await {
            Ok(mut state) => {
                state.not_before = Instant::now() + START;
                if let Some(live) = state.live.take() {
                    live.end().await;
                }
            }
            // Somebody asks it still: that gets no answer any more.
            Err(_) => {
                if let Some(group) = self.beside().and_then(|beside| beside.group) {
                    let _ = rustix::process::kill_process_group(group, Signal::KILL);
                }
            }
        }
        self.folder.remove();
    }

    /// Has it let go of what it loaded in that incarnation, beside whatever it is asked meanwhile. The file goes to `released` where
    /// it has said that it did, and else goes.
    pub(super) fn release(
        self: &Arc<Self>,
        incarnation: u64,
        of: ReleaseRequest,
        file: Arc<Handed>,
        released: impl FnOnce(Arc<Handed>) + Send + 'static,
    ) {
        // Where there is no runtime any more, all of it is about to go.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        self.releasing.send_modify(|n| *n += 1);
        let host = self.clone();
        runtime.spawn(async move {
            if let Some(Beside { mut client, .. }) = host.beside().filter(|b| b.incarnation == incarnation) {
                let patience = RELEASE.max(host.config.silence);
                match tokio::time::timeout(patience, client.release(of)).await {
                    Ok(Ok(_)) => released(file),
                    // It may have the soup still: whoever asks it next gives it up.
                    _ => host.clings.store(incarnation, Ordering::Relaxed),
                }
            }
            host.releasing.send_modify(|n| *n -= 1);
        });
    }

    /// Waits until it has let go of all that it was to let go.
    pub(super) async fn all_released(&self) {
        // The sender is here, so that there is no error.
        let _ = self.releasing.subscribe().wait_for(|n| *n == 0).await;
    }

    /// Starts it, where that is this worker's, and connects.
    async fn reach(&self) -> Result<Live> {
        let (process, address, connect) = match &self.config.source {
            Source::At(connect, address) => (None, address.clone(), connect.clone()),
            Source::Command(command) => {
                // What an earlier one left is in the way.
                let _ = std::fs::remove_file(&self.socket);
                let process = Process::start(self.name(), command, &self.socket)?;
                let address = format!("unix:{}", self.socket.display());
                (Some(process), address, Arc::new(crate::Tcp) as Arc<dyn Connect>)
            }
        };
        let endpoint = Endpoint::from_shared(address.clone()).map_err(|e| {
            Error::usage(format!("{address:?} is no address of a judge: unix:/path/of/socket is"))
                .with_source(e)
        })?;
        let (begun, mut told) = (Instant::now(), false);
        let channel = loop {
            let error = match connect.connect(&endpoint).await {
                Ok(channel) => break channel,
                Err(error) => error,
            };
            if let Some(process) = process.as_ref().filter(|p| p.ended()) {
                // What it said may still be on its way.
                tokio::time::sleep(TRY_EVERY).await;
                let words = process.last_words();
                return Err(Error::unavailable(format!("its command has ended before it served; {words}")));
            }
            if !told && begun.elapsed() >= WORTH_SAYING {
                told = true;
                tracing::warn!(judge = self.name(), "waiting for a judge to serve at {address}");
            }
            if begun.elapsed() >= START {
                let text = format!("nobody serves at {address} for {} s", START.as_secs());
                return Err(Error::unavailable(text).with_source(error));
            }
            tokio::time::sleep(TRY_EVERY).await;
        };
        let client = JudgeClient::new(channel)
            .max_decoding_message_size(JUDGE_BYTES_MAX)
            .max_encoding_message_size(JUDGE_BYTES_MAX);
        let mut live = Live { client, process, session: None };
        self.describe(&mut live).await?;
        Ok(live)
    }

    /// Asks who it is; that must not change.
    async fn describe(&self, live: &mut Live) -> Result<()> {
        let request = DescribeRequest { protocol: JUDGE_PROTOCOL_VERSION };
        let answer = tokio::time::timeout(START, live.client.describe(request)).await;
        let answer = answer.map_err(|_| Error::unavailable("it does not say who it is"))?;
        let said = answer.map_err(|s| error_of(&s, &live.last_words()))?.into_inner();
        let about = answers::about(self.name(), said)?;
        let before = self.about.get_or_init(|| about.clone());
        match *before == about {
            true => Ok(()),
            false => Err(Error::configuration(format!(
                "it was {} and is {} since it was started again: start the worker again too",
                before.offer.id, about.offer.id
            ))),
        }
    }
}

impl State {
    fn failed(&mut self) {
        let wait = RETRY_MIN.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        self.failures += 1;
        self.not_before = Instant::now() + wait;
    }
}

impl Live {
    fn last_words(&self) -> String {
        self.process.as_ref().map_or_else(String::new, |p| format!("; {}", p.last_words()))
    }

    async fn end(self) {
        drop(self.client);
        if let Some(process) = self.process {
            process.stop().await;
        }
    }
}

/// The turn to ask a judge.
pub(super) struct Seat<'a> {
    host: &'a Host,
    state: MutexGuard<'a, State>,
    /// Whether somebody has gone away in the middle of an answer, and this is not answered yet.
    abandoned: AtomicBool,
}

impl Seat<'_> {
    /// Which incarnation this is.
    pub(super) fn incarnation(&self) -> u64 {
        self.state.incarnation
    }

    /// The session that it has open, where that is of `id`.
    pub(super) fn session_of(&self, id: &str) -> Option<String> {
        let (of, session) = self.state.live.as_ref()?.session.as_ref()?;
        (of == id).then(|| session.clone())
    }

    /// Notes what it has open: whose session, and which.
    pub(super) fn opened(&mut self, session: Option<(String, String)>) {
        if let Some(live) = &mut self.state.live {
            live.session = session;
        }
    }

    /// A client; clones share the connection.
    pub(super) fn client(&self) -> Result<JudgeClient<Channel>> {
        let live = self.state.live.as_ref().ok_or_else(|| Error::try_again("the judge was given up"))?;
        Ok(live.client.clone())
    }

    /// Awaits the begin of an answer.
    ///
    /// # Errors
    /// The judge's; silence.
    pub(super) async fn begun<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<Response<Streaming<T>>, Status>>,
    ) -> Result<Streaming<T>> {
        self.state.asked.store(true, Ordering::Relaxed);
        let answer = tokio::time::timeout(self.patience(), call).await;
        Ok(answer.map_err(|_| self.silent(what))?.map_err(|s| self.error(&s))?.into_inner())
    }

    /// How long it may say nothing now: after somebody went away it may first end what that one had asked.
    fn patience(&self) -> Duration {
        self.host.config.silence * if self.abandoned.load(Ordering::Relaxed) { 2 } else { 1 }
    }

    /// Awaits the next message that is not only about progress; `None` at the end.
    ///
    /// # Errors
    /// The judge's; silence.
    pub(super) async fn next<T, M>(
        &self,
        what: &str,
        stream: &mut Streaming<T>,
        split: impl Fn(T) -> std::result::Result<M, Progress>,
    ) -> Result<Option<M>> {
        let begun = Instant::now();
        loop {
            let next = tokio::time::timeout(self.patience(), stream.message()).await;
            let next = next.map_err(|_| self.silent(what))?.map_err(|s| self.error(&s))?;
            self.abandoned.store(false, Ordering::Relaxed);
            if begun.elapsed() > self.host.config.silence * PROGRESS_MAX {
                let seconds = begun.elapsed().as_secs();
                return Err(answers::wrong(format!(
                    "says for {seconds} s that it is still at it, asked to {what}"
                )));
            }
            match next.map(&split) {
                None => return Ok(None),
                Some(Ok(message)) => return Ok(Some(message)),
                Some(Err(progress)) if progress.what.is_empty() => {}
                Some(Err(progress)) => {
                    tracing::info!(judge = self.host.name(), "{}", plain(&progress.what));
                }
            }
        }
    }

    /// Takes the outcome of a conversation: what was wrong with it, or the judge, is said with the judge's name, and a judge at fault is
    /// given up.
    ///
    /// # Errors
    /// That of `result`.
    pub(super) async fn settle<T>(mut self, result: Result<T>) -> Result<T> {
        let error = match result {
            Ok(value) => {
                self.state.failures = 0;
                self.state.asked.store(false, Ordering::Relaxed);
                return Ok(value);
            }
            Err(error) => error,
        };
        match error.kind() {
            // The run asks for what cannot be done; the judge is well.
            ErrorKind::Data | ErrorKind::Usage | ErrorKind::Configuration | ErrorKind::Cancelled => {}
            _ => {
                tracing::warn!(judge = self.host.name(), error = error.chain(), "the judge is given up");
                self.state.failed();
                if let Some(live) = self.state.live.take() {
                    live.end().await;
                }
            }
        }
        Err(error.context(format!("judge {}", self.host.name())))
    }

    fn silent(&self, what: &str) -> Error {
        let seconds = self.patience().as_secs_f64();
        if self.abandoned.load(Ordering::Relaxed) {
            let text =
                format!("it said nothing for {seconds} s after it was left in the middle of something");
            return Error::try_again(text);
        }
        answers::wrong(format!("said nothing for {seconds} s while it was to {what} (--judge-timeout)"))
    }

    fn error(&self, status: &Status) -> Error {
        error_of(status, &self.state.live.as_ref().map_or_else(String::new, Live::last_words))
    }
}

/// What a status of a judge says. See the protocol.
fn error_of(status: &Status, last_words: &str) -> Error {
    let text = plain(status.message());
    // One that has a cause was not sent by the judge: the connection broke.
    let broken = std::error::Error::source(status).is_some() || status.code() == Code::Unavailable;
    match status.code() {
        _ if broken => {
            let why = plain(&soup_proto::error_of(status).chain());
            Error::try_again(format!("it has died, or its connection broke: {why}{last_words}"))
        }
        Code::InvalidArgument => Error::data(text),
        Code::FailedPrecondition => {
            Error::try_again(format!("it does not know what it was asked about: {text}"))
        }
        Code::Cancelled => Error::try_again(format!("it cancelled what it was asked: {text}")),
        _ => Error::internal(format!("it failed: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_breaks_says_why() {
        let mut status = Status::unknown("h2 protocol error");
        status.set_source(Arc::new(std::io::Error::other("connection reset by peer")));
        let error = error_of(&status, "; it said nothing");
        assert_eq!(error.kind(), ErrorKind::TryAgain);
        assert_eq!(
            error.chain(),
            "it has died, or its connection broke: h2 protocol error: connection reset by peer; it said nothing"
        );
        // What it says itself is no matter of the connection.
        let error = error_of(&Status::internal("no memory"), "");
        assert_eq!((error.kind(), error.chain()), (ErrorKind::Internal, "it failed: no memory".to_owned()));
    }
}
