//! How many texts are in a PNG beside its pixels. The decoder keeps each as two strings, and counts only their letters: millions of short
//! ones fit into what it may take, and into many times that in memory.

use super::chunks;

/// Most texts: programs write a handful.
pub(super) const REMARKS_MAX: usize = 4096;

/// The texts in `bytes`, if they are a PNG; as far as chunks follow each other.
pub(super) fn remarks(bytes: &[u8]) -> usize {
    if !bytes.starts_with(&chunks::PNG) {
        return 0;
    }
    chunks::of_png(bytes).filter(|(kind, _)| matches!(kind, b"tEXt" | b"zTXt" | b"iTXt")).count()
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
            &chunks::PNG[..],
            &chunk(b"IHDR", &[0; 13]),
            &text,
            &chunk(b"zTXt", &[]),
            &chunk(b"IDAT", b"tEXt"),
            &text,
        ]
        .concat();
        assert_eq!(remarks(&all), 3);
        assert_eq!(remarks(&[&chunks::PNG[..], &text.repeat(REMARKS_MAX + 1)].concat()), REMARKS_MAX + 1);
        // What is cut, and what claims more than there is, ends it.
        assert_eq!(remarks(&all[..all.len() - 14]), 2);
        assert_eq!(remarks(&[&chunks::PNG[..], &[0xff; 4], b"tEXt", &text].concat()), 1);
        assert_eq!(remarks(&text), 0);
        assert_eq!(remarks(b""), 0);
    }
}
