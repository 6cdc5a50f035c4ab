//! The device, from an interface to a started port and back.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use linecard_mempool::Pool;

use super::args::{MAX_QUEUES, Options};
use super::bpf::Mode;
use super::channel::{Channel, Opened, SocketOptions};
use super::channels;
use super::control::{Control, Counters};
use super::promiscuous::Promiscuous;
use super::redirect::Redirect;
use super::refusal::Context;
use super::rx::Rx;
use super::socket::Socket;
use super::tx::Tx;
use super::umem::Umem;
use linecard_netdev::{Interface, InterfaceInfo, Namespace};
use linecard_pmd::config::{PortConfig, StartError};
use linecard_pmd::error::Error;
use linecard_pmd::local::{Identity, LocalControl};
use linecard_pmd::port::{Device, DeviceInfo, Port, Running, RxQueue, TxQueue};

/// The bytes of an Ethernet header and of a VLAN tag, which a frame has besides the MTU.
const ETHERNET: usize = 14;
const TAG: usize = 4;
/// The largest MTU offered; an interface may support less.
const MAX_MTU: u32 = 9600;

/// The pools whose memory is shared by several ports (`shared_umem=1`).
pub(super) type SharedUmems = Mutex<Vec<(usize, Weak<Umem>)>>;

/// An opened interface.
pub(super) struct AfXdp {
    name: String,
    options: Options,
    namespace: Namespace,
    interface: Arc<Interface>,
    redirect: Redirect,
    /// The index of the interface that the program is attached to.
    index: u32,
    mac: [u8; 6],
    mtu_limit: u32,
    /// Passed sockets, each for one start.
    passed: Vec<Socket>,
    shared: &'static SharedUmems,
}

impl AfXdp {
    /// Finds the interface and attaches the program; frames still go to the kernel.
    pub(super) fn open(
        name: &str,
        options: Options,
        namespace: Namespace,
        shared: &'static SharedUmems,
    ) -> Result<Self, Error> {
        let interface = Interface::find_framed(name, &namespace, &options.iface)?;
        let info = interface.info()?;
        check_queues(name, &options, &info)?;
        // Without the permission to open sockets, fail before the interface is changed.
        if options.passed.is_empty() {
            let context = Context { port: name, iface: &options.iface };
            namespace.enter(name, Socket::open)?.map_err(|error| context.open(error))?;
        }
        let index = info.index;
        let redirect = redirect(name, &namespace, &interface, &options)?;
        let passed = options.passed.iter().map(|fd| {
            Socket::passed(*fd).map_err(|_| Error::Argument {
                device: name.into(),
                problem: format!("descriptor {fd} is no XDP socket"),
                remedy: "pass one that socket(AF_XDP) gave and nobody used yet".into(),
            })
        });
        Ok(Self {
            name: name.into(),
            passed: passed.collect::<Result<_, _>>()?,
            mac: info.mac.unwrap_or_default(),
            mtu_limit: info.mtu_limits.1,
            namespace,
            interface: Arc::new(interface),
            redirect,
            index,
            options,
            shared,
        })
    }

