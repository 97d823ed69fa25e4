//! What a soup can still reach, of which only some samples were judged: whether it is certain already that it falls short.
//!
//! The labels of the samples that are left are known from the score that has to be reached, which is of the same dataset. So is their
//! best completion: all of them right, at no loss. That is the best one of every figure but one:
//!
//! - accuracy has one hit more with each;
//! - the F1 of a label's class, 2 hit / (labelled + predicted), is not above 1, and so does not fall where hit and predicted grow by one,
//!   while a wrong prediction lowers that of another class: so macro-F1 and the F1 of class 1 are largest;
//! - cross-entropies are not negative, so what was lost already is the least;
//! - of two classes Matthews' correlation grows with the hits x of P labels and y of N, whatever they are: with
//!   A = x N + y P - P N and q = x + N - y of s samples predicted to be of the first class it is A / sqrt(P N q (s - q)), and its
//!   derivative by x has the sign of N q (s - q) - A (s - 2 q) / 2, where |A| <= N q for A > 0 and |A| <= N (s - q) for A < 0.
//!
//! Of more classes Matthews' correlation may be larger with a wrong prediction (three samples of one class taken for another, and two
//! more to come: it is). There its numerator is largest where all that is left is right, its denominator smallest where all of that is
//! predicted to be of the class that is predicted most, and the one by the other is not exceeded.
//!
//! Of figures that are no counts of classes as much is known as their judge promises ([`range`](super::range)).

use super::margins::{Class, Margins};
use super::{ClassMetric, Metric, NEAR, Ranges, SumMetric, mean};
use crate::recipe::Accept;
use crate::tally::{Counts, Sums, Tally};

/// What rounding may do to quotients and to the mean of some of them, relative to what they are.
const MEAN_ROUNDING: f64 = 1e-14;

impl Metric {
    /// Whether a soup whose samples `judged` so far add up to this is certain to be rejected by `accept` in the end, whatever becomes of
    /// the samples that are left, where `bar` is the score of another one on all samples of the same dataset. `false` where that is not
    /// known: of figures of which nothing is promised, and of labels that are not those of the bar.
    ///
    /// It holds for losses that are not negative, as cross-entropies are.
    pub fn falls_short(&self, accept: Accept, judged: &Tally, bar: &Tally) -> bool {
        match self.best(judged, bar) {
            Some(Best::Score(best)) => !accept.holds(self.compare(&best, bar)),
            Some(Best::AtMost(value)) => value + NEAR < self.value(bar),
            Some(Best::End(value)) => self.compare_values(value, self.value(bar)).is_lt(),
            None => false,
        }
    }

    /// The value that such a soup can reach at most (of a metric of which less is better: at least); `None` where that is not known.
    pub fn reach(&self, judged: &Tally, bar: &Tally) -> Option<f64> {
        self.best(judged, bar).map(|best| match best {
            Best::Score(best) => self.value(&best),
            Best::AtMost(value) | Best::End(value) => value,
        })
    }

    fn best(&self, judged: &Tally, bar: &Tally) -> Option<Best> {
        let (of, classes, judged, whole) = match (self, judged, bar) {
            (Metric::Classes { of, classes }, Tally::Classes(judged), Tally::Classes(whole)) => {
                (of, classes, judged, whole)
            }
            (Metric::Sums { of, ranges }, Tally::Sums(judged), Tally::Sums(whole)) => {
                return best_end(of, ranges, judged, whole).map(Best::End);
            }
            _ => return None,
        };
        let best = completed(judged, whole)?;
        if !of.contains(&ClassMetric::Matthews) || *classes <= 2 {
            return Some(Best::Score(best.into()));
        }
        Some(Best::AtMost(mean(of.iter().map(|metric| match metric {
            ClassMetric::Matthews => matthews_at_most(judged, &best),
            other => other.value(&best, *classes),
        }))))
    }
}

/// The best that can become of a soup.
enum Best {
    /// This score.
    Score(Tally),
    /// Some score of no larger value.
    AtMost(f64),
    /// Some score of no better value, however that is rounded; not a number: it has none.
    End(f64),
}

