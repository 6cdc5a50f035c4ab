//! What the backend may see: this port's rings, the domain its packets come from, and nothing else of this process. The
//! rings have a domain of their own, so that no other port's backend can write there.
//!
//! Guest address = user address = the address in this process, so a descriptor carries a pointer as it is.
//!
//! ```text
//!   rings:    ├─ segment ─┤ made when the port starts; never grows
//!   packets:  base ├─ segment ─┼─ segment ─┤· gap ·├─ segment (new) ─┤
//!   window:        ├──── shared, packets may be sent ────┤ not yet: copied, or after the backend's answer
//! ```

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use linecard_eal::memory::{Domain, Segment, SegmentEvent, Subscription};
use linecard_wire::FrontendReq;
use linecard_wire::payload::{MemTable, MemoryRegion, Payload, SingleRegion};

use crate::dialogue::Dialogue;
use crate::error::Error;
use crate::thread::Waiter;

/// Regions that every backend takes in one table (QEMU `docs/interop/vhost-user.rst`, "Memory region table").
const TABLE_REGIONS: usize = 8;

/// Which addresses the backend has mapped, for the transmit path: one subtraction and one comparison.
#[derive(Debug)]
pub(crate) struct Window {
    base: u64,
    len: AtomicU64,
    /// Segments that came or went, to know whether a computed length is still true.
    changes: Mutex<u64>,
}

impl Window {
    fn new(base: u64) -> Self {
        Self { base, len: AtomicU64::new(0), changes: Mutex::new(0) }
    }

    /// First address, and how many bytes from there on may be given to the backend.
    #[inline(always)]
    pub(crate) fn now(&self) -> (u64, u64) {
        // Relaxed: the number stands for the backend's answer, not for memory of ours.
        (self.base, self.len.load(Ordering::Relaxed))
    }

    fn changes(&self) -> u64 {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A segment appeared at `addr`: what lies there now is not what the backend mapped.
    fn cut(&self, addr: u64) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        *changes = changes.wrapping_add(1);
        let len = addr.saturating_sub(self.base).min(self.len.load(Ordering::Relaxed));
        self.len.store(len, Ordering::Relaxed);
    }

    /// Opens the window to `end`, unless segments came since `seen`.
    fn raise(&self, end: u64, seen: u64) {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if *changes == seen {
            self.len.store(end.saturating_sub(self.base), Ordering::Relaxed);
        }
    }

    /// A window over all of `segments`.
    #[cfg(test)]
    pub(crate) fn over(segments: Vec<Arc<Segment>>) -> Arc<Self> {
        let window = Self::new(segments.first().map_or(0, |first| start(first)));
        let end = segments.last().map_or(0, |last| start(last) + last.len() as u64);
        window.raise(end, 0);
        Arc::new(window)
    }

    /// Nothing is shared any more.
    pub(crate) fn close(&self) {
        self.cut(self.base);
    }
}

/// All that one port shares: its rings, and a domain of packets, whose growth it follows.
pub(crate) struct Growth {
    rings: Arc<Domain>,
    packets: Arc<Domain>,
    pub(crate) window: Arc<Window>,
    _subscription: Subscription,
}

impl Growth {
    /// `waiter`'s thread is notified when segments come or go.
    pub(crate) fn follow(rings: Arc<Domain>, packets: &Arc<Domain>, waiter: Arc<Waiter>) -> Self {
        let window = Arc::new(Window::new(packets.base() as u64));
        let seen = window.clone();
        let subscription = packets.subscribe(Box::new(move |event| {
            match event {
                SegmentEvent::Added(segment) | SegmentEvent::Removed(segment) => seen.cut(start(segment)),
                #[allow(unreachable_patterns, reason = "more kinds of events may come")]
                _ => {}
            }
            waiter.notify();
        }));
        Self { rings, packets: packets.clone(), window, _subscription: subscription }
    }

    /// What is to be shared now, and where the packets end.
    fn segments(&self) -> (Vec<Arc<Segment>>, u64) {
        let packets = self.packets.segments();
        let end = packets.last().map_or(0, |last| start(last).saturating_add(last.len() as u64));
        let mut all = self.rings.segments();
        all.extend(packets);
        (all, end)
    }
}

