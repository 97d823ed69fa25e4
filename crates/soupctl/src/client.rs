//! A client of a coordinator: submits a run, watches it to its end, cancels it on request.

use std::time::{Duration, Instant};

use soup_core::run::RunSpec;
use soup_core::{Error, ErrorKind, Result};
use soup_proto::v1::coordinator_client::CoordinatorClient;
use soup_proto::v1::run_event::Event;
use soup_proto::v1::{
    CancelRequest, JudgesRequest, ListRequest, ProbeRequest, RunEvent, SubmitRequest, WatchRequest,
};
use soup_proto::{CONTROL_BYTES_MAX, PROTOCOL_VERSION, error_of, no_http2};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};

use crate::choices::OnInterrupt;
use crate::progress::Progress;
use crate::signals::{Request, StopSignals};
use crate::trust::TrustArgs;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long submitting and cancelling may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that says nothing for so long is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How long a coordinator may take to read a pool and to open its run.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a coordinator that is gone is waited for, and how often it is looked for.
const LOST_PATIENCE: Duration = Duration::from_secs(300);
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What is asked for.
pub(crate) struct Ask<'a> {
    pub(crate) spec: &'a RunSpec,
    /// As a run of its own.
    pub(crate) fresh: bool,
    /// As this run, and no other.
    pub(crate) run: Option<&'a str>,
    pub(crate) on_interrupt: OnInterrupt,
}

/// How a stream of events ended.
enum Followed {
    /// With the run's result.
    Finished(String),
    /// Before the run did, for this reason.
    Lost(Error),
}

/// A connection to a coordinator.
pub(crate) struct Client {
    url: String,
    embedded: bool,
    coordinator: CoordinatorClient<Channel>,
}

impl Client {
    /// Connects to a coordinator, `HOST:PORT` or a URL.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](ErrorKind::Unavailable) where nobody answers; those of the credentials.
    pub(crate) async fn connect(coordinator: &str, trust: &TrustArgs) -> Result<Client> {
        let url = trust.url(coordinator)?;
        let channel = trust.connect(&url, &endpoint(&url)?).await?;
        Ok(Client::over(channel, &url, false))
    }

    /// Connects to this process's own cluster, on its own network: when that is lost, nothing comes back.
    ///
    /// # Errors
    /// As for [`connect`](Client::connect).
    pub(crate) async fn embedded(url: &str, network: &dyn soup_trust::Connect) -> Result<Client> {
        let channel = network.connect(&endpoint(url)?).await.map_err(|e| unreachable(url, e))?;
        Ok(Client::over(channel, url, true))
    }

    fn over(channel: Channel, url: &str, embedded: bool) -> Client {
        let coordinator = CoordinatorClient::new(channel)
            .max_decoding_message_size(CONTROL_BYTES_MAX)
            .max_encoding_message_size(CONTROL_BYTES_MAX);
        Client { url: url.to_owned(), embedded, coordinator }
    }

    /// Submits a run, shows its events and returns its result, the JSON document.
    ///
    /// # Errors
    /// The run's own failure; [`ErrorKind::Cancelled`](ErrorKind::Cancelled) on request; [`ErrorKind::TryAgain`](ErrorKind::TryAgain) where this process is told to
    /// end while the run goes on; [`ErrorKind::Unavailable`](ErrorKind::Unavailable) where the coordinator is lost.
    pub(crate) async fn cook(
        &mut self,
        ask: &Ask<'_>,
        progress: &mut Progress,
        signals: &mut StopSignals,
    ) -> Result<String> {
        let begun = Instant::now();
        let run = loop {
            let submit = SubmitRequest {
                spec: Some(ask.spec.clone().into()),
                fresh: ask.fresh,
                run: ask.run.unwrap_or_default().to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                protocol: PROTOCOL_VERSION,
            };
            let submitted = tokio::select! {
                answer = tokio::time::timeout(SUBMIT_TIMEOUT, self.coordinator.submit(submit)) => answer,
                _ = signals.next() => return Err(Error::cancelled("interrupted before the run was submitted")),
            };
            let submitted = submitted.map_err(|_| self.silent())?;
            let hopeless = submitted.as_ref().is_err_and(no_http2);
            match submitted.map_err(|s| self.error(&s)) {
                Ok(answer) => break answer.into_inner().run,
                Err(e) if hopeless => return Err(e),
                // Asking twice for the same run is asking once, unless it is to be a run of its own.
                Err(e) if e.kind() == ErrorKind::Unavailable && !ask.fresh && !self.embedded => {
                    if begun.elapsed() >= LOST_PATIENCE {
                        return Err(e);
                    }
                    progress.line(&format!("trying again: {}", e.chain()));
                    tokio::time::sleep(2 * RETRY_PAUSE).await;
                }
                Err(e) => return Err(e),
            }
        };
        progress.line(&format!("run {run}"));
        self.watch(&run, ask.on_interrupt, progress, signals).await
    }

