//! Attaching: from the parameters of a port to a started device.

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use linecard_capture::Hub;
use linecard_mempool::Pool;
use linecard_net::MacAddr;
use linecard_pmd::handover::HandedOver;
use linecard_pmd::offload::{Offloads, RxOffloads, TxOffloads};
use linecard_pmd::{DeviceInfo, Port, PortConfig, configure, contain};

use crate::SwitchConfig;
use crate::api::{Code, PortKind, PortSpec, Problem};

/// The number of packets in a port's own pool beyond those that its rings can hold.
const SPARE: u32 = 2048;

/// A started port with its queues.
pub(crate) struct Attached {
    pub(crate) port: Port,
    /// The port's own pool, if its device may keep the packets it is given.
    pub(crate) own: Option<Pool>,
    /// The device, as `--vdev` would name it.
    pub(crate) argument: String,
}

/// The origin of a device.
pub(crate) enum Source<'a> {
    /// It is opened, for some kinds with a passed descriptor.
    New(Option<&'a OwnedFd>),
    /// A predecessor handed it over.
    Held(HandedOver),
}

/// Opens, configures and starts the device of port `id`.
///
/// # Errors
/// The device is not available; nothing is left behind.
pub(crate) fn attach(
    config: &SwitchConfig,
    id: u16,
    spec: &PortSpec,
    source: Source<'_>,
) -> Result<Attached, Problem> {
    let fd = match source {
        Source::New(fd) => fd,
        Source::Held(_) => None,
    };
    // The tap driver takes ownership of the descriptor.
    let own = fd.filter(|_| matches!(spec.kind, PortKind::Tap { .. })).map(duplicate).transpose()?;
    let number = own.as_ref().or(fd).map(AsRawFd::as_raw_fd);
    let argument = device_argument(id, spec, number);
    let is_vhost = matches!(spec.kind, PortKind::VhostUser { .. } | PortKind::VhostUserFd { .. });
    let argument = if is_vhost && config.store.is_some() { argument + ",records=1" } else { argument };
    let driver = config.drivers.find(&argument).map_err(|error| unavailable(&error))?;
    // Not before: whatever fails above closes it.
    let _ = own.map(IntoRawFd::into_raw_fd);
    let device = match source {
        Source::New(_) => config.drivers.probe(&config.context, &argument),
        Source::Held(handed) => config.drivers.succeed(&config.context, &argument, handed),
    };
    let device = device.map_err(|error| unavailable(&error))?;
    let info = device.info();
    check_address(spec, info.mac)?;
    let queues = spec.queues.min(info.max_rx_queues).min(info.max_tx_queues).max(1);
    let own = if driver.keeps_packets() { Some(own_pool(config, &info, queues)?) } else { None };
    let offloads = Offloads {
        rx: info.offloads.rx.intersection(RxOffloads::VIRTIO),
        tx: info.offloads.tx.intersection(TxOffloads::WORK.union(TxOffloads::MULTI_SEGS)),
    };
    let mtu = spec.mtu.clamp(*info.mtu.start(), *info.mtu.end());
    let wanted = PortConfig::default().rx_queues(queues).tx_queues(queues).mtu(mtu).offloads(offloads);
    let pool = own.as_ref().unwrap_or(&config.pool);
    let port = configure(device, wanted).and_then(|device| device.start(pool));
    let port = port.map_err(|refused| unavailable(&refused.error))?;
    Ok(Attached { port: watched(&config.captures, id, port), own, argument })
}

/// The path may have come to lead to another container that has an interface of the same name.
fn check_address(spec: &PortSpec, found: [u8; 6]) -> Result<(), Problem> {
    let PortKind::Tap { name, netns: Some(netns) } = &spec.kind else { return Ok(()) };
    match spec.mac {
        Some(MacAddr(mac)) if mac != found => Err(Problem::new(
            Code::Unavailable,
            format!("the interface {name} in {} has not the port's address", netns.display()),
            "remove the port, and add it anew with a descriptor of its interface",
        )),
        _ => Ok(()),
    }
}

pub(crate) fn unavailable(error: &linecard_pmd::Error) -> Problem {
    Problem::new(
        Code::Unavailable,
        error.problem(),
        error.remedy().unwrap_or("the switch's log may say more"),
    )
}

/// A pool for the packets that the rings of a port can hold, in a memory domain of its own: the peer may see
/// this memory and may keep as many of the packets as it likes.
fn own_pool(config: &SwitchConfig, info: &DeviceInfo, queues: u16) -> Result<Pool, Problem> {
    let packets = 2 * u32::from(queues) * u32::from(info.default_depth) + SPARE;
    let shape = config.pool.config().clone().name(format!("{} packets", info.driver)).packets(packets);
    // Address space costs nothing: twice the buffers, plus the largest alignment that huge pages may need.
    let range = packets as usize * config.pool.stride() * 2 + (8 << 20);
    let exhausted = |error: &dyn std::fmt::Display| {
        let remedy = "allow the switch more memory (-m), or give the port fewer queues";
        Problem::new(Code::Exhausted, format!("no packets for the port: {error}"), remedy)
    };
    let domain = config.context.memory.separate(&shape.name, range).map_err(|error| exhausted(&error))?;
    Pool::new(&domain, shape).map_err(|error| exhausted(&error))
}

