//! Answers that come later, over a socket: a request of the test's own is the one row more.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use linecard_lab::{wait_for, wait_until};
use linecard_virtio::Features;
use linecard_wire::payload::Payload;
use linecard_wire::{Connection, FrontendReq as Req, Message, OutMessage, ProtocolFeatures};

use super::*;
use crate::Refusal;
use crate::memory::MapLimits;
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

/// One request that asks and one that tells, and those that there are.
fn requests() -> &'static [Row] {
    let own = vec![Row::get(Req::GET_SHARED_OBJECT, later), Row::held(Req::GPU_SET_SOCKET, later)];
    let rows = own.into_iter().chain(REQUESTS.iter().map(Row::again)).collect::<Vec<_>>();
    rows.leak()
}

struct Port {
    thread: PortThread,
    path: std::path::PathBuf,
}

impl Port {
    fn open() -> Self {
        let path = std::env::temp_dir().join(format!("linecard-later-{}", std::process::id()));
        let terms = Terms {
            queue_pairs: 1,
            features: Features::VERSION_1 | Features::PROTOCOL_FEATURES,
            protocol: crate::features::protocol(false, Features::empty()),
            mac: [2; 6],
            mtu: 1500,
            limits: MapLimits { total: 1 << 30, regions: 8 },
            hand_over: false,
            records: false,
            requests: requests(),
        };
        let config = BackendConfig::new("later", &path, Mode::Listen);
        Self {
            thread: PortThread::start(&Control::new(), &config, terms, Start::Fresh).expect("a port"),
            path,
        }
    }

    fn connect(&self) -> Connection {
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
    let port = Port::open();
    let mut frontend = port.connect();
    frontend.send(&OutMessage::request(Req::GET_SHARED_OBJECT, &[])).expect("room");
    let asked = promise();
    frontend.send(&OutMessage::request(Req::GET_FEATURES, &[])).expect("room");
    // The port has everything it would need for a wrong answer by now, or soon.
    let early = frontend.read_until(Instant::now() + Duration::from_millis(100));
    assert!(matches!(early, Err(linecard_wire::Error::TimedOut { .. })), "{early:?}");

    let (reader, writer) = std::io::pipe().expect("a pipe");
    asked.resolve(Ok(Answer::Now(7_u64.to_bytes(), vec![OwnedFd::from(writer)])));
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
