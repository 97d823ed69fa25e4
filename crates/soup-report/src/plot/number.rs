//! Numbers as text: coordinates, values with their unit, ticks.

use soup_core::report::decimal;
use soup_core::rounding::share;

use crate::plot::scale::Span;

/// How a kind of value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A share of 1, as percent with two decimals.
    Percent,
    /// A plain number with four decimals, or four digits where these say little.
    Number,
    /// A length in parameter space, with four significant digits.
    Length,
    /// Degrees of an angle.
    Degrees,
    /// A count.
    Count,
}

impl Unit {
    /// A value for tooltips and tables.
    pub(crate) fn value(self, v: f64) -> String {
        match self {
            _ if !v.is_finite() => "-".to_owned(),
            Unit::Percent => share(v),
            Unit::Number => decimal(v),
            Unit::Length => {
                let digits = if v == 0.0 { 0.0 } else { (3.0 - v.abs().log10().floor()).clamp(0.0, 9.0) };
                format!("{v:.*}", digits as usize)
            }
            Unit::Degrees => format!("{v:.1}°"),
            Unit::Count => format!("{v:.0}"),
        }
    }

    /// A tick's label, with as many decimals as a step between ticks needs.
    fn tick(self, v: f64, step: f64) -> String {
        let (v, step) = if self == Unit::Percent { (100.0 * v, 100.0 * step) } else { (v, step) };
        let decimals = (-step.log10()).ceil().clamp(0.0, 6.0) as usize;
        // Adding zero turns -0 to 0.
        let text = format!("{:.decimals$}", if v.abs() < step * 1e-9 { 0.0 } else { v });
        match self {
            Unit::Percent => format!("{text} %"),
            Unit::Degrees => format!("{text}°"),
            Unit::Number | Unit::Length | Unit::Count => text,
        }
    }
}

/// A coordinate with at most two decimals: short, and the same on every machine. 0 for what is not finite, so that no
/// attribute ever holds anything else than a number.
pub(crate) fn coordinate(v: f64) -> String {
    if !v.is_finite() {
        return "0".to_owned();
    }
    let text = format!("{v:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if matches!(text, "-0" | "") { "0".to_owned() } else { text.to_owned() }
}

/// Ticks within a span, about `count` of them and three where a finer step gives them, at steps of 1, 2 or 5 times a power
/// of ten; each with its label.
pub(crate) fn ticks(span: Span, count: usize, unit: Unit) -> Vec<(f64, String)> {
    let few = stepped(span, count, unit);
    if few.len() < 3 && unit != Unit::Count { stepped(span, 2 * count, unit) } else { few }
}

fn stepped(span: Span, count: usize, unit: Unit) -> Vec<(f64, String)> {
    let rough = (span.hi - span.lo) / count.max(1) as f64;
    if !rough.is_finite() || rough <= 0.0 {
        return vec![(span.lo, unit.value(span.lo))];
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = power * [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= rough * 0.999).unwrap_or(10.0);
    let step = if unit == Unit::Count { step.max(1.0) } else { step };
    let first = (span.lo / step - 1e-9).ceil();
    let last = (span.hi / step + 1e-9).floor();
    if !(first.is_finite() && last.is_finite()) || last - first > 100.0 {
        return Vec::new();
    }
    let mut at = first;
    let mut ticks = Vec::new();
    while at <= last {
        ticks.push((at * step, unit.tick(at * step, step)));
        at += 1.0;
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(lo: f64, hi: f64, unit: Unit) -> Vec<String> {
        ticks(Span { lo, hi }, 5, unit).into_iter().map(|t| t.1).collect()
    }

    #[test]
    fn ticks_follow_the_1_2_5_rule() {
        assert_eq!(labels(0.0, 1.0, Unit::Number), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(0.861, 0.876, Unit::Percent), ["86.5 %", "87.0 %", "87.5 %"]);
        assert_eq!(labels(-3.0, 19.0, Unit::Count), ["0", "5", "10", "15"]);
        assert_eq!(labels(0.0, 2.0, Unit::Count), ["0", "1", "2"]);
        assert_eq!(labels(5.0, 5.0, Unit::Count), ["5"]);
        assert_eq!(labels(62.0, 90.0, Unit::Degrees), ["70°", "80°", "90°"]);
        let few = ticks(Span { lo: 1.04, hi: 1.64 }, 2, Unit::Number);
        assert_eq!(few.into_iter().map(|t| t.1).collect::<Vec<_>>(), ["1.2", "1.4", "1.6"]);
    }

    #[test]
    fn lengths_have_four_digits() {
        let texts = [0.0, 0.012_345_6, 3.084_131, 19.699_2, 123_456.0].map(|v| Unit::Length.value(v));
        assert_eq!(texts, ["0", "0.01235", "3.084", "19.70", "123456"]);
    }

    #[test]
    fn coordinates_are_short_and_finite() {
        let cases = [(0.0, "0"), (-0.001, "0"), (12.5, "12.5"), (100.0, "100"), (1.0 / 3.0, "0.33")];
        for (v, text) in cases {
            assert_eq!(coordinate(v), text);
        }
        assert_eq!(coordinate(f64::NAN), "0");
        assert_eq!(coordinate(f64::NEG_INFINITY), "0");
    }
}
