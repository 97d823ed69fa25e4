//! Colours of values, readable by the colour-blind. Colours of things are classes, see `page.css`.

/// Viridis (Smith and van der Walt, CC0) at equal steps.
const VIRIDIS: [[u8; 3]; 9] = [
    [68, 1, 84],
    [71, 44, 122],
    [59, 81, 139],
    [44, 113, 142],
    [33, 144, 141],
    [39, 173, 129],
    [92, 200, 99],
    [170, 220, 50],
    [253, 231, 37],
];

/// From below zero to above it: vermillion to blue of the palette of Okabe and Ito, through a light grey.
const DIVERGING: [[u8; 3]; 5] = [[166, 66, 0], [232, 150, 96], [240, 240, 240], [98, 176, 222], [0, 84, 140]];

/// Colours are one of this many, so that cells of one colour can share a path.
pub(crate) const LEVELS: usize = 64;

/// Which colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ramp {
    /// Dark to bright.
    Sequential,
    /// Two hues, with what means zero in the middle.
    Diverging,
}

impl Ramp {
    /// The level of a share between 0 and 1.
    pub(crate) fn level(share: f64) -> usize {
        ((share.clamp(0.0, 1.0) * LEVELS as f64) as usize).min(LEVELS - 1)
    }

    /// A level's colour.
    fn rgb(self, level: usize) -> [u8; 3] {
        let stops: &[[u8; 3]] = match self {
            Ramp::Sequential => &VIRIDIS,
            Ramp::Diverging => &DIVERGING,
        };
        let at = level.min(LEVELS - 1) as f64 / (LEVELS - 1) as f64 * (stops.len() - 1) as f64;
        let below = (at as usize).min(stops.len() - 2);
        let share = at - below as f64;
        let (a, b) = (stops[below], stops[below + 1]);
        std::array::from_fn(|c| (f64::from(a[c]) * (1.0 - share) + f64::from(b[c]) * share).round() as u8)
    }

    /// A level's colour as an attribute.
    pub(crate) fn colour(self, level: usize) -> String {
        let [r, g, b] = self.rgb(level);
        format!("#{r:02x}{g:02x}{b:02x}")
    }

    /// The class of text on a level: whichever of black and white stands out more (relative luminance, WCAG 2).
    pub(crate) fn ink(self, level: usize) -> &'static str {
        let linear = |c: u8| {
            let c = f64::from(c) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        let [r, g, b] = self.rgb(level).map(linear);
        if 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 { "black" } else { "white" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ramps_reach_their_ends() {
        assert_eq!(Ramp::Sequential.colour(0), "#440154");
        assert_eq!(Ramp::Sequential.colour(LEVELS - 1), "#fde725");
        assert_eq!(Ramp::Diverging.colour(usize::MAX), "#00548c");
        assert_eq!([Ramp::level(-1.0), Ramp::level(2.0), Ramp::level(f64::NAN)], [0, LEVELS - 1, 0]);
    }

    #[test]
    fn text_stands_out() {
        assert_eq!([Ramp::Sequential.ink(0), Ramp::Sequential.ink(LEVELS - 1)], ["white", "black"]);
        assert_eq!(Ramp::Diverging.ink(LEVELS / 2), "black");
    }
}
