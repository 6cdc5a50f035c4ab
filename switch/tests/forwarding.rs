//! Frames through a switch: who gets them, as what, and what is lost and why.

mod common;

use common::{Bed, frame, tagged};
use linecard_switch::api::{
    DropCounters, FdbAddress, FdbFilter, FdbStatic, PortKind, PortSpec, QueueMove, TraceRequest, TraceVerdict,
};
use serde_json::json;

const ALL: u8 = 255;

fn drops(bed: &Bed, number: usize) -> DropCounters {
    bed.info(number).counters.drops
}

#[test]
fn stations_are_learned_and_found_by_one_or_several_workers() {
    for workers in [1, 2, 3] {
        let mut bed = Bed::new(workers, &[json!({}), json!({}), json!({})]);
        assert_eq!(bed.reach(0, &frame(1, 2, b"nobody knows two")), [1, 2]);
        assert_eq!(bed.reach(1, &frame(2, 1, b"one is known")), [0]);
        assert_eq!(bed.reach(0, &frame(1, 2, b"two is known")), [1]);
        assert_eq!(bed.reach(2, &frame(3, ALL, b"everybody")), [0, 1]);
        assert_eq!(bed.reach(0, &frame(1, 1, b"to itself")), [0_usize; 0]);
        // A station that moves is found where it is.
        assert_eq!(bed.reach(2, &frame(2, 1, b"two moved")), [0]);
        assert_eq!(bed.reach(0, &frame(1, 2, b"two is known")), [2]);
        assert_eq!(drops(&bed, 0), DropCounters { filtered: 1, ..Default::default() });
    }
}

#[test]
fn bursts_of_many_stations_keep_their_order_and_bytes() {
    let mut bed = Bed::new(2, &[json!({}), json!({}), json!({"queues": 2}), json!({})]);
    for (port, station) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
        bed.send(port, &[frame(station, ALL, b"here I am")]);
        // One after the other: a worker learns nothing while another one does.
        bed.settle();
    }
    for port in 0..4 {
        bed.received(port);
    }
    let mut want = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    let frames: Vec<_> = (0..300_u16)
        .map(|n| {
            // Runs of one station and changes at every frame, both.
            let to = if n < 150 { 2 + (n / 40 % 3) as u8 } else { 2 + (n % 3) as u8 };
            let frame = frame(1, to, &n.to_be_bytes().repeat(usize::from(n % 60) + 1));
            want[usize::from(to) - 1].push(frame.clone());
            frame
        })
        .collect();
    bed.send(0, &frames);
    bed.settle();
    for (port, want) in want.iter().enumerate() {
        assert_eq!(&bed.received(port), want, "port {port}");
    }
}

#[test]
fn addresses_age() {
    let mut bed = Bed::new(1, &[json!({}), json!({"mac": "02:00:00:00:00:02"})]);
    bed.send(0, &[frame(1, ALL, b"")]);
    bed.settle();
    let known = |bed: &Bed| bed.switch.fdb(&FdbFilter::default()).expect("a list").len();
    assert_eq!(known(&bed), 2);
    // The configured one stays.
    while known(&bed) > 1 {
        bed.switch.look_after();
        std::thread::yield_now();
    }
    let left = bed.switch.fdb(&FdbFilter::default()).expect("a list");
    assert!(left[0].fixed && left[0].port == "p1" && left[0].mac.0[5] == 2);
}

#[test]
fn addresses_are_listed_and_forgotten_by_filter() {
    let mut bed = Bed::new(1, &[json!({"vlan": {"access": 5}}), json!({"vlan": {"access": 5}})]);
    bed.send(0, &[frame(1, ALL, b""), frame(3, ALL, b"")]);
    bed.send(1, &[frame(2, ALL, b"")]);
    bed.settle();
    let filter = |port: Option<&str>, vlan, mac: Option<&str>| FdbFilter {
        port: port.map(Into::into),
        vlan,
        mac: mac.map(|mac| mac.parse().expect("an address")),
    };
    for (which, want) in [
        (filter(None, None, None), 3),
        (filter(Some("p0"), None, None), 2),
        (filter(Some("p0"), Some(6), None), 0),
        (filter(None, Some(5), Some("02:00:00:00:00:02")), 1),
    ] {
        assert_eq!(bed.switch.fdb(&which).expect("a list").len(), want, "{which:?}");
    }
    assert_eq!(bed.switch.flush(&filter(Some("p0"), None, None)).expect("they go"), 2);
    assert_eq!(bed.switch.fdb(&FdbFilter::default()).expect("a list").len(), 1);
    assert!(bed.switch.fdb(&filter(Some("nobody"), None, None)).is_err());
}

