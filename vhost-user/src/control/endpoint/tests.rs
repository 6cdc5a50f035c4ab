//! That what a frontend makes its port spend is asked for, and counted, where it is spent.

use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

use linecard_eal::eventfd::EventFd;
use linecard_lab::wait_until;
use linecard_wire::{FrontendReq as Req, OutMessage};

use super::super::Control;
use super::super::step::{Asked, Step};
use super::super::tests::Port;
use super::super::{Loop, bounded, unbounded};
use super::*;
use crate::limits::Limits;
use crate::peer::tests::Lines;

/// Does `act` with the endpoint of a port, beside its thread.
fn with<T>(port: &Port, act: impl FnOnce(&mut Endpoint) -> T) -> T {
    let mut endpoint = port.thread.endpoint.lock().expect("no panic");
    act(endpoint.as_mut().expect("it lives"))
}

/// Each closing of the gates interrupts the polling threads: there are so many at once, then so many a second.
#[test]
fn gates_are_closed_as_often_as_the_limit_allows() {
    let limits = Limits { interruptions: 1, ..Limits::default() };
    let port = Port::open(&Control::new(), "closings", limits);
    with(&port, |endpoint| {
        let (began, mut closed) = (Instant::now(), 0);
        for _ in 0..2 * CLOSINGS {
            if endpoint.close_gates() {
                closed += 1;
                open(&mut endpoint.gates, &endpoint.peer);
            }
        }
        let earned = began.elapsed().as_secs() as u32 + 1;
        assert!((CLOSINGS..=CLOSINGS + earned).contains(&closed), "{closed} times, {earned} s");
    });
}

/// A frontend that only asks uses up its port's time; then it has to wait.
#[test]
fn the_time_of_requests_is_counted() {
    let limits = Limits { control_time: 0, ..Limits::default() };
    let port = Port::open(&Control::new(), "asking", limits);
    let mut frontend = port.connect();
    // All but half a millisecond of what a port may use at once.
    with(&port, |endpoint| endpoint.spent(Duration::from_micros(u64::from(BUSY_MICROS) - 500)));
    assert!(with(&port, |endpoint| endpoint.resting.is_none()));
    let (mut answered, most) = (0, 10_000);
    while answered < most && with(&port, |endpoint| endpoint.resting.is_none()) {
        frontend.send(&OutMessage::request(Req::GET_QUEUE_NUM, &[])).expect("room");
        wait_until("an answer, or a rest", || {
            let came = frontend.read().expect("a backend that stays").is_some();
            answered += u32::from(came);
            came || with(&port, |endpoint| endpoint.resting.is_some())
        });
    }
    assert!(answered < most, "{answered} requests cost nothing");
}

#[test]
fn a_frontend_for_which_there_is_no_descriptor_is_logged() {
    let port = Port::open(&Control::new(), "crowded", Limits::default());
    let lines = Lines::default();
    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    with(&port, |endpoint| {
        let _all = endpoint.ledger.closer.descriptors().charge_up_to(u64::MAX).expect("room");
        let turned_away = || endpoint.connection_of(ours).is_none();
        assert!(tracing::subscriber::with_default(lines.clone(), turned_away));
    });
    assert_eq!(lines.0.load(Relaxed), 1);
}

/// A requester may give up while the frontend blocks the thread, which then finds a step that is no longer wanted.
#[test]
fn a_step_that_was_given_up_does_not_keep_the_thread_awake() {
    let (waker, ledger) = (Arc::new(EventFd::new().expect("an eventfd")), Ledger::alone());
    let peer = Arc::new(Peer::new("given-up".into(), Arc::clone(&waker), Terms::plain(), &ledger));
    let (poller_slot, next) = (VringSlot::new(Arc::clone(&peer)), Instant::now() + Duration::from_secs(3600));
    let source = Source::Connect { path: "nowhere".into(), next, told: None };
    let mut endpoint = Endpoint::new(source, Terms::plain(), ledger, false, peer);
    let ((ending, _over), (_commands, inbox)) = (bounded(0), unbounded());
    let (asked, _asking) = Asked::new(Step::Settle);
    let mut run = Loop {
        epoll: Epoll::new().expect("an epoll instance"),
        waker,
        inbox,
        shared: Arc::new(Mutex::new(None)),
        asked: [Arc::clone(&asked)].into(),
        succession: None,
        _ending: ending,
    };
    let (mut poller, controller) = gate(poller_slot);
    let inside = poller.enter().expect("it is open");
    endpoint.arriving.push_back((0, controller));
    assert!(!run.has_left(&mut endpoint));
    assert!(endpoint.leaving, "a burst goes on, so the step is tried again");
    assert!(asked.is_claimed_by_now(), "the requester gives up");
    drop(inside);
    assert!(endpoint.settle());
    assert!(!run.has_left(&mut endpoint));
    assert_eq!(endpoint.deadline(), Some(next));
}
