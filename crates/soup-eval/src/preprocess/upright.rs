//! Which way up an image is, as Pillow's `ImageOps.exif_transpose` finds it, and with it the datasets library: by its EXIF data, and by
//! its XMP where these say nothing.
//!
//! Containers keep both in several places, some after the pixels, and decoders of pixels do not know all of them; so they are looked for
//! here, from segment to segment, without a copy but of what is packed or in several parts, which has a limit.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::ZlibDecoder;
use image::ImageFormat;
use image::metadata::Orientation;
use soup_core::{Error, Result};

use super::{chunks, whole};

/// What EXIF data in several parts may come to.
const EXIF_BYTES_MAX: usize = 16 << 20;
/// What a packed text may unpack to; Pillow refuses more.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Before EXIF data in a JPEG, and elsewhere where somebody copied it with them.
const EXIF: &[u8] = b"Exif\0\0";
/// Before XMP in a JPEG.
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
/// Keywords of texts in a PNG.
const XMP_TEXT: &[u8] = b"XML:com.adobe.xmp";
const PROFILE_TEXT: &[u8] = b"Raw profile type exif";

/// What an image says about itself.
#[derive(Default)]
struct Said<'a> {
    exif: Option<Cow<'a, [u8]>>,
    xmp: Option<Cow<'a, [u8]>>,
}

/// How the pixels of an image have to be turned.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where it says so in a way that is not followed.
pub(super) fn orientation(format: Option<ImageFormat>, image: &[u8]) -> Result<Orientation> {
    let said = match format {
        Some(ImageFormat::Jpeg) => jpeg(image)?,
        Some(ImageFormat::Png) => png(image)?,
        Some(ImageFormat::WebP) => webp(image),
        _ => Said::default(),
    };
    let exif = said.exif.map_or(Ok(None), |exif| of_exif(&exif))?;
    let number = exif.or_else(|| of_xmp(&said.xmp?)).and_then(|number| u8::try_from(number).ok());
    // Other numbers mean nothing.
    Ok(number.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms))
}

/// The parts of the EXIF data make one, whose offsets count from the first; of several XMP segments the last one counts.
fn jpeg(image: &[u8]) -> Result<Said<'_>> {
    let mut said = Said::default();
    for (_, range) in whole::segments(image).filter(|(marker, _)| *marker == 0xe1) {
        let segment = &image[range];
        if let Some(part) = segment.strip_prefix(EXIF) {
            match &mut said.exif {
                None => said.exif = Some(Cow::Borrowed(part)),
                Some(exif) if exif.len() + part.len() > EXIF_BYTES_MAX => {
                    return Err(Error::data(format!(
                        "image has more than {EXIF_BYTES_MAX} bytes of EXIF data"
                    )));
                }
                Some(exif) => exif.to_mut().extend_from_slice(part),
            }
        } else if let Some(xmp) = segment.strip_prefix(XMP) {
            said.xmp = Some(Cow::Borrowed(xmp));
        }
    }
    Ok(said)
}

