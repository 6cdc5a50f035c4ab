//! The arguments of `net_virtio_user`, with the names that DPDK uses.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;

use linecard_pmd::{DevArgs, Error, Offloads};
use linecard_virtio::Layout;
use linecard_wire::Closer;

use crate::backend::Connect;
use crate::{kernel, vhost_user};

/// The name of the driver for sockets and kernel devices.
pub(crate) const NAME: &str = "net_virtio_user";

/// The most queue pairs: a vhost-user ring number is one byte.
pub(crate) const MAX_PAIRS: u16 = 128;

/// The options that the user gave, with DPDK's names and defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) name: String,
    /// The driver name that is shown to users.
    pub(crate) driver: &'static str,
    pub(crate) queues: u16,
    /// The most descriptors of each receive ring and of each transmit ring once the port is started.
    pub(crate) rx_queue_size: u16,
    pub(crate) tx_queue_size: u16,
    pub(crate) mac: Option<[u8; 6]>,
    /// Whether the device has an address of its own that the port uses.
    pub(crate) device_mac: bool,
    pub(crate) mrg_rxbuf: bool,
    pub(crate) in_order: bool,
    pub(crate) packed_vq: bool,
    pub(crate) event_idx: bool,
    /// The speed to report, in Mbit/s.
    pub(crate) speed: Option<u32>,
    /// The offloads, which come from the port configuration instead of the arguments.
    pub(crate) offloads: Offloads,
}

/// One line for `--help`.
pub(crate) const SUMMARY: &str = "virtio-net frontend over a vhost-user socket or the kernel: path=SOCKET[,server=0|1][,mode=0600..0666]\
[,group=NAME] or fd=N or path=/dev/vhost-net[,iface=NAME][,tap_fd=N[:N...]][,vhost_fd=N[:N...]] or path=/dev/vhost-vdpa-N; all: [,queues=N][,queue_size=N]\
[,rx_queue_size=N][,tx_queue_size=N][,mac=XX:XX:XX:XX:XX:XX][,mrg_rxbuf=0|1][,in_order=0|1][,packed_vq=0|1][,event_idx=0|1][,vectorized=0|1][,cq=0|1][,speed=MBPS]";

impl Options {
    /// Reads the arguments about the device itself, which are the same for every transport.
    pub(crate) fn parse(args: &DevArgs) -> Result<Self, Error> {
        let sizes = 1..=linecard_virtio::layout::MAX_SIZE;
        let queue_size = args.number("queue_size", sizes.clone())?.unwrap_or(256);
        let options = Self {
            name: args.name().to_owned(),
            driver: NAME,
            queues: args.number("queues", 1..=MAX_PAIRS)?.unwrap_or(1),
            rx_queue_size: args.number("rx_queue_size", sizes.clone())?.unwrap_or(queue_size),
            tx_queue_size: args.number("tx_queue_size", sizes)?.unwrap_or(queue_size),
            mac: args.mac("mac")?.map(|mac| mac.0),
            device_mac: false,
            mrg_rxbuf: args.flag("mrg_rxbuf")?.unwrap_or(true),
            in_order: args.flag("in_order")?.unwrap_or(true),
            packed_vq: args.flag("packed_vq")?.unwrap_or(false),
            event_idx: args.flag("event_idx")?.unwrap_or(true),
            speed: args.number("speed", 0..=u32::MAX)?.filter(|speed| *speed != u32::MAX),
            offloads: Offloads::default(),
        };
        // Both switches change nothing. A vhost-user backend has no control queue: the port carries out
        // control requests itself. The control queue of a vDPA device is always used. Every path here is
        // written to be vectorised.
        args.flag("cq")?;
        args.flag("vectorized")?;
        let layout = if options.packed_vq { Layout::Packed } else { Layout::Split };
        let wrong = |size: &u16| layout.check_size(u32::from(*size)).is_err();
        if let Some(size) = [queue_size].into_iter().chain(options.queue_sizes()).find(wrong) {
            let problem = format!("a queue_size of {size} is not a power of two");
            return Err(args.problem(problem, "give a power of two up to 32768, or packed_vq=1"));
        }
        Ok(options)
    }

    /// Descriptors of the rings of each direction.
    pub(crate) const fn queue_sizes(&self) -> [u16; 2] {
        [self.rx_queue_size, self.tx_queue_size]
    }

    /// Returns the options for a port that is configured with these depths. No ring has more descriptors than
    /// its depth, and a reduced size is a power of two, which suits either layout.
    pub(crate) fn with_depths(&self, rx: u16, tx: u16) -> Self {
        Self {
            rx_queue_size: ring_size(self.rx_queue_size, rx),
            tx_queue_size: ring_size(self.tx_queue_size, tx),
            ..self.clone()
        }
    }
}

