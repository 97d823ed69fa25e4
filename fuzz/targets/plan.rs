//! Plans of runs, as a state keeps them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| soup_coordinator::fuzzing::plan(bytes));
