//! Credentials that a command prints, as `credential_process` of an AWS profile and `aws configure export-credentials` do.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::service::NoCredentials;

/// Longest that the command takes.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Credentials that expire sooner are fetched anew.
const LEFT_MIN: chrono::TimeDelta = chrono::TimeDelta::minutes(5);

/// What is to be run for credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Program and arguments.
    pub(super) command: Vec<String>,
    /// What needs it, for people.
    pub(super) about: String,
}

/// Credentials, and when they expire.
type Kept = (Arc<AwsCredential>, Option<DateTime<Utc>>);

/// Runs a command for credentials, and again before they expire.
#[derive(Debug)]
pub(crate) struct ProcessCredentials {
    process: Process,
    kept: Mutex<Option<Kept>>,
}

impl ProcessCredentials {
    pub(super) fn new(process: Process) -> ProcessCredentials {
        ProcessCredentials { process, kept: Mutex::new(None) }
    }
}

#[async_trait]
impl CredentialProvider for ProcessCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut kept = self.kept.lock().await;
        if let Some((credential, expires)) = &*kept
            && expires.is_none_or(|at| at - Utc::now() > LEFT_MIN)
        {
            return Ok(Arc::clone(credential));
        }
        let process = self.process.clone();
        let failed = |text: String| object_store::Error::Unauthenticated {
            path: String::new(),
            source: Box::new(NoCredentials::new(format!("{}: {text}", self.process.about))),
        };
        let run = tokio::task::spawn_blocking(move || run(&process.command));
        let got = match tokio::time::timeout(TIMEOUT, run).await {
            Ok(Ok(Ok(got))) => got,
            Ok(Ok(Err(text))) => return Err(failed(text)),
            Ok(Err(e)) => return Err(failed(e.to_string())),
            Err(_) => return Err(failed(format!("no answer within {} s", TIMEOUT.as_secs()))),
        };
        let credential = Arc::new(AwsCredential {
            key_id: got.access_key_id,
            secret_key: got.secret_access_key,
            token: got.session_token,
        });
        *kept = Some((Arc::clone(&credential), got.expiration));
        Ok(credential)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<DateTime<Utc>>,
}

fn run(command: &[String]) -> Result<Printed, String> {
    let (program, args) = command.split_first().ok_or("there is no command")?;
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot run {program:?} ({e}): set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, \
            as `aws configure export-credentials --format env` prints them"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        // The last line is what it is about; usage and warnings come before.
        let line = complaint.lines().rev().map(str::trim).find(|l| !l.is_empty()).unwrap_or("no complaint");
        return Err(format!("{program:?} failed: {}", crate::cause::shortened(line)));
    }
    serde_json::from_slice(&output.stdout).map_err(|_| format!("{program:?} printed no credentials"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(script: &str) -> ProcessCredentials {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        ProcessCredentials::new(Process { command, about: "profile \"p\"".to_owned() })
    }

    #[tokio::test]
    async fn a_command_prints_credentials() {
        let script = r#"echo '{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b", "SessionToken": "c", "Expiration": "2099-01-01T00:00:00Z"}'"#;
        let got = provider(script).get_credential().await.unwrap();
        assert_eq!(
            (got.key_id.as_str(), got.secret_key.as_str(), got.token.as_deref()),
            ("a", "b", Some("c"))
        );
    }

    #[tokio::test]
    async fn a_command_that_fails_says_why() {
        let why = |script: &'static str| async move {
            provider(script).get_credential().await.unwrap_err().to_string()
        };
        let text = why("echo 'usage: x' >&2; echo 'the SSO session has expired' >&2; exit 1").await;
        assert!(text.contains("profile \"p\": \"sh\" failed: the SSO session has expired"), "{text}");
        let text = why("echo SECRET").await;
        assert!(text.contains("printed no credentials") && !text.contains("SECRET"), "{text}");
    }
}
