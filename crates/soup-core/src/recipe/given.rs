//! Weights that somebody gives: a table from ingredients to weights, for the whole model or by layer and tensor, and the soup
//! that it describes. Nothing is decided, so nothing has to be scored.
//!
//! # Rules
//!
//! Every ingredient is named, and every name is an ingredient: what is left out by mistake would change all that is there. An
//! ingredient of weight 0 is not in the soup. Weights are taken as they are: where they do not add up to 1 that is said. Only
//! tensors that are averaged have weights, and no name is given two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::layer::layer_of;
use crate::schema::{Schema, TensorSpec};
use crate::soup::{Ingredient, Soup, Weight};

/// The key of the weight for everything that is not named.
pub const DEFAULT: &str = "*";
/// How far from 1 weights may add up to without a word: sums of decimal fractions are off by a little.
const SUM_TOLERANCE: f64 = 1e-9;

/// Weights by the names of ingredients.
pub type WeightTable = BTreeMap<String, GivenWeight>;

/// The weight of one ingredient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a weight is a number, or a map of layers and tensors to numbers, each named once"
)]
pub enum GivenWeight {
    /// For the whole model.
    Model(f64),
    /// By the names of layers and tensors; `*` for all others. A tensor's own name goes before its layer's.
    Parts(#[serde(deserialize_with = "named_once")] BTreeMap<String, f64>),
}

/// The table in a JSON document.
///
/// # Errors
/// For anything but an object from ingredients to weights that names each once.
pub fn parse(json: &[u8]) -> serde_json::Result<WeightTable> {
    parse_named_once(json)
}

/// The map in a JSON document in which no name comes twice.
pub(super) fn parse_named_once<V: DeserializeOwned>(json: &[u8]) -> serde_json::Result<BTreeMap<String, V>> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let table = named_once(&mut deserializer)?;
    deserializer.end().map(|()| table)
}

/// The table in a larger document.
///
/// # Errors
/// As for [`parse`].
pub fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<WeightTable>, D::Error> {
    named_once(deserializer).map(Some)
}

/// A map in which no name comes twice: of two weights for one name, which is meant is not known.
fn named_once<'de, V: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<BTreeMap<String, V>, D::Error> {
    struct NamedOnce<V>(PhantomData<V>);
    impl<'de, V: Deserialize<'de>> Visitor<'de> for NamedOnce<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of names to numbers")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
            let mut all = BTreeMap::new();
            while let Some(name) = map.next_key::<String>()? {
                if all.contains_key(&name) {
                    return Err(de::Error::custom(format_args!("{name:?} is named twice")));
                }
                all.insert(name, map.next_value()?);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_map(NamedOnce(PhantomData))
}

impl GivenWeight {
    fn of(&self, tensor: &str) -> Option<f64> {
        match self {
            GivenWeight::Model(weight) => Some(*weight),
            GivenWeight::Parts(parts) => {
                [tensor, layer_of(tensor), DEFAULT].iter().find_map(|key| parts.get(*key)).copied()
            }
        }
    }
}

/// Checks a table without its pool.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for weights that are not finite.
pub fn check(table: &WeightTable) -> Result<()> {
    let bad = |name: &str, weight: f64| {
        Err(Error::usage(format!("the weight of {name:?} is {weight}: not a number to multiply by")))
    };
    for (name, given) in table {
        match given {
            GivenWeight::Model(weight) if !weight.is_finite() => return bad(name, *weight),
            GivenWeight::Parts(parts) => {
                if let Some(weight) = parts.values().find(|w| !w.is_finite()) {
                    return bad(name, *weight);
                }
            }
            GivenWeight::Model(_) => {}
        }
    }
    Ok(())
}

