//! Recipes against plain loops: over random scores, the replay of a ledger that is filled in any order, in parts, with
//! duplicates and with losses must tell the same story as a loop that scores one soup after the other.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::BTreeMap;

use proptest::prelude::*;
use soup_core::ledger::{Dataset, Ledger};
use soup_core::metric::{Metric, MetricName};
use soup_core::recipe::{Accept, Order, RecipeKind, RecipeSpec, Replay, Step, Trial, Verdict};
use soup_core::soup::{Ingredient, Soup};
use soup_core::tally::{Counts, Tally};

/// A small random stream of the test's own.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// A world in which every soup has a score; few distinct values, so that ties are frequent.
#[derive(Clone, Copy, Debug)]
struct World {
    seed: u64,
    levels: u64,
}

impl World {
    fn score(self, soup: &Soup) -> Tally {
        self.counts(soup).into()
    }

    fn counts(self, soup: &Soup) -> Counts {
        let mut hash = self.seed;
        for member in soup.members() {
            hash = (hash ^ u64::from(member.0 + 1)).wrapping_mul(0x100_0000_01b3).rotate_left(23);
        }
        let mut random = Random(hash | 1);
        random.below(2);
        let correct = random.below(self.levels);
        let loss_sum = random.below(self.levels) as f64 / 4.0;
        // Binary labels: half of the samples of each class.
        let (total, right_of_one) = (2 * self.levels, random.below(correct + 1).min(self.levels));
        let right_of_zero = correct - right_of_one;
        let confusion = [
            ((0, 0), right_of_zero),
            ((0, 1), self.levels - right_of_zero),
            ((1, 1), right_of_one),
            ((1, 0), self.levels - right_of_one),
        ];
        let confusion = confusion.into_iter().filter(|&(_, n)| n > 0).collect();
        Counts { total, correct, loss_sum, confusion }
    }
}

/// A decision as the plain loop tells it: members tried, candidate, pass, accepted.
type Told = (Vec<u32>, u32, u32, bool);

/// The plain loop: what it ends with, what it decided, and how many soups without and with a bar it scored.
struct Plain {
    members: Vec<u32>,
    told: Vec<Told>,
    order: Vec<u32>,
}

fn mean(members: &[u32]) -> Soup {
    Soup::mean(members.iter().copied().map(Ingredient)).unwrap()
}

/// Larger is better, independently of `Metric::compare`.
fn merit(metric: &MetricName, score: &Counts) -> f64 {
    let n = |label, prediction| score.confusion.get(&(label, prediction)).copied().unwrap_or(0) as f64;
    let f1 = |c: u32, o: u32| {
        let (tp, fp, fne) = (n(c, c), n(o, c), n(c, o));
        if tp + fp + fne == 0.0 { 0.0 } else { 2.0 * tp / (2.0 * tp + fp + fne) }
    };
    let accuracy = || score.correct as f64 / score.total as f64;
    let one = |name: &str| match name {
        "accuracy" => accuracy(),
        "loss" => -score.loss_sum,
        "binary-f1" => f1(1, 0),
        "macro-f1" => (f1(0, 1) + f1(1, 0)) / 2.0,
        "matthews" => {
            // The binary form; the product implements the multi-class one.
            let (tp, tn, fp, fne) = (n(1, 1), n(0, 0), n(0, 1), n(1, 0));
            let norm = ((tp + fp) * (tp + fne) * (tn + fp) * (tn + fne)).sqrt();
            if norm == 0.0 { 0.0 } else { (tp * tn - fp * fne) / norm }
        }
        other => panic!("{other}"),
    };
    let parts: Vec<f64> = metric.parts().map(one).collect();
    parts.iter().sum::<f64>() / parts.len() as f64
}

/// Rounding differs between the forms of a metric; the values themselves lie much further apart.
fn accepted(spec: &RecipeSpec, new: f64, old: f64) -> bool {
    match spec.accept {
        Accept::AtLeast => new >= old - 1e-12,
        Accept::Better => new > old + 1e-12,
        Accept::Significant => panic!("it needs more than scores: see early.rs"),
    }
}

