//! Frontends that spend what the process has only so much of.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use linecard_lab::wait_until;
use linecard_vhost_user::{Backend, BackendConfig, Control, Limits, Mode, ProcessLimits};
use linecard_virtio::Features;
use linecard_wire::FrontendReq as Req;
use linecard_wire::payload::{MemTable, MemoryRegion, Payload};

use crate::bystander::{Held, Neighbours, alone, assert_traffic_flows, give};
use crate::common::{Frontend, GUEST, USER, memfd, socket_path};
use crate::traffic::Traffic;
use crate::waiting::{message, send_at_once};

const TIB: u64 = 1 << 40;

/// Bytes of addresses that this process uses.
fn addresses() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("proc");
    statm.split_whitespace().next().and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

/// More memory than fits together is refused before any of it is mapped.
#[test]
fn memory_beyond_the_limit_is_not_even_mapped() {
    let mut ports = Neighbours::new("beyond");
    let mut hostile = Frontend::connect(&ports.bad);
    hostile.negotiate(Features::empty());
    let sizes = [80 * TIB, 40 * TIB];
    let files = sizes.map(memfd);
    let regions = [0, 1].map(|n: usize| {
        let start = n as u64 * 90 * TIB;
        MemoryRegion { guest_addr: GUEST + start, size: sizes[n], user_addr: USER % TIB + start, offset: 0 }
    });
    let table = MemTable(regions.to_vec()).to_bytes();
    let (before, mut most) = (addresses(), 0);
    ports.assert_unnoticed(|| {
        for _ in 0..20 {
            hostile.refused(Req::SET_MEM_TABLE, &table, &[files[0].as_fd(), files[1].as_fd()]);
            most = most.max(addresses());
        }
    });
    assert!(most < before + TIB, "{} TiB were mapped", (most - before) / TIB);
    // What is allowed is taken.
    hostile.share_memory();
}

/// Tables of as much as may be shared, sent again and again: what is not unmapped yet counts.
#[test]
fn memory_that_is_not_unmapped_yet_counts() {
    let mut limits = Limits::default();
    limits.memory = TIB;
    let mut ports = Neighbours::with("again", limits);
    let mut hostile = Frontend::connect(&ports.bad);
    hostile.negotiate(Features::empty());
    let region = MemoryRegion { guest_addr: GUEST, size: TIB, user_addr: USER, offset: 0 };
    let table = MemTable(vec![region]).to_bytes();
    let (before, mut most, mut taken) = (addresses(), 0, 0);
    ports.assert_unnoticed(|| {
        for _ in 0..100 {
            let file = memfd(TIB);
            match hostile.ask(Req::SET_MEM_TABLE, &table, &[file.as_fd()]) {
                Ok(answer) => taken += u64::from(answer == 0),
                Err(error) => panic!("{error}"),
            }
            most = most.max(addresses());
        }
    });
    assert!(taken > 0);
    assert!(most < before + 3 * TIB, "{} TiB were mapped", (most - before) / TIB);
    // When it is unmapped, all is as before. The descriptors of tables that are refused until then are closed behind the
    // unmapping: with too many of them the connection ends, and there is another when they are closed.
    wait_until("a table is taken", || match hostile.ask(Req::SET_MEM_TABLE, &table, &[memfd(TIB).as_fd()]) {
        Ok(answer) => answer == 0,
        Err(_) => {
            hostile = Frontend::connect(&ports.bad);
            hostile.negotiate(Features::empty());
            false
        }
    });
}

/// Thirty-three frontends take all descriptors that they can, and give none back: the thirty-fourth has what it needs.
#[test]
fn thirty_three_hostile_frontends_leave_the_next_what_it_needs() {
    const HOSTILE: usize = 33;
    let test = "thirty_three_hostile_frontends_leave_the_next_what_it_needs";
    let Some(mut held) = Held::new(test, HOSTILE) else { return };
    let _alone = alone();
    let mut limits = ProcessLimits::of_this_process();
    limits.descriptors = 500;
    let control = Control::with_limits(limits);
    let null = std::fs::File::open("/dev/null").expect("there");
    let owner = message(Req::SET_OWNER, &[]);
    let mut traffic = Traffic::new(&control);
    let mut hostile = Vec::new();
    for event in held.events.drain(..) {
        let path = socket_path("greedy");
        let port = Backend::new(&control, BackendConfig::new("greedy", &path, Mode::Listen)).expect("a port");
        let socket = linecard_wire::socket::connect(&path).expect("it listens");
        give(&socket, Req::SET_OWNER, event);
        wait_until("it was refused", || !port.peer().connected());
        hostile.push((port, path));
    }
    // Each connection costs what came with its message.
    let flood = |path: &std::path::Path| -> Option<UnixStream> {
        let socket = linecard_wire::socket::connect(path).ok()?;
        send_at_once(&socket, &[&owner], 0, null.as_fd());
        Some(socket)
    };
    assert_traffic_flows(&mut traffic, || {
        for (_, path) in &hostile {
            let sockets: Vec<_> = (0..100).map_while(|_| flood(path)).collect();
            drop(sockets);
        }
    });
    let path = socket_path("modest");
    let port = Backend::new(&control, BackendConfig::new("modest", &path, Mode::Listen)).expect("a port");
    let mut modest = Frontend::connect(&path);
    modest.bring_up(Features::empty(), 256);
    assert!(port.peer().connected());
    drop(held);
    drop(hostile);
}
