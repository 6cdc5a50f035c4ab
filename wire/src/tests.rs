//! Framing under every way a socket can deliver it.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::payload::*;
use crate::*;

fn pair() -> (UnixStream, Connection) {
    let (a, b) = UnixStream::pair().expect("socketpair");
    (a, Connection::new(b).expect("connection"))
}

fn header(request: u32, flags: u32, size: u32) -> Vec<u8> {
    Header { request, flags, size }.encode().to_vec()
}

fn some_fd() -> OwnedFd {
    std::fs::File::open("/dev/null").expect("open").into()
}

#[test]
fn a_message_delivered_byte_by_byte_arrives_once() {
    let (mut peer, mut connection) = pair();
    let mut bytes = header(8, VERSION, 8);
    bytes.extend_from_slice(&VringState { index: 1, num: 256 }.to_bytes());
    let (last, head) = bytes.split_last().expect("not empty");
    for byte in head {
        peer.write_all(&[*byte]).expect("write");
        assert!(connection.read().expect("partial").is_none());
        assert!(connection.partial_since().is_some());
    }
    peer.write_all(&[*last]).expect("write");
    let message = connection.read().expect("read").expect("whole");
    assert_eq!(VringState::from_bytes(&message.payload).expect("state"), VringState { index: 1, num: 256 });
    assert!(connection.partial_since().is_none());
    assert!(connection.read().expect("nothing").is_none());
}

#[test]
fn pipelined_messages_keep_their_own_descriptors() {
    let (a, b) = UnixStream::pair().expect("socketpair");
    let (mut sender, mut receiver) = (Connection::new(a).expect("new"), Connection::new(b).expect("new"));
    let fd = some_fd();
    for index in 0..20u8 {
        let fds = vec![fd.as_fd(); usize::from(index % 3)];
        let payload = u64::from(index).to_bytes();
        sender
            .send(&OutMessage::request(FrontendReq::SET_VRING_KICK, &payload).with_fds(&fds))
            .expect("send");
    }
    for index in 0..20u64 {
        let message = receiver.read().expect("read").expect("whole");
        assert_eq!(u64::from_bytes(&message.payload).expect("u64"), index);
        assert_eq!(message.fds.len() as u64, index % 3);
        assert_eq!(message.surplus_fds, 0);
    }
}

