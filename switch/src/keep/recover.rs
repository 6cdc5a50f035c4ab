//! Recovery of the ports of a killed switch by the next process.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use super::{KeptPort, Record};
use crate::Switch;
use crate::api::{Code, PortSpec, Problem};
use crate::attach::{Source, attach, unavailable};
use crate::rules::Rules;
use crate::switch::{Entry, MAX_PORTS};
use crate::upgrade::PortRecord;

/// The key of a port, and the error if it could not be recovered.
pub type Recovered = (String, Result<(), Problem>);

impl Switch {
    /// Keeps an open port, so that it survives this process, if there is a store and its device supports
    /// that.
    pub(crate) fn keep(&self, entry: &Entry) {
        let (Some(store), Some(open)) = (&self.config.store, &entry.open) else { return };
        let Some(steps) = open.running.hand_over() else { return };
        let kept = serde_json::to_value(&entry.spec).map_err(std::io::Error::from).and_then(|spec| {
            let workers = open.queues.workers();
            let record = PortRecord { id: entry.id, spec, kept: false, open: true, handed: true, workers };
            store.place(&Record::Port(record))
        });
        let kept = kept
            .map_err(|error| error.to_string())
            .and_then(|place| steps.keep_in(place)().map_err(|error| error.to_string()));
        if let Err(problem) = kept {
            tracing::warn!("port {} is not kept should this process be killed: {problem}", entry.spec.key);
        }
    }

    /// Keeps every port; a successor does this after it has taken over.
    pub fn keep_all(&self) {
        self.ports().values().for_each(|entry| self.keep(entry));
    }

    /// Recovers the ports of a killed process, whose peers stay connected, and the addresses that it knew. No
    /// frame passes before all ports are there, because one may send to another. Returns for each port its
    /// key, and the error if it could not be recovered: nothing is left of that port, and its peer is
    /// disconnected.
    ///
    /// # Errors
    /// A worker does not answer.
    pub fn recover(
        &self,
        ports: Vec<KeptPort>,
        addresses: Option<&OwnedFd>,
    ) -> Result<Vec<Recovered>, Problem> {
        self.halt()?;
        let recovered = ports.into_iter().map(|port| {
            let key = port.spec().get("key").and_then(|key| key.as_str()).unwrap_or_default().to_owned();
            (key, self.recover_port(port))
        });
        let recovered = recovered.collect();
        if let Some(addresses) = addresses
            && let Err(error) = self.recover_addresses(addresses)
        {
            tracing::warn!("addresses that the earlier switch knew are learned anew: {error}");
        }
        self.go_on();
        Ok(recovered)
    }

    fn recover_port(&self, kept: KeptPort) -> Result<(), Problem> {
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
        let steps = entry.open.as_ref().and_then(|open| open.running.hand_over());
        let begun = steps.map(|steps| steps.recover()().and_then(|()| steps.resume()()));
        if let Some(Err(error)) = begun {
            self.close(&mut entry)?;
            return Err(unavailable(&error));
        }
        if let Some(open) = &entry.open {
            open.up.store(open.control.link().up, Ordering::Relaxed);
        }
        self.keep(&entry);
        ports.insert(spec.key.clone(), entry);
        self.relate(&ports, &self.sessions());
        Ok(())
    }
}
