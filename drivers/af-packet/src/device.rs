//! The device, from its arguments to a started port.

use std::sync::{Arc, Weak};

use linecard_eal::memory::available_bytes;
use linecard_mempool::Pool;
use memmap2::MmapRaw;

use super::args::{MAX_FRAMES, MAX_QUEUES, Options, Version};
use super::control::Control;
use super::drops::Drops;
use super::loss::{RxLoss, TxLoss};
use super::ring::{self, Blocks, Frames};
use super::rx::{Rx, RxOffloadWork, RxParts};
use super::tx::Tx;
use linecard_net::ether::LONGEST_FRAME;
use linecard_netdev::packet_socket::Socket;
use linecard_netdev::{Interface, InterfaceInfo, refusal};
use linecard_pmd::args::DevArgs;
use linecard_pmd::config::{PortConfig, StartError};
use linecard_pmd::error::Error;
use linecard_pmd::local::{Identity, LocalControl};
use linecard_pmd::offload::{AcceptedOffloads, Offloads, RxOffloads, SoftTx, TxOffloads};
use linecard_pmd::port::{Device, DeviceInfo, Driver, Port, ProbeContext, Running, RxQueue, TxQueue};
use linecard_pmd::stats::PortCounters;

const DRIVER: &str = "net_af_packet";
const RX: RxOffloads = RxOffloads::VIRTIO.union(RxOffloads::VLAN_STRIP);
const TX: TxOffloads = TxOffloads::VIRTIO.union(TxOffloads::VLAN_INSERT);
/// The bytes that the kernel accounts for a transmitted frame besides its data (`SKB_TRUESIZE`), rounded up.
const ON_ITS_WAY: usize = 1024;
/// The bytes of oversized frames that may wait in a socket: the amount that TCP streams have in flight.
const KEPT: usize = 16 << 20;

/// The driver of `net_af_packet` devices.
///
/// ```
/// use linecard_pmd::Driver;
/// use linecard_net_af_packet::AfPacketDriver;
/// assert_eq!(AfPacketDriver.name(), "net_af_packet");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AfPacketDriver;

impl Driver for AfPacketDriver {
    fn name(&self) -> &'static str {
        DRIVER
    }

    fn keeps_packets(&self) -> bool {
        false
    }

    fn summary(&self) -> &'static str {
        "an interface of the kernel through packet sockets; iface=NAME, netns=, qpairs=1..16, qdisc_bypass=0|1, \
         version=2|3, blocksz=, framesz=, framecnt=, retire_blk_tov=, fanout_mode=hash|lb|cpu|rollover|rnd|qm"
    }

    fn check_args(&self, args: &DevArgs) -> Result<(), Error> {
        // The arguments are valid whether or not the namespace exists.
        Options::read(&args.clone().without("netns")).map(drop)
    }

    fn probe(&self, _: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
        let options = Options::read(args)?;
        let interface = Interface::find_framed(args.name(), &options.namespace, &options.iface)?;
        // A missing permission is reported at probe, not at start.
        let socket = options.namespace.enter(args.name(), Socket::open)?;
        socket.map_err(|error| refusal(args.name(), "opening a packet socket", error))?;
        let mac = interface.info()?.mac.unwrap_or_default();
        Ok(Box::new(AfPacket { name: args.name().to_owned(), options, interface: Arc::new(interface), mac }))
    }
}

/// Returns the offloads that an application with these receive offloads accepts; `None` if it wants no virtio
/// headers.
fn accepted(asked: RxOffloads) -> Option<AcceptedOffloads> {
    let large = asked.contains(RxOffloads::TCP_LRO);
    let csum = large || asked.intersects(RxOffloads::CHECKSUM);
    csum.then_some(AcceptedOffloads { csum, tso4: large, tso6: large, ecn: large, uso4: large, uso6: large })
}

/// A device, started or not.
struct AfPacket {
    name: String,
    options: Options,
    interface: Arc<Interface>,
    mac: [u8; 6],
}

type Counters = PortCounters<RxLoss, TxLoss>;
/// A receive queue's socket and its mapped ring.
type Opened = (Socket, MmapRaw);

impl AfPacket {
    /// Checks the MTU against the interface's.
    fn check_mtu(&self, config: &PortConfig, info: &InterfaceInfo) -> Result<(), Error> {
        if u32::from(config.mtu) <= info.mtu {
            return Ok(());
        }
        let (name, mtu) = (&info.name, config.mtu);
        Err(Error::Argument {
            device: self.name.clone(),
            problem: format!("an MTU of {mtu} asked, interface {name} has {}", info.mtu),
            remedy: format!("raise it with 'ip link set {name} mtu {mtu}', or ask for less"),
        })
    }

