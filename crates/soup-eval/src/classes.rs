//! Classes have names on both sides, the model's and the dataset's, and a number only stands for a name.
//!
//! # Rules
//!
//! A dataset's class is the model's class of the same name: the very same one first, else the only one that is equal where
//! case, spaces and punctuation do not count (`T-shirt_top` is `T - shirt / top`); signs do (`C++` is not `C`, `grade -1` not `grade 1`),
//! unless they join words, and so does every other character (`5 €` is not `5 $`), in whichever of Unicode's forms it is written: an
//! archive that was packed on macOS has accents of their own. Names that are all numbers are the model's
//! numbers. A dataset may lack classes of the model; it may have none that the model lacks. Where the model's names are made
//! up (`LABEL_3`, `3`), nothing can be compared, and what is assumed is said. A name that several classes of the model share
//! (ImageNet has two cranes) tells neither apart: labels that have numbers keep them where all others do.

use std::collections::{BTreeMap, HashMap};

use soup_core::{Error, Result};
use unicode_normalization::UnicodeNormalization;

/// Most names that a message lists.
const LISTED_MAX: usize = 5;
/// Where ImageNet's 1000 classes are, told by some of them: number, WordNet id, a word of the name.
const IMAGENET: [(usize, &str, &str); 5] = [
    (0, "n01440764", "tench"),
    (281, "n02123045", "tabby"),
    (340, "n02391049", "zebra"),
    (954, "n07753592", "banana"),
    (999, "n15075141", "toilet"),
];
const IMAGENET_CLASSES: usize = 1000;

