//! `soupctl k8s submit`: applies the objects of one cook, shows what its coordinator says, and ends as the run does.
//!
//! Applied is server-side, by the user's kubeconfig, and without force: what somebody else has made of the same name is theirs. The
//! cook is the cluster's from then on; this only looks, so that nothing is lost where it is stopped, and the same command goes on looking.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::api::{
    Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, LogParams, Patch, PatchParams, TypeMeta,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use soup_core::{Error, ErrorKind, Result};

use super::{RenderArgs, Rendered};
use crate::print;
use crate::signals::StopSignals;

/// Who the server knows the fields as, that are applied.
const MANAGER: &str = "soupctl";
/// The container that runs soupctl.
const CONTAINER: &str = "soup";
/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// How long the server may be away while a cook is followed.
const AWAY_MAX: Duration = Duration::from_secs(300);

/// Flags of `k8s submit`.
#[derive(Args, Debug)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub(super) render: RenderArgs,
    /// Context of the kubeconfig (KUBECONFIG, else ~/.kube/config) [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// Applies the objects and follows the cook.
///
/// # Errors
/// Those of the server, and where the cook cannot be followed to its end.
pub(super) async fn run(args: &SubmitArgs, rendered: &Rendered) -> Result<ExitCode> {
    let mut signals = StopSignals::new()?;
    let client = connect(args.context.as_deref()).await?;
    for object in &rendered.objects {
        apply(&client, object).await?;
    }
    let Rendered { name, namespace, .. } = rendered;
    let look = format!("kubectl -n {namespace} logs -f job/{name}-coordinator");
    print::line(&format!("cook {name} is in namespace {namespace}; to watch it elsewhere: {look}"));
    let mut following = Following::new(client, rendered);
    tokio::select! {
        code = following.until_it_ends() => Ok(ExitCode::from(code?)),
        request = signals.next() => {
            print::line(&format!("cook {name} goes on; to watch it: {look}, or the same command again"));
            Ok(request.exit_code())
        }
    }
}

async fn connect(context: Option<&str>) -> Result<Client> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let unusable = |e: kube::config::KubeconfigError| {
        Error::configuration("the kubeconfig cannot be used: KUBECONFIG names it, else it is ~/.kube/config")
            .with_source(e)
    };
    let config = match context {
        Some(_) => {
            let read = Kubeconfig::read().map_err(unusable)?;
            Config::from_custom_kubeconfig(read, &options).await.map_err(unusable)?
        }
        // In a pod it is the account's.
        None => Config::infer().await.map_err(|e| {
            let text = "there is neither a kubeconfig that can be used nor an account of a pod: KUBECONFIG names one";
            Error::configuration(text).with_source(e)
        })?,
    };
    Client::try_from(config).map_err(|e| failed("the API server's address", e))
}

/// Applies one object.
async fn apply(client: &Client, object: &Value) -> Result<()> {
    let part = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (kind, name, namespace) = (part("/kind"), part("/metadata/name"), part("/metadata/namespace"));
    let types = TypeMeta { api_version: part("/apiVersion").to_owned(), kind: kind.to_owned() };
    let about = format!("{kind} {name}");
    let known = GroupVersionKind::try_from(types)
        .map_err(|e| Error::internal(format!("{about} is of no kind")).with_source(e))?;
    let resource = ApiResource::from_gvk(&known);
    let api: Api<DynamicObject> = match namespace {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    match api.patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(object)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 422 && kind != "Namespace" => {
            Err(Error::usage(format!(
                "{about} is there and is another one, and cannot change: delete it, or give this cook another --name ({})",
                status.message
            )))
        }
        Err(kube::Error::Api(status)) if status.code == 403 && kind == "Namespace" => {
            Err(Error::configuration(format!(
                "{about} may not be made: --no-namespace leaves it out where it is there ({})",
                status.message
            )))
        }
        Err(error) => Err(failed(&format!("{about} cannot be applied"), error)),
    }
}

