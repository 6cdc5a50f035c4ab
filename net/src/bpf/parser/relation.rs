//! Comparisons of numbers in a frame: `tcp[13] & 2 != 0`, `len > 1000`.

use super::super::tree::{Compare, Load, Node, Test, kind, protocol};
use super::{Error, Parser, value};

/// Named offsets and flags, as listed in `pcap-filter(7)`.
const NAMED: [(&str, u32); 17] = [
    ("tcpflags", 13),
    ("icmptype", 0),
    ("icmpcode", 1),
    ("icmp6type", 0),
    ("icmp6code", 1),
    ("tcp-fin", 0x01),
    ("tcp-syn", 0x02),
    ("tcp-rst", 0x04),
    ("tcp-push", 0x08),
    ("tcp-ack", 0x10),
    ("tcp-urg", 0x20),
    ("tcp-ece", 0x40),
    ("tcp-cwr", 0x80),
    ("icmp-echoreply", 0),
    ("icmp-unreach", 3),
    ("icmp-echo", 8),
    ("icmp-timxceed", 11),
];

fn constant(text: &str) -> Option<u32> {
    let named = NAMED.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    named.or_else(|| value::number(text))
}

impl Parser<'_> {
    /// `len > n`, `less n`, `greater n`.
    pub(super) fn length(&mut self) -> Result<Node, Error> {
        let (compare, not) = match self.next() {
            "less" => (Compare::Above, true),
            "greater" => (Compare::AtLeast, false),
            _ => return self.compared(Load::Len),
        };
        let number = constant(self.peek()).ok_or_else(|| self.expected("a number of bytes"))?;
        self.at += 1;
        Ok(test(Load::Len, None, (compare, not), number))
    }

    /// Parses `proto[offset:size] & mask relation value`, after the protocol's name.
    pub(super) fn accessor(&mut self, name: &str) -> Result<Node, Error> {
        self.at += 1;
        let offset = constant(self.peek()).filter(|offset| *offset < 1 << 16);
        let offset = offset.ok_or_else(|| self.expected("an offset in bytes"))?;
        self.at += 1;
        let mut size = 1;
        if self.take(":") {
            size = match self.peek() {
                "1" => 1,
                "2" => 2,
                "4" => 4,
                _ => return Err(self.expected("a size of 1, 2 or 4 bytes")),
            };
            self.at += 1;
        }
        if !self.take("]") {
            return Err(self.expected("']'"));
        }
        let (shift, header) = (self.shift, self.shift.layer3());
        let behind = |number| {
            let load = Load::Behind { size, header, offset: header + offset };
            Ok((load, Some(shift.ip_protocol(number).and(shift.first_fragment()))))
        };
        let layer3 = |kind| Ok((Load::At { size, offset: header + offset }, Some(shift.ether_type(kind))));
        let (load, first) = match name {
            "ether" => Ok((Load::At { size, offset }, None)),
            "ip" => layer3(kind::IP),
            "ip6" => layer3(kind::IP6),
            "arp" => layer3(kind::ARP),
            "rarp" => layer3(kind::RARP),
            "tcp" => behind(protocol::TCP),
            "udp" => behind(protocol::UDP),
            "sctp" => behind(protocol::SCTP),
            "icmp" => behind(protocol::ICMP),
            "igmp" => behind(protocol::IGMP),
            _ => Err(Error::new(format!(
                "'{name}[' is not possible; write ether, ip, ip6, arp, tcp, udp or icmp"
            ))),
        }?;
        let compared = self.compared(load)?;
        Ok(match first {
            Some(first) => first.and(compared),
            None => compared,
        })
    }

    /// `[& mask] relation value`.
    fn compared(&mut self, load: Load) -> Result<Node, Error> {
        let mask = if self.take("&") { Some(self.flags()?) } else { None };
        let relation = match self.peek() {
            "=" | "==" => (Compare::Equal, false),
            "!=" => (Compare::Equal, true),
            ">" => (Compare::Above, false),
            "<=" => (Compare::Above, true),
            ">=" => (Compare::AtLeast, false),
            "<" => (Compare::AtLeast, true),
            _ => return Err(self.expected("a comparison: = != > >= < <=")),
        };
        self.at += 1;
        let number = self.flags()?;
        Ok(test(load, mask, relation, number))
    }

    /// One number, or several in parentheses joined by `|`.
    fn flags(&mut self) -> Result<u32, Error> {
        let group = self.take("(");
        let mut all = 0;
        loop {
            all |=
                constant(self.peek()).ok_or_else(|| self.expected("a number or a flag such as tcp-syn"))?;
            self.at += 1;
            if !group {
                return Ok(all);
            }
            if self.take(")") {
                return Ok(all);
            }
            if !self.take("|") {
                return Err(self.expected("'|' or ')'"));
            }
        }
    }
}

fn test(load: Load, mask: Option<u32>, (compare, not): (Compare, bool), value: u32) -> Node {
    let node = Node::Test(Test { load, mask, compare, value });
    if not { node.not() } else { node }
}
