//! Route netlink (`linux/rtnetlink.h`): encodes requests and decodes answers, without unsafe code.
//!
//! A socket always belongs to the namespace in which it was opened. Its owner can query that namespace's
//! interfaces from any thread.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The bytes for an answer; the kernel splits a list to fit.
const ANSWER: usize = 64 << 10;
const HEADER: usize = 16;
/// The number of times that a list is requested if it changes meanwhile.
const ATTEMPTS: u32 = 16;

/// Requests an acknowledgement from the kernel (`NLM_F_ACK`).
pub const ACK: u16 = libc::NLM_F_ACK as u16;
pub(crate) const DUMP: u16 = libc::NLM_F_DUMP as u16;

/// A request: a header, a fixed body, attributes.
///
/// ```
/// use linecard_netdev::{Interface, Namespace, netlink::Request};
/// let lo = Interface::find("port", &Namespace::default(), "lo")?;
/// let request = Request::link(libc::RTM_GETLINK, 0, lo.index(), 0, 0);
/// assert_eq!(lo.ask(request).map(|answer| answer.len()).ok(), Some(1));
/// # Ok::<(), linecard_pmd::Error>(())
/// ```
#[derive(Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// Creates a request of `kind` (`RTM_…`) with flags besides `NLM_F_REQUEST`; `body` is the fixed part.
    #[must_use]
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        bytes.extend_from_slice(body);
        let mut request = Self(bytes);
        request.pad();
        request
    }

    /// Creates a request about the interface `index`: its body is an `ifinfomsg` that changes the interface's
    /// flags to `flags` in the bits of `change`.
    #[must_use]
    pub fn link(kind: u16, extra: u16, index: u32, flags: u32, change: u32) -> Self {
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8..12].copy_from_slice(&flags.to_ne_bytes());
        body[12..16].copy_from_slice(&change.to_ne_bytes());
        Self::new(kind, extra, &body)
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attribute(self, kind: u16, value: &[u8]) -> Self {
        self.nested(kind, |request| request.bytes(value))
    }

    /// Adds an attribute whose content `inside` adds.
    #[must_use]
    pub fn nested(mut self, kind: u16, inside: impl FnOnce(&mut Self)) -> Self {
        self.nest(kind, inside);
        self
    }

    /// Like [`nested`](Self::nested), inside another attribute.
    pub fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) {
        let at = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        inside(self);
        // Requests consist of constants and names; none comes near 64 KiB.
        let len = u16::try_from(self.0.len() - at).unwrap_or(u16::MAX);
        self.0[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self.pad();
    }

    /// Adds bytes inside an attribute.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(&mut self, sequence: u32) -> &[u8] {
        let len = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.0
    }
}

/// One message of an answer, without its header.
///
/// ```
/// use linecard_netdev::netlink::Message;
/// fn bytes(message: &Message) -> usize {
///     message.as_bytes().len()
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// Returns the whole message.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the fixed part, of `len` bytes.
    pub(crate) fn body(&self, len: usize) -> Option<&[u8]> {
        self.0.get(..len)
    }

    /// Returns the attributes after a fixed part of `len` bytes.
    pub(crate) fn attributes(&self, len: usize) -> Attributes<'_> {
        Attributes(self.0.get(len.next_multiple_of(4)..).unwrap_or_default())
    }
}

