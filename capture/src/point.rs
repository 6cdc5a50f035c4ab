//! The capture point of one side of a queue. Off, it is a load; on, it copies packets, also those that
//! drivers drop.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linecard_mempool::{BURST, Packet};
use linecard_net::bpf::Program;
use linecard_ring::{Reservation, Single};

use super::memory::Producer;
use super::record::{self, COMMENT, Cell, Frame};
use crate::pcap::encode::Direction;
use linecard_pmd::observer::{DropObserver, Reported};
use linecard_pmd::stats::Counter;

/// The counters of a ring's writer, read by the control thread.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// The number of frames that passed the filter.
    pub(super) seen: Counter,
    /// The number of copies of them for which the ring had no room.
    pub(super) lost: Counter,
}

/// A ring to which frames are copied.
pub(super) struct Sink {
    pub(super) ring: Producer,
    pub(super) filter: Option<Arc<Program>>,
    pub(super) snaplen: usize,
    pub(super) counts: Arc<Counts>,
    pub(super) direction: Direction,
    pub(super) queue: u16,
}

/// The rings of one side of a queue: for packets that pass, and for dropped packets.
pub(super) struct Sinks {
    pub(super) passed: Sink,
    pub(super) dropped: Box<Dropped>,
}

/// Copies the packets that drivers report as dropped, one burst after another.
pub(super) struct Dropped {
    sink: Sink,
    time: u64,
    gone: Gone,
}

impl Dropped {
    pub(super) fn new(sink: Sink) -> Box<Self> {
        Box::new(Self { sink, time: 0, gone: Gone::NONE })
    }

    /// Prepares for a burst.
    pub(super) fn begin(&mut self, time: u64) {
        (self.time, self.gone.count) = (time, 0);
    }

    /// The packets that the burst dropped.
    pub(super) fn gone(&self) -> &Gone {
        &self.gone
    }
}

impl DropObserver for Dropped {
    fn dropped(&mut self, packet: &Packet, cause: &str, shown: Reported) {
        match shown {
            Reported::No => self.sink.copy(packet, self.time, cause),
            Reported::AsWhole => {
                self.sink.copy(packet, self.time, &format!("{cause}, a piece of a packet shown as sent"));
            }
            Reported::Before => {
                return self.sink.copy(packet, self.time, &format!("{cause}, shown as sent before"));
            }
        }
        self.gone.add(packet);
    }
}

/// The number of bytes of a chained packet that a filter sees.
const LOOK: usize = 512;

/// The bytes for the filter, copied to `place` if necessary.
fn head<'a>(packet: &'a Packet, place: &'a mut [u8; LOOK]) -> &'a [u8] {
    if packet.nb_segs() == 1 {
        return packet.data();
    }
    let mut used = 0;
    for segment in packet.segments() {
        let data = segment.data();
        let now = data.len().min(LOOK - used);
        place[used..used + now].copy_from_slice(&data[..now]);
        used += now;
    }
    &place[..used]
}

impl Sink {
    /// The number of bytes to keep of a packet; `None` if the filter rejects it.
    fn copy_len(&self, packet: &Packet) -> Option<usize> {
        let len = packet.len();
        if let Some(filter) = &self.filter {
            let mut place = [0; LOOK];
            // Frames are far below 4 GiB.
            if filter.run(head(packet, &mut place), len as u32) == 0 {
                return None;
            }
        }
        Some(len.min(self.snaplen))
    }

    /// Copies and publishes one packet.
    fn copy(&mut self, packet: &Packet, time: u64, comment: &str) {
        let Some(kept) = self.copy_len(packet) else { return };
        let comment = &comment[..comment.floor_char_boundary(COMMENT)];
        self.counts.seen.add(1);
        let frame = self.frame(packet, time, comment);
        let Some(mut slots) = self.ring.reserve_bulk(record::cells(kept, comment.len())) else {
            self.counts.lost.add(1);
            return;
        };
        record::write(&mut slots, &frame, packet.segments().map(|segment| segment.data()), kept);
        slots.publish();
    }

    fn frame<'a>(&self, packet: &Packet, time: u64, comment: &'a str) -> Frame<'a> {
        Frame {
            time,
            lost: self.counts.lost.value(),
            len: packet.len() as u32,
            queue: self.queue,
            direction: self.direction,
            data: &[],
            comment,
        }
    }

    /// Copies packets that are about to be sent; [`Copied::publish`] later publishes those that were.
    pub(super) fn prepare(&mut self, packets: &[Packet], time: u64) -> Copied<'_> {
        let mut marks = [Mark::default(); BURST];
        let mut need = 0;
        for (mark, packet) in marks.iter_mut().zip(packets) {
            (mark.place, mark.len) = (place_of(packet), packet.len());
            mark.kept = self.copy_len(packet);
            mark.cells = mark.kept.map_or(0, |kept| record::cells(kept, 0));
            need += mark.cells;
        }
        let template = packets.first().map(|packet| self.frame(packet, time, ""));
        let mut slots = self.ring.reserve(need);
        let mut written = 0;
        for (mark, packet) in marks.iter_mut().zip(packets) {
            if let (Some(kept), Some(frame)) = (mark.kept, template)
                && mark.cells <= slots.room()
            {
                let frame = Frame { len: packet.len() as u32, ..frame };
                record::write(&mut slots, &frame, packet.segments().map(|segment| segment.data()), kept);
                written += mark.cells;
                mark.copied = true;
            }
            mark.end = written;
        }
        Copied { slots, marks, counts: &self.counts }
    }
}

