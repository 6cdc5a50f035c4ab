//! IOTLB messages (`VIRTIO_F_ACCESS_PLATFORM`), and requests to the frontend for missing translations.
//!
//! ```text
//!   poller: chain without a translation ──► Misses ──► control thread: MISS ──► frontend
//!   next burst finds it  ◄── Table ◄── UPDATE, checked ◄──────────────────────────┘
//!   INVALIDATE ──► Table ──► pollers leave their bursts ──► acknowledgement
//! ```
//!
//! The areas of a ring are translated, too. A ring without a translation of its areas is treated as not
//! started; if a translation is invalidated, the ring stops at its position.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard_eal::quiescence::{Reader, Writer, visits};
use linecard_virtio::{Access, Features, Layout};
use linecard_wire::payload::{IotlbMessage, Payload, VringAddr};
use linecard_wire::{BackendReq, Connection, Message, OutMessage};

use super::later::{Pending, Promise};
use super::request::Answer;
use super::vring::{Vring, layout_of};
use super::{Session, Slots};
use crate::error::Refusal;
use crate::memory::{AHEAD, Entry, Found, Iotlb, MemoryMap, Misses, PAGE, Want, Window};
use crate::peer::tell;

/// Outstanding requests above which those are forgotten that no chain needs yet.
const MOST_ASKED: usize = 512;
/// The time after which a translation is requested again.
const AGAIN: Duration = Duration::from_secs(1);
/// The interval between two checks whether the frontend has read earlier requests.
const READ_INTERVAL: Duration = Duration::from_millis(10);

/// A promise that is fulfilled when the last clone is dropped.
pub(crate) struct Kept(Option<Promise>);

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(promise) = self.0.take() {
            promise.resolve(Ok(Answer::None));
        }
    }
}

/// The control thread's view of one ring's use of translations.
struct RingUse {
    misses: Arc<Misses>,
    /// The last page that its poller missed.
    missing: Option<Want>,
    /// Pages that later chains miss, to be requested once.
    prefetches: VecDeque<Want>,
    /// Reports when the poller of the current path is inside a burst.
    waiter: Option<Writer<Arc<Kept>>>,
}

/// The translated addresses of one session.
pub(crate) struct Translations {
    iotlb: Iotlb,
    rings: Vec<RingUse>,
    /// Requests that the frontend has not answered, and their times: those that rings and their next chains
    /// need, and prefetches.
    asked: Vec<(Want, Instant)>,
}

impl Translations {
    fn new(map: &Arc<MemoryMap>, rings: usize) -> Self {
        let unused =
            || RingUse { misses: Arc::default(), missing: None, prefetches: VecDeque::new(), waiter: None };
        Self { iotlb: Iotlb::new(map), rings: (0..rings).map(|_| unused()).collect(), asked: Vec::new() }
    }

    /// Forgets everything; later translations lead into `map`. Rings must be rebuilt or ended.
    fn forget(&mut self, map: &Arc<MemoryMap>) {
        *self = Self::new(map, self.rings.len());
    }

    /// Collects the misses that pollers have noted.
    fn look_for_misses(&mut self) {
        for ring in &mut self.rings {
            if ring.misses.look() || ring.misses.has_ahead() {
                ring.missing = ring.misses.take_next().or(ring.missing);
                let room = usize::from(AHEAD).saturating_sub(ring.prefetches.len());
                ring.prefetches.extend(std::iter::from_fn(|| ring.misses.take_prefetch()).take(room));
            }
        }
    }

    /// Adds a translation, and forgets the misses that it satisfies. A translation may be invalidated before
    /// anybody looks again, and a request for pages that the driver has finished with is an error (QEMU
    /// reports a fault to the guest). Returns whether it replaced another translation.
    fn update(&mut self, entry: Entry) -> bool {
        self.look_for_misses();
        let changed = self.iotlb.update(entry);
        let is_missing =
            |want: Want| !(entry.first..=entry.last).contains(&want.0) || self.iotlb.is_missing(want);
        for ring in &mut self.rings {
            ring.missing = ring.missing.filter(|want| is_missing(*want));
            ring.prefetches.retain(|want| is_missing(*want));
        }
        self.asked.retain(|(want, _)| is_missing(*want));
        changed
    }