#[test]
fn nobody_uses_an_address_that_is_anothers() {
    let own = |n: u8| json!({"mac": format!("02:00:00:00:00:{n:02x}"), "ips": [format!("10.0.0.{n}")]});
    let mut bed = Bed::new(1, &[own(1), own(2), json!({})]);
    // It is found before it has said anything, and nobody else sees what is for it.
    assert_eq!(bed.reach(0, &frame(1, 2, b"hello")), [1]);
    assert_eq!(bed.reach(0, &frame(2, ALL, b"I am two")), [0_usize; 0]);
    assert_eq!(bed.reach(2, &frame(2, ALL, b"no, I am")), [0_usize; 0]);
    assert_eq!(
        bed.reach(2, &frame(9, 8, b"for a stranger")),
        [0_usize; 0],
        "only itself is behind a port with an address"
    );
    assert_eq!((drops(&bed, 0).source_mac, drops(&bed, 2).source_taken, drops(&bed, 2).filtered), (1, 1, 1));

    let arp = |ip: u8| {
        let body = [&[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, ip][..], &[0; 10]].concat();
        [&[0xff; 6], &[2, 0, 0, 0, 0, 1, 8, 6][..], &body].concat()
    };
    assert_eq!(bed.reach(0, &arp(1)), [1, 2]);
    assert_eq!(bed.reach(0, &arp(2)), [0_usize; 0]);
    assert_eq!(drops(&bed, 0).source_ip, 1);
    let again = bed.switch.add(&bed.info(0).spec, None).expect("it is there");
    assert!(!again.created);
    let mut other = bed.info(0).spec;
    other.key = "thief".into();
    assert!(
        bed.switch
            .add(&other, None)
            .expect_err("its address is taken")
            .message
            .contains("belongs to port 'p0'")
    );
}

/// Whoever has sent from the address of a port that is still to come does not keep its frames.
#[test]
fn what_is_configured_wins_over_what_was_learned() {
    let mut bed = Bed::new(1, &[json!({}), json!({}), json!({})]);
    let mac = |number: u8| linecard_net::MacAddr([2, 0, 0, 0, 0, number]);
    bed.send(0, &[frame(7, ALL, b"the one who is to come, I say"), frame(8, ALL, b"")]);
    bed.settle();
    let port = |key: &str, mac, ring: u16| PortSpec {
        mac: Some(mac),
        ..PortSpec::new(key, PortKind::Vdev { device: format!("net_ring{ring}") })
    };
    assert!(bed.switch.add(&port("late", mac(7), 500), None).expect("it is added").created);
    let places = |bed: &Bed, number| {
        let filter = FdbFilter { mac: Some(mac(number)), ..FdbFilter::default() };
        let list = bed.switch.fdb(&filter).expect("a list");
        list.into_iter().map(|entry| (entry.port, entry.fixed)).collect::<Vec<_>>()
    };
    assert_eq!(places(&bed, 7), [("late".to_owned(), true)]);
    (0..3).for_each(|port| drop(bed.received(port)));
    assert_eq!(bed.reach(1, &frame(1, 7, b"for the late one")), [0_usize; 0]);
    assert_eq!(bed.reach(0, &frame(7, ALL, b"it is still me")), [0_usize; 0]);
    assert_eq!(drops(&bed, 0).source_taken, 1);
    // Where that cannot be, the port is not added, and its device is closed.
    bed.switch.fix(&FdbStatic { mac: mac(9), vlan: 0, port: "p0".into() }).expect("it is put in");
    for _ in 0..2 {
        let problem = bed.switch.add(&port("other", mac(9), 501), None).expect_err("it is fixed elsewhere");
        assert!(problem.to_string().contains("02:00:00:00:00:09 is fixed behind another port"), "{problem}");
    }
    assert!(bed.switch.show("other").is_err());
    assert_eq!(places(&bed, 9), [("p0".to_owned(), true)]);
    assert!(bed.switch.unfix(&FdbAddress { mac: mac(9), vlan: 0 }).expect("it goes"));
    assert!(bed.switch.add(&port("other", mac(9), 501), None).expect("it is added").created);
}