#[derive(Clone, Copy, Default)]
struct Mark {
    /// The packet that this refers to.
    place: usize,
    len: usize,
    kept: Option<usize>,
    cells: usize,
    copied: bool,
    /// The number of cells up to the end of this packet.
    end: usize,
}

/// Copies that are not published yet.
pub(super) struct Copied<'a> {
    slots: Reservation<'a, Cell, Single>,
    marks: [Mark; BURST],
    counts: &'a Counts,
}

impl Copied<'_> {
    /// Publishes the copies of the first `count` packets except the dropped ones, and discards the others.
    pub(super) fn publish(mut self, count: usize, gone: &Gone) {
        let marks = &mut self.marks[..count.min(BURST)];
        let mut start = 0;
        for mark in &mut *marks {
            if gone.has(mark) {
                if mark.copied {
                    // The slot was written above.
                    _ = self.slots.rewrite(start, record::withdrawn(mark.kept.unwrap_or(0)));
                }
                (mark.kept, mark.copied) = (None, false);
            }
            start = mark.end;
        }
        let wanted = marks.iter().filter(|mark| mark.kept.is_some()).count();
        let copied = marks.iter().filter(|mark| mark.copied).count();
        self.counts.seen.add(wanted as u64);
        self.counts.lost.add((wanted - copied) as u64);
        self.slots.truncate(marks.last().map_or(0, |mark| mark.end));
        self.slots.publish();
    }
}

/// The messages between the control thread and a polling thread.
#[derive(Default)]
struct Mail {
    /// The rings to use from now on; `Some(None)` for none.
    next: Option<Option<Sinks>>,
    /// Rings no longer in use, to be freed by the control thread.
    old: Vec<Sinks>,
}

/// The source of the rings of a [`Point`].
#[derive(Default)]
pub(super) struct Mailbox {
    /// Changes with every message.
    epoch: AtomicU32,
    mail: Mutex<Mail>,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Mail> {
        // No code can panic while a change is incomplete.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the polling thread use these rings, or none, from its next burst on.
    pub(super) fn send(&self, sinks: Option<Sinks>) {
        let mut mail = self.lock();
        let unread = mail.next.replace(sinks);
        let old = std::mem::take(&mut mail.old);
        // M1, pairs with the lock in `pick_up`, not with the load that noticed: the message is protected by
        // the mutex.
        self.epoch.fetch_add(1, Ordering::Relaxed);
        drop(mail);
        drop((unread, old));
    }

    /// Frees rings that the polling thread returned.
    pub(super) fn collect(&self) {
        let old = std::mem::take(&mut self.lock().old);
        drop(old);
    }
}

/// One side of a queue that can be captured, owned by the polling thread.
pub(super) struct Point {
    mailbox: Arc<Mailbox>,
    epoch: u32,
    pub(super) sinks: Option<Sinks>,
}

impl Point {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { mailbox, epoch: 0, sinks: None }
    }

    /// Whether there is nothing to do: no capture, and no new message.
    #[inline(always)]
    pub(super) fn off(&self) -> bool {
        self.sinks.is_none() && self.mailbox.epoch.load(Ordering::Relaxed) == self.epoch
    }

    /// Reads the message, if there is one and the control thread is not writing one.
    #[cold]
    pub(super) fn pick_up(&mut self) {
        let epoch = self.mailbox.epoch.load(Ordering::Relaxed);
        if epoch == self.epoch {
            return;
        }
        let Ok(mut mail) = self.mailbox.mail.try_lock() else { return };
        if let Some(next) = mail.next.take() {
            let old = std::mem::replace(&mut self.sinks, next);
            // The control thread frees it: unmapping takes long.
            mail.old.extend(old);
        }
        self.epoch = epoch;
    }

    /// Copies packets that the application drops.
    pub(super) fn app_dropped(&mut self, packets: &[Packet], time: u64, cause: &str) {
        if let Some(sinks) = &mut self.sinks {
            packets.iter().for_each(|packet| sinks.dropped.sink.copy(packet, time, cause));
        }
    }
}

/// The address of a packet's metadata, which identifies it among the existing packets.
fn place_of(packet: &Packet) -> usize {
    packet.as_raw().addr().get()
}

/// The packets of a burst that its driver dropped.
pub(super) struct Gone {
    /// Their addresses and lengths: the same address may later be used by a piece of another packet.
    packets: [(usize, usize); BURST],
    count: usize,
}

impl Gone {
    pub(super) const NONE: Self = Self { packets: [(0, 0); BURST], count: 0 };

    fn add(&mut self, packet: &Packet) {
        if let Some(place) = self.packets.get_mut(self.count) {
            *place = (place_of(packet), packet.len());
            self.count += 1;
        }
    }

    fn has(&self, mark: &Mark) -> bool {
        self.packets[..self.count].contains(&(mark.place, mark.len))
    }
}
