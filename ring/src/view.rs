//! Zero-copy views: `reserve → write → publish` and `peek → read → release`.

use crate::end::End;
use crate::error::{AllWritten, NotWritten};
use crate::mode::{Claim, Exclusive};

/// Reserved slots that are written in place; from [`Producer::reserve`](crate::Producer::reserve).
///
/// ```
/// let (mut producer, consumer) = linecard_ring::spsc::ring::<u32>(8)?;
/// let mut slots = producer.reserve(8);
/// while slots.write(7).is_ok() {}
/// assert_eq!(slots.publish(), 8);
/// assert_eq!(consumer.count(), 8);
/// # Ok::<(), linecard_ring::Error>(())
/// ```
#[must_use = "slots are given back unless they are published"]
pub struct Reservation<'a, T, M: Exclusive> {
    end: &'a End<T, M>,
    claim: Claim,
    written: u32,
}

impl<'a, T: Copy + Send, M: Exclusive> Reservation<'a, T, M> {
    pub(crate) fn new(end: &'a End<T, M>, claim: Claim) -> Self {
        Self { end, claim, written: 0 }
    }

    /// The number of slots not yet written.
    #[must_use]
    pub fn room(&self) -> usize {
        (self.claim.count - self.written) as usize
    }

    /// The number of reserved slots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.claim.count as usize
    }

    /// Whether no slot is reserved, because the ring was full.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.claim.count == 0
    }

    /// Writes the next slot.
    ///
    /// # Errors
    /// All slots are written already.
    #[inline]
    pub fn write(&mut self, item: T) -> Result<(), AllWritten> {
        if self.written >= self.claim.count {
            return Err(AllWritten);
        }
        // SAFETY: `written < count`: the slot is in the claim, which this view holds until it is published or
        // dropped.
        unsafe { self.end.slots.put(self.claim.start.wrapping_add(self.written), item) };
        self.written += 1;
        Ok(())
    }

    /// Writes as many of `items` as there is room for, and returns how many.
    #[inline]
    pub fn write_slice(&mut self, items: &[T]) -> usize {
        let items = items.get(..self.room()).unwrap_or(items);
        // SAFETY: the slots are in the claim, and there are no more items than room.
        unsafe { self.end.slots.write(self.claim.start.wrapping_add(self.written), items) };
        self.written += count(items);
        items.len()
    }

    /// Discards the elements behind the first `count` slots; these slots can be written again.
    ///
    /// ```
    /// let (mut producer, consumer) = linecard_ring::spsc::ring::<u32>(8)?;
    /// let mut slots = producer.reserve(3);
    /// assert_eq!(slots.write_slice(&[1, 2, 3]), 3);
    /// slots.truncate(1);
    /// assert_eq!((slots.publish(), consumer.dequeue(), consumer.dequeue()), (1, Some(1), None));
    /// # Ok::<(), linecard_ring::Error>(())
    /// ```
    pub fn truncate(&mut self, count: usize) {
        self.written = self.written.min(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Overwrites a slot that is already written; `index` counts from the first slot of the reservation.
    ///
    /// # Errors
    /// The slot is not written yet.
    ///
    /// ```
    /// let (mut producer, consumer) = linecard_ring::spsc::ring::<u32>(8)?;
    /// let mut slots = producer.reserve(3);
    /// slots.write_slice(&[1, 2]);
    /// slots.rewrite(1, 20)?;
    /// assert_eq!(
    ///     slots.rewrite(2, 30).unwrap_err().to_string(),
    ///     "slot 2 of the reservation is not written yet; rewrite one of the first 2"
    /// );
    /// assert_eq!((slots.publish(), consumer.dequeue(), consumer.dequeue()), (2, Some(1), Some(20)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn rewrite(&mut self, index: usize, item: T) -> Result<(), NotWritten> {
        let slot = u32::try_from(index).ok().filter(|slot| *slot < self.written);
        let slot = slot.ok_or(NotWritten { index, written: self.written as usize })?;
        // SAFETY: the slot is before the end of the written ones, which are in the claim.
        unsafe { self.end.slots.put(self.claim.start.wrapping_add(slot), item) };
        Ok(())
    }

    /// Makes the written slots visible to the consumers with one store, and returns the others to the ring.
    /// Returns how many were published.
    #[inline]
    pub fn publish(self) -> usize {
        let (end, claim, written) = (self.end, self.claim, self.written);
        std::mem::forget(self);
        close(end, claim, written);
        written as usize
    }
}

