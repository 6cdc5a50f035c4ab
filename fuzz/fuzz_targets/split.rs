//! The split ring: arbitrary operations against the oracle, and arbitrary bytes in every ring word.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: linecard_fuzz::split::Input| linecard_fuzz::split::run(input));
