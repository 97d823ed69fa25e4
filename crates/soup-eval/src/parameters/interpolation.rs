//! Position embeddings for another grid of patches than the one that they were trained on.
//!
//! As in transformers, an embedding of the new grid is a weighted sum of 4 x 4 of the old one: bicubic convolution (Keys,
//! "Cubic convolution interpolation for digital image processing") with the constant [`A`], the grids' outer edges, not their
//! outermost patches, on each other (`align_corners=False`), and beyond an edge the patches at the edge. Some models have it
//! [antialiased](Resampling::Antialiased): with another constant, of as many more as the new grid is coarser, and nothing beyond an edge.
//! That is a linear map, of each axis on its own. Its weights are made once, in f32 as PyTorch makes them, and serve both ways:
//! embeddings go through the map, gradients through its transpose.

/// The constant of PyTorch's bicubic convolution,
const A: f32 = -0.75;
/// and where it is antialiased, which is Pillow's.
const A_ANTIALIASED: f32 = -0.5;

/// How the embeddings of a grid become those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resampling {
    /// Of 4 x 4 of them, however much coarser the new grid is.
    Plain,
    /// The same stretched over as many as one place of a coarser grid covers (`antialias=True`).
    Antialiased,
}

/// A map from the embeddings of one grid to those of another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Interpolation {
    /// Tokens for the whole: their embeddings come first and stay as they are.
    whole: usize,
    rows: Axis,
    columns: Axis,
}

/// The map along one axis.
#[derive(Clone, Debug, PartialEq)]
struct Axis {
    /// Positions on the old grid.
    from: usize,
    /// Of every position on the new one, those on the old one that it is a sum of, with their weights.
    taps: Vec<Vec<(usize, f32)>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// From the old grid to the new one.
    Forward,
    /// From the new grid to the old one, by the transpose.
    Transposed,
}

impl Interpolation {
    /// From rows and columns of patches to others; before them there are `whole` tokens for the whole.
    pub(crate) fn by(
        resampling: Resampling,
        whole: usize,
        from: (usize, usize),
        to: (usize, usize),
    ) -> Interpolation {
        let axis = match resampling {
            Resampling::Plain => Axis::new,
            Resampling::Antialiased => Axis::antialiased,
        };
        Interpolation { whole, rows: axis(from.0, to.0), columns: axis(from.1, to.1) }
    }

    /// The same, [plain](Resampling::Plain).
    #[cfg(test)]
    pub(crate) fn new(whole: usize, from: (usize, usize), to: (usize, usize)) -> Interpolation {
        Interpolation::by(Resampling::Plain, whole, from, to)
    }

    /// Tokens of the old grid.
    pub(crate) fn stored(&self) -> usize {
        self.whole + self.rows.from * self.columns.from
    }

    /// Tokens of the new grid.
    pub(crate) fn tokens(&self) -> usize {
        self.whole + self.rows.to() * self.columns.to()
    }

    /// The embeddings `[tokens, width]` of those that are stored, `[stored, width]`.
    pub(crate) fn apply(&self, stored: &[f32]) -> Vec<f32> {
        let width = stored.len() / self.stored();
        let (whole, patches) = stored.split_at(self.whole * width);
        // Columns first: so PyTorch adds.
        let wide = self.columns.map(patches, width, Way::Forward);
        let patches = self.rows.map(&wide, self.columns.to() * width, Way::Forward);
        [whole, &patches].concat()
    }

    /// The gradient `[stored, width]` of what is stored, by that of the embeddings, `[tokens, width]`.
    pub(crate) fn transposed(&self, gradient: &[f32]) -> Vec<f32> {
        let width = gradient.len() / self.tokens();
        let (whole, patches) = gradient.split_at(self.whole * width);
        let wide = self.rows.map(patches, self.columns.to() * width, Way::Transposed);
        let patches = self.columns.map(&wide, width, Way::Transposed);
        [whole, &patches].concat()
    }
}

impl Axis {
    fn new(from: usize, to: usize) -> Axis {
        let scale = from as f32 / to as f32;
        let taps = |position: usize| -> Vec<(usize, f32)> {
            let at = scale * (position as f32 + 0.5) - 0.5;
            let before = at.floor();
            let past = at - before;
            let weights = [far(A, past + 1.0), near(A, past), near(A, 1.0 - past), far(A, 2.0 - past)];
            let tap = |(nth, weight)| {
                // Grids are far smaller than 2^24.
                let old = (before as isize + nth as isize - 1).clamp(0, from as isize - 1);
                (old as usize, weight)
            };
            weights.into_iter().enumerate().map(tap).collect()
        };
        Axis { from, taps: (0..to).map(taps).collect() }
    }

    fn antialiased(from: usize, to: usize) -> Axis {
        let scale = from as f32 / to as f32;
        let stretch = scale.max(1.0);
        let taps = |position: usize| -> Vec<(usize, f32)> {
            let (centre, support) = (scale * (position as f32 + 0.5), 2.0 * stretch);
            // Truncated, as the original does; grids are far smaller than 2^24.
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let weight = |old: usize| match ((old as f32 - centre + 0.5) * (1.0 / stretch)).abs() {
                distance if distance < 1.0 => near(A_ANTIALIASED, distance),
                distance if distance < 2.0 => far(A_ANTIALIASED, distance),
                _ => 0.0,
            };
            let sum: f32 = (first..end).map(weight).sum();
            (first..end).map(|old| (old, weight(old) / sum)).collect()
        };
        Axis { from, taps: (0..to).map(taps).collect() }
    }

