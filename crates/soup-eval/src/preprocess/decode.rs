//! Encoded images to 8-bit grey or RGB, with Pillow's conversions.
//!
//! An image is opened first, which reads its header: then it is known what decoding takes ([`Opened::decode_bytes`]), and nothing of
//! that has been allocated.

use std::borrow::Cow;
use std::io::Cursor;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use soup_core::instead::instead;
use soup_core::{Error, Result};

use super::remarks::{REMARKS_MAX, remarks};
use super::whole::{self, Jpeg};
use super::{Pixels, colours, upright};

/// Longest side of an image, in pixels.
const SIDE_MAX: u32 = 1 << 15;
/// What the header of an image, and what lies beside its pixels (profiles, comments), may unpack to.
const HEADER_BYTES_MAX: u64 = 16 << 20;
/// Blocks of a JPEG are at most so many pixels wide and high, and whole ones are decoded.
const BLOCK_MAX: u64 = 32;
/// What decoders take for themselves, whatever they decode.
const DECODER_BYTES: u64 = 64 << 10;

/// An image whose header was read.
pub(super) struct Opened<'a> {
    decoder: Box<dyn ImageDecoder + 'a>,
    orientation: Orientation,
    color: ColorType,
    /// As it is stored.
    stored: (u64, u64),
    decode_bytes: u64,
    /// A PNG with a transparent colour of more or fewer than the 8 bits that pixels have here.
    odd: bool,
}

fn bad(error: image::ImageError) -> Error {
    Error::data("image cannot be decoded").with_source(error)
}

/// Characters of a text that a message shows.
const SHOWN_CHARS: usize = 60;

/// What bytes are that begin like no image.
fn no_image(bytes: &[u8]) -> String {
    if let Some(what) = instead(bytes) {
        return format!("it is {what}");
    }
    let start = &bytes[..bytes.len().min(4 * SHOWN_CHARS)];
    // A character may be cut off.
    let text = match std::str::from_utf8(start) {
        Ok(text) => Some(text),
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&start[..e.valid_up_to()]).ok(),
        Err(_) => None,
    };
    let shown = text.map(|text| text.chars().take(SHOWN_CHARS).collect::<String>());
    match shown.filter(|text| !text.contains(|c: char| c.is_control() && !c.is_whitespace())) {
        Some(text) if text.is_empty() => "there are no bytes".to_owned(),
        Some(text) => format!("it is a text, {text:?}: images have to be in the dataset themselves"),
        None => "it is neither PNG nor JPEG nor WebP".to_owned(),
    }
}

/// Reads the header of an image.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where it is not an image of a known format, has no pixels, or too many on one side.
pub(super) fn open(image: &[u8]) -> Result<Opened<'_>> {
    let jpeg = whole::jpeg(image);
    if jpeg.is_some_and(|jpeg| !jpeg.ended) {
        return Err(Error::data("image is truncated: its JPEG data has no end"));
    }
    let texts = remarks(image);
    if texts > REMARKS_MAX {
        return Err(Error::data(format!(
            "image has {texts} texts beside its pixels, expected at most {REMARKS_MAX}: remove them"
        )));
    }
    let readable = if jpeg.is_some() { colours::as_libjpeg(image)? } else { Cow::Borrowed(image) };
    let mut reader = ImageReader::new(Cursor::new(readable))
        .with_guessed_format()
        .map_err(|e| Error::data("image cannot be read").with_source(e))?;
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(SIDE_MAX), Some(SIDE_MAX));
    limits.max_alloc = Some(HEADER_BYTES_MAX);
    reader.limits(limits);
    let format = reader.format();
    if format.is_none() {
        return Err(Error::data(format!("image cannot be decoded: {}", no_image(image))));
    }
    let decoder = reader.into_decoder().map_err(bad)?;
    let orientation = upright::orientation(format, image)?;
    let color = decoder.color_type();
    if color == ColorType::L16 || color == ColorType::La16 && is_grey(image) {
        // Pillow clips them at 255, which leaves a white image; others keep the high byte.
        return Err(Error::data(
            "image has 16-bit grey pixels, which programs turn into 8 bits in different ways: convert it to 8 bits",
        ));
    }
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(Error::data("image has no pixels"));
    }
    let stored = (u64::from(width), u64::from(height));
    let own = own_bytes(format, jpeg, stored).saturating_add(image.len() as u64);
    let decode_bytes = decoder.total_bytes().saturating_add(own).saturating_add(DECODER_BYTES);
    let odd = format == Some(ImageFormat::Png) && color.has_alpha() && has_odd_bits(image);
    Ok(Opened { decoder: Box::new(decoder), orientation, color, stored, decode_bytes, odd })
}

