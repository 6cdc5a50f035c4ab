//! The bus of a device as its driver needs it: VFIO, or a fake in tests.

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::capability::{BARS, Bar, CONFIG};
use crate::backend::Notify;

/// The address ranges that a device can have mapped: the first and the last address of each, ascending.
pub(super) type Ranges = Vec<(u64, u64)>;

/// The interrupts of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupts {
    /// Message-signalled interrupts, at most this number.
    Messages(u32),
    /// One interrupt line.
    Line,
    /// No interrupts.
    Absent,
}

/// A device that this process owns.
pub(super) trait Bus: Send + Debug {
    /// Reads the configuration space once.
    fn config_space(&self) -> io::Result<[u8; CONFIG]>;
    /// Returns the base address registers.
    fn bars(&self) -> &[Bar; BARS];
    /// Reads registers within the BAR; in one access if the length is 1, 2 or 4 and the offset is a multiple
    /// of it.
    fn read(&self, bar: u8, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Writes registers, with the same rule.
    fn write(&self, bar: u8, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Turns bus mastering on or off: access of the device to the mapped memory of this process.
    fn set_master(&self, on: bool) -> io::Result<()>;
    /// Returns the addresses that can be mapped.
    fn ranges(&self) -> &Ranges;
    /// Returns the maximum number of mappings.
    fn most_mappings(&self) -> usize;
    /// Maps memory of this process, at the same address for the device.
    fn map(&self, addr: u64, len: u64) -> io::Result<()>;
    /// Removes a mapping, as a whole.
    fn unmap(&self, addr: u64, len: u64) -> io::Result<()>;
    /// Returns the notification that writes `queue` to a register, which must be mappable.
    fn notifier(&self, bar: u8, offset: u64, queue: u16) -> io::Result<Arc<dyn Notify>>;
    /// Returns the kinds of interrupts that the device has.
    fn interrupts(&self) -> Interrupts;
    /// Makes each message (or the one line) signal an eventfd from now on.
    fn set_interrupts(&self, events: &[BorrowedFd<'_>]) -> io::Result<()>;
    /// Sets the eventfd that is signalled when the device is to be removed; the remover waits until it is
    /// released. Does nothing if removals are not reported.
    fn set_removal(&self, event: BorrowedFd<'_>) -> io::Result<()>;
    /// Unmasks the line, which its signal has masked.
    fn unmask_line(&self) -> io::Result<()>;
}
