//! Checksums and large packets between our ends and a testpmd's, DPDK's and ours: what is negotiated is used, what is
//! not is done in software, and every byte and checksum is verified by a computation of the tests' own.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use linecard::mempool::{Burst, Offload, Packet, Pool, TxOffload};
use linecard::pmd::offload::{Offloads, RxOffloads, TxOffloads};
use support::Scratch;
use support::console::{Kind as Peer, Testpmd, present};
use support::frames::{KINDS, Kind, assert_finished, pseudo, sum};
use support::ours::{Ours, backend_vdev, frontend_vdev, wait_for_socket};
use support::peer::{forward, idle};

const MERGEABLE: [&str; 3] =
    ["mrg_rxbuf=1,in_order=0", "packed_vq=1,mrg_rxbuf=1,in_order=0", "packed_vq=1,mrg_rxbuf=1"];
const OTHERS: [&str; 3] =
    ["mrg_rxbuf=0,in_order=1", "packed_vq=1,mrg_rxbuf=0,in_order=0", "packed_vq=1,mrg_rxbuf=0,in_order=1"];
const SENDS: Offloads = Offloads { rx: RxOffloads::empty(), tx: TxOffloads::VIRTIO };
const TAKES_SUMS: Offloads = Offloads { rx: RxOffloads::CHECKSUM, tx: TxOffloads::VIRTIO };
const ALL: Offloads = Offloads::VIRTIO;
const SEGMENT: u16 = 800;
const SECOND: Duration = Duration::from_secs(1);

/// Which end of the socket is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ourselves {
    Frontend,
    Backend,
}

/// What the testpmd at the other end is told.
#[derive(Clone, Copy, Default)]
struct Script {
    app: &'static [&'static str],
    /// Typed while its port is stopped.
    lines: &'static [&'static str],
    mode: &'static str,
}

/// Runs `check` with our end connected to a forwarding testpmd, on every ring of `rings`.
fn with_each(
    (we, peer): (Ourselves, Peer),
    test: &str,
    rings: &[&str],
    offloads: Offloads,
    script: Script,
    check: impl Fn(&mut Ours),
) {
    if !present(peer, test) {
        return;
    }
    let scratch = Scratch::new(test);
    for (n, ring) in rings.iter().enumerate() {
        let socket = scratch.join(&format!("s{n}"));
        let (mut ours, peer) = connect(we, peer, &socket, ring, offloads, script);
        ours.wait_for_link(true);
        ours.settle();
        println!("{test}: {ring}");
        check(&mut ours);
        assert!(peer.quit().success(), "{we:?} {ring}");
        ours.wait_for_link(false);
        ours.stop();
    }
}

fn connect(
    we: Ourselves,
    kind: Peer,
    socket: &Path,
    ring: &str,
    offloads: Offloads,
    script: Script,
) -> (Ours, Testpmd) {
    // A backend offers to take large packets whole, also to an application that did not ask for them.
    let tso = we == Ourselves::Frontend || offloads.rx.contains(RxOffloads::TCP_LRO);
    let (front, back) =
        (frontend_vdev(socket, ring), format!("{},tso={}", backend_vdev(socket), u8::from(tso)));
    let tag = socket.to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    match we {
        Ourselves::Frontend => {
            let peer = run(kind, &back, &tag, script);
            wait_for_socket(socket);
            (Ours::with_offloads(&front, offloads), peer)
        }
        Ourselves::Backend => {
            let ours = Ours::with_offloads(&back, offloads);
            (ours, run(kind, &front, &tag, script))
        }
    }
}

fn run(kind: Peer, vdev: &str, tag: &str, script: Script) -> Testpmd {
    let mut peer = idle(kind, &[vdev], tag, script.app);
    if !script.lines.is_empty() {
        let all = [&["port stop 0"], script.lines, &["port start 0"]].concat();
        all.iter().for_each(|line| peer.type_line(line));
        // What it answers to the last of them, and not to the start of the run.
        for _ in 0..3 {
            peer.expect("Checking link statuses", 60 * SECOND);
        }
    }
    forward(&mut peer, script.mode);
    peer
}

