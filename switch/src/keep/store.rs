//! The holder of places while no switch runs: systemd's descriptor store (`sd_pid_notify_with_fds(3)`), or a
//! program with the same protocol.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};

use linecard_eal::inherited::Inherited;
use linecard_pmd::handover::Keep;
use rustix::net::sockopt::Timeout;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::Record;
use super::place::{Ends, Kept, Place, send};

/// The prefix of the names of descriptors that a switch has stored; its process ID follows.
const NAME: &str = "linecard-";
/// How long the service manager may take to make room for a message.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// The descriptor store of the service manager that started this process.
///
/// ```
/// use linecard_switch::keep::Store;
/// // Without a service manager there is none.
/// # if std::env::var_os("NOTIFY_SOCKET").is_none() {
/// assert!(Store::of_this_process().is_none());
/// # }
/// ```
#[derive(Debug)]
pub struct Store {
    manager: OsString,
    pid: u32,
    free: Arc<Free>,
}

/// Places that are not used any more, which the service manager holds already.
#[derive(Debug, Default)]
pub(super) struct Free(Mutex<Vec<Ends>>);

impl Free {
    pub(super) fn give_back(&self, ends: Ends) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(ends);
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Store {
    /// The store of the service manager that the environment names (`NOTIFY_SOCKET`); `None` if there is
    /// none.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        let manager = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        Some(Self { manager, pid: std::process::id(), free: Arc::default() })
    }

    /// Keeps a control socket for as long as the returned value exists.
    ///
    /// # Errors
    /// The service manager cannot be reached, or the operating system returns an error.
    pub fn keep_control(&self, listener: &impl AsFd, name: Option<(u64, u64)>) -> io::Result<Arc<dyn Keep>> {
        let place = self.place(&Record::Control { name })?;
        place.keep(&[], &[listener.as_fd()])?;
        place.settle()?;
        Ok(place)
    }

    /// Returns an empty place that the service manager holds.
    pub(crate) fn place(&self, record: &Record) -> io::Result<Arc<dyn Keep>> {
        let unused = self.free.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let ends = match unused {
            Some(ends) => ends,
            None => {
                let ends = Ends::new()?;
                // The service manager need not watch whether the socket hangs up.
                self.tell(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={NAME}{}\n", self.pid), Some(&ends.held))?;
                ends
            }
        };
        Ok(Arc::new(Place::new(ends, record, &self.free)?))
    }

    /// Has the service manager release what the switch with that process ID has stored.
    ///
    /// # Errors
    /// The service manager cannot be reached.
    pub fn remove(&self, pid: u32) -> io::Result<()> {
        self.remove_name(&format!("{NAME}{pid}"))
    }

    fn remove_name(&self, name: &str) -> io::Result<()> {
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), None)
    }

    fn tell(&self, text: &str, fd: Option<&OwnedFd>) -> io::Result<()> {
        let to = match self.manager.as_bytes().split_first() {
            Some((b'@', name)) => SocketAddrUnix::new_abstract_name(name)?,
            _ => SocketAddrUnix::new(self.manager.as_bytes())?,
        };
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        rustix::net::connect(&socket, &to)?;
        let fds: Vec<_> = fd.into_iter().map(AsFd::as_fd).collect();
        send(socket.as_fd(), &[text.as_bytes()], &fds)
    }
}

/// Returns the state that an earlier process kept, from the descriptors with which this process was started,
/// and the other descriptors. `store` releases that state, because this process has it now.
#[must_use]
pub fn find(inherited: Vec<Inherited>, store: &Store) -> (Kept, Vec<Inherited>) {
    let (places, rest): (Vec<_>, Vec<_>) = inherited.into_iter().partition(|fd| fd.name.starts_with(NAME));
    let mut kept = Kept::default();
    places.iter().for_each(|place| kept.add(place.fd.as_fd()));
    let names: BTreeSet<&str> = places.iter().map(|place| place.name.as_str()).collect();
    for name in names {
        if let Err(error) = store.remove_name(name) {
            tracing::warn!("the service manager goes on holding what an earlier switch kept: {error}");
        }
    }
    (kept, rest)
}
