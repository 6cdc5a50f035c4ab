//! Linecard: userspace packet processing. Virtio-user and vhost-user ports, rings and packet pools,
//! without root and without hugepages.
//!
//! The path of a packet through a program:
//!
//! ```
//! use linecard::prelude::*;
//!
//! let (args, _) = EalArgs::parse(["--no-huge", "-m", "32"])?;
//! let eal = Eal::new(&args)?;
//! let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024))?;
//! let mut port = linecard::open(&eal, &pool, "net_null0")?;
//!
//! let mut packets = Burst::new();
//! port.rx[0].rx_burst(&mut packets);
//! for packet in packets.iter_mut() {
//!     if let Some([first, ..]) = packet.data_mut() {
//!         *first = 2;
//!     }
//! }
//! port.tx[0].tx_burst(&mut packets);
//! assert!(packets.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`open`] takes a device argument as a user types it; [`ports`] has one type per driver. A program that
//! reads and writes one packet at a time, and sleeps while there are none, uses [`blocking`].
//!
//! | type | threads |
//! |---|---|
//! | [`Pool`], [`Packet`](mempool::Packet), [`Burst`](mempool::Burst), [`Eal`], [`PortControl`](pmd::PortControl) | `Send` and `Sync`: any thread, several at a time |
//! | [`Port`], [`RxQueue`](pmd::RxQueue), [`TxQueue`](pmd::TxQueue), [`Device`](pmd::Device), [`blocking::PacketPort`] | `Send`: any thread, one at a time |
//! | [`ring`] in mode `Single`, `Multi` and others | `Send`; `Sync` and `Clone` in the shared modes |
//!
//! Each driver is a cargo feature named after its devices (`net_tap`, `net_af_xdp`, ...). The defaults are
//! `net_vhost`, `net_virtio_user`, `net_ring` and `net_null`; `full` enables all drivers.

pub use linecard_capture as capture;
pub use linecard_eal as eal;
pub use linecard_mempool as mempool;
pub use linecard_net as net;
pub use linecard_netdev as netdev;
pub use linecard_pmd as pmd;
pub use linecard_ring as ring;
pub use linecard_telemetry as telemetry;
pub use linecard_virtio as virtio;

pub mod blocking;
#[cfg(feature = "net_virtio_user")]
pub mod container;

use std::time::Duration;

use pmd::Registry;
use prelude::{Eal, Pool, Port, PortConfig, ProbeContext, configure};

mod drivers;
#[cfg_attr(
    not(feature = "full"),
    allow(
        dead_code,
        unreachable_pub,
        unused_imports,
        unused_macros,
        reason = "each driver uses a part of what builds its arguments"
    )
)]
pub mod ports;

pub use drivers::*;

/// How long [`open`] waits for a peer that a device requires.
const WAIT: Duration = Duration::from_secs(3);

/// Opens the device that `arguments` names, in the form of `--vdev`, and starts it with one receive queue,
/// one transmit queue and packets from `pool`.
///
/// To use more queues, offloads, or a wait for the peer other than three seconds, call the three steps
/// separately: [`Registry::probe`](pmd::Registry::probe), [`configure`] and
/// [`Configured::start`](pmd::Configured::start). `linecard capture` sees the port once it is passed to
/// [`capture::serve`]; `linecard top` and `dpdk-telemetry.py` read its counters once it is registered with
/// [`telemetry::serve`]. [`contain`](pmd::contain::contain()) limits the effect of a panic in a driver to its
/// port, for a thread that polls several ports.
///
/// ```
/// use linecard::prelude::*;
/// let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "32"])?.0)?;
/// let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024))?;
/// let mut port = linecard::open(&eal, &pool, "net_null0")?;
/// assert_eq!(port.tx[0].tx_burst(&mut Burst::new()), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// No driver has this name, the driver rejects the arguments, or the device cannot be opened.
pub fn open(eal: &Eal, pool: &Pool, arguments: &str) -> Result<Port, pmd::Error> {
    open_with(&drivers(), eal, pool, arguments)
}

/// As [`open`], with the drivers in `known`, so that devices of other crates open in the same way.
/// [`drivers`] returns the drivers of this crate; [`Registry::with`] adds one.
///
/// ```
/// use linecard::pmd::{Device, Driver, Error, args::DevArgs};
/// use linecard::prelude::*;
///
/// /// A driver that has no device to open.
/// struct Absent;
/// impl Driver for Absent {
///     fn name(&self) -> &'static str {
///         "net_absent"
///     }
///     fn summary(&self) -> &'static str {
///         "devices that are not there"
///     }
///     fn probe(&self, _: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
///         Err(args.problem("there is no such device", "name another"))
///     }
/// }
///
/// let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "32"])?.0)?;
/// let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024))?;
/// let known = linecard::drivers().with(&Absent);
/// assert!(linecard::open_with(&known, &eal, &pool, "net_null0").is_ok());
/// let problem = linecard::open_with(&known, &eal, &pool, "net_absent0").err().expect("none to open").to_string();
/// assert!(problem.contains("there is no such device"), "{problem}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`open`].
pub fn open_with(known: &Registry, eal: &Eal, pool: &Pool, arguments: &str) -> Result<Port, pmd::Error> {
    let context = ProbeContext::new(eal.memory().clone(), pool.domain().clone(), WAIT);
    let device =
        known.probe(&context, arguments).map_err(|error| missing_feature(error, drivers::LEFT_OUT))?;
    Ok(configure(device, PortConfig::default())?.start(pool)?)
}

/// Names the feature to enable if `error` is about a device whose driver is not in this build.
fn missing_feature(error: pmd::Error, left_out: &[&str]) -> pmd::Error {
    let pmd::Error::UnknownDriver { device, .. } = &error else { return error };
    let number = |driver: &&&str| {
        device.strip_prefix(**driver).map(|number| number.bytes().all(|b| b.is_ascii_digit()))
    };
    match left_out.iter().find(|driver| number(driver) == Some(true)) {
        Some(driver) => pmd::Error::Argument {
            device: device.clone(),
            problem: "its driver is not in this build".into(),
            remedy: format!(
                "add \"{driver}\" to the features of linecard in Cargo.toml, or \"full\" for all drivers"
            ),
        },
        None => error,
    }
}

/// The items that nearly every program needs.
pub mod prelude {
    pub use crate::eal::{Eal, EalArgs, EalConfig, MemoryConfig, Stop, Workers};
    pub use crate::mempool::{Burst, Packet, Pool, PoolConfig};
    pub use crate::pmd::{Adaptive, Port, PortConfig, ProbeContext, RxQueue, TxQueue, configure};
}

eal::threads! {
    blocking::PacketPort: Send, not Sync;
    blocking::PacketReader: Send, not Sync;
    blocking::PacketWriter: Send, not Sync;
}

#[cfg(test)]
mod tests {
    use super::{missing_feature, pmd};

    #[test]
    fn a_device_whose_driver_was_left_out_says_which_feature_it_needs() {
        let answer = |device: &str| {
            let unknown = pmd::Error::UnknownDriver { device: device.into(), known: "net_null".into() };
            missing_feature(unknown, &["net_tap"]).to_string()
        };
        let want = "net_tap0: its driver is not in this build; add \"net_tap\" to the features of linecard in Cargo.toml, or \"full\" for all drivers";
        assert_eq!(answer("net_tap0"), want);
        for other in ["net_tapx", "net_ta", "net_ta0"] {
            assert_eq!(answer(other), format!("no driver for device '{other}'; known drivers: net_null"));
        }
    }
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// The programs of the guide, compiled and run by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../docs/guide/library.md")]
pub struct Library;
