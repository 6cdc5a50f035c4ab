//! Where a virtio device has its registers: the vendor capabilities of its configuration space (virtio 1.3, Virtio Over PCI Bus:
//! Virtio Structure PCI Capabilities).
//!
//! ```text
//!   configuration space, 256 bytes     BARs
//!   0x34 ─► capability ─► capability   ┌ BAR 4 ────────────────────────────────┐
//!            common ──────────────────►│ common · isr · device · notify        │
//!            notify, multiplier ──────►└───────────────────────────────────────┘
//! ```
//!
//! Everything here comes from the device, which is not trusted: the space is read once, into memory of ours; the list is followed
//! no further than it has room for entries; and what is found lies inside of a BAR, or is not found.

#[cfg(test)]
pub(super) mod tests;

use std::fmt;

/// Bytes of the configuration space that capabilities lie in (PCI Local Bus 3.0; PCI Express has more, for others).
pub(super) const CONFIG: usize = 256;
/// Base address registers.
pub(super) const BARS: usize = 6;

/// Offsets in the configuration space.
const STATUS: usize = 0x06;
const FIRST: usize = 0x34;
/// Where entries may begin.
const HEADER: usize = 0x40;
/// Bit of the status register: there is a list.
const HAS_LIST: u16 = 1 << 4;
/// `PCI_CAP_ID_VNDR`.
const VENDOR: u8 = 0x09;

/// `cfg_type` of the structures that are used.
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const ISR: u8 = 3;
const DEVICE: u8 = 4;

/// Bytes of a capability, and of that of the notifications, which has a multiplier.
const BYTES: usize = 16;
const NOTIFY_BYTES: usize = 20;
/// Bytes of `struct virtio_pci_common_cfg` up to `queue_device`, its last field without further features.
pub(super) const COMMON_BYTES: u32 = 56;

/// What VFIO says of a base address register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bar {
    /// Its bytes; 0 where there is none.
    pub(super) len: u64,
    /// Parts of it that can be mapped: where each begins, and its bytes.
    pub(super) mappable: Vec<(u64, u64)>,
}

/// Where a structure is; inside of its BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bar: u8,
    pub(super) offset: u32,
    pub(super) len: u32,
}

impl Place {
    fn end(self) -> u64 {
        u64::from(self.offset).saturating_add(u64::from(self.len))
    }

    fn overlaps(self, other: Self) -> bool {
        let before = |a: Self, b: Self| a.end() <= u64::from(b.offset);
        self.bar == other.bar && !before(self, other) && !before(other, self)
    }
}

/// Where notifications are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotifyPlace {
    place: Place,
    multiplier: u32,
}

impl NotifyPlace {
    /// The BAR, and the offset in it, of the word that tells of a queue; `None` when it would be outside, or at an odd address.
    pub(super) fn of_queue(self, queue_notify_off: u16) -> Option<(u8, u64)> {
        let Self { place, multiplier } = self;
        let within = u64::from(queue_notify_off).checked_mul(multiplier.into())?;
        let at = u64::from(place.offset).checked_add(within)?;
        (at.checked_add(2)? <= place.end() && at.is_multiple_of(2)).then_some((place.bar, at))
    }
}

/// The structures of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Structures {
    pub(super) common: Place,
    pub(super) notify: NotifyPlace,
    /// For interrupts without messages.
    pub(super) isr: Option<Place>,
    /// The configuration of this kind of device, where it has one.
    pub(super) device: Option<Place>,
}

/// Why a configuration space is not that of a modern virtio device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The list comes back to where it was.
    Loop,
    /// A structure is missing, or (with the reason) there is none that can be used.
    Missing(&'static str, Option<Unusable>),
    /// Notifications would be written into another structure.
    Overlap,
}

/// Why a capability is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It is too short, or goes beyond the space.
    Cut,
    /// Its structure is not within a BAR.
    Outside { bar: u8, offset: u32, len: u32 },
    /// Its structure is at an address that it may not have.
    Unaligned { offset: u32 },
    /// Its structure is too short.
    Short { len: u32 },
    /// Its BAR cannot be mapped there.
    Unmappable { bar: u8 },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("its capability is cut off"),
            Self::Outside { bar, offset, len } => {
                write!(f, "{len} bytes at {offset:#x} are not within BAR {bar}")
            }
            Self::Unaligned { offset } => write!(f, "{offset:#x} is not aligned"),
            Self::Short { len } => write!(f, "{len} bytes are too few"),
            Self::Unmappable { bar } => write!(f, "BAR {bar} cannot be mapped there"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loop => f.write_str("its list of capabilities never ends"),
            Self::Missing(what, None) => write!(f, "it has no {what} of a modern virtio device"),
            Self::Missing(what, Some(why)) => write!(f, "its {what} cannot be used: {why}"),
            Self::Overlap => f.write_str("its notifications overlap another structure"),
        }
    }
}

/// Entries of one kind: the first that can be used, and else why the first cannot.
#[derive(Clone, Copy, Debug)]
struct Choice<T> {
    usable: Option<T>,
    why: Option<Unusable>,
}

impl<T: Copy> Choice<T> {
    const NONE: Self = Self { usable: None, why: None };

