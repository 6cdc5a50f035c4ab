//! Any environment and any standard input of the container plugin: taken or told, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: linecard_fuzz::cni::Input<'_>| linecard_fuzz::cni::run(input));
