//! Packets by size and by kind of address, under the names of DPDK's virtio driver.

use std::sync::{Mutex, PoisonError};

use linecard_mempool::Packet;

use super::Counter;

/// Names of the classes after `rx_q0_`, in DPDK's order.
const NAMES: [&str; CLASSES] = [
    "multicast_packets",
    "broadcast_packets",
    "undersize_packets",
    "size_64_packets",
    "size_65_127_packets",
    "size_128_255_packets",
    "size_256_511_packets",
    "size_512_1023_packets",
    "size_1024_1518_packets",
    "size_1519_max_packets",
];
const CLASSES: usize = 10;
/// The class of the smallest packets.
const UNDERSIZE: usize = 2;

/// The classes of a packet: one for its length, and one for its destination if it is multicast or broadcast.
///
/// ```
/// use linecard_pmd::stats::PacketClass;
/// let broadcast = PacketClass::of(64, &[0xff; 6]);
/// assert_eq!(broadcast.names().collect::<Vec<_>>(), ["broadcast_packets", "size_64_packets"]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketClass {
    size: u8,
    group: Option<u8>,
}

impl PacketClass {
    /// The classes of a frame of `len` bytes without FCS that begins with `front`.
    #[must_use]
    pub fn of(len: usize, front: &[u8]) -> Self {
        let size = match len {
            0..64 => UNDERSIZE,
            64 => UNDERSIZE + 1,
            // 65 to 127, …, 512 to 1023.
            65..1024 => UNDERSIZE + 2 + (len.ilog2() as usize - 6),
            1024..1519 => UNDERSIZE + 6,
            _ => UNDERSIZE + 7,
        };
        let group = match front {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ..] => Some(1),
            [first, ..] if first & 1 == 1 => Some(0),
            _ => None,
        };
        Self { size: size as u8, group }
    }

    /// The names of the classes in the extended statistics.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let places = self.group.into_iter().chain([self.size]);
        places.filter_map(|place| NAMES.get(usize::from(place)).copied())
    }
}

/// Numbers of packets per class, counted while this is requested. One thread counts, any thread reads.
///
/// ```
/// use linecard_pmd::stats::{ClassCounters, PacketClass};
/// let classes = ClassCounters::default();
/// classes.add(PacketClass::of(60, &[0; 6]));
/// assert_eq!(classes.xstats("rx_q0_")[2], ("rx_q0_undersize_packets".to_owned(), 1));
/// ```
#[derive(Debug, Default)]
pub struct ClassCounters {
    counters: [Counter; CLASSES],
    baseline: Mutex<[u64; CLASSES]>,
}

impl ClassCounters {
    /// Counts a packet of that class. For the queue's owner.
    pub fn add(&self, class: PacketClass) {
        let places = class.group.into_iter().chain([class.size]);
        places.filter_map(|place| self.counters.get(usize::from(place))).for_each(|counter| counter.add(1));
    }

    /// Counts these packets. For the queue's owner.
    #[inline(never)]
    pub fn count(&self, packets: &[Packet]) {
        packets.iter().for_each(|packet| self.add(PacketClass::of(packet.len(), packet.data())));
    }

    fn raw(&self) -> [u64; CLASSES] {
        std::array::from_fn(|place| self.counters[place].value())
    }

    /// The counts since the last reset, by name.
    #[must_use]
    pub fn xstats(&self, prefix: &str) -> Vec<(String, u64)> {
        let baseline = *self.baseline.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = self.raw().into_iter().zip(baseline).map(|(now, then)| now.wrapping_sub(then));
        NAMES.iter().zip(counted).map(|(name, count)| (format!("{prefix}{name}"), count)).collect()
    }

    /// Restarts all counts from zero.
    pub fn reset(&self) {
        *self.baseline.lock().unwrap_or_else(PoisonError::into_inner) = self.raw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dpdks() {
        for (lens, name) in [
            ([0, 63], "undersize_packets"),
            ([64, 64], "size_64_packets"),
            ([65, 127], "size_65_127_packets"),
            ([128, 255], "size_128_255_packets"),
            ([256, 511], "size_256_511_packets"),
            ([512, 1023], "size_512_1023_packets"),
            ([1024, 1518], "size_1024_1518_packets"),
            ([1519, 65_535], "size_1519_max_packets"),
        ] {
            for len in lens {
                assert_eq!(PacketClass::of(len, &[2; 6]).names().collect::<Vec<_>>(), [name], "{len}");
            }
        }
    }

    #[test]
    fn groups_are_counted_once() {
        let classes = ClassCounters::default();
        classes.add(PacketClass::of(64, &[0xff; 6]));
        classes.add(PacketClass::of(64, &[1, 0, 0x5e, 0, 0, 1]));
        classes.add(PacketClass::of(64, &[0xff; 5]));
        let counts = |classes: &ClassCounters| classes.xstats("").iter().map(|(_, n)| *n).collect::<Vec<_>>();
        assert_eq!(counts(&classes), [2, 1, 0, 3, 0, 0, 0, 0, 0, 0]);
        classes.reset();
        classes.add(PacketClass::of(1500, &[]));
        assert_eq!(counts(&classes), [0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    }
}
