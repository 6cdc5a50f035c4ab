//! One station, two ports: some of its TCP and UDP ports belong to a fast port, everything else to the
//! kernel's port.
//!
//! ```text
//!   to the address of K ─► IPv4 or IPv6, no fragment, no extension header,
//!                          a whole TCP or UDP header, its destination port in a range of F ?
//!                            yes ─► F        no, or undecidable ─► K
//!   from F ─► as if it came from K
//! ```
//! A frame that cannot be parsed goes to the kernel, which can reassemble fragments and answer with errors: a
//! sender cannot make the switch and the kernel interpret a frame differently. ARP, neighbour discovery, ICMP
//! and group addresses belong to the kernel.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::api::{Code, Problem, Share};
use crate::frame::TAG;

const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const IPV6_HEADER: usize = 40;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Bytes of a header without options.
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// The maximum number of ranges of a port.
const MOST: usize = 64;

impl Share {
    /// Checks that its ports can be parsed, as `port.add` does.
    ///
    /// ```
    /// use linecard_switch::api::Share;
    /// let share = |ports: &str| Share { with: "pod-tap".into(), ports: ports.into() };
    /// assert!(share("tcp:4444-20000,udp:53").check().is_ok());
    /// let problem = share("tcp:4444-20000,sctp:53").check().expect_err("neither TCP nor UDP");
    /// assert_eq!(problem.message, "'sctp:53' is no range of TCP or UDP ports");
    /// ```
    ///
    /// # Errors
    /// The first invalid range, or too many ranges.
    pub fn check(&self) -> Result<(), Problem> {
        Ports::of(self).map(drop)
    }
}

/// The destination ports of a fast port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports {
    ranges: Arc<[(u8, RangeInclusive<u16>)]>,
}

impl Ports {
    /// Parses the ports that a port shares.
    ///
    /// # Errors
    /// A range is invalid.
    pub(crate) fn of(share: &Share) -> Result<Self, Problem> {
        let wrong = |message: String| {
            let remedy = format!(
                "give ranges of 1 to 65535 such as tcp:4444-20000,udp:53, without spaces, at most {MOST}"
            );
            Problem::new(Code::InvalidParams, message, remedy)
        };
        let ranges = share.ports.split(',').take(MOST + 1).map(|text| {
            range(text).ok_or_else(|| {
                let shown: String = text.chars().take(40).flat_map(char::escape_default).collect();
                wrong(format!("'{shown}' is no range of TCP or UDP ports"))
            })
        });
        let ranges: Vec<_> = ranges.collect::<Result<_, _>>()?;
        match ranges.len() {
            0..=MOST => Ok(Self { ranges: ranges.into() }),
            _ => Err(wrong(format!("more than {MOST} ranges of ports are named"))),
        }
    }

    /// Returns whether a frame belongs to the fast port; `front` is its first bytes.
    #[inline]
    pub(crate) fn have(&self, front: &[u8]) -> bool {
        transport(front).is_some_and(|(protocol, port)| {
            self.ranges.iter().any(|(own, range)| *own == protocol && range.contains(&port))
        })
    }
}

fn range(text: &str) -> Option<(u8, RangeInclusive<u16>)> {
    let (protocol, ports) = text.split_once(':')?;
    let protocol = match protocol {
        "tcp" => TCP,
        "udp" => UDP,
        _ => return None,
    };
    let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
    // `parse` would accept a sign.
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    let range = number(low)?..=number(high)?;
    (!range.is_empty() && *range.start() > 0).then_some((protocol, range))
}

/// The protocol and destination port of a whole TCP or UDP header.
fn transport(frame: &[u8]) -> Option<(u8, u16)> {
    let word = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let (kind, at) = match word(12)? {
        TAG => (word(16)?, ETHERNET + 4),
        kind => (kind, ETHERNET),
    };
    let packet = frame.get(at..)?;
    let (protocol, header, len) = match kind {
        IPV4 => ipv4(packet)?,
        IPV6 => ipv6(packet)?,
        _ => return None,
    };
    // Padding after the packet is not part of a header.
    let segment = packet.get(..len.min(packet.len()))?.get(header..)?;
    let whole = if protocol == TCP { TCP_HEADER } else { UDP_HEADER };
    let port = u16::from_be_bytes(*segment.get(2..)?.first_chunk()?);
    (matches!(protocol, TCP | UDP) && segment.len() >= whole).then_some((protocol, port))
}

/// The protocol, the length of the header, the length of the packet.
fn ipv4(packet: &[u8]) -> Option<(u8, usize, usize)> {
    let fixed: &[u8; 20] = packet.first_chunk()?;
    let header = usize::from(fixed[0] & 0xf) * 4;
    let len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    // "More fragments" is set, or it is not the first fragment.
    let is_fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0;
    (fixed[0] >> 4 == 4 && header >= 20 && !is_fragment).then_some((fixed[9], header, len))
}

/// The same for IPv6. A next header other than TCP and UDP is an extension header or another protocol.
fn ipv6(packet: &[u8]) -> Option<(u8, usize, usize)> {
    let fixed: &[u8; IPV6_HEADER] = packet.first_chunk()?;
    let len = IPV6_HEADER + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    (fixed[0] >> 4 == 6).then_some((fixed[6], IPV6_HEADER, len))
}

#[cfg(test)]
mod tests;
