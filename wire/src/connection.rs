//! A connection that transfers whole messages and never blocks.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::descriptor::{Closer, PeerFd, Socket};
use crate::error::Error;
use crate::ledger::Charge;
use crate::message::{HEADER_LEN, Header, MAX_FDS, Message, OutMessage};
use crate::sys;

/// The bytes queued for a peer that does not read. At more, the connection ends.
const MAX_BACKLOG: usize = 64 * 1024;

/// A partially read message.
#[derive(Default)]
struct Partial {
    header_bytes: [u8; HEADER_LEN],
    header: Option<Header>,
    payload: Vec<u8>,
    /// The bytes of header and payload received so far.
    got: usize,
    fds: Vec<PeerFd>,
    surplus_fds: usize,
    since: Option<Instant>,
}

/// The rest of a message for which the socket had no room.
struct Queued {
    bytes: Vec<u8>,
    sent: usize,
    /// Duplicates, charged to the port.
    fds: Vec<PeerFd>,
}

/// One end of a vhost-user connection.
///
/// Reading resumes at any byte, and never reads beyond the current message, so descriptors stay with the
/// message with which they were sent. Data for which the socket has no room is queued in order until
/// [`Connection::flush`]. See the [crate] example.
///
/// Descriptors that are sent are charged to the port's account, as received ones are, from
/// [`send`](Self::send) until the peer has taken everything that was sent, or has closed its end, even if this
/// value is dropped before: the kernel counts them for the user of this process (`ETOOMANYREFS`).
pub struct Connection {
    socket: Socket,
    partial: Partial,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
}

