//! Chains that lead to memory which nobody has touched yet: each page costs whoever touches it first.

use std::fs::File;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use linecard_lab::{processor_time, wait_for};
use linecard_mempool::{Burst, Packet, Pool};
use linecard_pmd::{RxQueue, TxQueue};
use linecard_vhost_user::{Control, RxLoss};
use linecard_virtio::Features;
use linecard_wire::FrontendReq as Req;
use linecard_wire::payload::{MemoryRegion, Payload, SingleRegion, VringAddr, VringFd, VringState};
use memmap2::{MmapOptions, MmapRaw};

use crate::bystander::TRIES;
use crate::common::{Bench, Frontend, GUEST, HEADER, MEMORY, USER, frame, memfd};
use crate::traffic::Traffic;

/// As many descriptors as a ring may have.
pub(crate) const SIZE: usize = 32_768;
/// Where the memory of chains lies.
pub(crate) const FAR: u64 = GUEST + (1 << 40);
/// Where the ring lies in the frontend's memory: 512 KiB of descriptors, then the other areas.
const RING: usize = 2 << 20;
const AVAIL: usize = RING + SIZE * 16;
const USED: usize = AVAIL + (1 << 17);
const _: () = assert!(USED + SIZE * 8 + 6 <= MEMORY);
/// Most processor time that one round of polling two ports may take, as SECURITY.md says. What the machine does to other
/// threads is not in it.
const ROUND: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(60);

/// `count` chains of `length` descriptors each; descriptor `n` of all has `bytes` bytes, `n * stride` from [`FAR`] on.
#[derive(Clone, Copy)]
pub(crate) struct Chains {
    pub(crate) count: usize,
    pub(crate) length: usize,
    pub(crate) bytes: u32,
    pub(crate) stride: u64,
}

impl Chains {
    fn total(self) -> usize {
        self.count * self.length
    }

    /// Bytes of one chain.
    fn len(self) -> usize {
        self.length * self.bytes as usize
    }

    /// A file for all of it, shared, of which nothing is there.
    pub(crate) fn share(self, frontend: &mut Frontend) -> File {
        let file = memfd(self.size());
        self.share_in(frontend, &file);
        file
    }

    fn size(self) -> u64 {
        self.total() as u64 * self.stride
    }

    fn share_in(self, frontend: &mut Frontend, file: &File) {
        let size = self.size();
        let region = MemoryRegion { guest_addr: FAR, size, user_addr: USER + (1 << 40), offset: 0 };
        frontend.good(Req::ADD_MEM_REG, &SingleRegion(region).to_bytes(), &[file.as_fd()]);
    }

    /// The descriptors, all available, in the form of the ring that was negotiated.
    fn table(self, packed: bool, write: bool) -> Vec<u8> {
        const NEXT: u64 = 1;
        const WRITE: u64 = 2;
        const AVAIL: u64 = 1 << 7;
        let mut table = Vec::with_capacity(self.total() * 16);
        for n in 0..self.total() as u64 {
            let last = (n + 1).is_multiple_of(self.length as u64);
            let flags = if last { 0 } else { NEXT } | if write { WRITE } else { 0 };
            let (low, high) =
                if packed { (n / self.length as u64, flags | AVAIL) } else { (flags, (n + 1) & 0x7fff) };
            table.extend((FAR + n * self.stride).to_le_bytes());
            table.extend((u64::from(self.bytes) | low << 32 | high << 48).to_le_bytes());
        }
        table
    }

