//! Both halves on a ring whose words change at random: no panic, no access outside, no token lost or returned
//! twice.

use core::mem::MaybeUninit;
use std::collections::HashMap;

use super::{GUEST_BASE, GUEST_BYTES, Guest, Variant, Zone, setup};
use crate::layout::RingMemory;
use crate::queue::{Buffer, Chain, Completion, DeviceQueue, DriverQueue, Element, Lookahead};
use crate::segments::SegList;
use crate::sync::SharedBytes;

/// One step: an operation and three bytes of arguments.
pub type Step = [u8; 4];

/// Runs `steps` on a new ring. Panics if a half violates one of its guarantees.
pub fn run_hostile(variant: Variant, steps: &[Step]) {
    let (ring, guest) = (Zone::new(variant.layout.bytes(variant.size)), guest());
    let (memory, driver, device) = setup(variant, &ring, &guest);
    with_halves!(variant, Driver, Device => {
        let driver = Driver::new(&memory, driver).expect("valid driver");
        let device = Device::new(&memory, device).expect("valid device");
        let state = (memory, guest, HashMap::new());
        Hostile { driver, device, size: variant.size, state, token: 0, ahead: Lookahead::default() }.run(steps);
    });
}

fn guest() -> Guest {
    Guest::new(GUEST_BASE, GUEST_BYTES as usize, vec![GUEST_BASE + GUEST_BYTES / 2])
}

struct Hostile<D, V> {
    driver: D,
    device: V,
    size: u16,
    /// The ring, the guest, and the buffer lengths by token.
    state: (RingMemory, Guest, HashMap<u64, u32>),
    token: u64,
    ahead: Lookahead,
}

impl<D: DriverQueue, V: DeviceQueue> Hostile<D, V> {
    fn run(mut self, steps: &[Step]) {
        for step in steps {
            self.step(*step);
            assert!(self.driver.free() <= self.size);
        }
        let lent = &mut self.state.2;
        self.driver.take_all(&mut |token| assert!(lent.remove(&token).is_some(), "token {token} twice"));
        assert!(lent.is_empty(), "tokens lost: {lent:?}");
    }

    fn step(&mut self, [what, a, b, c]: Step) {
        let n = usize::from(a);
        match what % 16 {
            0 | 1 => self.add(n % 40),
            2 => self.add_chain(n % 6),
            3 => self.driver.publish(),
            4 => self.device.publish(),
            5 | 6 => self.peek(n % 40, usize::from(b)),
            7 => self.peek_chain(b),
            8 => self.complete_taken(b, c),
            9 | 10 => self.collect(n % 40),
            11 => self.notify(a),
            12 => self.write_index(a, b, c),
            13 => self.write_used(a, b, c),
            _ => self.scribble(a, b, c),
        }
    }

    fn add(&mut self, n: usize) {
        let first = self.token;
        let buffers = (0..n as u64).map(|k| Buffer {
            addr: GUEST_BASE + (first + k) % GUEST_BYTES,
            len: (k * 7 % 300) as u32,
            token: first + k,
        });
        let added = self.driver.add_burst(buffers.clone()) as u64;
        self.token += added;
        self.state.2.extend(buffers.take(added as usize).map(|b| (b.token, b.len)));
    }

    fn add_chain(&mut self, n: usize) {
        let segments = vec![Element { addr: GUEST_BASE + self.token % 1000, len: 100 }; n];
        if self.driver.add_chain(&segments, self.token).is_ok() {
            self.state.2.insert(self.token, 100 * n as u32);
            self.token += 1;
        }
    }

    fn collect(&mut self, n: usize) {
        let mut out = [const { MaybeUninit::<Completion>::uninit() }; 40];
        let Ok(got) = self.driver.complete(&mut out[..n]) else { return };
        for done in &out[..got] {
            // SAFETY: `complete` initialised the first `got` completions.
            let done = unsafe { done.assume_init() };
            let lent = self.state.2.remove(&done.token);
            assert!(lent.is_some_and(|lent| done.len <= lent), "{done:?} of {lent:?}");
        }
    }

    fn inside(&self, ptr: *const u8, len: u32) {
        let bytes = self.state.1.bytes();
        let (start, at) = (bytes.as_ptr() as usize, ptr as usize);
        assert!(at >= start && at + len as usize <= start + bytes.len(), "chain outside the memory");
    }

