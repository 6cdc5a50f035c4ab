//! Interfaces of the kernel.

use super::plan::Plan;

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
    Tap = "net_tap", queues: None, {
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
    AfPacket = "net_af_packet", queues: Some("qpairs"), {
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
    AfXdp = "net_af_xdp", queues: Some("queue_count"), {
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
            Self(self.0.number("start_queue", queue))
        }
    }
}

port! {
    /// A network device of the kernel that this process implements, by VDUSE (`net_vduse`).
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
        /// The device of this name.
        pub fn new(name: &str) -> Self {
            Self(Plan::new("net_vduse").with("name", name))
        }

        /// The MTU that the device's driver gets; 1500 unless set. The port's own is `mtu`.
        pub fn device_mtu(self, bytes: u16) -> Self {
            Self(self.0.number("mtu", bytes))
        }

        /// The most descriptors of each ring; 1024 unless set.
        pub fn queue_size(self, descriptors: u16) -> Self {
            Self(self.0.number("queue_size", descriptors))
        }

        /// Whether packed rings are offered; they are unless set.
        pub fn packed(self, on: bool) -> Self {
            Self(self.0.flag("packed", on))
        }

        /// Whether the driver may leave packets to be segmented; not unless set.
        pub fn segmentation(self, on: bool) -> Self {
            Self(self.0.flag("tso", on))
        }

        /// The file in which the positions of the rings are kept, on a tmpfs.
        pub fn state(self, file: impl AsRef<std::path::Path>) -> Self {
            Self(self.0.with("state", file.as_ref()))
        }
    }
}