    fn context(&self) -> Context<'_> {
        Context { port: &self.name, iface: &self.options.iface }
    }

    /// Returns the umem of the pool, shared with other ports if requested.
    fn umem(&self, pool: &Pool) -> Result<Arc<Umem>, Error> {
        if !self.options.shared_umem {
            return Umem::new(&self.name, pool).map(Arc::new);
        }
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|(_, umem)| umem.strong_count() > 0);
        if let Some(umem) =
            shared.iter().find(|(id, _)| *id == pool.id()).and_then(|(_, umem)| umem.upgrade())
        {
            return Ok(umem);
        }
        let umem = Arc::new(Umem::new(&self.name, pool)?);
        shared.push((pool.id(), Arc::downgrade(&umem)));
        Ok(umem)
    }

    /// Opens sockets on all queues of the configuration.
    fn channels(
        &mut self,
        config: &PortConfig,
        umem: &Arc<Umem>,
        chains: bool,
    ) -> Result<Vec<Opened>, Error> {
        let passed = std::mem::take(&mut self.passed);
        if passed.is_empty() && !self.options.passed.is_empty() {
            return Err(Error::Unsupported {
                port: self.name.clone(),
                what: "starting again on passed sockets".into(),
                remedy: "open the port anew with fresh ones".into(),
            });
        }
        let mut passed = passed.into_iter();
        let Options { force_copy, busy_budget, .. } = self.options;
        let options = SocketOptions { force_copy, busy_budget, chains };
        let (context, sockets) = (self.context(), &self.redirect.sockets);
        let open = |i: u16| -> Result<Opened, Error> {
            let queue = self.options.start_queue + u32::from(i);
            let socket = match passed.next() {
                Some(socket) => socket,
                None => Socket::open().map_err(|error| context.open(error))?,
            };
            let depth = |queues: u16, depth: u16| (i < queues).then(|| u32::from(depth));
            let depths = (depth(config.rx_queues, config.rx_depth), depth(config.tx_queues, config.tx_depth));
            let place = (self.interface.index(), queue);
            Channel::open(socket, place, depths, umem, sockets, options)
                .map_err(|refusal| context.socket(queue, umem.len(), refusal))
        };
        let all = 0..config.rx_queues.max(config.tx_queues);
        self.namespace.enter(&self.name, || all.map(open).collect())?
    }

    /// Raises the interface's MTU to the requested one, if needed. Returns the earlier MTU if it was changed.
    fn widen(&self, config: &PortConfig, info: &InterfaceInfo) -> Result<Option<u32>, Error> {
        if info.mtu >= u32::from(config.mtu) {
            return Ok(None);
        }
        self.interface.set_mtu(config.mtu.into())?;
        Ok(Some(info.mtu))
    }

    /// Switches to the present interface of that name, if the earlier one was removed.
    fn follow(&mut self) -> Result<InterfaceInfo, Error> {
        let info = self.interface.again()?;
        if info.index != self.index {
            check_queues(&self.name, &self.options, &info)?;
            self.redirect = redirect(&self.name, &self.namespace, &self.interface, &self.options)?;
            self.index = info.index;
            self.mac = info.mac.unwrap_or_default();
            self.mtu_limit = info.mtu_limits.1;
        }
        Ok(info)
    }

    /// Warns about receive queues of the interface without a socket of this port: their frames go to the
    /// kernel.
    fn warn_of_others(&self, config: &PortConfig, info: &InterfaceInfo) {
        let ours = u32::from(config.rx_queues);
        let asked = self.namespace.run(|| channels::receive(&info.name)).ok().flatten();
        let Some(all) = asked.filter(|all| ours > 0 && *all > ours) else { return };
        let name = &info.name;
        tracing::warn!(
            "{}: {ours} of the {all} receive queues of {name} come to this port, what the card deals to the others goes to \
             the kernel unless another port has them; take all with queue_count={all} and as many queues of the port, or \
             give the card fewer with 'ethtool -L {name} combined {ours}'",
            self.name
        );
    }

    /// Performs all steps of a start that can fail, and undoes them on failure.
    fn parts(&mut self, config: &PortConfig, pool: &Pool) -> Result<StartedQueues, Error> {
        let info = self.follow()?;
        let umem = self.umem(pool)?;
        let widest = info.mtu.max(config.mtu.into());
        let one = umem.frame_len();
        let mut longest = widest as usize + ETHERNET + TAG;
        let opened = self.channels(config, &umem, longest > one)?;
        if info.is_loopback() && opened.iter().any(|opened| !opened.channel.multi_buffer) {
            // Only a local stack sends frames of the loopback's 64 KiB. As with DPDK, the port starts, and
            // those frames are lost.
            longest = one;
        }
        if longest > one && opened.iter().any(|opened| !opened.channel.multi_buffer) {
            let max = u16::try_from(one - ETHERNET - TAG).unwrap_or(u16::MAX);
            let asked = u16::try_from(widest).unwrap_or(u16::MAX);
            return Err(Error::Mtu { port: self.name.clone(), asked, min: 68, max });
        }
        let before = self.widen(config, &info)?;
        let parts = self.queues(config, opened, longest);
        if let Err(error) = self.connect(&parts.channels) {
            self.narrow(before);
            return Err(error);
        }
        self.warn_of_others(config, &info);
        Ok(StartedQueues { before, ..parts })
    }

    /// Creates queues over the sockets; the receive queues provide buffers.
    fn queues(&self, config: &PortConfig, opened: Vec<Opened>, longest: usize) -> StartedQueues {
        let counters = Counters::new(config.rx_queues, config.tx_queues);
        let channels: Vec<_> = opened.iter().map(|opened| opened.channel.clone()).collect();
        let path = channels.first().map_or("none", |channel| self.path(channel));
        let extras = channels.first().map_or(String::new(), |channel| extras(channel));
        let (mut rx, mut tx) = (Vec::new(), Vec::new());
        for (i, Opened { rx: receive, tx: send, channel }) in opened.into_iter().enumerate() {
            if let Some(rings) = receive {
                let queue = Rx::new(rings, &channel, path, counters.rx(i));
                rx.push(Box::new(queue) as Box<dyn RxQueue>);
            }
            if let Some(rings) = send {
                let limits = (u32::from(config.tx_depth), longest);
                let queue = Tx::new(rings, limits, &channel, path, counters.tx(i));
                tx.push(Box::new(queue) as Box<dyn TxQueue>);
            }
        }
        let paths = format!("rx {path}, tx {path}{extras}");
        StartedQueues { rx, tx, counters, paths, channels, before: None }
    }

    /// Redirects frames to the sockets.
    fn connect(&self, channels: &[Arc<Channel>]) -> Result<(), Error> {
        channels.iter().try_for_each(|channel| {
            channel.connect().map_err(|error| {
                let entries = self.redirect.sockets.entries().unwrap_or(u32::MAX);
                self.context().connect(channel.queue, entries, error)
            })
        })
    }

    fn narrow(&self, before: Option<u32>) {
        if let Some(mtu) = before
            && let Err(error) = self.interface.set_mtu(mtu)
        {
            tracing::warn!(%error, "the interface keeps its MTU");
        }
    }

    /// Returns the readable name of the data path.
    fn path(&self, channel: &Channel) -> &'static str {
        match (channel.zero_copy, self.redirect.attached_mode()) {
            (true, Some(Mode::Native)) => "zero-copy native",
            (true, Some(Mode::Generic)) => "zero-copy generic",
            (true, None) => "zero-copy pinned map",
            (false, Some(Mode::Native)) => "copy native",
            (false, Some(Mode::Generic)) => "copy generic",
            (false, None) => "copy pinned map",
        }
    }
}

