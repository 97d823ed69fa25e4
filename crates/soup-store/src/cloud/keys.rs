//! Keys that are no path: `a//b`, `/a`, and the empty objects `a/` that some tools keep for folders.
//!
//! The store's client refuses a whole page of a listing for one of them, so they are cut out of the page before it sees it.

use object_store::path::Path;

use crate::cause::text_of;

/// Entries of a listing, and what names them: of S3 and Google's XML, and of Azure's.
const ENTRIES: [(&str, &str); 4] =
    [("Contents", "Key"), ("CommonPrefixes", "Prefix"), ("Blob", "Name"), ("BlobPrefix", "Name")];

/// The page without entries whose keys cannot be used, and the first such keys.
pub(super) fn usable(page: &str) -> (String, Vec<String>) {
    let (mut kept, mut odd) = (String::with_capacity(page.len()), Vec::new());
    let mut rest = page;
    while let Some((at, entry, name)) = next_entry(rest) {
        let Some(length) = rest[at..].find(&format!("</{entry}>")).map(|end| end + entry.len() + 3) else {
            break;
        };
        let element = &rest[at..at + length];
        let key = text_of(element, name).map(unescaped).unwrap_or_default();
        kept.push_str(&rest[..at]);
        let is_folder = entry.contains("Prefix");
        if is_usable(&key, is_folder) {
            kept.push_str(element);
        } else if !key.ends_with('/') || is_folder {
            odd.push(key);
        }
        rest = &rest[at + length..];
    }
    kept.push_str(rest);
    (kept, odd)
}

/// Where the next entry begins, its tag, and the tag of its key.
fn next_entry(text: &str) -> Option<(usize, &'static str, &'static str)> {
    let mut from = 0;
    while let Some(at) = text[from..].find('<').map(|at| from + at) {
        let tag = text[at + 1..].split(['>', ' ']).next().unwrap_or_default();
        if let Some((entry, name)) = ENTRIES.iter().find(|(entry, _)| *entry == tag) {
            return Some((at, entry, name));
        }
        from = at + 1;
    }
    None
}

fn is_usable(key: &str, is_folder: bool) -> bool {
    let path = if is_folder { key.strip_suffix('/').unwrap_or(key) } else { key };
    !path.is_empty() && !path.starts_with('/') && !path.ends_with('/') && Path::parse(path).is_ok()
}

/// XML's entities as what they stand for.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find(';').unwrap_or(0);
        let number = |digits: &str| match digits.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => digits.parse().ok(),
        };
        let entity = rest.get(1..end).unwrap_or_default();
        let stands_for = match entity {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            other => other.strip_prefix('#').and_then(number).and_then(char::from_u32),
        };
        match stands_for {
            Some(c) => {
                out.push(c);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_odd_key_does_not_spoil_a_page() {
        let page = |inside: &str| {
            format!("<?xml version=\"1.0\"?><ListBucketResult><Prefix>p/</Prefix>{inside}</ListBucketResult>")
        };
        let file = |key: &str| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>");
        let folder = |key: &str| format!("<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>");
        let good = [file("p/a%2Fb c+d"), file("p/a&amp;b"), folder("p/x/")].concat();
        let odd =
            [file("p//a"), folder("p//"), file("/p"), file("p/a&#x1;b"), file("p/../x"), file("p/")].concat();
        let (kept, left_out) = usable(&page(&[good.as_str(), &odd, &good].concat()));
        assert_eq!(kept, page(&[good.as_str(), &good].concat()));
        assert_eq!(left_out, ["p//a", "p//", "/p", "p/a\u{1}b", "p/../x"]);
        let azure = "<Blobs><Blob><Name>a//b</Name></Blob><Blob><Name>a</Name></Blob><BlobPrefix><Name>b/</Name></BlobPrefix></Blobs>";
        assert_eq!(usable(azure).0, azure.replace("<Blob><Name>a//b</Name></Blob>", ""));
        for text in ["", "<Contents>", "<Contents><Key>a", "&#;&x", "not XML"] {
            assert_eq!(usable(text).0, text);
        }
    }
}
