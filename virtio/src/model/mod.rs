//! A model for both rings: a driver half and a device half work against each other, and `VecDeque`s contain
//! the expected results. Unit tests, property tests, miri and the fuzz targets run it.

/// Evaluates an expression in which the two names are the types of both halves of `variant`'s ring.
macro_rules! with_halves {
    ($variant:expr, $driver:ident, $device:ident => $body:expr) => {
        with_halves!(
            $variant, $driver, $device => $body;
            Split split false false, Split split false true, Split split true false, Split split true true,
            Packed packed false false, Packed packed false true, Packed packed true false, Packed packed true true
        )
    };
    (
        $variant:expr, $driver:ident, $device:ident => $body:expr;
        $($layout:ident $module:ident $order:literal $write:literal),*
    ) => {
        match ($variant.layout, $variant.in_order, $variant.writable) {
            $(($crate::Layout::$layout, $order, $write) => {
                type $driver = $crate::$module::Driver<$order, $write>;
                type $device = $crate::$module::Device<$order, $write>;
                $body
            })*
        }
    };
}

#[cfg(test)]
mod hints;
mod hostile;
pub(crate) mod memory;
mod steps;
#[cfg(test)]
pub(crate) mod villain;

use std::collections::VecDeque;

pub use hostile::{Step, run_hostile};
pub use memory::{Guest, Zone};

use crate::config::{DeviceConfig, DriverConfig, IndirectTables};
use crate::layout::{Layout, RingMemory};
use crate::queue::{Completion, DeviceQueue, DriverQueue, Element, Used};
use crate::suppression::DeviceSuppression;

/// The kind of ring, its start position, and the negotiated features.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Split or packed.
    pub layout: Layout,
    /// Ring size.
    pub size: u16,
    /// The start position, in the format of `SET_VRING_BASE`.
    pub base: Option<u32>,
    /// IN_ORDER was negotiated.
    pub in_order: bool,
    /// The device writes the buffers.
    pub writable: bool,
    /// EVENT_IDX was negotiated.
    pub event_idx: bool,
    /// Entries per indirect table; 0 without INDIRECT_DESC.
    pub indirect: u16,
}

impl Variant {
    /// A variant from five arbitrary bytes: any size up to 32, with a start position near the wrap.
    #[must_use]
    pub fn from_bytes(layout: Layout, b: [u8; 5]) -> Self {
        let size = match layout {
            Layout::Split => 1 << (b[0] % 6),
            Layout::Packed => u16::from(b[0]) % 32 + 1,
        };
        let base = match layout {
            Layout::Split => u32::from((u16::from(b[1])).wrapping_sub(128)),
            Layout::Packed => {
                let at = (u32::from(b[1] >> 1) % u32::from(size)) | u32::from(b[1] & 1) << 15;
                at | at << 16
            }
        };
        Self {
            layout,
            size,
            base: Some(base),
            in_order: b[2] & 1 != 0,
            writable: b[2] & 2 != 0,
            event_idx: b[2] & 4 != 0,
            indirect: if b[2] & 8 != 0 { (u16::from(b[3]) % 8 + 1).min(size) } else { 0 },
        }
    }
}

/// Runs `ops` on a new ring and compares every step with the expected result. Panics if they differ.
pub fn run(variant: Variant, ops: &[[u8; 2]]) {
    with_halves!(variant, Driver, Device => Model::new(variant, Driver::new, Device::new).run(ops));
}

/// [`run`]s `operations` random operations, most of them bursts, on rings of all kinds.
#[cfg(test)]
pub(crate) fn run_random(layout: Layout, operations: usize) {
    let mut dice = linecard_testing::Prng::new(1);
    let mut roll = || dice.roll().to_be_bytes();
    for _ in 0..operations.div_ceil(200) {
        let [a, b, c, d, e, ..] = roll();
        let ops: Vec<_> = (0..200).map(|_| roll()).map(|[a, b, ..]| [a, b]).collect();
        run(Variant::from_bytes(layout, [a, b, c, d, e]), &ops);
    }
}

/// A buffer as recorded by the model.
#[derive(Clone, Debug)]
struct Lent {
    token: u64,
    segments: Vec<Element>,
}

impl Lent {
    fn len(&self) -> u32 {
        self.segments.iter().map(|s| s.len).sum()
    }
}