/// The classes of a model. One that has none predicts a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Classes {
    /// By class.
    names: Vec<String>,
    /// Whether the names say something.
    named: bool,
    /// Every name that a class has; `None` where several classes have it.
    exact: HashMap<String, Option<u32>>,
    /// The same without case and punctuation.
    folded: HashMap<String, Option<u32>>,
    /// Classes that are called by another one's number, by what they are called.
    misnumbered: HashMap<u32, u32>,
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
        let made_up =
            |(id, name): (usize, &String)| *name == format!("LABEL_{id}") || *name == id.to_string();
        // Without `id2label`, `label2id` may still have names.
        let ids = |(name, id): (&String, &u32)| made_up((*id as usize, name));
        let named = !names.iter().enumerate().all(made_up) || !label2id.iter().all(ids);
        let mut exact: HashMap<String, Option<u32>> = HashMap::new();
        let mut folded: HashMap<String, Option<u32>> = HashMap::new();
        let own = names.iter().zip(0u32..);
        let others = label2id.iter().filter(|(_, id)| (**id as usize) < names.len()).map(|(n, id)| (n, *id));
        // A name that `label2id` gives to one of the classes that share it is still the name of several.
        for (name, id) in own.chain(others) {
            for (found, key) in [(&mut exact, name.clone()), (&mut folded, fold(name))] {
                let of = found.entry(key).or_insert(Some(id));
                if *of != Some(id) {
                    *of = None;
                }
            }
        }
        let own = names.iter().zip(0u32..).filter_map(|(name, id)| Some((number(name)?, id)));
        let misnumbered = own.filter(|(number, id)| number != id).collect();
        Classes { names, named, exact, folded, misnumbered }
    }

    /// Of a model that predicts a number.
    pub fn none() -> Classes {
        Classes::new(Vec::new(), &BTreeMap::new())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Logits of a sample: one a class, or the number that is predicted.
    pub(crate) fn outputs(&self) -> usize {
        self.names.len().max(1)
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
        match self.exact.get(name) {
            Some(found) => *found,
            None => self.folded.get(&fold(name)).copied().flatten(),
        }
    }

    /// The class that a label means which is a text: the one of that name, else of that number.
    pub(crate) fn label(&self, text: &str) -> Option<u32> {
        let numbered = || number(text).filter(|&id| id < self.count() && !self.has_other_numbers());
        self.find(text).or_else(numbered)
    }

    /// Whether several classes go by this name.
    fn is_shared(&self, name: &str) -> bool {
        let found = self.exact.get(name).or_else(|| self.folded.get(&fold(name)));
        found.is_some_and(Option::is_none)
    }

    /// The model's class for each class of a dataset, called `theirs`.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming what matches no class of the model, or two that match the same.
    pub(crate) fn align(&self, theirs: &[String], source: Source) -> Result<Alignment> {
        let found: Vec<Option<u32>> = theirs.iter().map(|name| self.find(name)).collect();
        if source == Source::Labels && theirs == self.names {
            return self.same();
        }
        if source == Source::Labels && self.differs_in_shared_names_only(theirs, &found) {
            return self.by_number(theirs, &found);
        }
        if (self.named || source == Source::Folders)
            && let Some(map) = found.iter().copied().collect::<Option<Vec<u32>>>()
        {
            return self.aligned(theirs, map, source, Vec::new());
        }
        if let Some(map) = theirs.iter().map(|name| number(name)).collect::<Option<Vec<u32>>>()
            && !self.has_other_numbers()
        {
            return self.numbered(theirs, map, source);
        }
        if self.is_imagenet(theirs) {
            let note = "its folders are WordNet ids, and were numbered by the alphabet, which is the order of ImageNet's classes";
            return Ok(Alignment { notes: vec![note.to_owned()], ..self.same()? });
        }
        match (self.named, source) {
            (true, _) => Err(self.unknown(theirs, &found, source)),
            (false, Source::Labels) => Ok(Alignment::default()),
            (false, Source::Folders) => self.by_order(theirs),
        }
    }

    /// Labels that have the model's names in the model's order.
    fn same(&self) -> Result<Alignment> {
        Ok(Alignment { map: Some((0..self.count()).collect()), notes: Vec::new() })
    }

    /// Whether labels are numbered as the model's classes are wherever names can tell, and the rest are classes whose names the
    /// model uses several times.
    fn differs_in_shared_names_only(&self, theirs: &[String], found: &[Option<u32>]) -> bool {
        let agrees = |(number, class): (usize, &Option<u32>)| match class {
            Some(class) => *class as usize == number,
            None => self.is_shared(&self.names[number]),
        };
        theirs.len() == self.names.len()
            && found.iter().any(Option::is_some)
            && found.iter().enumerate().all(agrees)
    }

    fn by_number(&self, theirs: &[String], found: &[Option<u32>]) -> Result<Alignment> {
        let untold: Vec<&String> =
            theirs.iter().zip(found).filter(|(_, class)| class.is_none()).map(|(name, _)| name).collect();
        let mut same = self.same()?;
        if !untold.is_empty() {
            same.notes.push(format!(
                "its classes have the model's numbers; so were taken those whose names the model has several times: {}",
                list(&untold)
            ));
        }
        Ok(same)
    }

    /// Whether a class is called by the number of another one: then a number may be a name.
    pub(crate) fn has_other_numbers(&self) -> bool {
        !self.misnumbered.is_empty()
    }

    /// The class that is called `number`, which is not its own.
    pub(crate) fn called(&self, number: u32) -> Option<u32> {
        self.misnumbered.get(&number).copied()
    }

    /// Whether folders are the 1000 classes of ImageNet by their WordNet ids, and the model's classes are the same by their words.
    fn is_imagenet(&self, theirs: &[String]) -> bool {
        let there = |(class, id, word): &(usize, &str, &str)| {
            theirs[*class] == *id && fold(&self.names[*class]).split(' ').any(|w| w == *word)
        };
        theirs.len() == IMAGENET_CLASSES
            && self.names.len() == IMAGENET_CLASSES
            && theirs.iter().all(|name| is_wordnet(name))
            && theirs.is_sorted()
            && IMAGENET.iter().all(there)
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
        if let Some(shared) = unknown.iter().find(|name| self.is_shared(name)) {
            return Error::data(format!(
                "has {what} called {shared:?}, and several classes of the model are: give a config.json that tells them apart, with \
                 --model-config"
            ));
        }
        let hint = match unknown.iter().all(|name| is_wordnet(name)) {
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

/// The number that a name is, with or without leading zeros.
pub(crate) fn number(name: &str) -> Option<u32> {
    name.parse().ok().filter(|_| name.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a name is the WordNet id of a noun, such as `n01440764`.
fn is_wordnet(name: &str) -> bool {
    name.strip_prefix('n').is_some_and(|d| d.len() == 8 && d.bytes().all(|b| b.is_ascii_digit()))
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

/// What characters of a name are, where case does not count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Word,
    /// Of arithmetic or of a comparison: it may be all that tells two names apart.
    Sign,
    /// A space, or punctuation.
    Other,
}

impl Part {
    fn of(c: char) -> Part {
        match c {
            '+' | '-' | '<' | '>' | '=' | '#' | '*' | '%' | '\u{b1}' | '\u{2260}' | '\u{2264}'
            | '\u{2265}' => Part::Sign,
            c if c.is_alphanumeric() => Part::Word,
            c if c.is_whitespace() || c.is_control() || is_punctuation(c) => Part::Other,
            // Accents that no letter is written with, and symbols, which may be all that tells two names apart.
            _ => Part::Word,
        }
    }
}

/// A name where case, spaces and punctuation do not count, but signs that join no words do. One that has nothing else is itself.
fn fold(name: &str) -> String {
    let chars: Vec<char> = name.to_lowercase().nfc().map(plain).collect();
    let parts: Vec<&[char]> = chars.chunk_by(|a, b| Part::of(*a) == Part::of(*b)).collect();
    let counts = |at: &usize| match Part::of(parts[*at][0]) {
        Part::Word => true,
        Part::Sign => !joins(&parts, *at),
        Part::Other => false,
    };
    let kept: Vec<String> = (0..parts.len()).filter(counts).map(|at| parts[at].iter().collect()).collect();
    if kept.is_empty() { chars.into_iter().collect() } else { kept.join(" ") }
}

/// The minus and the hyphens of Unicode are the one of ASCII, and its wide characters are those of ASCII.
fn plain(c: char) -> char {
    match c {
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xff01 + 0x21).unwrap_or(c),
        other => other,
    }
}

/// Whether a character that is no letter and no digit is punctuation: that of ASCII but for its currency, and the blocks of Unicode that
/// have little else. What is missing here is a symbol, and tells names apart.
fn is_punctuation(c: char) -> bool {
    match c {
        '$' => false,
        c if c.is_ascii() => c.is_ascii_punctuation(),
        // Of Latin-1; and the soft hyphen, which is not seen.
        '\u{a1}' | '\u{a7}' | '\u{ab}' | '\u{ad}' | '\u{b6}' | '\u{b7}' | '\u{bb}' | '\u{bf}' => true,
        // Of Arabic, Hindi and others who share its bars.
        '\u{60c}' | '\u{61b}' | '\u{61f}' | '\u{6d4}' | '\u{964}' | '\u{965}' => true,
        // General, supplemental, of Chinese and Japanese in two widths; joiners and marks of direction are not seen.
        '\u{2000}'..='\u{2027}'
        | '\u{202a}'..='\u{202f}'
        | '\u{2039}'..='\u{205e}'
        | '\u{2060}'..='\u{206f}' => true,
        '\u{2e00}'..='\u{2e7f}'
        | '\u{3001}'..='\u{3003}'
        | '\u{3008}'..='\u{3011}'
        | '\u{3014}'..='\u{301f}' => true,
        '\u{30fb}' | '\u{fe30}'..='\u{fe61}' | '\u{feff}' | '\u{ff5f}'..='\u{ff65}' => true,
        _ => false,
    }
}

/// Whether the signs that are part `at` of a name stand between two words (`golden-retriever`, `T - shirt`) and not before or after one
/// (`C++ code`, `grade -1`). A hyphen may stand beside a number, too (`covid-19`), but not between two (`5-10`).
fn joins(parts: &[&[char]], at: usize) -> bool {
    let before = beside(parts[..at].iter().rev().flat_map(|part| part.iter().rev().copied()));
    let after = beside(parts[at + 1..].iter().flat_map(|part| part.iter().copied()));
    match (before, after) {
        (Some((one, before)), Some((other, after))) if before == after => {
            one && other || (*parts[at] == ['-'] && (one || other))
        }
        _ => false,
    }
}

/// Whether the word next to a sign begins with a letter, and whether there is something between; `None` where there is no word.
fn beside(mut others: impl Iterator<Item = char>) -> Option<(bool, bool)> {
    let first = others.next()?;
    let spaced = Part::of(first) == Part::Other;
    let next = if spaced { others.find(|c| Part::of(*c) != Part::Other)? } else { first };
    (Part::of(next) == Part::Word).then_some((next.is_alphabetic(), spaced))
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
        check(&alike, &["c", "c++", "C #"], Folders, Some(&[1, 0, 2]), "");
        refused(&model(&["lynx", "mole"]), &["LYNX", "lynx"], Folders, &["\"LYNX\"", "\"lynx\"", "class 0"]);
    }

    #[test]
    fn signs_count_where_they_join_no_words() {
        for (one, other) in [
            ("golden-retriever", "Golden_retriever"),
            ("T - shirt / top", "t-shirt_top"),
            ("black+white", "black white"),
            ("covid-19", "COVID 19"),
            ("stage - 2", "stage_2"),
            ("50%", "50 %"),
            ("grade -1", "Grade \u{2212}1"),
            ("5\u{2013}10", "5-10"),
            ("na\u{ef}ve-bayes", "Na\u{cf}ve Bayes"),
            // As macOS writes names, and as Asian keyboards do.
            ("caf\u{e9}", "Cafe\u{301}"),
            ("\u{ac00}", "\u{1100}\u{1161}"),
            ("\u{ff23}\u{ff0b}\u{ff0b}", "C++"),
            ("\u{bb}lynx\u{ab}", "\u{201c}Lynx\u{201d}"),
            ("\u{30c9}\u{30a4}\u{30c4}\u{30fb}\u{8a9e}", "\u{30c9}\u{30a4}\u{30c4} \u{8a9e}"),
        ] {
            assert_eq!(fold(one), fold(other));
        }
        for (one, other) in [
            ("A+", "A-"),
            ("C++", "C"),
            ("C# code", "C code"),
            (">5", "<5"),
            ("\u{2264}5", "\u{2265}5"),
            ("<5", "5"),
            ("grade -1", "grade 1"),
            ("-1", "1"),
            ("0-5", "0.5"),
            ("10%", "10"),
            ("?", "!"),
            ("\u{1f600}", "\u{1f603}"),
            ("face \u{1f600}", "face \u{1f603}"),
            ("cafe\u{301}", "cafe"),
            ("5 $", "5 \u{20ac}"),
            ("100\u{b0}", "100"),
            ("5\u{2032}", "5\u{2033}"),
            // Where only an accent without a letter of its own differs.
            ("\u{921}\u{93c}", "\u{921}"),
        ] {
            assert_ne!(fold(one), fold(other), "{one} {other}");
        }
        let two = model(&["0", "1"]);
        assert_eq!((two.label("1"), two.label("-1"), two.label("+1")), (Some(1), None, None));
        refused(&model(&["grade 1", "grade 2"]), &["grade -1"], Folders, &["\"grade -1\""]);
        check(&model(&["cafe", "caf\u{e9}"]), &["cafe\u{301}"], Folders, Some(&[1]), "");
        refused(&model(&["5 $", "x"]), &["5 \u{20ac}"], Folders, &["\"5 \u{20ac}\""]);
    }

    #[test]
    fn numbers_are_the_models_numbers() {
        let twelve: Vec<String> = (0..12).map(|i| format!("class {}", (b'a' + i) as char)).collect();
        let twelve = Classes::new(twelve, &BTreeMap::new());
        check(&twelve, &["10", "2"], Folders, Some(&[10, 2]), "by numbers");
        check(&twelve, &["00", "01", "11"], Folders, Some(&[0, 1, 11]), "by numbers");
        refused(&twelve, &["1", "12"], Folders, &["\"12\"", "0 to 11"]);
        refused(&twelve, &["1", "01"], Folders, &["class 1"]);
        refused(&twelve, &["+1", "2"], Folders, &["\"+1\""]);
        // Digits that are names are names.
        check(&model(&["1", "0"]), &["0", "1"], Folders, Some(&[1, 0]), "");
        refused(&model(&["1", "0"]), &["00", "01"], Folders, &["\"00\", \"01\""]);
    }

    #[test]
    fn names_that_are_their_own_numbers_say_nothing() {
        let two = model(&["0", "1"]);
        check(&two, &["cat", "dog"], Labels, None, "");
        check(&two, &["cat", "dog"], Folders, None, "by the alphabet");
        check(&two, &["1"], Folders, Some(&[1]), "");
        check(&two, &["00", "01"], Folders, Some(&[0, 1]), "");
    }

    #[test]
    fn a_name_that_several_classes_share_tells_none_of_them() {
        let birds = model(&["crane", "owl", "crane"]);
        check(&birds, &["crane", "owl", "crane"], Labels, Some(&[0, 1, 2]), "");
        check(&birds, &["crane", "owl", "crane2"], Labels, Some(&[0, 1, 2]), "\"crane\", \"crane2\"");
        refused(&birds, &["owl", "crane", "crane2"], Labels, &["\"crane\"", "several classes"]);
        refused(&birds, &["crane", "owl"], Folders, &["\"crane\"", "several classes"]);
        check(&birds, &["owl"], Folders, Some(&[1]), "");
        // A configuration that contradicts itself.
        let other = BTreeMap::from([("cat".to_owned(), 1), ("dog".to_owned(), 0)]);
        let contrary = Classes::new(owned(&["cat", "dog"]), &other);
        refused(&contrary, &["cat", "dog"], Folders, &["\"cat\"", "several classes"]);
    }

    #[test]
    fn imagenet_is_known_by_its_order() {
        let mut names: Vec<String> = (0..IMAGENET_CLASSES).map(|c| format!("thing {c}")).collect();
        // Ids that keep the order, between those that are known.
        let mut ids = Vec::new();
        for class in 0..IMAGENET_CLASSES {
            let known = IMAGENET.iter().rev().find(|(at, ..)| *at <= class).unwrap();
            let first: usize = known.1[1..].parse().unwrap();
            ids.push(format!("n{:08}", first + class - known.0));
        }
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        refused(&Classes::new(names.clone(), &BTreeMap::new()), &ids, Folders, &["WordNet"]);
        for (class, _, word) in IMAGENET {
            names[class] = format!("{word}, a thing");
        }
        let imagenet = Classes::new(names, &BTreeMap::new());
        let all: Vec<u32> = (0..1000).collect();
        check(&imagenet, &ids, Folders, Some(&all), "order of ImageNet");
        refused(&imagenet, &ids[..200], Folders, &["WordNet"]);
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
    fn names_may_be_in_label2id_alone() {
        let ids = BTreeMap::from([("cat".to_owned(), 1), ("dog".to_owned(), 0)]);
        let pets = Classes::new(owned(&["LABEL_0", "LABEL_1"]), &ids);
        check(&pets, &["cat", "dog"], Folders, Some(&[1, 0]), "");
        refused(&pets, &["cat", "cow"], Folders, &["\"cow\""]);
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