/// An error of the server as one of ours.
fn failed(about: &str, error: kube::Error) -> Error {
    let kind = match &error {
        kube::Error::Api(status) => match status.code {
            401 | 403 | 404 => ErrorKind::Configuration,
            400 | 409 | 422 => ErrorKind::Usage,
            _ => ErrorKind::Unavailable,
        },
        kube::Error::InferConfig(_) | kube::Error::RustlsTls(_) => ErrorKind::Configuration,
        _ => ErrorKind::Unavailable,
    };
    match error {
        // The text alone: everything else of the status repeats it.
        kube::Error::Api(status) => Error::new(kind, format!("{about}: {}", status.message)),
        error => Error::new(kind, about).with_source(error),
    }
}

/// What is known of a cook that is followed.
struct Following {
    name: String,
    jobs: Api<Job>,
    pods: Api<Pod>,
    /// Pods whose log was shown to its end.
    shown: BTreeSet<String>,
    /// What was said last about waiting.
    said: String,
}

impl Following {
    fn new(client: Client, rendered: &Rendered) -> Following {
        Following {
            name: rendered.name.clone(),
            jobs: Api::namespaced(client.clone(), &rendered.namespace),
            pods: Api::namespaced(client, &rendered.namespace),
            shown: BTreeSet::new(),
            said: String::new(),
        }
    }

