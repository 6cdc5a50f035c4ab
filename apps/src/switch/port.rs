//! Ports on the command line: a path, name or number, followed by options.

use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use linecard::netdev::{Interface, Namespace, tap, tun::Queues};
use linecard_switch::api::{PortKind, PortSpec, Rate, Trunk, Vlan};

use crate::error::Error;

/// The options of ports of every kind, for messages.
const OPTIONS: &str = "key=NAME, mac=ADDRESS, ip=ADDRESS, vlan=N, trunk=N:N, native=N, mtu=BYTES, queues=N, rate=BITS, \
                       flood-rate=FRAMES, broadcast-rate=FRAMES, multicast-rate=FRAMES, unknown-rate=FRAMES, max-macs=N, \
                       learn-rate=N, workers=N:N and isolated";

/// The options of ports of this kind only.
const fn own_options(kind: &PortKind) -> &'static str {
    match kind {
        PortKind::VhostUser { .. } => "client, mode=0660, group=NAME, ",
        PortKind::Vxlan { .. } => "remote=ADDRESS, local=ADDRESS, port=N, ttl=N, any-peer, ",
        _ => "",
    }
}

/// The options that may be given several times.
const SEVERAL: [&str; 2] = ["ip", "remote"];

/// A vhost-user socket with options.
///
/// # Errors
/// One sentence about the problem.
pub(crate) fn vhost(text: &str, key: &str) -> Result<PortSpec, String> {
    let (path, options) = text.split_once(',').unwrap_or((text, ""));
    // An absolute path stays valid in messages of the switch, whatever its folder is.
    let path = std::path::absolute(path)
        .map_err(|error| format!("'{path}' is no path of a socket: {error}; name one"))?;
    let kind = PortKind::VhostUser { path, client: false, mode: None, group: None };
    read(PortSpec::new(key, kind), options, text)
}

/// A kernel interface with options; its key is its name.
///
/// # Errors
/// As [`vhost`].
pub(crate) fn tap(text: &str, key: Option<&str>) -> Result<PortSpec, String> {
    let (name, options) = text.split_once(',').unwrap_or((text, ""));
    read(PortSpec::new(key.unwrap_or(name), PortKind::Tap { name: name.into(), netns: None }), options, text)
}

/// A VXLAN network, with options.
///
/// # Errors
/// As [`vhost`].
pub(crate) fn vxlan(text: &str, key: Option<&str>) -> Result<PortSpec, String> {
    let (number, options) = text.split_once(',').unwrap_or((text, ""));
    let vni = number
        .parse()
        .map_err(|_| format!("'{number}' is no number of a network; write --vxlan 100,remote=192.0.2.2"))?;
    let kind =
        PortKind::Vxlan { vni, remotes: Vec::new(), local: None, udp_port: None, ttl: None, any_peer: false };
    let key = key.map_or_else(|| format!("vxlan{vni}"), Into::into);
    // Fits into 1500 bytes with the headers of VXLAN, which have 50 bytes over IPv4 and 70 over IPv6.
    let mtu = if is_over_ipv6(options) { 1430 } else { 1450 };
    read(PortSpec { mtu, ..PortSpec::new(key, kind) }, options, text)
}

/// Whether options of a VXLAN network name an end with an IPv6 address.
fn is_over_ipv6(options: &str) -> bool {
    let ends = options.split(',').filter_map(|option| option.split_once('='));
    ends.filter(|(name, _)| matches!(*name, "remote" | "local"))
        .any(|(_, end)| end.parse::<Ipv6Addr>().is_ok())
}

/// Creates the interface of a tap port, sets it up with its MTU, and returns one queue of it to pass to a
/// switch.
///
/// # Errors
/// The port is not a tap, or the kernel refuses.
pub(crate) fn make_tap(spec: &PortSpec) -> Result<OwnedFd, Error> {
    let PortKind::Tap { name, .. } = &spec.kind else {
        return Err(Error::Usage("only a tap is made here; leave out --pass".into()));
    };
    let namespace = Namespace::default();
    let queue = tap::descriptor(name, &namespace)?;
    tap::attach(name, &queue, name, Queues::One)?;
    let interface = Interface::find(name, &namespace, name)?;
    interface.set_mtu(spec.mtu.into())?;
    interface.set_up(true)?;
    Ok(queue)
}

