//! Frames copied once, directly from their sender's buffer into another port's; see [`linecard_pmd::direct`].
//!
//! ```text
//!   shown frames ─► classified one by one, on private copies of their first bytes
//!     dropped                                         counted, done
//!     to one port, unchanged, whose queue is ours     that queue copies them, all for one port at once
//!     any other                                       become packets and follow their decision
//! ```
//! Each frame is classified once, so that no limit counts it twice. Frames between two ports keep their
//! order: once one of them becomes a packet, later ones to the same port do too.

use std::sync::atomic::Ordering;

use linecard_mempool::{BURST, Burst};
use linecard_pmd::TxQueue as _;
use linecard_pmd::direct::{Frame, all};

use crate::api::Cause;
use crate::forward::{Decision, Engine, Seen, Verdict, one_head};
use crate::frame::Head;
use crate::port::Egress;
use crate::rules::Retag;

/// The decisions on the frames of a burst.
#[derive(Default)]
pub(crate) struct Decisions {
    /// In order; `None` for a dropped frame. Frames after the last of these have to be read in full.
    frames: Vec<Option<Decision>>,
    /// The last header and its decision.
    last: Option<(Head, Decision)>,
    /// Counts bursts; a port records the last one that has packets for it.
    burst: u64,
}

impl Decisions {
    fn begin(&mut self) {
        self.frames.clear();
        self.last = None;
        self.burst += 1;
    }

    /// The port to which frame `at` goes.
    fn to(&self, at: usize) -> Option<u16> {
        match self.frames.get(at).copied().flatten()?.verdict {
            Verdict::To(to) => Some(to),
            _ => None,
        }
    }
}

impl Engine {
    /// Classifies the frames shown by `port`, and sends directly those that qualify. Returns which frames are
    /// done; the others are passed to [`forward_decided`](Self::forward_decided) next, as packets.
    pub(crate) fn direct(&mut self, port: u16, frames: &[Frame<'_>]) -> u64 {
        self.decisions.begin();
        let Some(worker_port) = self.worker_port(port) else { return 0 };
        if worker_port.relations.takes_received() {
            return 0;
        }
        let mut last = None;
        let heads = frames.iter().map(|frame| (Head::of(frame.head()), frame.len()));
        if let Some((head, longest)) = one_head(&worker_port.rules, heads) {
            let decision = self.decide(port, head);
            if self.goes_straight(decision, longest)
                && let Verdict::To(to) = decision.verdict
            {
                if self.send_frames(to, frames) {
                    return all(frames.len());
                }
                self.decisions.frames.resize(frames.len(), Some(decision));
                return 0;
            }
            last = Some((head, decision));
        }
        self.each_frame(port, frames, last)
    }

    /// Classifies frame by frame; `last` is the last header and its decision.
    fn each_frame(&mut self, port: u16, frames: &[Frame<'_>], mut last: Option<(Head, Decision)>) -> u64 {
        let (mut to_all, mut straight, mut dealt_with) = (false, 0, 0);
        for (at, frame) in frames.iter().enumerate() {
            let decision = match Head::of(frame.head()) {
                None => Err(Cause::Malformed),
                Some(head) => {
                    let known = last.filter(|(seen, _)| *seen == head).map(|(_, decision)| decision);
                    let decision = known.unwrap_or_else(|| self.decide(port, head));
                    last = Some((head, decision));
                    let front = frame.head();
                    let seen = Seen { front, more: !frame.is_whole(), len: frame.len(), cut: false };
                    let Some(judged) = self.judge(port, decision, &seen) else { break };
                    judged.map(|()| decision)
                }
            };
            match decision {
                Ok(decision) => {
                    let goes = self.goes_straight(decision, frame.len()) && !to_all;
                    straight |= u64::from(goes) << at;
                    to_all |= decision.verdict == Verdict::All;
                }
                Err(cause) => {
                    self.lost(port, cause, 1);
                    dealt_with |= 1 << at;
                }
            }
            self.decisions.frames.push(decision.ok());
        }
        self.decisions.last = last;
        dealt_with |= self.send_straight(frames, straight);
        let mut left = !dealt_with;
        self.decisions.frames.retain(|_| {
            let stays = left & 1 != 0;
            left >>= 1;
            stays
        });
        dealt_with
    }

    /// Returns whether a frame of this length can be copied directly to its destination. If not, later frames
    /// to the same port cannot either, in this burst.
    fn goes_straight(&mut self, decision: Decision, len: usize) -> bool {
        let Verdict::To(to) = decision.verdict else { return false };
        let burst = self.decisions.burst;
        let Some(worker_port) = self.worker_port_mut(to) else { return false };
        let goes = decision.retag == Retag::Keep
            && worker_port.packets_in_burst != burst
            && worker_port.own.is_none()
            && !worker_port.relations.takes_sent()
            && worker_port.out.is_empty()
            && matches!(worker_port.egress, Egress::Own(_))
            && len <= worker_port.rules.longest;
        if !goes {
            worker_port.packets_in_burst = burst;
        }
        goes
    }

    /// Sends the frames in `straight`, port by port; returns which are done.
    fn send_straight(&mut self, frames: &[Frame<'_>], mut straight: u64) -> u64 {
        let (Some(first), true) = (frames.first(), straight != 0) else { return 0 };
        let (mut some, mut dealt_with) = ([*first; BURST], 0);
        while straight != 0
            && let Some(to) = self.decisions.to(straight.trailing_zeros() as usize)
        {
            let (mut count, mut which) = (0, 0);
            for (at, frame) in frames.iter().enumerate() {
                if straight >> at & 1 != 0 && self.decisions.to(at) == Some(to) {
                    some[count] = *frame;
                    count += 1;
                    which |= 1 << at;
                }
            }
            straight &= !which;
            if self.send_frames(to, &some[..count]) {
                dealt_with |= which;
            }
        }
        dealt_with
    }

    /// Lets a port's queue copy these frames; drops those for which it has no room. Returns `false` if it
    /// takes only packets.
    fn send_frames(&mut self, to: u16, frames: &[Frame<'_>]) -> bool {
        let Some(worker_port) = self.worker_port_mut(to) else { return true };
        let Egress::Own(queue) = &mut worker_port.egress else { return false };
        let Some(taken) = queue.tx_direct(frames) else { return false };
        worker_port.losses.add_straight(taken);
        if taken < frames.len() {
            let cause = if worker_port.up.load(Ordering::Relaxed) { Cause::TxFull } else { Cause::PortDown };
            worker_port.losses.add(cause, (frames.len() - taken) as u64);
        }
        true
    }

    /// Forwards the packets that [`direct`](Self::direct) left.
    pub(crate) fn forward_decided(&mut self, port: u16, packets: &mut Burst) {
        let mut decisions = std::mem::take(&mut self.decisions.frames);
        for (packet, decision) in packets.drain(..decisions.len()).zip(&decisions) {
            if let Some(decision) = decision {
                self.go(port, packet, *decision);
            }
        }
        decisions.clear();
        self.decisions.frames = decisions;
        if !packets.is_empty() {
            self.each(port, packets, self.decisions.last);
        }
    }
}

#[cfg(test)]
mod tests;
