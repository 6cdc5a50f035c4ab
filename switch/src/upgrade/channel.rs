//! Messages between two switches, on the Unix stream socket over which the upgrade was requested.
//!
//! ```text
//!   ┌──────┬─────────────┬─────────────────┐
//!   │ head │ JSON        │ bytes           │   descriptors beside the head; those beyond 253 beside one byte per 253
//!   └──────┴─────────────┴─────────────────┘
//! ```
//! The other end may be of another version, or not a switch at all: every length and number has a limit that
//! is checked before anything is read, and a message that is not fully understood ends the upgrade.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{PortCounters, Problem};
use crate::span::Session;

/// The first four bytes of every message.
const MAGIC: u32 = u32::from_ne_bytes(*b"LCUP");
/// The words of a head: magic, bytes of JSON, bytes after it, descriptors.
const WORDS: usize = 4;
const HEAD: usize = WORDS * size_of::<u32>();
/// The maximum number of bytes of JSON: the description of a port may have a megabyte.
const MOST_JSON: usize = 2 << 20;
/// The maximum number of bytes after the JSON.
const MOST_BYTES: usize = 1 << 20;
/// The maximum number of descriptors: a port with 128 queue pairs and 509 regions has 1282.
const MOST_FDS: usize = 2048;
/// How long to poll for the other end without sleeping while every microsecond counts.
const URGENT: Duration = Duration::from_micros(200);
/// The maximum number of descriptors beside one write (`SCM_MAX_FD`).
const FDS_AT_ONCE: usize = 253;

/// Why an upgrade cannot go on.
///
/// ```
/// use linecard_switch::upgrade::UpgradeError;
/// assert_eq!(UpgradeError::Ended.to_string(), "the other switch ended the upgrade");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The other end closed the connection, or has ended.
    #[error("the other switch ended the upgrade")]
    Ended,
    /// The other end did not send the expected message in time.
    #[error("the other switch did not answer in time")]
    Late,
    /// The other end sent an invalid message.
    #[error("the other switch said what cannot be understood: {0}")]
    Malformed(String),
    /// One of the two refused.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// The error of the operating system.
    #[error("the connection between the two switches failed: {0}")]
    System(#[source] io::Error),
}

impl From<io::Error> for UpgradeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Late,
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Ended,
            _ => Self::System(error),
        }
    }
}

/// A port of the predecessor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PortRecord {
    pub(crate) id: u16,
    /// The parameters of the port, as `port.add` takes them.
    pub(crate) spec: Value,
    /// The port was added by request.
    pub(crate) kept: bool,
    /// The port has a device; otherwise it waits for something it needs to open one.
    pub(crate) open: bool,
    /// The device is handed over: its state follows, its descriptors are beside the message.
    pub(crate) handed: bool,
    /// The workers that poll its receive queues.
    pub(crate) workers: Vec<usize>,
}

/// The data of a port that is final only when the port is frozen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PortMoved {
    pub(crate) id: u16,
    pub(crate) counters: PortCounters,
    /// The number of frames received from each receive queue.
    pub(crate) queues: Vec<u64>,
}

/// The messages of both sides, in the order of the table in [`super`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum Message {
    /// From the successor: it has read the answer to its request, and messages follow.
    Hello,
    /// From the predecessor: its identity, the number of ports that follow, and the mirroring sessions.
    /// Earlier versions have no sessions.
    Switch {
        version: String,
        pid: u32,
        ports: usize,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        spans: Vec<Session>,
    },
    /// A port; the state of its device follows.
    Port(PortRecord),
    /// Addresses, which follow.
    Addresses,
    /// The control socket, beside this; device and inode of its path.
    Control { name: Option<(u64, u64)> },
    /// All of the first part has been sent.
    Prepare,
    /// The successor is ready for the rest.
    Prepared,
    /// The predecessor has moved no frames since `nanos` of the monotonic clock; its table's clock shows
    /// `seconds`.
    Frozen { nanos: u64, seconds: u32 },
    /// A frozen port; the state of its device follows.
    Moved(PortMoved),
    /// All of the rest has been sent.
    Begin,
    /// The successor's rings are at the predecessor's positions.
    Ready,
    /// The point of no return: everything belongs to the successor.
    Go,
    /// The successor moves frames from here on.
    Started,
    /// One of the two does not go on.
    Refused { problem: Problem },
}