fn read(mut spec: PortSpec, options: &str, whole: &str) -> Result<PortSpec, String> {
    let (mut native, mut given) = (None, Vec::new());
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (name, value) =
            option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        // A port has one VLAN or a trunk of several.
        let setting = if name == "trunk" { "vlan" } else { name };
        match given.iter().find(|(known, _)| *known == setting) {
            Some((_, before)) if !SEVERAL.contains(&name) => {
                return Err(format!(
                    "'{before}' and '{option}' of port '{whole}' say the same thing twice; leave one of them out"
                ));
            }
            _ => given.push((setting, option)),
        }
        if name == "native" {
            native = Some(number(option, name, value)?);
        } else {
            apply(&mut spec, name, value).map_err(|problem| match problem {
                Problem::Unknown => {
                    let own = own_options(&spec.kind);
                    format!("'{option}' is no option of port '{whole}'; there are {own}{OPTIONS}")
                }
                Problem::Value(expected) => {
                    format!("'{option}' of port '{whole}' cannot be used; {name} takes {expected}")
                }
            })?;
        }
    }
    match (&mut spec.vlan, native) {
        (_, None) => Ok(spec),
        (Some(Vlan::Trunk(trunk)), Some(vlan)) => {
            trunk.native = Some(vlan);
            Ok(spec)
        }
        _ => Err(format!(
            "'native' of port '{whole}' is of no use without a trunk; add trunk=N:N, or say vlan=N"
        )),
    }
}

fn number(option: &str, name: &str, value: Option<&str>) -> Result<u16, String> {
    let read = value.and_then(|value| value.parse().ok());
    read.ok_or_else(|| format!("'{option}' cannot be used; {name} takes a number from 1 to 4094"))
}

