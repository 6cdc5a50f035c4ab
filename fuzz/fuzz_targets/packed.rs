//! The packed ring: arbitrary operations against the oracle, and arbitrary bytes in every ring word.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: linecard_fuzz::virtqueue::Input| linecard_fuzz::virtqueue::packed(input));
