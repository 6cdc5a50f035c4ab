//! The rules of a port, in the form that the data path uses.

use std::net::IpAddr;

use linecard_net::MacAddr;

use crate::api::{Cause, Code, PortKind, PortSpec, Problem, Vlan};

/// Bytes of an Ethernet header and one tag, which the MTU does not include.
const BESIDE: usize = 18;

/// The limits of a port that specifies none.
///
/// ```
/// let defaults = linecard_switch::rules::Defaults::default();
/// // A table of 65 536 addresses is filled by no few ports of guests.
/// assert!(defaults.max_macs * 64 <= 65_536 && defaults.max_macs < defaults.uplink_macs);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Broadcast, multicast and unknown unicast frames per second.
    pub flood_rate: u32,
    /// Addresses learned behind a port of a guest or of the kernel: `vhost-user`, `vhost-user-fd`, `tap`.
    pub max_macs: u32,
    /// Addresses learned behind a port that may lead to many others: `vxlan`, `vdev`.
    pub uplink_macs: u32,
    /// New addresses learned behind a port per second.
    pub learn_rate: u32,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { flood_rate: 20_000, max_macs: 1024, uplink_macs: 16_384, learn_rate: 2000 }
    }
}

impl Defaults {
    fn macs_of(self, kind: &PortKind) -> u32 {
        match kind {
            PortKind::VhostUser { .. } | PortKind::VhostUserFd { .. } | PortKind::Tap { .. } => self.max_macs,
            PortKind::Vxlan { .. } | PortKind::Vdev { .. } => self.uplink_macs,
        }
    }
}

/// The kinds of flooded frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    Broadcast,
    Multicast,
    /// Unicast to an unknown station.
    Unknown,
}

impl Flood {
    pub(crate) const ALL: [Self; 3] = [Self::Broadcast, Self::Multicast, Self::Unknown];

    /// The kind of a flooded frame that begins with these bytes.
    #[inline]
    pub(crate) fn of(front: &[u8]) -> Self {
        match front.first_chunk() {
            Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => Self::Broadcast,
            Some([first, ..]) if first & 1 != 0 => Self::Multicast,
            _ => Self::Unknown,
        }
    }

    /// The cause of dropping such a frame above its limit.
    pub(crate) const fn cause(self) -> Cause {
        match self {
            Self::Broadcast => Cause::BroadcastRate,
            Self::Multicast => Cause::MulticastRate,
            Self::Unknown => Cause::UnknownRate,
        }
    }
}

/// A rate limit: bytes per second, and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policing {
    pub(crate) bytes_per_second: u64,
    pub(crate) burst_bytes: u64,
}

/// The VLANs of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// Frames pass unchanged.
    Open,
    Access(u16),
    Trunk {
        vlans: Box<[u64; 64]>,
        native: Option<u16>,
    },
}

/// The change of a frame's tag when it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retag {
    Keep,
    Push(u16),
    Pop,
}

impl Membership {
    /// The VLAN of a received frame with this tag; `None` if it may not pass. Ports without VLANs use VLAN 0.
    #[inline]
    pub(crate) fn enter(&self, tag: Option<u16>) -> Option<u16> {
        match (self, tag) {
            (Self::Open, _) => Some(0),
            (Self::Access(vlan), None) => Some(*vlan),
            (Self::Access(_), Some(_)) => None,
            (Self::Trunk { native, .. }, None) => *native,
            (Self::Trunk { vlans, .. }, Some(tag)) => has(vlans, tag).then_some(tag),
        }
    }

    /// How the tag of a frame of `vlan` changes when it is sent, `tagged` so far or not; `None` if the port
    /// is not in that VLAN.
    #[inline]
    pub(crate) fn leave(&self, vlan: u16, tagged: bool) -> Option<Retag> {
        let bare = if tagged { Retag::Pop } else { Retag::Keep };
        match self {
            Self::Open => (vlan == 0).then_some(Retag::Keep),
            Self::Access(own) => (*own == vlan).then_some(bare),
            Self::Trunk { native, .. } if *native == Some(vlan) => Some(bare),
            Self::Trunk { vlans, .. } if has(vlans, vlan) => {
                Some(if tagged { Retag::Keep } else { Retag::Push(vlan) })
            }
            Self::Trunk { .. } => None,
        }
    }

