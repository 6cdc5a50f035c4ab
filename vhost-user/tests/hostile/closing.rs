//! Frontends whose descriptors do not close, over a connection that lives on.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use linecard_lab::wait_until;
use linecard_vhost_user::Limits;
use linecard_virtio::Features;
use linecard_wire::payload::{MemoryRegion, Payload, SingleRegion};
use linecard_wire::{FrontendReq as Req, Header, NEED_REPLY, VERSION};

use crate::bystander::{Held, Neighbours, give, let_it_look, thread_called};
use crate::common::{Frontend, GUEST, USER, open_fds};
use crate::waiting::{lingering, message, send_laden, send_urgent};

/// More than a port may hold: 128, and 6 for its queue pair.
const CEILING: usize = 134;

/// An eventfd that does not close lets all others of its port wait. The frontend goes on sending, and is told that each of
/// its requests was refused; when its port holds as many as it may, the connection ends.
#[test]
fn an_eventfd_whose_close_waits_costs_its_port_alone() {
    let Some(mut held) = Held::new("an_eventfd_whose_close_waits_costs_its_port_alone", 1) else { return };
    let mut ports = Neighbours::new("eventfd");
    let null = std::fs::File::open("/dev/null").expect("there");
    let region = MemoryRegion { guest_addr: GUEST, size: 4096, user_addr: USER, offset: 0 };
    let region = SingleRegion(region).to_bytes();
    let mut hostile = Frontend::connect(&ports.bad);
    hostile.negotiate(Features::empty());
    let before = open_fds();
    give(hostile.connection.socket(), Req::SET_OWNER, held.events.pop().expect("one"));
    let answer = hostile.connection.read_until(Instant::now() + Duration::from_secs(5)).expect("an answer");
    assert_eq!(u64::from_bytes(&answer.payload).expect("a number"), 1, "refused");
    let mut ended = false;
    ports.assert_unnoticed(|| {
        for _ in 0..200 {
            let many = [null.as_fd(); 3];
            let answers = [
                hostile.ask(Req::SET_OWNER, &[], &many),
                hostile.ask(Req::REM_MEM_REG, &region, &[null.as_fd()]),
            ];
            ended |= answers.iter().any(Result::is_err);
            if ended {
                return;
            }
        }
    });
    assert!(ended, "800 descriptors that do not close were taken in");
    let most = open_fds().saturating_sub(before);
    assert!(most < CEILING + 40, "{most} descriptors are open");
    ports.assert_greets();
    // The port is full: whoever comes is not accepted, and waits.
    let mut waits = Frontend::connect(&ports.bad);
    waits.send(Req::GET_FEATURES, &[], &[]);
    let_it_look(thread_called("bad"));
    assert!(matches!(waits.connection.read(), Ok(None)), "it was accepted");
    drop(held);
    // All is given back, and the one who waited is served.
    let answer = waits.connection.read_until(Instant::now() + Duration::from_secs(5)).expect("an answer");
    assert_eq!(answer.request, Req::GET_FEATURES as u32);
    waits.negotiate(Features::empty());
    wait_until("descriptors are closed", || open_fds() < before + 40);
}

/// Over a connection that lives on, each message has as many descriptors as the kernel takes: each is refused, and the port
/// never holds more than it may. Where they do not close, the connection ends.
#[test]
fn messages_laden_with_descriptors_cost_their_port_alone() {
    let test = "messages_laden_with_descriptors_cost_their_port_alone";
    let mut limits = Limits::default();
    limits.descriptors = Some(400);
    let mut ports = Neighbours::with("laden", limits);
    let null = std::fs::File::open("/dev/null").expect("there");
    let owner = Header { request: Req::SET_OWNER as u32, flags: VERSION | NEED_REPLY, size: 0 }.encode();
    let mut hostile = Frontend::connect(&ports.bad);
    hostile.negotiate(Features::empty());
    let before = open_fds();
    let mut most = 0;
    let mut ask = |hostile: &mut Frontend| {
        assert!(send_laden(hostile.connection.socket(), &owner, null.as_fd()), "room");
        let answer = hostile.connection.read_until(Instant::now() + Duration::from_secs(60));
        most = most.max(open_fds().saturating_sub(before));
        answer.map(|answer| u64::from_bytes(&answer.payload).expect("a number"))
    };
    ports.assert_unnoticed(|| {
        for _ in 0..20 {
            // A message that has more than there is room for would end the connection.
            wait_until("those of earlier messages are closed", || open_fds() <= before + 4);
            assert_eq!(ask(&mut hostile).expect("a port that stays"), 1, "refused");
        }
    });
    if let Some(mut held) = Held::new(test, 1) {
        give(hostile.connection.socket(), Req::SET_OWNER, held.events.pop().expect("one"));
        let answer = hostile.connection.read_until(Instant::now() + Duration::from_secs(60));
        assert_eq!(u64::from_bytes(&answer.expect("an answer").payload).expect("a number"), 1, "refused");
        ports.assert_traffic_flows(|| {
            let answers = (0..3).map(|_| ask(&mut hostile)).take_while(Result::is_ok).count();
            assert!(answers < 3, "759 descriptors that do not close were taken in");
        });
        ports.assert_greets();
    }
    assert!(most < 404 + 40, "{most} descriptors are open");
}