    /// Starts ring `index` with these chains.
    pub(crate) fn start(self, frontend: &mut Frontend, index: u32) {
        let packed = frontend.features.contains(Features::RING_PACKED);
        let table = self.table(packed, index.is_multiple_of(2));
        frontend.bytes(RING, table.len()).copy_from(&table);
        let heads = (0..self.count).flat_map(|k| ((k * self.length) as u16).to_le_bytes());
        let avail: Vec<u8> =
            [0, 0].into_iter().chain((self.count as u16).to_le_bytes()).chain(heads).collect();
        frontend.bytes(AVAIL, avail.len()).copy_from(&if packed { vec![0; avail.len()] } else { avail });
        frontend.bytes(USED, 8).copy_from(&[0; 8]);
        let state = |num| VringState { index, num }.to_bytes();
        frontend.good(Req::SET_VRING_NUM, &state(SIZE as u32), &[]);
        frontend.good(Req::SET_VRING_BASE, &state(if packed { 0x8000_8000 } else { 0 }), &[]);
        let at = |offset: usize| USER + offset as u64;
        let (desc, avail, used) = (at(RING), at(AVAIL), at(USED));
        let addr = VringAddr { index, flags: 0, desc, used, avail, log: 0 };
        frontend.good(Req::SET_VRING_ADDR, &addr.to_bytes(), &[]);
        let kick = VringFd { index: index as u8, has_fd: false }.to_bytes();
        frontend.good(Req::SET_VRING_KICK, &kick, &[]);
        frontend.enable(index as usize, true);
    }

    /// Calls `f` with each piece of chain `k`: where it is in the file, and which bytes of the chain it has.
    fn pieces(self, k: usize, mut f: impl FnMut(u64, std::ops::Range<usize>)) {
        let bytes = self.bytes as usize;
        for n in 0..self.length {
            f((k * self.length + n) as u64 * self.stride, n * bytes..(n + 1) * bytes);
        }
    }
}

/// A header and what stands behind it in chain `k`: every second chain lies in memory that was never written.
fn content(k: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    if k % 2 == 1 {
        bytes[HEADER..].copy_from_slice(&frame(k, len - HEADER));
    }
    bytes
}

/// A port that is attacked, and one with packets that is polled by the same thread.
struct Pair {
    bad: Bench,
    traffic: Traffic,
    frontend: Frontend,
}

impl Pair {
    fn new(features: Features) -> Self {
        let (bad, traffic) = (Bench::new("touched"), Traffic::new(&Control::new()));
        let mut frontend = Frontend::connect(&bad.path);
        frontend.negotiate(features);
        frontend.share_memory();
        Self { bad, traffic, frontend }
    }

    /// Polls both ports until `done` says so of what `poll` did to the bad one; returns the longest round.
    fn poll(&mut self, mut poll: impl FnMut(&mut Bench) -> bool) -> Duration {
        let mut longest = Duration::ZERO;
        let until = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < until, "not done: {:?}", self.bad.backend.peer());
            let began = processor_time();
            let done = poll(&mut self.bad);
            self.traffic.pass();
            longest = longest.max(processor_time() - began);
            if done {
                return longest;
            }
        }
    }
}

const RINGS: [(&str, Features); 2] = [("split", Features::NET_MRG_RXBUF), ("packed", PACKED)];
const PACKED: Features =
    Features::from_bits_retain(Features::NET_MRG_RXBUF.bits() | Features::RING_PACKED.bits());

/// The best of some: noise makes it longer, an attack that works does so each time.
fn assert_short(what: &str, mut round: impl FnMut() -> Duration) {
    let mut rounds = Vec::new();
    for _ in 0..TRIES {
        let (took, most) = (round(), ROUND.max(pages_now()));
        rounds.push((took, most));
        if took < most {
            println!("{what}: took and may take {rounds:?}");
            return;
        }
    }
    panic!("{what}: rounds took, and may take, {rounds:?}");
}

/// What it takes this machine just now to touch as many pages as can be touched in 2 ms where a page takes 4 µs, a
/// thirtieth of those that the shortest of these attacks has: where others want the cores and the caches, everything takes longer.
fn pages_now() -> Duration {
    const PAGES: usize = 512;
    let map = MmapOptions::new().len(PAGES * 4096).map_raw(&memfd(PAGES as u64 * 4096)).expect("a mapping");
    let began = processor_time();
    for page in 0..PAGES {
        // SAFETY: inside the mapping just made, which nothing else uses.
        unsafe { map.as_mut_ptr().wrapping_add(page * 4096).write_volatile(1) };
    }
    processor_time() - began
}