#[test]
fn frames_stay_in_their_vlans_with_the_tags_each_port_wants() {
    let mut bed = Bed::new(
        2,
        &[
            json!({"vlan": {"access": 10}}),
            json!({"vlan": {"access": 20}}),
            json!({"vlan": {"trunk": {"vlans": [10, 20], "native": 30}}}),
            json!({"vlan": {"access": 30}}),
            json!({}),
        ],
    );
    let (plain, other) = (frame(1, ALL, b"which VLAN?"), frame(6, ALL, b"which VLAN?"));
    for (from, sent, want) in [
        (0, plain.clone(), vec![(2, tagged(10, &plain))]),
        (1, plain.clone(), vec![(2, tagged(20, &plain))]),
        (2, plain.clone(), vec![(3, plain.clone())]),
        (2, tagged(10, &plain), vec![(0, plain.clone())]),
        (2, tagged(20, &plain), vec![(1, plain.clone())]),
        (2, tagged(30, &plain), vec![(3, plain.clone())]),
        (2, tagged(40, &plain), vec![]),
        (3, other.clone(), vec![(2, other.clone())]),
        (0, tagged(10, &plain), vec![]),
        (0, tagged(20, &plain), vec![]),
        (4, tagged(10, &plain), vec![]),
    ] {
        bed.send(from, std::slice::from_ref(&sent));
        bed.settle();
        let got: Vec<_> =
            (0..5).flat_map(|port| bed.received(port).into_iter().map(move |frame| (port, frame))).collect();
        assert_eq!(got, want, "from {from}: {sent:02x?}");
    }
    assert_eq!((drops(&bed, 0).vlan, drops(&bed, 2).vlan, drops(&bed, 4).filtered), (2, 1, 1));
    // One station in two VLANs is two stations.
    assert_eq!(bed.reach(3, &frame(7, 1, b"to the trunk's untagged one")), [2]);
}

#[test]
fn isolated_ports_reach_only_those_that_are_not() {
    let isolated = json!({"isolated": true});
    let mut bed = Bed::new(1, &[isolated.clone(), isolated, json!({})]);
    assert_eq!(bed.reach(0, &frame(1, ALL, b"")), [2]);
    assert_eq!(bed.reach(2, &frame(3, ALL, b"")), [0, 1]);
    assert_eq!(bed.reach(1, &frame(2, 1, b"")), [0_usize; 0]);
    assert_eq!(bed.reach(1, &frame(2, 3, b"")), [2]);
    assert_eq!(drops(&bed, 1).filtered, 1);
}

#[test]
fn a_port_may_send_only_so_much() {
    let limited =
        json!({"flood_rate": 1, "max_macs": 2, "rate": {"bits_per_second": 8, "burst_bytes": 10_000}});
    let mut bed = Bed::new(1, &[limited, json!({"flood_rate": 0}), json!({})]);
    assert_eq!(bed.reach(2, &frame(3, ALL, b"")), [0, 1]);
    // Eight bits a second pay for nothing while this test runs.
    let long = frame(1, 3, &[7; 1000]);
    bed.send(0, &vec![long.clone(); 20]);
    bed.settle();
    assert_eq!((bed.received(2).len(), drops(&bed, 0).rate), (9, 11));
    assert_eq!(bed.reach(0, &frame(4, 3, b"a second address")), [2]);
    assert_eq!(bed.reach(0, &frame(5, 3, b"a third")), [0_usize; 0]);
    assert_eq!(drops(&bed, 0).address_limit, 1);
    assert_eq!(bed.reach(1, &frame(2, ALL, b"a flood")), [0_usize; 0]);
    assert_eq!(drops(&bed, 1).flood_rate, 1);
    assert_eq!(bed.reach(1, &frame(2, 3, b"to one that is known")), [2]);
}

