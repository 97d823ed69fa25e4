//! Whether the ingredients of a pool can be averaged: the same tensors, of the same dtypes and shapes.
//!
//! The first ingredient is the measure. Tensors that are not floating point (`num_batches_tracked`, position ids) are
//! copied from it and never averaged, so the others may lack some of them or have more; that is noted, not refused.
//!
//! A soup that nobody judges need not fit an architecture, so its pool may differ in more, on [`Terms`] that somebody has to
//! state: tensors that only some ingredients have, and other floating-point dtypes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::schema::{Dtype, Schema, TensorSpec};
use crate::soup::Ingredient;

/// Tensors named in a note; further ones are counted.
const NAMED_MAX: usize = 4;

/// Said of a tensor that only some have.
const MISSING_HINT: &str = ": for a soup that is not judged, say what becomes of it with --missing";

/// What becomes of tensors that only some ingredients have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// The pool is refused.
    #[default]
    Refuse,
    /// The soup does not have them.
    Skip,
    /// The soup has that of the first ingredient which has one, as it is.
    First,
}

/// What a pool may differ in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Tensors that only some have.
    pub missing: Missing,
    /// The dtype of the soup's floating-point tensors, whatever theirs are; `None`: they must agree.
    pub out_dtype: Option<Dtype>,
}

/// What a pool agrees on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The tensors of every soup of this pool: those of the first ingredient, on other terms fewer or more.
    pub schema: Schema,
    /// Tolerated differences, one line each, for people.
    pub notes: Vec<String>,
}

/// Compares the schemas of a pool, given in pool order with the names of the ingredients.
///
/// # Errors
/// [`ErrorKind::Data`](crate::ErrorKind::Data) for an empty pool, one without a floating-point tensor to average, and for the
/// first difference that is not on the `terms`: of the first ingredient that differs, the first tensor in canonical order, or
/// else the first floating-point tensor that the first ingredient lacks.
pub fn agree(pool: &[(&str, &Schema)], terms: Terms) -> Result<Agreement> {
    let Some((&(first, schema), others)) = pool.split_first() else {
        return Err(Error::data("the pool has no ingredients"));
    };
    if !schema.tensors().iter().any(|t| t.dtype.is_float()) {
        return Err(Error::data(format!(
            "ingredient {first:?} has no floating-point tensor: nothing to average"
        )));
    }
    let mut found = Found::default();
    for (position, &(name, other)) in others.iter().enumerate() {
        // Most pools agree entirely; then nothing has to be looked up.
        if !std::ptr::eq(other, schema) && other.tensors() != schema.tensors() {
            let ingredient = Ingredient(position as u32 + 1);
            compare((first, schema), (name, ingredient, other), terms, &mut found)
                .map_err(|difference| Error::data(format!("ingredient {name:?}: {difference}")))?;
        }
    }
    found.settle(pool, terms)
}

/// What differs, and is tolerated.
#[derive(Default)]
struct Found {
    notes: Vec<String>,
    /// Tensors of the first ingredient that another one lacks.
    missing: BTreeMap<String, Ingredient>,
    /// Tensors that the first ingredient lacks, and who has them first.
    extra: BTreeMap<String, (TensorSpec, Ingredient)>,
    /// Dtypes that the first ingredient does not have where another one has them.
    dtypes: BTreeSet<Dtype>,
}

