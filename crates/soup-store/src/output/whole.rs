//! Whether an output is still what its run made visible: everybody who may write there may also have changed it since.

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use soup_core::Result;
use soup_core::journal::sha256_hex;

use super::MANIFEST_FILE;
use crate::location::Location;
use crate::read;

/// Files up to so many bytes are read and compared with their digests; of larger ones the size has to do.
const DIGESTED_BYTES_MAX: u64 = 64 << 20;
/// Files looked at at the same time.
const FILES_IN_FLIGHT: usize = 8;

/// A file as a manifest describes it.
struct Described<'a> {
    name: &'a str,
    bytes: u64,
    sha256: &'a str,
}

/// What is wrong with the output at `target`, by its `manifest`: the first file of the soup that is not there as it was written.
///
/// # Errors
/// What the store says.
pub async fn damage(target: &Location, manifest: &Value) -> Result<Option<String>> {
    let described = |file: &'_ Value| {
        let name = file["name"].as_str().filter(|name| !name.is_empty() && !name.contains('/'))?.to_owned();
        Some((name, file["bytes"].as_u64()?, file["sha256"].as_str()?.to_owned()))
    };
    let files =
        manifest["files"].as_array().map(|files| files.iter().map(described).collect::<Option<Vec<_>>>());
    let Some(Some(files)) = files else {
        return Ok(Some(format!("its {MANIFEST_FILE} does not say which files it has")));
    };
    let checks: Vec<_> = files
        .iter()
        .map(|(name, bytes, sha256)| damage_of(target, Described { name, bytes: *bytes, sha256 }))
        .collect();
    let mut checks = std::pin::pin!(stream::iter(checks).buffered(FILES_IN_FLIGHT));
    while let Some(damage) = checks.try_next().await? {
        if damage.is_some() {
            return Ok(damage);
        }
    }
    Ok(None)
}

async fn damage_of(target: &Location, file: Described<'_>) -> Result<Option<String>> {
    let Described { name, bytes, sha256 } = file;
    let place = target.join(name)?;
    let Some(found) = read::stat_if_exists(&place).await? else {
        return Ok(Some(format!("{name} is not there any more")));
    };
    if found.size_bytes != bytes {
        return Ok(Some(format!("{name} has {} bytes and not {bytes}", found.size_bytes)));
    }
    if bytes <= DIGESTED_BYTES_MAX {
        let content = read::read_small_if_exists(&place, DIGESTED_BYTES_MAX).await?;
        if content.is_none_or(|content| sha256_hex(&content) != sha256) {
            return Ok(Some(format!("{name} has another content")));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_was_changed_since_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let target = Location::local(dir.path()).unwrap();
        let file = |name: &str, content: &[u8]| {
            std::fs::write(dir.path().join(name), content).unwrap();
            json!({ "name": name, "bytes": content.len(), "sha256": sha256_hex(content) })
        };
        let manifest = json!({ "files": [file("a", b"one"), file("b", b"two")] });
        assert_eq!(damage(&target, &manifest).await.unwrap(), None);
        assert_eq!(damage(&target, &json!({ "files": [] })).await.unwrap(), None);
        for none in [json!(null), json!({ "files": [{ "name": "../a", "bytes": 3, "sha256": "" }] })] {
            assert!(damage(&target, &none).await.unwrap().unwrap().contains("does not say"));
        }
        std::fs::write(dir.path().join("b"), b"TWO").unwrap();
        assert_eq!(damage(&target, &manifest).await.unwrap().unwrap(), "b has another content");
        std::fs::write(dir.path().join("a"), b"").unwrap();
        assert_eq!(damage(&target, &manifest).await.unwrap().unwrap(), "a has 0 bytes and not 3");
        std::fs::remove_file(dir.path().join("a")).unwrap();
        assert_eq!(damage(&target, &manifest).await.unwrap().unwrap(), "a is not there any more");
    }
}
