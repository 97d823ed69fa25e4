//! Whether a JPEG is whole. Decoders fill what is missing at the end of a truncated file with grey and say nothing; Pillow
//! refuses such a file, and so do we.
//!
//! A JPEG is a sequence of segments, each a marker (`FF` and a byte) and most with a length; after the marker of a scan come
//! its entropy-coded bytes, in which `FF` is followed by `00` or a restart marker. The last segment is `FF D9`. What follows
//! it belongs to nobody and may be anything.

use std::ops::Range;

/// Begins a JPEG.
const START: [u8; 2] = [0xff, 0xd8];
const END: u8 = 0xd9;
const SCAN: u8 = 0xda;

/// What the segments of a JPEG say of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Jpeg {
    /// Whether it ends at its end, and not before.
    pub(super) ended: bool,
    /// Whether what belongs to a block of pixels is spread over several scans: it is progressive, or has a scan for each component.
    pub(super) scattered: bool,
    /// Components of a pixel.
    pub(super) components: u8,
}

/// What there is to say of `bytes`, if they are a JPEG.
pub(super) fn jpeg(bytes: &[u8]) -> Option<Jpeg> {
    if !bytes.starts_with(&START) {
        return None;
    }
    let (mut jpeg, mut scans) = (Jpeg::default(), 0);
    for (marker, segment) in all_segments(bytes) {
        match marker {
            END => jpeg.ended = true,
            SCAN => scans += 1,
            _ if is_frame(marker) => {
                // After precision, height and width.
                let components = bytes.get(segment.start + 5).copied().unwrap_or(0);
                jpeg.components = components.max(jpeg.components);
                jpeg.scattered |= marker & 0x03 == 0x02;
            }
            _ => {}
        }
    }
    jpeg.scattered |= scans > 1;
    Some(jpeg)
}

/// The segments of a JPEG up to its first scan: their markers, and where what is in them is.
pub(super) fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, Range<usize>)> {
    let is_whole =
        |(marker, segment): &(u8, Range<usize>)| !matches!(*marker, END | SCAN) && segment.end <= bytes.len();
    all_segments(bytes).take_while(is_whole)
}

/// All segments of a JPEG, its end included, and where what is in them would be: the last one may be cut off.
fn all_segments(bytes: &[u8]) -> impl Iterator<Item = (u8, Range<usize>)> {
    let mut at = START.len();
    std::iter::from_fn(move || {
        loop {
            let (marker, after) = marker(bytes, at)?;
            match marker {
                END => {
                    at = bytes.len();
                    return Some((END, after..after));
                }
                // Markers without a length, those between the bytes of a scan among them.
                0x01 | 0xd0..=0xd8 => at = after,
                _ => {
                    let &[high, low] = bytes.get(after..after + 2)? else { return None };
                    at = after + usize::from(u16::from_be_bytes([high, low])).max(2);
                    return Some((marker, after + 2..at));
                }
            }
        }
    })
}

/// Whether a marker begins a frame. Those of progressive ones end in the bits 10.
pub(super) fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc)
}

/// The marker at or after `at`, and where it ends. Between segments there are the bytes of a scan, and fill bytes; what is there all the
/// same is skipped, as decoders do.
fn marker(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let rest = bytes.get(at..)?;
    let found = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff))?;
    Some((rest[found + 1], at + found + 2))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, Rgb, RgbImage};

    use super::*;

    fn is_truncated_jpeg(bytes: &[u8]) -> bool {
        jpeg(bytes).is_some_and(|jpeg| !jpeg.ended)
    }

    fn example() -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        let image = RgbImage::from_fn(61, 47, |x, y| Rgb([(x * 4) as u8, (y * 5) as u8, (x * y) as u8]));
        image.write_to(&mut out, ImageFormat::Jpeg).unwrap();
        out.into_inner()
    }

    #[test]
    fn a_jpeg_that_is_cut_anywhere_is_truncated() {
        let whole = example();
        assert!(!is_truncated_jpeg(&whole));
        for end in 2..whole.len() {
            assert!(is_truncated_jpeg(&whole[..end]), "cut at {end} of {}", whole.len());
        }
    }

    #[test]
    fn what_follows_the_end_does_not_matter() {
        for tail in [&b"\0\0\0"[..], b"garbage", b"\xff\xd8\xff"] {
            assert!(!is_truncated_jpeg(&[&example()[..], tail].concat()));
        }
    }

    #[test]
    fn a_thumbnail_in_a_segment_is_not_the_end() {
        // An APP1 segment that holds a whole JPEG of its own.
        let mut bytes = START.to_vec();
        let thumbnail = example();
        bytes.extend([0xff, 0xe1]);
        bytes.extend(((thumbnail.len() + 2) as u16).to_be_bytes());
        bytes.extend(&thumbnail);
        assert!(is_truncated_jpeg(&bytes));
        bytes.extend(&example()[2..]);
        assert!(!is_truncated_jpeg(&bytes));
    }

    #[test]
    fn other_formats_are_not_looked_at() {
        assert!(!is_truncated_jpeg(b"\x89PNG\r\n\x1a\n"));
        assert!(!is_truncated_jpeg(b""));
    }

    #[test]
    fn what_is_scattered_over_a_file_is_told_from_what_is_not() {
        let whole = example();
        assert_eq!(jpeg(&whole), Some(Jpeg { ended: true, scattered: false, components: 3 }));
        let frame = whole.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        let mut progressive = whole.clone();
        progressive[frame + 1] = 0xc2;
        assert!(jpeg(&progressive).unwrap().scattered);
        let scan = whole.windows(2).position(|pair| pair == [0xff, SCAN]).unwrap();
        let two_scans = [&whole[..whole.len() - 2], &whole[scan..]].concat();
        assert!(jpeg(&two_scans).unwrap().scattered);
        assert_eq!(jpeg(b"\x89PNG"), None);
    }
}
