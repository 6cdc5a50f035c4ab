//! Checksums and large packets over a socket between our frontend and our backend, in both directions, negotiated or
//! done in software. Every checksum is verified by a computation of this file's own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use linecard::eal::{Memory, MemoryConfig, PagePolicy};
use linecard::mempool::{Burst, Offload, Packet, Pool, PoolConfig, TxOffload};
use linecard::pmd::offload::{AcceptedOffloads, Offloads, RxOffloads, TxOffloads, TxRequest, describe};
use linecard::pmd::{DevArgs, Driver, Port, PortConfig, ProbeContext, configure};
use linecard::vhost_user::VhostDriver;
use linecard::virtio::net::{NEEDS_CSUM, NetHeader};
use linecard::virtio_user::VirtioUser;

#[path = "support/frames.rs"]
mod frames;

use frames::{KINDS, Kind, assert_finished, pseudo, sum};

static VHOST: VhostDriver = VhostDriver::new();
static VIRTIO_USER: VirtioUser = VirtioUser::new();

/// A started port, its memory and its pool.
struct End {
    port: Port,
    pool: Pool,
}

fn context() -> (ProbeContext, Pool) {
    let memory = Memory::new(MemoryConfig::default().pages(PagePolicy::NoHuge));
    let memory = memory.expect("memory");
    let domain = memory.domain("offloads").expect("a domain");
    let pool = Pool::new(&domain, PoolConfig::default().packets(4096)).expect("a pool");
    (ProbeContext::new(memory, domain, Duration::from_secs(2)), pool)
}

/// A frontend and a backend on a socket of their own.
fn both(ring: &str, tso: bool, front: Offloads, back: Offloads) -> (End, End) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name =
        format!("linecard-offloads-{}-{}.sock", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let start = |driver: &dyn Driver, text: String, offloads| {
        let (context, pool) = context();
        let args = DevArgs::parse(&text).expect("well formed");
        let device = driver.probe(&context, &args).expect("a device");
        let config = PortConfig::default().offloads(offloads);
        let port = configure(device, config).and_then(|device| device.start(&pool)).expect("a port");
        End { port, pool }
    };
    let tso = u8::from(tso);
    let back = start(&VHOST, format!("net_vhost0,iface={},tso={tso}", path.display()), back);
    let front = start(&VIRTIO_USER, format!("net_virtio_user0,path={},{ring}", path.display()), front);
    (front, back)
}

const RINGS: [&str; 5] = [
    "in_order=0",
    "in_order=1,mrg_rxbuf=0",
    "packed_vq=1,in_order=0,mrg_rxbuf=0",
    "packed_vq=1,in_order=1",
    "packed_vq=1,in_order=0,queue_size=1000",
];

/// `bytes` in as many segments as they need, the first cut at `first` bytes.
fn packet(pool: &Pool, bytes: &[u8], first: usize) -> Packet {
    let (head, tail) = bytes.split_at(first.min(bytes.len()));
    let mut whole = pool.get().expect("a buffer");
    whole.append(head.len()).expect("room").copy_from_slice(head);
    for piece in tail.chunks(usize::from(pool.data_room())) {
        let mut part = pool.get().expect("a buffer");
        part.append(piece.len()).expect("room").copy_from_slice(piece);
        whole.chain(part).map_err(|_| "too long").expect("a chain");
    }
    whole
}

fn asking(pool: &Pool, kind: Kind, payload: usize, segment: Option<u16>) -> Packet {
    let frame = kind.frame(payload);
    let mut packet = packet(pool, &frame, 700);
    let lengths = TxOffload::new(14, kind.l3() as u16, kind.l4() as u16);
    packet.set_tx_offload(kind.flags(segment.is_some()), lengths.with_tso_segsz(segment.unwrap_or(0)));
    packet
}

/// What a packet says and its bytes.
type Got = (Offload, u16, Vec<u8>);

