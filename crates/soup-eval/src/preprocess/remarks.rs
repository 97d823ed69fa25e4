//! How many texts are in a PNG beside its pixels. The decoder keeps each as two strings, and counts only their letters: millions of short
//! ones fit into what it may take, and into many times that in memory.
//!
//! A PNG is a sequence of chunks, each a length, a name of four letters, so many bytes and a checksum.

/// Begins a PNG.
const START: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
/// Most texts: programs write a handful.
pub(super) const REMARKS_MAX: usize = 4096;

/// The texts in `bytes`, if they are a PNG; as far as chunks follow each other.
pub(super) fn remarks(bytes: &[u8]) -> usize {
    let Some(mut left) = bytes.strip_prefix(&START) else { return 0 };
    let mut count = 0;
    while let Some((&[a, b, c, d, ref name @ ..], rest)) = left.split_first_chunk::<8>() {
        count += usize::from(matches!(name, b"tEXt" | b"zTXt" | b"iTXt"));
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        left = rest.get(length.saturating_add(4)..).unwrap_or_default();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: &[u8; 4], bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes()[..], name, bytes, &[0; 4]].concat()
    }

    #[test]
    fn texts_are_counted_wherever_they_are() {
        let text = chunk(b"tEXt", b"k\0v");
        let all = [
            &START[..],
            &chunk(b"IHDR", &[0; 13]),
            &text,
            &chunk(b"zTXt", &[]),
            &chunk(b"IDAT", b"tEXt"),
            &text,
        ]
        .concat();
        assert_eq!(remarks(&all), 3);
        assert_eq!(remarks(&[&START[..], &text.repeat(REMARKS_MAX + 1)].concat()), REMARKS_MAX + 1);
        // What is cut, and what claims more than there is, ends it.
        assert_eq!(remarks(&all[..all.len() - 14]), 2);
        assert_eq!(remarks(&[&START[..], &[0xff; 4], b"tEXt", &text].concat()), 1);
        assert_eq!(remarks(&text), 0);
        assert_eq!(remarks(b""), 0);
    }
}