    fn offer(&mut self, found: Result<T, Unusable>) {
        match found {
            Ok(found) => self.usable = self.usable.or(Some(found)),
            Err(why) => self.why = self.why.or(Some(why)),
        }
    }

    fn need(self, what: &'static str) -> Result<T, Problem> {
        self.usable.ok_or(Problem::Missing(what, self.why))
    }
}

/// The structures that a configuration space tells of. Of several of one kind the first that can be used counts, as the
/// specification wants it.
pub(super) fn structures(
    config: &[u8; CONFIG],
    bars: &[Bar; BARS],
    page: u64,
) -> Result<Structures, Problem> {
    let (mut common, mut isr, mut device) = (Choice::NONE, Choice::NONE, Choice::NONE);
    let mut notify = Choice::NONE;
    for entry in entries(config)? {
        match byte(config, entry.saturating_add(3)) {
            COMMON => common.offer(place(config, bars, entry, BYTES).and_then(whole_common)),
            NOTIFY => notify.offer(notify_place(config, bars, entry, page)),
            ISR => isr.offer(place(config, bars, entry, BYTES)),
            DEVICE => device.offer(place(config, bars, entry, BYTES).and_then(|at| aligned(at, 4))),
            // What later versions have is passed over.
            _ => {}
        }
    }
    let (common, notify) = (common.need("common configuration")?, notify.need("notification structure")?);
    let (isr, device) = (isr.usable, device.usable);
    let others = [Some(common), isr, device];
    if others.into_iter().flatten().any(|other| other.overlaps(notify.place)) {
        return Err(Problem::Overlap);
    }
    Ok(Structures { common, notify, isr, device })
}

/// Where the vendor's capabilities begin.
fn entries(config: &[u8; CONFIG]) -> Result<Vec<usize>, Problem> {
    /// Entries are at multiples of four, so that there are no more than this.
    const MOST: usize = (CONFIG - HEADER) / 4;
    let (mut found, mut seen) = (Vec::new(), 0);
    if u16::from_le_bytes([byte(config, STATUS), byte(config, STATUS + 1)]) & HAS_LIST == 0 {
        return Ok(found);
    }
    let mut at = pointer(config, FIRST);
    while at >= HEADER {
        seen += 1;
        if seen > MOST {
            return Err(Problem::Loop);
        }
        if byte(config, at) == VENDOR {
            found.push(at);
        }
        at = pointer(config, at.saturating_add(1));
    }
    Ok(found)
}

/// What lies behind the end reads as zero.
fn byte(config: &[u8; CONFIG], at: usize) -> u8 {
    config.get(at).copied().unwrap_or(0)
}

/// The lowest two bits of a pointer are reserved.
fn pointer(config: &[u8; CONFIG], at: usize) -> usize {
    usize::from(byte(config, at) & !3)
}

fn word(config: &[u8; CONFIG], at: usize) -> u32 {
    let at = |more: usize| byte(config, at.saturating_add(more));
    u32::from_le_bytes([at(0), at(1), at(2), at(3)])
}

/// The structure that the capability at `entry`, of `bytes` at least, tells of.
fn place(config: &[u8; CONFIG], bars: &[Bar; BARS], entry: usize, bytes: usize) -> Result<Place, Unusable> {
    let said = usize::from(byte(config, entry.saturating_add(2)));
    if said < bytes || entry.saturating_add(said) > CONFIG {
        return Err(Unusable::Cut);
    }
    let (bar, offset, len) = (byte(config, entry + 4), word(config, entry + 8), word(config, entry + 12));
    let place = Place { bar, offset, len };
    match bars.get(usize::from(bar)) {
        Some(bar) if len > 0 && place.end() <= bar.len => Ok(place),
        _ => Err(Unusable::Outside { bar, offset, len }),
    }
}

fn aligned(place: Place, to: u32) -> Result<Place, Unusable> {
    if place.offset.is_multiple_of(to) {
        Ok(place)
    } else {
        Err(Unusable::Unaligned { offset: place.offset })
    }
}

fn whole_common(place: Place) -> Result<Place, Unusable> {
    if place.len < COMMON_BYTES { Err(Unusable::Short { len: place.len }) } else { aligned(place, 4) }
}

/// Notifications are written through a mapping: all pages of the structure can be mapped.
fn notify_place(
    config: &[u8; CONFIG],
    bars: &[Bar; BARS],
    entry: usize,
    page: u64,
) -> Result<NotifyPlace, Unusable> {
    let place = place(config, bars, entry, NOTIFY_BYTES).and_then(|place| aligned(place, 2))?;
    let (first, last) = pages(place, page).ok_or(Unusable::Unmappable { bar: place.bar })?;
    let within = |&(start, len): &(u64, u64)| start <= first && last <= start.saturating_add(len);
    let bar = bars.get(usize::from(place.bar));
    if !bar.is_some_and(|bar| bar.mappable.iter().any(within)) {
        return Err(Unusable::Unmappable { bar: place.bar });
    }
    Ok(NotifyPlace { place, multiplier: word(config, entry + 16) })
}

/// The pages that a structure lies in.
fn pages(place: Place, page: u64) -> Option<(u64, u64)> {
    let first = u64::from(place.offset).checked_div(page)?.checked_mul(page)?;
    Some((first, place.end().checked_next_multiple_of(page)?))
}
