//! Checks that a frame names no source other than its port's: IPv4, ARP, IPv6 and neighbour discovery.

use crate::frame::TAG;
use crate::rules::Rules;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
/// Extension headers (IANA). Hop-by-hop options, routing, destination options, mobility, HIP and Shim6 give
/// their length in units of eight bytes; authentication in units of four; a fragment header has no length
/// field.
const IN_EIGHTS: [u8; 6] = [0, 43, 60, 135, 139, 140];
const AUTHENTICATION: u8 = 51;
const FRAGMENT: u8 = 44;
/// A limit that is above what any host sends.
const MOST_HEADERS: usize = 16;
/// Neighbour discovery (RFC 4861): router solicitation and advertisement, neighbour solicitation and advertisement, redirect.
const DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;
const ROUTER_ADVERTISEMENT: u8 = 134;
const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Returns whether `frame` may come from a port with these rules. Frames that are not IP pass. `None` if
/// `frame` ends within a header that decides: a whole frame is not allowed then.
pub(crate) fn allows(rules: &Rules, frame: &[u8]) -> Option<bool> {
    let mut at = 12;
    let mut kind = word(frame, at)?;
    // A station may stack tags to hide the headers after them.
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
        // The sender protocol address (RFC 826); only IPv4 over Ethernet is allowed.
        ARP => {
            let plain = rest.get(..6)? == [0, 1, 8, 0, 6, 4];
            Some(plain && allows_v4(rules, rest.get(14..18)?) && own_mac(rules, rest.get(8..14)?))
        }
        IPV6 => {
            let own = Own { rules, sender: frame.get(6..)?.first_chunk()? };
            Some(own.allows_v6(rest.get(8..24)?) && own.allows_discovery(rest)?)
        }
        TAG | 0x88a8 | 0x9100 => Some(false),
        _ => Some(true),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|pair| u16::from_be_bytes(*pair))
}

/// Returns whether the address may be the port's; a station without an address sends from the unspecified
/// one.
fn allows_v4(rules: &Rules, source: &[u8]) -> bool {
    source == [0; 4] || rules.ipv4.iter().any(|own| own == source)
}

fn own_mac(rules: &Rules, sender: &[u8]) -> bool {
    let number = sender.iter().fold(0, |number, octet| number << 8 | u64::from(*octet));
    rules.mac.is_none_or(|own| own == number)
}

/// The IPv6 addresses that a port may use.
struct Own<'a> {
    rules: &'a Rules,
    /// The source address of the frame, which equals the port's `mac` if it has one.
    sender: &'a [u8; 6],
}

impl Own<'_> {
    fn allows_v6(&self, source: &[u8]) -> bool {
        source == [0; 16] || self.rules.ipv6.iter().any(|own| own == source) || source == self.link_local()
    }

    /// The address that a host derives from its MAC address (RFC 4291, appendix A). Any other could be the
    /// router's.
    fn link_local(&self) -> [u8; 16] {
        let [a, b, c, d, e, f] = *self.sender;
        [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]
    }

    /// Returns whether a neighbour discovery message says only what a host may say about itself. The target
    /// of an advertisement must be one of its addresses; it may not announce routers or redirect others.
    fn allows_discovery(&self, packet: &[u8]) -> Option<bool> {
        let Some(Upper { next, at, fragment }) = upper(packet)? else { return Some(false) };
        if next != ICMPV6 {
            return Some(true);
        }
        if fragment == Some(Fragment::Later) {
            return Some(true);
        }
        let kind = *packet.get(at)?;
        match kind {
            ROUTER_ADVERTISEMENT | REDIRECT => Some(false),
            // No host has to fragment it (RFC 6980), and the target may be in another fragment.
            kind if DISCOVERY.contains(&kind) && fragment.is_some() => Some(false),
            ADVERTISEMENT => Some(self.allows_v6(packet.get(at + 8..at + 24)?)),
            _ => Some(true),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fragment {
    First,
    Later,
}

/// The header after the extension headers.
struct Upper {
    next: u8,
    at: usize,
    fragment: Option<Fragment>,
}

/// Skips the extension headers of an IPv6 packet; the inner `None` means that there are too many. The content
/// of later fragments is not checked: without the first fragment, which is checked, they cannot be
/// reassembled.
fn upper(packet: &[u8]) -> Option<Option<Upper>> {
    let (mut next, mut at, mut fragment) = (*packet.get(6)?, 40, None);
    for _ in 0..MOST_HEADERS {
        let length = match next {
            FRAGMENT => {
                let first = word(packet, at + 2)? >> 3 == 0;
                fragment = Some(if first { Fragment::First } else { Fragment::Later });
                8
            }
            AUTHENTICATION => (usize::from(*packet.get(at + 1)?) + 2) * 4,
            next if IN_EIGHTS.contains(&next) => (usize::from(*packet.get(at + 1)?) + 1) * 8,
            _ => return Some(Some(Upper { next, at, fragment })),
        };
        next = *packet.get(at)?;
        if fragment == Some(Fragment::Later) {
            return Some(Some(Upper { next, at: at + length, fragment }));
        }
        at += length;
    }
    Some(None)
}

#[cfg(test)]
mod tests;
