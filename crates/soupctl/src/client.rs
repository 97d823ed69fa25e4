//! A client of a coordinator: submits a run, watches it to its end, cancels it on request.

use std::time::Duration;

use soup_core::run::RunSpec;
use soup_core::{Error, Result};
use soup_proto::v1::coordinator_client::CoordinatorClient;
use soup_proto::v1::run_event::Event;
use soup_proto::v1::{CancelRequest, RunEvent, SubmitRequest, WatchRequest};
use soup_proto::{CONTROL_BYTES_MAX, error_of};
use tonic::transport::{Channel, Endpoint};

use crate::progress::Progress;
use crate::signals::StopSignals;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long submitting and cancelling may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that says nothing for so long is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A connection to a coordinator.
pub(crate) struct Client {
    url: String,
    coordinator: CoordinatorClient<Channel>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](soup_core::ErrorKind::Unavailable) where nobody answers.
    pub(crate) async fn connect(url: &str) -> Result<Client> {
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|e| Error::usage(format!("coordinator {url:?} is not a URL")).with_source(e))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(|e| {
            Error::unavailable(format!("the coordinator at {url} cannot be reached")).with_source(e)
        })?;
        let coordinator = CoordinatorClient::new(channel)
            .max_decoding_message_size(CONTROL_BYTES_MAX)
            .max_encoding_message_size(CONTROL_BYTES_MAX);
        Ok(Client { url: url.to_owned(), coordinator })
    }

    /// Submits a run, shows its events and returns its result, the JSON document. The first request to stop cancels the
    /// run and waits for its end, the second one does not wait.
    ///
    /// # Errors
    /// The run's own failure; [`ErrorKind::Cancelled`](soup_core::ErrorKind::Cancelled) on request;
    /// [`ErrorKind::Unavailable`](soup_core::ErrorKind::Unavailable) where the coordinator is lost.
    pub(crate) async fn cook(
        &mut self,
        spec: &RunSpec,
        progress: &mut Progress,
        signals: &mut StopSignals,
    ) -> Result<String> {
        let submit = SubmitRequest { spec: Some(spec.clone().into()) };
        let submitted = tokio::select! {
            answer = tokio::time::timeout(REQUEST_TIMEOUT, self.coordinator.submit(submit)) => answer,
            () = signals.next() => return Err(Error::cancelled("interrupted before the run was submitted")),
        };
        let run = submitted.map_err(|_| self.silent())?.map_err(|s| error_of(&s))?.into_inner().run;
        progress.line(&format!("run {run}"));
        let result = self.watch(&run, progress, signals).await;
        progress.end();
        result
    }

    async fn watch(
        &mut self,
        run: &str,
        progress: &mut Progress,
        signals: &mut StopSignals,
    ) -> Result<String> {
        let request = WatchRequest { run: run.to_owned() };
        let mut events = self.coordinator.watch(request).await.map_err(|s| error_of(&s))?.into_inner();
        let mut cancelled = false;
        loop {
            let message = tokio::select! {
                message = events.message() => message,
                () = signals.next() => {
                    if std::mem::replace(&mut cancelled, true) {
                        return Err(Error::cancelled(format!("interrupted twice: run {run} was left as it was")));
                    }
                    progress.line("stopping the run; interrupt again to leave it at once");
                    self.cancel(run).await?;
                    continue;
                }
            };
            match message.map_err(|s| self.lost(run, &error_of(&s)))? {
                Some(RunEvent { event: Some(Event::FinishedJson(json)) }) => return Ok(json),
                Some(RunEvent { event: Some(Event::Failed(failure)) }) => return Err(failure.into()),
                Some(RunEvent { event: Some(event) }) => progress.event(&event),
                // An event of a newer coordinator.
                Some(RunEvent { event: None }) => {}
                None => return Err(self.lost(run, &Error::unavailable("it ended the stream of events"))),
            }
        }
    }

    /// Cancels a run. Where that fails, there is nothing to wait for either.
    async fn cancel(&mut self, run: &str) -> Result<()> {
        let cancel = self.coordinator.cancel(CancelRequest { run: run.to_owned() });
        match tokio::time::timeout(REQUEST_TIMEOUT, cancel).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => {
                let why = error_of(&status).chain();
                Err(Error::cancelled(format!("interrupted; run {run} could not be cancelled: {why}")))
            }
            Err(_) => Err(Error::cancelled(format!("interrupted; {}", self.silent()))),
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
