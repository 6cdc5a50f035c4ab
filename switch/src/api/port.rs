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

/// A port that is asked for: `port.add`.
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
    /// Its owner's name for it, unique in the switch: 1 to 255 printable ASCII characters without spaces. The container
    /// plugin's are `<container-id>-<ifname>`.
    pub key: String,
    /// What it is, with the fields of that kind beside this one's.
    #[serde(flatten)]
    pub kind: PortKind,
    /// The station behind it. When given, frames from another address are dropped, and the switch knows the way to this one
    /// before it speaks, whatever it has learned of the address behind other ports.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "mac::optional")]
    pub mac: Option<MacAddr>,
    /// Addresses of that station. When given, IP packets and ARP and neighbour discovery messages that name another source
    /// are dropped. The unspecified source passes (before an address is configured), and so does one IPv6 link-local address, which
    /// every host makes of its own: that of the MAC address (`fe80::` with the modified EUI-64 of RFC 4291). A station that has
    /// another one (RFC 7217) has to have it listed here. Such a port is of a host: its router advertisements and redirects are
    /// dropped, and a router's port has no `ips`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpAddr>,
    /// The VLANs it is in; without, frames pass as they are among ports without VLANs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
    /// Largest IP packet, in bytes; longer frames from it are dropped, ones to it are too.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// Most queue pairs.
    #[serde(default = "one")]
    pub queues: u16,
    /// Most that it may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Most broadcast, multicast and unknown unicast frames it may send, a second, together, but for those that have a limit of their
    /// own below; the switch's default without. A tenth of a second's worth may come at once, and 2048 in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flood_rate: Option<u32>,
    /// Most broadcast frames it may send, a second, which do not count for `flood_rate` then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast_rate: Option<u32>,
    /// Most multicast frames it may send, a second, which do not count for `flood_rate` then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multicast_rate: Option<u32>,
    /// Most frames to stations that nobody knows it may send, a second, which do not count for `flood_rate` then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_rate: Option<u32>,
    /// Most addresses that are learned behind it; the switch's default for its kind without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_macs: Option<u32>,
    /// Most new addresses that are learned behind it, a second; the switch's default without. A frame from one more passes, and is learned
    /// from later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learn_rate: Option<u32>,
    /// The workers that poll its receive queues, in turn: queue 0 the first of them, queue 1 the next. Without, the switch deals queues
    /// out. A queue that was moved (`worker.move`) stays where it was moved to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<u16>,
    /// Exchanges frames with ports that are not isolated only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// It has the station of another port, and of what is sent to that one it gets some TCP and UDP ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Share>,
    /// What its owner wants to find again in `port.list`: the network's name, the container's namespace.
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
    /// A port of this kind with nothing else asked.
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

    /// Reads the parameters of `port.add`, whose unknown fields are refused by name.
    ///
    /// ```
    /// use linecard_switch::api::PortSpec;
    /// let line = serde_json::json!({"key": "a", "type": "tap", "name": "lc0", "colour": "red"});
    /// let problem = PortSpec::read(line).expect_err("no such field");
    /// assert_eq!(problem.message, "a tap port has no field 'colour'");
    /// ```
    ///
    /// # Errors
    /// [`Code::InvalidParams`]: what is wrong, and what is possible.
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

/// The first of the common fields that has a value which it cannot have, that value, and what it takes.
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
    // Fields of its kind are told apart by the reader.
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

/// Most characters of a value that a message repeats.
const SHOWN: usize = 80;

/// What common fields take, as JSON, for whoever gave them something else.
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

/// The fields of every port.
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

/// What a port is made of; the field `type` says which.
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
        /// Of the socket.
        path: PathBuf,
        /// The frontend listens and the switch connects; otherwise the switch listens.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        client: bool,
        /// Access rights of a socket that the switch makes, in octal (`0660`); 0600 without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<String>,
        /// Group of a socket that the switch makes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    /// A vhost-user backend on a listening socket that comes with the request (`SCM_RIGHTS`, one descriptor).
    VhostUserFd {
        /// How a switch that was restarted makes the socket anew; without, the port waits for a `port.add` of the same
        /// parameters with a new descriptor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<SocketOrigin>,
    },
    /// A kernel interface that the switch makes. Or a queue of one that comes with the request (`SCM_RIGHTS`, one descriptor of
    /// `/dev/net/tun` that is attached to it, with `IFF_VNET_HDR`): the switch needs no right to make interfaces then. A restarted
    /// switch, and one that takes over, opens the interface by its name, and if it may not, the port waits for a `port.add`
    /// with a new descriptor.
    Tap {
        /// Of the interface.
        name: String,
        /// The network namespace that it is in; the switch's without. An interface in another one is opened by its name only if its
        /// address is the port's `mac`: a path such as `/proc/PID/ns/net` may lead to another namespace by then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netns: Option<PathBuf>,
    },
    /// A network with other hosts, in UDP (VXLAN, RFC 7348). Of a `vlan` that the port has, `access` is usual: so each VLAN
    /// has a network number.
    Vxlan {
        /// The network's number, 1 to 16777215.
        vni: u32,
        /// The other hosts; what is for all stations, and for ones that are not known, goes to each of them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        remotes: Vec<IpAddr>,
        /// This host's address; any without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        local: Option<IpAddr>,
        /// UDP port, here and there; 4789 without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        udp_port: Option<u16>,
        /// Time to live of the packets; 64 without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl: Option<u8>,
        /// Frames of hosts that are not among `remotes` are taken, too.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        any_peer: bool,
    },
    /// Any device, as `--vdev` takes it.
    Vdev {
        /// `net_af_packet0,iface=eth0`.
        device: String,
    },
}