fn packet(pool: &Pool, bytes: &[u8]) -> Packet {
    let mut pieces = bytes.chunks(usize::from(pool.data_room()));
    let make = |piece: &[u8]| {
        let mut part = pool.get().expect("a buffer");
        part.append(piece.len()).expect("room").copy_from_slice(piece);
        part
    };
    let mut whole = make(pieces.next().expect("some bytes"));
    pieces.for_each(|piece| assert!(whole.chain(make(piece)).is_ok()));
    whole
}

/// A packet that leaves its checksums, and its segments, to the receiver.
fn asking(pool: &Pool, kind: Kind, payload: usize, segment: Option<u16>) -> Packet {
    let mut packet = packet(pool, &kind.frame(payload));
    let lengths = TxOffload::new(14, kind.l3() as u16, kind.l4() as u16);
    packet.set_tx_offload(kind.flags(segment.is_some()), lengths.with_tso_segsz(segment.unwrap_or(0)));
    packet
}

/// A packet that asks for nothing and has wrong checksums.
fn wrong(pool: &Pool, kind: Kind, payload: usize) -> Packet {
    let mut frame = kind.frame(payload);
    let at = kind.checksum_at();
    frame[at..at + 2].fill(0x11);
    packet(pool, &frame)
}

/// A packet that came back: what is said of it, the size of its segments, its bytes.
struct Back {
    flags: Offload,
    segment: u16,
    bytes: Vec<u8>,
}

/// Sends one packet and collects what returns, until all its payload is there.
fn bounce(ours: &mut Ours, kind: Kind, packet: Packet) -> Vec<Back> {
    let payload = packet.len() - kind.headers();
    let until = Instant::now() + 60 * SECOND;
    let (mut out, mut burst) = (Burst::new(), Burst::new());
    assert!(out.push(packet).is_ok());
    let (mut got, mut bytes) = (Vec::new(), 0);
    while bytes < payload && Instant::now() < until {
        ours.port.tx[0].tx_burst(&mut out);
        ours.port.tx[0].reclaim();
        ours.port.rx[0].rx_burst(&mut burst);
        for packet in burst.drain(..64) {
            let frame = packet.to_bytes().to_vec();
            if frame[12..14] != if kind.v6 { [0x86, 0xdd] } else { [8, 0] } {
                continue;
            }
            bytes += frame.len() - kind.headers();
            got.push(Back {
                flags: packet.offload(),
                segment: packet.tx_offload().tso_segsz(),
                bytes: frame,
            });
        }
    }
    let xstats = ours.port.control.xstats();
    assert_eq!(bytes, payload, "{kind:?}: {} packets came back; {xstats:?}", got.len());
    got
}

fn is_unfinished(back: &Back) -> bool {
    back.flags & Offload::RX_L4_CKSUM_MASK == Offload::RX_L4_CKSUM_NONE
}

/// One packet with all checksums right and the payload as it was sent.
fn assert_whole(kind: Kind, got: &[Back], payload: usize) {
    let [back] = got else { panic!("{kind:?}: {} packets came back of one", got.len()) };
    let mut bytes = back.bytes.clone();
    if is_unfinished(back) {
        finish(kind, &mut bytes);
    }
    assert_finished(kind, &bytes);
    assert_eq!(bytes[kind.headers()..], kind.frame(payload)[kind.headers()..], "{kind:?}");
}

/// Does what a packet says is left to do.
fn finish(kind: Kind, bytes: &mut [u8]) {
    let at = kind.checksum_at();
    assert_eq!(bytes[at..at + 2], pseudo(kind, bytes).to_be_bytes(), "{kind:?}: the prepared field");
    let finished = !sum(&[&bytes[14 + kind.l3()..]]);
    bytes[at..at + 2].copy_from_slice(&finished.max(1).to_be_bytes());
}

/// Segments of at most `size` bytes of payload, each with right checksums, that join to what was sent.
fn assert_cut(kind: Kind, got: &[Back], payload: usize, size: usize) {
    assert_eq!(got.len(), payload.div_ceil(size), "{kind:?}");
    let mut joined = Vec::new();
    for back in got {
        assert_finished(kind, &back.bytes);
        let sequence = 0xffff_ff00_u32.wrapping_add(joined.len() as u32);
        assert_eq!(back.bytes[14 + kind.l3() + 4..][..4], sequence.to_be_bytes());
        joined.extend_from_slice(&back.bytes[kind.headers()..]);
    }
    assert_eq!(joined, kind.frame(payload)[kind.headers()..]);
}

