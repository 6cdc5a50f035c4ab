//! One network: who belongs to it, what was learned, and frames that wait to be received.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use linecard_eal::wake::Wake;
use linecard_mempool::{Packet, Pool};

use crate::args::Options;
use crate::stations::Stations;

/// What the endpoint's thread lost, which the receive queue counts as its own.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    pub(crate) full: AtomicU64,
    pub(crate) no_buffer: AtomicU64,
    pub(crate) stranger: AtomicU64,
}

/// A network of a process, shared by its queues and the endpoint's thread.
pub(crate) struct Tunnel {
    pub(crate) vni: u32,
    pub(crate) remotes: Vec<IpAddr>,
    pub(crate) frames: ArrayQueue<Packet>,
    pub(crate) wake: Wake,
    pub(crate) lost: Lost,
    any_peer: bool,
    learn: bool,
    stations: Mutex<Stations>,
    pool: Pool,
}

impl Tunnel {
    pub(crate) fn new(options: &Options, pool: &Pool, depth: u16) -> Self {
        Self {
            vni: options.vni,
            remotes: options.remotes.clone(),
            frames: ArrayQueue::new(usize::from(depth.max(1))),
            wake: Wake::new(),
            lost: Lost::default(),
            any_peer: options.any_peer,
            learn: options.learn,
            stations: Mutex::default(),
            pool: pool.clone(),
        }
    }

    /// What was learned; held for moments only.
    pub(crate) fn stations(&self) -> MutexGuard<'_, Stations> {
        self.stations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame came from `host`. Never waits for who receives: what there is no room for is lost.
    pub(crate) fn receive(&self, frame: &[u8], host: IpAddr, now: Instant) {
        if !self.any_peer && !self.remotes.contains(&host) {
            self.lost.stranger.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.frames.is_full() {
            self.lost.full.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Some(packet) = self.pool.packet_of(frame, usize::from(u16::MAX)) else {
            self.lost.no_buffer.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if let (true, Some(source)) = (self.learn, frame.get(6..).and_then(|rest| rest.first_chunk())) {
            self.stations().learn(*source, host, now);
        }
        if self.frames.push(packet).is_err() {
            self.lost.full.fetch_add(1, Ordering::Relaxed);
        }
        self.wake.wake();
    }
}
