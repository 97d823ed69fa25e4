//! Chunks, of which a PNG and a WebP consist: each has a kind of four letters, a length, and so many bytes.

use std::ops::Range;

/// Begins a PNG.
pub(super) const PNG: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
/// What begins a WebP: `RIFF`, a length, `WEBP`.
const WEBP_BYTES: usize = 12;
/// A checksum is behind what is in a chunk of a PNG.
const CHECKSUM_BYTES: usize = 4;

/// The chunks of a PNG: what each is, and where what is in it would be; the last one may be cut off.
pub(super) fn of_png(image: &[u8]) -> impl Iterator<Item = ([u8; 4], Range<usize>)> {
    walk(image, PNG.len(), |length, kind| (kind, u32::from_be_bytes(length), |bytes| bytes + CHECKSUM_BYTES))
}

/// The same of a WebP, whose chunks have an even length.
pub(super) fn of_webp(image: &[u8]) -> impl Iterator<Item = ([u8; 4], Range<usize>)> {
    walk(image, WEBP_BYTES, |kind, length| (kind, u32::from_le_bytes(length), |bytes| bytes + bytes % 2))
}

/// What the eight bytes in front of a chunk say: its kind, how many bytes are in it, and how many they are with what is behind them.
type Head = ([u8; 4], u32, fn(usize) -> usize);

fn walk(
    image: &[u8],
    mut at: usize,
    head: fn([u8; 4], [u8; 4]) -> Head,
) -> impl Iterator<Item = ([u8; 4], Range<usize>)> {
    std::iter::from_fn(move || {
        let &[a, b, c, d, e, f, g, h] = image.get(at..at.checked_add(8)?)? else { return None };
        let (kind, length, padded) = head([a, b, c, d], [e, f, g, h]);
        let (start, length) = (at + 8, length as usize);
        at = start.saturating_add(padded(length));
        Some((kind, start..start.saturating_add(length)))
    })
}
