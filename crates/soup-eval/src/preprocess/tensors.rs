//! Resizing to the nearest pixel as torchvision does it with tensors (`nearest-exact`), where "fast" processors do: positions are in single
//! precision and multiplied out, so that where two pixels are as near, another one may be taken than by Pillow. (Other filters differ by a grey
//! level, and are Pillow's here.)

use super::Pixels;
use super::resize::pick;

/// `pixels` in `width` x `height`, none of them 0.
pub(super) fn nearest(pixels: &Pixels, width: usize, height: usize) -> Pixels {
    pick(pixels, &line(pixels.width, width), &line(pixels.height, height))
}

/// The source pixel of every target pixel of a line.
fn line(from: usize, to: usize) -> Vec<usize> {
    let scale = from as f32 / to as f32;
    (0..to).map(|target| (((target as f32 + 0.5) * scale) as usize).min(from - 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::resize::{self, Filter};
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
