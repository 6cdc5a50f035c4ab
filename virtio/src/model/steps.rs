//! The steps of the model: the effects of an operation on both sides, and the expected results.

use core::mem::MaybeUninit;

use super::{GUEST_BASE, GUEST_BYTES, Lent, Model};
use crate::layout::Layout;
use crate::queue::{
    Access, Buffer, Chain, Completion, DeviceMemory, DeviceQueue, DriverQueue, Element, Head, Lookahead, Used,
};
use crate::segments::{Piece, SegList};

/// The information that determines whether a publishing side must notify.
#[derive(Clone, Copy)]
struct Asked {
    /// Something is published now (`new`), or was published earlier without a decision (`owed`).
    new: bool,
    owed: bool,
    armed: bool,
    stale: bool,
}

impl<D: DriverQueue, V: DeviceQueue> Model<D, V> {
    /// Performs an operation, selected by the first byte, with the second as its argument.
    pub(super) fn step(&mut self, [what, n]: [u8; 2]) {
        let n = usize::from(n);
        match what % 14 {
            0 | 1 => self.add(n % 40),
            2 => self.add_chain(n % 12),
            3 | 4 => self.publish_driver(false),
            5 => self.peek_and_complete(n % 40),
            6 => self.use_chain(n as u32),
            7 => self.take(n % 8),
            8 => self.give_held(n),
            9 => self.publish_device(false),
            10 => self.collect(n % 40),
            11 => self.publish_driver(true),
            12 => self.publish_device(true),
            _ => self.arm(n),
        }
    }

    pub(super) fn add(&mut self, n: usize) {
        let buffers: Vec<Buffer> = (0..n).map(|_| self.buffer()).collect();
        let free = usize::from(self.driver.free());
        let added = self.driver.add_burst(buffers.iter().copied());
        assert_eq!(added, n.min(free), "as many as there is room for");
        for b in &buffers[..added] {
            let segments = vec![Element { addr: b.addr, len: b.len }];
            self.added.push_back(Lent { token: b.token, segments });
        }
    }

    fn buffer(&mut self) -> Buffer {
        let token = self.next_token;
        self.next_token += 1;
        let spread = token.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let len = (spread % 200) as u32;
        let first = GUEST_BYTES / 4;
        Buffer { addr: GUEST_BASE + first + spread % (GUEST_BYTES - first - 200), len, token }
    }

    pub(super) fn add_chain(&mut self, n: usize) {
        let segments: Vec<Element> = (0..n)
            .map(|_| {
                let b = self.buffer();
                Element { addr: b.addr, len: b.len }
            })
            .collect();
        let token = self.next_token;
        self.next_token += 1;
        let (free, tables) = (usize::from(self.driver.free()), usize::from(self.variant.indirect));
        let fits = n > 0 && (n <= free || (n <= tables && free > 0));
        assert_eq!(self.driver.add_chain(&segments, token).is_ok(), fits);
        if fits {
            self.added.push_back(Lent { token, segments });
        }
    }

    /// Driver: publishes, and decides whether to kick; with `by_hint`, only if the hint is true.
    pub(super) fn publish_driver(&mut self, by_hint: bool) {
        let new = !self.added.is_empty();
        self.driver.publish();
        self.available.extend(self.added.drain(..));
        let hint = self.driver.kick_hint();
        self.check_unasked(hint);
        let asked = Asked { new, owed: self.kick_owed, armed: self.kick_armed, stale: self.kick_stale };
        self.check_notice(hint, asked);
        if by_hint && !hint {
            self.kick_owed |= new;
            return;
        }
        assert_eq!(self.driver.kick_needed(), hint, "no race here: the hint is right");
        self.kick_owed = false;
        // With an event index, one request leads to one notification.
        self.kick_armed &= !(hint && self.variant.event_idx);
        assert!(!self.driver.kick_needed(), "nothing new since");
    }

    /// A decision left to another thread has the same result as one by the queue.
    fn check_unasked(&self, hint: bool) {
        let unasked = self.driver.unasked();
        assert_eq!(unasked.is_none(), hint);
        assert!(!unasked.is_some_and(|unasked| self.suppression.kick_needed(unasked)), "no race here");
    }