/// Returns the size of a ring that may have `most` descriptors and is requested with `depth`.
fn ring_size(most: u16, depth: u16) -> u16 {
    if depth >= most { most } else { 1 << depth.max(1).ilog2() }
}

/// The transport to a port's device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A vhost-user socket.
    Socket(vhost_user::SocketOptions),
    /// A device of the kernel.
    Kernel(kernel::KernelDevice),
}

impl Transport {
    /// Reads the arguments about the transport. The file at `path` decides which transport it is.
    fn parse(args: &DevArgs, options: &Options) -> Result<Self, Error> {
        if let Some(number) = args.number("fd", 0..=RawFd::MAX)? {
            return Self::parse_passed(args, number);
        }
        let path = PathBuf::from(args.required("path")?);
        let refuse = |keys: &[&'static str], where_to| match keys.iter().find(|key| args.value(key).is_some())
        {
            Some(key) => Err(args.problem(format!("'{key}' is of {where_to}"), format!("leave {key} out"))),
            None => Ok(()),
        };
        if kernel::is_device(&path) {
            refuse(&["server", "mode", "group"], "a vhost-user socket, and the path is a device")?;
            return kernel::KernelDevice::parse(args, path, options).map(Self::Kernel);
        }
        refuse(&["iface", "tap_fd", "vhost_fd"], "path=/dev/vhost-net, and the path is a socket")?;
        vhost_user::SocketOptions::parse(args, path).map(Self::Socket)
    }

    /// Reads the arguments of a socket that was passed as a descriptor.
    fn parse_passed(args: &DevArgs, number: RawFd) -> Result<Self, Error> {
        const OTHERS: [&str; 7] = ["path", "server", "mode", "group", "iface", "tap_fd", "vhost_fd"];
        if let Some(other) = OTHERS.into_iter().find(|key| args.value(key).is_some()) {
            let problem = format!(
                "'fd' is a socket that is there already, and '{other}' is of another way to a device"
            );
            return Err(args.problem(problem, "leave one of them out"));
        }
        vhost_user::SocketOptions::passed(args, number).map(Self::Socket)
    }

    /// Creates everything that must exist before the device is looked for: a server socket that listens, an
    /// interface.
    pub(crate) fn open(self, closer: Closer) -> Result<Arc<dyn Connect>, crate::Error> {
        match self {
            Self::Socket(place) => place.open(closer),
            Self::Kernel(place) => place.open(),
        }
    }

    /// Returns the number of descriptors that the transport takes for each queue pair, besides those of the
    /// rings.
    pub(crate) const fn pair_descriptors(&self) -> u64 {
        match self {
            Self::Socket(_) => 0,
            Self::Kernel(_) => kernel::PAIR_DESCRIPTORS,
        }
    }
}

/// Parses a device's arguments into its options and its transport.
pub(crate) fn parse(args: &DevArgs) -> Result<(Options, Transport), Error> {
    // A missing path is reported before any other problem.
    if args.value("fd").is_none() {
        args.required("path")?;
    }
    let options = Options::parse(args)?;
    let transport = Transport::parse(args, &options)?;
    args.finish()?;
    Ok((options, transport))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(Options, Transport), String> {
        let args = DevArgs::parse(text).expect("a device");
        super::parse(&args).map_err(|error| error.to_string())
    }

    /// The options, and whether the port is a server.
    fn socket(text: &str) -> (Options, bool) {
        match parse(text).expect("all known") {
            (options, Transport::Socket(place)) => (options, place.server),
            (_, other) => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn defaults_are_dpdks() {
        let (options, server) = socket("net_virtio_user0,path=/tmp/s");
        assert_eq!((options.queues, options.queue_sizes(), server), (1, [256, 256], false));
        assert_eq!((options.mrg_rxbuf, options.in_order, options.packed_vq), (true, true, false));
        assert!(options.event_idx);
        assert_eq!((options.mac, options.speed), (None, None));
    }

    #[test]
    fn every_argument_is_read() {
        let (options, server) = socket(
            "virtio_user7,path=/tmp/s,queues=2,queue_size=300,mac=02:00:00:00:00:07,cq=1,server=1,mrg_rxbuf=0,\
             in_order=0,packed_vq=1,event_idx=0,vectorized=1,speed=10000",
        );
        assert_eq!((options.queues, options.queue_sizes(), server), (2, [300, 300], true));
        assert_eq!((options.mrg_rxbuf, options.in_order, options.packed_vq), (false, false, true));
        assert!(!options.event_idx);
        assert_eq!((options.mac, options.speed), (Some([2, 0, 0, 0, 0, 7]), Some(10_000)));
    }

    #[test]
    fn each_direction_has_a_size_of_its_own() {
        let (options, _) = socket("net_virtio_user0,path=/tmp/s,queue_size=128,tx_queue_size=1024");
        assert_eq!(options.queue_sizes(), [128, 1024]);
        for (rx, tx, want) in [
            (128, 1024, [128, 1024]),
            (1024, 1024, [128, 1024]),
            (64, 512, [64, 512]),
            (100, 1000, [64, 512]),
            (1, 2, [1, 2]),
        ] {
            assert_eq!(options.with_depths(rx, tx).queue_sizes(), want, "{rx} and {tx}");
        }
        let (options, _) = socket("net_virtio_user0,path=/tmp/s,packed_vq=1,queue_size=300");
        assert_eq!(options.with_depths(1024, 299).queue_sizes(), [300, 256]);
    }

    #[test]
    fn what_is_wrong_is_said_in_one_sentence() {
        let long = format!("net_virtio_user0,path=/{}", "x".repeat(200));
        for (text, part) in [
            ("net_virtio_user0", "'path' is missing"),
            ("net_virtio_user0,path=", "'path' is missing"),
            ("net_virtio_user0,path=/s,queues=0", "queues"),
            ("net_virtio_user0,path=/s,queues=129", "queues"),
            ("net_virtio_user0,path=/s,queue_size=0", "queue_size"),
            ("net_virtio_user0,path=/s,queue_size=300", "not a power of two"),
            ("net_virtio_user0,path=/s,queue_size=65536", "queue_size"),
            ("net_virtio_user0,path=/s,rx_queue_size=0", "rx_queue_size"),
            ("net_virtio_user0,path=/s,tx_queue_size=300", "not a power of two"),
            ("net_virtio_user0,path=/s,packed_vq=2", "packed_vq"),
            ("net_virtio_user0,path=/s,mac=01:00:5e:00:00:01", "mac"),
            ("net_virtio_user0,path=/s,mrgrxbuf=1", "did you mean 'mrg_rxbuf'"),
            ("net_virtio_user0,path=/s,iface=tap0", "iface"),
            ("net_virtio_user0,path=/s,mode=0660", "add server=1"),
            ("net_virtio_user0,path=/s,group=root", "add server=1"),
            ("net_virtio_user0,path=/s,server=1,mode=0777", "'mode=0777' is not possible"),
            ("net_virtio_user0,path=/s,server=1,group=none-such", "there is no group 'none-such'"),
            ("net_virtio_user0,path=/s,tap_fd=3", "'tap_fd' is of path=/dev/vhost-net"),
            ("net_virtio_user0,path=/dev/vhost-net,server=1", "'server' is of a vhost-user socket"),
            ("net_virtio_user0,path=/dev/vhost-net,packed_vq=1", "/dev/vhost-net has split rings only"),
            ("net_virtio_user0,path=/dev/vhost-net,iface=a-name-much-too-long", "at most 15"),
            ("net_virtio_user0,path=/dev/vhost-net,iface=a%sb", "%d at most once"),
            ("net_virtio_user0,path=/dev/vhost-net,iface=x,tap_fd=3", "'tap_fd' cannot go with 'iface'"),
            ("net_virtio_user0,path=/dev/vhost-net,tap_fd=1", "'tap_fd=1' is not possible"),
            (
                "net_virtio_user0,path=/dev/vhost-net,tap_fd=3:4",
                "2 descriptors in 'tap_fd' for 1 queue pairs; give one",
            ),
            ("net_virtio_user0,path=/dev/vhost-net,vhost_fd=3,tap_fd=3", "in 'tap_fd' and in 'vhost_fd'"),
            ("net_virtio_user0,path=/dev/vhost-net,queue_size=300", "not a power of two"),
            ("net_virtio_user0,path=/dev/vhost-vdpa-99,iface=x", "'iface' is of path=/dev/vhost-net"),
            ("net_virtio_user0,path=/dev/vhost-vdpa-99,packed_vq=1,queue_size=300", "give a power of two"),
            ("net_virtio_user0,path=/dev/vhost-vdpa-99,server=1", "'server' is of a vhost-user socket"),
            (long.as_str(), "bytes"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains('\n') && error.starts_with("net_virtio_user0: "), "{error}");
        }
    }
}
