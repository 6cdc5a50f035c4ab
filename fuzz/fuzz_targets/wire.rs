//! Anything on a vhost-user socket, cut anywhere, and anything as a payload: refused or decoded, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: linecard_fuzz::wire::Input| linecard_fuzz::wire::run(input));
