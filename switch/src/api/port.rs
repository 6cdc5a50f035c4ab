//! Ports as the control API describes them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use linecard_net::MacAddr;
use serde::{Deserialize, Serialize};

use super::{Code, Problem, mac};

/// A requested port: the parameters of `port.add`.
///
/// ```
/// use linecard_switch::api::{PortKind, PortSpec, Vlan};
/// let spec: PortSpec = serde_json::from_str(
///     r#"{"key":"vm1","type":"vhost-user","path":"/run/vm1.sock","mac":"02:00:00:00:00:01","vlan":{"access":10}}"#,
/// )?;
/// assert_eq!(spec.kind, PortKind::VhostUser { path: "/run/vm1.sock".into(), client: false, mode: None, group: None });
/// assert_eq!((spec.vlan, spec.mtu, spec.queues), (Some(Vlan::Access(10)), 1500, 1));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// The owner's name for the port, unique in the switch: 1 to 255 printable ASCII characters without spaces. The container plugin uses
    /// `<container-id>-<ifname>`.
    pub key: String,
    /// The kind of port; its own fields stand beside these.
    #[serde(flatten)]
    pub kind: PortKind,
    /// The MAC address of the station behind the port. If given, frames from any other address are dropped, and the switch knows the port
    /// of this address before the station sends, whatever it has learned about the address behind other ports.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "mac::optional")]
    pub mac: Option<MacAddr>,
    /// The IP addresses of that station. If given, IP packets, ARP and neighbour discovery messages with another source are dropped. Two
    /// more sources pass: the unspecified address (used before an address is configured) and the one IPv6 link-local address that every
    /// host derives from its MAC address (`fe80::` with the modified EUI-64 of RFC 4291). Any other link-local address (RFC 7217) has to be
    /// listed here. A port with `ips` belongs to a host: its router advertisements and redirects are dropped. The port of a router has no
    /// `ips`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpAddr>,
    /// The VLANs of the port. Without it, frames pass unchanged between ports without VLANs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
    /// The largest IP packet, in bytes; longer frames are dropped in both directions.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// The maximum number of queue pairs.
    #[serde(default = "one")]
    pub queues: u16,
    /// The maximum rate at which the port may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The maximum rate of broadcast, multicast and unknown unicast frames together, in frames per second; kinds with a limit of their own
    /// (below) do not count. Without it, the switch's default applies. Bursts may hold a tenth of a second's worth, and always 2048 frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flood_rate: Option<u32>,
    /// The maximum rate of broadcast frames, in frames per second. With this limit they do not count for `flood_rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast_rate: Option<u32>,
    /// The maximum rate of multicast frames, in frames per second. With this limit they do not count for `flood_rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multicast_rate: Option<u32>,
    /// The maximum rate of frames to unknown stations, in frames per second. With this limit they do not count for `flood_rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_rate: Option<u32>,
    /// The maximum number of addresses learned behind the port. Without it, the switch's default for this kind applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_macs: Option<u32>,
    /// The maximum rate of new addresses learned behind the port, per second. Without it, the switch's default applies. A frame from an
    /// address beyond the limit passes; its address is learned later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learn_rate: Option<u32>,
    /// The workers that poll the receive queues, in turn: the first polls queue 0, the next queue 1. Without it, the switch distributes the
    /// queues. A queue that was moved (`worker.move`) stays with its new worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<u16>,
    /// Exchanges frames only with ports that are not isolated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// Shares the station of another port, and receives some TCP and UDP ports of the frames sent to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Share>,
    /// Data that the owner wants to find again in `port.list`: the network's name, the container's namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
}

fn default_mtu() -> u16 {
    1500
}

fn one() -> u16 {
    1
}

