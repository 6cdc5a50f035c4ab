//! A message: header, payload, file descriptors.

use std::os::fd::BorrowedFd;

use crate::descriptor::PeerFd;
use crate::error::Error;
use crate::{BackendReq, FrontendReq};

/// The length of a header in bytes.
pub const HEADER_LEN: usize = 12;
/// The largest payload in bytes; a header that announces more ends the connection.
pub const MAX_PAYLOAD: usize = vhost::vhost_user::message::MAX_MSG_SIZE;
/// The maximum number of file descriptors kept of one message. The kernel transfers up to 253; the rest are
/// closed.
pub const MAX_FDS: usize = vhost::vhost_user::message::MAX_ATTACHED_FD_ENTRIES;
/// The only protocol version, in bits 0-1 of the flags.
pub const VERSION: u32 = 1;
/// Flag: this message answers a request.
pub const REPLY: u32 = 1 << 2;
/// Flag: the sender wants an answer (`REPLY_ACK`).
pub const NEED_REPLY: u32 = 1 << 3;

const VERSION_MASK: u32 = 3;

/// The 12-byte header of every message.
///
/// ```
/// use linecard_wire::{Header, VERSION};
/// let header = Header { request: 1, flags: VERSION, size: 0 };
/// assert_eq!(Header::decode(header.encode())?, header);
/// # Ok::<(), linecard_wire::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Request code.
    pub request: u32,
    /// Version and flag bits.
    pub flags: u32,
    /// Payload length in bytes.
    pub size: u32,
}

impl Header {
    /// Encodes the header as bytes.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        for (bytes, word) in out.chunks_exact_mut(4).zip([self.request, self.flags, self.size]) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        out
    }

    /// Decodes a header, and checks its version and payload length.
    ///
    /// # Errors
    /// [`Error::Version`], [`Error::TooLong`].
    pub fn decode(bytes: [u8; HEADER_LEN]) -> Result<Self, Error> {
        let [r0, r1, r2, r3, f0, f1, f2, f3, s0, s1, s2, s3] = bytes;
        let header = Self {
            request: u32::from_ne_bytes([r0, r1, r2, r3]),
            flags: u32::from_ne_bytes([f0, f1, f2, f3]),
            size: u32::from_ne_bytes([s0, s1, s2, s3]),
        };
        let (request, size) = (header.request, header.size);
        if header.flags & VERSION_MASK != VERSION {
            return Err(Error::Version { request, got: header.flags & VERSION_MASK });
        }
        if size as usize > MAX_PAYLOAD {
            return Err(Error::TooLong { request, size, max: MAX_PAYLOAD });
        }
        Ok(header)
    }
}

/// A received message; dropping it closes its file descriptors.
///
/// See the [crate] example.
#[derive(Debug)]
pub struct Message {
    /// Request code ([`FrontendReq`] or [`BackendReq`], or an unknown one).
    pub request: u32,
    /// Version and flag bits.
    pub flags: u32,
    /// Payload bytes, at most [`MAX_PAYLOAD`].
    pub payload: Vec<u8>,
    /// File descriptors in the order they were sent, close-on-exec, at most [`MAX_FDS`].
    pub fds: Vec<PeerFd>,
    /// File descriptors beyond [`MAX_FDS`], which were closed.
    pub surplus_fds: usize,
}

impl Message {
    /// Whether this is a reply.
    pub fn is_reply(&self) -> bool {
        self.flags & REPLY != 0
    }

    /// Whether the sender wants an answer.
    pub fn needs_reply(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }
}

/// A message to send; its file descriptors are borrowed and stay with the caller.
///
/// See the [crate] example.
#[derive(Clone, Copy, Debug)]
pub struct OutMessage<'a> {
    /// Request code.
    pub request: u32,
    /// Flag bits; the version is added.
    pub flags: u32,
    /// Payload bytes, at most [`MAX_PAYLOAD`].
    pub payload: &'a [u8],
    /// File descriptors, at most [`MAX_FDS`].
    pub fds: &'a [BorrowedFd<'a>],
}

impl<'a> OutMessage<'a> {
    /// A frontend's request without file descriptors.
    pub const fn request(request: FrontendReq, payload: &'a [u8]) -> Self {
        Self { request: request as u32, flags: 0, payload, fds: &[] }
    }

    /// A backend's request without file descriptors (on the channel of `SET_BACKEND_REQ_FD`).
    pub const fn backend_request(request: BackendReq, payload: &'a [u8]) -> Self {
        Self { request: request as u32, flags: 0, payload, fds: &[] }
    }

    /// The reply to a request with the code `request`.
    pub const fn reply(request: u32, payload: &'a [u8]) -> Self {
        Self { request, flags: REPLY, payload, fds: &[] }
    }

    /// The same message, with a request for an answer.
    #[must_use]
    pub const fn need_reply(self) -> Self {
        Self { flags: self.flags | NEED_REPLY, ..self }
    }

    /// The same message with file descriptors.
    #[must_use]
    pub const fn with_fds(self, fds: &'a [BorrowedFd<'a>]) -> Self {
        Self { fds, ..self }
    }

    /// Encodes header and payload in one buffer.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        let size = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        if self.payload.len() > MAX_PAYLOAD {
            return Err(Error::TooLong { request: self.request, size, max: MAX_PAYLOAD });
        }
        if self.fds.len() > MAX_FDS {
            let (got, max) = (self.fds.len() as u64, MAX_FDS as u64);
            return Err(Error::PayloadField { what: "message", field: "file descriptors", got, max });
        }
        let flags = (self.flags & !VERSION_MASK) | VERSION;
        let mut bytes = Header { request: self.request, flags, size }.encode().to_vec();
        bytes.extend_from_slice(self.payload);
        Ok(bytes)
    }
}
