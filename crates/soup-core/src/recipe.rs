//! Recipes: which soups to try next. A recipe is a pure function of the ledger and keeps no state.
//!
//! It *replays* what the ledger already decides, from the start, and stops at the first unknown score. Restarts,
//! duplicate answers and answers out of order then need no code of their own; proposing further trials ahead of time
//! is only "as if the open ones were rejected", and a later replay ignores those that turn out useless.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ledger::{Dataset, Ledger};
use crate::metric::{Metric, MetricName};
use crate::soup::{Ingredient, Soup};
use crate::tally::Tally;

use crate::significance::Discordant;
use learned::{Groups, LearnSpec, Learned, LearnedSoup, MiniBatch};
use ranking::Candidates;

mod best_single;
pub mod given;
mod greedy;
pub mod learned;
mod pruned;
pub mod ranking;
mod uniform;
mod walk;

/// Decides which soups to try.
pub trait Recipe {
    /// Replays the ledger: all decisions it implies, in order, and the next step.
    /// `lookahead` is how many trials to propose beyond the first open one, as if the open ones were rejected.
    fn replay(&self, ledger: &Ledger, lookahead: usize) -> Replay;

    /// The next step, without speculation.
    fn next(&self, ledger: &Ledger) -> Step {
        self.replay(ledger, 0).step
    }

    /// What the ledger's steps have taught; `None` for recipes that do not learn, and before they begin.
    fn learned(&self, _: &Ledger) -> Option<Learned> {
        None
    }
}

/// What a ledger implies.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// The order in which ingredients are taken, once it is known; empty before, and for recipes without one.
    pub order: Vec<Ingredient>,
    /// Every decision so far, in order.
    pub decisions: Vec<Decision>,
    /// The best soup so far, once there is one.
    pub incumbent: Option<Soup>,
    /// What is needed next.
    pub step: Step,
}

impl Replay {
    /// A replay that knows nothing but what it needs.
    fn needing(step: Step) -> Replay {
        Replay { order: Vec::new(), decisions: Vec::new(), incumbent: None, step }
    }
}

/// What a recipe needs next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Scores of these soups on the validation set; the most urgent first, never empty, none known yet.
    Try(Vec<Trial>),
    /// What happened to every sample with both of two soups, whose scores are known.
    Compare(Pair),
    /// Loss and gradient of a soup on a mini-batch.
    Differentiate(Box<MiniBatch>),
    /// Nothing that can be asked for: something that is not a score has to be known first.
    Waiting,
    /// Nothing: this is the soup.
    Done(Soup),
}

/// Two soups that are compared sample by sample, on the set on which the recipe decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The one that is tried.
    pub candidate: Soup,
    /// The one that it may replace.
    pub reference: Soup,
}

/// One soup to be scored.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The soup.
    pub soup: Soup,
    /// What it has to reach, where that is known. A trial without a bar only ranks.
    pub bar: Option<Bar>,
}

/// What a trial has to reach.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// The incumbent.
    pub soup: Soup,
    /// Its score.
    pub score: Tally,
}

/// A trial with its verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The soup that was tried.
    pub soup: Soup,
    /// The ingredient that it adds to (greedy) or removes from (pruned) the incumbent.
    pub candidate: Ingredient,
    /// Which pass over the ingredients, from 1.
    pub pass: u32,
    /// What it scored; what those samples add up to that were judged, where the verdict was certain before all were.
    pub score: Tally,
    /// Whether it was.
    pub early: bool,
    /// What it had to reach: the incumbent's score.
    pub bar: Tally,
    /// The samples that only one of the two got right, where the rule asks for them.
    pub compared: Option<Discordant>,
    /// Whether it became the incumbent.
    pub verdict: Verdict,
}

impl Decision {
    /// The metric of what was tried; of a verdict that was certain early what it could have been at best.
    pub fn value(&self, metric: &Metric) -> f64 {
        match self.early {
            true => metric.reach(&self.score, &self.bar).unwrap_or(f64::NAN),
            false => metric.value(&self.score),
        }
    }
}

/// The end of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The tried soup became the incumbent.
    Accepted,
    /// The incumbent stayed.
    Rejected,
}

/// The order in which greedy adds and pruned removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// By validation score: greedy best first, pruned worst first. Ties in pool order.
    #[default]
    Sorted,
    /// Shuffled by the seed.
    Random,
    /// As in the pool.
    Pool,
}

