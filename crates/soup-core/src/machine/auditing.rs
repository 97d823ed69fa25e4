//! Audits: a share of what workers say is asked of another worker too, who cannot tell that it is asked for that reason.
//!
//! What is audited follows from the run and a secret of its own that no worker sees, so that it is the same under every coordinator, and
//! nobody can lie where nobody looks. Of a slice that is audited every answer is a *claim*; the first one is asked of a second worker, and
//! counts once that says the same. Where the two differ a third one is asked: what most say is true, and who said something else is
//! [quarantined](super::quarantine). Where nobody is left to ask, one claim alone counts, unaudited, and of several nobody can tell which
//! is right: then the run waits for one more worker, and ends where none comes.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use super::proving::difference;
use super::{Action, Error, Evaluation, Judged, Machine, Millis, Result, Slice, Work, WorkerId};
use crate::run::PPM;
use crate::shard::Shard;
use crate::soup::Soup;

/// What of a run is audited.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuditPlan {
    ppm: u32,
    seed: [u8; 32],
}

impl fmt::Debug for AuditPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditPlan").field("ppm", &self.ppm).finish_non_exhaustive()
    }
}

impl AuditPlan {
    /// So many millionths of everything; which ones follows from `seed`, a secret of the run.
    pub fn new(ppm: u32, seed: [u8; 32]) -> AuditPlan {
        AuditPlan { ppm, seed }
    }

    /// Whether anything is.
    pub(super) fn any(&self) -> bool {
        self.ppm > 0
    }

    /// The share, as people write it.
    pub(super) fn share(&self) -> String {
        format!("{} %", f64::from(self.ppm) * 100.0 / f64::from(PPM))
    }

    fn takes(&self, kind: &str, key: impl FnOnce(&mut Sha256)) -> bool {
        if self.ppm == 0 || self.ppm >= PPM {
            return self.ppm > 0;
        }
        let mut hash = Sha256::new_with_prefix(self.seed);
        hash.update(kind);
        key(&mut hash);
        let first = hash.finalize().first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        (u128::from(first) * u128::from(PPM)) >> 64 < u128::from(self.ppm)
    }

    /// Whether a slice of an evaluation is audited.
    pub(super) fn takes_slice(&self, evaluation: &Evaluation, slice: u32) -> bool {
        self.takes("slice", |hash| {
            hash.update(evaluation.dataset.0.to_le_bytes());
            hash.update(slice.to_le_bytes());
            take_soup(hash, &evaluation.soup);
        })
    }

    /// Whether what is read of a shard is audited.
    pub(super) fn takes_load(&self, shard: Shard) -> bool {
        self.takes("load", |hash| hash.update(shard.0.to_le_bytes()))
    }

    /// Whether the blend of a soup on a shard is audited.
    pub(super) fn takes_blend(&self, soup: &Soup, shard: Shard) -> bool {
        self.takes("blend", |hash| {
            hash.update(shard.0.to_le_bytes());
            take_soup(hash, soup);
        })
    }
}

/// Each list with its length, so that no two soups come to the same bytes.
fn take_soup(hash: &mut Sha256, soup: &Soup) {
    hash.update((soup.members().len() as u64).to_le_bytes());
    soup.members().iter().for_each(|member| hash.update(member.0.to_le_bytes()));
    for row in soup.rows().into_iter().flatten() {
        hash.update((row.len() as u64).to_le_bytes());
        row.iter().for_each(|weight| hash.update(weight.get().to_bits().to_le_bytes()));
    }
}

/// Of `said`, the positions of the largest side of those that agree, if that is at least two and no other side is as large.
pub(super) fn larger_side<T>(said: &[T], agree: impl Fn(&T, &T) -> bool) -> Option<Vec<usize>> {
    let side = |of: &T| -> Vec<usize> { (0..said.len()).filter(|&other| agree(of, &said[other])).collect() };
    let sides: Vec<Vec<usize>> = said.iter().map(side).collect();
    let most = sides.iter().map(Vec::len).max().filter(|most| *most >= 2)?;
    let largest = sides.iter().find(|side| side.len() == most)?;
    let another = sides.iter().enumerate().any(|(at, side)| side.len() == most && !largest.contains(&at));
    (!another).then(|| largest.clone())
}

/// What a worker said of something that is audited.
#[derive(Clone, Debug)]
pub(super) struct Claim<T> {
    pub(super) by: WorkerId,
    /// When, by the [clock](super::quarantine) of deeds.
    pub(super) at: u64,
    pub(super) said: T,
}

