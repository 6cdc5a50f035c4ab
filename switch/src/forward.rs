//! Forwarding: from a burst received at one port to the bursts of others.
//!
//! ```text
//!   received ─ header ─► decision: to one port │ to all │ dropped, and why  (table, VLAN, addresses)
//!            └ for each frame: length, rate, and the IP source if the port requires it
//!   to one port ─► tag ─► its burst ─► its queue, or the worker that has one
//!   to all      ─► a reference for each port of the VLAN
//! ```
//! Consecutive frames mostly have the same header: within one burst, a decision is reused as long as the next header is equal. A
//! burst whose frames all go to one port is sent as it came.

mod decision;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::queue::ArrayQueue;
use linecard_eal::wake::Wake;
use linecard_mempool::{Burst, Offload, Packet};
use linecard_pmd::TxQueue as _;

use crate::api::Cause;
use crate::direct::Decisions;
use crate::fdb::{Station, Table};
use crate::frame::{Head, TAG};
use crate::neighbours::Neighbours;
use crate::port::{Egress, WorkerPort};
use crate::rules::Retag;

pub(crate) use self::decision::{Decision, Seen, Verdict, admit, may_have, one_head};

/// Bytes of a VLAN tag.
const TAG_LEN: usize = 4;

/// The frames that other workers leave for a worker that has a transmit queue they need.
#[derive(Clone)]
pub(crate) struct Inbox {
    pub(crate) packets: Arc<ArrayQueue<Packet>>,
    /// Wakes the worker.
    pub(crate) wake: Arc<Wake>,
}

impl Inbox {
    /// Returns `false` if the inbox is full.
    fn push(&self, packet: Packet) -> bool {
        let pushed = self.packets.push(packet).is_ok();
        self.wake.wake();
        pushed
    }
}

/// A worker's part of the switch: its view of each port, and the table that all workers share.
pub(crate) struct Engine {
    pub(crate) table: Arc<Table>,
    /// Indexed by port number.
    pub(crate) worker_ports: Vec<Option<WorkerPort>>,
    /// The inboxes of all workers, indexed by worker number.
    pub(crate) inboxes: Vec<Inbox>,
    /// The owners of IP addresses, if the switch answers neighbour requests.
    pub(crate) neighbours: Option<Neighbours>,
    /// Ports whose bursts hold frames to send.
    dirty: Vec<u16>,
    /// The decisions on the frames that a receive queue shows in place.
    pub(crate) decisions: Decisions,
    /// The time in nanoseconds, for rate limits; set once per round.
    pub(crate) now: u64,
}

impl Engine {
    pub(crate) fn new(table: Arc<Table>, inboxes: Vec<Inbox>, answers: bool) -> Self {
        let neighbours = answers.then(Neighbours::default);
        Self {
            table,
            worker_ports: Vec::new(),
            inboxes,
            neighbours,
            dirty: Vec::new(),
            decisions: Decisions::default(),
            now: 0,
        }
    }

    pub(crate) fn worker_port(&self, port: u16) -> Option<&WorkerPort> {
        self.worker_ports.get(usize::from(port))?.as_ref()
    }

    pub(crate) fn worker_port_mut(&mut self, port: u16) -> Option<&mut WorkerPort> {
        self.worker_ports.get_mut(usize::from(port))?.as_mut()
    }

    pub(crate) fn lost(&self, port: u16, cause: Cause, packets: u64) {
        if let Some(worker_port) = self.worker_port(port) {
            worker_port.losses.add(cause, packets);
        }
    }

    /// Handles the packets received at `port`. If `left`, they are those that [`direct`](Self::direct) left.
    #[inline]
    pub(crate) fn received(&mut self, port: u16, packets: &mut Burst, left: bool) {
        if self.worker_port(port).is_some_and(|worker_port| worker_port.relations.takes_received())
            && !self.copy_received(port, packets)
        {
            return;
        }
        if left { self.forward_decided(port, packets) } else { self.forward(port, packets) }
    }

