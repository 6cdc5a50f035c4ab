//! Receive queues to `await` in a tokio program, which then burns no core.
//!
//! ```text
//!   task ─ Receiver::receive ─ rx_burst, arm ─ any driver
//!             └ asleep ─ AsyncFd ─ tokio's reactor ◄── the queue's descriptor is readable
//! ```
//! A [`Receiver`] is made of one receive queue of a started port and waits as [`linecard_pmd::wake`] describes:
//!
//! ```
//! use linecard::prelude::*;
//! use linecard_tokio::Receiver;
//!
//! async fn echo() -> Result<(), Box<dyn std::error::Error>> {
//!     let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "32"])?.0)?;
//!     let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024))?;
//!     let mut port = linecard::open(&eal, &pool, "net_ring0")?;
//!     let mut receiver = Receiver::new(port.rx.remove(0));
//!
//!     let mut packets = Burst::new();
//!     pool.get_bulk(&mut packets, 3)?;
//!     port.tx[0].tx_burst(&mut packets); // this port receives what it sends
//!     assert_eq!(receiver.receive(&mut packets).await?, 3);
//!
//!     port.rx.push(receiver.into_inner());
//!     port.stop();
//!     Ok(())
//! }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(echo())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **The runtime** needs `enable_io` and `enable_time` (or `enable_all`), and may have any number of threads: a receiver is `Send`.
//!
//! **Transmit** does not wait: `tx_burst` takes what fits. Call [`reclaim`](linecard_pmd::TxQueue::reclaim) before you await, so that
//! what the queue put off is done.
//!
//! **For the most packets a second** a thread of its own that polls remains the way; a task shares its thread, and its queue
//! waits while others have their turn.
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use linecard_mempool::Burst;
use linecard_pmd::wake::ArmBudget;
use linecard_pmd::{Armed, RxQueue};
use tokio::io::unix::AsyncFd;

/// How often a queue is looked at that nothing wakes for, unless [set](Receiver::set_nap).
pub const NAP: Duration = Duration::from_millis(1);

/// A receive queue to `await`. The [crate](self) has an example.
pub struct Receiver {
    queue: Box<dyn RxQueue>,
    /// Of a duplicate of the queue's descriptor, which stays the same as long as the queue exists; from the first sleep on.
    event: Option<AsyncFd<OwnedFd>>,
    nap: Duration,
    budget: ArmBudget,
}

/// A queue that was armed: disarmed when the waiting ends, also by being cancelled.
struct Waiting<'a>(&'a mut dyn RxQueue);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.disarm();
    }
}

impl Receiver {
    /// Of this queue.
    #[must_use]
    pub fn new(mut queue: Box<dyn RxQueue>) -> Self {
        queue.prepare_arm();
        Self { queue, event: None, nap: NAP, budget: ArmBudget::new() }
    }

    /// How often the queue is looked at while nothing would wake the task: some drivers never wake, others not always.
    pub fn set_nap(&mut self, nap: Duration) {
        self.nap = nap;
    }

    /// Waits until packets come and appends them to `packets`; how many. Returns 0 only where `packets` has no room.
    ///
    /// It may be cancelled (in `select!`, by a timeout): no packet is lost by that, and the peer is told that nobody sleeps
    /// any more. A queue that its peer stopped for ever ([`RxQueue::rx_burst`]) never gives packets: bound the wait if that counts.
    ///
    /// # Errors
    /// The queue's descriptor cannot be waited on: the runtime's limit of descriptors, or a driver that breaks its contract.
    ///
    /// # Panics
    /// The runtime was made without `enable_io` or `enable_time`, or there is none.
    pub async fn receive(&mut self, packets: &mut Burst) -> io::Result<usize> {
        if packets.room() == 0 {
            return Ok(0);
        }
        loop {
            let count = self.queue.rx_burst(packets);
            if count > 0 {
                return Ok(count);
            }
            self.wait().await?;
        }
    }

    /// Sleeps until there may be something to receive.
    async fn wait(&mut self) -> io::Result<()> {
        let Self { queue, event, nap, budget } = self;
        if !budget.take(Instant::now()) {
            // Arming interrupts other threads. The queue is polled until it may be armed again.
            tokio::task::yield_now().await;
            return Ok(());
        }
        let armed = queue.arm();
        let waiting = Waiting(queue.as_mut());
        match armed {
            // Others get their turn, should it say so for ever.
            Armed::Ready => tokio::task::yield_now().await,
            Armed::Unable => tokio::time::sleep(*nap).await,
            Armed::Asleep => {
                let event = match event {
                    Some(event) => event,
                    None => event.insert(descriptor(&*waiting.0)?),
                };
                // Cleared before the queue is looked at: what comes later makes it ready again.
                event.readable().await?.clear_ready();
            }
        }
        Ok(())
    }

    /// The queue, for its other methods.
    #[must_use]
    pub fn queue(&self) -> &dyn RxQueue {
        self.queue.as_ref()
    }

    /// The queue, for its port to be [stopped](linecard_pmd::Port::stop).
    #[must_use]
    pub fn into_inner(self) -> Box<dyn RxQueue> {
        self.queue
    }
}

fn descriptor(queue: &dyn RxQueue) -> io::Result<AsyncFd<OwnedFd>> {
    let missing = || io::Error::new(io::ErrorKind::Unsupported, "the queue has nothing to wait on; poll it");
    AsyncFd::new(queue.event().ok_or_else(missing)?.try_clone_to_owned()?)
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("path", &self.queue.path())
            .field("nap", &self.nap)
            .finish_non_exhaustive()
    }
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
