//! Lengths and angles from inner products, and what they say of a pool.
//!
//! # Whether ingredients share an initialisation
//!
//! Fine-tunings of one model stay close to it: seen from zero, they point the same way (the cosine between any two is near
//! 1), and what training added is short against what was there. Networks trained from different random initialisations
//! point elsewhere: random vectors of many dimensions are nearly orthogonal. What they still have in common (normalisation
//! scales near 1, token statistics) lifts their cosines a little. The median over all pairs of the cosine between the
//! *matrices* (layers' weights, without the vectors) decides, with [`SHARED_COSINE_MIN`] as the border.
//!
//! Measured on two pools of one small vision transformer: fine-tunings 0.993 (0.50 for the worst pair, where training had
//! diverged), from scratch -0.002. Over all parameters, vectors included, it is 0.998 and 0.836, which tells less.

use super::{Geometry, LayerGeometry, Outlier, SharedInit, SharedInitVerdict};
use crate::report::decimal;

/// Median cosine between ingredients from which on they share an initialisation. Long fine-tunings at high learning rates go
/// down to about 0.7; independent trainings stay below 0.2.
pub const SHARED_COSINE_MIN: f64 = 0.5;
/// Below it they were trained independently; between the two it takes more than a cosine to tell.
const INDEPENDENT_COSINE_MAX: f64 = 0.2;
/// An ingredient is an outlier where its norm is so many times the median, or the median so many times its norm.
const OUTLIER_NORM_RATIO: f64 = 3.0;
/// Or where its mean angle to the others is so many degrees above the median of these angles.
const OUTLIER_ANGLE_DEG: f64 = 25.0;

/// Inner products of the vectors d_1 ... d_k, o: the ingredients minus the origin, and the origin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gram {
    /// Number of ingredients, k.
    ingredients: usize,
    /// The upper triangle, row by row.
    packed: Vec<f64>,
}

/// Numbers in the upper triangle for `ingredients` ingredients and the origin.
pub fn packed_len(ingredients: usize) -> usize {
    (ingredients + 1) * (ingredients + 2) / 2
}

impl Gram {
    /// Zeros.
    pub fn zeros(ingredients: usize) -> Gram {
        Gram { ingredients, packed: vec![0.0; packed_len(ingredients)] }
    }

    /// Adds the products on further parameters; the caller has checked their number.
    pub fn add(&mut self, packed: &[f64]) {
        self.packed.iter_mut().zip(packed).for_each(|(sum, p)| *sum += p);
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        let (i, j) = (i.min(j), i.max(j));
        // Row i begins after rows of n, n - 1, ... numbers.
        let n = self.ingredients + 1;
        self.packed[i * n - i * i.saturating_sub(1) / 2 + (j - i)]
    }

    /// Inner product of two deltas.
    pub fn delta(&self, i: usize, j: usize) -> f64 {
        self.at(i, j)
    }

    /// Inner product of two ingredients: d + o is the ingredient.
    pub fn raw(&self, i: usize, j: usize) -> f64 {
        let o = self.ingredients;
        self.at(i, j) + self.at(i, o) + self.at(j, o) + self.at(o, o)
    }

    /// Norm of a delta; NaN where parameters are NaN or infinite.
    pub fn norm(&self, i: usize) -> f64 {
        let square = self.delta(i, i);
        // Not `max`, which takes what is no number for zero.
        if square < 0.0 { 0.0 } else { square.sqrt() }
    }

    /// Angle between two deltas in degrees; `None` where one is zero.
    pub fn angle_deg(&self, i: usize, j: usize) -> Option<f64> {
        if i == j {
            return Some(0.0);
        }
        let lengths = self.norm(i) * self.norm(j);
        (lengths > 0.0).then(|| (self.delta(i, j) / lengths).clamp(-1.0, 1.0).acos().to_degrees())
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let k = self.ingredients;
        (0..k).flat_map(move |i| (i + 1..k).map(move |j| (i, j)))
    }

    /// Lengths and angles of all deltas.
    pub fn geometry(&self) -> Geometry {
        let all = 0..self.ingredients;
        Geometry {
            norms: all.clone().map(|i| self.norm(i)).collect(),
            angles_deg: all.clone().map(|i| all.clone().map(|j| self.angle_deg(i, j)).collect()).collect(),
        }
    }

    /// Lengths, and the mean angle of all pairs, of a layer.
    pub fn layer(&self, layer: &str) -> LayerGeometry {
        let angles: Vec<f64> = self.pairs().filter_map(|(i, j)| self.angle_deg(i, j)).collect();
        LayerGeometry {
            layer: layer.to_owned(),
            norms: (0..self.ingredients).map(|i| self.norm(i)).collect(),
            mean_angle_deg: (!angles.is_empty()).then(|| angles.iter().sum::<f64>() / angles.len() as f64),
        }
    }

    /// Whether two ingredients are equal, as far as products tell. Those with all others then have the same bits, since all are added up in one
    /// order; of two that differ these do as soon as the difference is more than the rounding of the sums.
    fn equal(&self, i: usize, j: usize) -> bool {
        (0..=self.ingredients).all(|other| self.at(i, other) == self.at(j, other))
    }

