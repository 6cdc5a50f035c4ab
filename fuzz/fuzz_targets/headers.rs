//! Any frame: parsed within its bounds, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: linecard_fuzz::headers::Input<'_>| linecard_fuzz::headers::run(input));
