//! Any frame: parsed within its bounds, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let layers = linecard_net::parse(frame);
    assert!(layers.payload_start() <= frame.len());
    let _ = linecard_net::parse::parse_ip(frame);
});