/// The soup of a pool of ingredients called `names`, with the tensors of `schema`, and what people should know of it.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for an ingredient without a weight, a name that is no ingredient, a layer or tensor
/// that there is not, and for a table in which nothing is left.
pub fn soup(table: &WeightTable, names: &[String], schema: &Schema) -> Result<(Soup, Vec<String>)> {
    check(table)?;
    if let Some(unknown) = table.keys().find(|key| !names.contains(key)) {
        return Err(Error::usage(format!(
            "{unknown:?} has a weight, but there is no ingredient of that name"
        )));
    }
    let given = names
        .iter()
        .map(|name| {
            table.get(name).ok_or_else(|| {
                Error::usage(format!("ingredient {name:?} has no weight: give it one, 0 to leave it out"))
            })
        })
        .collect::<Result<Vec<_>>>()?;
    check_parts(&given, names, schema)?;
    let averaged: BTreeSet<&str> = averaged(schema).map(|t| t.name.as_str()).collect();
    let whole = given.iter().all(|g| matches!(g, GivenWeight::Model(_)));
    let tensors: Vec<&str> = match whole {
        true => vec![""],
        false => schema.tensors().iter().map(|t| t.name.as_str()).collect(),
    };
    let has_weights = |tensor: &str| whole || averaged.contains(tensor);
    let row = |tensor: &&str| {
        // What is copied has no weights; its row keeps those of the others in their places.
        if !has_weights(tensor) {
            return Ok(vec![0.0; names.len()]);
        }
        let one = |(given, name): (&&GivenWeight, &String)| {
            given.of(tensor).ok_or_else(|| {
                Error::usage(format!(
                    "ingredient {name:?} has no weight for tensor {tensor:?}: name it, its layer {:?}, or {DEFAULT:?} for all others",
                    layer_of(tensor)
                ))
            })
        };
        given.iter().zip(names).map(one).collect::<Result<Vec<f64>>>()
    };
    let rows = tensors.iter().map(row).collect::<Result<Vec<_>>>()?;
    let members: Vec<usize> = (0..names.len()).filter(|&i| rows.iter().any(|row| row[i] != 0.0)).collect();
    if members.is_empty() {
        return Err(Error::usage("all weights are 0: nothing would be left"));
    }
    let notes = sums(&rows, &tensors, has_weights);
    let of_members = |row: &Vec<f64>| members.iter().filter_map(|&i| Weight::new(row[i])).collect();
    let weights = rows.iter().map(of_members).collect();
    let members = members.iter().map(|&i| Ingredient(i as u32)).collect();
    Ok((Soup::weighted(members, weights)?, notes))
}

/// The tensors that have weights.
fn averaged(schema: &Schema) -> impl Iterator<Item = &TensorSpec> {
    let tensors = schema.tensors().iter().enumerate();
    tensors.filter(|(index, _)| schema.is_averaged(*index)).map(|(_, t)| t)
}

fn check_parts(given: &[&GivenWeight], names: &[String], schema: &Schema) -> Result<()> {
    let known =
        |key: &str| key == DEFAULT || averaged(schema).any(|t| t.name == key || layer_of(&t.name) == key);
    let copied = |key: &str| schema.tensors().iter().any(|t| t.name == key || layer_of(&t.name) == key);
    for (given, name) in given.iter().zip(names) {
        if let GivenWeight::Parts(parts) = given
            && let Some(unknown) = parts.keys().find(|key| !known(key))
        {
            if copied(unknown) {
                return Err(Error::usage(format!(
                    "the weights of ingredient {name:?} name {unknown:?}, which is not averaged but copied from one \
                     ingredient: it has no weight"
                )));
            }
            return Err(Error::usage(format!(
                "the weights of ingredient {name:?} name {unknown:?}, which is neither a layer nor a tensor: layers are {}",
                layers(schema)
            )));
        }
    }
    Ok(())
}

/// Names of the layers, for a message.
fn layers(schema: &Schema) -> String {
    const SHOWN_MAX: usize = 6;
    let (names, _) = crate::layer::layers(averaged(schema).map(|t| t.name.as_str()));
    let shown = names.iter().take(SHOWN_MAX).map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN_MAX { format!("{shown}, ...") } else { shown }
}

