//! Names of ingredients: what differs in their paths.

use super::{Form, Found, stem};
use crate::glob::Glob;

/// Names what `glob` matches. A pattern in the last component, or in the one before, names by the components that vary, as
/// one reads it; anything deeper by those components that differ among the matches, so that `mlruns/1/*/artifacts/model` needs
/// no renaming.
pub(super) fn by_glob(glob: &Glob, found: &mut [Found]) {
    let wild = |part: &str| part.contains(['*', '?']);
    let parts = glob.parts();
    let deep = parts.len() > 2 || parts.iter().any(|p| p == "**");
    let paths: Vec<Vec<String>> = found.iter().map(|f| components(&f.entry, f.form)).collect();
    if !deep {
        for (f, path) in found.iter_mut().zip(&paths) {
            f.name = match path.as_slice() {
                [folder, _] if parts.last().is_some_and(|last| !wild(last)) => folder.clone(),
                all => all.join("/"),
            };
        }
        return;
    }
    let literal = parts.iter().rev().take_while(|p| !wild(p)).count();
    for (f, name) in found.iter_mut().zip(differing(&paths, literal)) {
        f.name = name;
    }
}

/// Gives those that have the same name one by what differs in their whole paths.
pub(super) fn tell_apart(found: &mut [Found]) {
    let mut by_name: std::collections::BTreeMap<String, Vec<usize>> = std::collections::BTreeMap::new();
    for (at, f) in found.iter().enumerate() {
        by_name.entry(f.name.clone()).or_default().push(at);
    }
    for same in by_name.into_values().filter(|same| same.len() > 1) {
        let paths: Vec<Vec<String>> =
            same.iter().map(|&at| components(&found[at].location.to_string(), found[at].form)).collect();
        for (&at, name) in same.iter().zip(differing(&paths, 0)) {
            found[at].name = name;
        }
    }
}

fn components(path: &str, form: Form) -> Vec<String> {
    let mut parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect();
    if let (Form::File | Form::Unknown, Some(last)) = (form, parts.last_mut()) {
        *last = stem(last);
    }
    parts
}

/// What differs among `paths`; of a single one its last component before the `literal` last ones.
fn differing(paths: &[Vec<String>], literal: usize) -> Vec<String> {
    let Some(first) = paths.first() else { return Vec::new() };
    if paths.len() == 1 {
        let at = first.len().saturating_sub(literal + 1).min(first.len().saturating_sub(1));
        return vec![first.get(at).cloned().unwrap_or_default()];
    }
    let same = |at: usize| paths.iter().all(|p| p[at] == first[at]);
    if paths.iter().all(|p| p.len() == first.len()) {
        let varying: Vec<usize> = (0..first.len()).filter(|&at| !same(at)).collect();
        if varying.is_empty() {
            return paths.iter().map(|p| p.last().cloned().unwrap_or_default()).collect();
        }
        let name = |p: &Vec<String>| varying.iter().map(|&at| p[at].as_str()).collect::<Vec<_>>().join("/");
        return paths.iter().map(name).collect();
    }
    let shortest = paths.iter().map(Vec::len).min().unwrap_or(0);
    let ahead = (0..shortest.saturating_sub(1)).take_while(|&at| same(at)).count();
    let from_end = |p: &Vec<String>, at: usize| p[p.len() - 1 - at].clone();
    let behind = (0..shortest.saturating_sub(ahead + 1))
        .take_while(|&at| paths.iter().all(|p| from_end(p, at) == from_end(first, at)))
        .count();
    paths.iter().map(|p| p[ahead..p.len() - behind].join("/")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn named(paths: &[&str], literal: usize, expect: &[&str]) {
        let paths: Vec<Vec<String>> =
            paths.iter().map(|p| p.split('/').map(str::to_owned).collect()).collect();
        assert_eq!(differing(&paths, literal), expect);
    }

    #[test]
    fn an_ingredient_is_named_by_what_differs_in_its_path() {
        named(&["1/ab/artifacts/model", "1/cd/artifacts/model"], 2, &["ab", "cd"]);
        named(&["1/ab/artifacts/model", "2/cd/artifacts/model"], 2, &["1/ab", "2/cd"]);
        named(&["1/ab/artifacts/model"], 2, &["ab"]);
        named(
            &["a/checkpoint-500/model", "a/checkpoint-900/model"],
            1,
            &["checkpoint-500", "checkpoint-900"],
        );
        named(&["a/checkpoint-500/model", "b/model"], 1, &["a/checkpoint-500", "b"]);
        named(&["model", "b/model"], 1, &["model", "b/model"]);
        named(&["a", "a"], 0, &["a", "a"]);
    }
}
