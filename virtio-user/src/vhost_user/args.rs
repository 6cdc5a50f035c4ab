//! The arguments of a vhost-user socket.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use linecard_netdev::tun;
use linecard_pmd::{DevArgs, Error as PmdError};
use linecard_wire::Closer;
use linecard_wire::socket::{Access, Passed, UnusableSocket};

use super::connect::{Client, Once, Server, listen};
use crate::backend::Connect;
use crate::error::Error;

/// The longest path in a socket address (`sun_path` without its terminating zero).
const MAX_PATH: usize = 107;

/// A socket, and whether the port is its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketOptions {
    place: Place,
    pub(crate) server: bool,
    /// The access rights of a server's socket.
    access: Access,
}

/// The location of the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Path(PathBuf),
    /// A descriptor that was passed under this number.
    Passed(RawFd),
}

impl SocketOptions {
    /// Reads the arguments about the socket.
    pub(crate) fn parse(args: &DevArgs, path: PathBuf) -> Result<Self, PmdError> {
        let server = args.flag("server")?.unwrap_or(false);
        let access = access(args, server)?;
        if path.as_os_str().len() > MAX_PATH {
            let problem = format!("the path has {} bytes", path.as_os_str().len());
            return Err(args.problem(problem, format!("use one of at most {MAX_PATH} bytes")));
        }
        Ok(Self { place: Place::Path(path), server, access })
    }

    /// Reads the number of a socket that was passed. The kind of the socket decides whether the port listens
    /// on it.
    pub(crate) fn passed(args: &DevArgs, number: RawFd) -> Result<Self, PmdError> {
        let unusable = |reason| {
            let remedy =
                "pass the number of a Unix stream socket that listens, or that is connected to the backend";
            args.problem(format!("'fd={number}' cannot be used: {reason}"), remedy)
        };
        let server = matches!(Passed::inherited(number).map_err(unusable)?, Passed::Listening(_));
        Ok(Self { place: Place::Passed(number), server, access: Access::default() })
    }

    /// Opens the socket: a server listens from now on.
    pub(crate) fn open(self, closer: Closer) -> Result<Arc<dyn Connect>, Error> {
        let path = match self.place {
            Place::Path(path) => path,
            Place::Passed(number) => return open_passed(number, closer),
        };
        Ok(match self.server {
            true => Arc::new(Server { listener: listen(&path, self.access)?, closer }),
            false => Arc::new(Client { path, closer }),
        })
    }
}

fn open_passed(number: RawFd, closer: Closer) -> Result<Arc<dyn Connect>, Error> {
    let unusable = |reason| UnusableSocket::new(Path::new(&format!("fd={number}")), reason);
    let passed = Passed::inherited(number).map_err(unusable)?;
    let stream = match passed {
        Passed::Listening(listener) => return Ok(Arc::new(Server { listener, closer })),
        Passed::Connected(stream) => stream,
    };
    // The port keeps the only descriptor, so that the backend sees the end of the connection when the port
    // ends.
    // SAFETY: the user passed this descriptor, which was just seen to be open, for this port alone.
    drop(unsafe { tun::take(number) });
    Ok(Arc::new(Once { stream: Mutex::new(Some(stream)), closer }))
}

fn access(args: &DevArgs, server: bool) -> Result<Access, PmdError> {
    let (rights, group) = (args.value("mode"), args.value("group"));
    if !server && (rights.is_some() || group.is_some()) {
        let problem = "'mode' and 'group' are of a socket that is made here, and only server=1 makes one";
        return Err(args.problem(problem, "leave them out, or add server=1"));
    }
    Access::of(rights, group).map_err(|error| args.problem(error.problem, error.remedy))
}
