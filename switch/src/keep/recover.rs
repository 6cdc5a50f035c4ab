//! Recovery of the ports of a killed switch by the next process.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use linecard_pmd::handover::{HandOver, Pending};

use super::{KeptPort, Record};
use crate::Switch;
use crate::api::{Code, PortSpec, Problem};
use crate::attach::{Source, attach};
use crate::rules::Rules;
use crate::switch::{Entry, MAX_PORTS};
use crate::upgrade::{PortRecord, failures, steps};

/// The key of a port, and the error if it could not be recovered.
pub type Recovered = (String, Result<(), Problem>);

impl Switch {
    /// Keeps an open port, so that it survives this process, if there is a store and its device supports
    /// that.
    pub(crate) fn keep(&self, entry: &Entry) {
        self.keep_each([entry]);
    }

    /// Keeps every port; a successor does this after it has taken over.
    pub fn keep_all(&self) {
        self.keep_each(self.ports().values());
    }

    /// Waits for the threads of all these ports at once.
    fn keep_each<'a>(&self, entries: impl IntoIterator<Item = &'a Entry>) {
        let keeping: Vec<_> = entries.into_iter().filter_map(|entry| self.start_keeping(entry)).collect();
        for (key, kept) in keeping {
            if let Err(problem) = kept.and_then(|kept| kept().map_err(|error| error.to_string())) {
                tracing::warn!("port {key} is not kept should this process be killed: {problem}");
            }
        }
    }

    fn start_keeping<'a>(&self, entry: &'a Entry) -> Option<(&'a str, Result<Pending<'a, ()>, String>)> {
        let (Some(store), Some(open)) = (&self.config.store, &entry.open) else { return None };
        let steps = open.running.hand_over()?;
        let place = serde_json::to_value(&entry.spec).map_err(std::io::Error::from).and_then(|spec| {
            let workers = open.queues.workers();
            let record = PortRecord { id: entry.id, spec, kept: false, open: true, handed: true, workers };
            store.place(&Record::Port(record))
        });
        let keeping = place.map(|place| steps.keep_in(place)).map_err(|error| error.to_string());
        Some((&entry.spec.key, keeping))
    }

    /// Recovers the ports of a killed process, whose peers stay connected, and the addresses that it knew. No
    /// frame passes before all ports are there, because one may send to another: all are recovered at once, and one
    /// whose peer makes it wait is given up. Returns for each port its key, and the error if it could not be
    /// recovered: nothing is left of that port, and its peer is disconnected.
    ///
    /// # Errors
    /// A worker does not answer.
    pub fn recover(
        &self,
        ports: Vec<KeptPort>,
        addresses: Option<&OwnedFd>,
    ) -> Result<Vec<Recovered>, Problem> {
        self.halt()?;
        let attached = ports.into_iter().map(|port| {
            let key = port.spec().get("key").and_then(|key| key.as_str()).unwrap_or_default().to_owned();
            (key, self.attach_kept(port))
        });
        let mut recovered: Vec<Recovered> = attached.collect();
        let lost = self.recover_attached(&mut recovered);
        if let Some(addresses) = addresses
            && let Err(error) = self.recover_addresses(addresses)
        {
            tracing::warn!("addresses that the earlier switch knew are learned anew: {error}");
        }
        self.go_on();
        for mut entry in lost {
            self.close(&mut entry).unwrap_or_else(|problem| tracing::error!("{problem}"));
        }
        self.keep_all();
        Ok(recovered)
    }

    /// Recovers the devices of these ports, all at once. Notes the errors, and returns what is left of their ports.
    fn recover_attached(&self, recovered: &mut [Recovered]) -> Vec<Entry> {
        let mut ports = self.ports();
        let attached = recovered.iter().filter(|(_, outcome)| outcome.is_ok());
        let attached: Vec<_> = attached.filter_map(|(key, _)| ports.get_key_value(key)).collect();
        let all = |step: fn(&dyn HandOver) -> Pending<'_, ()>, but: &[(String, Problem)]| {
            let each = attached.iter().filter(|(key, _)| but.iter().all(|(other, _)| other != *key));
            let each = each.filter_map(|(key, entry)| Some(((*key).clone(), step(steps(entry)?))));
            failures(each.collect())
        };
        let mut failed = all(|steps| steps.recover(), &[]);
        failed.extend(all(|steps| steps.resume(), &failed));
        for open in attached.iter().filter_map(|(_, entry)| entry.open.as_ref()) {
            open.up.store(open.control.link().up, Ordering::Relaxed);
        }
        let mut lost = Vec::new();
        for (key, problem) in failed {
            lost.extend(ports.remove(&key));
            recovered.iter_mut().filter(|(other, _)| *other == key).for_each(|(_, outcome)| {
                *outcome = Err(problem.clone());
            });
        }
        self.relate(&ports, &self.sessions());
        lost
    }

    /// Opens the device of a port; its peer is not waited for.
    fn attach_kept(&self, kept: KeptPort) -> Result<(), Problem> {
        let KeptPort { record, handed } = kept;
        let spec = PortSpec::read(record.spec)?;
        let rules = Rules::of(&spec, self.config.defaults)?;
        let mut ports = self.ports();
        let taken = ports.contains_key(&spec.key) || ports.values().any(|entry| entry.id == record.id);
        if taken || usize::from(record.id) >= MAX_PORTS {
            let message = format!("port '{}' has a name or number that is taken or impossible", spec.key);
            return Err(Problem::new(Code::InvalidParams, message, "it is opened anew"));
        }
        let mut entry = Entry::new(record.id, &spec);
        let attached = attach(&self.config, record.id, &spec, Source::Held(handed))?;
        // Kept once below, not for each queue that moves.
        let moved = self.moves().remove(&spec.key);
        let workers = moved.map_or(record.workers, |moved| moved.into_iter().map(usize::from).collect());
        self.run(&mut entry, rules, attached, &workers)?;
        ports.insert(spec.key.clone(), entry);
        Ok(())
    }
}
