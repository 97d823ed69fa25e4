//! What lies under a file's name where the file should be: its pointer, or the page of a web server. Either is small, can be read, and is
//! nothing of what it is called.

use std::fmt::Display;

use crate::error::{Error, Result};

/// What begins a pointer of Git LFS.
const POINTER: &[u8] = b"version https://git-lfs";
/// What begins a web page, in lower case.
const PAGES: [&[u8]; 2] = [b"<!doctype html", b"<html"];
/// What may be before that.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// How many of a file's first bytes tell, whatever blanks come first.
pub const START_BYTES: usize = 512;

/// What a file is that begins like this, in words that follow "is", with what to do; `None` where nothing is known against it.
pub fn instead(start: &[u8]) -> Option<&'static str> {
    if start.starts_with(POINTER) {
        Some("a Git LFS pointer to one: run `git lfs pull` in its repository")
    } else if is_page(start) {
        Some("a web page: the download failed")
    } else {
        None
    }
}

/// Refuses what begins like this where that is something else than what it is called; `named` is that, for messages.
///
/// # Errors
/// [`Data`](crate::ErrorKind::Data) saying what it is.
pub fn check(named: impl Display, start: &[u8]) -> Result<()> {
    match instead(start) {
        None => Ok(()),
        Some(what) => Err(Error::data(format!("{named} is not what it is called but {what}"))),
    }
}

/// Whether what begins like this is a web page.
pub fn is_page(start: &[u8]) -> bool {
    let text = start.strip_prefix(BOM).unwrap_or(start).trim_ascii_start();
    PAGES.iter().any(|page| text.get(..page.len()).is_some_and(|t| t.eq_ignore_ascii_case(page)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_and_pages_are_told_from_files() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
        assert!(instead(pointer).unwrap().contains("git lfs pull"));
        for page in ["<!DOCTYPE html>", "<html>", "\u{feff}\n <!doctype HTML lang=x>", "<HTML>\n"] {
            assert!(
                is_page(page.as_bytes()) && instead(page.as_bytes()).unwrap().contains("web page"),
                "{page}"
            );
        }
        for file in ["", "{}", "version 2", "<s>\n</s>\n", "<!-- vocabulary", "<htm", "\u{feff}"] {
            assert_eq!(instead(file.as_bytes()), None, "{file}");
        }
    }
}
