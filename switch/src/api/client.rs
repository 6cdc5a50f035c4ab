//! A blocking client of the control socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    Answer, FdbAddress, FdbEntry, FdbFilter, FdbFlushed, FdbRemoved, FdbStatic, LineError, Lines, PortAdded,
    PortInfo, PortKey, PortRemoved, PortSpec, Problem, QueueMove, Request, Span, SpanInfo, SpanKey,
    SpanRemoved, Stats, Trace, TraceRequest, Version, WorkerInfo, send,
};

/// How long an answer may take before the switch counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a call has no result.
///
/// ```
/// use linecard_switch::api::{Client, ClientError};
/// let error = Client::connect("/no/such/socket".as_ref()).expect_err("nobody listens");
/// assert!(matches!(error, ClientError::Absent { .. }));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No switch can be reached at the socket.
    #[error("no switch answers at {}: {source}; start one with `linecard switch`, or name its socket", path.display())]
    Absent {
        /// The socket.
        path: PathBuf,
        /// The error that `connect` returned.
        source: io::Error,
    },
    /// The switch refused the request.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// The connection broke or the answer took too long.
    #[error("the switch does not answer: {0}; its log may say why")]
    Broken(#[from] LineError),
    /// The answer cannot be understood.
    #[error("the switch's answer cannot be read: {0}; use client and switch of the same version")]
    Unreadable(String),
}

/// A connection to a switch, which carries one call at a time.
///
/// ```no_run
/// use linecard_switch::api::{Client, DEFAULT_SOCKET, PortKind, PortSpec};
/// use std::os::{fd::AsFd, linux::net::SocketAddrExt, unix::net::{SocketAddr, UnixListener}};
/// let mut client = Client::connect(DEFAULT_SOCKET.as_ref())?;
/// let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name("vport/net1")?)?;
/// let spec = PortSpec { mac: Some("02:00:00:00:00:01".parse()?), ..PortSpec::new("c1-net1", PortKind::VhostUserFd { origin: None }) };
/// let added = client.port_add(&spec, Some(listener.as_fd()))?;
/// assert!(added.created);
/// client.port_remove("c1-net1")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    lines: Lines,
    id: u64,
}