    /// Forwards the packets received at `port`; nothing is left in `packets`.
    pub(crate) fn forward(&mut self, port: u16, packets: &mut Burst) {
        let Some(worker_port) = self.worker_port(port) else {
            packets.clear();
            return;
        };
        let mut last = None;
        let heads = packets.iter().map(|packet| (Head::of(packet.data()), packet.len()));
        if let Some((head, longest)) = one_head(&worker_port.rules, heads) {
            let decision = self.decide(port, head);
            if let Some(to) = self.one_way(decision) {
                self.send_all(to, packets, longest);
                return;
            }
            last = Some((head, decision));
        }
        self.each(port, packets, last);
    }

    /// The port to which a whole burst can be sent as it came; `None` if there is none.
    #[inline]
    fn one_way(&self, decision: Decision) -> Option<u16> {
        let Verdict::To(to) = decision.verdict else { return None };
        let worker_port = self.worker_port(to)?;
        let free = worker_port.out.is_empty()
            && worker_port.relations.sharing.is_empty()
            && decision.retag == Retag::Keep
            && matches!(worker_port.egress, Egress::Own(_));
        free.then_some(to)
    }

    /// Sends a whole burst as it came.
    #[inline]
    fn send_all(&mut self, to: u16, packets: &mut Burst, longest: usize) {
        let Some(worker_port) = self.worker_port_mut(to) else {
            packets.clear();
            return;
        };
        if longest > worker_port.rules.longest {
            let limit = worker_port.rules.longest;
            let before = packets.len();
            packets.retain(|packet| fits(packet, limit));
            worker_port.losses.add(Cause::TxOversize, (before - packets.len()) as u64);
        }
        self.send(to, packets);
    }

    /// Forwards frame by frame; `last` is the last header and its decision.
    pub(crate) fn each(&mut self, port: u16, packets: &mut Burst, mut last: Option<(Head, Decision)>) {
        for packet in packets.drain(..linecard_mempool::BURST) {
            let Some(head) = Head::of(packet.data()) else {
                self.lost(port, Cause::Malformed, 1);
                continue;
            };
            let decision = match last {
                Some((seen, decision)) if seen == head => decision,
                _ => {
                    let decision = self.decide(port, head);
                    last = Some((head, decision));
                    decision
                }
            };
            self.one(port, packet, decision);
        }
    }

    fn one(&mut self, port: u16, packet: Packet, decision: Decision) {
        let seen = Seen {
            front: packet.data(),
            more: false,
            len: packet.len(),
            cut: packet.offload().contains(Offload::RX_LRO),
        };
        match self.judge(port, decision, &seen) {
            Some(Err(cause)) => self.lost(port, cause, 1),
            _ => self.go(port, packet, decision),
        }
    }

    /// Sends a frame that passed to its destination.
    pub(crate) fn go(&mut self, port: u16, packet: Packet, decision: Decision) {
        match decision.verdict {
            Verdict::Lost(_) => {}
            Verdict::To(to) => {
                let sharer = |worker_port: &WorkerPort| worker_port.relations.sharer(packet.data());
                let to = self.worker_port(to).and_then(sharer).unwrap_or(to);
                self.put(to, packet, decision.retag);
            }
            Verdict::All => self.answer_or_flood(port, packet, decision),
        }
    }

    /// Answers a request for a configured neighbour; floods any other frame.
    fn answer_or_flood(&mut self, port: u16, mut packet: Packet, decision: Decision) {
        let answer = self.neighbours.as_ref();
        let answer = answer.and_then(|neighbours| neighbours.answer(port, decision.vlan, packet.data()));
        let there =
            |owner| self.worker_port(owner).is_some_and(|worker_port| worker_port.up.load(Ordering::Relaxed));
        match answer.filter(|(owner, _)| there(*owner)) {
            // The answer replaces the request in its packet, with the same tag.
            Some((_, answer)) if packet.copy_from_slice(&answer).is_ok() => {
                self.put(port, packet, Retag::Keep)
            }
            Some(_) => self.lost(port, Cause::NoPacket, 1),
            None => self.flood(port, packet, decision),
        }
    }

