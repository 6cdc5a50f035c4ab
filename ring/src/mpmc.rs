//! Rings with any number of producers and consumers; the mode of each side is a type parameter.

use crate::{Adaptive, Config, Error};

/// A producer of a ring.
pub type Producer<T, M = Adaptive> = crate::Producer<T, M>;
/// A consumer of a ring.
pub type Consumer<T, M = Adaptive> = crate::Consumer<T, M>;

/// Creates an MP/MC ring of `capacity` elements (a power of two) on the heap: clone a handle for each thread.
/// A side with one handle executes no locked instruction ([`Adaptive`]). [`Config`] creates handles to share
/// by reference, and rings with other modes, sizes and memory.
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
