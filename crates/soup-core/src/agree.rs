//! Whether the ingredients of a pool can be averaged: the same tensors, of the same dtypes and shapes.
//!
//! The first ingredient is the measure. Tensors that are not floating point (`num_batches_tracked`, position ids) are
//! copied from it and never averaged, so the others may lack some of them or have more; that is noted, not refused.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::schema::{Schema, TensorSpec};

/// What a pool agrees on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The tensors of every soup of this pool: those of the first ingredient.
    pub schema: Schema,
    /// Tolerated differences, one line each, for people.
    pub notes: Vec<String>,
}

/// Compares the schemas of a pool, given in pool order with the names of the ingredients.
///
/// # Errors
/// [`ErrorKind::Data`](crate::ErrorKind::Data) for an empty pool, a first ingredient without floating-point tensors, and
/// for the first difference: of the first ingredient that differs, the first tensor in canonical order, or else the first
/// floating-point tensor that the first ingredient lacks.
pub fn agree(pool: &[(&str, &Schema)]) -> Result<Agreement> {
    let Some((&(first, schema), others)) = pool.split_first() else {
        return Err(Error::data("the pool has no ingredients"));
    };
    if !schema.tensors().iter().any(|t| t.dtype.is_float()) {
        return Err(Error::data(format!(
            "ingredient {first:?} has no floating-point tensor: nothing to average"
        )));
    }
    let mut notes = Vec::new();
    for &(name, other) in others {
        // Most pools agree entirely; then nothing has to be looked up.
        if other.tensors() != schema.tensors() {
            compare(first, schema, other, &mut notes, name)
                .map_err(|difference| Error::data(format!("ingredient {name:?}: {difference}")))?;
        }
    }
    Ok(Agreement { schema: schema.clone(), notes })
}

/// Notes the tolerated differences between `schema` of ingredient `first` and `other` of ingredient `name`; the first one
/// that is not tolerated is the error.
fn compare(
    first: &str,
    schema: &Schema,
    other: &Schema,
    notes: &mut Vec<String>,
    name: &str,
) -> std::result::Result<(), String> {
    let theirs: HashMap<&str, &TensorSpec> = other.tensors().iter().map(|t| (t.name.as_str(), t)).collect();
    for ours in schema.tensors() {
        let tensor = &ours.name;
        match theirs.get(tensor.as_str()) {
            None if ours.dtype.is_float() => {
                let prefix = prefix_text(tensor, theirs.keys().copied());
                return Err(format!("tensor {tensor:?} is missing, but ingredient {first:?} has it{prefix}"));
            }
            None => notes.push(format!(
                "ingredient {name:?}: {} tensor {tensor:?} is missing; soups have that of ingredient {first:?}",
                ours.dtype
            )),
            Some(theirs) if theirs.dtype != ours.dtype => {
                return Err(format!(
                    "tensor {tensor:?} is {}, but ingredient {first:?} has {}",
                    theirs.dtype, ours.dtype
                ));
            }
            Some(theirs) if theirs.shape != ours.shape => {
                return Err(format!(
                    "tensor {tensor:?} has shape {:?}, but ingredient {first:?} has {:?}",
                    theirs.shape, ours.shape
                ));
            }
            Some(_) => {}
        }
    }
    let ours: HashMap<&str, &TensorSpec> = schema.tensors().iter().map(|t| (t.name.as_str(), t)).collect();
    for extra in other.tensors().iter().filter(|t| !ours.contains_key(t.name.as_str())) {
        let tensor = &extra.name;
        if extra.dtype.is_float() {
            return Err(format!(
                "tensor {tensor:?} ({} {:?}) is unknown to ingredient {first:?}",
                extra.dtype, extra.shape
            ));
        }
        notes.push(format!("ingredient {name:?}: {} tensor {tensor:?} is extra and ignored", extra.dtype));
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
        match agree(&pool) {
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
            r#"ingredient "m01": tensor "classifier.weight" is F16, but ingredient "m00" has F32"#,
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
            r#"ingredient "m01": tensor "classifier.bias" is missing, but ingredient "m00" has it"#,
        );
        refused(
            &[&[W], &[W, B]],
            r#"ingredient "m01": tensor "classifier.bias" (F32 [10]) is unknown to ingredient "m00""#,
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

    #[test]
    fn a_pool_needs_something_to_average() {
        refused(&[], "the pool has no ingredients");
        refused(&[&[STEP], &[STEP]], r#"ingredient "m00" has no floating-point tensor: nothing to average"#);
        refused(&[&[]], r#"ingredient "m00" has no floating-point tensor: nothing to average"#);
    }
}