impl PortSpec {
    /// A port of this kind with defaults for everything else.
    ///
    /// ```
    /// use linecard_switch::api::{PortKind, PortSpec};
    /// let spec = PortSpec::new("tap", PortKind::Tap { name: "lc0".into(), netns: None });
    /// assert_eq!(serde_json::to_string(&spec)?, r#"{"key":"tap","type":"tap","name":"lc0","mtu":1500,"queues":1}"#);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn new(key: impl Into<String>, kind: PortKind) -> Self {
        Self {
            key: key.into(),
            kind,
            mac: None,
            ips: Vec::new(),
            vlan: None,
            mtu: default_mtu(),
            queues: one(),
            rate: None,
            flood_rate: None,
            broadcast_rate: None,
            multicast_rate: None,
            unknown_rate: None,
            max_macs: None,
            learn_rate: None,
            workers: Vec::new(),
            isolated: false,
            shares: None,
            meta: BTreeMap::new(),
        }
    }

    /// Reads the parameters of `port.add` and refuses unknown fields by name.
    ///
    /// ```
    /// use linecard_switch::api::PortSpec;
    /// let line = serde_json::json!({"key": "a", "type": "tap", "name": "lc0", "colour": "red"});
    /// let problem = PortSpec::read(line).expect_err("no such field");
    /// assert_eq!(problem.message, "a tap port has no field 'colour'");
    /// ```
    ///
    /// # Errors
    /// [`Code::InvalidParams`], with the problem and the allowed values.
    pub fn read(value: serde_json::Value) -> Result<Self, Problem> {
        let invalid = |problem: String, remedy: &dyn Display| {
            Problem::new(Code::InvalidParams, problem, remedy.to_string())
        };
        let kind = value.get("type").and_then(|kind| kind.as_str()).unwrap_or_default().to_owned();
        let Some(own) = PortKind::fields(&kind) else {
            let what = if kind.is_empty() {
                "the port has no 'type'".into()
            } else {
                format!("there is no port of type '{kind}'")
            };
            return Err(invalid(what, &"it is one of vhost-user, vhost-user-fd, tap, vxlan, vdev"));
        };
        let fields = value.as_object().into_iter().flat_map(|object| object.keys());
        if let Some(unknown) =
            fields.into_iter().find(|name| !COMMON.contains(&name.as_str()) && !own.contains(&name.as_str()))
        {
            let known = [own, COMMON].concat().join(", ");
            let problem = format!("a {kind} port has no field '{unknown}'");
            return Err(invalid(problem, &format!("it has {known}")));
        }
        serde_json::from_value(value.clone()).map_err(|error| match misfit(&value) {
            Some((name, given, expected)) => invalid(format!("'{name}' cannot be {given}"), &expected),
            None => invalid(error.to_string(), &"see the documentation of `port.add`"),
        })
    }
}

/// The first common field with an invalid value, that value, and what the field takes.
fn misfit(whole: &serde_json::Value) -> Option<(&'static str, String, &'static str)> {
    let without = |name: &str| {
        let mut other = whole.clone();
        if let Some(object) = other.as_object_mut() {
            object.retain(|field, _| field == name || !COMMON.contains(&field.as_str()) || field == "type");
            if name != "key" {
                object.insert("key".into(), "any".into());
            }
        }
        serde_json::from_value::<PortSpec>(other)
    };
    // Serde's own message describes an invalid field of the kind.
    without("key").is_ok().then_some(())?;
    let wrong = EXPECTED.iter().find(|(name, _)| whole.get(name).is_some() && without(name).is_err());
    wrong.map(|(name, expected)| {
        let given = whole.get(name).map_or_else(String::new, ToString::to_string);
        let shown = match given.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", given.get(..end).unwrap_or_default()),
            None => given,
        };
        (*name, shown, *expected)
    })
}

/// The maximum number of characters of a value that a message repeats.
const SHOWN: usize = 80;

