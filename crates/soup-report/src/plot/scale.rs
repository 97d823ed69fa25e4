//! Ranges of values, and how they are mapped to coordinates.

/// A range of values: both ends finite, `lo` below `hi`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    /// The lower end.
    pub(crate) lo: f64,
    /// The upper end.
    pub(crate) hi: f64,
}

impl Span {
    /// What the finite ones of `values` span, widened where that is a point; none where there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Span> {
        let finite = values.into_iter().filter(|v| v.is_finite() && v.abs() < 1e300);
        let (lo, hi) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)));
        (lo <= hi).then(|| Span { lo, hi }.widened())
    }

    fn widened(self) -> Span {
        let least = self.lo.abs().max(self.hi.abs()).max(1e-3) * 1e-3;
        if self.hi - self.lo >= least { self } else { Span { lo: self.lo - least, hi: self.hi + least } }
    }

    /// With `share` of its length more at both ends.
    pub(crate) fn padded(self, share: f64) -> Span {
        let more = (self.hi - self.lo) * share;
        Span { lo: self.lo - more, hi: self.hi + more }
    }

    /// With zero in it.
    pub(crate) fn with_zero(self) -> Span {
        Span { lo: self.lo.min(0.0), hi: self.hi.max(0.0) }
    }

    /// The span of all but values far below (above, where `low` is false) the others, which would squeeze the rest:
    /// those further out than `far` times the distance between the quartiles. Of fewer than eight values: of all of them.
    pub(crate) fn robust(values: &[f64], low: bool, far: f64) -> Option<Span> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            sorted.get((share * (sorted.len().saturating_sub(1)) as f64).round() as usize).copied()
        };
        let (q1, q3) = (at(0.25)?, at(0.75)?);
        let far = if sorted.len() < 8 { 0.0 } else { far * (q3 - q1) };
        Span::of(
            sorted.iter().copied().filter(|&v| far <= 0.0 || if low { v >= q1 - far } else { v <= q3 + far }),
        )
    }

    /// Whether `v` lies within.
    pub(crate) fn holds(self, v: f64) -> bool {
        v >= self.lo && v <= self.hi
    }

    /// Where `v` lies: 0 at the lower end, 1 at the upper one, clamped.
    pub(crate) fn share(self, v: f64) -> f64 {
        let share = (v - self.lo) / (self.hi - self.lo);
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// Maps a span to coordinates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// What is mapped.
    pub(crate) span: Span,
    /// Coordinate of the lower end.
    pub(crate) from: f64,
    /// Coordinate of the upper end.
    pub(crate) to: f64,
}

impl Scale {
    /// The coordinate of a value, clamped to the ends.
    pub(crate) fn at(&self, v: f64) -> f64 {
        self.from + self.span.share(v) * (self.to - self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_finite_values_only() {
        assert_eq!(Span::of([f64::NAN, 1.0, f64::INFINITY, 3.0]), Some(Span { lo: 1.0, hi: 3.0 }));
        assert_eq!(Span::of([f64::NAN]), None);
        let point = Span::of([5.0]).unwrap();
        assert!(point.lo < 5.0 && point.hi > 5.0);
        let zero = Span::of([0.0]).unwrap();
        assert!(zero.lo < zero.hi);
    }

    #[test]
    fn a_value_far_below_does_not_squeeze_the_others() {
        let mut values: Vec<f64> = (0..20).map(|i| 0.86 + 0.001 * f64::from(i)).collect();
        values.push(0.1);
        let span = Span::robust(&values, true, 3.0).unwrap();
        assert!(span.lo > 0.85 && !span.holds(0.1));
        assert!(Span::robust(&values, false, 3.0).unwrap().holds(0.1));
        assert!(Span::robust(&values[18..], true, 3.0).unwrap().holds(0.1));
    }

    #[test]
    fn scales_clamp() {
        let scale = Scale { span: Span { lo: 0.0, hi: 2.0 }, from: 100.0, to: 0.0 };
        assert_eq!([scale.at(1.0), scale.at(5.0), scale.at(f64::NAN)], [50.0, 0.0, 100.0]);
    }
}
