//! Messages to the service manager (sd_notify(3)): one datagram to the socket that it named.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable that names the socket.
const SOCKET: &str = "NOTIFY_SOCKET";

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

fn tell(what: &str) {
    let Some(name) = std::env::var_os(SOCKET) else { return };
    if let Err(error) = send(&name, what) {
        tracing::warn!("the service manager at {} cannot be told: {error}", name.display());
    }
}

fn send(name: &OsStr, what: &str) -> io::Result<()> {
    let address = match name.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not block the switch.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(what.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_are_told() {
        let path = std::env::temp_dir().join(format!("linecard-notify-{}", std::process::id()));
        let abstract_name = format!("@linecard-notify-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).expect("a socket");
        let address = SocketAddr::from_abstract_name(&abstract_name[1..]).expect("an address");
        let by_name = UnixDatagram::bind_addr(&address).expect("a socket");
        for (name, socket) in [(path.as_os_str(), &by_path), (OsStr::new(&abstract_name), &by_name)] {
            send(name, "READY=1\n").expect("it is there");
            let mut told = [0; 16];
            let len = socket.recv(&mut told).expect("it is told");
            assert_eq!(&told[..len], b"READY=1\n");
        }
        std::fs::remove_file(path).expect("it is there");
        assert!(send(OsStr::new("/no/such/socket"), "READY=1\n").is_err());
        assert!(send(OsStr::new(""), "READY=1\n").is_err());
    }
}
