//! Any sequence of operations on a switch's table of addresses, of any size and secret, against a map.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: linecard_fuzz::fdb::Input| linecard_fuzz::fdb::run(input));
