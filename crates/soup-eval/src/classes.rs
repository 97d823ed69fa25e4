//! Classes have names on both sides, the model's and the dataset's, and a number only stands for a name.
//!
//! # Rules
//!
//! A dataset's class is the model's class of the same name: the very same one first, else the only one that is equal where
//! case, spaces and punctuation do not count (`T-shirt_top` is `T - shirt / top`). Names that are all numbers are the model's
//! numbers. A dataset may lack classes of the model; it may have none that the model lacks. Where the model's names are made
//! up (`LABEL_3`), nothing can be compared, and what is assumed is said.

use std::collections::{BTreeMap, HashMap};

use soup_core::{Error, Result};

/// Most names that a message lists.
const LISTED_MAX: usize = 5;

/// The classes of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Classes {
    /// By class.
    names: Vec<String>,
    /// Whether the names say something.
    named: bool,
    /// Every name that a class has.
    exact: HashMap<String, u32>,
    /// The same without case and punctuation; `None` where several classes have it.
    folded: HashMap<String, Option<u32>>,
}

/// How the classes of a dataset become those of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alignment {
    /// The model's class for every class of the dataset; `None`: they are the same numbers.
    pub(crate) map: Option<Vec<u32>>,
    /// What people should know.
    pub notes: Vec<String>,
}

/// Where the names of a dataset's classes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Names of folders: without the model's names they have no number but their place in the alphabet.
    Folders,
    /// Names beside labels that are numbers already.
    Labels,
}

impl Classes {
    /// Classes called `names`, by class, which are also known under the names of `label2id`.
    pub fn new(names: Vec<String>, label2id: &BTreeMap<String, u32>) -> Classes {
        let named = !names.iter().enumerate().all(|(id, name)| *name == format!("LABEL_{id}"));
        let mut exact: HashMap<String, u32> = HashMap::new();
        let mut folded: HashMap<String, Option<u32>> = HashMap::new();
        let own = names.iter().zip(0u32..);
        let others = label2id.iter().filter(|(_, id)| (**id as usize) < names.len()).map(|(n, id)| (n, *id));
        for (name, id) in own.chain(others) {
            // Where two classes share a name, the later one is found under no name of its own.
            exact.entry(name.clone()).or_insert(id);
            let of = folded.entry(fold(name)).or_insert(Some(id));
            if *of != Some(id) {
                *of = None;
            }
        }
        Classes { names, named, exact, folded }
    }

