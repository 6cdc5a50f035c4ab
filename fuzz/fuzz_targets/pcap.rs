//! Any file: read to its end or refused, never a panic, every frame within the file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: linecard_fuzz::pcap::Input<'_>| linecard_fuzz::pcap::run(input));
