//! That what a frontend makes its port spend is asked for, and counted, where it is spent.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

use linecard_eal::eventfd::EventFd;
use linecard_lab::wait_until;
use linecard_pmd::handover::Keep;
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

/// The most interruptions of polling threads by a process without a pause.
const BURST: u32 = 4096;

/// Closes the gates as often as that is allowed. Returns how often.
fn close_all_the_time(port: &Port) -> u32 {
    with(port, |endpoint| {
        let mut closed = 0;
        for _ in 0..2 * BURST {
            if endpoint.close_gates() {
                closed += 1;
                open(&mut endpoint.gates, &endpoint.peer);
            }
        }
        closed
    })
}

/// Each closing of the gates interrupts the polling threads: there are so many at once, then so many a second. One port has
/// as many as thirty-three together.
#[test]
fn gates_are_closed_as_often_as_the_limit_allows() {
    let limits = Limits { interruptions: 1, ..Limits::default() };
    for ports in [1, 33] {
        let (control, began) = (Control::new(), Instant::now());
        let ports: Vec<_> =
            (0..ports).map(|n| Port::open(&control, &format!("closings{n}"), limits)).collect();
        let closed: u32 = ports.iter().map(close_all_the_time).sum();
        let earned = (began.elapsed().as_secs() as u32 + 1) * ports.len() as u32;
        assert!((BURST - 33..=BURST + earned).contains(&closed), "{closed} times, {earned} earned");
    }
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

/// One of thousands of ports that has used up its time is slow, and is served.
#[test]
fn a_port_of_many_without_time_left_makes_progress() {
    let control = Control::new();
    let port = Port::open(&control, "many", Limits::default());
    control.0.pretend(4096);
    let mut frontend = port.connect();
    let rests = with(&port, |endpoint| {
        // What was earned until now, then all, and a millisecond on top.
        endpoint.spent(Duration::ZERO);
        endpoint.spent(Duration::from_micros(u64::from(BUSY_MICROS) + 1000));
        endpoint.resting.is_some()
    });
    assert!(rests);
    for n in 0..10 {
        frontend.send(&OutMessage::request(Req::GET_QUEUE_NUM, &[])).expect("room");
        let answer = frontend.read_until(Instant::now() + Duration::from_secs(60));
        assert!(answer.is_ok(), "answer {n}: {answer:?}");
    }
    control.0.pretend(1);
}

/// A frontend that takes no answers has its requests read no more, and is disconnected when its time is over.
#[test]
fn a_frontend_that_takes_no_answers_is_disconnected() {
    let port = Port::open(&Control::new(), "deaf", Limits::default());
    let mut frontend = port.connect();
    wait_until("the answers fill the socket", || {
        // Its own requests are queued when the port reads no more.
        if !frontend.wants_write() {
            frontend.send(&OutMessage::request(Req::GET_QUEUE_NUM, &[])).expect("room");
        }
        with(&port, |endpoint| endpoint.link.as_ref().is_some_and(|link| link.unread.is_some()))
    });
    with(&port, |endpoint| {
        let link = endpoint.link.as_mut().expect("connected");
        assert!(link.answers_due().is_some_and(|due| due > Instant::now()), "not yet");
        link.unread = Instant::now().checked_sub(Duration::from_secs(11));
        endpoint.peer.wake_control();
    });
    wait_until("it is disconnected", || !port.thread.peer().connected());
}

/// A place that holds one state, as a socket does.
#[derive(Debug, Default)]
struct Shelf(Mutex<Vec<OwnedFd>>);

impl Keep for Shelf {
    fn unsettle(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn settle(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn keep(&self, _: &[u8], fds: &[BorrowedFd<'_>]) -> std::io::Result<Vec<OwnedFd>> {
        let fds: Result<_, _> = fds.iter().map(BorrowedFd::try_clone_to_owned).collect();
        Ok(std::mem::replace(&mut *self.0.lock().expect("no panic"), fds?))
    }

    fn forget(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }
}

/// Descriptors of a stored state are charged from when they are taken out until they are closed; a state that cannot be
/// replaced for that reason is replaced later.
#[test]
fn stored_descriptors_that_are_not_closed_are_charged() {
    /// Of a stored state: a connection and the listening socket, and what the place adds.
    const STORED: u64 = 3;
    let port = Port::open(&Control::new(), "shelf", Limits::default());
    let mut frontend = port.connect();
    let mut ask = || {
        frontend.send(&OutMessage::request(Req::GET_QUEUE_NUM, &[])).expect("room");
        frontend.read_until(Instant::now() + Duration::from_secs(60)).expect("an answer");
    };
    ask();
    // Something takes long to close.
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let place = Arc::new(Shelf::default());
    with(&port, |endpoint| {
        endpoint.ledger.closer.run(move || _ = gate.recv());
        let used = |endpoint: &Endpoint| endpoint.ledger.closer.descriptors().used();
        // There is room for one of them.
        let room = endpoint.ledger.closer.descriptors().room();
        let rest = endpoint.ledger.closer.descriptors().charge(room - STORED).expect("room");
        let before = used(endpoint);
        endpoint.keep_in(Arc::clone(&place) as Arc<dyn Keep>);
        assert_eq!(
            (place.0.lock().expect("no panic").len(), used(endpoint)),
            (2, before),
            "nothing was there"
        );
        endpoint.kept.change();
        endpoint.keep_up();
        assert!(!endpoint.kept.is_due(), "it is replaced");
        assert_eq!(used(endpoint), before + STORED, "what was there waits to be closed");
        endpoint.kept.change();
        endpoint.keep_up();
        assert!(endpoint.kept.is_due(), "no room");
        assert_eq!(used(endpoint), before + STORED);
        drop(rest);
        endpoint.peer.wake_control();
        // The one that waits makes no room, and its thread is not waited for.
        assert!(endpoint.ledger.closer.waiting() > 0);
    });
    drop(go);
    wait_until("it is replaced when there is room", || with(&port, |endpoint| !endpoint.kept.is_due()));
    ask();
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
