//! Verdicts that are certain before all samples are judged, over whole pools: a recipe that is told of them decides what it decides by the
//! scores on all samples, for every metric, rule and recipe.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use proptest::prelude::*;
use soup_core::ledger::{Comparison, Dataset, Evaluation, Finding, Ledger, Rejection, slices};
use soup_core::metric::Metric;
use soup_core::recipe::{Accept, Order, Pair, RecipeKind, RecipeSpec, Step, Verdict};
use soup_core::sequence::{Sequence, SequenceId};
use soup_core::significance::Discordant;
use soup_core::soup::Soup;
use soup_core::tally::{Outcome, Tally};

const METRICS: [&str; 7] =
    ["accuracy", "macro-f1", "binary-f1", "matthews", "loss", "accuracy+binary-f1", "macro-f1+matthews"];

/// What every soup makes of every sample: harder samples are wrong more often.
#[derive(Clone, Copy, Debug)]
struct World {
    seed: u64,
    samples: u64,
    classes: u32,
    batch_size: u32,
}

fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

impl World {
    fn outcomes(&self, soup: &Soup) -> Vec<Outcome> {
        let of_soup = soup.members().iter().fold(self.seed, |hash, m| mixed(hash ^ u64::from(m.0 + 1)));
        let outcome = |sample: u64| {
            let label = (mixed(self.seed ^ sample) % u64::from(self.classes)) as u32;
            let hardness = mixed(self.seed.wrapping_add(sample << 8)) % 100;
            let draw = mixed(of_soup ^ (sample << 16));
            let right = hardness + draw % 40 < 100;
            let other = (draw >> 32) % u64::from(self.classes);
            let prediction = if right { label } else { other as u32 };
            let loss = ((hardness + draw % 40) as f64 / 60.0).exp() - 1.0;
            Outcome { label, prediction, loss }
        };
        (0..self.samples).map(outcome).collect()
    }
}

fn tally<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Tally {
    Tally::Classes(outcomes.into_iter().collect())
}

/// What a recipe comes to: its soup, its decisions, and how many samples rejected trials took.
fn cook(
    spec: &RecipeSpec,
    ingredients: u32,
    world: &World,
    early: bool,
) -> (Soup, Vec<(u32, u32, Verdict)>, u64) {
    let metric = Metric::of_classes(&spec.metric, world.classes).unwrap();
    let (recipe, mut ledger) = (spec.build(ingredients).unwrap(), Ledger::new(ingredients));
    ledger.surveyed(vec![world.samples], metric.clone());
    loop {
        let replay = recipe.replay(&ledger, 0);
        let trial = match replay.step {
            Step::Try(mut trials) => trials.swap_remove(0),
            Step::Done(soup) => {
                let rejected = replay.decisions.iter().filter(|d| d.verdict == Verdict::Rejected);
                let judged = rejected.map(|d| d.score.samples()).sum();
                let told = replay.decisions.iter().map(|d| (d.candidate.0, d.pass, d.verdict)).collect();
                return (soup, told, judged);
            }
            Step::Compare(Pair { candidate, reference }) => {
                let counts =
                    Discordant::of(&world.outcomes(&candidate), &world.outcomes(&reference)).unwrap();
                let evaluation = Evaluation { dataset: Dataset::VALIDATION, soup: candidate };
                ledger.find(evaluation, Finding::Comparison(Comparison { reference, counts }));
                continue;
            }
            other => panic!("{other:?}"),
        };
        let outcomes = world.outcomes(&trial.soup);
        let evaluation = Evaluation { dataset: Dataset::VALIDATION, soup: trial.soup };
        let rejection = trial.bar.filter(|_| early).and_then(|bar| {
            let of_bar = world.outcomes(&bar.soup);
            let sequence = Sequence::after(&of_bar, SequenceId(1), metric.lower_is_better());
            let cut = slices(world.samples, world.batch_size);
            let ends = cut.iter().map(|slice| slice.end as usize).filter(|&end| end < outcomes.len());
            let in_sequence: Vec<Outcome> =
                cut.iter().flat_map(|s| sequence.samples(s)).map(|&at| outcomes[at as usize]).collect();
            let mut prefixes = ends.map(|end| tally(&in_sequence[..end]));
            let judged = prefixes.find(|judged| metric.falls_short(spec.accept, judged, &bar.score))?;
            Some(Rejection { bar: bar.soup, judged })
        });
        let finding = rejection.map_or_else(|| Finding::Score(tally(&outcomes)), Finding::Rejection);
        ledger.find(evaluation, finding);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn a_pool_comes_to_the_same(
        seed in any::<u64>(),
        ingredients in 2u32..7,
        samples in 1u64..60,
        classes in 2u32..5,
        batch_size in 1u32..8,
        metric in prop::sample::select(&METRICS[..]),
        accept in prop::sample::select(vec![Accept::AtLeast, Accept::Better, Accept::Significant]),
        alpha in 0.001f64..0.499,
        kind in prop::sample::select(vec![RecipeKind::Greedy, RecipeKind::Pruned]),
        passes in 1u32..3,
    ) {
        // Significance is one of accuracies.
        let tested = accept == Accept::Significant;
        let metric = if tested { "accuracy" } else { metric };
        let spec = RecipeSpec {
            kind,
            order: Order::Sorted,
            accept,
            alpha: tested.then_some(alpha),
            seed: 0,
            max_ingredients: None,
            passes,
            metric: metric.parse().unwrap(),
            learn: None,
        };
        let world = World { seed, samples, classes, batch_size };
        let (soup, told, judged) = cook(&spec, ingredients, &world, true);
        let (full_soup, full_told, all) = cook(&spec, ingredients, &world, false);
        prop_assert_eq!((soup, told), (full_soup, full_told));
        prop_assert!(judged <= all);
    }
}