/// The result of a start.
struct StartedQueues {
    rx: Vec<Box<dyn RxQueue>>,
    tx: Vec<Box<dyn TxQueue>>,
    counters: Counters,
    paths: String,
    channels: Vec<Arc<Channel>>,
    /// The interface's earlier MTU, if it was changed.
    before: Option<u32>,
}

/// Attaches the program to the interface, or opens its map.
fn redirect(
    name: &str,
    namespace: &Namespace,
    interface: &Interface,
    options: &Options,
) -> Result<Redirect, Error> {
    Redirect::by(name, namespace, interface, options.start_queue + options.queue_count, &options.way)
}

/// Checks that the interface has the requested queues, as far as it reports them.
fn check_queues(name: &str, options: &Options, info: &InterfaceInfo) -> Result<(), Error> {
    let has = info.queues.0.max(info.queues.1);
    let (start, count) = (options.start_queue, options.queue_count);
    if has == 0 || start + count <= has {
        return Ok(());
    }
    Err(Error::Argument {
        device: name.into(),
        problem: format!(
            "queues {start} to {} asked, {} has {has} (from 0)",
            start + count - 1,
            options.iface
        ),
        remedy: "ask for fewer with queue_count and start_queue".into(),
    })
}

impl Device for AfXdp {
    fn name(&self) -> &str {
        &self.name
    }

    fn queues_argument(&self) -> Option<&'static str> {
        Some("queue_count")
    }

    fn most_queue_pairs(&self) -> u16 {
        // An interface that does not tell how many it has may have any number.
        let has = self.interface.info().map_or(0, |info| info.queues.0.max(info.queues.1));
        let left = if has == 0 { MAX_QUEUES } else { has.saturating_sub(self.options.start_queue) };
        u16::try_from(left.min(MAX_QUEUES)).unwrap_or(u16::MAX)
    }

    fn info(&self) -> DeviceInfo {
        let queues = u16::try_from(self.options.queue_count).unwrap_or(u16::MAX);
        let limit = if self.mtu_limit == 0 { MAX_MTU } else { self.mtu_limit.min(MAX_MTU) };
        DeviceInfo::new(super::DRIVER, self.mac)
            .max_rx_queues(queues)
            .max_tx_queues(queues)
            .depth(32..=16384)
            .depth_power_of_two(true)
            .default_depth(1024)
            .mtu(68..=u16::try_from(limit).unwrap_or(u16::MAX))
    }

    fn start(mut self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
        let StartedQueues { rx, tx, counters, paths, channels, before } = match self.parts(config, pool) {
            Ok(parts) => parts,
            Err(error) => return Err(StartError { device: self, error }),
        };
        let control = Arc::new(Control::new(
            LocalControl::new(Identity::new(&self.name, self.mac, config.mtu), counters).with_paths(paths),
            self.interface.clone(),
            channels.iter().map(Arc::downgrade).collect(),
            Promiscuous::new(&self.namespace, self.interface.index()),
        ));
        let running = Box::new(Started { device: self, control: control.clone(), before });
        Ok(Port { rx, tx, control, running })
    }
}

/// Describes further features that the kernel uses for these queues.
fn extras(channel: &Channel) -> String {
    let words = [(channel.multi_buffer, ", multi-buffer"), (channel.busy_poll, ", busy poll")];
    words.into_iter().filter(|(on, _)| *on).map(|(_, word)| word).collect()
}

struct Started {
    device: Box<AfXdp>,
    control: Arc<Control>,
    before: Option<u32>,
}

impl Running for Started {
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        drop((rx, tx));
        self.control.end();
        self.device.narrow(self.before);
        self.device
    }
}
