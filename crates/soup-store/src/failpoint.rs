//! Places at which a test can have this process killed, as a machine that loses power would.
//!
//! With the feature `failpoints` and `SOUP_FAILPOINT=name:n` in the environment, the process gets SIGKILL when it reaches
//! `name` for the nth time: no destructor runs, nothing is flushed. Otherwise there is nothing here.

/// Marks the place `name`.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_name: &str) {}

/// Marks the place `name`, where a test can have a defect.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn trip(_name: &str) {}

/// Marks the place `name`, where a test can have a defect: as for [`reach`], with a panic in the place of the signal.
///
/// # Panics
/// If it is reached the nth time.
#[cfg(feature = "failpoints")]
pub fn trip(name: &str) {
    assert!(!is_due(name), "the defect of a test");
}

/// Marks the place `name`.
///
/// # Panics
/// If `SOUP_FAILPOINT` is not of the form `name:n`: a test that kills nothing would pass for no reason.
#[cfg(feature = "failpoints")]
pub fn reach(name: &str) {
    if is_due(name) {
        kill();
    }
}

/// Whether `name` is what a test wants, and is reached as often as it wants.
#[cfg(feature = "failpoints")]
fn is_due(name: &str) -> bool {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var("SOUP_FAILPOINT").ok().filter(|t| !t.is_empty())?;
        let parsed = text.rsplit_once(':').and_then(|(name, n)| Some((name.to_owned(), n.parse().ok()?)));
        match parsed {
            Some((name, n)) if n > 0 => Some((name, n)),
            _ => panic!("SOUP_FAILPOINT={text:?} is not of the form name:n"),
        }
    });
    static REACHED: AtomicU64 = AtomicU64::new(0);
    let Some((wanted, n)) = &*WANTED else { return false };
    name == wanted && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *n
}

/// Does not return.
#[cfg(feature = "failpoints")]
fn kill() {
    let kill = format!("kill -9 {}", std::process::id());
    let _ = std::process::Command::new("sh").args(["-c", &kill]).status();
    // Only without a shell.
    std::process::abort();
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use std::io::Write as _;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// Run by the test below, in a process of its own.
    #[test]
    #[ignore = "kills its process"]
    fn reaches() {
        for name in ["a", "b", "a", "b", "a"] {
            super::reach(name);
            // Not by `println!`, which the test harness may hold back.
            std::io::stdout().write_all(b"past\n").unwrap();
        }
    }

    #[test]
    fn the_nth_time_kills() {
        let run = |failpoint: &str| {
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "--nocapture", "failpoint::tests::reaches"])
                .env("SOUP_FAILPOINT", failpoint)
                .output()
                .unwrap();
            let passed = String::from_utf8(output.stdout).unwrap().matches("past").count();
            (output.status.signal(), output.status.success(), passed)
        };
        assert_eq!(run("a:2"), (Some(9), false, 2));
        assert_eq!(run("b:1"), (Some(9), false, 1));
        assert_eq!(run("a:4"), (None, true, 5));
        assert_eq!(run(""), (None, true, 5));
        assert_eq!(run("a"), (None, false, 0), "what cannot be read is no silent success");
    }
}
