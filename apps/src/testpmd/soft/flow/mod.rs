//! Flow rules: a pattern of frames, and the actions on them.

mod item;
mod parse;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use linecard::mempool::Packet;
use linecard::net::Layers;
use linecard::net::toeplitz::Toeplitz;

use self::item::Item;
pub(crate) use self::parse::parse;
use super::Verdict;
use super::vlan::TagEdit;

/// The destination of a rule's frames.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// The same as without the rule.
    Passthru,
    Drop,
    Queue(u16),
    /// One of these queues, chosen by the hash of the flow.
    Rss(Vec<u16>),
}

/// One rule.
#[derive(Debug)]
pub(crate) struct Flow {
    group: u32,
    priority: u32,
    items: Vec<Item>,
    /// The actions in the given order, for `flow list`.
    actions: Vec<String>,
    fate: Fate,
    mark: Option<u32>,
    /// Changes of the VLAN tag, in this order.
    edits: Vec<TagEdit>,
    counts: bool,
    hits: AtomicU64,
    bytes: AtomicU64,
}

impl Flow {
    /// Whether the rule sends frames to other queues.
    pub(super) fn steers(&self) -> bool {
        matches!(self.fate, Fate::Queue(_) | Fate::Rss(_))
    }

    pub(super) fn matches(&self, frame: &[u8], layers: &Layers) -> bool {
        self.items.iter().all(|item| item.matches(frame, layers))
    }

    /// Counts a frame that matches, and returns its destination, if the rule sets one. The frame must be the one that `layers`
    /// were found in.
    pub(super) fn verdict(&self, packet: &Packet, layers: &Layers) -> Option<Verdict> {
        if self.counts {
            self.hits.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
        }
        match &self.fate {
            Fate::Passthru => None,
            Fate::Drop => Some(Verdict::Drop),
            Fate::Queue(queue) => Some(Verdict::Queue(*queue)),
            Fate::Rss(queues) => {
                let hash = Toeplitz::DEFAULT.flow(packet.data(), layers).unwrap_or(0);
                queues.get(hash as usize % queues.len().max(1)).copied().map(Verdict::Queue)
            }
        }
    }

    /// Marks a frame that matches, and changes its tags.
    pub(super) fn edit(&self, packet: &mut Packet) {
        if let Some(mark) = self.mark {
            packet.set_mark(mark);
        }
        let _ = self.edits.iter().all(|edit| edit.apply(packet));
    }

    /// The highest queue in the rule.
    fn last_queue(&self) -> Option<u16> {
        match &self.fate {
            Fate::Queue(queue) => Some(*queue),
            Fate::Rss(queues) => queues.iter().max().copied(),
            Fate::Passthru | Fate::Drop => None,
        }
    }

    /// Returns why a port with `queues` receive queues cannot have the rule; `None` if it can.
    pub(crate) fn refusal(&self, queues: u16) -> Option<String> {
        let queue = self.last_queue().filter(|queue| *queue >= queues)?;
        Some(format!("queue {queue} is not one of the port's {queues} receive queues, numbered from 0"))
    }

    fn describe(&self) -> String {
        let items: Vec<_> = self.items.iter().map(|item| item.name().to_uppercase()).collect();
        let actions: Vec<_> = self.actions.iter().map(|name| name.to_uppercase()).collect();
        format!("{} => {}", items.join(" "), actions.join(" "))
    }
}

/// The rules of a port.
#[derive(Default)]
pub(crate) struct FlowTable(BTreeMap<u32, Arc<Flow>>);

impl FlowTable {
    /// Adds a rule; returns its number.
    pub(crate) fn add(&mut self, flow: Flow) -> u32 {
        let id = self.0.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        self.0.insert(id, Arc::new(flow));
        id
    }

    /// Removes a rule; returns whether it existed.
    pub(crate) fn remove(&mut self, id: u32) -> bool {
        self.0.remove(&id).is_some()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the rules in the order in which they are matched.
    pub(super) fn by_priority(&self) -> Vec<Arc<Flow>> {
        let mut flows: Vec<_> = self.0.values().cloned().collect();
        flows.sort_by_key(|flow| (flow.group, flow.priority));
        flows
    }

    /// Returns a rule that a port with `queues` receive queues cannot have, and why.
    pub(crate) fn refusal(&self, queues: u16) -> Option<(u32, String)> {
        self.0.iter().find_map(|(id, flow)| Some((*id, flow.refusal(queues)?)))
    }

    /// The text of `flow list`.
    pub(crate) fn list(&self) -> String {
        let mut text = String::new();
        if !self.0.is_empty() {
            text += "ID\tGroup\tPrio\tAttr\tRule\n";
        }
        for (id, flow) in &self.0 {
            let _ = writeln!(text, "{id}\t{}\t{}\ti--\t{}", flow.group, flow.priority, flow.describe());
        }
        text
    }

    /// The text of `flow query … count`, or an error message.
    pub(crate) fn query(&self, id: u32) -> Result<String, String> {
        let flow = self.0.get(&id).ok_or_else(|| format!("Flow rule #{id} not found"))?;
        if !flow.counts {
            return Err(format!("Flow rule #{id} has no action count"));
        }
        let (hits, bytes) = (flow.hits.load(Ordering::Relaxed), flow.bytes.load(Ordering::Relaxed));
        Ok(format!("COUNT:\n hits_set: 1\n bytes_set: 1\n hits: {hits}\n bytes: {bytes}\n"))
    }
}

#[cfg(test)]
mod tests;