/// Sends `packets` and receives until `payload` bytes behind headers have come.
fn pass(from: &mut End, to: &mut End, packets: Vec<Packet>, headers: usize, payload: usize) -> Vec<Got> {
    let until = Instant::now() + Duration::from_secs(10);
    let (mut rest, mut out, mut burst) = (packets.into_iter(), Burst::new(), Burst::new());
    let (mut got, mut bytes): (Vec<Got>, _) = (Vec::new(), 0);
    while bytes < payload {
        assert!(
            Instant::now() < until,
            "{bytes} of {payload} bytes came; {:?}; {:?}",
            from.port.control.xstats(),
            to.port.control.xstats()
        );
        out.fill_from(&mut rest);
        from.port.tx[0].tx_burst(&mut out);
        from.port.tx[0].reclaim();
        to.port.rx[0].rx_burst(&mut burst);
        for packet in burst.drain(..64) {
            bytes += packet.len() - headers;
            let size = packet.tx_offload().tso_segsz();
            got.push((packet.offload(), size, packet.to_bytes().to_vec()));
        }
    }
    assert_eq!(bytes, payload);
    let lost = |end: &End| (end.port.control.stats().oerrors, end.port.control.stats().ierrors);
    assert_eq!((lost(from), lost(to)), ((0, 0), (0, 0)));
    got
}

fn is_unfinished(flags: Offload) -> bool {
    flags & Offload::RX_L4_CKSUM_MASK == Offload::RX_L4_CKSUM_NONE
}

/// One ordinary packet of each size that asks for its checksums.
fn check_checksums(from: &mut End, to: &mut End, longest: usize, unfinished: bool) {
    for kind in KINDS {
        for payload in [1_usize, 2, 17, 18, 600, 1399, 1400, 5001].into_iter().filter(|len| *len < longest) {
            let packets = vec![asking(&from.pool, kind, payload, None)];
            let got = pass(from, to, packets, kind.headers(), payload);
            let [(flags, _, bytes)] = &got[..] else { panic!("{} packets", got.len()) };
            let mut bytes = bytes.clone();
            assert_eq!(is_unfinished(*flags), unfinished, "{kind:?} {flags}");
            if unfinished {
                let at = kind.checksum_at();
                assert_eq!(bytes[at..at + 2], pseudo(kind, &bytes).to_be_bytes());
                let finished = !sum(&[&bytes[14 + kind.l3()..]]);
                bytes[at..at + 2].copy_from_slice(&finished.max(1).to_be_bytes());
            }
            assert_finished(kind, &bytes);
            assert_eq!(bytes[kind.headers()..], kind.frame(payload)[kind.headers()..]);
        }
    }
}

/// Large packets: they come whole where `whole` says so for their kind, else cut and finished.
fn check_large(from: &mut End, to: &mut End, longest: usize, whole: impl Fn(Kind) -> bool) {
    let sizes = [(2001_usize, 1000_u16), (20_000, 1448), (65_400, 1400), (9000, 4000)];
    for kind in KINDS {
        for (payload, size) in sizes.into_iter().filter(|(_, size)| usize::from(*size) < longest) {
            let packets = vec![asking(&from.pool, kind, payload, Some(size))];
            let got = pass(from, to, packets, kind.headers(), payload);
            if whole(kind) {
                let [(flags, segment, bytes)] = &got[..] else { panic!("{} packets", got.len()) };
                assert!(is_unfinished(*flags) && flags.contains(Offload::RX_LRO), "{flags}");
                assert_eq!(*segment, size);
                let at = kind.checksum_at();
                assert_eq!(bytes[at..at + 2], pseudo(kind, bytes).to_be_bytes());
                assert_eq!(bytes[kind.headers()..], kind.frame(payload)[kind.headers()..]);
                continue;
            }
            assert_eq!(got.len(), payload.div_ceil(usize::from(size)));
            let mut joined = Vec::new();
            for (flags, _, bytes) in &got {
                assert!(!is_unfinished(*flags), "{flags}");
                assert_finished(kind, bytes);
                if kind.tcp {
                    let sequence = &bytes[14 + kind.l3() + 4..][..4];
                    let expected = 0xffff_ff00_u32.wrapping_add(joined.len() as u32);
                    assert_eq!(sequence, expected.to_be_bytes());
                }
                joined.extend_from_slice(&bytes[kind.headers()..]);
            }
            assert_eq!(joined, kind.frame(payload)[kind.headers()..]);
        }
    }
}