/// The better end of what a metric of figures can come to; `None` where that has no end.
fn best_end(of: &[SumMetric], ranges: &Ranges, judged: &Sums, whole: &Sums) -> Option<f64> {
    let mut ends = Vec::with_capacity(of.len());
    for metric in of {
        let interval = metric.formula.interval(ranges, judged, whole)?;
        ends.push(if metric.lower_is_better { interval.least } else { interval.most });
    }
    let (value, off) = (mean(ends.iter().copied()), mean(ends.iter().map(|end| end.abs())));
    if value.is_infinite() {
        return None;
    }
    let off = MEAN_ROUNDING * off;
    Some(if of.iter().any(|metric| metric.lower_is_better) { value - off } else { value + off })
}

/// The counts of `judged` with all samples right that are in `whole` beyond those, at no loss. `None` where `whole` has not all labels
/// that were judged.
fn completed(judged: &Counts, whole: &Counts) -> Option<Counts> {
    let (done, all) = (Margins::of(judged), Margins::of(whole));
    let labelled = |margins: &Margins, class| margins.by_class.get(&class).map_or(0, |c| c.labelled);
    if done.by_class.keys().any(|&class| labelled(&done, class) > labelled(&all, class)) {
        return None;
    }
    let mut best = judged.clone();
    for (&class, of) in &all.by_class {
        let left = of.labelled - labelled(&done, class);
        if left > 0 {
            *best.confusion.entry((class, class)).or_default() += left;
            (best.total, best.correct) = (best.total + left, best.correct + left);
        }
    }
    // Sums are rounded at every addition, and the whole one may be added up in another order than this: it is not lower by more.
    best.loss_sum *= 1.0 - 4.0 * f64::EPSILON * best.total as f64;
    Some(best)
}

