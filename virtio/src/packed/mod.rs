//! The packed ring: one ring of descriptors that both sides write (virtio 1.3, Packed Virtqueues).
//!
//! ```text
//!   desc[slot] = {addr | len, id, flags}      AVAIL = driver's wrap counter, USED = its inverse:   available
//!                                             AVAIL = USED = device's wrap counter:                used
//!   driver area {off_wrap, flags}             when the driver wants to be called
//!   device area {off_wrap, flags}             when the device wants to be kicked
//! ```
//!
//! The second word of a descriptor is written by one store. The first descriptor of a burst is written last:
//! the other side reads that one first, so it sees the whole burst or nothing.

mod chain;
pub(crate) mod control;
mod device;
mod driver;
#[cfg(not(loom))]
mod recover;
mod ring;
#[cfg(all(test, not(loom)))]
mod tests;

pub use device::Device;
pub use driver::Driver;
#[cfg(not(loom))]
pub use recover::recover;
