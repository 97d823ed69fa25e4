//! Which colours a JPEG has. It may say so by a JFIF header, by Adobe's segment and by the names of its components; where these differ,
//! decoders do. libjpeg is followed, which Pillow decodes with.

use std::borrow::Cow;

use soup_core::{Error, Result};

use super::whole;

/// Where Adobe's segment says how colours were transformed: 0 not at all, 1 to YCbCr, 2 to YCCK.
const TRANSFORM: usize = 11;

/// What there is to say of `image`, a JPEG, to the decoder, so that it sees the colours that libjpeg sees.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where that cannot be said.
pub(super) fn as_libjpeg(image: &[u8]) -> Result<Cow<'_, [u8]>> {
    let (mut jfif, mut adobe, mut frame) = (false, None, &[][..]);
    for (marker, range) in whole::segments(image) {
        let data = &image[range.clone()];
        match marker {
            0xe0 => jfif |= data.len() >= 14 && data.starts_with(b"JFIF\0"),
            0xee if data.starts_with(b"Adobe") && data.len() > TRANSFORM => {
                adobe = Some((range.start + TRANSFORM, data[TRANSFORM]));
            }
            _ if whole::is_frame(marker) => frame = data,
            _ => {}
        }
    }
    // After precision, height, width and the number of components: three bytes each, the first is its name.
    let names: Vec<u8> = frame.get(6..).unwrap_or_default().iter().step_by(3).copied().collect();
    match (names.len(), adobe) {
        (3, Some((at, 0))) if jfif && names != b"RGB" => Ok(with(image, at, 1)),
        (4, Some((at, 1))) => Ok(with(image, at, 2)),
        (3, Some((_, 1..))) if names == b"RGB" => Err(differ()),
        (3, _) if jfif && names == b"RGB" => Err(differ()),
        _ => Ok(Cow::Borrowed(image)),
    }
}

fn with(image: &[u8], at: usize, byte: u8) -> Cow<'_, [u8]> {
    let mut image = image.to_vec();
    image[at] = byte;
    Cow::Owned(image)
}

fn differ() -> Error {
    Error::data(
        "image says in one place that its colours are YCbCr and in another that they are RGB, which programs follow in different ways: \
         convert it to PNG",
    )
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, Rgb, RgbImage};

    use super::super::decode;
    use super::*;

    /// A JPEG of one colour, with a JFIF header as encoders write it.
    fn example() -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        let picture = RgbImage::from_pixel(16, 16, Rgb([200, 30, 60]));
        picture.write_to(&mut out, ImageFormat::Jpeg).unwrap();
        out.into_inner()
    }

    fn with_adobe(jpeg: &[u8], transform: u8) -> Vec<u8> {
        let segment = [&b"\xff\xee\0\x0eAdobe\0d\0\0\0\0"[..], &[transform]].concat();
        [&jpeg[..2], &segment, &jpeg[2..]].concat()
    }

    fn without_jfif(mut jpeg: Vec<u8>) -> Vec<u8> {
        let at = jpeg.windows(4).position(|name| name == b"JFIF").unwrap();
        jpeg[at] = b'X';
        jpeg
    }

    fn named_rgb(mut jpeg: Vec<u8>) -> Vec<u8> {
        for marker in [[0xff, 0xc0], [0xff, 0xda]] {
            let at = jpeg.windows(2).position(|pair| pair == marker).unwrap();
            // Three bytes a component in a frame, two in a scan.
            let (first, step) = if marker[1] == 0xc0 { (at + 10, 3) } else { (at + 5, 2) };
            for (index, name) in b"RGB".iter().enumerate() {
                jpeg[first + step * index] = *name;
            }
        }
        jpeg
    }

    fn first_pixel(jpeg: &[u8]) -> [u8; 3] {
        let pixels = decode::open(jpeg).unwrap().decode(3, false).unwrap();
        pixels.values[..3].try_into().unwrap()
    }

    #[test]
    fn colours_are_those_of_libjpeg() {
        let whole = example();
        let near = |jpeg: &[u8], want: [u8; 3]| {
            let got = first_pixel(jpeg);
            assert!(got.iter().zip(want).all(|(got, want)| got.abs_diff(want) <= 3), "{got:?}, not {want:?}");
        };
        near(&whole, [200, 30, 60]);
        // Who has a JFIF header has YCbCr, whatever Adobe's segment says.
        near(&with_adobe(&whole, 0), [200, 30, 60]);
        near(&with_adobe(&whole, 1), [200, 30, 60]);
        // What is YCbCr here, taken for RGB.
        near(&without_jfif(with_adobe(&whole, 0)), [84, 114, 211]);
        near(&without_jfif(named_rgb(whole)), [84, 114, 211]);
    }

    #[test]
    fn names_of_components_that_say_otherwise_are_refused() {
        let error = |jpeg: &[u8]| decode::open(jpeg).err().unwrap().chain();
        let named = named_rgb(example());
        assert!(error(&named).contains("YCbCr and in another that they are RGB"));
        assert!(error(&without_jfif(with_adobe(&named, 1))).contains("RGB"));
    }

    #[test]
    fn four_components_are_ycck_by_adobes_segment() {
        let mut jpeg =
            b"\xff\xd8\xff\xee\0\x0eAdobe\0d\0\0\0\0\x01\xff\xc0\0\x14\x08\0\x08\0\x08\x04".to_vec();
        jpeg.extend(b"\x01\x11\0\x02\x11\0\x03\x11\0\x04\x11\0\xff\xda");
        assert_eq!(as_libjpeg(&jpeg).unwrap()[17], 2);
        jpeg[17] = 0;
        assert_eq!(as_libjpeg(&jpeg).unwrap()[17], 0);
    }
}