impl<T, M: Exclusive> Drop for Reservation<'_, T, M> {
    fn drop(&mut self) {
        close(self.end, self.claim, 0);
    }
}

/// Elements that are read in place; from [`Consumer::peek`](crate::Consumer::peek).
///
/// ```
/// let (producer, mut consumer) = linecard_ring::spsc::ring::<u32>(8)?;
/// assert_eq!(producer.enqueue_bulk(&[1, 2, 30, 4]).count, 4);
/// let mut view = consumer.peek(8);
/// while view.get(0).is_some_and(|item| item < 10) {
///     view.read();
/// }
/// assert_eq!(view.release(), 2); // 30 and 4 stay
/// assert_eq!(consumer.dequeue(), Some(30));
/// # Ok::<(), linecard_ring::Error>(())
/// ```
#[must_use = "elements stay in the ring unless they are released"]
pub struct Peek<'a, T, M: Exclusive> {
    end: &'a End<T, M>,
    claim: Claim,
    read: u32,
}

impl<'a, T: Copy + Send, M: Exclusive> Peek<'a, T, M> {
    pub(crate) fn new(end: &'a End<T, M>, claim: Claim) -> Self {
        Self { end, claim, read: 0 }
    }

    /// The number of elements not yet read.
    #[must_use]
    pub fn len(&self) -> usize {
        (self.claim.count - self.read) as usize
    }

    /// Whether all elements are read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the element `offset` places behind the next one without advancing.
    ///
    /// In shared memory another process may change it before the next call: base decisions on the returned
    /// value.
    #[inline]
    #[must_use]
    pub fn get(&self, offset: usize) -> Option<T> {
        let offset = u32::try_from(offset).ok()?;
        let inside = offset < self.claim.count - self.read;
        let index = self.claim.start.wrapping_add(self.read).wrapping_add(offset);
        // SAFETY: the slot is in the claim and holds a value.
        inside.then(|| unsafe { self.end.slots.take(index) })
    }

    /// Reads the next element and advances.
    #[inline]
    pub fn read(&mut self) -> Option<T> {
        let item = self.get(0)?;
        self.read += 1;
        Some(item)
    }

    /// Skips up to `count` elements; they count as read.
    pub fn skip(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.read = self.read.saturating_add(count).min(self.claim.count);
    }

    /// Returns the slots of the elements read to the producers with one store; the other elements stay in the
    /// ring. Returns how many were released.
    #[inline]
    pub fn release(self) -> usize {
        let (end, claim, read) = (self.end, self.claim, self.read);
        std::mem::forget(self);
        close(end, claim, read);
        read as usize
    }
}

impl<T, M: Exclusive> Drop for Peek<'_, T, M> {
    fn drop(&mut self) {
        close(self.end, self.claim, 0);
    }
}

impl<T, M: Exclusive> std::fmt::Debug for Reservation<'_, T, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reservation({} of {} written)", self.written, self.claim.count)
    }
}

impl<T, M: Exclusive> std::fmt::Debug for Peek<'_, T, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peek({} of {} read)", self.read, self.claim.count)
    }
}

/// Ends a view: finishes `count` slots and returns the others.
#[inline(always)]
fn close<T, M: Exclusive>(end: &End<T, M>, claim: Claim, count: u32) {
    if claim.count != 0 {
        end.finish_part(claim, count);
    }
}

/// The length of a slice that is not longer than a claim.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "claims count in 32 bits")]
fn count<T>(items: &[T]) -> u32 {
    items.len() as u32
}
