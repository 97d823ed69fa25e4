//! Other uses of the same ingredients, from the logits of each: their mean (the logit ensemble), the majority vote,
//! boosting: a vote in which some have more to say ([`boosting`](super::boosting)), and stacking: logits weighted by weights that
//! minimise the loss, fitted by Newton's method.
//!
//! A sample of which an ingredient has a logit that is not finite is one that it has wrong, as where it is judged alone; what is mixed with
//! such a logit is wrong, too, and votes for what the others say remain.
//!
//! All of it is counted slice by slice, where the logits are; only counts travel, the sums that a Newton step needs, and once a bit for every
//! sample and ingredient, of which the votes of boosting are made.

use super::boosting::Hits;
use crate::error::{Error, Result};
use crate::tally::{Counts, Outcome};

/// Tries of a fit at most. The loss is convex in the weights; from the logit ensemble on, Newton's method settles in five or six, and in
/// twenty or thirty where ingredients are very sure of what is wrong: there whole steps lead away from the least loss.
pub const STACK_STEPS: u32 = 32;
/// What is tried next of a step that did not lower the loss, and of the one after a shorter one that did.
const SHORTER: f64 = 0.25;
const LONGER: f64 = 2.0;
/// A step that is to lower the mean loss by less than this is not made.
const SETTLED: f64 = 1e-9;
/// Added to the curvature, so that ingredients that always agree have a solution; against curvatures of about 1 a sample.
const RIDGE: f64 = 1e-3;
/// Most ingredients that are stacked: a fit solves for as many unknowns.
pub const STACK_INGREDIENTS_MAX: usize = 256;

/// What a comparison is made with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// Weights of the stacking, one an ingredient.
    pub weights: Vec<f64>,
    /// Votes of the boosting, one an ingredient; empty where there are none yet.
    pub votes: Vec<f64>,
    /// Whether it is to be told which ingredients are right on which samples.
    pub hits: bool,
}

/// What a slice says of the alternatives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alternatives {
    /// The mean of the logits.
    pub logits: Counts,
    /// The most frequent prediction; of equally frequent ones, the one whose mean logit is largest. Its loss is not
    /// defined, and 0 here.
    pub vote: Counts,
    /// The logits under the weights that were asked about.
    pub stacked: Counts,
    /// Gradient and curvature of the loss with respect to the weights, summed over the samples.
    pub newton: Newton,
    /// The prediction with the most votes, where votes were asked about; else as `vote`.
    pub boosted: Option<Counts>,
    /// Which ingredients are right on which samples, where that was asked for.
    pub hits: Option<Hits>,
}

impl Alternatives {
    /// Adds what the next slice says of the same question.
    pub fn add(&mut self, next: &Alternatives) {
        self.logits.merge(&next.logits);
        self.vote.merge(&next.vote);
        self.stacked.merge(&next.stacked);
        self.newton.add(&next.newton);
        if let (Some(sum), Some(more)) = (&mut self.boosted, &next.boosted) {
            sum.merge(more);
        }
        if let (Some(sum), Some(more)) = (&mut self.hits, &next.hits) {
            sum.extend(more);
        }
    }
}

/// Sums that a Newton step needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Newton {
    /// One number an ingredient.
    pub gradient: Vec<f64>,
    /// The upper triangle, row by row.
    pub curvature: Vec<f64>,
}

impl Newton {
    /// Nothing yet.
    pub fn zeros(ingredients: usize) -> Newton {
        Newton { gradient: vec![0.0; ingredients], curvature: vec![0.0; ingredients * (ingredients + 1) / 2] }
    }

    /// Adds the sums of other samples.
    pub fn add(&mut self, other: &Newton) {
        self.gradient.iter_mut().zip(&other.gradient).for_each(|(sum, g)| *sum += g);
        self.curvature.iter_mut().zip(&other.curvature).for_each(|(sum, c)| *sum += c);
    }

    /// The weights after one step from `weights`.
    pub fn step(&self, weights: &[f64]) -> Vec<f64> {
        let k = weights.len();
        let mut matrix = vec![vec![0.0; k]; k];
        let pairs = (0..k).flat_map(|i| (i..k).map(move |j| (i, j)));
        for ((i, j), c) in pairs.zip(&self.curvature) {
            (matrix[i][j], matrix[j][i]) = (*c, *c);
        }
        let trace: f64 = (0..k).map(|i| matrix[i][i]).sum();
        let ridge = RIDGE * (trace / k.max(1) as f64).max(1.0);
        // The ridge pulls towards where the fit began, the equal weights, so that what the data does not tell stays there.
        let equal = 1.0 / k.max(1) as f64;
        let mut right: Vec<f64> =
            self.gradient.iter().zip(weights).map(|(g, w)| g + ridge * (w - equal)).collect();
        (0..k).for_each(|i| matrix[i][i] += ridge);
        solve(&mut matrix, &mut right);
        weights.iter().zip(right).map(|(w, step)| w - step).collect()
    }
}

