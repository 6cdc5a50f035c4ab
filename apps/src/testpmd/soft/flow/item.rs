//! One header of a pattern, and the bits that a frame must have in it.

use linecard::net::{Layers, PacketType};

use crate::testpmd::options::parse_number;
use crate::testpmd::settings::Mac;

/// The notation of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Mac,
    Ipv4,
    Ipv6,
    /// A number within the bits of a mask.
    Number(u16),
}

/// A field of a header: its name, its position and its notation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    at: usize,
    len: usize,
    form: Form,
}

const fn field(name: &'static str, at: usize, len: usize, form: Form) -> Field {
    Field { name, at, len, form }
}

/// A header that patterns support.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
    /// The position in a pattern: outer headers come first.
    pub(super) layer: u8,
}

const BYTE: Form = Form::Number(0xff);
const WORD: Form = Form::Number(0xffff);
const PORTS: &[Field] = &[field("src", 0, 2, WORD), field("dst", 2, 2, WORD)];

pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "eth",
        layer: 0,
        fields: &[field("dst", 0, 6, Form::Mac), field("src", 6, 6, Form::Mac), field("type", 12, 2, WORD)],
    },
    Kind {
        name: "vlan",
        layer: 1,
        fields: &[
            field("tci", 0, 2, WORD),
            field("vid", 0, 2, Form::Number(0xfff)),
            field("inner_type", 2, 2, WORD),
        ],
    },
    Kind {
        name: "ipv4",
        layer: 2,
        fields: &[
            field("tos", 1, 1, BYTE),
            field("ttl", 8, 1, BYTE),
            field("proto", 9, 1, BYTE),
            field("src", 12, 4, Form::Ipv4),
            field("dst", 16, 4, Form::Ipv4),
        ],
    },
    Kind {
        name: "ipv6",
        layer: 2,
        fields: &[
            field("proto", 6, 1, BYTE),
            field("hop", 7, 1, BYTE),
            field("src", 8, 16, Form::Ipv6),
            field("dst", 24, 16, Form::Ipv6),
        ],
    },
    Kind { name: "udp", layer: 3, fields: PORTS },
    Kind { name: "tcp", layer: 3, fields: PORTS },
];

/// Longest field: an IPv6 address.
const LONGEST: usize = 16;

impl Field {
    fn mask(&self) -> [u8; LONGEST] {
        let mut mask = [0; LONGEST];
        match self.form {
            Form::Number(bits) => mask[..2].copy_from_slice(&bits.to_be_bytes()),
            _ => mask[..self.len].fill(0xff),
        }
        if self.len == 1 {
            mask.rotate_left(1);
        }
        mask
    }

    /// Parses `text`; the error says which notation is expected.
    fn value(&self, text: &str) -> Result<[u8; LONGEST], String> {
        let mut bytes = [0; LONGEST];
        let expected = match self.form {
            Form::Mac => {
                Mac::parse(text).map(|mac| bytes[..6].copy_from_slice(&mac.0)).ok_or("an Ethernet address")
            }
            Form::Ipv4 => text
                .parse::<std::net::Ipv4Addr>()
                .map(|address| bytes[..4].copy_from_slice(&address.octets()))
                .map_err(|_| "an IPv4 address"),
            Form::Ipv6 => text
                .parse::<std::net::Ipv6Addr>()
                .map(|address| bytes = address.octets())
                .map_err(|_| "an IPv6 address"),
            Form::Number(max) => parse_number(text)
                .and_then(|number| u16::try_from(number).ok())
                .filter(|number| *number <= max)
                .map(|number| bytes[..2].copy_from_slice(&number.to_be_bytes()))
                .ok_or("a number that the field can have"),
        };
        expected.map_err(|expected| format!("{text} is not {expected}"))?;
        if self.len == 1 {
            bytes.rotate_left(1);
        }
        Ok(bytes)
    }
}

/// The value that one field must have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Test {
    at: usize,
    len: usize,
    value: [u8; LONGEST],
    mask: [u8; LONGEST],
}

/// A header of a pattern with the tests of its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    kind: &'static Kind,
    tests: Vec<Test>,
}

impl Item {
    pub(super) fn new(kind: &'static Kind) -> Self {
        Self { kind, tests: Vec::new() }
    }

    pub(super) fn name(&self) -> &'static str {
        self.kind.name
    }

    pub(super) fn layer(&self) -> u8 {
        self.kind.layer
    }

    /// Adds `field how text`: `is`, `spec`, `mask` or `prefix`.
    ///
    /// # Errors
    /// The field, the keyword or the value is not supported.
    pub(super) fn test(&mut self, name: &str, how: &str, text: &str) -> Result<(), String> {
        let kind = self.kind;
        let field = kind.fields.iter().find(|field| field.name == name).ok_or_else(|| {
            let known: Vec<_> = kind.fields.iter().map(|field| field.name).collect();
            format!("item {} has no field {name} here, only {}", kind.name, known.join(", "))
        })?;
        let index = self.tests.iter().position(|test| (test.at, test.len) == (field.at, field.len));
        let index = index.unwrap_or_else(|| {
            self.tests.push(Test { at: field.at, len: field.len, value: [0; LONGEST], mask: field.mask() });
            self.tests.len() - 1
        });
        let test = &mut self.tests[index];
        match how {
            "is" => (test.value, test.mask) = (field.value(text)?, field.mask()),
            "spec" => test.value = field.value(text)?,
            "mask" => test.mask = field.value(text)?,
            "prefix" => test.mask = prefix(text, field)?,
            _ => return Err(format!("{how} is not one of is, spec, mask, prefix")),
        }
        Ok(())
    }

    pub(super) fn matches(&self, frame: &[u8], layers: &Layers) -> bool {
        let kind = layers.packet_type;
        let start = match self.kind.name {
            "eth" => 0,
            "vlan" if layers.vlan_tci.is_some() => 14,
            "ipv4" if kind.is_ipv4() => usize::from(layers.l2_len),
            "ipv6" if kind.is_ipv6() => usize::from(layers.l2_len),
            "udp" if kind.l4() == PacketType::L4_UDP => layers.l4_start(),
            "tcp" if kind.l4() == PacketType::L4_TCP => layers.l4_start(),
            _ => return false,
        };
        self.tests.iter().all(|test| {
            let bytes = frame.get(start + test.at..start + test.at + test.len);
            bytes.is_some_and(|bytes| {
                let pairs = bytes.iter().zip(test.value.iter().zip(&test.mask));
                pairs.into_iter().all(|(byte, (value, mask))| (byte ^ value) & mask == 0)
            })
        })
    }
}

/// Returns a mask of the first bits.
fn prefix(text: &str, field: &Field) -> Result<[u8; LONGEST], String> {
    let bits = field.len * 8;
    let count =
        parse_number(text).and_then(|count| usize::try_from(count).ok()).filter(|count| *count <= bits);
    let count = count.ok_or_else(|| format!("prefix {text} is not a number from 0 to {bits}"))?;
    Ok(std::array::from_fn(|byte| match count.saturating_sub(byte * 8).min(8) {
        0 => 0,
        some => 0xff << (8 - some),
    }))
}