    /// Removes translations that overlap with the range from `first` to `last`, and forgets the misses noted
    /// there: a poller may have noted a miss that was satisfied and used since, and a request for pages that
    /// the driver has finished with is an error. A poller that still needs the page sees the change and notes
    /// the miss again.
    fn take_back(&mut self, (first, last): (u64, u64)) {
        self.look_for_misses();
        let stays = |(page, _): Want| page > last || page.saturating_add(PAGE - 1) < first;
        for ring in &mut self.rings {
            ring.missing = ring.missing.filter(|want| stays(*want));
            ring.prefetches.retain(|want| stays(*want));
        }
        self.asked.retain(|(want, _)| stays(*want));
        self.iotlb.remove(first, last);
    }

    /// Discards the misses of ring `index`, which is stopped or restarted.
    pub(super) fn forget_misses(&mut self, index: usize) {
        if let Some(ring) = self.rings.get_mut(index) {
            ring.misses.take_next();
            while ring.misses.take_prefetch().is_some() {}
            (ring.missing, ring.prefetches) = (None, VecDeque::new());
        }
    }
}

/// The location of an area of a ring.
pub(super) enum Area {
    Here(std::ptr::NonNull<u8>),
    /// The translation of this page is missing.
    Missing(Want),
    /// The area is not contiguous in shared memory.
    Nowhere,
}

impl Translations {
    /// The location of `len` bytes of a ring at `addr`.
    pub(super) fn area(&self, addr: u64, len: u64, access: Access) -> Area {
        match self.iotlb.table().find(addr, len, access) {
            Found::Here(place, part) if part == len => Area::Here(place),
            Found::Missing => Area::Missing((addr & !(PAGE - 1), access)),
            Found::Here(_, part) => match addr.checked_add(part) {
                Some(next) if self.iotlb.is_missing((next, access)) => {
                    Area::Missing((next & !(PAGE - 1), access))
                }
                _ => Area::Nowhere,
            },
        }
    }
}

/// The areas of a ring of `size` at `addr`: their addresses, lengths, and the device's access to them.
pub(super) fn areas(addr: &VringAddr, layout: Layout, size: u16) -> [(u64, usize, Access); 3] {
    let [desc, driver, device] = layout.areas(size);
    // A device writes used descriptors of a packed ring into the descriptor area.
    let descriptors = Access::of(layout == Layout::Packed);
    [(addr.desc, desc, descriptors), (addr.avail, driver, Access::Read), (addr.used, device, Access::Write)]
}

impl Session {
    /// Enables or disables translated addresses, according to `features`.
    pub(super) fn use_translations(&mut self, features: Features) {
        let rings = self.vrings.len();
        let on = features.contains(Features::ACCESS_PLATFORM);
        self.translations = on.then(|| Translations::new(&self.map, rings));
    }

    /// Removes all translations. Running rings must be rebuilt.
    pub(super) fn forget_translations(&mut self) {
        if let Some(translations) = &mut self.translations {
            translations.forget(&self.map);
        }
    }

    /// The view of the translations for the path of ring `index`, and the reader that reports when the path
    /// uses it.
    pub(super) fn window(&mut self, index: usize) -> Option<(Window, Reader<Arc<Kept>>)> {
        let Translations { iotlb, rings, .. } = self.translations.as_mut()?;
        let ring = rings.get_mut(index)?;
        let (visitor, waiter) = visits();
        ring.waiter = Some(waiter);
        Some((Window::new(iotlb.table(), &ring.misses, &self.peer), visitor))
    }

    pub(super) fn set_backend_channel(
        &mut self,
        message: Message,
        _: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        for fd in message.fds {
            self.channel = Some(Connection::adopt(fd).ok_or(Refusal::NotAChannel)?);
        }
        Ok(Answer::None)
    }

