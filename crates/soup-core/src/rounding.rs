//! How numbers are rounded for people: in one way, wherever they are shown.
//!
//! The nearest number with so many decimals; of two that are as near, the one farther from zero. Shares of samples lie between two such numbers
//! often (2 of 320 are 0.625 %), and one that was computed in another way is a little above or below that: which of the two it is must not
//! decide, or what is the same is shown as different.

/// More than arithmetic in `f64` adds to a tie or takes from it, and less than what is between a tie and the next share of up to 500 million
/// samples. In units of the last decimal.
const NOISE: f64 = 1e-9;
/// The same beside large numbers, as a share of them.
const RELATIVE_NOISE: f64 = 8.0 * f64::EPSILON;
/// Units of the last decimal from which on nothing is added: that would be a large part of a unit, or more than one, and shares are far below.
const UNITS_MAX: f64 = 1e13;

/// `v` with so many decimals. What rounds to zero has no sign.
pub fn fixed(v: f64, decimals: usize) -> String {
    let unit = 10f64.powi(decimals.try_into().unwrap_or(i32::MAX));
    let units = v.abs() * unit;
    if units.is_nan() || units >= UNITS_MAX {
        return format!("{v:.decimals$}");
    }
    let rounded = (units + 0.5 + NOISE.max(units * RELATIVE_NOISE)).floor();
    let sign = if v < 0.0 && rounded > 0.0 { "-" } else { "" };
    format!("{sign}{:.decimals$}", rounded / unit)
}

/// A share of 1 in percent: `87.50 %`.
pub fn share(v: f64) -> String {
    format!("{} %", fixed(100.0 * v, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_is_shown_as_the_same() {
        // 2 samples of 320 more, whatever they are more than, and which way it is computed.
        for correct in 0..=318u32 {
            let of = |correct: u32| f64::from(correct) / 320.0;
            let ways = [
                100.0 * (of(correct + 2) - of(correct)),
                100.0 * of(correct + 2) - 100.0 * of(correct),
                100.0 * of(2),
                -100.0 * (of(correct) - of(correct + 2)),
            ];
            assert_eq!(ways.map(|points| fixed(points, 2)), ["0.63"; 4].map(str::to_owned), "{correct}");
        }
    }

    #[test]
    fn shares_are_rounded_as_on_paper() {
        for total in [3u64, 7, 320, 4000, 12_345] {
            for correct in 0..=total {
                // In whole numbers: hundredths of a percent, halves up.
                let hundredths = (20_000 * correct + total) / (2 * total);
                let expected = format!("{}.{:02} %", hundredths / 100, hundredths % 100);
                assert_eq!(share(correct as f64 / total as f64), expected, "{correct} of {total}");
            }
        }
    }

    #[test]
    fn other_numbers_are_rounded_to_the_nearest() {
        let cases = [
            (0.0, 2, "0.00"),
            (-0.0, 2, "0.00"),
            (-0.004, 2, "0.00"),
            (-0.006, 2, "-0.01"),
            (0.87654, 4, "0.8765"),
            (-12.0, 4, "-12.0000"),
            (0.03125, 4, "0.0313"),
            (99.995, 2, "100.00"),
            (2.4999, 0, "2"),
            (123_456_789.123_45, 4, "123456789.1235"),
            // What is added for ties grows with the number, and must not become a unit.
            (5e8 + 0.25, 4, "500000000.2500"),
            (5e10, 4, "50000000000.0000"),
            (-99_999_999_999.0, 4, "-99999999999.0000"),
        ];
        for (v, decimals, expected) in cases {
            assert_eq!(fixed(v, decimals), expected, "{v}");
        }
        assert_eq!(fixed(1e300, 0), format!("{:.0}", 1e300));
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(|v| fixed(v, 2));
        assert_eq!(odd, ["NaN", "inf", "-inf"]);
    }
}
