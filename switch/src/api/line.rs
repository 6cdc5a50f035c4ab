//! Lines with file descriptors beside them, on a Unix stream socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

/// The maximum number of bytes of a line, including its newline.
pub const MAX_LINE: usize = 1 << 20;
/// The maximum number of descriptors beside one line.
const MAX_FDS: usize = 4;
/// The number of bytes read from the socket at once.
const CHUNK: usize = 16 << 10;

/// One line and the descriptors received with it.
///
/// ```
/// fn told(line: &linecard_switch::api::Line) -> String {
///     format!("{} bytes, {} descriptors", line.bytes.len(), line.fds.len())
/// }
/// ```
#[derive(Debug)]
pub struct Line {
    /// The line without its newline.
    pub bytes: Vec<u8>,
    /// The descriptors, in the order in which they were received.
    pub fds: Vec<OwnedFd>,
}

/// Why there is no next line.
///
/// ```
/// use linecard_switch::api::LineError;
/// assert_eq!(LineError::TooLong.to_string(), "a line has at most 1048576 bytes");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The line is too long.
    #[error("a line has at most {MAX_LINE} bytes")]
    TooLong,
    /// More descriptors than any request takes.
    #[error("a line has at most {MAX_FDS} descriptors beside it")]
    TooManyFds,
    /// The peer closed the connection within a line.
    #[error("the other end closed the connection in the middle of a line")]
    Cut,
    /// Nothing was received before the timeout.
    #[error("nothing came in time")]
    Late,
    /// The error of the operating system.
    #[error("reading from the socket failed: {0}")]
    System(#[from] io::Error),
}

/// Receives lines from a socket.
///
/// ```
/// use std::os::{fd::AsFd, unix::net::UnixStream};
/// use linecard_switch::api::{Lines, send};
/// let (mut here, there) = UnixStream::pair()?;
/// send(here.as_fd(), b"hello\n", &[there.as_fd()])?;
/// let line = Lines::default().next(there.as_fd())?.expect("one");
/// assert_eq!((line.bytes.as_slice(), line.fds.len()), (&b"hello"[..], 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Lines {
    bytes: VecDeque<u8>,
    /// The number of leading bytes already searched for a newline.
    searched: usize,
    fds: Vec<OwnedFd>,
}

impl Lines {
    /// Returns whether a whole line has been received already.
    #[must_use]
    pub fn has_line(&self) -> bool {
        self.bytes.contains(&b'\n')
    }

    /// Waits for the next line; returns `None` if the peer closed the connection. On a socket with a read
    /// timeout the error is [`io::ErrorKind::WouldBlock`].
    ///
    /// # Errors
    /// No further line can be received. After any error but `WouldBlock` the connection cannot be used any
    /// more.
    pub fn next(&mut self, socket: BorrowedFd<'_>) -> Result<Option<Line>, LineError> {
        loop {
            let end = self.bytes.iter().skip(self.searched).position(|byte| *byte == b'\n');
            if let Some(end) = end.map(|end| end + self.searched) {
                let bytes: Vec<u8> = self.bytes.drain(..=end).take(end).collect();
                self.searched = 0;
                return Ok(Some(Line { bytes, fds: std::mem::take(&mut self.fds) }));
            }
            self.searched = self.bytes.len();
            if self.searched >= MAX_LINE {
                return Err(LineError::TooLong);
            }
            match self.read(socket)? {
                0 if self.bytes.is_empty() => return Ok(None),
                0 => return Err(LineError::Cut),
                _ => {}
            }
        }
    }

    /// Reads some bytes and the descriptors received with them.
    fn read(&mut self, socket: BorrowedFd<'_>) -> Result<usize, LineError> {
        let mut chunk = [0; CHUNK];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS + 1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let room = CHUNK.min(MAX_LINE - self.bytes.len());
        let mut into = [IoSliceMut::new(&mut chunk[..room])];
        let got = loop {
            match rustix::net::recvmsg(socket, &mut into, &mut beside, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.map_err(io::Error::from)?,
            }
        };
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if self.fds.len() > MAX_FDS {
            return Err(LineError::TooManyFds);
        }
        self.bytes.extend(&chunk[..got.bytes]);
        Ok(got.bytes)
    }
}

/// Sends the whole `line`, with `fds` beside its first byte.
///
/// # Errors
/// Returns the error of the operating system; `WouldBlock` after a write timeout.
pub fn send(socket: BorrowedFd<'_>, line: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let fds = fds.get(..MAX_FDS).unwrap_or(fds);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        beside.push(SendAncillaryMessage::ScmRights(fds));
    }
    let mut rest = line;
    while !rest.is_empty() {
        match rustix::net::sendmsg(socket.as_fd(), &[IoSlice::new(rest)], &mut beside, SendFlags::NOSIGNAL) {
            Ok(sent) => {
                rest = rest.get(sent..).unwrap_or_default();
                beside.clear();
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
