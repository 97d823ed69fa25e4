//! Verdicts that hang on two samples.
//!
//! A trial's verdict is *fragile* where the candidate could have turned it by other predictions for two samples at most, everything else
//! being as it is: the labels, the bar, the rule of acceptance. For accuracy that is a matter of counts. With c and b the correct
//! samples of candidate and bar, of equally many:
//!
//! | rule | accepted where | fragile where c - b is |
//! |---|---|---|
//! | at least | c >= b | -2, -1, 0, 1 |
//! | better | c > b | -1, 0, 1, 2 |
//!
//! (not where turning it takes more samples than are wrong). For other figures of counts, and means of them, it
//! depends on which class is taken for which, and all ways are tried: exactly, for up to [`FRAGILE_CLASSES_MAX`] classes. Nothing is said
//! of more classes, nor of losses and other judges' figures, which one sample can move as far as it likes.

use super::{Discordant, McNemar};
use crate::metric::{ClassMetric, Margins, Metric, compare_margins};
use crate::recipe::Accept;
use crate::tally::{Counts, Tally};

/// How many samples may turn a fragile verdict.
pub const FRAGILE_SAMPLES: u32 = 2;
/// Most classes for which figures other than accuracy are tried: what is to be tried grows by the fifth power.
pub const FRAGILE_CLASSES_MAX: u32 = 10;

/// Whether the verdict of a trial that scored `score` against `bar` is fragile; `None` where that is not known.
pub fn is_fragile(metric: &Metric, accept: Accept, score: &Tally, bar: &Tally) -> Option<bool> {
    let (Metric::Classes { of, classes }, Tally::Classes(score), Tally::Classes(bar)) = (metric, score, bar)
    else {
        return None;
    };
    if score.total == 0 || score.total != bar.total || of.contains(&ClassMetric::Loss) {
        return None;
    }
    if of[..] == [ClassMetric::Accuracy] {
        return Some(turns_by_counts(accept, score, bar.correct));
    }
    let known = |counts: &Counts| counts.confusion.keys().all(|(l, p)| l < classes && p < classes);
    if *classes > FRAGILE_CLASSES_MAX || !known(score) || !known(bar) {
        return None;
    }
    Some(Search::new((of, *classes), accept, score, bar).turns(FRAGILE_SAMPLES))
}

/// Whether a verdict is fragile that asks for significance, of a trial that scored `score` against `bar` and differs so from it: other predictions
/// for a sample make one gain more of one that both have wrong or one less, or one loss more of one that both have right or one less. `None`
/// where that is not how two such scores differ.
pub fn is_fragile_at(alpha: f64, counts: Discordant, score: &Tally, bar: &Tally) -> Option<bool> {
    let score = score.counts().filter(|_| counts.is_between(score, bar))?;
    let accepted = |gains: u64, losses: u64| McNemar::of(Discordant { gains, losses }).better <= alpha;
    let Discordant { gains, losses } = counts;
    let (both_right, both_wrong) = (score.correct - gains, score.total - score.correct - losses);
    let samples = u64::from(FRAGILE_SAMPLES);
    let before = accepted(gains, losses);
    Some((0..=samples).any(|of_gains| {
        let of_losses = samples - of_gains;
        let better = accepted(gains + of_gains.min(both_wrong), losses.saturating_sub(of_losses));
        let worse = accepted(gains.saturating_sub(of_gains), losses + of_losses.min(both_right));
        better != before || worse != before
    }))
}

fn turns_by_counts(accept: Accept, score: &Counts, bar: u64) -> bool {
    let samples = u64::from(FRAGILE_SAMPLES);
    let accepted = |correct: u64| accept.holds(correct.cmp(&bar));
    // More correct samples never turn it back, so that the ends are enough.
    let ends = [score.correct.saturating_sub(samples), (score.correct + samples).min(score.total)];
    ends.into_iter().any(|correct| accepted(correct) != accepted(score.correct))
}