impl Client {
    /// Connects to the switch that listens at `path`.
    ///
    /// # Errors
    /// [`ClientError::Absent`] if the connection cannot be made.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let absent = |source| ClientError::Absent { path: path.into(), source };
        let client = Self::over(UnixStream::connect(path).map_err(absent)?);
        client.set_patience(PATIENCE).map_err(absent)?;
        Ok(client)
    }

    /// Uses a socket that is connected already.
    #[must_use]
    pub fn over(socket: UnixStream) -> Self {
        Self { socket, lines: Lines::default(), id: 0 }
    }

    /// Sets how long a call may wait for its answer; ten seconds by default.
    ///
    /// # Errors
    /// Returns the error of the operating system; zero is not allowed.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(patience))?;
        self.socket.set_write_timeout(Some(patience))
    }

    /// Calls a method by its name.
    ///
    /// # Errors
    /// The switch refused the request, or it did not answer. In the latter case the connection cannot be used
    /// any more.
    pub fn call<P: Serialize, R: DeserializeOwned>(
        &mut self,
        method: &str,
        params: &P,
        fds: &[BorrowedFd<'_>],
    ) -> Result<R, ClientError> {
        let unreadable = |error: serde_json::Error| ClientError::Unreadable(error.to_string());
        self.id += 1;
        let params = serde_json::to_value(params).map_err(unreadable)?;
        let request = Request { id: self.id, method: method.into(), params };
        let mut line = serde_json::to_vec(&request).map_err(unreadable)?;
        line.push(b'\n');
        // A switch that refuses this user answers and closes at once: its answer can be read although sending
        // fails.
        let sent = send(self.socket.as_fd(), &line, fds);
        let answer = match (self.lines.next(self.socket.as_fd()), sent) {
            (Ok(Some(line)), _) => line,
            (Err(LineError::System(error)), _) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(LineError::Late.into());
            }
            (_, Err(error)) => return Err(LineError::System(error).into()),
            (Ok(None), Ok(())) => return Err(LineError::Cut.into()),
            (Err(error), Ok(())) => return Err(error.into()),
        };
        let answer: Answer = serde_json::from_slice(&answer.bytes).map_err(unreadable)?;
        match answer {
            Answer { error: Some(problem), .. } => Err(problem.into()),
            Answer { id, .. } if id != self.id => {
                Err(ClientError::Unreadable(format!("it is to call {id}, not to {}", self.id)))
            }
            Answer { result, .. } => serde_json::from_value(result.unwrap_or_default()).map_err(unreadable),
        }
    }

    /// The connection, for data other than lines. No received data is lost, because a client reads only
    /// answers.
    pub(crate) fn into_socket(self) -> UnixStream {
        self.socket
    }

    /// Returns the version of the switch.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn version(&mut self) -> Result<Version, ClientError> {
        self.call("version", &(), &[])
    }

    /// Attaches a port, or finds it attached. `listener` is for
    /// [`VhostUserFd`](super::PortKind::VhostUserFd).
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn port_add(
        &mut self,
        spec: &PortSpec,
        listener: Option<BorrowedFd<'_>>,
    ) -> Result<PortAdded, ClientError> {
        self.call("port.add", spec, listener.as_slice())
    }

    /// Detaches a port; returns `false` if there was none.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn port_remove(&mut self, key: &str) -> Result<bool, ClientError> {
        let removed: PortRemoved = self.call("port.remove", &PortKey { key: key.into() }, &[])?;
        Ok(removed.removed)
    }

    /// Returns all ports.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn port_list(&mut self) -> Result<Vec<PortInfo>, ClientError> {
        self.call("port.list", &(), &[])
    }

    /// Returns one port.
    ///
    /// # Errors
    /// As [`call`](Self::call), including [`NotFound`](super::Code::NotFound).
    pub fn port_show(&mut self, key: &str) -> Result<PortInfo, ClientError> {
        self.call("port.show", &PortKey { key: key.into() }, &[])
    }

    /// Returns the addresses that match `filter`.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn fdb_list(&mut self, filter: &FdbFilter) -> Result<Vec<FdbEntry>, ClientError> {
        self.call("fdb.list", filter, &[])
    }

    /// Removes the learned addresses that match `filter`; returns their number.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn fdb_flush(&mut self, filter: &FdbFilter) -> Result<u64, ClientError> {
        let flushed: FdbFlushed = self.call("fdb.flush", filter, &[])?;
        Ok(flushed.flushed)
    }

    /// Adds a static address behind a port.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn fdb_add(&mut self, asked: &FdbStatic) -> Result<FdbEntry, ClientError> {
        self.call("fdb.add", asked, &[])
    }

    /// Removes one address; returns `false` if it was not known.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn fdb_del(&mut self, asked: &FdbAddress) -> Result<bool, ClientError> {
        let removed: FdbRemoved = self.call("fdb.del", asked, &[])?;
        Ok(removed.removed)
    }

    /// Returns all workers and the queues that they poll.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn workers(&mut self) -> Result<Vec<WorkerInfo>, ClientError> {
        self.call("workers", &(), &[])
    }

    /// Assigns a receive queue to another worker.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn move_queue(&mut self, asked: &QueueMove) -> Result<(), ClientError> {
        self.call("worker.move", asked, &[])
    }

    /// Starts to mirror the frames of some ports to another port.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn span_set(&mut self, asked: &Span) -> Result<SpanInfo, ClientError> {
        self.call("span.set", asked, &[])
    }

    /// Ends the mirroring to a port; returns `false` if there was none.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn span_remove(&mut self, to: &str) -> Result<bool, ClientError> {
        let removed: SpanRemoved = self.call("span.remove", &SpanKey { to: to.into() }, &[])?;
        Ok(removed.removed)
    }

    /// Returns all mirroring sessions.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn span_list(&mut self) -> Result<Vec<SpanInfo>, ClientError> {
        self.call("span.list", &(), &[])
    }

    /// Returns the path that a frame would take.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn trace(&mut self, request: &TraceRequest) -> Result<Trace, ClientError> {
        self.call("trace", request, &[])
    }

    /// Returns all counters.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn stats(&mut self) -> Result<Stats, ClientError> {
        self.call("stats", &(), &[])
    }
}