/// A frontend that sends more descriptors than a port may hold at a time, faster than they can be closed, is not read meanwhile;
/// nothing it sends is lost.
#[test]
fn a_frontend_that_is_faster_than_its_descriptors_close_is_served() {
    let test = "a_frontend_that_is_faster_than_its_descriptors_close_is_served";
    let Some(mut held) = Held::new(test, 1) else { return };
    let ports = Neighbours::new("faster");
    let null = std::fs::File::open("/dev/null").expect("there");
    let region = MemoryRegion { guest_addr: GUEST, size: 4096, user_addr: USER, offset: 0 };
    let region = SingleRegion(region).to_bytes();
    let mut fast = Frontend::connect(&ports.bad);
    fast.negotiate(Features::empty());
    let before = open_fds();
    give(fast.connection.socket(), Req::SET_OWNER, held.events.pop().expect("one"));
    let answer = fast.connection.read_until(Instant::now() + Duration::from_secs(60)).expect("an answer");
    assert_eq!(u64::from_bytes(&answer.payload).expect("a number"), 1, "refused");
    (0..2 * CEILING).for_each(|_| fast.send(Req::REM_MEM_REG, &region, &[null.as_fd()]));
    wait_until("the port holds what it may", || open_fds() > before + CEILING / 2);
    drop(held);
    fast.good(Req::REM_MEM_REG, &region, &[null.as_fd()]);
}

/// A port has a limit for what waits to be closed, far below that for descriptors.
#[test]
fn nobody_is_accepted_while_as_much_waits_as_may() {
    let test = "nobody_is_accepted_while_as_much_waits_as_may";
    let Some(mut held) = Held::new(test, 1) else { return };
    let mut limits = Limits::default();
    limits.closings = 1;
    let mut ports = Neighbours::with("closings", limits);
    let hostile = Frontend::connect(&ports.bad);
    give(hostile.connection.socket(), Req::SET_OWNER, held.events.pop().expect("one"));
    drop(hostile);
    let port = ports.bad_port.as_ref().expect("open").peer();
    wait_until("it has come and gone", || {
        let count = |name| port.counters().into_iter().find(|(known, _)| *known == name).map(|(_, n)| n);
        (count("connects"), count("disconnects")) == (Some(1), Some(1))
    });
    let mut waits = Frontend::connect(&ports.bad);
    waits.send(Req::GET_FEATURES, &[], &[]);
    ports.assert_traffic_flows(|| let_it_look(thread_called("bad")));
    assert!(matches!(waits.connection.read(), Ok(None)), "it was accepted");
    ports.assert_greets();
    drop(held);
    let answer = waits.connection.read_until(Instant::now() + Duration::from_secs(60)).expect("an answer");
    assert_eq!(answer.request, Req::GET_FEATURES as u32);
}

/// The kernel closes what is more than a port may hold inside of the call that receives: the port's thread waits there for
/// ever. It is left behind, its socket's name goes, and nobody else waits.
#[test]
fn a_port_whose_thread_waits_for_ever_can_be_ended() {
    let test = "a_port_whose_thread_waits_for_ever_can_be_ended";
    let (Some(mut first), Some(mut second)) = (Held::new(test, 1), Held::new(test, 1)) else { return };
    let mut limits = Limits::default();
    limits.descriptors = Some(20);
    let mut ports = Neighbours::with("stuck", limits);
    let null = std::fs::File::open("/dev/null").expect("there");
    // The port is full: a descriptor that does not close, and others behind it.
    let mut full = Frontend::connect(&ports.bad);
    full.negotiate(Features::empty());
    give(full.connection.socket(), Req::SET_OWNER, first.events.pop().expect("one"));
    while full.ask(Req::SET_OWNER, &[], &[null.as_fd(); 3]).is_ok() {}
    // One who waits to be accepted says something with more descriptors than the port may have. The last is held by
    // nobody else when it is received.
    let mut waits = Frontend::connect(&ports.bad);
    let last = second.events.pop().expect("one");
    let mut fds = vec![null.as_fd(); 31];
    fds.push(last.as_fd());
    let (path, port) = (ports.bad.clone(), ports.bad_port.take());
    waits.send(Req::SET_OWNER, &[], &fds);
    drop(last);
    let took = ports.assert_traffic_flows(|| {
        drop(first);
        // A mutex is what it waits for, which no signal ends.
        let stat = format!("/proc/self/task/{}/stat", thread_called("bad"));
        wait_until("the port's thread waits", || {
            std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") D "))
        });
        let began = Instant::now();
        drop(port);
        began.elapsed()
    });
    assert!(!path.exists());
    assert!(took > Duration::from_secs(1), "the thread did not wait: {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    ports.assert_greets();
}

/// Good messages, and behind them one byte out of band with a socket that takes five seconds to close.
#[test]
fn an_out_of_band_byte_stops_nobody() {
    const GOOD: usize = 300;
    let mut ports = Neighbours::new("urgent");
    let path = ports.bad.clone();
    let good = message(Req::SET_OWNER, &[]).repeat(GOOD);
    let mut silent_ends = Vec::new();
    ports.assert_unnoticed(|| {
        let (socket, silent) = lingering();
        let mut hostile = Frontend::connect(&path);
        std::io::Write::write_all(&mut hostile.connection.socket(), &good).expect("room");
        send_urgent(hostile.connection.socket(), socket.as_fd());
        drop(socket);
        // The byte is the first of a message that never comes whole.
        assert!(hostile.is_dropped());
        silent_ends.push(silent);
    });
}