/// All predictions that a candidate could have made instead.
///
/// Figures are made of margins, so of the samples that are predicted to be of one class and could be of another, only three kinds
/// differ: those that are right now, those that would be, and all others. One of each kind is moved, the one of which there
/// are most alike. As every order of two moves is tried, none that needs two samples is missed: where the first takes the only
/// sample that the second could take, the other order leaves both one.
struct Search<'a> {
    of: &'a [ClassMetric],
    classes: u32,
    accept: Accept,
    bar: Margins,
    /// Whether the candidate was accepted.
    accepted: bool,
    /// `confusion[label][prediction]` of the candidate as it is tried.
    confusion: Vec<Vec<u64>>,
    /// The same, added up.
    margins: Margins,
}

impl<'a> Search<'a> {
    fn new(
        (of, classes): (&'a [ClassMetric], u32),
        accept: Accept,
        score: &Counts,
        bar: &Counts,
    ) -> Search<'a> {
        let mut confusion = vec![vec![0; classes as usize]; classes as usize];
        for (&(label, prediction), &count) in &score.confusion {
            confusion[label as usize][prediction as usize] = count;
        }
        let mut margins = Margins::of(score);
        for class in 0..classes {
            margins.by_class.entry(class).or_default();
        }
        let mut search =
            Search { of, classes, accept, bar: Margins::of(bar), accepted: false, confusion, margins };
        search.accepted = search.accepts();
        search
    }

    fn accepts(&self) -> bool {
        self.accept.holds(compare_margins(self.of, self.classes, &self.margins, &self.bar))
    }

