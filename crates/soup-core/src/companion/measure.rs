//! What settings are held against: for each the ingredient that says it first.
//!
//! The first ingredient alone is no measure: what it does not say, two others may say differently.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Deepest nesting that is looked into; deeper values are compared whole.
const DEPTH_MAX: usize = 16;

/// How two settings differ.
pub(super) struct Difference<'a> {
    pub(super) path: String,
    /// The measure's value and the other one; `None` where a file has none.
    pub(super) values: [Option<Value>; 2],
    /// The ingredient that is the measure.
    pub(super) measure: &'a str,
}

/// What ingredients have said so far, in pool order.
pub(super) struct Measure<'a> {
    first: &'a str,
    /// What the first one says.
    own: Map<String, Value>,
    /// That, and what others say first.
    all: Map<String, Value>,
    /// Who says first what the first one does not, by path.
    others: BTreeMap<String, &'a str>,
}

impl<'a> Measure<'a> {
    /// What ingredient `first` says.
    pub(super) fn of(first: &'a str, settings: Map<String, Value>) -> Measure<'a> {
        Measure { first, own: settings.clone(), all: settings, others: BTreeMap::new() }
    }

    /// How the `settings` of the next ingredient differ from the first one's, and from what others say that the first one does not;
    /// then they are part of the measure.
    pub(super) fn against(
        &mut self,
        ingredient: &'a str,
        settings: Map<String, Value>,
    ) -> Vec<Difference<'a>> {
        let of_first = |(path, values)| Difference { path, values, measure: self.first };
        let mut found: Vec<_> = differences(&self.own, &settings).into_iter().map(of_first).collect();
        for (path, values) in differences(&self.all, &settings) {
            match (&values, self.other(&path)) {
                ([Some(_), Some(_)], Some(measure)) => found.push(Difference { path, values, measure }),
                ([None, Some(_)], _) => {
                    self.others.insert(path, ingredient);
                }
                _ => {}
            }
        }
        add(&mut self.all, settings, 0);
        found
    }

    /// Who said `path` first, or what it is part of, where it was not the first ingredient.
    fn other(&self, path: &str) -> Option<&'a str> {
        let above = path.rmatch_indices('.').map(|(end, _)| &path[..end]);
        [path].into_iter().chain(above).find_map(|path| self.others.get(path).copied())
    }
}

/// Adds to `all` what it does not say yet.
fn add(all: &mut Map<String, Value>, settings: Map<String, Value>, depth: usize) {
    for (key, value) in settings {
        match (all.get_mut(&key), value) {
            (Some(Value::Object(all)), Value::Object(more)) if depth < DEPTH_MAX => add(all, more, depth + 1),
            (None | Some(Value::Null), value) => drop(all.insert(key, value)),
            _ => {}
        }
    }
}

/// The paths at which two files differ, and the two values.
fn differences(a: &Map<String, Value>, b: &Map<String, Value>) -> Vec<(String, [Option<Value>; 2])> {
    let mut found = Vec::new();
    compare(a, b, "", 0, &mut found);
    found
}

fn compare(
    a: &Map<String, Value>,
    b: &Map<String, Value>,
    at: &str,
    depth: usize,
    found: &mut Vec<(String, [Option<Value>; 2])>,
) {
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for key in keys {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        // Not saying and saying nothing are the same.
        let value = |of: &Map<String, Value>| of.get(key).filter(|v| !v.is_null()).cloned();
        match (value(a), value(b)) {
            (Some(Value::Object(a)), Some(Value::Object(b))) if depth < DEPTH_MAX => {
                compare(&a, &b, &path, depth + 1, found);
            }
            (Some(a), Some(b)) if same(&a, &b) => {}
            (None, None) => {}
            (a, b) => found.push((path, [a, b])),
        }
    }
}

/// Whether two values are equal; 224 and 224.0 are.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b,
    }
}