#[test]
fn framing_errors_say_what_is_wrong() {
    let cases: [(Vec<u8>, &str); 6] = [
        (header(1, 0, 0), "version 0"),
        (header(1, 2, 0), "version 2"),
        (header(1, 3, 0), "version 3"),
        (header(1, VERSION, 4097), "announces 4097 bytes"),
        (header(1, VERSION, u32::MAX), "announces 4294967295 bytes"),
        (vec![0xff; 12], "version 3"),
    ];
    for (bytes, want) in cases {
        let (mut peer, mut connection) = pair();
        peer.write_all(&bytes).expect("write");
        let error = connection.read().expect_err("refused").to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn a_close_is_told_apart_from_a_truncation() {
    let (peer, mut connection) = pair();
    drop(peer);
    assert!(matches!(connection.read(), Err(Error::Closed)));
    let (mut peer, mut connection) = pair();
    peer.write_all(&header(5, VERSION, 100)[..7]).expect("write");
    drop(peer);
    assert!(matches!(connection.read(), Err(Error::Truncated { got: 7, want: 12 })));
    let (mut peer, mut connection) = pair();
    peer.write_all(&header(5, VERSION, 100)).expect("write");
    drop(peer);
    let error = connection.read().expect_err("truncated");
    assert!(matches!(error, Error::Truncated { got: 12, want: 112 }));
    assert!(error.is_peer_gone());
}

#[test]
fn sending_to_a_closed_peer_is_an_error_not_a_signal() {
    let (peer, mut connection) = pair();
    drop(peer);
    let error = connection.send(&OutMessage::reply(1, &[0; 8])).expect_err("closed");
    assert!(error.is_peer_gone(), "{error}");
}

#[test]
fn a_peer_that_never_reads_hits_the_backlog_limit_and_order_holds() {
    let (peer, mut connection) = pair();
    let fd = some_fd();
    let mut sent = 0u64;
    let error = loop {
        let mut payload = vec![0; 2048];
        payload[..8].copy_from_slice(&sent.to_ne_bytes());
        let fds = [fd.as_fd()];
        match connection.send(&OutMessage::reply(1, &payload).with_fds(&fds)) {
            Ok(()) => sent += 1,
            Err(e) => break e,
        }
        assert!(sent < 10_000, "the backlog is unbounded");
    };
    assert!(matches!(error, Error::Backlog { .. }), "{error}");
    assert!(connection.wants_write());
    let mut reader = Connection::new(peer).expect("reader");
    for want in 0..sent {
        let message = loop {
            connection.flush().expect("flush");
            if let Some(message) = reader.read().expect("read") {
                break message;
            }
        };
        let (head, _) = message.payload.split_first_chunk::<8>().expect("8 bytes");
        assert_eq!(u64::from_ne_bytes(*head), want);
        assert_eq!(message.fds.len(), 1);
    }
    assert!(!connection.wants_write());
}

#[test]
fn waiting_ends_at_the_deadline() {
    let (_peer, mut connection) = pair();
    let start = Instant::now();
    let error = connection.read_until(start + Duration::from_millis(30)).expect_err("silence");
    assert!(matches!(error, Error::TimedOut { .. }));
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn limits_of_what_we_send_are_checked() {
    let (_peer, mut connection) = pair();
    let long = OutMessage { request: 1, flags: 0, payload: &[0; MAX_PAYLOAD + 1], fds: &[] };
    assert!(matches!(connection.send(&long), Err(Error::TooLong { .. })));
    let fd = some_fd();
    let many = [fd.as_fd(); MAX_FDS + 1];
    let fds = OutMessage { request: 1, flags: 0, payload: &[], fds: &many };
    assert!(matches!(connection.send(&fds), Err(Error::PayloadField { .. })));
}

#[test]
fn payloads_refuse_every_other_length() {
    fn only<P: Payload>(lengths: &[usize]) {
        for len in 0..=64 {
            assert_eq!(P::from_bytes(&vec![0; len]).is_ok(), lengths.contains(&len), "{len}");
        }
    }
    only::<()>(&[0]);
    only::<u64>(&[8]);
    only::<VringState>(&[8]);
    only::<VringFd>(&[8]);
    only::<VringAddr>(&[40]);
    only::<SingleRegion>(&[40]);
    only::<Log>(&[16]);
    only::<Inflight>(&[20, 24]);
    only::<MemTable>(&[8]);
    only::<Config>(&[12]);
}

#[test]
fn payload_fields_are_bounded() {
    for count in [33u32, 255, u32::MAX] {
        let mut bytes = count.to_ne_bytes().to_vec();
        bytes.resize(8 + 32 * 33, 0);
        assert!(MemTable::from_bytes(&bytes).is_err(), "{count}");
    }
    for word in [0x200u64, 0x1_0000, 0x1_0001, u64::MAX] {
        assert!(VringFd::from_bytes(&word.to_bytes()).is_err(), "{word}");
    }
    let mut config = Config { offset: 0, flags: 0, data: vec![0; 4] }.to_bytes();
    config[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert!(Config::from_bytes(&config).is_err());
}

fn region() -> impl Strategy<Value = MemoryRegion> {
    any::<(u64, u64, u64, u64)>().prop_map(|(guest_addr, size, user_addr, offset)| MemoryRegion {
        guest_addr,
        size,
        user_addr,
        offset,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn payloads_survive_a_round_trip(
        words in any::<(u32, u32, u64, u64, u64, u64)>(),
        regions in prop::collection::vec(region(), 0..=32),
        data in prop::collection::vec(any::<u8>(), 0..=256),
    ) {
        let (index, flags, desc, used, avail, log) = words;
        let addr = VringAddr { index, flags, desc, used, avail, log };
        prop_assert_eq!(VringAddr::from_bytes(&addr.to_bytes()).expect("addr"), addr);
        let table = MemTable(regions);
        prop_assert_eq!(MemTable::from_bytes(&table.to_bytes()).expect("table"), table);
        let config = Config { offset: index, flags, data };
        prop_assert_eq!(Config::from_bytes(&config.to_bytes()).expect("config"), config);
        prop_assert_eq!(PackedBase::from_u32(index).to_u32(), index);
    }

    #[test]
    fn any_split_of_any_messages_reads_the_same(
        messages in prop::collection::vec((any::<u32>(), 0u32..16, prop::collection::vec(any::<u8>(), 0..200)), 1..6),
        cuts in prop::collection::vec(1usize..40, 1..60),
    ) {
        let (mut peer, mut connection) = pair();
        let mut stream = Vec::new();
        for (request, flags, payload) in &messages {
            let flags = (flags & !3) | VERSION;
            stream.extend(header(*request, flags, payload.len() as u32));
            stream.extend_from_slice(payload);
        }
        let mut seen = Vec::new();
        let mut cuts = cuts.iter().cycle();
        while !stream.is_empty() {
            let n = (*cuts.next().expect("cycle")).min(stream.len());
            peer.write_all(&stream[..n]).expect("write");
            stream.drain(..n);
            while let Some(message) = connection.read().expect("well formed") {
                seen.push((message.request, message.payload));
            }
        }
        let want: Vec<_> = messages.into_iter().map(|(request, _, payload)| (request, payload)).collect();
        prop_assert_eq!(seen, want);
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let (mut peer, mut connection) = pair();
        peer.write_all(&bytes).expect("write");
        drop(peer);
        while let Ok(Some(_)) = connection.read() {}
        let _ = (MemTable::from_bytes(&bytes), Config::from_bytes(&bytes), Inflight::from_bytes(&bytes));
    }
}

#[test]
fn a_socket_that_was_never_connected_is_no_channel() {
    let closer = Closer::alone().expect("a thread");
    let adopt = |fd: OwnedFd| Connection::adopt(closer.adopt(fd).expect("room")).is_some();
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let lonely = crate::sys::stream_socket().expect("a socket");
    assert!(!adopt(lonely));
    assert!(adopt(ours.try_clone().expect("a descriptor").into()));
    drop(theirs);
    assert!(adopt(ours.into()), "its end is seen when it is read");
}
