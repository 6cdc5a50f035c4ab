//! The control queue of a device: the port's requests, and the device's answers.
//!
//! ```text
//!   any thread     set_promiscuous, set_mac, … ─► RxFilter ─► notice
//!   control thread                                              └► Requests::follow ─► Channel::ask ─► device
//!   rx thread      RxFilter drops what the device lets through all the same
//! ```
//! Only the control thread uses the queue, and it waits for each answer; packets pass meanwhile. A device
//! that answers late or invalidly loses its port, as for a violation on any other ring. If the device refuses
//! a receive mode, the port's own filter does the work.
//!
//! vhost-user backends and vhost-net have no such queue. (`VIRTIO_NET_F_CTRL_VQ` there concerns the device
//! that a virtual machine monitor builds on them.) Their rings are enabled by messages, and the port filters.

mod command;
mod hashing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard_eal::eventfd::EventFd;
use linecard_eal::shared::SharedBytes;
use linecard_pmd::filter::{FilterRules, VlanSet};
use linecard_virtio::{ControlQueue, Element, Features};

use crate::backend::{Backend, Ready, RingId, Waiter};
use crate::error::Error;
use crate::kick::Kick;
use crate::log::{PortLog, tell};
use crate::rings::RingZone;
use crate::thread::after;
use command::Command;
pub(crate) use hashing::Hashing;

/// The time that a device has for one answer.
const ANSWER: Duration = Duration::from_millis(1000);
/// The time that a running device has for all VLAN commands, and the longest turn of them without other work.
const ALL_VLANS: Duration = Duration::from_secs(60);
const TURN: Duration = Duration::from_millis(50);
/// The interval between checks without a notification, in case the device sends none.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The answers of a device (virtio 1.3, Network Device: Control Virtqueue).
const OK: u8 = 0;
const ERR: u8 = 1;
/// The content of the answer before the device has written it.
const UNANSWERED: u8 = 0xff;

/// The features that depend on the control queue, and the queue itself.
pub(crate) const CONTROLLED: Features = Features::NET_CTRL_VQ
    .union(Features::NET_CTRL_RX)
    .union(Features::NET_CTRL_VLAN)
    .union(Features::NET_CTRL_MAC_ADDR)
    .union(Features::NET_CTRL_GUEST_OFFLOADS)
    .union(Features::NET_CTRL_RX_EXTRA)
    .union(HASHING)
    .union(Features::NET_GUEST_ANNOUNCE);

/// Features with which a device hashes packets, to choose a queue or to report the hash.
pub(crate) const HASHING: Features = Features::NET_RSS.union(Features::NET_HASH_REPORT);

/// The offloads that a device may leave to the port, as features and as bits of
/// `VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET`.
pub(crate) const GUEST_OFFLOADS: Features = Features::NET_GUEST_CSUM.union(Features::GUEST_SEGMENTS);

/// The bytes of the longest command.
pub(crate) const LONGEST: usize = command::LONGEST;

/// The memory of the control ring's requests: the command, and the answer on its own cache line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestMemory {
    pub(crate) command: SharedBytes,
    pub(crate) answer: SharedBytes,
}

/// The control ring, and its notifications.
#[derive(Debug)]
struct Channel {
    queue: ControlQueue,
    memory: RequestMemory,
    kick: Arc<Kick>,
    call: Arc<EventFd>,
    waiter: Arc<Waiter>,
}

impl Channel {
    /// Sends a command and waits for the answer. Returns whether the device accepted it.
    fn ask(
        &mut self,
        device: &mut dyn Backend,
        command: &Command<'_>,
        limit: Option<Instant>,
    ) -> Result<bool, Error> {
        let request = command.name();
        let began = Instant::now();
        let deadline = limit.map_or(after(ANSWER), |limit| limit.min(after(ANSWER)));
        self.submit(command)?;
        loop {
            device.look()?;
            // Before the check of the ring: a call after this point is kept.
            self.call.drain();
            match self.queue.answered() {
                Ok(Some(_)) => break,
                Ok(None) => {}
                Err(fault) => return Err(Error::Ring { ring: RingId::CONTROL, fault }),
            }
            if self.waiter.stopped() {
                return Err(Error::Stopped);
            }
            if Instant::now() >= deadline {
                let waited = deadline.saturating_duration_since(began);
                return Err(Error::Silent { request, waited });
            }
            let soon = after(LOOK_INTERVAL).min(deadline);
            self.waiter.wait(Some(std::os::fd::AsFd::as_fd(&*self.call)), Ready::Read, Some(soon));
        }
        let mut answer = [UNANSWERED];
        self.memory.answer.copy_to(&mut answer);
        match answer[0] {
            OK => Ok(true),
            ERR => Ok(false),
            answer => Err(Error::ControlAnswer { request, answer }),
        }
    }

