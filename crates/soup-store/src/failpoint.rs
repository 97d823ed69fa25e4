//! Points at which a test can have a process killed: for real, with SIGKILL, by name and count.
//!
//! Without the feature `failpoints`, which only the tests' own build has, [`reach`] is empty.

/// With `SOUP_FAILPOINT=NAME:N` in the environment, kills this process the Nth time that it reaches the point `name`.
#[cfg(feature = "failpoints")]
pub fn reach(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static POINT: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var("SOUP_FAILPOINT").ok()?;
        let (name, count) = text.split_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    static REACHED: AtomicU64 = AtomicU64::new(0);
    let Some((point, count)) = &*POINT else { return };
    if point == name && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *count {
        let pid = std::process::id().to_string();
        // The signal ends this process before anything below matters.
        let _ = std::process::Command::new("kill").args(["-9", &pid]).status();
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}

/// Does nothing.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_: &str) {}
