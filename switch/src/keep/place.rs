//! The place of one port: a socket whose queue holds the state of the port.
//!
//! ```text
//!   ┌──────┬────────┬───────┐
//!   │ head │ record │ state │   descriptors beside it, first the file that says whether this is valid; more than
//!   └──────┴────────┴───────┘   250 follow beside further heads
//! ```

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use linecard_pmd::handover::{HandedOver, Keep};
use rustix::fs::MemfdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::store::Free;
use super::{FORMAT, Record};
use crate::upgrade::PortRecord;

/// The first four bytes of every message.
const MAGIC: u32 = u32::from_ne_bytes(*b"LCKP");
/// The words of a head: magic, format, number of this message, number of messages, bytes of the record, bytes
/// of the state, descriptors of all messages.
const WORDS: usize = 7;
const HEAD: usize = WORDS * size_of::<u32>();
/// The maximum number of descriptors beside a message; must not exceed `SCM_MAX_FD`.
const FDS_AT_ONCE: usize = 250;
/// The maximum number of bytes of a message; by default a socket does not take more either.
const MOST_BYTES: usize = 200 << 10;
/// The maximum number of messages: enough for a port with 128 queue pairs and 509 regions, plus one.
const MOST_MESSAGES: usize = 8;
/// The content of the file while the state in the place is valid.
const SETTLED: u8 = 1;

/// Both ends of a socket, and the file that says whether the state in it is valid.
#[derive(Debug)]
pub(super) struct Ends {
    into: OwnedFd,
    /// The end of which the service manager holds a duplicate.
    pub(super) held: OwnedFd,
    settled: OwnedFd,
}

impl Ends {
    pub(super) fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (into, held) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let settled = rustix::fs::memfd_create("linecard-kept", MemfdFlags::CLOEXEC)?;
        Ok(Self { into, held, settled })
    }

    fn say(&self, settled: u8) -> io::Result<()> {
        rustix::io::pwrite(&self.settled, &[settled], 0)?;
        Ok(())
    }

    /// Empties the socket, and returns the descriptors that were in it.
    pub(super) fn drain(&self) -> Vec<OwnedFd> {
        let mut fds = Vec::new();
        while let Ok(Some(message)) = receive(self.held.as_fd()) {
            fds.extend(message.fds);
        }
        fds
    }
}

/// The place where one port is kept.
pub(super) struct Place {
    ends: Option<Ends>,
    record: Vec<u8>,
    free: Weak<Free>,
}

impl Place {
    pub(super) fn new(ends: Ends, record: &Record, free: &Arc<Free>) -> io::Result<Self> {
        Ok(Self { ends: Some(ends), record: serde_json::to_vec(record)?, free: Arc::downgrade(free) })
    }