enum Problem {
    Unknown,
    Value(&'static str),
}

fn parsed<T: FromStr>(value: Option<&str>, expected: &'static str) -> Result<T, Problem> {
    value.and_then(|value| value.parse().ok()).ok_or(Problem::Value(expected))
}

fn bare(value: Option<&str>) -> Result<bool, Problem> {
    match value {
        None | Some("1") => Ok(true),
        Some("0") => Ok(false),
        Some(_) => Err(Problem::Value("no value")),
    }
}

fn apply(spec: &mut PortSpec, name: &str, value: Option<&str>) -> Result<(), Problem> {
    match name {
        "key" => spec.key = parsed(value, "a name")?,
        "mac" => spec.mac = Some(parsed(value, "an address such as 02:00:00:00:00:01")?),
        "ip" => spec.ips.push(parsed(value, "an IPv4 or IPv6 address")?),
        "vlan" => spec.vlan = Some(Vlan::Access(parsed(value, "a number from 1 to 4094")?)),
        "trunk" => {
            let numbers =
                value.unwrap_or_default().split(':').map(|vlan| parsed(Some(vlan), "VLANs such as 10:20"));
            spec.vlan = Some(Vlan::Trunk(Trunk { vlans: numbers.collect::<Result<_, _>>()?, native: None }));
        }
        "mtu" => spec.mtu = parsed(value, "68 to 65535 bytes")?,
        "queues" => spec.queues = parsed(value, "1 to 128")?,
        "rate" => {
            let bits_per_second = parsed(value, "bits a second")?;
            spec.rate = Some(Rate { bits_per_second, burst_bytes: None });
        }
        "flood-rate" => spec.flood_rate = Some(parsed(value, "frames a second")?),
        "broadcast-rate" => spec.broadcast_rate = Some(parsed(value, "frames a second")?),
        "multicast-rate" => spec.multicast_rate = Some(parsed(value, "frames a second")?),
        "unknown-rate" => spec.unknown_rate = Some(parsed(value, "frames a second")?),
        "learn-rate" => spec.learn_rate = Some(parsed(value, "addresses a second")?),
        "workers" => {
            let numbers = value.unwrap_or_default().split(':');
            let numbers = numbers.map(|worker| parsed(Some(worker), "numbers of workers such as 0:1"));
            spec.workers = numbers.collect::<Result<_, _>>()?;
        }
        "max-macs" => spec.max_macs = Some(parsed(value, "a number of addresses")?),
        "isolated" => spec.isolated = bare(value)?,
        _ => return apply_kind(&mut spec.kind, name, value),
    }
    Ok(())
}

/// Applies options of ports of one kind.
fn apply_kind(kind: &mut PortKind, name: &str, value: Option<&str>) -> Result<(), Problem> {
    match (kind, name) {
        (PortKind::VhostUser { client, .. }, "client") => *client = bare(value)?,
        (PortKind::VhostUser { mode, .. }, "mode") => {
            *mode = Some(parsed(value, "access rights such as 0660")?)
        }
        (PortKind::VhostUser { group, .. }, "group") => *group = Some(parsed(value, "the name of a group")?),
        (PortKind::Vxlan { remotes, .. }, "remote") => {
            remotes.push(parsed(value, "an IPv4 or IPv6 address")?)
        }
        (PortKind::Vxlan { local, .. }, "local") => *local = Some(parsed(value, "an IPv4 or IPv6 address")?),
        (PortKind::Vxlan { udp_port, .. }, "port") => *udp_port = Some(parsed(value, "a UDP port")?),
        (PortKind::Vxlan { ttl, .. }, "ttl") => *ttl = Some(parsed(value, "a number from 1 to 255")?),
        (PortKind::Vxlan { any_peer, .. }, "any-peer") => *any_peer = bare(value)?,
        _ => return Err(Problem::Unknown),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let spec = vhost("/a.sock,client,key=vm,mac=02:00:00:00:00:01,ip=10.0.0.1,ip=fd00::1,trunk=10:20,native=1,mtu=9000,\
                          queues=2,rate=1000000,isolated,workers=0:1,broadcast-rate=5,learn-rate=7", "port1")
            .expect("it makes sense");
        assert_eq!(
            spec.kind,
            PortKind::VhostUser { path: "/a.sock".into(), client: true, mode: None, group: None }
        );
        assert_eq!(
            (spec.key.as_str(), spec.ips.len(), spec.mtu, spec.queues, spec.isolated),
            ("vm", 2, 9000, 2, true)
        );
        assert_eq!(spec.vlan, Some(Vlan::Trunk(Trunk { vlans: vec![10, 20], native: Some(1) })));
        assert_eq!((&*spec.workers, spec.broadcast_rate, spec.learn_rate), (&[0, 1][..], Some(5), Some(7)));
    }

    #[test]
    fn a_network_with_other_hosts_is_read() {
        let spec = vxlan("100,remote=192.0.2.2,remote=192.0.2.3,vlan=10,any-peer,ttl=3", None)
            .expect("it makes sense");
        let PortKind::Vxlan { vni, remotes, ttl, any_peer, .. } = spec.kind else { panic!("{spec:?}") };
        assert_eq!((vni, remotes.len(), ttl, any_peer), (100, 2, Some(3), true));
        assert_eq!((spec.key.as_str(), spec.mtu, spec.vlan), ("vxlan100", 1450, Some(Vlan::Access(10))));
        for (options, mtu) in [
            ("local=192.0.2.1", 1450),
            ("remote=fd00::2", 1430),
            ("local=fd00::1,vlan=10", 1430),
            ("remote=fd00::2,mtu=8930", 8930),
        ] {
            assert_eq!(vxlan(&format!("100,{options}"), None).expect("it makes sense").mtu, mtu, "{options}");
        }
        for (text, want) in [
            ("x", "'x' is no number of a network"),
            ("1,remote=x", "remote takes an IPv4 or IPv6 address"),
            ("1,client", "'client' is no option of port '1,client'; there are remote=ADDRESS, local=ADDRESS"),
        ] {
            let problem = vxlan(text, None).expect_err(text);
            assert!(problem.contains(want), "{problem}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_told_with_what_can() {
        for (text, want) in [
            ("/a,colour=red", "'colour=red' is no option of port '/a,colour=red'; there are client, "),
            ("/a,vlan=5,vlan=6", "'vlan=5' and 'vlan=6' of port '/a,vlan=5,vlan=6' say the same thing twice"),
            ("/a,trunk=6:7,vlan=5", "'trunk=6:7' and 'vlan=5' of port"),
            ("/a,isolated,isolated", "'isolated' and 'isolated' of port"),
            (
                "/a,ttl=5",
                "'ttl=5' is no option of port '/a,ttl=5'; there are client, mode=0660, group=NAME, key=NAME",
            ),
            ("/a,mac=02", "'mac=02' of port '/a,mac=02' cannot be used; mac takes an address such as "),
            ("/a,vlan=ten", "'vlan=ten' of port '/a,vlan=ten' cannot be used; vlan takes a number"),
            (
                "/a,workers=",
                "'workers=' of port '/a,workers=' cannot be used; workers takes numbers of workers",
            ),
            ("/a,trunk=", "'trunk=' of port '/a,trunk=' cannot be used; trunk takes VLANs"),
            ("/a,native=1", "'native' of port '/a,native=1' is of no use without a trunk"),
            (
                "/a,client=maybe",
                "'client=maybe' of port '/a,client=maybe' cannot be used; client takes no value",
            ),
        ] {
            let problem = vhost(text, "port1").expect_err(text);
            assert!(problem.starts_with(want), "{problem}");
        }
        assert!(
            tap("lc0,client", None).expect_err("a tap has no socket").starts_with("'client' is no option")
        );
    }
}
