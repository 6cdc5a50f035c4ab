//! Neighbour suppression: the switch answers ARP requests (RFC 826) and neighbour solicitations (RFC 4861)
//! for ports with configured addresses, so that they are not flooded to every port and every remote host.
//!
//! Nothing is learned for this: the `mac` and `ips` of a port say who owns an address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use linecard_net::checksum::pseudo_header_v6;
use linecard_net::{MacAddr, echo};

use crate::frame::TAG;
use crate::rules::Rules;

const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// The solicited and override flags, in the first octet of an advertisement's flags.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// The target link-layer address option, and its length in units of eight octets.
const TARGET_ADDRESS: [u8; 2] = [2, 1];
/// The all-nodes multicast address.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The owner of an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    mac: MacAddr,
    port: u16,
}

/// The configured addresses of all ports.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    /// The ports with the address, in the order in which they were added: the last one is the owner.
    owners: HashMap<(u16, IpAddr), Vec<Owner>>,
}

impl Neighbours {
    /// Adds the addresses of a port.
    pub(crate) fn add(&mut self, port: u16, rules: &Rules) {
        let Some(mac) = rules.mac.filter(|_| !rules.shares) else { return };
        let [_, _, a, b, c, d, e, f] = mac.to_be_bytes();
        let owner = Owner { mac: MacAddr([a, b, c, d, e, f]), port };
        for ip in
            rules.ipv4.iter().copied().map(IpAddr::from).chain(rules.ipv6.iter().copied().map(IpAddr::from))
        {
            let owners = self.owners.entry((rules.home_vlan(), ip)).or_default();
            owners.retain(|known| known.port != port);
            owners.push(owner);
        }
    }

    /// Removes the addresses of a port.
    pub(crate) fn remove(&mut self, port: u16) {
        self.owners.retain(|_, owners| {
            owners.retain(|owner| owner.port != port);
            !owners.is_empty()
        });
    }

    /// The answer to a request that came from `port` in `vlan`, and the port that owns the address; `None` if
    /// the frame is not a request or the address is not configured.
    pub(crate) fn answer(&self, port: u16, vlan: u16, frame: &[u8]) -> Option<(u16, Vec<u8>)> {
        if self.owners.is_empty() {
            return None;
        }
        let last = |ip: IpAddr| self.owners.get(&(vlan, ip))?.last();
        let owner = |ip: IpAddr| last(ip).filter(|owner| owner.port != port);
        if let Some(ip) = echo::asked(frame) {
            let owner = owner(ip.into())?;
            let mut answer = frame.to_vec();
            return echo::answer_arp(&mut answer, owner.mac).then_some((owner.port, answer));
        }
        let question = Solicitation::read(frame)?;
        let owner = owner(question.target.into())?;
        Some((owner.port, question.answer(owner.mac)))
    }
}

/// A neighbour solicitation.
struct Solicitation<'a> {
    /// The frame up to the EtherType, including tags.
    ethernet: &'a [u8],
    source: Ipv6Addr,
    target: Ipv6Addr,
}

impl<'a> Solicitation<'a> {
    fn read(frame: &'a [u8]) -> Option<Self> {
        let at = if frame.get(12..14)? == TAG.to_be_bytes() { 18 } else { 14 };
        let (ethernet, packet) = frame.split_at_checked(at)?;
        let address = |from: usize| packet.get(from..)?.first_chunk::<16>().copied().map(Ipv6Addr::from);
        // A hop limit of 255 shows that it comes from this link.
        let plain = ethernet.ends_with(&IPV6)
            && packet.get(6..8)? == [ICMPV6, 255]
            && packet.get(40..42)? == [SOLICITATION, 0];
        let (source, target) = (address(8)?, address(48)?);
        (plain && !target.is_multicast() && !source.is_multicast()).then_some(Self {
            ethernet,
            source,
            target,
        })
    }