/// The largest first, of equals the first.
fn selection_sorted(mut left: Vec<u32>, value: impl Fn(u32) -> f64) -> Vec<u32> {
    let mut order = Vec::new();
    while !left.is_empty() {
        let mut best = 0;
        for i in 1..left.len() {
            if value(left[i]) > value(left[best]) + 1e-12 {
                best = i;
            }
        }
        order.push(left.remove(best));
    }
    order
}

fn plain(spec: &RecipeSpec, ingredients: u32, world: World, random_order: &[u32]) -> Plain {
    let value = |members: &[u32]| merit(&spec.metric, &world.counts(&mean(members)));
    let all: Vec<u32> = (0..ingredients).collect();
    let sorted = |sign: f64| selection_sorted(all.clone(), |i| sign * value(&[i]));
    let order = |sign| match spec.order {
        Order::Sorted => sorted(sign),
        Order::Random => random_order.to_vec(),
        Order::Pool => all.clone(),
    };
    let mut told = Vec::new();
    match spec.kind {
        RecipeKind::Uniform | RecipeKind::Weighted => Plain { members: all, told, order: vec![] },
        RecipeKind::BestSingle => {
            let order = sorted(1.0);
            Plain { members: vec![order[0]], told, order }
        }
        RecipeKind::Greedy => {
            let order = order(1.0);
            let mut members = vec![order[0]];
            for pass in 1..=spec.passes {
                let mut changed = false;
                for &c in &order {
                    if members.contains(&c) || members.len() >= spec.max_ingredients.unwrap_or(999) as usize {
                        continue;
                    }
                    let mut tried = members.clone();
                    tried.push(c);
                    tried.sort_unstable();
                    let yes = accepted(spec, value(&tried), value(&members));
                    told.push((tried.clone(), c, pass, yes));
                    if yes {
                        (members, changed) = (tried, true);
                    }
                }
                if !changed {
                    break;
                }
            }
            Plain { members, told, order }
        }
        RecipeKind::Learned => panic!("no loop over trials"),
        RecipeKind::Pruned => {
            let order = order(-1.0);
            let mut members = all;
            for pass in 1..=spec.passes {
                let mut changed = false;
                for &c in &order {
                    if !members.contains(&c) || members.len() == 1 {
                        continue;
                    }
                    let tried: Vec<u32> = members.iter().copied().filter(|&m| m != c).collect();
                    let yes = accepted(spec, value(&tried), value(&members));
                    told.push((tried.clone(), c, pass, yes));
                    if yes {
                        (members, changed) = (tried, true);
                    }
                }
                if !changed {
                    break;
                }
            }
            Plain { members, told, order }
        }
    }
}

fn indices(ingredients: &[Ingredient]) -> Vec<u32> {
    ingredients.iter().map(|i| i.0).collect()
}

fn told(replay: &Replay) -> Vec<Told> {
    let tell = |d: &soup_core::recipe::Decision| {
        (indices(d.soup.members()), d.candidate.0, d.pass, d.verdict == Verdict::Accepted)
    };
    replay.decisions.iter().map(tell).collect()
}

/// A step's trials must be worth their while: none known, none twice, and bars that are scores of known soups.
fn check_trials(trials: &[Trial], ledger: &Ledger, lookahead: usize) {
    assert!(!trials.is_empty());
    let barred = trials.iter().filter(|t| t.bar.is_some()).count();
    assert!(barred == 0 || (barred == trials.len() && barred <= lookahead + 1), "{trials:?}");
    for (i, trial) in trials.iter().enumerate() {
        assert_eq!(ledger.validation(&trial.soup), None, "known already");
        assert!(trials[..i].iter().all(|t| t.soup != trial.soup), "proposed twice");
    }
}