impl Found {
    /// The soup's tensors, and what is to be said of them.
    fn settle(mut self, pool: &[(&str, &Schema)], terms: Terms) -> Result<Agreement> {
        let (first, schema) = pool[0];
        let name_of = |i: &Ingredient| pool[i.index()].0;
        let mut tensors: Vec<TensorSpec> = schema.tensors().to_vec();
        let mut taken: BTreeMap<&str, Ingredient> = BTreeMap::new();
        let in_some: Vec<(&String, String)> = {
            let missing = self.missing.iter().map(|(t, i)| (t, format!("not in {:?}", name_of(i))));
            let extra =
                self.extra.iter().map(|(t, (_, i))| (t, format!("in {:?}, not in {first:?}", name_of(i))));
            missing.chain(extra).collect()
        };
        if !in_some.is_empty() {
            let what = match terms.missing {
                Missing::Skip => "left out of the soup",
                _ => "those of the first ingredient that has them",
            };
            let some = in_some.iter().take(NAMED_MAX).map(|(t, whose)| format!("{t:?} ({whose})"));
            let more = in_some.len().saturating_sub(NAMED_MAX);
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            let some = some.collect::<Vec<_>>().join(", ");
            let count = match in_some.len() {
                1 => "1 tensor is".to_owned(),
                n => format!("{n} tensors are"),
            };
            self.notes.push(format!("{count} not in all ingredients, and {what}: {some}{more}"));
        }
        match terms.missing {
            Missing::Skip => tensors.retain(|t| !self.missing.contains_key(&t.name)),
            Missing::Refuse | Missing::First => {
                taken.extend(self.missing.keys().map(|t| (t.as_str(), Ingredient(0))));
                taken.extend(self.extra.iter().map(|(t, (_, i))| (t.as_str(), *i)));
                tensors.extend(self.extra.values().map(|(spec, _)| spec.clone()));
            }
        }
        if !tensors.iter().any(|t| t.dtype.is_float() && !taken.contains_key(t.name.as_str())) {
            return Err(Error::data("no floating-point tensor is in all ingredients: nothing to average"));
        }
        if let Some(dtype) = terms.out_dtype {
            let dtypes: BTreeSet<Dtype> = tensors
                .iter()
                .map(|t| t.dtype)
                .filter(|d| d.is_float())
                .chain(self.dtypes.iter().copied())
                .collect();
            if dtypes.iter().any(|d| *d != dtype) {
                let names = dtypes.iter().map(|d| d.name()).collect::<Vec<_>>().join(" and ");
                self.notes.push(format!(
                    "tensors are stored as {names}, and averaged from that; the soup's are {dtype}"
                ));
            }
            tensors.iter_mut().filter(|t| t.dtype.is_float()).for_each(|t| t.dtype = dtype);
        }
        let schema = Schema::new(tensors)?.taking(&taken);
        Ok(Agreement { schema, notes: self.notes })
    }
}

/// Finds the differences between the first ingredient and another one; one that is not on the terms is the error.
fn compare(
    (first, schema): (&str, &Schema),
    (name, ingredient, other): (&str, Ingredient, &Schema),
    terms: Terms,
    found: &mut Found,
) -> std::result::Result<(), String> {
    let theirs: HashMap<&str, &TensorSpec> = other.tensors().iter().map(|t| (t.name.as_str(), t)).collect();
    for ours in schema.tensors() {
        let tensor = &ours.name;
        match theirs.get(tensor.as_str()) {
            None if ours.dtype.is_float() && terms.missing == Missing::Refuse => {
                let prefix = prefix_text(tensor, theirs.keys().copied());
                let hint = if prefix.is_empty() { MISSING_HINT } else { "" };
                return Err(format!("tensor {tensor:?} is missing, but ingredient {first:?} has it{prefix}{hint}"));
            }
            None if ours.dtype.is_float() => {
                found.missing.entry(tensor.clone()).or_insert(ingredient);
            }
            None => found.notes.push(format!(
                "ingredient {name:?}: {} tensor {tensor:?} is missing; soups have that of ingredient {first:?}",
                ours.dtype
            )),
            Some(theirs) => same((first, ours), theirs, terms, found)?,
        }
    }
    let ours: HashMap<&str, &TensorSpec> = schema.tensors().iter().map(|t| (t.name.as_str(), t)).collect();
    for extra in other.tensors().iter().filter(|t| !ours.contains_key(t.name.as_str())) {
        let tensor = &extra.name;
        if extra.dtype.is_float() && terms.missing == Missing::Refuse {
            return Err(format!(
                "tensor {tensor:?} ({} {:?}) is unknown to ingredient {first:?}{MISSING_HINT}",
                extra.dtype, extra.shape
            ));
        }
        if !extra.dtype.is_float() && terms.missing != Missing::First {
            found
                .notes
                .push(format!("ingredient {name:?}: {} tensor {tensor:?} is extra and ignored", extra.dtype));
            continue;
        }
        match found.extra.get(tensor).cloned() {
            None => {
                found.extra.insert(tensor.clone(), (extra.clone(), ingredient));
            }
            Some((known, _)) => same(("another one", &known), extra, terms, found)?,
        }
    }
    Ok(())
}

