//! What is changed by request and kept for a restart: ports, and addresses put in by hand.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::PoisonError;

use linecard_net::MacAddr;

use super::Service;
use crate::api::{FdbAddress, FdbEntry, FdbStatic, PortAdded, PortSpec, Problem, Span, SpanInfo};
use crate::state::Saved;

impl Service {
    /// A port that cannot be kept is not added. While it is opened nothing is locked here: what it opens may make it wait.
    pub(super) fn add(&self, spec: &PortSpec, fd: Option<OwnedFd>) -> Result<PortAdded, Problem> {
        let added = self.switch.add(spec, fd)?;
        if added.created
            && let Err(problem) = self.keep_port(&spec.key)
        {
            self.switch.remove(&spec.key)?;
            return Err(problem);
        }
        Ok(added)
    }

    /// Keeps a port, if it was not removed meanwhile.
    fn keep_port(&self, key: &str) -> Result<(), Problem> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if self.switch.show(key).is_err() {
            return Ok(());
        }
        kept.insert(key.to_owned());
        self.save(&kept).inspect_err(|_| {
            kept.remove(key);
        })
    }

    pub(super) fn remove(&self, key: &str) -> Result<bool, Problem> {
        let removed = self.switch.remove(key)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if self.switch.show(key).is_ok() {
            // Another of that key has been added, and is what is kept now.
            return Ok(removed);
        }
        // Its addresses went with it.
        let addresses = {
            let mut statics = self.statics.lock().unwrap_or_else(PoisonError::into_inner);
            let before = statics.len();
            statics.retain(|address| address.port != key);
            statics.len() < before
        };
        if kept.remove(key) || addresses {
            self.save(&kept)?;
        }
        Ok(removed)
    }

    /// An address that cannot be kept is not put in.
    pub(super) fn fix(&self, asked: &FdbStatic) -> Result<FdbEntry, Problem> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let fixed = self.switch.fix(asked)?;
        let before = self.change_statics(|statics| {
            statics.retain(|address| !is_at(address, asked.mac, asked.vlan));
            statics.push(asked.clone());
        });
        if let Err(problem) = self.save(&kept) {
            self.change_statics(|statics| *statics = before);
            self.switch.unfix(&FdbAddress { mac: asked.mac, vlan: asked.vlan })?;
            return Err(problem);
        }
        Ok(fixed)
    }

    pub(super) fn unfix(&self, asked: &FdbAddress) -> Result<bool, Problem> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = self.switch.unfix(asked)?;
        let before = self.change_statics(|statics| {
            statics.retain(|address| !is_at(address, asked.mac, asked.vlan));
        });
        let now = self.statics.lock().unwrap_or_else(PoisonError::into_inner).len();
        if now < before.len() {
            self.save(&kept)?;
        }
        Ok(removed)
    }

    /// A session that cannot be kept is not set.
    pub(super) fn set_span(&self, asked: &Span) -> Result<SpanInfo, Problem> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.switch.spans().into_iter().find(|info| info.span.to == asked.to);
        let set = self.switch.set_span(asked, true)?;
        if let Err(problem) = self.save(&kept) {
            self.switch.remove_span(&asked.to);
            if let Some(before) = before {
                self.switch.restore_span(&before.span, before.kept)?;
            }
            return Err(problem);
        }
        Ok(set)
    }

    pub(super) fn remove_span(&self, to: &str) -> Result<bool, Problem> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = self.switch.remove_span(to);
        if removed {
            self.save(&kept)?;
        }
        Ok(removed)
    }

    /// Changes them; what they were.
    fn change_statics(&self, change: impl FnOnce(&mut Vec<FdbStatic>)) -> Vec<FdbStatic> {
        let mut statics = self.statics.lock().unwrap_or_else(PoisonError::into_inner);
        let before = statics.clone();
        change(&mut statics);
        before
    }

    pub(super) fn save(&self, kept: &BTreeSet<String>) -> Result<(), Problem> {
        let Some(state) = &self.state else { return Ok(()) };
        let ports: Vec<_> = self.switch.specs().into_iter().filter(|spec| kept.contains(&spec.key)).collect();
        let fdb = self.statics.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let spans = self.switch.spans().into_iter().filter(|info| info.kept).map(|info| info.span).collect();
        state.save(&Saved { ports, fdb, spans }).map_err(Problem::from)
    }
}

fn is_at(address: &FdbStatic, mac: MacAddr, vlan: u16) -> bool {
    address.mac == mac && address.vlan == vlan
}
