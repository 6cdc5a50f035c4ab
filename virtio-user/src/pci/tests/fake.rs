//! The registers of a device that a test holds in its hands.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linecard_virtio::Features;

use crate::backend::Notify;
use crate::pci::bus::{Bus, Interrupts, Ranges};
use crate::pci::capability::tests::{bars, space, usual};
use crate::pci::capability::{BARS, Bar, CONFIG};

/// Where its structures are, in BAR 4.
const COMMON: u64 = 0;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;

/// A queue as its registers have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) max: u16,
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: u16,
    pub(super) notify_off: u16,
    pub(super) addrs: [u8; 24],
}

/// What the device is, and what has been done to it.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) offered: Features,
    pub(super) accepted: u64,
    pub(super) status: u8,
    pub(super) config: [u8; 24],
    pub(super) generation: u8,
    pub(super) queues: Vec<Queue>,
    pub(super) isr: u8,
    /// Statuses that were set, and what happened on the bus.
    pub(super) done: Vec<String>,
    pub(super) mapped: Vec<(u64, u64)>,
    pub(super) events: Vec<OwnedFd>,
    /// Signalled when it is to be taken away.
    pub(super) removal: Option<OwnedFd>,
    pub(super) notified: Vec<(u64, u16)>,
    /// Reads of the configuration during which it changes.
    pub(super) changes: u32,
    /// Features that it does not take, whatever it offers.
    pub(super) refuses: bool,
    /// It does not come back from a reset.
    pub(super) stuck: bool,
    /// It has no vector for any queue.
    pub(super) no_vectors: bool,
    /// It is not there any more.
    pub(super) gone: bool,
    selected: [u32; 2],
    queue: u16,
    config_vector: u16,
}

impl Machine {
    fn queue(&mut self) -> Option<&mut Queue> {
        let queue = usize::from(self.queue);
        self.queues.get_mut(queue)
    }

    fn read_common(&mut self, at: u64) -> u64 {
        let queue = self.queue().cloned().unwrap_or_default();
        match at {
            4 => self.offered.bits() >> (32 * self.selected[0]) & 0xffff_ffff,
            16 => self.config_vector.into(),
            20 => self.status.into(),
            21 => self.generation.into(),
            24 => queue.size.into(),
            26 => queue.vector.into(),
            30 => queue.notify_off.into(),
            _ => panic!("read of {at}"),
        }
    }

    fn write_common(&mut self, at: u64, bytes: &[u8]) {
        let value = bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        match at {
            0 => self.selected[0] = value as u32,
            8 => self.selected[1] = value as u32,
            12 => {
                let shift = 32 * self.selected[1];
                self.accepted = self.accepted & !(0xffff_ffff << shift) | value << shift;
            }
            16 => self.config_vector = value as u16,
            20 => self.set_status(value as u8),
            22 => self.queue = value as u16,
            _ => {
                let no_vectors = self.no_vectors;
                let queue = self.queue().expect("a queue was selected that there is");
                match at {
                    24 => queue.size = value as u16,
                    26 => queue.vector = if no_vectors { 0xffff } else { value as u16 },
                    28 => queue.enabled = value as u16,
                    32..56 => queue.addrs[at as usize - 32..][..bytes.len()].copy_from_slice(bytes),
                    _ => panic!("write of {value:#x} to {at}"),
                }
            }
        }
    }

    fn set_status(&mut self, status: u8) {
        self.done.push(format!("status {status}"));
        if status == 0 {
            self.queues.iter_mut().for_each(|queue| {
                *queue = Queue {
                    max: queue.max,
                    size: queue.max,
                    vector: 0xffff,
                    notify_off: queue.notify_off,
                    ..Queue::default()
                };
            });
        }
        let refused = self.refuses && status & 8 != 0;
        self.status = match (status, self.stuck) {
            (0, true) => self.status,
            _ if refused => status & !8,
            _ => status,
        };
    }
}

/// The device behind the bus; a clone is the same device.
#[derive(Clone, Debug)]
pub(super) struct Fake {
    machine: Arc<Mutex<Machine>>,
    bars: Arc<[Bar; BARS]>,
    ranges: Ranges,
    pub(super) interrupts: Interrupts,
}