fn start(segment: &Segment) -> u64 {
    segment.addr() as u64
}

fn region(segment: &Segment) -> MemoryRegion {
    let addr = start(segment);
    MemoryRegion { guest_addr: addr, size: segment.len() as u64, user_addr: addr, offset: segment.offset() }
}

/// What one backend has been told of the memory.
#[derive(Debug)]
pub(crate) struct Sharing {
    known: Vec<Arc<Segment>>,
    /// Regions the backend takes one by one; 0 without `CONFIGURE_MEM_SLOTS`.
    slots: usize,
    changes: Option<u64>,
}

impl Sharing {
    /// Nothing shared yet with a backend of `slots` memory slots.
    pub(crate) fn new(slots: usize) -> Self {
        Self { known: Vec::new(), slots, changes: None }
    }

    /// Tells the backend what changed since last time, and opens the window for it.
    pub(crate) fn update(&mut self, dialogue: &mut Dialogue, growth: &Growth) -> Result<(), Error> {
        let seen = growth.window.changes();
        if self.changes == Some(seen) {
            return Ok(());
        }
        let (now, end) = growth.segments();
        let max = if self.slots > 0 { self.slots } else { TABLE_REGIONS };
        if now.len() > max {
            return Err(Error::Regions { segments: now.len(), max });
        }
        match self.slots {
            0 => self.table(dialogue, &now)?,
            _ => self.one_by_one(dialogue, &now)?,
        }
        dialogue.barrier()?;
        self.changes = Some(seen);
        growth.window.raise(end, seen);
        Ok(())
    }

    /// All regions as one table, when it is another than the backend has.
    fn table(&mut self, dialogue: &mut Dialogue, now: &[Arc<Segment>]) -> Result<(), Error> {
        if same(now, &self.known) {
            return Ok(());
        }
        let table = MemTable(now.iter().map(|segment| region(segment)).collect());
        let fds: Vec<BorrowedFd<'_>> = now.iter().map(|segment| segment.fd()).collect();
        dialogue.tell(FrontendReq::SET_MEM_TABLE, &table.to_bytes(), &fds)?;
        self.known = now.to_vec();
        Ok(())
    }

    /// What is gone is taken back, what is new is added.
    fn one_by_one(&mut self, dialogue: &mut Dialogue, now: &[Arc<Segment>]) -> Result<(), Error> {
        let gone: Vec<_> = self.known.iter().filter(|known| !contains(now, known)).cloned().collect();
        for segment in gone {
            let payload = SingleRegion(region(&segment)).to_bytes();
            dialogue.tell(FrontendReq::REM_MEM_REG, &payload, &[])?;
            self.known.retain(|known| !Arc::ptr_eq(known, &segment));
        }
        for segment in now {
            if contains(&self.known, segment) {
                continue;
            }
            let payload = SingleRegion(region(segment)).to_bytes();
            dialogue.tell(FrontendReq::ADD_MEM_REG, &payload, &[segment.fd()])?;
            self.known.push(segment.clone());
        }
        Ok(())
    }
}

fn contains(list: &[Arc<Segment>], segment: &Arc<Segment>) -> bool {
    list.iter().any(|other| Arc::ptr_eq(other, segment))
}

fn same(a: &[Arc<Segment>], b: &[Arc<Segment>]) -> bool {
    a.len() == b.len() && a.iter().all(|segment| contains(b, segment))
}

#[cfg(test)]
mod tests {
    use super::Window;

    #[test]
    fn a_window_opens_only_for_what_was_answered() {
        let window = Window::new(0x1000);
        assert_eq!(window.now(), (0x1000, 0));
        let seen = window.changes();
        window.raise(0x3000, seen);
        assert_eq!(window.now(), (0x1000, 0x2000));
        // A new segment beyond the window does not narrow it, but makes an older answer void.
        window.cut(0x3000);
        assert_eq!(window.now(), (0x1000, 0x2000));
        window.raise(0x4000, seen);
        assert_eq!(window.now(), (0x1000, 0x2000));
        // One inside does: its place held something else when the backend mapped it.
        window.cut(0x1800);
        assert_eq!(window.now(), (0x1000, 0x800));
        window.close();
        assert_eq!(window.now().1, 0);
    }
}