/// Drives a recipe to its end as a cluster would at its worst; returns the last replay and all known scores.
fn drive(spec: &RecipeSpec, ingredients: u32, world: World, chaos: &mut Random) -> (Replay, Ledger) {
    let recipe = spec.build(ingredients).unwrap();
    let mut known: BTreeMap<Soup, Tally> = BTreeMap::new();
    let mut bars: BTreeMap<Soup, Soup> = BTreeMap::new();
    let mut restarts_left = 3;
    let mut decisions_before = 0;
    for _round in 0..10_000 {
        let mut ledger = ledger(spec, ingredients);
        known
            .iter()
            .for_each(|(soup, score)| ledger.record(Dataset::VALIDATION, soup.clone(), score.clone()));
        let lookahead = chaos.below(6) as usize;
        let replay = recipe.replay(&ledger, lookahead);
        assert_eq!(recipe.replay(&ledger, lookahead), replay, "not a function of the ledger");
        assert_eq!(recipe.next(&ledger), recipe.replay(&ledger, 0).step);
        assert!(replay.decisions.len() >= decisions_before, "a decision was taken back");
        decisions_before = replay.decisions.len();
        let Step::Try(trials) = &replay.step else { return (replay, ledger) };
        check_trials(trials, &ledger, lookahead);
        for (soup, bar) in trials.iter().filter_map(|t| Some((&t.soup, &t.bar.as_ref()?.soup))) {
            let before = bars.entry(soup.clone()).or_insert_with(|| bar.clone());
            assert_eq!(before, bar, "asked for again with another bar: {soup:?}");
        }
        if restarts_left > 0 && chaos.below(8) == 0 {
            // Something is lost; decisions may be, too.
            known.retain(|_, _| chaos.below(3) > 0);
            bars.clear();
            (restarts_left, decisions_before) = (restarts_left - 1, 0);
            continue;
        }
        // Some of the answers, in any order, at least one.
        for _ in 0..=chaos.below(trials.len() as u64) {
            let trial = &trials[chaos.below(trials.len() as u64) as usize];
            known.insert(trial.soup.clone(), world.score(&trial.soup));
        }
    }
    panic!("does not end");
}

/// Drives a recipe one urgent trial at a time; how many soups without and with a bar were scored.
fn effort(spec: &RecipeSpec, ingredients: u32, world: World) -> (u64, u64) {
    let (recipe, mut ledger) = (spec.build(ingredients).unwrap(), ledger(spec, ingredients));
    let (mut rankings, mut trials) = (0, 0);
    loop {
        match recipe.next(&ledger) {
            Step::Done(_) => return (rankings, trials),
            other @ (Step::Compare(_) | Step::Differentiate(_) | Step::Waiting) => panic!("{other:?}"),
            Step::Try(open) => {
                let first = &open[0];
                if first.bar.is_none() {
                    rankings += 1
                } else {
                    trials += 1
                }
                ledger.record(Dataset::VALIDATION, first.soup.clone(), world.score(&first.soup));
            }
        }
    }
}

/// The known ones, and means that need exact comparison.
const METRICS: [&str; 8] = [
    "accuracy",
    "macro-f1",
    "binary-f1",
    "matthews",
    "loss",
    "accuracy+binary-f1",
    "macro-f1+matthews",
    "matthews+accuracy+binary-f1",
];

/// A ledger of a pool that was surveyed: two classes.
fn ledger(spec: &RecipeSpec, ingredients: u32) -> Ledger {
    let mut ledger = Ledger::new(ingredients);
    ledger.surveyed(vec![1], Metric::of_classes(&spec.metric, 2).unwrap());
    ledger
}

fn specs() -> impl Strategy<Value = RecipeSpec> {
    const KINDS: [RecipeKind; 4] =
        [RecipeKind::Uniform, RecipeKind::BestSingle, RecipeKind::Greedy, RecipeKind::Pruned];
    (
        // Greedy and pruned have all the options.
        prop_oneof![1 => prop::sample::select(&KINDS[..2]), 6 => prop::sample::select(&KINDS[2..])],
        prop::sample::select(&[Order::Sorted, Order::Random, Order::Pool][..]),
        prop::sample::select(&[Accept::AtLeast, Accept::Better][..]),
        any::<u64>(),
        prop_oneof![Just(None), (1u32..6).prop_map(Some)],
        prop_oneof![1u32..5, Just(u32::MAX)],
        prop::sample::select(&METRICS[..]),
    )
        .prop_map(|(kind, order, accept, seed, max_ingredients, passes, metric)| RecipeSpec {
            kind,
            order,
            accept,
            alpha: None,
            seed,
            max_ingredients,
            passes,
            metric: metric.parse().unwrap(),
            learn: None,
        })
}

