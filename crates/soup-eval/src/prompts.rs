//! Prompts: texts that say what the classes are, for models that compare images with texts.

use serde::Deserialize;
use soup_core::{Error, Result};

/// Most prompts of all classes together.
const PROMPTS_MAX: usize = 1 << 20;

/// The classes of such a model, each by as many prompts ("a photo of a tench.", "a drawing of a tench.").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompts {
    classes: Vec<String>,
    /// Those of the first class, then those of the second, and so on.
    texts: Vec<String>,
}

/// The file's own form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    classes: Vec<String>,
    templates: Vec<String>,
}

impl Prompts {
    /// Of classes by name and their prompts.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) for less than two classes, for one that has another number of prompts than the first, and for
    /// too many of them.
    pub fn new(classes: Vec<(String, Vec<String>)>) -> Result<Prompts> {
        let each = classes.first().map_or(0, |(_, texts)| texts.len());
        if classes.len() < 2 || each == 0 {
            return Err(Error::data(format!(
                "prompts of {} classes, {each} each: there have to be two classes, with a prompt each",
                classes.len()
            )));
        }
        if let Some((name, texts)) = classes.iter().find(|(_, texts)| texts.len() != each) {
            return Err(Error::data(format!(
                "class {name:?} has {} prompts, {:?} has {each}: all classes have as many",
                texts.len(),
                classes[0].0
            )));
        }
        if classes.len() > PROMPTS_MAX / each {
            return Err(Error::data(format!(
                "{each} prompts of {} classes are too many, expected at most {PROMPTS_MAX} in all",
                classes.len()
            )));
        }
        let (classes, texts): (Vec<String>, Vec<_>) = classes.into_iter().unzip();
        Ok(Prompts { classes, texts: texts.into_iter().flatten().collect() })
    }

    /// Reads the text of a `prompts.json`: `classes`, by name, and `templates`, in which `{}` stands for the name of a class.
    ///
    /// # Errors
    /// As [`new`](Prompts::new), and [`Data`](soup_core::ErrorKind::Data) where it is not understood, or a template does not have one place
    /// for a name.
    pub fn from_json(text: &str) -> Result<Prompts> {
        let wrong = |text: String| Error::data(format!("prompts.json: {text}"));
        let Raw { classes, templates } =
            serde_json::from_str(text).map_err(|e| wrong("not understood".to_owned()).with_source(e))?;
        if let Some(bad) = templates.iter().find(|template| template.matches("{}").count() != 1) {
            return Err(wrong(format!(
                "template {bad:?} does not have one {{}}, where the name of a class belongs"
            )));
        }
        if classes.len() > PROMPTS_MAX / templates.len().max(1) {
            return Err(wrong(format!(
                "{} templates of {} classes are too many, expected at most {PROMPTS_MAX} prompts in all",
                templates.len(),
                classes.len()
            )));
        }
        let prompts = |name: &str| templates.iter().map(|template| template.replace("{}", name)).collect();
        Prompts::new(classes.into_iter().map(|name| (name.clone(), prompts(&name))).collect())
            .map_err(|e| e.context("prompts.json"))
    }

    /// Names, by class.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// All prompts, class by class.
    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_as_many_prompts_each() {
        let class = |name: &str, prompts: usize| (name.to_owned(), vec!["a".to_owned(); prompts]);
        let of = |classes: Vec<_>| Prompts::new(classes).map_err(|e| e.chain());
        let prompts = of(vec![class("cat", 3), class("dog", 3)]).unwrap();
        assert_eq!((prompts.classes().len(), prompts.texts().len()), (2, 6));
        assert!(of(vec![class("cat", 3), class("dog", 2)]).unwrap_err().contains("\"dog\" has 2 prompts"));
        assert!(of(vec![class("cat", 3)]).unwrap_err().contains("prompts of 1 classes"));
        assert!(of(vec![class("cat", 0), class("dog", 0)]).unwrap_err().contains("0 each"));
        assert!(
            of(vec![class("cat", PROMPTS_MAX), class("dog", PROMPTS_MAX)]).unwrap_err().contains("too many")
        );
    }

    #[test]
    fn templates_have_a_place_for_a_name() {
        let of = |text: &str| Prompts::from_json(text).map_err(|e| e.chain());
        let prompts = of(r#"{"classes": ["cat", "dog"], "templates": ["a {}.", "the {}"]}"#).unwrap();
        assert_eq!(prompts.texts(), ["a cat.", "the cat", "a dog.", "the dog"]);
        for (text, part) in [
            (
                r#"{"classes": ["cat", "dog"], "templates": ["a {} {}"]}"#,
                "template \"a {} {}\" does not have one {}",
            ),
            (r#"{"classes": ["cat", "dog"], "templates": ["a"]}"#, "template \"a\" does not have one {}"),
            (r#"{"classes": ["cat", "dog"], "templates": []}"#, "prompts of 2 classes, 0 each"),
            (r#"{"classes": ["cat"], "templates": ["{}"]}"#, "prompts of 1 classes, 1 each"),
            (
                r#"{"classes": ["cat", "dog"], "templates": ["{}"], "lang": "en"}"#,
                "prompts.json: not understood",
            ),
            ("[]", "prompts.json: not understood"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