/// Slices that are audited and not settled, and what was audited so far.
#[derive(Debug, Default)]
pub(super) struct Auditing {
    slices: BTreeMap<Evaluation, BTreeMap<u32, Vec<Claim<Judged>>>>,
    /// Whether somebody who could be asked came to be not there.
    stale: bool,
    /// Where workers differ and nobody is there who could tell: how, and since when.
    disputed: Option<Error>,
    disputed_since: Option<Millis>,
    /// What was done again by another worker, and what nobody was there for.
    again: u64,
    alone: u64,
}

impl Auditing {
    fn claims(&self, evaluation: &Evaluation, slice: u32) -> &[Claim<Judged>] {
        self.slices.get(evaluation).and_then(|slices| slices.get(&slice)).map_or(&[], Vec::as_slice)
    }

    fn take(&mut self, evaluation: &Evaluation, slice: u32) -> Vec<Claim<Judged>> {
        let Some(slices) = self.slices.get_mut(evaluation) else { return Vec::new() };
        let claims = slices.remove(&slice).unwrap_or_default();
        if slices.is_empty() {
            self.slices.remove(evaluation);
        }
        claims
    }

    /// Whether `worker` has said something of a slice that is not settled.
    pub(super) fn has_claimed(&self, work: &Work, worker: WorkerId) -> bool {
        let Work::Evaluate(evaluation, slice) = work else { return false };
        self.claims(evaluation, slice.index).iter().any(|claim| claim.by == worker)
    }

    /// How many have.
    pub(super) fn claims_of(&self, evaluation: &Evaluation, slice: u32) -> usize {
        self.claims(evaluation, slice).len()
    }

    /// Whether somebody has said something of a slice, and another one is asked.
    pub(super) fn awaits(&self, work: &Work) -> bool {
        matches!(work, Work::Evaluate(evaluation, slice) if self.claims_of(evaluation, slice.index) > 0)
    }

    /// Forgets what was said of evaluations that nobody wants.
    pub(super) fn retain(&mut self, wanted: impl Fn(&Evaluation) -> bool) {
        self.slices.retain(|evaluation, _| wanted(evaluation));
    }

    /// Forgets all that was said and is not settled: it is asked again.
    pub(super) fn forget(&mut self) {
        self.slices.clear();
    }

    /// Forgets what a worker has said that is not believed.
    pub(super) fn disbelieve(&mut self, worker: WorkerId) {
        for claims in self.slices.values_mut().flat_map(BTreeMap::values_mut) {
            claims.retain(|claim| claim.by != worker);
        }
        self.slices.retain(|_, slices| {
            slices.retain(|_, claims| !claims.is_empty());
            !slices.is_empty()
        });
        self.stale = true;
    }

    /// Who said something under one number has another one.
    pub(super) fn renumber(&mut self, from: WorkerId, to: WorkerId) {
        let claims = self.slices.values_mut().flat_map(BTreeMap::values_mut).flatten();
        claims.filter(|claim| claim.by == from).for_each(|claim| claim.by = to);
    }

    /// Somebody who could be asked is not there any more, or something that audits wait for has happened.
    pub(super) fn look_again(&mut self) {
        self.stale = true;
    }

    /// Workers differ, and nobody is there who could tell which of them is right.
    pub(super) fn dispute(&mut self, error: Error) {
        self.disputed = Some(error);
    }

    /// Something was done again by another worker, or could not be. Whatever was disputed may be settled by that.
    pub(super) fn count(&mut self, audited: bool) {
        self.stale |= self.disputed.is_some();
        *(if audited { &mut self.again } else { &mut self.alone }) += 1;
    }
}

impl Machine {
    /// A worker answered for a slice that is audited.
    pub(super) fn claimed(
        &mut self,
        worker: WorkerId,
        evaluation: Evaluation,
        slice: Slice,
        judged: Judged,
        out: &mut Vec<Action>,
    ) -> Result<()> {
        let at = self.deeds.now();
        let slices = self.auditing.slices.entry(evaluation.clone()).or_default();
        let claims = slices.entry(slice.index).or_default();
        if claims.iter().all(|claim| claim.by != worker) {
            claims.push(Claim { by: worker, at, said: judged });
        }
        self.settle_slice(&evaluation, slice, out)
    }

