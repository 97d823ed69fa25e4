//! Names that nobody else has, and nobody can foresee.

/// 128 random bits, in hexadecimal: no other process chooses the same, on this machine or another.
///
/// # Panics
/// Where the system has no randomness, as the standard library's hash maps do.
pub fn name() -> String {
    let half = || getrandom::u64().expect("the system's randomness");
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_name_comes_twice() {
        let names: std::collections::HashSet<String> = (0..1000).map(|_| super::name()).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|n| n.len() == 32 && n.bytes().all(|b| b.is_ascii_hexdigit())));
    }
}
