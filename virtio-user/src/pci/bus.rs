//! What a driver needs of the bus that its device is on: VFIO gives it, and a fake in tests.

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::capability::{BARS, Bar, CONFIG};
use crate::backend::Notify;

/// Addresses that a device can have mapped: the first and the last of each range, ascending.
pub(super) type Ranges = Vec<(u64, u64)>;

/// Interrupts of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupts {
    /// Messages, so many at most.
    Messages(u32),
    /// One line for everything.
    Line,
    /// None.
    Absent,
}

/// A device that this process owns.
pub(super) trait Bus: Send + Debug {
    /// Its configuration space, read once.
    fn config_space(&self) -> io::Result<[u8; CONFIG]>;
    /// Its base address registers.
    fn bars(&self) -> &[Bar; BARS];
    /// Reads registers, in one access where there are 1, 2 or 4 bytes at a multiple of as many. All of them are within the BAR.
    fn read(&self, bar: u8, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Writes registers, likewise.
    fn write(&self, bar: u8, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Lets the device read and write memory of this process by itself, as far as that is mapped for it, or not.
    fn set_master(&self, on: bool) -> io::Result<()>;
    /// Addresses that can be mapped.
    fn ranges(&self) -> &Ranges;
    /// Mappings that there can be.
    fn most_mappings(&self) -> usize;
    /// Maps memory of this process, which has the same address for the device.
    fn map(&self, addr: u64, len: u64) -> io::Result<()>;
    /// Unmaps what was mapped, all of it.
    fn unmap(&self, addr: u64, len: u64) -> io::Result<()>;
    /// What writes `queue` at a place that can be mapped.
    fn notifier(&self, bar: u8, offset: u64, queue: u16) -> io::Result<Arc<dyn Notify>>;
    /// Interrupts that it has.
    fn interrupts(&self) -> Interrupts;
    /// Has each of its messages (or its line, which there is one of) signal an eventfd, from now on.
    fn set_interrupts(&self, events: &[BorrowedFd<'_>]) -> io::Result<()>;
    /// Has it signal an eventfd when somebody wants to take the device away, who waits until it is given back. Nothing where nobody can
    /// tell.
    fn set_removal(&self, event: BorrowedFd<'_>) -> io::Result<()>;
    /// After a signal of the line, which is masked then: it may signal again.
    fn unmask_line(&self) -> io::Result<()>;
}