/// Of several the last one counts, also after the pixels, but not after those of an animation's first picture.
fn png(image: &[u8]) -> Result<Said<'_>> {
    let (mut exif, mut profile, mut xmp) = (None, None, None);
    let (mut animated, mut pixels) = (false, false);
    let whole = chunks::of_png(image).map_while(|(kind, range)| Some((kind, image.get(range)?)));
    for (kind, data) in whole {
        match &kind {
            b"IEND" => break,
            b"fcTL" if animated && pixels => break,
            b"acTL" => animated = true,
            b"IDAT" | b"fdAT" => pixels = true,
            b"eXIf" => exif = Some(data),
            b"tEXt" | b"zTXt" | b"iTXt" => {
                if let Some(text) = text(kind, data) {
                    match text.keyword {
                        XMP_TEXT => xmp = Some(text),
                        PROFILE_TEXT => profile = Some(text),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let exif = match (exif, profile) {
        (Some(exif), _) => Some(Cow::Borrowed(exif)),
        (None, Some(profile)) => profile_bytes(&profile.unpacked()?).map(Cow::Owned),
        (None, None) => None,
    };
    Ok(Said { exif, xmp: xmp.map(|xmp| xmp.unpacked()).transpose()? })
}

/// What the flags of the header do not announce is not there.
fn webp(image: &[u8]) -> Said<'_> {
    let (mut said, mut flags) = (Said::default(), 0);
    let size = image.get(4..8).and_then(|size| Some(u32::from_le_bytes(size.try_into().ok()?)));
    let end = size.map_or(0, |size| image.len().min((size as usize).saturating_add(8)));
    let image = &image[..end];
    let whole = chunks::of_webp(image).map_while(|(kind, range)| Some((kind, image.get(range)?)));
    for (kind, data) in whole {
        let place = match &kind {
            b"VP8X" => {
                flags = data.first().copied().unwrap_or(0);
                continue;
            }
            b"EXIF" if flags & 0x08 != 0 => &mut said.exif,
            b"XMP " if flags & 0x04 != 0 => &mut said.xmp,
            _ => continue,
        };
        place.get_or_insert(Cow::Borrowed(data));
    }
    said
}

/// A text in a PNG.
struct Text<'a> {
    keyword: &'a [u8],
    value: &'a [u8],
    packed: bool,
}

/// What a chunk of text has, where it has one.
fn text(kind: [u8; 4], data: &[u8]) -> Option<Text<'_>> {
    let split = |data: &'_ [u8]| data.iter().position(|&byte| byte == 0);
    let at = split(data)?;
    let (keyword, rest) = (&data[..at], &data[at + 1..]);
    Some(match (&kind, rest) {
        (b"tEXt", value) => Text { keyword, value, packed: false },
        (b"zTXt", [0, value @ ..]) => Text { keyword, value, packed: true },
        (b"iTXt", [packed, method, rest @ ..]) if *packed == 0 || *method == 0 => {
            // The language, and the keyword in it.
            let rest = &rest[split(rest)? + 1..];
            Text { keyword, value: &rest[split(rest)? + 1..], packed: *packed != 0 }
        }
        _ => return None,
    })
}

impl<'a> Text<'a> {
    /// The text; empty where it is packed and broken.
    fn unpacked(&self) -> Result<Cow<'a, [u8]>> {
        if !self.packed {
            return Ok(Cow::Borrowed(self.value));
        }
        let mut text = Vec::new();
        if ZlibDecoder::new(self.value).take(TEXT_BYTES_MAX + 1).read_to_end(&mut text).is_err() {
            text.clear();
        }
        if text.len() as u64 > TEXT_BYTES_MAX {
            let keyword = String::from_utf8_lossy(self.keyword);
            return Err(Error::data(format!(
                "image has a text {keyword:?} of more than {TEXT_BYTES_MAX} bytes"
            )));
        }
        Ok(Cow::Owned(text))
    }
}

