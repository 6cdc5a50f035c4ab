//! Handover of an interface to another process: its descriptors are passed on, with the packets that wait in
//! them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use linecard_netdev::{Interface, tun};
use linecard_pmd::error::Error;
use linecard_pmd::handover::{HandOver, HandedOver, Keep, Pending};

use super::Started;
use super::open::{Opened, Settings};

/// The identifier of the state, eight bytes, followed by its version.
const STATE: [u8; 9] = *b"LC-TAP\0\0\x01";
/// The interface was up before the port started.
const WAS_UP: u8 = 1;

/// The ownership of the interface. While another process owns it, the end of the port does not change it.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    elsewhere: AtomicBool,
    /// The descriptors of the queues, until they are taken.
    pub(super) queues: Vec<Arc<OwnedFd>>,
    /// Keeps the descriptors for a later process.
    place: Mutex<Option<Arc<dyn Keep>>>,
}

impl Ownership {
    pub(super) fn are_elsewhere(&self) -> bool {
        self.elsewhere.load(Ordering::Relaxed)
    }

    /// Stops keeping the descriptors, so that the interface ends with this process.
    pub(super) fn forget(&self) {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        place.iter().for_each(|place| drop(place.forget()));
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Opens the interface of a predecessor here as well.
pub(super) fn open(
    port: &str,
    settings: &Settings,
    handed: HandedOver,
) -> Result<(Opened, Ownership), Error> {
    let problem = |problem: &str| Error::Peer {
        port: port.into(),
        problem: format!("what was handed over cannot be used: {problem}"),
        remedy: "open the interface anew".into(),
    };
    let Some((&[flags], [])) = handed.state.strip_prefix(&STATE).and_then(<[u8]>::split_first_chunk) else {
        return Err(problem("its state is of another version"));
    };
    let mut fds = handed.descriptors.into_iter();
    let keeper = fds.next().ok_or_else(|| problem("no descriptor came along"))?;
    let queues: Vec<_> = fds.map(Arc::new).collect();
    let name = tun::attached(keeper.as_fd()).map_err(|error| problem(&error))?;
    for queue in &queues {
        match tun::attached(queue.as_fd()) {
            Ok(other) if other == name => {}
            Ok(other) => return Err(problem(&format!("a queue is of {other}, not of {name}"))),
            Err(error) => return Err(problem(&error)),
        }
    }
    let interface = Interface::find(port, &settings.namespace, &name)?;
    let info = interface.info()?;
    let mac = tun::mac(keeper.as_fd()).ok();
    if info.mac != mac {
        return Err(problem(&format!("the interface {name} of this network namespace is another one")));
    }
    let opened = Opened {
        name,
        interface: Some(Arc::new(interface)),
        mac: mac.unwrap_or_default(),
        keeper: Some(keeper),
        passed: Vec::new(),
        was_up: flags & WAS_UP != 0,
        info,
    };
    Ok((opened, Ownership { elsewhere: AtomicBool::new(true), queues, place: Mutex::default() }))
}

impl Started {
    /// Returns whether the descriptors are the whole port: no redirection, and no other owner.
    pub(super) fn can_change_hands(&self) -> bool {
        self.tap.remote.is_none() && self.tap.opened.keeper.is_some()
    }

    fn held(&self) -> Result<HandedOver, Error> {
        let system = |source| Error::System {
            port: self.tap.name.clone(),
            action: "duplicating a descriptor".into(),
            source,
            remedy: "allow this process more descriptors".into(),
        };
        let fds = self.tap.opened.keeper.iter().map(AsFd::as_fd);
        let fds = fds.chain(self.fds.iter().map(|fd| fd.as_fd()));
        let descriptors: Result<_, _> = fds.map(|fd| fd.try_clone_to_owned()).collect();
        let flags = if self.tap.opened.was_up { WAS_UP } else { 0 };
        Ok(HandedOver { state: [&STATE[..], &[flags]].concat(), descriptors: descriptors.map_err(system)? })
    }
}

/// The kernel keeps arriving packets until either process reads them.
impl HandOver for Started {
    fn hold(&self) -> Pending<'_, HandedOver> {
        let held = self.held();
        Box::new(|| held)
    }

    fn freeze(&self) -> Pending<'_, Vec<u8>> {
        Box::new(|| Ok(Vec::new()))
    }

    fn begin(&self, _: &[u8]) -> Pending<'_, ()> {
        Box::new(|| Ok(()))
    }

    fn resume(&self) -> Pending<'_, ()> {
        self.tap.ownership.elsewhere.store(false, Ordering::Relaxed);
        Box::new(|| Ok(()))
    }

    fn release(&self) {
        self.tap.ownership.elsewhere.store(true, Ordering::Relaxed);
        self.tap.ownership.forget();
    }

    /// The state does not change while the port is started.
    fn keep_in(&self, place: Arc<dyn Keep>) -> Pending<'_, ()> {
        let kept = self.held().and_then(|held| {
            let fds: Vec<_> = held.descriptors.iter().map(AsFd::as_fd).collect();
            place.keep(&held.state, &fds).and_then(|_| place.settle()).map_err(|source| Error::System {
                port: self.tap.name.clone(),
                action: "keeping the descriptors of the interface".into(),
                source,
                remedy: "allow this process more descriptors".into(),
            })
        });
        *self.tap.ownership.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        Box::new(|| kept)
    }

    /// Packets that arrived meanwhile wait in the kernel.
    fn recover(&self) -> Pending<'_, ()> {
        Box::new(|| Ok(()))
    }
}