/// When a trial is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accept {
    /// When it scores at least what the incumbent does (the paper).
    #[default]
    AtLeast,
    /// When it scores better (the authors' code).
    Better,
    /// When it gets more samples right than luck makes a soup get that is no better than the incumbent: where a one-sided
    /// [exact McNemar test](crate::significance::McNemar) of what both did on every sample is at most [`alpha`](RecipeSpec::alpha).
    Significant,
}

impl Accept {
    /// Whether a trial that compares to its bar so is accepted; with [`Significant`](Accept::Significant), whether it can be. (Of n
    /// discordant samples at least half are gains with a probability of one half or more, and alpha is below that.)
    pub fn holds(self, order: Ordering) -> bool {
        match self {
            Accept::AtLeast => order != Ordering::Less,
            Accept::Better | Accept::Significant => order == Ordering::Greater,
        }
    }
}

/// What luck may do if not said: 1 time in 20.
pub const ALPHA_DEFAULT: f64 = 0.05;
/// What it can be: below this.
const ALPHA_END: f64 = 0.5;

/// Which recipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecipeKind {
    /// The mean of all ingredients.
    Uniform,
    /// The one ingredient with the best validation score.
    BestSingle,
    /// Add ingredients while the validation score does not drop (Wortsman et al. 2022, recipe 1).
    #[default]
    Greedy,
    /// Remove ingredients from the uniform soup while the score does not drop (Dansereau et al. 2023).
    Pruned,
    /// Learn the weights by gradient descent (Wortsman et al. 2022, recipe 3).
    Learned,
    /// The weights that are given.
    Weighted,
}

impl RecipeKind {
    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            RecipeKind::Uniform => "uniform",
            RecipeKind::BestSingle => "best-single",
            RecipeKind::Greedy => "greedy",
            RecipeKind::Pruned => "pruned",
            RecipeKind::Learned => "learned",
            RecipeKind::Weighted => "weighted",
        }
    }

    /// Whether it decides by scores; else it needs no data.
    pub fn judges(self) -> bool {
        !matches!(self, RecipeKind::Uniform | RecipeKind::Weighted)
    }
}

/// A recipe with its options, as a run specifies it. Options that a recipe does not use are ignored by it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipeSpec {
    /// Which recipe.
    pub kind: RecipeKind,
    /// The order of candidates.
    pub order: Order,
    /// The rule of acceptance.
    pub accept: Accept,
    /// How often a trial may be accepted that is no better than the incumbent, for the rule that asks for significance; above 0 and below
    /// one half. It is that of each trial by itself: many trials are tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Seed of [`Order::Random`].
    pub seed: u64,
    /// Greedy stops once the soup has this many ingredients.
    pub max_ingredients: Option<u32>,
    /// Passes over the candidates; a pass that changes nothing ends the recipe early.
    pub passes: u32,
    /// The figure that is compared.
    pub metric: MetricName,
    /// How weights are learned; absent for recipes that do not learn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learn: Option<LearnSpec>,
}

/// What a recipe has to know of a run, besides its options.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Ingredients in the pool.
    pub ingredients: u32,
    /// What has weights of its own.
    pub groups: Arc<Groups>,
    /// The dataset that is learned from.
    pub train: Dataset,
    /// The soup of the weights that are given, for the recipe that takes them.
    pub given: Option<Soup>,
    /// The scores by which ingredients are ranked, in pool order, where these are given.
    pub ranking: Option<Arc<[f64]>>,
}

impl Setting {
    /// A pool of which nothing is known but the number of its ingredients.
    pub fn of(ingredients: u32) -> Setting {
        let groups = Arc::new(Groups::model());
        Setting { ingredients, groups, train: Dataset::VALIDATION, given: None, ranking: None }
    }
}

impl RecipeSpec {
    /// The recipe for a pool of `ingredients`.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) for an empty pool, [`ErrorKind::Usage`](crate::ErrorKind::Usage) for
    /// an option out of range (of those that the recipe uses).
    pub fn build(&self, ingredients: u32) -> Result<Box<dyn Recipe + Send + Sync>> {
        self.build_for(&Setting::of(ingredients))
    }