/// The bytes of a profile that is a text: three lines, and hexadecimal digits.
fn profile_bytes(text: &[u8]) -> Option<Vec<u8>> {
    let digits =
        text.split(|&byte| byte == b'\n').skip(3).flatten().filter(|byte| !byte.is_ascii_whitespace());
    let digits: Option<Vec<u8>> =
        digits.map(|&byte| (byte as char).to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// The orientation in EXIF data, where it is there: a TIFF whose first directory has it; 0, which means nothing, where it is no TIFF.
fn of_exif(exif: &[u8]) -> Result<Option<i64>> {
    let exif = exif.strip_prefix(EXIF).unwrap_or(exif);
    let exif = exif.strip_prefix(EXIF).unwrap_or(exif);
    let big = match exif.get(..4) {
        Some(b"MM\0*" | b"MM*\0") => true,
        Some(b"II*\0" | b"II\0*") => false,
        _ => return Ok((!exif.is_empty()).then_some(0)),
    };
    let tiff = Tiff { bytes: exif, big };
    let Some(directory) = tiff.long(4).map(|at| at as usize) else { return Ok(Some(0)) };
    let Some(count) = tiff.short(directory) else { return Ok(None) };
    let mut found = None;
    for entry in 0..usize::from(count) {
        let at = directory + 2 + 12 * entry;
        let Some(tag) = tiff.short(at) else { break };
        if tag != 0x112 {
            continue;
        }
        match (tiff.number(at)?, found) {
            (Some(number), Some(before)) if number != before => {
                return Err(Error::data(format!(
                    "image has the orientations {before} and {number} in its EXIF data"
                )));
            }
            (number, before) => found = before.or(number),
        }
    }
    Ok(found)
}

/// EXIF data, of one byte order.
struct Tiff<'a> {
    bytes: &'a [u8],
    big: bool,
}

impl Tiff<'_> {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn short(&self, at: usize) -> Option<u16> {
        let bytes = self.array(at)?;
        Some(if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let bytes = self.array(at)?;
        Some(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// The whole number in the entry at `at`, or the first of them; 0, which means nothing, where there is something else.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is a number of a kind that is not read here.
    fn number(&self, at: usize) -> Result<Option<i64>> {
        let (Some(kind), Some(count)) = (self.short(at + 2), self.long(at + 4)) else { return Ok(None) };
        let size: u64 = match kind {
            3 | 8 => 2,
            4 | 9 | 13 => 4,
            // Bytes and texts are no numbers.
            1 | 2 | 7 if count > 0 => return Ok(Some(0)),
            5 | 6 | 10 | 11 | 12 | 16 if count > 0 => {
                return Err(Error::data(format!(
                    "image has an orientation of type {kind} in its EXIF data, expected a whole number (3 or 4)"
                )));
            }
            _ => return Ok(None),
        };
        let value = match size * u64::from(count) {
            0 => return Ok(None),
            1..=4 => Some(at + 8),
            _ => self.long(at + 8).map(|at| at as usize),
        };
        Ok(value.and_then(|at| match kind {
            3 => self.short(at).map(i64::from),
            8 => self.short(at).map(|v| i64::from(v.cast_signed())),
            9 => self.long(at).map(|v| i64::from(v.cast_signed())),
            _ => self.long(at).map(i64::from),
        }))
    }
}

/// The first orientation in XMP: an attribute's or an element's, of one digit.
fn of_xmp(xmp: &[u8]) -> Option<i64> {
    const NAME: &[u8] = b"tiff:Orientation";
    let mut rest = xmp;
    while let Some(found) = rest.windows(NAME.len()).position(|name| name == NAME) {
        rest = &rest[found + NAME.len()..];
        if let [b'=', b'"', digit @ b'0'..=b'9', ..] | [b'>', digit @ b'0'..=b'9', ..] = rest {
            return Some(i64::from(digit - b'0'));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    /// EXIF data with an orientation: its type, how many there are, and the four bytes of its value.
    fn exif_of(kind: u16, count: u32, value: [u8; 4]) -> Vec<u8> {
        let mut out = b"II*\0\x08\0\0\0\x01\0\x12\x01".to_vec();
        out.extend(kind.to_le_bytes());
        out.extend(count.to_le_bytes());
        out.extend(value);
        out.extend([0; 4]);
        out
    }

    fn exif(number: u8) -> Vec<u8> {
        exif_of(3, 1, [number, 0, 0, 0])
    }

    /// EXIF data of a directory that is empty.
    const NO_EXIF: &[u8] = b"II*\0\x08\0\0\0\0\0\0\0\0\0";

    fn xmp(number: u8) -> Vec<u8> {
        format!("<rdf:Description tiff:Orientation=\"{number}\"/>").into_bytes()
    }

    /// A JPEG of these APP1 segments, as far as it is looked at.
    fn jpeg(segments: &[&[&[u8]]]) -> Vec<u8> {
        let mut out = b"\xff\xd8\xff\xe0\0\x04JF".to_vec();
        for segment in segments {
            let body = segment.concat();
            out.extend([0xff, 0xe1]);
            out.extend(((body.len() + 2) as u16).to_be_bytes());
            out.extend(body);
        }
        out.extend(b"\xff\xda\0\x02");
        out
    }

    fn png(parts: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
        for (kind, data) in parts {
            out.extend((data.len() as u32).to_be_bytes());
            out.extend(*kind);
            out.extend(*data);
            out.extend([0; 4]);
        }
        out
    }

    fn webp(flags: u8, parts: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut body = b"WEBP".to_vec();
        let header = [flags, 0, 0, 0, 6, 0, 0, 4, 0, 0];
        for (kind, data) in [(b"VP8X", &header[..])].iter().chain(parts) {
            body.extend(*kind);
            body.extend((data.len() as u32).to_le_bytes());
            body.extend(*data);
            body.resize(body.len().next_multiple_of(2), 0);
        }
        [&b"RIFF"[..], &(body.len() as u32).to_le_bytes(), &body].concat()
    }

    /// The orientation that Pillow finds, 1 to 8.
    fn check(format: ImageFormat, image: &[u8], want: u8) {
        let got = orientation(Some(format), image).unwrap();
        assert_eq!(got.to_exif(), want, "{}", image.escape_ascii());
    }

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut out = ZlibEncoder::new(Vec::new(), Compression::default());
        out.write_all(text).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn exif_data_say_it_in_several_types() {
        let check = |kind, count, value, want| {
            check(ImageFormat::Jpeg, &jpeg(&[&[EXIF, &exif_of(kind, count, value)]]), want);
        };
        for number in 1..=8 {
            check(3, 1, [number, 0, 0, 0], number);
        }
        for nothing in [0, 9] {
            check(3, 1, [nothing, 0, 0, 0], 1);
        }
        for kind in [4, 8, 9, 13] {
            check(kind, 1, [6, 0, 0, 0], 6);
        }
        for kind in [1, 2, 7, 99] {
            check(kind, 1, [6, 0, 0, 0], 1);
        }
        check(3, 2, [6, 0, 3, 0], 6);
        check(3, 0, [6, 0, 0, 0], 1);
        // Three of them lie elsewhere.
        let far = [&exif_of(3, 3, [26, 0, 0, 0])[..], &[6, 0, 1, 0, 1, 0]].concat();
        super::tests::check(ImageFormat::Jpeg, &jpeg(&[&[EXIF, &far]]), 6);
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        super::tests::check(ImageFormat::Jpeg, &jpeg(&[&[EXIF, big]]), 6);
    }

    #[test]
    fn what_is_not_followed_is_refused() {
        let error = |image: &[u8], format| orientation(Some(format), image).unwrap_err().chain();
        let rational = jpeg(&[&[EXIF, &exif_of(5, 1, [26, 0, 0, 0])]]);
        assert!(error(&rational, ImageFormat::Jpeg).contains("an orientation of type 5 in its EXIF data"));
        let mut two = exif(6);
        two[8] = 2;
        two.truncate(two.len() - 4);
        two.extend(&exif(3)[10..]);
        assert!(error(&jpeg(&[&[EXIF, &two]]), ImageFormat::Jpeg).contains("orientations 6 and 3"));
        let large = [PROFILE_TEXT, b"\0\0", &packed(&vec![0; 2 << 20])].concat();
        let large = png(&[(b"zTXt", &large)]);
        assert!(error(&large, ImageFormat::Png).contains("exif\" of more than 1048576 bytes"));
    }

    #[test]
    fn the_first_of_a_jpegs_exif_data_counts_and_the_last_of_its_xmp() {
        let check = |segments: &[&[&[u8]]], want| check(ImageFormat::Jpeg, &jpeg(segments), want);
        check(&[&[EXIF, &exif(3)], &[EXIF, &exif(6)]], 3);
        check(&[&[EXIF, NO_EXIF], &[EXIF, &exif(6)]], 1);
        check(&[&[EXIF, &exif(6)[..14]], &[EXIF, &exif(6)[14..]]], 6);
        check(&[&[EXIF, EXIF, &exif(6)]], 6);
        check(&[&[XMP, &xmp(6)], &[XMP, &xmp(3)]], 3);
        check(&[&[XMP, b"<tiff:Orientation>6</tiff:Orientation>"]], 6);
        check(&[&[XMP, b"tiff:Orientation=\"x\" tiff:Orientation=\"8\""]], 8);
        check(&[&[XMP, b"tiff:Orientation='8'"]], 1);
        check(&[&[b"http://ns.adobe.com/xmp/extension/\0", &xmp(6)]], 1);
    }

    #[test]
    fn xmp_counts_where_exif_data_say_nothing() {
        let check = |exif: &[u8], want| {
            check(ImageFormat::Jpeg, &jpeg(&[&[XMP, &xmp(6)], &[EXIF, exif]]), want);
        };
        check(b"", 6);
        check(NO_EXIF, 6);
        check(&exif(3), 3);
        check(&exif(0), 1);
        check(&exif_of(1, 1, [3, 0, 0, 0]), 1);
        check(b"junkjunkjunk", 1);
    }

    #[test]
    fn a_png_has_it_in_many_places() {
        let check = |parts: &[(&[u8; 4], &[u8])], want| check(ImageFormat::Png, &png(parts), want);
        let pixels: (&[u8; 4], &[u8]) = (b"IDAT", b"");
        check(&[(b"eXIf", &exif(6)), pixels], 6);
        check(&[pixels, (b"eXIf", &exif(6)), (b"IEND", b"")], 6);
        check(&[pixels, (b"IEND", b""), (b"eXIf", &exif(6))], 1);
        check(&[(b"eXIf", &[EXIF, &exif(6)].concat()), pixels], 6);
        check(&[(b"eXIf", &exif(6)), pixels, (b"eXIf", &exif(3))], 3);
        let frames: (&[u8; 4], &[u8]) = (b"fcTL", b"");
        check(&[(b"acTL", b""), frames, pixels, (b"eXIf", &exif(6)), frames], 6);
        check(&[(b"acTL", b""), frames, pixels, frames, (b"eXIf", &exif(6))], 1);

        let hex: String = [EXIF, &exif(6)].concat().iter().map(|byte| format!("{byte:02x}")).collect();
        let profile = format!("\nexif\n      32\n{}\n{}\n", &hex[..20], &hex[20..]);
        let plain = [PROFILE_TEXT, b"\0", profile.as_bytes()].concat();
        let zipped = [PROFILE_TEXT, b"\0\0", &packed(profile.as_bytes())].concat();
        check(&[(b"tEXt", &plain), pixels], 6);
        check(&[(b"zTXt", &zipped), pixels], 6);
        check(&[(b"eXIf", &exif(3)), (b"zTXt", &zipped)], 3);
        check(&[(b"zTXt", &[PROFILE_TEXT, b"\0\0junk"].concat())], 1);
        check(&[(b"tEXt", &[b"Raw profile type APP1\0", profile.as_bytes()].concat())], 1);

        check(&[(b"iTXt", &[XMP_TEXT, b"\0\0\0\0\0", &xmp(6)].concat())], 6);
        check(&[pixels, (b"iTXt", &[XMP_TEXT, b"\0\x01\0en\0x\0", &packed(&xmp(6))].concat())], 6);
        check(&[(b"tEXt", &[XMP_TEXT, b"\0", &xmp(6)].concat())], 6);
        // Cut off.
        let whole = png(&[(b"eXIf", &exif(6))]);
        super::tests::check(ImageFormat::Png, &whole[..whole.len() - 6], 1);
    }

    #[test]
    fn a_webp_has_what_its_header_announces() {
        let check = |flags, parts: &[(&[u8; 4], &[u8])], want| {
            check(ImageFormat::WebP, &webp(flags, parts), want);
        };
        check(8, &[(b"VP8L", b"odd"), (b"EXIF", &exif(6))], 6);
        check(8, &[(b"EXIF", &[EXIF, &exif(6)].concat())], 6);
        check(8, &[(b"EXIF", &exif(6)), (b"EXIF", &exif(3))], 6);
        check(0, &[(b"EXIF", &exif(6))], 1);
        check(4, &[(b"XMP ", &xmp(6))], 6);
        check(8, &[(b"EXIF", NO_EXIF), (b"XMP ", &xmp(6))], 1);
        // What lies behind the end is not looked at.
        let mut beyond = webp(8, &[(b"EXIF", &exif(6))]);
        beyond[4] = 22;
        super::tests::check(ImageFormat::WebP, &beyond, 1);
    }
}
