//! Opening and closing of ports: from a device to queues that workers poll, and back.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use linecard_pmd::Port;
use linecard_pmd::stats::Counter;

use crate::Switch;
use crate::api::{Code, PortInfo, PortKind, PortSpec, PortState, Problem};
use crate::attach::{Attached, Source, attach};
use crate::fdb::{Learned, Station};
use crate::lanes::Queue;
use crate::placement::{Placement, Queues};
use crate::port::{Common, Egress, Limits, Losses, WorkerPort};
use crate::rules::{Defaults, Rules};
use crate::switch::{Entry, MAX_PORTS, Open, PATIENCE};
use crate::worker::{Command, ReturnedQueues};

/// Marks a port as [changing](Entry::changing) until this is dropped.
pub(crate) struct Changing<'a> {
    pub(crate) switch: &'a Switch,
    pub(crate) key: &'a str,
    /// Whether the port remains afterwards.
    pub(crate) stays: bool,
}

impl Changing<'_> {
    /// Stores the opened port; returns `None` if there is no port with that key.
    pub(crate) fn settle(self, opened: Entry) -> Option<PortInfo> {
        let mut ports = self.switch.ports();
        let entry = ports.get_mut(self.key)?;
        (entry.device, entry.open) = (opened.device, opened.open);
        Some(self.switch.info(entry))
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mut ports = self.switch.ports();
        if !self.stays {
            ports.remove(self.key);
        } else if let Some(entry) = ports.get_mut(self.key) {
            entry.changing = false;
        }
        self.switch.relate(&ports, &self.switch.sessions());
        self.switch.changed.notify_all();
    }
}

impl Switch {
    /// Reserves a number for a new port that is about to be opened, and the port's address.
    pub(crate) fn reserve(
        &self,
        ports: &mut BTreeMap<String, Entry>,
        spec: &PortSpec,
        rules: &Rules,
        with_fd: bool,
    ) -> Result<u16, Problem> {
        check_mac(ports, spec, rules, self.config.defaults)?;
        if needs_fd(&spec.kind) && !with_fd {
            let details = "send one listening Unix socket with the request (SCM_RIGHTS)";
            let message = "a port of type vhost-user-fd needs a descriptor";
            return Err(Problem::new(Code::InvalidParams, message, details));
        }
        let id = free_id(ports)?;
        ports.insert(spec.key.clone(), Entry { changing: true, ..Entry::new(id, spec) });
        Ok(id)
    }

    /// Opens the device of a port and gives its queues to the workers.
    pub(crate) fn open(&self, entry: &mut Entry, rules: Rules, fd: Option<OwnedFd>) -> Result<(), Problem> {
        let attached = attach(&self.config, entry.id, &entry.spec, Source::New(fd.as_ref()))?;
        self.run(entry, rules, attached, &self.wanted(&entry.spec))?;
        self.keep(entry);
        Ok(())
    }

    /// Gives the queues of a port to the workers; `workers` lists those of the receive queues, as far as it
    /// goes.
    ///
    /// # Errors
    /// The station cannot be put behind the port; the device is closed then.
    pub(crate) fn run(
        &self,
        entry: &mut Entry,
        rules: Rules,
        attached: Attached,
        workers: &[usize],
    ) -> Result<(), Problem> {
        let id = entry.id;
        if let Err(problem) = self.claim(id, &rules) {
            drop(attached.port.stop());
            return Err(problem);
        }
        let Attached { mut port, own, argument } = attached;
        let losses: Vec<Arc<Losses>> = self.remotes.iter().map(|_| Arc::default()).collect();
        let up = Arc::new(AtomicBool::new(port.control.link().up));
        let limits = Limits::new(&rules, port.rx.len().min(self.remotes.len()) as u64);
        let common = Common { rules: Arc::new(rules), limits, up: Arc::clone(&up), own };
        let queues = self.hand_out(id, &mut port, (&common, &losses), workers);
        // The number of a passed descriptor has no meaning later.
        entry.device = argument.split(",fd=").next().unwrap_or_default().to_owned();
        entry.open = Some(Open {
            control: port.control,
            running: port.running,
            losses,
            queues,
            up,
            relations: Mutex::default(),
        });
        Ok(())
    }

    /// Puts the configured station behind its port, replacing anything learned about that address.
    fn claim(&self, id: u16, rules: &Rules) -> Result<(), Problem> {
        // A sharing port does not own the station's entry in the table.
        let Some(mac) = rules.mac.filter(|_| !rules.shares) else { return Ok(()) };
        let (station, vlan) = (Station::of(mac, rules.home_vlan()), rules.home_vlan());
        let text = station.mac().to_string().to_lowercase();
        match self.table.set(station, id) {
            Learned::New | Learned::Known => Ok(()),
            Learned::NoRoom => Err(Problem::new(
                Code::Exhausted,
                format!(
                    "there is no room for {text} among as many configured addresses as the switch can know"
                ),
                "remove a port, or start the switch with more --addresses",
            )),
            _ => Err(Problem::new(
                Code::Exists,
                format!("{text} is fixed behind another port of VLAN {vlan}"),
                "delete it there (`fdb.list` says where, `fdb.del` deletes), or give this port another address or VLAN",
            )),
        }
    }

