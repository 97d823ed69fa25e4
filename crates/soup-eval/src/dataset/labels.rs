//! Labels: names of the model's classes, or their numbers; for a model that has no classes, numbers that it is to predict.

use soup_core::{Error, Result};

use super::Target;
use crate::classes::Classes;

/// What labels mean, once the model's classes are known.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(Option<Classes>);

impl Labels {
    /// Those of a model with `classes`.
    pub(super) fn of(classes: &Classes) -> Labels {
        Labels(Some(classes.clone()))
    }

    /// Whether they are numbers that are to be predicted.
    pub(super) fn are_numbers(&self) -> bool {
        self.0.as_ref().is_some_and(Classes::is_empty)
    }

    /// What an integer means.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is no class, or no number that is known to the last digit.
    pub(super) fn of_integer(&self, number: i64) -> Result<Target> {
        let none = || Error::data(format!("has no label: it is {number}"));
        match self.are_numbers() {
            false => u32::try_from(number).map(Target::Class).map_err(|_| none()),
            true if number.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS => Ok(Target::Number(number as f64)),
            true => Err(none()),
        }
    }

    /// What a number in JSON means.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) as for integers and others.
    pub(super) fn of_json(&self, number: &serde_json::Number) -> Result<Target> {
        match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => self.of_integer(integer),
            (None, Some(other)) if !number.is_u64() => self.of_number(other),
            // More than can be told to the last digit.
            (None, _) => Err(Error::data(format!("has no label: it is {number}"))),
        }
    }

    /// What any number means.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where classes are wanted, or it is not finite.
    pub(super) fn of_number(&self, number: f64) -> Result<Target> {
        match self.are_numbers() && number.is_finite() {
            true => Ok(Target::Number(number)),
            false => Err(Error::data(format!("has no label: it is {number}"))),
        }
    }

    /// What `text` says: the name of a class, or a number.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is neither.
    pub(super) fn of_text(&self, text: &str) -> Result<Target> {
        let Some(classes) = &self.0 else {
            return Err(Error::internal("labels were read before the classes were known"));
        };
        let shown = || text.chars().take(60).collect::<String>();
        if classes.is_empty() {
            let number = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
            let none =
                || Error::data(format!("label {:?} is no number, and the model predicts one", shown()));
            return number.map(Target::Number).ok_or_else(none);
        }
        classes.label(text).map(Target::Class).ok_or_else(|| {
            let names = classes.names();
            let known = names.iter().take(5).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            let more = if names.len() > 5 { ", ..." } else { "" };
            Error::data(format!(
                "label {:?} is no class of the model ({known}{more}): name the classes by id2label in a config.json given with \
                 --model-config",
                shown()
            ))
        })
    }
}
