//! Kernel devices, controlled by ioctls on a character device instead of messages on a socket.

mod args;
mod ioctl;
mod memory;
mod net;
mod tap;
mod vdpa;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use linecard_pmd::{DevArgs, Error as PmdError};

use crate::args::Options;
use crate::backend::Connect;
use crate::error::Error;

/// A kernel device and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KernelDevice {
    /// vhost-net and a tap interface.
    Net(args::NetOptions),
    /// A vDPA device.
    Vdpa(vdpa::VdpaOptions),
}

impl KernelDevice {
    /// Reads the arguments about the device at `path`.
    pub(crate) fn parse(args: &DevArgs, path: PathBuf, options: &Options) -> Result<Self, PmdError> {
        if is_net(&path) {
            return args::NetOptions::parse(args, path, options.queues).map(Self::Net);
        }
        vdpa::VdpaOptions::parse(args, path, options.queue_sizes()).map(Self::Vdpa)
    }

    /// Creates or takes over the interface, if the device needs one.
    pub(crate) fn open(self) -> Result<Arc<dyn Connect>, Error> {
        match self {
            Self::Net(place) => place.open(),
            Self::Vdpa(place) => place.open(),
        }
    }
}

/// The descriptors of a queue pair: its vhost device, and its queue.
pub(crate) const PAIR_DESCRIPTORS: u64 = 2;

/// Returns whether `path` names a kernel device: a character device, or a missing file with the name of one.
pub(crate) fn is_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::metadata(path) {
        Ok(meta) => meta.file_type().is_char_device(),
        Err(_) => path.to_string_lossy().starts_with("/dev/vhost-"),
    }
}

/// Returns whether the device is vhost-net, a device with the major number of miscellaneous devices. vDPA
/// devices have another major number, and each reports itself that it is one.
fn is_net(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    /// `MISC_MAJOR` of `linux/major.h`.
    const MISCELLANEOUS: u32 = 10;
    match std::fs::metadata(path) {
        Ok(meta) => libc::major(meta.rdev()) == MISCELLANEOUS,
        Err(_) => !path.to_string_lossy().starts_with("/dev/vhost-vdpa"),
    }
}

/// Returns an error for a request that the kernel refused, with a remedy.
fn refused(action: &str, source: io::Error) -> Error {
    let remedy = match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "run as the owner of the device and the interface, or as root",
        Some(libc::EBUSY) => {
            "another process uses it; end that process, or use another interface or descriptor"
        }
        Some(libc::E2BIG) => "give fewer queues=, or fewer and larger memory segments",
        Some(libc::EBADF) => "give the number of a descriptor that is open in this process",
        Some(libc::ENOTSOCK) => "the interface must be a tap interface; choose another with iface=",
        Some(libc::ENOMEM) => {
            "check the limits of this process (ulimit -a): a vDPA device locks all memory, each queue pair is a thread"
        }
        Some(libc::EAGAIN | libc::EMFILE | libc::ENFILE) => {
            "check the limits of this process (ulimit -a): each queue pair is a thread and several descriptors"
        }
        Some(libc::ENODEV | libc::EBADFD) => "the interface is gone; make it again",
        _ => "see 'dmesg' for what the kernel says",
    };
    Error::Kernel { action: action.to_owned(), source, remedy }
}

/// Returns an error for a device that does not open, with a remedy.
fn cannot_open(path: &Path, source: io::Error) -> Error {
    let remedy = match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) if !is_net(path) => {
            "list the devices with 'vdpa dev show', and bind the device to the driver vhost_vdpa"
        }
        Some(libc::EBUSY) => "another process uses it; end that process, or use another device",
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "load the module with 'modprobe vhost_net', or give the container --device /dev/vhost-net"
        }
        Some(libc::EPERM | libc::EACCES) if is_net(path) => {
            "give this user the right to the device (see 'ls -l'), or pass open descriptors with vhost_fd="
        }
        Some(libc::EPERM | libc::EACCES) => "give this user the right to the device (see 'ls -l')",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files with 'ulimit -n'",
        _ => "see 'dmesg' for what the kernel says",
    };
    Error::Kernel { action: format!("opening {}", path.display()), source, remedy }
}
