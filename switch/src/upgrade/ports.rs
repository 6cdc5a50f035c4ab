//! The steps of an upgrade that concern the ports and workers of either switch.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use linecard_pmd::handover::{HandedOver, Pending};
use linecard_pmd::stats::Counter;

use super::channel::{PortMoved, PortRecord};
use crate::Switch;
use crate::api::{Code, PortSpec, Problem};
use crate::attach::{Source, attach, unavailable};
use crate::rules::Rules;
use crate::switch::{Entry, MAX_PORTS, PATIENCE};
use crate::worker::Command;

/// How long to wait for a worker without sleeping.
const SOON: Duration = Duration::from_micros(200);

/// A port of the predecessor, with its device if that is handed over.
pub(super) type Left = (PortRecord, Option<HandedOver>);

impl Switch {
    /// Halts all workers: they receive nothing more, and send what the others have left in their inboxes.
    /// Returns once all are halted.
    pub(crate) fn halt(&self) -> Result<(), Problem> {
        // A received frame may have to be sent by another worker: all must stop receiving first.
        for command in [Command::Drain, Command::Halt] {
            let (tell, told) = channel();
            self.remotes.iter().for_each(|remote| {
                remote.tell(command(tell.clone()));
            });
            drop(tell);
            for _ in &self.remotes {
                hear(&told)?;
            }
        }
        Ok(())
    }

    /// Lets halted workers poll for the next command without sleeping, for a moment.
    pub(super) fn get_ready(&self) {
        self.remotes.iter().for_each(|remote| {
            remote.tell(Command::Ready);
        });
    }

    /// Resumes the workers.
    pub(crate) fn go_on(&self) {
        self.remotes.iter().for_each(|remote| {
            remote.tell(Command::Resume);
        });
    }

    /// Checks that this switch can move frames: every worker answers, and there are packets.
    ///
    /// # Errors
    /// A worker does not answer, or the pool has no packet.
    pub fn check(&self) -> Result<(), Problem> {
        self.halt()?;
        self.go_on();
        let packet = self.config.pool.get();
        packet.map(drop).ok_or_else(|| {
            Problem::new(Code::Exhausted, "the switch has no packets", "allow it more memory (-m)")
        })
    }

    /// In the predecessor: holds every port whose device can be handed over, and returns what a successor
    /// needs for all ports. A successor opens anew those of which a device cannot be held.
    pub(super) fn hold_ports(&self, kept: impl Fn(&str) -> bool) -> Result<Vec<Left>, Problem> {
        let ports = self.ports();
        let entries: Vec<&Entry> = ports.values().collect();
        let holding: Vec<_> = entries.iter().map(|entry| steps(entry).map(|steps| steps.hold())).collect();
        // Waits for all outcomes, so that ports that are held can be resumed.
        let held: Vec<_> = holding.into_iter().map(|holding| holding.map(|outcome| outcome())).collect();
        let mut left = Vec::new();
        for (entry, held) in entries.iter().zip(held) {
            let handed = held.and_then(|held| {
                held.inspect_err(|error| warn_of(&entry.spec.key, &unavailable(error))).ok()
            });
            let spec = serde_json::to_value(&entry.spec).map_err(|error| {
                Problem::new(Code::Internal, format!("a port cannot be described: {error}"), "report this")
            })?;
            let workers = entry.open.as_ref().map(|open| open.queues.workers()).unwrap_or_default();
            let record = PortRecord {
                id: entry.id,
                spec,
                kept: kept(&entry.spec.key),
                open: entry.open.is_some(),
                handed: handed.is_some(),
                workers,
            };
            left.push((record, handed));
        }
        Ok(left)
    }

    /// In the predecessor, with halted workers: returns the positions and counters of all ports. A successor gives
    /// up a port whose position is not known.
    pub(super) fn freeze_ports(&self) -> Vec<(PortMoved, Vec<u8>)> {
        let ports = self.ports();
        let entries: Vec<&Entry> = ports.values().collect();
        let freezing: Vec<_> = entries.iter().map(|entry| steps(entry).map(|steps| steps.freeze())).collect();
        let frozen: Vec<_> = freezing.into_iter().map(|freezing| freezing.map(|outcome| outcome())).collect();
        let mut moved = Vec::new();
        for (entry, frozen) in entries.iter().zip(frozen) {
            let state = frozen.and_then(|frozen| {
                frozen.inspect_err(|error| warn_of(&entry.spec.key, &unavailable(error))).ok()
            });
            let queues = entry.open.iter().flat_map(|open| open.queues.packets()).map(Counter::value);
            let counters = self.info(entry).counters;
            moved.push((
                PortMoved { id: entry.id, counters, queues: queues.collect() },
                state.unwrap_or_default(),
            ));
        }
        moved
    }

    /// Resumes every port: in the predecessor after all, or in the successor. Returns those that do not go on.
    pub(super) fn resume_ports(&self) -> Vec<(String, Problem)> {
        let ports = self.ports();
        // Workers send what they receive from one port to another: all ports must resume before any worker
        // does.
        let each = ports.iter().filter_map(|(key, entry)| Some((key.clone(), steps(entry)?.resume())));
        failures(each.collect())
    }

    /// In the predecessor: releases every port. Ports whose devices cannot be handed over are closed, so that
    /// the successor can open them.
    pub(super) fn release_ports(&self) {
        let mut ports = self.ports();
        ports.values().filter_map(steps).for_each(|steps| steps.release());
        for (_, mut entry) in std::mem::take(&mut *ports) {
            if let Err(problem) = self.close(&mut entry) {
                tracing::error!("{problem}");
            }
        }
    }

