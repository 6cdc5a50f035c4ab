//! The client of a control socket, used by `linecard capture` and other programs that capture packets.

use std::io::{self, ErrorKind, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

use super::protocol::{self, Options, Totals};
use super::stream::Stream;
use super::{CaptureError, server};

/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The maximum length of an answer, enough for hundreds of rings.
const ANSWER: usize = 64 << 10;

/// A port that can be captured.
///
/// ```
/// use linecard_capture::Listed;
/// let port = Listed { id: 0, name: "net_null0".into(), rx_queues: 1, tx_queues: 1 };
/// assert_eq!(port.to_string(), "0. net_null0 (1 receive queue, 1 transmit queue)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The number of the port.
    pub id: u16,
    /// The name of the port.
    pub name: String,
    /// The number of receive queues.
    pub rx_queues: u16,
    /// The number of transmit queues.
    pub tx_queues: u16,
}

impl std::fmt::Display for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, name, rx_queues, tx_queues } = self;
        let queues = |n: u16| if n == 1 { "queue" } else { "queues" };
        let (rx, tx) = (queues(*rx_queues), queues(*tx_queues));
        write!(f, "{id}. {name} ({rx_queues} receive {rx}, {tx_queues} transmit {tx})")
    }
}

/// A connection to a running program; see [`Server`](super::Server). It captures at most one port, and
/// closing it ends the capture.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Whether a program listens at the path, or this cannot be determined.
pub(super) fn answers(path: &Path) -> bool {
    match connect(path) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound),
    }
}

impl Client {
    /// Connects to the control socket of a program.
    ///
    /// # Errors
    /// No program listens there, or the socket belongs to another user.
    pub fn connect(path: &Path) -> Result<Self, CaptureError> {
        let socket = connect(path).map_err(|source| {
            let action = format!("no program answers at {}", path.display());
            CaptureError::system(action, source, "start one, with ports, and as the same user")
        })?;
        Ok(Self { socket })
    }

    /// Returns the ports of the program.
    ///
    /// # Errors
    /// The program does not answer, or does not use this protocol.
    pub fn list(&self) -> Result<Vec<Listed>, CaptureError> {
        let (text, _) = self.ask("list\n")?;
        let line = |line: &str| {
            Some(Listed {
                id: protocol::number(line, "port")?,
                name: protocol::field(line, "name", true)?.to_owned(),
                rx_queues: protocol::number(line, "rx")?,
                tx_queues: protocol::number(line, "tx")?,
            })
        };
        text.lines().skip(1).map(line).collect::<Option<_>>().ok_or_else(strange)
    }

    /// Starts to capture a port.
    ///
    /// # Errors
    /// The error that the program reports.
    pub fn capture(&self, port: u16, options: &Options) -> Result<Stream, CaptureError> {
        options.check()?;
        let (text, file) = self.ask(&options.request(port))?;
        let file = file.ok_or_else(strange)?;
        let places = protocol::places(&text).filter(|places| !places.is_empty()).ok_or_else(strange)?;
        Stream::attach(&file, &places).map_err(|e| {
            CaptureError::system("the capture's memory cannot be mapped", e, "free memory and try again")
        })
    }

    /// Ends the capture. The rings can still be read.
    pub fn stop(&self) -> Option<Totals> {
        server::send(self.socket.as_fd(), "stop", None).ok()?;
        self.ended(PATIENCE)
    }

    /// Waits until the program reports the end of the capture, because its port was stopped. `None` if the
    /// program ended, which gives no totals, or on a timeout.
    pub fn ended(&self, within: Duration) -> Option<Totals> {
        let (text, _) = self.receive(within).ok()?;
        let seen = protocol::number(&text, "seen")?;
        Some(Totals { seen, lost: protocol::number(&text, "lost")? })
    }

    /// Whether the program has sent a message, which it does only at the end; waits for it up to `time`.
    #[must_use]
    pub fn wait(&self, time: Duration) -> bool {
        let mut entry = [PollFd::new(&self.socket, PollFlags::IN)];
        let time = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        poll(&mut entry, Some(&time)).is_ok_and(|ready| ready > 0)
    }

    fn ask(&self, text: &str) -> Result<(String, Option<OwnedFd>), CaptureError> {
        let lost =
            |source| CaptureError::system("the program does not answer", source, "see whether it still runs");
        server::send(self.socket.as_fd(), text, None).map_err(lost)?;
        let (text, file) = self.receive(PATIENCE).map_err(lost)?;
        match text.strip_prefix("error ") {
            Some(sentence) => Err(CaptureError::Refused(sentence.trim_end().into())),
            None if text.starts_with("ok") => Ok((text, file)),
            None => Err(strange()),
        }
    }

    fn receive(&self, within: Duration) -> io::Result<(String, Option<OwnedFd>)> {
        if !self.wait(within) {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut bytes = vec![0; ANSWER];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut extra = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let got = rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut extra, flags)?;
        let mut file = None;
        for message in extra.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                file = files.last();
            }
        }
        if got.bytes == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        bytes.truncate(got.bytes);
        Ok((String::from_utf8_lossy(&bytes).into_owned(), file))
    }
}

fn strange() -> CaptureError {
    CaptureError::Refused(
        "the program answers in another way than expected; use the version that it was built with".into(),
    )
}