    /// Whether an IOTLB message concerns the areas of rings, and not only the buffers of their descriptors.
    pub(super) fn iotlb_touches_rings(&self, message: &Message) -> bool {
        IotlbMessage::from_bytes(&message.payload).is_ok_and(|told| {
            let waits = |vring: &Vring| vring.waits.is_some();
            self.vrings.iter().any(waits) || !self.rings_in(range_of(&told)).is_empty()
        })
    }

    /// The started rings that have an area with addresses in `range`.
    fn rings_in(&self, (first, last): (u64, u64)) -> Vec<usize> {
        let layout = layout_of(self.features.unwrap_or_default());
        let overlaps = |vring: &Vring| {
            let (Some(addr), Some(size), true) = (&vring.addr, vring.size, vring.started) else {
                return false;
            };
            areas(addr, layout, size)
                .into_iter()
                .any(|(start, len, _)| start <= last && start.saturating_add(len as u64 - 1) >= first)
        };
        (0..self.vrings.len()).filter(|index| self.vrings.get(*index).is_some_and(overlaps)).collect()
    }

    /// Adds or removes a translation.
    pub(super) fn iotlb_message(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let told = IotlbMessage::from_bytes(&message.payload)?;
        let taken_back = match told.kind {
            IotlbMessage::UPDATE => self.take_translation(&told)?,
            IotlbMessage::INVALIDATE => {
                self.translations.iter_mut().for_each(|translations| translations.take_back(range_of(&told)));
                true
            }
            kind => {
                let (min, max) = (IotlbMessage::UPDATE.into(), IotlbMessage::INVALIDATE.into());
                return Err(Refusal::Range { what: "IOTLB message", got: kind.into(), min, max });
            }
        };
        if taken_back {
            for index in self.rings_in(range_of(&told)) {
                self.rebuild(index..index + 1, slots);
            }
        }
        for index in 0..self.vrings.len() {
            if self.vrings.get(index).is_some_and(|vring| vring.waits.is_some()) {
                self.rebuild(index..index + 1, slots);
            }
        }
        // Pollers that sleep because a chain lacks a translation look again.
        self.peer.relay.wake_all();
        Ok(if taken_back { self.once_left(message.request) } else { Answer::None })
    }

    /// Adds a translation. Returns whether it replaced another one.
    fn take_translation(&mut self, told: &IotlbMessage) -> Result<bool, Refusal> {
        let entry = Entry::new(told, &self.map)?;
        let unasked = Refusal::Translation {
            iova: told.iova,
            size: told.size,
            problem: "VIRTIO_F_ACCESS_PLATFORM was not negotiated",
        };
        Ok(self.translations.as_mut().ok_or(unasked)?.update(entry))
    }

    /// The answer to a request that removed translations. It is sent once no poller is inside a burst that
    /// may still use them.
    fn once_left(&self, request: u32) -> Answer {
        let rings = self.translations.as_ref().map_or(&[][..], |translations| &translations.rings);
        let inside: Vec<_> = rings
            .iter()
            .filter_map(|ring| ring.waiter.as_ref())
            .filter(|waiter| waiter.is_inside())
            .collect();
        if inside.is_empty() {
            return Answer::None;
        }
        let (promise, pending) = Pending::new(request, &self.peer);
        let kept = Arc::new(Kept(Some(promise)));
        inside.into_iter().for_each(|waiter| waiter.when_left(Arc::clone(&kept)));
        Answer::Later(pending)
    }

    /// Requests translations that rings need: once each, and again after [`AGAIN`].
    pub(crate) fn ask_for_translations(&mut self) {
        let of_rings = self.missing_areas();
        let Some(translations) = &mut self.translations else { return };
        translations.look_for_misses();
        let mut wants: Vec<_> = translations.rings.iter().filter_map(|ring| ring.missing).collect();
        wants.extend(of_rings);
        // Write access includes read access.
        let written: Vec<_> =
            wants.iter().filter(|(_, access)| *access == Access::Write).map(|(page, _)| *page).collect();
        wants.retain(|(page, access)| *access == Access::Write || !written.contains(page));
        wants.retain(|want| translations.iotlb.is_missing(*want));
        // Prefetches are not requested again before they are needed, as long as there is room to remember
        // them.
        let room = translations.asked.len() < MOST_ASKED;
        let answerable = self.channel.is_some();
        translations
            .asked
            .retain(|(want, at)| (room || wants.contains(want)) && (!answerable || at.elapsed() < AGAIN));
        let Some(channel) = &mut self.channel else {
            if !wants.is_empty() && translations.asked.is_empty() {
                tell!(
                    self.peer,
                    warn,
                    "rings wait for translations, and the frontend has given no channel to ask for them (SET_BACKEND_REQ_FD)"
                );
                // Remembered, so that the same warning is not logged again.
                translations.asked.extend(wants.into_iter().map(|want| (want, Instant::now())));
            }
            return;
        };
        if let Err(error) = translations.ask(&wants, channel) {
            tell!(self.peer, warn, %error, "the frontend cannot be asked for translations any more");
            self.channel = None;
        }
    }

