//! Encoded images to 8-bit grey or RGB, with Pillow's conversions.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use soup_core::{Error, Result};

use super::{Pixels, whole};

/// Longest side of an image, in pixels.
const SIDE_MAX: u32 = 1 << 15;
/// Memory that decoding one image may take.
const DECODE_BYTES_MAX: u64 = 1 << 30;

/// Decodes `image` into 1 (grey) or 3 (RGB) channels; transparency is dropped.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where it is not an image of a known format, or too large.
pub(super) fn decode(image: &[u8], channels: usize) -> Result<Pixels> {
    let bad = |e: image::ImageError| Error::data("image cannot be decoded").with_source(e);
    let mut reader = ImageReader::new(Cursor::new(image))
        .with_guessed_format()
        .map_err(|e| Error::data("image cannot be read").with_source(e))?;
    if whole::is_truncated_jpeg(image) {
        return Err(Error::data("image is truncated: its JPEG data has no end"));
    }
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(SIDE_MAX), Some(SIDE_MAX));
    limits.max_alloc = Some(DECODE_BYTES_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(bad)?;
    let orientation = decoder.orientation().map_err(bad)?;
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(bad)?;
    if matches!(decoded, DynamicImage::ImageLuma16(_)) {
        // Pillow clips them at 255, which leaves a white image; others keep the high byte.
        return Err(Error::data(
            "image has 16-bit grey pixels, which programs turn into 8 bits in different ways: convert it to 8 bits",
        ));
    }
    decoded.apply_orientation(orientation);
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    if width == 0 || height == 0 {
        return Err(Error::data("image has no pixels"));
    }
    let values = match channels {
        1 => grey(decoded),
        _ => rgb(decoded),
    };
    Ok(Pixels { width, height, channels, values })
}

/// 16-bit values keep their high byte, as in Pillow.
fn high(values: &[u16]) -> Vec<u8> {
    values.iter().map(|v| (v >> 8) as u8).collect()
}

/// Keeps the first `keep` of every `of` channels.
fn first(values: &[u8], of: usize, keep: usize) -> Vec<u8> {
    values.chunks_exact(of).flat_map(|p| &p[..keep]).copied().collect()
}

/// Channels of 8 bits without transparency: 1 or 3, and which.
fn opaque(image: DynamicImage) -> (usize, Vec<u8>) {
    match image {
        DynamicImage::ImageLuma8(i) => (1, i.into_raw()),
        DynamicImage::ImageLumaA8(i) => (1, first(&i, 2, 1)),
        DynamicImage::ImageRgb8(i) => (3, i.into_raw()),
        DynamicImage::ImageRgba8(i) => (3, first(&i, 4, 3)),
        DynamicImage::ImageLumaA16(i) => (1, first(&high(&i), 2, 1)),
        DynamicImage::ImageRgb16(i) => (3, high(&i)),
        DynamicImage::ImageRgba16(i) => (3, first(&high(&i), 4, 3)),
        other => (3, other.into_rgb8().into_raw()),
    }
}

fn rgb(image: DynamicImage) -> Vec<u8> {
    match opaque(image) {
        (1, values) => values.iter().flat_map(|&v| [v; 3]).collect(),
        (_, values) => values,
    }
}

fn grey(image: DynamicImage) -> Vec<u8> {
    match opaque(image) {
        (1, values) => values,
        (_, values) => values.as_chunks::<3>().0.iter().map(|&p| luma(p)).collect(),
    }
}

/// ITU-R 601 in 16-bit fixed point, rounded: Pillow's `convert("L")`.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    let sum = u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000;
    (sum >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_weights_are_pillows() {
        assert_eq!(luma([255, 255, 255]), 255);
        assert_eq!((luma([255, 0, 0]), luma([0, 255, 0]), luma([0, 0, 255])), (76, 150, 29));
    }

    #[test]
    fn what_is_no_image_is_an_error() {
        for bytes in [&b""[..], b"not an image at all", b"\x89PNG\r\n\x1a\n"] {
            assert_eq!(decode(bytes, 3).unwrap_err().kind(), soup_core::ErrorKind::Data);
        }
    }
}