    /// Distributes a port's queues over the workers: first those listed in `workers`, then in turn, starting
    /// with a different worker for each port. Workers that poll a port get its transmit queues first.
    fn hand_out(
        &self,
        id: u16,
        port: &mut Port,
        (common, losses): (&Common, &[Arc<Losses>]),
        workers: &[usize],
    ) -> Queues {
        let count = self.remotes.len();
        let first = usize::from(id) % count;
        let turn = |worker: usize| (worker + count - first) % count;
        let mut rx: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        let (mut placement, mut counters) = (Placement::default(), Vec::new());
        for (number, queue) in (0..).zip(std::mem::take(&mut port.rx)) {
            let usual = first + usize::from(number);
            let worker = workers.get(usize::from(number)).copied().unwrap_or(usual) % count;
            let packets = Arc::<Counter>::default();
            rx[worker].push(Queue { number, rx: queue, packets: Arc::clone(&packets) });
            placement.rx.push(worker);
            counters.push(packets);
        }
        let in_turn = (0..count).map(|number| (first + number) % count);
        for worker in placement.rx.iter().copied().chain(in_turn) {
            if placement.tx.len() < port.tx.len() && !placement.tx.contains(&worker) {
                placement.tx.push(worker);
            }
        }
        let mut tx: Vec<Option<_>> = (0..count).map(|_| None).collect();
        for (worker, queue) in placement.tx.iter().zip(std::mem::take(&mut port.tx)) {
            tx[*worker] = Some(queue);
        }
        let owners = placement.tx.clone();
        // Created before any worker can be asked to move a queue.
        let queues = Queues::new(placement, counters);
        for (worker, remote) in self.remotes.iter().enumerate() {
            let egress = match tx[worker].take() {
                Some(queue) => Egress::Own(queue),
                // A device without transmit queues: frames to it are dropped.
                None if owners.is_empty() => Egress::Through(usize::MAX),
                None => Egress::Through(owners[turn(worker) % owners.len()]),
            };
            let worker_port = WorkerPort::new(common.clone(), Arc::clone(&losses[worker]), egress);
            remote.tell(Command::Add(id, Box::new(worker_port), std::mem::take(&mut rx[worker])));
        }
        queues
    }

    /// Takes the queues of a port back from the workers and closes its device.
    pub(crate) fn close(&self, entry: &mut Entry) -> Result<(), Problem> {
        if let Some(open) = entry.open.take() {
            // Queues that are moving arrive before the requests below; no further one starts to move.
            open.queues.withdraw();
            let (tell, homes) = channel();
            for remote in &self.remotes {
                remote.tell(Command::Remove(entry.id, tell.clone()));
            }
            drop(tell);
            let (mut rx, mut tx) = (Vec::new(), Vec::new());
            for _ in &self.remotes {
                let Ok(ReturnedQueues { rx: some, tx: one }) = homes.recv_timeout(PATIENCE) else {
                    let key = &entry.spec.key;
                    let message = format!("port '{key}' is still in use by a worker that does not answer");
                    return Err(Problem::new(Code::Internal, message, "restart the switch, and report this"));
                };
                rx.extend(some);
                tx.extend(one);
            }
            self.table.forget_port(entry.id);
            drop(open.control);
            drop(open.running.stop(rx, tx));
        }
        Ok(())
    }
}

pub(crate) fn needs_fd(kind: &PortKind) -> bool {
    matches!(kind, PortKind::VhostUserFd { .. })
}

pub(crate) fn state_of(entry: &Entry) -> PortState {
    match &entry.open {
        None => PortState::Waiting,
        Some(open) if open.control.link().up => PortState::Up,
        Some(_) => PortState::Down,
    }
}

pub(crate) fn free_id(ports: &BTreeMap<String, Entry>) -> Result<u16, Problem> {
    let mut taken = vec![false; MAX_PORTS];
    for entry in ports.values() {
        taken[usize::from(entry.id)] = true;
    }
    let free = taken.iter().position(|taken| !taken).and_then(|id| u16::try_from(id).ok());
    free.ok_or_else(|| {
        let message = format!("the switch has {MAX_PORTS} ports, the most it can");
        Problem::new(Code::Exhausted, message, "remove one first")
    })
}

/// Checks that no other port of the VLAN has the same address.
pub(crate) fn check_mac(
    ports: &BTreeMap<String, Entry>,
    spec: &PortSpec,
    rules: &Rules,
    defaults: Defaults,
) -> Result<(), Problem> {
    let Some(mac) = spec.mac else { return Ok(()) };
    if spec.shares.is_some() {
        return Ok(());
    }
    let same = |entry: &&Entry| {
        entry.spec.mac == Some(mac)
            && entry.spec.shares.is_none()
            && Rules::of(&entry.spec, defaults).is_ok_and(|other| other.home_vlan() == rules.home_vlan())
    };
    match ports.values().find(same) {
        None => Ok(()),
        Some(other) => Err(Problem::new(
            Code::Exists,
            format!("{} belongs to port '{}' already", mac.to_string().to_lowercase(), other.spec.key),
            "give this port another address or VLAN",
        )),
    }
}
