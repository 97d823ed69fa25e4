//! Resizing as Pillow does it, bit for bit.
//!
//! A convolution with a filter whose support grows with the reduction, in two passes: along the rows, rounded to 8 bits,
//! then along the columns, or the other way round where that is less work ([`columns_first`]: from Pillow 13 on; versions before it always
//! begin with the rows). Weights are fixed point with 22 fractional bits. Nearest neighbour is a plain look-up.

use super::Pixels;

/// Longest side of a resized image.
pub const SIDE_MAX: usize = 1 << 15;

/// Fractional bits of a weight, at most: 32 less 8 for the pixel and 2 for the sum's overshoot.
const WEIGHT_BITS: u32 = 32 - 8 - 2;
/// Bits of a weight of tensors, without its sign.
const NARROW_BITS: u32 = 15;

/// Resampling filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Lanczos with three lobes.
    Lanczos,
    /// Triangle.
    Bilinear,
    /// Cubic with a = -0.5.
    Bicubic,
    /// Box: the mean of the covered pixels.
    Box,
    /// Hamming-windowed sinc.
    Hamming,
}

impl Filter {
    /// The filter of Pillow's numeric code (`resample` in `preprocessor_config.json`).
    pub fn from_code(code: u64) -> Option<Filter> {
        Some(match code {
            0 => Filter::Nearest,
            1 => Filter::Lanczos,
            2 => Filter::Bilinear,
            3 => Filter::Bicubic,
            4 => Filter::Box,
            5 => Filter::Hamming,
            _ => return None,
        })
    }

