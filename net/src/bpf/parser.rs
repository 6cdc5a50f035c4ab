//! Parser for tcpdump's grammar, to the extent described in [`super`].

mod relation;
mod value;

use super::Error;
use super::lexer::Word;
use super::tree::{Node, Qualifier, Shift, ether_group, ether_host, kind, protocol};

/// The maximum nesting of parentheses and `not`.
const DEPTH: usize = 100;
/// The maximum number of words: each generates at most a few dozen instructions, of which 4096 are possible.
const WORDS: usize = 1000;

/// The kind of a qualified value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Host,
    Net,
    Port,
    PortRange,
}

/// The qualifiers in front of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Qualifiers<'a> {
    protocol: Option<&'a str>,
    way: Qualifier,
    kind: Kind,
}

const PROTOCOLS: [&str; 11] =
    ["ether", "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp"];

/// Parses the words of a condition; `None` if there are none.
pub(super) fn parse(words: &[Word<'_>]) -> Result<Option<Node>, Error> {
    if words.is_empty() {
        return Ok(None);
    }
    if words.len() > WORDS {
        return Err(Error::new(format!(
            "the filter has {} words; {WORDS} are possible, so write it shorter, or use `tcpdump -ddd`",
            words.len()
        )));
    }
    let mut parser = Parser { words, at: 0, depth: 0, shift: Shift(0), last: None };
    let node = parser.expression()?;
    match parser.peek() {
        "" => Ok(Some(node)),
        _ => Err(parser.expected("'and', 'or' or the end")),
    }
}

struct Parser<'a> {
    words: &'a [Word<'a>],
    at: usize,
    depth: usize,
    /// The length of the VLAN tags seen so far.
    shift: Shift,
    /// The qualifiers of the previous value, used for values without qualifiers.
    last: Option<Qualifiers<'a>>,
}