    fn ends(&self) -> io::Result<&Ends> {
        self.ends.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Keep for Place {
    fn unsettle(&self) -> io::Result<()> {
        self.ends()?.say(0)
    }

    fn settle(&self) -> io::Result<()> {
        self.ends()?.say(SETTLED)
    }

    fn keep(&self, state: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<Vec<OwnedFd>> {
        let ends = self.ends()?;
        // A process that is killed between two messages leaves invalid state.
        ends.say(0)?;
        let earlier = ends.drain();
        let all: Vec<_> = std::iter::once(ends.settled.as_fd()).chain(descriptors.iter().copied()).collect();
        let parts = all.chunks(FDS_AT_ONCE);
        let count = parts.len();
        let too_long = HEAD + self.record.len() + state.len() > MOST_BYTES || count > MOST_MESSAGES;
        if too_long {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is more than can be kept"));
        }
        for (part, fds) in parts.enumerate() {
            let words = [
                MAGIC,
                FORMAT,
                part as u32,
                count as u32,
                self.record.len() as u32,
                state.len() as u32,
                all.len() as u32,
            ];
            let head: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let content: &[&[u8]] = if part == 0 { &[&head, &self.record, state] } else { &[&head] };
            send(ends.into.as_fd(), content, fds)?;
        }
        Ok(earlier)
    }

    fn forget(&self) -> Vec<OwnedFd> {
        self.ends.as_ref().map(Ends::drain).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        close_elsewhere(ends.drain());
        if let Some(free) = self.free.upgrade() {
            free.give_back(ends);
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// Closes descriptors in a thread for which nothing waits: their sender may make closing take long.
pub(super) fn close_elsewhere(fds: Vec<OwnedFd>) {
    if !fds.is_empty() {
        // If no thread can be started, the closure is dropped and closes them here: there is no alternative.
        let _ = std::thread::Builder::new().name("lc-close".into()).spawn(move || drop(fds));
    }
}

/// Sends one message with descriptors, as a whole or not at all.
pub(super) fn send(to: BorrowedFd<'_>, content: &[&[u8]], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_AT_ONCE))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors at once"));
    }
    let pieces: Vec<_> = content.iter().map(|piece| IoSlice::new(piece)).collect();
    rustix::io::retry_on_intr(|| rustix::net::sendmsg(to, &pieces, &mut beside, SendFlags::NOSIGNAL))?;
    Ok(())
}

struct Message {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// The message was truncated.
    cut: bool,
}

/// Receives the next message; returns `None` if there is none.
fn receive(from: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut bytes = vec![0; MOST_BYTES + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_AT_ONCE + 3))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = match rustix::io::retry_on_intr(|| rustix::net::recvmsg(from, &mut into, &mut beside, flags)) {
        Err(rustix::io::Errno::AGAIN) => return Ok(None),
        other => other?,
    };
    let fds: Vec<OwnedFd> = beside
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    // The other end is closed.
    if got.bytes == 0 && fds.is_empty() {
        return Ok(None);
    }
    bytes.truncate(got.bytes);
    let cut = got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok(Some(Message { bytes, fds, cut }))
}

/// Why kept state cannot be used.
///
/// ```
/// use linecard_switch::keep::UnusableState;
/// assert_eq!(UnusableState::Unsettled.to_string(), "its process was killed in the middle of a request");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableState {
    /// The kept state was not valid when the process was killed.
    #[error("its process was killed in the middle of a request")]
    Unsettled,
    /// The state was kept by another version.
    #[error("it is kept in format {0}, and this switch reads format {FORMAT}")]
    Format(u32),
    /// The state was not written by a switch.
    #[error("what was kept cannot be read: {0}")]
    Malformed(String),
}

/// The kept state of a switch.
#[derive(Debug, Default)]
pub struct Kept {
    /// The ports.
    pub ports: Vec<KeptPort>,
    /// The control socket, with device and inode of its path.
    pub control: Option<(OwnedFd, Option<(u64, u64)>)>,
    /// The addresses, for [`Switch::recover`](crate::Switch::recover).
    pub addresses: Option<OwnedFd>,
    /// Why further state cannot be used.
    pub unfit: Vec<UnusableState>,
}

impl Kept {
    /// Adds the state in `place`, and removes it from there.
    pub(super) fn add(&mut self, place: BorrowedFd<'_>) {
        match read(place) {
            Ok(None) => {}
            Ok(Some((Record::Port(record), handed))) => self.ports.push(KeptPort { record, handed }),
            Ok(Some((Record::Control { name }, handed))) => match handed.descriptors.into_iter().next() {
                Some(listener) => self.control = Some((listener, name)),
                None => self.unfit.push(UnusableState::Malformed("the control socket is missing".into())),
            },
            Ok(Some((Record::Addresses, handed))) => self.addresses = handed.descriptors.into_iter().next(),
            Err(unfit) => self.unfit.push(unfit),
        }
    }
}

/// A kept port.
#[derive(Debug)]
pub struct KeptPort {
    pub(crate) record: PortRecord,
    pub(crate) handed: HandedOver,
}

impl KeptPort {
    /// Discards the port, which disconnects its peer.
    pub fn close(self) {
        close_elsewhere(self.handed.descriptors);
    }

    /// Returns the parameters of the port, as `port.add` takes them.
    #[must_use]
    pub fn spec(&self) -> &serde_json::Value {
        &self.record.spec
    }
}

/// Reads the state in a place; `None` if the place is empty.
fn read(place: BorrowedFd<'_>) -> Read {
    let mut messages = Vec::new();
    while let Some(message) = receive(place).map_err(|error| UnusableState::Malformed(error.to_string()))? {
        // Further messages are removed all the same.
        if messages.len() <= MOST_MESSAGES {
            messages.push(message);
        }
    }
    let fds = messages.iter_mut().flat_map(|message| std::mem::take(&mut message.fds)).collect();
    let (read, fds) = check(&messages, fds);
    close_elsewhere(fds);
    read
}

/// The state of one place, if any.
type Read = Result<Option<(Record, HandedOver)>, UnusableState>;

/// The state, and descriptors that are of no use.
fn check(messages: &[Message], fds: Vec<OwnedFd>) -> (Read, Vec<OwnedFd>) {
    match parse(messages, &fds) {
        Ok(None) => (Ok(None), fds),
        Ok(Some((record, state))) => {
            // The first says whether the state is valid.
            let descriptors = fds.into_iter().skip(1).collect();
            (Ok(Some((record, HandedOver { state, descriptors }))), Vec::new())
        }
        Err(unfit) => (Err(unfit), fds),
    }
}

/// The record and the state, if they are valid.
fn parse(messages: &[Message], fds: &[OwnedFd]) -> Result<Option<(Record, Vec<u8>)>, UnusableState> {
    let malformed = |what: &str| UnusableState::Malformed(what.into());
    let Some(first) = messages.first() else { return Ok(None) };
    let words = words(&first.bytes).ok_or_else(|| malformed("a message is shorter than its head"))?;
    let [magic, format, _, count, record, state, beside] = words;
    if magic != MAGIC {
        return Err(malformed("a message does not begin as one"));
    }
    if format != FORMAT {
        return Err(UnusableState::Format(format));
    }
    let whole = messages.len() == count as usize
        && (0..).zip(messages).all(|(part, message): (u32, _)| {
            !message.cut
                && self::words(&message.bytes) == Some([magic, format, part, count, record, state, beside])
        });
    if !whole {
        return Err(malformed("messages are missing or do not belong together"));
    }
    let content = first.bytes.get(HEAD..).unwrap_or_default();
    let split = content.split_at_checked(record as usize).filter(|(_, rest)| rest.len() == state as usize);
    let (text, rest) = split.ok_or_else(|| malformed("a message is not as long as it says"))?;
    let parsed = serde_json::from_slice(text).map_err(|error| UnusableState::Malformed(error.to_string()))?;
    let settled = fds.first().filter(|_| fds.len() == beside as usize);
    let settled = settled.ok_or_else(|| malformed("descriptors are missing"))?;
    let mut says = [0];
    match rustix::io::pread(settled, &mut says, 0) {
        Ok(1) if says == [SETTLED] => Ok(Some((parsed, rest.to_vec()))),
        Ok(_) => Err(UnusableState::Unsettled),
        Err(error) => Err(UnusableState::Malformed(error.to_string())),
    }
}

fn words(bytes: &[u8]) -> Option<[u32; WORDS]> {
    let head = bytes.get(..HEAD)?;
    let mut words =
        head.chunks_exact(size_of::<u32>()).map(|word| word.try_into().map_or(0, u32::from_ne_bytes));
    Some(std::array::from_fn(|_| words.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests;
