//! Helpers for the differential tests of both directions: a ring, its pools, and the device half of the ring.

use std::ptr::NonNull;
use std::sync::Arc;

use linecard_eal::memory::Domain;
use linecard_eal::shared::SharedBytes;
use linecard_eal::{Memory, MemoryConfig};
use linecard_mempool::{Pool, PoolConfig};
use linecard_virtio::{
    Access, DeviceConfig, DeviceMemory, DeviceQueue, Features, Head, Lookahead, RingMemory, SegList,
    Translation, packed, split,
};

use crate::backend::RingSetup;
use crate::rings::RingZone;

pub(crate) fn domain(label: &str) -> Arc<Domain> {
    let config = MemoryConfig::default().range(1 << 30);
    Memory::new(config).expect("memory").domain(label).expect("a domain")
}

pub(crate) fn pool(domain: &Arc<Domain>, packets: u32) -> Pool {
    let config = PoolConfig::default().packets(packets).data_room(256);
    Pool::new(domain, config).expect("a pool")
}

/// All memory of this process, shared with unchanged addresses.
struct Here;

// SAFETY: the queues under test hand out only their own buffers and tables, which outlive the device half.
unsafe impl DeviceMemory for Here {
    fn translate(&self, addr: u64, _: u32, _: Access) -> Option<NonNull<u8>> {
        NonNull::new(addr as *mut u8)
    }

    fn translate_part(&self, addr: u64, len: u32, access: Access) -> Translation {
        self.translate(addr, len, access).filter(|_| len > 0).map(|start| (start, len)).into()
    }
}

/// The device side of a ring.
pub(crate) trait Device {
    /// Returns the next chain after `ahead`, if any.
    fn look(&mut self, ahead: Lookahead) -> Option<(Head, SegList)>;
    /// Takes the chains up to `ahead`, and completes each of `heads` with its number of bytes, in that order.
    fn give(&mut self, ahead: Lookahead, heads: &[(Head, u32)]);
}

impl<Q: DeviceQueue> Device for Q {
    fn look(&mut self, ahead: Lookahead) -> Option<(Head, SegList)> {
        let mut list = SegList::new();
        let head = self.peek_chain(&Here, ahead, &mut list).expect("an honest driver")?;
        Some((head, list))
    }

    fn give(&mut self, ahead: Lookahead, heads: &[(Head, u32)]) {
        self.take(ahead);
        heads.iter().for_each(|(head, len)| self.complete_taken(head.used(*len)));
        self.publish();
    }
}

/// Creates the device half of `zone`, which must outlive it.
pub(crate) fn device(zone: &RingZone, features: Features, writable: bool) -> Box<dyn Device> {
    let RingSetup { layout, size, addrs, .. } = zone.setup(features);
    let [desc, driver, device] = layout.areas(size);
    let area = |addr: u64, len| {
        let start = NonNull::new(addr as *mut u8).expect("an address");
        // SAFETY: the zone has the ring there, and both halves use shared cells.
        unsafe { SharedBytes::new(start, len) }
    };
    let memory = RingMemory {
        desc: area(addrs.desc, desc),
        driver: area(addrs.driver, driver),
        device: area(addrs.device, device),
    };
    let config = DeviceConfig::default()
        .size(size)
        .event_idx(features.contains(Features::EVENT_IDX))
        .indirect(features.contains(Features::INDIRECT_DESC));
    let packed = features.contains(Features::RING_PACKED);
    macro_rules! pick {
        ($($packed:literal $order:literal $write:literal $module:ident)*) => {
            match (packed, features.contains(Features::IN_ORDER), writable) {
                $(($packed, $order, $write) => Box::new($module::Device::<$order, $write>::new(&memory, config).expect("a device")),)*
            }
        };
    }
    pick!(false false false split false false true split false true false split false true true split
        true false false packed true false true packed true true false packed true true true packed)
}

/// The bytes of a chain.
pub(crate) fn bytes(list: &SegList) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in list.pieces() {
        // SAFETY: the device half holds these bytes at the moment, and the test runs on one thread.
        out.extend_from_slice(unsafe { std::slice::from_raw_parts(piece.ptr.as_ptr(), piece.len as usize) });
    }
    out
}
