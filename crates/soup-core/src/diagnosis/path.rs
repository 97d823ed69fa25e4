//! Soups between ingredients: on the line through two, in the plane through three, and means of the best n. Which soups to
//! score, and what their scores amount to.

use super::geometry::Gram;
use super::{Curve, CurvePoint, Marginal, Plane};
use crate::ledger::Dataset;
use crate::report::Sources;
use crate::soup::{Ingredient, Soup, Weight};

/// How far the grid of a plane goes beyond the triangle's box, as a share of the box.
const PLANE_MARGIN: f64 = 0.2;

/// (1 - t) from + t to, for `segments` + 1 values of t from 0 to 1.
pub fn line(from: Ingredient, to: Ingredient, segments: u32) -> Vec<(f64, Soup)> {
    let point = |step: u32| {
        let t = f64::from(step) / f64::from(segments);
        let soup = match step {
            0 => Some(Soup::single(from)),
            _ if step == segments => Some(Soup::single(to)),
            _ => weighted(&[(from, 1.0 - t), (to, t)]),
        };
        soup.map(|soup| (t, soup))
    };
    if from == to || segments == 0 { Vec::new() } else { (0..=segments).filter_map(point).collect() }
}

/// A soup of these weights, in any order.
fn weighted(parts: &[(Ingredient, f64)]) -> Option<Soup> {
    let mut parts = parts.to_vec();
    parts.sort_by_key(|(member, _)| *member);
    let row = parts.iter().map(|(_, w)| Weight::new(*w)).collect::<Option<Vec<_>>>()?;
    Soup::weighted(parts.into_iter().map(|(member, _)| member).collect(), vec![row]).ok()
}

/// The scores on a line, as far as they are known.
pub fn curve(sources: &Sources<'_>, from: Ingredient, to: Ingredient, segments: u32) -> Option<Curve> {
    let names = |i| sources.names(&Soup::single(i)).pop();
    let point = |(t, soup)| Some(CurvePoint { t, score: sources.figures(Dataset::VALIDATION, &soup)? });
    let points: Vec<CurvePoint> = line(from, to, segments).into_iter().filter_map(point).collect();
    (points.len() > 2).then_some(Curve { from: names(from)?, to: names(to)?, points })
}

/// A grid in the plane through three ingredients.
pub struct Grid {
    corners: [[f64; 2]; 3],
    members: [Ingredient; 3],
    /// Coordinates, ascending.
    pub x: Vec<f64>,
    /// Coordinates, ascending.
    pub y: Vec<f64>,
}

impl Grid {
    /// A grid of `side` by `side` points around three ingredients; `None` where they lie on one line.
    pub fn new(gram: &Gram, members: [Ingredient; 3], side: u32) -> Option<Grid> {
        let [a, b, c] = members.map(Ingredient::index);
        let product =
            |i: usize, j: usize| gram.delta(i, j) - gram.delta(i, a) - gram.delta(j, a) + gram.delta(a, a);
        let base = product(b, b).max(0.0).sqrt();
        let along = product(c, b) / base;
        let height = (product(c, c) - along * along).max(0.0).sqrt();
        // Flatter than this, the plane is not defined by the ingredients but by rounding.
        let plain = base.is_finite() && height.is_finite() && height > 1e-6 * base;
        if side < 2 || !plain {
            return None;
        }
        let corners = [[0.0, 0.0], [base, 0.0], [along, height]];
        let axis = |dimension: usize| {
            let values = corners.map(|c| c[dimension]);
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let margin = PLANE_MARGIN * (high - low);
            let step = (high - low + 2.0 * margin) / f64::from(side - 1);
            (0..side).map(|i| low - margin + f64::from(i) * step).collect::<Vec<f64>>()
        };
        Some(Grid { corners, members, x: axis(0), y: axis(1) })
    }

    /// The soup at a point: the weights of the three ingredients have the sum 1.
    pub fn soup(&self, x: f64, y: f64) -> Option<Soup> {
        let [[_, _], [base, _], [along, height]] = self.corners;
        let third = y / height;
        let second = (x - third * along) / base;
        let [a, b, c] = self.members;
        weighted(&[(a, 1.0 - second - third), (b, second), (c, third)])
    }

