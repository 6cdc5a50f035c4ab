//! Ports on network interfaces of the kernel.

use super::plan::Plan;

port! {
    /// A kernel interface whose other end is the port (`net_tap`).
    ///
    /// ```no_run
    /// # use linecard::prelude::*;
    /// # let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"])?.0)?;
    /// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default())?;
    /// let port = linecard::ports::Tap::new("lc0").queues(2).open(&eal, &pool)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Tap = "net_tap", queues: None, {
        /// The interface with this name, created if it does not exist.
        pub fn new(interface: &str) -> Self {
            Self(Plan::new("net_tap").with("iface", interface))
        }

        /// Queues in each direction; 1 by default.
        pub fn queues(self, count: u16) -> Self {
            Self(self.0.queues(count, None))
        }
    }
}

port! {
    /// An existing interface, through packet sockets (`net_af_packet`).
    ///
    /// ```no_run
    /// # use linecard::prelude::*;
    /// # let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"])?.0)?;
    /// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default())?;
    /// let port = linecard::ports::AfPacket::on("eth0").open(&eal, &pool)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    AfPacket = "net_af_packet", queues: Some("qpairs"), {
        /// The interface with this name.
        pub fn on(interface: &str) -> Self {
            Self(Plan::new("net_af_packet").with("iface", interface))
        }

        /// Number of sockets, each a queue in both directions; 1 by default.
        pub fn queues(self, count: u16) -> Self {
            Self(self.0.queues(count, Some("qpairs")))
        }
    }
}

port! {
    /// An existing interface, through XDP sockets (`net_af_xdp`).
    ///
    /// ```no_run
    /// # use linecard::prelude::*;
    /// # let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"])?.0)?;
    /// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default())?;
    /// let port = linecard::ports::AfXdp::on("eth0").queues(4).open(&eal, &pool)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    AfXdp = "net_af_xdp", queues: Some("queue_count"), {
        /// The interface with this name.
        pub fn on(interface: &str) -> Self {
            Self(Plan::new("net_af_xdp").with("iface", interface))
        }

        /// Number of sockets, one per queue of the interface; 1 by default.
        pub fn queues(self, count: u16) -> Self {
            Self(self.0.queues(count, Some("queue_count")))
        }

        /// The first queue of the interface that is used; 0 by default.
        pub fn start_queue(self, queue: u16) -> Self {
            Self(self.0.number("start_queue", queue))
        }
    }
}

port! {
    /// A kernel network device that this process implements through VDUSE (`net_vduse`).
    ///
    /// ```no_run
    /// # use linecard::prelude::*;
    /// # let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"])?.0)?;
    /// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default())?;
    /// let port = linecard::ports::Vduse::new("net0").device_mtu(9000).open(&eal, &pool)?;
    /// // Then, as root: vdpa dev add name net0 mgmtdev vduse
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Vduse = "net_vduse", queues: None, {
        /// The device with this name.
        pub fn new(name: &str) -> Self {
            Self(Plan::new("net_vduse").with("name", name))
        }

        /// The MTU that the device offers to its driver; 1500 by default. The port's own MTU is `mtu`.
        pub fn device_mtu(self, bytes: u16) -> Self {
            Self(self.0.number("mtu", bytes))
        }

        /// The maximum number of descriptors of each ring; 1024 by default.
        pub fn queue_size(self, descriptors: u16) -> Self {
            Self(self.0.number("queue_size", descriptors))
        }

        /// Whether packed rings are offered; `true` by default.
        pub fn packed(self, on: bool) -> Self {
            Self(self.0.flag("packed", on))
        }

        /// Whether the driver may send packets that still have to be segmented; `false` by default.
        pub fn segmentation(self, on: bool) -> Self {
            Self(self.0.flag("tso", on))
        }

        /// The file, on a tmpfs, that keeps the positions of the rings.
        pub fn state(self, file: impl AsRef<std::path::Path>) -> Self {
            Self(self.0.with("state", file.as_ref()))
        }
    }
}