/// Longest frame without segmentation that any ring here passes.
const LONGEST: usize = 9000;
const NOTHING: Offloads = Offloads { rx: RxOffloads::empty(), tx: TxOffloads::empty() };
const SENDS: Offloads = Offloads { rx: RxOffloads::empty(), tx: TxOffloads::VIRTIO };
const TAKES_SUMS: Offloads = Offloads { rx: RxOffloads::CHECKSUM, tx: TxOffloads::empty() };
const TAKES_ALL: Offloads = Offloads { rx: RxOffloads::VIRTIO, tx: TxOffloads::empty() };

#[test]
fn frontend_to_backend() {
    for ring in RINGS {
        for (tso, accepted) in [(false, NOTHING), (false, TAKES_SUMS), (true, TAKES_ALL)] {
            let (mut front, mut back) = both(ring, tso, SENDS, accepted);
            check_checksums(&mut front, &mut back, LONGEST, accepted != NOTHING);
            if tso {
                check_large(&mut front, &mut back, LONGEST, |_| true);
            } else if accepted == NOTHING {
                check_large(&mut front, &mut back, LONGEST, |_| false);
            }
            assert!(front.port.tx[0].path().ends_with("offload"), "{}", front.port.tx[0].path());
        }
    }
}

#[test]
fn backend_to_frontend() {
    for ring in RINGS {
        for accepted in [NOTHING, TAKES_SUMS, TAKES_ALL] {
            let (mut front, mut back) = both(ring, false, accepted, SENDS);
            // Without mergeable buffers a packet has to fit one.
            let longest = if ring.contains("mrg_rxbuf=0") { 1900 } else { LONGEST };
            check_checksums(&mut back, &mut front, longest, accepted != NOTHING);
            let whole = accepted == TAKES_ALL && !ring.contains("mrg_rxbuf=0");
            if whole {
                check_large(&mut back, &mut front, longest, |_| true);
            } else if accepted == NOTHING {
                check_large(&mut back, &mut front, longest, |_| false);
            }
            assert_eq!(front.port.rx[0].path().ends_with("offload"), accepted != NOTHING);
        }
    }
}

#[test]
fn only_what_was_asked_for_is_negotiated() {
    let (front, _back) = both("in_order=1", true, NOTHING, NOTHING);
    let features = front.port.control.features();
    for name in ["CSUM", "TSO", "USO", "ECN"] {
        assert!(!features.contains(name), "{features}");
    }
    assert_eq!(front.port.rx[0].path(), "split in-order mergeable");
    let tcp = Offloads { rx: RxOffloads::empty(), tx: TxOffloads::TCP_TSO };
    let (front, _back) = both("in_order=1", true, tcp, NOTHING);
    let features = front.port.control.features();
    assert!(features.contains("NET_CSUM") && features.contains("NET_HOST_TSO6"), "{features}");
    assert!(!features.contains("GUEST") && !features.contains("USO"), "{features}");
}

