//! A byte position in the pieces of a chain, however the peer has divided it.

use linecard_virtio::Piece;

use super::copy::copy;

/// A position in a chain; every copy advances it.
pub(super) struct Cursor<'a> {
    pieces: &'a [Piece],
    /// The bytes of the first piece that were passed.
    offset: u32,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(pieces: &'a [Piece]) -> Self {
        Self { pieces, offset: 0 }
    }

    /// Calls `f` with each contiguous part of the next `len` bytes and its offset, until `f` returns false.
    /// Returns the number of bytes passed.
    fn each(&mut self, len: usize, mut f: impl FnMut(*mut u8, usize, usize) -> bool) -> usize {
        let mut done = 0;
        while done < len {
            let Some((piece, rest)) = self.pieces.split_first() else { break };
            let left = piece.len.saturating_sub(self.offset);
            let part = (left as usize).min(len - done);
            // SAFETY: `offset <= piece.len`, so this stays inside the piece or at its end.
            let at = unsafe { piece.ptr.as_ptr().add(self.offset as usize) };
            let more = f(at, done, part);
            done += part;
            if part == left as usize {
                (self.pieces, self.offset) = (rest, 0);
            } else {
                self.offset += part as u32;
            }
            if !more {
                break;
            }
        }
        done
    }

    /// Advances by `len` bytes. Returns the number of bytes that were left.
    pub(super) fn skip(&mut self, len: usize) -> usize {
        self.each(len, |_, _, _| true)
    }

    /// Copies `len` bytes to `dst`. Returns the number of bytes copied: fewer at the end of the chain, or
    /// when `more`, called after each piece, returns false.
    ///
    /// # Safety
    /// `dst` is writable for `len` bytes of this process's own memory.
    pub(super) unsafe fn read(&mut self, dst: *mut u8, len: usize, mut more: impl FnMut() -> bool) -> usize {
        self.each(len, |at, done, part| {
            // SAFETY: `done + part <= len`.
            let to = unsafe { dst.add(done) };
            // SAFETY: the piece holds `part` bytes at `at` (the queue checked them), `dst` has room.
            unsafe { copy(to, at, part) };
            more()
        })
    }

    /// Copies `len` bytes from `src`. Returns the number of bytes copied: fewer at the end of the chain, or
    /// when `more`, called after each piece, returns false.
    ///
    /// # Safety
    /// `src` is readable for `len` bytes of this process's own memory.
    pub(super) unsafe fn write(
        &mut self,
        src: *const u8,
        len: usize,
        mut more: impl FnMut() -> bool,
    ) -> usize {
        self.each(len, |at, done, part| {
            // SAFETY: `done + part <= len`.
            let from = unsafe { src.add(done) };
            // SAFETY: the piece has room for `part` bytes at `at` (the queue checked it), `src` holds them.
            unsafe { copy(at, from, part) };
            more()
        })
    }
}