    fn answer(&self, own: MacAddr) -> Vec<u8> {
        // A sender without an address yet is answered on the all-nodes address (RFC 4861, section 7.2.4).
        let (to, flags) = if self.source.is_unspecified() {
            (ALL_NODES, OVERRIDE)
        } else {
            (self.source, SOLICITED | OVERRIDE)
        };
        let mut icmp =
            [&[ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0][..], &self.target.octets(), &TARGET_ADDRESS, &own.0]
                .concat();
        let sum = pseudo_header_v6(&self.target.octets(), &to.octets(), ICMPV6, 32).add_bytes(&icmp);
        let sum = !sum.fold();
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut frame = self.ethernet.to_vec();
        if to == ALL_NODES {
            frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
        } else {
            frame.copy_within(6..12, 0);
        }
        frame[6..12].copy_from_slice(&own.0);
        frame.extend([0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
        frame.extend(self.target.octets());
        frame.extend(to.octets());
        frame.extend(icmp);
        frame
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::PortSpec;
    use crate::rules::Defaults;

    fn neighbours() -> Neighbours {
        let mut all = Neighbours::default();
        for (port, vlan) in [(3, 10), (4, 20)] {
            all.add(port, &rules(vlan));
        }
        all
    }

    fn rules(vlan: u16) -> Rules {
        let spec = json!({"key": "a", "type": "tap", "name": "t", "mac": "02:00:00:00:00:07",
            "ips": ["10.0.0.7", "fd00::7"], "vlan": {"access": vlan}});
        let spec = PortSpec::read(spec).expect("a port");
        Rules::of(&spec, Defaults::default()).expect("rules")
    }

    fn solicitation(source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
        let mut frame =
            vec![0x33, 0x33, 0xff, 0, 0, 7, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255];
        frame.extend(source.octets());
        frame.extend(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 7).octets());
        frame.extend([135, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend(target.octets());
        frame
    }

    #[test]
    fn a_solicitation_is_answered_with_a_sum_that_is_right() {
        let (source, target) = addresses();
        let asked = solicitation(source, target);
        let (port, answer) = neighbours().answer(1, 10, &asked).expect("an answer");
        assert_eq!(port, 3);
        assert_eq!(answer[..14], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 0x86, 0xdd]);
        assert_eq!((&answer[22..38], &answer[38..54]), (&target.octets()[..], &source.octets()[..]));
        assert_eq!((answer[54], answer[58], &answer[62..78]), (136, 0x60, &target.octets()[..]));
        assert_eq!(answer[78..], [2, 1, 2, 0, 0, 0, 0, 7]);
        let sum = pseudo_header_v6(&target.octets(), &source.octets(), 58, 32).add_bytes(&answer[54..]);
        assert_eq!(sum.fold(), 0xffff);
        // Who has no address yet.
        let (_, answer) =
            neighbours().answer(1, 10, &solicitation(Ipv6Addr::UNSPECIFIED, target)).expect("an answer");
        assert_eq!((&answer[..6], answer[58]), (&[0x33, 0x33, 0, 0, 0, 1][..], 0x20));
        assert_eq!(answer[38..54], ALL_NODES.octets());
    }

    fn addresses() -> (Ipv6Addr, Ipv6Addr) {
        (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7))
    }

    #[test]
    fn only_questions_for_others_of_the_vlan_are_answered() {
        let (source, target) = addresses();
        let asked = solicitation(source, target);
        let all = neighbours();
        assert_eq!(all.answer(1, 20, &asked).map(|(port, _)| port), Some(4));
        assert!(all.answer(3, 10, &asked).is_none(), "its own question");
        assert!(all.answer(1, 0, &asked).is_none(), "not in this VLAN");
        assert!(all.answer(1, 10, &solicitation(source, source)).is_none(), "nobody's address");
        for at in [12, 20, 21, 54, 55] {
            let mut other = asked.clone();
            other[at] ^= 1;
            assert!(all.answer(1, 10, &other).is_none(), "byte {at} says that it is none");
        }
        for len in 0..asked.len() {
            assert!(all.answer(1, 10, &asked[..len]).is_none(), "{len} bytes");
        }
        let mut gone = neighbours();
        gone.remove(3);
        assert!(gone.answer(1, 10, &asked).is_none());
    }

    #[test]
    fn an_address_that_two_ports_have_stays_with_the_one_that_stays() {
        let (source, target) = addresses();
        let asked = solicitation(source, target);
        for (gone, left) in [(3, 5), (5, 3)] {
            let mut all = neighbours();
            all.add(5, &rules(10));
            assert_eq!(all.answer(1, 10, &asked).map(|(port, _)| port), Some(5), "the last one added");
            all.remove(gone);
            assert_eq!(all.answer(1, 10, &asked).map(|(port, _)| port), Some(left));
            all.remove(left);
            assert!(all.answer(1, 10, &asked).is_none());
        }
    }
}
