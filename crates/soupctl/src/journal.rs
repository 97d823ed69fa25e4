//! The journal of a run: `log`.

use serde_json::Value;
use soup_core::journal::{Decided, Entry, Record, sha256_hex, verify};
use soup_core::recipe::{Setting, ranking};
use soup_core::report::decimal;
use soup_core::run::RunSpec;
use soup_core::tally::Tally;
use soup_core::{Error, Result};
use soup_store::signing::PublicKey;
use soup_store::state::State;

use crate::args::LogArgs;
use crate::choices::OutputFormat;
use crate::quantity::count;
use crate::runs::default_state;
use crate::{print, table};

/// Prints a journal.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) where it is broken, with the record.
pub(crate) async fn log(args: LogArgs) -> Result<()> {
    let state = State::open(&args.state_url.clone().unwrap_or_else(default_state))?;
    let key = args.key.as_deref().map(PublicKey::read).transpose()?;
    let (fold, records) = match &key {
        Some(key) => state.read_signed(&args.run, key).await?,
        None => state.read(&args.run).await?,
    };
    match args.format {
        OutputFormat::Json => print::json(&records)?,
        OutputFormat::Table => {
            let head = ["SEQ", "EPOCH", "AT", "KIND", "WHAT"];
            let row = |r: &Record| {
                let what = what(&r.entry);
                vec![r.seq.to_string(), r.epoch.to_string(), r.at.clone(), r.entry.kind().to_owned(), what]
            };
            print::result(&table::columns(&head, &records.iter().map(row).collect::<Vec<_>>()))?;
        }
    }
    if args.verify {
        let unreadable = || Error::data(format!("the plan of run {:?} cannot be read", args.run));
        let plan = state.plan(&args.run).await?.ok_or_else(unreadable)?;
        let digest = sha256_hex(&plan);
        let digits = args.run.rsplit('-').next().unwrap_or_default();
        if digits.is_empty() || !digest.starts_with(digits) {
            return Err(Error::data(format!(
                "the plan of run {:?} was changed: its SHA-256 is {digest}",
                args.run
            )));
        }
        let plan: Value = serde_json::from_slice(&plan).map_err(|e| unreadable().with_source(e))?;
        let output = plan["spec"]["output"].as_str().unwrap_or_default();
        let output = crate::verify::is_whole(&args.run, output, key.as_ref(), (&fold, &records)).await?;
        let signed = match &key {
            Some(key) => format!("every record is signed with key {}", key.id()),
            None => "signatures were not checked (--key)".to_owned(),
        };
        let spec: RunSpec =
            serde_json::from_value(plan["spec"].clone()).map_err(|e| unreadable().with_source(e))?;
        let names = plan["ingredients"].as_array().into_iter().flatten();
        let names: Vec<String> = names.map(|i| i["name"].as_str().unwrap_or_default().to_owned()).collect();
        let ranking = spec.ranked_by.as_ref().map(|table| ranking::given(table, &names)).transpose()?;
        let setting = Setting { ranking, ..Setting::of(names.len() as u32) };
        let v = verify(&spec.recipe, &setting, spec.deciding_set(), &records)?;
        let mut steps = if v.steps > 0 { format!(", {} steps", v.steps) } else { String::new() };
        if v.rejections > 0 {
            steps.push_str(&format!(", {} of them certain before all samples were judged", v.rejections));
        }
        if v.comparisons > 0 {
            steps.push_str(&format!(", {} comparisons sample by sample", v.comparisons));
        }
        if v.retractions > 0 {
            steps.push_str(&format!(", {} times something was taken back", v.retractions));
        }
        print::line(&format!(
            "verified: {} in one chain, {}, {}, {} made again{steps}; {signed}; {output}",
            count(v.records, "record"),
            count(v.epochs, "epoch"),
            count(v.scores, "score"),
            count(v.decisions, "decision")
        ));
    }
    Ok(())
}

/// What a record decides, in a few words.
fn verdicts(decisions: &[Decided]) -> String {
    let verdict = |d: &Decided| format!("trial {} {:?}", d.trial, d.verdict).to_lowercase();
    decisions.iter().map(verdict).collect::<Vec<_>>().join(", ")
}

/// A record in a few words.
fn what(entry: &Entry) -> String {
    match entry {
        Entry::EpochClaim(claim) => format!("{} (process {})", claim.host, claim.pid),
        Entry::Submitted(_) | Entry::Begun {} | Entry::Suspended {} | Entry::Cancelled {} => String::new(),
        Entry::Surveyed(s) => {
            format!("{:?} samples, {} ingredients", s.survey.samples, s.ingredients_sha256.len())
        }
        Entry::Slices(slices) => format!("{} slices", slices.len()),
        Entry::Scored(s) => {
            let recalled = if s.recalled { ", of an earlier run" } else { "" };
            let score = match &s.score {
                Tally::Classes(counts) => format!("{}/{}{recalled}", counts.correct, counts.total),
                Tally::Values(_) | Tally::Sums(_) => format!("{} samples{recalled}", s.score.samples()),
            };
            format!("dataset {} soup {:?}: {score} {}", s.dataset, s.soup.members, verdicts(&s.decisions))
        }
        Entry::Rejected(r) => format!(
            "dataset {} soup {:?}: after {} samples {}",
            r.dataset,
            r.soup.members,
            r.judged.samples(),
            verdicts(&r.decisions)
        ),
        Entry::Compared(c) => format!(
            "dataset {} soup {:?} beside {:?}: {} gained, {} lost {}",
            c.dataset,
            c.soup.members,
            c.reference.members,
            c.counts.gains,
            c.counts.losses,
            verdicts(&c.decisions)
        ),
        Entry::Retracted(r) => {
            format!("{} soups are scored again, {} decisions remain: {}", r.scores.len(), r.decisions, r.why)
        }
        Entry::Stepped(s) => format!("step {}: loss {}", s.step, decimal(s.gradients.loss)),
        Entry::Publishing { sha256 } => sha256.clone(),
        Entry::Published { .. } => String::new(),
        Entry::Failed { exit_code, message } => format!("exit code {exit_code}: {message}"),
    }
}