    /// Device: publishes, and decides whether to call.
    pub(super) fn publish_device(&mut self, by_hint: bool) {
        let new = !self.finished.is_empty();
        self.device.publish();
        self.visible.extend(self.finished.drain(..));
        let hint = self.device.call_hint();
        let asked = Asked { new, owed: self.call_owed, armed: self.call_armed, stale: self.call_stale };
        self.check_notice(hint, asked);
        if by_hint && !hint {
            self.call_owed |= new;
            return;
        }
        assert_eq!(self.device.call_needed(), hint, "no race here: the hint is right");
        self.call_owed = false;
        self.call_armed &= !(hint && self.variant.event_idx);
        assert!(!self.device.call_needed(), "nothing new since");
    }

    /// The sleeping side is notified if and only if it requested that, with two exceptions: a packed event
    /// matches again every second lap, and a split event inside entries without a decision matches even if it
    /// was set to disable notifications.
    fn check_notice(&self, notice: bool, Asked { new, owed, armed, stale }: Asked) {
        let event_idx = self.variant.event_idx;
        let spurious = match self.variant.layout {
            Layout::Split => owed,
            Layout::Packed => stale && (owed || new),
        };
        if armed && (new || owed && !event_idx) {
            assert!(notice, "a sleeper must be woken");
        } else if !(event_idx && spurious) {
            assert!(!notice, "nobody asked to be woken");
        }
    }

    /// Device: peeks up to `n` simple chains, and returns the first half of them.
    pub(super) fn peek_and_complete(&mut self, n: usize) {
        let mut out = [const { MaybeUninit::<Chain>::uninit() }; 64];
        let got = self.device.peek(&self.memory, &mut out[..n]).expect("an honest driver");
        let chains: Vec<Chain> = out[..got]
            .iter()
            // SAFETY: `peek` initialised the first `got` chains.
            .map(|c| unsafe { c.assume_init() })
            .collect();
        for (k, chain) in chains.iter().enumerate() {
            let want = &self.available[k];
            assert_eq!(want.segments.len(), 1);
            assert_eq!(chain.len, want.segments[0].len);
            let ptr = self.memory.translate(want.segments[0].addr, chain.len, Access::Read).expect("simple");
            assert_eq!(chain.ptr, ptr.as_ptr());
        }
        if got < n.min(self.available.len()) {
            assert!(!self.is_simple(&self.available[got]), "stopped before {:?}", self.available[got]);
        }
        if self.variant.in_order && !self.held.is_empty() {
            return;
        }
        let half = got.div_ceil(2);
        let lens: Vec<u32> = (0..half).map(|k| self.written(k as u32, chains[k].len)).collect();
        self.device.complete_burst(&chains[..half], |k| lens[k]);
        for len in lens {
            let Some(Lent { token, .. }) = self.available.pop_front() else { panic!("model lost a chain") };
            self.finished.push_back(Completion { token, len });
        }
    }

    fn is_simple(&self, lent: &Lent) -> bool {
        let [Element { addr, len }] = lent.segments[..] else { return false };
        self.memory.translate(addr, len, Access::Read).is_some()
    }

    fn written(&self, seed: u32, lent: u32) -> u32 {
        if self.variant.writable { seed.wrapping_mul(31) % (lent + 1) } else { 0 }
    }

    /// Device: takes the next chain by the cold path and returns it at once.
    pub(super) fn use_chain(&mut self, seed: u32) {
        let Some((head, lent)) = self.peek_front(Lookahead::default()) else { return };
        if self.variant.in_order && !self.held.is_empty() {
            return;
        }
        let len = self.written(seed, head.len);
        self.device.complete(head.used(len));
        self.available.pop_front();
        self.finished.push_back(Completion { token: lent.token, len });
    }

    /// Peeks the chain at `ahead` and compares it with the expected one.
    fn peek_front(&mut self, ahead: Lookahead) -> Option<(Head, Lent)> {
        let mut list = SegList::new();
        let head = self.device.peek_chain(&self.memory, ahead, &mut list).expect("an honest driver");
        let want = self.available.get(usize::from(ahead.chains)).cloned();
        assert_eq!(head.is_some(), want.is_some());
        let (head, want) = (head?, want?);
        assert_eq!(head.len, want.len());
        let translated = want.segments.iter().flat_map(|s| self.pieces(*s)).collect();
        assert_eq!(merged(list.pieces().to_vec()), merged(translated));
        Some((head, want))
    }