    /// Checks that frames which the application accepts large fit into the ring. With `TPACKET_V2`, the
    /// socket's queue also takes larger frames, but only as an exception.
    fn check_room(&self, config: &PortConfig) -> Result<(), Error> {
        let (room, three) = (self.options.room(), self.options.version == Version::Three);
        let large = three && config.offloads.rx.contains(RxOffloads::TCP_LRO);
        if !large || LONGEST_FRAME as u32 <= room {
            return Ok(());
        }
        Err(Error::Unsupported {
            port: self.name.clone(),
            what: format!("large receive (TCP_LRO) in frames of {room} bytes"),
            remedy: "leave blocksz out, or give blocksz=131072".into(),
        })
    }

    /// Limits the size of the rings: the kernel would rather kill processes than refuse a large ring.
    fn check_memory(&self, config: &PortConfig) -> Result<(), Error> {
        let (shape, queues) = (self.options.shape, config.rx_queues);
        let each = u64::from(shape.blocks(config.rx_depth)) * u64::from(shape.block);
        let (all, free) = (each * u64::from(queues), available_bytes() as u64);
        if all <= free / 2 {
            return Ok(());
        }
        Err(Error::Argument {
            device: self.name.clone(),
            problem: format!(
                "receive rings of {} MiB asked, half of the {} MiB that are free can be had",
                all >> 20,
                free >> 20
            ),
            remedy: "ask for a smaller framecnt, framesz or blocksz, or for fewer queues".into(),
        })
    }

    fn step<T>(&self, what: &str, outcome: std::io::Result<T>) -> Result<T, Error> {
        outcome.map_err(|error| refusal(&self.name, what, error))
    }

    /// Opens sockets with rings, in a fanout group if there are several. No frame is received before all are
    /// ready.
    fn open_rx(&self, config: &PortConfig) -> Result<Vec<Opened>, Error> {
        let mut group = None;
        let mut opened = Vec::new();
        for _ in 0..config.rx_queues {
            let (socket, memory) = self.open_ring(config)?;
            self.step("attaching a filter to a packet socket", socket.ignore())?;
            let bound = socket.bind(self.interface.index(), libc::ETH_P_ALL as u16);
            self.step(&format!("binding a packet socket to {}", self.options.iface), bound)?;
            if config.rx_queues > 1 {
                let joined = socket.fanout(self.options.fanout, group);
                group = Some(self.step("joining a fanout group", joined)?);
            }
            opened.push((socket, memory));
        }
        if let Some((socket, _)) = opened.first() {
            let promiscuous = socket.promiscuous(self.interface.index(), true);
            self.step(&format!("making {} promiscuous", self.options.iface), promiscuous)?;
        }
        for (socket, _) in &opened {
            self.step("detaching a filter from a packet socket", socket.attend())?;
        }
        Ok(opened)
    }

    fn open_ring(&self, config: &PortConfig) -> Result<Opened, Error> {
        let frames = config.rx_depth;
        let socket = self.step("opening a packet socket", Socket::open())?;
        let version = match self.options.version {
            Version::Two => libc::tpacket_versions::TPACKET_V2,
            Version::Three => libc::tpacket_versions::TPACKET_V3,
        };
        self.step(
            "choosing a version of the packet ring",
            socket.set(libc::PACKET_VERSION, &(version as libc::c_int)),
        )?;
        self.step("ignoring outgoing packets (Linux 4.20)", socket.set(libc::PACKET_IGNORE_OUTGOING, &1))?;
        self.step("asking for virtio headers", socket.set(libc::PACKET_VNET_HDR, &1))?;
        if self.options.version == Version::Two {
            self.step("keeping large frames", socket.keep_large(KEPT))?;
        }
        let shape = self.options.shape;
        let what = format!(
            "a receive ring of {} blocks of {} bytes with frames of {}",
            shape.blocks(frames),
            shape.block,
            shape.frame
        );
        let memory = self.step(&what, ring::map(&socket, &self.options, frames))?;
        Ok((socket, memory))
    }

    /// Returns whether packets bypass the queueing discipline. A bypass would also skip the kernel's software
    /// segmentation, so a port with segmentation offloads has none.
    fn bypasses(&self, config: &PortConfig) -> bool {
        self.options.bypass && !config.offloads.tx.intersects(TxOffloads::SEGMENT)
    }