#[test]
fn a_packet_received_unfinished_can_be_passed_on_as_it_is() {
    // Backend A → frontend A, then the same packets: frontend B → backend B, which knows no offload.
    let (mut front_a, mut back_a) = both("in_order=1", false, TAKES_ALL, SENDS);
    for (tso, accepted) in [(false, NOTHING), (true, TAKES_ALL)] {
        let (mut front_b, mut back_b) = both("packed_vq=1", tso, SENDS, accepted);
        for kind in KINDS {
            for (payload, segment) in [(1000, None), (5000, Some(1200))] {
                let mut out = Burst::new();
                out.push(asking(&back_a.pool, kind, payload, segment)).expect("room");
                back_a.port.tx[0].tx_burst(&mut out);
                let mut held = Burst::new();
                let until = Instant::now() + Duration::from_secs(5);
                while held.is_empty() && Instant::now() < until {
                    front_a.port.rx[0].rx_burst(&mut held);
                }
                let packets: Vec<_> = held.drain(..64).collect();
                assert_eq!(packets.len(), 1);
                assert!(is_unfinished(packets[0].offload()));
                let got = pass(&mut front_b, &mut back_b, packets, kind.headers(), payload);
                if accepted == NOTHING {
                    got.iter().for_each(|(_, _, bytes)| {
                        // A large packet's IPv4 header sum is of the large packet; segments have their own.
                        assert_finished(kind, bytes);
                    });
                } else {
                    assert!(is_unfinished(got[0].0) && got.len() == 1);
                }
            }
        }
    }
}

#[test]
fn packets_without_flags_are_the_same_on_every_path() {
    for ring in RINGS {
        let mut results = Vec::new();
        for (front, back) in [(NOTHING, NOTHING), (Offloads::VIRTIO, Offloads::VIRTIO)] {
            let (mut front, mut back) = both(ring, true, front, back);
            let frames: Vec<_> = (0..200).map(|i| KINDS[i % 4].frame(i * 7)).collect();
            let payload = frames.iter().map(Vec::len).sum();
            let make = |pool: &Pool| frames.iter().map(|frame| packet(pool, frame, 1500)).collect();
            let packets = make(&front.pool);
            let there = pass(&mut front, &mut back, packets, 0, payload);
            let packets = make(&back.pool);
            let here = pass(&mut back, &mut front, packets, 0, payload);
            assert_eq!(there.iter().map(|got| &got.2).collect::<Vec<_>>(), frames.iter().collect::<Vec<_>>());
            results.push((there, here));
        }
        assert_eq!(results[0], results[1]);
    }
}

#[test]
fn flags_that_do_not_fit_are_dropped_and_counted() {
    for (ring, tso) in [("in_order=1", true), ("packed_vq=1", false)] {
        let (mut front, mut back) = both(ring, tso, SENDS, NOTHING);
        let tcp = KINDS[0];
        let bad: Vec<(Offload, u16)> = vec![
            (Offload::TX_UDP_CKSUM, 0),
            (Offload::TX_SCTP_CKSUM, 0),
            (Offload::TX_TCP_SEG, 0),
            (Offload::TX_UDP_SEG, 100),
            (Offload::TX_TCP_SEG | Offload::TX_UDP_SEG, 100),
            (Offload::TX_TCP_SEG, u16::MAX),
        ];
        for (count, (flags, size)) in (1_u64..).zip(bad) {
            let mut burst = Burst::new();
            let mut bad = packet(&front.pool, &tcp.frame(3000), 500);
            bad.set_tx_offload(flags, TxOffload::new(14, 20, 20).with_tso_segsz(size));
            burst.push(bad).expect("room");
            burst.push(packet(&front.pool, &tcp.frame(10), 500)).expect("room");
            assert_eq!(front.port.tx[0].tx_burst(&mut burst), 2, "{flags}");
            assert_eq!(front.port.control.stats().oerrors, count, "{flags} {size}");
            assert_eq!(front.port.control.stats().opackets, count);
        }
        let mut got = Burst::new();
        let until = Instant::now() + Duration::from_secs(5);
        while got.len() < 6 && Instant::now() < until {
            back.port.rx[0].rx_burst(&mut got);
        }
        assert_eq!(got.len(), 6);
    }
}

