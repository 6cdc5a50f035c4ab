//! The identity of a ring of a network device.

use std::fmt;

/// The purpose of a ring (virtio 1.3, Network Device: Virtqueues).
///
/// ```
/// use linecard_virtio_user::backend::Role;
/// assert!(Role::Receive < Role::Transmit && Role::Transmit < Role::Control);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Buffers that the device fills: packets for the driver.
    Receive,
    /// Buffers that the device reads: packets from the driver.
    Transmit,
    /// Commands to the device. A device has at most one such ring.
    Control,
}

/// One ring of a device: its role, and its number among the rings of that role.
///
/// ```
/// use linecard_virtio_user::backend::RingId;
/// assert_eq!(RingId::receive(2).index(128), 4);
/// assert_eq!(RingId::transmit(127).index(128), 255);
/// assert_eq!(RingId::CONTROL.index(128), 256);
/// assert_eq!(RingId::transmit(3).to_string(), "transmit queue 3");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RingId {
    role: Role,
    queue: u16,
}

impl RingId {
    /// The control ring.
    pub const CONTROL: Self = Self { role: Role::Control, queue: 0 };

    /// The receive ring of a queue.
    #[must_use]
    pub const fn receive(queue: u16) -> Self {
        Self { role: Role::Receive, queue }
    }

    /// The transmit ring of a queue.
    #[must_use]
    pub const fn transmit(queue: u16) -> Self {
        Self { role: Role::Transmit, queue }
    }

    /// Returns the purpose of the ring.
    #[must_use]
    pub const fn role(self) -> Role {
        self.role
    }

    /// Returns its number among the rings of its role.
    #[must_use]
    pub const fn queue(self) -> u16 {
        self.queue
    }

    /// Returns its number among all rings of a device with `pairs` queue pairs: receive 0, transmit 0,
    /// receive 1, …, and the control ring after the device's last pair, whether that is in use or not.
    #[must_use]
    pub const fn index(self, pairs: u16) -> u32 {
        match self.role {
            Role::Receive => self.queue as u32 * 2,
            Role::Transmit => self.queue as u32 * 2 + 1,
            Role::Control => pairs as u32 * 2,
        }
    }
}

impl fmt::Display for RingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Role::Receive => write!(f, "receive queue {}", self.queue),
            Role::Transmit => write!(f, "transmit queue {}", self.queue),
            Role::Control => f.write_str("the control queue"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 128 pairs and a control ring: 257 different numbers, which no byte holds.
    #[test]
    fn every_ring_has_a_number_of_its_own() {
        const PAIRS: u16 = 128;
        let pairs = (0..PAIRS).flat_map(|queue| [RingId::receive(queue), RingId::transmit(queue)]);
        let indexes: Vec<u32> = pairs.chain([RingId::CONTROL]).map(|ring| ring.index(PAIRS)).collect();
        assert_eq!(indexes, (0..=256).collect::<Vec<u32>>());
        assert_eq!(RingId::transmit(u16::MAX).index(u16::MAX), 131_071, "it does not wrap");
    }
}