    fn of(vlan: Option<&Vlan>) -> Result<Self, Problem> {
        let check = |vlan: u16| match vlan {
            1..=4094 => Ok(vlan),
            _ => Err(invalid(format!("there is no VLAN {vlan}"), "VLANs are numbered from 1 to 4094")),
        };
        Ok(match vlan {
            None => Self::Open,
            Some(Vlan::Access(vlan)) => Self::Access(check(*vlan)?),
            Some(Vlan::Trunk(trunk)) => {
                let mut vlans = Box::new([0; 64]);
                for vlan in trunk.vlans.iter().chain(&trunk.native) {
                    vlans[usize::from(check(*vlan)? / 64)] |= 1 << (vlan % 64);
                }
                if vlans.iter().all(|word| *word == 0) {
                    return Err(invalid(
                        "a trunk without VLANs carries nothing".into(),
                        "list VLANs from 1 to 4094",
                    ));
                }
                Self::Trunk { vlans, native: trunk.native }
            }
        })
    }
}

fn has(vlans: &[u64; 64], vlan: u16) -> bool {
    vlans[usize::from(vlan / 64 % 64)] >> (vlan % 64) & 1 != 0
}

/// The rules of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The address of its station, as 48 bits.
    pub(crate) mac: Option<u64>,
    pub(crate) ipv4: Vec<[u8; 4]>,
    pub(crate) ipv6: Vec<[u8; 16]>,
    pub(crate) membership: Membership,
    /// The length of the longest frame, in bytes.
    pub(crate) longest: usize,
    pub(crate) policing: Option<Policing>,
    pub(crate) flood_rate: u32,
    /// The rate of each kind of [`Flood`] that has a limit of its own and does not count for `flood_rate`.
    pub(crate) flood_rates: [Option<u32>; Flood::ALL.len()],
    pub(crate) max_macs: u32,
    pub(crate) learn_rate: u32,
    pub(crate) isolated: bool,
    /// Its station belongs to another port, and is looked up there.
    pub(crate) shares: bool,
}

impl Rules {
    /// Checks `spec`.
    ///
    /// # Errors
    /// The first invalid value.
    pub(crate) fn of(spec: &PortSpec, defaults: Defaults) -> Result<Self, Problem> {
        check_key(&spec.key)?;
        check_kind(&spec.kind)?;
        if let Some(mac) = spec.mac.filter(|mac| !mac.is_unicast()) {
            return Err(invalid(
                format!("{} is the address of no station", mac.to_string().to_lowercase()),
                "give an address whose first octet is even, other than zero",
            ));
        }
        if spec.mtu < 68 {
            return Err(invalid(format!("an MTU of {} is too small", spec.mtu), "give 68 to 65535 bytes"));
        }
        if !(1..=128).contains(&spec.queues) {
            return Err(invalid(format!("a port cannot have {} queue pairs", spec.queues), "give 1 to 128"));
        }
        if spec.workers.len() > usize::from(spec.queues) {
            return Err(invalid(
                format!("{} workers cannot poll {} receive queues", spec.workers.len(), spec.queues),
                "name at most one worker for each queue, or give more 'queues'",
            ));
        }
        if spec.meta.len() > 32 || spec.meta.iter().any(|(name, value)| name.len() + value.len() > 4096) {
            return Err(invalid("'meta' is too large".into(), "give at most 32 entries of 4096 bytes"));
        }
        if let Some(share) = &spec.shares {
            crate::share::Ports::of(share)?;
            if spec.mac.is_none() || share.with == spec.key {
                return Err(invalid(
                    format!(
                        "'shares' names port '{}', whose 'mac' the port has to have",
                        share.with.escape_debug()
                    ),
                    "give it the 'mac' and 'ips' of that port",
                ));
            }
        }
        let mut rules = Self {
            mac: spec.mac.map(number),
            ipv4: Vec::new(),
            ipv6: Vec::new(),
            membership: Membership::of(spec.vlan.as_ref())?,
            longest: usize::from(spec.mtu) + BESIDE,
            policing: policing(spec)?,
            flood_rate: spec.flood_rate.unwrap_or(defaults.flood_rate),
            flood_rates: [spec.broadcast_rate, spec.multicast_rate, spec.unknown_rate],
            max_macs: spec.max_macs.unwrap_or_else(|| defaults.macs_of(&spec.kind)),
            learn_rate: spec.learn_rate.unwrap_or(defaults.learn_rate),
            isolated: spec.isolated,
            shares: spec.shares.is_some(),
        };
        for ip in &spec.ips {
            match ip {
                IpAddr::V4(ip) if !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast() => {
                    rules.ipv4.push(ip.octets());
                }
                IpAddr::V6(ip) if !ip.is_unspecified() && !ip.is_multicast() => rules.ipv6.push(ip.octets()),
                _ => {
                    return Err(invalid(
                        format!("{ip} is the address of no station"),
                        "give unicast addresses",
                    ));
                }
            }
        }
        Ok(rules)
    }

