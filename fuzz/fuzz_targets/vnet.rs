//! Any virtio header before any frame: what it asks for is within the frame, what is cut has the length of the whole, and
//! checksums are finished in place; never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: linecard_fuzz::vnet::Input<'_>| linecard_fuzz::vnet::run(input));
