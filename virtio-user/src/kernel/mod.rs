//! Devices of the kernel, reached by requests to a character device instead of messages on a socket.

mod args;
mod events;
mod ioctl;
mod memory;
mod net;
mod tap;

use std::io;
use std::path::Path;

pub(crate) use args::Place;

use crate::error::Error;

/// Descriptors of a queue pair: of its vhost device, and its queue.
pub(crate) const PAIR_DESCRIPTORS: u64 = 2;

/// Whether `path` names a device of the kernel: it is a character device, or it is missing and has the name of one.
pub(crate) fn is_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::metadata(path) {
        Ok(meta) => meta.file_type().is_char_device(),
        Err(_) => path.to_string_lossy().starts_with("/dev/vhost-"),
    }
}

/// What the kernel refused, with what to do about it.
fn refused(action: &str, source: io::Error) -> Error {
    let remedy = match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "run as the owner of the device and the interface, or as root",
        Some(libc::EBUSY) => {
            "another process uses it; end that process, or use another interface or descriptor"
        }
        Some(libc::E2BIG) => "give fewer queues=, or fewer and larger memory segments",
        Some(libc::EBADF) => "give the number of a descriptor that is open in this process",
        Some(libc::ENOTSOCK) => "the interface must be a tap interface; choose another with iface=",
        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => {
            "check the limits of this process (ulimit -a): each queue pair is a thread and several descriptors"
        }
        Some(libc::ENODEV | libc::EBADFD) => "the interface is gone; make it again",
        _ => "see 'dmesg' for what the kernel says",
    };
    Error::Kernel { action: action.to_owned(), source, remedy }
}

/// Why the device at `path` does not open.
fn cannot_open(path: &Path, source: io::Error) -> Error {
    let remedy = match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "load the module with 'modprobe vhost_net', or give the container --device /dev/vhost-net"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "add this user to the group of the device (see 'ls -l'), or pass open descriptors with vhost_fd="
        }
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files with 'ulimit -n'",
        _ => "see 'dmesg' for what the kernel says",
    };
    Error::Kernel { action: format!("opening {}", path.display()), source, remedy }
}
