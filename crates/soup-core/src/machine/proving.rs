//! Whether judges that are programs of their own say the same: before a worker's judges anything, it is asked about the same samples
//! of the first ingredient as all others are. Another graphics card, driver, framework or copy of the data shows in that.
//!
//! Once all that are there have answered, what most of them say is what is true: who differs by more than its judge says it may does
//! not judge, and still holds shards; so does who comes later and differs. Where no side is the larger one, nobody can tell who is
//! right, and the run ends. The native judge needs no proof: the same program gives the same bits.

use super::tasks::WorkerState;
use super::{Action, BTreeMap, BTreeSet, Dataset, Error, Evaluation, Machine, Proof, Slice, Work, WorkerId};
use crate::error::ErrorKind;
use crate::judge::JudgeId;
use crate::sequence::SequenceId;
use crate::soup::{Ingredient, Soup};
use crate::tally::{Judged, Tally, Values};

/// What workers' judges said.
#[derive(Debug, Default)]
pub(super) struct Proving {
    /// What was answered, until all have.
    answers: BTreeMap<WorkerId, Proof>,
    /// What is true, and who said so.
    reference: Option<(WorkerId, Proof)>,
    /// Those who said the same.
    proved: BTreeSet<WorkerId>,
}

impl Machine {
    /// Whether judges have to prove anything in this run.
    fn proofs_wanted(&self) -> bool {
        self.plan.judge.as_ref().is_some_and(|judge| *judge != JudgeId::native())
    }

    /// Whether nothing speaks against a worker's judge any more.
    pub(super) fn is_proved(&self, worker: WorkerId) -> bool {
        !self.proofs_wanted() || self.proving.proved.contains(&worker)
    }

    /// Whether that is so of all that may judge.
    pub(super) fn all_proved(&self) -> bool {
        self.workers.iter().all(|(worker, state)| !state.judges || self.is_proved(*worker))
    }

    /// Whether it is known what judges say, since most have said it.
    pub(super) fn truth_is_known(&self) -> bool {
        self.proving.reference.is_some()
    }

    /// Whether anybody but `worker` has answered, and waits for it.
    pub(super) fn another_answered(&self, worker: WorkerId) -> bool {
        self.truth_is_known() || self.proving.answers.keys().any(|other| *other != worker)
    }

    /// By how much judges may differ in a mean loss or figure, relative to it. The native one does not.
    pub(super) fn tolerance(&self) -> f64 {
        self.proving.reference.as_ref().map_or(0.0, |(_, proof)| proof.tolerance)
    }

    /// The proof that a worker owes.
    pub(super) fn pick_proof(&self, worker: WorkerId) -> Option<Work> {
        let owes =
            self.is_judging() && !self.is_proved(worker) && !self.proving.answers.contains_key(&worker);
        owes.then(|| self.proof_of(worker))
    }

    /// The same: a batch of the first ingredient for all.
    fn proof_of(&self, worker: WorkerId) -> Work {
        let evaluation = Evaluation { soup: Soup::single(Ingredient(0)), dataset: Dataset::VALIDATION };
        Work::Prove(worker, evaluation, self.slice_of_proofs())
    }

    fn slice_of_proofs(&self) -> Slice {
        let slice = self.slices_of(Dataset::VALIDATION).first().copied();
        let slice = slice.unwrap_or(Slice { index: 0, start: 0, end: 0, sequence: SequenceId::NATURAL });
        Slice { end: slice.end.min(slice.start + u64::from(self.plan.batch_size)), ..slice }
    }

    /// A worker's judge has answered.
    pub(super) fn proved(&mut self, worker: WorkerId, proof: Proof, out: &mut Vec<Action>) {
        let slice = self.slice_of_proofs();
        if let Err(error) = self.check_judged(&proof.judged, slice.end - slice.start) {
            return self.exclude(worker, error, out);
        }
        if proof.statistics.is_some() != self.recomputes() {
            let text = "it did not recompute running statistics where it had to, or did where it had not";
            return self.exclude(worker, Error::internal(text), out);
        }
        if !proof.again {
            let text = format!(
                "the judge of worker {} is not deterministic: it said two things of the same samples, so scores cannot be \
                 reproduced to the last bit",
                worker.0
            );
            self.note(text, out);
        }
        match &self.proving.reference {
            Some(reference) => {
                let what = difference_of(&reference.1, &proof);
                let of = reference.0;
                self.held_against(worker, of, what, out);
            }
            None => {
                self.proving.answers.insert(worker, proof);
                self.settle_truth(out);
            }
        }
    }