    /// Half the width of the filter, in source pixels at scale 1.
    fn support(self) -> f64 {
        match self {
            Filter::Nearest => 0.0,
            Filter::Box => 0.5,
            Filter::Bilinear | Filter::Hamming => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let a = x.abs();
        match self {
            // Half open, so that a pixel on the border of two boxes counts once.
            Filter::Nearest | Filter::Box => f64::from(x > -0.5 && x <= 0.5),
            Filter::Bilinear => (1.0 - a).max(0.0),
            Filter::Hamming if a == 0.0 => 1.0,
            Filter::Hamming if a >= 1.0 => 0.0,
            Filter::Hamming => {
                let t = a * std::f64::consts::PI;
                t.sin() / t * (0.54 + 0.46 * t.cos())
            }
            Filter::Bicubic => {
                const A: f64 = -0.5;
                if a < 1.0 {
                    ((A + 2.0) * a - (A + 3.0)) * a * a + 1.0
                } else if a < 2.0 {
                    (((a - 5.0) * a + 8.0) * a - 4.0) * A
                } else {
                    0.0
                }
            }
            Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Filter::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let t = x * std::f64::consts::PI;
    t.sin() / t
}

/// `pixels` in `width` x `height`, each from 1 to [`SIDE_MAX`].
pub fn resize(pixels: &Pixels, width: usize, height: usize, filter: Filter) -> Pixels {
    if filter == Filter::Nearest {
        return nearest(pixels, width, height);
    }
    let along = |pixels: Pixels| match width == pixels.width {
        true => pixels,
        false => rows(&pixels, &Taps::new(pixels.width, width, filter)),
    };
    let down = |pixels: Pixels| match height == pixels.height {
        true => pixels,
        false => columns(&pixels, &Taps::new(pixels.height, height, filter)),
    };
    match columns_first([pixels.width, pixels.height], [width, height]) {
        true => along(down(pixels.clone())),
        false => down(along(pixels.clone())),
    }
}

/// The same as torchvision does it with tensors on a processor that has AVX2, bit for bit, by the filters that it has (not the nearest pixel):
/// along the rows first, whatever the work, with weights of 16 bits.
pub(super) fn resize_tensor(pixels: &Pixels, width: usize, height: usize, filter: Filter) -> Pixels {
    let mut pixels = pixels.clone();
    if width != pixels.width {
        pixels = rows(&pixels, &Taps::narrow(pixels.width, width, filter));
    }
    if height != pixels.height {
        pixels = columns(&pixels, &Taps::narrow(pixels.height, height, filter));
    }
    pixels
}

/// Whether the pass along the columns comes first, from one width and height to another: where it leaves fewer rows, by more than twice
/// as many as columns are left out.
fn columns_first([width, height]: [usize; 2], to: [usize; 2]) -> bool {
    let wider = 2 * (width as i64 - to[0] as i64);
    to[1] < height && (height - to[1]) as i64 > wider
}

/// Which source pixels make up each target pixel of a line.
struct Taps {
    /// First source pixel and number of them, by target pixel.
    spans: Vec<(usize, usize)>,
    /// Their weights, laid end to end.
    weights: Vec<i32>,
    /// Fractional bits of these.
    bits: u32,
}

impl Taps {
    /// Pillow's.
    fn new(from: usize, to: usize, filter: Filter) -> Taps {
        let (spans, weights) = Taps::exact(from, to, filter);
        Taps::rounded(spans, &weights, WEIGHT_BITS)
    }

    /// Those of tensors: as many fractional bits as the largest weight leaves of [`NARROW_BITS`].
    fn narrow(from: usize, to: usize, filter: Filter) -> Taps {
        let (spans, weights) = Taps::exact(from, to, filter);
        let largest = weights.iter().copied().fold(0.0, f64::max);
        let fits = |bits: u32| 0.5 + largest * f64::from(1u32 << bits) < f64::from(1u32 << NARROW_BITS);
        let bits = (0..WEIGHT_BITS).find(|bits| !fits(bits + 1)).unwrap_or(WEIGHT_BITS);
        Taps::rounded(spans, &weights, bits)
    }

    fn rounded(spans: Vec<(usize, usize)>, weights: &[f64], bits: u32) -> Taps {
        Taps { spans, weights: weights.iter().map(|&weight| fixed(weight, bits)).collect(), bits }
    }

    /// The spans, and the weights before they are rounded.
    fn exact(from: usize, to: usize, filter: Filter) -> (Vec<(usize, usize)>, Vec<f64>) {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let (mut spans, mut weights) = (Vec::with_capacity(to), Vec::new());
        for target in 0..to {
            let centre = (target as f64 + 0.5) * scale;
            // Conversions truncate, and clamp what is negative to 0.
            let first = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let inverse = 1.0 / stretch;
            let line: Vec<f64> = (first..end)
                .map(|source| {
                    filter.weight(((source - first) as f64 + first as f64 - centre + 0.5) * inverse)
                })
                .collect();
            let total: f64 = line.iter().sum();
            let normalise = if total == 0.0 { 1.0 } else { 1.0 / total };
            weights.extend(line.iter().map(|w| w * normalise));
            spans.push((first, end - first));
        }
        (spans, weights)
    }

    /// For every target pixel: the first source pixel and the weights from there on.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let mut rest = self.weights.as_slice();
        self.spans.iter().map(move |&(first, count)| {
            let (weights, tail) = rest.split_at(count);
            rest = tail;
            (first, weights)
        })
    }
}

/// Rounds half away from zero to fixed point.
fn fixed(weight: f64, bits: u32) -> i32 {
    let scaled = weight * f64::from(1u32 << bits);
    (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

/// What a sum of weights with so many fractional bits begins with, so that it is rounded when they are cut off.
fn half(bits: u32) -> i32 {
    (1 << bits) >> 1
}

fn clip(sum: i32, bits: u32) -> u8 {
    (sum >> bits).clamp(0, 255) as u8
}

fn rows(pixels: &Pixels, taps: &Taps) -> Pixels {
    let (channels, width, bits) = (pixels.channels, taps.spans.len(), taps.bits);
    let mut values = Vec::with_capacity(width * pixels.height * channels);
    for row in pixels.values.chunks_exact(pixels.width * channels) {
        for (first, weights) in taps.iter() {
            for channel in 0..channels {
                let cells = row[first * channels + channel..].iter().step_by(channels);
                let sum = weights.iter().zip(cells).fold(half(bits), |s, (&w, &v)| s + w * i32::from(v));
                values.push(clip(sum, bits));
            }
        }
    }
    Pixels { width, height: pixels.height, channels, values }
}

fn columns(pixels: &Pixels, taps: &Taps) -> Pixels {
    let stride = pixels.width * pixels.channels;
    let mut values = Vec::with_capacity(stride * taps.spans.len());
    let mut sums = vec![0i32; stride];
    for (first, weights) in taps.iter() {
        sums.fill(half(taps.bits));
        for (row, &weight) in pixels.values[first * stride..].chunks_exact(stride).zip(weights) {
            for (sum, &v) in sums.iter_mut().zip(row) {
                *sum += weight * i32::from(v);
            }
        }
        values.extend(sums.iter().map(|&s| clip(s, taps.bits)));
    }
    Pixels { width: pixels.width, height: taps.spans.len(), channels: pixels.channels, values }
}

fn nearest(pixels: &Pixels, width: usize, height: usize) -> Pixels {
    pick(pixels, &nearest_line(pixels.width, width), &nearest_line(pixels.height, height))
}

/// The pixels in these columns of these rows, which are there.
pub(super) fn pick(pixels: &Pixels, columns: &[usize], rows: &[usize]) -> Pixels {
    let channels = pixels.channels;
    let mut values = Vec::with_capacity(columns.len() * rows.len() * channels);
    for row in rows {
        for column in columns {
            let at = (row * pixels.width + column) * channels;
            values.extend_from_slice(&pixels.values[at..at + channels]);
        }
    }
    Pixels { width: columns.len(), height: rows.len(), channels, values }
}

/// The source pixel of every target pixel of a line. The position is summed up, not multiplied out, as in Pillow.
fn nearest_line(from: usize, to: usize) -> Vec<usize> {
    let step = from as f64 / to as f64;
    let mut at = step * 0.5;
    (0..to)
        .map(|_| {
            let index = (at as usize).min(from - 1);
            at += step;
            index
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_a_line_add_up_to_one() {
        for filter in (1..6).filter_map(Filter::from_code) {
            for (from, to) in [(28, 14), (7, 28), (100, 99), (1, 5), (5, 1), (1000, 3)] {
                for (first, weights) in Taps::new(from, to, filter).iter() {
                    assert!(first + weights.len() <= from);
                    let sum: i32 = weights.iter().sum();
                    assert!(
                        (sum - (1 << WEIGHT_BITS)).abs() <= weights.len() as i32,
                        "{filter:?} {from} {to}"
                    );
                }
            }
        }
    }

    fn pattern(width: usize, height: usize) -> Pixels {
        let value = |at: usize| {
            let (x, y) = (at % width, at / width);
            ((x * x * 7 + y * y * 13 + x * y * 29) % 256) as u8
        };
        Pixels { width, height, channels: 1, values: (0..width * height).map(value).collect() }
    }

    /// Sizes before and after (width and height of both), a filter's code, and the pixels that come out.
    type Case = ([usize; 4], u64, &'static [u8]);

    #[track_caller]
    fn check(cases: [Case; 4], resize: fn(&Pixels, usize, usize, Filter) -> Pixels) {
        for ([width, height, to_width, to_height], code, want) in cases {
            let pixels = pattern(width, height);
            let got = resize(&pixels, to_width, to_height, Filter::from_code(code).unwrap());
            assert_eq!(got.values, want, "{width} x {height} to {to_width} x {to_height}");
        }
    }

    /// What Pillow 13 makes of the same pixels: the first two and the last one columns first.
    #[test]
    fn the_order_of_the_passes_is_that_of_pillow() {
        let cases: [Case; 4] = [
            ([5, 9, 4, 3], 2, &[44, 86, 105, 149, 142, 147, 116, 113, 120, 87, 49, 103]),
            (
                [3, 8, 5, 4],
                3,
                &[3, 12, 31, 63, 82, 88, 111, 145, 143, 139, 148, 152, 158, 155, 153, 159, 147, 122, 83, 60],
            ),
            ([9, 5, 3, 4], 3, &[18, 134, 166, 84, 133, 111, 133, 112, 124, 150, 119, 107]),
            ([6, 9, 4, 4], 2, &[28, 78, 123, 127, 123, 137, 114, 125, 148, 129, 107, 189, 105, 60, 58, 100]),
        ];
        check(cases, resize);
    }

    /// What torchvision 0.29 makes of the same pixels, as tensors.
    #[test]
    fn tensors_are_resized_as_torchvision_does() {
        let cases: [Case; 4] = [
            ([5, 9, 4, 3], 2, &[43, 86, 105, 148, 142, 147, 116, 113, 119, 87, 49, 102]),
            (
                [3, 8, 5, 4],
                3,
                &[3, 12, 31, 63, 82, 88, 111, 145, 144, 139, 149, 153, 158, 155, 152, 158, 146, 122, 83, 60],
            ),
            ([9, 5, 3, 4], 3, &[18, 134, 166, 84, 133, 111, 133, 112, 124, 150, 119, 107]),
            ([6, 9, 4, 4], 1, &[15, 65, 134, 130, 123, 158, 109, 111, 166, 128, 99, 215, 105, 46, 52, 101]),
        ];
        check(cases, resize_tensor);
    }

    #[test]
    fn one_colour_stays_one_colour() {
        let pixels = Pixels { width: 9, height: 5, channels: 3, values: vec![200; 135] };
        for filter in (0..6).filter_map(Filter::from_code) {
            let out = resize(&pixels, 4, 11, filter);
            assert_eq!((out.width, out.height, out.values), (4, 11, vec![200; 132]), "{filter:?}");
            if filter != Filter::Nearest {
                assert_eq!(resize_tensor(&pixels, 4, 11, filter).values, [200; 132], "{filter:?}");
            }
        }
    }
}
