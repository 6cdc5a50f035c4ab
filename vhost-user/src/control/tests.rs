//! Answers that come later, over a socket: a request of the test's own is the one row more.

use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use linecard_lab::{wait_for, wait_until};
use linecard_virtio::Features;
use linecard_wire::payload::Payload;
use linecard_wire::{Connection, FrontendReq as Req, Message, OutMessage, ProtocolFeatures};

use super::*;
use crate::Refusal;
use crate::limits::Limits;
use crate::session::{Answer, Pending, Promise, REQUESTS, Row, Session, Slots};

/// What the requests of this test leave to be answered. One test uses it.
static PROMISES: Mutex<Vec<Promise>> = Mutex::new(Vec::new());

fn later(session: &mut Session, message: Message, _: &mut Slots<'_>) -> Result<Answer, Refusal> {
    let (promise, pending) = Pending::new(message.request, session.peer());
    PROMISES.lock().expect("no panic").push(promise);
    Ok(Answer::Later(pending))
}

fn promise() -> Promise {
    wait_for("the request", || PROMISES.lock().expect("no panic").pop())
}

fn panics(_: &mut Session, _: Message, _: &mut Slots<'_>) -> Result<Answer, Refusal> {
    panic!("as a mistake of ours would")
}

/// One request that asks and one that tells, two that are a mistake of ours, with gates held and open, and those
/// that there are.
fn requests() -> &'static [Row] {
    let own = vec![
        Row::get(Req::GET_SHARED_OBJECT, later),
        Row::held(Req::GPU_SET_SOCKET, later),
        Row::held(Req::POSTCOPY_END, panics),
        Row::get(Req::POSTCOPY_LISTEN, panics),
    ];
    let rows = own.into_iter().chain(REQUESTS.iter().map(Row::again)).collect::<Vec<_>>();
    rows.leak()
}

/// A port of one queue pair that knows these requests.
pub(super) struct Port {
    pub(super) thread: PortThread,
    path: std::path::PathBuf,
}

impl Port {
    pub(super) fn open(control: &Control, name: &str, limits: Limits) -> Self {
        let path = std::env::temp_dir().join(format!("linecard-{name}-{}", std::process::id()));
        let terms = Terms {
            features: Features::VERSION_1 | Features::PROTOCOL_FEATURES,
            protocol: crate::features::protocol(false, Features::empty()),
            requests: requests(),
            ..Terms::plain()
        };
        let config = BackendConfig::new(name, &path, Mode::Listen).limits(limits);
        Self { thread: PortThread::start(control, &config, terms, Start::Fresh).expect("a port"), path }
    }

    pub(super) fn connect(&self) -> Connection {
        let stream = wait_for("connection", || UnixStream::connect(&self.path).ok());
        let mut connection = Connection::new(stream).expect("a connection");
        let features = ProtocolFeatures::REPLY_ACK.bits().to_bytes();
        connection.send(&OutMessage::request(Req::SET_PROTOCOL_FEATURES, &features)).expect("room");
        connection
    }
}

fn read(connection: &mut Connection) -> Message {
    connection.read_until(Instant::now() + Duration::from_secs(30)).expect("an answer")
}

fn number(message: &Message) -> u64 {
    u64::from_bytes(&message.payload).expect("a number")
}

