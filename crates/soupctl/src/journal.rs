//! The journal of a run: `log`.

use serde_json::Value;
use soup_core::journal::{Decided, Entry, Fold, Record, SoupRecord, Verified, sha256_hex, verify};
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

/// Members of a soup that are named; further ones are counted.
const MEMBERS_MAX: usize = 4;

/// Prints a journal. Where it is to be verified that is done first: what does not hold is not shown as if it did.
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
    let plan = state.plan(&args.run).await?;
    let verified = match args.verify {
        true => Some(verified(&args.run, plan.as_deref(), key.as_ref(), (&fold, &records)).await?),
        false => None,
    };
    match args.format {
        OutputFormat::Json => print::json(&records)?,
        OutputFormat::Table => print::result(&Names::of(plan.as_deref()).table(&records))?,
    }
    if let Some(verified) = verified {
        print::line(&verified);
    }
    Ok(())
}

/// What was found to hold of a run's records, in a sentence.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) with what does not.
async fn verified(
    run: &str,
    plan: Option<&[u8]>,
    key: Option<&PublicKey>,
    (fold, records): (&Fold, &[Record]),
) -> Result<String> {
    let again = "take the state from where it was kept as it was, or cook again";
    let unreadable = || Error::data(format!("the plan of run {run:?} cannot be read: {again}"));
    let plan = plan.ok_or_else(unreadable)?;
    let digest = sha256_hex(plan);
    let digits = run.rsplit('-').next().unwrap_or_default();
    if digits.is_empty() || !digest.starts_with(digits) {
        return Err(Error::data(format!(
            "the plan of run {run:?} was changed: its SHA-256 is {digest}, which does not begin with the run's {digits}; {again}"
        )));
    }
    let plan: Value = serde_json::from_slice(plan).map_err(|e| unreadable().with_source(e))?;
    let output = plan["spec"]["output"].as_str().unwrap_or_default();
    let output = crate::verify::is_whole(run, output, key, (fold, records)).await?;
    let signed = match key {
        Some(key) => format!("every record is signed with key {}", key.id()),
        None => "signatures were not checked (--key)".to_owned(),
    };
    let spec: RunSpec =
        serde_json::from_value(plan["spec"].clone()).map_err(|e| unreadable().with_source(e))?;
    let names = ingredients(&plan);
    let ranking = spec.ranked_by.as_ref().map(|table| ranking::given(table, &names)).transpose()?;
    let setting = Setting { ranking, ..Setting::of(names.len() as u32) };
    let v = verify(&spec.recipe, &setting, spec.deciding_set(), records)?;
    Ok(format!(
        "verified: {} in one chain, {}, {}; {signed}; {output}",
        count(v.records, "record"),
        count(v.epochs, "epoch"),
        made_again(&v)
    ))
}

/// What the records of a run say, in words. Of the soups that were rejected early some were tried ahead of time, and no decision is about these.
fn made_again(v: &Verified) -> String {
    let mut text = format!("{}, {} made again", count(v.scores, "score"), count(v.decisions, "decision"));
    if v.steps > 0 {
        text.push_str(&format!(", {}", count(v.steps, "step")));
    }
    if v.rejections > 0 {
        let soups = count(v.rejections, "soup");
        text.push_str(&format!(", {soups} rejected before all samples were judged"));
    }
    if v.comparisons > 0 {
        text.push_str(&format!(", {} sample by sample", count(v.comparisons, "comparison")));
    }
    if v.retractions > 0 {
        text.push_str(&format!(", {} times something was taken back", v.retractions));
    }
    text
}