fn worlds() -> impl Strategy<Value = World> {
    (any::<u64>(), prop_oneof![1u64..6, 1u64..200]).prop_map(|(seed, levels)| World { seed, levels })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_recipe_tells_the_story_of_the_plain_loop(
        spec in specs(), ingredients in 1u32..9, world in worlds(), chaos in 1u64..,
    ) {
        let (replay, ledger) = drive(&spec, ingredients, world, &mut Random(chaos));
        // The shuffle itself is held by unit tests; here it is only taken over.
        let plain = plain(&spec, ingredients, world, &indices(&replay.order));
        prop_assert_eq!(&replay.step, &Step::Done(mean(&plain.members)));
        prop_assert_eq!(&replay.incumbent, &Some(mean(&plain.members)));
        prop_assert_eq!(told(&replay), plain.told);
        prop_assert_eq!(indices(&replay.order), plain.order);
        for decision in &replay.decisions {
            prop_assert_eq!(ledger.validation(&decision.soup), Some(&decision.score));
        }
        // Every decision was held against the soup that stood before it.
        let mut bar = replay.decisions.first().map(|d| d.bar.clone());
        for decision in &replay.decisions {
            prop_assert_eq!(Some(&decision.bar), bar.as_ref());
            if decision.verdict == Verdict::Accepted {
                bar = Some(decision.score.clone());
            }
        }
    }

    #[test]
    fn a_recipe_ends_within_its_estimate(spec in specs(), ingredients in 1u32..9, world in worlds()) {
        let (rankings, trials) = effort(&spec, ingredients, world);
        let (rankings_expected, trials_max) = spec.trials_max(ingredients, false);
        prop_assert_eq!(rankings, rankings_expected);
        prop_assert!(trials <= trials_max, "{} trials, at most {} expected", trials, trials_max);
    }

    #[test]
    fn lookahead_proposes_what_comes_next_if_the_open_trials_are_rejected(
        mut spec in specs(), ingredients in 2u32..9, world in worlds(), known in 0u64..30,
    ) {
        // With at-least and scores of zero for what is unknown, nothing unknown is accepted by a bar above zero.
        spec.metric = MetricName::default();
        let (recipe, mut ledger) = (spec.build(ingredients).unwrap(), ledger(&spec, ingredients));
        for _ in 0..known {
            let Step::Try(open) = recipe.next(&ledger) else { break };
            let counts = world.counts(&open[0].soup);
            let score = Counts { correct: counts.correct + 1, ..counts };
            ledger.record(Dataset::VALIDATION, open[0].soup.clone(), score.into());
        }
        let Step::Try(ahead) = recipe.replay(&ledger, 5).step else { return Ok(()) };
        if ahead[0].bar.is_none() {
            return Ok(());
        }
        let mut rejected = Vec::new();
        while rejected.len() < 6 {
            let Step::Try(open) = recipe.next(&ledger) else { break };
            ledger.record(Dataset::VALIDATION, open[0].soup.clone(), Counts { total: 1, ..Counts::default() }.into());
            rejected.push(open[0].clone());
        }
        prop_assert_eq!(ahead, rejected);
    }
}

fn spec() -> RecipeSpec {
    RecipeSpec {
        kind: RecipeKind::Greedy,
        order: Order::Sorted,
        accept: Accept::AtLeast,
        alpha: None,
        seed: 0,
        max_ingredients: None,
        passes: 1,
        metric: MetricName::default(),
        learn: None,
    }
}

/// The trials that a recipe asks for where soups have so many of ten samples right: members, and those of the bar.
fn asked(spec: &RecipeSpec, ingredients: u32, known: &[(&[u32], u64)]) -> Vec<(Vec<u32>, Vec<u32>)> {
    let mut ledger = ledger(spec, ingredients);
    for &(members, correct) in known {
        let score = Counts { total: 10, correct, ..Counts::default() };
        ledger.record(Dataset::VALIDATION, mean(members), score.into());
    }
    let Step::Try(trials) = spec.build(ingredients).unwrap().replay(&ledger, 9).step else {
        return Vec::new();
    };
    let told = |t: &Trial| (indices(t.soup.members()), indices(t.bar.as_ref().unwrap().soup.members()));
    trials.iter().map(told).collect()
}