/// What a port may send is one measure, whichever of its queues it uses and whichever workers poll them.
#[test]
fn a_ports_rate_is_one_for_all_its_workers() {
    let limited =
        |queues: u16| json!({"queues": queues, "rate": {"bits_per_second": 8, "burst_bytes": 40_000}});
    let mut bed = Bed::new(4, &[limited(4), limited(4), limited(1), json!({})]);
    bed.send(3, &[frame(9, ALL, b"")]);
    bed.settle();
    (0..4).for_each(|port| drop(bed.received(port)));
    // 39 of these are 39 624 bytes.
    let frames = |from, count| vec![frame(from, 9, &[7; 1002]); count];
    bed.send_by(0, 2, &frames(1, 60));
    bed.settle();
    assert_eq!(bed.received(3).len(), 39, "one flow by one queue");
    (0..4).for_each(|queue| bed.send_by(1, queue, &frames(2, 15)));
    bed.settle();
    // Each worker may have kept a little that is too little for a frame.
    let got = bed.received(3).len();
    assert!((35..=39).contains(&got), "{got} by four queues");
    // What one worker has taken and not used is there for the next.
    let mut got = 0;
    for round in 0..6_u16 {
        bed.send(2, &frames(3, 10));
        bed.settle();
        got += bed.received(3).len();
        let asked = QueueMove { port: "p2".into(), queue: 0, worker: round % 4 };
        bed.switch.move_queue(&asked).expect("it moves");
    }
    assert_eq!(got, 39, "by one queue that moves");
    let rates = [0, 1, 2].map(|port| drops(&bed, port).rate);
    assert_eq!((rates[0], rates[2]), (21, 21), "{rates:?}");
}

/// A frame from one of many stations.
fn from_many(station: u16, to: u8) -> Vec<u8> {
    let mut frame = frame(0, to, b"one of many");
    frame[6..12].copy_from_slice(&[2, 0x77, 0, 0, (station >> 8) as u8, station as u8]);
    frame
}

/// Each kind of what goes to all has a limit of its own if that is asked for, and counts with the others if not.
#[test]
fn storms_are_held_back_by_kind() {
    let mut bed = Bed::new(
        1,
        &[
            json!({"broadcast_rate": 0}),
            json!({"multicast_rate": 0}),
            json!({"unknown_rate": 0}),
            json!({"flood_rate": 0, "multicast_rate": 1}),
            json!({}),
        ],
    );
    let multicast =
        |from: u8| [&[1, 0, 0x5e, 0, 0, 7, 2, 0, 0, 0, 0, from, 8, 0][..], b"to a group"].concat();
    let kinds = |from: u8| [frame(from, ALL, b"to all"), multicast(from), frame(from, 99, b"to a stranger")];
    let passed = |bed: &mut Bed, port: usize| {
        let frames = kinds(port as u8 + 1);
        frames.map(|frame| bed.reach(port, &frame).contains(&4))
    };
    for (port, want) in [(0, [false, true, true]), (1, [true, false, true]), (2, [true, true, false])] {
        assert_eq!(passed(&mut bed, port), want, "port {port}");
        let lost = drops(&bed, port);
        let lost = [lost.broadcast_rate, lost.multicast_rate, lost.unknown_rate, lost.flood_rate];
        let want = want.map(|passes| u64::from(!passes));
        assert_eq!(lost, [want[0], want[1], want[2], 0], "port {port}");
    }
    assert_eq!(passed(&mut bed, 3), [false, true, false]);
    assert_eq!((drops(&bed, 3).flood_rate, drops(&bed, 3).multicast_rate), (2, 0));
    // One kind that is used up costs the others nothing: 2048 may come at once.
    bed.send(3, &vec![multicast(4); 2060]);
    bed.settle();
    (0..5).for_each(|port| drop(bed.received(port)));
    assert!(drops(&bed, 3).multicast_rate > 0);
    assert_eq!(bed.reach(4, &frame(5, ALL, b"to all")), [0, 1, 2, 3]);
}