    /// Settles what can be settled, after somebody who could be asked is gone, or came to be known.
    pub(super) fn settle_audits(&mut self, out: &mut Vec<Action>) {
        while std::mem::take(&mut self.auditing.stale) && self.progress.is_open() {
            self.auditing.disputed = None;
            self.settle_shards(out);
            let open = self.auditing.slices.iter().flat_map(|(e, s)| s.keys().map(move |i| (e.clone(), *i)));
            for (evaluation, index) in open.collect::<Vec<_>>() {
                let slice = self.slice_for(&evaluation, index);
                let settled = slice.map_or(Ok(()), |slice| self.settle_slice(&evaluation, slice, out));
                if let Err(error) = settled {
                    return self.finish(Err(error), out);
                }
            }
        }
    }

    fn settle_slice(&mut self, evaluation: &Evaluation, slice: Slice, out: &mut Vec<Action>) -> Result<()> {
        let claims = self.auditing.claims(evaluation, slice.index);
        // Two workers that were given a wrong blend are not wrong themselves.
        if claims.is_empty() || !self.blends_settled(&evaluation.soup) {
            return Ok(());
        }
        let tolerance = self.tolerance();
        let differs = |a: &Claim<Judged>, b: &Claim<Judged>| difference(&a.said, &b.said, tolerance);
        let Some(side) = larger_side(claims, |a, b| differs(a, b).is_none()) else {
            if self.anybody_else(evaluation, slice) {
                return Ok(());
            }
            if let [first, second, ..] = claims {
                let what = differs(first, second).unwrap_or_default();
                let error = undecided(&about(evaluation, slice), claims, &what);
                self.auditing.dispute(error);
                return Ok(());
            }
            self.auditing.count(false);
            self.withdraw(&Work::Evaluate(evaluation.clone(), slice), out);
            let only = self.auditing.take(evaluation, slice.index).pop();
            return only.map_or(Ok(()), |claim| {
                self.deeds.judged(claim.by, evaluation);
                self.judged(evaluation.clone(), &slice, claim.said)
            });
        };
        let claims = self.auditing.take(evaluation, slice.index);
        self.auditing.count(true);
        self.withdraw(&Work::Evaluate(evaluation.clone(), slice), out);
        let (right, wrong): (Vec<_>, Vec<_>) =
            claims.into_iter().enumerate().partition(|(at, _)| side.contains(at));
        right.iter().for_each(|(_, claim)| self.deeds.judged_well(claim.by, claim.at));
        let Some((_, truth)) = right.first() else { return Ok(()) };
        let mut taken_back = false;
        for (_, claim) in &wrong {
            let what = difference(&truth.said, &claim.said, tolerance).unwrap_or_default();
            let text = format!(
                "it said something else of {} than {}: {what}",
                about(evaluation, slice),
                names(&right)
            );
            taken_back |= self.quarantine(claim.by, &text, out).contains(evaluation);
        }
        // What others said of this evaluation may be wrong too: then all of it is asked for again.
        match taken_back {
            true => Ok(()),
            false => self.judged(evaluation.clone(), &slice, truth.said.clone()),
        }
    }

    /// Where nobody can tell who is right, waits for somebody who can; ends the run where that takes too long.
    pub(super) fn wait_for_another(&mut self, now: Millis, out: &mut Vec<Action>) {
        let Some(dispute) = &self.auditing.disputed else {
            self.auditing.disputed_since = None;
            return;
        };
        let wait_ms = self.plan.limits.dispute_ms;
        match self.auditing.disputed_since {
            None => {
                let text = format!("{dispute}; one more worker is waited for, {} s", wait_ms / 1000);
                self.auditing.disputed_since = Some(now);
                self.note(text, out);
            }
            Some(since) if now.saturating_sub(since) >= wait_ms => {
                let error = self.auditing.disputed.take().map_or(Ok(()), Err);
                self.finish(error, out);
            }
            Some(_) => {}
        }
    }

    /// Whether somebody is there who could be asked about a slice, and has not been.
    fn anybody_else(&self, evaluation: &Evaluation, slice: Slice) -> bool {
        let work = Work::Evaluate(evaluation.clone(), slice);
        self.workers.iter().any(|(worker, state)| {
            state.judges
                && !state.leaving
                && !self.auditing.has_claimed(&work, *worker)
                && !self.tasks.failed_on(&work, *worker)
        })
    }

