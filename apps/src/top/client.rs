//! A client of DPDK's telemetry protocol.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::Value;

use crate::error::Error;

/// How long a program may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The maximum length of a greeting.
const GREETING: usize = 1024;
/// The maximum length of an answer, whatever the greeting announces.
const LONGEST: usize = 16 << 20;

/// A connection to a program.
pub(super) struct Client {
    socket: OwnedFd,
    buffer: Vec<u8>,
    pub(super) pid: u32,
    pub(super) version: String,
}

impl Client {
    /// Connects, and reads the greeting.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        for way in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, way, Some(PATIENCE))?;
        }
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        let mut client = Self { socket, buffer: vec![0; GREETING], pid: 0, version: String::new() };
        let greeting = client.read()?;
        let number = |name: &str| greeting[name].as_u64();
        let size = number("max_output_len").and_then(|size| usize::try_from(size).ok());
        client.buffer.resize(size.unwrap_or(0).clamp(GREETING, LONGEST), 0);
        client.pid = number("pid").and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        client.version = greeting["version"].as_str().unwrap_or("unknown").to_owned();
        Ok(client)
    }

    fn read(&mut self) -> io::Result<Value> {
        let (len, _) = rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(self.buffer.get(..len).unwrap_or_default())?)
    }

    /// Sends a command and returns its answer.
    ///
    /// # Errors
    /// The program has ended, or does not answer in time.
    pub(super) fn ask(&mut self, request: &str) -> Result<Value, Error> {
        let path = request.split(',').next().unwrap_or(request);
        let sent = rustix::net::send(&self.socket, request.as_bytes(), SendFlags::NOSIGNAL);
        let answered = sent.map_err(io::Error::from).and_then(|_| self.read());
        match answered {
            Ok(mut answer) => Ok(answer.get_mut(path).map_or(Value::Null, Value::take)),
            Err(error) => Err(self.gone(error)),
        }
    }

    fn gone(&self, source: io::Error) -> Error {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        if matches!(source.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) {
            return Error::Failed(format!(
                "program {} closed the connection; it ended, or more than 10 clients ask it at once",
                self.pid
            ));
        }
        Error::System {
            action: format!("program {} does not answer", self.pid),
            source,
            remedy: "look whether it is stopped (kill -CONT), and try again",
        }
    }
}
