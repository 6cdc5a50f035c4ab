//! Ports described by types instead of device arguments: what a program sets itself is checked by the compiler, what a user
//! types goes to [`open`](crate::open).
//!
//! Both are the same to the driver. A value that it refuses is refused when the port is opened, with the same sentence.
//!
//! ```
//! use linecard::ports::{VhostUser, VirtioUser};
//! use linecard::prelude::*;
//!
//! let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"])?.0)?;
//! let pool = Pool::new(&eal.default_domain(), PoolConfig { packets: 4096, ..PoolConfig::default() })?;
//! let path = std::env::temp_dir().join(format!("linecard-ports-{}.sock", std::process::id()));
//! let backend = VhostUser::listen(&path).queues(2).open(&eal, &pool)?;
//! let frontend = VirtioUser::connect(&path).queues(2).queue_size(512).packed(true).open(&eal, &pool)?;
//! assert_eq!((backend.rx.len(), frontend.tx.len()), (2, 2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::ffi::OsStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::eal::Eal;
use crate::mempool::Pool;
use crate::pmd::{DevArgs, Error, Offloads, Port, PortConfig, ProbeContext, configure};

/// What all of them are made of: the arguments that the driver reads, and the port's configuration.
#[derive(Debug)]
struct Plan {
    args: Result<DevArgs, Error>,
    config: PortConfig,
    wait: Duration,
}

impl Plan {
    /// A device of `driver` with a number of its own.
    fn new(driver: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{driver}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Self { args: DevArgs::parse(&name), config: PortConfig::default(), wait: crate::WAIT }
    }

    fn with(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.args = self.args.and_then(|args| match value.as_ref().to_str() {
            Some(text) => Ok(args.with(key, text)),
            None => Err(args.problem(
                format!("the '{key}' {:?} is not valid UTF-8", value.as_ref()),
                "use a name that is",
            )),
        });
        self
    }

    fn flag(self, key: &str, on: bool) -> Self {
        self.with(key, if on { "1" } else { "0" })
    }

    fn queues(mut self, count: u16, key: Option<&str>) -> Self {
        (self.config.rx_queues, self.config.tx_queues) = (count, count);
        match key {
            Some(key) => self.with(key, count.to_string()),
            None => self,
        }
    }

    fn open(self, eal: &Eal, pool: &Pool) -> Result<Port, Error> {
        let context =
            ProbeContext { memory: eal.memory().clone(), domain: pool.domain().clone(), wait: self.wait };
        let device = crate::drivers().probe_args(&context, &self.args?)?;
        Ok(configure(device, self.config)?.start(pool)?)
    }
}

