//! DEL and GC: both succeed even if the objects to be removed no longer exist.

use std::collections::BTreeSet;
use std::path::Path;

use crate::attach::meta;
use crate::config::Mode;
use crate::environment::{Attachment, Command};
use crate::error::{Code, Error};
use crate::handover::{folder, remove_folder};
use crate::link;
use crate::plugin::Plugin;
use crate::state::{Detached, State, remove};
use crate::step;
use crate::switch::Switch;

impl Plugin {
    /// Detaches a container. Its namespace, record, folder and the switch need not exist.
    pub(crate) fn del(&self) -> Result<(), Error> {
        let attachment = self.attachment()?;
        let state = State::open(&self.config.state_dir)?;
        let _lock = state.lock(attachment)?;
        self.catch_up(&state);
        self.undo(&state, attachment)?;
        state.sweep();
        Ok(())
    }

    /// Undoes everything that ADD may have done for `attachment`, however far it got. The record is removed
    /// last.
    pub(crate) fn undo(&self, state: &State, attachment: &Attachment) -> Result<(), Error> {
        self.undo_local(state, attachment)?;
        step::done("everything but addresses is undone");
        self.delegate(Command::Del, Some(attachment))?;
        step::done("addresses are given back");
        state.remove(attachment)
    }

    /// As [`undo`](Self::undo), without the addresses and the record.
    fn undo_local(&self, state: &State, attachment: &Attachment) -> Result<(), Error> {
        let record = state.read(attachment);
        let port = attachment.to_string();
        let switch = record.as_ref().map_or(&self.config.switch, |record| &record.switch);
        detach(state, &port, switch)?;
        step::done("the port is removed");
        let recorded = record.as_ref().and_then(|record| record.folder.clone());
        for folder in [recorded, folder(&self.config, attachment)].iter().flatten() {
            // Configurations change; a recorded folder without this attachment's name is not trusted.
            if folder.file_name().is_some_and(|name| name.to_str() == Some(&port)) {
                remove_folder(folder)?;
                step::done("the folder is removed");
            }
        }
        if let Some(record) = &record {
            link::remove(record);
            step::done("the interface is removed");
        }
        match record.and_then(|record| record.device_info) {
            Some(file) => remove(&file),
            None => Ok(()),
        }
    }

    /// Removes ports that could not be removed while the switch was not running.
    pub(crate) fn catch_up(&self, state: &State) {
        state.catch_up(|detached| {
            Switch::connect(&detached.switch).and_then(|mut switch| switch.remove(&detached.port)).is_ok()
        });
    }

    /// Removes everything of this network that belongs to no valid attachment. Continues after an error;
    /// returns the first one.
    pub(crate) fn gc(&self) -> Result<(), Error> {
        let Some(valid) = &self.config.valid else {
            return Err(Error::config(
                "GC has no 'cni.dev/valid-attachments'",
                "pass the list of attachments that are to stay, which may be empty",
            ));
        };
        let valid: BTreeSet<&Attachment> = valid.iter().collect();
        let state = State::open(&self.config.state_dir)?;
        self.catch_up(&state);
        let mut first = Ok(());
        let mut keep = |outcome: Result<(), Error>| {
            if first.is_ok() {
                first = outcome;
            }
        };
        for attachment in state.attachments().iter().filter(|attachment| !valid.contains(attachment)) {
            keep(self.collect(&state, attachment));
        }
        self.remove_strangers(&state, &valid);
        keep(self.collect_ports(&valid));
        state.sweep();
        keep(self.delegate(Command::Gc, None).map(drop));
        first
    }

    /// Removes one attachment, if it belongs to this network.
    fn collect(&self, state: &State, attachment: &Attachment) -> Result<(), Error> {
        let _lock = state.lock(attachment)?;
        match state.read(attachment) {
            Some(record) if record.network != self.config.name => Ok(()),
            // The network of these addresses is unknown: the IPAM plugin's own GC frees them.
            None => {
                self.undo_local(state, attachment)?;
                state.remove(attachment)
            }
            Some(_) => self.undo(state, attachment),
        }
    }

    /// Removes socket folders without a record: a record is written before its folder and removed after it.
    fn remove_strangers(&self, state: &State, valid: &BTreeSet<&Attachment>) {
        let Mode::SocketDir { below, .. } = &self.config.mode else { return };
        let known: BTreeSet<String> =
            state.attachments().iter().chain(valid.iter().copied()).map(Attachment::to_string).collect();
        for entry in std::fs::read_dir(below).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name.split_once('@').is_some_and(|(container, ifname)| {
                Attachment::new(container, ifname).is_ok() && !known.contains(&name)
            });
            if ours {
                let _ = remove_folder(&entry.path());
            }
        }
    }

    /// Removes the switch's ports of this network that belong to no valid attachment.
    fn collect_ports(&self, valid: &BTreeSet<&Attachment>) -> Result<(), Error> {
        let mut switch = match Switch::connect(&self.config.switch) {
            Ok(switch) => switch,
            // A switch that is not running has no ports now. Ports that it restores are found by the next GC,
            // or by the switch itself once their namespaces no longer exist.
            Err(error) if error.code == Code::NotAvailable => return Ok(()),
            Err(error) => return Err(error),
        };
        let ports = switch.list()?;
        let stale = ports.iter().filter(|port| {
            let about = |key: &str| port.spec.meta.get(key).map(String::as_str);
            let attachment = about(meta::CONTAINER).zip(about(meta::IFNAME));
            let attachment =
                attachment.and_then(|(container, ifname)| Attachment::new(container, ifname).ok());
            about(meta::OWNER) == Some(meta::OWNER_IS)
                && about(meta::NETWORK) == Some(&self.config.name)
                && attachment.is_some_and(|attachment| !valid.contains(&attachment))
        });
        for port in stale {
            switch.remove(&port.spec.key)?;
            step::done("a stale port is removed");
        }
        Ok(())
    }
}

/// Removes a port, or records it for removal when the switch runs again.
pub(crate) fn detach(state: &State, port: &str, switch: &Path) -> Result<(), Error> {
    let connected = Switch::connect(switch);
    step::done("the switch was asked for");
    match connected.and_then(|mut switch| switch.remove(port)) {
        Err(error) if matches!(error.code, Code::NotAvailable | Code::LimitedConnectivity) => {
            state.detach_later(&Detached { port: port.into(), switch: switch.into() })
        }
        outcome => outcome,
    }
}