impl Connection {
    /// Uses a connected socket and makes it non-blocking.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn new(socket: UnixStream) -> Result<Self, Error> {
        let closer = Closer::alone().map_err(|source| Error::System { action: "serving", source })?;
        Self::of(socket, &closer)
    }

    /// As [`new`](Self::new), for a port whose connections share `closer` and are charged to it.
    ///
    /// # Errors
    /// [`Error::System`], [`Error::Limit`].
    pub fn of(socket: UnixStream, closer: &Closer) -> Result<Self, Error> {
        let socket = Socket::new(socket, closer)?;
        let set = socket.set_nonblocking(true).and_then(|()| sys::keep_urgent_inline(socket.as_fd()));
        set.map_err(|source| Error::System { action: "setting up", source })?;
        Ok(Self { socket, partial: Partial::default(), queue: VecDeque::new(), queued_bytes: 0 })
    }

    /// Uses a socket that came with a message, such as the channel of `SET_BACKEND_REQ_FD`. It stays charged
    /// as before. If it is not a connected Unix stream socket, it is closed, and the result is `None`.
    ///
    /// ```
    /// use std::os::fd::AsFd;
    /// use std::os::unix::net::UnixStream;
    /// use linecard_wire::{Connection, FrontendReq, OutMessage};
    /// let (a, b) = UnixStream::pair()?;
    /// let (mut frontend, mut backend) = (Connection::new(a)?, Connection::new(b)?);
    /// let (ours, theirs) = UnixStream::pair()?;
    /// frontend.send(&OutMessage::request(FrontendReq::SET_BACKEND_REQ_FD, &[]).with_fds(&[theirs.as_fd()]))?;
    /// let mut message = backend.read()?.expect("it was sent");
    /// let channel = message.fds.pop().and_then(Connection::adopt);
    /// assert!(channel.is_some());
    /// # drop(ours);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn adopt(fd: PeerFd) -> Option<Self> {
        // Checked first, because the kernel answers this alone, for any kind of file.
        if !sys::is_stream(fd.as_fd()) || !sys::has_peer(fd.as_fd()) {
            return None;
        }
        let socket = Socket::adopt(fd);
        // Each call specifies that it must not block: the sender of the socket may change its flags at any
        // time.
        Some(Self { socket, partial: Partial::default(), queue: VecDeque::new(), queued_bytes: 0 })
    }

    /// Returns the next whole message, or `None` if the rest of it has not arrived yet.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Truncated`], [`Error::Version`], [`Error::TooLong`], [`Error::FdsLost`],
    /// [`Error::Limit`], [`Error::PayloadField`], [`Error::System`]. After any of them the connection is
    /// unusable.
    pub fn read(&mut self) -> Result<Option<Message>, Error> {
        loop {
            if let Some(message) = self.partial.finished() {
                return Ok(Some(message));
            }
            if !self.receive()? {
                return Ok(None);
            }
        }
    }

    /// Calls `recvmsg` once for the missing bytes. Returns `false` if it would block.
    fn receive(&mut self) -> Result<bool, Error> {
        self.socket.settle();
        let (partial, closer) = (&mut self.partial, self.socket.closer());
        // Charged before they arrive: descriptors beyond the limit are not accepted.
        let mut room = closer.descriptors().charge_up_to(sys::SCM_MAX_FD as u64)?;
        let most = room.amount() as usize;
        let got = match sys::receive(self.socket.as_fd(), partial.missing(), most) {
            Ok(received) => received,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(source) => return Err(Error::System { action: "reading", source }),
        };
        let fds = got.fds.into_iter().map(|fd| PeerFd::new(fd, closer, room.split(1))).collect();
        partial.add_fds(fds)?;
        if got.fds_lost {
            drop(room);
            // The cause is the port's limit, otherwise the process's.
            let limit = closer.charge(sys::SCM_MAX_FD as u64).err();
            return Err(limit.filter(|_| most < sys::SCM_MAX_FD).map_or(Error::FdsLost, Error::Limit));
        }
        if got.bytes == 0 {
            return Err(partial.closed());
        }
        partial.advance(got.bytes)?;
        Ok(true)
    }

    /// Whether reading or sending should wait, because fewer descriptors can be charged than a message may
    /// bring, and some that were charged before are still being closed, or were sent and not taken by the
    /// peer. Going on now could end the connection although there will soon be room.
    ///
    /// A peer whose descriptors take long to close, or that does not read, can keep this true, so the caller
    /// must limit its wait.
    ///
    /// ```
    /// use linecard_wire::Connection;
    /// let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
    /// assert!(!Connection::new(ours)?.lacks_room());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lacks_room(&mut self) -> bool {
        self.socket.settle();
        let closer = self.socket.closer();
        let later = closer.waiting() > 0 || self.socket.has_in_transit();
        later && closer.descriptors().room() < MAX_FDS as u64
    }

    /// The time since which a message has been incomplete; `None` between messages. For deadlines.
    pub fn partial_since(&self) -> Option<Instant> {
        self.partial.since
    }

    /// Sends `message`, and queues bytes for which the socket has no room. The descriptors of a queued message
    /// are duplicated.
    ///
    /// # Errors
    /// [`Error::TooLong`] or [`Error::PayloadField`] if the message exceeds a limit, [`Error::Limit`] if the port
    /// may not have so many descriptors in messages to a peer that does not take them (nothing was sent);
    /// [`Error::Backlog`] if the peer does not read; [`Error::System`].
    pub fn send(&mut self, message: &OutMessage<'_>) -> Result<(), Error> {
        let bytes = message.encode()?;
        let mut charge = self.charge_sent(message.fds.len())?;
        let sent = if self.queue.is_empty() { self.send_some(&bytes, message.fds)? } else { 0 };
        // Descriptors are sent with the first byte; only a message that has not begun needs them later.
        let fds = match charge.take() {
            Some(charge) if sent > 0 => {
                self.socket.add_in_transit(charge);
                Vec::new()
            }
            Some(charge) => self.duplicate(message.fds, charge)?,
            None => Vec::new(),
        };
        if sent == bytes.len() {
            return Ok(());
        }
        self.enqueue(Queued { bytes, sent, fds })
    }

    /// Charges descriptors of a message to send; `None` for a message without.
    fn charge_sent(&mut self, fds: usize) -> Result<Option<Charge>, Error> {
        if fds == 0 {
            return Ok(None);
        }
        self.socket.settle();
        Ok(Some(self.socket.closer().charge(fds as u64)?))
    }

    fn duplicate(&self, fds: &[BorrowedFd<'_>], mut charge: Charge) -> Result<Vec<PeerFd>, Error> {
        let one = |fd: &BorrowedFd<'_>| {
            let copy = fd.try_clone_to_owned();
            let copy = copy.map_err(|source| Error::System { action: "keeping a descriptor", source })?;
            Ok(PeerFd::new(copy, self.socket.closer(), charge.split(1)))
        };
        fds.iter().map(one).collect()
    }

    fn enqueue(&mut self, message: Queued) -> Result<(), Error> {
        let queued = self.queued_bytes.saturating_add(message.bytes.len());
        if queued > MAX_BACKLOG {
            return Err(Error::Backlog { queued, max: MAX_BACKLOG });
        }
        self.queued_bytes = queued;
        self.queue.push_back(message);
        Ok(())
    }

    /// Sends queued data. Returns `true` if nothing is left.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn flush(&mut self) -> Result<bool, Error> {
        while let Some(mut first) = self.queue.pop_front() {
            let fds: Vec<_> = first.fds.iter().map(AsFd::as_fd).collect();
            let rest = first.bytes.get(first.sent..).unwrap_or_default();
            let sent = self.send_some(rest, &fds)?;
            first.sent = first.sent.saturating_add(sent);
            if sent > 0 {
                first.fds.drain(..).filter_map(|mut fd| fd.take_charge()).for_each(|charge| {
                    self.socket.add_in_transit(charge);
                });
            }
            if first.sent < first.bytes.len() {
                self.queue.push_front(first);
                return Ok(false);
            }
            self.queued_bytes = self.queued_bytes.saturating_sub(first.bytes.len());
        }
        Ok(true)
    }

    /// Whether data is queued until the socket becomes writable.
    pub fn wants_write(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Sends as much of `bytes` as the socket accepts. Returns the number of bytes, 0 if there is no room.
    fn send_some(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Error> {
        match sys::send(self.socket.as_fd(), bytes, fds) {
            Ok(sent) => Ok(sent),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(source) => Err(Error::System { action: "sending", source }),
        }
    }

    /// Waits for the next message until `deadline`, and sends queued data first.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and those of [`Connection::read`].
    pub fn read_until(&mut self, deadline: Instant) -> Result<Message, Error> {
        self.flush_until(deadline)?;
        loop {
            if let Some(message) = self.read()? {
                return Ok(message);
            }
            self.wait(false, "answer", deadline)?;
        }
    }

    /// Sends queued data until `deadline`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::System`].
    pub fn flush_until(&mut self, deadline: Instant) -> Result<(), Error> {
        while !self.flush()? {
            self.wait(true, "read what was sent", deadline)?;
        }
        Ok(())
    }

    fn wait(&self, writable: bool, action: &'static str, deadline: Instant) -> Result<(), Error> {
        match sys::wait(self.socket.as_fd(), writable, deadline) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::TimedOut { action }),
            Err(source) => Err(Error::System { action: "waiting", source }),
        }
    }

    /// Whether no message is partially sent or received.
    pub fn is_idle(&self) -> bool {
        self.partial.got == 0 && self.partial.fds.is_empty() && self.queue.is_empty()
    }

    /// Returns the socket, so that a successor can continue with it.
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use linecard_wire::{Connection, FrontendReq, OutMessage};
    /// let (a, b) = UnixStream::pair()?;
    /// let (mut frontend, backend) = (Connection::new(a)?, Connection::new(b)?);
    /// frontend.send(&OutMessage::request(FrontendReq::SET_OWNER, &[]))?;
    /// let mut successor = Connection::new(backend.into_socket().expect("nothing was read"))?;
    /// assert!(successor.read()?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The connection itself, if it is [not idle](Self::is_idle).
    #[expect(clippy::result_large_err, reason = "it is the connection that was given")]
    pub fn into_socket(self) -> Result<UnixStream, Self> {
        if self.is_idle() { Ok(self.socket.into_stream()) } else { Err(self) }
    }

    /// The socket, for credentials and options.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("socket", &*self.socket)
            .field("partial_bytes", &self.partial.got)
            .field("queued_bytes", &self.queued_bytes)
            .finish()
    }
}