/// A type of ports: its documentation, the feature and driver, and what it has beside what all have.
macro_rules! port {
    ($(#[$meta:meta])* $name:ident = $driver:literal { $($own:tt)* }) => {
        $(#[$meta])*
        #[cfg(feature = $driver)]
        #[derive(Debug)]
        #[must_use = "nothing is opened before `open`"]
        pub struct $name(Plan);

        #[cfg(feature = $driver)]
        impl $name {
            $($own)*

            /// Largest layer-3 packet, in bytes; 1500 unless set.
            pub fn mtu(mut self, bytes: u16) -> Self {
                self.0.config.mtu = bytes;
                self
            }

            /// What the port is asked to do beside moving packets; nothing unless set.
            pub fn offloads(mut self, offloads: Offloads) -> Self {
                self.0.config.offloads = offloads;
                self
            }

            /// How long a peer that is not there yet is waited for; three seconds unless set.
            pub fn wait(mut self, time: Duration) -> Self {
                self.0.wait = time;
                self
            }

            /// An argument of the driver's that has no method here, by its name in
            #[doc = concat!("`", $driver, "`'s arguments.")]
            pub fn argument(self, key: &str, value: &str) -> Self {
                Self(self.0.with(key, value))
            }

            /// Opens, configures and starts the port with buffers of `pool`.
            ///
            /// # Errors
            /// The driver refuses an argument, or the device cannot be had.
            pub fn open(self, eal: &Eal, pool: &Pool) -> Result<Port, Error> {
                self.0.open(eal, pool)
            }
        }
    };
}

port! {
    /// A virtio frontend (`net_virtio_user`). The [module](self) has an example.
    VirtioUser = "net_virtio_user" {
        /// Connects to the vhost-user backend that listens at `path`, and again whenever it comes back. A path that begins with `@`
        /// is an abstract name.
        pub fn connect(path: impl AsRef<OsStr>) -> Self {
            Self(Plan::new("net_virtio_user").with("path", path))
        }

        /// Listens at `path` for a vhost-user backend that connects.
        pub fn listen(path: impl AsRef<OsStr>) -> Self {
            Self(Plan::new("net_virtio_user").with("path", path).flag("server", true))
        }

        /// Uses the kernel's vhost-net, with a tap interface of this name.
        pub fn vhost_net(interface: &str) -> Self {
            Self(Plan::new("net_virtio_user").with("path", "/dev/vhost-net").with("iface", interface))
        }

        /// Queue pairs; 1 unless set.
        pub fn queues(self, pairs: u16) -> Self {
            Self(self.0.queues(pairs, Some("queues")))
        }

        /// Descriptors of each ring; 256 unless set.
        pub fn queue_size(self, descriptors: u16) -> Self {
            Self(self.0.with("queue_size", descriptors.to_string()))
        }

        /// The port's address.
        pub fn mac(self, address: [u8; 6]) -> Self {
            Self(self.0.with("mac", crate::net::MacAddr(address).to_string()))
        }

        /// Asks for packed rings; split ones unless set.
        pub fn packed(self, on: bool) -> Self {
            Self(self.0.flag("packed_vq", on))
        }

        /// Whether a packet may take several receive buffers; it may unless set.
        pub fn mergeable(self, on: bool) -> Self {
            Self(self.0.flag("mrg_rxbuf", on))
        }

        /// Whether buffers are used in order where the backend can; they are unless set.
        pub fn in_order(self, on: bool) -> Self {
            Self(self.0.flag("in_order", on))
        }
    }
}

port! {
    /// A vhost-user backend (`net_vhost`). The [module](self) has an example.
    VhostUser = "net_vhost" {
        /// Listens at `path` for a frontend. A path that begins with `@` is an abstract name.
        pub fn listen(path: impl AsRef<OsStr>) -> Self {
            Self(Plan::new("net_vhost").with("iface", path))
        }

        /// Connects to a frontend that listens at `path`, and again whenever it comes back.
        pub fn connect(path: impl AsRef<OsStr>) -> Self {
            Self(Plan::new("net_vhost").with("iface", path).flag("client", true))
        }

        /// Queue pairs; 1 unless set.
        pub fn queues(self, pairs: u16) -> Self {
            Self(self.0.queues(pairs, Some("queues")))
        }
    }
}

port! {
    /// An interface of the kernel whose other end is the port (`net_tap`).
    ///
    /// ```no_run
    /// # use linecard::prelude::*;
    /// # let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"])?.0)?;
    /// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default())?;
    /// let port = linecard::ports::Tap::new("lc0").queues(2).open(&eal, &pool)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Tap = "net_tap" {
        /// The interface of this name, made if it is not there.
        pub fn new(interface: &str) -> Self {
            Self(Plan::new("net_tap").with("iface", interface))
        }

        /// Queues in each direction; 1 unless set.
        pub fn queues(self, count: u16) -> Self {
            Self(self.0.queues(count, None))
        }
    }
}

port! {
    /// An existing interface by packet sockets (`net_af_packet`).
    ///
    /// ```no_run
    /// # use linecard::prelude::*;
    /// # let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"])?.0)?;
    /// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default())?;
    /// let port = linecard::ports::AfPacket::on("eth0").open(&eal, &pool)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    AfPacket = "net_af_packet" {
        /// The interface of this name.
        pub fn on(interface: &str) -> Self {
            Self(Plan::new("net_af_packet").with("iface", interface))
        }

        /// Sockets, each a queue in both directions; 1 unless set.
        pub fn queues(self, count: u16) -> Self {
            Self(self.0.queues(count, Some("qpairs")))
        }
    }
}

