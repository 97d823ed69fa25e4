//! Figures of counts as exact numbers: a fraction, and the root that Matthews' correlation has.
//!
//! The sum of the figures of a mean is `rational + root`, where a root is the square root of a fraction, with its sign. Two such
//! numbers are compared by squaring what is left of them until no root is: no digit is ever rounded.

use std::cmp::Ordering;

use num_bigint::{BigInt, Sign};

use super::ClassMetric;
use super::margins::{Class, Margins};

/// An exact number.
#[derive(Clone)]
struct Fraction {
    numerator: BigInt,
    /// Above 0.
    denominator: BigInt,
}

impl Fraction {
    fn zero() -> Fraction {
        Fraction { numerator: BigInt::from(0), denominator: BigInt::from(1) }
    }

    fn sign(&self) -> Ordering {
        match self.numerator.sign() {
            Sign::Minus => Ordering::Less,
            Sign::NoSign => Ordering::Equal,
            Sign::Plus => Ordering::Greater,
        }
    }

    fn plus(&self, other: &Fraction) -> Fraction {
        Fraction {
            numerator: &self.numerator * &other.denominator + &other.numerator * &self.denominator,
            denominator: &self.denominator * &other.denominator,
        }
    }

    fn times(&self, other: &Fraction) -> Fraction {
        Fraction {
            numerator: &self.numerator * &other.numerator,
            denominator: &self.denominator * &other.denominator,
        }
    }

    fn negative(&self) -> Fraction {
        Fraction { numerator: -&self.numerator, denominator: self.denominator.clone() }
    }

    fn size(&self) -> Fraction {
        if self.sign().is_lt() { self.negative() } else { self.clone() }
    }
}

/// The sum of figures.
pub(super) struct Exact {
    rational: Fraction,
    /// The square of the root, with the root's sign.
    root: Fraction,
}

impl Exact {
    /// The sum of `metrics`, which are all made of margins and have Matthews' correlation once at most.
    pub(super) fn of(metrics: &[ClassMetric], classes: u32, margins: &Margins) -> Exact {
        let mut exact = Exact { rational: Fraction::zero(), root: Fraction::zero() };
        for metric in metrics {
            let more = match metric {
                ClassMetric::Accuracy => Fraction {
                    numerator: margins.correct().into(),
                    denominator: BigInt::from(margins.samples().max(1)),
                },
                ClassMetric::MacroF1 => {
                    let share = Fraction { numerator: 1.into(), denominator: BigInt::from(classes.max(1)) };
                    f1_sum(margins.by_class.values()).times(&share)
                }
                ClassMetric::BinaryF1 => f1_sum(margins.by_class.get(&1)),
                ClassMetric::Matthews => {
                    exact.root = matthews_squared(margins);
                    continue;
                }
                ClassMetric::Loss => continue,
            };
            exact.rational = exact.rational.plus(&more);
        }
        exact
    }

    pub(super) fn compare(&self, other: &Exact) -> Ordering {
        let rational = self.rational.plus(&other.rational.negative());
        sign_of_two(&rational, &self.root, &other.root.negative())
    }
}

/// The sign of `rational + r`, where `root` is the square of r with r's sign.
fn sign_of_one(rational: &Fraction, root: &Fraction) -> Ordering {
    let (a, b) = (rational.sign(), root.sign());
    if a == b || b.is_eq() {
        return a;
    }
    if a.is_eq() {
        return b;
    }
    // They pull in opposite directions: the larger one wins.
    match rational.times(rational).plus(&root.size().negative()).sign() {
        Ordering::Greater => a,
        Ordering::Equal => Ordering::Equal,
        Ordering::Less => b,
    }
}