impl<'a> Parser<'a> {
    /// The next word, empty at the end.
    fn peek(&self) -> &'a str {
        self.words.get(self.at).map_or("", |word| word.text())
    }

    fn peek_behind(&self, skip: usize) -> &'a str {
        self.words.get(self.at + skip).map_or("", |word| word.text())
    }

    fn next(&mut self) -> &'a str {
        let word = self.peek();
        self.at += 1;
        word
    }

    fn take(&mut self, word: &str) -> bool {
        let there = self.peek() == word;
        self.at += usize::from(there);
        there
    }

    fn expected(&self, what: &str) -> Error {
        match self.peek() {
            "" => Error::new(format!("the filter ends too early: expected {what}")),
            word => Error::new(format!("the filter is not understood at '{word}': expected {what}")),
        }
    }

    /// `and` and `or` have the same precedence and associate from left to right.
    fn expression(&mut self) -> Result<Node, Error> {
        let mut node = self.unary()?;
        loop {
            node = match self.peek() {
                "and" | "&&" => {
                    self.at += 1;
                    node.and(self.unary()?)
                }
                "or" | "||" => {
                    self.at += 1;
                    node.or(self.unary()?)
                }
                _ => return Ok(node),
            };
        }
    }

    fn unary(&mut self) -> Result<Node, Error> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Error::new(format!("the filter is nested more than {DEPTH} deep; write it flatter")));
        }
        let node = match self.peek() {
            "not" | "!" => {
                self.at += 1;
                self.unary().map(Node::not)
            }
            "(" => {
                self.at += 1;
                let inner = self.expression()?;
                if self.take(")") { Ok(inner) } else { Err(self.expected("')'")) }
            }
            _ => self.primitive(),
        };
        self.depth -= 1;
        node
    }

    fn primitive(&mut self) -> Result<Node, Error> {
        match self.peek() {
            "vlan" => self.vlan(),
            "len" | "less" | "greater" => self.length(),
            "broadcast" | "multicast" => self.group(None),
            "proto" => self.protocol_number(None),
            word if PROTOCOLS.contains(&word) => self.of_protocol(),
            "src" | "dst" | "host" | "net" | "port" | "portrange" => self.qualified(None),
            word if word.starts_with(|c: char| c.is_ascii_hexdigit() || c == ':') => {
                let host = Qualifiers { protocol: None, way: Qualifier::Either, kind: Kind::Host };
                self.value(self.last.unwrap_or(host))
            }
            // A port name, as in `port http or https`.
            word => match self.last.filter(|last| last.kind == Kind::Port && value::port(word).is_some()) {
                Some(last) => self.value(last),
                None => Err(self.expected("a condition, as in 'tcp port 80' or 'host 10.0.0.1'")),
            },
        }
    }

    fn vlan(&mut self) -> Result<Node, Error> {
        self.at += 1;
        let id = value::number(self.peek());
        if let Some(id) = id {
            self.at += 1;
            if id > 4095 {
                return Err(Error::new(format!("'vlan {id}' is not possible; give a number up to 4095")));
            }
        }
        let node = self.shift.vlan(id);
        self.shift.0 += 4;
        Ok(node)
    }

    /// Parses a condition that begins with the name of a protocol.
    fn of_protocol(&mut self) -> Result<Node, Error> {
        let name = self.next();
        match self.peek() {
            "[" => self.accessor(name),
            "proto" => self.protocol_number(Some(name)),
            "broadcast" | "multicast" => self.group(Some(name)),
            "src" | "dst" | "host" | "net" | "port" | "portrange" => self.qualified(Some(name)),
            _ => self.alone(name),
        }
    }

    fn alone(&self, name: &str) -> Result<Node, Error> {
        let shift = self.shift;
        Ok(match name {
            "ip" => shift.ether_type(kind::IP),
            "ip6" => shift.ether_type(kind::IP6),
            "arp" => shift.ether_type(kind::ARP),
            "rarp" => shift.ether_type(kind::RARP),
            "tcp" => shift.protocol(protocol::TCP),
            "udp" => shift.protocol(protocol::UDP),
            "sctp" => shift.protocol(protocol::SCTP),
            "icmp" => shift.ip_protocol(protocol::ICMP),
            "icmp6" => shift.ip6_protocol(protocol::ICMP6),
            "igmp" => shift.ip_protocol(protocol::IGMP),
            _ => return Err(self.expected("'host', 'src', 'dst', 'proto', 'broadcast', 'multicast' or '['")),
        })
    }

    fn protocol_number(&mut self, of: Option<&str>) -> Result<Node, Error> {
        self.at += 1;
        let word = self.peek();
        let number = value::number(word).or_else(|| value::protocol(word.trim_start_matches('\\'), of));
        let number = number.ok_or_else(|| self.expected("a protocol's number or name"))?;
        self.at += 1;
        let shift = self.shift;
        match of {
            Some("ether") if (1501..=0xffff).contains(&number) => Ok(shift.ether_type(number)),
            Some("ip") if number < 256 => Ok(shift.ip_protocol(number)),
            Some("ip6") if number < 256 => Ok(shift.ip6_protocol(number)),
            None if number < 256 => Ok(shift.protocol(number)),
            _ => Err(Error::new(format!(
                "'proto {number}' is not possible; give ether an EtherType from 1501 on, ip and ip6 a number \
                 up to 255, and nothing else"
            ))),
        }
    }

    fn group(&mut self, of: Option<&str>) -> Result<Node, Error> {
        let (word, shift) = (self.next(), self.shift);
        match (of, word) {
            (None | Some("ether"), "broadcast") => Ok(ether_host(Qualifier::Destination, [0xff; 6])),
            (None | Some("ether"), _) => Ok(ether_group()),
            (Some("ip"), "multicast") => Ok(shift.ip_multicast()),
            (Some("ip6"), "multicast") => Ok(shift.ip6_multicast()),
            _ => Err(Error::new(format!(
                "'{word}' is not possible here; write 'ether {word}', 'ip multicast' or 'ip6 multicast'"
            ))),
        }
    }

    /// `[src|dst|…] [host|net|port|portrange] value`.
    fn qualified(&mut self, protocol: Option<&'a str>) -> Result<Node, Error> {
        let way = match self.peek() {
            first @ ("src" | "dst") => {
                self.at += 1;
                let other = if first == "src" { "dst" } else { "src" };
                let joined = self.peek_behind(1) == other;
                let way = match self.peek() {
                    "or" | "||" if joined => Qualifier::Either,
                    "and" | "&&" if joined => Qualifier::Both,
                    _ if first == "src" => Qualifier::Source,
                    _ => Qualifier::Destination,
                };
                if matches!(way, Qualifier::Either | Qualifier::Both) {
                    self.at += 2;
                }
                way
            }
            _ => Qualifier::Either,
        };
        let kind = match self.peek() {
            "host" => Some(Kind::Host),
            "net" => Some(Kind::Net),
            "port" => Some(Kind::Port),
            "portrange" => Some(Kind::PortRange),
            _ => None,
        };
        self.at += usize::from(kind.is_some());
        let qualifiers = Qualifiers { protocol, way, kind: kind.unwrap_or(Kind::Host) };
        if self.peek() == "(" {
            self.last = Some(qualifiers);
            return self.unary();
        }
        self.value(qualifiers)
    }

    fn value(&mut self, qualifiers: Qualifiers<'a>) -> Result<Node, Error> {
        self.last = Some(qualifiers);
        match qualifiers.kind {
            Kind::Host => self.host(qualifiers),
            Kind::Net => self.net(qualifiers),
            Kind::Port => {
                let port = value::port(self.peek());
                let port =
                    port.ok_or_else(|| self.expected("a port from 0 to 65535, or a name such as http"))?;
                self.ports(qualifiers, port, port)
            }
            Kind::PortRange => {
                let range = self.peek().split_once('-');
                let range = range.and_then(|(low, high)| value::port(low).zip(value::port(high)));
                let range = range.filter(|(low, high)| low <= high);
                let (low, high) = range.ok_or_else(|| self.expected("two ports, as in 1000-2000"))?;
                self.ports(qualifiers, low, high)
            }
        }
    }
}
