//! What holds for every request, read from its row.

use super::*;
use linecard_wire::FrontendReq as Req;
use linecard_wire::payload::{Config, IotlbMessage};

impl Terms {
    /// Of a port with one queue pair, for tests of any part.
    pub(crate) fn plain() -> Self {
        Self {
            queue_pairs: 1,
            features: crate::features::OFFERED,
            protocol: crate::features::protocol(true, crate::features::OFFERED),
            mac: [2; 6],
            mtu: 1500,
            limits: MapLimits { total: 1 << 30, regions: 8 },
            hand_over: false,
            records: false,
            trusted_memory: false,
            requests: REQUESTS,
        }
    }
}

fn session(protocol: ProtocolFeatures) -> Session {
    let ledger = Ledger::alone();
    let waker = Arc::new(linecard_eal::eventfd::EventFd::new().expect("an eventfd"));
    let terms = Terms::plain();
    let peer = Arc::new(Peer::new("test".into(), waker, terms, &ledger));
    let mut session = Session::new(terms, ledger, peer, false);
    session.protocol = protocol;
    session
}

fn message(request: u32, payload: Vec<u8>) -> Message {
    Message { request, flags: VERSION | NEED_REPLY, payload, fds: Vec::new(), surplus_fds: 0 }
}

fn respond(session: &mut Session, message: Message) -> Verdict {
    session.respond(message, &mut Slots(&mut []))
}

#[test]
fn each_code_has_one_row_and_they_are_in_order() {
    for pair in REQUESTS.windows(2) {
        assert!((pair[0].code as u32) < pair[1].code as u32, "{:?} before {:?}", pair[0].code, pair[1].code);
    }
}

/// A request whose feature was not negotiated never reaches its function, nor does one with a descriptor too many or with
/// flags that mean nothing; each is told in the way its row says.
#[test]
fn what_a_row_says_is_checked_before_its_function_is_called() {
    for row in REQUESTS {
        let code = row.code as u32;
        let told = |verdict| match (row.reply, verdict) {
            (Reply::Acknowledgement, Verdict::Reply(payload, _)) => payload == 1_u64.to_bytes(),
            (Reply::PayloadOrEmpty, Verdict::Reply(payload, _)) => payload.is_empty(),
            (Reply::Payload, Verdict::Close(_)) => true,
            (_, other) => panic!("{:?}: {other:?}", row.code),
        };
        if !row.needs.is_empty() {
            let mut session = session(ProtocolFeatures::all() - row.needs);
            assert!(told(respond(&mut session, message(code, Vec::new()))), "{:?}", row.code);
            assert_eq!(session.peer.counters()[2], ("refused_requests", 1));
        }
        let mut session = session(ProtocolFeatures::all());
        let surplus = Message { surplus_fds: linecard_wire::MAX_FDS + 1, ..message(code, vec![0; 8]) };
        assert!(told(respond(&mut session, surplus)), "{:?}", row.code);
        let flags = Message { flags: VERSION | NEED_REPLY | 1 << 5, ..message(code, vec![0; 8]) };
        assert!(told(respond(&mut session, flags)), "{:?}", row.code);
        // No payload of any request is a page long, except that a table of regions may be; this one is no table.
        let long = message(code, vec![0xff; linecard_wire::MAX_PAYLOAD]);
        assert!(told(respond(&mut session, long)), "{:?}", row.code);
    }
}

#[test]
fn what_has_no_row_is_refused() {
    let mut session = session(ProtocolFeatures::all());
    for code in [0, Req::POSTCOPY_ADVISE as u32, Req::GPU_SET_SOCKET as u32, 45, u32::MAX] {
        assert!(session.row(code).is_none());
        match respond(&mut session, message(code, Vec::new())) {
            Verdict::Reply(payload, _) => assert_eq!(payload, 1_u64.to_bytes()),
            other => panic!("{other:?}"),
        }
        let silent = Message { flags: VERSION, ..message(code, Vec::new()) };
        assert!(matches!(respond(&mut session, silent), Verdict::Close(Refusal::Unsupported { .. })));
    }
}

/// The features on offer are those that requests need, so a row is all it takes to offer one.
#[test]
fn features_on_offer_follow_from_the_table() {
    let offered = crate::features::protocol(true, crate::features::OFFERED);
    assert!(REQUESTS.iter().all(|row| offered.contains(row.needs)));
    assert!(!crate::features::protocol(false, Features::empty()).contains(ProtocolFeatures::CONFIG));
    let mut session = session(ProtocolFeatures::empty());
    let not_offered =
        message(Req::SET_PROTOCOL_FEATURES as u32, ProtocolFeatures::PAGEFAULT.bits().to_bytes());
    let not_offered = Message { flags: VERSION, ..not_offered };
    assert!(matches!(respond(&mut session, not_offered), Verdict::Close(Refusal::ProtocolFeatures { .. })));
}

#[test]
fn an_unwritable_configuration_is_refused_and_a_malformed_one_told_apart() {
    let mut session = session(ProtocolFeatures::all() - ProtocolFeatures::REPLY_ACK);
    let write = Config { offset: 0, flags: 0, data: vec![1] }.to_bytes();
    let verdict = respond(&mut session, message(Req::SET_CONFIG as u32, write));
    assert!(matches!(verdict, Verdict::Close(Refusal::Unsupported { request: 25 })), "{verdict:?}");
    let verdict = respond(&mut session, message(Req::SET_CONFIG as u32, vec![0; 3]));
    assert!(matches!(verdict, Verdict::Close(Refusal::Payload(_))), "{verdict:?}");
}

#[test]
fn a_value_below_its_range_is_told_the_range() {
    let mut session = session(ProtocolFeatures::all() - ProtocolFeatures::REPLY_ACK);
    let iotlb = |kind| IotlbMessage { iova: 0, size: 0, user_addr: 0, access: 0, kind }.to_bytes();
    for (request, payload, want) in [
        (Req::NET_SET_MTU, 10_u64.to_bytes(), "MTU 10 is not possible, 68 to 65535 is"),
        (Req::IOTLB_MSG, iotlb(1), "IOTLB message 1 is not possible, 2 to 3 is"),
        (Req::IOTLB_MSG, iotlb(4), "IOTLB message 4 is not possible, 2 to 3 is"),
    ] {
        match respond(&mut session, message(request as u32, payload)) {
            Verdict::Close(refusal) => assert_eq!(refusal.to_string(), want),
            other => panic!("{other:?}"),
        }
    }
}
