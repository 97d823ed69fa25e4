//! The journal: the ledger on durable storage. What its records are, and what a fold of them means.
//!
//! # Words
//!
//! - A *record* is one immutable object of a run's log, `log/<seq>.json`. Records are numbered from 0 without gaps, and each
//!   names the SHA-256 of the one before it: a log cannot be changed or shortened in the middle without that showing.
//! - An *epoch* begins with an [`Entry::EpochClaim`]: the coordinator incarnation (*writer*) that wrote it owns the run until
//!   somebody writes a later claim. Records of any other writer are no part of a valid log.
//! - A *signature* is of a record by its writer's key. The chain shows a change of any record but the last; the signature of the last one
//!   shows that too. Logs need none: who has no key writes none, and reads those of others as they are.
//! - A *fold* is what a log adds up to: who owns the run, what is known, how it ended.
//!
//! # Flow
//!
//! Resume: list, fold, append a claim of the next epoch at the next number; only then act. Whatever is decided is appended
//! first and acted on once it is durable. [`append`] says what an append's outcome means; soup-store does the reading and
//! writing.

pub mod append;
mod fold;
mod verify;
mod wire;

use serde::{Deserialize, Serialize};

use crate::error::{Error, TEXT_BYTES_MAX, brief};
use crate::ledger::Gradients;
use crate::recipe::{Replay, Verdict};
use crate::significance::Discordant;
use crate::survey::{Survey, Tallies};
use crate::tally::{Judged, Tally};

pub use fold::{Fold, Owner, RunState, Slices, Tail, sha256_hex};
pub use verify::{Verified, verify};
pub use wire::{ScoredSlice, SoupRecord, TallyRecord};

/// Newest version of the records' shape. A record has the oldest one that knows its kind, so that who does not know it says so
/// ([`Entry::version`]).
pub const VERSION: u32 = 5;
/// What the first record of a log has in the place of its predecessor's SHA-256.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One record of a run's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// That of its entry.
    pub v: u32,
    /// Position in the log, from 0.
    pub seq: u64,
    /// The epoch it was written in.
    pub epoch: u64,
    /// The coordinator incarnation that wrote it.
    pub writer: String,
    /// Tells this write from any other, when its answer was lost.
    pub put_id: String,
    /// SHA-256 of the bytes of the record before, in hexadecimal; [`GENESIS`] in the first.
    pub prev_sha256: String,
    /// When it was written (RFC 3339, UTC). For people: nothing is decided by it.
    pub at: String,
    /// What it says.
    #[serde(flatten)]
    pub entry: Entry,
    /// Of the record without this, by its writer's key, if that had one. The last member: readers that check it take it off the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "body", rename_all = "kebab-case")]
pub enum Entry {
    /// A coordinator takes the run.
    EpochClaim(Claim),
    /// Somebody asked for the run, with these settings that do not change its result.
    Submitted(Operation),
    /// Its turn has come.
    Begun {},
    /// The pool is resident and the datasets are counted.
    Surveyed(Surveyed),
    /// Slices were scored, of evaluations that are not complete yet.
    Slices(Vec<ScoredSlice>),
    /// A soup got its score, and the recipe decided what follows from it.
    Scored(Scored),
    /// A soup is certain not to reach its bar, before all of its samples were judged.
    Rejected(Rejected),
    /// Two soups that have their scores were compared sample by sample.
    Compared(Compared),
    /// A step of a learned soup: what its update is made from.
    Stepped(Stepped),
    /// A worker turned out not to be believed: what it had a part in is taken back, and asked for again.
    Retracted(Retracted),
    /// The output is written; what follows makes it visible.
    Publishing {
        /// SHA-256 of the soup's flattened parameters, in hexadecimal.
        sha256: String,
    },
    /// The output is visible. The run is done.
    Published {
        /// The result, as `-o json` prints it.
        report: serde_json::Value,
    },
    /// The coordinator was asked to stop; another one will go on.
    Suspended {},
    /// The run failed, until somebody asks for it again.
    Failed {
        /// What the caller should do: an exit code.
        exit_code: u8,
        /// Why.
        message: String,
    },
    /// Somebody cancelled the run; asking for it again goes on with it.
    Cancelled {},
}

