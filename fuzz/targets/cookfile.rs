//! Cook files.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| soupctl::fuzzing::cook_file(text));
