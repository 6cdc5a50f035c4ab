//! The locations of a virtio device's registers, from the vendor capabilities in its configuration space
//! (virtio 1.3, Virtio Over PCI Bus: Virtio Structure PCI Capabilities).
//!
//! ```text
//!   configuration space, 256 bytes     BARs
//!   0x34 ─► capability ─► capability   ┌ BAR 4 ────────────────────────────────┐
//!            common ──────────────────►│ common · isr · device · notify        │
//!            notify, multiplier ──────►└───────────────────────────────────────┘
//! ```
//!
//! The content comes from the device and is not trusted. The space is read once, into private memory. The
//! list is followed for at most as many entries as fit. A structure outside of its BAR is ignored.

#[cfg(test)]
pub(super) mod tests;

use std::fmt;

/// The bytes of the configuration space that hold capabilities (PCI Local Bus 3.0; the extended space of PCI
/// Express holds others).
pub(super) const CONFIG: usize = 256;
/// The number of base address registers.
pub(super) const BARS: usize = 6;

/// Offsets in the configuration space.
const STATUS: usize = 0x06;
const FIRST: usize = 0x34;
/// The first offset at which entries may begin.
const HEADER: usize = 0x40;
/// Bit of the status register: the list exists.
const HAS_LIST: u16 = 1 << 4;
/// `PCI_CAP_ID_VNDR`.
const VENDOR: u8 = 0x09;

/// `cfg_type` of the structures in use.
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const ISR: u8 = 3;
const DEVICE: u8 = 4;

/// The bytes of a capability, and of the notification capability, which has a multiplier.
const BYTES: usize = 16;
const NOTIFY_BYTES: usize = 20;
/// The bytes of `struct virtio_pci_common_cfg` up to `queue_device`, its last field without further features.
pub(super) const COMMON_BYTES: u32 = 56;

/// A base address register, as VFIO reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bar {
    /// Its bytes; 0 if it does not exist.
    pub(super) len: u64,
    /// Its mappable parts, each with offset and length.
    pub(super) mappable: Vec<(u64, u64)>,
}

/// The location of a structure within its BAR.
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

/// The location of the notification registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotifyPlace {
    place: Place,
    multiplier: u32,
}

impl NotifyPlace {
    /// Returns the BAR and the offset of a queue's register; `None` if it is outside of the structure, or at
    /// an odd offset.
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
    /// The device-specific configuration, if any.
    pub(super) device: Option<Place>,
}

/// The reason why a configuration space is not that of a modern virtio device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The list contains a loop.
    Loop,
    /// A structure is missing or, with the reason, none of its kind is usable.
    Missing(&'static str, Option<Unusable>),
    /// The notification registers overlap another structure.
    Overlap,
}

/// The reason why a capability is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It is too short, or exceeds the configuration space.
    Cut,
    /// Its structure is not within a BAR.
    Outside { bar: u8, offset: u32, len: u32 },
    /// Its structure is not aligned.
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

/// The entries of one kind: the first usable one, or the reason why the first is not usable.
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

/// Returns the structures in a configuration space. If there are several of a kind, the first usable one
/// counts, as the specification requires.
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
            // Kinds of later versions are skipped.
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

/// Returns the offsets of the vendor capabilities.
fn entries(config: &[u8; CONFIG]) -> Result<Vec<usize>, Problem> {
    /// The most entries, since each begins at a multiple of four.
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

/// Bytes beyond the end read as zero.
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

/// Returns the structure of the capability at `entry`, which must have at least `bytes` bytes.
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

/// Requires all pages of the structure to be mappable, since notifications are written through a mapping.
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

/// Returns the first and the last offset of the pages that hold a structure.
fn pages(place: Place, page: u64) -> Option<(u64, u64)> {
    let first = u64::from(place.offset).checked_div(page)?.checked_mul(page)?;
    Some((first, place.end().checked_next_multiple_of(page)?))
}
