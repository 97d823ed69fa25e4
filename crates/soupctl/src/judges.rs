//! Judges: as flags and cook files name them, and `soupctl judges`.
//!
//! A command is taken from the command line of whoever runs it, and from nowhere else: a cook file, and a run that is submitted to a
//! cluster, name a judge and never say what that is.

use std::borrow::Cow;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _};
use soup_core::Result;
use soup_core::judge::WorkerJudges;
use soup_core::run::check_judge_name;

use crate::args::JudgesArgs;
use crate::choices::OutputFormat;
use crate::client::{Client, not_understood};
use crate::spec::coordinator_url;
use crate::{print, table};

/// A judge by its name, and where it is, if that is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JudgeFlag {
    pub(crate) name: String,
    pub(crate) source: Option<JudgeSource>,
}

/// Where a judge is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JudgeSource {
    /// At a socket that somebody else serves.
    Unix(String),
    /// Started by this command.
    Command(String),
}

impl FromStr for JudgeFlag {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, source) = match text.split_once('=') {
            None => (text, None),
            Some((name, source)) => (name, Some(source.parse()?)),
        };
        check_judge_name(name).map_err(|e| e.chain())?;
        Ok(JudgeFlag { name: name.to_owned(), source })
    }
}

impl FromStr for JudgeSource {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Ok(JudgeSource::Unix(path.to_owned())),
            Some(("cmd", command)) if !command.trim().is_empty() => {
                Ok(JudgeSource::Command(command.to_owned()))
            }
            _ => Err(format!("{text:?} is neither unix:/path/of/socket nor cmd:COMMAND")),
        }
    }
}

impl<'de> Deserialize<'de> for JudgeFlag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name.contains('=') {
            return Err(D::Error::custom(format!(
                "a cook file names a judge ({:?}) and does not say what it is: give --judge on the command line",
                name.split('=').next().unwrap_or_default()
            )));
        }
        name.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for JudgeFlag {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Judge".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[a-z0-9_-]{1,64}$", "examples": ["lm"] })
    }
}

/// The same for a worker of this process.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) where it is not said where the judge is.
#[cfg(feature = "worker")]
pub(crate) fn config(flag: &JudgeFlag, silence_ms: u64) -> Result<soup_worker::JudgeConfig> {
    let source = match &flag.source {
        Some(JudgeSource::Command(command)) => soup_worker::Source::Command(command.clone()),
        Some(JudgeSource::Unix(path)) => {
            soup_worker::Source::At(std::sync::Arc::new(soup_worker::Tcp), format!("unix:{path}"))
        }
        None => {
            return Err(soup_core::Error::usage(format!(
                "--judge {0} does not say where the judge is: give --judge {0}=unix:/path/of/socket or {0}=cmd:COMMAND",
                flag.name
            )));
        }
    };
    let silence = std::time::Duration::from_millis(silence_ms);
    Ok(soup_worker::JudgeConfig { name: flag.name.clone(), source, silence })
}

/// Digits of a digest that tell two apart.
const DIGEST_SHOWN: usize = 12;

/// Lists the judges that a coordinator's workers offer.
///
/// # Errors
/// Those of the coordinator.
pub(crate) async fn run(args: JudgesArgs) -> Result<()> {
    let url = coordinator_url(&args.coordinator)?;
    let json = Client::connect(&url, &args.trust).await?.judges().await?;
    let all: Vec<WorkerJudges> =
        serde_json::from_str(&json).map_err(|e| not_understood(&url, "judges", e))?;
    match args.format {
        OutputFormat::Json => print::json(&all),
        OutputFormat::Table => {
            let head = ["WORKER", "JUDGE", "VERSION", "NUMERICS", "DIGEST", "ABILITIES", "DATASETS"];
            let row = |worker: &str, offer: &soup_core::judge::Offer| {
                let abilities: Vec<&str> = offer.abilities.iter().map(|a| a.name()).collect();
                vec![
                    worker.to_owned(),
                    offer.id.name.clone(),
                    offer.id.version.clone(),
                    offer.id.numerics.clone(),
                    dash(offer.id.digest.iter().flat_map(|d| d.chars().take(DIGEST_SHOWN)).collect()),
                    dash(abilities.join(",")),
                    dash(offer.datasets.join(",")),
                ]
            };
            let rows: Vec<Vec<String>> =
                all.iter().flat_map(|of| of.judges.iter().map(|offer| row(&of.worker, offer))).collect();
            print::result(&table::columns(&head, &rows))
        }
    }
}

fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judge_is_named_and_may_be_placed() {
        let flag = |text: &str| text.parse::<JudgeFlag>();
        assert_eq!(flag("lm").unwrap(), JudgeFlag { name: "lm".into(), source: None });
        let unix = flag("lm=unix:/run/j.sock").unwrap();
        assert_eq!(unix.source, Some(JudgeSource::Unix("/run/j.sock".into())));
        let command = flag("lm=cmd:python -m j --x=1").unwrap();
        assert_eq!(command.source, Some(JudgeSource::Command("python -m j --x=1".into())));
        for wrong in
            ["", "a b", "native", "lm=", "lm=cmd:", "lm=cmd: ", "lm=unix:run/j.sock", "lm=tcp:host:1"]
        {
            assert!(flag(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cook_file_names_a_judge_and_no_command() {
        assert_eq!(serde_json::from_str::<JudgeFlag>("\"lm\"").unwrap().name, "lm");
        let refused = serde_json::from_str::<JudgeFlag>("\"lm=cmd:rm -rf /\"").unwrap_err().to_string();
        assert!(refused.contains("does not say what it is"), "{refused}");
    }
}