    fn submit(&mut self, asked: &Command<'_>) -> Result<(), Error> {
        let bytes = asked.to_bytes();
        let too_long = || Error::Layout(format!("{} has {} bytes", asked.name(), bytes.len()));
        if self.memory.command.copy_from(&bytes) < bytes.len() {
            return Err(too_long());
        }
        self.memory.answer.fill(UNANSWERED);
        let at = |memory: SharedBytes, len: usize| Element {
            addr: memory.as_ptr() as u64,
            len: u32::try_from(len).unwrap_or(u32::MAX),
        };
        // The header (class and command) and the data are separate descriptors, as some devices require.
        let (head, rest) = (command::HEAD, bytes.len().saturating_sub(command::HEAD));
        let data = self.memory.command.slice(head, rest).ok_or_else(too_long)?;
        let elements = [at(self.memory.command, head), at(data, rest)];
        let elements = if rest == 0 { &elements[..1] } else { &elements[..] };
        let busy = |_| Error::Layout("the control queue is busy".into());
        self.queue.submit(elements, at(self.memory.answer, 1)).map_err(busy)?;
        if self.queue.kick_needed() {
            self.kick.signal();
        }
        Ok(())
    }
}

/// The requests that a device has received on its control queue.
#[derive(Debug)]
pub(crate) struct Requests {
    channel: Channel,
    features: Features,
    log: Arc<PortLog>,
    /// The rules that the device received last.
    told: Option<Arc<FilterRules>>,
    /// The VLANs that the device accepts; none at first (virtio 1.3, Network Device: VLAN Filtering).
    vlans: VlanSet,
    /// Since when VLAN commands are outstanding.
    vlans_since: Option<Instant>,
    hashing: Hashing,
    /// The offloads that the device may leave to the port.
    offloads: Features,
}

impl Requests {
    /// Creates the requests for a device with these features; `None` if it has no control queue.
    pub(crate) fn new(
        log: &Arc<PortLog>,
        zone: &RingZone,
        features: Features,
        waiter: &Arc<Waiter>,
        hashing: Hashing,
    ) -> Result<Option<Self>, Error> {
        if !features.contains(Features::NET_CTRL_VQ) {
            return Ok(None);
        }
        // All negotiated offloads are on until the device is told otherwise.
        let offloads = features & GUEST_OFFLOADS;
        let (queue, memory) = zone.control(features)?;
        let channel = Channel {
            queue,
            memory,
            kick: zone.kick.clone(),
            call: zone.call.clone(),
            waiter: waiter.clone(),
        };
        Ok(Some(Self {
            channel,
            features,
            log: log.clone(),
            told: None,
            vlans: VlanSet::NONE,
            vlans_since: None,
            hashing,
            offloads,
        }))
    }

    /// Sets the number of queue pairs in use; a device starts with one (virtio 1.3, Network Device: Automatic
    /// receive steering in multiqueue mode).
    pub(crate) fn set_pairs(
        &mut self,
        device: &mut dyn Backend,
        limit: Option<Instant>,
    ) -> Result<(), Error> {
        let usual = self.hashing.usual();
        let Some(command) = self.hashing.pairs(self.features, &usual) else { return Ok(()) };
        match self.channel.ask(device, &command, limit)? {
            true => Ok(()),
            false => Err(Error::Refused { request: command.name(), code: ERR.into() }),
        }
    }

