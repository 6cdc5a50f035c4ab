//! Rings with one producer and one consumer: no locked instruction, no waiting, one store per burst.

use crate::{Config, Error, Single};

/// The only producer of a ring.
pub type Producer<T> = crate::Producer<T, Single>;
/// The only consumer of a ring.
pub type Consumer<T> = crate::Consumer<T, Single>;

/// Creates a ring of `capacity` elements (a power of two) on the heap. [`Config`] creates rings in other
/// sizes and memory.
///
/// # Errors
/// As for [`Config::heap`].
///
/// ```
/// let (producer, consumer) = linecard_ring::spsc::ring(1024)?;
/// producer.enqueue("hello").ok();
/// assert_eq!(consumer.dequeue(), Some("hello"));
/// # Ok::<(), linecard_ring::Error>(())
/// ```
pub fn ring<T: Copy + Send>(capacity: usize) -> Result<(Producer<T>, Consumer<T>), Error> {
    Config::power_of_two(capacity).heap()
}
