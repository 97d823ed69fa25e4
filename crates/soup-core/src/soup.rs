//! What a model is made of. A [`Soup`] is a description and a key: two soups that are made of the same are equal.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// An ingredient, by its position in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ingredient(pub u32);

impl Ingredient {
    /// Position in the pool.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A finite weight. Kept as its bits, so that soups can be compared, ordered and hashed exactly.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(u64);

impl Weight {
    /// A weight; `None` unless `value` is finite. Negative zero becomes zero.
    pub fn new(value: f64) -> Option<Weight> {
        value.is_finite().then(|| Weight((value + 0.0).to_bits()))
    }

    /// The value.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl std::fmt::Debug for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.get())
    }
}

/// A non-empty set of ingredients with weights.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Soup {
    /// Ascending (pool order), without repeats, never empty.
    members: Vec<Ingredient>,
    weights: Weights,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Weights {
    /// The exact mean: sum in pool order, divide once by the number of members.
    Mean,
    /// One weight per member, or one per tensor (canonical order) and member.
    Explicit(Vec<Vec<Weight>>),
}

impl Soup {
    /// The mean of `members`, in any order and with repeats ignored; `None` if there are none.
    pub fn mean(members: impl IntoIterator<Item = Ingredient>) -> Option<Soup> {
        let mut members: Vec<Ingredient> = members.into_iter().collect();
        members.sort_unstable();
        members.dedup();
        (!members.is_empty()).then_some(Soup { members, weights: Weights::Mean })
    }

    /// One ingredient alone.
    pub fn single(ingredient: Ingredient) -> Soup {
        Soup { members: vec![ingredient], weights: Weights::Mean }
    }

    /// The mean of a pool of `count` ingredients; `None` for an empty pool.
    pub fn uniform(count: u32) -> Option<Soup> {
        Soup::mean((0..count).map(Ingredient))
    }

    /// Explicit weights: `rows` has one row, or one row per tensor; each row has one weight per member.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) unless `members` is ascending and not empty and every row fits it.
    pub fn weighted(members: Vec<Ingredient>, rows: Vec<Vec<Weight>>) -> Result<Soup> {
        if members.is_empty() || !members.windows(2).all(|w| w[0] < w[1]) {
            return Err(Error::usage("a soup needs at least one ingredient, in pool order, each once"));
        }
        if rows.is_empty() || rows.iter().any(|r| r.len() != members.len()) {
            return Err(Error::usage(format!(
                "a soup of {} ingredients needs as many weights a row",
                members.len()
            )));
        }
        Ok(Soup { members, weights: Weights::Explicit(rows) })
    }

    /// The ingredients, ascending.
    pub fn members(&self) -> &[Ingredient] {
        &self.members
    }

    /// Whether `ingredient` is in it.
    pub fn contains(&self, ingredient: Ingredient) -> bool {
        self.members.binary_search(&ingredient).is_ok()
    }

    /// The explicit weights: one row, or one per tensor. `None` for a mean.
    pub fn rows(&self) -> Option<&[Vec<Weight>]> {
        match &self.weights {
            Weights::Mean => None,
            Weights::Explicit(rows) => Some(rows),
        }
    }

    /// Whether a pool of so many ingredients with so many tensors may have this soup.
    pub fn fits(&self, ingredients: usize, tensors: usize) -> bool {
        let rows = self.rows().map_or(1, <[_]>::len);
        // Ascending: all others are before the last one.
        self.members.last().is_none_or(|last| last.index() < ingredients) && (rows == 1 || rows == tensors)
    }

    /// The weights of the members on tensor `tensor` (canonical order). `None` for a mean.
    pub fn row(&self, tensor: usize) -> Option<&[Weight]> {
        let rows = self.rows()?;
        Some(if rows.len() == 1 { &rows[0] } else { &rows[tensor] })
    }

    /// The mean of the members and `ingredient`.
    #[must_use]
    pub fn with(&self, ingredient: Ingredient) -> Soup {
        let mut members = self.members.clone();
        if let Err(at) = members.binary_search(&ingredient) {
            members.insert(at, ingredient);
        }
        Soup { members, weights: Weights::Mean }
    }

    /// The mean of the members but `ingredient`; `None` if nothing would be left.
    pub fn without(&self, ingredient: Ingredient) -> Option<Soup> {
        Soup::mean(self.members.iter().copied().filter(|&m| m != ingredient))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soup(members: &[u32]) -> Soup {
        Soup::mean(members.iter().copied().map(Ingredient)).unwrap()
    }

    #[test]
    fn equal_soups_are_equal_keys() {
        assert_eq!(soup(&[3, 1, 3]), soup(&[1, 3]));
        assert_eq!(soup(&[1]).with(Ingredient(0)), soup(&[0, 1]));
        assert_eq!(soup(&[0, 1]).without(Ingredient(1)), Some(Soup::single(Ingredient(0))));
        assert_eq!(soup(&[1]).without(Ingredient(1)), None);
    }

    #[test]
    fn weights_are_compared_by_value() {
        assert_eq!(Weight::new(0.0), Weight::new(-0.0));
        assert_eq!(Weight::new(f64::NAN), None);
    }

    #[test]
    fn weighted_soups_check_their_shape() {
        let w = |v| Weight::new(v).unwrap();
        assert!(Soup::weighted(vec![], vec![vec![]]).is_err());
        assert!(Soup::weighted(vec![Ingredient(1), Ingredient(0)], vec![vec![w(0.5), w(0.5)]]).is_err());
        assert!(Soup::weighted(vec![Ingredient(0)], vec![vec![w(0.5), w(0.5)]]).is_err());
        let s = Soup::weighted(vec![Ingredient(0), Ingredient(2)], vec![vec![w(0.25), w(0.75)]]).unwrap();
        assert_eq!(s.row(7).unwrap()[1].get(), 0.75);
    }

    #[test]
    fn a_soup_fits_a_pool_that_has_its_ingredients_and_tensors() {
        assert!(soup(&[0, 2]).fits(3, 5) && !soup(&[0, 2]).fits(2, 5));
        let rows = |rows| Soup::weighted(vec![Ingredient(1)], vec![vec![Weight::new(1.0).unwrap()]; rows]);
        assert!([1, 5].iter().all(|&n| rows(n).unwrap().fits(2, 5)));
        assert!([4, 6].iter().all(|&n| !rows(n).unwrap().fits(2, 5)));
        assert!(!rows(5).unwrap().fits(1, 5));
    }
}