    /// Tells what is true, once all that may judge have answered.
    fn settle_truth(&mut self, out: &mut Vec<Action>) {
        let answers = &self.proving.answers;
        let owes = |(worker, state): (&WorkerId, &WorkerState)| {
            state.judges && !state.leaving && !answers.contains_key(worker)
        };
        if self.proving.reference.is_some() || answers.is_empty() || self.workers.iter().any(owes) {
            return;
        }
        let agree = |a: &Proof, b: &Proof| difference_of(a, b).is_none();
        let side = |of: &Proof| answers.values().filter(|other| agree(of, other)).count();
        let sides: Vec<(usize, WorkerId)> = answers.iter().map(|(worker, of)| (side(of), *worker)).collect();
        // Of the largest side the first worker.
        let Some(&(most, first)) =
            sides.iter().max_by_key(|(side, worker)| (*side, std::cmp::Reverse(*worker)))
        else {
            return;
        };
        let reference = answers[&first].clone();
        let other_side = sides.iter().find(|(side, w)| *side == most && !agree(&reference, &answers[w]));
        if let Some((_, other)) = other_side {
            let proof = &answers[other];
            let what = difference_of(&reference, proof);
            let text = format!(
                "the judges of workers {} and {} say different things of the same samples, and nobody can tell who is right: {}",
                first.0,
                other.0,
                what.unwrap_or_default()
            );
            return self.finish(Err(Error::configuration(text)), out);
        }
        // Whoever surveyed the datasets first may have been none of them.
        if self.survey().is_some_and(|known| *known != reference.survey) {
            let text = format!(
                "one worker's judge surveyed other datasets than most have: do all have the same data? Those of worker {} have {:?} \
                 samples",
                first.0, reference.survey.samples
            );
            return self.finish(Err(Error::configuration(text)), out);
        }
        let answers = std::mem::take(&mut self.proving.answers);
        for (worker, proof) in answers {
            let what = difference_of(&reference, &proof);
            self.held_against(worker, first, what, out);
        }
        self.proving.reference = Some((first, reference));
    }

    /// A worker's judge was held against that of worker `of`.
    fn held_against(&mut self, worker: WorkerId, of: WorkerId, what: Option<String>, out: &mut Vec<Action>) {
        let Some(what) = what else {
            self.proving.proved.insert(worker);
            return;
        };
        let text =
            format!("its judge says something else of the same samples than that of worker {}: {what}", of.0);
        self.exclude(worker, Error::configuration(text), out);
    }

    /// A worker does not judge in this run: it only holds shards. Where nobody is left who may, that ends the run.
    pub(super) fn exclude(&mut self, worker: WorkerId, why: Error, out: &mut Vec<Action>) {
        self.tasks.forget(&self.proof_of(worker));
        if let Some(state) = self.workers.get_mut(&worker) {
            state.judges = false;
        }
        self.auditing.look_again();
        self.note(format!("worker {} does not judge: {}", worker.0, why.chain()), out);
        if self.is_judging() && !self.workers.values().any(|state| state.judges) {
            let kind = if why.kind().is_transient() { ErrorKind::Unavailable } else { why.kind() };
            let text = "no worker is left that may judge";
            return self.finish(Err(Error::new(kind, why.chain()).context(text)), out);
        }
        if !self.end_where_hopeless(out) {
            self.settle_truth(out);
        }
    }

    /// A worker is gone, and its proof with it.
    pub(super) fn lose_proof(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        self.proving.proved.remove(&worker);
        self.proving.answers.remove(&worker);
        self.tasks.forget(&self.proof_of(worker));
        self.settle_truth(out);
    }
}

/// How two answers differ, in what was found of the datasets or said of the samples, where that is more than may be.
fn difference_of(a: &Proof, b: &Proof) -> Option<String> {
    if a.survey.samples != b.survey.samples {
        let (there, here) = (&a.survey.samples, &b.survey.samples);
        return Some(format!("the datasets have {there:?} samples there and {here:?} here"));
    }
    if a.survey != b.survey {
        return Some("it tells of other classes, figures or metrics".to_owned());
    }
    if a.statistics != b.statistics {
        return Some("it recomputed other running statistics".to_owned());
    }
    difference(&a.judged, &b.judged, a.tolerance.max(b.tolerance))
}

/// How two judges differ in what they say of the same samples, where that is more than `tolerance`.
pub(super) fn difference(a: &Judged, b: &Judged, tolerance: f64) -> Option<String> {
    if let (Judged::Outcomes(a), Judged::Outcomes(b)) = (a, b) {
        let labels = a.iter().zip(b).position(|(a, b)| a.label != b.label);
        if let Some(at) = labels {
            return Some(format!(
                "sample {at} is of class {} there and of class {} here; do both have the same data?",
                a[at].label, b[at].label
            ));
        }
    }
    let far = |what: &str, a: f64, b: f64, n: u64| {
        let (a, b) = (a / n.max(1) as f64, b / n.max(1) as f64);
        let close = a.is_finite() && b.is_finite() && (a - b).abs() <= tolerance * a.abs().max(b.abs());
        let near = a == b || (a.is_nan() && b.is_nan()) || close;
        (!near).then(|| format!("{what} is {a} there and {b} here; {tolerance} of that is tolerated"))
    };
    match (a.tally(), b.tally()) {
        (Tally::Classes(a), Tally::Classes(b)) => {
            let counts = tolerance == 0.0 && a.confusion != b.confusion;
            let counted = || format!("{} are right there and {} here", a.correct, b.correct);
            counts.then(counted).or_else(|| far("the mean loss", a.loss_sum, b.loss_sum, a.total))
        }
        (Tally::Sums(a), Tally::Sums(b)) => {
            let figure = |(name, sum): (&String, &f64)| far(name, *sum, *b.figures.get(name)?, a.samples);
            a.figures.iter().find_map(figure)
        }
        (Tally::Values(a), Tally::Values(b)) => difference_of_values(&a, &b, tolerance),
        _ => Some("one tells of classes and the other of figures or numbers".to_owned()),
    }
}