port! {
    /// An existing interface by XDP sockets (`net_af_xdp`).
    ///
    /// ```no_run
    /// # use linecard::prelude::*;
    /// # let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"])?.0)?;
    /// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default())?;
    /// let port = linecard::ports::AfXdp::on("eth0").queues(4).open(&eal, &pool)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    AfXdp = "net_af_xdp" {
        /// The interface of this name.
        pub fn on(interface: &str) -> Self {
            Self(Plan::new("net_af_xdp").with("iface", interface))
        }

        /// Sockets, on as many queues of the interface; 1 unless set.
        pub fn queues(self, count: u16) -> Self {
            Self(self.0.queues(count, Some("queue_count")))
        }

        /// The first of these queues; 0 unless set.
        pub fn start_queue(self, queue: u16) -> Self {
            Self(self.0.with("start_queue", queue.to_string()))
        }
    }
}

port! {
    /// Capture files (`net_pcap`): packets are received from one and sent to another.
    ///
    /// ```
    /// # use linecard::prelude::*;
    /// # let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"])?.0)?;
    /// # let pool = Pool::new(&eal.default_domain(), PoolConfig { packets: 1024, ..PoolConfig::default() })?;
    /// let file = std::env::temp_dir().join(format!("linecard-ports-{}.pcap", std::process::id()));
    /// let port = linecard::ports::Pcap::writing(&file).open(&eal, &pool)?;
    /// # drop(port);
    /// # std::fs::remove_file(file)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Pcap = "net_pcap" {
        /// Receives the packets of this file.
        pub fn reading(file: impl AsRef<OsStr>) -> Self {
            Self(Plan::new("net_pcap").with("rx_pcap", file))
        }

        /// Sends packets to this file, which is made anew.
        pub fn writing(file: impl AsRef<OsStr>) -> Self {
            Self(Plan::new("net_pcap").with("tx_pcap", file))
        }

        /// Sends packets to this file besides.
        pub fn write_to(self, file: impl AsRef<OsStr>) -> Self {
            Self(self.0.with("tx_pcap", file))
        }

        /// Begins with the file again at its end.
        pub fn repeat(self, on: bool) -> Self {
            Self(self.0.flag("infinite_rx", on))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    fn refused(open: impl FnOnce(&Eal, &Pool) -> Result<Port, Error>) -> String {
        let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "32"]).expect("arguments").0).expect("an Eal");
        let config = PoolConfig { packets: 512, ..PoolConfig::default() };
        let pool = Pool::new(&eal.default_domain(), config).expect("a pool");
        open(&eal, &pool).expect_err("it is refused").to_string()
    }

    #[test]
    fn what_a_driver_refuses_is_refused_in_its_own_words() {
        let said = refused(|eal, pool| VirtioUser::connect("/tmp").open(eal, pool));
        assert!(said.contains("a folder, not a socket"), "{said}");
        let said = refused(|eal, pool| VirtioUser::connect("/tmp/x").queue_size(300).open(eal, pool));
        assert!(said.contains("not a power of two"), "{said}");
        let said = refused(|eal, pool| VhostUser::listen("/x").argument("quues", "2").open(eal, pool));
        assert!(said.contains("did you mean 'queues'"), "{said}");
        let said = refused(|eal, pool| VhostUser::connect("").open(eal, pool));
        assert!(said.contains("'iface' is missing"), "{said}");
    }

    #[test]
    fn commas_and_bytes_in_names_are_part_of_them() {
        use std::os::unix::ffi::OsStrExt;
        let plan = VirtioUser::connect("/tmp/a,b=c").0;
        assert_eq!(plan.args.expect("a name").value("path"), Some("/tmp/a,b=c"));
        let said = refused(|eal, pool| VirtioUser::connect(OsStr::from_bytes(b"/\xff")).open(eal, pool));
        assert!(said.contains("not valid UTF-8"), "{said}");
    }

    #[test]
    fn queues_are_asked_of_the_device_and_of_the_port() {
        let plan = AfXdp::on("eth0").queues(4).start_queue(2).0;
        let args = plan.args.expect("a name");
        assert_eq!((args.value("queue_count"), args.value("start_queue")), (Some("4"), Some("2")));
        assert_eq!((plan.config.rx_queues, plan.config.tx_queues), (4, 4));
        let names = [Plan::new("net_tap"), Plan::new("net_tap")]
            .map(|plan| plan.args.expect("a name").name().to_owned());
        assert_ne!(names[0], names[1]);
    }
}