/// Attributes in memory, as (kind, value); ends at the first incomplete one.
#[derive(Clone, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (len, kind) = (u16_at(self.0, 0)?, u16_at(self.0, 2)?);
        let value = self.0.get(4..usize::from(len))?;
        self.0 = self.0.get(usize::from(len).next_multiple_of(4)..).unwrap_or_default();
        // The two top bits mean "nested" and "big endian".
        Some((kind & 0x3fff, value))
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A route netlink socket of the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    /// The list of the last answer changed while the kernel wrote it (`NLM_F_DUMP_INTR`).
    interrupted: bool,
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None, // NETLINK_ROUTE is protocol 0
        )?;
        Ok(Self { socket, sequence: 0, interrupted: false })
    }

    /// Sends `request` and waits for its complete answer, which the kernel gives at once. A list that changed
    /// while the kernel wrote it is requested again.
    pub(crate) fn ask(&mut self, mut request: Request) -> io::Result<Vec<Message>> {
        for _ in 0..ATTEMPTS {
            let answer = self.ask_once(&mut request)?;
            if !self.interrupted {
                return Ok(answer);
            }
        }
        Err(io::Error::other("the list changes faster than it can be read"))
    }

    fn ask_once(&mut self, request: &mut Request) -> io::Result<Vec<Message>> {
        self.sequence = self.sequence.wrapping_add(1);
        self.interrupted = false;
        let bytes = request.finish(self.sequence);
        let (dump, ack) = (has(bytes, DUMP), has(bytes, ACK));
        rustix::net::send(&self.socket, bytes, SendFlags::empty())?;
        let (mut answer, mut buffer) = (Vec::new(), vec![0; ANSWER]);
        loop {
            let (_, len) = match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::TRUNC) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result?,
            };
            let whole = buffer.get(..len).ok_or_else(|| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
            let ended = self.collect(whole, &mut answer)?;
            if ended || !(dump || ack || answer.is_empty()) {
                return Ok(answer);
            }
        }
    }

    /// Collects the messages of a datagram; returns true if the last one was among them.
    fn collect(&mut self, mut bytes: &[u8], answer: &mut Vec<Message>) -> io::Result<bool> {
        while let (Some(len), Some(kind), Some(sequence)) =
            (u32_at(bytes, 0), u16_at(bytes, 4), u32_at(bytes, 8))
        {
            let len = len as usize;
            let Some(body) = bytes.get(HEADER..len) else { break };
            let interrupted = has(bytes, libc::NLM_F_DUMP_INTR as u16);
            bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
            if sequence != self.sequence {
                continue; // the rest of an abandoned answer
            }
            self.interrupted |= interrupted;
            match i32::from(kind) {
                libc::NLMSG_ERROR => {
                    let code = u32_at(body, 0).unwrap_or_default().cast_signed();
                    return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                libc::NLMSG_DONE => return Ok(true),
                _ => answer.push(Message(body.to_vec())),
            }
        }
        Ok(false)
    }
}

fn has(request: &[u8], flags: u16) -> bool {
    u16_at(request, 6).is_some_and(|set| set & flags == flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of this kind, with the sequence number of its request.
    fn message(kind: i32, flags: i32, request: &[u8], body: u8) -> Vec<u8> {
        let mut message = Request::new(kind as u16, 0, &[body; 4]);
        message.finish(u32_at(request, 8).expect("whole"));
        message.0[6..8].copy_from_slice(&(flags as u16).to_ne_bytes());
        message.0
    }

    #[test]
    fn a_list_that_changed_meanwhile_is_read_again() {
        let flags = SocketFlags::CLOEXEC;
        let (socket, kernel) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a pair");
        let mut netlink = Netlink { socket, sequence: 0, interrupted: false };
        let intr = libc::NLM_F_DUMP_INTR;
        // Told by an entry, told at the end, and not told.
        let answers = [(intr, 0), (0, intr), (0, 0)];
        let serve = std::thread::spawn(move || {
            for (number, (entry, end)) in (1..).zip(answers) {
                let mut request = [0; 64];
                let (_, len) =
                    rustix::net::recv(&kernel, &mut request[..], RecvFlags::empty()).expect("asked");
                let request = &request[..len];
                let answer = [
                    message(libc::RTM_NEWADDR.into(), entry, request, number),
                    message(libc::NLMSG_DONE, end, request, 0),
                ];
                rustix::net::send(&kernel, &answer.concat(), SendFlags::empty()).expect("room");
            }
        });
        let answer = netlink.ask(Request::new(libc::RTM_GETADDR, DUMP, &[0; 8])).expect("the third");
        assert_eq!(answer.iter().map(Message::as_bytes).collect::<Vec<_>>(), [[3; 4]]);
        serve.join().expect("no panic");
    }
}