    /// Names, by class.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        // Configurations bound them far below.
        self.names.len() as u32
    }

    fn find(&self, name: &str) -> Option<u32> {
        self.exact.get(name).copied().or_else(|| self.folded.get(&fold(name)).copied().flatten())
    }

    /// The model's class for each class of a dataset, called `theirs`.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming what matches no class of the model, or two that match the same.
    pub(crate) fn align(&self, theirs: &[String], source: Source) -> Result<Alignment> {
        let found: Vec<Option<u32>> = theirs.iter().map(|name| self.find(name)).collect();
        if (self.named || source == Source::Folders)
            && let Some(map) = found.iter().copied().collect::<Option<Vec<u32>>>()
        {
            return self.aligned(theirs, map, source, Vec::new());
        }
        if let Some(map) = theirs.iter().map(|name| name.parse().ok()).collect::<Option<Vec<u32>>>() {
            return self.numbered(theirs, map, source);
        }
        match (self.named, source) {
            (true, _) => Err(self.unknown(theirs, &found, source)),
            (false, Source::Labels) => Ok(Alignment::default()),
            (false, Source::Folders) => self.by_order(theirs),
        }
    }

    fn aligned(
        &self,
        theirs: &[String],
        map: Vec<u32>,
        source: Source,
        mut notes: Vec<String>,
    ) -> Result<Alignment> {
        let mut owner: BTreeMap<u32, &String> = BTreeMap::new();
        for (class, name) in map.iter().zip(theirs) {
            if let Some(other) = owner.insert(*class, name) {
                return Err(Error::data(format!(
                    "{other:?} and {name:?} are both class {class} of the model, {:?}: rename one",
                    self.names[*class as usize]
                )));
            }
        }
        if source == Source::Labels && map.iter().zip(0..).any(|(a, b)| *a != b) {
            notes.push(
                "its labels are numbered in another order than the model's classes, and were aligned by name"
                    .to_owned(),
            );
        }
        Ok(Alignment { map: Some(map), notes })
    }

    /// Names that are numbers.
    fn numbered(&self, theirs: &[String], map: Vec<u32>, source: Source) -> Result<Alignment> {
        if let Some((_, name)) = map.iter().zip(theirs).find(|(id, _)| **id >= self.count()) {
            return Err(Error::data(format!(
                "class {name:?} is a number, and the model has the classes 0 to {}",
                self.count().saturating_sub(1)
            )));
        }
        let note = "its classes are called by numbers, which were taken for the model's";
        self.aligned(theirs, map, source, if self.named { vec![note.to_owned()] } else { Vec::new() })
    }

    /// Folders for a model whose classes have no names: by the alphabet, which is all that is left, and only if all are there.
    fn by_order(&self, theirs: &[String]) -> Result<Alignment> {
        if theirs.len() != self.names.len() {
            return Err(Error::data(format!(
                "has {} folders, and the model has {} classes without names (LABEL_0 ...): which is which cannot be known; name \
                 the classes by id2label in a config.json given with --model-config",
                theirs.len(),
                self.names.len()
            )));
        }
        let first = theirs.first().map_or("", String::as_str);
        let last = theirs.last().map_or("", String::as_str);
        let note = format!(
            "the model's classes have no names: the folders were numbered by the alphabet, from 0 for {first:?} to {} for {last:?}",
            theirs.len().saturating_sub(1)
        );
        Ok(Alignment { map: None, notes: vec![note] })
    }

    fn unknown(&self, theirs: &[String], found: &[Option<u32>], source: Source) -> Error {
        let unknown: Vec<&String> =
            theirs.iter().zip(found).filter(|(_, class)| class.is_none()).map(|(name, _)| name).collect();
        let missing: Vec<&String> = self
            .names
            .iter()
            .zip(0..)
            .filter(|(_, id)| !found.contains(&Some(*id)))
            .map(|(n, _)| n)
            .collect();
        let what = match source {
            Source::Folders => "folders",
            Source::Labels => "classes",
        };
        let wordnet = |name: &&String| {
            name.strip_prefix('n').is_some_and(|d| d.len() == 8 && d.bytes().all(|b| b.is_ascii_digit()))
        };
        let hint = match unknown.iter().all(wordnet) {
            true => {
                "; they are WordNet ids, and the model's classes are called otherwise: give a config.json whose label2id has them, with --model-config"
            }
            false => "; rename them, or give a config.json with their names by --model-config",
        };
        Error::data(format!(
            "has {what} that are no class of the model: {}; classes that it lacks: {}{hint}",
            list(&unknown),
            list(&missing)
        ))
    }
}

