//! Texts that others wrote, as they may be shown. A terminal obeys control characters, and whoever reads believes marks that turn the
//! direction of a text: of both it is spelled out that they are there.

use std::borrow::Cow;

/// Whether a terminal, or a reader's eye, takes a character for something else than a sign: controls but for ends of lines, and marks
/// of direction.
pub fn is_odd(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && c != '\n') || turns
}

/// `text` with what is odd in it spelled out by `spell`.
pub fn spelled<'a>(text: &'a str, spell: impl Fn(char) -> String) -> Cow<'a, str> {
    if !text.contains(is_odd) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_odd(c) {
            true => plain.push_str(&spell(c)),
            false => plain.push(c),
        }
    }
    Cow::Owned(plain)
}

/// `text` as it may be shown: what is odd in it is spelled out, as in `\u{1b}`.
pub fn plain(text: &str) -> Cow<'_, str> {
    spelled(text, |c| c.escape_unicode().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown() {
        assert_eq!(
            plain("a\u{1b}[31m\r\n\u{9b}b\u{202e}c\t"),
            "a\\u{1b}[31m\\u{d}\n\\u{9b}b\\u{202e}c\\u{9}"
        );
        assert!(matches!(plain("nothing odd: é, 漢, 👍\n"), Cow::Borrowed(_)));
    }
}