impl Partial {
    /// The missing bytes of this message, and none beyond it.
    fn missing(&mut self) -> &mut [u8] {
        let got = self.got;
        match self.header {
            None => self.header_bytes.get_mut(got..),
            Some(_) => self.payload.get_mut(got.saturating_sub(HEADER_LEN)..),
        }
        .unwrap_or_default()
    }

    /// Keeps descriptors up to the limit and closes the rest. A message may arrive in thousands of pieces,
    /// each with some.
    fn add_fds(&mut self, fds: Vec<PeerFd>) -> Result<(), Error> {
        let room = MAX_FDS.saturating_sub(self.fds.len());
        self.surplus_fds = self.surplus_fds.saturating_add(fds.len().saturating_sub(room));
        self.fds.extend(fds.into_iter().take(room));
        if self.surplus_fds <= sys::SCM_MAX_FD {
            return Ok(());
        }
        let got = (MAX_FDS + self.surplus_fds) as u64;
        Err(Error::PayloadField { what: "message", field: "descriptors", got, max: MAX_FDS as u64 })
    }

    fn advance(&mut self, bytes: usize) -> Result<(), Error> {
        self.since.get_or_insert_with(Instant::now);
        self.got = self.got.saturating_add(bytes);
        if self.header.is_none() && self.got >= HEADER_LEN {
            let header = Header::decode(self.header_bytes)?;
            self.payload = vec![0; header.size as usize];
            self.header = Some(header);
        }
        Ok(())
    }

    /// Takes the message if it is complete, which makes room for the next one.
    fn finished(&mut self) -> Option<Message> {
        let header = self.header?;
        if self.got < HEADER_LEN.saturating_add(self.payload.len()) {
            return None;
        }
        let done = std::mem::take(self);
        let Self { payload, fds, surplus_fds, .. } = done;
        Some(Message { request: header.request, flags: header.flags, payload, fds, surplus_fds })
    }

    fn closed(&self) -> Error {
        match self.got {
            0 => Error::Closed,
            got => Error::Truncated { got, want: HEADER_LEN.saturating_add(self.payload.len()) },
        }
    }
}
