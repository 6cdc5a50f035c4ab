//! What a switch that was killed has left in the service manager's descriptor store, and where this one leaves the same.

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
use super::socket::Socket;
use crate::error::Error;

/// How long a socket whose port is not gone on with may take to close, before it is made anew.
const CLOSING: Duration = Duration::from_millis(100);

/// The store, and what was in it.
pub(super) struct Found {
    pub(super) store: Option<Arc<Store>>,
    kept: Kept,
}

impl Found {
    /// Looks into the service manager's store, if that was asked for.
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

    /// The control socket of the switch that was killed, if it is the one at `path`.
    pub(super) fn socket(&mut self, path: Option<&Path>) -> Option<Socket> {
        let (listener, name) = self.kept.control.take()?;
        Socket::recovered(path?.to_owned(), listener, name)
    }

    /// Goes on with the ports among `wanted` that the switch which was killed had in the same way; their keys.
    pub(super) fn recover<'a>(
        &mut self,
        switch: &Switch,
        wanted: impl IntoIterator<Item = &'a PortSpec>,
    ) -> Vec<String> {
        let wanted: BTreeMap<&str, &PortSpec> =
            wanted.into_iter().map(|spec| (spec.key.as_str(), spec)).collect();
        let (mut back, mut lost) = (Vec::new(), false);
        for port in std::mem::take(&mut self.kept.ports) {
            let Some(key) = wanted_as(&port, &wanted) else {
                port.close();
                lost = true;
                continue;
            };
            match switch.recover(port) {
                Ok(_) => back.push(key),
                Err(problem) => {
                    tracing::warn!("port {key} is opened anew, and its peer has to connect again: {problem}");
                    lost = true;
                }
            }
        }
        if let Some(addresses) = &self.kept.addresses
            && let Err(error) = switch.recover_addresses(addresses)
        {
            tracing::warn!("addresses that the earlier switch knew are learned anew: {error}");
        }
        if lost || !self.kept.unfit.is_empty() {
            // Sockets that are not gone on with are closed by threads that nobody waits for.
            std::thread::sleep(CLOSING);
        }
        back
    }
}

/// The key of a port that is still wanted as it was.
fn wanted_as(port: &KeptPort, wanted: &BTreeMap<&str, &PortSpec>) -> Option<String> {
    let spec = PortSpec::read(port.spec().clone()).ok()?;
    wanted.get(spec.key.as_str()).is_some_and(|other| **other == spec).then_some(spec.key)
}

/// Leaves `socket` to a process after this one; for as long as what this returns is there.
///
/// # Errors
/// No descriptor is left for that.
pub(super) fn keep_control(
    store: Option<&Arc<Store>>,
    socket: Option<&Socket>,
) -> Result<Option<Arc<dyn Keep>>, Error> {
    let (Some(store), Some(socket)) = (store, socket) else { return Ok(None) };
    let (listener, name) = socket.to_leave()?;
    let kept = store.keep_control(&listener, name);
    Ok(kept.inspect_err(|error| tracing::warn!("the control socket is not kept: {error}")).ok())
}
