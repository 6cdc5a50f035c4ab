//! How a container gets the socket of its port.

use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use linecard_switch::api::{PortKind, PortSpec, SocketOrigin};
use serde_json::json;

use crate::config::{Config, Mode};
use crate::environment::Attachment;
use crate::error::Error;
use crate::netns::Netns;
use crate::state::{Record, private_folder, private_folder_for, write};
use crate::step;

/// The maximum number of bytes of a socket's path (`sun_path` without the final zero).
pub(crate) const MAX_PATH: usize = 107;

/// Returns the name of the abstract socket of the interface `ifname`, without the leading zero byte.
///
/// ```
/// assert_eq!(linecard_cni::abstract_name("net1"), "vport/net1");
/// ```
#[must_use]
pub fn abstract_name(ifname: &str) -> String {
    format!("vport/{ifname}")
}

/// A socket that a container can reach, and its description for the switch.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(crate) kind: PortKind,
    pub(crate) listener: Option<UnixListener>,
    /// Its path in the file system.
    pub(crate) socket: Option<PathBuf>,
}

impl Handover {
    pub(crate) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// Creates the socket or folder that `config.mode` requires.
    pub(crate) fn make(
        config: &Config,
        attachment: &Attachment,
        netns: &Netns,
        path: &Path,
    ) -> Result<Self, Error> {
        let Mode::SocketDir { below, container_listens } = &config.mode else {
            let name = abstract_name(attachment.ifname());
            let listener = netns.listen(&name)?;
            let kind = PortKind::VhostUserFd { origin: Some(SocketOrigin::new(path, name)) };
            return Ok(Self { kind, listener: Some(listener), socket: None });
        };
        let folder = folder(config, attachment).unwrap_or_else(|| below.clone());
        make_folder(below, &folder, &config.switch, *container_listens)?;
        let path = folder.join("sock");
        let rights = (!container_listens).then(|| "0666".to_owned());
        let kind =
            PortKind::VhostUser { path: path.clone(), client: *container_listens, mode: rights, group: None };
        Ok(Self { kind, listener: None, socket: Some(path) })
    }
}

/// Describes something that ADD created and that no longer exists, if any.
pub(crate) fn missing(record: &Record, netns: &Netns) -> Result<Option<String>, Error> {
    let asked = record.port.clone().and_then(|port| serde_json::from_value::<PortSpec>(port).ok());
    let problem = match asked.map(|asked| asked.kind) {
        Some(PortKind::VhostUserFd { origin: Some(origin) }) if !netns.listens(&origin.name)? => {
            Some(format!("nobody listens at @{} in the container's network namespace any more", origin.name))
        }
        // The container creates the socket at any time.
        Some(PortKind::VhostUser { path, client: true, .. }) => {
            let folder = path.parent().filter(|folder| !folder.is_dir());
            folder.map(|folder| format!("the folder {} is not there any more", folder.display()))
        }
        Some(PortKind::VhostUser { path, .. }) => {
            let there = fs::symlink_metadata(&path).is_ok_and(|meta| meta.file_type().is_socket());
            (!there).then(|| format!("the socket {} is not there any more", path.display()))
        }
        _ => None,
    };
    let file = record.device_info.as_ref().filter(|file| !file.is_file());
    Ok(problem.or_else(|| file.map(|file| format!("the file {} is not there any more", file.display()))))
}

/// The folder of an attachment's socket.
pub(crate) fn folder(config: &Config, attachment: &Attachment) -> Option<PathBuf> {
    match &config.mode {
        Mode::Abstract => None,
        Mode::SocketDir { below, .. } => Some(below.join(attachment.to_string())),
    }
}

/// Checks the length of the path before anything is created.
pub(crate) fn check(config: &Config, attachment: &Attachment) -> Result<(), Error> {
    let Some(path) = folder(config, attachment).map(|folder| folder.join("sock")) else { return Ok(()) };
    match path.as_os_str().len() {
        0..=MAX_PATH => Ok(()),
        len => Err(Error::config(
            format!("the socket's path {} has {len} bytes", path.display()),
            format!("a socket's path has at most {MAX_PATH}; give a shorter 'socketDir'"),
        )),
    }
}

/// Only the switch's user may enter `below`. Therefore sockets in it can be open to any user that has one of
/// the folders mounted: containers run as any user.
pub(crate) fn make_folder(
    below: &Path,
    folder: &Path,
    switch: &Path,
    container_listens: bool,
) -> Result<(), Error> {
    let failed = |action: &str, error: &std::io::Error| {
        Error::io(
            format!("{action} the folder {}", folder.display()),
            error,
            "run the plugin as root, or give another 'socketDir'",
        )
    };
    let owner = fs::metadata(switch).ok().map(|meta| meta.uid());
    if fs::symlink_metadata(below).is_err() {
        private_folder(below)?;
        // Without the right to do so, either the user is the same already or an error about the socket
        // follows.
        let _ = owner.map(|owner| chown(below, Some(owner), None));
    }
    private_folder_for(below, owner)?;
    match DirBuilder::new().mode(0o700).create(folder) {
        // Left by a killed plugin. A container may have put files into it, so it is not reused.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            remove_folder(folder)?;
            DirBuilder::new().mode(0o700).create(folder).map_err(|error| failed("making", &error))?;
        }
        made => made.map_err(|error| failed("making", &error))?,
    }
    step::done("the folder is made");
    let _ = owner.map(|owner| std::os::unix::fs::lchown(folder, Some(owner), None));
    let mode = if container_listens { 0o777 } else { 0o755 };
    fs::set_permissions(folder, Permissions::from_mode(mode)).map_err(|error| failed("opening", &error))
}

/// Removes the folder of an attachment and its content; symbolic links in it are removed, not followed.
pub(crate) fn remove_folder(folder: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(folder) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(folder),
        Ok(_) => fs::remove_file(folder),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(Error::io(format!("removing {}", folder.display()), &error, "remove it by hand"))
        }
        _ => Ok(()),
    }
}

/// Writes the Network Plumbing Working Group's device information (1.1.0) for the container.
pub(crate) fn write_device_info(file: &Path, socket: &Path, container_listens: bool) -> Result<(), Error> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(|error| {
            let remedy = "run the plugin as root, or leave the capability CNIDeviceInfoFile out";
            Error::io(format!("making the folder {}", folder.display()), &error, remedy)
        })?;
    }
    // The mode is that of the container: it connects to the host's socket, or serves its own.
    let mode = if container_listens { "server" } else { "client" };
    let info = json!({
        "type": "vhost-user",
        "version": "1.1.0",
        "vhost-user": {"mode": mode, "path": socket.to_string_lossy()},
    });
    write(file, &info)
}
