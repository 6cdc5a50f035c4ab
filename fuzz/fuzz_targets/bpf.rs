//! Any filter text and any program: refused, or a program that ends, never a panic; what was compiled is a program that is
//! accepted again, and text made of a program is that program.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: linecard_fuzz::bpf::Input<'_>| linecard_fuzz::bpf::run(input));