/// New addresses have an allowance of their own: who sends from many may still flood, and who may not flood is known all the same.
#[test]
fn learning_costs_no_floods() {
    let mut bed =
        Bed::new(1, &[json!({"flood_rate": 1}), json!({"flood_rate": 0}), json!({"learn_rate": 0})]);
    bed.send(1, &[frame(2, 9, b"here I am")]);
    bed.settle();
    let known = |bed: &Bed, port: &str| {
        let filter = FdbFilter { port: Some(port.into()), ..FdbFilter::default() };
        bed.switch.fdb(&filter).expect("a list").len()
    };
    assert_eq!((known(&bed, "p1"), drops(&bed, 1).flood_rate), (1, 1));
    for chunk in 0..11 {
        let frames: Vec<_> = (0..200).map(|n| from_many(chunk * 200 + n, 2)).collect();
        bed.send(0, &frames);
        bed.settle();
        assert_eq!(bed.received(1).len(), 200);
    }
    assert_eq!(bed.reach(0, &frame(1, ALL, b"to all")), [1, 2]);
    assert_eq!(drops(&bed, 0), DropCounters::default());
    // One that may learn nothing passes frames all the same.
    assert_eq!(bed.reach(2, &frame(3, 2, b"to one that is known")), [1]);
    assert_eq!(known(&bed, "p2"), 0);
}

/// Ports that send from addresses which they make up fill the table, and keep nobody else's out of it.
#[test]
fn strangers_keep_nobody_from_being_known() {
    let mut bed = Bed::new(2, &[json!({}), json!({}), json!({}), json!({}), json!({}), json!({})]);
    let known = |bed: &Bed, port: &str| {
        let filter = FdbFilter { port: Some(port.into()), ..FdbFilter::default() };
        bed.switch.fdb(&filter).expect("a list").len()
    };
    let fill = |bed: &mut Bed, from: u16| {
        for port in 0..4_u16 {
            let frames: Vec<_> = (0..400).map(|n| from_many(from + port * 400 + n, 250)).collect();
            bed.send(port.into(), &frames);
            bed.settle();
            (0..6).for_each(|port| drop(bed.received(port)));
        }
    };
    fill(&mut bed, 0);
    let all = bed.switch.stats().addresses;
    assert!(all > 950, "{all} of 1000 places are taken");
    for station in 1..=5 {
        bed.send(4, &[frame(station, ALL, b"and who am I?")]);
        bed.settle();
    }
    assert_eq!(known(&bed, "p4"), 5);
    let mac = |number: u8| linecard_net::MacAddr([2, 0, 0, 0, 0, number]);
    bed.switch.fix(&FdbStatic { mac: mac(9), vlan: 0, port: "p5".into() }).expect("it is put in");
    let port = PortSpec {
        mac: Some(mac(10)),
        ..PortSpec::new("late", PortKind::Vdev { device: "net_ring510".into() })
    };
    assert!(bed.switch.add(&port, None).expect("it is added").created);
    // They go on, and the others stay.
    fill(&mut bed, 2000);
    assert_eq!(["p4", "p5", "late"].map(|port| known(&bed, port)), [5, 1, 1]);
}

#[test]
fn what_is_too_long_or_no_frame_is_counted() {
    let mut bed = Bed::new(1, &[json!({"mtu": 1500}), json!({"mtu": 1000}), json!({"mtu": 9000})]);
    bed.send(1, &[frame(2, ALL, b"")]);
    bed.settle();
    let with = |to, len: usize| frame(1, to, &vec![1; len]);
    for (from, sent, want) in [
        (0, with(2, 1004), vec![1]),
        (0, with(2, 1005), vec![]),
        (0, with(ALL, 1005), vec![2]),
        (0, with(ALL, 1504), vec![2]),
        (0, with(ALL, 1505), vec![]),
        (0, vec![0; 10], vec![]),
        (0, [&[0xff; 6], &[0xff; 6][..], &[8, 0]].concat(), vec![]),
        (0, [&[1, 0x80, 0xc2, 0, 0, 0][..], &[2, 0, 0, 0, 0, 1], &[8, 0]].concat(), vec![]),
    ] {
        for port in 0..3 {
            bed.received(port);
        }
        assert_eq!(bed.reach(from, &sent), want, "{} bytes", sent.len());
    }
    let (zero, one) = (drops(&bed, 0), drops(&bed, 1));
    assert_eq!((zero.rx_oversize, zero.malformed, zero.reserved, one.tx_oversize), (1, 2, 1, 3));
}

