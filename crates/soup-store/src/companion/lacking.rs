//! Who has nothing to compare: ingredients that lack a file that others have, or have the same in a form that cannot be compared.

use soup_core::companion::{CONFIG, OPEN_CLIP_CONFIG, PREPROCESSOR, PROCESSOR, PROMPTS};

use super::{ByFile, VOCABULARIES};

/// Files of which one says what a model is, and how images become pixels; the first gives the name.
const WANTED: [[&str; 2]; 2] = [[CONFIG, OPEN_CLIP_CONFIG], [PREPROCESSOR, PROCESSOR]];

/// What people should know about `ingredients` whose files could not be compared with those of others.
pub(super) fn notes(ingredients: &[&str], companions: &ByFile) -> Vec<String> {
    let has = |ingredient: &str, file: &str| {
        companions.get(file).is_some_and(|of| of.iter().any(|c| c.ingredient == ingredient))
    };
    let mut notes = Vec::new();
    for [name, other] in WANTED {
        let (with, without): (Vec<&str>, Vec<&str>) =
            ingredients.iter().copied().partition(|i| has(i, name) || has(i, other));
        notes.extend(lack(name, &with, &without));
    }
    let files = ingredients.iter().copied().map(|ingredient| {
        let own = VOCABULARIES.into_iter().filter(|file| *file != PROMPTS && has(ingredient, file));
        (ingredient, own.collect::<Vec<&'static str>>())
    });
    let (with, without): (Vec<_>, Vec<_>) = files.partition(|(_, files)| !files.is_empty());
    notes.extend(lack("vocabulary", &names(&with), &names(&without)));
    notes.extend(apart(&with));
    notes
}

fn names<'a>(of: &[(&'a str, Vec<&'static str>)]) -> Vec<&'a str> {
    of.iter().map(|(ingredient, _)| *ingredient).collect()
}

/// Says so where ingredients lack what others have.
fn lack(what: &str, with: &[&str], without: &[&str]) -> Option<String> {
    let first = with.first()?;
    let who = match without {
        [] => return None,
        [one] => format!("ingredient {one:?} has"),
        [one, rest @ ..] => format!("ingredient {one:?} and {} more have", rest.len()),
    };
    Some(format!(
        "{who} no {what} and ingredient {first:?} has: whether they mean the same could not be compared"
    ))
}

/// Says so where vocabularies are in files of which no one is beside both of two ingredients, nor beside others in between.
fn apart(with: &[(&str, Vec<&'static str>)]) -> Option<String> {
    let (first, files) = with.first()?;
    let mut linked = files.clone();
    loop {
        let before = linked.len();
        for (_, files) in with {
            if files.iter().any(|file| linked.contains(file)) {
                let more: Vec<_> = files.iter().copied().filter(|file| !linked.contains(file)).collect();
                linked.extend(more);
            }
        }
        if linked.len() == before {
            break;
        }
    }
    let (other, theirs) = with.iter().find(|(_, files)| !files.iter().any(|f| linked.contains(f)))?;
    Some(format!(
        "ingredient {other:?} has its vocabulary in {}, and ingredient {first:?} in {}: they have no file in common, and whether their \
         tokens are the same could not be compared",
        theirs.join(", "),
        files.join(", ")
    ))
}
