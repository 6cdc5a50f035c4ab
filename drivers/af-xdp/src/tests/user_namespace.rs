//! Root of a user namespace: what a rootless container has. It may open XDP sockets, but load no programs.

use super::*;

/// Tests ask [`available`](crate::available) whether they have to be skipped. The answer must be the one that
/// a port gets.
#[test]
fn a_user_namespace_is_enough() {
    let Some(lab) = Lab::in_user_namespace("a_user_namespace_is_enough") else { return };
    veth(&lab);
    let _tap = tap(&lab, "tap0");
    let wire = lab.wire("far");
    let context = context();
    let pool = pool(&context);
    let started = start(&context, &format!("net_af_xdp0,iface=near,netns={}", lab.path()), &pool);
    let error = match (lab.run(crate::available), started) {
        (Ok(()), Ok(mut port)) => {
            send(&mut port, [frame(&pool, 7, 60)]);
            wait_until("a frame", || wire.receive().is_some_and(|got| got.len() == 60));
            return drop(port.stop());
        }
        (Err(_), Err(error)) => error.to_string(),
        (available, started) => panic!("available: {available:?}, a port: {:?}", started.map(drop)),
    };
    assert!(error.starts_with("net_af_xdp0: loading the XDP program: Operation not permitted"), "{error}");
    assert!(error.contains("cap_bpf"), "{error}");
    expect_no_xdp(&lab, "near");
    assert_eq!(pool.stats().in_use, 0);
}
