//! The control queue against rust-vmm's split queue and against a packed device made of plain words; what liars write.

use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::ControlQueue;
use crate::fault::PeerFault;
use crate::layout::{F_AVAIL, F_NEXT, F_USED, F_WRITE, Layout, RingAddrs, RingMemory};
use crate::model::memory::Zone;
use crate::queue::Element;
use crate::sync::{Acquire, Relaxed, Release, SharedBytes};

const COMMAND: [Element; 2] = [Element { addr: 0x1000, len: 2 }, Element { addr: 0x2000, len: 6 }];
const ANSWER: Element = Element { addr: 0x3000, len: 1 };

/// An element as a device sees it, and whether it may write there.
type Seen = (u64, u32, bool);

fn seen(command: &[Element]) -> Vec<Seen> {
    let readable = command.iter().map(|element| (element.addr, element.len, false));
    readable.chain([(ANSWER.addr, ANSWER.len, true)]).collect()
}

/// A packed device, word by word.
struct Packed {
    ring: RingMemory,
    size: usize,
    place: usize,
    wrap: bool,
}

impl Packed {
    fn turn(&self, used: bool) -> u16 {
        match (self.wrap, used) {
            (true, true) => F_AVAIL | F_USED,
            (false, true) => 0,
            (true, false) => F_AVAIL,
            (false, false) => F_USED,
        }
    }

    fn advance(&mut self, n: usize) {
        for _ in 0..n {
            self.place = (self.place + 1) % self.size;
            self.wrap ^= self.place == 0;
        }
    }

    /// The chain that is available: its elements, its id, and its descriptors.
    fn take(&mut self) -> Option<(Vec<Seen>, u16)> {
        let (mut chain, mut at, mut wrap) = (Vec::new(), self.place, self.wrap);
        loop {
            let word = self.ring.desc.cell::<u64>(16 * at + 8)?.load(Acquire);
            let flags = (word >> 48) as u16;
            if flags & (F_AVAIL | F_USED) != if wrap { F_AVAIL } else { F_USED } {
                return None;
            }
            let addr = self.ring.desc.cell::<u64>(16 * at)?.load(Relaxed);
            chain.push((addr, word as u32, flags & F_WRITE != 0));
            if flags & F_NEXT == 0 {
                return Some((chain, (word >> 32) as u16));
            }
            at = (at + 1) % self.size;
            wrap ^= at == 0;
        }
    }

    fn word(&self, id: u16, len: u32, flags: u16) {
        let word = u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48;
        self.ring.desc.cell::<u64>(16 * self.place + 8).expect("inside").store(word, Release);
    }
}

fn packed(size: u16) -> (Zone, ControlQueue, Packed) {
    let zone = Zone::new(Layout::Packed.bytes(size));
    let ring = RingMemory::in_zone(zone.bytes(), Layout::Packed, size).expect("large enough");
    let queue = ControlQueue::new(&ring, Layout::Packed, size, false).expect("valid");
    (zone, queue, Packed { ring, size: usize::from(size), place: 0, wrap: true })
}

#[test]
fn a_packed_device_answers_over_many_laps() {
    for size in [4, 5, 7, 64] {
        let (_zone, mut queue, mut device) = packed(size);
        for turn in 0..if cfg!(miri) { 20 } else { 1000_usize } {
            let command = if turn % 3 == 0 { &COMMAND[..1] } else { &COMMAND[..] };
            assert!(queue.submit(command, ANSWER).is_ok() && queue.kick_needed());
            assert!(queue.submit(command, ANSWER).is_err(), "one at a time");
            assert_eq!(queue.answered(), Ok(None));
            let (chain, id) = device.take().expect("it is available");
            assert_eq!((chain, id), (seen(command), 0));
            device.word(id, 1, device.turn(true));
            device.advance(command.len() + 1);
            assert_eq!(queue.answered(), Ok(Some(1)));
            assert_eq!(queue.answered(), Ok(None), "once");
        }
    }
}

#[test]
fn packed_liars() {
    let unknown = |id| Err(PeerFault::UnknownId { id, size: 4 });
    let long = |len| Err(PeerFault::UsedLen { len, lent: 1 });
    type Answered = Result<Option<u32>, PeerFault>;
    let cases: [(u16, u32, Option<u16>, Answered); 8] = [
        (1, 1, None, unknown(1)),
        (3, 0, None, unknown(3)),
        (u16::MAX, 1, None, unknown(65_535)),
        (0, 2, None, long(2)),
        (0, u32::MAX, None, long(u32::MAX)),
        // Wrong wrap bits: not an answer.
        (0, 1, Some(0), Ok(None)),
        (0, 1, Some(F_AVAIL), Ok(None)),
        (0, 1, Some(F_USED), Ok(None)),
    ];
    for (id, len, flags, want) in cases {
        let (_zone, mut queue, device) = packed(4);
        // Before a request nothing can be answered.
        device.word(id, len, device.turn(true));
        assert_eq!(queue.answered(), Ok(None));
        assert!(queue.submit(&COMMAND, ANSWER).is_ok());
        device.word(id, len, flags.unwrap_or(device.turn(true)));
        assert_eq!(queue.answered(), want, "{id} {len} {flags:?}");
    }
    let (_zone, queue, device) = packed(4);
    device.ring.device.cell::<u32>(0).expect("inside").store(1 << 16, Relaxed);
    assert!(!queue.kick_needed(), "it wants none");
}

const RING: u64 = 0x1000;