    fn pieces(&self, mut s: Element) -> Vec<Piece> {
        let mut out = Vec::new();
        while s.len > 0 {
            let (ptr, len) = self.memory.part(s.addr, s.len).expect("inside");
            out.push(Piece { ptr, len });
            s = Element { addr: s.addr + u64::from(len), len: s.len - len };
        }
        out
    }

    /// Device: peeks up to `n` chains, then takes all of them, to be returned later.
    pub(super) fn take(&mut self, n: usize) {
        let mut ahead = Lookahead::default();
        let mut taken = Vec::new();
        for _ in 0..n {
            let Some((head, lent)) = self.peek_front(ahead) else { break };
            ahead = ahead.past(head);
            taken.push((head.used(0), lent));
        }
        self.device.take(ahead);
        self.available.drain(..taken.len());
        self.held.extend(taken);
        assert_eq!(usize::from(self.device.available()), self.available.len());
        assert_eq!(self.device.is_empty(), self.available.is_empty());
    }

    /// Device: returns one taken chain, in any order if the queue allows it.
    pub(super) fn give_held(&mut self, which: usize) {
        if self.held.is_empty() {
            return;
        }
        let at = if self.variant.in_order { 0 } else { which % self.held.len() };
        let (used, lent) = self.held.remove(at);
        let len = self.written(which as u32, lent.len());
        self.device.complete_taken(Used { len, ..used });
        self.finished.push_back(Completion { token: lent.token, len });
    }

    /// Driver: collects up to `n` completions.
    pub(super) fn collect(&mut self, n: usize) {
        let mut out = [const { MaybeUninit::<Completion>::uninit() }; 64];
        let n = n.min(64);
        let (counted, visible) = (usize::from(self.driver.completed()), self.visible.len());
        // A packed ring counts the slots of a chain.
        let right = match self.variant.layout {
            Layout::Split => counted == visible,
            Layout::Packed => counted >= visible && (counted == 0) == (visible == 0),
        };
        assert!(right, "{counted} are counted of {visible}");
        let got = self.driver.complete(&mut out[..n]).expect("an honest device");
        assert_eq!(got, n.min(self.visible.len()));
        for done in &out[..got] {
            // SAFETY: `complete` initialised the first `got` completions.
            assert_eq!(Some(unsafe { done.assume_init() }), self.visible.pop_front());
        }
    }

    /// One of the sides goes to sleep, or wakes up and stays awake.
    pub(super) fn arm(&mut self, n: usize) {
        let on = n & 2 != 0;
        if n & 1 == 0 {
            let waiting = self.driver.set_interrupts(on);
            assert_eq!(waiting, on && !self.visible.is_empty(), "a sleeper is told what it would miss");
            self.call_armed = on && !(self.variant.event_idx && waiting);
            self.call_stale = on;
        } else {
            let waiting = self.device.set_notifications(on);
            assert_eq!(waiting, on && !self.available.is_empty(), "a sleeper is told what it would miss");
            self.kick_armed = on && !(self.variant.event_idx && waiting);
            self.kick_stale = on;
        }
    }

    /// Checks that the driver's free count is the ring size minus the descriptors in use.
    pub(super) fn check_free(&self) {
        let slots = |lent: &Lent| match lent.segments.len() {
            n if n > 1 && n <= usize::from(self.variant.indirect) => 1,
            n => n,
        };
        let lent: usize =
            self.added.iter().chain(&self.available).chain(self.held.iter().map(|(_, l)| l)).map(slots).sum();
        // Finished buffers keep their slots until they are collected; the model does not record how many.
        if self.finished.is_empty() && self.visible.is_empty() {
            assert_eq!(usize::from(self.driver.free()), usize::from(self.variant.size) - lent);
        }
    }
}

/// Joins adjacent pieces, so that the same bytes compare equal however they are divided.
fn merged(pieces: Vec<Piece>) -> Vec<(usize, u32)> {
    let mut out: Vec<(usize, u32)> = Vec::new();
    for piece in pieces {
        let at = piece.ptr.as_ptr() as usize;
        match out.last_mut() {
            Some((start, len)) if *start + *len as usize == at => *len += piece.len,
            _ => out.push((at, piece.len)),
        }
    }
    out
}