    /// Whether nothing is left that audits wait for, before the output is made visible.
    pub(super) fn audited_enough(&self) -> bool {
        let settled =
            self.loads_settled() && self.progress.chosen().is_none_or(|soup| self.blends_settled(soup));
        !self.plan.audit.any() || settled && !self.deeds.doubts_survey()
    }

    /// What people should know of the audits of a run that is done.
    pub(super) fn tell_of_audits(&mut self, out: &mut Vec<Action>) {
        if !self.plan.audit.any() {
            return;
        }
        let (share, Auditing { again, alone, .. }) = (self.plan.audit.share(), &self.auditing);
        let text = match (again, alone) {
            (0, 0) => format!("audit of {share}: nothing fell into that share"),
            (0, alone) => format!(
                "audit of {share}: nothing could be audited, since that takes two workers; {alone} answers would have been"
            ),
            (again, 0) => format!("audit of {share}: {again} answers were found out again by other workers"),
            (again, alone) => format!(
                "audit of {share}: {again} answers were found out again by other workers; for {alone} more nobody else was there"
            ),
        };
        self.note(text, out);
    }
}

/// What people call a slice.
fn about(evaluation: &Evaluation, slice: Slice) -> String {
    let members = evaluation.soup.members().len();
    format!(
        "samples {} to {} of dataset {}, judging a soup of {members} ingredients",
        slice.start, slice.end, evaluation.dataset.0
    )
}

fn names<T>(claims: &[(usize, Claim<T>)]) -> String {
    names_of(claims.iter().map(|(_, claim)| claim.by))
}

/// What people call these workers.
pub(super) fn names_of(workers: impl Iterator<Item = WorkerId>) -> String {
    let all: Vec<String> = workers.map(|worker| worker.0.to_string()).collect();
    match &all[..] {
        [only] => format!("worker {only}"),
        [some @ .., last] => format!("workers {} and {last}", some.join(", ")),
        [] => "nobody".to_owned(),
    }
}

/// Why a run waits, and ends, in which workers say different things of something and nobody else is there to ask.
pub(super) fn undecided<T>(about: &str, claims: &[Claim<T>], what: &str) -> Error {
    let text = format!(
        "{} say different things of {about}, and nobody can tell who is right without one more worker: {what}",
        names_of(claims.iter().map(|claim| claim.by))
    );
    Error::configuration(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Dataset;
    use crate::soup::Ingredient;

    #[test]
    fn the_larger_side_is_right_and_of_equal_ones_none() {
        let side = |said: &[u32]| larger_side(said, |a, b| a == b);
        assert_eq!(side(&[]), None);
        assert_eq!(side(&[1]), None);
        assert_eq!(side(&[1, 2]), None);
        assert_eq!(side(&[1, 1]), Some(vec![0, 1]));
        assert_eq!(side(&[1, 2, 1]), Some(vec![0, 2]));
        assert_eq!(side(&[2, 1, 1]), Some(vec![1, 2]));
        assert_eq!(side(&[1, 2, 3]), None);
        assert_eq!(side(&[1, 1, 2, 2]), None);
        assert_eq!(side(&[1, 1, 2, 2, 1]), Some(vec![0, 1, 4]));
    }

    #[test]
    fn what_is_audited_is_a_share_that_follows_from_the_run() {
        let evaluations: Vec<Evaluation> = (0..40)
            .map(|i| Evaluation { dataset: Dataset(i % 2), soup: Soup::single(Ingredient(i / 2)) })
            .collect();
        let taken = |plan: &AuditPlan| -> Vec<(usize, u32)> {
            let slices = |(at, e): (usize, &Evaluation)| {
                let taken: Vec<_> = (0..50).filter(|s| plan.takes_slice(e, *s)).map(|s| (at, s)).collect();
                taken
            };
            evaluations.iter().enumerate().flat_map(slices).collect()
        };
        let of = |ppm, seed| taken(&AuditPlan::new(ppm, [seed; 32]));
        assert_eq!((of(0, 1).len(), of(PPM, 1).len()), (0, 2000));
        let some = of(PPM / 10, 1);
        assert!((150..250).contains(&some.len()), "{} of 2000 at 10 %", some.len());
        assert_eq!(some, of(PPM / 10, 1));
        assert_ne!(some, of(PPM / 10, 2));
        // A larger share has all of a smaller one.
        let more = of(PPM / 5, 1);
        assert!(some.iter().all(|slice| more.contains(slice)));
        // The secret is in no log.
        assert!(!format!("{:?}", AuditPlan::new(1, [77; 32])).contains("77"));
    }
}
