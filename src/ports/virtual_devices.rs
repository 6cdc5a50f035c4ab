//! Devices implemented in software.

use std::ffi::OsStr;
use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use super::plan::Plan;

port! {
    /// Capture files (`net_pcap`): the port receives the packets of one file and writes sent packets to
    /// another.
    ///
    /// ```
    /// # use linecard::prelude::*;
    /// # let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"])?.0)?;
    /// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024))?;
    /// let file = std::env::temp_dir().join(format!("linecard-ports-{}.pcap", std::process::id()));
    /// let port = linecard::ports::Pcap::writing(&file).open(&eal, &pool)?;
    /// # drop(port);
    /// # std::fs::remove_file(file)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Pcap = "net_pcap", queues: None, {
        /// Receives the packets of this file.
        pub fn reading(file: impl AsRef<OsStr>) -> Self {
            Self(Plan::new("net_pcap").with("rx_pcap", file))
        }

        /// Writes sent packets to this file, which is created or overwritten.
        pub fn writing(file: impl AsRef<OsStr>) -> Self {
            Self(Plan::new("net_pcap").with("tx_pcap", file))
        }

        /// Also writes sent packets to this file.
        pub fn write_to(self, file: impl AsRef<OsStr>) -> Self {
            Self(self.0.with("tx_pcap", file))
        }

        /// Whether the file starts again when its end is reached.
        pub fn repeat(self, on: bool) -> Self {
            Self(self.0.flag("infinite_rx", on))
        }
    }
}

port! {
    /// A tunnel through an IP network (`net_vxlan`), to one or more other hosts.
    ///
    /// ```
    /// # use linecard::prelude::*;
    /// use std::net::Ipv4Addr;
    /// # let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"])?.0)?;
    /// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024))?;
    /// let tunnel = linecard::ports::Vxlan::new(100).remote(Ipv4Addr::new(127, 0, 0, 2)).udp_port(14_789);
    /// let port = tunnel.open(&eal, &pool)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Vxlan = "net_vxlan", queues: None, {
        /// The VXLAN network identifier (VNI), 1 to 16 777 215.
        pub fn new(network: u32) -> Self {
            Self(Plan::new("net_vxlan").number("vni", network))
        }

        /// Adds a remote host.
        pub fn remote(self, host: impl Into<IpAddr>) -> Self {
            let earlier = self.0.args.as_ref().ok().and_then(|args| args.value("remote"));
            let host = host.into();
            let all = earlier.map_or_else(|| host.to_string(), |earlier| format!("{earlier},{host}"));
            Self(self.0.with("remote", all))
        }

        /// The local address; any by default.
        pub fn local(self, address: impl Into<IpAddr>) -> Self {
            Self(self.0.number("local", address.into()))
        }

        /// The UDP port of this host and of the remote hosts; 4789 by default.
        pub fn udp_port(self, port: u16) -> Self {
            Self(self.0.number("port", port))
        }

        /// Time to live of sent packets; 64 by default.
        pub fn ttl(self, hops: u8) -> Self {
            Self(self.0.number("ttl", hops))
        }

        /// Whether the port learns which host each MAC address is behind; `true` by default.
        pub fn learn(self, on: bool) -> Self {
            Self(self.0.flag("learn", on))
        }

        /// Whether packets are accepted from any host instead of only from the remotes; `false` by default.
        pub fn any_peer(self, on: bool) -> Self {
            Self(self.0.with("peers", if on { "any" } else { "remotes" }))
        }
    }
}

