//! Any frame: parsed within its bounds; never a panic.

/// The input of one run.
pub type Input<'a> = &'a [u8];

/// Executes one run.
pub fn run(frame: Input<'_>) {
    let layers = linecard_net::parse(frame);
    assert!(layers.payload_start() <= frame.len());
    let _ = linecard_net::parse::parse_ip(frame);
}