/// Whether the pixels of a PNG are grey of fewer than 8 bits, or RGB of 16, without transparency of their own.
fn has_odd_bits(png: &[u8]) -> bool {
    // As in is_grey; the depth is before the kind of colours.
    matches!((png.get(24), png.get(25)), (Some(1 | 2 | 4), Some(0)) | (Some(16), Some(2)))
}

/// Whether the pixels of a PNG are grey without transparency of their own. With a level that is transparent (`tRNS`), which Pillow leaves
/// alone, they are decoded as if they had.
fn is_grey(png: &[u8]) -> bool {
    // After the signature, the first chunk's length and kind, width, height and depth.
    png.get(25) == Some(&0)
}

/// What the decoder of a format keeps beside the pixels that it gives.
fn own_bytes(format: Option<ImageFormat>, jpeg: Option<Jpeg>, (width, height): (u64, u64)) -> u64 {
    let (wide, high) = (width.next_multiple_of(BLOCK_MAX), height.next_multiple_of(BLOCK_MAX));
    match (format, jpeg) {
        // A row of blocks; or, where what belongs to a block is all over the file, the coefficients of all of them, in 16 bits.
        (_, Some(Jpeg { scattered: false, .. })) => wide * BLOCK_MAX * 16,
        (_, Some(Jpeg { components, .. })) => wide * high * 2 * u64::from(components.clamp(1, 4)),
        // Another picture with transparency, and for an animated one the canvas.
        (Some(ImageFormat::WebP), _) => wide * high * 8,
        // Two rows, of at most 8 bytes a pixel.
        _ => wide * 16,
    }
}

impl Opened<'_> {
    /// Width and height after it is turned upright.
    pub(super) fn size(&self) -> (usize, usize) {
        let (width, height) = (self.stored.0 as usize, self.stored.1 as usize);
        match self.orientation {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => (height, width),
            _ => (width, height),
        }
    }

    /// What it takes at most, in bytes, to come to pixels of so many channels.
    pub(super) fn decode_bytes(&self, channels: usize) -> u64 {
        let (pixels, decoded) = (self.stored.0 * self.stored.1, self.decoder.total_bytes());
        let turned = if self.orientation == Orientation::NoTransforms { 0 } else { 2 * decoded };
        // What is dropped is dropped in place.
        let converted = match (self.color, channels) {
            (ColorType::Rgb8 | ColorType::Rgba8, 3) | (ColorType::L8 | ColorType::La8, 1) => decoded,
            _ => decoded + decoded / 2 + pixels * channels as u64,
        };
        self.decode_bytes.max(turned).max(converted)
    }

    /// Decodes into 1 (grey) or 3 (RGB) channels; transparency is dropped, or what becomes RGB is laid `on_white`.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is corrupt, or has a transparent colour that programs find in different pixels.
    pub(super) fn decode(self, channels: usize, on_white: bool) -> Result<Pixels> {
        if on_white && self.odd {
            return Err(Error::data(
                "image has a transparent colour that is not of 8 bits, which programs find in different pixels: convert it to 8 bits",
            ));
        }
        let mut decoded = DynamicImage::from_decoder(self.decoder).map_err(bad)?;
        decoded.apply_orientation(self.orientation);
        let (width, height) = (decoded.width() as usize, decoded.height() as usize);
        let values = match channels {
            1 => grey(decoded),
            _ => rgb(decoded, on_white),
        };
        Ok(Pixels { width, height, channels, values })
    }
}