/// The fit of the weights: Newton's method, whose steps are cut short where a whole one leads to no lower loss. What is found is never worse than
/// what the fit began with.
#[derive(Debug, Default)]
pub struct Fit {
    /// The weights with the least loss so far, and what they led to.
    best: Option<(Vec<f64>, Alternatives)>,
    /// The share of a step from there that is tried.
    share: f64,
    tried: u32,
}

impl Fit {
    /// Takes in what `weights` led to; the weights to be tried next, if any.
    pub fn next(&mut self, weights: &[f64], found: Alternatives) -> Option<Vec<f64>> {
        let before = self.best.as_ref().map(|(_, best)| best.stacked.loss_sum);
        let is_better = before.is_none_or(|before| found.stacked.loss_sum < before);
        self.share = match (before, is_better) {
            (None, _) => 1.0,
            (_, true) => (self.share * LONGER).min(1.0),
            (_, false) => self.share * SHORTER,
        };
        if is_better {
            self.best = Some((weights.to_vec(), found));
        }
        self.tried += 1;
        // Where the loss is not a number no weights are better than others.
        let may_be_better =
            |best: &Alternatives| self.tried <= STACK_STEPS && best.stacked.loss_sum.is_finite();
        let (weights, best) = self.best.as_ref().filter(|(_, best)| may_be_better(best))?;
        let whole = best.newton.step(weights);
        let steps = || weights.iter().zip(&whole).map(|(from, to)| to - from);
        let less: f64 = steps().zip(&best.newton.gradient).map(|(step, slope)| -step * slope).sum();
        if less.is_nan() || less < SETTLED * best.stacked.total as f64 {
            return None;
        }
        let next: Vec<f64> =
            weights.iter().zip(steps()).map(|(from, step)| from + self.share * step).collect();
        next.iter().all(|w| w.is_finite()).then_some(next)
    }

    /// The weights with the least loss, and what they led to.
    pub fn best(self) -> Option<(Vec<f64>, Alternatives)> {
        self.best
    }
}

/// Solves a symmetric positive definite system in place by Gaussian elimination; pivoting is not needed for those.
fn solve(matrix: &mut [Vec<f64>], right: &mut [f64]) {
    let k = right.len();
    for pivot in 0..k {
        let (above, below) = matrix.split_at_mut(pivot + 1);
        let row = &above[pivot];
        for (offset, other) in below.iter_mut().enumerate() {
            let factor = other[pivot] / row[pivot];
            other.iter_mut().zip(row).skip(pivot).for_each(|(o, r)| *o -= factor * r);
            right[pivot + 1 + offset] -= factor * right[pivot];
        }
    }
    for pivot in (0..k).rev() {
        let known: f64 = (pivot + 1..k).map(|j| matrix[pivot][j] * right[j]).sum();
        right[pivot] = (right[pivot] - known) / matrix[pivot][pivot];
    }
}

