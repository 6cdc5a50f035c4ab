//! Requests whose effect is kept for a restart: ports, static addresses, mirroring sessions, moved queues.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::PoisonError;

use linecard_net::MacAddr;

use super::Service;
use crate::Switch;
use crate::api::{FdbAddress, FdbEntry, FdbStatic, PortAdded, PortSpec, Problem, QueueMove, Span, SpanInfo};
use crate::state::Saved;

impl Service {
    /// Adds a port; one that cannot be kept is not added. Nothing is locked here while it is opened, because
    /// that may wait.
    pub(super) fn add(&self, spec: &PortSpec, fd: Option<OwnedFd>) -> Result<PortAdded, Problem> {
        let added = self.switch.add(spec, fd)?;
        self.see(spec);
        if added.created
            && let Err(problem) = self.keep_port(&spec.key)
        {
            self.switch.remove(&spec.key)?;
            return Err(problem);
        }
        Ok(added)
    }

    /// Keeps a port, unless it was removed meanwhile.
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

    /// Removes a port. The state file changes first: if it cannot be written, the port stays and the request
    /// can be repeated.
    pub(super) fn remove(&self, key: &str) -> Result<bool, Problem> {
        self.remove_if(key, |_| true)
    }

    /// As [`remove`](Self::remove), if `is` accepts the port.
    pub(super) fn remove_if(&self, key: &str, is: impl Fn(&PortSpec) -> bool) -> Result<bool, Problem> {
        // If the port does not exist, its kept data is removed all the same.
        self.forget(key, |switch| switch.show(key).ok().is_none_or(|port| is(&port.spec)))?;
        let removed = self.switch.remove_if(key, &is)?;
        if !removed && self.switch.show(key).is_ok() {
            // Another port with that key was added meanwhile.
            self.keep_port(key)?;
        }
        // A port with that key that was added meanwhile has been removed too; a later one is kept now.
        self.forget(key, |switch| switch.show(key).is_err())?;
        Ok(removed)
    }

    /// Stops keeping a port and its static addresses, if `still` holds once the kept data is locked.
    fn forget(&self, key: &str, still: impl Fn(&Switch) -> bool) -> Result<(), Problem> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !still(&self.switch) {
            return Ok(());
        }
        let had = kept.remove(key);
        let before = self.change_statics(|statics| statics.retain(|address| address.port != key));
        let (moved, seen) = (self.switch.forget_moves(key), self.namespaces().remove(key));
        if !had && moved.is_none() && !before.iter().any(|address| address.port == key) {
            return Ok(());
        }
        self.save(&kept).inspect_err(|_| {
            if had {
                kept.insert(key.to_owned());
            }
            self.change_statics(|statics| *statics = before);
            self.switch.restore_moves(moved.map(|moved| (key.to_owned(), moved)));
            self.namespaces().extend(seen.map(|seen| (key.to_owned(), seen)));
        })
    }

    /// Adds a static address; one that cannot be kept is not added.
    pub(super) fn fix(&self, asked: &FdbStatic) -> Result<FdbEntry, Problem> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let fixed = self.switch.fix(asked)?;
        let before = self.change_statics(|statics| {
            statics.retain(|address| !is_at(address, asked.mac, asked.vlan));
            statics.push(asked.clone());
        });
        if let Err(problem) = self.save(&kept) {
            // An address that was static before stays.
            if !before.iter().any(|address| is_at(address, asked.mac, asked.vlan)) {
                self.switch.unfix(&FdbAddress { mac: asked.mac, vlan: asked.vlan })?;
            }
            self.change_statics(|statics| *statics = before);
            return Err(problem);
        }
        Ok(fixed)
    }

    /// Removes a static address; one that cannot be removed from the state file stays.
    pub(super) fn unfix(&self, asked: &FdbAddress) -> Result<bool, Problem> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = self.switch.unfix(asked)?;
        let before = self.change_statics(|statics| {
            statics.retain(|address| !is_at(address, asked.mac, asked.vlan));
        });
        let Some(was) = before.iter().find(|address| is_at(address, asked.mac, asked.vlan)).cloned() else {
            return Ok(removed);
        };
        if let Err(problem) = self.save(&kept) {
            self.change_statics(|statics| *statics = before);
            self.switch.fix(&was)?;
            return Err(problem);
        }
        Ok(removed)
    }

    /// Sets a mirroring session; one that cannot be kept is not set.
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

    /// Removes a mirroring session; one that cannot be removed from the state file stays.
    pub(super) fn remove_span(&self, to: &str) -> Result<bool, Problem> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.switch.spans().into_iter().find(|info| info.span.to == to);
        let removed = self.switch.remove_span(to);
        if let Some(before) = before.filter(|_| removed)
            && let Err(problem) = self.save(&kept)
        {
            self.switch.restore_span(&before.span, before.kept)?;
            return Err(problem);
        }
        Ok(removed)
    }

    /// Moves a queue. It stays with its new worker even if that cannot be kept.
    pub(super) fn move_queue(&self, asked: &QueueMove) -> Result<(), Problem> {
        self.switch.move_queue(asked)?;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        self.save(&kept).map_err(|problem| {
            let message =
                format!("the queue has moved, and a restart will not know of it: {}", problem.message);
            Problem { message, ..problem }
        })
    }

    /// Changes the static addresses; returns what they were.
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
        // Data of ports that no longer exist is not written.
        let keys = self.switch.keys();
        let mut moves = self.switch.moves();
        moves.retain(|key, _| keys.contains(key));
        let mut namespaces = self.namespaces().clone();
        namespaces.retain(|key, _| keys.contains(key));
        state.save(&Saved { ports, fdb, spans, moves, namespaces }).map_err(Problem::from)
    }
}

fn is_at(address: &FdbStatic, mac: MacAddr, vlan: u16) -> bool {
    address.mac == mac && address.vlan == vlan
}