/// What the common fields take, as JSON; shown after an invalid value.
const EXPECTED: &[(&str, &str)] = &[
    ("mac", r#"give the address of a station, such as "02:00:00:00:00:01""#),
    ("ips", r#"give a list of addresses, such as ["192.0.2.1", "fd00::1"]"#),
    ("vlan", r#"give {"access": 10}, or {"trunk": {"vlans": [10, 20], "native": 1}}"#),
    ("mtu", "give a number from 68 to 65535"),
    ("queues", "give a number from 1 to 128"),
    ("rate", r#"give {"bits_per_second": 1000000000}"#),
    ("flood_rate", "give a number of frames a second"),
    ("broadcast_rate", "give a number of frames a second"),
    ("multicast_rate", "give a number of frames a second"),
    ("unknown_rate", "give a number of frames a second"),
    ("max_macs", "give a number of addresses"),
    ("learn_rate", "give a number of addresses a second"),
    ("workers", "give a list of numbers, such as [0, 1]"),
    ("isolated", "give true or false"),
    ("shares", r#"give {"with": "pod-tap", "ports": "tcp:4444-20000,udp:53"}"#),
    ("meta", r#"give texts by name, such as {"network": "blue"}"#),
];

/// The fields that every port has.
const COMMON: &[&str] = &[
    "key",
    "type",
    "mac",
    "ips",
    "vlan",
    "mtu",
    "queues",
    "rate",
    "flood_rate",
    "broadcast_rate",
    "multicast_rate",
    "unknown_rate",
    "max_macs",
    "learn_rate",
    "workers",
    "isolated",
    "shares",
    "meta",
];

/// The kind of a port; the field `type` selects it.
///
/// ```
/// use linecard_switch::api::PortKind;
/// let kind: PortKind = serde_json::from_str(r#"{"type":"vdev","device":"net_af_packet0,iface=eth0"}"#)?;
/// assert_eq!(kind, PortKind::Vdev { device: "net_af_packet0,iface=eth0".into() });
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum PortKind {
    /// A vhost-user backend on a socket with a path.
    VhostUser {
        /// The path of the socket.
        path: PathBuf,
        /// The frontend listens and the switch connects; otherwise the switch listens.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        client: bool,
        /// Access mode of a socket that the switch creates, in octal (`0660`); 0600 by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<String>,
        /// Group of a socket that the switch creates.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    /// A vhost-user backend on a listening socket that comes with the request (`SCM_RIGHTS`, one descriptor).
    VhostUserFd {
        /// How a restarted switch creates the socket again. Without it, the port waits for a `port.add` with the same parameters and a new
        /// descriptor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<SocketOrigin>,
    },
    /// A kernel interface that the switch creates; or a queue of an interface that comes with the request (`SCM_RIGHTS`, one descriptor of
    /// `/dev/net/tun` attached to the interface, with `IFF_VNET_HDR`). In the second case the switch needs no right to create interfaces. A
    /// switch that was restarted, or that takes over, opens the interface by its name. If it may not, the port waits for a `port.add` with
    /// a new descriptor.
    Tap {
        /// The name of the interface.
        name: String,
        /// The network namespace of the interface; the switch's by default. An interface in another namespace is opened by its name only if
        /// its address is the port's `mac`: a path such as `/proc/PID/ns/net` may have come to lead to another namespace.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netns: Option<PathBuf>,
    },
    /// A network with other hosts, carried in UDP (VXLAN, RFC 7348). A `vlan` of this port is usually `access`, so that each VLAN has its
    /// own network identifier.
    Vxlan {
        /// The VXLAN network identifier (VNI), 1 to 16777215.
        vni: u32,
        /// The other hosts. Frames to all stations, or to an unknown one, go to each of them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        remotes: Vec<IpAddr>,
        /// The address of this host; any by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        local: Option<IpAddr>,
        /// The UDP port, local and remote; 4789 by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        udp_port: Option<u16>,
        /// The time to live of the packets; 64 by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl: Option<u8>,
        /// Accepts frames also from hosts that are not among `remotes`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        any_peer: bool,
    },
    /// Any device, described as for `--vdev`.
    Vdev {
        /// The device and its arguments, such as `net_af_packet0,iface=eth0`.
        device: String,
    },
}

impl PortKind {
    /// The fields that only this kind has.
    fn fields(kind: &str) -> Option<&'static [&'static str]> {
        match kind {
            "vhost-user" => Some(&["path", "client", "mode", "group"]),
            "vhost-user-fd" => Some(&["origin"]),
            "tap" => Some(&["name", "netns"]),
            "vxlan" => Some(&["vni", "remotes", "local", "udp_port", "ttl", "any_peer"]),
            "vdev" => Some(&["device"]),
            _ => None,
        }
    }
}

/// The place where a passed-in socket was created.
///
/// ```
/// use linecard_switch::api::SocketOrigin;
/// let origin: SocketOrigin = serde_json::from_str(r#"{"netns":"/run/netns/c1","abstract":"vport/net1"}"#)?;
/// assert_eq!(origin.name, "vport/net1");
/// let own = SocketOrigin::new("/proc/self/ns/net", "vport/net1");
/// assert!(own.namespace.is_some());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketOrigin {
    /// The path of the network namespace.
    pub netns: PathBuf,
    /// The name of the abstract socket, without the leading zero byte.
    #[serde(rename = "abstract")]
    pub name: String,
    /// The identity of that namespace: the boot, the file system and the inode of its file. After a restart of the switch the path may lead
    /// to another namespace; the socket is not created there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl SocketOrigin {
    /// A socket of that name in the namespace to which `netns` leads now.
    #[must_use]
    pub fn new(netns: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        let netns = netns.into();
        let namespace = File::open(&netns).and_then(|file| crate::origin::identity(&file)).ok();
        Self { netns, name: name.into(), namespace }
    }

    /// Listens at that name in the namespace, provided that it is the namespace in which the socket was created.
    ///
    /// ```
    /// use linecard_switch::api::SocketOrigin;
    /// let elsewhere = SocketOrigin::new("/nowhere", "vport/net1");
    /// assert!(elsewhere.listen().is_err());
    /// ```
    ///
    /// # Errors
    /// The namespace no longer exists or is another one, this process may not enter it, or another socket listens at that name.
    pub fn listen(&self) -> io::Result<OwnedFd> {
        crate::origin::listen(self)
    }
}

/// The VLANs of a port (IEEE 802.1Q), 1 to 4094.
///
/// ```
/// use linecard_switch::api::{Trunk, Vlan};
/// assert_eq!(serde_json::to_string(&Vlan::Access(10))?, r#"{"access":10}"#);
/// let trunk: Vlan = serde_json::from_str(r#"{"trunk":{"vlans":[10,20],"native":1}}"#)?;
/// assert_eq!(trunk, Vlan::Trunk(Trunk { vlans: vec![10, 20], native: Some(1) }));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vlan {
    /// Frames are untagged outside the switch and belong to this VLAN inside; tagged frames are dropped.
    Access(u16),
    /// Frames are tagged.
    Trunk(Trunk),
}

/// The VLANs of a port whose frames are tagged.
///
/// ```
/// let trunk: linecard_switch::api::Trunk = serde_json::from_str(r#"{"vlans":[10]}"#)?;
/// assert_eq!(trunk.native, None);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trunk {
    /// The VLANs whose frames may pass.
    pub vlans: Vec<u16>,
    /// The VLAN of untagged frames; without it they are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<u16>,
}

/// The maximum rate at which a port may send, over all its queues and whichever workers poll them. Frames above it are dropped.
///
/// ```
/// use linecard_switch::api::Rate;
/// let rate: Rate = serde_json::from_str(r#"{"bits_per_second":1000000000,"burst_bytes":65536}"#)?;
/// assert_eq!((rate.bits_per_second, rate.burst_bytes), (1_000_000_000, Some(65_536)));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// The average rate, in bits per second.
    pub bits_per_second: u64,
    /// The largest burst, in bytes; by default 10 ms at the rate, and no less than 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_bytes: Option<u64>,
}

/// An address that a fast port shares with a kernel port (a tap). Frames to this address whose TCP or UDP destination port is in a range go
/// to the fast port; all others (ARP, neighbour discovery, ICMP, other ports) go to the kernel port. So do fragments, packets with IPv6
/// extension headers, and frames without a whole TCP or UDP header. Both ports have the same `mac` and `vlan`. The kernel port may be added
/// later: without it nothing passes the fast port.
///
/// ```
/// let share: linecard_switch::api::Share = serde_json::from_str(r#"{"with":"pod-tap","ports":"tcp:4444-20000,udp:53"}"#)?;
/// assert_eq!(share.with, "pod-tap");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The key of the other port.
    pub with: String,
    /// Destination ports: `tcp:LOW-HIGH` and `udp:LOW-HIGH`, or one port each, separated by commas.
    pub ports: String,
}

/// A port of the switch.
///
/// ```
/// fn is_served(port: &linecard_switch::api::PortInfo) -> bool {
///     port.state == linecard_switch::api::PortState::Up
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortInfo {
    /// The number of the port while this switch runs.
    pub id: u16,
    /// Whether frames can pass.
    pub state: PortState,
    /// The device that was opened, as `--vdev` would name it; empty while the port waits.
    #[serde(rename = "vdev")]
    pub device: String,
    /// The number of addresses known behind the port.
    pub addresses: u64,
    /// The frames that passed and those that were dropped.
    pub counters: PortCounters,
    /// The parameters of the request.
    #[serde(flatten)]
    pub spec: PortSpec,
}

/// Whether frames can pass.
///
/// ```
/// use linecard_switch::api::PortState;
/// assert_eq!(serde_json::to_string(&PortState::Waiting)?, r#""waiting""#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortState {
    /// The peer is connected.
    Up,
    /// The peer is not connected.
    Down,
    /// The switch was restarted and lacks what it needs to open the port: a new descriptor, or a device that does not exist now.
    Waiting,
}