    fn open_tx(&self, config: &PortConfig) -> Result<Vec<Socket>, Error> {
        let one = |_| {
            let socket = self.step("opening a packet socket", Socket::open())?;
            if self.bypasses(config) {
                let bypass = socket.set(libc::PACKET_QDISC_BYPASS, &1);
                self.step("bypassing the queueing discipline", bypass)?;
            }
            if config.offloads.tx.intersects(TxOffloads::WORK) {
                self.step("asking for virtio headers", socket.set(libc::PACKET_VNET_HDR, &1))?;
            }
            socket
                .send_buffer(usize::from(config.tx_depth) * (self.options.shape.frame as usize + ON_ITS_WAY));
            let bound = socket.bind(self.interface.index(), 0);
            self.step(&format!("binding a packet socket to {}", self.options.iface), bound)?;
            Ok(socket)
        };
        (0..config.tx_queues).map(one).collect()
    }

    fn rx(&self, memory: MmapRaw, parts: RxParts) -> Box<dyn RxQueue> {
        let longest = LONGEST_FRAME.max(self.options.room() as usize);
        match self.options.version {
            Version::Two => Box::new(Rx::new(Frames::new(memory, &self.options), parts, longest)),
            Version::Three => Box::new(Rx::new(Blocks::new(memory, &self.options), parts, longest)),
        }
    }

    /// Builds the port after every step that can fail has succeeded.
    fn assemble(self: Box<Self>, config: &PortConfig, pool: &Pool, rx: Vec<Opened>, tx: Vec<Socket>) -> Port {
        let counters = Counters::new(config.rx_queues, config.tx_queues);
        let offload_work =
            RxOffloadWork { asked: config.offloads.rx, accepted: accepted(config.offloads.rx) };
        let (mut queues, mut drops, mut first) = (Vec::new(), Vec::new(), Weak::new());
        for (i, (socket, memory)) in rx.into_iter().enumerate() {
            let socket = Arc::new(socket);
            let dropped = Arc::new(Drops::of(&socket));
            if i == 0 {
                first = Arc::downgrade(&socket);
            }
            drops.push(Arc::clone(&dropped));
            let (pool, stats) = (pool.clone(), counters.rx(i));
            queues.push(self.rx(memory, RxParts { pool, offload_work, stats, drops: dropped, socket }));
        }
        let soft = config.offloads.tx.intersects(TxOffloads::WORK);
        let large = !self.bypasses(config);
        // The kernel segments UDP only since Linux 6.2.
        let taken =
            AcceptedOffloads { csum: true, tso4: large, tso6: large, ecn: large, uso4: false, uso6: false };
        let transmit = |(i, socket): (usize, Socket)| {
            let soft = soft.then(|| (SoftTx::counting(pool.clone(), counters.tx(i)), taken));
            Box::new(Tx::new(socket, counters.tx(i), soft)) as Box<dyn TxQueue>
        };
        let tx = tx.into_iter().enumerate().map(transmit).collect();
        let identity = Identity::new(&self.name, self.mac, config.mtu);
        let paths = match self.options.version {
            Version::Two => "rx tpacket v2, tx sendmmsg",
            Version::Three => "rx tpacket v3, tx sendmmsg",
        };
        let local = LocalControl::new(identity, counters).with_paths(paths);
        let interface = Arc::clone(&self.interface);
        let control = Arc::new(Control::new(local, interface, drops, first));
        Port { rx: queues, tx, control, running: self }
    }
}

impl Device for AfPacket {
    fn name(&self) -> &str {
        &self.name
    }

    fn queues_argument(&self) -> Option<&'static str> {
        Some("qpairs")
    }

    fn most_queue_pairs(&self) -> u16 {
        MAX_QUEUES
    }

    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(DRIVER, self.mac)
            .max_rx_queues(self.options.queues)
            .max_tx_queues(self.options.queues)
            .depth(1..=MAX_FRAMES)
            .default_depth(self.options.shape.count)
            .mtu(self.options.mtu())
            .offloads(Offloads { rx: RX, tx: TX })
    }

    fn check(&self, config: &PortConfig) -> Result<(), Error> {
        self.check_mtu(config, &self.interface.again()?)?;
        self.check_room(config)?;
        self.check_memory(config)
    }

    fn start(mut self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
        // Also checks whether the interface exists, or exists again, and reads its present address.
        let info = match self.interface.again() {
            Ok(info) => info,
            Err(error) => return Err(StartError { device: self, error }),
        };
        let opened = self.options.namespace.enter(&self.name, || {
            let rx = self.open_rx(config)?;
            Ok((rx, self.open_tx(config)?))
        });
        match opened.and_then(|opened| opened) {
            Ok((rx, tx)) => {
                self.mac = info.mac.unwrap_or(self.mac);
                Ok(self.assemble(config, pool, rx, tx))
            }
            Err(error) => Err(StartError { device: self, error }),
        }
    }
}

impl Running for AfPacket {
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        drop((rx, tx));
        self
    }
}
