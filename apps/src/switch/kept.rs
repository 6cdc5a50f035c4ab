//! The state that a killed switch left in the service manager's descriptor store, and the store for this one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use linecard::eal::inherited;
use linecard::pmd::handover::Keep;
use linecard_switch::Switch;
use linecard_switch::api::PortSpec;
use linecard_switch::keep::{Kept, KeptPort, Store, find};

use super::args::SwitchArgs;
use super::failed;
use super::socket::Socket;
use crate::error::Error;

/// How long the sockets of ports that are not recovered may take to close before they are created again.
const CLOSING: Duration = Duration::from_millis(100);

/// The store and its content.
pub(super) struct Found {
    pub(super) store: Option<Arc<Store>>,
    kept: Kept,
}

impl Found {
    /// Reads the service manager's store, if `--fd-store` is given.
    pub(super) fn look(args: &SwitchArgs) -> Self {
        if !args.fd_store {
            return Self { store: None, kept: Kept::default() };
        }
        let Some(store) = Store::of_this_process() else {
            tracing::warn!(
                "there is no service manager (NOTIFY_SOCKET): ports will not survive if this process is killed"
            );
            return Self { store: None, kept: Kept::default() };
        };
        let (kept, _) = find(inherited::take(), &store);
        for unfit in &kept.unfit {
            tracing::warn!("the peer of a port has to connect again: {unfit}");
        }
        Self { store: Some(Arc::new(store)), kept }
    }

    /// The control socket of the killed switch, if it is the one at `path`.
    pub(super) fn socket(&mut self, path: Option<&Path>) -> Option<Socket> {
        let (listener, name) = self.kept.control.take()?;
        Socket::recovered(path?.to_owned(), listener, name)
    }

    /// Recovers those `wanted` ports that the killed switch had with the same parameters; returns their keys.
    ///
    /// # Errors
    /// The workers of the switch do not answer.
    pub(super) fn recover<'a>(
        &mut self,
        switch: &Switch,
        wanted: impl IntoIterator<Item = &'a PortSpec>,
    ) -> Result<Vec<String>, Error> {
        let wanted: BTreeMap<&str, &PortSpec> =
            wanted.into_iter().map(|spec| (spec.key.as_str(), spec)).collect();
        let (mut back, mut lost) = (Vec::new(), false);
        let mut ports = Vec::new();
        for port in std::mem::take(&mut self.kept.ports) {
            if is_wanted(&port, &wanted) {
                ports.push(port);
            } else {
                port.close();
                lost = true;
            }
        }
        let recovered = if ports.is_empty() {
            Vec::new()
        } else {
            switch.recover(ports, self.kept.addresses.as_ref()).map_err(failed)?
        };
        for (key, outcome) in recovered {
            match outcome {
                Ok(()) => back.push(key),
                Err(problem) => {
                    tracing::warn!("port {key} is opened anew, and its peer has to connect again: {problem}");
                    lost = true;
                }
            }
        }
        if lost || !self.kept.unfit.is_empty() {
            // Sockets of ports that are not recovered are closed by other threads.
            std::thread::sleep(CLOSING);
        }
        Ok(back)
    }
}

/// Returns whether a port is wanted with the same parameters.
fn is_wanted(port: &KeptPort, wanted: &BTreeMap<&str, &PortSpec>) -> bool {
    PortSpec::read(port.spec().clone())
        .is_ok_and(|spec| wanted.get(spec.key.as_str()).is_some_and(|other| **other == spec))
}

/// Keeps `socket` for the next process, as long as the returned value exists.
///
/// # Errors
/// No descriptor is available.
pub(super) fn keep_control(
    store: Option<&Arc<Store>>,
    socket: Option<&Socket>,
) -> Result<Option<Arc<dyn Keep>>, Error> {
    let (Some(store), Some(socket)) = (store, socket) else { return Ok(None) };
    let (listener, name) = socket.to_leave()?;
    let kept = store.keep_control(&listener, name);
    Ok(kept.inspect_err(|error| tracing::warn!("the control socket is not kept: {error}")).ok())
}