impl PortKind {
    /// The fields that a kind has of its own.
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

/// Where a socket that was passed in was made.
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
    /// A network namespace.
    pub netns: PathBuf,
    /// An abstract socket's name, without the leading zero.
    #[serde(rename = "abstract")]
    pub name: String,
    /// Which namespace that is: the boot, the file system and the inode of its file. A path may lead to another one when the switch
    /// is restarted, in which the socket is not made then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl SocketOrigin {
    /// A socket of that name in the namespace that `netns` leads to now.
    #[must_use]
    pub fn new(netns: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        let netns = netns.into();
        let namespace = File::open(&netns).and_then(|file| crate::origin::identity(&file)).ok();
        Self { netns, name: name.into(), namespace }
    }

    /// Listens at that name in the namespace, if it is the one where the socket was made.
    ///
    /// ```
    /// use linecard_switch::api::SocketOrigin;
    /// let elsewhere = SocketOrigin::new("/nowhere", "vport/net1");
    /// assert!(elsewhere.listen().is_err());
    /// ```
    ///
    /// # Errors
    /// The namespace is gone, or is another; this process may not enter it; somebody listens there.
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
    /// Frames are untagged outside and in this VLAN inside; tagged ones are dropped.
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
    /// These may pass.
    pub vlans: Vec<u16>,
    /// Where untagged frames belong; they are dropped without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<u16>,
}

/// Most that a port may send, by all its queues together, whichever workers poll them; frames beyond are dropped.
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
    /// In the long run.
    pub bits_per_second: u64,
    /// At once; ten milliseconds' worth, and no less than 64 KiB, without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_bytes: Option<u64>,
}

/// An address that a fast port has together with a port of the kernel (a tap): frames to the address whose TCP or UDP
/// destination port is in a range go to the fast port, all others (ARP, neighbour discovery, ICMP, other ports) to the kernel's. So do
/// fragments, packets with IPv6 extension headers, and what has no whole TCP or UDP header. Both ports have the same `mac`
/// and `vlan`, which the other one has to have already, or gets later: nothing passes the fast port without it.
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

/// A port that is there.
///
/// ```
/// fn is_served(port: &linecard_switch::api::PortInfo) -> bool {
///     port.state == linecard_switch::api::PortState::Up
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortInfo {
    /// Its number while this switch runs.
    pub id: u16,
    /// Whether frames can pass.
    pub state: PortState,
    /// The device it became, as `--vdev` would name it; empty while it waits.
    #[serde(rename = "vdev")]
    pub device: String,
    /// Addresses known behind it.
    pub addresses: u64,
    /// What passed and what did not.
    pub counters: PortCounters,
    /// What was asked.
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
    /// The other end is there.
    Up,
    /// The other end is not there.
    Down,
    /// The switch was restarted and needs something to open the port with: a new descriptor, or a device that is not there.
    Waiting,
}

/// What passed a port, seen from the switch.
///
/// ```
/// let counters = linecard_switch::api::PortCounters::default();
/// assert_eq!((counters.rx_packets, counters.drops.total()), (0, 0));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortCounters {
    /// Frames that came from the other end.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames that went to the other end.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Those of `tx_packets` that were copied once, straight from their sender's memory.
    #[serde(rename = "tx_direct_packets")]
    pub tx_direct: u64,
    /// Frames lost, by cause.
    pub drops: DropCounters,
}

macro_rules! drops {
    ($($(#[$doc:meta])* $variant:ident $name:ident: $text:literal,)*) => {
        /// Frames that were lost, by cause. Causes of receiving are counted where the frame came from, those of sending
        /// where it was to go.
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

        /// Why a frame was lost; each is a field of [`DropCounters`].
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

            /// The name of its counter.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($name),)*
                }
            }

            /// What it means, for people.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl DropCounters {
            /// Counts `packets` lost for `cause`.
            pub fn add(&mut self, cause: Cause, packets: u64) {
                let counter = match cause {
                    $(Cause::$variant => &mut self.$name,)*
                };
                *counter = counter.saturating_add(packets);
            }

            /// All of them.
            #[must_use]
            pub fn total(&self) -> u64 {
                [$(self.$name),*].into_iter().fold(0, u64::saturating_add)
            }

            /// Every cause with its name and count.
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
    /// To all ports, from an address that moved between ports too often and stays behind another one for a while.
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
    /// To a station that nobody knows, above the port's own limit for that.
    UnknownRate unknown_rate: "to an unknown station, above the port's rate for that",
    /// To a port that this one may not reach, or back where it came from.
    Filtered filtered: "to the port it came from, or between isolated ports",
    /// From a port that gets copies only (mirroring, SPAN).
    SpanOutput span_output: "from a port that gets copies only",
    /// Sent to a group that is for the link only (01:80:c2:00:00:0x).
    Reserved reserved: "to an address that bridges do not forward",
    /// No packet to copy it into: for a frame to several ports, or to a port whose peer keeps the packets it was given.
    NoPacket no_packet: "no packet to copy it into, as the port's peer keeps them or memory is short",
    /// Longer than the port's MTU, on the way out.
    TxOversize tx_oversize: "longer than the MTU of the port it was to go to",
    /// Lost by the device on the way in; `show` of the device says why.
    RxDevice rx_device: "lost by the device on the way in",
    /// Lost by the device on the way out.
    TxDevice tx_device: "lost by the device on the way out",
    /// The port has no peer, or its interface is down.
    PortDown port_down: "the port it was to go to is down",
    /// The transmit queue was full.
    TxFull tx_full: "the transmit queue was full",
}