    /// Whether no request is partially sent.
    pub(crate) fn channel_is_idle(&mut self) -> bool {
        self.channel.as_mut().is_none_or(|channel| channel.flush().is_ok_and(|idle| idle))
    }

    /// Releases the channel without shutting it down: it belongs to a successor or a predecessor.
    pub(crate) fn leave_channel(&mut self) {
        drop(self.channel.take().map(Connection::into_socket));
    }

    /// The time at which translations must be requested again.
    pub(crate) fn next_question(&self) -> Option<Instant> {
        let (translations, channel) = (self.translations.as_ref()?, self.channel.as_ref()?);
        let again = translations.asked.iter().map(|(_, at)| *at + AGAIN).min();
        let unread = channel.wants_write().then(|| Instant::now() + READ_INTERVAL);
        again.into_iter().chain(unread).min()
    }

    /// The missing pages in the areas of rings that are otherwise ready.
    fn missing_areas(&self) -> Vec<Want> {
        let Some(translations) = &self.translations else { return Vec::new() };
        let layout = layout_of(self.features.unwrap_or_default());
        let mut wants = Vec::new();
        for vring in self.vrings.iter().filter(|vring| vring.waits.is_some()) {
            let (Some(addr), Some(size)) = (&vring.addr, vring.size) else { continue };
            for (start, len, access) in areas(addr, layout, size) {
                if let Area::Missing(want) = translations.area(start, len as u64, access) {
                    wants.push(want);
                }
            }
        }
        wants
    }
}

impl Translations {
    /// Requests the needed translations and then prefetches, until the frontend must read first.
    fn ask(&mut self, needed: &[Want], channel: &mut Connection) -> Result<(), linecard_wire::Error> {
        for want in needed {
            if !self.ask_for(*want, channel)? {
                return Ok(());
            }
        }
        for index in 0..self.rings.len() {
            while let Some(want) = self.rings.get_mut(index).and_then(|ring| ring.prefetches.pop_front()) {
                if self.iotlb.is_missing(want) && !self.ask_for(want, channel)? {
                    self.rings.get_mut(index).into_iter().for_each(|ring| ring.prefetches.push_front(want));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Requests a translation, unless it is already requested. Returns false if the frontend must read first.
    fn ask_for(&mut self, want: Want, channel: &mut Connection) -> Result<bool, linecard_wire::Error> {
        if self.asked.iter().any(|(asked, _)| *asked == want) {
            return Ok(true);
        }
        if !channel.flush()? {
            return Ok(false);
        }
        self.asked.push((want, Instant::now()));
        let (iova, access) = want;
        let access = match access {
            Access::Read => IotlbMessage::READ,
            Access::Write => IotlbMessage::READ | IotlbMessage::WRITE,
        };
        let miss = IotlbMessage { iova, size: 0, user_addr: 0, access, kind: IotlbMessage::MISS };
        channel.send(&OutMessage::backend_request(BackendReq::IOTLB_MSG, &miss.to_bytes()))?;
        Ok(true)
    }
}

/// The addresses of a message, from the first to the last. An empty or overflowing range extends to the last
/// address: removing too much costs requests, removing too little is wrong.
fn range_of(told: &IotlbMessage) -> (u64, u64) {
    let last = told.size.checked_sub(1).and_then(|ahead| told.iova.checked_add(ahead));
    (told.iova, last.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
