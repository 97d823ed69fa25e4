//! Labels: names of the model's classes, or their numbers; for a model that has no classes, numbers that it is to predict.

use soup_core::{Error, Result};

use super::Target;
use crate::classes::{self, Classes};

/// What labels mean, once the model's classes are known.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels {
    classes: Option<Classes>,
    /// Whether numbers are those of the dataset's own classes, which have names.
    own: bool,
}

impl Labels {
    /// Those of a model with `classes`.
    pub(super) fn of(classes: &Classes) -> Labels {
        Labels { classes: Some(classes.clone()), own: false }
    }

    /// The same where numbers are those of the dataset's `own` classes.
    pub(super) fn numbered(self, own: bool) -> Labels {
        Labels { own, ..self }
    }

    /// Whether they are numbers that are to be predicted.
    pub(super) fn are_numbers(&self) -> bool {
        self.classes.as_ref().is_some_and(Classes::is_empty)
    }

    /// What an integer means.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is no class, or no number that is known to the last digit.
    pub(super) fn of_integer(&self, number: i64) -> Result<Target> {
        let none = || Error::data(format!("has no label: it is {number}"));
        match self.are_numbers() {
            false => {
                let class = u32::try_from(number).map_err(|_| none())?;
                self.check_meaning(class)?;
                Ok(Target::Class(class))
            }
            true if number.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS => Ok(Target::Number(number as f64)),
            true => Err(none()),
        }
    }

    /// Refuses a number that may as well be what another class of the model is called.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming the two.
    pub(super) fn check_meaning(&self, number: u32) -> Result<()> {
        let called = |classes: &Classes| classes.called(number);
        match self.classes.as_ref().filter(|_| !self.own).and_then(called) {
            None => Ok(()),
            Some(class) => Err(Error::data(format!(
                "label {number} may be the number of a class of the model or the name of another one: class {class} is called \"{number}\" by \
                 id2label; call the model's classes otherwise in a config.json given with --model-config"
            ))),
        }
    }

    /// What a cell of a table says whose cells are all texts.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) as for texts and for integers.
    pub(super) fn of_cell(&self, text: &str) -> Result<Target> {
        classes::number(text).map_or(Ok(()), |number| self.check_meaning(number))?;
        self.of_text(text)
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
        match (self.are_numbers(), number.is_finite()) {
            (true, true) => Ok(Target::Number(number)),
            (true, false) => Err(Error::data(format!("has no label: it is {number}"))),
            (false, _) => Err(Error::data(format!(
                "has no label: it is {number:?}, and classes are numbered by integers"
            ))),
        }
    }

    /// What `text` says: the name of a class, or a number.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is neither.
    pub(super) fn of_text(&self, text: &str) -> Result<Target> {
        let Some(classes) = &self.classes else {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn numbers_that_are_names_of_other_classes_are_refused() {
        let labels =
            |names: [&str; 3]| Labels::of(&Classes::new(names.map(str::to_owned).to_vec(), &BTreeMap::new()));
        let swapped = labels(["1", "0", "2"]);
        let refused = |target: Result<Target>| {
            let error = target.unwrap_err().chain();
            assert!(error.contains("class 0 is called \"1\" by id2label"), "{error}");
        };
        refused(swapped.of_integer(1));
        refused(swapped.of_json(&1.into()));
        refused(swapped.of_cell("1"));
        let class = |target: Result<Target>| match target.unwrap() {
            Target::Class(class) => class,
            other => panic!("{other:?} is no class"),
        };
        // A text is a name, and a number that is nobody else's name is one.
        assert_eq!(class(swapped.of_text("1")), 0);
        assert_eq!((class(swapped.of_integer(2)), class(swapped.of_cell("2"))), (2, 2));
        // Of classes that the dataset names itself, numbers are its own.
        assert_eq!(class(swapped.numbered(true).of_integer(1)), 1);
        assert_eq!(class(labels(["0", "1", "2"]).of_cell("1")), 1);
        assert_eq!(class(labels(["a", "b", "c"]).of_integer(1)), 1);
    }
}