impl Entry {
    /// The name of its kind, as records spell it.
    pub fn kind(&self) -> &'static str {
        match self {
            Entry::EpochClaim(_) => "epoch-claim",
            Entry::Submitted(_) => "submitted",
            Entry::Begun {} => "begun",
            Entry::Surveyed(_) => "surveyed",
            Entry::Slices(_) => "slices",
            Entry::Scored(_) => "scored",
            Entry::Rejected(_) => "rejected",
            Entry::Compared(_) => "compared",
            Entry::Stepped(_) => "stepped",
            Entry::Retracted(_) => "retracted",
            Entry::Publishing { .. } => "publishing",
            Entry::Published { .. } => "published",
            Entry::Suspended {} => "suspended",
            Entry::Failed { .. } => "failed",
            Entry::Cancelled {} => "cancelled",
        }
    }

    /// The oldest version of records that has entries of this kind.
    pub fn version(&self) -> u32 {
        match self {
            _ if self.has_values() => 5,
            Entry::Retracted(_) => 2,
            // By what the judge promised of its figures.
            Entry::Rejected(rejected) if matches!(rejected.judged, Tally::Sums(_)) => 5,
            Entry::Rejected(_) => 3,
            Entry::Compared(_) => 4,
            Entry::Submitted(operation) if operation.lookahead.is_none() => 3,
            Entry::Slices(slices) if slices.iter().any(ScoredSlice::has_outcomes) => 3,
            _ => 1,
        }
    }

    /// Whether it tells of numbers that are predicted.
    fn has_values(&self) -> bool {
        let of = |tally: &Tally| matches!(tally, Tally::Values(_));
        match self {
            Entry::Surveyed(surveyed) => matches!(surveyed.survey.tallies, Tallies::Values { .. }),
            Entry::Slices(slices) => {
                slices.iter().any(|slice| matches!(&slice.judged, Judged::Tally(tally) if of(tally)))
            }
            Entry::Scored(scored) => of(&scored.score),
            Entry::Rejected(rejected) => of(&rejected.judged),
            _ => false,
        }
    }

    /// The entry for a run that ended with `error`.
    pub fn failed(error: &Error) -> Entry {
        Entry::Failed { exit_code: error.kind().exit_code(), message: brief(error.chain(), TEXT_BYTES_MAX) }
    }
}

/// Who takes a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The host it runs on.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// The version of its program.
    pub version: String,
}

/// Settings of a run that do not change its result, and so are no part of its identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Replace an existing output.
    pub overwrite: bool,
    /// Trials evaluated ahead of their turn; `None`: as many as keep the workers busy.
    #[serde(default)]
    pub lookahead: Option<u32>,
    /// The run starts once so many workers have joined.
    pub workers_min: u32,
    /// Share of the work that is done again by another worker, in millionths.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub audit_ppm: u32,
    /// Who asked for it, where the coordinator knew: the name of a client, or `admin/` and that of an admin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

fn is_zero(ppm: &u32) -> bool {
    *ppm == 0
}

/// What is known once the pool is resident and the datasets are counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Surveyed {
    /// What the judge told; without data, of no samples.
    #[serde(flatten)]
    pub survey: Survey,
    /// SHA-256 over the digests of the shards, of every ingredient in pool order, in hexadecimal.
    pub ingredients_sha256: Vec<String>,
}

/// A soup's score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// Position of the dataset; 0 is the validation set.
    pub dataset: u32,
    /// The soup.
    pub soup: SoupRecord,
    /// What all samples add up to.
    #[serde(with = "wire::tally")]
    pub score: Tally,
    /// SHA-256 of the outcomes that it adds up, in hexadecimal, where those are kept in the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcomes_sha256: Option<String>,
    /// Whether it was found among the scores of earlier runs instead of being evaluated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recalled: bool,
    /// The decisions that this score makes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decided>,
}

/// A soup that is certain not to reach its bar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// Position of the dataset on which the recipe decides.
    pub dataset: u32,
    /// The soup.
    pub soup: SoupRecord,
    /// The soup whose score is the bar.
    pub bar: SoupRecord,
    /// What the samples add up to that were judged.
    #[serde(with = "wire::tally")]
    pub judged: Tally,
    /// The decisions that this makes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decided>,
}

/// What happened to the samples of the set on which the recipe decides, with two soups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Position of that set.
    pub dataset: u32,
    /// The soup that was tried.
    pub soup: SoupRecord,
    /// The one that it may replace.
    pub reference: SoupRecord,
    /// The samples that only one of them got right.
    #[serde(flatten)]
    pub counts: Discordant,
    /// The decisions that this makes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decided>,
}

/// A step of a learned soup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stepped {
    /// Counts from 1.
    pub step: u32,
    /// Loss and gradient, from which the update follows.
    #[serde(with = "wire::gradients")]
    pub gradients: Gradients,
}

/// What is taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retracted {
    /// Why.
    pub why: String,
    /// Soups of which nothing is known any more: neither a score nor slices.
    pub scores: Vec<ScoredSoup>,
    /// Steps of a learned soup that remain.
    pub steps: u32,
    /// Decisions that remain: those that the scores which are left make.
    pub decisions: u32,
}

/// A soup on a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoredSoup {
    /// Position of the dataset.
    pub dataset: u32,
    /// The soup.
    pub soup: SoupRecord,
}

/// A decision of the recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Counts trials from 1.
    pub trial: u32,
    /// The ingredient that was added or removed, by its position in the pool.
    pub candidate: u32,
    /// Which pass over the candidates.
    pub pass: u32,
    /// How it ended.
    pub verdict: Verdict,
}

impl Decided {
    /// The decisions of a replay beyond the first `known`.
    pub fn beyond(replay: &Replay, known: usize) -> Vec<Decided> {
        let decided = replay.decisions.iter().enumerate().skip(known).map(|(index, d)| Decided {
            trial: index as u32 + 1,
            candidate: d.candidate.0,
            pass: d.pass,
            verdict: d.verdict,
        });
        decided.collect()
    }
}

#[cfg(test)]
mod tests;
