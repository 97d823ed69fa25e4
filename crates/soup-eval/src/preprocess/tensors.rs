//! What processors that work on tensors (by torchvision) do in another way than those that work on PIL images: resizing, and the arithmetic
//! of normalisation.

use super::Pixels;
use super::resize::{Filter, pick, resize_tensor};

/// `pixels` in `width` x `height`, none of them 0, by a filter that there is for tensors.
pub(super) fn resize(pixels: &Pixels, width: usize, height: usize, filter: Filter) -> Pixels {
    match filter {
        Filter::Nearest => nearest(pixels, width, height),
        _ => resize_tensor(pixels, width, height, filter),
    }
}

/// The nearest pixel (`nearest-exact`): positions are in single precision and multiplied out, so that where two pixels are as near, another
/// one may be taken than by Pillow.
fn nearest(pixels: &Pixels, width: usize, height: usize) -> Pixels {
    pick(pixels, &line(pixels.width, width), &line(pixels.height, height))
}

/// The source pixel of every target pixel of a line.
fn line(from: usize, to: usize) -> Vec<usize> {
    let scale = from as f32 / to as f32;
    (0..to).map(|target| (((target as f32 + 0.5) * scale) as usize).min(from - 1)).collect()
}

/// The values of the 256 levels, all in f32: rescaled, less 1 where there is an offset, normalised by a mean and a deviation, and divided by
/// another deviation. Rescaling and normalisation are one step where nothing is between them.
pub(super) fn levels(
    rescale: Option<f64>,
    offset: bool,
    normalise: Option<(f64, f64)>,
    again: Option<f64>,
) -> [f32; 256] {
    std::array::from_fn(|level| {
        let value = level as f32;
        let value = match (rescale, normalise) {
            (Some(factor), Some((mean, std))) if !offset => {
                let inverse = (1.0 / factor) as f32;
                (value - mean as f32 * inverse) / (std as f32 * inverse)
            }
            _ => {
                let value = rescale.map_or(value, |factor| value * factor as f32);
                let value = if offset { value - 1.0 } else { value };
                normalise.map_or(value, |(mean, std)| (value - mean as f32) / std as f32)
            }
        };
        again.map_or(value, |std| value / std as f32)
    })
}

#[cfg(test)]
mod tests {
    use super::super::resize;
    use super::*;

    #[test]
    fn the_nearest_pixel_is_that_of_tensors() {
        let check = |from: usize, to: usize, tensors: &[u8], pillow: &[u8]| {
            let values = (0..from as u8).collect();
            let pixels = Pixels { width: from, height: 1, channels: 1, values };
            assert_eq!(nearest(&pixels, to, 1).values, tensors, "{from} {to}");
            assert_eq!(resize::resize(&pixels, to, 1, Filter::Nearest).values, pillow, "{from} {to}");
        };
        check(2, 7, &[0, 0, 0, 1, 1, 1, 1], &[0, 0, 0, 0, 1, 1, 1]);
        check(4, 6, &[0, 1, 1, 2, 3, 3], &[0, 1, 1, 2, 2, 3]);
        check(7, 3, &[1, 3, 5], &[1, 3, 5]);
        let tall = Pixels { width: 1, height: 2, channels: 3, values: vec![1, 2, 3, 4, 5, 6] };
        assert_eq!(nearest(&tall, 2, 1).values, [4, 5, 6, 4, 5, 6]);
    }
}