    /// Sends a copy to every port that may receive the frame.
    fn flood(&mut self, port: u16, mut packet: Packet, decision: Decision) {
        let Some(head) = Head::of(packet.data()) else { return };
        let Some(worker_port) = self.worker_port(port) else { return };
        let isolated = worker_port.rules.isolated;
        // The station of a sharing port does not get its own frames back.
        let Some(home) = worker_port.relations.station.home(port) else { return };
        let kept_from = self.table.kept_from(Station::of(head.source(), decision.vlan));
        let mut before: Option<(u16, Retag)> = None;
        for to in 0..u16::try_from(self.worker_ports.len()).unwrap_or(u16::MAX) {
            let here = self.worker_port(to).filter(|_| to != home && Some(to) != kept_from);
            let Some(worker_port) = here else { continue };
            let apart = isolated && worker_port.rules.isolated || worker_port.relations.is_aside();
            if !may_have(&worker_port.rules, head) || apart {
                continue;
            }
            let Some(retag) = worker_port.rules.membership.leave(decision.vlan, decision.tagged) else {
                continue;
            };
            // The last port receives the frame itself.
            if let Some((to, retag)) = before.replace((to, retag)) {
                match packet.clone_ref() {
                    Some(copy) => self.put(to, copy, retag),
                    None => self.lost(to, Cause::NoPacket, 1),
                }
            }
        }
        match before {
            Some((to, retag)) => self.put(to, packet, retag),
            None => self.lost(port, Cause::Filtered, 1),
        }
    }

    /// Puts a frame into the burst of a port.
    pub(crate) fn put(&mut self, to: u16, mut packet: Packet, retag: Retag) {
        let Some(worker_port) = self.worker_port_mut(to) else { return };
        // With its tag, as the worker that has the queue sees it.
        let longest = match retag {
            Retag::Push(_) => worker_port.rules.longest - TAG_LEN,
            Retag::Keep | Retag::Pop => worker_port.rules.longest,
        };
        if !fits(&packet, longest) {
            worker_port.losses.add(Cause::TxOversize, 1);
            return;
        }
        if retag != Retag::Keep && !change_tag(&mut packet, retag) {
            worker_port.losses.add(Cause::NoPacket, 1);
            return;
        }
        if let Egress::Through(worker) = worker_port.egress {
            packet.set_port(to);
            if self.inboxes.get(worker).is_none_or(|inbox| !inbox.push(packet)) {
                self.lost(to, Cause::TxFull, 1);
            }
            return;
        }
        if worker_port.out.is_empty() {
            self.dirty.push(to);
        }
        let Some(worker_port) = self.worker_port_mut(to) else { return };
        if let Err(packet) = worker_port.out.push(packet) {
            self.flush_port(to);
            if let Some(worker_port) = self.worker_port_mut(to) {
                let _ = worker_port.out.push(packet);
            }
        }
    }

    /// Takes the frames that other workers left here, for ports whose queues this worker has.
    pub(crate) fn collect(&mut self, inbox: &ArrayQueue<Packet>) -> usize {
        let mut count = 0;
        while count < 4 * linecard_mempool::BURST
            && let Some(packet) = inbox.pop()
        {
            count += 1;
            let to = packet.port();
            // If the queue has moved to another worker, the frame is left there. If the port is gone, its drop counters are gone too.
            self.put(to, packet, Retag::Keep);
        }
        count
    }

    /// Sends all pending bursts.
    #[inline]
    pub(crate) fn flush(&mut self) {
        while let Some(port) = self.dirty.pop() {
            self.flush_port(port);
        }
    }