#[test]
fn a_port_that_takes_nothing_costs_others_nothing() {
    let mut bed = Bed::new(1, &[json!({}), json!({}), json!({})]);
    for (port, station) in [(0, 1), (1, 2), (2, 3)] {
        bed.send(port, &[frame(station, ALL, b"")]);
    }
    bed.settle();
    (0..3).for_each(|port| drop(bed.received(port)));
    // Two of three frames are for a ring that fills up; the others all arrive.
    let mut got = 0;
    for n in 0..3000_u32 {
        bed.send(0, &[frame(1, if n % 3 == 0 { 3 } else { 2 }, &n.to_be_bytes())]);
        if n % 100 == 0 {
            bed.settle();
            got += bed.received(2).len();
        }
    }
    bed.settle();
    got += bed.received(2).len();
    assert_eq!(got, 1000);
    let stuck = bed.received(1).len() as u64;
    assert_eq!(drops(&bed, 1).tx_full, 2000 - stuck);
}

/// A frame in hexadecimal.
fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_trace_says_what_becomes_of_a_frame_and_changes_nothing() {
    let mut bed = Bed::new(
        2,
        &[
            json!({"vlan": {"access": 10}, "max_macs": 2}),
            json!({"vlan": {"trunk": {"vlans": [10, 20]}}}),
            json!({"vlan": {"access": 10}, "mac": "02:00:00:00:00:03", "ips": ["10.0.0.3"]}),
            json!({"vlan": {"access": 20}, "mtu": 1000}),
            json!({"vlan": {"access": 20}, "isolated": true}),
            json!({"vlan": {"access": 20}, "isolated": true}),
        ],
    );
    bed.send(1, &[tagged(10, &frame(2, ALL, b""))]);
    bed.settle();
    (0..6).for_each(|port| drop(bed.received(port)));
    let before = bed.switch.fdb(&FdbFilter::default()).expect("a list");
    let mut spoofed = frame(3, 2, &[0; 60]);
    (spoofed[12], spoofed[13], spoofed[14], spoofed[26]) = (8, 0, 0x45, 9);
    let cases = [
        (0, frame(1, 2, b"known")),
        (0, frame(1, 9, b"unknown")),
        (0, frame(1, ALL, b"everybody")),
        (0, tagged(10, &frame(1, 2, b"no tags here"))),
        (0, frame(3, 2, b"an address that is another's")),
        (0, frame(1, 1, b"")[..13].to_vec()),
        (0, frame(1, 2, &[0; 1600])),
        (1, tagged(20, &frame(2, ALL, &[0; 1200]))),
        (1, tagged(30, &frame(2, ALL, b"not here"))),
        (1, frame(2, ALL, b"no native VLAN")),
        (1, tagged(10, &frame(2, 3, b"to an access port"))),
        (1, tagged(10, &frame(2, 2, b"to itself"))),
        (2, frame(1, 2, b"not its own")),
        (2, spoofed),
        (4, frame(5, ALL, b"isolated")),
    ];
    for (from, frame) in cases {
        let asked = TraceRequest { port: format!("p{from}"), frame: hex(&frame) };
        let trace = bed.switch.trace(&asked).expect("a trace");
        let lost = drops_by_name(&bed);
        let said: Vec<usize> = trace
            .ports
            .iter()
            .filter(|port| port.cause.is_none())
            .map(|port| port.port[1..].parse().expect("p and a number"))
            .collect();
        // The frame itself does what was said.
        assert_eq!(bed.reach(from, &frame), said, "{trace:?}");
        let causes: Vec<String> = drops_by_name(&bed)
            .into_iter()
            .zip(lost)
            .filter(|(now, before)| now.1 > before.1)
            .map(|(now, _)| now.0)
            .collect();
        let mut told: Vec<String> = trace.ports.iter().filter_map(|port| port.cause.clone()).collect();
        told.extend(trace.cause.clone());
        told.sort_unstable();
        told.dedup();
        assert_eq!(causes, told, "{trace:?}");
        assert!(trace.steps.len() > 1, "{trace:?}");
        // What it taught is forgotten, so that each case finds the same table.
        bed.switch.flush(&FdbFilter::default()).expect("they go");
        bed.send(1, &[tagged(10, &common::frame(2, ALL, b""))]);
        bed.settle();
        (0..6).for_each(|port| drop(bed.received(port)));
    }
    let places = |list: &[linecard_switch::api::FdbEntry]| -> Vec<_> {
        list.iter().map(|entry| (entry.mac, entry.vlan, entry.port.clone())).collect()
    };
    assert_eq!(places(&before), places(&bed.switch.fdb(&FdbFilter::default()).expect("a list")));
    for (port, text) in [("nobody", "00"), ("p0", "0"), ("p0", "0g"), ("p0", "xyz")] {
        assert!(bed.switch.trace(&TraceRequest { port: port.into(), frame: text.into() }).is_err(), "{text}");
    }
}

