//! Devices that are made of software alone.

use std::ffi::OsStr;
use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use super::plan::Plan;

port! {
    /// Capture files (`net_pcap`): packets are received from one and sent to another.
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
        /// The network of this number, 1 to 16 777 215.
        pub fn new(network: u32) -> Self {
            Self(Plan::new("net_vxlan").number("vni", network))
        }

        /// Another host, beside those named already.
        pub fn remote(self, host: impl Into<IpAddr>) -> Self {
            let earlier = self.0.args.as_ref().ok().and_then(|args| args.value("remote"));
            let host = host.into();
            let all = earlier.map_or_else(|| host.to_string(), |earlier| format!("{earlier},{host}"));
            Self(self.0.with("remote", all))
        }

        /// This host's address; any unless set.
        pub fn local(self, address: impl Into<IpAddr>) -> Self {
            Self(self.0.number("local", address.into()))
        }

        /// The UDP port, here and on the other hosts; 4789 unless set.
        pub fn udp_port(self, port: u16) -> Self {
            Self(self.0.number("port", port))
        }

        /// Time to live of what is sent; 64 unless set.
        pub fn ttl(self, hops: u8) -> Self {
            Self(self.0.number("ttl", hops))
        }

        /// Whether it learns behind which host a station is; it does unless set.
        pub fn learn(self, on: bool) -> Self {
            Self(self.0.flag("learn", on))
        }

        /// Whether packets are taken from any host, or from the remotes only, as they are unless set.
        pub fn any_peer(self, on: bool) -> Self {
            Self(self.0.with("peers", if on { "any" } else { "remotes" }))
        }
    }
}

port! {
    /// A bad line before another port (`net_impair`). Faults are of both directions; one direction's are
    /// [arguments](Self::argument): `rx_loss`, `tx_delay` and so on.
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
        /// A line before this device: one of these types, or words. Of a type the device counts, not its MTU and offloads.
        pub fn over(device: impl Display) -> Self {
            Self(Plan::new("net_impair").number("on", device))
        }

        /// Queues in each direction, which the device behind has to have; 1 unless set.
        pub fn queues(self, count: u16) -> Self {
            Self(self.0.queues(count, None))
        }

        /// The same seed, the same faults; 1 unless set.
        pub fn seed(self, seed: u64) -> Self {
            Self(self.0.number("seed", seed))
        }

        /// Share of packets that are dropped, from 0 to 1; none unless set, and so are the others.
        pub fn loss(self, share: f64) -> Self {
            Self(self.0.number("loss", share))
        }

        /// Share of packets that come twice.
        pub fn duplicate(self, share: f64) -> Self {
            Self(self.0.number("duplicate", share))
        }

        /// Share of packets that later ones overtake.
        pub fn reorder(self, share: f64) -> Self {
            Self(self.0.number("reorder", share))
        }

        /// Share of packets in which one bit is flipped.
        pub fn corrupt(self, share: f64) -> Self {
            Self(self.0.number("corrupt", share))
        }

        /// How much later packets come, a minute at most.
        pub fn delay(self, time: Duration) -> Self {
            Self(self.0.with("delay", format!("{}ns", time.as_nanos())))
        }

        /// And later still, by up to this.
        pub fn jitter(self, time: Duration) -> Self {
            Self(self.0.with("jitter", format!("{}ns", time.as_nanos())))
        }

        /// Packets a second; any number unless set.
        pub fn packet_rate(self, packets: u64) -> Self {
            Self(self.0.with("rate", format!("{packets}pps")))
        }

        /// Bits of frames a second; any number unless set.
        pub fn bit_rate(self, bits: u64) -> Self {
            Self(self.0.with("rate", format!("{bits}bit")))
        }

        /// Packets that may wait; 1000 unless set.
        pub fn limit(self, packets: u32) -> Self {
            Self(self.0.number("limit", packets))
        }
    }
}

port! {
    /// A port that invents what it receives and discards what it sends (`net_null`).
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
        /// Packets of 64 zeros, as many as are asked for.
        #[expect(clippy::new_without_default, reason = "a device, with a number of its own")]
        pub fn new() -> Self {
            Self(Plan::new("net_null"))
        }

        /// Queues in each direction; 1 unless set.
        pub fn queues(self, count: u16) -> Self {
            Self(self.0.queues(count, None))
        }

        /// Bytes of each received packet; 64 unless set.
        pub fn size(self, bytes: u16) -> Self {
            Self(self.0.number("size", bytes))
        }

        /// Whether the bytes are moved through a buffer; they are not unless set.
        pub fn copy(self, on: bool) -> Self {
            Self(self.0.flag("copy", on))
        }

        /// Whether it receives; it does unless set.
        pub fn receive(self, on: bool) -> Self {
            Self(self.0.flag("no-rx", !on))
        }
    }
}

port! {
    /// Packets that stay in this process (`net_ring`): sent by one port and received by another, or by itself.
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
        /// A port that receives what it sends.
        #[expect(clippy::new_without_default, reason = "a device, with a number of its own")]
        pub fn new() -> Self {
            Self(Plan::new("net_ring"))
        }

        /// The first end of the pair of this name, without colons.
        pub fn create(pair: &str) -> Self {
            Self(Plan::new("net_ring").with("nodeaction", format!("{pair}:0:CREATE")))
        }

        /// The other end of the pair of this name, which was created before.
        pub fn attach(pair: &str) -> Self {
            Self(Plan::new("net_ring").with("nodeaction", format!("{pair}:0:ATTACH")))
        }

        /// Queues in each direction; 1 unless set.
        pub fn queues(self, count: u16) -> Self {
            Self(self.0.queues(count, None))
        }
    }
}
