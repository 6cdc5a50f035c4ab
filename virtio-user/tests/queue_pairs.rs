//! A refusal of too many queues names an argument that would not be refused.

mod support;

use std::os::unix::net::UnixListener;

use linecard_pmd::{PortConfig, configure};
use support::{Backend, Bench, Place};

#[test]
fn no_more_queues_are_offered_than_the_backend_has() {
    let (bench, place) = (Bench::new(512), Place::new());
    let listener = UnixListener::bind(&place.0).expect("a socket");
    let peer = std::thread::spawn(move || {
        let mut backend = Backend::accept(&listener);
        backend.queue_num = 2;
        backend.until_gone();
    });
    let mut device = bench.probe(&place.arg()).expect("a device");
    for (asked, remedy) in
        [(2, "add queues=2 to its arguments"), (8, "add queues=2 to its arguments, and ask for 1 to 2")]
    {
        let refused = configure(device, PortConfig::default().rx_queues(asked)).err().expect("it has one");
        let want = format!("net_virtio_user0: {asked} receive queues requested, the device has 1; {remedy}");
        assert_eq!(refused.to_string(), want);
        device = refused.device;
    }
    drop(device);
    peer.join().expect("no panic");
}

/// A port that waits for its backend may ask for as many as its argument takes.
#[test]
fn a_port_that_waits_may_have_any_number() {
    let (bench, place) = (Bench::new(512), Place::new());
    let device = bench.probe(&format!("{},server=1", place.arg())).expect("a device");
    let refused = configure(device, PortConfig::default().tx_queues(1000)).err().expect("it has one");
    assert_eq!(
        refused.to_string(),
        "net_virtio_user0: 1000 transmit queues requested, the device has 1; add queues=128 to its arguments, and \
         ask for 1 to 128"
    );
}
