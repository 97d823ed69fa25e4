//! `soupctl verify`: whether an output is what a run wrote. And whether a journal reaches as far as the output that was made of it.

use serde::Serialize;
use soup_core::journal::{Fold, Record};
use soup_core::{Error, ErrorKind, Result};
use soup_store::location::Location;
use soup_store::output::{self, Head, VerifiedOutput};
use soup_store::signing::PublicKey;
use soup_store::state::State;

use crate::args::VerifyArgs;
use crate::choices::OutputFormat;
use crate::print;
use crate::quantity::Bytes;

/// So many bytes take long enough to read that it is said which.
const LONG_BYTES: u64 = 1 << 30;

/// What is printed as JSON.
#[derive(Serialize)]
struct Verified {
    #[serde(flatten)]
    output: VerifiedOutput,
    /// Whether the journal was looked at.
    journal_checked: bool,
}

/// Checks an output.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) naming what is not as it should be; those of the store.
pub(crate) async fn run(args: VerifyArgs) -> Result<()> {
    let key = args.key.as_deref().map(PublicKey::read).transpose()?;
    let target = Location::parse(&args.output)?;
    let tell = |name: &str, bytes: u64| {
        if let Some(text) = reading(name, bytes) {
            print::line(&text);
        }
    };
    let output = output::verify(&target, key.as_ref(), tell).await?;
    if let Some(url) = &args.state_url {
        let head = output.journal.as_ref();
        let head = head.ok_or_else(|| no_journal(&target))?;
        let state = State::open(url)?;
        let (fold, records) = match &key {
            Some(key) => state.read_signed(&output.run, key).await?,
            None => state.read(&output.run).await?,
        };
        reaches(&output.run, head, &fold, &records)?;
    }
    match args.format {
        OutputFormat::Json => print::json(&Verified { journal_checked: args.state_url.is_some(), output }),
        OutputFormat::Table => print::result(&told(&target, &output, args.state_url.is_some())),
    }
}

/// Outputs of earlier versions do not say of which journal they are made.
fn no_journal(target: &Location) -> Error {
    Error::data(format!(
        "the manifest of {target} names no journal, as those of earlier versions: verify its files alone, without --state-url"
    ))
}

/// What is said before a file is read, of one that takes seconds or more.
fn reading(name: &str, bytes: u64) -> Option<String> {
    (bytes >= LONG_BYTES).then(|| format!("reading {name}, {}", Bytes(bytes)))
}

fn told(target: &Location, output: &VerifiedOutput, journal: bool) -> String {
    let VerifiedOutput { run, files, bytes, all_files, signed_by, .. } = output;
    let files = match all_files {
        true => format!("{files} files and no others"),
        false => format!("{files} files of tensors (its manifest does not know of the others)"),
    };
    let signed = match signed_by {
        Some(key) => format!("its manifest is signed with key {key}"),
        None => "signatures were not checked (--key)".to_owned(),
    };
    let journal = match journal {
        true => "the run's journal is the one it was made of",
        false => "the run's journal was not looked at (--state-url)",
    };
    format!(
        "verified: {target} of run {run}: {files}, {} as they were written; {signed}; {journal}",
        Bytes(*bytes)
    )
}

/// Whether the log of a run reaches as far as its output says, where that can be looked at. Gives in words what was found.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) where it does not: its end was cut off, or written anew.
pub(crate) async fn is_whole(
    run: &str,
    output: &str,
    key: Option<&PublicKey>,
    (fold, records): (&Fold, &[Record]),
) -> Result<&'static str> {
    let head = async { output::head_of(&Location::parse(output)?, run, key).await };
    let head = match head.await {
        // A store that cannot be asked from here says nothing.
        Err(e) if e.kind() != ErrorKind::Data => None,
        head => head?,
    };
    let Some(head) = head else { return Ok("no output says how far it has to reach") };
    reaches(run, &head, fold, records)?;
    Ok("it reaches as far as its output says")
}

fn reaches(run: &str, head: &Head, fold: &Fold, records: &[Record]) -> Result<()> {
    // Each record names the one before it, and the fold the last one.
    let after = usize::try_from(head.records).ok().filter(|n| *n > 0 && *n <= records.len());
    let sha256 = after.map(|n| records.get(n).map_or(&fold.tail().prev_sha256, |next| &next.prev_sha256));
    match sha256 {
        Some(sha256) if *sha256 == head.sha256 => Ok(()),
        Some(_) => Err(Error::data(format!(
            "the journal of run {run:?} is not the one that its output was made of: record {} is another",
            head.records - 1
        ))),
        None => Err(Error::data(format!(
            "the end of the journal of run {run:?} is missing: it has {} records, and its output was made of {}",
            records.len(),
            head.records
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_names_no_journal_is_verified_without() {
        let error = no_journal(&Location::parse("memory:///soup").unwrap()).chain();
        assert!(
            error.contains("memory:///soup names no journal") && error.contains("without --state-url"),
            "{error}"
        );
    }

    #[test]
    fn files_that_take_long_are_named_before_they_are_read() {
        assert_eq!(reading("config.json", 1 << 10), None);
        let text = reading("model-00001-of-00002.safetensors", 5 << 30).unwrap();
        assert_eq!(text, "reading model-00001-of-00002.safetensors, 5.00 GiB");
    }
}