/// Every cause of loss that has a count, with the sum of all ports, in the order of names.
fn drops_by_name(bed: &Bed) -> Vec<(String, u64)> {
    let mut sums = std::collections::BTreeMap::new();
    for port in bed.switch.list() {
        for (name, count) in port.counters.drops.causes() {
            *sums.entry(name.to_owned()).or_default() += count;
        }
    }
    sums.into_iter().collect()
}

#[test]
fn an_address_is_put_behind_a_port_by_hand() {
    let mut bed = Bed::new(
        1,
        &[json!({}), json!({}), json!({"mac": "02:00:00:00:00:03"}), json!({"vlan": {"access": 5}})],
    );
    let mac = |number: u8| linecard_net::MacAddr([2, 0, 0, 0, 0, number]);
    let fixed = |number, port: &str| FdbStatic { mac: mac(number), vlan: 0, port: port.into() };
    bed.send(0, &[frame(2, ALL, b"learned here")]);
    bed.settle();
    assert!(bed.switch.fix(&fixed(2, "p1")).expect("it gives way").fixed);
    assert!(bed.switch.fix(&fixed(2, "p1")).is_ok(), "again is no error");
    (0..4).for_each(|port| drop(bed.received(port)));
    assert_eq!(bed.reach(0, &frame(1, 2, b"")), [1]);
    assert_eq!(bed.reach(0, &frame(2, 1, b"no, here")), [0_usize; 0]);
    assert_eq!(drops(&bed, 0).source_taken, 1);
    // It stays when learned ones go.
    bed.switch.flush(&FdbFilter::default()).expect("they go");
    assert_eq!(bed.switch.fdb(&FdbFilter::default()).expect("a list").len(), 2);
    for (asked, want) in [
        (fixed(2, "p0"), "belongs to another port"),
        (fixed(3, "p0"), "belongs to another port"),
        (fixed(4, "nobody"), "there is no port"),
        (FdbStatic { vlan: 5, ..fixed(4, "p0") }, "is not in VLAN 5"),
        (fixed(4, "p3"), "is not in VLAN 0"),
        (
            FdbStatic { mac: linecard_net::MacAddr([0xff; 6]), ..fixed(4, "p0") },
            "is the address of no station",
        ),
    ] {
        let problem = bed.switch.fix(&asked).expect_err(want).to_string();
        assert!(problem.contains(want) && problem.contains("; "), "{problem}");
    }
    let forget = |number| FdbAddress { mac: mac(number), vlan: 0 };
    assert!(bed.switch.unfix(&forget(3)).is_err(), "it is the port's own");
    assert!(
        bed.switch.unfix(&forget(2)).expect("it goes") && !bed.switch.unfix(&forget(2)).expect("it is gone")
    );
    assert_eq!(bed.reach(0, &frame(2, 1, b"now it may")), [1]);
}

#[test]
fn what_passes_a_port_can_be_captured() {
    let mut bed = Bed::new(2, &[json!({}), json!({}), json!({})]);
    let port = bed.info(1).id;
    let (session, mut stream) =
        bed.captures.open(port, &linecard_capture::Options::default()).expect("a capture");
    let (one, two) = (frame(1, ALL, b"to all"), frame(2, 1, b"back"));
    bed.send(0, std::slice::from_ref(&one));
    bed.settle();
    bed.send(1, std::slice::from_ref(&two));
    bed.settle();
    let mut seen = Vec::new();
    while let Some(frame) = stream.next().expect("not garbled") {
        seen.push(frame.data.to_vec());
    }
    assert_eq!(seen, [one, two]);
    drop(session);
    // Another one may have it, and a port that went has none.
    drop(bed.captures.open(port, &linecard_capture::Options::default()).expect("a capture"));
    assert!(bed.switch.remove("p1").expect("it goes"));
    assert!(bed.captures.open(port, &linecard_capture::Options::default()).is_err());
}