/// Compares the alternatives on samples: `logits[ingredient]` has `classes` numbers a sample.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) where the numbers do not fit each other.
pub fn compare(logits: &[&[f32]], labels: &[u32], classes: usize, asked: &Asked) -> Result<Alternatives> {
    let k = logits.len();
    let fits = logits.iter().all(|l| l.len() == labels.len() * classes);
    let known = labels.iter().all(|&l| (l as usize) < classes);
    let whole = asked.weights.len() == k && (asked.votes.is_empty() || asked.votes.len() == k);
    if logits.is_empty() || !fits || !known || !whole {
        return Err(Error::internal("logits, labels and weights of a comparison do not fit each other"));
    }
    let mut out = Alternatives {
        newton: Newton::zeros(k),
        boosted: (!asked.votes.is_empty()).then(Counts::default),
        hits: asked.hits.then(|| Hits::new(k)),
        ..Alternatives::default()
    };
    let (mean_of_all, one_each) = (vec![1.0 / k as f64; k], vec![1.0; k]);
    for (sample, &label) in labels.iter().enumerate() {
        let rows: Vec<&[f32]> = logits.iter().map(|l| &l[sample * classes..(sample + 1) * classes]).collect();
        let predictions: Vec<usize> = rows.iter().map(|row| predicted(row, label as usize)).collect();
        let mean = mixed(&rows, &mean_of_all);
        out.logits.add(&judged(&mean, label));
        let voted =
            |votes: &[f64]| Outcome { label, prediction: vote(&predictions, votes, &mean), loss: 0.0 };
        out.vote.add(&voted(&one_each));
        if let Some(boosted) = &mut out.boosted {
            boosted.add(&voted(&asked.votes));
        }
        if let Some(hits) = &mut out.hits {
            hits.push(predictions.iter().map(|p| *p == label as usize));
        }
        let stacked = mixed(&rows, &asked.weights);
        out.stacked.add(&judged(&stacked, label));
        // Nothing is to be learned of what is wrong under all weights.
        if rows.iter().all(|row| row.iter().all(|v| v.is_finite())) {
            accumulate(&mut out.newton, &rows, &softmax(&stacked), label as usize);
        }
    }
    Ok(out)
}

fn mixed(rows: &[&[f32]], weights: &[f64]) -> Vec<f64> {
    let class = |c: usize| rows.iter().zip(weights).map(|(row, w)| w * f64::from(row[c])).sum();
    (0..rows[0].len()).map(class).collect()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|l| libm::exp(l - max)).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

/// The class that a row of logits predicts, the first one with the largest. A row with a number that is not finite is wrong whatever the rest
/// of it is, and predicts the first of the wrong classes with the largest number; the number of classes where there is no wrong one.
fn predicted<T: Copy + Into<f64>>(row: &[T], label: usize) -> usize {
    let logits = || row.iter().map(|&logit| -> f64 { logit.into() }).enumerate();
    let finite = logits().all(|(_, logit)| logit.is_finite());
    let may = |class: usize| finite || class != label;
    let numbers = logits().filter(|(class, logit)| may(*class) && !logit.is_nan());
    first_largest(numbers).or_else(|| (0..row.len()).find(|class| may(*class))).unwrap_or(row.len())
}

/// The first place with the largest number, of which none is NaN.
fn first_largest(of: impl Iterator<Item = (usize, f64)>) -> Option<usize> {
    of.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(at, _)| at)
}

fn judged(logits: &[f64], label: u32) -> Outcome {
    let prediction = predicted(logits, label as usize) as u32;
    if !logits.iter().all(|l| l.is_finite()) {
        return Outcome { label, prediction, loss: f64::INFINITY };
    }
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| libm::exp(l - max)).sum();
    let loss = libm::log(sum) + max - logits[label as usize];
    Outcome { label, prediction, loss }
}

/// The class with the most votes; of equally many, the one whose mean logit is largest, which it is not where it is no number.
fn vote(predictions: &[usize], votes: &[f64], mean: &[f64]) -> u32 {
    let mut sums = vec![0.0; mean.len()];
    for (prediction, vote) in predictions.iter().zip(votes) {
        sums.get_mut(*prediction).into_iter().for_each(|sum| *sum += vote);
    }
    let most = sums.iter().copied().fold(0.0, f64::max);
    let number = |v: f64| if v.is_nan() { f64::NEG_INFINITY } else { v };
    let among = (0..mean.len()).filter(|&class| sums[class] == most);
    first_largest(among.map(|class| (class, number(mean[class])))).unwrap_or(0) as u32
}

