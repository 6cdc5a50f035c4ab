//! The control socket of a program that can be captured.

use std::path::Path;

use linecard::eal::runtime;
use linecard::pmd::capture::{Hub, Server};

use crate::error::Error;

/// A control socket in the folder of a `--file-prefix`; removed with the folder, if it is the last one there.
pub(crate) struct ControlSocket {
    /// There until drop.
    server: Option<Server>,
    prefix: String,
}

impl ControlSocket {
    pub(crate) fn open(hub: &Hub, prefix: &str) -> Result<Self, Error> {
        let mut socket = Self { server: None, prefix: prefix.to_owned() };
        let serve = || {
            let folder = runtime::create(prefix)?;
            Ok(hub.serve(&folder.join(format!("control.{}", std::process::id())))?)
        };
        // A program that ends just now may take the empty folder with it.
        let served: Result<Server, Error> = serve().or_else(|_| serve());
        socket.server = Some(served?);
        super::find::sweep();
        Ok(socket)
    }

    pub(crate) fn path(&self) -> &Path {
        self.server.as_ref().map_or(Path::new(""), Server::path)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.server = None;
        runtime::remove(&self.prefix);
    }
}
