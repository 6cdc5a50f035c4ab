//! Messages to the service manager (sd_notify(3)): one datagram to the socket that it named.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use linecard::eal::liveness::Liveness;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

/// The variable that names the socket.
const SOCKET: &str = "NOTIFY_SOCKET";
/// The field with which the keeper gets the mutex that this process's main thread holds. systemd ignores fields
/// that it does not know, and closes descriptors that are not to be stored.
pub(crate) const LIVENESS: &str = "LINECARD_LIVENESS";

/// Tells the service manager, if there is one, that the switch forwards frames and answers requests.
pub(crate) fn ready() {
    tell("READY=1\nSTATUS=switching\n");
}

/// Tells the service manager that the switch is ending.
pub(crate) fn stopping() {
    tell("STOPPING=1\n");
}

/// Tells the service manager that another process is the service from now on, because it has taken over.
pub(crate) fn main_pid(pid: u32) {
    tell(&format!("MAINPID={pid}\n"));
}

/// Holds a mutex in the calling thread, which is the main one, and passes it to the service manager: the keeper
/// notices the end of this process by it. `extra` follows the process ID.
pub(crate) fn liveness(extra: &str) {
    let made = Liveness::new().and_then(|mutex| {
        let passed = mutex.as_fd().try_clone_to_owned()?;
        mutex.hold()?;
        Ok(passed)
    });
    match made {
        Ok(mutex) => tell_with(&format!("{LIVENESS}={}{extra}\n", std::process::id()), Some(mutex.as_fd())),
        Err(error) => tracing::warn!("if this process is killed, the keeper will notice it later: {error}"),
    }
}

fn tell(what: &str) {
    tell_with(what, None);
}

fn tell_with(what: &str, fd: Option<BorrowedFd<'_>>) {
    let Some(name) = std::env::var_os(SOCKET) else { return };
    if let Err(error) = send(&name, what, fd) {
        tracing::warn!("the service manager at {} cannot be told: {error}", name.display());
    }
}

fn send(name: &OsStr, what: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let address = match name.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddrUnix::new_abstract_name(name)?,
        _ => SocketAddrUnix::new(name.as_bytes())?,
    };
    // A manager that does not read must not block the switch.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<_> = fd.into_iter().collect();
    if !fds.is_empty() {
        // There is room for one.
        beside.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let text = [IoSlice::new(what.as_bytes())];
    rustix::net::sendmsg_addr(&socket, &address, &text, &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    #[test]
    fn both_kinds_of_socket_are_told() {
        let path = std::env::temp_dir().join(format!("linecard-notify-{}", std::process::id()));
        let abstract_name = format!("@linecard-notify-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).expect("a socket");
        let address = SocketAddr::from_abstract_name(&abstract_name[1..]).expect("an address");
        let by_name = UnixDatagram::bind_addr(&address).expect("a socket");
        for (name, socket) in [(path.as_os_str(), &by_path), (OsStr::new(&abstract_name), &by_name)] {
            send(name, "READY=1\n", None).expect("it is there");
            let mut told = [0; 16];
            let len = socket.recv(&mut told).expect("it is told");
            assert_eq!(&told[..len], b"READY=1\n");
        }
        std::fs::remove_file(path).expect("it is there");
        assert!(send(OsStr::new("/no/such/socket"), "READY=1\n", None).is_err());
        assert!(send(OsStr::new(""), "READY=1\n", None).is_err());
    }
}
