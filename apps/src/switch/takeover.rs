//! `linecard switch --take-over`: takes everything over from a running switch, unnoticed by its peers.

use std::path::PathBuf;

use linecard_switch::Switch;
use linecard_switch::api::{Code, PortSpec, Problem};
use linecard_switch::upgrade::{Successor, TakenOver};

use super::args::SwitchArgs;
use super::config::Config;
use super::failed;
use super::socket::Socket;
use crate::error::Error;

/// The result of a take-over.
pub(super) struct Taken {
    pub(super) socket: Socket,
    /// The keys of ports that were added by request.
    pub(super) kept: Vec<String>,
    /// Configured ports that the earlier switch did not have.
    pub(super) fresh: Vec<PortSpec>,
    pub(super) told: TakenOver,
    pub(super) successor: Successor,
}

/// The path of the control socket of the switch to take over from.
///
/// # Errors
/// No path is configured.
pub(super) fn place(args: &SwitchArgs, config: &Config) -> Result<PathBuf, Error> {
    Socket::place(args.socket.as_deref().or(config.socket.as_deref())).ok_or_else(|| {
        Error::Usage(
            "--take-over needs the control socket of the switch to take over from, and there is none with `--socket none`; name it with --socket"
                .into(),
        )
    })
}

/// Takes everything over from the switch at `path`; on return `switch` moves the frames.
///
/// # Errors
/// The earlier switch refuses or does not answer, or this one cannot serve its ports; the earlier one then
/// continues.
pub(super) fn take(switch: &Switch, path: PathBuf, configured: &[PortSpec]) -> Result<Taken, Error> {
    switch.check().map_err(failed)?;
    let mut fresh = Vec::new();
    let mut taking = || {
        let mut successor = Successor::ask(&path, env!("CARGO_PKG_VERSION"))?;
        successor.prepare(switch, |ports| {
            fresh = compare(configured, ports)?;
            Ok(())
        })?;
        successor.begin(switch)?;
        let told = successor.commit(switch)?;
        Ok((successor, told))
    };
    let (mut successor, told) = taking().map_err(|error: linecard_switch::upgrade::UpgradeError| {
        Error::Failed(format!("the switch at {} was not taken over: {error}", path.display()))
    })?;
    // A switch that answers requests has a control socket.
    let control = successor.take_control().ok_or_else(|| {
        Error::Failed(format!(
            "the switch at {} has not given its control socket; report this",
            path.display()
        ))
    })?;
    let kept = successor.kept().iter().cloned().collect();
    Ok(Taken { socket: Socket::taken_over(path, control), kept, fresh, told, successor })
}

/// The ports among `configured` that the earlier switch does not have.
fn compare(configured: &[PortSpec], theirs: &[PortSpec]) -> Result<Vec<PortSpec>, Problem> {
    let mut fresh = Vec::new();
    for spec in configured {
        match theirs.iter().find(|other| other.key == spec.key) {
            Some(other) if other == spec => {}
            None => fresh.push(spec.clone()),
            Some(_) => {
                return Err(Problem::new(
                    Code::Exists,
                    format!(
                        "port '{}' is configured in another way than the switch that runs has it",
                        spec.key
                    ),
                    "configure it as it is, or restart the switch instead",
                ));
            }
        }
    }
    Ok(fresh)
}
