//! The parser of `flow create` and `flow validate`, for the words after the port.

use std::sync::atomic::AtomicU64;

use super::item::{Item, KINDS};
use super::{Fate, Flow};
use crate::testpmd::options::parse_number;
use crate::testpmd::soft::vlan::{self, MAX_VLAN, TagEdit};

/// The most actions of a rule, and the most headers of its pattern.
const MOST: usize = 16;

/// Parses a rule in the syntax of `flow create`: `ingress pattern eth / ipv4 src is 1.2.3.4 / end actions
/// drop / end`.
///
/// # Errors
/// The first unsupported word, and which words are supported.
pub(crate) fn parse(words: &[&str]) -> Result<Flow, String> {
    let mut words = Words(words.iter());
    let (mut group, mut priority, mut ingress) = (0, 0, false);
    loop {
        match words.next("ingress, group, priority or pattern")? {
            "ingress" => ingress = true,
            "group" => group = words.number("group")?,
            "priority" => priority = words.number("priority")?,
            "egress" | "transfer" => return Err("rules are for received frames only; write ingress".into()),
            "pattern" => break,
            other => return Err(unknown("attribute", other, "ingress, group N, priority N, pattern")),
        }
    }
    if !ingress {
        return Err("a rule says which way frames go; write ingress before pattern".into());
    }
    let items = pattern(&mut words)?;
    match words.next("actions")? {
        "actions" => {}
        other => return Err(unknown("word", other, "actions")),
    }
    let mut flow = Flow {
        group,
        priority,
        items,
        actions: Vec::new(),
        fate: Fate::Passthru,
        mark: None,
        edits: Vec::new(),
        counts: false,
        hits: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    };
    actions(&mut words, &mut flow)?;
    match words.0.next() {
        None => Ok(flow),
        Some(extra) => Err(unknown("word behind the actions", extra, "nothing")),
    }
}

fn unknown(what: &str, word: &str, known: &str) -> String {
    format!("{what} {word} is not supported here, only {known}")
}

struct Words<'a>(std::slice::Iter<'a, &'a str>);

impl<'a> Words<'a> {
    fn next(&mut self, expected: &str) -> Result<&'a str, String> {
        self.0.next().copied().ok_or_else(|| format!("the rule ends early; {expected} is missing"))
    }

    fn number(&mut self, name: &str) -> Result<u32, String> {
        let text = self.next(&format!("the number of {name}"))?;
        let number = parse_number(text).and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| format!("{name} {text} is not a number of 32 bits"))
    }

    fn queue(&mut self) -> Result<u16, String> {
        let number = self.number("queue")?;
        u16::try_from(number).map_err(|_| format!("queue {number} is not a number of 16 bits"))
    }
}

fn pattern(words: &mut Words<'_>) -> Result<Vec<Item>, String> {
    let mut items: Vec<Item> = Vec::new();
    loop {
        let name = words.next("an item, or end")?;
        if name == "end" {
            break;
        }
        let known = || KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
        let kind =
            KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| unknown("item", name, &known()))?;
        if items.last().is_some_and(|last| last.layer() >= kind.layer) || items.len() == MOST {
            return Err(format!(
                "item {name} cannot stand there; headers come from the outside in, each once"
            ));
        }
        let mut item = Item::new(kind);
        loop {
            match words.next("a field, or /")? {
                "/" => break,
                field => {
                    let how = words.next("is, spec, mask or prefix")?;
                    item.test(field, how, words.next("a value")?)?;
                }
            }
        }
        items.push(item);
    }
    if items.is_empty() { Err("the pattern is empty; begin with eth".into()) } else { Ok(items) }
}

fn actions(words: &mut Words<'_>, flow: &mut Flow) -> Result<(), String> {
    loop {
        let name = words.next("an action, or end")?;
        let (name, fate) = match name {
            "end" => break,
            "passthru" => ("passthru", None),
            "drop" => ("drop", Some(Fate::Drop)),
            "queue" => {
                named(words, "index")?;
                ("queue", Some(Fate::Queue(words.queue()?)))
            }
            "rss" => {
                named(words, "queues")?;
                ("rss", Some(Fate::Rss(queues(words)?)))
            }
            "mark" => {
                named(words, "id")?;
                flow.mark = Some(words.number("mark")?);
                ("mark", None)
            }
            "count" => {
                flow.counts = true;
                ("count", None)
            }
            other => {
                flow.edits.push(edit(words, other)?);
                (other, None)
            }
        };
        if let Some(fate) = fate {
            if flow.fate != Fate::Passthru {
                return Err(format!(
                    "action {name} is a second place to go; a rule has one of drop, queue, rss"
                ));
            }
            flow.fate = fate;
        }
        flow.actions.push(name.to_owned());
        match words.next("/ behind an action")? {
            "/" if flow.actions.len() < MOST => {}
            other => return Err(unknown("word", other, "/ behind an action")),
        }
    }
    if flow.actions.is_empty() {
        Err("the rule has no action; write drop, queue, rss, mark or count".into())
    } else {
        Ok(())
    }
}

/// The actions on the outermost VLAN tag, by OpenFlow's names as DPDK has them.
fn edit(words: &mut Words<'_>, action: &str) -> Result<TagEdit, String> {
    let mut value = |field: &str, most: u32| {
        named(words, field)?;
        let number = words.number(field)?;
        if number <= most {
            Ok(number as u16)
        } else {
            Err(format!("{field} {number} is not one of 0 to {most}"))
        }
    };
    match action {
        "of_pop_vlan" => Ok(TagEdit::Pop),
        "of_push_vlan" => match value("ethertype", 0xffff)? {
            protocol if vlan::is_tag(protocol) => Ok(TagEdit::Push(protocol)),
            other => Err(format!("ethertype {other:#06x} is no VLAN tag's; write 0x8100 or 0x88a8")),
        },
        "of_set_vlan_vid" => Ok(TagEdit::Vid(value("vlan_vid", u32::from(MAX_VLAN))?)),
        "of_set_vlan_pcp" => Ok(TagEdit::Pcp(value("vlan_pcp", 7)? as u8)),
        other => Err(unknown(
            "action",
            other,
            "drop, queue, rss, mark, count, passthru, of_pop_vlan, of_push_vlan, of_set_vlan_vid, of_set_vlan_pcp",
        )),
    }
}

fn named(words: &mut Words<'_>, name: &str) -> Result<(), String> {
    match words.next(name)? {
        word if word == name => Ok(()),
        other => Err(unknown("field", other, name)),
    }
}

fn queues(words: &mut Words<'_>) -> Result<Vec<u16>, String> {
    let mut queues = Vec::new();
    loop {
        let word = words.0.as_slice().first().copied();
        if word == Some("end") {
            words.0.next();
            break;
        }
        queues.push(words.queue()?);
        if queues.len() > 1024 {
            return Err("rss names more than 1024 queues".into());
        }
    }
    if queues.is_empty() { Err("rss names no queue; write queues 0 1 end".into()) } else { Ok(queues) }
}
