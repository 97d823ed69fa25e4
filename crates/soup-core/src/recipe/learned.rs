//! Learned soup (Wortsman et al. 2022, recipe 3): weights alpha of the ingredients and a temperature beta that minimise the
//! loss on data to learn from.
//!
//! # Words
//!
//! - A *group* is what has weights of its own: the whole model, a layer, or a tensor ([`Granularity`]).
//! - What is learned is *alpha*, one number a group and ingredient, and *beta*, which multiplies the logits. The *weights* of
//!   a soup follow from alpha ([`WeightRule`]).
//! - A *step* is one mini-batch: loss and gradient at the weights so far, then one update of alpha and beta. A mini-batch is
//!   cut into *parts*, which different workers may differentiate.
//!
//! # Flow
//!
//! theta(alpha) = sum of w_i theta_i is linear in the weights, so dL/dw_i = <dL/dtheta, theta_i>: whoever holds the shards
//! of the ingredients can tell it from the gradient through one model. The ledger keeps these products, summed over the
//! mini-batch, for every step ([`Gradients`](crate::ledger::Gradients)); this recipe replays them through the optimiser,
//! and so knows alpha, and which step comes next. It keeps no state but a memo of that replay.
//!
//! Everything here is f64, in a fixed order, with the elementary functions of `libm`: the same steps give the same alpha to
//! the bit, on any machine.

mod batches;
mod optimizer;
mod weights;

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::layer::{is_classifier, layers};
use crate::ledger::{Dataset, Gradients, Ledger};
use crate::schema::Schema;
use crate::soup::{Ingredient, Soup, Weight};

use super::greedy::Greedy;
use super::ranking::Candidates;
use super::{Recipe, RecipeKind, RecipeSpec, Replay, Step};

use batches::Batches;
pub use batches::PARTS_MAX;
use optimizer::AdamW;

/// Largest mini-batch, in samples.
pub const LEARN_BATCH_MAX: u32 = 1 << 20;
/// Most passes over the data.
pub const EPOCHS_MAX: u32 = 10_000;
/// Most steps of one run: each is a record of its journal.
pub const STEPS_MAX: u64 = 1_000_000;

/// What has weights of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// The model: one weight an ingredient (the paper).
    Model,
    /// Every layer of the network, as [`layer_of`](crate::layer::layer_of) tells them.
    Layer,
    /// Every tensor (the authors' code).
    #[default]
    Tensor,
}

/// How weights follow from alpha.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightRule {
    /// w = softmax(alpha): positive, with sum 1 (the paper).
    #[default]
    Softmax,
    /// w = alpha: anything.
    Free,
    /// w = alpha projected on the hyperplane of sum 1; negative weights are allowed (MEHL-Soup, Li et al. 2024).
    SumToOne,
}

/// How alpha is stepped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// AdamW (Loshchilov, Hutter 2019) with betas 0.9 and 0.999, epsilon 1e-8 and no weight decay.
    #[default]
    Adamw,
}

/// How the learning rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// It stays.
    #[default]
    Constant,
    /// It falls to zero along half a cosine.
    Cosine,
}

/// Where learning starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// At the uniform soup.
    #[default]
    Uniform,
    /// At the greedy soup of the data that is learned from. Under [`WeightRule::Softmax`], where no weight can be zero, an
    /// ingredient outside it starts with a hundredth of the weight of one inside.
    Greedy,
}

