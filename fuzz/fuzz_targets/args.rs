//! Any device argument and any EAL argument: taken or refused with one sentence, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: linecard_fuzz::args::Input<'_>| linecard_fuzz::args::run(input));