    /// Sends the pending burst of a port.
    #[inline]
    pub(crate) fn flush_port(&mut self, port: u16) {
        let Some(worker_port) = self.worker_port_mut(port) else { return };
        let mut out = std::mem::take(&mut worker_port.out);
        self.send(port, &mut out);
        if let Some(worker_port) = self.worker_port_mut(port) {
            worker_port.out = out;
        }
    }

    /// Sends `packets` to a port, and copies if the port is mirrored.
    #[inline]
    fn send(&mut self, to: u16, packets: &mut Burst) {
        let Some(worker_port) = self.worker_port_mut(to) else { return };
        if worker_port.relations.egress.is_empty() {
            send(worker_port, packets);
            return;
        }
        self.copy_sent(to, packets);
        if let Some(worker_port) = self.worker_port_mut(to) {
            send(worker_port, packets);
        }
    }

    /// Lets the transmit queues complete what earlier bursts left unfinished.
    pub(crate) fn reclaim(&mut self) {
        for worker_port in self.worker_ports.iter_mut().flatten() {
            if let Egress::Own(queue) = &mut worker_port.egress {
                queue.reclaim();
            }
        }
    }
}

/// Returns whether the length of a frame is allowed. A frame that will be segmented may be longer: its segments are its sender's
/// choice.
#[inline(always)]
fn fits(packet: &Packet, longest: usize) -> bool {
    packet.len() <= longest || packet.offload().contains(Offload::RX_LRO)
}

/// Sends `packets`; those for which the queue has no room are dropped.
#[inline]
fn send(worker_port: &mut WorkerPort, packets: &mut Burst) {
    if worker_port.own.is_some() {
        make_own(worker_port, packets);
    }
    if let Egress::Own(queue) = &mut worker_port.egress {
        queue.tx_burst(packets);
    }
    if !packets.is_empty() {
        not_sent(worker_port, packets);
    }
}

/// Replaces `packets` by copies in packets of the port's own pool.
fn make_own(worker_port: &WorkerPort, packets: &mut Burst) {
    let Some(pool) = &worker_port.own else { return };
    let mut copies = Burst::new();
    let mut lost = 0;
    for packet in packets.drain(..linecard_mempool::BURST) {
        match packet.copy(pool).map(|copy| copies.push(copy)) {
            Some(Ok(())) => {}
            _ => lost += 1,
        }
    }
    if lost > 0 {
        worker_port.losses.add(Cause::NoPacket, lost);
    }
    packets.take_from(&mut copies);
}

#[cold]
fn not_sent(worker_port: &mut WorkerPort, packets: &mut Burst) {
    let cause = if worker_port.up.load(Ordering::Relaxed) { Cause::TxFull } else { Cause::PortDown };
    if let Egress::Own(queue) = &mut worker_port.egress {
        queue.note_dropped(packets, cause.name());
    }
    worker_port.losses.add(cause, packets.clear() as u64);
}

/// Inserts or removes a tag; returns `false` if there is no room for it or the packet cannot be changed.
fn change_tag(packet: &mut Packet, retag: Retag) -> bool {
    match retag {
        Retag::Keep => true,
        Retag::Push(vlan) => {
            if packet.prepend(TAG_LEN).is_none() {
                return false;
            }
            let Some(front) = packet.data_mut().and_then(|data| data.first_chunk_mut::<16>()) else {
                return false;
            };
            front.copy_within(TAG_LEN.., 0);
            front[12..14].copy_from_slice(&TAG.to_be_bytes());
            front[14..].copy_from_slice(&vlan.to_be_bytes());
            true
        }
        Retag::Pop => {
            let Some(front) = packet.data_mut().and_then(|data| data.first_chunk_mut::<16>()) else {
                return false;
            };
            front.copy_within(..12, TAG_LEN);
            packet.adj(TAG_LEN).is_ok()
        }
    }
}