    /// In the successor: starts to prepare a port. One without a device is [opened](Self::open_rest) after the
    /// predecessor has released it. Returns whether this port has its device.
    pub(super) fn adopt(&self, record: &PortRecord, handed: Option<HandedOver>) -> Result<bool, Problem> {
        let spec = PortSpec::read(record.spec.clone())?;
        let rules = Rules::of(&spec, self.config.defaults)?;
        let mut ports = self.ports();
        let taken = ports.contains_key(&spec.key) || ports.values().any(|entry| entry.id == record.id);
        if taken || usize::from(record.id) >= MAX_PORTS {
            let message = format!("port '{}' has a name or number that is taken or impossible", spec.key);
            return Err(Problem::new(Code::InvalidParams, message, "report this"));
        }
        let mut entry = Entry::new(record.id, &spec);
        if let Some(handed) = handed {
            let attached = attach(&self.config, record.id, &spec, Source::Held(handed));
            let adopted =
                attached.and_then(|attached| self.run(&mut entry, rules, attached, &record.workers));
            adopted.unwrap_or_else(|problem| warn_of(&spec.key, &problem));
        }
        let has_device = entry.open.is_some();
        ports.insert(spec.key.clone(), entry);
        self.relate(&ports, &self.sessions());
        Ok(has_device)
    }

    /// In the successor: waits until all ports are prepared. Returns those that could not be: they have no device any
    /// more.
    pub(super) fn await_ports(&self) -> Vec<String> {
        let mut ports = self.ports();
        let each = ports.iter().filter_map(|(key, entry)| Some((key.clone(), steps(entry)?.prepared())));
        let failed = failures(each.collect());
        self.give_up(&mut ports, failed)
    }

    /// In the successor: closes the devices of ports that cannot go on here. Returns their keys.
    pub(super) fn give_up(
        &self,
        ports: &mut BTreeMap<String, Entry>,
        failed: Vec<(String, Problem)>,
    ) -> Vec<String> {
        for (key, problem) in &failed {
            warn_of(key, problem);
            let closed = ports.get_mut(key).map_or(Ok(()), |entry| self.close(entry));
            closed.unwrap_or_else(|problem| tracing::error!("{problem}"));
        }
        failed.into_iter().map(|(key, _)| key).collect()
    }

    /// In the successor, with halted workers: continues where the predecessor stopped. Returns the ports that could
    /// not: they have no device any more.
    pub(super) fn begin_ports(&self, moved: &[(PortMoved, Vec<u8>)]) -> Result<Vec<String>, Problem> {
        let mut ports = self.ports();
        for (moved, _) in moved {
            if let Some(entry) = ports.values_mut().find(|entry| entry.id == moved.id) {
                entry.earlier = moved.counters.clone();
                let packets = entry.open.iter().flat_map(|open| open.queues.packets());
                packets.zip(&moved.queues).for_each(|(packets, count)| packets.add(*count));
            }
        }
        let mut beginning = Vec::new();
        for (key, entry) in ports.iter() {
            let Some(steps) = steps(entry) else { continue };
            let state = moved.iter().find(|(moved, _)| moved.id == entry.id).map(|(_, state)| state);
            let state = state.ok_or_else(|| {
                let message = format!("nothing was said of where port '{}' stands", entry.spec.key);
                Problem::new(Code::InvalidParams, message, "report this")
            })?;
            beginning.push((key.clone(), steps.begin(state)));
        }
        let failed = failures(beginning);
        let given_up = self.give_up(&mut ports, failed);
        for open in ports.values().filter_map(|entry| entry.open.as_ref()) {
            open.up.store(open.control.link().up, Ordering::Relaxed);
        }
        Ok(given_up)
    }

    /// In the successor, after the predecessor has released everything: opens the ports whose devices were
    /// not handed over.
    pub(super) fn open_rest(&self, which: &[String]) {
        for key in which {
            let mut ports = self.ports();
            let Some(entry) = ports.get_mut(key).filter(|entry| entry.open.is_none()) else { continue };
            let opened = Rules::of(&entry.spec, self.config.defaults).and_then(|rules| {
                let attached = attach(&self.config, entry.id, &entry.spec, Source::New(None))?;
                self.run(entry, rules, attached, &self.wanted(&entry.spec))
            });
            self.relate(&ports, &self.sessions());
            if let Err(problem) = opened {
                tracing::warn!("port {key} waits: {problem}");
            }
        }
    }
}

/// Waits for one worker, at first without sleeping, because a worker that moves frames answers at once.
fn hear(told: &Receiver<()>) -> Result<(), Problem> {
    let since = Instant::now();
    while since.elapsed() < SOON {
        match told.try_recv() {
            Ok(()) => return Ok(()),
            Err(_) => std::hint::spin_loop(),
        }
    }
    told.recv_timeout(PATIENCE).map_err(|_| {
        Problem::new(Code::Internal, "a worker does not answer", "restart the switch, and report this")
    })
}

/// Waits for the outcomes of a step of many ports; those that failed.
pub(crate) fn failures(steps: Vec<(String, Pending<'_, ()>)>) -> Vec<(String, Problem)> {
    let outcomes = steps.into_iter().filter_map(|(key, outcome)| Some((key, outcome().err()?)));
    outcomes.map(|(key, error)| (key, unavailable(&error))).collect()
}

/// Logs why a port is not among those that are handed over.
fn warn_of(key: &str, problem: &Problem) {
    tracing::warn!("port {key} cannot be handed over, and is opened anew: {problem}");
}

pub(crate) fn steps(entry: &Entry) -> Option<&dyn linecard_pmd::handover::HandOver> {
    entry.open.as_ref()?.running.hand_over()
}