/// Options of the learned recipe. The defaults are those of the authors' script.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearnSpec {
    /// What has weights of its own.
    pub granularity: Granularity,
    /// How weights follow from alpha.
    pub weights: WeightRule,
    /// How alpha is stepped.
    pub optimizer: Optimizer,
    /// Learning rate, after the warm-up.
    pub lr: f64,
    /// How it goes on.
    pub schedule: Schedule,
    /// Share of all steps over which the learning rate rises to its value.
    pub warmup: f64,
    /// Largest norm of the gradient with respect to alpha and beta; longer ones are scaled down to it.
    pub clip: Option<f64>,
    /// Passes over the data.
    pub epochs: u32,
    /// Samples of a mini-batch.
    pub batch_size: u32,
    /// Parts that a mini-batch is cut into, so that so many workers can share it. The result depends on it by rounding, and
    /// on the number of workers not at all.
    pub parts: u32,
    /// Whether mini-batches are drawn at random (by the recipe's seed); else samples are taken in their order.
    pub shuffle: bool,
    /// Share of the label's probability that is spread over all classes.
    pub label_smoothing: f64,
    /// Where learning starts.
    pub init: Init,
    /// Whether beta is multiplied into the classifier's parameters in the end; else it is only reported.
    pub fold_beta: bool,
}

impl Default for LearnSpec {
    fn default() -> LearnSpec {
        LearnSpec {
            granularity: Granularity::default(),
            weights: WeightRule::default(),
            optimizer: Optimizer::default(),
            lr: 0.05,
            schedule: Schedule::default(),
            warmup: 0.0,
            clip: None,
            epochs: 5,
            batch_size: 256,
            parts: 8,
            shuffle: true,
            label_smoothing: 0.0,
            init: Init::default(),
            fold_beta: false,
        }
    }
}

impl LearnSpec {
    /// Checks every option.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) naming the option.
    pub fn validate(&self) -> Result<()> {
        let range = |name: &str, value: f64, good: bool, expected: &str| match good {
            true => Ok(()),
            false => Err(Error::usage(format!("--{name} is {value}, must be {expected}"))),
        };
        range("lr", self.lr, self.lr.is_finite() && self.lr > 0.0, "above 0")?;
        range("warmup", self.warmup, (0.0..=1.0).contains(&self.warmup), "a share from 0 to 1")?;
        let clip = self.clip.unwrap_or(1.0);
        range("clip", clip, clip.is_finite() && clip > 0.0, "above 0")?;
        let smoothing = self.label_smoothing;
        range("label-smoothing", smoothing, (0.0..1.0).contains(&smoothing), "a share from 0 to below 1")?;
        let count = |name: &str, value: u32, max: u32| {
            range(name, f64::from(value), (1..=max).contains(&value), &format!("1 to {max}"))
        };
        count("epochs", self.epochs, EPOCHS_MAX)?;
        count("mini-batch", self.batch_size, LEARN_BATCH_MAX)?;
        count("parts", self.parts, PARTS_MAX)
    }
}

/// What the recipe has to know of a model's tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Names of the groups.
    pub names: Vec<String>,
    /// The group of each tensor, in canonical order; `None` for tensors that are copied and not averaged.
    pub of: Vec<Option<u32>>,
    /// Whether each tensor is of the classifier.
    pub classifier: Vec<bool>,
}

impl Groups {
    /// The groups of a pool's tensors.
    pub fn new(granularity: Granularity, schema: &Schema) -> Groups {
        let floats = || schema.tensors().iter().filter(|t| t.dtype.is_float()).map(|t| t.name.as_str());
        let (names, positions) = match granularity {
            Granularity::Model => (vec!["model".to_owned()], vec![0; floats().count()]),
            Granularity::Layer => layers(floats()),
            Granularity::Tensor => {
                (floats().map(str::to_owned).collect(), (0..floats().count() as u32).collect())
            }
        };
        let mut positions = positions.into_iter();
        let group = |t: &crate::schema::TensorSpec| t.dtype.is_float().then(|| positions.next()).flatten();
        Groups {
            of: schema.tensors().iter().map(group).collect(),
            classifier: schema.tensors().iter().map(|t| is_classifier(&t.name)).collect(),
            names,
        }
    }

    /// One group, where nothing is known of the tensors.
    pub fn model() -> Groups {
        Groups { names: vec!["model".to_owned()], of: Vec::new(), classifier: Vec::new() }
    }
}

