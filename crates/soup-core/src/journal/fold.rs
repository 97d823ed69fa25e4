//! What a log adds up to.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::append::next_epoch;
use super::{Claim, Compared, Decided, Entry, GENESIS, Operation, Record, Retracted, Surveyed, VERSION};
use crate::error::{Error, Result};
use crate::ledger::{Comparison, Dataset, Evaluation, Gradients, Rejection};
use crate::sequence::SequenceId;
use crate::soup::Soup;
use crate::tally::{Judged, Tally};

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunState {
    /// Waiting for its turn.
    #[default]
    Queued,
    /// In progress, as far as the log tells: its coordinator may be dead.
    Running,
    /// Its coordinator stopped; another one will go on.
    Suspended,
    /// Done: the output is visible.
    Published,
    /// Failed.
    Failed,
    /// Cancelled.
    Cancelled,
}

impl RunState {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            RunState::Queued => "queued",
            RunState::Running => "running",
            RunState::Suspended => "suspended",
            RunState::Published => "published",
            RunState::Failed => "failed",
            RunState::Cancelled => "cancelled",
        }
    }

    /// Whether nobody works on it until somebody asks for it again.
    pub fn ended(self) -> bool {
        matches!(self, RunState::Published | RunState::Failed | RunState::Cancelled)
    }
}

/// Where the next record goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Its number.
    pub seq: u64,
    /// SHA-256 of the last record.
    pub prev_sha256: String,
}

/// Who owns a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The incarnation.
    pub writer: String,
    /// Who that is.
    pub claim: Claim,
}

/// What was judged of an evaluation that is not complete.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slices {
    /// The order in which the dataset is cut into slices.
    pub sequence: SequenceId,
    /// By slice.
    pub judged: BTreeMap<u32, Judged>,
}

/// What a log adds up to.
#[derive(Clone, Debug, PartialEq)]
pub struct Fold {
    /// Highest epoch claimed; 0 before the first claim.
    pub epoch: u64,
    /// Who claimed it.
    pub owner: Option<Owner>,
    /// How far the run has come.
    pub state: RunState,
    /// How it was asked for last; `None` where whoever asked was never told that it was accepted.
    pub operation: Option<Operation>,
    /// What the survey found.
    pub surveyed: Option<Surveyed>,
    /// Scores, in the order they were recorded.
    pub scores: Vec<(Evaluation, Tally)>,
    /// Soups that were rejected before they had a score, in the order they were recorded.
    pub rejections: Vec<(Evaluation, Rejection)>,
    /// Soups that were compared sample by sample, in the order they were recorded.
    pub comparisons: Vec<(Evaluation, Comparison)>,
    /// The outcomes that scores add up, by their SHA-256, where they are kept.
    pub outcomes: BTreeMap<Evaluation, [u8; 32]>,
    /// Slices of evaluations that are not complete.
    pub slices: BTreeMap<Evaluation, Slices>,
    /// Decisions recorded, and not taken back.
    pub decisions: u32,
    /// Steps of a learned soup, in order.
    pub steps: Vec<Gradients>,
    /// Whether the output was about to be made visible.
    pub publishing: bool,
    /// The result, once published.
    pub report: Option<serde_json::Value>,
    /// Exit code and reason, if the run failed.
    pub failure: Option<(u8, String)>,
    /// When the first and the last record were written.
    pub times: Option<(String, String)>,
    /// What `scores` has.
    scored: BTreeSet<Evaluation>,
    tail: Tail,
}

impl Default for Fold {
    fn default() -> Fold {
        Fold {
            epoch: 0,
            owner: None,
            state: RunState::Queued,
            operation: None,
            surveyed: None,
            scores: Vec::new(),
            rejections: Vec::new(),
            comparisons: Vec::new(),
            outcomes: BTreeMap::new(),
            slices: BTreeMap::new(),
            decisions: 0,
            steps: Vec::new(),
            publishing: false,
            report: None,
            failure: None,
            times: None,
            scored: BTreeSet::new(),
            tail: Tail { seq: 0, prev_sha256: GENESIS.to_owned() },
        }
    }
}