    /// Shows the events of a run and returns its result. The first Ctrl-C cancels the run and waits for its end, or
    /// leaves it alone, as asked; the second one does not wait. A coordinator that is lost is waited for.
    ///
    /// # Errors
    /// As for [`cook`](Client::cook).
    pub(crate) async fn watch(
        &mut self,
        run: &str,
        on_interrupt: OnInterrupt,
        progress: &mut Progress,
        signals: &mut StopSignals,
    ) -> Result<String> {
        let mut cancelled = false;
        let mut lost: Option<Instant> = None;
        let result = loop {
            let request = WatchRequest { run: run.to_owned() };
            let mut events = match self.coordinator.watch(request).await.map_err(|s| error_of(&s)) {
                Ok(events) => events.into_inner(),
                Err(e) if e.kind().is_transient() && !self.embedded => {
                    if lost.get_or_insert_with(Instant::now).elapsed() >= LOST_PATIENCE {
                        break Err(self.lost(run, &e));
                    }
                    tokio::select! {
                        () = tokio::time::sleep(RETRY_PAUSE) => continue,
                        _ = signals.next() => break Err(self.lost(run, &e)),
                    }
                }
                Err(e) => break Err(e),
            };
            let watched =
                self.follow(run, &mut events, (&mut cancelled, on_interrupt), progress, signals).await;
            match watched {
                Ok(Followed::Finished(json)) => break Ok(json),
                Ok(Followed::Lost(why)) if self.embedded => {
                    // Its failure says more; it is about to be told.
                    tokio::time::sleep(RETRY_PAUSE).await;
                    break Err(self.lost(run, &why));
                }
                Ok(Followed::Lost(why)) => {
                    if lost.is_none() {
                        progress.line(&format!("the coordinator is gone ({}); waiting for it", why.chain()));
                    }
                    lost = Some(Instant::now());
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(e) => break Err(e),
            }
        };
        progress.end();
        result
    }

    /// Shows events until the run or the stream ends.
    async fn follow(
        &mut self,
        run: &str,
        events: &mut Streaming<RunEvent>,
        (cancelled, on_interrupt): (&mut bool, OnInterrupt),
        progress: &mut Progress,
        signals: &mut StopSignals,
    ) -> Result<Followed> {
        loop {
            let message = tokio::select! {
                message = events.message() => message,
                request = signals.next() => {
                    if std::mem::replace(cancelled, true) {
                        return Err(Error::cancelled(format!("interrupted twice: run {run} was left as it was")));
                    }
                    self.stop(run, request, on_interrupt, progress).await?;
                    continue;
                }
            };
            match message {
                Ok(Some(RunEvent { event: Some(Event::FinishedJson(json)) })) => {
                    return Ok(Followed::Finished(json));
                }
                Ok(Some(RunEvent { event: Some(Event::Failed(failure)) })) => return Err(failure.into()),
                Ok(Some(RunEvent { event: Some(event) })) => progress.event(&event),
                // An event of a newer coordinator.
                Ok(Some(RunEvent { event: None })) => {}
                Ok(None) => return Ok(Followed::Lost(Error::unavailable("it ended the stream of events"))),
                Err(status) => return Ok(Followed::Lost(error_of(&status))),
            }
        }
    }

    /// Does what a request to stop asks for; an error ends the watching.
    async fn stop(
        &mut self,
        run: &str,
        request: Request,
        on_interrupt: OnInterrupt,
        progress: &Progress,
    ) -> Result<()> {
        let goes_on =
            format!("run {run} goes on: watch it with soupctl watch {run} --coordinator {}", self.url);
        match (request, self.embedded) {
            (Request::Terminate, true) => {
                Err(Error::try_again(format!("told to end: the same command goes on with run {run}")))
            }
            (Request::Terminate, false) => Err(Error::try_again(format!("told to end; {goes_on}"))),
            (Request::Interrupt, false) if on_interrupt == OnInterrupt::Detach => {
                Err(Error::cancelled(format!("detached; {goes_on}")))
            }
            (Request::Interrupt, _) => {
                progress.line("stopping the run; interrupt again to leave it at once");
                // Where that fails there is nothing to wait for either, and to stop is what was asked for.
                self.cancel(run).await.map_err(|error| {
                    let why = error.chain();
                    Error::cancelled(format!("interrupted; run {run} could not be cancelled: {why}"))
                })
            }
        }
    }

    /// The judges that the coordinator's workers have, as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](ErrorKind::Unavailable) where it does not answer; its own.
    pub(crate) async fn judges(&self) -> Result<String> {
        let mut coordinator = self.coordinator.clone();
        Ok(self.answer(coordinator.judges(JudgesRequest {})).await?.into_inner().judges_json)
    }

    /// The workers of the coordinator and who of them reaches whom, as JSON; and by how many seconds this host's clock is ahead of its, where
    /// it says what time it is.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](ErrorKind::Unavailable) where it does not answer; its own.
    pub(crate) async fn probe(&self) -> Result<(String, Option<i64>)> {
        let mut coordinator = self.coordinator.clone();
        let answer = self.answer(coordinator.probe(ProbeRequest {})).await?;
        let theirs = answer.metadata().get("date").and_then(|date| date.to_str().ok());
        let theirs = theirs.and_then(|date| chrono::DateTime::parse_from_rfc2822(date).ok());
        let ahead = theirs.map(|theirs| (chrono::Utc::now() - theirs.to_utc()).num_seconds());
        Ok((answer.into_inner().workers_json, ahead))
    }

    /// All runs of the coordinator, as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](ErrorKind::Unavailable) where it does not answer; its own.
    pub(crate) async fn list(&self) -> Result<String> {
        let mut coordinator = self.coordinator.clone();
        Ok(self.answer(coordinator.list(ListRequest {})).await?.into_inner().runs_json)
    }

    /// What the coordinator answers to a question, if it does in time.
    async fn answer<T>(
        &self,
        asked: impl Future<Output = std::result::Result<Response<T>, Status>>,
    ) -> Result<Response<T>> {
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, asked).await.map_err(|_| self.silent())?;
        answer.map_err(|s| self.error(&s))
    }

