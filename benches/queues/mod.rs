//! Shared parts of both ring benchmarks: a ring in one mapping, and a burst that goes through it and back.

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use linecard::eal::shared::SharedBytes;
use linecard::virtio::{
    Access, Buffer, Chain, Completion, DeviceConfig, DeviceMemory, DeviceQueue, DriverConfig, DriverQueue,
    Error, Layout, RingMemory, Translation,
};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Buffers per burst, and descriptors per ring.
pub(crate) const BURST: usize = 32;
pub(crate) const SIZE: u16 = 256;

const BYTES: usize = 1 << 20;
const BUFFERS: u64 = 1 << 16;

/// One mapping with the ring at its start, as rust-vmm's and our code access it.
pub(crate) fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), BYTES)]).expect("anonymous memory")
}

/// The address of the mapping in this process: one region that starts at guest address 0.
#[derive(Clone, Copy)]
pub(crate) struct Place(NonNull<u8>);

impl Place {
    /// Returns the place of `guest`, which must outlive every use of it.
    pub(crate) fn new(guest: &GuestMemoryMmap) -> Self {
        let start = guest.get_host_address(GuestAddress(0)).expect("the first byte");
        Self(NonNull::new(start).expect("a mapping"))
    }

    fn ring(self, layout: Layout) -> RingMemory {
        // SAFETY: the benchmarks keep the guest until their loops are dropped.
        let zone = unsafe { SharedBytes::new(self.0, BYTES) };
        zone.fill(0);
        RingMemory::in_zone(zone, layout, SIZE).expect("large enough")
    }
}

// SAFETY: ranges are checked against the only region, which the benchmarks keep.
unsafe impl DeviceMemory for Place {
    #[inline(always)]
    fn translate(&self, addr: u64, len: u32, _: Access) -> Option<NonNull<u8>> {
        if addr > BYTES as u64 || u64::from(len) > BYTES as u64 - addr {
            return None;
        }
        // SAFETY: the comparison above keeps it within the region.
        Some(unsafe { self.0.add(addr as usize) })
    }

    fn translate_part(&self, addr: u64, len: u32, access: Access) -> Translation {
        self.translate(addr, len, access).map(|start| (start, len)).into()
    }
}

/// Driver and device of one ring, in one thread.
pub(crate) struct Loop<D, V> {
    driver: D,
    device: V,
    place: Place,
    buffers: [Buffer; BURST],
}

impl<D: DriverQueue, V: DeviceQueue> Loop<D, V> {
    /// Creates a loop with new queues.
    pub(crate) fn new(
        place: &Place,
        layout: Layout,
        driver: impl Fn(&RingMemory, DriverConfig) -> Result<D, Error>,
        device: impl Fn(&RingMemory, DeviceConfig) -> Result<V, Error>,
    ) -> Self {
        let ring = place.ring(layout);
        let driver = driver(&ring, DriverConfig::default().size(SIZE)).expect("valid");
        let device = device(&ring, DeviceConfig::default().size(SIZE)).expect("valid");
        let buffer = |k: usize| Buffer { addr: BUFFERS + 2240 * k as u64, len: 2048, token: k as u64 };
        Self { driver, device, place: *place, buffers: std::array::from_fn(buffer) }
    }

    /// The driver adds a burst.
    pub(crate) fn add(&mut self) {
        assert_eq!(self.driver.add_burst(self.buffers.iter().copied()), BURST);
        self.driver.publish();
    }

    /// The device takes the burst and completes it.
    pub(crate) fn serve(&mut self) {
        let mut chains = [const { MaybeUninit::<Chain>::uninit() }; BURST];
        assert_eq!(self.device.peek(&self.place, &mut chains), Ok(BURST));
        // SAFETY: `peek` initialized all of them.
        let chains = unsafe { chains.assume_init_ref() };
        self.device.complete_burst(std::hint::black_box(chains), |_| 60);
        self.device.publish();
    }

    /// The driver collects the completed burst.
    pub(crate) fn collect(&mut self) {
        let mut out = [const { MaybeUninit::<Completion>::uninit() }; BURST];
        assert_eq!(self.driver.complete(&mut out), Ok(BURST));
        std::hint::black_box(&out);
    }

    /// Moves one burst through the ring and back.
    pub(crate) fn turn(&mut self) {
        self.add();
        self.serve();
        self.collect();
    }
}