/// Says where weights do not add up to 1.
fn sums(rows: &[Vec<f64>], tensors: &[&str], weighted: impl Fn(&str) -> bool) -> Vec<String> {
    let sums = rows.iter().map(|row| row.iter().sum::<f64>());
    let off = |(sum, tensor): &(f64, &&str)| weighted(tensor) && (sum - 1.0).abs() > SUM_TOLERANCE;
    let off: Vec<(f64, &&str)> = sums.zip(tensors).filter(off).collect();
    match off.first() {
        None => Vec::new(),
        Some((sum, _)) if tensors == [""] => vec![format!("the weights add up to {sum}, not to 1")],
        Some((sum, tensor)) => {
            vec![format!(
                "the weights of {} tensors do not add up to 1: those of {tensor:?} to {sum}",
                off.len()
            )]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Dtype, TensorSpec};

    fn schema() -> Schema {
        let names = ["embed.weight", "layer.0.w", "layer.1.w", "classifier.weight"];
        Schema::new(names.iter().map(|n| TensorSpec::new(*n, Dtype::F32, [2])).collect()).unwrap()
    }

    fn given(json: serde_json::Value) -> Result<(Soup, Vec<String>)> {
        let table: WeightTable = serde_json::from_value(json).unwrap();
        soup(&table, &["a".to_owned(), "b".to_owned(), "c".to_owned()], &schema())
    }

    #[track_caller]
    fn refused(json: serde_json::Value, part: &str) {
        let error = given(json).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Usage);
        assert!(error.chain().contains(part), "{}", error.chain());
    }

    #[test]
    fn one_weight_an_ingredient() {
        let (soup, notes) = given(serde_json::json!({"a": 0.25, "b": 0, "c": 0.75})).unwrap();
        assert_eq!(soup.members(), [Ingredient(0), Ingredient(2)]);
        assert_eq!(soup.row(3).unwrap().iter().map(|w| w.get()).collect::<Vec<_>>(), [0.25, 0.75]);
        assert_eq!(notes, [""; 0]);
        let (_, notes) = given(serde_json::json!({"a": 0.1, "b": 0.2, "c": 0.7})).unwrap();
        assert_eq!(notes, [""; 0], "sums of decimal fractions are off by a little");
        let (_, notes) = given(serde_json::json!({"a": 1, "b": 1, "c": -0.5})).unwrap();
        assert!(notes[0].contains("add up to 1.5"), "{notes:?}");
    }

    #[test]
    fn layers_and_tensors_have_weights_of_their_own() {
        let parts = serde_json::json!({"*": 0.5, "layer.1": 0.75, "classifier.weight": 1});
        let rest = serde_json::json!({"*": 0.5, "layer.1": 0.25, "classifier": 0});
        let (soup, notes) = given(serde_json::json!({"a": parts, "b": rest, "c": 0})).unwrap();
        assert_eq!(notes, [""; 0]);
        let row = |name: &str| {
            let at = schema().tensors().iter().position(|t| t.name == name).unwrap();
            soup.row(at).unwrap().iter().map(|w| w.get()).collect::<Vec<_>>()
        };
        assert_eq!(row("layer.0.w"), [0.5, 0.5]);
        assert_eq!(row("layer.1.w"), [0.75, 0.25]);
        assert_eq!(row("classifier.weight"), [1.0, 0.0]);
    }

    #[test]
    fn what_is_copied_has_no_weight() {
        let tensors = [("layer.0.w", Dtype::F32), ("layer.1.w", Dtype::F32), ("position_ids", Dtype::I64)];
        let schema =
            Schema::new(tensors.iter().map(|(n, dtype)| TensorSpec::new(*n, *dtype, [2])).collect()).unwrap();
        let made = |a: &str| {
            let table = parse(format!(r#"{{"a": {a}, "b": 0.5}}"#).as_bytes()).unwrap();
            soup(&table, &["a".to_owned(), "b".to_owned()], &schema)
        };
        // Its layer needs none, and is no reason for a note.
        let (soup, notes) = made(r#"{"layer.0": 0.5, "layer.1": 0.5}"#).unwrap();
        assert_eq!(notes, [""; 0]);
        let row = |name: &str| {
            let at = schema.tensors().iter().position(|t| t.name == name).unwrap();
            soup.row(at).unwrap().iter().map(|w| w.get()).collect::<Vec<_>>()
        };
        assert_eq!((row("layer.0.w"), row("layer.1.w")), (vec![0.5, 0.5], vec![0.5, 0.5]));
        let error = made(r#"{"*": 0.5, "position_ids": 1}"#).unwrap_err();
        assert!(error.chain().contains("\"position_ids\", which is not averaged"), "{}", error.chain());
    }

    #[test]
    fn a_name_has_one_weight() {
        let refused = |json: &str, part: &str| {
            let error = parse(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        refused(r#"{"a": 1, "b": 0, "a": 0.5}"#, "\"a\" is named twice");
        refused(r#"{"a": {"*": 1, "*": 0}, "b": 0}"#, "each named once");
        refused(r#"{"a": 1} {"a": 2}"#, "trailing");
        refused(r#"{"a": "1"}"#, "a weight is a number");
    }

    #[test]
    fn nothing_is_guessed() {
        refused(serde_json::json!({"a": 1, "b": 0}), "\"c\" has no weight");
        refused(serde_json::json!({"a": 1, "b": 0, "c": 0, "d": 0}), "\"d\" has a weight");
        refused(serde_json::json!({"a": 0, "b": 0, "c": 0}), "all weights are 0");
        refused(
            serde_json::json!({"a": {"layer.0": 1}, "b": 0, "c": 0}),
            "no weight for tensor \"classifier.weight\"",
        );
        refused(serde_json::json!({"a": {"*": 1, "layer.7": 1}, "b": 0, "c": 0}), "\"layer.7\"");
        let table = WeightTable::from([("a".to_owned(), GivenWeight::Model(f64::NAN))]);
        assert!(check(&table).is_err());
    }
}