/// The next step of a learned soup: loss and gradient of this soup on this mini-batch.
#[derive(Clone, Debug, PartialEq)]
pub struct MiniBatch {
    /// Counts from 1.
    pub step: u32,
    /// The soup, at the weights so far.
    pub soup: Soup,
    /// What its logits are multiplied by.
    pub beta: f64,
    /// Share of the label's probability that is spread over all classes.
    pub label_smoothing: f64,
    /// Positions of its samples in the dataset, by part; no part is empty.
    pub parts: Vec<Vec<u64>>,
}

impl MiniBatch {
    /// Number of its samples.
    pub fn samples(&self) -> u64 {
        self.parts.iter().map(|p| p.len() as u64).sum()
    }
}

/// What has been learned.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// `weights[group][ingredient]`.
    pub weights: Vec<Vec<f64>>,
    /// What logits are multiplied by.
    pub beta: f64,
    /// Figures of every step so far.
    pub steps: Vec<SteppedFigures>,
    /// How many steps there are in all.
    pub steps_total: u32,
}

/// What an update was made with and led to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SteppedFigures {
    /// Learning rate.
    pub lr: f64,
    /// Beta afterwards.
    pub beta: f64,
    /// Norm of the gradient with respect to alpha and beta, before clipping.
    pub gradient_norm: f64,
}

/// See the module.
pub(super) struct LearnedSoup {
    seed: u64,
    learn: LearnSpec,
    ingredients: u32,
    groups: Arc<Groups>,
    train: Dataset,
    greedy: Greedy,
    /// The last replay, to go on from: replaying is a fold over the steps.
    memo: Mutex<Option<Progress>>,
}

/// Where a replay has come to.
#[derive(Clone)]
struct Progress {
    start: Option<Soup>,
    alpha: Vec<Vec<f64>>,
    beta: f64,
    optimizer: AdamW,
    steps: Vec<SteppedFigures>,
}

impl LearnedSoup {
    pub(super) fn new(
        spec: RecipeSpec,
        candidates: Candidates,
        groups: Arc<Groups>,
        train: Dataset,
    ) -> Result<LearnedSoup> {
        let learn = spec.learn.unwrap_or_default();
        learn.validate()?;
        let ingredients = candidates.ingredients;
        let greedy = Greedy { spec: RecipeSpec { kind: RecipeKind::Greedy, passes: 1, ..spec }, candidates };
        Ok(LearnedSoup { seed: spec.seed, learn, ingredients, groups, train, greedy, memo: Mutex::new(None) })
    }

    fn batches(&self, ledger: &Ledger) -> Option<Batches> {
        let samples = ledger.samples(self.train)?;
        Some(Batches::new(
            samples,
            self.learn.batch_size,
            self.learn.parts,
            self.learn.shuffle.then_some(self.seed),
        ))
    }

    fn steps_total(&self, batches: &Batches) -> u32 {
        // Bounded where the run is checked; a larger product would be no run.
        u32::try_from(u64::from(self.learn.epochs) * batches.per_epoch()).unwrap_or(u32::MAX)
    }

    fn begin(&self, start: Option<Soup>) -> Progress {
        let alpha = weights::initial(self.learn.weights, self.ingredients, start.as_ref());
        let groups = self.groups.names.len();
        Progress {
            start,
            optimizer: AdamW::new(groups * self.ingredients as usize + 1),
            alpha: vec![alpha; groups],
            beta: 1.0,
            steps: Vec::new(),
        }
    }

    /// The replay of all steps in the ledger, from the soup `start`.
    fn progress(&self, ledger: &Ledger, start: Option<Soup>, total: u32) -> Progress {
        let mut memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = ledger.steps();
        let fits = |p: &Progress| p.start == start && p.steps.len() <= steps.len();
        let mut progress = memo.take().filter(fits).unwrap_or_else(|| self.begin(start));
        for gradients in &steps[progress.steps.len()..] {
            self.update(&mut progress, gradients, total);
        }
        *memo = Some(progress.clone());
        progress
    }