    /// Cancels a run.
    ///
    /// # Errors
    /// Those of the coordinator.
    pub(crate) async fn cancel(&mut self, run: &str) -> Result<()> {
        let cancel = self.coordinator.cancel(CancelRequest { run: run.to_owned() });
        match tokio::time::timeout(REQUEST_TIMEOUT, cancel).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(self.error(&status)),
            Err(_) => Err(self.silent()),
        }
    }

    /// What a status says; where it is not the coordinator's word, with its address.
    fn error(&self, status: &Status) -> Error {
        let error = error_of(status);
        match std::error::Error::source(status) {
            // One with TLS tells nobody without it what is wrong.
            Some(_) if self.url.starts_with("http://") => {
                error.context(format!("the coordinator at {}, asked without --tls or --token-file", self.url))
            }
            Some(_) => error.context(format!("the coordinator at {}", self.url)),
            None => error,
        }
    }

    fn silent(&self) -> Error {
        let seconds = REQUEST_TIMEOUT.as_secs();
        Error::unavailable(format!("the coordinator at {} did not answer within {seconds} s", self.url))
    }

    fn lost(&self, run: &str, why: &Error) -> Error {
        Error::new(
            why.kind(),
            format!("the coordinator at {} was lost during run {run}: {}", self.url, why.chain()),
        )
    }
}

/// What a coordinator says of its runs, its workers or their judges is in a form that this program does not know.
pub(crate) fn not_understood(url: &str, what: &str, why: serde_json::Error) -> Error {
    Error::internal(format!(
        "what the coordinator at {url} says of its {what} is not understood: is it of the version of this soupctl, {}?",
        env!("CARGO_PKG_VERSION")
    ))
    .with_source(why)
}

fn endpoint(url: &str) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|e| Error::usage(format!("coordinator {url:?} is not a URL")).with_source(e))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true))
}

fn unreachable(url: &str, why: tonic::transport::Error) -> Error {
    Error::unavailable(format!("the coordinator at {url} cannot be reached")).with_source(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_coordinator_says_in_another_form_is_told_with_who_says_it() {
        let why = serde_json::from_str::<u32>("[]").unwrap_err();
        let error = not_understood("http://h:1", "runs", why).chain();
        assert!(error.starts_with("what the coordinator at http://h:1 says of its runs is not"), "{error}");
        assert!(error.contains(env!("CARGO_PKG_VERSION")), "{error}");
    }

    #[tokio::test]
    async fn an_embedded_coordinator_that_is_gone_is_named() {
        let network = soup_trust::InProcess::default();
        let error = Client::embedded("mem://coordinator", &network).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.chain().contains("nobody listens at mem://coordinator"), "{}", error.chain());
    }
}
