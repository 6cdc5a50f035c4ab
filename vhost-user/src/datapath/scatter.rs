//! Byte by byte position in the pieces of a chain, whatever way the peer has cut it.

use linecard_virtio::Piece;

use super::copy::copy;

/// A position in a chain; every copy moves it on.
pub(super) struct Cursor<'a> {
    pieces: &'a [Piece],
    /// Bytes of the first piece that are behind us.
    offset: u32,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(pieces: &'a [Piece]) -> Self {
        Self { pieces, offset: 0 }
    }

    /// Calls `f` with the contiguous parts of the next `len` bytes, and how far each is from the start, until it says
    /// no; returns how many bytes there were.
    fn each(&mut self, len: usize, mut f: impl FnMut(*mut u8, usize, usize) -> bool) -> usize {
        let mut done = 0;
        while done < len {
            let Some((piece, rest)) = self.pieces.split_first() else { break };
            let left = piece.len.saturating_sub(self.offset);
            let part = (left as usize).min(len - done);
            // SAFETY: `offset <= piece.len`, so this stays inside the piece or one behind it.
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

    /// Passes over `len` bytes; returns how many there were.
    pub(super) fn skip(&mut self, len: usize) -> usize {
        self.each(len, |_, _, _| true)
    }

    /// Copies `len` bytes to `dst`; returns how many there were, or fewer when `more`, asked after each piece, says no.
    ///
    /// # Safety
    /// `dst` is writable for `len` bytes, which are ours.
    pub(super) unsafe fn read(&mut self, dst: *mut u8, len: usize, mut more: impl FnMut() -> bool) -> usize {
        self.each(len, |at, done, part| {
            // SAFETY: `done + part <= len`.
            let to = unsafe { dst.add(done) };
            // SAFETY: the piece holds `part` bytes at `at` (the queue checked them), `dst` has room.
            unsafe { copy(to, at, part) };
            more()
        })
    }

    /// Copies `len` bytes from `src`; returns for how many there was room, or fewer when `more`, asked after each piece, says no.
    ///
    /// # Safety
    /// `src` is readable for `len` bytes, which are ours.
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