    /// Groups of two or more ingredients that are equal as far as products tell, by position.
    pub fn duplicates(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for i in 0..self.ingredients {
            match groups.iter_mut().find(|g| self.equal(g[0], i)) {
                Some(group) => group.push(i),
                None => groups.push(vec![i]),
            }
        }
        groups.retain(|g| g.len() > 1);
        groups
    }

    /// Ingredients that are far longer or shorter than the others, or point elsewhere. `origin` is where the deltas begin, for people.
    pub fn outliers(&self, names: &[String], origin: &str) -> Vec<Outlier> {
        // Of three, one is always between the others.
        if self.ingredients < 4 {
            return Vec::new();
        }
        let norms: Vec<f64> = (0..self.ingredients).map(|i| self.norm(i)).collect();
        let mean_angle = |i: usize| {
            let others = (0..self.ingredients).filter(|&j| j != i);
            let angles: Vec<f64> = others.filter_map(|j| self.angle_deg(i, j)).collect();
            angles.iter().sum::<f64>() / angles.len().max(1) as f64
        };
        let angles: Vec<f64> = (0..self.ingredients).map(mean_angle).collect();
        let (norm_median, angle_median) = (median(&norms), median(&angles));
        let reason = |i: usize| {
            let (norm, angle) = (norms[i], angles[i]);
            if norm > OUTLIER_NORM_RATIO * norm_median || norm * OUTLIER_NORM_RATIO < norm_median {
                return Some(format!(
                    "its distance from {origin} is {}, the median is {}",
                    decimal(norm),
                    decimal(norm_median)
                ));
            }
            (angle > angle_median + OUTLIER_ANGLE_DEG).then(|| {
                format!("its mean angle to the others is {angle:.0}°, the median is {angle_median:.0}°")
            })
        };
        let outlier =
            |(i, name): (usize, &String)| Some(Outlier { ingredient: name.clone(), reason: reason(i)? });
        names.iter().enumerate().filter_map(outlier).collect()
    }

    /// Cosines between all two ingredients, seen from zero.
    fn raw_cosines(&self) -> Vec<f64> {
        let cosine = |(i, j)| {
            let lengths = (self.raw(i, i) * self.raw(j, j)).max(0.0).sqrt();
            (lengths > 0.0).then(|| self.raw(i, j) / lengths)
        };
        self.pairs().filter_map(cosine).collect()
    }

    /// Whether the ingredients share an initialisation, told by these products, which should be those of the matrices.
    pub fn shared_init(&self) -> SharedInit {
        let cosines = self.raw_cosines();
        let apart = self.pairs().any(|(i, j)| !self.equal(i, j));
        if cosines.is_empty() || !apart {
            let explanation = match self.packed.iter().all(|product| product.is_finite()) {
                true => "there are no two ingredients with different matrices to compare",
                false => "some parameters are NaN or infinite, and so point nowhere",
            };
            let explanation = explanation.to_owned();
            return SharedInit { verdict: SharedInitVerdict::Unknown, explanation };
        }
        let cosine = median(&cosines);
        let k = self.ingredients;
        let length = |i: usize| self.raw(i, i).max(0.0).sqrt();
        let lengths = median(&(0..k).map(length).collect::<Vec<_>>());
        let mean = {
            let all = (0..k).flat_map(|i| (0..k).map(move |j| (i, j)));
            all.map(|(i, j)| self.raw(i, j)).sum::<f64>().max(0.0).sqrt() / k as f64
        };
        let kept = 100.0 * mean / lengths.max(f64::MIN_POSITIVE);
        if cosine >= SHARED_COSINE_MIN {
            let explanation = format!(
                "the ingredients point the same way (median cosine {cosine:.3} between their weights, seen from zero), and \
                 their mean keeps {kept:.0} % of their length: they share an initialisation, and averaging makes sense"
            );
            return SharedInit { verdict: SharedInitVerdict::Shared, explanation };
        }
        let (how, so) = match cosine < INDEPENDENT_COSINE_MAX {
            true => ("nearly orthogonal", "they do not share an initialisation. Averaging will destroy them"),
            false => (
                "far apart",
                "they do not share an initialisation, or training led far away from it. Averaging is likely to destroy them",
            ),
        };
        let explanation = format!(
            "the ingredients are {how} (median cosine {cosine:.3} between their weights, seen from zero): {so}: their mean \
             keeps only {kept:.0} % of their length, because each network found features of its own, in an order of its own, \
             and averaging adds up features that have nothing to do with each other. Average fine-tunings of one pretrained model instead"
        );
        SharedInit { verdict: SharedInitVerdict::Separate, explanation }
    }
}

