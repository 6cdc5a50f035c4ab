//! `net_af_xdp`: an interface of the kernel by XDP sockets, receiving into the pool's own buffers.
//!
//! `net_af_xdp0,iface=NAME,start_queue=0,queue_count=1,shared_umem=0|1,force_copy=0|1,busy_budget=64,xdp_prog=PATH,`
//! `mode=auto|drv|skb,netns=NAME,map=PATH,fd=N[:N…]` — DPDK's names and defaults, and `mode`, `netns`, `map`, `fd` of ours.
//!
//! ```text
//!  interface ── XDP program ── map: queue ─► socket ─ rx ring ─► packet of the pool ─► any other port, uncopied
//!                   └─ queues without a socket: the kernel's stack        buffers ◄─ fill ring ─ pool
//! ```
//! - The umem is the pool's own memory. A packet that was received is a packet of the pool like any other, and goes out
//!   of a virtio-user or vhost port, or of another port of this driver, where it lies. Packets of other pools, clones, and
//!   external memory are copied on the way out.
//! - Zero-copy where the device can and the pool lies in hugepages, else the kernel copies; `show port info` says which
//!   (`zero-copy native`, `copy native`, `copy generic`). veth and TAP copy.
//! - Our program is six instructions, loaded by `bpf(2)`. It is held by a link that the kernel ends with the process,
//!   however that ends. While the port is opened and not started, frames go to the kernel's stack.
//! - Packets longer than a buffer arrive in several (`multi-buffer`, Linux 6.6).
//!
//! **Rights.** `CAP_NET_RAW` (socket), `CAP_BPF` and `CAP_NET_ADMIN` (program), `CAP_IPC_LOCK` or `ulimit -l`
//! (memory). A process without them is handed sockets (`fd=5:6`, one per queue, fresh) and the name of a pinned map
//! (`map=`; DPDK writes `use_pinned_map=1,dp_path=`), as [`Redirect`] makes it; then it needs no right but to open that file.
//!
//! **A network card** needs a driver with XDP (`native`; others run in the stack, `generic`), better one with AF_XDP
//! zero-copy (ixgbe, i40e, ice, igc, mlx5, virtio-net since Linux 6.13, …); the wanted flows steered to the queues that
//! have sockets (`ethtool -L IFACE combined 1`, or `ethtool -N` rules); for busy polling
//! `echo 2 > /sys/class/net/IFACE/napi_defer_hard_irqs; echo 200000 > /sys/class/net/IFACE/gro_flush_timeout`; hugepages
//! for zero-copy, which is tested on the virtio-net of a guest (`cargo test -p linecard-apps --test guest_af_xdp`). Frames
//! that may be longer than a buffer need a device that takes several of them, else they are copied. Over veth busy polling
//! costs more than it brings: give `busy_budget=0` there.
//!
//! **A veth** lets XDP sockets have packets whose checksum a stack at its other end left to hardware that does not
//! exist, and nothing tells: `ethtool -K PEER tx off` there, or that stack's TCP and UDP reach nobody. In `mode=drv` the
//! kernel turns segmentation off at the other end by itself, in `mode=skb` it goes with `tx off`.
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

/// Which pools' memory is shared among ports: a fact of this process and its kernel.
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

/// Whether a socket can be opened and a program loaded by the calling thread.
///
/// ```
/// if let Err(error) = linecard_net_af_xdp::available() {
///     println!("no XDP sockets and programs: {error}");
/// }
/// ```
///
/// # Errors
/// What the kernel refuses: CAP_NET_RAW or CAP_BPF is missing, or it was built without XDP sockets.
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