const ALL: AcceptedOffloads =
    AcceptedOffloads { csum: true, tso4: true, tso6: true, ecn: true, uso4: true, uso6: true };

/// What becomes of a received packet with this header: dropped, or described in a way that can be acted on.
fn judge(pool: &Pool, bytes: &[u8], first: usize, header: NetHeader) -> Option<Packet> {
    let mut got = packet(pool, bytes, first);
    let request = header.request(got.len())?;
    describe(&mut got, request, ALL).ok()?;
    let asked = TxRequest::of(&got).expect("what was described can be sent on");
    if let Some(asked) = asked {
        let field = asked.request().partial.expect("it asks for a checksum").field();
        assert!(field.end <= got.len());
        assert!(asked.request().gso.is_none_or(|gso| gso.size > 0));
    }
    Some(got)
}

#[test]
fn every_checksum_place_is_finished_dropped_or_described() {
    let (_context, pool) = context();
    for (kind, payload) in [(KINDS[0], 0), (KINDS[2], 18), (KINDS[3], 1000)] {
        let frame = kind.frame(payload);
        let known = (14 + kind.l3(), if kind.tcp { 16 } else { 6 });
        for swept in 0..=u16::MAX {
            for (csum_start, csum_offset) in [(swept, known.1 as u16), (known.0 as u16, swept)] {
                let header = NetHeader { flags: NEEDS_CSUM, csum_start, csum_offset, ..NetHeader::default() };
                let (start, offset) = (usize::from(csum_start), usize::from(csum_offset));
                let got = judge(&pool, &frame, 2000, header);
                assert_eq!(got.is_some(), start + offset + 2 <= frame.len(), "{start} {offset}");
                let Some(got) = got else { continue };
                assert_eq!(is_unfinished(got.offload()), (start, offset) == known, "{start} {offset}");
                if (start, offset) != known {
                    // Finished here: the field holds the complement of the sum of all that was there.
                    let at = start + offset;
                    let sum = (!sum(&[&frame[start..]])).to_be_bytes();
                    let sum = if sum == [0, 0] { [0xff, 0xff] } else { sum };
                    assert_eq!(got.data()[at..at + 2], sum);
                }
            }
        }
    }
}

#[test]
fn large_packets_are_believed_only_when_their_headers_agree() {
    let (_context, pool) = context();
    for kind in KINDS {
        let frame = kind.frame(4000);
        for gso_type in [0_u8, 1, 2, 3, 4, 5, 6, 0x80, 0x81, 0x84, 0x85, 0xff] {
            for gso_size in [0_u16, 1, 7, 535, 536, 3999, 4000, 65_535] {
                for (hdr_len, first) in [(0_u16, 15), (54, 34), (65_535, 60), (14, 2000)] {
                    let csum_start = (14 + kind.l3()) as u16;
                    let csum_offset = if kind.tcp { 16 } else { 6 };
                    let header = NetHeader {
                        flags: NEEDS_CSUM,
                        gso_type,
                        hdr_len,
                        gso_size,
                        csum_start,
                        csum_offset,
                        num_buffers: 1,
                    };
                    let right = match (kind.tcp, kind.v6) {
                        (true, false) => matches!(gso_type, 1 | 0x81),
                        (true, true) => matches!(gso_type, 4 | 0x84),
                        (false, _) => gso_type == 5,
                    };
                    let fits = gso_size > 0 && kind.l3() + kind.l4() + usize::from(gso_size) <= 65_535;
                    let got = judge(&pool, &frame, first, header);
                    let expected = gso_type == 0 || right && fits;
                    assert_eq!(got.is_some(), expected, "{kind:?} {header:?} {first}");
                    let unsummed = NetHeader { flags: 0, ..header };
                    assert_eq!(judge(&pool, &frame, first, unsummed).is_some(), gso_type == 0);
                }
            }
        }
    }
    assert_eq!(pool.stats().in_use, 0);
}