/// 16-bit values keep their high byte, as in Pillow.
fn high(values: &[u16]) -> Vec<u8> {
    values.iter().map(|v| (v >> 8) as u8).collect()
}

/// Without the last of every `of` channels, the transparency, which is dropped or laid `on_white`.
fn covered(mut values: Vec<u8>, of: usize, on_white: bool) -> Vec<u8> {
    if on_white {
        for pixel in values.chunks_exact_mut(of) {
            if let Some((alpha, colours)) = pixel.split_last_mut() {
                colours.iter_mut().for_each(|colour| *colour = blended(*colour, *alpha));
            }
        }
    }
    first(values, of, of - 1)
}

/// A colour on white, as Pillow's `alpha_composite` has it: in 7 fractional bits, and divided by 255 with shifts.
fn blended(colour: u8, alpha: u8) -> u8 {
    let over = u32::from(alpha) << 7;
    let sum = u32::from(colour) * over + 255 * ((255 << 7) - over) + (0x80 << 7);
    ((((sum >> 8) + sum) >> 8) >> 7) as u8
}

/// Keeps the first `keep` of every `of` channels.
fn first(mut values: Vec<u8>, of: usize, keep: usize) -> Vec<u8> {
    let pixels = values.len() / of;
    for pixel in 0..pixels {
        values.copy_within(pixel * of..pixel * of + keep, pixel * keep);
    }
    values.truncate(pixels * keep);
    values
}

/// Channels of 8 bits without transparency, which is dropped or laid `on_white`: 1 or 3, and which.
fn opaque(image: DynamicImage, on_white: bool) -> (usize, Vec<u8>) {
    match image {
        DynamicImage::ImageLuma8(i) => (1, i.into_raw()),
        DynamicImage::ImageLumaA8(i) => (1, covered(i.into_raw(), 2, on_white)),
        DynamicImage::ImageRgb8(i) => (3, i.into_raw()),
        DynamicImage::ImageRgba8(i) => (3, covered(i.into_raw(), 4, on_white)),
        DynamicImage::ImageLumaA16(i) => (1, covered(high(&i), 2, on_white)),
        DynamicImage::ImageRgb16(i) => (3, high(&i)),
        DynamicImage::ImageRgba16(i) => (3, covered(high(&i), 4, on_white)),
        other => (3, other.into_rgb8().into_raw()),
    }
}

fn rgb(image: DynamicImage, on_white: bool) -> Vec<u8> {
    match opaque(image, on_white) {
        (1, values) => {
            let mut out = Vec::with_capacity(3 * values.len());
            values.iter().for_each(|&v| out.extend([v; 3]));
            out
        }
        (_, values) => values,
    }
}