/// Adds one sample's gradient and curvature of the cross-entropy of the weighted logits: with p the probabilities and z_i
/// the logits of ingredient i, dL/dw_i = p z_i - z_i[label] and d2L/dw_i dw_j = p (z_i z_j) - (p z_i)(p z_j).
fn accumulate(newton: &mut Newton, rows: &[&[f32]], p: &[f64], label: usize) {
    let mean = |row: &[f32]| -> f64 { p.iter().zip(row).map(|(p, z)| p * f64::from(*z)).sum() };
    let means: Vec<f64> = rows.iter().map(|row| mean(row)).collect();
    for ((sum, row), mean) in newton.gradient.iter_mut().zip(rows).zip(&means) {
        *sum += mean - f64::from(row[label]);
    }
    let mut at = 0;
    for (i, a) in rows.iter().enumerate() {
        let weighted: Vec<f64> = p.iter().zip(*a).map(|(p, z)| p * f64::from(*z)).collect();
        for (j, b) in rows.iter().enumerate().skip(i) {
            let both: f64 = weighted.iter().zip(*b).map(|(a, b)| a * f64::from(*b)).sum();
            newton.curvature[at] += both - means[i] * means[j];
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of two ingredients on three samples of three classes.
    const A: [f32; 9] = [2.0, 1.0, 0.0, 0.0, 3.0, 1.0, 1.0, 0.0, 0.9];
    const B: [f32; 9] = [0.0, 1.5, 0.0, 2.5, 0.0, 0.0, 0.0, 0.0, 1.0];
    const LABELS: [u32; 3] = [0, 1, 2];

    fn asked(weights: &[f64]) -> Asked {
        Asked { weights: weights.to_vec(), ..Asked::default() }
    }

    fn at(weights: [f64; 2]) -> Alternatives {
        compare(&[&A, &B], &LABELS, 3, &asked(&weights)).unwrap()
    }

    #[test]
    fn ensembles_and_votes_are_counted() {
        let got = at([0.5, 0.5]);
        // Means: (1, 1.25, 0) wrong; (1.25, 1.5, 0.5) right; (0.5, 0, 0.95) right.
        assert_eq!((got.logits.correct, got.logits.total), (2, 3));
        // Every vote is a tie, which the means decide.
        assert_eq!(got.vote.correct, 2);
        assert_eq!(got.stacked, got.logits);
        let three = compare(&[&A, &A, &B], &LABELS, 3, &asked(&[0.0; 3])).unwrap();
        assert_eq!(three.vote.correct, 2, "two of three say what the first ingredient says");
    }

    #[test]
    fn gradients_and_curvatures_are_those_of_finite_differences() {
        let w = [0.4, 0.7];
        let got = at(w);
        let h = 1e-5;
        for i in 0..2 {
            let moved = |by: f64| {
                let mut w = w;
                w[i] += by;
                at(w)
            };
            let slope = (moved(h).stacked.loss_sum - moved(-h).stacked.loss_sum) / (2.0 * h);
            assert!((slope - got.newton.gradient[i]).abs() < 1e-8);
            for j in i..2 {
                let curve = (moved(h).newton.gradient[j] - moved(-h).newton.gradient[j]) / (2.0 * h);
                assert!((curve - got.newton.curvature[i + j]).abs() < 1e-7, "{i} {j}");
            }
        }
    }

    /// The fit of two ingredients: the losses of what is tried, and what is found.
    fn fitted(logits: [&[f32]; 2], labels: &[u32]) -> (Vec<f64>, Alternatives) {
        let (mut fit, mut losses, mut weights) = (Fit::default(), Vec::new(), vec![0.5, 0.5]);
        loop {
            let got = compare(&logits, labels, 3, &asked(&weights)).unwrap();
            losses.push(got.stacked.loss_sum);
            match fit.next(&weights, got) {
                Some(next) => weights = next,
                None => return (losses, fit.best().unwrap().1),
            }
        }
    }

    #[test]
    fn newton_finds_the_least_loss() {
        let (losses, settled) = fitted([&A, &B], &[1, 1, 2]);
        assert!(losses.windows(2).all(|l| l[1] <= l[0] + 1e-9), "{losses:?}");
        assert!(losses.len() <= 12, "{losses:?}");
        // Where the loss is least, its gradient is what the ridge holds against it.
        assert!(settled.newton.gradient.iter().all(|g| g.abs() < 0.01), "{:?}", settled.newton);
    }

    #[test]
    fn whole_steps_that_lead_away_are_cut_short() {
        // Both are very sure, and wrong of some.
        let sure = |logits: [f32; 9]| logits.map(|logit| 20.0 * logit);
        let (a, b) = (sure(A), sure(B));
        let labels = [1, 2, 1];
        let begin = compare(&[&a, &b], &labels, 3, &asked(&[0.5, 0.5])).unwrap();
        let whole = begin.newton.step(&[0.5, 0.5]);
        let away = compare(&[&a, &b], &labels, 3, &asked(&whole)).unwrap();
        assert!(away.stacked.loss_sum > 10.0 * begin.stacked.loss_sum, "{away:?}");
        // The least loss is the same however large logits are, but for the ridge: weights are smaller by as much.
        let (losses, found) = fitted([&a, &b], &labels);
        let (_, plain) = fitted([&A, &B], &labels);
        assert!(begin.stacked.loss_sum > 10.0 * found.stacked.loss_sum, "{losses:?}");
        assert!((found.stacked.loss_sum - plain.stacked.loss_sum).abs() < 1e-3, "{losses:?}");
    }

    #[test]
    fn logits_that_are_not_finite_are_wrong() {
        // B says 1, 0, 2 of what is 0, 1, 2; C is right about the second one as well.
        const C: [f32; 9] = [1.0, 2.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut a = [bad; 9];
            (a[4], a[8]) = (0.5, 0.25);
            let asked = Asked { hits: true, votes: vec![0.0, 1.0, 1.0], ..asked(&[1.0 / 3.0; 3]) };
            let got = compare(&[&a, &B, &C], &LABELS, 3, &asked).unwrap();
            assert_eq!(got.hits.unwrap().rows(), [0b000, 0b100, 0b110], "{bad}");
            assert_eq!((got.logits.correct, got.logits.loss_sum), (0, f64::INFINITY), "{bad}");
            assert_eq!((got.stacked.correct, got.stacked.loss_sum), (0, f64::INFINITY), "{bad}");
            // Both others say 1 of the first sample, and 2 of the third.
            assert_eq!(got.vote.confusion.get(&(0, 1)), Some(&1), "{bad}");
            assert_eq!(got.vote.confusion.get(&(2, 2)), Some(&1), "{bad}");
            assert_eq!(got.boosted.unwrap().confusion.get(&(2, 2)), Some(&1), "{bad}");
            assert!(got.newton.gradient.iter().all(|g| *g == 0.0), "{bad}");
        }
        // Not even the wrong ones are numbers: the first of them.
        assert_eq!(predicted(&[f32::NAN; 3], 0), 1);
        assert_eq!(predicted(&[f32::NAN; 3], 2), 0);
        assert_eq!(predicted(&[f32::NAN], 0), 1);
    }

    #[test]
    fn votes_count_where_means_are_no_numbers() {
        let mean = [f64::NAN, f64::NEG_INFINITY, 3.0];
        assert_eq!(vote(&[1, 1, 2], &[1.0; 3], &mean), 1);
        assert_eq!(vote(&[0, 2], &[1.0; 2], &mean), 2);
        assert_eq!(vote(&[0, 1], &[1.0; 2], &mean), 0);
    }

    #[test]
    fn equal_ingredients_share_their_weight() {
        let got = compare(&[&A, &A], &LABELS, 3, &asked(&[0.5, 0.5])).unwrap();
        let w = got.newton.step(&[0.5, 0.5]);
        assert!((w[0] - w[1]).abs() < 1e-9, "{w:?}");
    }

    #[test]
    fn votes_have_the_weight_that_was_asked_about() {
        // A predicts 0, 1, 0 and B 1, 0, 2; the labels are 0, 1, 2.
        let with = |votes: &[f64]| {
            let asked = Asked { votes: votes.to_vec(), hits: true, ..asked(&[0.5; 2]) };
            compare(&[&A, &B], &LABELS, 3, &asked).unwrap()
        };
        let correct = |votes: &[f64]| with(votes).boosted.unwrap().correct;
        assert_eq!([correct(&[0.7, 0.6]), correct(&[0.6, 0.7]), correct(&[0.0, 1.0])], [2, 1, 1]);
        let equal = with(&[0.3, 0.3]);
        assert_eq!(equal.boosted, Some(equal.vote), "means decide, as in any vote");
        assert_eq!(equal.hits.unwrap().rows(), [0b01, 0b01, 0b10]);
        let mut both = at([0.5; 2]);
        assert_eq!((&both.boosted, &both.hits), (&None, &None), "nobody asked");
        both = with(&[0.7, 0.6]);
        both.add(&with(&[0.7, 0.6]));
        assert_eq!((both.boosted.unwrap().total, both.hits.unwrap().samples(), both.vote.total), (6, 6, 6));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let two_votes_of_one = Asked { votes: vec![1.0; 2], ..asked(&[1.0]) };
        assert!(compare(&[&A], &LABELS, 3, &two_votes_of_one).is_err());
        assert!(compare(&[], &LABELS, 3, &asked(&[])).is_err());
        assert!(compare(&[&A, &B], &LABELS, 3, &asked(&[1.0])).is_err());
        assert!(compare(&[&A], &[0, 1, 3], 3, &asked(&[1.0])).is_err());
    }
}