port! {
    /// Fault injection in front of another port (`net_impair`). The methods here apply to both directions;
    /// for a single direction use [arguments](Self::argument) such as `rx_loss` and `tx_delay`.
    ///
    /// ```
    /// # use linecard::prelude::*;
    /// use linecard::ports::{Impair, Null};
    /// use std::time::Duration;
    /// # let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"])?.0)?;
    /// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(4096))?;
    /// let port = Impair::over(Null::new().size(128)).loss(0.01).delay(Duration::from_millis(2)).open(&eal, &pool)?;
    /// assert!(Impair::over(Null::new()).loss(1.5).check().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Impair = "net_impair", queues: None, {
        /// Wraps a device, given as one of these types or as a device argument. Only the device argument of a
        /// type is used, not its MTU and offloads.
        pub fn over(device: impl Display) -> Self {
            Self(Plan::new("net_impair").number("on", device))
        }

        /// Queues in each direction, which the wrapped device must have too; 1 by default.
        pub fn queues(self, count: u16) -> Self {
            Self(self.0.queues(count, None))
        }

        /// The seed of the random faults: the same seed gives the same faults; 1 by default.
        pub fn seed(self, seed: u64) -> Self {
            Self(self.0.number("seed", seed))
        }

        /// Fraction of packets that are dropped, from 0 to 1; 0 by default, as are the other fractions.
        pub fn loss(self, share: f64) -> Self {
            Self(self.0.number("loss", share))
        }

        /// Fraction of packets that are duplicated.
        pub fn duplicate(self, share: f64) -> Self {
            Self(self.0.number("duplicate", share))
        }

        /// Fraction of packets that are overtaken by later ones.
        pub fn reorder(self, share: f64) -> Self {
            Self(self.0.number("reorder", share))
        }

        /// Fraction of packets in which one bit is flipped.
        pub fn corrupt(self, share: f64) -> Self {
            Self(self.0.number("corrupt", share))
        }

        /// The delay of each packet, at most one minute.
        pub fn delay(self, time: Duration) -> Self {
            Self(self.0.with("delay", format!("{}ns", time.as_nanos())))
        }

        /// The maximum random delay that is added to `delay`.
        pub fn jitter(self, time: Duration) -> Self {
            Self(self.0.with("jitter", format!("{}ns", time.as_nanos())))
        }

        /// The maximum rate in packets per second; unlimited by default.
        pub fn packet_rate(self, packets: u64) -> Self {
            Self(self.0.with("rate", format!("{packets}pps")))
        }

        /// The maximum rate in bits per second, counting frames; unlimited by default.
        pub fn bit_rate(self, bits: u64) -> Self {
            Self(self.0.with("rate", format!("{bits}bit")))
        }

        /// The maximum number of packets waiting; 1000 by default.
        pub fn limit(self, packets: u32) -> Self {
            Self(self.0.number("limit", packets))
        }
    }
}

port! {
    /// A port that generates the packets it receives and discards the packets it sends (`net_null`).
    ///
    /// ```
    /// # use linecard::prelude::*;
    /// # let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"])?.0)?;
    /// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(4096))?;
    /// let mut port = linecard::ports::Null::new().size(128).queues(2).open(&eal, &pool)?;
    /// let mut packets = Burst::new();
    /// port.rx[1].rx_burst(&mut packets);
    /// assert_eq!(packets[0].len(), 128);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Null = "net_null", queues: None, {
        /// A port that receives packets of 64 zero bytes, as many as the caller asks for.
        #[expect(clippy::new_without_default, reason = "a device, with a number of its own")]
        pub fn new() -> Self {
            Self(Plan::new("net_null"))
        }

        /// Queues in each direction; 1 by default.
        pub fn queues(self, count: u16) -> Self {
            Self(self.0.queues(count, None))
        }

        /// Bytes of each received packet; 64 by default.
        pub fn size(self, bytes: u16) -> Self {
            Self(self.0.number("size", bytes))
        }

        /// Whether the bytes are copied through a buffer; `false` by default.
        pub fn copy(self, on: bool) -> Self {
            Self(self.0.flag("copy", on))
        }

        /// Whether the port receives packets; `true` by default.
        pub fn receive(self, on: bool) -> Self {
            Self(self.0.flag("no-rx", !on))
        }
    }
}

port! {
    /// Packets that stay in this process (`net_ring`): packets sent by one port are received by another port,
    /// or by the same one.
    ///
    /// ```
    /// # use linecard::prelude::*;
    /// use linecard::ports::Ring;
    /// # let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"])?.0)?;
    /// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(4096))?;
    /// let mut left = Ring::create("stage1").open(&eal, &pool)?;
    /// let mut right = Ring::attach("stage1").open(&eal, &pool)?;
    /// let mut packets = Burst::new();
    /// pool.get_bulk(&mut packets, 3)?;
    /// left.tx[0].tx_burst(&mut packets);
    /// assert_eq!(right.rx[0].rx_burst(&mut packets), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Ring = "net_ring", queues: None, {
        /// A port that receives the packets it sends.
        #[expect(clippy::new_without_default, reason = "a device, with a number of its own")]
        pub fn new() -> Self {
            Self(Plan::new("net_ring"))
        }

        /// The first end of the pair with this name, which must not contain colons.
        pub fn create(pair: &str) -> Self {
            Self(Plan::new("net_ring").with("nodeaction", format!("{pair}:0:CREATE")))
        }

        /// The other end of the pair with this name; the first end must exist.
        pub fn attach(pair: &str) -> Self {
            Self(Plan::new("net_ring").with("nodeaction", format!("{pair}:0:ATTACH")))
        }

        /// Queues in each direction; 1 by default.
        pub fn queues(self, count: u16) -> Self {
            Self(self.0.queues(count, None))
        }
    }
}