#[test]
fn an_answer_that_comes_later_holds_back_what_follows_and_brings_descriptors() {
    let port = Port::open(&Control::new(), "later", Limits::default());
    let mut frontend = port.connect();
    frontend.send(&OutMessage::request(Req::GET_SHARED_OBJECT, &[])).expect("room");
    let asked = promise();
    frontend.send(&OutMessage::request(Req::GET_FEATURES, &[])).expect("room");
    // The port has everything it would need for a wrong answer by now, or soon.
    let early = frontend.read_until(Instant::now() + Duration::from_millis(100));
    assert!(matches!(early, Err(linecard_wire::Error::TimedOut { .. })), "{early:?}");

    let (reader, writer) = std::io::pipe().expect("a pipe");
    let endpoint = port.thread.endpoint.lock().expect("no panic");
    let writer = endpoint.as_ref().expect("it lives").ledger.closer.adopt(writer.into()).expect("room");
    drop(endpoint);
    asked.resolve(Ok(Answer::Now(7_u64.to_bytes(), vec![Arc::new(writer)])));
    let first = read(&mut frontend);
    assert_eq!((first.request, number(&first), first.fds.len()), (Req::GET_SHARED_OBJECT as u32, 7, 1));
    assert_eq!(read(&mut frontend).request, Req::GET_FEATURES as u32);
    drop(first);
    // The pipe ends when every copy of its writing end is closed: the port has kept none.
    let mut end = reader;
    assert_eq!(std::io::Read::read(&mut end, &mut [0]).expect("the end"), 0);

    // Told by an acknowledgement, while the gates are open again.
    for (outcome, want) in
        [(Ok(Answer::None), 0), (Err(Refusal::Unsupported { request: Req::GPU_SET_SOCKET as u32 }), 1)]
    {
        frontend.send(&OutMessage::request(Req::GPU_SET_SOCKET, &[]).need_reply()).expect("room");
        promise().resolve(outcome);
        assert_eq!(number(&read(&mut frontend)), want);
    }
    // Whoever gives up has refused.
    frontend.send(&OutMessage::request(Req::GPU_SET_SOCKET, &[]).need_reply()).expect("room");
    drop(promise());
    assert_eq!(number(&read(&mut frontend)), 1);
    frontend.send(&OutMessage::request(Req::GET_SHARED_OBJECT, &[])).expect("room");
    drop(promise());
    let ended = frontend.read_until(Instant::now() + Duration::from_secs(30));
    assert!(ended.as_ref().is_err_and(linecard_wire::Error::is_peer_gone), "{ended:?}");

    // A frontend that leaves while it waits is noticed, and the next one served; its answer comes too late.
    let mut impatient = port.connect();
    impatient.send(&OutMessage::request(Req::GET_SHARED_OBJECT, &[])).expect("room");
    let late = promise();
    assert!(port.thread.peer().connected());
    drop(impatient);
    wait_until("its end", || !port.thread.peer().connected());
    let mut next = port.connect();
    late.resolve(Ok(Answer::Now(8_u64.to_bytes(), Vec::new())));
    next.send(&OutMessage::request(Req::GET_QUEUE_NUM, &[])).expect("room");
    assert_eq!(number(&read(&mut next)), 1);
}

/// Its frontend is let go, whoever closes it does not wait, and the port beside it serves on.
#[test]
fn a_panic_of_the_control_thread_ends_its_port_and_no_other() {
    let control = Control::new();
    let [broken, other] = ["broken", "beside"].map(|name| Port::open(&control, name, Limits::default()));
    let (mut victim, mut bystander) = (broken.connect(), other.connect());
    wait_until("both are connected", || [&broken, &other].iter().all(|port| port.thread.peer().connected()));
    victim.send(&OutMessage::request(Req::POSTCOPY_END, &[]).need_reply()).expect("room");
    let ended = victim.read_until(Instant::now() + Duration::from_secs(60));
    assert!(ended.as_ref().is_err_and(linecard_wire::Error::is_peer_gone), "{ended:?}");
    wait_until("the port says so", || !broken.thread.peer().connected());
    drop(broken);
    bystander.send(&OutMessage::request(Req::GET_QUEUE_NUM, &[])).expect("room");
    assert_eq!(number(&read(&mut bystander)), 1);
    assert!(other.thread.peer().connected());
}

/// A panic may come while the gates are open: no poller moves packets of a port that is reported as disconnected.
#[test]
fn a_panic_with_open_gates_stops_the_packets() {
    let port = Port::open(&Control::new(), "open-gates", Limits::default());
    let peer = Arc::clone(port.thread.peer());
    let (mut poller, controller) = linecard_eal::gate::gate(VringSlot::new(Arc::clone(&peer)));
    port.thread.attach(0, controller).expect("it lives");
    let mut frontend = port.connect();
    wait_until("it is connected", || peer.connected());
    port.thread.ask(Step::Settle).and_then(Asking::outcome).expect("the gate is in its place");
    peer.set_rings(true, vec![None, Some(crate::peer::ShownRing { path: "split", size: 256 })]);
    assert!(poller.enter().is_some());
    frontend.send(&OutMessage::request(Req::POSTCOPY_LISTEN, &[])).expect("room");
    wait_until("the port says so", || !peer.connected());
    assert!(poller.enter().is_none());
    assert!(!peer.link_up());
    assert!(peer.ring(1).is_none());
}