#[test]
fn what_is_tried_ahead_never_comes_up_again_with_another_bar() {
    // 1 is open and 2 is better already, ahead of time. With 1 accepted, the soup of all has to reach that of 0 and 1.
    let greedy = RecipeSpec { order: Order::Pool, passes: 2, ..spec() };
    let known: [(&[u32], u64); 3] = [(&[0], 5), (&[0, 2], 7), (&[0, 1], 8)];
    assert_eq!(asked(&greedy, 3, &known[..2]), [(vec![0, 1], vec![0])]);
    assert_eq!(asked(&greedy, 3, &known), [(vec![0, 1, 2], vec![0, 1])]);
    let pruned = RecipeSpec { kind: RecipeKind::Pruned, ..greedy.clone() };
    let known: [(&[u32], u64); 3] = [(&[0, 1, 2], 5), (&[0, 2], 7), (&[1, 2], 8)];
    // 0 is open, 1 is out, 2 is the next one: not 0 again in the second pass.
    assert_eq!(asked(&pruned, 3, &known[..2]), [(vec![1, 2], vec![0, 1, 2]), (vec![0], vec![0, 2])]);
    assert_eq!(asked(&pruned, 3, &known)[0], (vec![2], vec![1, 2]));
    // The same within the second pass: 1 was rejected before 2 was accepted, 3 is open, and 1 is better now.
    let known: [(&[u32], u64); 4] = [(&[0], 5), (&[0, 1], 4), (&[0, 2], 6), (&[0, 1, 2], 7)];
    assert_eq!(asked(&greedy, 4, &known), [(vec![0, 2, 3], vec![0, 2])]);
    // Without another incumbent the next pass goes on ahead of time.
    assert_eq!(asked(&greedy, 4, &known[..3]), [(vec![0, 2, 3], vec![0, 2]), (vec![0, 1, 2], vec![0, 2])]);
}

#[test]
fn options_out_of_range_are_refused() {
    let refused = |spec: RecipeSpec, n| spec.build(n).err().map(|e| (e.kind(), e.chain()));
    use soup_core::ErrorKind::{Data, Usage};
    let no_passes = Some((Usage, "passes is 0, but a recipe makes at least 1 pass".to_string()));
    assert_eq!(refused(RecipeSpec { passes: 0, ..spec() }, 3), no_passes);
    assert_eq!(refused(RecipeSpec { passes: 0, kind: RecipeKind::Pruned, ..spec() }, 3), no_passes);
    assert_eq!(refused(RecipeSpec { passes: 0, kind: RecipeKind::Uniform, ..spec() }, 3), None);
    assert_eq!(
        refused(RecipeSpec { max_ingredients: Some(0), ..spec() }, 3),
        Some((Usage, "max-ingredients is 0, but a soup has at least 1 ingredient".to_string()))
    );
    assert_eq!(
        refused(spec(), 0),
        Some((Data, "the pool has no ingredients: a recipe needs at least one".to_string()))
    );
}

#[test]
fn estimates_of_the_papers_pools() {
    let estimate = |kind, order, passes, max_ingredients, n| {
        RecipeSpec { kind, order, passes, max_ingredients, ..spec() }.trials_max(n, false)
    };
    use Order::{Pool, Sorted};
    assert_eq!(estimate(RecipeKind::Greedy, Sorted, 1, None, 72), (72, 71));
    assert_eq!(estimate(RecipeKind::Greedy, Pool, 1, None, 72), (1, 71));
    assert_eq!(estimate(RecipeKind::Greedy, Sorted, 2, None, 72), (72, 71 + 70));
    assert_eq!(estimate(RecipeKind::Greedy, Sorted, u32::MAX, Some(3), 72), (72, 71 + 70));
    assert_eq!(estimate(RecipeKind::Greedy, Sorted, 1, Some(1), 72), (72, 0));
    assert_eq!(estimate(RecipeKind::Pruned, Pool, 2, None, 16), (1, 16 + 15));
    assert_eq!(estimate(RecipeKind::Pruned, Sorted, u32::MAX, None, 3), (4, 3 + 2));
    assert_eq!(estimate(RecipeKind::Pruned, Sorted, 1, None, 1), (1, 0));
    assert_eq!(estimate(RecipeKind::BestSingle, Pool, 1, None, 16), (16, 0));
    assert_eq!(estimate(RecipeKind::Uniform, Sorted, 1, None, 16), (0, 0));
}
