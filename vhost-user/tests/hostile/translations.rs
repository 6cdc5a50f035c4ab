//! Frontends that use their IOMMU against the port beside them.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use linecard_virtio::{Buffer, Features};
use linecard_wire::FrontendReq as Req;
use linecard_wire::payload::Payload;

use crate::bystander::Neighbours;
use crate::common::iommu::{IOVA, PAGE, invalidate, start, tell, update, with_iommu};
use crate::common::{Frontend, Guest, RING_AREA, USER, frame};

/// Requests of one attack.
const FLOOD: u64 = 1000;

fn neighbours(label: &str) -> Neighbours {
    Neighbours::of(label, with_iommu)
}

/// Both rings of a guest run.
fn run(ports: &Neighbours, features: Features) -> Guest {
    let (mut guest, mut iommu) = start(Frontend::connect(&ports.bad), features);
    let peer = ports.bad_port.as_ref().expect("it is there").peer();
    linecard_lab::wait_until("the rings run", || {
        iommu.serve(&mut guest.frontend);
        peer.link_up()
    });
    // Nobody reads what is asked from here on, and the channel stays open.
    std::mem::forget(iommu);
    guest
}

/// Translations told and taken back as fast as it goes, of pages that rings look for meanwhile; more than a port keeps.
#[test]
fn floods_of_updates_and_invalidations() {
    let mut ports = neighbours("floods");
    let mut guest = run(&ports, Features::empty());
    let mut n = 0;
    ports.assert_unnoticed(|| {
        for _ in 0..FLOOD {
            n += 1;
            let page = IOVA + RING_AREA as u64 + n * 13 % 5000 * PAGE;
            guest.frontend.good(Req::IOTLB_MSG, &update(page, PAGE, USER + n % 64 * PAGE, 3), &[]);
            if n.is_multiple_of(3) {
                guest.frontend.good(Req::IOTLB_MSG, &invalidate(page - 5 * PAGE, 11 * PAGE), &[]);
            }
            if n.is_multiple_of(64) {
                guest.send(&frame(1, 100));
                guest.tx.publish();
                guest.tx.take();
            }
        }
    });
    // Overlaps of all kinds, and ranges that are none.
    ports.assert_unnoticed(|| {
        for k in 0..FLOOD {
            n += 1;
            let first = IOVA + RING_AREA as u64 + (n * 7919) % (200 * PAGE);
            let told = update(first, 1 + n * 31 % (20 * PAGE), USER + n % (64 * PAGE), (n % 4) as u8);
            assert!(guest.frontend.ask(Req::IOTLB_MSG, &told, &[]).is_ok());
            if k.is_multiple_of(10) {
                let odd = [update(u64::MAX - 7, 16, USER, 3), update(n, u64::MAX, USER, 3), invalidate(n, 0)];
                for told in odd {
                    assert!(guest.frontend.ask(Req::IOTLB_MSG, &told, &[]).is_ok());
                }
            }
        }
    });
}

/// A ring that another page is missing of each time somebody looks, and a frontend that neither answers nor reads.
#[test]
fn questions_that_nobody_reads() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let mut ports = neighbours("unread");
        let mut guest = run(&ports, features);
        guest.tx.post(Buffer { addr: IOVA, len: 100, token: 0 });
        guest.tx.publish();
        let desc = guest.frontend.bytes(Frontend::ring_offset(1), 8);
        let mut n = 0_u64;
        ports.assert_unnoticed(|| {
            for _ in 0..200 * FLOOD {
                n += 1;
                desc.copy_from(&(n * 0x1_0001_7000).to_le_bytes());
                if n.is_multiple_of(64) {
                    std::thread::yield_now();
                }
            }
        });
        // The port is there for whoever asks it something.
        assert_eq!(guest.frontend.number(Req::GET_QUEUE_NUM), 1);
        assert_eq!(ports.bad_port.as_ref().expect("it is there").peer().counters()[3], ("ring_faults", 0));
    }
}

/// The pages of rings that are polled, taken back and told again and again.
#[test]
fn rings_that_lose_their_pages() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let mut ports = neighbours("rings");
        let mut guest = run(&ports, features);
        ports.assert_unnoticed(|| {
            for _ in 0..FLOOD / 20 {
                for index in 0..2 {
                    let first = IOVA + Frontend::ring_offset(index) as u64;
                    guest.frontend.good(Req::IOTLB_MSG, &invalidate(first, 1), &[]);
                    tell(&mut guest.frontend, first, 3);
                }
            }
        });
        // Elsewhere, in somebody else's ring, in what was never a ring.
        ports.assert_unnoticed(|| {
            for n in 0..FLOOD / 20 {
                let first = IOVA + Frontend::ring_offset((n % 2) as usize) as u64;
                let told = update(first, PAGE, USER + n * 37 % 4000 * PAGE, 3);
                assert!(guest.frontend.ask(Req::IOTLB_MSG, &told, &[]).is_ok());
            }
        });
    }
}

/// Channels of all kinds: one that is full, one that has nobody at its other end, the frontend's own connection.
#[test]
fn channels_that_are_none() {
    let mut ports = neighbours("channels");
    let mut guest = run(&ports, Features::empty());
    guest.tx.post(Buffer { addr: IOVA + RING_AREA as u64 * 3, len: 100, token: 0 });
    guest.tx.publish();
    let (full, _silent) = UnixStream::pair().expect("a pair");
    full.set_nonblocking(true).expect("possible");
    while std::io::Write::write(&mut &full, &[0; 4096]).is_ok() {}
    let (alone, gone) = UnixStream::pair().expect("a pair");
    drop(gone);
    let (listener, path) = {
        let path = crate::common::socket_path("listens");
        (std::os::unix::net::UnixListener::bind(&path).expect("a name"), path)
    };
    ports.assert_unnoticed(|| {
        for _ in 0..20 {
            for socket in [full.as_fd(), alone.as_fd()] {
                guest.frontend.good(Req::SET_BACKEND_REQ_FD, &[], &[socket]);
                guest.frontend.good(Req::IOTLB_MSG, &invalidate(IOVA + RING_AREA as u64 * 3, 1), &[]);
            }
            guest.frontend.refused(Req::SET_BACKEND_REQ_FD, &[], &[listener.as_fd()]);
        }
    });
    std::fs::remove_file(path).expect("its name");
    // A question to the frontend's own end comes back as a request that nobody made, and the connection ends.
    let own = guest.frontend.connection.socket().try_clone().expect("a copy");
    let payload = 0_u64.to_bytes();
    let _ = guest.frontend.ask(Req::SET_BACKEND_REQ_FD, &[], &[own.as_fd()]);
    let _ = guest.frontend.ask(Req::GET_FEATURES, &payload, &[]);
    ports.assert_greets();
}
