//! Root of a user namespace: what a rootless container has.

use rustix::net::sockopt;

use super::{Bench, frame, receive};
use linecard_lab::{Lab, wait_until};
use linecard_netdev::packet_socket::Socket;
use linecard_pmd::config::PortConfig;

/// Larger buffers than `rmem_max` and `wmem_max` take root of the first user namespace. Others get as much as
/// these allow, and ports and tests do with that.
#[test]
fn a_user_namespace_is_enough() {
    const WANTED: usize = 64 << 20;
    let Some(lab) = Lab::in_user_namespace("a_user_namespace_is_enough") else { return };
    lab.veth("near", "far");
    let [socket, other] = [0, 1].map(|_| lab.run(Socket::open).expect("a packet socket"));
    sockopt::set_socket_recv_buffer_size_force(&socket, WANTED).expect_err("this user may not do that");
    socket.keep_large(WANTED).expect("fewer bytes");
    socket.send_buffer(WANTED);
    // As much as a socket gets that asks for no more than it may have.
    sockopt::set_socket_recv_buffer_size(&other, WANTED).expect("fewer bytes");
    sockopt::set_socket_send_buffer_size(&other, WANTED).expect("fewer bytes");
    let sizes = |socket| (sockopt::socket_recv_buffer_size(socket), sockopt::socket_send_buffer_size(socket));
    assert_eq!(sizes(&socket), sizes(&other));
    let bench = Bench::new();
    let text = format!("net_af_packet0,iface=near,netns={}", lab.path());
    let mut port = bench.start(&text, PortConfig::default());
    let wire = lab.wire("far");
    bench.send(&mut port, &[frame(1, 100)]);
    wait_until("a frame", || wire.receive().is_some_and(|got| got == frame(1, 100)));
    assert!(wire.send(&frame(2, 200)));
    let got = receive(&mut port, 0, 1);
    assert_eq!(got.iter().map(super::bytes).collect::<Vec<_>>(), [frame(2, 200)]);
    drop((got, port.stop()));
    bench.finish();
}