fn ingredients(plan: &Value) -> Vec<String> {
    let names = plan["ingredients"].as_array().into_iter().flatten();
    names.map(|i| i["name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// What ingredients and datasets are called, as far as a plan says; others are numbers.
struct Names {
    ingredients: Vec<String>,
    datasets: Vec<String>,
}

impl Names {
    fn of(plan: Option<&[u8]>) -> Names {
        let plan: Value = plan.and_then(|plan| serde_json::from_slice(plan).ok()).unwrap_or_default();
        let spec = serde_json::from_value::<RunSpec>(plan["spec"].clone()).ok();
        let datasets = spec.iter().flat_map(RunSpec::datasets).map(|dataset| dataset.name.clone());
        Names { datasets: datasets.collect(), ingredients: ingredients(&plan) }
    }

    fn dataset(&self, index: u32) -> String {
        self.datasets.get(index as usize).cloned().unwrap_or_else(|| format!("dataset {index}"))
    }

    fn ingredient(&self, index: u32) -> String {
        self.ingredients.get(index as usize).cloned().unwrap_or_else(|| format!("#{index}"))
    }

    fn soup(&self, soup: &SoupRecord) -> String {
        let more = soup.members.len().saturating_sub(MEMBERS_MAX);
        let named = soup.members.iter().take(MEMBERS_MAX).map(|&member| self.ingredient(member));
        let named = named.collect::<Vec<_>>().join(" + ");
        if more > 0 { format!("{named} + {more} more") } else { named }
    }

    /// All records, a line each; those of slices that follow each other have one together.
    fn table(&self, records: &[Record]) -> String {
        let slices = |record: &Record| match &record.entry {
            Entry::Slices(slices) => Some(slices.len() as u64),
            _ => None,
        };
        let together =
            |a: &Record, b: &Record| slices(a).is_some() && slices(b).is_some() && a.epoch == b.epoch;
        let row = |group: &[Record]| {
            let (first, last) = (group.first()?, group.last()?);
            let seq = match group.len() {
                1 => first.seq.to_string(),
                _ => format!("{}-{}", first.seq, last.seq),
            };
            let all = group.iter().filter_map(slices).sum();
            let what = self.what(&first.entry, all);
            Some(vec![seq, first.epoch.to_string(), first.at.clone(), first.entry.kind().to_owned(), what])
        };
        let rows: Vec<_> = records.chunk_by(together).filter_map(row).collect();
        table::columns(&["SEQ", "EPOCH", "AT", "KIND", "WHAT"], &rows)
    }

    /// A record in a few words; `slices` are those of it and of what has one line with it.
    fn what(&self, entry: &Entry, slices: u64) -> String {
        match entry {
            Entry::EpochClaim(claim) => format!("{} (process {})", claim.host, claim.pid),
            Entry::Submitted(_) | Entry::Begun {} | Entry::Suspended {} | Entry::Cancelled {} => {
                String::new()
            }
            Entry::Surveyed(s) => {
                let of = |(index, &samples): (usize, &u64)| {
                    format!("{}: {}", self.dataset(index as u32), count(samples, "sample"))
                };
                let samples: Vec<String> = s.survey.samples.iter().enumerate().map(of).collect();
                format!("{}; {}", count(s.ingredients_sha256.len() as u64, "ingredient"), samples.join(", "))
            }
            Entry::Slices(_) => count(slices, "slice"),
            Entry::Scored(s) => {
                let recalled = if s.recalled { ", of an earlier run" } else { "" };
                let score = match &s.score {
                    Tally::Classes(counts) => format!("{}/{}{recalled}", counts.correct, counts.total),
                    Tally::Values(_) | Tally::Sums(_) => format!("{} samples{recalled}", s.score.samples()),
                };
                format!(
                    "{}: {} has {score}{}",
                    self.dataset(s.dataset),
                    self.soup(&s.soup),
                    self.verdicts(&s.decisions)
                )
            }
            Entry::Rejected(r) => format!(
                "{}: {} after {}{}",
                self.dataset(r.dataset),
                self.soup(&r.soup),
                count(r.judged.samples(), "sample"),
                self.verdicts(&r.decisions)
            ),
            Entry::Compared(c) => format!(
                "{}: {} beside {}: {} gained, {} lost{}",
                self.dataset(c.dataset),
                self.soup(&c.soup),
                self.soup(&c.reference),
                c.counts.gains,
                c.counts.losses,
                self.verdicts(&c.decisions)
            ),
            Entry::Retracted(r) => {
                format!(
                    "{} soups are scored again, {} decisions remain: {}",
                    r.scores.len(),
                    r.decisions,
                    r.why
                )
            }
            Entry::Stepped(s) => format!("step {}: loss {}", s.step, decimal(s.gradients.loss)),
            Entry::Publishing { sha256 } => sha256.clone(),
            Entry::Published { .. } => String::new(),
            Entry::Failed { exit_code, message } => format!("exit code {exit_code}: {message}"),
        }
    }

    /// What a record decides, in a few words.
    fn verdicts(&self, decisions: &[Decided]) -> String {
        let verdict = |d: &Decided| {
            let verdict = format!("{:?}", d.verdict).to_lowercase();
            format!("; trial {}, {}: {verdict}", d.trial, self.ingredient(d.candidate))
        };
        decisions.iter().map(verdict).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soups_that_were_rejected_ahead_of_time_are_not_told_as_decisions() {
        let v = Verified { scores: 14, decisions: 2, rejections: 5, ..Verified::default() };
        assert_eq!(
            made_again(&v),
            "14 scores, 2 decisions made again, 5 soups rejected before all samples were judged"
        );
        let v = Verified { rejections: 1, comparisons: 3, steps: 1, retractions: 2, ..v };
        assert_eq!(
            made_again(&v),
            "14 scores, 2 decisions made again, 1 step, 1 soup rejected before all samples were judged, \
             3 comparisons sample by sample, 2 times something was taken back"
        );
    }

    #[tokio::test]
    async fn a_plan_that_was_changed_is_told_with_what_to_do() {
        let fold = Fold::default();
        let plan = Some(&b"{}"[..]);
        let error = verified("greedy-0123456789ab", plan, None, (&fold, &[])).await.unwrap_err().chain();
        assert!(
            error.contains("which does not begin with the run's 0123456789ab; take the state"),
            "{error}"
        );
        let error = verified("greedy-0123456789ab", None, None, (&fold, &[])).await.unwrap_err().chain();
        assert!(error.contains("cannot be read: take the state from where it was kept"), "{error}");
    }
}
