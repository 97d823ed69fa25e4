//! Ways for the fuzz targets in `fuzz/` into what reads foreign bytes and is nobody else's to call.

use std::path::Path;

use crate::cookfile::CookOptions;

/// What a cook file may hold: over nothing, and under nothing, it stays as it is.
///
/// # Panics
/// Where it does not.
pub fn cook_file(text: &str) {
    let Ok(mut options) = CookOptions::parse(text) else { return };
    if options.resolve(Path::new("/cooks"), None).is_err() {
        return;
    }
    let shown = |options: &CookOptions| format!("{options:?}");
    assert_eq!(shown(&options.clone().or(CookOptions::default())), shown(&options));
    assert_eq!(shown(&CookOptions::default().or(options.clone())), shown(&options));
    assert!(
        options.pool.iter().all(|url| url.is_empty() || url.contains("://") || Path::new(url).is_absolute())
    );
}