#[test]
fn questions_for_configured_neighbours_are_answered_and_not_sent_to_all() {
    let own = |n: u8| json!({"mac": format!("02:00:00:00:00:{n:02x}"), "ips": [format!("10.0.0.{n}")]});
    let question = |from: u8, ip: u8| {
        let body =
            [&[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, from, 10, 0, 0, from][..], &[0; 6], &[10, 0, 0, ip]]
                .concat();
        [&[0xff; 6], &[2, 0, 0, 0, 0, from, 8, 6][..], &body].concat()
    };
    for workers in [1, 2] {
        let mut bed = Bed::answering(workers, &[own(1), own(2), json!({})], true);
        assert_eq!(bed.reach(0, &question(1, 2)), [0], "who asked is answered, and nobody else hears of it");
        let asked = TraceRequest { port: "p0".into(), frame: hex(&question(1, 2)) };
        assert_eq!(bed.switch.trace(&asked).expect("a trace").verdict, TraceVerdict::Answer);
        bed.send(0, &[question(1, 2)]);
        bed.settle();
        let answer = bed.received(0).remove(0);
        assert_eq!(answer[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        assert_eq!(answer[20..32], [0, 2, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2]);
        assert_eq!(bed.reach(0, &question(1, 9)), [1, 2], "nobody's address");
        assert_eq!(bed.reach(0, &question(1, 1)), [1, 2], "its own: an announcement");
        assert!(bed.switch.remove("p1").expect("it goes"));
        assert_eq!(bed.reach(0, &question(1, 2)), [2], "who went is not answered for");
    }
    let mut bed = Bed::new(1, &[own(1), own(2), json!({})]);
    assert_eq!(bed.reach(0, &question(1, 2)), [1, 2], "not unless it was asked for");
}

#[test]
fn queues_move_between_workers_while_frames_pass() {
    let mut bed = Bed::new(3, &[json!({"queues": 2}), json!({}), json!({})]);
    for (port, station) in [(0, 1), (1, 2), (2, 3)] {
        bed.send(port, &[frame(station, ALL, b"here I am")]);
        // One after the other: a worker learns nothing while another one does.
        bed.settle();
    }
    (0..3).for_each(|port| drop(bed.received(port)));
    let asked = |port: &str, queue, worker| QueueMove { port: port.into(), queue, worker };
    let mut got = [0, 0];
    for round in 0..24_u16 {
        bed.send_by(
            0,
            usize::from(round % 2),
            &[frame(1, 2, &round.to_be_bytes()), frame(1, 3, &round.to_be_bytes())],
        );
        bed.switch.move_queue(&asked("p0", round % 2, round % 3)).expect("it moves");
        bed.switch.move_queue(&asked("p1", 0, (round + 1) % 3)).expect("it moves");
        bed.settle_moved();
        got = [got[0] + bed.received(1).len(), got[1] + bed.received(2).len()];
    }
    assert_eq!(got, [24, 24], "nothing is lost");
    let workers = bed.switch.workers();
    let mut queues: Vec<_> = workers.iter().flat_map(|worker| &worker.queues).collect();
    queues.sort_by_key(|queue| (queue.port.clone(), queue.queue));
    let counted: Vec<_> =
        queues.iter().map(|queue| (queue.port.as_str(), queue.queue, queue.rx_packets)).collect();
    assert_eq!(counted, [("p0", 0, 25), ("p0", 1, 24), ("p1", 0, 1), ("p2", 0, 1)]);
    let of_p1 = workers.iter().find(|worker| worker.queues.iter().any(|queue| queue.port == "p1"));
    assert_eq!(of_p1.map(|worker| worker.id), Some(24 % 3));
    for (asked, want) in [
        (asked("nobody", 0, 0), "there is no port"),
        (asked("p1", 1, 0), "has no receive queue 1; it has 1"),
        (asked("p1", 0, 3), "there is no worker 3; the last one is 2"),
    ] {
        let problem = bed.switch.move_queue(&asked).expect_err(want).to_string();
        assert!(problem.contains(want), "{problem}");
    }
    assert!(bed.switch.remove("p0").expect("it goes"));
}