/// Packets of 64 KiB, each of 1024 pieces in pages that nobody has touched.
const LARGE: Chains = Chains { count: 16, length: 1024, bytes: 64, stride: 4096 };

#[test]
fn receiving_from_pages_that_are_not_there_yet_keeps_no_other_port_waiting() {
    for (name, features) in RINGS {
        assert_short(name, || {
            let mut pair = Pair::new(features);
            let file = LARGE.share(&mut pair.frontend);
            for k in 0..LARGE.count {
                let bytes = content(k, LARGE.len());
                LARGE.pieces(k, |at, part| {
                    if k % 2 == 1 {
                        file.write_all_at(&bytes[part], at).expect("room");
                    }
                });
            }
            LARGE.start(&mut pair.frontend, 1);
            let (mut came, mut packets) = (Vec::new(), Burst::new());
            let longest = pair.poll(|bad| {
                bad.rx.rx_burst(&mut packets);
                let n = packets.len();
                came.extend(packets.drain(..n));
                came.len() == LARGE.count
            });
            for (k, packet) in came.iter().enumerate() {
                let bytes: Vec<u8> = packet.segments().flat_map(|s| s.data().to_vec()).collect();
                assert!(bytes == content(k, LARGE.len())[HEADER..], "{name}: packet {k} is another");
            }
            drop(came);
            pair.bad.assert_whole();
            longest
        });
    }
}

/// A packet of all that may go into one chain, in as many segments as it takes.
fn large(pool: &Pool, bytes: &[u8]) -> Packet {
    let mut parts = bytes.chunks(usize::from(pool.data_room())).map(|part| {
        let mut packet = pool.get().expect("a packet");
        packet.append(part.len()).expect("room").copy_from_slice(part);
        packet
    });
    let mut packet = parts.next().expect("not empty");
    parts.for_each(|part| packet.chain(part).map_err(|_| "too many").expect("segments"));
    packet
}

#[test]
fn sending_to_pages_that_are_not_there_yet_keeps_no_other_port_waiting() {
    for (name, features) in RINGS {
        assert_short(name, || {
            let mut pair = Pair::new(features);
            let file = LARGE.share(&mut pair.frontend);
            LARGE.start(&mut pair.frontend, 0);
            let mut packets = Burst::new();
            for k in 0..LARGE.count {
                let packet = large(&pair.bad.pool, &frame(k, LARGE.len() - HEADER));
                assert!(packets.push(packet).is_ok());
            }
            let longest = pair.poll(|bad| {
                bad.tx.tx_burst(&mut packets);
                packets.is_empty()
            });
            for k in 0..LARGE.count {
                let (mut got, want) = (vec![0; LARGE.len()], frame(k, LARGE.len() - HEADER));
                LARGE.pieces(k, |at, part| file.read_exact_at(&mut got[part], at).expect("there"));
                assert!(got[HEADER..] == want, "{name}: packet {k} is another");
                assert_eq!(
                    got[..HEADER],
                    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
                    "one buffer, nothing special"
                );
            }
            pair.bad.assert_whole();
            longest
        });
    }
}

