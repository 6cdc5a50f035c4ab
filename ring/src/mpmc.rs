//! Rings with any number of producers and consumers; the mode of each side is a type parameter.

use crate::{Adaptive, Config, Error};

/// One of the producers of a ring.
pub type Producer<T, M = Adaptive> = crate::Producer<T, M>;
/// One of the consumers of a ring.
pub type Consumer<T, M = Adaptive> = crate::Consumer<T, M>;

/// A ring of `capacity` elements (a power of two) on the heap, MP/MC: clone a handle for each thread. A side that has
/// one handle pays for no locked instruction ([`Adaptive`]). Handles to share by reference, and other modes, sizes
/// and places: [`Config`].
///
/// # Errors
/// As for [`Config::heap`].
///
/// ```
/// let (producer, consumer) = linecard_ring::mpmc::ring(1024)?;
/// producer.clone().enqueue(1).ok();
/// assert_eq!(consumer.clone().dequeue(), Some(1));
/// # Ok::<(), linecard_ring::Error>(())
/// ```
pub fn ring<T: Copy + Send>(capacity: usize) -> Result<(Producer<T>, Consumer<T>), Error> {
    Config::power_of_two(capacity).heap()
}