/// What records of all versions have.
#[derive(serde::Deserialize)]
struct Versioned {
    v: u32,
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Fold {
    /// Where the next record goes.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Takes the next record: the content of object number `seq`.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) where it is not the next record of a valid log, saying why;
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) where a newer version of this program wrote it.
    pub fn push(&mut self, seq: u64, bytes: &[u8]) -> Result<Record> {
        let broken = |why: String| Error::data(format!("record {seq} of the log is broken: {why}"));
        let unreadable = |e| broken("it cannot be read".into()).with_source(e);
        let Versioned { v } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if v > VERSION {
            return Err(Error::configuration(format!(
                "record {seq} of the log was written by a newer version of soupctl: it has version {v}, this program knows \
                 {VERSION}; use that version"
            )));
        }
        let record: Record = serde_json::from_slice(bytes).map_err(unreadable)?;
        if record.v != record.entry.version() {
            let expected = record.entry.version();
            return Err(broken(format!("it has version {}, and its kind {expected}", record.v)));
        }
        if seq != self.tail.seq || record.seq != seq {
            return Err(broken(format!("it says {}, number {} is expected here", record.seq, self.tail.seq)));
        }
        if record.prev_sha256 != self.tail.prev_sha256 {
            return Err(broken(format!("it follows a record with SHA-256 {}", record.prev_sha256)));
        }
        self.check_epoch(&record).map_err(broken)?;
        self.apply(&record).map_err(|e| e.context(format!("record {seq} of the log is broken")))?;
        self.tail = Tail { seq: seq + 1, prev_sha256: sha256_hex(bytes) };
        let first = self.times.take().map_or_else(|| record.at.clone(), |(first, _)| first);
        self.times = Some((first, record.at.clone()));
        Ok(record)
    }

    fn check_epoch(&self, record: &Record) -> Result<(), String> {
        if let Entry::EpochClaim(_) = record.entry {
            let expected = next_epoch(self.epoch);
            return match record.epoch == expected {
                true => Ok(()),
                false => Err(format!("it claims epoch {}, {expected} is next", record.epoch)),
            };
        }
        let owner = self.owner.as_ref().map(|o| o.writer.as_str());
        match record.epoch == self.epoch && owner == Some(record.writer.as_str()) {
            true => Ok(()),
            false => Err(format!(
                "it was written by {:?} in epoch {}, but epoch {} belongs to {:?}",
                record.writer,
                record.epoch,
                self.epoch,
                owner.unwrap_or("nobody")
            )),
        }
    }

    fn decide(&mut self, decisions: &[Decided]) -> Result<()> {
        for decided in decisions {
            self.decisions += 1;
            if decided.trial != self.decisions {
                let text = format!("it decides trial {}, {} is next", decided.trial, self.decisions);
                return Err(Error::data(text));
            }
        }
        Ok(())
    }

    fn compare(&mut self, compared: &Compared) -> Result<()> {
        let Compared { dataset, soup, reference, counts, decisions } = compared;
        let evaluation = Evaluation { dataset: Dataset(*dataset), soup: soup.soup()? };
        let reference = Evaluation { soup: reference.soup()?, ..evaluation };
        if !self.scored.contains(&evaluation) || !self.scored.contains(&reference) {
            return Err(Error::data("it compares soups that have no scores"));
        }
        self.decide(decisions)?;
        self.comparisons.push((evaluation, Comparison { reference: reference.soup, counts: *counts }));
        Ok(())
    }