    /// Positions on the new grid.
    fn to(&self) -> usize {
        self.taps.len()
    }

    /// Maps this axis of `values`, `[.., positions, inner]`.
    fn map(&self, values: &[f32], inner: usize, way: Way) -> Vec<f32> {
        let (from, to) = match way {
            Way::Forward => (self.from, self.to()),
            Way::Transposed => (self.to(), self.from),
        };
        let mut out = vec![0.0; values.len() / from * to];
        for (values, out) in values.chunks_exact(from * inner).zip(out.chunks_exact_mut(to * inner)) {
            for (new, taps) in self.taps.iter().enumerate() {
                for &(old, weight) in taps {
                    let (read, written) = match way {
                        Way::Forward => (old, new),
                        Way::Transposed => (new, old),
                    };
                    let read = &values[read * inner..][..inner];
                    let written = &mut out[written * inner..][..inner];
                    written.iter_mut().zip(read).for_each(|(sum, value)| *sum += weight * value);
                }
            }
        }
        out
    }
}

/// The weight of what is `distance` away, up to 1, by the constant `a`.
fn near(a: f32, distance: f32) -> f32 {
    ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1.0
}

/// The weight of what is `distance` away, 1 to 2.
fn far(a: f32, distance: f32) -> f32 {
    ((a * distance - 5.0 * a) * distance + 8.0 * a) * distance - 4.0 * a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: (usize, usize), to: (usize, usize), values: &[f32], want: &[f64]) {
        let got = Interpolation::new(0, from, to).apply(values);
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() <= 4e-7 * want.abs().max(1.0), "{got} for {want}");
        }
    }

    /// What `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)` gives.
    #[test]
    fn values_are_pytorchs() {
        let squares: Vec<f32> = (0..16u8).map(|i| f32::from(i * i)).collect();
        let want =
            [4.001446723937988, 10.5, 21.174480438232422, 111.20921325683594, 141.75, 176.46676635742188];
        check((4, 4), (2, 3), &squares, &want);
        let want = [0.7395834922790527, -2.434028387069702, 2.5, 0.5, 4.260416507720947, 3.4340271949768066];
        check((2, 2), (3, 2), &[1.0, -2.0, 4.0, 3.0], &want);
        // Of image_size 518 at 224 pixels, patches of 14: the first weights.
        let first: Vec<f32> = (0..37u8).map(|i| f32::from(u8::from(i == 0))).collect();
        assert_eq!(Interpolation::new(0, (37, 1), (16, 1)).apply(&first)[0], 0.326_126_1);
        let third: Vec<f32> = (0..37u8).map(|i| f32::from(u8::from(i == 2))).collect();
        assert_eq!(Interpolation::new(0, (37, 1), (16, 1)).apply(&third)[0], -0.111_030_58);
    }

    #[test]
    fn weights_add_up_to_one() {
        for (from, to) in [(37, 16), (16, 37), (1, 5), (5, 1), (3, 3), (14, 13)] {
            for taps in
                [Axis::new(from, to), Axis::antialiased(from, to)].into_iter().flat_map(|axis| axis.taps)
            {
                let sum: f32 = taps.iter().map(|&(_, weight)| weight).sum();
                assert!((sum - 1.0).abs() < 1e-6, "{from} to {to}: {sum}");
            }
        }
    }

    #[test]
    fn the_same_grid_has_the_same_bits() {
        let values: Vec<f32> = (0..24u8).map(|i| f32::from(i) * 0.37 - 3.1).collect();
        assert_eq!(Interpolation::new(1, (1, 11), (1, 11)).apply(&values), values);
        assert_eq!(Interpolation::new(0, (4, 3), (4, 3)).apply(&values), values);
    }

    #[test]
    fn gradients_go_through_the_transpose() {
        for resampling in [Resampling::Plain, Resampling::Antialiased] {
            there_and_back(&Interpolation::by(resampling, 2, (4, 3), (2, 7)));
        }
    }

    fn there_and_back(map: &Interpolation) {
        assert_eq!((map.stored(), map.tokens()), (14, 16));
        let width = 3;
        let stored: Vec<f32> = (0..14 * width).map(|i| ((i * 37 % 11) as f32 - 5.0) / 8.0).collect();
        let gradient: Vec<f32> = (0..16 * width).map(|i| ((i * 23 % 13) as f32 - 6.0) / 8.0).collect();
        let product = |a: &[f32], b: &[f32]| -> f64 {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let (there, back) = (map.apply(&stored), map.transposed(&gradient));
        assert_eq!((&there[..2 * width], &back[..2 * width]), (&stored[..2 * width], &gradient[..2 * width]));
        let (one, other) = (product(&there, &gradient), product(&stored, &back));
        assert!((one - other).abs() < 1e-5, "{one} {other}");
    }
}
