//! The registers of a modern virtio device (virtio 1.3, Virtio Over PCI Bus: Common configuration structure
//! layout). Their content is not trusted: each value is checked where it is used.

use std::io;
use std::time::{Duration, Instant};

use super::bus::Bus;
use super::capability::{Place, Structures};
use crate::thread::after;
use linecard_virtio::{Features, RingAddrs};

/// Offsets in the common configuration.
const DEVICE_FEATURE_SELECT: u32 = 0;
const DEVICE_FEATURE: u32 = 4;
const DRIVER_FEATURE_SELECT: u32 = 8;
const DRIVER_FEATURE: u32 = 12;
const CONFIG_VECTOR: u32 = 16;
const DEVICE_STATUS: u32 = 20;
const CONFIG_GENERATION: u32 = 21;
const QUEUE_SELECT: u32 = 22;
const QUEUE_SIZE: u32 = 24;
const QUEUE_VECTOR: u32 = 26;
const QUEUE_ENABLE: u32 = 28;
const QUEUE_NOTIFY_OFF: u32 = 30;
const QUEUE_DESC: u32 = 32;
const QUEUE_DRIVER: u32 = 40;
const QUEUE_DEVICE: u32 = 48;

/// `VIRTIO_MSI_NO_VECTOR`.
pub(super) const NO_VECTOR: u16 = 0xffff;

/// The time that a device has for a reset, and for a configuration that stays unchanged while it is read.
const PATIENCE: Duration = Duration::from_millis(1000);
/// The interval between two checks of a device that is being reset.
const PAUSE: Duration = Duration::from_millis(1);

/// The settings of a ring for the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    pub(super) index: u16,
    pub(super) size: u16,
    pub(super) addrs: RingAddrs,
    pub(super) vector: u16,
}

/// The registers of a device on a bus.
#[derive(Debug)]
pub(super) struct Registers<B> {
    pub(super) bus: B,
    pub(super) structures: Structures,
}

impl<B: Bus> Registers<B> {
    fn read<const N: usize>(&self, at: u32) -> io::Result<[u8; N]> {
        let Place { bar, offset, .. } = self.structures.common;
        let mut bytes = [0; N];
        self.bus.read(bar, u64::from(offset).saturating_add(at.into()), &mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, at: u32, bytes: &[u8]) -> io::Result<()> {
        let Place { bar, offset, .. } = self.structures.common;
        self.bus.write(bar, u64::from(offset).saturating_add(at.into()), bytes)
    }

    fn read16(&self, at: u32) -> io::Result<u16> {
        self.read(at).map(u16::from_le_bytes)
    }

    fn write16(&self, at: u32, value: u16) -> io::Result<()> {
        self.write(at, &value.to_le_bytes())
    }

    fn write32(&self, at: u32, value: u32) -> io::Result<()> {
        self.write(at, &value.to_le_bytes())
    }

    /// Writes two halves, as the specification requires where one 64-bit write is not possible.
    fn write64(&self, at: u32, value: u64) -> io::Result<()> {
        self.write32(at, value as u32)?;
        self.write32(at.saturating_add(4), (value >> 32) as u32)
    }

    pub(super) fn features(&self) -> io::Result<Features> {
        let mut bits = 0;
        for half in [1, 0] {
            self.write32(DEVICE_FEATURE_SELECT, half)?;
            bits = bits << 32 | u64::from(self.read(DEVICE_FEATURE).map(u32::from_le_bytes)?);
        }
        Ok(Features::from_bits_retain(bits))
    }

    pub(super) fn set_features(&self, features: Features) -> io::Result<()> {
        for half in [0, 1] {
            self.write32(DRIVER_FEATURE_SELECT, half)?;
            self.write32(DRIVER_FEATURE, (features.bits() >> (32 * half)) as u32)?;
        }
        Ok(())
    }

    pub(super) fn status(&self) -> io::Result<u8> {
        self.read(DEVICE_STATUS).map(|[status]| status)
    }

    pub(super) fn set_status(&self, status: u8) -> io::Result<()> {
        self.write(DEVICE_STATUS, &[status])
    }

    /// Resets the device, and returns when it uses neither memory nor rings any more (virtio 1.3, Driver
    /// Requirements: Common configuration structure layout).
    pub(super) fn reset(&self) -> io::Result<()> {
        let until = after(PATIENCE);
        self.set_status(0)?;
        while self.status()? != 0 {
            if Instant::now() >= until {
                let problem = "the device was told to reset and does not say that it has";
                return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Fills `bytes` with a consistent copy of the device's own configuration; false if it ends before.
    pub(super) fn config(&self, offset: u32, bytes: &mut [u8]) -> io::Result<bool> {
        let Some(Place { bar, offset: start, len }) = self.structures.device else { return Ok(false) };
        let end = u64::from(offset).saturating_add(bytes.len() as u64);
        if end > u64::from(len) {
            return Ok(false);
        }
        let (at, until) = (u64::from(start).saturating_add(offset.into()), after(PATIENCE));
        loop {
            let [before]: [u8; 1] = self.read(CONFIG_GENERATION)?;
            self.bus.read(bar, at, bytes)?;
            let [now]: [u8; 1] = self.read(CONFIG_GENERATION)?;
            if before == now {
                return Ok(true);
            }
            if Instant::now() >= until {
                let problem = "the device's configuration does not stop changing";
                return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
            }
        }
    }

    /// Selects a queue. Returns its most descriptors; 0 if the queue does not exist.
    pub(super) fn max_size(&self, queue: u16) -> io::Result<u16> {
        self.write16(QUEUE_SELECT, queue)?;
        self.read16(QUEUE_SIZE)
    }

    /// Sets the addresses of a ring. Returns the ring's offset among the notifications, and the vector that
    /// the device accepted.
    pub(super) fn set_queue(&self, queue: Queue) -> io::Result<(u16, u16)> {
        self.write16(QUEUE_SELECT, queue.index)?;
        self.write16(QUEUE_SIZE, queue.size)?;
        self.write16(QUEUE_VECTOR, queue.vector)?;
        let vector = self.read16(QUEUE_VECTOR)?;
        self.write64(QUEUE_DESC, queue.addrs.desc)?;
        self.write64(QUEUE_DRIVER, queue.addrs.driver)?;
        self.write64(QUEUE_DEVICE, queue.addrs.device)?;
        Ok((self.read16(QUEUE_NOTIFY_OFF)?, vector))
    }

    pub(super) fn enable(&self, queue: u16) -> io::Result<()> {
        self.write16(QUEUE_SELECT, queue)?;
        self.write16(QUEUE_ENABLE, 1)
    }

    /// Sets the message vector for changes of the configuration. Returns the vector that the device accepted.
    pub(super) fn set_config_vector(&self, vector: u16) -> io::Result<u16> {
        self.write16(CONFIG_VECTOR, vector)?;
        self.read16(CONFIG_VECTOR)
    }

    /// Reads and clears the ISR status, which also deasserts the line; 0 without such a register.
    pub(super) fn take_line(&self) -> io::Result<u8> {
        let Some(place) = self.structures.isr else { return Ok(0) };
        let mut bytes = [0];
        self.bus.read(place.bar, place.offset.into(), &mut bytes)?;
        Ok(bytes[0])
    }
}
