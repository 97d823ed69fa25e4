//! The binary under test: `soupctl`, built where cargo tells these tests its path.

fn main() -> std::process::ExitCode {
    soupctl::main()
}
