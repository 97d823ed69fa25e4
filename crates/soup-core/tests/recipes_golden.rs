//! Recipes against the reference implementation: the example pool's `reference.json` holds every trial of a greedy run,
//! of a strict greedy run and of a pruned run in PyTorch, with its count of correct samples.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use serde_json::Value;
use soup_core::ledger::{Dataset, Ledger};
use soup_core::metric::{Metric, MetricName};
use soup_core::recipe::{Accept, Order, RecipeKind, RecipeSpec, Replay, Step, Verdict};
use soup_core::soup::{Ingredient, Soup};
use soup_core::tally::{Counts, Tally};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/pools/vit-fashion/reference.json");

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

struct Reference(Value);

impl Reference {
    fn read() -> Reference {
        Reference(serde_json::from_str(&std::fs::read_to_string(PATH).unwrap()).unwrap())
    }

    fn names(&self) -> Vec<&str> {
        self.0["ingredients"].as_object().unwrap().keys().map(String::as_str).collect()
    }

    fn ingredient(&self, name: &Value) -> Ingredient {
        Ingredient(self.names().iter().position(|&n| n == name).unwrap() as u32)
    }

    fn members(&self, names: &Value) -> Vec<Ingredient> {
        names.as_array().unwrap().iter().map(|n| self.ingredient(n)).collect()
    }

    /// The ledger of the ingredients alone.
    fn ledger(&self) -> Ledger {
        let names = self.names();
        let mut ledger = Ledger::new(names.len() as u32);
        ledger.surveyed(vec![2000], Metric::of_classes(&MetricName::default(), 10).unwrap());
        for (index, name) in names.iter().enumerate() {
            let val = &self.0["ingredients"][*name]["val"];
            let soup = Soup::single(Ingredient(index as u32));
            ledger.record(Dataset::VALIDATION, soup, score(&val["correct"]));
        }
        let uniform = &self.0["soups"]["uniform"]["results"]["val"]["correct"];
        let soup = Soup::uniform(names.len() as u32).unwrap();
        ledger.record(Dataset::VALIDATION, soup, score(uniform));
        ledger
    }
}

fn score(correct: &Value) -> Tally {
    Counts { total: 2000, correct: correct.as_u64().unwrap(), ..Counts::default() }.into()
}

/// Replays the run called `run`, answering each trial with the count of the reference's next step, and checks every
/// candidate, bar and verdict on the way.
fn check(run: &str, spec: RecipeSpec, count: &str, verdict: &str) -> Replay {
    let reference = Reference::read();
    let soup = &reference.0["soups"][run];
    let steps = soup["steps"].as_array().unwrap();
    let mut ledger = reference.ledger();
    let recipe = spec.build(ledger.ingredients()).unwrap();
    for (index, step) in steps.iter().enumerate() {
        let replay = recipe.replay(&ledger, 0);
        assert_eq!(replay.decisions.len(), index);
        let Step::Try(trials) = replay.step else { panic!("ended before step {index}") };
        assert_eq!(trials.len(), 1);
        assert_eq!(trials[0].bar.as_ref().map(|bar| &bar.score), Some(&score(&step["best_before"])));
        ledger.record(Dataset::VALIDATION, trials[0].soup.clone(), score(&step[count]));
        let replay = recipe.replay(&ledger, 0);
        let decision = &replay.decisions[index];
        assert_eq!(decision.candidate, reference.ingredient(&step["candidate"]), "step {index}");
        assert_eq!(decision.verdict == Verdict::Accepted, step[verdict].as_bool().unwrap(), "step {index}");
        assert_eq!(u64::from(decision.pass), step.get("pass").map_or(1, |p| p.as_u64().unwrap()));
    }
    let replay = recipe.replay(&ledger, 0);
    let chosen = Soup::mean(reference.members(&soup["chosen"])).unwrap();
    assert_eq!(replay.step, Step::Done(chosen.clone()));
    assert_eq!(ledger.validation(&chosen), Some(&score(&soup["val_correct"])));
    replay
}

#[test]
fn greedy_is_the_references() {
    let replay = check("greedy", spec(), "val_correct", "kept");
    let reference = Reference::read();
    assert_eq!(replay.order, reference.members(&reference.0["soups"]["greedy"]["order"]));
    assert_eq!(replay.decisions.len(), 15);
}

#[test]
fn strict_greedy_is_the_references() {
    check("greedy_strict", RecipeSpec { accept: Accept::Better, ..spec() }, "val_correct", "kept");
}

#[test]
fn pruned_is_the_references() {
    let spec = RecipeSpec { kind: RecipeKind::Pruned, order: Order::Pool, passes: 2, ..spec() };
    check("pruned", spec, "val_correct_without", "removed");
}

#[test]
fn best_single_is_the_references() {
    let reference = Reference::read();
    let ledger = reference.ledger();
    let recipe = RecipeSpec { kind: RecipeKind::BestSingle, ..spec() }.build(ledger.ingredients()).unwrap();
    let best = reference.ingredient(&reference.0["best_individual"]["name"]);
    assert_eq!(recipe.next(&ledger), Step::Done(Soup::single(best)));
}

#[test]
fn uniform_is_the_references() {
    let reference = Reference::read();
    let recipe = RecipeSpec { kind: RecipeKind::Uniform, ..spec() }.build(16).unwrap();
    let all = Soup::mean(reference.members(&reference.0["soups"]["uniform"]["chosen"])).unwrap();
    assert_eq!(recipe.next(&Ledger::new(16)), Step::Done(all));
}
