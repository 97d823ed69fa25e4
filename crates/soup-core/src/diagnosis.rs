//! What explains a pool: where its ingredients lie, and what else could be made of them.
//!
//! # Words
//!
//! - The *origin* is the point that ingredients are looked at from: the pretrained model where it is given, else the mean
//!   of the pool. A *delta* is an ingredient minus the origin, all averaged parameters flattened; its *norm* is how far the
//!   fine-tuning went, and the *angle* between two deltas is the talk's phi = angle(theta_1 - theta_0, theta_2 - theta_0).
//! - The *Gram matrix* holds the inner products of all deltas, in f64; norms and angles follow from it.
//! - An *alternative* is another way to use the same ingredients: the logit ensemble, the majority vote, boosting, stacking.
//!
//! This module is data: what a report holds. Its submodules compute it.

pub mod boosting;
pub mod ensemble;
pub mod geometry;
pub mod path;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::report::Figures;

/// What explains a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Names of the ingredients, in pool order. Vectors and matrices below are in this order.
    pub ingredients: Vec<String>,
    /// Where deltas are measured from: the base's URL; absent for the pool's mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Over all averaged parameters.
    pub geometry: Geometry,
    /// By layer, in the order of the network; empty where the pool is too large for that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerGeometry>,
    /// Groups of ingredients that are equal.
    pub duplicates: Vec<Vec<String>>,
    /// Ingredients that lie where the others do not.
    pub outliers: Vec<Outlier>,
    /// Whether averaging makes sense.
    pub shared_init: SharedInit,
    /// Scores between two ingredients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interpolation: Vec<Curve>,
    /// Scores in the plane through three ingredients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plane: Option<Plane>,
    /// What each further ingredient adds to the mean, best ingredient first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marginal_utility: Vec<Marginal>,
    /// Soups against other uses of the same ingredients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Alternative>,
}

/// Lengths and angles of deltas.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// Norm of each delta; `null` where parameters are NaN or infinite.
    #[serde(deserialize_with = "nans_for_nulls")]
    pub norms: Vec<f64>,
    /// Angle between each two deltas in degrees, symmetric with a diagonal of 0; `null` where a delta is zero.
    pub angles_deg: Vec<Vec<Option<f64>>>,
}

/// Lengths and angles within one layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerGeometry {
    /// The layer, as [`layer_of`](crate::layer::layer_of) names it.
    pub layer: String,
    /// Norm of each delta; `null` where parameters are NaN or infinite.
    #[serde(deserialize_with = "nans_for_nulls")]
    pub norms: Vec<f64>,
    /// Mean angle over all pairs in degrees; `null` where there is none.
    pub mean_angle_deg: Option<f64>,
}

/// JSON has no word for what is not finite.
fn nans_for_nulls<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    let norms: Vec<Option<f64>> = Vec::deserialize(from)?;
    Ok(norms.into_iter().map(|norm| norm.unwrap_or(f64::NAN)).collect())
}

/// An ingredient that lies where the others do not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outlier {
    /// Its name.
    pub ingredient: String,
    /// Why, with numbers: for people.
    pub reason: String,
}

/// Whether the ingredients share an initialisation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SharedInit {
    /// What the geometry says.
    pub verdict: SharedInitVerdict,
    /// Why, and what follows from it: for people.
    pub explanation: String,
}

/// Whether the ingredients share an initialisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SharedInitVerdict {
    /// They do: averaging makes sense.
    Shared,
    /// They do not: averaging destroys them.
    Separate,
    /// There is too little to tell (a single ingredient, or nothing but duplicates).
    #[default]
    Unknown,
}

/// Scores on the line between two ingredients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Where t is 0.
    pub from: String,
    /// Where t is 1.
    pub to: String,
    /// By ascending t.
    pub points: Vec<CurvePoint>,
}

/// The soup (1 - t) from + t to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Its place.
    pub t: f64,
    /// On the validation set.
    #[serde(flatten)]
    pub score: Figures,
}

/// Scores on a grid in the plane through three ingredients. The first is at (0, 0), the second on the x axis; axes are
/// orthonormal in parameter space, so distances are those of the norms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plane {
    /// The three ingredients.
    pub ingredients: Vec<String>,
    /// Their places.
    pub corners: Vec<[f64; 2]>,
    /// Grid coordinates, ascending.
    pub x: Vec<f64>,
    /// Grid coordinates, ascending.
    pub y: Vec<f64>,
    /// `scores[row][column]` at (`x[column]`, `y[row]`), on the validation set.
    pub scores: Vec<Vec<Option<Figures>>>,
}

/// The mean of the best `size` ingredients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Marginal {
    /// The one that was added last.
    pub ingredient: String,
    /// How many there are now.
    pub size: u32,
    /// On the validation set.
    #[serde(flatten)]
    pub score: Figures,
}

/// A way to use ingredients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// `greedy soup`, `logit ensemble`, `majority vote`, `boosting`, `stacking`, …
    pub name: String,
    /// Ingredients that it uses.
    pub ingredients: Vec<String>,
    /// The votes of each, where they are not equal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub votes: BTreeMap<String, f64>,
    /// Forward passes for one prediction.
    pub forward_passes: u32,
    /// On the validation set.
    pub score: Figures,
    /// On each test set.
    pub test: BTreeMap<String, Figures>,
}