/// Both halves, and the expected state of each.
struct Model<D, V> {
    variant: Variant,
    driver: D,
    device: V,
    /// The device's notification settings, as read by a thread without a queue.
    suppression: DeviceSuppression,
    memory: Guest,
    next_token: u64,
    /// Buffers added but not published; published but not consumed; consumed but not returned.
    added: VecDeque<Lent>,
    available: VecDeque<Lent>,
    held: Vec<(Used, Lent)>,
    /// Completions returned but not published; published but not collected.
    finished: VecDeque<Completion>,
    visible: VecDeque<Completion>,
    /// The sleeping side requested a notification for the other side's next publish.
    kick_armed: bool,
    call_armed: bool,
    /// The last request still stands in shared memory, fulfilled or not.
    kick_stale: bool,
    call_stale: bool,
    /// Something was published without a decision, because the hint was false.
    kick_owed: bool,
    call_owed: bool,
    /// The memory of both queues; dropped last.
    _ring: Zone,
}

/// The guest memory of the models; its first part is reserved for tables.
const GUEST_BASE: u64 = 0x7f00_0000_0000;
const GUEST_BYTES: u64 = 1 << 16;

/// The ring's memory and both configurations. Indirect tables are at the start of the guest's memory.
fn setup(v: Variant, ring: &Zone, guest: &Guest) -> (RingMemory, DriverConfig, DeviceConfig) {
    let memory = RingMemory::in_zone(ring.bytes(), v.layout, v.size).expect("zone is large enough");
    let tables = guest.bytes().slice(0, IndirectTables::bytes(v.size, v.indirect)).expect("tables fit");
    let tables = IndirectTables { memory: tables, addr: guest.base(), entries: v.indirect };
    let (size, event_idx, base) = (v.size, v.event_idx, v.base);
    let driver = DriverConfig { size, event_idx, base, indirect: (v.indirect > 0).then_some(tables) };
    (memory, driver, DeviceConfig { size, event_idx, indirect: v.indirect > 0, base })
}

impl<D: DriverQueue, V: DeviceQueue> Model<D, V> {
    fn new<E: std::fmt::Debug>(
        v: Variant,
        driver: impl Fn(&RingMemory, DriverConfig) -> Result<D, E>,
        device: impl Fn(&RingMemory, DeviceConfig) -> Result<V, E>,
    ) -> Self {
        let ring = Zone::new(v.layout.bytes(v.size));
        let seams =
            vec![GUEST_BASE + GUEST_BYTES / 2, GUEST_BASE + GUEST_BYTES / 2 + 100, GUEST_BASE + 50_000];
        let guest = Guest::new(GUEST_BASE, GUEST_BYTES as usize, seams);
        let (memory, driver_config, device_config) = setup(v, &ring, &guest);
        Self {
            driver: driver(&memory, driver_config).expect("valid driver"),
            device: device(&memory, device_config).expect("valid device"),
            suppression: DeviceSuppression::new(&memory, v.layout, v.size, v.event_idx).expect("valid ring"),
            variant: v,
            memory: guest,
            next_token: 1,
            added: VecDeque::new(),
            available: VecDeque::new(),
            held: Vec::new(),
            finished: VecDeque::new(),
            visible: VecDeque::new(),
            kick_armed: false,
            call_armed: false,
            kick_stale: false,
            call_stale: false,
            kick_owed: false,
            call_owed: false,
            _ring: ring,
        }
    }

    fn run(mut self, ops: &[[u8; 2]]) {
        for op in ops {
            self.step(*op);
            self.check_free();
        }
        self.drain();
    }

    /// Returns and collects all buffers, first with the ordinary calls, then by `take_all`.
    fn drain(mut self) {
        self.publish_driver(false);
        for _ in 0..2 * usize::from(self.variant.size) + 2 {
            self.use_chain(3);
            while !self.held.is_empty() {
                self.give_held(0);
            }
        }
        self.publish_device(false);
        self.collect(usize::from(self.variant.size));
        assert!(self.added.is_empty() && self.available.is_empty() && self.visible.is_empty());
        assert_eq!(self.driver.free(), self.variant.size);
        self.add(3);
        self.add_chain(2);
        let mut want: Vec<u64> = self.added.iter().map(|l| l.token).collect();
        let mut got = Vec::new();
        self.driver.take_all(&mut |token| got.push(token));
        got.sort_unstable();
        want.sort_unstable();
        assert_eq!(got, want, "take_all returns exactly what is in flight");
    }
}