/// Counters of a port, from the switch's point of view.
///
/// ```
/// let counters = linecard_switch::api::PortCounters::default();
/// assert_eq!((counters.rx_packets, counters.drops.total()), (0, 0));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortCounters {
    /// Frames received from the peer.
    pub rx_packets: u64,
    /// Bytes of these frames.
    pub rx_bytes: u64,
    /// Frames sent to the peer.
    pub tx_packets: u64,
    /// Bytes of these frames.
    pub tx_bytes: u64,
    /// Those of `tx_packets` that were copied once, directly from the sender's memory.
    #[serde(rename = "tx_direct_packets")]
    pub tx_direct: u64,
    /// Dropped frames, by cause.
    pub drops: DropCounters,
}

macro_rules! drops {
    ($($(#[$doc:meta])* $variant:ident $name:ident: $text:literal,)*) => {
        /// Dropped frames, by cause. Receive causes are counted at the port from which the frame came, transmit causes at the port to which
        /// it was to go.
        ///
        /// ```
        /// let drops = linecard_switch::api::DropCounters { source_mac: 2, tx_full: 1, ..Default::default() };
        /// assert_eq!(drops.total(), 3);
        /// assert!(drops.causes().any(|(name, count)| name == "source_mac" && count == 2));
        /// ```
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct DropCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// Why a frame was dropped. Each cause is a field of [`DropCounters`].
        ///
        /// ```
        /// use linecard_switch::api::Cause;
        /// assert_eq!(Cause::SourceMac.name(), "source_mac");
        /// assert!(Cause::ALL.iter().all(|cause| !cause.meaning().is_empty()));
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Cause {
            $($(#[$doc])* $variant,)*
        }

        impl Cause {
            /// Every cause, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Returns the name of its counter.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($name),)*
                }
            }

            /// Returns what the cause means, for people.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl DropCounters {
            /// Counts `packets` dropped for `cause`.
            pub fn add(&mut self, cause: Cause, packets: u64) {
                let counter = match cause {
                    $(Cause::$variant => &mut self.$name,)*
                };
                *counter = counter.saturating_add(packets);
            }

            /// Returns the sum of all counters.
            #[must_use]
            pub fn total(&self) -> u64 {
                [$(self.$name),*].into_iter().fold(0, u64::saturating_add)
            }

            /// Returns every cause with its name and count.
            pub fn causes(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

drops! {
    /// Shorter than an Ethernet header, or from a group address.
    Malformed malformed: "no whole Ethernet header, or a group address as its source",
    /// Longer than the port's MTU, on the way in.
    RxOversize rx_oversize: "longer than the MTU of the port it came from",
    /// From an address other than the port's own.
    SourceMac source_mac: "its source is not the address of the port",
    /// From an address that belongs to another port.
    SourceTaken source_taken: "its source belongs to another port",
    /// To all ports, from an address that moved between ports too often and is therefore held at another port for a while.
    SourceMoves source_moves: "its source moves between ports too often: they form a loop, or two stations have one address",
    /// From more addresses than the port may have.
    AddressLimit address_limit: "the port has as many addresses as it may",
    /// From an IP address other than the port's own.
    SourceIp source_ip: "its IP source is not an address of the port",
    /// In a VLAN that the port is not in, or tagged where tags are not allowed.
    Vlan vlan: "its VLAN is not one of the port's",
    /// Above the port's rate.
    Rate rate: "above the rate of the port",
    /// Broadcast, multicast or unknown unicast above the port's flood rate.
    FloodRate flood_rate: "above the flood rate of the port",
    /// Broadcast above the port's own limit for it.
    BroadcastRate broadcast_rate: "above the broadcast rate of the port",
    /// Multicast above the port's own limit for it.
    MulticastRate multicast_rate: "above the multicast rate of the port",
    /// To an unknown station, above the port's own limit for these.
    UnknownRate unknown_rate: "to an unknown station, above the port's rate for that",
    /// To a port that the sender may not reach, or back to the port from which it came.
    Filtered filtered: "to the port it came from, or between isolated ports",
    /// From a port that only receives copies (mirroring, SPAN).
    SpanOutput span_output: "from a port that gets copies only",
    /// To a group that is local to the link (01:80:c2:00:00:0x).
    Reserved reserved: "to an address that bridges do not forward",
    /// No packet to copy the frame into: for a frame to several ports, or to a port whose peer keeps the packets it is given.
    NoPacket no_packet: "no packet to copy it into, as the port's peer keeps them or memory is short",
    /// Longer than the port's MTU, on the way out.
    TxOversize tx_oversize: "longer than the MTU of the port it was to go to",
    /// Dropped by the device while receiving; `show` of the device says why.
    RxDevice rx_device: "lost by the device on the way in",
    /// Dropped by the device while sending.
    TxDevice tx_device: "lost by the device on the way out",
    /// The port has no peer, or its interface is down.
    PortDown port_down: "the port it was to go to is down",
    /// The transmit queue was full.
    TxFull tx_full: "the transmit queue was full",
}