    fn peek(&mut self, n: usize, used: usize) {
        let mut out = [const { MaybeUninit::<Chain>::uninit() }; 40];
        let Ok(got) = self.device.peek(&self.state.1, &mut out[..n]) else { return };
        // SAFETY: `peek` initialised the first `got` chains.
        let chains = unsafe { out[..got].assume_init_ref() };
        for chain in chains {
            self.inside(chain.ptr, chain.len);
        }
        self.device.complete_burst(&chains[..used.min(got)], |k| k as u32);
    }

    fn peek_chain(&mut self, take: u8) {
        let mut list = SegList::new();
        let Ok(Some(head)) = self.device.peek_chain(&self.state.1, Lookahead::default(), &mut list) else {
            return;
        };
        assert!(head.descs > 0 && head.descs <= self.size && head.len == list.bytes());
        for piece in list.pieces() {
            assert!(piece.len > 0);
            self.inside(piece.ptr.as_ptr(), piece.len);
        }
        if take & 1 == 0 {
            self.device.complete(head.used(u32::from(take)));
        } else {
            self.device.take(Lookahead::default().past(head));
            self.ahead = self.ahead.past(head);
        }
    }

    /// Returns one of the taken chains; the ring does not depend on which.
    fn complete_taken(&mut self, id: u8, len: u8) {
        if self.ahead.chains > 0 {
            let descs = self.ahead.descs.div_ceil(self.ahead.chains);
            self.device.complete_taken(crate::queue::Used { id: u16::from(id), descs, len: u32::from(len) });
            self.ahead = Lookahead { chains: self.ahead.chains - 1, descs: self.ahead.descs - descs };
        }
    }

    fn notify(&mut self, what: u8) {
        let _ = match what % 6 {
            0 => self.driver.kick_needed(),
            1 => self.device.call_needed(),
            2 => self.driver.set_interrupts(what & 8 != 0),
            3 => self.device.set_notifications(what & 8 != 0),
            4 => self.device.is_empty(),
            _ => self.device.available() > self.size,
        };
        assert!(self.device.available() <= self.size);
    }

    /// Writes an index into the driver or device area: slightly wrong, or arbitrary.
    fn write_index(&mut self, a: u8, b: u8, c: u8) {
        let area = if a & 1 == 0 { self.state.0.driver } else { self.state.0.device };
        let mut old = [0; 2];
        area.slice(2, 2).expect("every area has four bytes").copy_to(&mut old);
        let value = match a & 2 {
            0 => u16::from_le_bytes(old).wrapping_add(u16::from(b) % 8).wrapping_sub(2),
            _ => u16::from_le_bytes([b, c]),
        };
        put(area, 2, value);
    }

    /// Writes a plausible used element or descriptor, with an id and a length that may be correct.
    fn write_used(&mut self, a: u8, b: u8, c: u8) {
        let slot = usize::from(a) % usize::from(self.size);
        let flags = [0x8080, 0x8082, 0, 2, 0x80, 0x8000][usize::from(c) % 6];
        let (ring, id) = (self.state.0, u16::from(b) % (self.size + 1));
        if ring.device.len() > 4 {
            put(ring.device, 4 + 8 * slot, id);
            put(ring.device, 8 + 8 * slot, u16::from(c));
        } else {
            put(ring.desc, 16 * slot + 12, id);
            put(ring.desc, 16 * slot + 14, flags);
        }
    }

    /// Writes two arbitrary bytes: into the ring, or into the indirect tables at the start of the guest.
    fn scribble(&mut self, a: u8, b: u8, c: u8) {
        let (ring, guest) = (self.state.0, self.state.1.bytes());
        let area = [ring.desc, ring.driver, ring.device, guest][usize::from(a) & 3];
        let offset = (usize::from(b) + 256 * usize::from(a >> 4)) % (area.len() - 1);
        put(area, offset, if a & 4 == 0 { u16::from(c) % 8 } else { u16::from_le_bytes([c, c]) });
    }
}

fn put(area: SharedBytes, offset: usize, value: u16) {
    if let Some(bytes) = area.slice(offset, 2) {
        bytes.copy_from(&value.to_le_bytes());
    }
}