    /// All soups of the grid.
    pub fn soups(&self) -> impl Iterator<Item = Soup> + '_ {
        self.y.iter().flat_map(move |&y| self.x.iter().filter_map(move |&x| self.soup(x, y)))
    }

    /// The scores of the grid, as far as they are known.
    pub fn plane(&self, sources: &Sources<'_>) -> Plane {
        let score = |x: f64, y: f64| self.soup(x, y).and_then(|s| sources.figures(Dataset::VALIDATION, &s));
        Plane {
            ingredients: self.members.iter().flat_map(|&m| sources.names(&Soup::single(m))).collect(),
            corners: self.corners.to_vec(),
            scores: self.y.iter().map(|&y| self.x.iter().map(|&x| score(x, y)).collect()).collect(),
            x: self.x.clone(),
            y: self.y.clone(),
        }
    }
}

/// The means of the first one, two, … of `order`.
pub fn prefixes(order: &[Ingredient]) -> impl Iterator<Item = Soup> + '_ {
    (1..=order.len()).filter_map(|n| Soup::mean(order[..n].iter().copied()))
}

/// What each further ingredient adds, as far as it is known.
pub fn marginal_utility(sources: &Sources<'_>, order: &[Ingredient]) -> Vec<Marginal> {
    let one = |(added, soup): (&Ingredient, Soup)| {
        Some(Marginal {
            ingredient: sources.names(&Soup::single(*added)).pop()?,
            size: soup.members().len() as u32,
            score: sources.figures(Dataset::VALIDATION, &soup)?,
        })
    };
    order.iter().zip(prefixes(order)).filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_and_end_at_the_ingredients() {
        let (a, b) = (Ingredient(3), Ingredient(1));
        let points = line(a, b, 4);
        assert_eq!(points.len(), 5);
        assert_eq!((&points[0].1, &points[4].1), (&Soup::single(a), &Soup::single(b)));
        // Members are in pool order, whichever end they are at.
        assert_eq!(points[1].1.members(), [b, a]);
        assert_eq!(points[1].1.row(0).unwrap()[0].get(), 0.25);
        assert!(line(a, a, 4).is_empty());
    }

    #[test]
    fn the_grid_has_its_corners_at_the_ingredients() {
        // Deltas (0, 0), (2, 0), (1, 3) and the origin itself.
        let mut gram = Gram::zeros(3);
        gram.add(&[0.0, 0.0, 0.0, 0.0, 4.0, 2.0, 0.0, 10.0, 0.0, 0.0]);
        let grid = Grid::new(&gram, [Ingredient(0), Ingredient(1), Ingredient(2)], 5).unwrap();
        assert_eq!(grid.corners, [[0.0, 0.0], [2.0, 0.0], [1.0, 3.0]]);
        let weights =
            |x, y| grid.soup(x, y).unwrap().row(0).unwrap().iter().map(|w| w.get()).collect::<Vec<_>>();
        assert_eq!(weights(2.0, 0.0), [0.0, 1.0, 0.0]);
        assert_eq!(weights(1.0, 3.0), [0.0, 0.0, 1.0]);
        assert_eq!(grid.soups().count(), 25);
        assert!(grid.x[0] < 0.0 && grid.x[4] > 2.0);
        let mut flat = Gram::zeros(3);
        flat.add(&[0.0, 0.0, 0.0, 0.0, 4.0, 2.0, 0.0, 1.0, 0.0, 0.0]);
        assert!(Grid::new(&flat, [Ingredient(0), Ingredient(1), Ingredient(2)], 5).is_none());
    }

    #[test]
    fn prefixes_grow_by_one() {
        let order = [Ingredient(2), Ingredient(0), Ingredient(1)];
        let soups: Vec<Soup> = prefixes(&order).collect();
        assert_eq!(soups[0], Soup::single(Ingredient(2)));
        assert_eq!(soups[2], Soup::uniform(3).unwrap());
    }
}