/// The same of numbers that are predicted: by the root of the mean of squares, as predictions may be near nothing.
fn difference_of_values(a: &Values, b: &Values, tolerance: f64) -> Option<String> {
    let pairs = || a.samples().iter().zip(b.samples());
    if let Some((at, (a, b))) = pairs().enumerate().find(|(_, (a, b))| a.truth != b.truth) {
        return Some(format!(
            "sample {at} is {} there and {} here; do both have the same data?",
            a.truth, b.truth
        ));
    }
    let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
    let others = pairs().map(|(a, b)| (a.prediction, b.prediction)).filter(|(a, b)| !same(*a, *b));
    let apart = others.map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    let largest = |(a, b): (f64, f64)| (a * a).max(b * b);
    let finite =
        pairs().map(|(a, b)| (a.prediction, b.prediction)).filter(|(a, b)| a.is_finite() && b.is_finite());
    let size = finite.map(largest).sum::<f64>();
    let near = apart == 0.0 || apart.sqrt() <= tolerance * size.sqrt();
    let root = |sum: f64| (sum / a.samples().len() as f64).sqrt();
    (!near).then(|| {
        format!(
            "predictions of about {} are {} apart; {tolerance} of that is tolerated",
            root(size),
            root(apart)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::{Outcome, Sums, Value};

    #[test]
    fn judges_differ_by_what_they_say_and_by_how_much() {
        let of = |rows: &[(u32, u32, f64)]| {
            let outcome = |&(label, prediction, loss): &(u32, u32, f64)| Outcome { label, prediction, loss };
            Judged::Outcomes(rows.iter().map(outcome).collect())
        };
        let first = of(&[(0, 1, 1.0), (1, 1, 3.0)]);
        let says = |other: &Judged, tolerance, expected: Option<&str>| {
            let said = difference(&first, other, tolerance);
            match expected {
                None => assert_eq!(said, None),
                Some(part) => assert!(said.as_ref().is_some_and(|s| s.contains(part)), "{said:?}"),
            }
        };
        says(&first, 0.0, None);
        says(&of(&[(0, 1, 1.0), (1, 1, 3.0000001)]), 0.0, Some("mean loss is 2 there and 2.00000004"));
        says(&of(&[(0, 1, 1.0), (1, 1, 3.0000001)]), 1e-6, None);
        // A near tie may fall the other way where a tolerance is declared.
        says(&of(&[(0, 0, 1.0), (1, 1, 3.0000001)]), 1e-6, None);
        says(&of(&[(0, 0, 1.0), (1, 1, 3.0)]), 0.0, Some("1 are right there and 2 here"));
        says(&of(&[(0, 1, 1.0), (0, 1, 3.0)]), 0.1, Some("sample 1 is of class 1 there and of class 0 here"));
        says(&of(&[(0, 1, 1.0), (1, 1, f64::NAN)]), 0.1, Some("NaN here"));
        says(&of(&[(0, 1, 1.0), (1, 1, f64::INFINITY)]), 0.1, Some("inf here"));
        let sums = |nll| Judged::Tally(Sums { samples: 2, figures: [("nll".into(), nll)].into() }.into());
        assert_eq!(difference(&sums(f64::NAN), &sums(f64::NAN), 0.0), None);
        assert!(difference(&sums(1.0), &sums(1.1), 0.01).is_some_and(|s| s.contains("nll is 0.5 there")));
        assert!(difference(&sums(1.0), &first, 0.01).is_some());
        let values = |of: &[(f64, f64)]| {
            let values: Values = of.iter().map(|&(truth, prediction)| Value { truth, prediction }).collect();
            Judged::Tally(values.into())
        };
        let numbers = values(&[(1.0, 3.0), (2.0, f64::NAN), (3.0, 4.0)]);
        let differs = |other: &[(f64, f64)], tolerance| difference(&numbers, &values(other), tolerance);
        assert_eq!(difference(&numbers, &numbers, 0.0), None);
        let near = [(1.0, 3.0), (2.0, f64::NAN), (3.0, 4.001)];
        assert!(differs(&near, 0.0).is_some_and(|s| s.contains("are 0.000577")));
        assert_eq!(differs(&near, 1e-3), None);
        let other = [(1.0, 3.0), (2.5, f64::NAN), (3.0, 4.0)];
        assert!(differs(&other, 0.1).is_some_and(|s| s.contains("sample 1 is 2 there and 2.5 here")));
        let finite = [(1.0, 3.0), (2.0, 1.0), (3.0, 4.0)];
        assert!(differs(&finite, 0.1).is_some_and(|s| s.contains("NaN apart")));
    }
}
