//! `net_af_xdp`: a network interface of the kernel through XDP sockets, receiving into the pool's own
//! buffers.
//!
//! `net_af_xdp0,iface=NAME,start_queue=0,queue_count=1,shared_umem=0|1,force_copy=0|1,busy_budget=64,xdp_prog=PATH,`
//! `mode=auto|drv|skb,netns=NAME,map=PATH,fd=N[:N…]` — DPDK's names and defaults; `mode`, `netns`, `map` and
//! `fd` are additions.
//!
//! ```text
//!  interface ── XDP program ── map: queue ─► socket ─ rx ring ─► packet of the pool ─► any other port, without a copy
//!                   └─ queues without a socket: the kernel's stack        buffers ◄─ fill ring ─ pool
//! ```
//! - The umem is the pool's own memory. A received packet is an ordinary packet of the pool. A virtio-user or
//!   vhost port, or another port of this driver, sends it without a copy. Packets of other pools, clones, and
//!   external memory are copied for transmission.
//! - Zero-copy is used if the device supports it and the pool lies in hugepages; otherwise the kernel copies.
//!   `show port info` displays the mode (`zero-copy native`, `copy native`, `copy generic`). veth and TAP
//!   copy.
//! - The driver's program has six instructions and is loaded by `bpf(2)`. It is held by a link, which the
//!   kernel removes with the process, however that ends. While the port is opened but not started, frames go
//!   to the kernel's stack.
//! - Packets longer than a buffer arrive in several (`multi-buffer`, Linux 6.6).
//!
//! **Rights.** `CAP_NET_RAW` (socket), `CAP_BPF` and `CAP_NET_ADMIN` (program), `CAP_IPC_LOCK` or `ulimit -l`
//! (memory). A process without them can be passed sockets (`fd=5:6`, one per queue, unused) and the path of a
//! pinned map (`map=`; in DPDK `use_pinned_map=1,dp_path=`), as [`Redirect`] creates it. It then only needs
//! permission to open that file.
//!
//! **A network card** needs a driver with XDP (`native`; others run in the stack, `generic`), preferably one
//! with AF_XDP zero-copy (ixgbe, i40e, ice, igc, mlx5, virtio-net since Linux 6.13, …). Steer the wanted
//! flows to the queues that have sockets (`ethtool -L IFACE combined 1`, or `ethtool -N` rules). For busy
//! polling, set `echo 2 > /sys/class/net/IFACE/napi_defer_hard_irqs; echo 200000 >
//! /sys/class/net/IFACE/gro_flush_timeout`. Zero-copy needs hugepages; it is tested on the virtio-net device
//! of a guest (`cargo test -p linecard-apps --test guest_af_xdp`). Frames that may be longer than a buffer
//! need a device that supports several buffers per frame; otherwise they are copied. Over veth, busy polling
//! costs more than it gains: set `busy_budget=0` there.
//!
//! **A veth** passes frames to XDP sockets even if the stack at its other end left the checksum to hardware
//! that does not exist, and nothing reports that. Run `ethtool -K PEER tx off` there; otherwise the TCP and
//! UDP packets of that stack are rejected by their receivers. In `mode=drv` the kernel itself turns
//! segmentation off at the other end; in `mode=skb` `tx off` includes it.
//!
//! **Not supported**: checksum and segmentation offloads (XDP sockets have none on receive), the metadata of
//! `XDP_TX_METADATA`, programs in ELF files (`xdp_prog=` takes a pinned one: `bpftool prog load FILE /sys/fs/bpf/NAME`),
//! `use_cni=1`.

mod args;
mod bpf;
mod channel;
mod channels;
mod control;
mod cursor;
mod device;
mod fill;
mod program;
mod promiscuous;
mod redirect;
mod refusal;
mod rx;
mod socket;
mod tx;
mod umem;

use std::sync::Mutex;

pub use redirect::Redirect;

use linecard_netdev::Namespace;
use linecard_pmd::args::DevArgs;
use linecard_pmd::error::Error;
use linecard_pmd::port::{Device, Driver, ProbeContext};

const DRIVER: &str = "net_af_xdp";

/// The pools whose memory ports share; global, as the kernel registers memory for the process.
static SHARED: device::SharedUmems = Mutex::new(Vec::new());

/// The driver of `net_af_xdp` devices.
///
/// ```
/// use linecard_pmd::Driver;
/// use linecard_net_af_xdp::AfXdpDriver;
/// assert_eq!(AfXdpDriver.name(), "net_af_xdp");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AfXdpDriver;

impl Driver for AfXdpDriver {
    fn name(&self) -> &'static str {
        DRIVER
    }

    fn summary(&self) -> &'static str {
        "an interface by XDP sockets: iface=NAME, start_queue=N (0), queue_count=N (1), shared_umem=0|1, \
         force_copy=0|1, busy_budget=N (64), mode=auto|drv|skb, netns=NAME, xdp_prog=PINNED, map=PINNED, fd=N[:N...]"
    }

    fn check_args(&self, args: &DevArgs) -> Result<(), Error> {
        args::Options::read(args).map(drop)
    }

    fn probe(&self, _: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
        let options = args::Options::read(args)?;
        let namespace = Namespace::of(args)?;
        Ok(Box::new(device::AfXdp::open(args.name(), options, namespace, &SHARED)?))
    }
}

/// Checks whether the calling thread can open a socket and load a program.
///
/// ```
/// if let Err(error) = linecard_net_af_xdp::available() {
///     println!("no XDP sockets and programs: {error}");
/// }
/// ```
///
/// # Errors
/// The kernel's refusal: CAP_NET_RAW or CAP_BPF is missing, or the kernel has no XDP sockets.
pub fn available() -> std::io::Result<()> {
    socket::Socket::open()?;
    bpf::Program::redirect(&bpf::Sockets::new(1)?)?;
    Ok(())
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests;
