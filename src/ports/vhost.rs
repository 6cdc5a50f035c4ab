//! Frontends and backends of virtio devices.

use std::ffi::OsStr;

use super::plan::Plan;
use crate::pmd::pci::PciAddress;

/// Settings of a virtio driver, independent of the transport.
macro_rules! virtio_settings {
    () => {
        /// Queue pairs; 1 by default.
        pub fn queues(self, pairs: u16) -> Self {
            Self(self.0.queues(pairs, Some("queues")))
        }

        /// Descriptors of each ring; 256 by default.
        pub fn queue_size(self, descriptors: u16) -> Self {
            Self(self.0.number("queue_size", descriptors))
        }

        /// Whether packed rings are requested; split rings by default.
        pub fn packed(self, on: bool) -> Self {
            Self(self.0.flag("packed_vq", on))
        }

        /// Whether a received packet may use several buffers; `true` by default.
        pub fn mergeable(self, on: bool) -> Self {
            Self(self.0.flag("mrg_rxbuf", on))
        }
    };
}

port! {
    /// A virtio frontend (`net_virtio_user`). The [module](crate::ports) has an example.
    VirtioUser = "net_virtio_user", queues: Some("queues"), {
        /// Connects to the vhost-user backend that listens at `path`, and reconnects whenever the backend
        /// comes back. A path that begins with `@` is an abstract name.
        pub fn connect(path: impl AsRef<OsStr>) -> Self {
            Self(Plan::new("net_virtio_user").with("path", path))
        }

        /// Listens at `path` for a vhost-user backend that connects.
        pub fn listen(path: impl AsRef<OsStr>) -> Self {
            Self(Plan::new("net_virtio_user").with("path", path).flag("server", true))
        }

        /// Uses the kernel's vhost-net with the tap interface of this name.
        pub fn vhost_net(interface: &str) -> Self {
            Self(Plan::new("net_virtio_user").with("path", "/dev/vhost-net").with("iface", interface))
        }

        virtio_settings!();

        /// The MAC address of the port.
        pub fn mac(self, address: [u8; 6]) -> Self {
            Self(self.0.number("mac", crate::net::MacAddr(address)))
        }

        /// Whether buffers are used in order if the backend supports it; `true` by default.
        pub fn in_order(self, on: bool) -> Self {
            Self(self.0.flag("in_order", on))
        }
    }
}

port! {
    /// A virtio network card on a PCI bus, bound to `vfio-pci` (`net_virtio_pci`).
    ///
    /// ```no_run
    /// # use linecard::prelude::*;
    /// # let eal = Eal::new(&EalArgs::parse(["-m", "64"])?.0)?;
    /// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default())?;
    /// let card = linecard::ports::VirtioPci::at("0000:00:05.0".parse()?).queues(2);
    /// assert_eq!(card.to_string(), "0000:00:05.0,queues=2");
    /// let port = card.open(&eal, &pool)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    VirtioPci = "net_virtio_pci", queues: Some("queues"), {
        /// The device at this PCI address.
        pub fn at(address: PciAddress) -> Self {
            Self(Plan::named(&address.to_string()))
        }

        virtio_settings!();

        /// The MAC address of the port, instead of the device's.
        pub fn mac(self, address: [u8; 6]) -> Self {
            Self(self.0.number("mac", crate::net::MacAddr(address)))
        }
    }
}

port! {
    /// A vhost-user backend (`net_vhost`). The [module](crate::ports) has an example.
    VhostUser = "net_vhost", queues: Some("queues"), {
        /// Listens at `path` for a frontend. A path that begins with `@` is an abstract name.
        pub fn listen(path: impl AsRef<OsStr>) -> Self {
            Self(Plan::new("net_vhost").with("iface", path))
        }

        /// Connects to a frontend that listens at `path`, and reconnects whenever the frontend comes back.
        pub fn connect(path: impl AsRef<OsStr>) -> Self {
            Self(Plan::new("net_vhost").with("iface", path).flag("client", true))
        }

        /// Queue pairs; 1 by default.
        pub fn queues(self, pairs: u16) -> Self {
            Self(self.0.queues(pairs, Some("queues")))
        }
    }
}
