//! Any frame: parsed within its bounds, never a panic.

/// What one run is made of.
pub type Input<'a> = &'a [u8];

/// One run.
pub fn run(frame: Input<'_>) {
    let layers = linecard_net::parse(frame);
    assert!(layers.payload_start() <= frame.len());
    let _ = linecard_net::parse::parse_ip(frame);
}
