//! Sleeping until a packet comes.
//!
//! A queue that is [armed](crate::RxQueue::arm) makes its [descriptor](crate::RxQueue::event) readable when
//! packets arrive. Arm first, check the result, and only then sleep: no wake-up is lost then.
//!
//! | [`Armed`] | |
//! |---|---|
//! | [`Ready`](Armed::Ready) | packets have already arrived: receive them |
//! | [`Asleep`](Armed::Asleep) | wait for the descriptor, with a timeout of your own; then [disarm](crate::RxQueue::disarm) and receive |
//! | [`Unable`](Armed::Unable) | no wake-up is possible at the moment: poll, or check again soon |
//!
//! **The descriptor** belongs to the queue and stays the same for the lifetime of the queue, also when
//! another peer connects: the sleeper wakes then and arms again. A port that is stopped and started has new
//! queues and new descriptors. The descriptor exists after the first `Asleep`, is only for waiting (`poll`,
//! `epoll`, an `AsyncFd`), and may be duplicated. Some are level-triggered (sockets), others stay readable
//! until the queue is armed again.
//!
//! **Drivers that support wake-ups:**
//!
//! | driver | by |
//! |---|---|
//! | `net_virtio_user` | the call eventfd of the ring, through a thread of the port ([`Relay`](linecard_eal::wake::Relay)) |
//! | `net_vhost` | the kick eventfd of the ring, likewise; not for a frontend that provides none |
//! | `net_ring`, `net_vxlan` | an eventfd that the sending port, or the thread that reads the tunnel, signals |
//! | `net_tap`, `net_af_packet`, `net_af_xdp` | the queue's own descriptor; not while AF_XDP busy-polls |
//! | `net_impair` | the port behind it; not while it delays packets |
//! | `net_pcap`, `net_null` | nothing: frames are always available, arrive at set times, or never |
//!
//! **Cost:** nothing per packet on a queue that is not armed. Arming costs one or two system calls and a full
//! fence. One of them, `membarrier(2)`, interrupts every core that runs a thread of the process; a thread with
//! several queues needs one for all of them ([`begin_arm`](crate::RxQueue::begin_arm)), and bounds how often it
//! arms with an [`ArmBudget`]. [`Adaptive`] does both. The first arming also
//! creates descriptors and, for `net_vhost` and `net_virtio_user`, a thread:
//! [`prepare_arm`](crate::RxQueue::prepare_arm) does that earlier, on another thread.
//!
//! **Misbehaving peers:** a peer that never signals delays its own packets by the sleeper's timeout. A peer
//! that signals without packets wakes a sleeper at most 64 times per millisecond; [`Adaptive`] then falls
//! back to polling every [`NAP`], and does so as well for a peer that wakes it with packets more than 10 000 times
//! per second.
//!
//! Transmit queues are not armed: call [`reclaim`](crate::TxQueue::reclaim) before you sleep, so that their
//! deferred work is done.

mod adaptive;
mod pause;

pub use adaptive::{Adaptive, NAP, WaitOutcome};
pub use linecard_eal::wake::ArmBudget;
pub use pause::PollPause;

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The result of [`arm`](crate::RxQueue::arm); see [the module](self).
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// # use linecard_net_ring as ring;
/// # use linecard_pmd::{PortConfig, configure};
/// # let memory = Memory::new(MemoryConfig::default())?;
/// # let domain = memory.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// use linecard_pmd::Armed;
/// let (left, right) = ring::pair("left", "right");
/// let mut left = configure(left, PortConfig::default())?.start(&pool)?;
/// let mut right = configure(right, PortConfig::default())?.start(&pool)?;
/// assert_eq!(right.rx[0].arm(), Armed::Asleep);
/// let mut packets = Burst::new();
/// pool.get_bulk(&mut packets, 1)?;
/// left.tx[0].tx_burst(&mut packets); // `right.rx[0].event()` is readable from here on
/// assert_eq!(right.rx[0].arm(), Armed::Ready);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    /// Packets, or something else that receiving handles, have already arrived.
    Ready,
    /// Nothing has arrived yet; an arrival makes the descriptor readable.
    Asleep,
    /// No wake-up is possible at the moment.
    Unable,
}

/// For drivers: arms a descriptor that the kernel makes readable by itself, by only checking its state.
///
/// ```
/// use linecard_pmd::wake::{Armed, arm_descriptor};
/// let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
/// assert_eq!(arm_descriptor(&ours), Armed::Asleep);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn arm_descriptor(fd: impl AsFd) -> Armed {
    let look = || {
        let mut set = [PollFd::new(&fd, PollFlags::IN)];
        match poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) => set[0].revents(),
            Err(_) => PollFlags::NVAL,
        }
    };
    let mut found = look();
    if found.contains(PollFlags::ERR) {
        // An interface that was down reports this error until it is read.
        let _ = rustix::net::sockopt::socket_error(&fd);
        found = look();
    }
    if found.contains(PollFlags::IN) {
        Armed::Ready
    } else if found.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
        Armed::Unable
    } else {
        Armed::Asleep
    }
}
