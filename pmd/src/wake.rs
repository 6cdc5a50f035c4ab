//! Sleeping until a packet comes.
//!
//! A queue that is [armed](crate::RxQueue::arm) makes its [descriptor](crate::RxQueue::event) readable when packets come.
//! Arm, look at what arming said, and only then sleep: so no wake-up is lost, however the packets fall.
//!
//! | [`Armed`] | |
//! |---|---|
//! | [`Ready`](Armed::Ready) | packets are there already: receive them |
//! | [`Asleep`](Armed::Asleep) | wait for the descriptor, with a bound of your own; then [disarm](crate::RxQueue::disarm) and receive |
//! | [`Unable`](Armed::Unable) | nothing would wake you at the moment: poll, or look again soon |
//!
//! **The descriptor** belongs to the queue and is the same as long as the queue exists, also when a peer goes and another
//! comes: the sleeper wakes then, and arms anew. A port that is stopped and started has new queues, and so new
//! descriptors. It is there after the first `Asleep`, it is only to be waited on (`poll`, `epoll`, an `AsyncFd`), and a
//! duplicate of it may be kept. Some are level-triggered (sockets), some stay readable until the queue is armed again.
//!
//! **Which drivers wake:**
//!
//! | driver | by |
//! |---|---|
//! | `net_virtio_user` | the call eventfd of the ring, through a thread of the port ([`Relay`](linecard_eal::wake::Relay)) |
//! | `net_vhost` | the kick eventfd of the ring, likewise; not for a frontend that gave none |
//! | `net_ring`, `net_vxlan` | an eventfd that the sending port, or the thread that reads the tunnel, signals |
//! | `net_tap`, `net_af_packet`, `net_af_xdp` | the queue's own descriptor; not while AF_XDP busy-polls |
//! | `net_impair` | the port behind it; not while packets are delayed here |
//! | `net_pcap`, `net_null` | nothing: frames are there whenever asked for, or come by the clock, or never |
//!
//! **What it costs:** nothing per packet on a queue that nobody arms. Arming costs a system call or two and a full fence.
//!
//! **A peer** that never signals costs its own packets the sleeper's bound, no more. One that signals without having packets
//! wakes a sleeper at most 64 times a millisecond, and [`Adaptive`] then falls back to looking every [`NAP`].
//!
//! Transmit queues have nothing to arm: call [`reclaim`](crate::TxQueue::reclaim) before you sleep, so that what they put off
//! is done.

mod adaptive;

pub use adaptive::{Adaptive, NAP, WaitOutcome};

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What [`arm`](crate::RxQueue::arm) says; see [the module](self).
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
    /// Packets, or something else that receiving will take care of, are there already.
    Ready,
    /// Nothing is there; what comes makes the descriptor readable.
    Asleep,
    /// Nothing would wake the caller at the moment.
    Unable,
}

/// Arms what the kernel wakes for, in a driver: nothing has to be asked, only looked at.
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
        // An interface that was down says so until it is asked.
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