/// A chain of as many descriptors as the ring has, in each direction: dropped when it is a packet, used from its start
/// on when it is a buffer.
#[test]
fn the_longest_chain_there_can_be_keeps_no_other_port_waiting() {
    const LONG: Chains = Chains { count: 1, length: SIZE, bytes: 2, stride: 4096 };
    for (name, features) in RINGS {
        assert_short(name, || {
            let mut pair = Pair::new(features);
            LONG.share(&mut pair.frontend);
            LONG.start(&mut pair.frontend, 1);
            let (mut packets, stats) = (Burst::new(), pair.bad.rx_stats.clone());
            pair.poll(|bad| {
                bad.rx.rx_burst(&mut packets);
                assert!(packets.is_empty());
                stats.totals().lost(RxLoss::TooLong) == 1
            })
        });
        assert_short(name, || {
            let mut pair = Pair::new(features);
            let file = LONG.share(&mut pair.frontend);
            LONG.start(&mut pair.frontend, 0);
            let mut packets = Burst::new();
            assert!(packets.push(large(&pair.bad.pool, &frame(1, 1500))).is_ok());
            let longest = pair.poll(|bad| {
                bad.tx.tx_burst(&mut packets);
                packets.is_empty()
            });
            let mut got = vec![0; LONG.len()];
            LONG.pieces(0, |at, part| file.read_exact_at(&mut got[part], at).expect("there"));
            assert!(got[HEADER..HEADER + 1500] == frame(1, 1500), "{name}: another packet");
            longest
        });
    }
}

const HUGE: u64 = 2 << 20;

/// A file of huge pages of which none is there, and a mapping: the kernel keeps the pages that it lacks for it until it is dropped.
fn huge(size: u64) -> Option<(File, MmapRaw)> {
    // Of this size, whatever size is the default.
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let free = free.ok().and_then(|count| count.trim().parse().ok()).unwrap_or(0_u64);
    if free * HUGE < size {
        return None;
    }
    let flags = libc::MFD_CLOEXEC | libc::MFD_HUGETLB | libc::MFD_HUGE_2MB;
    // SAFETY: the name is a terminated string; the result is a new descriptor.
    let fd = unsafe { libc::memfd_create(c"huge".as_ptr(), flags) };
    // SAFETY: just made, nobody else owns it.
    let file = (fd >= 0).then(|| File::from(unsafe { <OwnedFd as FromRawFd>::from_raw_fd(fd) }))?;
    file.set_len(size).ok()?;
    let reserved = MmapOptions::new().len(size as usize).map_raw(&file).ok()?;
    Some((file, reserved))
}

/// Plain chains, each in a huge page of its own.
#[test]
fn huge_pages_that_are_not_there_yet_keep_no_other_port_waiting() {
    const PLAIN: Chains = Chains { count: 64, length: 1, bytes: 128, stride: HUGE };
    if huge(PLAIN.size()).is_none() {
        linecard_lab::skip(
            "huge_pages_that_are_not_there_yet_keep_no_other_port_waiting",
            "it takes 64 free huge pages (sysctl vm.nr_hugepages=64)",
        );
        return;
    }
    for (name, features) in RINGS {
        for index in [1, 0] {
            assert_short(name, || {
                let mut pair = Pair::new(features);
                // Those of the last time are given back by another thread.
                let (file, _reserved) = wait_for("64 huge pages", || huge(PLAIN.size()));
                PLAIN.share_in(&mut pair.frontend, &file);
                PLAIN.start(&mut pair.frontend, index);
                let (mut packets, mut moved) = (Burst::new(), 0);
                let longest = pair.poll(|bad| {
                    if index == 1 {
                        bad.rx.rx_burst(&mut packets);
                        moved += packets.len();
                        assert!(packets.iter().all(|packet| packet.data().iter().all(|byte| *byte == 0)));
                        packets.clear();
                    } else {
                        let missing = 64 - moved - packets.len();
                        let before = packets.len() + missing;
                        for _ in 0..missing {
                            assert!(packets.push(large(&bad.pool, &frame(1, 100))).is_ok());
                        }
                        bad.tx.tx_burst(&mut packets);
                        moved += before - packets.len();
                    }
                    moved == 64
                });
                drop(packets);
                pair.bad.assert_whole();
                assert!(pair.bad.backend.peer().connected(), "there were not enough pages");
                longest
            });
        }
    }
}
