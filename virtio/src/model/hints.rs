//! Long runs in which both sides poll and decide about notifications only if a hint requires it.

use super::{Model, Variant};
use crate::layout::Layout;
use crate::queue::{DeviceQueue, DriverQueue};

/// Sends `entries` buffers and returns them, with decisions only by hints. Then each side goes to sleep, and
/// the next `burst` buffers must wake it.
fn run_by_hint(variant: Variant, entries: usize, burst: usize) {
    with_halves!(variant, Driver, Device => {
        Model::new(variant, Driver::new, Device::new).by_hint(entries, burst);
    });
}

impl<D: DriverQueue, V: DeviceQueue> Model<D, V> {
    fn by_hint(mut self, entries: usize, burst: usize) {
        let size = usize::from(self.variant.size);
        let (mut left, mut kicks, mut calls) = (entries, 0, 0);
        while left > 0 {
            let n = left.min(size);
            self.lend(n);
            kicks += usize::from(self.driver.kick_hint() && self.driver.kick_needed());
            self.give_back(n);
            calls += usize::from(self.device.call_hint() && self.device.call_needed());
            self.collect(n);
            left -= n;
        }
        // Both sides poll from the start, but a split event index is at most a lap away.
        let event_laps = match self.variant.layout {
            Layout::Split if self.variant.event_idx => entries / 65_536 + 1,
            _ => 0,
        };
        assert!(kicks <= event_laps && calls <= event_laps, "{kicks} kicks and {calls} calls of who polls");
        assert!(!self.device.set_notifications(true) && !self.driver.set_interrupts(true), "nothing waits");
        self.lend(burst);
        assert!(
            self.driver.kick_hint() && self.driver.kick_needed(),
            "kick lost: {:?} {entries}",
            self.variant
        );
        self.give_back(burst);
        assert!(
            self.device.call_hint() && self.device.call_needed(),
            "call lost: {:?} {entries}",
            self.variant
        );
        self.collect(burst);
    }

    /// A device goes to sleep just after the driver checked it, without having seen the last burst: another
    /// thread that decides later must detect that. After the queue itself has decided, nothing is left to
    /// decide.
    fn by_another(mut self, entries: usize, burst: usize) {
        let size = usize::from(self.variant.size);
        let mut left = entries;
        while left > 0 {
            let n = left.min(size);
            self.lend(n);
            _ = self.driver.kick_hint() && self.driver.kick_needed();
            self.give_back(n);
            _ = self.device.call_hint() && self.device.call_needed();
            self.collect(n);
            left -= n;
        }
        self.lend(burst);
        // Once per lap, a split event index requests a notification although its poller does not sleep.
        if let Some(unasked) = self.driver.unasked() {
            assert!(!self.suppression.kick_needed(unasked), "it polls");
            self.device.set_notifications(true);
            assert!(self.suppression.kick_needed(unasked), "kick lost: {:?} {entries}", self.variant);
            assert!(self.driver.kick_needed());
        }
        assert!(!self.driver.kick_hint() || self.driver.kick_needed());
        self.give_back(burst);
        self.collect(burst);
        // The device requests a notification for the next buffer and gets it: another thread must not notify
        // again.
        assert!(!self.device.set_notifications(true), "nothing waits");
        self.lend(1);
        assert!(self.driver.unasked().is_none() && self.driver.kick_needed());
        if self.variant.event_idx && size > 2 {
            self.lend(1);
            let unasked = self.driver.unasked().expect("one kick for one event");
            assert!(!self.suppression.kick_needed(unasked), "one kick for one event");
        }
    }

    fn lend(&mut self, n: usize) {
        self.add(n);
        self.driver.publish();
        self.available.extend(self.added.drain(..));
    }

    /// Returns some buffers by the fast path, the others by the slow one.
    fn give_back(&mut self, n: usize) {
        self.peek_and_complete(n);
        while !self.available.is_empty() {
            self.use_chain(0);
        }
        self.device.publish();
        self.visible.extend(self.finished.drain(..));
    }
}

/// Sends `entries` buffers by hints; then another thread decides instead of the queue.
fn run_by_another(variant: Variant, entries: usize, burst: usize) {
    with_halves!(variant, Driver, Device => {
        Model::new(variant, Driver::new, Device::new).by_another(entries, burst);
    });
}

/// All ways to count to 65 536: both directions, both orders, with and without an event index.
#[cfg_attr(miri, allow(dead_code, reason = "too slow there"))]
fn run_all(layout: Layout) {
    for kind in 0..8 {
        for entries in [65_532, 65_533, 65_534, 65_535, 65_536, 131_071] {
            for burst in [1, 4] {
                let variant = Variant::from_bytes(layout, [5, 128, kind, 0, 0]);
                run_by_hint(variant, entries, burst);
            }
        }
        run_by_another(Variant::from_bytes(layout, [5, 128, kind, 0, 0]), 65_535, 4);
    }
}

#[test]
#[cfg(not(miri))]
fn split_hints_alone_never_lose_a_sleeper() {
    run_all(Layout::Split);
}

#[test]
#[cfg(not(miri))]
fn packed_hints_alone_never_lose_a_sleeper() {
    run_all(Layout::Packed);
}
