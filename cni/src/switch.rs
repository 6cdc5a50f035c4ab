//! The plugin's requests to `linecard switch`.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use linecard_switch::api::{Client, ClientError, Code as SwitchCode, PortInfo, PortSpec};

use crate::error::{Code, Error};
use crate::kernel;

/// How long the switch may take for an answer. On a busy machine a new port can wait for the kernel for
/// seconds; a runtime waits for minutes before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the switch.
#[derive(Debug)]
pub(crate) struct Switch {
    client: Client,
}

impl Switch {
    pub(crate) fn connect(path: &Path) -> Result<Self, Error> {
        let client = Client::connect(path).map_err(to_error)?;
        client.set_patience(PATIENCE).map_err(|error| {
            Error::io(
                "setting how long the switch may take",
                &error,
                "report this, with the kernel's version",
            )
        })?;
        Ok(Self { client })
    }

    pub(crate) fn add(&mut self, spec: &PortSpec, listener: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        self.client.port_add(spec, listener).map(drop).map_err(to_error)
    }

    /// Removes a port, and the kernel's half of it if its address is shared. Neither needs to exist.
    pub(crate) fn remove(&mut self, port: &str) -> Result<(), Error> {
        self.client.port_remove(port).map_err(to_error)?;
        self.client.port_remove(&kernel::key(port)).map(drop).map_err(to_error)
    }

    pub(crate) fn list(&mut self) -> Result<Vec<PortInfo>, Error> {
        self.client.port_list().map_err(to_error)
    }

    /// Returns the port with that name; `None` if there is none.
    pub(crate) fn show(&mut self, port: &str) -> Result<Option<PortInfo>, Error> {
        match self.client.port_show(port) {
            Ok(info) => Ok(Some(info)),
            Err(ClientError::Refused(problem)) if problem.code == SwitchCode::NotFound => Ok(None),
            Err(error) => Err(to_error(error)),
        }
    }

    pub(crate) fn ping(&mut self) -> Result<(), Error> {
        self.client.version().map(drop).map_err(to_error)
    }
}

/// Maps an error of the switch to the codes of the specification.
fn to_error(error: ClientError) -> Error {
    match error {
        ClientError::Absent { path, source } => Error::new(
            Code::NotAvailable,
            format!("no switch answers at {}: {source}", path.display()),
            "start one with `linecard switch`, or name its control socket: 'switch' in a network configuration, --switch on a command line",
        ),
        ClientError::Refused(problem) => {
            let code = match problem.code {
                SwitchCode::Exists => Code::Exists,
                SwitchCode::Exhausted => Code::TryAgain,
                _ => Code::Switch,
            };
            Error::new(code, format!("the switch refuses: {}", problem.message), problem.details)
        }
        ClientError::Broken(error) => Error::new(
            Code::LimitedConnectivity,
            format!("the switch does not answer: {error}"),
            "see its log, and restart it",
        ),
        other => Error::new(Code::Switch, other.to_string(), "use plugin and switch of the same version"),
    }
}
