//! The options of the learned recipe.

use soup_core::recipe::RecipeKind;
use soup_core::recipe::learned::LearnSpec;
use soup_core::run::{DatasetSpec, PPM, Split};
use soup_core::{Error, Result};

use crate::cookfile::CookOptions;

/// Name of the set to learn from in reports.
const TRAIN: &str = "train";
/// Share of the validation set to learn from, if not said.
const TRAIN_SHARE_DEFAULT: f64 = 0.5;

/// How weights are learned, for the learned recipe.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for an option of the learned recipe with another one.
pub(super) fn learn(options: &CookOptions, kind: RecipeKind) -> Result<Option<LearnSpec>> {
    if kind != RecipeKind::Learned {
        return match given(options) {
            None => Ok(None),
            Some(name) => Err(Error::usage(format!(
                "--{name} belongs to the learned recipe, and this one is {}: leave it out, or cook with --recipe learned",
                kind.name()
            ))),
        };
    }
    let default = LearnSpec::default();
    Ok(Some(LearnSpec {
        granularity: options.granularity.map_or(default.granularity, Into::into),
        weights: options.weights.map_or(default.weights, Into::into),
        optimizer: options.optimizer.map_or(default.optimizer, Into::into),
        lr: options.lr.unwrap_or(default.lr),
        schedule: options.schedule.map_or(default.schedule, Into::into),
        warmup: options.warmup.unwrap_or(default.warmup),
        clip: options.clip,
        epochs: options.epochs.unwrap_or(default.epochs),
        batch_size: options.mini_batch.unwrap_or(default.batch_size),
        parts: options.parts.unwrap_or(default.parts),
        shuffle: options.shuffle.unwrap_or(default.shuffle),
        label_smoothing: options.label_smoothing.unwrap_or(default.label_smoothing),
        init: options.init.map_or(default.init, Into::into),
        fold_beta: options.fold_beta.unwrap_or(default.fold_beta),
    }))
}

/// The first option of the learned recipe that was given.
fn given(o: &CookOptions) -> Option<&'static str> {
    let all = [
        ("train", o.train.is_some()),
        ("train-share", o.train_share.is_some()),
        ("granularity", o.granularity.is_some()),
        ("weights", o.weights.is_some()),
        ("optimizer", o.optimizer.is_some()),
        ("lr", o.lr.is_some()),
        ("schedule", o.schedule.is_some()),
        ("warmup", o.warmup.is_some()),
        ("clip", o.clip.is_some()),
        ("epochs", o.epochs.is_some()),
        ("mini-batch", o.mini_batch.is_some()),
        ("parts", o.parts.is_some()),
        ("shuffle", o.shuffle.is_some()),
        ("label-smoothing", o.label_smoothing.is_some()),
        ("init", o.init.is_some()),
        ("fold-beta", o.fold_beta.is_some()),
    ];
    all.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
}

/// The set to learn from, for the learned recipe: another one, or a part of `validation`, which keeps the rest.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for options that contradict each other or are out of range.
pub(super) fn train_set(
    options: &CookOptions,
    validation: Option<&mut DatasetSpec>,
) -> Result<Option<DatasetSpec>> {
    if options.recipe.map(RecipeKind::from) != Some(RecipeKind::Learned) {
        return Ok(None);
    }
    let Some(validation) = validation else {
        return Err(Error::usage(
            "no validation set given, and the learned recipe is judged by one: name held-out labelled data with --validation",
        ));
    };
    match (&options.train, options.train_share) {
        (Some(_), Some(_)) => Err(Error::usage(
            "--train-share is a share of the validation set, but --train names other data to learn from: give one of them",
        )),
        (Some(train), None) => train.clone().named(TRAIN).map(Some),
        (None, share) => {
            let share = share.unwrap_or(TRAIN_SHARE_DEFAULT);
            if !(share > 0.0 && share < 1.0) {
                return Err(Error::usage(format!("--train-share is {share}, must be above 0 and below 1")));
            }
            let train_ppm = ((share * f64::from(PPM)).round() as u32).clamp(1, PPM - 1);
            let part = |train| Some(Split { train, train_ppm });
            let mut train = DatasetSpec { name: TRAIN.to_owned(), ..validation.clone() };
            (train.options.split, validation.options.split) = (part(true), part(false));
            Ok(Some(train))
        }
    }
}