fn tcp() -> impl Iterator<Item = Kind> {
    KINDS.into_iter().filter(|kind| kind.tcp)
}

const SIZES: [usize; 5] = [18, 19, 600, 1399, 1400];

/// What we leave unfinished is finished by the peer, or by us where the peer did not negotiate it.
fn unfinished_packets_come_back_finished(pair: (Ourselves, Peer), test: &str) {
    let script = Script { mode: "io", ..Script::default() };
    with_each(pair, test, &[MERGEABLE, OTHERS].concat(), SENDS, script, |ours| {
        for (kind, payload) in KINDS.into_iter().flat_map(|kind| SIZES.map(|size| (kind, size))) {
            let packet = asking(&ours.pool, kind, payload, None);
            let got = bounce(ours, kind, packet);
            assert!(!is_unfinished(&got[0]));
            assert_whole(kind, &got, payload);
        }
    });
}

/// The csum mode with checksums left to its port: to us, who took them or did not.
const HARDWARE: Script =
    Script { app: &["--rx-offloads=0xc"], lines: &["csum set udp hw 0", "csum set tcp hw 0"], mode: "csum" };
const SOFTWARE: Script =
    Script { app: &[], lines: &["csum set udp sw 0", "csum set tcp sw 0"], mode: "csum" };

fn wrong_checksums_are_made_right(pair: (Ourselves, Peer), test: &str) {
    for (n, (script, offloads)) in
        [(HARDWARE, TAKES_SUMS), (HARDWARE, SENDS), (SOFTWARE, TAKES_SUMS)].into_iter().enumerate()
    {
        let rings = [MERGEABLE[n], OTHERS[n]];
        with_each(pair, test, &rings, offloads, script, |ours| {
            for (kind, payload) in KINDS.into_iter().flat_map(|kind| SIZES.map(|size| (kind, size))) {
                let packets = [wrong(&ours.pool, kind, payload), asking(&ours.pool, kind, payload, None)];
                for packet in packets {
                    let got = bounce(ours, kind, packet);
                    let left = script.app == HARDWARE.app && offloads == TAKES_SUMS;
                    assert_eq!(is_unfinished(&got[0]), left, "{kind:?}");
                    assert_whole(kind, &got, payload);
                }
            }
        });
    }
}

/// 64 KiB packets that we leave to be cut, to a peer that takes them whole.
fn large_packets_are_taken_whole(pair: (Ourselves, Peer), test: &str) {
    let app: &[&str] = match pair {
        // Its backend takes large packets without being asked.
        (Ourselves::Frontend, Peer::Dpdk) => &["--rx-offloads=0xc"],
        (Ourselves::Backend, Peer::Dpdk) => &["--rx-offloads=0x1c"],
        (_, Peer::Linecard) => &["--rx-offloads=0x1c", "--tx-offloads=0x2e"],
    };
    let script = Script { app, lines: &[], mode: "io" };
    with_each(pair, test, &MERGEABLE, SENDS, script, |ours| {
        for (kind, payload) in tcp().flat_map(|kind| [2001, 20_000, 65_000].map(|size| (kind, size))) {
            let packet = asking(&ours.pool, kind, payload, Some(1400));
            let got = bounce(ours, kind, packet);
            if pair.1 == Peer::Linecard {
                // It passes on what it was told, and cuts for our end, which takes nothing.
                assert_cut(kind, &got, payload, 1400);
            } else {
                let joined: Vec<u8> = got.iter().flat_map(|b| b.bytes[kind.headers()..].to_vec()).collect();
                assert_eq!(joined, kind.frame(payload)[kind.headers()..]);
            }
        }
    });
}

/// The same to a peer that did not negotiate them: we cut.
fn large_packets_are_cut_for_others(peer: Peer, test: &str) {
    let script = Script { mode: "io", ..Script::default() };
    let rings = [MERGEABLE, OTHERS].concat();
    with_each((Ourselves::Backend, peer), test, &rings, SENDS, script, |ours| {
        for (kind, payload) in tcp().flat_map(|kind| [2001, 20_000].map(|size| (kind, size))) {
            let packet = asking(&ours.pool, kind, payload, Some(1400));
            let got = bounce(ours, kind, packet);
            assert_cut(kind, &got, payload, 1400);
        }
    });
}

