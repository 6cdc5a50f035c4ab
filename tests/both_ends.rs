//! The port contract over a vhost-user socket: our frontend with our backend behind it, and the reverse, on every ring.

use std::sync::atomic::{AtomicU32, Ordering};

use linecard::pmd::{DevArgs, Device, Driver, ProbeContext};
use linecard::vhost_user::VhostDriver;
use linecard::virtio_user::VirtioUser;
use linecard_lab::contract::{Ends, Far, Limits, Link};

static VHOST: VhostDriver = VhostDriver::new();
static VIRTIO_USER: VirtioUser = VirtioUser::new();

/// A frontend and a backend on a socket of their own: a path and an abstract name in turns.
fn both(front: &ProbeContext, back: &ProbeContext, options: &str) -> (Box<dyn Device>, Box<dyn Device>) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("linecard-ends-{}-{number}.sock", std::process::id());
    let path =
        if number.is_multiple_of(2) { std::env::temp_dir().join(name) } else { format!("@{name}").into() };
    let args = |text: String| DevArgs::parse(&text).expect("well formed");
    let back_args = args(format!("net_vhost0,iface={},queues=2", path.display()));
    let front_args = args(format!("net_virtio_user0,path={},queues=2,{options}", path.display()));
    let backend = VHOST.probe(back, &back_args).expect("a backend");
    let frontend = VIRTIO_USER.probe(front, &front_args).expect("a frontend");
    (frontend, backend)
}

fn limits() -> Limits {
    Limits { len: 14..=1514, ..Limits::default() }
}

/// The frontend is tested, the backend is its far side.
struct Front(&'static str);

impl Link for Front {
    fn open(&self, near: &ProbeContext, far: &ProbeContext) -> Ends {
        let (near, far) = both(near, far, self.0);
        Ends { near, far: Far::port(far) }
    }

    fn limits(&self) -> Limits {
        limits()
    }
}

/// The backend is tested, the frontend is its far side.
struct Back(&'static str);

impl Link for Back {
    fn open(&self, near: &ProbeContext, far: &ProbeContext) -> Ends {
        let (far, near) = both(far, near, self.0);
        Ends { near, far: Far::port(far) }
    }

    fn limits(&self) -> Limits {
        limits()
    }
}

mod front_split_mergeable {
    linecard_lab::contract_tests!(super::Front("mrg_rxbuf=1,in_order=0"));
}
mod front_split_in_order {
    linecard_lab::contract_tests!(super::Front("mrg_rxbuf=0,in_order=1"));
}
mod front_packed_mergeable {
    linecard_lab::contract_tests!(super::Front("packed_vq=1,mrg_rxbuf=1,in_order=0"));
}
mod front_packed_in_order {
    linecard_lab::contract_tests!(super::Front("packed_vq=1,mrg_rxbuf=0,in_order=1"));
}
mod back_split_mergeable {
    linecard_lab::contract_tests!(super::Back("mrg_rxbuf=1,in_order=0"));
}
mod back_split_in_order {
    linecard_lab::contract_tests!(super::Back("mrg_rxbuf=0,in_order=1"));
}
mod back_packed_mergeable {
    linecard_lab::contract_tests!(super::Back("packed_vq=1,mrg_rxbuf=1,in_order=0"));
}
mod back_packed_in_order {
    linecard_lab::contract_tests!(super::Back("packed_vq=1,mrg_rxbuf=0,in_order=1"));
}