fn grey(image: DynamicImage) -> Vec<u8> {
    match opaque(image, false) {
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
    use std::io::Write;

    use super::*;

    #[test]
    fn grey_weights_are_pillows() {
        assert_eq!(luma([255, 255, 255]), 255);
        assert_eq!((luma([255, 0, 0]), luma([0, 255, 0]), luma([0, 0, 255])), (76, 150, 29));
    }

    /// A PNG of one pixel: its type of colours, its depth, a chunk before the pixels, and these as zlib stores them.
    fn png(colours: u8, extra: &[(&[u8; 4], &[u8])], pixels: &[u8]) -> Vec<u8> {
        let header = [0, 0, 0, 1, 0, 0, 0, 1, 16, colours, 0, 0, 0];
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(pixels).unwrap();
        let packed = packed.finish().unwrap();
        let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
        let (first, last) = ([(b"IHDR", &header[..])], [(b"IDAT", &packed[..]), (b"IEND", b"")]);
        for (kind, data) in first.iter().chain(extra).chain(&last) {
            out.extend((data.len() as u32).to_be_bytes());
            let mut sum = flate2::Crc::new();
            sum.update(*kind);
            sum.update(data);
            out.extend(*kind);
            out.extend(*data);
            out.extend(sum.sum().to_be_bytes());
        }
        out
    }

    #[test]
    fn grey_pixels_of_16_bits_are_refused() {
        let error = |png: &[u8]| open(png).err().unwrap().chain();
        assert!(error(&png(0, &[], &[0, 0x12, 0x34])).contains("16-bit grey"));
        assert!(error(&png(0, &[(b"tRNS", &[0, 7])], &[0, 0x12, 0x34])).contains("16-bit grey"));
        // Pillow keeps the high byte where there is transparency.
        let both = png(4, &[], &[0, 0x12, 0x34, 0xff, 0xff]);
        assert_eq!(open(&both).unwrap().decode(1, false).unwrap().values, [0x12]);
    }

    #[test]
    fn what_is_transparent_is_dropped_or_laid_on_white() {
        // As Pillow's alpha_composite has it.
        let on = [(10, 0), (10, 1), (10, 127), (10, 128), (200, 200), (0, 254), (77, 255)];
        assert_eq!(on.map(|(colour, alpha)| blended(colour, alpha)), [255, 254, 133, 132, 212, 1, 77]);
        let of = |png: &[u8], on_white: bool| open(png).unwrap().decode(3, on_white).map(|p| p.values);
        let rgba = png(6, &[], &[0, 10, 0, 200, 0, 0, 0, 128, 0]);
        assert_eq!(of(&rgba, false).unwrap(), [10, 200, 0]);
        assert_eq!(of(&rgba, true).unwrap(), [132, 227, 127]);
        // What becomes grey has no white under it.
        assert_eq!(open(&png(4, &[], &[0, 7, 0, 0, 0])).unwrap().decode(1, true).unwrap().values, [7]);
        // A colour of 16 bits that is transparent.
        let keyed = png(2, &[(b"tRNS", &[0, 1, 0, 2, 0, 3])], &[0, 0, 1, 0, 2, 0, 3]);
        assert_eq!(of(&keyed, false).unwrap(), [0, 0, 0]);
        assert!(of(&keyed, true).unwrap_err().chain().contains("a transparent colour that is not of 8 bits"));
    }

    #[test]
    fn what_is_no_image_is_an_error() {
        for bytes in [&b""[..], b"not an image at all", b"\x89PNG\r\n\x1a\n"] {
            assert_eq!(open(bytes).err().unwrap().kind(), soup_core::ErrorKind::Data);
        }
        let long = "\u{e9}".repeat(200);
        let cases: [(&[u8], &str); 7] = [
            (b"", "there are no bytes"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
                "a Git LFS pointer to one",
            ),
            (b"<!DOCTYPE html>", "a web page"),
            (b"https://example.org/\xc3\xa9.png", "a text, \"https://example.org/\u{e9}.png\""),
            (long.as_bytes(), "a text, \"\u{e9}"),
            (b"\0\x05\x16\x07", "neither PNG nor JPEG nor WebP"),
            (b"\xff\xfe\x80", "neither PNG nor JPEG nor WebP"),
        ];
        for (bytes, what) in cases {
            let error = open(bytes).err().unwrap().chain();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_png_of_texts_is_refused_before_they_are_read() {
        let text = b"\0\0\0\x03tEXtk\0v\0\0\0\0".repeat(REMARKS_MAX + 1);
        let error = open(&[&b"\x89PNG\r\n\x1a\n"[..], &text].concat()).err().unwrap().chain();
        assert!(error.contains("4097 texts beside its pixels"), "{error}");
    }
}
