//! Features that most devices lack, done in software on received packets: VLAN tags, receive-side scaling,
//! flow rules.
//!
//! The console changes a [`SoftPort`]; threads use the [`Rules`] derived from it, and check for them only
//! while any setting is on.

pub(crate) mod flow;
pub(crate) mod rss;
pub(crate) mod vlan;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use linecard::mempool::{Burst, Packet};
use linecard::net::parse;
use linecard::pmd::rss::{Rss as DeviceRss, RssConfig};

use self::flow::{Flow, FlowTable};
use self::rss::Rss;
use self::vlan::{RxVlan, TxTags};
use super::settings::Mac;

/// The most packets that wait for a queue after another queue received them; further ones are dropped, as by
/// a full ring.
const INBOX: usize = 1024;

/// The software settings of one port.
#[derive(Default)]
pub(crate) struct SoftPort {
    pub(crate) vlan: RxVlan,
    pub(crate) tags: Option<TxTags>,
    pub(crate) rss: Option<Rss>,
    pub(crate) flows: FlowTable,
    /// The added multicast groups.
    pub(crate) groups: Vec<Mac>,
    inboxes: Option<Arc<[Inbox]>>,
    dropped: Arc<AtomicU64>,
}

impl SoftPort {
    /// The RSS configuration for the port's device; `None` leaves the device's default.
    pub(crate) fn device_rss(&self) -> Option<RssConfig> {
        self.rss.as_ref().and_then(Rss::for_device)
    }

    /// Returns the rules for the threads; `None` if there is nothing to do. VLAN filtering and RSS are left
    /// out where the port or its device does them.
    pub(crate) fn rules(
        &mut self,
        queues: u16,
        port_filters: bool,
        device: Option<Arc<DeviceRss>>,
    ) -> Option<Arc<Rules>> {
        let vlan = RxVlan { filter: self.vlan.filter && !port_filters, ..self.vlan.clone() };
        let rss = self.rss.clone().filter(|rss| rss.types.any());
        let flows = self.flows.by_priority();
        if rss.is_some() || flows.iter().any(|flow| flow.steers()) {
            self.inboxes.get_or_insert_with(|| (0..queues).map(|_| Inbox::default()).collect());
        }
        if !vlan.active() && rss.is_none() && flows.is_empty() && self.inboxes.is_none() {
            return None;
        }
        let (inboxes, dropped) = (self.inboxes.clone(), Arc::clone(&self.dropped));
        Some(Arc::new(Rules { vlan, rss, device, flows, inboxes, dropped }))
    }

    /// Adapts the settings to another number of receive queues.
    pub(crate) fn requeue(&mut self, queues: u16) {
        self.vlan.strip_queues.retain(|queue, _| *queue < queues);
        if let Some(rss) = &mut self.rss {
            rss.reta = Rss::new(queues).reta;
        }
    }

    /// Discards packets that waited in the last run; the number of queues may change.
    pub(crate) fn restart(&mut self) {
        self.inboxes = None;
    }

    /// Packets dropped on receive: by the VLAN filter, by a flow rule, or because their queue was full.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn clear_dropped(&self) {
        self.dropped.store(0, Ordering::Relaxed);
    }
}

/// Packets for one queue that other queues received.
#[derive(Default)]
struct Inbox(Mutex<VecDeque<Packet>>);

impl Inbox {
    /// Adds a packet; false if the inbox is full.
    fn push(&self, packet: Packet) -> bool {
        let mut packets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if packets.len() >= INBOX {
            return false;
        }
        packets.push_back(packet);
        true
    }

    fn drain(&self, into: &mut Burst) {
        let mut packets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while into.len() < into.capacity() {
            let Some(packet) = packets.pop_front() else { return };
            let _ = into.push(packet);
        }
    }
}

/// The rules that the threads of one port apply to received packets.
pub(crate) struct Rules {
    vlan: RxVlan,
    rss: Option<Rss>,
    /// The device's receive-side scaling, if it has any.
    device: Option<Arc<DeviceRss>>,
    flows: Vec<Arc<Flow>>,
    inboxes: Option<Arc<[Inbox]>>,
    dropped: Arc<AtomicU64>,
}

/// The destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Drop,
    Queue(u16),
}

impl Rules {
    /// Applies the rules to a burst that `queue` received. Leaves the packets for this queue in it and adds
    /// those that other queues received for it. `kept` is an empty burst.
    pub(crate) fn apply(&self, queue: u16, packets: &mut Burst, kept: &mut Burst) {
        let mut dropped = 0;
        // Once per burst: the device can be replaced, or refuse the configuration, at any time.
        let in_device = self.device.as_ref().is_some_and(|device| device.is_spread_by_device());
        let rss = self.rss.as_ref().filter(|_| !in_device);
        for mut packet in packets.drain(..packets.len()) {
            match self.verdict(queue, rss, &mut packet) {
                Verdict::Queue(other) if other != queue => {
                    let inbox = self.inboxes.as_ref().and_then(|all| all.get(usize::from(other)));
                    dropped += u64::from(!inbox.is_some_and(|inbox| inbox.push(packet)));
                }
                Verdict::Keep | Verdict::Queue(_) => {
                    let _ = kept.push(packet);
                }
                Verdict::Drop => dropped += 1,
            }
        }
        packets.take_from(kept);
        if let Some(inbox) = self.inboxes.as_ref().and_then(|all| all.get(usize::from(queue))) {
            inbox.drain(packets);
        }
        if dropped > 0 {
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    fn verdict(&self, queue: u16, rss: Option<&Rss>, packet: &mut Packet) -> Verdict {
        if self.flows.is_empty() && rss.is_none() {
            return if self.vlan.apply(queue, packet) { Verdict::Keep } else { Verdict::Drop };
        }
        let layers = parse(packet.data());
        let flow = self.flows.iter().find(|flow| flow.matches(packet.data(), &layers));
        let steered = flow.and_then(|flow| flow.verdict(packet, &layers));
        let hash = rss.and_then(|rss| Some((rss, rss.hash(packet.data(), &layers)?)));
        // From here on the frame may be another one than `layers` were found in.
        if !self.vlan.apply(queue, packet) {
            return Verdict::Drop;
        }
        if let Some((_, hash)) = hash {
            packet.set_hash(hash);
        }
        let by_hash = hash.map_or(Verdict::Keep, |(rss, hash)| Verdict::Queue(rss.queue(hash)));
        if let Some(flow) = flow {
            flow.edit(packet);
        }
        steered.unwrap_or(by_hash)
    }
}

/// The rules in the view of one stream.
#[derive(Default)]
pub(crate) struct LaneRules {
    /// The generation of `rules`; see [`Live`](crate::testpmd::live::Live).
    pub(crate) generation: u32,
    pub(crate) rules: Option<Arc<Rules>>,
    pub(crate) kept: Option<Box<Burst>>,
}

impl LaneRules {
    /// Applies the rules, if there are any.
    pub(crate) fn apply(&mut self, queue: u16, packets: &mut Burst) {
        let Some(rules) = &self.rules else { return };
        let kept = self.kept.get_or_insert_with(|| Box::new(Burst::new()));
        rules.apply(queue, packets, kept);
    }
}

#[cfg(test)]
pub(in crate::testpmd) mod tests;
