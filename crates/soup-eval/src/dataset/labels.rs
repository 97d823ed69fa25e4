//! Labels that are texts: names of the model's classes, or their numbers.

use soup_core::{Error, Result};

use crate::classes::Classes;

/// What labels that are texts mean, once the model's classes are known.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(Option<Classes>);

impl Labels {
    /// Those of a model with `classes`.
    pub(super) fn of(classes: &Classes) -> Labels {
        Labels(Some(classes.clone()))
    }

    /// The class that `text` names.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is none.
    pub(super) fn of_text(&self, text: &str) -> Result<u32> {
        let Some(classes) = &self.0 else {
            return Err(Error::internal("labels were read before the classes were known"));
        };
        classes.label(text).ok_or_else(|| {
            let names = classes.names();
            let shown = names.iter().take(5).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            let more = if names.len() > 5 { ", ..." } else { "" };
            let shown_text: String = text.chars().take(60).collect();
            Error::data(format!(
                "label {shown_text:?} is no class of the model ({shown}{more}): name the classes by id2label in a config.json given with \
                 --model-config"
            ))
        })
    }
}