/// A port as `--vdev` would name it.
fn device_argument(id: u16, spec: &PortSpec, fd: Option<RawFd>) -> String {
    let queues = spec.queues;
    match &spec.kind {
        PortKind::VhostUser { path, client, mode, group } => {
            let mut text = format!("net_vhost{id},iface={},queues={queues},tso=1,handover=1", path.display());
            if *client {
                text += ",client=1";
            }
            for (name, value) in [("mode", mode), ("group", group)] {
                if let Some(value) = value {
                    text += &format!(",{name}={value}");
                }
            }
            text
        }
        PortKind::VhostUserFd { .. } => {
            let fd = fd.map_or_else(String::new, |fd| format!(",fd={fd}"));
            format!("net_vhost{id},queues={queues},tso=1,handover=1{fd}")
        }
        PortKind::Tap { name, netns } => match fd {
            Some(fd) => format!("net_tap{id},fd={fd}"),
            None => {
                let netns =
                    netns.as_ref().map_or_else(String::new, |netns| format!(",netns={}", netns.display()));
                format!("net_tap{id},iface={name}{netns}")
            }
        },
        PortKind::Vxlan { vni, remotes, local, udp_port, ttl, any_peer } => {
            let mut text = format!("net_vxlan{id},vni={vni}");
            if !remotes.is_empty() {
                let remotes: Vec<String> = remotes.iter().map(ToString::to_string).collect();
                text += &format!(",remote=[{}]", remotes.join(","));
            }
            for (name, value) in [
                ("local", local.map(|local| local.to_string())),
                ("port", udp_port.map(|port| port.to_string())),
                ("ttl", ttl.map(|ttl| ttl.to_string())),
                ("peers", any_peer.then(|| "any".into())),
            ] {
                if let Some(value) = value {
                    text += &format!(",{name}={value}");
                }
            }
            text
        }
        PortKind::Vdev { device } => device.clone(),
    }
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, Problem> {
    fd.try_clone().map_err(|error| {
        let message = format!("the descriptor cannot be duplicated: {error}");
        Problem::new(Code::Exhausted, message, "allow the switch more descriptors")
    })
}

/// Wraps each queue for packet capture, contains a driver's panic within its queue, and prepares the queue for a worker
/// that sleeps.
fn watched(captures: &Hub, id: u16, port: Port) -> Port {
    let (port, rx, tx) = captures.watch_queues(id, port);
    let (mut port, rx, tx) = contain::contain_queues(port, rx, tx);
    port.rx = rx.into_iter().map(|queue| Box::new(queue) as _).collect();
    port.rx.iter_mut().for_each(|queue| queue.prepare_arm());
    port.tx = tx.into_iter().map(|queue| Box::new(queue) as _).collect();
    port
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::Duration;

    use linecard_eal::{Eal, EalArgs};
    use linecard_mempool::{Burst, PoolConfig};
    use linecard_pmd::{ProbeContext, Registry, RxQueue, TxQueue};
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    /// A queue that panics in every burst.
    struct Bomb;

    impl RxQueue for Bomb {
        fn rx_burst(&mut self, _: &mut Burst) -> usize {
            panic!("the driver did not expect this")
        }

        fn path(&self) -> &'static str {
            "bomb"
        }
    }

    impl TxQueue for Bomb {
        fn tx_burst(&mut self, _: &mut Burst) -> usize {
            panic!("the driver did not expect this")
        }

        fn path(&self) -> &'static str {
            "bomb"
        }
    }

    #[test]
    fn a_panic_of_a_driver_costs_its_queue() {
        let args = EalArgs::parse(["--no-huge", "-m", "64"]).expect("arguments").0;
        let eal = Eal::new(&args).expect("a machine");
        let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(64)).expect("a pool");
        let (device, _peer) = linecard_net_ring::pair("left", "right");
        let started = configure(device, PortConfig::default()).expect("a configuration").start(&pool);
        let rx: Vec<Box<dyn RxQueue>> = vec![Box::new(Bomb)];
        let tx: Vec<Box<dyn TxQueue>> = vec![Box::new(Bomb)];
        let mut port = watched(&Hub::new(), 0, Port { rx, tx, ..started.expect("it starts") });
        let mut packets = Burst::new();
        assert_eq!((port.rx[0].rx_burst(&mut packets), port.rx[0].path()), (0, "panicked"));
        pool.get_bulk(&mut packets, 1).expect("a packet");
        port.tx[0].tx_burst(&mut packets);
        assert_eq!(port.tx[0].path(), "panicked");
    }

    #[test]
    fn a_descriptor_is_closed_if_no_driver_takes_it() {
        let args = EalArgs::parse(["--no-huge", "-m", "64"]).expect("arguments").0;
        let eal = Eal::new(&args).expect("a machine");
        let domain = eal.default_domain();
        let pool = Pool::new(&domain, PoolConfig::default().packets(64)).expect("a pool");
        let context = ProbeContext::new(eal.memory().clone(), domain, Duration::from_secs(1));
        let config = SwitchConfig::new(Registry::new(&[]), context, pool, Vec::new());
        let spec = PortSpec::new("a", PortKind::Tap { name: "lc0".into(), netns: None });
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let passed = OwnedFd::from(writer);
        assert!(attach(&config, 0, &spec, Source::New(Some(&passed))).is_err(), "there is no driver");
        drop(passed);
        // The end, which comes once nobody holds the other descriptor; a child of another test may for a moment.
        let mut wait = [PollFd::new(&reader, PollFlags::IN)];
        let patience = linecard_testing::PATIENCE.try_into().expect("seconds");
        assert_eq!(poll(&mut wait, Some(&patience)).expect("a pipe"), 1, "the descriptor is still open");
        assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
    }
}
