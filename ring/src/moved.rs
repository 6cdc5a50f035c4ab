//! The result of a burst.

/// The result of an enqueue or dequeue.
///
/// ```
/// let (producer, consumer) = linecard_ring::spsc::ring::<u8>(4)?;
/// let moved = producer.enqueue_burst(b"abcdef");
/// assert_eq!((moved.count, moved.left), (4, 0)); // no room for "ef"
/// let mut out = [0; 8];
/// assert_eq!(consumer.dequeue_bulk(&mut out).count, 0); // all or nothing
/// # Ok::<(), linecard_ring::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "a full or empty ring moves fewer elements than asked, or none"]
pub struct Moved {
    /// The number of elements moved: the first ones of the slice.
    pub count: usize,
    /// A lower bound of what remains: free slots after an enqueue, elements after a dequeue. There may be
    /// more, because the other side's progress is only read when needed.
    pub left: usize,
    /// Whether an enqueue left the ring at or above its watermark.
    pub high: bool,
}