    /// Shows what the coordinator says, and gives the run's exit code.
    async fn until_it_ends(&mut self) -> Result<u8> {
        let mut away: Option<Instant> = None;
        loop {
            match self.look().await {
                Ok(Some(code)) => return Ok(code),
                Ok(None) => away = None,
                Err(error) if error.kind() != ErrorKind::Unavailable => return Err(error),
                Err(error) => {
                    if away.get_or_insert_with(Instant::now).elapsed() > AWAY_MAX {
                        return Err(
                            error.context(format!("cook {} goes on, but cannot be followed", self.name))
                        );
                    }
                    self.say(&format!("the API server does not answer: {}", error.chain()));
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Looks once. Gives the exit code where there is one.
    async fn look(&mut self) -> Result<Option<u8>> {
        let name = format!("{}-coordinator", self.name);
        let about = format!("Job {name}");
        let job = self.jobs.get_opt(&name).await.map_err(|e| failed(&about, e))?;
        let job = job.ok_or_else(|| {
            Error::new(ErrorKind::Cancelled, format!("{about} was deleted, so that the cook ends"))
        })?;
        let labels = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
        let mut pods = self.pods.list(&labels).await.map_err(|e| failed(&about, e))?.items;
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        for pod in &pods {
            self.show(pod).await?;
        }
        let condition = |wanted: &str| {
            let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.into_iter().find(|c| c.type_ == wanted && c.status == "True").cloned()
        };
        if condition("Complete").is_some() {
            return Ok(Some(0));
        }
        match condition("Failed") {
            Some(failed) => Ok(Some(self.why(&failed, &pods))),
            None => {
                self.wait_for(pods.last());
                Ok(None)
            }
        }
    }

    /// Shows the log of a pod, to its end.
    async fn show(&mut self, pod: &Pod) -> Result<()> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let started = soup(pod).and_then(|status| status.state.as_ref());
        let started = started.is_some_and(|state| state.running.is_some() || state.terminated.is_some());
        if !started || self.shown.contains(&uid) {
            return Ok(());
        }
        let name = pod.metadata.name.clone().unwrap_or_default();
        self.say(&format!("coordinator {name}:"));
        let mut wanted =
            LogParams { container: Some(CONTAINER.to_owned()), follow: true, ..LogParams::default() };
        loop {
            let heard = self.log(&name, &wanted).await;
            // A stream may end before what it is of does: asked again for what was said since, it may say a line twice.
            let found = self.pods.get_opt(&name).await.map_err(|e| failed(&format!("Pod {name}"), e))?;
            let ended = found
                .as_ref()
                .is_none_or(|pod| pod.metadata.uid.as_ref() != Some(&uid) || terminated(pod).is_some());
            if let Err(error) = &heard
                && (ended || error.kind() != ErrorKind::Unavailable)
            {
                // The run does not depend on who reads along.
                self.say(&format!("the log cannot be read: {}", error.chain()));
            }
            if ended || heard.is_err_and(|error| error.kind() != ErrorKind::Unavailable) {
                self.shown.insert(uid);
                return Ok(());
            }
            wanted.since_seconds = Some(1);
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn log(&self, pod: &str, wanted: &LogParams) -> Result<()> {
        let about = format!("log of pod {pod}");
        let stream = self.pods.log_stream(pod, wanted).await.map_err(|e| failed(&about, e))?;
        let mut lines = std::pin::pin!(stream.lines());
        while let Some(line) =
            lines.try_next().await.map_err(|e| Error::unavailable(about.clone()).with_source(e))?
        {
            print::line(&line);
        }
        Ok(())
    }

    /// Says what the coordinator waits for, once.
    fn wait_for(&mut self, last: Option<&Pod>) {
        let Some(pod) = last else { return self.say("waiting for the coordinator's pod") };
        if terminated(pod).is_some()
            || soup(pod).is_some_and(|s| s.state.as_ref().is_some_and(|s| s.running.is_some()))
        {
            return;
        }
        let waiting = soup(pod).and_then(|s| s.state.as_ref()?.waiting.as_ref());
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let unplaced = conditions.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False");
        let reason = match (waiting, unplaced) {
            (Some(waiting), _) => reason(waiting.reason.as_deref(), waiting.message.as_deref()),
            (None, Some(unplaced)) => reason(unplaced.reason.as_deref(), unplaced.message.as_deref()),
            (None, None) => "it has no node yet".to_owned(),
        };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        self.say(&format!("waiting for the coordinator's pod {name}: {reason}"));
    }

    /// The exit code of a run whose Job has failed, and a line that says why.
    fn why(&mut self, failed: &JobCondition, pods: &[Pod]) -> u8 {
        let last = pods.iter().rev().find_map(terminated);
        let message = failed.message.as_deref().unwrap_or_default();
        let code = last.map(|state| state.exit_code).filter(|code| *code != 0).or_else(|| code_in(message));
        let said =
            last.and_then(|state| state.message.as_deref()).map(str::trim).filter(|said| !said.is_empty());
        let reason = reason(failed.reason.as_deref(), said.or(Some(message)));
        self.say(&format!("cook {} has failed: {reason}", self.name));
        let known = code.and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
        known.unwrap_or(ErrorKind::Internal.exit_code())
    }

    fn say(&mut self, text: &str) {
        if self.said != text {
            print::line(text);
            text.clone_into(&mut self.said);
        }
    }
}

fn reason(reason: Option<&str>, message: Option<&str>) -> String {
    let parts = [reason, message].into_iter().flatten().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(": ")
}

/// The status of the container that runs soupctl.
fn soup(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|status| status.name == CONTAINER)
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    soup(pod)?.state.as_ref()?.terminated.as_ref()
}

/// The exit code in what a Job says of a pod that is gone: `Container soup for pod lab/x failed with exit code 65 matching …`.
fn code_in(message: &str) -> Option<i32> {
    let (_, rest) = message.split_once("exit code ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_says_the_code_of_a_pod_that_is_gone() {
        let message = "Container soup for pod lab/vit-coordinator-x failed with exit code 65 matching FailJob rule at index 0";
        assert_eq!(code_in(message), Some(65));
        assert_eq!(code_in("Job has reached the specified backoff limit"), None);
        assert_eq!(code_in("exit code none"), None);
    }

    #[test]
    fn the_container_that_counts_is_found_by_its_name() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "status": {"containerStatuses": [
                {"name": "judge", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                 "state": {"terminated": {"exitCode": 137}}},
                {"name": "soup", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                 "state": {"terminated": {"exitCode": 65, "message": "no"}}},
            ]},
        }))
        .unwrap();
        assert_eq!(terminated(&pod).map(|state| state.exit_code), Some(65));
        assert_eq!(terminated(&Pod::default()), None);
    }

    #[test]
    fn what_the_server_says_has_a_kind() {
        let kind = |code: u16| {
            let status = serde_json::from_value(serde_json::json!({"code": code, "message": "no"})).unwrap();
            failed("Job x", kube::Error::Api(Box::new(status))).kind()
        };
        assert_eq!(
            [403, 404, 409, 503].map(kind),
            [ErrorKind::Configuration, ErrorKind::Configuration, ErrorKind::Usage, ErrorKind::Unavailable]
        );
    }
}
