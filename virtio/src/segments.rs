//! The memory of one chain, as the device half returns it on the cold path.

use core::ptr::NonNull;

/// One contiguous piece of a chain, translated.
///
/// ```
/// let mut byte = 0u8;
/// let piece = linecard_virtio::Piece { ptr: core::ptr::NonNull::from(&mut byte), len: 1 };
/// assert_eq!(piece.len, 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The location of the bytes. The peer may change them at any time: copy, never borrow.
    pub ptr: NonNull<u8>,
    /// The length in bytes, at least 1.
    pub len: u32,
}

/// The pieces of one chain in order. Reused from call to call, so that it allocates only to grow.
///
/// ```
/// let list = linecard_virtio::SegList::new();
/// assert!(list.is_empty());
/// assert_eq!(list.bytes(), 0);
/// ```
#[derive(Debug)]
pub struct SegList {
    pieces: Vec<Piece>,
    bytes: u32,
    descriptors: u16,
    most: u16,
    cut: bool,
}

impl Default for SegList {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: the list contains plain addresses; code that copies through them ensures that they are valid on its
// thread.
unsafe impl Send for SegList {}

impl SegList {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self::limited(u16::MAX)
    }

    /// An empty list that accepts the memory of at most `most` descriptors of a chain, from its start.
    ///
    /// ```
    /// let list = linecard_virtio::SegList::limited(1024);
    /// assert!(!list.is_cut());
    /// ```
    #[must_use]
    pub const fn limited(most: u16) -> Self {
        Self { pieces: Vec::new(), bytes: 0, descriptors: 0, most, cut: false }
    }

    /// Whether the chain has more descriptors than the list accepts. The memory of the others was not looked
    /// at, nor, in a split ring or a table, were the descriptors themselves.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.descriptors >= self.most
    }

    pub(crate) fn cut(&mut self) {
        self.cut = true;
    }

    /// The pieces, in the order of the chain.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The total length of all pieces in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Whether the chain has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The number of descriptors read to collect the chain, including those of an indirect table and empty
    /// ones: a measure of the work. At most the ring size.
    #[must_use]
    pub const fn descriptors(&self) -> u16 {
        self.descriptors
    }

    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        (self.bytes, self.descriptors, self.cut) = (0, 0, false);
    }

    pub(crate) fn read_so_far(&mut self, descriptors: u16) {
        self.descriptors = descriptors;
    }

    /// Appends a piece. Returns false if the total would exceed 2³² − 1 bytes.
    pub(crate) fn push(&mut self, piece: Piece) -> bool {
        let Some(bytes) = self.bytes.checked_add(piece.len) else { return false };
        self.bytes = bytes;
        self.pieces.push(piece);
        true
    }

    pub(crate) fn count(&self) -> usize {
        self.pieces.len()
    }
}