/// A message, its bytes and its descriptors.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) message: Message,
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// One end of the connection.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: UnixStream,
    urgent: AtomicBool,
}

impl Channel {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { socket, urgent: AtomicBool::new(false) }
    }

    /// Polls for messages without sleeping from here on, for [`URGENT`] at first: no frame passes meanwhile.
    pub(crate) fn set_urgent(&self, urgent: bool) {
        self.urgent.store(urgent, Ordering::Relaxed);
    }

    /// Sets how long the other end may take for each message; `None` means without limit.
    pub(crate) fn set_patience(&self, patience: Option<Duration>) -> Result<(), UpgradeError> {
        self.socket.set_read_timeout(patience)?;
        Ok(self.socket.set_write_timeout(patience)?)
    }

    pub(crate) fn say(&self, message: &Message) -> Result<(), UpgradeError> {
        self.send(message, &[], &[])
    }

    pub(crate) fn send(
        &self,
        message: &Message,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), UpgradeError> {
        let json = serde_json::to_vec(message).map_err(|error| UpgradeError::Malformed(error.to_string()))?;
        if json.len() > MOST_JSON || bytes.len() > MOST_BYTES || fds.len() > MOST_FDS {
            return Err(UpgradeError::Malformed("a message is too long to be sent".into()));
        }
        let words = [MAGIC, json.len() as u32, bytes.len() as u32, fds.len() as u32];
        let head: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let (first, rest) = fds.split_at(fds.len().min(FDS_AT_ONCE));
        self.write(&head, first)?;
        for fds in rest.chunks(FDS_AT_ONCE) {
            self.write(b"+", fds)?;
        }
        self.write(&[&json, bytes].concat(), &[])
    }

    fn write(&self, mut bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), UpgradeError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_AT_ONCE))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(UpgradeError::Malformed("too many descriptors at once".into()));
        }
        while !bytes.is_empty() {
            let piece = [IoSlice::new(bytes)];
            match rustix::net::sendmsg(self.socket.as_fd(), &piece, &mut beside, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    bytes = bytes.get(sent..).unwrap_or_default();
                    beside.clear();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(())
    }

    /// Receives the next message; a [refusal](Message::Refused) is an error.
    pub(crate) fn receive(&self) -> Result<Received, UpgradeError> {
        let malformed = |what: &str| Err(UpgradeError::Malformed(what.into()));
        let mut fds = Vec::new();
        let mut head = [0; HEAD];
        self.read(&mut head, &mut fds)?;
        let mut words = head
            .chunks_exact(size_of::<u32>())
            .map(|word| u32::from_ne_bytes(word.try_into().unwrap_or_default()) as usize);
        let [magic, json, bytes, count] = std::array::from_fn(|_| words.next().unwrap_or_default());
        if magic != MAGIC as usize {
            return malformed("a message does not begin as one");
        }
        if json > MOST_JSON || bytes > MOST_BYTES || count > MOST_FDS {
            return malformed("a message is longer than any");
        }
        while fds.len() < count {
            let had = fds.len();
            self.read(&mut [0], &mut fds)?;
            if fds.len() == had {
                return malformed("descriptors are missing");
            }
        }
        let mut text = vec![0; json];
        self.read(&mut text, &mut fds)?;
        let mut content = vec![0; bytes];
        self.read(&mut content, &mut fds)?;
        if fds.len() != count {
            return malformed("a message has more descriptors than it says");
        }
        match serde_json::from_slice(&text) {
            Ok(Message::Refused { problem }) => Err(problem.into()),
            Ok(message) => Ok(Received { message, bytes: content, fds }),
            Err(error) => malformed(&error.to_string()),
        }
    }

    /// Receives the next message, and checks that it is `want` without bytes and descriptors.
    pub(crate) fn expect(&self, want: &Message) -> Result<(), UpgradeError> {
        let Received { message, bytes, fds } = self.receive()?;
        if message == *want && bytes.is_empty() && fds.is_empty() {
            return Ok(());
        }
        Err(UpgradeError::Malformed(format!("{want:?} was due")))
    }

    /// Waits until the other end has closed its descriptors and the connection.
    pub(crate) fn wait_for_end(&self) {
        let _ = self.receive();
    }

    /// Fills `bytes`, and collects the descriptors beside them.
    fn read(&self, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<(), UpgradeError> {
        let mut at = 0;
        let mut urgent = self.urgent.load(Ordering::Relaxed).then(Instant::now);
        while at < bytes.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_AT_ONCE))];
            let mut beside = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(bytes.get_mut(at..).unwrap_or_default())];
            urgent = urgent.filter(|since| since.elapsed() < URGENT);
            let waits = if urgent.is_some() { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
            let flags = RecvFlags::CMSG_CLOEXEC | waits;
            let got = match rustix::net::recvmsg(self.socket.as_fd(), &mut into, &mut beside, flags) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) if urgent.is_some() => {
                    std::hint::spin_loop();
                    continue;
                }
                other => other.map_err(io::Error::from)?,
            };
            for message in beside.drain() {
                if let RecvAncillaryMessage::ScmRights(came) = message {
                    fds.extend(came);
                }
            }
            if got.flags.contains(ReturnFlags::CTRUNC) {
                let problem = "descriptors were lost; allow this process more of them (ulimit -n)";
                return Err(UpgradeError::Malformed(problem.into()));
            }
            if fds.len() > MOST_FDS {
                return Err(UpgradeError::Malformed("more descriptors came than any message has".into()));
            }
            if got.bytes == 0 {
                return Err(UpgradeError::Ended);
            }
            at += got.bytes;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn pair() -> (Channel, Channel) {
        let (a, b) = UnixStream::pair().expect("sockets");
        let (a, b) = (Channel::new(a), Channel::new(b));
        for channel in [&a, &b] {
            channel.set_patience(Some(Duration::from_secs(60))).expect("a socket");
        }
        (a, b)
    }

    #[test]
    fn messages_arrive_with_all_that_belongs_to_them() {
        let (here, there) = pair();
        let (one, _other) = UnixStream::pair().expect("sockets");
        for (count, bytes) in [(0, 0), (1, 5), (253, 0), (254, 70_000), (600, 3)] {
            let message = Message::Frozen { nanos: 7, seconds: count };
            let fds = vec![one.as_fd(); count as usize];
            let bytes = vec![0x5a; bytes];
            std::thread::scope(|scope| {
                scope.spawn(|| here.send(&message, &bytes, &fds).expect("it is sent"));
                let got = there.receive().expect("it comes");
                assert_eq!(
                    (got.message, got.bytes, got.fds.len()),
                    (message.clone(), bytes.clone(), fds.len())
                );
            });
        }
        let problem = Problem::new(crate::api::Code::Unavailable, "no", "yes");
        here.say(&Message::Refused { problem }).expect("it is sent");
        assert_eq!(there.receive().expect_err("refused").to_string(), "no; yes");
        drop(here);
        assert!(matches!(there.receive(), Err(UpgradeError::Ended)));
    }

    #[test]
    fn nonsense_is_told_from_messages() {
        let head = |words: [u32; 4]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        for bytes in [
            head([1, 2, 0, 0]),
            head([MAGIC, u32::MAX, 0, 0]),
            head([MAGIC, 2, u32::MAX, 0]),
            head([MAGIC, 2, 0, u32::MAX]),
            [head([MAGIC, 2, 0, 1]), b"{}".to_vec()].concat(),
            [head([MAGIC, 2, 0, 0]), b"{}".to_vec()].concat(),
            [head([MAGIC, 15, 0, 0]), br#"{"what":"weep"}"#.to_vec()].concat(),
        ] {
            let (here, there) = pair();
            (&here.socket).write_all(&bytes).expect("it is sent");
            let problem = there.receive().expect_err("nonsense");
            assert!(matches!(problem, UpgradeError::Malformed(_)), "{problem}");
        }
        let (here, there) = pair();
        (&here.socket).write_all(&head([MAGIC, 2, 0, 0])[..9]).expect("it is sent");
        drop(here);
        assert!(matches!(there.receive(), Err(UpgradeError::Ended)));
        // More descriptors than are said.
        let (here, there) = pair();
        here.write(&head([MAGIC, 20, 0, 0]), &[there.socket.as_fd()]).expect("it is sent");
        here.write(br#"{"what":"prepared"}  "#.get(..20).expect("20"), &[]).expect("it is sent");
        assert!(matches!(there.receive(), Err(UpgradeError::Malformed(_))));
    }
}