    /// Whether other predictions for so many samples turn the verdict.
    fn turns(&mut self, samples: u32) -> bool {
        for from in 0..self.classes {
            for to in (0..self.classes).filter(|to| *to != from) {
                let count = |label: &u32| self.confusion[*label as usize][from as usize];
                let others = (0..self.classes).filter(|label| ![from, to].contains(label)).max_by_key(count);
                let kinds = [Some(from), Some(to), others];
                let there: Vec<u32> = kinds.into_iter().flatten().filter(|label| count(label) > 0).collect();
                for label in there {
                    self.predict(label, from, to);
                    let turned = self.accepts() != self.accepted || (samples > 1 && self.turns(samples - 1));
                    self.predict(label, to, from);
                    if turned {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Predicts `to` for a sample of `label` that was predicted to be `from`.
    fn predict(&mut self, label: u32, from: u32, to: u32) {
        let row = &mut self.confusion[label as usize];
        row[from as usize] -= 1;
        row[to as usize] += 1;
        if let Some(class) = self.margins.by_class.get_mut(&from) {
            class.predicted -= 1;
            class.hit -= u64::from(label == from);
        }
        if let Some(class) = self.margins.by_class.get_mut(&to) {
            class.predicted += 1;
            class.hit += u64::from(label == to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;
    use crate::tally::Outcome;

    fn metric(name: &str, classes: u32) -> Metric {
        Metric::of_classes(&name.parse().unwrap(), classes).unwrap()
    }

    fn tally(pairs: &[(u32, u32)]) -> Tally {
        let outcomes = pairs.iter().map(|&(label, prediction)| Outcome { label, prediction, loss: 0.5 });
        outcomes.collect::<Vec<_>>().iter().collect::<Counts>().into()
    }

    /// The same by trying every prediction for every two samples.
    fn brute_force(metric: &Metric, classes: u32, accept: Accept, pairs: &[(u32, u32)], bar: &Tally) -> bool {
        let accepted = |pairs: &[(u32, u32)]| accept.holds(metric.compare(&tally(pairs), bar));
        let verdict = accepted(pairs);
        let mut tried = pairs.to_vec();
        for first in 0..pairs.len() {
            for second in first..pairs.len() {
                for predictions in 0..classes * classes {
                    tried[first].1 = predictions / classes;
                    tried[second].1 = predictions % classes;
                    if accepted(&tried) != verdict {
                        return true;
                    }
                }
                (tried[first], tried[second]) = (pairs[first], pairs[second]);
            }
        }
        false
    }

    #[test]
    fn fragile_is_what_two_other_predictions_turn() {
        let names =
            ["accuracy", "macro-f1", "binary-f1", "matthews", "accuracy+binary-f1", "macro-f1+matthews"];
        let mut random = SplitMix64(3);
        let mut seen = [0, 0];
        for round in 0..40 {
            let classes = 2 + round % 3;
            let samples = 2 + random.below(8);
            let class = |random: &mut SplitMix64| random.below(u64::from(classes)) as u32;
            let labels: Vec<u32> = (0..samples).map(|_| class(&mut random)).collect();
            let pairs: Vec<(u32, u32)> = labels.iter().map(|l| (*l, class(&mut random))).collect();
            // Bars from like the candidate to perfect.
            let perfect = random.below(2) == 0;
            let said = |l: &u32, random: &mut SplitMix64| if perfect { *l } else { class(random) };
            let bar = tally(&labels.iter().map(|l| (*l, said(l, &mut random))).collect::<Vec<_>>());
            for name in names {
                let metric = metric(name, classes);
                for accept in [Accept::AtLeast, Accept::Better] {
                    let expected = brute_force(&metric, classes, accept, &pairs, &bar);
                    let got = is_fragile(&metric, accept, &tally(&pairs), &bar);
                    assert_eq!(got, Some(expected), "{name} {accept:?} {pairs:?} {bar:?}");
                    seen[usize::from(expected)] += 1;
                }
            }
        }
        assert!(seen.iter().all(|n| *n > 20), "{seen:?}");
    }

    #[test]
    fn accuracies_are_fragile_by_the_table() {
        let of = |correct| Counts { total: 100, correct, ..Counts::default() }.into();
        let fragile = |accept| -> Vec<i64> {
            let is = |apart: &i64| {
                let metric = metric("accuracy", 1000);
                is_fragile(&metric, accept, &of((50 + apart) as u64), &of(50)).unwrap()
            };
            (-5..=5).filter(is).collect()
        };
        assert_eq!(fragile(Accept::AtLeast), [-2, -1, 0, 1]);
        assert_eq!(fragile(Accept::Better), [-1, 0, 1, 2]);
        // Nothing is better than all.
        assert_eq!(is_fragile(&metric("accuracy", 9), Accept::Better, &of(99), &of(100)), Some(false));
    }

    #[test]
    fn the_only_sample_that_a_move_could_take_is_left_to_it() {
        // Two moves out of one column, of which the second has one sample to choose from: the first one's likeliest.
        let pairs = [(0, 1), (2, 1), (3, 3), (0, 0), (2, 2), (1, 3)];
        for bar in [
            [(0, 0), (2, 2), (3, 3), (0, 0), (2, 2), (1, 3)],
            [(0, 2), (2, 0), (3, 3), (0, 0), (2, 2), (1, 1)],
        ] {
            for name in ["macro-f1", "matthews"] {
                let (metric, bar) = (metric(name, 4), tally(&bar));
                let expected = brute_force(&metric, 4, Accept::AtLeast, &pairs, &bar);
                assert_eq!(
                    is_fragile(&metric, Accept::AtLeast, &tally(&pairs), &bar),
                    Some(expected),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn nothing_is_said_of_what_is_not_tried() {
        let pairs = tally(&[(0, 0), (1, 0)]);
        let ask = |name, classes| is_fragile(&metric(name, classes), Accept::AtLeast, &pairs, &pairs);
        assert_eq!(ask("loss", 2), None);
        assert_eq!([ask("macro-f1", 10).is_some(), ask("macro-f1", 11).is_some()], [true, false]);
        assert_eq!(ask("macro-f1", 1), None, "a class that there is not");
        let none = tally(&[]);
        assert_eq!(is_fragile(&metric("accuracy", 2), Accept::AtLeast, &none, &none), None);
        assert_eq!(is_fragile(&metric("accuracy", 2), Accept::AtLeast, &none, &pairs), None);
    }
}