    fn update(&self, progress: &mut Progress, gradients: &Gradients, total: u32) {
        let mut gradient: Vec<f64> = progress
            .alpha
            .iter()
            .zip(&gradients.dots)
            .flat_map(|(alpha, dots)| weights::pull_back(self.learn.weights, alpha, dots))
            .collect();
        gradient.push(gradients.d_beta);
        let norm = optimizer::norm(&gradient);
        if let Some(clip) = self.learn.clip {
            optimizer::clip(&mut gradient, norm, clip);
        }
        let step = progress.steps.len() as u32 + 1;
        let lr = optimizer::learning_rate(&self.learn, step, total);
        let mut values: Vec<&mut f64> = progress.alpha.iter_mut().flatten().collect();
        values.push(&mut progress.beta);
        progress.optimizer.step(&mut values, &gradient, lr);
        progress.steps.push(SteppedFigures { lr, beta: progress.beta, gradient_norm: norm });
    }

    fn weights(&self, progress: &Progress) -> Vec<Vec<f64>> {
        progress.alpha.iter().map(|alpha| weights::weights(self.learn.weights, alpha)).collect()
    }

    /// The soup of these weights; with `fold`, the classifier's parameters are multiplied by beta.
    fn soup(&self, progress: &Progress, fold: bool) -> Option<Soup> {
        let weights = self.weights(progress);
        let fold = fold && self.groups.classifier.iter().any(|c| *c);
        let row = |row: &[f64], factor: f64| {
            row.iter().map(|w| Weight::new(w * factor)).collect::<Option<Vec<_>>>()
        };
        let rows = if weights.len() == 1 && !fold {
            vec![row(&weights[0], 1.0)?]
        } else {
            let tensor = |(group, classifier): (&Option<u32>, &bool)| {
                let factor = if fold && *classifier { progress.beta } else { 1.0 };
                // A tensor that is copied has no group, and its row is not looked at.
                row(weights.get(group.unwrap_or(0) as usize)?, factor)
            };
            self.groups.of.iter().zip(&self.groups.classifier).map(tensor).collect::<Option<_>>()?
        };
        Soup::weighted((0..self.ingredients).map(Ingredient).collect(), rows).ok()
    }

    /// The soup that learning starts from, or what is needed to know it.
    fn start(&self, ledger: &Ledger, lookahead: usize) -> Result<Replay, Box<Replay>> {
        let nothing =
            Replay { order: Vec::new(), decisions: Vec::new(), incumbent: None, step: Step::Waiting };
        if self.learn.init == Init::Uniform {
            return Ok(nothing);
        }
        let replay = self.greedy.replay(ledger, lookahead);
        match replay.step {
            Step::Done(_) => Ok(replay),
            _ => Err(Box::new(replay)),
        }
    }
}

impl Recipe for LearnedSoup {
    fn replay(&self, ledger: &Ledger, lookahead: usize) -> Replay {
        let start = match self.start(ledger, lookahead) {
            Ok(start) => start,
            Err(replay) => return *replay,
        };
        let Some(batches) = self.batches(ledger) else { return Replay { step: Step::Waiting, ..start } };
        let total = self.steps_total(&batches);
        let progress = self.progress(ledger, start.incumbent.clone(), total);
        let done = progress.steps.len() as u32;
        let soup = self.soup(&progress, done >= total && self.learn.fold_beta);
        let step = match soup.clone() {
            // Weights that are not finite end the run where they arise; see the machine.
            None => Step::Waiting,
            Some(soup) if done >= total => Step::Done(soup),
            Some(soup) => Step::Differentiate(Box::new(MiniBatch {
                step: done + 1,
                soup,
                beta: progress.beta,
                label_smoothing: self.learn.label_smoothing,
                parts: batches.parts(u64::from(done)),
            })),
        };
        Replay { incumbent: soup, step, ..start }
    }

    fn learned(&self, ledger: &Ledger) -> Option<Learned> {
        let start = self.start(ledger, 0).ok()?;
        let total = self.steps_total(&self.batches(ledger)?);
        let progress = self.progress(ledger, start.incumbent, total);
        Some(Learned {
            weights: self.weights(&progress),
            beta: progress.beta,
            steps: progress.steps,
            steps_total: total,
        })
    }
}
