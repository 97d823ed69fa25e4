//! The binary; everything is in the library, so that the end-to-end tests can build the same program.

fn main() -> std::process::ExitCode {
    soupctl::main()
}