    fn retract(&mut self, retracted: &Retracted) -> Result<()> {
        let Retracted { scores, steps, decisions, why: _ } = retracted;
        if *steps as usize > self.steps.len() || *decisions > self.decisions {
            let text =
                format!("it leaves {steps} steps and {decisions} decisions, which are more than there are");
            return Err(Error::data(text));
        }
        let mut gone = BTreeSet::new();
        for of in scores {
            gone.insert(Evaluation { dataset: Dataset(of.dataset), soup: of.soup.soup()? });
        }
        self.scores.retain(|(evaluation, _)| !gone.contains(evaluation));
        self.scored.retain(|evaluation| !gone.contains(evaluation));
        self.outcomes.retain(|evaluation, _| !gone.contains(evaluation));
        self.slices.retain(|evaluation, _| !gone.contains(evaluation));
        let stays = |Evaluation { dataset, soup }: &Evaluation, other: &Soup| {
            [soup, other]
                .into_iter()
                .all(|of| !gone.contains(&Evaluation { dataset: *dataset, soup: of.clone() }))
        };
        // Who did not reach a bar that is not known any more may reach the next one.
        self.rejections.retain(|(of, rejection)| stays(of, &rejection.bar));
        self.comparisons.retain(|(of, comparison)| stays(of, &comparison.reference));
        self.steps.truncate(*steps as usize);
        self.decisions = *decisions;
        Ok(())
    }

    fn apply(&mut self, record: &Record) -> Result<()> {
        match &record.entry {
            Entry::EpochClaim(claim) => {
                self.epoch = record.epoch;
                self.owner = Some(Owner { writer: record.writer.clone(), claim: claim.clone() });
            }
            Entry::Submitted(operation) => {
                self.operation = Some(operation.clone());
                self.state = RunState::Queued;
                self.publishing = false;
                self.report = None;
                self.failure = None;
            }
            Entry::Begun {} => self.state = RunState::Running,
            Entry::Surveyed(surveyed) => self.surveyed = Some(surveyed.clone()),
            Entry::Slices(slices) => {
                for s in slices {
                    let evaluation = Evaluation { dataset: s.dataset(), soup: s.soup.soup()? };
                    let slices = self.slices.entry(evaluation).or_default();
                    // In another order they are other slices.
                    if slices.sequence != s.sequence {
                        *slices = Slices { sequence: s.sequence, ..Slices::default() };
                    }
                    slices.judged.insert(s.slice, s.judged.clone());
                }
            }
            Entry::Scored(scored) => {
                let evaluation = Evaluation { dataset: Dataset(scored.dataset), soup: scored.soup.soup()? };
                self.slices.remove(&evaluation);
                if !self.scored.insert(evaluation.clone()) {
                    return Err(Error::data("it scores a soup that has its score already"));
                }
                self.decide(&scored.decisions)?;
                if let Some(sha256) = &scored.outcomes_sha256 {
                    let mut name = [0; 32];
                    hex::decode_to_slice(sha256, &mut name)
                        .map_err(|e| Error::data(format!("it names outcomes by what is no SHA-256: {e}")))?;
                    self.outcomes.insert(evaluation.clone(), name);
                }
                self.scores.push((evaluation, scored.score.clone()));
            }
            Entry::Rejected(rejected) => {
                let (soup, bar) = (rejected.soup.soup()?, rejected.bar.soup()?);
                let evaluation = Evaluation { dataset: Dataset(rejected.dataset), soup };
                self.slices.remove(&evaluation);
                self.decide(&rejected.decisions)?;
                // One against an earlier bar is replaced.
                self.rejections.retain(|(of, _)| *of != evaluation);
                self.rejections.push((evaluation, Rejection { bar, judged: rejected.judged.clone() }));
            }
            Entry::Compared(compared) => self.compare(compared)?,
            Entry::Stepped(stepped) => {
                let next = self.steps.len() as u32 + 1;
                if stepped.step != next {
                    return Err(Error::data(format!("it is step {}, {next} is next", stepped.step)));
                }
                self.steps.push(stepped.gradients.clone());
            }
            Entry::Retracted(retracted) => self.retract(retracted)?,
            Entry::Publishing { .. } => self.publishing = true,
            Entry::Published { report } => {
                self.report = Some(report.clone());
                self.state = RunState::Published;
            }
            Entry::Suspended {} => self.state = RunState::Suspended,
            Entry::Failed { exit_code, message } => {
                self.failure = Some((*exit_code, message.clone()));
                self.state = RunState::Failed;
            }
            Entry::Cancelled {} => self.state = RunState::Cancelled,
        }
        Ok(())
    }
}