const CUTS: Script =
    Script { app: &["--rx-offloads=0xc"], lines: &["csum set tcp hw 0", "tso set 800 0"], mode: "csum" };

/// The peer's csum mode asks us to cut: we are told so, with the size.
fn packets_to_be_cut_come_to_us_whole(pair: (Ourselves, Peer), test: &str) {
    with_each(pair, test, &MERGEABLE, ALL, CUTS, |ours| {
        for (kind, payload) in tcp().flat_map(|kind| [801, 4000, 8000].map(|size| (kind, size))) {
            let packet = wrong(&ours.pool, kind, payload);
            let got = bounce(ours, kind, packet);
            assert!(got[0].flags.contains(Offload::RX_LRO), "{}", got[0].flags);
            assert_eq!((got[0].segment, is_unfinished(&got[0])), (SEGMENT, true));
            let at = kind.checksum_at();
            assert_eq!(got[0].bytes[at..at + 2], pseudo(kind, &got[0].bytes).to_be_bytes());
            assert_eq!(got[0].bytes[kind.headers()..], kind.frame(payload)[kind.headers()..]);
        }
    });
}

/// The same when we take nothing: `linecard testpmd` cuts in software, by `tso set` or by `gso`.
fn linecard_cuts_in_software(we: Ourselves, test: &str) {
    let gso = Script { app: &[], lines: &["set gso segsz 854", "set port 0 gso on"], mode: "csum" };
    for script in [CUTS, gso] {
        with_each((we, Peer::Linecard), test, &MERGEABLE, SENDS, script, |ours| {
            for (kind, payload) in tcp().flat_map(|kind| [1000, 4000, 8000].map(|size| (kind, size))) {
                let packet = wrong(&ours.pool, kind, payload);
                let got = bounce(ours, kind, packet);
                // 854 bytes with headers are 800 of payload over IPv4, 780 over IPv6.
                let size = if script.lines == CUTS.lines || !kind.v6 { SEGMENT } else { 780 };
                assert_cut(kind, &got, payload, size.into());
            }
        });
    }
}

/// Each check is a test of its own, by the pair it runs with.
macro_rules! tests {
    ($($check:ident: $($name:ident($we:ident, $peer:ident))+;)+) => {$($(
        #[test]
        fn $name() {
            $check((Ourselves::$we, Peer::$peer), stringify!($name));
        }
    )+)+};
}

tests! {
    unfinished_packets_come_back_finished:
        dpdks_backend_finishes_checksums(Frontend, Dpdk)
        dpdks_frontend_gets_finished_checksums(Backend, Dpdk)
        our_backend_finishes_checksums(Frontend, Linecard)
        our_frontend_gets_finished_checksums(Backend, Linecard);
    wrong_checksums_are_made_right:
        csum_of_dpdks_backend(Frontend, Dpdk)
        csum_of_dpdks_frontend(Backend, Dpdk)
        csum_of_our_backend(Frontend, Linecard)
        csum_of_our_frontend(Backend, Linecard);
    large_packets_are_taken_whole:
        dpdks_backend_takes_large_packets(Frontend, Dpdk)
        dpdks_frontend_takes_large_packets(Backend, Dpdk)
        our_backend_takes_large_packets(Frontend, Linecard)
        our_frontend_takes_large_packets(Backend, Linecard);
    packets_to_be_cut_come_to_us_whole:
        tso_of_dpdks_frontend(Backend, Dpdk)
        tso_of_our_backend(Frontend, Linecard)
        tso_of_our_frontend(Backend, Linecard);
}

#[test]
fn dpdks_frontend_without_lro_gets_segments() {
    large_packets_are_cut_for_others(Peer::Dpdk, "dpdks_frontend_without_lro_gets_segments");
}

#[test]
fn our_frontend_without_lro_gets_segments() {
    large_packets_are_cut_for_others(Peer::Linecard, "our_frontend_without_lro_gets_segments");
}

#[test]
fn our_backend_cuts_in_software() {
    linecard_cuts_in_software(Ourselves::Frontend, "our_backend_cuts_in_software");
}

#[test]
fn our_frontend_cuts_in_software() {
    linecard_cuts_in_software(Ourselves::Backend, "our_frontend_cuts_in_software");
}