/// What can be done about floating-point types that differ.
const DTYPES_HINT: &str = ": for a soup that is not judged, say which it gets with --out-dtype; for one that is, convert the others first \
                           (a cook of such an ingredient alone, with --out-dtype and without --validation, does)";

/// Whether two tensors of a name can be one.
fn same(
    (first, ours): (&str, &TensorSpec),
    theirs: &TensorSpec,
    terms: Terms,
    found: &mut Found,
) -> std::result::Result<(), String> {
    let tensor = &ours.name;
    if theirs.dtype != ours.dtype {
        let both_float = theirs.dtype.is_float() && ours.dtype.is_float();
        if !both_float || terms.out_dtype.is_none() {
            let hint = if both_float { DTYPES_HINT } else { "" };
            return Err(format!(
                "tensor {tensor:?} is {}, but ingredient {first:?} has {}{hint}",
                theirs.dtype, ours.dtype
            ));
        }
        found.dtypes.insert(theirs.dtype);
    }
    if theirs.shape != ours.shape {
        return Err(format!(
            "tensor {tensor:?} has shape {:?}, but ingredient {first:?} has {:?}",
            theirs.shape, ours.shape
        ));
    }
    Ok(())
}

/// Says so, if one of `names` is `tensor` behind a prefix, or the other way round.
fn prefix_text<'a>(tensor: &str, names: impl Iterator<Item = &'a str>) -> String {
    let behind =
        |long: &str, short: &str| long.strip_suffix(short).filter(|p| p.ends_with('.')).map(str::to_owned);
    names
        .filter_map(|name| Some((name, behind(name, tensor).or_else(|| behind(tensor, name))?)))
        .min_by_key(|(_, prefix)| prefix.len())
        .map_or(String::new(), |(name, prefix)| {
            let (with, without) = if name.len() > tensor.len() { ("only this", "the other") } else { ("only the other", "this") };
            format!("; there is {name:?}: {with} one has the prefix {prefix:?}, {without} has not: rename its tensors")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::schema::Dtype::{self, F16, F32, I32, I64};

    type Tensor = (&'static str, Dtype, &'static [u64]);
    const W: Tensor = ("classifier.weight", F32, &[10, 64]);
    const B: Tensor = ("classifier.bias", F32, &[10]);
    const STEP: Tensor = ("step", I64, &[]);

    fn schema(tensors: &[Tensor]) -> Schema {
        Schema::new(tensors.iter().map(|&(n, d, s)| TensorSpec::new(n, d, s)).collect()).unwrap()
    }

    /// The notes, or the error's text.
    fn agreement(pool: &[&[Tensor]]) -> std::result::Result<Vec<String>, String> {
        let schemas: Vec<(String, Schema)> =
            pool.iter().enumerate().map(|(i, t)| (format!("m{i:02}"), schema(t))).collect();
        let pool: Vec<(&str, &Schema)> = schemas.iter().map(|(n, s)| (n.as_str(), s)).collect();
        match agree(&pool, Terms::default()) {
            Ok(a) => {
                assert_eq!(a.schema, schemas[0].1);
                Ok(a.notes)
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Data);
                Err(e.chain())
            }
        }
    }

    #[track_caller]
    fn refused(pool: &[&[Tensor]], expect: &str) {
        assert_eq!(agreement(pool).unwrap_err(), expect);
    }

    #[track_caller]
    fn noted(pool: &[&[Tensor]], expect: &[&str]) {
        assert_eq!(agreement(pool).unwrap(), expect);
    }

    #[test]
    fn equal_pools_agree_in_any_order_of_tensors() {
        noted(&[&[W, B, STEP], &[STEP, B, W], &[B, W, STEP]], &[]);
        noted(&[&[W]], &[]);
    }

    #[test]
    fn a_shape_that_differs_is_refused() {
        refused(
            &[&[W, B], &[W, B], &[("classifier.weight", F32, &[12, 64]), B]],
            r#"ingredient "m02": tensor "classifier.weight" has shape [12, 64], but ingredient "m00" has [10, 64]"#,
        );
    }

    #[test]
    fn the_first_difference_is_named() {
        // Canonical order: bias before weight.
        refused(
            &[&[W, B], &[("classifier.weight", F32, &[12, 64]), ("classifier.bias", F32, &[12])], &[B]],
            r#"ingredient "m01": tensor "classifier.bias" has shape [12], but ingredient "m00" has [10]"#,
        );
    }

    #[test]
    fn a_dtype_that_differs_is_refused() {
        refused(
            &[&[W, B], &[("classifier.weight", F16, &[10, 64]), B]],
            r#"ingredient "m01": tensor "classifier.weight" is F16, but ingredient "m00" has F32: for a soup that is not judged, say which it gets with --out-dtype; for one that is, convert the others first (a cook of such an ingredient alone, with --out-dtype and without --validation, does)"#,
        );
        refused(
            &[&[W, STEP], &[W, ("step", I32, &[])]],
            r#"ingredient "m01": tensor "step" is I32, but ingredient "m00" has I64"#,
        );
        refused(
            &[&[W, STEP], &[W, ("step", F32, &[])]],
            r#"ingredient "m01": tensor "step" is F32, but ingredient "m00" has I64"#,
        );
    }

    #[test]
    fn floats_must_be_there_and_no_more() {
        refused(
            &[&[W, B], &[W]],
            r#"ingredient "m01": tensor "classifier.bias" is missing, but ingredient "m00" has it: for a soup that is not judged, say what becomes of it with --missing"#,
        );
        refused(
            &[&[W], &[W, B]],
            r#"ingredient "m01": tensor "classifier.bias" (F32 [10]) is unknown to ingredient "m00": for a soup that is not judged, say what becomes of it with --missing"#,
        );
    }

    #[test]
    fn a_prefix_that_keeps_names_apart_is_named() {
        let other: &[Tensor] = &[("module.classifier.weight", F32, &[10, 64]), B];
        refused(
            &[&[W, B], other],
            r#"ingredient "m01": tensor "classifier.weight" is missing, but ingredient "m00" has it; there is "module.classifier.weight": only this one has the prefix "module.", the other has not: rename its tensors"#,
        );
        refused(
            &[other, &[W, B]],
            r#"ingredient "m01": tensor "module.classifier.weight" is missing, but ingredient "m00" has it; there is "classifier.weight": only the other one has the prefix "module.", this has not: rename its tensors"#,
        );
    }

    #[test]
    fn integers_may_be_missing_or_extra() {
        noted(
            &[&[W, STEP], &[W], &[W, STEP]],
            &[r#"ingredient "m01": I64 tensor "step" is missing; soups have that of ingredient "m00""#],
        );
        noted(&[&[W], &[W, STEP]], &[r#"ingredient "m01": I64 tensor "step" is extra and ignored"#]);
        refused(
            &[&[W, STEP], &[W, ("step", I64, &[1])]],
            r#"ingredient "m01": tensor "step" has shape [1], but ingredient "m00" has []"#,
        );
    }

    /// The schema and the notes on other terms than the strict ones.
    fn on(terms: Terms, pool: &[&[Tensor]]) -> Result<(Schema, Vec<String>)> {
        let schemas: Vec<(String, Schema)> =
            pool.iter().enumerate().map(|(i, t)| (format!("m{i:02}"), schema(t))).collect();
        let pool: Vec<(&str, &Schema)> = schemas.iter().map(|(n, s)| (n.as_str(), s)).collect();
        agree(&pool, terms).map(|a| (a.schema, a.notes))
    }

    fn names(schema: &Schema) -> Vec<&str> {
        schema.tensors().iter().map(|t| t.name.as_str()).collect()
    }

    const POOLER: Tensor = ("pooler.weight", F32, &[4, 4]);
    const HEAD: Tensor = ("head.weight", F32, &[2, 4]);

    #[test]
    fn what_only_some_have_is_left_out() {
        let skip = Terms { missing: Missing::Skip, ..Terms::default() };
        let (schema, notes) = on(skip, &[&[W, B, POOLER], &[W, B], &[HEAD, W, B]]).unwrap();
        assert_eq!(names(&schema), ["classifier.bias", "classifier.weight"]);
        assert!(schema.is_averaged(0) && schema.is_averaged(1));
        assert_eq!(
            notes,
            [
                r#"2 tensors are not in all ingredients, and left out of the soup: "pooler.weight" (not in "m01"), "head.weight" (in "m02", not in "m00")"#
            ]
        );
        let error = on(skip, &[&[W], &[B]]).unwrap_err().chain();
        assert_eq!(error, "no floating-point tensor is in all ingredients: nothing to average");
        // A pool that agrees is what it was.
        assert_eq!(on(skip, &[&[W, B], &[B, W]]).unwrap().1, [""; 0]);
    }

    #[test]
    fn what_only_some_have_is_taken_from_the_first_of_them() {
        let first = Terms { missing: Missing::First, ..Terms::default() };
        let (schema, notes) = on(first, &[&[W, POOLER], &[W], &[HEAD, W, STEP], &[HEAD, W]]).unwrap();
        assert_eq!(names(&schema), ["step", "classifier.weight", "head.weight", "pooler.weight"]);
        let taken: Vec<_> = (0..4).map(|t| schema.taken_from(t).map(|i| i.0)).collect();
        assert_eq!(taken, [Some(2), None, Some(2), Some(0)]);
        assert!(schema.is_averaged(1) && !schema.is_averaged(2) && !schema.is_averaged(3));
        assert!(notes[0].starts_with("3 tensors are not in all ingredients"), "{notes:?}");
        // Of a name there is one shape, whoever has it.
        let error = on(first, &[&[W], &[HEAD, W], &[("head.weight", F32, &[3, 4]), W]]).unwrap_err().chain();
        assert!(error.contains(r#""m02": tensor "head.weight" has shape [3, 4]"#), "{error}");
    }

    #[test]
    fn dtypes_may_differ_where_that_of_the_soup_is_said() {
        let half: Tensor = ("classifier.weight", F16, &[10, 64]);
        let to = |dtype| Terms { out_dtype: Some(dtype), ..Terms::default() };
        let (schema, notes) = on(to(Dtype::BF16), &[&[W, B, STEP], &[half, B, STEP]]).unwrap();
        let dtypes: Vec<_> = schema.tensors().iter().map(|t| (t.name.as_str(), t.dtype)).collect();
        assert_eq!(
            dtypes,
            [("step", I64), ("classifier.bias", Dtype::BF16), ("classifier.weight", Dtype::BF16)]
        );
        assert_eq!(notes, ["tensors are stored as F32 and F16, and averaged from that; the soup's are BF16"]);
        assert_eq!(on(to(F32), &[&[W, B], &[W, B]]).unwrap().1, [""; 0]);
        // Integers are no floats, whatever is said.
        let error = on(to(F32), &[&[W, STEP], &[W, ("step", F32, &[])]]).unwrap_err().chain();
        assert!(error.ends_with("\"step\" is F32, but ingredient \"m00\" has I64"), "{error}");
    }

    #[test]
    fn a_pool_needs_something_to_average() {
        refused(&[], "the pool has no ingredients");
        refused(&[&[STEP], &[STEP]], r#"ingredient "m00" has no floating-point tensor: nothing to average"#);
        refused(&[&[]], r#"ingredient "m00" has no floating-point tensor: nothing to average"#);
    }
}
