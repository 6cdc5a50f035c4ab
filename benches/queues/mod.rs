//! What both ring benches share: a ring in one mapping, and a burst that goes over and back.

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

/// One mapping, with the ring at its start, as rust-vmm and as we see it.
pub(crate) fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), BYTES)]).expect("anonymous memory")
}

/// Where the mapping is here. One region that starts at address 0.
#[derive(Clone, Copy)]
pub(crate) struct Place(NonNull<u8>);

impl Place {
    /// The place of `guest`, which must outlive every use of it.
    pub(crate) fn new(guest: &GuestMemoryMmap) -> Self {
        let start = guest.get_host_address(GuestAddress(0)).expect("the first byte");
        Self(NonNull::new(start).expect("a mapping"))
    }

    fn ring(self, layout: Layout) -> RingMemory {
        // SAFETY: the benches keep the guest until their loops are gone.
        let zone = unsafe { SharedBytes::new(self.0, BYTES) };
        zone.fill(0);
        RingMemory::in_zone(zone, layout, SIZE).expect("large enough")
    }
}

// SAFETY: the range is checked against the one region, which the benches keep.
unsafe impl DeviceMemory for Place {
    #[inline(always)]
    fn translate(&self, addr: u64, len: u32, _: Access) -> Option<NonNull<u8>> {
        if addr > BYTES as u64 || u64::from(len) > BYTES as u64 - addr {
            return None;
        }
        // SAFETY: just compared.
        Some(unsafe { self.0.add(addr as usize) })
    }

    fn translate_part(&self, addr: u64, len: u32, access: Access) -> Translation {
        self.translate(addr, len, access).map(|start| (start, len)).into()
    }
}

/// Both halves of one ring in one thread.
pub(crate) struct Loop<D, V> {
    driver: D,
    device: V,
    place: Place,
    buffers: [Buffer; BURST],
}

impl<D: DriverQueue, V: DeviceQueue> Loop<D, V> {
    /// A loop over fresh queues.
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

    /// The driver lends a burst.
    pub(crate) fn add(&mut self) {
        assert_eq!(self.driver.add_burst(self.buffers.iter().copied()), BURST);
        self.driver.publish();
    }

    /// The device takes the burst and gives it back.
    pub(crate) fn serve(&mut self) {
        let mut chains = [const { MaybeUninit::<Chain>::uninit() }; BURST];
        assert_eq!(self.device.peek(&self.place, &mut chains), Ok(BURST));
        // SAFETY: `peek` initialised all of them.
        let chains = unsafe { chains.assume_init_ref() };
        self.device.complete_burst(std::hint::black_box(chains), |_| 60);
        self.device.publish();
    }

    /// The driver collects the burst.
    pub(crate) fn collect(&mut self) {
        let mut out = [const { MaybeUninit::<Completion>::uninit() }; BURST];
        assert_eq!(self.driver.complete(&mut out), Ok(BURST));
        std::hint::black_box(&out);
    }

    /// Over and back.
    pub(crate) fn turn(&mut self) {
        self.add();
        self.serve();
        self.collect();
    }
}