    /// Returns whether the IP source of frames is checked.
    pub(crate) fn guards_ip(&self) -> bool {
        !self.ipv4.is_empty() || !self.ipv6.is_empty()
    }

    /// Returns whether the header alone decides on a frame.
    pub(crate) fn header_decides(&self) -> bool {
        !self.guards_ip() && self.policing.is_none()
    }

    /// The VLAN of the configured address.
    pub(crate) fn home_vlan(&self) -> u16 {
        match &self.membership {
            Membership::Open => 0,
            Membership::Access(vlan) => *vlan,
            Membership::Trunk { native, .. } => native.unwrap_or(0),
        }
    }
}

/// An address as a number of 48 bits.
pub(crate) fn number(mac: MacAddr) -> u64 {
    mac.0.iter().fold(0, |number, octet| number << 8 | u64::from(*octet))
}

fn policing(spec: &PortSpec) -> Result<Option<Policing>, Problem> {
    let Some(rate) = &spec.rate else { return Ok(None) };
    if rate.bits_per_second < 8 {
        return Err(invalid(
            format!("{} bit/s let nothing pass", rate.bits_per_second),
            "give at least 8 bit/s",
        ));
    }
    let bytes_per_second = rate.bits_per_second / 8;
    let burst_bytes = rate.burst_bytes.unwrap_or_else(|| (bytes_per_second / 100).max(64 << 10));
    let longest = u64::from(spec.mtu) + BESIDE as u64;
    if burst_bytes < longest {
        return Err(invalid(
            format!("a burst of {burst_bytes} bytes lets no frame of {longest} bytes pass"),
            "give a larger 'burst_bytes', or none",
        ));
    }
    Ok(Some(Policing { bytes_per_second, burst_bytes }))
}

fn check_key(key: &str) -> Result<(), Problem> {
    let printable = key.bytes().all(|byte| byte.is_ascii_graphic());
    if printable && (1..=255).contains(&key.len()) {
        return Ok(());
    }
    let shown: String = key.chars().take(40).flat_map(char::escape_default).collect();
    let more = if key.chars().count() > 40 { "…" } else { "" };
    Err(invalid(
        format!("'{shown}{more}' cannot be a port's key"),
        "a key has 1 to 255 printable ASCII characters without spaces",
    ))
}

/// Text that goes into a device argument must not contain its separators.
fn check_kind(kind: &PortKind) -> Result<(), Problem> {
    let path = |what: &str, path: &std::path::Path| match path.to_str() {
        Some(text) if text.starts_with('/') && !text.contains([',', '\n', '\0']) => Ok(()),
        _ => Err(invalid(
            format!("'{}' is no {what} that can be used", path.display().to_string().escape_debug()),
            "give an absolute path in UTF-8 without commas",
        )),
    };
    match kind {
        PortKind::VhostUser { path: socket, client, mode, group } => {
            path("socket", socket)?;
            if *client && (mode.is_some() || group.is_some()) {
                return Err(invalid(
                    "'mode' and 'group' are of a socket that the switch makes, and with 'client' it makes none".into(),
                    "leave them out",
                ));
            }
            let plain = |text: &Option<String>| {
                text.as_deref()
                    .is_none_or(|text| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b','))
            };
            if plain(mode) && plain(group) {
                return Ok(());
            }
            Err(invalid(
                "'mode' or 'group' has characters that neither can have".into(),
                "give 0660 and a group's name",
            ))
        }
        PortKind::VhostUserFd { origin: Some(origin) } => {
            path("network namespace", &origin.netns)?;
            let len = origin.name.len();
            if (1..=107).contains(&len) && !origin.name.contains('\0') {
                return Ok(());
            }
            Err(invalid(
                format!("an abstract socket's name cannot have {len} bytes"),
                "give 1 to 107 without zeros",
            ))
        }
        PortKind::VhostUserFd { origin: None } | PortKind::Vxlan { .. } | PortKind::Vdev { .. } => Ok(()),
        PortKind::Tap { name, netns } => {
            netns.as_deref().map_or(Ok(()), |netns| path("network namespace", netns))?;
            let plain = name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b',' | b'/' | b':' | b'%'));
            if plain && (1..=15).contains(&name.len()) && name != "." && name != ".." {
                return Ok(());
            }
            Err(invalid(
                format!("'{}' cannot be the name of an interface", name.escape_debug()),
                "a name has 1 to 15 printable characters without '/', ':', '%' and ','",
            ))
        }
    }
}

fn invalid(message: String, details: &str) -> Problem {
    Problem::new(Code::InvalidParams, message, details)
}

#[cfg(test)]
mod tests;
