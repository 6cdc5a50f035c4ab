//! The description of ports for a command: variables that [`ContainerPort`] reads, and descriptors.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use linecard::container::ContainerPort;
use linecard_cni::abstract_name;
use serde_json::Value;

use super::stage::Attached;
use crate::error::Error;

/// The capability that names the device-info file (Network Plumbing Working Group).
pub(super) const DEVICE_INFO: &str = "CNIDeviceInfoFile";

/// One port, as an environment variable of the command.
pub(super) struct Given {
    pub(super) variable: String,
    pub(super) text: String,
    /// The folder of its socket, whose descriptor the command inherits.
    _folder: Option<OwnedFd>,
}

/// Describes each attachment; with `pass`, passes the descriptors of the sockets' folders too.
pub(super) fn ports(attached: &[Attached<'_>], pass: bool) -> Result<Vec<Given>, Error> {
    attached.iter().map(|attached| port(attached, pass)).collect()
}

fn port(attached: &Attached<'_>, pass: bool) -> Result<Given, Error> {
    let (result, target) = (attached.result(), &attached.target);
    let ifname = target.attachment.ifname();
    let list = result["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let at = list.iter().position(|entry| entry["name"] == ifname && entry["sandbox"].is_string());
    let (mut text, folder) =
        match target.capabilities.get(DEVICE_INFO).and_then(|file| device(file.as_str()?)) {
            None => (format!("@{}", abstract_name(ifname)), None),
            Some((path, server)) => {
                let (path, folder) = if pass { through_folder(&path)? } else { (path, None) };
                (format!("{path}{}", if server { ",server=1" } else { "" }), folder)
            }
        };
    if let Some(mac) = at.and_then(|at| list[at]["mac"].as_str()) {
        text.push_str(&format!(",mac={mac}"));
    }
    for ip in result["ips"].as_array().map(Vec::as_slice).unwrap_or_default() {
        if let (true, Some(address)) =
            (ip["interface"].as_u64() == at.map(|at| at as u64), ip["address"].as_str())
        {
            text.push_str(&format!(",ip={address}"));
        }
    }
    Ok(Given { variable: ContainerPort::variable(ifname), text, _folder: folder })
}

/// The socket in a device-info file, and whether the container creates it.
fn device(file: &str) -> Option<(String, bool)> {
    let info: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    let info = &info["vhost-user"];
    Some((info["path"].as_str()?.to_owned(), info["mode"] == "server"))
}

/// The same socket through a descriptor of its folder, which stays valid when the listening program restarts.
fn through_folder(socket: &str) -> Result<(String, Option<OwnedFd>), Error> {
    let failed = |source: std::io::Error| Error::System {
        action: format!("the folder of {socket} cannot be passed on"),
        source,
        remedy: "leave --pass-fd out, or see the rights of the folder",
    };
    let path = Path::new(socket);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok((socket.to_owned(), None));
    };
    let file = OwnedFd::from(std::fs::File::open(folder).map_err(failed)?);
    // Programs started from now on inherit the descriptor.
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).map_err(|error| failed(error.into()))?;
    Ok((format!("/proc/self/fd/{}/{}", file.as_raw_fd(), name.display()), Some(file)))
}