/// The middle value; 0 of none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => 0.0,
        _ if n % 2 == 1 => sorted[n / 2],
        _ => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The products of these vectors with their mean as the origin.
    fn gram(vectors: &[&[f64]]) -> Gram {
        let (k, n) = (vectors.len(), vectors[0].len());
        let origin: Vec<f64> = (0..n).map(|e| vectors.iter().map(|v| v[e]).sum::<f64>() / k as f64).collect();
        let mut all: Vec<Vec<f64>> =
            vectors.iter().map(|v| v.iter().zip(&origin).map(|(v, o)| v - o).collect()).collect();
        all.push(origin);
        let pairs = (0..=k).flat_map(|i| (i..=k).map(move |j| (i, j)));
        let packed: Vec<f64> =
            pairs.map(|(i, j)| all[i].iter().zip(&all[j]).map(|(a, b)| a * b).sum()).collect();
        let mut gram = Gram::zeros(k);
        assert_eq!(packed.len(), packed_len(k));
        gram.add(&packed);
        gram
    }

    fn names(k: usize) -> Vec<String> {
        (0..k).map(|i| format!("m{i}")).collect()
    }

    #[test]
    fn products_are_found_in_the_triangle() {
        let vectors: [&[f64]; 3] = [&[1.0, 2.0], &[-3.0, 0.5], &[0.25, 4.0]];
        let gram = gram(&vectors);
        for (i, a) in vectors.iter().enumerate() {
            for (j, b) in vectors.iter().enumerate() {
                let plain: f64 = a.iter().zip(*b).map(|(a, b)| a * b).sum();
                assert!((gram.raw(i, j) - plain).abs() < 1e-12, "{i} {j}");
            }
        }
        assert_eq!(gram.angle_deg(1, 1), Some(0.0));
    }

    #[test]
    fn what_is_no_number_has_no_length() {
        let gram = gram(&[&[1.0, f64::NAN], &[3.0, 0.0]]);
        let geometry = gram.geometry();
        assert!(geometry.norms.iter().all(|norm| norm.is_nan()), "{geometry:?}");
        assert_eq!(geometry.angles_deg[0][1], None);
        assert!(gram.shared_init().explanation.contains("NaN"));
        let json = serde_json::to_string(&geometry).unwrap();
        assert!(json.starts_with(r#"{"norms":[null,null]"#), "{json}");
        let read: Geometry = serde_json::from_str(&json).unwrap();
        assert!(read.norms.iter().all(|norm| norm.is_nan()) && read.angles_deg == geometry.angles_deg);
        // Rounding makes of nothing less than that.
        let mut rounded = Gram::zeros(1);
        rounded.add(&[-1e-30, 0.0, 0.0]);
        assert_eq!(rounded.norm(0), 0.0);
    }

    #[test]
    fn equal_ingredients_are_grouped() {
        let gram = gram(&[&[1.0, 2.0], &[3.0, 0.0], &[1.0, 2.0], &[1.0, 2.1]]);
        assert_eq!(gram.duplicates(), [[0, 2]]);
        // A thousandth of one parameter beside a million in another, as running variances are.
        let near = gram_of_near(1e6, 0.001);
        assert!(near.duplicates().is_empty());
        assert_eq!(near.shared_init().verdict, SharedInitVerdict::Shared);
        assert_eq!(gram_of_near(1e6, 0.0).duplicates(), [[0, 1]]);
    }

    /// Of three, the first two of which differ by `apart`, in the second parameter alone.
    fn gram_of_near(large: f64, apart: f64) -> Gram {
        gram(&[&[large, 1.0, 0.5], &[large, 1.0 + apart, 0.5], &[large, 2.0, 0.25]])
    }

    #[test]
    fn long_ones_and_strays_are_outliers() {
        let near = |x: f64| [10.0 + x, 0.1 * x, 0.0];
        let all = [near(0.0), near(0.1), near(0.2), near(-0.1), [10.0, 0.0, 30.0]];
        let gram = gram(&all.each_ref().map(|v| &v[..]));
        let found = gram.outliers(&names(5), "the base");
        let far =
            |o: &Outlier| o.ingredient == "m4" && o.reason.starts_with("its distance from the base is ");
        assert!(found.iter().any(far), "{found:?}");
    }

    #[test]
    fn orthogonal_vectors_share_no_initialisation() {
        let separate = gram(&[&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.1], &[0.0, 0.1, 1.0]]).shared_init();
        assert_eq!(separate.verdict, SharedInitVerdict::Separate);
        assert!(separate.explanation.contains("destroy"), "{}", separate.explanation);
        let between = gram(&[&[1.0, 0.0, 1.3], &[1.0, 1.3, 0.0], &[1.0, 0.0, -1.3]]).shared_init();
        assert_eq!(between.verdict, SharedInitVerdict::Separate);
        assert!(between.explanation.contains("far apart (median cosine 0.372"), "{}", between.explanation);
        let shared = gram(&[&[1.0, 0.1, 0.0], &[1.0, 0.0, 0.1], &[1.1, 0.0, 0.0]]).shared_init();
        assert_eq!(shared.verdict, SharedInitVerdict::Shared);
        assert_eq!(gram(&[&[1.0, 2.0]]).shared_init().verdict, SharedInitVerdict::Unknown);
        assert_eq!(gram(&[&[1.0, 2.0], &[1.0, 2.0]]).shared_init().verdict, SharedInitVerdict::Unknown);
    }
}