/// Our queue and rust-vmm's, on one ring in guest memory.
fn split(size: u16, event_idx: bool) -> (GuestMemoryMmap, ControlQueue, Queue, RingMemory) {
    use vm_memory::GuestMemoryBackend;
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).expect("anonymous memory");
    let bytes = Layout::Split.bytes(size);
    let start = memory.get_slice(GuestAddress(RING), bytes).expect("inside").ptr_guard_mut().as_ptr();
    let start = core::ptr::NonNull::new(start).expect("a mapping");
    // SAFETY: the tests keep the memory as long as the queues, which reach it through cells and `vm-memory` only.
    let zone = unsafe { SharedBytes::new(start, bytes) };
    let ring = RingMemory::in_zone(zone, Layout::Split, size).expect("large enough");
    let queue = ControlQueue::new(&ring, Layout::Split, size, event_idx).expect("valid");
    let addrs = RingAddrs::at(RING, Layout::Split, size);
    let mut theirs = Queue::new(size).expect("a power of two");
    theirs.set_desc_table_address(Some(addrs.desc as u32), Some(0));
    theirs.set_avail_ring_address(Some(addrs.driver as u32), Some(0));
    theirs.set_used_ring_address(Some(addrs.device as u32), Some(0));
    theirs.set_event_idx(event_idx);
    theirs.set_ready(true);
    assert!(theirs.is_valid(&memory));
    (memory, queue, theirs, ring)
}

#[test]
#[cfg_attr(miri, ignore = "rust-vmm maps memory in a way that miri does not know")]
fn rust_vmms_device_answers_past_index_65_536() {
    let (memory, mut queue, mut theirs, _) = split(4, false);
    for turn in 0..66_000_u32 {
        let command = if turn % 3 == 0 { &COMMAND[..1] } else { &COMMAND[..] };
        assert!(queue.submit(command, ANSWER).is_ok() && queue.kick_needed());
        assert_eq!(queue.answered(), Ok(None));
        let chain = theirs.pop_descriptor_chain(&memory).expect("it is available");
        let head = chain.head_index();
        let got: Vec<Seen> = chain.map(|d| (d.addr().0, d.len(), d.is_write_only())).collect();
        assert_eq!(got, seen(command));
        theirs.add_used(&memory, head, 1).expect("a valid ring");
        assert_eq!(queue.answered(), Ok(Some(1)));
        assert_eq!(queue.answered(), Ok(None), "once");
    }
    theirs.disable_notification(&memory).expect("a valid ring");
    assert!(!queue.kick_needed(), "it wants none");
}

#[test]
#[cfg_attr(miri, ignore = "rust-vmm maps memory in a way that miri does not know")]
fn with_an_event_index_each_request_is_kicked_and_called_for_past_index_65_536() {
    let (memory, mut queue, mut theirs, _) = split(4, true);
    for turn in 0..66_000_u32 {
        assert!(!theirs.enable_notification(&memory).expect("a valid ring"), "nothing waits in turn {turn}");
        assert!(queue.submit(&COMMAND, ANSWER).is_ok());
        assert!(queue.kick_needed(), "it sleeps in turn {turn}");
        let chain = theirs.pop_descriptor_chain(&memory).expect("it is available");
        theirs.add_used(&memory, chain.head_index(), 1).expect("a valid ring");
        assert!(
            theirs.needs_notification(&memory).expect("a valid ring"),
            "a call was asked for in turn {turn}"
        );
        assert_eq!(queue.answered(), Ok(Some(1)));
    }
    assert!(
        queue.submit(&COMMAND, ANSWER).is_ok() && !queue.kick_needed(),
        "its event is that of the request before"
    );
}

#[test]
#[cfg_attr(miri, ignore = "rust-vmm maps memory in a way that miri does not know")]
fn split_liars() {
    let unknown = |id| Err(PeerFault::UnknownId { id, size: 4 });
    let long = |len| Err(PeerFault::UsedLen { len, lent: 1 });
    let jump = |to, in_flight| Err(PeerFault::UsedJump { from: 0, to, in_flight });
    let cases = [
        (true, 1, 1, 1, unknown(1)),
        (true, 4, 1, 1, unknown(4)),
        (true, u32::MAX, 1, 1, unknown(u32::MAX)),
        (true, 0, 2, 1, long(2)),
        (true, 0, u32::MAX, 1, long(u32::MAX)),
        (true, 0, 1, 2, jump(2, 1)),
        (true, 0, 1, u16::MAX, jump(u16::MAX, 1)),
        (true, 0, 1, 0x8000, jump(0x8000, 1)),
        (false, 0, 1, 1, jump(1, 0)),
    ];
    for (asked, id, len, index, want) in cases {
        let (_memory, mut queue, _, ring) = split(4, false);
        assert!(!asked || queue.submit(&COMMAND, ANSWER).is_ok());
        ring.device.cell::<u32>(4).expect("inside").store(id, Relaxed);
        ring.device.cell::<u32>(8).expect("inside").store(len, Relaxed);
        ring.device.cell::<u16>(2).expect("inside").store(index, Release);
        assert_eq!(queue.answered(), want, "{asked} {id} {len} {index}");
    }
}

#[test]
fn what_fits_no_queue_is_refused() {
    for (layout, size) in [(Layout::Split, 2), (Layout::Packed, 3)] {
        let zone = Zone::new(layout.bytes(size));
        let ring = RingMemory::in_zone(zone.bytes(), layout, size).expect("large enough");
        assert!(ControlQueue::new(&ring, layout, size, false).is_err());
    }
    let (_zone, mut queue, _) = packed(8);
    assert!(queue.submit(&[], ANSWER).is_err());
    assert!(queue.submit(&[ANSWER; 3], ANSWER).is_err());
    assert!(queue.submit(&COMMAND, ANSWER).is_ok(), "nothing was submitted before");
}