/// What Matthews' correlation does not exceed, where `best` is `judged` with all that is left right.
fn matthews_at_most(judged: &Counts, best: &Counts) -> f64 {
    let (now, then) = (Margins::of(judged), Margins::of(best));
    let samples = best.total as f64;
    let sum = |f: &dyn Fn(&Class) -> f64| then.by_class.values().map(f).sum::<f64>();
    let covariance = best.correct as f64 * samples - sum(&|c| c.labelled as f64 * c.predicted as f64);
    if covariance <= 0.0 {
        return 0.0;
    }
    let predicted = now.by_class.values().map(|c| c.predicted);
    let (most, left) = (predicted.clone().max().unwrap_or(0), best.total - judged.total);
    let square = |n: u64| n as f64 * n as f64;
    let squares = predicted.map(square).sum::<f64>() - square(most) + square(most + left);
    let of_predictions = samples * samples - squares;
    let of_labels = samples * samples - sum(&|c| square(c.labelled));
    match of_predictions * of_labels {
        norm if norm > 0.0 => (covariance / norm.sqrt()).min(1.0),
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::metric::{Formula, Range};
    use crate::tally::Outcome;

    const METRICS: [&str; 8] = [
        "accuracy",
        "macro-f1",
        "binary-f1",
        "matthews",
        "loss",
        "accuracy+binary-f1",
        "accuracy+macro-f1+matthews",
        "matthews+binary-f1",
    ];

    fn metric(name: &str, classes: u32) -> Metric {
        Metric::of_classes(&name.parse().unwrap(), classes).unwrap()
    }

    fn tally(outcomes: &[Outcome]) -> Tally {
        Tally::Classes(outcomes.iter().collect())
    }

    /// All ways to predict what is left.
    fn completions(classes: u32, labels: &[u32]) -> Vec<Vec<Outcome>> {
        let mut all = vec![Vec::new()];
        for &label in labels {
            let longer = all.iter().flat_map(|some: &Vec<Outcome>| {
                (0..classes).map(|prediction| {
                    let loss = if prediction == label { 0.0 } else { 0.75 };
                    let mut longer = some.clone();
                    longer.push(Outcome { label, prediction, loss });
                    longer
                })
            });
            all = longer.collect();
        }
        all
    }

    fn check_all(classes: u32, judged: &[Outcome], labels: &[u32]) {
        let completions: Vec<Tally> =
            completions(classes, labels).into_iter().map(|rest| tally(&[judged, &rest].concat())).collect();
        for metric in METRICS.map(|name| metric(name, classes)) {
            for bar in &completions {
                let reach = metric.reach(&tally(judged), bar).unwrap();
                for accept in [Accept::AtLeast, Accept::Better] {
                    let short = metric.falls_short(accept, &tally(judged), bar);
                    for end in &completions {
                        let accepted = accept.holds(metric.compare(end, bar));
                        assert!(!(short && accepted), "{metric:?} {accept:?} {judged:?} {end:?} {bar:?}");
                        let (value, sign) =
                            (metric.value(end), if metric.lower_is_better() { -1.0 } else { 1.0 });
                        assert!(sign * (value - reach) <= 1e-12, "{metric:?} reaches {value}, not {reach}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_completion_of_any_small_case_reaches_what_is_said_to_be_out_of_reach() {
        for (classes, judged_max, left_max) in [(2u32, 4usize, 3usize), (3, 3, 2)] {
            for judged in 0..=judged_max {
                for left in 1..=left_max {
                    let pairs = classes * classes;
                    for code in 0..pairs.pow(judged as u32) {
                        let pair = |at: usize| code / pairs.pow(at as u32) % pairs;
                        let outcomes: Vec<Outcome> = (0..judged)
                            .map(|at| (pair(at) / classes, pair(at) % classes))
                            .map(|(label, prediction)| Outcome { label, prediction, loss: 0.5 })
                            .collect();
                        // The order of samples does not matter.
                        if !(1..judged).all(|at| pair(at - 1) <= pair(at)) {
                            continue;
                        }
                        for labels in 0..classes.pow(left as u32) {
                            let labels: Vec<u32> =
                                (0..left).map(|at| labels / classes.pow(at as u32) % classes).collect();
                            check_all(classes, &outcomes, &labels);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn of_three_classes_all_right_is_not_the_best_for_matthews() {
        let of = |confusion: &[((u32, u32), u64)]| {
            let confusion: BTreeMap<_, _> = confusion.iter().copied().collect();
            let total = confusion.values().sum();
            let correct = confusion.iter().filter(|((l, p), _)| l == p).map(|(_, n)| n).sum();
            Counts { total, correct, confusion, ..Counts::default() }
        };
        let judged = of(&[((0, 1), 3)]);
        let right = of(&[((0, 1), 3), ((0, 0), 1), ((2, 2), 1)]);
        let wrong = of(&[((0, 1), 4), ((2, 2), 1)]);
        let [right, wrong] = [right, wrong].map(|counts| ClassMetric::Matthews.value(&counts, 3));
        assert!(wrong > right, "{wrong} {right}");
        let bar = of(&[((0, 1), 4), ((2, 2), 1)]).into();
        let matthews = metric("matthews", 3);
        assert!(!matthews.falls_short(Accept::AtLeast, &judged.clone().into(), &bar));
        assert!(matthews.reach(&judged.into(), &bar).unwrap() >= wrong);
    }

    #[test]
    fn accuracy_falls_short_as_soon_as_losses_exceed_gains() {
        let outcomes = |right: usize, wrong: usize| -> Vec<Outcome> {
            let of = |prediction| Outcome { label: 0, prediction, loss: 0.1 };
            [vec![of(0); right], vec![of(1); wrong]].concat()
        };
        let accuracy = metric("accuracy", 2);
        let bar = tally(&outcomes(8, 2));
        for (accept, wrong) in [(Accept::AtLeast, 3), (Accept::Better, 2)] {
            let short = |wrong| accuracy.falls_short(accept, &tally(&outcomes(2, wrong)), &bar);
            assert!(short(wrong) && !short(wrong - 1), "{accept:?}");
        }
        assert_eq!(accuracy.reach(&tally(&outcomes(2, 3)), &bar), Some(0.7));
        // Other labels than the bar's, and figures that are no counts: nobody knows.
        let other = tally(&[Outcome { label: 1, prediction: 0, loss: 0.0 }; 9]);
        assert!(!accuracy.falls_short(Accept::AtLeast, &other, &bar));
    }

    #[test]
    fn losses_that_are_no_numbers_are_compared_as_scores_are() {
        let of = |loss| Outcome { label: 0, prediction: 0, loss };
        let loss = metric("loss", 2);
        let bar = tally(&[of(1.0), of(1.0)]);
        assert!(loss.falls_short(Accept::AtLeast, &tally(&[of(f64::NAN)]), &bar));
        assert!(loss.falls_short(Accept::AtLeast, &tally(&[of(2.5)]), &bar));
        assert!(!loss.falls_short(Accept::AtLeast, &tally(&[of(1.9)]), &bar));
        let nan = tally(&[of(f64::NAN), of(1.0)]);
        assert!(!loss.falls_short(Accept::AtLeast, &tally(&[of(f64::NAN)]), &nan), "as bad as the bar");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// What is said to fall short at a part of the samples is rejected when all are judged.
        #[test]
        fn verdicts_on_parts_are_those_on_all(
            classes in 2u32..6,
            of in prop::collection::vec((0u32..6, 0u32..6, 0u32..6, 0u32..40, 0u32..40), 1..80),
            good in 0u32..6,
        ) {
            let outcome = |label: u32, prediction: u32, loss: u32| {
                // Most are right, as they are of real models.
                let prediction = if prediction < good { label } else { prediction };
                Outcome { label: label % classes, prediction: prediction % classes, loss: f64::from(loss) / 7.0 }
            };
            let bar: Vec<_> = of.iter().map(|&(l, p, _, loss, _)| outcome(l, p, loss)).collect();
            let tried: Vec<_> = of.iter().map(|&(l, _, p, _, loss)| outcome(l, p, loss)).collect();
            for metric in METRICS.map(|name| metric(name, classes)) {
                for accept in [Accept::AtLeast, Accept::Better] {
                    let accepted = accept.holds(metric.compare(&tally(&tried), &tally(&bar)));
                    let short = |n: usize| metric.falls_short(accept, &tally(&tried[..n]), &tally(&bar));
                    prop_assert!(!accepted || (0..=tried.len()).all(|n| !short(n)), "{:?}", metric);
                    prop_assert!(accepted || !is_tight(&metric) || short(tried.len()), "all decide: {:?}", metric);
                }
            }
        }
    }

    /// Figures `hits` in 0 to 1, `nll` of 0 and more, `tokens` that are fixed, and `x` of which nothing is promised.
    fn of_figures(name: &str) -> Metric {
        let (hits, nll, tokens) = ("hits".to_owned(), "nll".to_owned(), "tokens".to_owned());
        let known = [
            ("accuracy", Formula::Mean(hits.clone()), false),
            ("nll", Formula::Mean(nll.clone()), true),
            ("perplexity", Formula::ExpRatio(nll.clone(), tokens.clone()), true),
            ("hits-of-tokens", Formula::Ratio(hits.clone(), tokens.clone()), false),
            ("nll-of-hits", Formula::Ratio(nll.clone(), hits.clone()), true),
            ("x", Formula::Mean("x".into()), false),
        ];
        let known = known.map(|(name, formula, lower_is_better)| SumMetric {
            name: name.into(),
            formula,
            lower_is_better,
        });
        let of = |least, most, fixed| Range { least, most, fixed };
        let ranges = [
            (hits, of(Some(0.0), Some(1.0), false)),
            (nll, of(Some(0.0), None, false)),
            (tokens, of(Some(0.0), None, true)),
        ];
        Metric::of_sums(&name.parse().unwrap(), &known, &ranges.into()).unwrap()
    }

    fn sums(of: &[[f64; 3]]) -> Tally {
        let figure = |at: usize| of.iter().fold(0.0, |sum, sample| sum + sample[at]);
        let figures = [("hits", figure(0)), ("nll", figure(1)), ("tokens", figure(2)), ("x", figure(0))];
        let figures = figures.into_iter().map(|(name, sum)| (name.to_owned(), sum)).collect();
        Sums { samples: of.len() as u64, figures }.into()
    }

    #[test]
    fn figures_fall_short_by_what_is_promised_of_them() {
        // Of ten samples six have to be hits.
        let bar = sums(&[[0.6, 2.0, 3.0]; 10]);
        let of = |name: &str, hit: f64, nll: f64, n: usize| {
            of_figures(name).falls_short(Accept::AtLeast, &sums(&vec![[hit, nll, 3.0]; n]), &bar)
        };
        assert!(of("accuracy", 0.0, 0.0, 5) && !of("accuracy", 0.0, 0.0, 4));
        assert!(of("hits-of-tokens", 0.0, 0.0, 5) && !of("hits-of-tokens", 0.0, 0.0, 4));
        assert!(of("nll", 0.0, 4.1, 5) && !of("nll", 0.0, 3.9, 5));
        assert!(of("perplexity", 0.0, 4.1, 5) && !of("perplexity", 0.0, 3.9, 5));
        // By hits that may be none: nobody knows.
        assert!(!of("nll-of-hits", 0.0, 100.0, 9));
        assert!(!of("x", 0.0, 100.0, 9));
        let reach = of_figures("accuracy").reach(&sums(&[[0.0, 0.0, 3.0]; 5]), &bar).unwrap();
        assert!((reach - 0.5).abs() < 1e-12, "{reach}");
        // Perplexities that are infinite are a tie, and tokens that are not what was promised prove nothing.
        let lost = sums(&[[0.0, 1e4, 3.0]; 10]);
        for accept in [Accept::AtLeast, Accept::Better] {
            let perplexity = of_figures("perplexity");
            let end = accept.holds(perplexity.compare(&lost, &lost));
            assert!(!(end && perplexity.falls_short(accept, &sums(&[[0.0, 1e4, 3.0]; 9]), &lost)));
        }
        let broken = sums(&[[0.0, 4.1, 50.0]; 5]);
        assert!(!of_figures("perplexity").falls_short(Accept::AtLeast, &broken, &bar));
        let nan = sums(&[[f64::NAN, 0.0, 3.0]]);
        assert!(of_figures("accuracy").falls_short(Accept::AtLeast, &nan, &bar));
        let bar = sums(&[[f64::NAN, 0.0, 3.0]; 10]);
        assert!(!of_figures("accuracy").falls_short(Accept::AtLeast, &nan, &bar), "as bad as the bar");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn verdicts_on_parts_are_those_on_all_of_figures(
            of in prop::collection::vec((0u32..4, 0u32..4, 0u32..30, 0u32..30, 1u32..9), 1..60),
            scale in prop::sample::select(vec![3.0, 7.0, 0.1, 1e9]),
        ) {
            let sample = |hit: u32, nll: u32, tokens| [f64::from(hit) / 3.0, f64::from(nll) / scale, f64::from(tokens)];
            let bar: Vec<_> = of.iter().map(|&(a, _, c, _, e)| sample(a, c, e)).collect();
            let tried: Vec<_> = of.iter().map(|&(_, b, _, d, e)| sample(b, d, e)).collect();
            let names =
                ["accuracy", "nll", "perplexity", "hits-of-tokens", "nll-of-hits", "accuracy+hits-of-tokens", "nll+perplexity"];
            for name in names {
                let metric = of_figures(name);
                for accept in [Accept::AtLeast, Accept::Better] {
                    let accepted = accept.holds(metric.compare(&sums(&tried), &sums(&bar)));
                    let short = |n: usize| metric.falls_short(accept, &sums(&tried[..n]), &sums(&bar));
                    prop_assert!(!accepted || (0..=tried.len()).all(|n| !short(n)), "{}", name);
                }
                let (end, sign) = (metric.value(&sums(&tried)), if metric.lower_is_better() { -1.0 } else { 1.0 });
                for n in 0..=tried.len() {
                    let reach = metric.reach(&sums(&tried[..n]), &sums(&bar));
                    prop_assert!(reach.is_none_or(|reach| end.is_nan() || sign * (end - reach) <= 0.0), "{} {:?}", end, reach);
                }
            }
        }
    }

    /// Whether the bound of all samples is their value: of losses it is lower, by what rounding may do.
    fn is_tight(metric: &Metric) -> bool {
        let loose = [ClassMetric::Matthews, ClassMetric::Loss];
        matches!(metric, Metric::Classes { of, .. } if !of.iter().any(|m| loose.contains(m)))
    }
}
