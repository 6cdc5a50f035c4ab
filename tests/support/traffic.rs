//! Self-checking packets: a sequence number, the length, and a checksum over everything.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use linecard::mempool::{Burst, Packet, Pool};
use linecard::pmd::{RxQueue, TxQueue};
use linecard_testing::Prng;

/// Ethernet header, sequence number, length, checksum.
pub(crate) const SMALLEST: usize = 14 + 8 + 4 + 8;

/// The results of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) corrupted: u64,
    pub(crate) duplicated: u64,
    pub(crate) foreign: u64,
}

impl Report {
    /// Whether every packet returned once and unchanged.
    pub(crate) fn is_perfect(&self) -> bool {
        self.received == self.sent && self.corrupted + self.duplicated + self.foreign == 0 && self.sent > 0
    }
}

/// Sends `count` packets and receives those that a forwarding peer returns; at most `window` are in flight.
pub(crate) struct Prover<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) rx: &'a mut dyn RxQueue,
    pub(crate) tx: &'a mut dyn TxQueue,
    pub(crate) window: u64,
    pub(crate) sizes: &'a [usize],
    /// Probes only test whether packets pass: not all of them need to return, and later runs ignore them.
    pub(crate) probes: bool,
}

/// The bit of the sequence number that marks probes.
const PROBE: u64 = 1 << 63;

impl Prover<'_> {
    /// Runs until all packets have returned, or none has returned for `patience`.
    pub(crate) fn run(&mut self, count: u64, patience: Duration) -> Report {
        let mut report = Report::default();
        let mut seen = HashSet::new();
        let mut outgoing = Burst::new();
        let mut last = Instant::now();
        while report.received < count && last.elapsed() < patience {
            // Probes of an earlier run may return in this one.
            let on_the_way = report.sent.saturating_sub(report.received);
            let room = self.window.saturating_sub(on_the_way).min(32);
            for _ in 0..room.min(count - report.sent).min((32 - outgoing.len()) as u64) {
                let Some(packet) = self.packet(report.sent) else { break };
                assert!(outgoing.push(packet).is_ok());
                report.sent += 1;
            }
            self.tx.tx_burst(&mut outgoing);
            if self.receive(&mut report, &mut seen) {
                last = Instant::now();
            } else {
                std::thread::yield_now();
            }
        }
        report.sent -= outgoing.clear() as u64;
        self.tx.reclaim();
        report
    }

    fn packet(&self, sequence: u64) -> Option<Packet> {
        let size = self.sizes[sequence as usize % self.sizes.len()].max(SMALLEST);
        let mut packet = self.pool.get()?;
        let mut bytes = vec![0; size];
        fill(&mut bytes, if self.probes { sequence | PROBE } else { sequence });
        packet.append(size)?.copy_from_slice(&bytes);
        Some(packet)
    }

    fn receive(&mut self, report: &mut Report, seen: &mut HashSet<u64>) -> bool {
        let mut incoming = Burst::new();
        self.rx.rx_burst(&mut incoming);
        for packet in incoming.iter() {
            let bytes = packet.to_bytes();
            match check(&bytes) {
                Verdict::Whole(sequence) if sequence & PROBE != 0 && !self.probes => {}
                Verdict::Whole(sequence) if seen.insert(sequence) => report.received += 1,
                Verdict::Whole(_) => report.duplicated += 1,
                Verdict::Corrupted => report.corrupted += 1,
                Verdict::Foreign => report.foreign += 1,
            }
        }
        !incoming.is_empty()
    }
}

/// Whether this is a returning probe.
pub(crate) fn is_probe(bytes: &[u8]) -> bool {
    matches!(check(bytes), Verdict::Whole(sequence) if sequence & PROBE != 0)
}

enum Verdict {
    Whole(u64),
    Corrupted,
    Foreign,
}

/// Writes a packet whose bytes depend only on `sequence` and its length.
fn fill(bytes: &mut [u8], sequence: u64) {
    let size = bytes.len();
    bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
    bytes[14..22].copy_from_slice(&sequence.to_be_bytes());
    bytes[22..26].copy_from_slice(&(size as u32).to_be_bytes());
    Prng::new(sequence).fill(&mut bytes[34..]);
    let sum = checksum(bytes);
    bytes[26..34].copy_from_slice(&sum.to_be_bytes());
}

/// FNV-1a over everything except the addresses, which `mac` forwarding rewrites, and the checksum itself.
fn checksum(bytes: &[u8]) -> u64 {
    let covered = bytes[12..26].iter().chain(&bytes[34..]);
    covered.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn check(bytes: &[u8]) -> Verdict {
    if bytes.len() < SMALLEST || bytes[12..14] != [0x88, 0xb5] {
        return Verdict::Foreign;
    }
    let field =
        |range: std::ops::Range<usize>| u64::from_be_bytes(bytes[range].try_into().expect("eight bytes"));
    let size = u32::from_be_bytes(bytes[22..26].try_into().expect("four bytes")) as usize;
    if size == bytes.len() && field(26..34) == checksum(bytes) {
        Verdict::Whole(field(14..22))
    } else {
        Verdict::Corrupted
    }
}