/// The first few of `names`.
fn list(names: &[&String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let shown = names.iter().take(LISTED_MAX).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A name where case, spaces and punctuation do not count.
fn fold(name: &str) -> String {
    let lower = name.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    fn model(names: &[&str]) -> Classes {
        Classes::new(owned(names), &BTreeMap::new())
    }

    #[track_caller]
    fn check(model: &Classes, theirs: &[&str], source: Source, map: Option<&[u32]>, note: &str) {
        let got = model.align(&owned(theirs), source).unwrap();
        assert_eq!(got.map.as_deref(), map);
        match note {
            "" => assert_eq!(got.notes, [""; 0]),
            note => assert!(got.notes.len() == 1 && got.notes[0].contains(note), "{:?}", got.notes),
        }
    }

    #[track_caller]
    fn refused(model: &Classes, theirs: &[&str], source: Source, parts: &[&str]) {
        let error = model.align(&owned(theirs), source).unwrap_err();
        assert_eq!(error.kind(), soup_core::ErrorKind::Data);
        for part in parts {
            assert!(error.chain().contains(part), "no {part:?} in {}", error.chain());
        }
    }

    use Source::{Folders, Labels};

    #[test]
    fn equal_names_are_the_same_class() {
        let animals = model(&["zebra", "cat", "dog"]);
        check(&animals, &["cat", "dog", "zebra"], Folders, Some(&[1, 2, 0]), "");
        check(&animals, &["zebra", "cat", "dog"], Labels, Some(&[0, 1, 2]), "");
        check(&animals, &["cat", "dog", "zebra"], Labels, Some(&[1, 2, 0]), "another order");
    }

    #[test]
    fn case_spaces_and_punctuation_do_not_count() {
        let clothes = model(&["T - shirt / top", "Ankle boot"]);
        check(&clothes, &["ankle_boot", "t-shirt_top"], Folders, Some(&[1, 0]), "");
        check(&model(&["LYNX", "Mole"]), &["lynx", "mole"], Folders, Some(&[0, 1]), "");
        // The very same name wins over one that is alike.
        let alike = model(&["C++", "C", "c#"]);
        check(&alike, &["C", "C++", "c#"], Folders, Some(&[1, 0, 2]), "");
        refused(&alike, &["c", "C++", "c#"], Folders, &["\"c\""]);
        refused(&model(&["lynx", "mole"]), &["LYNX", "lynx"], Folders, &["\"LYNX\"", "\"lynx\"", "class 0"]);
    }

    #[test]
    fn numbers_are_the_models_numbers() {
        let twelve: Vec<String> = (0..12).map(|i| format!("class {}", (b'a' + i) as char)).collect();
        let twelve = Classes::new(twelve, &BTreeMap::new());
        check(&twelve, &["10", "2"], Folders, Some(&[10, 2]), "by numbers");
        check(&twelve, &["00", "01", "11"], Folders, Some(&[0, 1, 11]), "by numbers");
        refused(&twelve, &["1", "12"], Folders, &["\"12\"", "0 to 11"]);
        refused(&twelve, &["1", "01"], Folders, &["class 1"]);
        // Digits that are names are names.
        check(&model(&["1", "0"]), &["0", "1"], Folders, Some(&[1, 0]), "");
    }

    #[test]
    fn a_subset_is_aligned() {
        check(&model(&["zebra", "cat", "dog"]), &["dog"], Folders, Some(&[2]), "");
    }

    #[test]
    fn what_matches_nothing_is_refused_by_name() {
        let animals = model(&["zebra", "cat", "dog"]);
        refused(
            &animals,
            &["cats", "dog", "zebra"],
            Folders,
            &["\"cats\"", "it lacks: \"cat\"", "--model-config"],
        );
        refused(&animals, &["cat", "cow"], Labels, &["\"cow\""]);
        let many: Vec<String> = (0..9).map(|i| format!("x{i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        refused(&animals, &many, Folders, &["\"x4\" and 4 more"]);
    }

    #[test]
    fn wordnet_ids_are_found_in_label2id_and_refused_otherwise() {
        let fish = ["tench, Tinca tinca", "goldfish, Carassius auratus"];
        refused(&model(&fish), &["n01440764", "n01443537"], Folders, &["WordNet", "label2id"]);
        let ids = BTreeMap::from([("n01440764".to_owned(), 0), ("n01443537".to_owned(), 1)]);
        let both = Classes::new(owned(&fish), &ids);
        check(&both, &["n01440764", "n01443537"], Folders, Some(&[0, 1]), "");
        check(&both, &["goldfish, Carassius auratus", "tench, Tinca tinca"], Folders, Some(&[1, 0]), "");
    }

    #[test]
    fn made_up_names_say_nothing_and_what_is_assumed_is_said() {
        let two = model(&["LABEL_0", "LABEL_1"]);
        check(&two, &["cat", "dog"], Folders, None, "by the alphabet, from 0 for \"cat\"");
        check(&two, &["cat", "dog"], Labels, None, "");
        refused(&two, &["cat"], Folders, &["1 folders", "2 classes without names"]);
        check(&two, &["0", "1"], Folders, Some(&[0, 1]), "");
    }
}
