//! Any sequence of operations on a ring of any size, from any start index, in every pairing of modes, against a deque.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: linecard_fuzz::ring::Input| linecard_fuzz::ring::run(input));
