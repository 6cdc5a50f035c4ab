//! One model for both rings: a driver half and a device half work against each other, and a few `VecDeque`s say what
//! must come out. Unit tests, property tests, miri and the fuzz targets all run it.

/// Evaluates an expression with the two names being the types of both halves of `variant`'s ring.
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

/// Which ring to run, where it starts, and what was negotiated.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Split or packed.
    pub layout: Layout,
    /// Ring size.
    pub size: u16,
    /// Start position, in the form of `SET_VRING_BASE`.
    pub base: Option<u32>,
    /// IN_ORDER.
    pub in_order: bool,
    /// The device writes.
    pub writable: bool,
    /// EVENT_IDX.
    pub event_idx: bool,
    /// Entries per indirect table; 0 is no INDIRECT_DESC.
    pub indirect: u16,
}

impl Variant {
    /// A variant from five arbitrary bytes: any size up to 32, starts around the wrap.
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

/// Runs `ops` on a fresh ring and compares every step with the oracle; panics where they differ.
pub fn run(variant: Variant, ops: &[[u8; 2]]) {
    with_halves!(variant, Driver, Device => Model::new(variant, Driver::new, Device::new).run(ops));
}

/// [`run`]s on rings of all kinds until so many random operations, most of them bursts, are through.
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

/// A buffer as the model remembers it.
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

/// Both halves, and what each should see.
struct Model<D, V> {
    variant: Variant,
    driver: D,
    device: V,
    /// When the device wants a kick, as a thread reads it that has no queue.
    suppression: DeviceSuppression,
    memory: Guest,
    next_token: u64,
    /// Added and not published; published and not consumed; consumed and not given back.
    added: VecDeque<Lent>,
    available: VecDeque<Lent>,
    held: Vec<(Used, Lent)>,
    /// Given back and not published; published and not collected.
    finished: VecDeque<Completion>,
    visible: VecDeque<Completion>,
    /// The sleeper asked to be woken by the next publish of the other side.
    kick_armed: bool,
    call_armed: bool,
    /// What it asked for last still stands in shared memory, fulfilled or not.
    kick_stale: bool,
    call_stale: bool,
    /// Something was published and, because the hint said no, nobody asked yet.
    kick_owed: bool,
    call_owed: bool,
    /// Everything the queues point into; dropped last.
    _ring: Zone,
}

/// Guest memory of the models; the first part is left for tables.
const GUEST_BASE: u64 = 0x7f00_0000_0000;
const GUEST_BYTES: u64 = 1 << 16;

/// The ring's memory and both configurations; indirect tables lie at the start of the guest's memory.
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

    /// Brings everything home, with the ordinary calls, and then by `take_all`.
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
