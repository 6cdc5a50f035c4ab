//! Whether a frame names a source that is not its port's: IPv4, ARP, IPv6 and neighbour discovery.

use crate::frame::TAG;
use crate::rules::Rules;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
/// Neighbour solicitation and advertisement (RFC 4861).
const NEIGHBOUR: std::ops::RangeInclusive<u8> = 135..=136;

/// Whether `frame` may come from a port with these rules. What is no IP passes. `None` when it ends within the header that would
/// tell: then a whole frame may not.
pub(crate) fn allows(rules: &Rules, frame: &[u8]) -> Option<bool> {
    let mut at = 12;
    let mut kind = word(frame, at)?;
    // A station may stack tags to hide what is behind them.
    for _ in 0..4 {
        if !matches!(kind, TAG | 0x88a8 | 0x9100) {
            break;
        }
        at += 4;
        kind = word(frame, at)?;
    }
    let rest = frame.get(at + 2..)?;
    match kind {
        IPV4 => Some(allows_v4(rules, rest.get(12..16)?)),
        // Sender protocol address (RFC 826), of the only kind there is: IPv4 over Ethernet.
        ARP => {
            let plain = rest.get(..6)? == [0, 1, 8, 0, 6, 4];
            Some(plain && allows_v4(rules, rest.get(14..18)?) && own_mac(rules, rest.get(8..14)?))
        }
        IPV6 => Some(allows_v6(rules, rest.get(8..24)?) && allows_neighbour(rules, rest)?),
        TAG | 0x88a8 | 0x9100 => Some(false),
        _ => Some(true),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|pair| u16::from_be_bytes(*pair))
}

/// Whether this can be the port's; the unspecified address is what a station without one sends from.
fn allows_v4(rules: &Rules, source: &[u8]) -> bool {
    source == [0; 4] || rules.ipv4.iter().any(|own| own == source)
}

fn allows_v6(rules: &Rules, source: &[u8]) -> bool {
    let link_local = matches!(source, [0xfe, second, ..] if second & 0xc0 == 0x80);
    source == [0; 16] || link_local || rules.ipv6.iter().any(|own| own == source)
}

fn own_mac(rules: &Rules, sender: &[u8]) -> bool {
    let number = sender.iter().fold(0, |number, octet| number << 8 | u64::from(*octet));
    rules.mac.is_none_or(|own| own == number)
}

/// An advertisement says whose address its target is; that must be one of the port's, too.
fn allows_neighbour(rules: &Rules, packet: &[u8]) -> Option<bool> {
    let (mut next, mut at) = (*packet.get(6)?, 40);
    if next == HOP_BY_HOP {
        next = *packet.get(at)?;
        at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
    }
    if next != ICMPV6 {
        return Some(true);
    }
    let kind = *packet.get(at)?;
    if !NEIGHBOUR.contains(&kind) || kind == *NEIGHBOUR.start() {
        return Some(true);
    }
    Some(allows_v6(rules, packet.get(at + 8..at + 24)?))
}

#[cfg(test)]
mod tests;