impl Fake {
    /// A device with so many queues and these features, and what it takes to be used at all.
    pub(super) fn new(queues: usize, features: Features) -> Self {
        let queue =
            |index: u16| Queue { max: 256, size: 256, vector: 0xffff, notify_off: index, ..Queue::default() };
        let mut config = [0; 24];
        config[..12].copy_from_slice(&[2, 0, 0, 0, 0, 5, 1, 0, 1, 0, 0xdc, 5]);
        let machine = Machine {
            offered: features | Features::VERSION_1 | Features::ACCESS_PLATFORM,
            accepted: 0,
            // Of who had it before.
            status: 7,
            config,
            generation: 0,
            queues: (0..queues).map(|index| queue(index as u16)).collect(),
            isr: 0,
            done: Vec::new(),
            mapped: Vec::new(),
            events: Vec::new(),
            removal: None,
            notified: Vec::new(),
            changes: 0,
            refuses: false,
            stuck: false,
            no_vectors: false,
            gone: false,
            selected: [0; 2],
            queue: 0,
            config_vector: 0xffff,
        };
        let ranges = vec![(0, 0xfedf_ffff), (0xfef0_0000, u64::MAX)];
        Self {
            machine: Arc::new(Mutex::new(machine)),
            bars: Arc::new(bars()),
            ranges,
            interrupts: Interrupts::Absent,
        }
    }

    pub(super) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same device with other addresses.
    pub(super) fn with_ranges(self, ranges: Ranges) -> Self {
        Self { ranges, ..self }
    }
}

impl Bus for Fake {
    fn config_space(&self) -> io::Result<[u8; CONFIG]> {
        Ok(space(&usual()))
    }

    fn bars(&self) -> &[Bar; BARS] {
        &self.bars
    }

    fn read(&self, bar: u8, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        assert_eq!(bar, 4);
        let mut machine = self.machine();
        if machine.gone {
            bytes.fill(0xff);
            return Ok(());
        }
        match offset {
            COMMON..ISR => {
                let value = machine.read_common(offset).to_le_bytes();
                bytes.copy_from_slice(&value[..bytes.len()]);
            }
            ISR => bytes[0] = std::mem::take(&mut machine.isr),
            DEVICE..NOTIFY => {
                let at = (offset - DEVICE) as usize;
                bytes.copy_from_slice(&machine.config[at..][..bytes.len()]);
                if machine.changes > 0 {
                    machine.changes -= 1;
                    machine.generation = machine.generation.wrapping_add(1);
                    machine.config[10] ^= 0x0f;
                }
            }
            _ => panic!("read of {offset:#x}"),
        }
        Ok(())
    }

    fn write(&self, bar: u8, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(bar == 4 && offset < ISR, "write to {offset:#x}");
        self.machine().write_common(offset, bytes);
        Ok(())
    }

    fn set_master(&self, on: bool) -> io::Result<()> {
        self.machine().done.push(format!("master {on}"));
        Ok(())
    }

    fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    fn most_mappings(&self) -> usize {
        100
    }

    fn map(&self, addr: u64, len: u64) -> io::Result<()> {
        self.machine().mapped.push((addr, len));
        Ok(())
    }

    fn unmap(&self, addr: u64, len: u64) -> io::Result<()> {
        let mut machine = self.machine();
        let place = machine.mapped.iter().position(|mapped| *mapped == (addr, len)).expect("it was mapped");
        machine.mapped.remove(place);
        Ok(())
    }

    fn notifier(&self, bar: u8, offset: u64, queue: u16) -> io::Result<Arc<dyn Notify>> {
        assert_eq!(bar, 4);
        Ok(Arc::new(Word { fake: self.clone(), offset, queue }))
    }

    fn interrupts(&self) -> Interrupts {
        self.interrupts
    }

    fn set_interrupts(&self, events: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.machine().events =
            events.iter().map(|fd| fd.as_fd().try_clone_to_owned().expect("room")).collect();
        Ok(())
    }

    fn set_removal(&self, event: BorrowedFd<'_>) -> io::Result<()> {
        self.machine().removal = Some(event.try_clone_to_owned()?);
        Ok(())
    }

    fn unmask_line(&self) -> io::Result<()> {
        self.machine().done.push("unmask".into());
        Ok(())
    }
}

#[derive(Debug)]
struct Word {
    fake: Fake,
    offset: u64,
    queue: u16,
}

impl Notify for Word {
    fn notify(&self) {
        self.fake.machine().notified.push((self.offset, self.queue));
    }
}