/// The sign of `rational + r + s`, likewise.
fn sign_of_two(rational: &Fraction, first: &Fraction, second: &Fraction) -> Ordering {
    let (a, b) = (sign_of_one(rational, first), second.sign());
    if a == b || b.is_eq() {
        return a;
    }
    if a.is_eq() {
        return b;
    }
    // (rational + r)^2 - s^2 = rational^2 + r^2 - s^2 + 2 rational r, of which the last term is a root again.
    let squares = rational.times(rational).plus(&first.size()).plus(&second.size().negative());
    let four = Fraction { numerator: 4.into(), denominator: 1.into() };
    let cross = rational.times(&rational.size()).times(first).times(&four);
    match sign_of_one(&squares, &cross) {
        Ordering::Greater => a,
        Ordering::Equal => Ordering::Equal,
        Ordering::Less => b,
    }
}

/// The sum of the F1 of classes.
fn f1_sum<'a>(classes: impl IntoIterator<Item = &'a Class>) -> Fraction {
    let mut sum = Fraction::zero();
    for class in classes {
        let both = BigInt::from(class.labelled) + BigInt::from(class.predicted);
        // A class that neither occurs nor is predicted counts 0.
        if both.sign() == Sign::Plus {
            sum = sum.plus(&Fraction { numerator: BigInt::from(class.hit) * 2, denominator: both });
        }
    }
    sum
}

/// The square of Matthews' correlation, with its sign.
fn matthews_squared(margins: &Margins) -> Fraction {
    let sum = |f: fn(&Class) -> BigInt| margins.by_class.values().map(f).sum::<BigInt>();
    let samples = sum(|c| c.labelled.into());
    let covariance =
        sum(|c| c.hit.into()) * &samples - sum(|c| BigInt::from(c.labelled) * BigInt::from(c.predicted));
    let of = |squares: BigInt| &samples * &samples - squares;
    let norm = of(sum(|c| BigInt::from(c.predicted).pow(2))) * of(sum(|c| BigInt::from(c.labelled).pow(2)));
    if norm.sign() != Sign::Plus {
        return Fraction::zero();
    }
    let square = &covariance * &covariance;
    Fraction { numerator: if covariance.sign() == Sign::Minus { -square } else { square }, denominator: norm }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fraction(numerator: i64, denominator: i64) -> Fraction {
        Fraction { numerator: numerator.into(), denominator: denominator.into() }
    }

    /// The root as a number.
    fn root(square: (i64, i64)) -> f64 {
        let value = square.0 as f64 / square.1 as f64;
        value.abs().sqrt().copysign(value)
    }

    #[test]
    fn signs_of_sums_with_roots_are_those_of_the_numbers() {
        let squares = [(0, 1), (1, 4), (-1, 4), (2, 9), (-2, 9), (1, 2), (-1, 2), (1, 1), (-1, 1)];
        let rationals = [(0, 1), (1, 2), (-1, 2), (1, 1), (-1, 1), (3, 2), (-3, 2), (2, 1), (-2, 1), (5, 7)];
        for r in rationals {
            for p in squares {
                for q in squares {
                    let value = r.0 as f64 / r.1 as f64 + root(p) + root(q);
                    let expected = match value {
                        v if v.abs() < 1e-12 => Ordering::Equal,
                        v => v.total_cmp(&0.0),
                    };
                    let [r, p, q] = [r, p, q].map(|(n, d)| fraction(n, d));
                    assert_eq!(sign_of_two(&r, &p, &q), expected, "{value}");
                }
            }
        }
    }

    #[test]
    fn what_differs_by_less_than_f64_can_tell_differs() {
        // sqrt(2) and its continued fraction: 1 / (2 sqrt(2) d^2) apart.
        let (n, d) = (6_882_627_592_338_442_563i64, 4_866_752_642_924_153_522i64);
        assert!((n as f64 / d as f64 - 2f64.sqrt()).abs() < 1e-15);
        let order = sign_of_one(&fraction(n, d).negative(), &fraction(2, 1));
        assert_ne!(order, Ordering::Equal);
        assert_eq!(sign_of_one(&fraction(n, d), &fraction(-2, 1)), order.reverse());
    }
}