    /// The recipe for a run.
    ///
    /// # Errors
    /// As for [`build`](RecipeSpec::build).
    pub fn build_for(&self, setting: &Setting) -> Result<Box<dyn Recipe + Send + Sync>> {
        let ingredients = setting.ingredients;
        let soup = Soup::uniform(ingredients)
            .ok_or_else(|| Error::data("the pool has no ingredients: a recipe needs at least one"))?;
        let walks = matches!(self.kind, RecipeKind::Greedy | RecipeKind::Pruned);
        if walks && self.passes == 0 {
            return Err(Error::usage("passes is 0, but a recipe makes at least 1 pass"));
        }
        self.check_rule()?;
        let candidates = Candidates { ingredients, scores: setting.ranking.clone() };
        if self.kind == RecipeKind::Greedy && self.max_ingredients == Some(0) {
            return Err(Error::usage("max-ingredients is 0, but a soup has at least 1 ingredient"));
        }
        Ok(match self.kind {
            RecipeKind::Uniform => Box::new(uniform::Fixed { soup: Some(soup) }),
            // Never another soup in their place.
            RecipeKind::Weighted => Box::new(uniform::Fixed { soup: setting.given.clone() }),
            RecipeKind::BestSingle => Box::new(best_single::BestSingle { ingredients }),
            RecipeKind::Greedy => Box::new(greedy::Greedy { spec: self.clone(), candidates }),
            RecipeKind::Pruned => Box::new(pruned::Pruned { spec: self.clone(), candidates, uniform: soup }),
            RecipeKind::Learned => {
                let (groups, train) = (setting.groups.clone(), setting.train);
                Box::new(LearnedSoup::new(self.clone(), candidates, groups, train)?)
            }
        })
    }

    /// Whether it takes the ingredients in an order of their scores.
    pub fn ranks(&self) -> bool {
        match self.kind {
            RecipeKind::Greedy | RecipeKind::Pruned => true,
            RecipeKind::Learned => self.learn.is_some_and(|learn| learn.init == learned::Init::Greedy),
            RecipeKind::Uniform | RecipeKind::BestSingle | RecipeKind::Weighted => false,
        }
    }

    /// Whether two soups are compared sample by sample.
    pub fn compares_samples(&self) -> bool {
        self.accept == Accept::Significant
    }

    fn check_rule(&self) -> Result<()> {
        match (self.accept, self.alpha) {
            (Accept::Significant, None) => Err(Error::usage(
                "accept significant has no alpha: say how often luck may be taken for skill",
            )),
            (Accept::Significant, Some(alpha)) if !(alpha > 0.0 && alpha < ALPHA_END) => {
                Err(Error::usage(format!("alpha is {alpha}, must be above 0 and below {ALPHA_END}")))
            }
            (Accept::Significant, Some(_)) if self.metric != MetricName::default() => {
                Err(Error::usage(format!(
                    "accept significant is a test of accuracies, and soups are compared by {}: leave out the metric, or take another rule",
                    self.metric
                )))
            }
            (Accept::AtLeast | Accept::Better, Some(alpha)) => Err(Error::usage(format!(
                "alpha {alpha} belongs to accept significant, and to no other rule"
            ))),
            _ => Ok(()),
        }
    }

    /// How many soups the recipe scores at most in a pool of `ingredients`, without lookahead: first those without a bar
    /// (rankings and the start), then the trials. `ranked`: the ranking is given.
    pub fn trials_max(&self, ingredients: u32, ranked: bool) -> (u64, u64) {
        let count = u64::from(ingredients);
        let singles = if self.order == Order::Sorted && !ranked { count } else { 0 };
        // Every pass but the last changes the soup by one ingredient at least, so that the next one has less to try.
        let trials = |first_pass: u64, passes_max: u64| {
            let passes = u64::from(self.passes).min(passes_max);
            (0..passes).map(|pass| first_pass - pass).sum::<u64>()
        };
        let learns_from_greedy = self.learn.is_some_and(|l| l.init == learned::Init::Greedy);
        match self.kind {
            RecipeKind::Learned if learns_from_greedy => {
                RecipeSpec { kind: RecipeKind::Greedy, passes: 1, ..self.clone() }
                    .trials_max(ingredients, ranked)
            }
            RecipeKind::Uniform | RecipeKind::Weighted | RecipeKind::Learned => (0, 0),
            RecipeKind::BestSingle => (count, 0),
            RecipeKind::Greedy => {
                let additions_max = u64::from(self.max_ingredients.unwrap_or(ingredients).min(ingredients));
                let passes_max = additions_max.saturating_sub(1);
                (singles.max(count.min(1)), trials(count.saturating_sub(1), passes_max))
            }
            // The uniform soup of one ingredient is that ingredient.
            RecipeKind::Pruned if count <= 1 => (count, 0),
            RecipeKind::Pruned => (singles + 1, trials(count, count - 1)),
        }
    }
}
