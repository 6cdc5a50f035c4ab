//! A table of backends that lie, each by name, with what becomes of their port: it goes down and says why, or the packet is
//! dropped and counted, or nothing happens. The process goes on, its other port moves packets, and no buffer is lost.
//!
//! `tests/hostile.rs` has the answers over the socket and the used rings of split queues; here are the rest: packed rings,
//! wrap bits, packet headers, configuration space, the control queue, and answers that come late.

mod config;
mod control;
mod field;
mod headers;
mod known;
mod packed;
#[path = "../support/mod.rs"]
mod support;

use field::Bystander;

/// Those that are found out at once.
#[test]
fn liars_lose_their_own_port() {
    let mut bystander = Bystander::new();
    let mut cases = packed::lies(&mut bystander);
    cases += headers::headers_of("packed_vq=0,in_order=0", &mut bystander);
    cases += headers::headers_of("packed_vq=1,in_order=0", &mut bystander);
    cases += config::config_lies(&mut bystander);
    cases += config::config_answers(&mut bystander);
    assert!(cases >= 60, "{cases} cases");
    bystander.end();
}

/// Those that take a second or more, since somebody waits for an answer that does not come.
#[test]
fn liars_with_a_control_queue_lose_their_own_port() {
    let mut bystander = Bystander::new();
    let cases = control::control_lies(&mut bystander)
        + control::hashing_lies(&mut bystander)
        + config::late_answers(&mut bystander);
    assert!(cases >= 58, "{cases} cases");
    bystander.end();
}
