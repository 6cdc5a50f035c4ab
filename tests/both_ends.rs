//! The port contract over a vhost-user socket: our frontend with our backend behind it, and the reverse, on every ring.

use std::sync::atomic::{AtomicU32, Ordering};

use linecard::pmd::contract::{Ends, Far, Limits, Link};
use linecard::pmd::{DevArgs, Device, Driver, ProbeContext};
use linecard::vhost_user::VhostDriver;
use linecard::virtio_user::VirtioUser;

static VHOST: VhostDriver = VhostDriver::new();
static VIRTIO_USER: VirtioUser = VirtioUser::new();

/// A frontend and a backend on a socket of their own.
fn both(front: &ProbeContext, back: &ProbeContext, options: &str) -> (Box<dyn Device>, Box<dyn Device>) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("linecard-ends-{}-{}.sock", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
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
    linecard::pmd::contract_tests!(super::Front("mrg_rxbuf=1,in_order=0"));
}
mod front_split_in_order {
    linecard::pmd::contract_tests!(super::Front("mrg_rxbuf=0,in_order=1"));
}
mod front_packed_mergeable {
    linecard::pmd::contract_tests!(super::Front("packed_vq=1,mrg_rxbuf=1,in_order=0"));
}
mod front_packed_in_order {
    linecard::pmd::contract_tests!(super::Front("packed_vq=1,mrg_rxbuf=0,in_order=1"));
}
mod back_split_mergeable {
    linecard::pmd::contract_tests!(super::Back("mrg_rxbuf=1,in_order=0"));
}
mod back_split_in_order {
    linecard::pmd::contract_tests!(super::Back("mrg_rxbuf=0,in_order=1"));
}
mod back_packed_mergeable {
    linecard::pmd::contract_tests!(super::Back("packed_vq=1,mrg_rxbuf=1,in_order=0"));
}
mod back_packed_in_order {
    linecard::pmd::contract_tests!(super::Back("packed_vq=1,mrg_rxbuf=0,in_order=1"));
}

/// Sleepers are woken around index 65 536 of every kind of ring, at both ends.
mod sleepers {
    use linecard::pmd::contract::{Link, wakes_after};

    use super::{Back, Front};

    const OPTIONS: [&str; 4] =
        ["in_order=0", "in_order=1", "packed_vq=1,in_order=0", "packed_vq=1,in_order=1"];

    fn cross_a_lap(link: impl Fn(&'static str) -> Box<dyn Link>) {
        for options in OPTIONS {
            wakes_after(&*link(options), 65_536 - 700, 1_400);
        }
    }

    #[test]
    fn of_the_frontend_cross_a_lap() {
        cross_a_lap(|options| Box::new(Front(options)));
    }

    #[test]
    fn of_the_backend_cross_a_lap() {
        cross_a_lap(|options| Box::new(Back(options)));
    }
}