    /// Passes changes of the rules since the last call on to the device. Returns whether there were any.
    /// Notifications that arrive meanwhile may be consumed: check everything again before sleeping.
    pub(crate) fn follow(
        &mut self,
        device: &mut dyn Backend,
        rules: &Arc<FilterRules>,
        limit: Option<Instant>,
    ) -> Result<bool, Error> {
        if self.told.as_ref().is_some_and(|told| Arc::ptr_eq(told, rules)) {
            let unfinished = self.vlans_since.is_some();
            if unfinished {
                self.follow_vlans(device, rules, limit)?;
            }
            return Ok(unfinished);
        }
        if self.features.contains(Features::NET_CTRL_MAC_ADDR)
            && self.told.as_ref().is_none_or(|told| told.mac != rules.mac)
        {
            self.tell(device, &Command::MacAddr(rules.mac), limit)?;
        }
        if self.features.contains(Features::NET_CTRL_RX) {
            self.receive_modes(device, rules, limit)?;
        }
        self.told = Some(rules.clone());
        if self.features.contains(Features::NET_CTRL_VLAN) {
            self.vlans_since = Some(Instant::now());
            self.follow_vlans(device, rules, limit)?;
        }
        Ok(true)
    }

    /// Sets modes and addresses. If the device refuses the table, it receives all frames of that kind, and
    /// the port drops the others.
    fn receive_modes(
        &mut self,
        device: &mut dyn Backend,
        rules: &FilterRules,
        limit: Option<Instant>,
    ) -> Result<(), Error> {
        // Includes the port's own address: a device whose address cannot be set filters for another one.
        let unicast: Vec<_> = [rules.mac].into_iter().chain(rules.unicast.iter().copied()).collect();
        let table = Command::MacTable { unicast: &unicast, multicast: &rules.multicast };
        let fits = self.tell(device, &table, limit)?;
        let promiscuous = rules.promiscuous || !fits;
        self.tell(device, &Command::Promiscuous(promiscuous), limit)?;
        let all = rules.allmulticast || !fits;
        self.tell(device, &Command::AllMulticast(all), limit).map(drop)
    }

    /// Limits the offloads that the device leaves to the port to `wanted`, if that changed and the device can
    /// switch. Returns whether it changed.
    pub(crate) fn follow_offloads(
        &mut self,
        device: &mut dyn Backend,
        wanted: Features,
        limit: Option<Instant>,
    ) -> Result<bool, Error> {
        let wanted = wanted & self.features & GUEST_OFFLOADS;
        if !self.features.contains(Features::NET_CTRL_GUEST_OFFLOADS) || wanted == self.offloads {
            return Ok(false);
        }
        if !self.tell(device, &Command::GuestOffloads(wanted), limit)? {
            tell!(self.log, WARN, "the device keeps its receive offloads; the port takes them as before");
        }
        self.offloads = wanted;
        Ok(true)
    }

    /// Acknowledges that the port has announced its address.
    pub(crate) fn acknowledge_announcement(
        &mut self,
        device: &mut dyn Backend,
        limit: Option<Instant>,
    ) -> Result<(), Error> {
        self.tell(device, &Command::AnnounceAck, limit).map(drop)
    }

    /// Sends VLAN commands, one for each VLAN. On a running port (without a `limit`) it does so for one turn,
    /// and continues after the port's other work.
    fn follow_vlans(
        &mut self,
        device: &mut dyn Backend,
        rules: &FilterRules,
        limit: Option<Instant>,
    ) -> Result<(), Error> {
        /// The highest VLAN identifier.
        const MAX_VLAN: u16 = 4095;
        let turn = limit.unwrap_or(after(TURN));
        for vlan in 0..=MAX_VLAN {
            let wanted = rules.vlans.as_ref().is_none_or(|vlans| vlans.has(vlan));
            if wanted == self.vlans.has(vlan) {
                continue;
            }
            let command = if wanted { Command::VlanAdd(vlan) } else { Command::VlanDel(vlan) };
            if !self.tell(device, &command, limit)? {
                // The other commands would be refused as well.
                break;
            }
            self.vlans.set(vlan, wanted);
            let waited = self.vlans_since.map_or(Duration::ZERO, |since| since.elapsed());
            if waited >= ALL_VLANS {
                return Err(Error::Silent { request: command.name(), waited });
            }
            if Instant::now() >= turn {
                return Ok(());
            }
        }
        self.vlans_since = None;
        Ok(())
    }

    /// Sends a command that the port can do without. Returns whether the device accepted it.
    fn tell(
        &mut self,
        device: &mut dyn Backend,
        command: &Command<'_>,
        limit: Option<Instant>,
    ) -> Result<bool, Error> {
        let done = self.channel.ask(device, command, limit)?;
        if !done {
            tell!(self.log, DEBUG, "the device refused {}", command.name());
        }
        Ok(done)
    }
}
