//! Configuration space, and answers that come late.

use std::time::Duration;

use linecard_virtio::Features;
use linecard_wire::payload::Payload;
use linecard_wire::{FrontendReq, OutMessage};

use crate::field::{Bystander, controlled, over_socket};
use crate::support::machine::Controlled;
use crate::support::{self, Act, Bench};

/// What a device has there. None of it is an address that the port could take.
pub(crate) fn config_lies(bystander: &mut Bystander) -> usize {
    let cases: [(&str, Vec<u8>); 6] = [
        ("config: no bytes", vec![]),
        ("config: five bytes of an address", vec![2; 5]),
        ("config: the address of a group", vec![1, 0, 0x5e, 0, 0, 1, 0, 0]),
        ("config: everybody's address", vec![0xff; 64]),
        ("config: no address", vec![0; 64]),
        ("config: a megabyte of it", [vec![0xff; 6], vec![7; 1 << 20]].concat()),
    ];
    let count = cases.len();
    for (name, config) in cases {
        let (bench, device) = (Bench::new(1024), Controlled::new(1));
        device.now().offer.features |= Features::NET_MAC;
        device.now().config = config;
        let port = controlled(&bench, &device, "packed_vq=0").expect(name);
        let mac = port.control.mac();
        assert!(mac[0] & 3 == 2, "{name}: an address of its own, {mac:x?}");
        assert!(!device.now().features.contains(Features::NET_MAC), "{name}");
        drop(port.stop());
        bystander.goes_on(name);
    }
    count
}

/// What a backend answers to GET_CONFIG; the port goes on with an address of its own.
pub(crate) fn config_answers(bystander: &mut Bystander) -> usize {
    let whole = |offset: u32, size: u32, data: &[u8]| {
        [&offset.to_ne_bytes()[..], &size.to_ne_bytes(), &0_u32.to_ne_bytes(), data].concat()
    };
    let cases: [(&str, Vec<u8>); 7] = [
        ("GET_CONFIG: nothing", vec![]),
        ("GET_CONFIG: eleven bytes", vec![0; 11]),
        ("GET_CONFIG: a size without its bytes", whole(0, 6, &[])),
        ("GET_CONFIG: fewer bytes than asked", whole(0, 5, &[2; 5])),
        ("GET_CONFIG: more bytes than asked", whole(0, 7, &[2; 7])),
        ("GET_CONFIG: four billion bytes", whole(0, u32::MAX, &[2; 6])),
        ("GET_CONFIG: another message's answer", vec![0xff; 300]),
    ];
    let count = cases.len();
    for (name, answer) in cases {
        let spoiler: support::Spoiler = Box::new(move |conn, message| {
            if message.request != FrontendReq::GET_CONFIG as u32 {
                return Act::Normal;
            }
            let _ = conn.send(&OutMessage::reply(message.request, &answer));
            Act::Handled
        });
        let outcome = over_socket(spoiler);
        assert!(outcome.is_ok(), "{name}: {outcome:?}");
        bystander.goes_on(name);
    }
    count
}

// Answers that come late: when nobody waits for them any more.

pub(crate) const LATE: [(&str, FrontendReq, &str); 3] = [
    ("late: the features", FrontendReq::GET_FEATURES, "did not answer GET_FEATURES"),
    ("late: the status", FrontendReq::GET_STATUS, "did not answer GET_STATUS"),
    ("late: an acknowledgement", FrontendReq::SET_VRING_KICK, "did not answer SET_VRING_KICK"),
];

pub(crate) fn late_answers(bystander: &mut Bystander) -> usize {
    for (name, victim, part) in LATE {
        let spoiler: support::Spoiler = Box::new(move |conn, message| {
            if message.request == victim as u32 {
                // Until the port has hung up: whatever comes then is late.
                while matches!(conn.read(), Ok(None)) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let _ = conn.send(&OutMessage::reply(message.request, &0_u64.to_bytes()));
                return Act::Leave;
            }
            let config = message.request == FrontendReq::GET_CONFIG as u32;
            if config && conn.send(&OutMessage::reply(message.request, &[])).is_ok() {
                return Act::Handled;
            }
            Act::Normal
        });
        let error = over_socket(spoiler).expect_err(name);
        assert!(error.contains(part), "{name}: {error}");
        bystander.goes_on(name);
    }
    LATE.len()
}
