//! The split ring: descriptor table, available ring, used ring (virtio 1.3, Split Virtqueues).
//!
//! ```text
//!              driver writes                          device writes
//!   desc[id] = {addr | len,flags,next}
//!   avail.ring[avail % size] = id                used.ring[used % size] = {id, len}
//!   avail.idx = avail          (publish)         used.idx = used           (publish)
//!   avail.used_event                             used.avail_event
//! ```
//!
//! A driver takes descriptor ids from a FIFO, so a device that completes in order sees the same ids in the
//! same slots in every lap. Entries that already have the right value are not written again, so their cache
//! lines stay shared between the cores.

mod chain;
pub(crate) mod control;
mod device;
mod driver;
#[cfg(all(test, not(miri), not(loom)))]
mod outside;
mod ring;
#[cfg(all(test, not(loom)))]
mod tests;

pub use device::Device;
pub use driver::Driver;
