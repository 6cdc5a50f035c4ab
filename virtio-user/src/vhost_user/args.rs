//! Which socket, and who makes it.

use std::path::PathBuf;
use std::sync::Arc;

use linecard_pmd::{DevArgs, Error as PmdError};
use linecard_wire::Closer;
use linecard_wire::socket::Access;

use super::connect::{Client, Server, listen};
use crate::backend::Connect;
use crate::error::Error;

/// Longest path a socket address holds (`sun_path`, its final zero left out).
const MAX_PATH: usize = 107;

/// A socket, and the port's part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketOptions {
    path: PathBuf,
    pub(crate) server: bool,
    /// Whom the socket of a server lets in.
    access: Access,
}

impl SocketOptions {
    /// Reads what is about the socket.
    pub(crate) fn parse(args: &DevArgs, path: PathBuf) -> Result<Self, PmdError> {
        let server = args.flag("server")?.unwrap_or(false);
        let access = access(args, server)?;
        if path.as_os_str().len() > MAX_PATH {
            let problem = format!("the path has {} bytes", path.as_os_str().len());
            return Err(args.problem(problem, format!("use one of at most {MAX_PATH} bytes")));
        }
        Ok(Self { path, server, access })
    }

    /// A server listens from now on.
    pub(crate) fn open(self, closer: Closer) -> Result<Arc<dyn Connect>, Error> {
        Ok(match self.server {
            true => Arc::new(Server { listener: listen(&self.path, self.access)?, closer }),
            false => Arc::new(Client { path: self.path, closer }),
        })
    }
}

fn access(args: &DevArgs, server: bool) -> Result<Access, PmdError> {
    let (rights, group) = (args.value("mode"), args.value("group"));
    if !server && (rights.is_some() || group.is_some()) {
        let problem = "'mode' and 'group' are of a socket that is made here, and only server=1 makes one";
        return Err(args.problem(problem, "leave them out, or add server=1"));
    }
    Access::of(rights, group).map_err(|error| args.problem(error.problem, error.remedy))
}
